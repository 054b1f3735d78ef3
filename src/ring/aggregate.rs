//! Duration aggregates: exact counts of what was offered, per record type and operation.
//!
//! ```text
//!   page 0       keys of the slots (256 u64), owners of the pages (256 u32)
//!   page 1..34   shared cells, one page per group of 8 slots     (cold paths: atomic adds)
//!   page 34..    cells of rings, one page per ring and group, handed out when first needed
//! ```
//!
//! A slot is a number for (schema, operation): [`SLOT_OTHER`] stands for all that come after the
//! first 256. Keys of slots are appended by compare-and-swap, so that each key has one slot, and
//! are never changed. `index`, a hash table in the heap, only remembers where a key is found, and
//! `Shortcuts` of each ring remember its cell: the quick path looks at nothing else.
//!
//! A page that a ring was given stays with it, whoever owns the ring: its owner adds with plain
//! loads and stores. When no page is left, the shared cells take what comes: slower, as exact.
#![expect(clippy::cast_ptr_alignment, reason = "the area is page-aligned")]
#![expect(
    unsafe_code,
    reason = "turns offsets of the region into the structures that lie there"
)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use super::cell::Cell;
use super::slot::RingSlot;
use crate::durations::Histogram;

/// Bytes of the area in the storage.
pub(crate) const AGGREGATE_BYTES: usize = 1 << 20;
pub(super) const PAGE_BYTES: usize = 4096;
/// Slots for keys.
pub(crate) const SLOTS: usize = 256;
/// The slot of all keys that found no other.
pub(crate) const SLOT_OTHER: usize = SLOTS;
/// Slots whose cells share a page.
pub(super) const GROUP_SLOTS: usize = 8;
/// Groups of slots, that of [`SLOT_OTHER`] among them.
pub(super) const GROUPS: usize = SLOTS / GROUP_SLOTS + 1;
pub(super) const SHARED_PAGE: usize = 1;
pub(super) const RING_PAGE: usize = SHARED_PAGE + GROUPS;
pub(super) const PAGES: usize = AGGREGATE_BYTES / PAGE_BYTES;
/// Pages for rings.
pub(crate) const RING_PAGES: usize = PAGES - RING_PAGE;
/// Pages for rings that the helper makes present ahead of their use.
const PREFAULT_PAGES: usize = 16;
/// Entries of the hash table, a power of two.
const INDEX: usize = 2048;
/// Keys that the hash table takes; it stays half empty. More than there are slots: keys that have
/// no slot of their own are found as quickly.
const INDEXED_MAX: u32 = 1024;
/// Entries of it that are looked at.
const PROBES: usize = 16;
/// Entries of the shortcuts of a ring.
const SHORTCUTS: usize = 256;

const _: () = assert!(size_of::<CellPage>() == PAGE_BYTES);
const _: () = assert!(size_of::<Table>() <= PAGE_BYTES);

/// What stands in page 0. FORMAT.md section 7.2.
#[repr(C, align(64))]
struct Table {
    /// By slot: [`Observation::key`]; 0 = not used. Written once.
    keys: [AtomicU64; SLOTS],
    /// By page: index of its ring times 65,536, plus its group, plus 1; 0 = not in use.
    owners: [AtomicU32; PAGES],
}

#[repr(C, align(64))]
pub(super) struct CellPage {
    cells: [Cell; GROUP_SLOTS],
}

/// Where a key was found. Written once.
struct Found {
    /// Stored last; 0 = not there yet.
    key: AtomicU64,
    /// Its slot; [`FREE`] = the entry is not taken.
    slot: AtomicU64,
}

/// A key and its cell in the pages of one ring; the key 0 is nobody's. The owner's alone.
#[repr(C)]
pub(super) struct Shortcut {
    key: AtomicU64,
    cell: AtomicPtr<Cell>,
}

/// Those of one ring, found by the hash of the key; the last one that needed its place has it.
pub(super) type Shortcuts = [Shortcut; SHORTCUTS];

const _: () = assert!(size_of::<Shortcut>() == 16);
const _: () = assert!(align_of::<Shortcut>() == 8);

/// Shortcuts for so many rings. Memory that is not used is not there: the allocator gets it zeroed
/// from the kernel. Not a box, to whose contents no pointer may lead that is older than its last
/// move.
pub(super) fn shortcuts(rings: usize) -> Vec<Shortcuts> {
    let zeroed = vec![[[0_u64; 2]; SHORTCUTS]; rings].into_boxed_slice();
    let zeroed = std::ptr::slice_from_raw_parts_mut(Box::into_raw(zeroed).cast(), rings);
    // SAFETY: of the same size and alignment by the assertions; zeroes are a key that is nobody's
    // and a null pointer.
    let zeroed: Box<[Shortcuts]> = unsafe { Box::from_raw(zeroed) };
    zeroed.into_vec()
}

/// No slot.
const FREE: u64 = u64::MAX;

/// A duration that is to be counted, and under what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    /// Schema and operation; 0 = none that has a number.
    pub(crate) key: u64,
    pub(crate) ns: u64,
}

impl Observation {
    /// `operation`: a symbol id, 0, or what stands for texts.
    #[inline(always)]
    pub(crate) fn new(schema: u16, operation: u32, ns: u64) -> Self {
        let key = (u64::from(schema) << 32) | u64::from(operation);
        Self { key, ns }
    }
}

/// The area of the storage and what finds a slot in it.
pub(crate) struct Aggregates {
    start: *mut u8,
    /// The table of the session itself: that in the area is a copy for recovery, whose page can be
    /// lost.
    table: Box<Table>,
    /// Hash table with linear probing.
    index: Box<[Found; INDEX]>,
    indexed: AtomicU32,
    next_page: AtomicU32,
}

impl Aggregates {
    /// # Safety
    /// `start` points to [`AGGREGATE_BYTES`] bytes, zeroed, aligned to 64, that stay mapped as
    /// long as this value lives and are used through it, and through the slots that it gives
    /// pages to, only.
    pub(super) unsafe fn new(start: *mut u8) -> Self {
        let free = || Found {
            key: AtomicU64::new(0),
            slot: AtomicU64::new(FREE),
        };
        let index: Box<[Found]> = (0..INDEX).map(|_| free()).collect();
        let Ok(index) = index.try_into() else {
            unreachable!("it has that length")
        };
        Self {
            start,
            table: Box::new(Table {
                keys: [const { AtomicU64::new(0) }; SLOTS],
                owners: [const { AtomicU32::new(0) }; PAGES],
            }),
            index,
            indexed: AtomicU32::new(0),
            next_page: AtomicU32::new(0),
        }
    }

    /// What recovery finds.
    fn table_copy(&self) -> &Table {
        // SAFETY: the first page of the area, aligned and zeroed by the promise of `new`; zeroes
        // are a table; it is atomics.
        unsafe { &*self.start.cast::<Table>() }
    }

    fn page(&self, index: usize) -> &CellPage {
        assert!((SHARED_PAGE..PAGES).contains(&index));
        // SAFETY: inside the area by the assertion.
        let page = unsafe { self.start.add(index * PAGE_BYTES) };
        // SAFETY: aligned and zeroed by the promise of `new`; zeroes are a page of cells; it is
        // atomics.
        unsafe { &*page.cast::<CellPage>() }
    }

    fn shared_cell(&self, slot: usize) -> &Cell {
        &self.page(SHARED_PAGE + slot / GROUP_SLOTS).cells[slot % GROUP_SLOTS]
    }

    /// The slot of a key other than 0, if it is in the table.
    fn find(&self, key: u64) -> Option<usize> {
        let home = home(key);
        for probe in 0..PROBES {
            let found = &self.index[(home + probe) % INDEX];
            // Acquire: pairs with the Release in `remember`; slot and table were stored before.
            if found.key.load(Acquire) == key {
                return Some(found.slot.load(Relaxed) as usize);
            }
        }
        None
    }

    /// The slot of a key.
    #[cold]
    fn slot(&self, key: u64) -> usize {
        if key == 0 {
            return SLOT_OTHER;
        }
        self.find(key).unwrap_or_else(|| {
            let slot = self.append(key);
            self.remember(key, slot);
            slot
        })
    }

    /// Finds the key among those that have a slot, or puts it behind them.
    fn append(&self, key: u64) -> usize {
        let copies = &self.table_copy().keys;
        for (slot, (stored, copy)) in self.table.keys.iter().zip(copies).enumerate() {
            // Relaxed: no data hangs on a key.
            let found = match stored.load(Relaxed) {
                0 => stored.compare_exchange(0, key, Relaxed, Relaxed),
                other => Err(other),
            };
            if found.is_ok() || found == Err(key) {
                // Whoever counts there has stored it: after a kill the counts have their key.
                copy.store(key, Relaxed);
                return slot;
            }
        }
        SLOT_OTHER
    }

    /// Makes the key quicker to find, while there is room.
    fn remember(&self, key: u64, slot: usize) {
        // Relaxed: a bound that threads which race may miss by their number.
        if self.indexed.load(Relaxed) >= INDEXED_MAX {
            return;
        }
        let home = home(key);
        for probe in 0..PROBES {
            let found = &self.index[(home + probe) % INDEX];
            // Relaxed: the place alone. Threads that race remember a key twice, and equally.
            let taken = found
                .slot
                .compare_exchange(FREE, slot as u64, Relaxed, Relaxed);
            if taken.is_ok() {
                // Release: pairs with the Acquire in `find`.
                found.key.store(key, Release);
                self.indexed.fetch_add(1, Relaxed);
                return;
            }
        }
    }

    /// Owner of the ring, inside a push: counts a duration.
    #[cold]
    #[inline(never)]
    pub(crate) fn observe(&self, ring: &RingSlot, observation: Observation) {
        let Observation { key, ns } = observation;
        let slot = self.slot(key);
        if own_cell(ring, slot).is_none() {
            self.add_page(ring, slot / GROUP_SLOTS);
        }
        match own_cell(ring, slot) {
            Some(cell) => {
                let shortcut = &ring.shortcuts()[home(key) % SHORTCUTS];
                // Relaxed, both: for the owner alone.
                shortcut.key.store(key, Relaxed);
                let cell_ptr = std::ptr::from_ref(cell).cast_mut();
                shortcut.cell.store(cell_ptr, Relaxed);
                cell.observe_own(ns);
            }
            None => self.shared_cell(slot).observe_shared(ns),
        }
    }

    /// Anybody: counts a duration where there is no ring, or its owner is inside a push.
    #[cold]
    pub(crate) fn observe_shared(&self, observation: Observation) {
        let slot = self.slot(observation.key);
        self.shared_cell(slot).observe_shared(observation.ns);
    }

    /// Gives the ring a page for a group of slots; none when there is none left.
    fn add_page(&self, ring: &RingSlot, group: usize) {
        let end = RING_PAGES as u32;
        let take = |next| (next < end).then_some(next + 1);
        // Relaxed: one thread alone moves the counter over a page.
        let Ok(index) = self.next_page.fetch_update(Relaxed, Relaxed, take) else {
            return;
        };
        let index = RING_PAGE + index as usize;
        // Relaxed: the owner's own, stored when it took the ring.
        let owner = ring.ring().header.index.load(Relaxed) << 16 | (group as u32 + 1);
        // Relaxed: the page was there, all zero, before; a reader that does not see its owner yet
        // reads it a moment too early. After a push has ended its busy flag orders both.
        self.table.owners[index].store(owner, Relaxed);
        self.table_copy().owners[index].store(owner, Relaxed);
        fail_point!("aggregate.page");
        let page = std::ptr::from_ref(self.page(index)).cast_mut();
        // Relaxed: for the owner of the ring alone; a later owner gets it through the stack.
        ring.cells[group].store(page, Relaxed);
    }

    /// Adds everything up: key (`None` for [`SLOT_OTHER`]) and counts of every slot that has any.
    pub(crate) fn read(&self) -> Vec<(Option<u64>, Histogram)> {
        let mut sums: Vec<Histogram> = vec![Histogram::default(); GROUPS * GROUP_SLOTS];
        let mut add = |page: &CellPage, group: usize| {
            let sums = &mut sums[group * GROUP_SLOTS..][..GROUP_SLOTS];
            for (sum, cell) in sums.iter_mut().zip(&page.cells) {
                sum.add(&cell.read());
            }
        };
        for group in 0..GROUPS {
            add(self.page(SHARED_PAGE + group), group);
        }
        for (index, owner) in self.table.owners.iter().enumerate() {
            // Relaxed: see `add_page`.
            if let Some(group) = (owner.load(Relaxed) & 0xFFFF).checked_sub(1) {
                add(self.page(index), group as usize);
            }
        }
        let keys = self.table.keys.iter().map(|key| key.load(Relaxed));
        let keys = keys.map(Some).chain([None]);
        let named = keys.zip(sums).filter(|(key, _)| *key != Some(0));
        named.filter(|(_, sum)| sum.count() > 0).collect()
    }

    /// Helper: which bytes of the area to make present: the table and what rings may take soon.
    pub(super) fn prefault(&self) -> [(usize, usize); 2] {
        let end = self.next_page.load(Relaxed) as usize + PREFAULT_PAGES;
        let bytes = end.min(RING_PAGES) * PAGE_BYTES;
        [(0, PAGE_BYTES), (RING_PAGE * PAGE_BYTES, bytes)]
    }
}

/// Where the search for a key starts. Ids of symbols are hashes of their texts already.
#[inline(always)]
fn home(key: u64) -> usize {
    (key as u32).wrapping_add((key >> 32) as u32 * 8) as usize
}

/// Owner of the ring: the cell of a key, if the ring remembers it.
#[inline(always)]
pub(crate) fn quick_cell(ring: &RingSlot, key: u64) -> Option<&Cell> {
    let shortcut = &ring.shortcuts()[home(key) % SHORTCUTS];
    // Relaxed, both: only the owner of the ring stores them, and this is the owner; a later owner
    // gets them through the stack.
    if shortcut.key.load(Relaxed) != key {
        return None;
    }
    let cell = shortcut.cell.load(Relaxed);
    // SAFETY: null, or a cell of the area, which the storage that owns this ring keeps mapped; it
    // is atomics.
    unsafe { cell.as_ref() }
}

/// Owner: the cell of a slot, if the ring has a page for it.
fn own_cell(ring: &RingSlot, slot: usize) -> Option<&Cell> {
    // Relaxed: only the owner of the ring stores it, and this is the owner.
    let page = ring.cells.get(slot / GROUP_SLOTS)?.load(Relaxed);
    // SAFETY: null, or a page of the area, which the storage that owns this ring keeps mapped; it
    // is atomics.
    let page = unsafe { page.as_ref() }?;
    Some(&page.cells[slot % GROUP_SLOTS])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn with_aggregates(test: impl FnOnce(&Aggregates)) {
        let mut area = vec![[0_u64; 8]; AGGREGATE_BYTES / 64 + 1];
        let start: *mut u8 = area.as_mut_ptr().cast();
        let start = start.wrapping_add(start.align_offset(64));
        // SAFETY: the area is as long behind `start`, zeroed and aligned, outlives the aggregates,
        // and is used through them only.
        let aggregates = unsafe { Aggregates::new(start) };
        test(&aggregates);
    }

    #[test]
    fn threads_that_race_give_each_key_one_slot() {
        const THREADS: u64 = 4;
        const KEYS: u64 = if cfg!(miri) { 20 } else { 300 };
        with_aggregates(|aggregates| {
            let shared = Shared(aggregates);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let shared = &shared;
                    scope.spawn(move || {
                        for number in 0..KEYS {
                            let operation = ((number + thread * 7) % KEYS) as u32;
                            shared.0.observe_shared(Observation::new(1, operation, 3));
                        }
                    });
                }
            });
            let told = aggregates.read();
            let named = told.iter().filter_map(|(key, _)| *key);
            let mut keys: Vec<u64> = named.collect();
            keys.sort_unstable();
            keys.dedup();
            let slots = KEYS.min(SLOTS as u64);
            assert_eq!(keys.len() as u64, slots);
            for (key, sum) in told {
                let expected = if key.is_some() { 1 } else { KEYS - slots } * THREADS;
                assert_eq!((sum.count(), sum.sum_ns), (expected, 3 * expected));
            }
        });
    }

    #[test]
    fn keys_of_one_operation_start_apart_and_are_remembered() {
        with_aggregates(|aggregates| {
            let keys = [1, 2].map(|schema| Observation::new(schema, 7, 0).key);
            assert_ne!(home(keys[0]) % SHORTCUTS, home(keys[1]) % SHORTCUTS);
            for (slot, key) in keys.into_iter().enumerate() {
                assert_eq!((aggregates.find(key), aggregates.slot(key)), (None, slot));
                assert_eq!(aggregates.find(key), Some(slot));
            }
        });
    }

    #[test]
    fn pages_are_made_present_ahead_up_to_the_end_of_the_area() {
        with_aggregates(|aggregates| {
            let ahead = |pages: usize| [(0, 4096), (34 * 4096, pages * 4096)];
            assert_eq!(aggregates.prefault(), ahead(16));
            aggregates.next_page.store(5, Relaxed);
            assert_eq!(aggregates.prefault(), ahead(21));
            aggregates.next_page.store(RING_PAGES as u32 - 3, Relaxed);
            let [_, (start, bytes)] = aggregates.prefault();
            assert_eq!(start + bytes, AGGREGATE_BYTES);
        });
    }

    struct Shared<'a>(&'a Aggregates);

    // SAFETY: as for `Storage`: what lies behind the pointer is atomics.
    unsafe impl Sync for Shared<'_> {}
}
