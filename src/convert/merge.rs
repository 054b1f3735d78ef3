//! The second pass: records of all producers in one order, in batches.
//!
//! A k-way merge by (largest ticks of the producer so far, ring), each producer in its own order.
//! One block per producer is in memory, and only while the merge is within it.

use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use super::control::Control;
use super::heap::Heap;
use super::index::{BlockRef, Index};
use super::unread::{BATCH_RECORDS, Emitted, Unread, is_body};
use crate::error::{Error, IoContext};
use crate::segment::files::SessionFiles;
use crate::segment::layout::{BLOCK_HEADER_BYTES, BlockHeader, DATA_BYTES_MAX};
use crate::segment::records::RecordRef;
use crate::segment::source::{SegmentSource, Source};

/// Segments that are open at a time.
const OPEN_MAX: usize = 8;
/// Buffers of blocks that are kept for the next ones.
const FREE_MAX: usize = 64;

/// Yields the records of a session in the order of their lines.
pub(super) struct Merge<'a> {
    index: &'a Index,
    cursors: Vec<Cursor<'a>>,
    heap: Heap,
    store: Store<'a>,
    /// Number of the batch that is filled.
    batch: u64,
    /// Bytes of blocks and large bodies that are read for one batch, about: it holds on to them.
    batch_bytes: u64,
}

/// One producer.
struct Cursor<'a> {
    ring: u32,
    /// Blocks that are not loaded yet.
    blocks: &'a [BlockRef],
    loaded: Option<Box<Loaded>>,
    /// Largest ticks so far.
    ticks: u64,
}

/// The block that a producer is in.
struct Loaded {
    records: Unread,
    block: BlockRef,
    first_pos: u64,
}

impl<'a> Merge<'a> {
    pub(super) fn new(files: &'a SessionFiles, index: &'a Index, batch_bytes: u64) -> Self {
        let mut merge = Self {
            index,
            cursors: Vec::new(),
            heap: Heap::default(),
            store: Store {
                files,
                open: Vec::new(),
                free: Vec::new(),
            },
            batch: 0,
            batch_bytes,
        };
        for blocks in index.blocks.chunk_by(|one, other| one.ring == other.ring) {
            let Some(first) = blocks.first() else {
                continue;
            };
            let cursor = merge.cursors.len() as u32;
            merge.heap.push(first.first_ticks, first.ring, cursor);
            merge.cursors.push(Cursor {
                ring: first.ring,
                blocks,
                loaded: None,
                ticks: 0,
            });
        }
        merge
    }

    /// Fills `batch` with the next records; `false` when there were none left.
    pub(super) fn next_batch(
        &mut self,
        batch: &mut Batch,
        control: &mut Control<'_>,
    ) -> Result<bool, Error> {
        self.store.take_back(batch);
        self.batch += 1;
        let mut bytes = 0;
        while batch.records < BATCH_RECORDS && bytes < self.batch_bytes {
            let Some((ticks, slot)) = self.heap.first() else {
                break;
            };
            let Some(cursor) = self.cursors.get_mut(slot) else {
                break;
            };
            cursor.ticks = cursor.ticks.max(ticks);
            if cursor.loaded.is_none() {
                let loaded = cursor.load(&mut self.store)?;
                control.advance(loaded)?;
                bytes += loaded;
            }
            let emitted = cursor.emit(self.heap.last_before_second(), batch, self.batch);
            if let Some(offset) = emitted.large {
                let body = load_body(self.index, &mut self.store, cursor, offset)?;
                if let (Some(body), Some(run)) = (body, batch.runs.last_mut()) {
                    bytes += body.len() as u64;
                    run.body = Some(batch.bodies.len() as u32);
                    batch.bodies.push(body);
                }
            }
            self.heap.replace_first(emitted.next);
        }
        Ok(batch.records > 0 || self.heap.first().is_some())
    }
}

impl Cursor<'_> {
    /// Loads the next block; returns its length.
    fn load(&mut self, store: &mut Store<'_>) -> Result<u64, Error> {
        let Some((block, rest)) = self.blocks.split_first() else {
            return Ok(0);
        };
        self.blocks = rest;
        let (header, bytes) = store.block(block.segment, block.offset, block.payload_bytes)?;
        self.loaded = Some(Box::new(Loaded {
            records: Unread::new(bytes),
            block: *block,
            first_pos: header.first_pos,
        }));
        Ok(block.payload_bytes.into())
    }

    /// Moves records of up to `ticks_max` into the batch, at most to the end of the block or of
    /// the batch, and at most one with a large body.
    fn emit(&mut self, ticks_max: u64, batch: &mut Batch, number: u64) -> Emitted {
        if let Some(Loaded { records, .. }) = self.loaded.as_deref_mut() {
            let emitted = records.emit(&mut self.ticks, ticks_max, batch, number);
            if emitted.next.is_some() {
                return emitted;
            }
        }
        self.loaded = None;
        let next = self.blocks.first();
        Emitted {
            next: next.map(|block| self.ticks.max(block.first_ticks)),
            large: None,
        }
    }
}

/// The block with the body of the LARGE record at `offset`, cut behind the body.
fn load_body(
    index: &Index,
    store: &mut Store<'_>,
    cursor: &Cursor<'_>,
    offset: usize,
) -> Result<Option<Vec<u8>>, Error> {
    let record = cursor.loaded.as_ref().and_then(|loaded| {
        let record = RecordRef::at(loaded.records.bytes(), offset)?;
        Some((loaded, record))
    });
    let Some((loaded, record)) = record else {
        return Ok(None);
    };
    let stream = (cursor.ring, loaded.first_pos);
    let offset = offset.saturating_sub(BLOCK_HEADER_BYTES) as u32;
    let large = index
        .large
        .of_record(stream, &loaded.block, offset, &record.header);
    let (Some(large), Ok(body_bytes)) = (large, record.large_body_bytes()) else {
        return Ok(None);
    };
    if !is_body(large.payload_bytes, body_bytes) {
        return Ok(None);
    }
    let (_, mut bytes) = store.block(large.segment, large.offset, large.payload_bytes)?;
    bytes.truncate(BLOCK_HEADER_BYTES + body_bytes as usize);
    Ok(Some(bytes))
}

/// Reads blocks anywhere in a session.
struct Store<'a> {
    files: &'a SessionFiles,
    /// Segments that are open, the one used last behind the others.
    open: Vec<(u32, SegmentSource)>,
    /// Buffers for blocks.
    free: Vec<Vec<u8>>,
}

impl Store<'_> {
    /// Empties a batch.
    fn take_back(&mut self, batch: &mut Batch) {
        let unused = batch.bytes.drain(..).filter_map(Arc::into_inner);
        let room = FREE_MAX.saturating_sub(self.free.len());
        self.free.extend(unused.take(room));
        batch.clear();
    }

    /// A block that the first pass has found valid: its header, and the whole of it.
    fn block(
        &mut self,
        segment: u32,
        offset: u64,
        bytes: u32,
    ) -> Result<(BlockHeader, Vec<u8>), Error> {
        let Some(file) = self.files.segments.get(segment as usize) else {
            return Err(changed(Path::new(""), offset));
        };
        let path = &file.path;
        let last = self.open.last().filter(|(open, _)| *open == segment);
        if last.is_none() {
            let source = match self.open.iter().position(|(open, _)| *open == segment) {
                Some(place) => self.open.remove(place).1,
                None => file.open()?,
            };
            if self.open.len() >= OPEN_MAX {
                self.open.remove(0);
            }
            self.open.push((segment, source));
        }
        let mut block = if bytes as usize <= DATA_BYTES_MAX {
            self.free.pop().unwrap_or_default()
        } else {
            Vec::new()
        };
        // Bounded by the first pass, which has seen as many bytes in the file.
        block.resize(BLOCK_HEADER_BYTES + bytes as usize, 0);
        let count = match self.open.last() {
            Some((_, source)) => source.read_at(offset, &mut block),
            None => Ok(0),
        };
        let count = count.io_context("cannot read", path)?;
        let (head, payload) = block.split_at(BLOCK_HEADER_BYTES);
        let header: BlockHeader = bytemuck::pod_read_unaligned(head);
        let whole = count == block.len()
            && header.payload_bytes == bytes
            && header.expected_crc(&file.header.nonce, file.number(), payload) == header.crc;
        if whole {
            Ok((header, block))
        } else {
            Err(changed(path, offset))
        }
    }
}

fn changed(path: &Path, offset: u64) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        offset,
        what: "the block changed while the session was converted".to_owned(),
    }
}
