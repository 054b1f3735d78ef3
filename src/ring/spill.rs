//! The spill: slots for `Always` records that find their ring full, or have no ring.
//!
//! ```text
//!   free --take--> written by a producer --commit--> committed --collect--> read by the writer
//!    ^                                                                             |
//!    +----------------------------------- give_back -------------------------------+
//! ```
//!
//! A slot is 512 bytes of the ring storage (FORMAT.md section 7.1). Both stacks are lock-free, so a
//! producer that is stopped anywhere keeps one slot and holds up nobody.
//!
//! Invariants
//! 1. A slot is on one of the two stacks, or belongs to the one thread that took it from there.
//! 2. The commit word is stored last; it is 0 in every slot that is free or being written. Whoever
//!    finds the storage after a kill takes the slots whose commit word is right, and no other.
//! 3. A record that its thread spilled at `position` comes before every record that the thread
//!    committed into the ring at or behind `position`, and after all others. The writer loads
//!    `write_pos` first and collects after it, so it has seen every spilled record that comes
//!    before what it drains.
//!
//! Ordering
//! | field       | written by | read by   | store   | load    | publishes            |
//! |-------------|------------|-----------|---------|---------|----------------------|
//! | committed   | producer   | writer    | Release | Acquire | header, record       |
//! | free        | writer     | producer  | Release | Acquire | freedom to overwrite |
//! | commit word | producer   | recovery  | Release | Acquire | header, record       |
#![expect(
    unsafe_code,
    reason = "slices over slots that belong to one side at a time"
)]

use std::collections::BTreeMap;

use bytemuck::{Pod, Zeroable};

use super::registry::Memory;
use super::spsc::Ring;
use super::stack::IndexStack;
use crate::record::{HEADER_BYTES, RECORD_ALIGN, RecordHeader, SCHEMA_PADDING};
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use crate::sync::order;

/// Bytes of a slot.
#[cfg(not(loom))]
pub(crate) const SLOT_BYTES: usize = 512;
/// Bytes of a slot of a model: loom keeps a cell for every 8.
#[cfg(loom)]
pub(crate) const SLOT_BYTES: usize = 64;
/// Longest record that a slot holds; of longer ones it holds the reference to their chunks.
pub(crate) const SLOT_RECORD_BYTES: usize = SLOT_BYTES - COMMIT_BYTES - SLOT_HEADER_BYTES;
/// Ring id of records of threads that found no ring.
pub(crate) const NO_RING: u32 = u32::MAX;

const COMMIT_BYTES: usize = 8;
const SLOT_HEADER_BYTES: usize = size_of::<SlotHeader>();

/// What a slot says of its record, behind the commit word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct SlotHeader {
    pub(crate) sequence: u64,
    pub(crate) position: u64,
    pub(crate) ring: u32,
    pub(crate) bytes: u32,
}

/// Header and record of a slot whose bytes were found after its process had died; `None` when it
/// is free or was being written.
pub(crate) fn read_slot(slot: &[u8]) -> Option<(SlotHeader, &[u8])> {
    let (commit, rest) = slot.split_first_chunk::<COMMIT_BYTES>()?;
    let (header, place) = rest.split_at_checked(SLOT_HEADER_BYTES)?;
    let header: SlotHeader = bytemuck::try_pod_read_unaligned(header).ok()?;
    let record: RecordHeader = bytemuck::try_pod_read_unaligned(place.get(..HEADER_BYTES)?).ok()?;
    let commit = u64::from_le_bytes(*commit);
    let whole = is_whole(commit, &header, &record);
    whole.then_some((header, place.get(..header.bytes as usize)?))
}

/// Whether the commit word and the lengths of a slot agree.
fn is_whole(commit: u64, header: &SlotHeader, record: &RecordHeader) -> bool {
    let length = header.bytes as usize;
    commit != 0
        && commit == header.sequence.wrapping_add(1)
        && (HEADER_BYTES..=SLOT_RECORD_BYTES).contains(&length)
        && length == record.record_bytes()
        && record.schema != SCHEMA_PADDING
}

const _: () = assert!(SLOT_RECORD_BYTES.is_multiple_of(8));
#[cfg(not(loom))]
const _: () = assert!(SLOT_RECORD_BYTES == 480);

/// Where a spilled record belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Id of the ring, or [`NO_RING`].
    ring: u32,
    /// Where the ring ended, as the writer sees it: padding that is not published does not count.
    position: u64,
}

impl Origin {
    /// Of a thread without a ring.
    pub(crate) const NO_RING: Self = Self {
        ring: NO_RING,
        position: 0,
    };

    /// Owner of the ring: where its next record belongs.
    pub(crate) fn of(ring: Ring<'_>, ring_id: u32) -> Self {
        Self {
            ring: ring_id,
            // Relaxed: stored by the owner only, which is the caller.
            position: ring.header.write_pos.load(Relaxed),
        }
    }
}

/// All slots of a session.
#[derive(Debug)]
pub(crate) struct Spill {
    memory: Memory,
    free: IndexStack,
    committed: IndexStack,
    /// Number of the next record: within a thread they grow.
    sequence: AtomicU64,
}

impl Spill {
    pub(crate) fn new(memory: Memory) -> Self {
        let count = memory.bytes() / SLOT_BYTES;
        let free = IndexStack::new(count);
        // The first slots come first, again and again, while few are in use.
        (0..count as u32).rev().for_each(|index| free.push(index));
        Self {
            memory,
            free,
            committed: IndexStack::new(count),
            sequence: AtomicU64::new(0),
        }
    }

    /// Producer: takes a slot; `None` when there is none left.
    pub(crate) fn take(&self) -> Option<TakenSlot<'_>> {
        let index = self.free.pop()?;
        Some(TakenSlot { spill: self, index })
    }

    /// Whether the writer has something to collect; one load.
    pub(crate) fn has_committed(&self) -> bool {
        !self.committed.is_empty()
    }

    /// Records that were ever spilled.
    pub(crate) fn spilled(&self) -> u64 {
        self.sequence.load(Relaxed)
    }

    fn commit_word(&self, index: u32) -> &AtomicU64 {
        self.memory.long(index as usize * SLOT_BYTES)
    }

    fn header_offset(index: u32) -> usize {
        index as usize * SLOT_BYTES + COMMIT_BYTES
    }

    /// What a committed slot holds; `None` when its bytes cannot be right.
    ///
    /// # Safety
    /// The slot was committed, and the caller alone may give it back.
    unsafe fn header(&self, index: u32) -> Option<SlotHeader> {
        // Relaxed: the caller has the slot from the stack, and with it what was stored before.
        let commit = self.commit_word(index).load(Relaxed);
        let offset = Self::header_offset(index);
        // SAFETY: committed, so nobody writes it until it is given back.
        let bytes = unsafe { self.memory.slice(offset, SLOT_HEADER_BYTES) };
        let header: SlotHeader = bytemuck::pod_read_unaligned(bytes);
        // SAFETY: as above.
        let bytes = unsafe { self.memory.slice(offset + SLOT_HEADER_BYTES, HEADER_BYTES) };
        let record: RecordHeader = bytemuck::pod_read_unaligned(bytes);
        is_whole(commit, &header, &record).then_some(header)
    }

    /// Looks at a slot as recovery will: its record, when it is committed.
    #[cfg(all(test, loom))]
    pub(super) fn find(&self, index: u32) -> Option<Vec<u8>> {
        // Acquire: pairs with the Release in `TakenSlot::commit`; nothing else orders the rest.
        let order = if crate::sync::weakened("load_spill_commit") {
            Relaxed
        } else {
            crate::sync::Ordering::Acquire
        };
        if self.commit_word(index).load(order) == 0 {
            return None;
        }
        // SAFETY: committed, and in the model nobody gives it back.
        let header = unsafe { self.header(index) }.expect("a committed slot is whole");
        let offset = Self::header_offset(index) + SLOT_HEADER_BYTES;
        // SAFETY: as above.
        Some(unsafe { self.memory.slice(offset, header.bytes as usize) }.to_vec())
    }

    /// Writer: the slot belongs to nobody any more.
    fn give_back(&self, index: u32) {
        // Relaxed: published by the push below to the next owner. A kill between the copy in the
        // segment and this store leaves both: FORMAT.md section 7.1 says how to tell.
        self.commit_word(index).store(0, Relaxed);
        fail_point!("spill.emptied");
        self.free.push(index);
    }
}

/// A slot that is being filled; it goes back unless it is committed.
#[derive(Debug)]
pub(crate) struct TakenSlot<'a> {
    spill: &'a Spill,
    index: u32,
}

impl TakenSlot<'_> {
    /// The place for the record, [`SLOT_RECORD_BYTES`] long.
    pub(crate) fn record(&mut self) -> &mut [u8] {
        let offset = Spill::header_offset(self.index) + SLOT_HEADER_BYTES;
        // SAFETY: the slot belongs to us alone until it is committed (invariant 1).
        unsafe { self.spill.memory.slice_mut(offset, SLOT_RECORD_BYTES) }
    }

    /// Hands the first `bytes` bytes of the place to the writer.
    pub(crate) fn commit(self, origin: Origin, bytes: usize) {
        debug_assert!(bytes <= SLOT_RECORD_BYTES && bytes.is_multiple_of(RECORD_ALIGN));
        let Self { spill, index } = self;
        // Relaxed: a ticket; it is published with the slot.
        let sequence = spill.sequence.fetch_add(1, Relaxed);
        let header = SlotHeader {
            sequence,
            position: origin.position,
            ring: origin.ring,
            bytes: bytes as u32,
        };
        fail_point!("spill.numbered");
        let offset = Spill::header_offset(index);
        // SAFETY: as in `record`.
        let place = unsafe { spill.memory.slice_mut(offset, SLOT_HEADER_BYTES) };
        place.copy_from_slice(bytemuck::bytes_of(&header));
        std::mem::forget(self);
        // Release: after a kill it stands for the whole slot.
        let commit = spill.commit_word(index);
        commit.store(sequence + 1, order::store_spill_commit());
        fail_point!("spill.stored");
        spill.committed.push(index);
        // A writer that lies down looks at the stack after a full barrier; a thread without a ring
        // has no busy flag that would tell it of us, so the look at its sleep must come after this.
        crate::sync::full_fence("fence_spilled");
    }
}

impl Drop for TakenSlot<'_> {
    fn drop(&mut self) {
        self.spill.free.push(self.index);
    }
}

/// The writer's view: what was collected and not written yet.
#[derive(Debug, Default)]
pub(crate) struct SpillReader {
    /// Slot and length, by ring, position and sequence.
    pending: BTreeMap<(u32, u64, u64), (u32, usize)>,
}

impl SpillReader {
    /// Takes over what is committed now. `write_pos` of a ring whose records are to be drained must
    /// be loaded before. Returns how many slots cannot be read.
    pub(crate) fn collect(&mut self, spill: &Spill) -> usize {
        let mut damaged = 0;
        while let Some(index) = spill.committed.pop() {
            // SAFETY: the stack gave us a committed slot, which only `give_back` ends.
            if let Some(header) = unsafe { spill.header(index) } {
                let key = (header.ring, header.position, header.sequence);
                self.pending.insert(key, (index, header.bytes as usize));
            } else {
                damaged += 1;
                spill.give_back(index);
            }
        }
        damaged
    }

    /// Gives the slots back of which `is_lost` says that their bytes, from an offset on, were lost.
    /// Returns how many.
    pub(crate) fn lose(&mut self, spill: &Spill, is_lost: impl Fn(usize) -> bool) -> usize {
        let before = self.pending.len();
        self.pending.retain(|_, (slot, _)| {
            let lost = is_lost(*slot as usize * SLOT_BYTES);
            if lost {
                spill.give_back(*slot);
            }
            !lost
        });
        before - self.pending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Position of the next record of a ring.
    pub(crate) fn next(&self, ring: u32) -> Option<u64> {
        let from = self.pending.range((ring, 0, 0)..).next();
        let (of, position, _) = *from?.0;
        (of == ring).then_some(position)
    }

    /// Copies the records of a ring that come before its position `until` is passed into `out`, in
    /// their order, at most `bytes_max` bytes and at least one. Returns how many.
    pub(crate) fn copy(
        &self,
        spill: &Spill,
        ring: u32,
        until: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut records = 0;
        for (slot, bytes) in self.due(ring, until).map(|(_, held)| *held) {
            if records > 0 && out.len() + bytes > bytes_max {
                break;
            }
            let offset = Spill::header_offset(slot) + SLOT_HEADER_BYTES;
            // SAFETY: collected and not given back: the slot is committed and ours.
            out.extend_from_slice(unsafe { spill.memory.slice(offset, bytes) });
            records += 1;
        }
        records
    }

    /// Gives the slots of the first `records` of what [`copy`](Self::copy) showed back. They have
    /// been written, or counted as lost.
    pub(crate) fn free(&mut self, spill: &Spill, ring: u32, until: u64, records: usize) {
        let due = self.due(ring, until).take(records);
        let keys: Vec<_> = due.map(|(key, _)| *key).collect();
        for key in keys {
            if let Some((slot, _)) = self.pending.remove(&key) {
                spill.give_back(slot);
            }
        }
    }

    /// Rings that have records here.
    pub(crate) fn rings(&self) -> Vec<u32> {
        let mut rings: Vec<u32> = self.pending.keys().map(|key| key.0).collect();
        rings.dedup();
        rings
    }

    fn due(
        &self,
        ring: u32,
        until: u64,
    ) -> std::collections::btree_map::Range<'_, (u32, u64, u64), (u32, usize)> {
        self.pending.range((ring, 0, 0)..=(ring, until, u64::MAX))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The words outlive the spill in each test and are used through it only.
    fn spill(words: &mut [u64]) -> Spill {
        // SAFETY: as the comment of this function says.
        Spill::new(unsafe { Memory::new(words.as_mut_ptr().cast(), words.len() * 8) })
    }

    fn put(spill: &Spill, ring: u32, position: u64, byte: u8) {
        let mut slot = spill.take().unwrap();
        slot.record()[..16].copy_from_slice(bytemuck::bytes_of(&RecordHeader::new(
            16,
            byte.into(),
            0,
            0,
            0,
        )));
        slot.commit(Origin { ring, position }, 16);
    }

    fn copy(reader: &SpillReader, spill: &Spill, ring: u32, until: u64) -> Vec<u8> {
        let mut out = Vec::new();
        reader.copy(spill, ring, until, usize::MAX, &mut out);
        out.iter().skip(2).step_by(16).copied().collect()
    }

    #[test]
    fn records_come_back_by_ring_and_position_in_their_order() {
        let mut words = vec![0; 8 * SLOT_BYTES / 8];
        let spill = spill(&mut words);
        let mut reader = SpillReader::default();
        for (ring, position, byte) in [(2, 0, 1), (1, 64, 2), (1, 32, 3), (1, 32, 4), (2, 0, 5)] {
            put(&spill, ring, position, byte);
        }
        assert!(spill.has_committed());
        assert_eq!(reader.collect(&spill), 0);
        assert!(!spill.has_committed());
        assert_eq!((reader.next(1), reader.next(2)), (Some(32), Some(0)));
        assert_eq!(copy(&reader, &spill, 1, 31), Vec::<u8>::new());
        assert_eq!(copy(&reader, &spill, 1, 63), [3, 4]);
        assert_eq!(copy(&reader, &spill, 1, 64), [3, 4, 2]);
        assert_eq!(copy(&reader, &spill, 2, 0), [1, 5]);
        reader.free(&spill, 1, 64, 2);
        assert_eq!(copy(&reader, &spill, 1, 64), [2]);
        assert_eq!(reader.rings(), [1, 2]);
        reader.free(&spill, 1, 64, 1);
        reader.free(&spill, 2, 0, 2);
        assert!(reader.is_empty());
        assert_eq!(spill.spilled(), 5);
    }

    #[test]
    fn the_last_slot_is_followed_by_none_until_one_comes_back() {
        let mut words = vec![0; 2 * SLOT_BYTES / 8];
        let spill = spill(&mut words);
        let mut reader = SpillReader::default();
        for round in 0..5 {
            put(&spill, 1, round, 1);
            let unfinished = spill.take().unwrap();
            assert!(spill.take().is_none());
            drop(unfinished);
            put(&spill, 1, round, 2);
            assert!(spill.take().is_none());
            reader.collect(&spill);
            assert_eq!(copy(&reader, &spill, 1, round), [1, 2]);
            reader.free(&spill, 1, round, 2);
        }
    }

    #[test]
    fn slots_whose_bytes_were_lost_go_back_and_no_others() {
        const SLOTS: u8 = 4;
        let mut words = vec![0; usize::from(SLOTS) * SLOT_BYTES / 8];
        let spill = spill(&mut words);
        let mut reader = SpillReader::default();
        (1..=SLOTS).for_each(|slot| put(&spill, 1, slot.into(), slot));
        assert_eq!(reader.collect(&spill), 0);
        let lost = SLOT_BYTES..3 * SLOT_BYTES;
        assert_eq!(reader.lose(&spill, |offset| lost.contains(&offset)), 2);
        assert_eq!(copy(&reader, &spill, 1, u64::MAX), [1, 4]);
        let free: Vec<_> = std::iter::from_fn(|| spill.take()).collect();
        assert_eq!(free.len(), 2);
        assert_eq!(reader.lose(&spill, |_| false), 0);
        assert_eq!(copy(&reader, &spill, 1, u64::MAX), [1, 4]);
    }

    #[test]
    fn a_slot_that_was_overwritten_is_counted_and_goes_back() {
        let mut words = vec![0; SLOT_BYTES / 8];
        let spill = spill(&mut words);
        // Sequence and length in the slot, length and schema of the record.
        for (offset, value) in [(8, 99_u32), (28, 484), (28, 12), (32, 5 | 1 << 16), (32, 4)] {
            put(&spill, 1, 0, 1);
            // SAFETY: this thread is the only one.
            let bytes = unsafe { spill.memory.slice_mut(offset, 4) };
            bytes.copy_from_slice(&value.to_le_bytes());
            let mut reader = SpillReader::default();
            assert_eq!(reader.collect(&spill), 1);
            assert!(reader.is_empty());
        }
        assert!(spill.take().is_some());
    }
}
