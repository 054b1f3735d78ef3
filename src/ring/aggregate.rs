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
//! are never changed. `index`, a hash table in the heap, only remembers where a key is found.
//!
//! A page that a ring was given stays with it, whoever owns the ring: its owner adds with plain
//! loads and stores. When no page is left, the shared cells take what comes: slower, as exact.
#![expect(
    unsafe_code,
    reason = "turns offsets of the region into the structures that lie there"
)]

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::slot::RingSlot;
use super::storage::count_own;
use crate::durations::{BUCKETS, Histogram, bucket_of};

/// Bytes of the area in the storage.
pub(crate) const AGGREGATE_BYTES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;
/// Slots for keys.
pub(crate) const SLOTS: usize = 256;
/// The slot of all keys that found no other.
pub(crate) const SLOT_OTHER: usize = SLOTS;
/// Slots whose cells share a page.
const GROUP_SLOTS: usize = 8;
/// Groups of slots, that of [`SLOT_OTHER`] among them.
pub(super) const GROUPS: usize = SLOTS / GROUP_SLOTS + 1;
const SHARED_PAGE: usize = 1;
const RING_PAGE: usize = SHARED_PAGE + GROUPS;
const PAGES: usize = AGGREGATE_BYTES / PAGE_BYTES;
/// Pages for rings.
pub(crate) const RING_PAGES: usize = PAGES - RING_PAGE;
/// Pages for rings that the helper makes present ahead of their use.
const PREFAULT_PAGES: usize = 16;
/// Entries of the hash table, a power of two.
const INDEX: usize = 2048;
/// Keys that the hash table takes; it stays half empty. More than there are slots: keys that have
/// no slot of their own are found as quickly.
const INDEXED_MAX: u32 = 1024;
/// Entries that the quick path looks at.
const QUICK_PROBES: usize = 2;

const _: () = assert!(size_of::<CellPage>() == PAGE_BYTES);
const _: () = assert!(size_of::<Table>() <= PAGE_BYTES);
const _: () = assert!(SLOTS > INDEX / 256, "keys and slots share 64 bits");

/// What stands in page 0. FORMAT.md section 7.2.
#[repr(C, align(64))]
struct Table {
    /// By slot: [`Observation::key`]; 0 = not used. Written once.
    keys: [AtomicU64; SLOTS],
    /// By page: index of its ring times 65,536, plus its group, plus 1; 0 = not in use.
    owners: [AtomicU32; PAGES],
}

/// Counts of one slot. FORMAT.md section 7.2.
#[repr(C, align(64))]
pub(crate) struct Cell {
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

const _: () = assert!(size_of::<Cell>() == 512);

#[repr(C, align(64))]
pub(super) struct CellPage {
    cells: [Cell; GROUP_SLOTS],
}

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
        let key = u64::from(schema) << 32 | u64::from(operation);
        Self { key, ns }
    }
}

impl Cell {
    /// Owner: counts a duration.
    #[inline(always)]
    pub(crate) fn observe_own(&self, ns: u64) {
        // Relaxed, as all here: own counters; exact totals are read after the owner has left.
        let sum = self.sum_ns.load(Relaxed).saturating_add(ns);
        self.sum_ns.store(sum, Relaxed);
        if ns > self.max_ns.load(Relaxed) {
            self.max_ns.store(ns, Relaxed);
        }
        count_own(&self.buckets[bucket_of(ns)]);
    }

    /// Anybody: counts a duration in a shared cell.
    fn observe_shared(&self, ns: u64) {
        let add = |sum: u64| Some(sum.saturating_add(ns));
        let added = self.sum_ns.fetch_update(Relaxed, Relaxed, add);
        debug_assert!(added.is_ok(), "the sum stays at its bound");
        self.max_ns.fetch_max(ns, Relaxed);
        self.buckets[bucket_of(ns)].fetch_add(1, Relaxed);
    }

    fn read(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Relaxed)),
            sum_ns: self.sum_ns.load(Relaxed),
            max_ns: self.max_ns.load(Relaxed),
        }
    }
}

/// The area of the storage and what finds a slot in it.
pub(crate) struct Aggregates {
    start: *mut u8,
    /// Hash table with linear probing: key times 65,536 plus slot; 0 = empty. Written once.
    index: Box<[AtomicU64; INDEX]>,
    indexed: AtomicU32,
    next_page: AtomicU32,
}

impl Aggregates {
    /// # Safety
    /// `start` points to [`AGGREGATE_BYTES`] bytes, zeroed, aligned to 64, that stay mapped as
    /// long as this value lives and are used through it, and through the slots that it gives
    /// pages to, only.
    pub(super) unsafe fn new(start: *mut u8) -> Self {
        let index: Box<[AtomicU64]> = (0..INDEX).map(|_| AtomicU64::new(0)).collect();
        let Ok(index) = index.try_into() else {
            unreachable!("it has that length")
        };
        Self {
            start,
            index,
            indexed: AtomicU32::new(0),
            next_page: AtomicU32::new(0),
        }
    }

    fn table(&self) -> &Table {
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

    /// Where the search for a key starts. Ids of symbols are hashes of their texts already.
    #[inline(always)]
    fn home(key: u64) -> usize {
        ((key as u32).wrapping_add((key >> 32) as u32 * 61)) as usize % INDEX
    }

    /// The slot of a key, if it is found at once.
    #[inline(always)]
    fn quick_slot(&self, key: u64) -> Option<usize> {
        let home = Self::home(key);
        for probe in 0..QUICK_PROBES {
            // Acquire: pairs with the Release in `remember`; the key stands in the table.
            let entry = self.index[(home + probe) % INDEX].load(Acquire);
            if entry >> 16 == key {
                return Some(usize::from(entry as u16));
            }
        }
        None
    }

    /// The slot of a key.
    #[cold]
    fn slot(&self, key: u64) -> usize {
        let home = Self::home(key);
        for probe in 0..INDEX {
            // Acquire: as in `quick_slot`.
            let entry = self.index[(home + probe) % INDEX].load(Acquire);
            if entry == 0 {
                break;
            }
            if entry >> 16 == key {
                return usize::from(entry as u16);
            }
        }
        let slot = if key == 0 {
            SLOT_OTHER
        } else {
            self.append(key)
        };
        self.remember(key, slot);
        slot
    }

    /// Finds the key among those that have a slot, or puts it behind them.
    fn append(&self, key: u64) -> usize {
        for (slot, stored) in self.table().keys.iter().enumerate() {
            // Relaxed: no data hangs on a key.
            let found = match stored.load(Relaxed) {
                0 => stored.compare_exchange(0, key, Relaxed, Relaxed),
                other => Err(other),
            };
            if found.is_ok() || found == Err(key) {
                return slot;
            }
        }
        SLOT_OTHER
    }

    /// Makes the key quicker to find, while there is room.
    fn remember(&self, key: u64, slot: usize) {
        // Relaxed: a bound that threads which race may miss by their number.
        if key == 0 || self.indexed.load(Relaxed) >= INDEXED_MAX {
            return;
        }
        let (home, entry) = (Self::home(key), key << 16 | slot as u64);
        for probe in 0..INDEX {
            let place = &self.index[(home + probe) % INDEX];
            // Release: pairs with the Acquire in `quick_slot`.
            match place.compare_exchange(0, entry, Release, Relaxed) {
                Ok(_) => {
                    self.indexed.fetch_add(1, Relaxed);
                    return;
                }
                Err(other) if other == entry => return,
                Err(_) => {}
            }
        }
    }

    /// Owner of the ring: the cell of a key, if both are known and the ring has it.
    #[inline(always)]
    pub(crate) fn quick_cell<'a>(&self, ring: &'a RingSlot, key: u64) -> Option<&'a Cell> {
        own_cell(ring, self.quick_slot(key)?)
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
            Some(cell) => cell.observe_own(ns),
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
        // AcqRel: the page belongs to whoever moved the counter over it.
        let Ok(index) = self.next_page.fetch_update(AcqRel, Relaxed, take) else {
            return;
        };
        let index = RING_PAGE + index as usize;
        // Relaxed: the owner's own, stored when it took the ring.
        let owner = ring.ring().header.index.load(Relaxed) << 16 | group as u32 + 1;
        // Release: pairs with the Acquire in `read`; the counts come after it.
        self.table().owners[index].store(owner, Release);
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
        for (index, owner) in self.table().owners.iter().enumerate() {
            // Acquire: pairs with the Release in `add_page`.
            if let Some(group) = (owner.load(Acquire) & 0xFFFF).checked_sub(1) {
                add(self.page(index), group as usize);
            }
        }
        let keys = self.table().keys.iter().map(|key| key.load(Acquire));
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

/// Owner: the cell of a slot, if the ring has a page for it.
#[inline(always)]
fn own_cell(ring: &RingSlot, slot: usize) -> Option<&Cell> {
    // Relaxed: only the owner of the ring stores it, and this is the owner.
    let page = ring.cells.get(slot / GROUP_SLOTS)?.load(Relaxed);
    // SAFETY: null, or a page of the area, which the storage that owns this ring keeps mapped; it
    // is atomics.
    let page = unsafe { page.as_ref() }?;
    Some(&page.cells[slot % GROUP_SLOTS])
}
