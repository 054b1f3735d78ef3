//! Draining: from rings and spill into blocks.
//!
//! A record that a thread spilled when its ring ended at P is written exactly when the ring has
//! been drained up to P, so the blocks of a producer hold its records in their order.

use super::helper::{Task, note};
use super::lost::Held;
use super::scan::Scan;
use super::{Consumer, Core, Writer};
use crate::record::{KeepClass, LargeReference, align_record};
use crate::ring::NO_RING;
use crate::segment::layout::{
    BLOCK_DATA, BLOCK_FLAG_SHED, BLOCK_LARGE, DATA_BYTES_MAX, PAYLOAD_BYTES_MAX, block_bytes,
};
use crate::segment::writer::BlockInfo;

/// What is taken from one ring before the next one has its turn: a block.
const TURN_BYTES: u64 = DATA_BYTES_MAX as u64;

/// Where the bytes of a block come from.
#[derive(Clone, Copy)]
struct From {
    /// Id of the producer.
    ring: u32,
    /// Position of the first byte in its stream.
    position: u64,
    /// The bytes come from the spill: they stand between two bytes of the stream.
    spilled: bool,
}

/// What a pass has taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drained {
    pub(super) bytes: usize,
    /// How full the fullest ring was, as a part of its capacity; or the memory of long records.
    pub(super) fill: f64,
}

impl Writer {
    /// Takes everything that is committed now from every ring and the spill.
    pub(super) fn drain_all(&mut self) -> Drained {
        let core = std::sync::Arc::clone(&self.core);
        let used = core.storage.used();
        if self.consumers.len() < used as usize {
            self.consumers.resize_with(used as usize, Consumer::new);
            self.segments.tell_helper(Task::Rings);
        }
        self.look_at_pages(&core);
        let long = core.wake.look_at_long() as f64;
        self.balance.begin_pass();
        let mut drained = Drained {
            bytes: 0,
            fill: long / core.storage.large.pool_bytes().max(1) as f64,
        };
        let mut ends = std::mem::take(&mut self.ends);
        ends.clear();
        // In turns, so that no full ring has to wait until all others are empty.
        let mut left = used;
        while left > 0 && !self.stalled {
            left = 0;
            for index in 0..used {
                let end = ends.get(index as usize).copied();
                if end.is_some_and(|end| self.consumers[index as usize].read_pos() >= end) {
                    continue;
                }
                let begin = self.consumers[index as usize].read_pos();
                let (bytes, end) = self.drain_ring(&core, index, end);
                drained.bytes += bytes;
                if ends.len() == index as usize {
                    ends.push(end);
                    let capacity = core.storage.slot(index).ring().buffer.capacity();
                    let fill = (end - begin) as f64 / capacity as f64;
                    drained.fill = drained.fill.max(fill);
                }
                let read_pos = self.consumers[index as usize].read_pos();
                left += u32::from(read_pos < ends[index as usize]);
                if self.stalled {
                    // Each further ring would wait for the segment anew.
                    break;
                }
            }
        }
        self.ends = ends;
        if !self.stalled {
            self.collect_spilled(&core);
            drained.bytes += self.write_spilled(&core, NO_RING, u64::MAX);
        }
        self.segments.publish();
        self.balance.end_pass();
        drained
    }

    /// Takes [`TURN_BYTES`] or a block more from a ring, and not what comes after `end`, if it is
    /// known. Both ends of a run lie between records.
    /// Returns the bytes taken, and up to where there are records.
    fn drain_ring(&mut self, core: &Core, index: u32, end: Option<u64>) -> (usize, u64) {
        let slot = core.storage.slot(index);
        let ring = slot.ring();
        let given_up = ring.is_given_up();
        let mut consumer = std::mem::replace(&mut self.consumers[index as usize], Consumer::new());
        let start = consumer.read_pos();
        let committed = consumer.committed(ring);
        let end = end.unwrap_or(committed);
        let turn_end = end.min(start + TURN_BYTES);
        self.balance.ring(committed - start, ring.buffer.capacity());
        // After `committed`: what comes before a record up to `end` is among it.
        self.collect_spilled(core);
        fail_point!("drain.collected");
        let ring_id = slot.ring_id();
        if self.pass_over_ring(core, index, &mut consumer) {
            self.shed_rings.insert(ring_id);
        }
        let mut spilled = 0;
        loop {
            spilled += self.write_spilled(core, ring_id, consumer.read_pos());
            if self.stalled || consumer.read_pos() >= turn_end {
                break;
            }
            let until = self.spilled.next(ring_id).map_or(end, |next| next.min(end));
            let mut run = consumer.run(ring, until);
            self.segments.look_at_bound(self.scanner.written().lines);
            if self.segments.is_shedding() {
                let (bytes, class) = self.scanner.same_class(run);
                run = &run[..bytes];
                if class == KeepClass::Sampled {
                    let end = consumer.read_pos() + bytes as u64;
                    self.shed(core, index, &mut consumer, end);
                    self.shed_rings.insert(ring_id);
                    continue;
                }
            }
            let from = From {
                ring: ring_id,
                position: consumer.read_pos(),
                spilled: false,
            };
            let Some(scan) = self.write_run(core, from, run) else {
                self.stalled = true;
                break;
            };
            let chunk = scan.large.map(|large| large.chunk);
            let next = if scan.damaged && scan.covered == 0 {
                self.damaged(ring_id, run.len());
                consumer.read_pos() + run.len() as u64
            } else {
                consumer.read_pos() + scan.covered as u64
            };
            fail_point!("drain.written");
            consumer.free(ring, next);
            fail_point!("drain.freed");
            if let Some(chunk) = chunk {
                core.storage.large.give_back(chunk);
            }
            self.between_blocks(scan.covered);
        }
        if given_up && consumer.read_pos() == committed && !self.stalled {
            debug_assert!(self.spilled.next(ring_id).is_none(), "the thread has ended");
            self.shed_rings.remove(&ring_id);
            core.storage.recycle(index);
        }
        let drained = (consumer.read_pos() - start) as usize;
        self.consumers[index as usize] = consumer;
        (drained + spilled, committed)
    }

    /// Takes over what was spilled up to now.
    pub(super) fn collect_spilled(&mut self, core: &Core) {
        let damaged = self.spilled.collect(&core.storage.spill);
        if damaged > 0 {
            self.damaged = true;
            let what =
                format!("{damaged} slots of the spill cannot be read: they were overwritten");
            note(&mut self.faults, what);
        }
    }

    /// Writes the spilled records of a producer that come before its position `until` is passed.
    /// Returns their bytes; `stalled` when some are left because there is no segment.
    fn write_spilled(&mut self, core: &Core, ring: u32, until: u64) -> usize {
        let mut written = 0;
        while let Some(position) = self.spilled.next(ring).filter(|next| *next <= until) {
            let mut batch = std::mem::take(&mut self.batch);
            batch.clear();
            let spill = &core.storage.spill;
            self.spilled
                .copy(spill, ring, position, DATA_BYTES_MAX, &mut batch);
            let from = From {
                ring,
                position: if ring == NO_RING {
                    self.no_ring_pos
                } else {
                    position
                },
                spilled: true,
            };
            let scan = self.write_run(core, from, &batch);
            self.batch = batch;
            let Some(scan) = scan else {
                self.stalled = true;
                break;
            };
            fail_point!("drain.spilled");
            // A record of no known schema costs itself alone: each slot knows its length.
            let unreadable = usize::from(scan.records == 0);
            if unreadable > 0 {
                self.damaged(ring, self.batch.len());
            }
            let records = scan.records as usize + unreadable;
            self.spilled.free(spill, ring, position, records);
            fail_point!("drain.spill_freed");
            self.no_ring_pos += if ring == NO_RING { records as u64 } else { 0 };
            if let Some(large) = scan.large {
                core.storage.large.give_back(large.chunk);
            }
            written += scan.covered;
        }
        written
    }

    /// Drops the normal records of a ring up to `end`, for which there is no space.
    fn shed(&mut self, core: &Core, index: u32, consumer: &mut Consumer, end: u64) {
        let slot = core.storage.slot(index);
        while consumer.read_pos() < end {
            let run = consumer.run(slot.ring(), end);
            let scan = self.scanner.scan(run);
            let mut bytes = scan.covered;
            if bytes == 0 {
                bytes = run.len();
                self.damaged(slot.ring_id(), bytes);
            }
            self.scanner
                .take_unwritten(|category, records| core.add_dropped_disk(category, records));
            fail_point!("drain.shed");
            consumer.free(slot.ring(), consumer.read_pos() + bytes as u64);
            // Not before: as long as the record is in its ring, recovery reads its chunks.
            let holds = |large: &LargeReference| core.storage.large.holds(*large);
            if let Some(large) = scan.large.filter(holds) {
                core.storage.large.give_back(large.chunk);
            }
        }
    }

    /// Writes the start of a run as one block, or nothing of it when normal records are shed from
    /// now on. `None` when there is no segment to write to.
    fn write_run(&mut self, core: &Core, from: From, run: &[u8]) -> Option<Scan> {
        let mut held = std::mem::take(&mut self.lost.held);
        let scan = self.write_held(core, from, run, &mut held);
        self.lost.held = held.emptied();
        scan
    }

    fn write_held(&mut self, core: &Core, from: From, run: &[u8], held: &mut Held) -> Option<Scan> {
        let room = block_bytes(run.len().min(DATA_BYTES_MAX));
        let shedding = self.segments.is_shedding() || from.spilled;
        if !self.segments.ensure(room) {
            return None;
        }
        if self.segments.is_shedding() && !shedding {
            return Some(Scan::default());
        }
        let scan = self.scanner.scan(run);
        if scan
            .large
            .is_some_and(|large| !core.storage.large.holds(large))
        {
            self.scanner.take_unwritten(|_, _| ());
            return Some(Scan {
                damaged: true,
                ..Scan::default()
            });
        }
        if !self.hold(core, held, &run[..scan.payload], scan.large) {
            // Pages were lost meanwhile: the next pass knows which.
            self.scanner.take_unwritten(|_, _| ());
            return None;
        }
        if let Some(large) = scan.large {
            let bytes = align_record(large.body_bytes as usize);
            let whole = block_bytes(bytes) + room;
            debug_assert!(
                bytes <= PAYLOAD_BYTES_MAX,
                "the producer refuses longer ones"
            );
            if !self.segments.ensure(whole) {
                self.scanner.take_unwritten(|_, _| ());
                return None;
            }
            if self.segments.is_shedding() && !shedding {
                self.scanner.take_unwritten(|_, _| ());
                return Some(Scan::default());
            }
            self.write_large(from.ring, from.position, &scan, large, |put| {
                held.body(&core.storage, large, put);
            });
            fail_point!("drain.large");
        }
        if scan.records > 0 {
            let covered = if from.spilled { 0 } else { scan.covered };
            let info = BlockInfo {
                kind: BLOCK_DATA,
                flags: self.shed_flag(from.ring),
                ring: from.ring,
                records: scan.records,
                first_pos: from.position,
                next_pos: from.position + covered as u64,
                min_ticks: scan.min_ticks,
                max_ticks: scan.max_ticks,
            };
            let payload = held.payload(&core.storage, &run[..scan.payload]);
            if !self.segments.append(info, payload) {
                self.scanner.take_unwritten(|_, _| ());
                return None;
            }
            self.shed_rings.remove(&from.ring);
            self.count_written();
            self.clock.set_used();
        }
        Some(scan)
    }

    /// The flag of a block before which records of its ring are missing, and are counted.
    pub(super) fn shed_flag(&mut self, ring: u32) -> u16 {
        if self.segments.rescues != self.rescues {
            self.rescues = self.segments.rescues;
            // Relaxed: rings that the writer has drained before; it saw their ids then.
            let ids = (0..self.consumers.len())
                .map(|index| self.core.storage.slot(index as u32).ring_id());
            self.shed_rings.extend(ids.chain([0, NO_RING]));
        }
        if self.shed_rings.contains(&ring) {
            BLOCK_FLAG_SHED
        } else {
            0
        }
    }

    pub(super) fn write_large(
        &mut self,
        ring: u32,
        position: u64,
        scan: &Scan,
        large: LargeReference,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) {
        let info = BlockInfo {
            kind: BLOCK_LARGE,
            flags: 0,
            ring,
            records: 1,
            first_pos: position,
            next_pos: position,
            min_ticks: scan.min_ticks,
            max_ticks: scan.min_ticks,
        };
        let bytes = align_record(large.body_bytes as usize);
        self.segments.append_large(info, bytes, fill);
    }

    pub(super) fn count_written(&mut self) {
        let (core, segments) = (&self.core, &mut self.segments);
        let written = self.scanner.take_counts(|category, records| {
            core.add_written(category, records);
            segments.count(category, records);
        });
        segments.count_always(written.always_records);
    }

    fn damaged(&mut self, ring: u32, bytes: usize) {
        self.damaged = true;
        let what = format!("{bytes} bytes in ring {ring} are no records: memory was overwritten");
        note(&mut self.faults, what);
    }
}
