//! Appending blocks to the current segment. Used by the writer thread only.
//!
//! The committed length in the hint is stored after the block it covers; a reader that finds a
//! valid block behind it takes it all the same.

use std::fs::File;

use crate::error::{Error, IoContext};
use crate::record::CATEGORIES_MAX;
use crate::segment::layout::{
    BLOCK_HEADER_BYTES, BLOCK_MAGIC, BLOCK_SEAL, BLOCKS_OFFSET, BlockHeader, HINT_OFFSET,
    SEAL_HEADER_BYTES, SealCount, SealHeader, block_bytes,
};
use crate::segment::prepare::Prepared;
use crate::sys::dir::Dir;

/// Room that always stays free for the seal.
pub(crate) const SEAL_RESERVE: usize =
    block_bytes(SEAL_HEADER_BYTES + CATEGORIES_MAX * size_of::<SealCount>());

/// The segment that is being written.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    prepared: Prepared,
    nonce: [u8; 16],
    /// Where the next block starts.
    offset: usize,
    blocks: u64,
    records: u64,
    /// Records per category in this segment.
    counts: Vec<u64>,
}

/// A segment that takes no more blocks; cut it to its length with [`finish`](Self::finish).
#[derive(Debug)]
pub(crate) struct Sealed {
    file: File,
    name: String,
    /// Length of the segment.
    pub(crate) bytes: u64,
    /// Length that was reserved for it.
    reserved: u64,
}

/// What a block header says, without what the segment fills in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BlockInfo {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) ring: u32,
    pub(crate) records: u32,
    pub(crate) first_pos: u64,
    pub(crate) next_pos: u64,
    pub(crate) min_ticks: u64,
    pub(crate) max_ticks: u64,
}

impl BlockInfo {
    /// The header of a block, its CRC not yet filled in.
    pub(crate) fn header(&self, sequence: u64, payload_bytes: usize) -> BlockHeader {
        BlockHeader {
            magic: BLOCK_MAGIC,
            crc: 0,
            payload_bytes: payload_bytes as u32,
            kind: self.kind,
            flags: self.flags,
            sequence,
            ring: self.ring,
            records: self.records,
            first_pos: self.first_pos,
            next_pos: self.next_pos,
            min_ticks: self.min_ticks,
            max_ticks: self.max_ticks,
        }
    }
}

impl SegmentWriter {
    pub(crate) fn new(prepared: Prepared, nonce: [u8; 16]) -> Self {
        Self {
            prepared,
            nonce,
            offset: BLOCKS_OFFSET,
            blocks: 0,
            records: 0,
            counts: vec![0; CATEGORIES_MAX],
        }
    }

    /// Number of the segment.
    pub(crate) fn number(&self) -> u64 {
        self.prepared.number
    }

    /// Longest payload that still fits.
    pub(crate) fn payload_room(&self) -> usize {
        let end = self.prepared.region.len() - SEAL_RESERVE;
        end.saturating_sub(self.offset + BLOCK_HEADER_BYTES)
    }

    /// Bytes written so far, with the header.
    pub(crate) fn bytes(&self) -> u64 {
        self.offset as u64
    }

    /// Appends a block whose payload is the pieces that `fill` hands out, `payload_bytes` in all.
    /// Returns what the block takes in the file.
    pub(crate) fn append(
        &mut self,
        sequence: u64,
        info: BlockInfo,
        payload_bytes: usize,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) -> usize {
        assert!(
            payload_bytes <= self.payload_room(),
            "the caller rolls first"
        );
        let bytes = self.put(sequence, info, payload_bytes, fill);
        self.blocks += 1;
        bytes
    }

    fn put(
        &mut self,
        sequence: u64,
        info: BlockInfo,
        payload_bytes: usize,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) -> usize {
        let region = &self.prepared.region;
        let start = self.offset + BLOCK_HEADER_BYTES;
        let mut end = start;
        fill(&mut |piece: &[u8]| {
            region.write(end, piece);
            end += piece.len();
        });
        assert!(end <= start + payload_bytes, "more pieces than announced");
        let next = self.offset + block_bytes(payload_bytes);
        region.zero(end, next - end);
        fail_point!("block.payload");
        let mut header = info.header(sequence, payload_bytes);
        header.crc = region.with(start, payload_bytes, |payload| {
            header.expected_crc(&self.nonce, self.prepared.number, payload)
        });
        region.write(self.offset, bytemuck::bytes_of(&header));
        fail_point!("block.header");
        let bytes = next - self.offset;
        self.offset = next;
        region.store_u64(HINT_OFFSET, next as u64);
        fail_point!("block.hint");
        bytes
    }

    /// Adds to the records of a category that the seal will state.
    pub(crate) fn count(&mut self, category: u8, records: u64) {
        self.counts[usize::from(category)] += records;
        self.records += records;
    }

    /// Appends the seal. The file keeps its reserved length until [`Sealed::finish`].
    pub(crate) fn seal(mut self, sequence: u64, last: bool) -> Sealed {
        let used = self
            .counts
            .iter()
            .enumerate()
            .filter(|(_, records)| **records > 0);
        let counts: Vec<SealCount> = used
            .map(|(category, records)| SealCount {
                category: category as u32,
                zero: 0,
                records: *records,
            })
            .collect();
        let header = SealHeader {
            blocks: self.blocks,
            records: self.records,
            last: u32::from(last),
            categories: counts.len() as u32,
        };
        let payload = SEAL_HEADER_BYTES + size_of_val(counts.as_slice());
        let info = BlockInfo {
            kind: BLOCK_SEAL,
            ..BlockInfo::default()
        };
        self.put(sequence, info, payload, |put| {
            put(bytemuck::bytes_of(&header));
            put(bytemuck::cast_slice(&counts));
        });
        fail_point!("seal.written");
        Sealed {
            bytes: self.offset as u64,
            reserved: self.prepared.region.len() as u64,
            file: self.prepared.file,
            name: self.prepared.name,
        }
    }

    /// Waits until the blocks so far are on the disk.
    pub(crate) fn sync(&self, dir: &Dir) -> Result<(), Error> {
        let path = || dir.path_of(&self.prepared.name);
        self.prepared
            .region
            .sync(0, self.offset)
            .io_context("cannot sync segment", path())?;
        self.prepared
            .file
            .sync_data()
            .io_context("cannot sync segment", path())
    }
}

impl Sealed {
    /// Reserved bytes that the segment does not need.
    pub(crate) fn unused_bytes(&self) -> u64 {
        self.reserved - self.bytes
    }

    /// Cuts the file to its length.
    pub(crate) fn finish(self, dir: &Dir) -> Result<(), Error> {
        fail_point!("seal.before_cut");
        let path = dir.path_of(&self.name);
        self.file
            .set_len(self.bytes)
            .io_context("cannot cut segment", path)
    }
}
