//! Appending blocks to the current segment. Used by the writer thread only.
//!
//! The committed length in the hint is stored after the block it covers; a reader that finds a
//! valid block behind it takes it all the same.
//!
//! A block that a `pwrite` sink cannot write is as if it had never been appended. A large block
//! goes to the file together with the data block that refers to it, so that both are there or
//! neither.

use std::fs::File;
use std::io;

use crate::error::{Error, IoContext};
use crate::record::CATEGORIES_MAX;
use crate::segment::layout::{
    BLOCK_ALIGN, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BLOCK_SEAL, BLOCKS_OFFSET, BlockHeader,
    HINT_OFFSET, SEAL_HEADER_BYTES, SealCount, SealHeader, block_bytes,
};
use crate::segment::prepare::Prepared;
use crate::segment::sealed::Sealed;
use crate::segment::sink::{Blocks, Mapped, Sink, write_hint, write_pieces};
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
    /// The same without the blocks that a `pwrite` sink has not written yet.
    flushed: (usize, u64),
    /// What the hint of a `pwrite` sink says.
    published: usize,
    counts: SegmentCounts,
}

/// Records of one segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentCounts {
    /// Per category.
    pub(crate) categories: Vec<u64>,
    /// Those that must always be kept.
    pub(crate) always: u64,
}

impl Default for SegmentCounts {
    fn default() -> Self {
        Self {
            categories: vec![0; CATEGORIES_MAX],
            always: 0,
        }
    }
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
            flushed: (BLOCKS_OFFSET, 0),
            published: 0,
            counts: SegmentCounts::default(),
        }
    }

    /// Blocks so far.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Records so far.
    pub(crate) fn counts(&self) -> &SegmentCounts {
        &self.counts
    }

    /// Length that is reserved for the file.
    pub(crate) fn reserved(&self) -> u64 {
        self.prepared.bytes as u64
    }

    /// The file, whatever its name leads to.
    pub(crate) fn file(&self) -> &File {
        &self.prepared.file
    }

    /// Whether a part of the mapping was lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.prepared.sink.is_lost()
    }

    /// Number of the segment.
    pub(crate) fn number(&self) -> u64 {
        self.prepared.number
    }

    /// Longest payload that still fits.
    pub(crate) fn payload_room(&self) -> usize {
        let end = self.prepared.bytes - SEAL_RESERVE;
        end.saturating_sub(self.offset + BLOCK_HEADER_BYTES)
    }

    /// Bytes written so far, with the header.
    pub(crate) fn bytes(&self) -> u64 {
        self.offset as u64
    }

    /// Appends a block.
    ///
    /// # Errors
    /// When the sink cannot write it: the segment is as before, without a large block that was
    /// appended since the last one.
    pub(crate) fn append(
        &mut self,
        sequence: u64,
        info: BlockInfo,
        payload: &[u8],
    ) -> io::Result<()> {
        assert!(
            payload.len() <= self.payload_room(),
            "the caller rolls first"
        );
        let written = match &self.prepared.sink {
            Sink::Pwrite(blocks) if blocks.pending.is_empty() => {
                let mut header = info.header(sequence, payload.len());
                header.crc = header.expected_crc(&self.nonce, self.prepared.number, payload);
                let header = bytemuck::bytes_of(&header);
                let next = self.offset + block_bytes(payload.len());
                let filled = self.offset + header.len() + payload.len();
                let pieces = [header, payload, &[0; BLOCK_ALIGN][..next - filled]];
                let written = write_pieces(&self.prepared.file, self.offset, &pieces);
                fail_point!("block.written");
                self.offset = next;
                written
            }
            _ => {
                self.put(sequence, info, payload.len(), |put| put(payload));
                self.write_pending()
            }
        };
        if let Err(error) = written {
            (self.offset, self.blocks) = self.flushed;
            return Err(error);
        }
        self.blocks += 1;
        let first = self.flushed.1 == 0;
        self.flushed = (self.offset, self.blocks);
        if first {
            // Without it the segment would pass for one that was never used.
            self.publish();
        }
        Ok(())
    }

    /// Appends a large block, whose payload is the pieces that `fill` hands out, `payload_bytes`
    /// in all. It is there when the block that refers to it is, which comes next.
    pub(crate) fn append_large(
        &mut self,
        sequence: u64,
        info: BlockInfo,
        payload_bytes: usize,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) {
        assert!(
            payload_bytes <= self.payload_room(),
            "the caller rolls first"
        );
        self.put(sequence, info, payload_bytes, fill);
        self.blocks += 1;
    }

    /// Tells readers up to where there are blocks. They find those behind it too.
    pub(crate) fn publish(&mut self) {
        if let Sink::Pwrite(_) = self.prepared.sink
            && self.published < self.flushed.0
        {
            write_hint(&self.prepared.file, self.flushed.0);
            fail_point!("block.published");
            self.published = self.flushed.0;
        }
    }

    fn write_pending(&mut self) -> io::Result<()> {
        match &mut self.prepared.sink {
            Sink::Pwrite(blocks) => blocks.flush(&self.prepared.file, self.flushed.0),
            Sink::Mapped(_) => Ok(()),
        }
    }

    fn put(
        &mut self,
        sequence: u64,
        info: BlockInfo,
        payload_bytes: usize,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) {
        let header = info.header(sequence, payload_bytes);
        let key = (&self.nonce, self.prepared.number);
        match &mut self.prepared.sink {
            Sink::Mapped(mapped) => put_mapped(mapped, key, self.offset, header, fill),
            Sink::Pwrite(blocks) => put_pending(blocks, key, header, fill),
        }
        self.offset += block_bytes(payload_bytes);
    }

    /// Adds to the records of a category that the seal will state.
    pub(crate) fn count(&mut self, category: u8, records: u64) {
        self.counts.categories[usize::from(category)] += records;
    }

    /// Adds to the records that must always be kept.
    pub(crate) fn count_always(&mut self, records: u64) {
        self.counts.always += records;
    }

    /// Appends the seal. The file keeps its reserved length until [`Sealed::finish`], which writes
    /// a seal that cannot be written now.
    pub(crate) fn seal(mut self, sequence: u64, last: bool) -> Sealed {
        let (info, payload) = seal_block(&self.counts.categories, self.blocks, last);
        self.put(sequence, info, payload.len(), |put| put(&payload));
        fail_point!("seal.written");
        let bytes = self.offset as u64;
        let mut seal = Blocks::default();
        if let Sink::Pwrite(blocks) = &self.prepared.sink {
            seal.pending.clone_from(&blocks.pending);
        }
        if self.write_pending().is_ok() {
            seal.pending.clear();
            self.flushed = (self.offset, self.blocks);
            self.publish();
        }
        Sealed {
            bytes,
            reserved: self.prepared.bytes as u64,
            file: self.prepared.file,
            name: self.prepared.name,
            seal,
        }
    }

    /// Waits until the blocks so far are on the disk.
    pub(crate) fn sync(&self, dir: &Dir) -> Result<(), Error> {
        let path = || dir.path_of(&self.prepared.name);
        self.prepared
            .sink
            .sync(&self.prepared.file, self.offset)
            .io_context("cannot sync segment", path())
    }

    /// Takes the segment apart: what is to be known of a file that was lost.
    pub(crate) fn into_lost(self) -> (File, SegmentCounts) {
        (self.prepared.file, self.counts)
    }
}

fn put_mapped(
    mapped: &Mapped,
    (nonce, number): (&[u8; 16], u64),
    offset: usize,
    mut header: BlockHeader,
    fill: impl FnOnce(&mut dyn FnMut(&[u8])),
) {
    let region = &mapped.region;
    let payload_bytes = header.payload_bytes as usize;
    let start = offset + BLOCK_HEADER_BYTES;
    let mut end = start;
    fill(&mut |piece: &[u8]| {
        region.write(end, piece);
        end += piece.len();
    });
    assert!(end <= start + payload_bytes, "more pieces than announced");
    let next = offset + block_bytes(payload_bytes);
    region.zero(end, next - end);
    fail_point!("block.payload");
    header.crc = region.with(start, payload_bytes, |payload| {
        header.expected_crc(nonce, number, payload)
    });
    region.write(offset, bytemuck::bytes_of(&header));
    fail_point!("block.header");
    region.store_u64(HINT_OFFSET, next as u64);
    fail_point!("block.hint");
}

fn put_pending(
    blocks: &mut Blocks,
    (nonce, number): (&[u8; 16], u64),
    mut header: BlockHeader,
    fill: impl FnOnce(&mut dyn FnMut(&[u8])),
) {
    let payload_bytes = header.payload_bytes as usize;
    let pending = &mut blocks.pending;
    let block = pending.len();
    let start = block + BLOCK_HEADER_BYTES;
    pending.resize(start, 0);
    fill(&mut |piece: &[u8]| pending.extend_from_slice(piece));
    assert!(
        pending.len() <= start + payload_bytes,
        "more pieces than announced"
    );
    pending.resize(block + block_bytes(payload_bytes), 0);
    header.crc = header.expected_crc(nonce, number, &pending[start..start + payload_bytes]);
    pending[block..start].copy_from_slice(bytemuck::bytes_of(&header));
}

/// A whole block outside of a segment.
pub(crate) fn sealed_block(
    info: &BlockInfo,
    sequence: u64,
    key: (&[u8; 16], u64),
    payload: &[u8],
) -> Vec<u8> {
    let mut blocks = Blocks::default();
    let header = info.header(sequence, payload.len());
    put_pending(&mut blocks, key, header, |put| put(payload));
    blocks.pending
}

/// The seal of a segment: its block and payload.
pub(crate) fn seal_block(categories: &[u64], blocks: u64, last: bool) -> (BlockInfo, Vec<u8>) {
    let used = categories
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0);
    let counts: Vec<SealCount> = used
        .map(|(category, records)| SealCount {
            category: category as u32,
            zero: 0,
            records: *records,
        })
        .collect();
    let header = SealHeader {
        blocks,
        records: categories.iter().sum(),
        last: u32::from(last),
        categories: counts.len() as u32,
    };
    let payload = [bytemuck::bytes_of(&header), bytemuck::cast_slice(&counts)].concat();
    let info = BlockInfo {
        kind: BLOCK_SEAL,
        ..BlockInfo::default()
    };
    (info, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::files::SessionFiles;
    use crate::segment::layout::{BLOCK_DATA, BLOCK_LARGE, BLOCK_REGISTRY, FileHeader};
    use crate::segment::prepare::{SEGMENT_ALIGN, prepare};
    use crate::segment::reader::{End, SegmentReader};
    use crate::segment::sink::{SinkKind, SinkPlan};

    const NONCE: [u8; 16] = [7; 16];

    fn start(dir: &Dir, kind: SinkKind) -> SegmentWriter {
        let header = FileHeader {
            magic: crate::segment::layout::FILE_MAGIC,
            version_major: crate::segment::layout::VERSION_MAJOR,
            header_bytes: crate::segment::layout::FILE_HEADER_BYTES as u32,
            nonce: NONCE,
            session: *b"20261121_121829\0",
            ..bytemuck::Zeroable::zeroed()
        };
        let plan = SinkPlan { kind, guard: false };
        SegmentWriter::new(
            prepare(dir, plan, &header, 1, SEGMENT_ALIGN).unwrap(),
            NONCE,
        )
    }

    fn append(segment: &mut SegmentWriter, kind: u16, payload: &[u8]) -> io::Result<()> {
        let info = BlockInfo {
            kind,
            ring: 3,
            ..BlockInfo::default()
        };
        let sequence = segment.blocks();
        if kind == BLOCK_LARGE {
            segment.append_large(sequence, info, payload.len(), |put| {
                payload.chunks(100).for_each(put);
            });
            return Ok(());
        }
        segment.append(sequence, info, payload)
    }

    /// The whole file of a segment with blocks of all kinds.
    fn written(kind: SinkKind) -> Vec<u8> {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut segment = start(&dir, kind);
        for number in 0..50_u32 {
            let payload = vec![number as u8; 4 * number as usize];
            append(&mut segment, BLOCK_REGISTRY, &payload).unwrap();
            append(
                &mut segment,
                BLOCK_LARGE,
                &vec![9; 20_000 + 4 * number as usize],
            )
            .unwrap();
            append(&mut segment, BLOCK_DATA, &payload).unwrap();
            segment.count(5, u64::from(number));
        }
        segment.publish();
        let live = std::fs::read(temp.path().join("000001.seg")).unwrap();
        let mut sealed = segment.seal(150, true);
        sealed.finish(&dir).unwrap();
        let whole = std::fs::read(temp.path().join("000001.seg")).unwrap();
        [live, whole].concat()
    }

    #[test]
    fn both_sinks_write_the_same_bytes() {
        assert!(written(SinkKind::Mapped) == written(SinkKind::Pwrite));
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let both = written(SinkKind::Mapped);
        let (live, whole) = both.split_at(SEGMENT_ALIGN);
        for bytes in [live, whole] {
            let name = std::path::PathBuf::from("000001.seg");
            let segment = [(name, bytes.to_vec())];
            let session = SessionFiles::from_memory(segment).unwrap().remove(0);
            let mut reader = session.segments[0].reader().unwrap();
            for number in 0..50_u8 {
                let small = (4 * usize::from(number), number);
                let large = (20_000 + 4 * usize::from(number), 9);
                for (kind, (bytes, byte)) in [
                    (BLOCK_REGISTRY, small),
                    (BLOCK_LARGE, large),
                    (BLOCK_DATA, small),
                ] {
                    let block = reader.next_block().unwrap().unwrap();
                    assert_eq!(block.header.kind, kind);
                    assert!(block.payload == vec![byte; bytes]);
                }
            }
            assert!(reader.next_block().unwrap().is_none());
            let expected_blocks = 150;
            assert_eq!(reader.blocks(), expected_blocks);
        }
    }

    /// A file that takes no more bytes.
    fn refuse(segment: &mut SegmentWriter, dir: &Dir) -> File {
        let refusing = dir.open_file("000001.seg").unwrap();
        std::mem::replace(&mut segment.prepared.file, refusing)
    }

    #[test]
    fn a_block_that_cannot_be_written_was_never_there() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut segment = start(&dir, SinkKind::Pwrite);
        append(&mut segment, BLOCK_DATA, &[1; 400]).unwrap();
        let before = (segment.bytes(), segment.blocks());
        let file = refuse(&mut segment, &dir);
        append(&mut segment, BLOCK_LARGE, &[2; 4000]).unwrap();
        assert!(append(&mut segment, BLOCK_DATA, &[3; 400]).is_err());
        assert_eq!((segment.bytes(), segment.blocks()), before);
        segment.prepared.file = file;
        append(&mut segment, BLOCK_DATA, &[4; 400]).unwrap();
        let file = refuse(&mut segment, &dir);
        let mut sealed = segment.seal(2, false);
        assert!(!sealed.is_sealed());
        assert!(sealed.finish(&dir).is_err());
        assert!(!sealed.is_sealed(), "it can be tried again");
        let path = temp.path().join("000001.seg");
        let told = format!("{} could not be sealed", path.display());
        assert_eq!(sealed.unsealed_sentence(&dir), told);
        sealed.file = file;
        sealed.finish(&dir).unwrap();
        let mut reader = SegmentReader::open(File::open(&path).unwrap(), &path).unwrap();
        let mut payloads = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            payloads.push(block.payload.to_vec());
        }
        assert_eq!(payloads, [vec![1; 400], vec![4; 400]]);
        assert!(matches!(reader.end(), Some(End::Sealed(seal)) if seal.blocks == 2));
    }
}
