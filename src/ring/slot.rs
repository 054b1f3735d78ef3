//! One ring: where it lies in the storage, and the state of its producer.
#![expect(
    unsafe_code,
    reason = "turns offsets of the region into the structures that lie there"
)]

use std::cell::UnsafeCell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

use super::aggregate::{CellPage, GROUPS, Shortcuts};
use super::buffer::Buffer;
use super::busy::{BusyFlag, BusyGuard};
use super::header::{CounterPage, PAGE_CATEGORIES, RING_HEADER_BYTES, RingHeader};
use super::plan::RING_OVERHEAD;
use super::spsc::{ProducerSide, Ring};
use super::storage::PAGES_PER_RING;
use crate::ledger::COUNTERS;
use crate::record::PackedIds;
use crate::sampling::Gaps;
use crate::sync::barrier;
use crate::sys::map::Region;

/// One ring with the private state of its producer. Aligned, so that two producers never write to
/// one cache line.
#[repr(align(64))]
pub(crate) struct RingSlot {
    pub(super) header: *const RingHeader,
    pub(super) buffer: Buffer,
    /// Private to the thread that owns the ring.
    pub(crate) side: ProducerSide,
    pub(crate) busy: BusyFlag,
    /// Counter pages: that of the first 16 categories lies beside the ring, the others are null
    /// until first needed.
    pub(super) pages: [AtomicPtr<CounterPage>; PAGES_PER_RING],
    /// Cells of duration aggregates, by group of slots; null until first needed.
    pub(super) cells: [AtomicPtr<CellPage>; GROUPS],
    /// Which cell a key has in this ring, as far as the owner remembers. Lives as long as the
    /// storage.
    pub(super) shortcuts: *const Shortcuts,
    /// Decides about keyless records. The owner's, inside a push.
    gaps: UnsafeCell<Gaps>,
    /// Id of its owner. What the header says is for others, and can be lost with its page.
    ring_id: AtomicU32,
    /// Offset of the ring in the region.
    pub(super) offset: usize,
}

impl RingSlot {
    pub(super) fn new(
        region: &Region,
        offset: usize,
        capacity: usize,
        shortcuts: *const Shortcuts,
    ) -> Self {
        assert!(offset.is_multiple_of(64));
        assert!(offset + RING_OVERHEAD + capacity <= region.len());
        // SAFETY: inside the region by the assertion.
        let start = unsafe { region.ptr().add(offset) };
        // SAFETY: as above.
        let counters = unsafe { start.add(RING_HEADER_BYTES) };
        // SAFETY: as above.
        let data = unsafe { start.add(RING_OVERHEAD) };
        // SAFETY: `capacity` zeroed bytes of the region, aligned to 64, a power of two by the plan;
        // this ring alone uses them.
        let buffer = unsafe { Buffer::new(data, capacity as u64) };
        let busy = BusyFlag::new();
        if !barrier::supported() {
            busy.set_fenced();
        }
        let mut pages = [const { AtomicPtr::new(std::ptr::null_mut()) }; PAGES_PER_RING];
        pages[0] = AtomicPtr::new(counters.cast());
        Self {
            header: start.cast(),
            buffer,
            side: ProducerSide::new(),
            busy,
            pages,
            cells: [const { AtomicPtr::new(std::ptr::null_mut()) }; GROUPS],
            shortcuts,
            gaps: UnsafeCell::new(Gaps::new(0, 0)),
            ring_id: AtomicU32::new(0),
            offset,
        }
    }

    /// New owner: takes over the ring, with decisions of its own.
    pub(super) fn take(&self, seed: u64, ring_id: u32) {
        self.side.take(self.ring());
        // Relaxed: published by the first commit of the new owner.
        self.ring_id.store(ring_id, Relaxed);
        // SAFETY: the former owner has ended, the caller is the new one and not inside a push.
        unsafe { *self.gaps.get() = Gaps::new(seed, ring_id.into()) };
    }

    /// Id of the producer that owns the ring, or owned it last.
    pub(crate) fn ring_id(&self) -> u32 {
        // Relaxed: the owner stored it; the writer has acquired a commit that came after that.
        self.ring_id.load(Relaxed)
    }

    /// Bytes of the region that the ring takes, from `offset` on.
    pub(super) fn bytes(&self) -> usize {
        RING_OVERHEAD + self.buffer.capacity() as usize
    }

    /// Owner, inside a push: the decisions about its keyless records.
    pub(crate) fn gaps<'a>(&'a self, guard: &'a mut BusyGuard<'_>) -> &'a mut Gaps {
        debug_assert!(guard.is_of(&self.busy), "the guard of another ring");
        // SAFETY: the guard says that the owner is inside a push into this ring, and there is one
        // guard at a time (a second push is refused); it is borrowed as long as the result.
        unsafe { &mut *self.gaps.get() }
    }

    /// Owner: its counters of a category; `None` when it has no page for them yet.
    pub(crate) fn counters(&self, category: u8) -> Option<&[AtomicU64; COUNTERS]> {
        let category = usize::from(category);
        self.counters_at(category / PAGE_CATEGORIES, category % PAGE_CATEGORIES)
    }

    /// The same for the category of a schema, as quickly as can be.
    #[inline(always)]
    pub(crate) fn quick_counters(&self, ids: PackedIds) -> Option<&[AtomicU64; COUNTERS]> {
        const _: () = assert!(PAGE_CATEGORIES == 16);
        let (page, index) = ids.category_of_16();
        self.counters_at(page, index)
    }

    #[inline(always)]
    fn counters_at(&self, page: usize, index: usize) -> Option<&[AtomicU64; COUNTERS]> {
        // Relaxed: only the owner of the ring stores it, and this is the owner; a later owner
        // gets the ring through the stack.
        let page = self.pages[page].load(Relaxed);
        // SAFETY: null, or a page in the region, which the storage that owns this slot keeps
        // mapped; pages are atomics, aligned to 64.
        let page = unsafe { page.as_ref() }?;
        Some(&page.categories[index])
    }

    /// Owner: where it remembers cells.
    #[inline(always)]
    pub(super) fn shortcuts(&self) -> &Shortcuts {
        // SAFETY: points to an element of the table that the storage, which owns this slot, keeps;
        // it is atomics.
        unsafe { &*self.shortcuts }
    }

    /// Both sides' view.
    #[inline(always)]
    pub(crate) fn ring(&self) -> Ring<'_> {
        // SAFETY: points to a zeroed or initialised header in the region, which the storage that
        // owns this slot keeps mapped; the header is atomics, aligned to 64.
        let header = unsafe { &*self.header };
        Ring {
            header,
            buffer: &self.buffer,
        }
    }
}
