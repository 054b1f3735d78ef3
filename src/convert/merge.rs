//! The second pass: records of all producers in one order, in batches.
//!
//! A k-way merge by (largest ticks of the producer so far, ring), each producer in its own order.
//! One block per producer is in memory, and only while the merge is within it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;

use super::control::Control;
use super::index::{BlockRef, Index};
use super::render::{Batch, BatchRecord};
use crate::error::{Error, IoContext};
use crate::record::FLAG_LARGE;
use crate::segment::files::SessionFiles;
use crate::segment::layout::{BLOCK_HEADER_BYTES, BlockHeader};
use crate::segment::records::{RecordRef, Records};
use crate::segment::source::{SegmentSource, Source};

/// Records of one batch.
const BATCH_RECORDS: usize = 8192;
/// Payloads that one batch holds on to.
const BATCH_PAYLOADS: usize = 256;
/// Bytes of large bodies after which a batch ends.
const BATCH_BODY_BYTES: usize = 4 << 20;
/// Segments that are open at a time.
const OPEN_MAX: usize = 8;
/// A payload index of no batch.
const NO_PAYLOAD: u32 = u32::MAX;

/// (largest ticks so far, ring, index of the cursor) of the next record of a producer.
type Key = (u64, u32, usize);

/// Yields the records of a session in the order of their lines.
pub(super) struct Merge<'a> {
    index: &'a Index,
    cursors: Vec<Cursor<'a>>,
    heap: BinaryHeap<Reverse<Key>>,
    store: Store<'a>,
}

/// One producer.
struct Cursor<'a> {
    ring: u32,
    /// Blocks that are not loaded yet.
    blocks: &'a [BlockRef],
    loaded: Option<Loaded>,
    /// Largest ticks so far.
    ticks: u64,
}

/// The block that a producer is in.
struct Loaded {
    payload: Arc<Vec<u8>>,
    block: BlockRef,
    first_pos: u64,
    /// Offset of the next record.
    offset: usize,
    /// Index of the payload in the batch, [`NO_PAYLOAD`] = not in it.
    in_batch: u32,
}

impl<'a> Merge<'a> {
    pub(super) fn new(files: &'a SessionFiles, index: &'a Index) -> Self {
        let mut merge = Self {
            index,
            cursors: Vec::with_capacity(index.rings.len()),
            heap: BinaryHeap::with_capacity(index.rings.len()),
            store: Store {
                files,
                open: Vec::new(),
            },
        };
        for (ring, blocks) in &index.rings {
            let Some(first) = blocks.blocks.first() else {
                continue;
            };
            let key = (first.first_ticks, *ring, merge.cursors.len());
            merge.heap.push(Reverse(key));
            merge.cursors.push(Cursor {
                ring: *ring,
                blocks: &blocks.blocks,
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
        batch.records.clear();
        batch.payloads.clear();
        batch.bodies.clear();
        for Reverse((.., cursor)) in &self.heap {
            if let Some(loaded) = self
                .cursors
                .get_mut(*cursor)
                .and_then(|c| c.loaded.as_mut())
            {
                loaded.in_batch = NO_PAYLOAD;
            }
        }
        let mut body_bytes = 0;
        while let Some(Reverse((ticks, ring, slot))) = self.heap.pop() {
            let limit = self
                .heap
                .peek()
                .map(|Reverse((ticks, ring, _))| (*ticks, *ring));
            let Some(cursor) = self.cursors.get_mut(slot) else {
                continue;
            };
            cursor.ticks = cursor.ticks.max(ticks);
            if cursor.loaded.is_none() {
                control.advance(cursor.load(&mut self.store)?)?;
            }
            let next = cursor.emit(limit, batch);
            body_bytes += load_bodies(self.index, &mut self.store, cursor, batch)?;
            if let Some(next) = next {
                self.heap.push(Reverse((next, ring, slot)));
            }
            let full = batch.records.len() >= BATCH_RECORDS
                || batch.payloads.len() >= BATCH_PAYLOADS
                || body_bytes >= BATCH_BODY_BYTES;
            if full {
                break;
            }
        }
        Ok(!batch.records.is_empty())
    }
}

impl Cursor<'_> {
    /// Loads the next block; returns its length.
    fn load(&mut self, store: &mut Store<'_>) -> Result<u64, Error> {
        let Some((block, rest)) = self.blocks.split_first() else {
            return Ok(0);
        };
        self.blocks = rest;
        let (header, payload) = store.block(block.segment, block.offset, block.payload_bytes)?;
        self.loaded = Some(Loaded {
            payload: Arc::new(payload),
            block: *block,
            first_pos: header.first_pos,
            offset: 0,
            in_batch: NO_PAYLOAD,
        });
        Ok(block.payload_bytes.into())
    }

    /// Moves records up to `limit`, the next record of another producer, into the batch, at most
    /// to the end of the block or of the batch, and at most one with a large body. Returns the
    /// ticks of the record that comes next, `None` after the last.
    fn emit(&mut self, limit: Option<(u64, u32)>, batch: &mut Batch) -> Option<u64> {
        if let Some(loaded) = &mut self.loaded {
            let payload = loaded.payload.clone();
            let mut records = Records::from_offset(&payload, loaded.offset);
            while let Some(record) = records.next() {
                let ticks = self.ticks.max(record.header.ticks());
                let beyond = limit.is_some_and(|limit| (ticks, self.ring) > limit);
                let large = record.header.flags & FLAG_LARGE != 0;
                if beyond || batch.records.len() >= BATCH_RECORDS {
                    loaded.offset = record.offset;
                    return Some(ticks);
                }
                self.ticks = ticks;
                loaded.offset = records.offset();
                if loaded.in_batch == NO_PAYLOAD {
                    loaded.in_batch = batch.payloads.len() as u32;
                    batch.payloads.push(payload.clone());
                }
                batch.records.push(BatchRecord {
                    payload: loaded.in_batch,
                    offset: record.offset as u32,
                    ticks,
                });
                if large {
                    // Behind the record, or it is the last: the same key sorts right.
                    return Some(ticks);
                }
            }
        }
        self.loaded = None;
        let next = self.blocks.first()?;
        Some(self.ticks.max(next.first_ticks))
    }
}

/// Loads the body of the record that was moved last, if it is a LARGE one; returns its length.
fn load_bodies(
    index: &Index,
    store: &mut Store<'_>,
    cursor: &Cursor<'_>,
    batch: &mut Batch,
) -> Result<usize, Error> {
    let Some(loaded) = &cursor.loaded else {
        return Ok(0);
    };
    let Some((last, number)) = batch.records.last().zip(batch.records.len().checked_sub(1)) else {
        return Ok(0);
    };
    let known = batch
        .bodies
        .last()
        .is_some_and(|(of, _)| *of as usize == number);
    let record = RecordRef::at(&loaded.payload, last.offset as usize);
    let Some(record) = record.filter(|r| r.header.flags & FLAG_LARGE != 0 && !known) else {
        return Ok(0);
    };
    if last.payload != loaded.in_batch {
        return Ok(0);
    }
    let stream = (cursor.ring, loaded.first_pos);
    let header = &record.header;
    let large = index
        .large
        .of_record(stream, &loaded.block, last.offset, header);
    let (Some(large), Ok(body_bytes)) = (large, record.large_body_bytes()) else {
        return Ok(0);
    };
    if large
        .payload_bytes
        .checked_sub(body_bytes)
        .is_none_or(|rest| rest >= 4)
    {
        return Ok(0);
    }
    let (_, mut body) = store.block(large.segment, large.offset, large.payload_bytes)?;
    body.truncate(body_bytes as usize);
    batch.bodies.push((number as u32, body));
    Ok(body_bytes as usize)
}

/// Reads blocks anywhere in a session.
struct Store<'a> {
    files: &'a SessionFiles,
    /// Segments that are open, the one used last behind the others.
    open: Vec<(u32, SegmentSource)>,
}

impl Store<'_> {
    /// Header and payload of a block that the first pass has found valid.
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
        let source = match self.open.iter().position(|(open, _)| *open == segment) {
            Some(place) => self.open.remove(place).1,
            None => file.open()?,
        };
        let mut head = [0; BLOCK_HEADER_BYTES];
        let count = source
            .read_at(offset, &mut head)
            .io_context("cannot read", path)?;
        // Bounded by the first pass, which has seen as many bytes in the file.
        let mut payload = vec![0; bytes as usize];
        let start = offset.saturating_add(BLOCK_HEADER_BYTES as u64);
        let payload_count = source
            .read_at(start, &mut payload)
            .io_context("cannot read", path)?;
        if self.open.len() >= OPEN_MAX {
            self.open.remove(0);
        }
        self.open.push((segment, source));
        let header: BlockHeader = bytemuck::pod_read_unaligned(&head);
        let whole = count == head.len()
            && payload_count == payload.len()
            && header.payload_bytes == bytes
            && header.expected_crc(&file.header.nonce, file.number(), &payload) == header.crc;
        if whole {
            Ok((header, payload))
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
