//! Reading one segment: header, blocks, seal. FORMAT.md sections 2, 4 and 5 are normative.
//!
//! Every length is bounded before it is used; a block is handed out only after its CRC matched.
//! Strict reading: the first invalid block ends the segment, what stands before it is the valid
//! prefix. [`SegmentReader::salvaging`] goes on behind it, see `segment::resync`.

use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext};
use crate::segment::header::{SegmentHeader, parse_headers};
use crate::segment::layout::{
    BLOCK_ALIGN, BLOCK_DATA, BLOCK_HEADER_BYTES, BLOCK_LARGE, BLOCK_MAGIC, BLOCK_REGISTRY,
    BLOCK_SEAL, BLOCKS_OFFSET, BlockHeader, DATA_BYTES_MAX, HINT_OFFSET, PAYLOAD_BYTES_MAX,
    block_bytes,
};
use crate::segment::resync::{Prefixes, Skipped};
use crate::segment::seal::parse_seal;
use crate::segment::source::Source;

/// Places without a block that are told one by one.
const SKIPPED_MAX: usize = 1000;
/// What is wrong where a valid block is not the next one.
const MISSING: &str = "a block is missing: the sequence does not fit";
/// Bytes that are read at once when going through a segment.
const WINDOW_BYTES: usize = 256 * 1024;
/// One block with a valid CRC.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its header.
    pub header: BlockHeader,
    /// Where it stands in the file.
    pub offset: u64,
    /// Its payload.
    pub payload: &'a [u8],
}

/// The seal of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// Blocks without the seal.
    pub blocks: u64,
    /// Records in data blocks.
    pub records: u64,
    /// Whether the session ends with this segment.
    pub last: bool,
    /// Records per category id.
    pub categories: Vec<(u32, u64)>,
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a seal.
    Sealed(Seal),
    /// Without one, and nothing is known to be missing: still recording, or killed.
    Open {
        /// Where the next block would stand.
        offset: u64,
    },
    /// Blocks are known to be missing from here on.
    Damaged {
        /// Where the first invalid block stands.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
        /// The seal, where it can still be found: it tells how much is missing.
        seal: Option<Seal>,
    },
}

/// Goes through the blocks of one segment.
#[derive(Debug)]
pub struct SegmentReader<S> {
    pub(super) source: S,
    pub(super) path: PathBuf,
    header: SegmentHeader,
    pub(super) byte_count: u64,
    /// Up to where the writer says blocks are complete; may be older than the blocks.
    pub(super) committed: u64,
    next_offset: u64,
    pub(super) next_sequence: Option<u64>,
    blocks: u64,
    end: Option<End>,
    /// Go on behind damage.
    salvage: bool,
    skipped: Vec<Skipped>,
    skipped_bytes: u64,
    pub(super) prefixes: Option<Prefixes>,
    pub(super) window: Vec<u8>,
    /// File offset of `window[0]`.
    window_offset: u64,
    /// Where the window ends at the latest, if a block does not.
    pub(super) window_end_max: u64,
}

/// What stands at an offset.
pub(super) enum Found {
    Valid(BlockHeader),
    Invalid(&'static str),
}

impl Found {
    pub(super) fn valid(self) -> Option<BlockHeader> {
        match self {
            Self::Valid(header) => Some(header),
            Self::Invalid(_) => None,
        }
    }
}

impl<S: Source> SegmentReader<S> {
    /// Reads and checks the header. `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when neither copy of the header is that of a segment that this version
    /// can read; [`Error::Io`].
    pub fn open(source: S, path: &Path) -> Result<Self, Error> {
        let mut head = [0; HINT_OFFSET];
        let count = source
            .read_at(0, &mut head)
            .io_context("cannot read", path)?;
        let header = parse_headers(head.get(..count).unwrap_or_default(), path)?;
        Self::with_header(source, path, header)
    }

    /// With a header from elsewhere, because its own cannot be read.
    pub(super) fn with_header(
        source: S,
        path: &Path,
        header: SegmentHeader,
    ) -> Result<Self, Error> {
        let byte_count = source
            .byte_count()
            .io_context("cannot read the length of", path)?;
        let mut hint = [0; 8];
        let count = source
            .read_at(HINT_OFFSET as u64, &mut hint)
            .io_context("cannot read", path)?;
        let hint = (count == hint.len()).then(|| u64::from_le_bytes(hint));
        Ok(Self {
            source,
            path: path.to_owned(),
            header,
            byte_count,
            committed: hint.unwrap_or(0),
            next_offset: BLOCKS_OFFSET as u64,
            next_sequence: None,
            blocks: 0,
            end: None,
            salvage: false,
            skipped: Vec::new(),
            skipped_bytes: 0,
            prefixes: None,
            window: Vec::new(),
            window_offset: 0,
            window_end_max: u64::MAX,
        })
    }

    /// Hands out every whole block behind damage too.
    #[must_use]
    pub fn salvaging(mut self) -> Self {
        self.salvage = true;
        self
    }

    /// The header.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The path for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file when it was opened.
    pub fn byte_count(&self) -> u64 {
        self.byte_count
    }

    /// How the segment ends; known once [`next_block`](Self::next_block) has returned `None`.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Blocks handed out so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Where no block could be read and some should be: the first 1,000 places.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The bytes of all such places.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    fn skip(&mut self, skipped: Skipped) {
        self.skipped_bytes = self.skipped_bytes.saturating_add(skipped.bytes);
        if self.skipped.len() < SKIPPED_MAX {
            self.skipped.push(skipped);
        }
    }

    /// The next data, registry or large block; `None` at the end of the valid prefix, or of the
    /// segment when salvaging.
    ///
    /// # Errors
    /// [`Error::Io`] when the system cannot read. Damage is not an error, see [`End`].
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        let Some((offset, header)) = self.find_block()? else {
            return Ok(None);
        };
        self.next_sequence = Some(header.sequence.wrapping_add(1));
        let payload_bytes = header.payload_bytes as usize;
        self.next_offset = offset.saturating_add(block_bytes(payload_bytes) as u64);
        if header.kind == BLOCK_SEAL {
            let seal = parse_seal(self.payload(offset, payload_bytes));
            self.end = Some(match seal {
                Some(seal) => End::Sealed(seal),
                None => self.damaged(offset, "the seal cannot be read", None),
            });
            return Ok(None);
        }
        self.blocks = self.blocks.saturating_add(1);
        let payload = self.payload(offset, payload_bytes);
        Ok(Some(Block {
            header,
            offset,
            payload,
        }))
    }

    /// The valid block at `offset`, `None` when there is none or a seal. Reads up to `end` at once.
    ///
    /// # Errors
    /// [`Error::Io`] when the system cannot read.
    pub fn block_at(&mut self, offset: u64, end: u64) -> Result<Option<Block<'_>>, Error> {
        self.window_end_max = end;
        let found = self.read_block_at(offset)?.valid();
        let Some(header) = found.filter(|header| header.kind != BLOCK_SEAL) else {
            return Ok(None);
        };
        let payload = self.payload(offset, header.payload_bytes as usize);
        Ok(Some(Block {
            header,
            offset,
            payload,
        }))
    }

    /// Lets [`next_block`](Self::next_block) go on at `offset`, with this sequence if it is known.
    pub fn go_on_at(&mut self, offset: u64, sequence: Option<u64>) {
        self.next_offset = offset;
        self.next_sequence = sequence;
    }

    /// The next block, seals included; `None` when the segment ends without one.
    fn find_block(&mut self) -> Result<Option<(u64, BlockHeader)>, Error> {
        let offset = self.next_offset;
        let found = if self.salvage {
            self.probe(offset)?
        } else {
            self.read_block_at(offset)?
        };
        let what = match found {
            Found::Valid(header) if self.next_sequence.is_none_or(|n| n == header.sequence) => {
                return Ok(Some((offset, header)));
            }
            Found::Valid(_) => MISSING,
            Found::Invalid(what) => what,
        };
        if self.salvage
            && let Some((at, header)) = self.resync(offset)?
        {
            let next = self.next_sequence;
            self.skip(Skipped {
                offset,
                bytes: at.saturating_sub(offset),
                blocks: next.map(|next| header.sequence.saturating_sub(next)),
                what,
            });
            return Ok(Some((at, header)));
        }
        let seal = self.find_seal(offset)?;
        let known = seal.is_some() || self.committed > offset || offset > self.byte_count;
        self.end = Some(if known || what == MISSING {
            self.damaged(offset, what, seal)
        } else {
            End::Open { offset }
        });
        Ok(None)
    }

    /// The end at damage: what stands from there to the end of the committed part is left out.
    fn damaged(&mut self, offset: u64, what: &'static str, seal: Option<Seal>) -> End {
        let end = self.committed.clamp(offset, self.byte_count.max(offset));
        self.skip(Skipped {
            offset,
            bytes: end.saturating_sub(offset),
            blocks: None,
            what,
        });
        End::Damaged { offset, what, seal }
    }

    /// Checks the block at `offset` and leaves it in the window.
    pub(super) fn read_block_at(&mut self, offset: u64) -> Result<Found, Error> {
        let Some(bytes) = self.view(offset, BLOCK_HEADER_BYTES)? else {
            return Ok(Found::Invalid("the file ends before the next block"));
        };
        let Ok(header) = bytemuck::try_pod_read_unaligned::<BlockHeader>(bytes) else {
            return Ok(Found::Invalid("the file ends before the next block"));
        };
        if let Err(what) = check_block_header(&header) {
            return Ok(Found::Invalid(what));
        }
        let whole = BLOCK_HEADER_BYTES.saturating_add(header.payload_bytes as usize);
        if self.view(offset, whole)?.is_none() {
            return Ok(Found::Invalid("the file ends within a block"));
        }
        let payload = self.payload(offset, header.payload_bytes as usize);
        let (nonce, segment) = (&self.header.file.nonce, self.header.file.segment);
        if header.expected_crc(nonce, segment, payload) != header.crc {
            return Ok(Found::Invalid("the checksum of the block does not match"));
        }
        Ok(Found::Valid(header))
    }

    /// `bytes` bytes at `offset`, `None` where the file is too short. Reads at most the larger of
    /// `bytes` and the window, and never more than the file is long.
    pub(super) fn view(&mut self, offset: u64, bytes: usize) -> Result<Option<&[u8]>, Error> {
        let Some(end) = offset
            .checked_add(bytes as u64)
            .filter(|end| *end <= self.byte_count)
        else {
            return Ok(None);
        };
        let window_end = self.window_offset.saturating_add(self.window.len() as u64);
        if offset < self.window_offset || end > window_end {
            let rest = self.byte_count.saturating_sub(offset);
            let ahead = self.window_end_max.saturating_sub(offset);
            let ahead = ahead.min(WINDOW_BYTES as u64);
            let count = ahead.max(bytes as u64).min(rest) as usize;
            self.window.resize(count, 0);
            self.window_offset = offset;
            let read = self
                .source
                .read_at(offset, &mut self.window)
                .io_context("cannot read", &self.path)?;
            self.window.truncate(read);
        }
        Ok(self.in_window(offset, bytes))
    }

    /// What is in the window from `offset` on.
    pub(super) fn window_from(&self, offset: u64) -> &[u8] {
        let start = offset.checked_sub(self.window_offset);
        let start = start.and_then(|start| usize::try_from(start).ok());
        start
            .and_then(|start| self.window.get(start..))
            .unwrap_or_default()
    }

    pub(super) fn in_window(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.window_offset)?).ok()?;
        self.window.get(start..start.checked_add(bytes)?)
    }

    /// The payload of the block at `offset`, which is in the window.
    pub(super) fn payload(&self, offset: u64, bytes: usize) -> &[u8] {
        let start = offset.saturating_add(BLOCK_HEADER_BYTES as u64);
        self.in_window(start, bytes).unwrap_or_default()
    }
}

/// Bounds everything that the block header says about lengths.
pub(crate) fn check_block_header(header: &BlockHeader) -> Result<(), &'static str> {
    if header.magic != BLOCK_MAGIC {
        return Err("no block where one should stand");
    }
    let bytes_max = match header.kind {
        BLOCK_DATA => DATA_BYTES_MAX,
        BLOCK_REGISTRY | BLOCK_LARGE | BLOCK_SEAL => PAYLOAD_BYTES_MAX,
        _ => return Err("a block of unknown kind"),
    };
    if header.payload_bytes as usize > bytes_max || !header.payload_bytes.is_multiple_of(4) {
        return Err("the length of the block is wrong");
    }
    Ok(())
}

const _: () = assert!(BLOCKS_OFFSET.is_multiple_of(BLOCK_ALIGN));
