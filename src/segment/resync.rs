//! Going on behind damage: the next whole block at any multiple of 8. FORMAT.md section 5.2.
//!
//! Anything can pretend to be the header of a long block, at every 16 bytes. So the checksum of a
//! long one is not taken from its bytes but from two prefixes of the file:
//!
//! ```text
//!   file   |--------------- P(end) ----------------|
//!          |------- P(start) -------|-- payload ---|     P(x): CRC from the first block to x
//! ```
//!
//! The CRC is linear, so that of the payload follows from both. Prefixes are kept every 4 KiB and
//! made once, and each candidate costs the same, however long it says it is: the time of a salvage
//! grows with the length of the file and not with its square.

use std::io;

use crate::error::{Error, IoContext};
use crate::segment::layout::{
    BLOCK_ALIGN, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BLOCKS_OFFSET, BlockHeader, DATA_BYTES_MAX,
};
use crate::segment::reader::{Found, SegmentReader, check_block_header};
use crate::segment::source::Source;

/// Distance of two prefixes that are kept.
const STEP_BYTES: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 12;

/// Bytes of a segment in which no block could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where they start.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Blocks that are missing there by their sequence, where it is known.
    pub blocks: Option<u64>,
    /// What is wrong with the first.
    pub what: &'static str,
}

/// CRCs of the bytes from the first block on.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    /// That of `index * STEP_BYTES` bytes.
    kept: Vec<u32>,
    scratch: Vec<u8>,
}

impl Prefixes {
    /// The CRC of the bytes from the first block to `end`; `None` where the file is shorter.
    fn until(&mut self, source: &impl Source, end: u64) -> io::Result<Option<u32>> {
        let Some(bytes) = end.checked_sub(BLOCKS_OFFSET as u64) else {
            return Ok(None);
        };
        let (index, rest) = (
            bytes >> STEP_BITS,
            bytes & (STEP_BYTES as u64).saturating_sub(1),
        );
        self.kept.is_empty().then(|| self.kept.push(0));
        while (self.kept.len() as u64) <= index {
            let at = self.kept.len().saturating_sub(1);
            let Some(crc) = self.append(source, at, STEP_BYTES)? else {
                return Ok(None);
            };
            self.kept.push(crc);
        }
        self.append(source, index as usize, rest as usize)
    }

    /// The prefix `index` and `bytes` bytes more.
    fn append(
        &mut self,
        source: &impl Source,
        index: usize,
        bytes: usize,
    ) -> io::Result<Option<u32>> {
        let start = (index as u64).saturating_mul(STEP_BYTES as u64);
        self.scratch.resize(bytes, 0);
        let start = start.saturating_add(BLOCKS_OFFSET as u64);
        let read = source.read_at(start, &mut self.scratch)?;
        let crc = self.kept.get(index).filter(|_| read == bytes);
        Ok(crc.map(|crc| crc32c::crc32c_append(*crc, &self.scratch)))
    }
}

impl<S: Source> SegmentReader<S> {
    /// The block at `offset`, as [`read_block_at`](Self::read_block_at), at a price that does not
    /// depend on its length when it is none.
    pub(super) fn probe(&mut self, offset: u64) -> Result<Found, Error> {
        let Some(header) = self.peek(offset)? else {
            return self.read_block_at(offset);
        };
        let bytes = header.payload_bytes as usize;
        if check_block_header(&header).is_ok() && bytes > DATA_BYTES_MAX {
            let start = offset.saturating_add(BLOCK_HEADER_BYTES as u64);
            let end = start.saturating_add(bytes as u64);
            let (nonce, segment) = (self.header().file.nonce, self.header().file.segment);
            let prefixes = self.prefixes.get_or_insert_default();
            let mut until = |at| {
                let crc = prefixes.until(&self.source, at);
                crc.io_context("cannot read", &self.path)
            };
            let (Some(before), Some(behind)) = (until(start)?, until(end)?) else {
                return Ok(Found::Invalid("the file ends within a block"));
            };
            // As if the payload stood behind the bytes before it in the sum.
            let head = header.expected_crc(&nonce, segment, &[]);
            if crc32c::crc32c_combine(head ^ before, behind, bytes) != header.crc {
                return Ok(Found::Invalid("the checksum of the block does not match"));
            }
        }
        self.read_block_at(offset)
    }

    /// The first whole block at `offset` or behind it that comes later in the session than those
    /// before it.
    pub(super) fn resync(&mut self, offset: u64) -> Result<Option<(u64, BlockHeader)>, Error> {
        let mut at = offset;
        while let Some(candidate) = self.next_magic(at)? {
            let next = self.next_sequence;
            let later = |header: &BlockHeader| next.is_none_or(|next| header.sequence >= next);
            if self.peek(candidate)?.as_ref().is_some_and(later)
                && let Found::Valid(header) = self.probe(candidate)?
            {
                return Ok(Some((candidate, header)));
            }
            at = candidate.saturating_add(BLOCK_ALIGN as u64);
        }
        Ok(None)
    }

    /// The header of the block at `offset`, unchecked.
    fn peek(&mut self, offset: u64) -> Result<Option<BlockHeader>, Error> {
        let bytes = self.view(offset, BLOCK_HEADER_BYTES)?;
        Ok(bytes.and_then(|bytes| bytemuck::try_pod_read_unaligned(bytes).ok()))
    }

    /// The first place at `from`, a multiple of 8, or behind it where a header may stand.
    fn next_magic(&mut self, from: u64) -> Result<Option<u64>, Error> {
        let mut at = from;
        while self.view(at, BLOCK_HEADER_BYTES)?.is_some() {
            let window = self.window_from(at);
            let mut words = window.chunks_exact(BLOCK_ALIGN);
            let place = words.position(|word| word.starts_with(&BLOCK_MAGIC.to_le_bytes()));
            let words = place.unwrap_or(window.len() / BLOCK_ALIGN);
            at = at.saturating_add(words.saturating_mul(BLOCK_ALIGN) as u64);
            if place.is_some() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}
