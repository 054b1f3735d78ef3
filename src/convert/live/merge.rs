//! Records of all producers in one order, as far as they are known.

use std::collections::{HashMap, VecDeque};

use super::super::batch::Batch;
use super::super::heap::Heap;
use super::super::scan::data;
use super::super::unread::{BATCH_RECORDS, Emitted, Unread, is_body};
use crate::segment::layout::{
    BLOCK_DATA, BLOCK_HEADER_BYTES, BLOCK_LARGE, BLOCK_REGISTRY, block_bytes,
};
use crate::segment::reader::Block;
use crate::segment::records::RecordRef;

/// Bytes of blocks of one batch, about.
const BATCH_BYTES: u64 = 1 << 20;
/// Producers that are remembered without a waiting record.
const PRODUCERS_MAX: usize = 4096;

/// Takes blocks, and yields their records in the order of their lines.
#[derive(Default)]
pub(super) struct LiveMerge {
    producers: Vec<Producer>,
    by_ring: HashMap<u32, u32>,
    heap: Heap,
    /// The large block that was read last, with its ring and position.
    large: Option<(u32, u64, Vec<u8>)>,
    /// Number of the batch that is filled.
    batch: u64,
    /// Bytes of the blocks that wait.
    waiting: u64,
    /// The largest ticks that were read, and that are in a batch.
    seen: u64,
    emitted: u64,
}

/// One producer.
struct Producer {
    ring: u32,
    /// Largest ticks so far.
    ticks: u64,
    blocks: VecDeque<Waiting>,
    loaded: Option<Waiting>,
}

/// A block that waits.
struct Waiting {
    records: Unread,
    first_ticks: u64,
    bytes: u64,
    /// The block with the body of its first record.
    large: Option<Vec<u8>>,
}

/// What is in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// Nothing.
    None,
    /// Records that come behind all that were in batches before.
    InOrder,
    /// Records that come before some that were.
    Late,
}

impl LiveMerge {
    /// Takes a data block or a large one.
    pub(super) fn add(&mut self, block: &Block<'_>) {
        let header = &block.header;
        let large = self.large.take();
        debug_assert!(header.kind != BLOCK_REGISTRY, "is taken elsewhere");
        if header.kind == BLOCK_LARGE {
            let bytes = [bytemuck::bytes_of(header), block.payload].concat();
            self.large = Some((header.ring, header.first_pos, bytes));
        }
        if header.kind != BLOCK_DATA {
            return;
        }
        let found = data(block, &mut []);
        if found.count == 0 || found.misplaced > 0 {
            return;
        }
        self.seen = self.seen.max(found.max_ticks);
        let large = large.filter(|(ring, at, _)| (*ring, *at) == (header.ring, header.first_pos));
        let bytes = [bytemuck::bytes_of(header), block.payload].concat();
        let waiting = Waiting {
            records: Unread::new(bytes),
            first_ticks: found.first_ticks,
            bytes: block_bytes(block.payload.len()) as u64,
            large: large.map(|(.., bytes)| bytes),
        };
        let number = *self.by_ring.entry(header.ring).or_insert_with(|| {
            self.producers.push(Producer {
                ring: header.ring,
                ticks: 0,
                blocks: VecDeque::new(),
                loaded: None,
            });
            self.producers.len() as u32 - 1
        });
        let Some(producer) = self.producers.get_mut(number as usize) else {
            return;
        };
        if producer.is_empty() {
            let ticks = producer.ticks.max(waiting.first_ticks);
            self.heap.push(ticks, header.ring, number);
        }
        self.waiting += waiting.size();
        producer.blocks.push_back(waiting);
    }

    /// Fills `batch` with the next records of up to `horizon` ticks. Late ones come alone.
    pub(super) fn next_batch(&mut self, batch: &mut Batch, horizon: u64) -> Filled {
        batch.clear();
        self.batch += 1;
        let mut filled = Filled::None;
        let mut bytes = 0;
        while batch.records < BATCH_RECORDS && bytes < BATCH_BYTES {
            let Some((ticks, slot)) = self.heap.first().filter(|first| first.0 <= horizon) else {
                break;
            };
            let is_late = ticks < self.emitted;
            let next = if is_late {
                Filled::Late
            } else {
                Filled::InOrder
            };
            if filled != next && filled != Filled::None {
                break;
            }
            let Some(producer) = self.producers.get_mut(slot) else {
                break;
            };
            filled = next;
            producer.ticks = producer.ticks.max(ticks);
            if producer.loaded.is_none() {
                producer.loaded = producer.blocks.pop_front();
                bytes += producer.loaded.as_ref().map_or(0, Waiting::size);
            }
            let end = if is_late {
                self.emitted.saturating_sub(1)
            } else {
                horizon
            };
            let ticks_max = self.heap.last_before_second().min(end);
            let (emitted, done) = producer.emit(ticks_max, batch, self.batch);
            self.waiting = self.waiting.saturating_sub(done);
            self.emitted = self.emitted.max(producer.ticks);
            self.heap.replace_first(emitted.next);
        }
        filled
    }

    /// Bytes of the blocks that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Ticks of the next record.
    pub(super) fn first(&self) -> Option<u64> {
        self.heap.first().map(|(ticks, _)| ticks)
    }

    /// The largest ticks of all records so far.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Forgets producers that have nothing waiting, when there are many.
    pub(super) fn forget(&mut self) {
        let busy = self.heap.len();
        if self.producers.len() < PRODUCERS_MAX + 2 * busy {
            return;
        }
        self.producers.retain(|producer| !producer.is_empty());
        self.by_ring.clear();
        self.heap = Heap::default();
        for (number, producer) in self.producers.iter().enumerate() {
            let number = number as u32;
            self.by_ring.insert(producer.ring, number);
            if let Some(ticks) = producer.next_ticks() {
                self.heap.push(ticks, producer.ring, number);
            }
        }
    }
}

impl Waiting {
    fn size(&self) -> u64 {
        self.bytes + self.large.as_ref().map_or(0, Vec::len) as u64
    }
}

impl Producer {
    fn is_empty(&self) -> bool {
        self.loaded.is_none() && self.blocks.is_empty()
    }

    /// Ticks of the next record, if there is one.
    fn next_ticks(&self) -> Option<u64> {
        let loaded = self
            .loaded
            .as_ref()
            .and_then(|loaded| loaded.records.next_ticks());
        let first = loaded.or_else(|| self.blocks.front().map(|block| block.first_ticks));
        first.map(|ticks| self.ticks.max(ticks))
    }

    /// As [`Unread::emit`], with the body of a LARGE record; and the bytes of blocks that are done.
    fn emit(&mut self, ticks_max: u64, batch: &mut Batch, number: u64) -> (Emitted, u64) {
        let mut done = 0;
        if let Some(loaded) = &mut self.loaded {
            let before = loaded.size();
            let emitted = loaded
                .records
                .emit(&mut self.ticks, ticks_max, batch, number);
            if let Some(offset) = emitted.large
                && let Some(body) = loaded.body(offset)
                && let Some(run) = batch.runs.last_mut()
            {
                run.body = Some(batch.bodies.len() as u32);
                batch.bodies.push(body);
            }
            if emitted.next.is_some() {
                return (emitted, before - loaded.size());
            }
            done = before;
        }
        self.loaded = None;
        let emitted = Emitted {
            next: self.next_ticks(),
            large: None,
        };
        (emitted, done)
    }
}

impl Waiting {
    /// The block with the body of the LARGE record at `offset`, cut behind the body.
    fn body(&mut self, offset: usize) -> Option<Vec<u8>> {
        let record = RecordRef::at(self.records.bytes(), offset)?;
        let body_bytes = record.large_body_bytes().ok()?;
        // Only the first record of a block is ever one.
        let large = self
            .large
            .as_ref()
            .filter(|_| offset == BLOCK_HEADER_BYTES)?;
        let payload_bytes = large.len().checked_sub(BLOCK_HEADER_BYTES)? as u32;
        if !is_body(payload_bytes, body_bytes) {
            return None;
        }
        let mut bytes = self.large.take()?;
        bytes.truncate(BLOCK_HEADER_BYTES + body_bytes as usize);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordHeader;
    use crate::segment::layout::BlockHeader;

    /// Adds a block of records with these ticks.
    fn add(merge: &mut LiveMerge, ring: u32, ticks: &[u64]) {
        let records = ticks
            .iter()
            .map(|ticks| RecordHeader::new(16, 1, 0, 0, *ticks));
        let payload: Vec<u8> = records
            .flat_map(|header| bytemuck::bytes_of(&header).to_vec())
            .collect();
        let header = BlockHeader {
            payload_bytes: payload.len() as u32,
            kind: BLOCK_DATA,
            ring,
            records: ticks.len() as u32,
            next_pos: payload.len() as u64,
            ..BlockHeader::default()
        };
        merge.add(&Block {
            header,
            offset: 0,
            payload: &payload,
        });
    }

    fn next(merge: &mut LiveMerge, horizon: u64) -> (Filled, usize) {
        let mut batch = Batch::default();
        let filled = merge.next_batch(&mut batch, horizon);
        (filled, batch.records)
    }

    #[test]
    fn records_wait_for_the_horizon_and_late_ones_come_alone() {
        let mut merge = LiveMerge::default();
        add(&mut merge, 2, &[10, 30, 31]);
        add(&mut merge, 1, &[20]);
        assert_eq!(merge.first(), Some(10));
        assert_eq!(next(&mut merge, 25), (Filled::InOrder, 2));
        assert_eq!(next(&mut merge, 25), (Filled::None, 0));
        assert_eq!((merge.first(), merge.seen()), (Some(30), 31));
        add(&mut merge, 3, &[15, 19, 30]);
        // A record whose counter fell keeps its place in its ring.
        add(&mut merge, 1, &[5]);
        assert_eq!(next(&mut merge, 40), (Filled::Late, 2));
        assert_eq!(next(&mut merge, 40), (Filled::InOrder, 4));
        assert_eq!(next(&mut merge, 40), (Filled::None, 0));
        assert_eq!((merge.first(), merge.waiting()), (None, 0));
    }

    #[test]
    fn producers_that_have_ended_are_forgotten() {
        let mut merge = LiveMerge::default();
        add(&mut merge, 0, &[1, 1_000_000]);
        let mut count = 0;
        for ring in 1..20_000 {
            add(&mut merge, ring, &[u64::from(ring) * 10]);
            while let (Filled::InOrder, more) = next(&mut merge, 999_999) {
                count += more;
            }
            merge.forget();
            assert!(merge.producers.len() <= PRODUCERS_MAX + 2);
        }
        assert_eq!(count, 20_000);
        assert_eq!(next(&mut merge, u64::MAX), (Filled::InOrder, 1));
    }
}
