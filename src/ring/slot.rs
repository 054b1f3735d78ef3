//! One ring: where it lies in the storage, and the state of its producer.
#![expect(
    unsafe_code,
    reason = "turns offsets of the region into the structures that lie there"
)]

use std::sync::atomic::AtomicPtr;

use super::buffer::Buffer;
use super::busy::BusyFlag;
use super::header::{CounterPage, RING_HEADER_BYTES, RingHeader};
use super::plan::RING_OVERHEAD;
use super::spsc::{ProducerSide, Ring};
use super::storage::PAGES_PER_RING;
use crate::sync::barrier;
use crate::sys::map::Region;

/// One ring with the private state of its producer. Aligned, so that two producers never write to
/// one cache line.
#[repr(align(64))]
pub(crate) struct RingSlot {
    pub(super) header: *const RingHeader,
    pub(super) counters: *const CounterPage,
    pub(super) buffer: Buffer,
    /// Private to the thread that owns the ring.
    pub(crate) side: ProducerSide,
    pub(crate) busy: BusyFlag,
    /// Counter pages of categories from 16 on; null until first needed.
    pub(super) pages: [AtomicPtr<CounterPage>; PAGES_PER_RING],
    /// Offset of the ring in the region.
    pub(super) offset: usize,
}

impl RingSlot {
    pub(super) fn new(region: &Region, offset: usize, capacity: usize) -> Self {
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
        Self {
            header: start.cast(),
            counters: counters.cast(),
            buffer,
            side: ProducerSide::new(),
            busy,
            pages: [const { AtomicPtr::new(std::ptr::null_mut()) }; PAGES_PER_RING],
            offset,
        }
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
