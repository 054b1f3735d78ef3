//! The ring storage: one contiguous region with everything that producers write.
//!
//! ```text
//!   0        file header
//!   4,096    shared counters, 256 categories        (cold paths: atomic adds)
//!   36,864   counter pages for categories from 16 on (handed out to rings)
//!            registry
//!            duration aggregates
//!            chunks for large records
//!            slots of the spill
//!            rings: header, counters of categories 0..16, data; ...
//! ```
//!
//! The region is anonymous memory or the file `rings` of the session directory; nothing else
//! differs. All addresses are fixed when the storage is made, so that a thread that needs a ring
//! takes one without a syscall.
#![expect(
    unsafe_code,
    reason = "turns offsets of the region into the structures that lie there"
)]

mod counts;
mod lost;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use super::aggregate::{AGGREGATE_BYTES, Aggregates, Shortcuts, shortcuts};
use super::header::{COUNTER_PAGE_BYTES, PAGE_CATEGORIES, RING_MAGIC, state};
use super::large::LargeChunks;
use super::plan::{Geometry, RING_OVERHEAD, StorageSizes, ring_capacities};
use super::registry::{Memory, Registry};
use super::slot::RingSlot;
use super::spill::{SLOT_BYTES, Spill};
use super::stack::IndexStack;
use super::used::Used;
use crate::record::CATEGORIES_MAX;
use crate::segment::layout::{self, FILE_HEADER_BYTES, FileHeader};
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, barrier};
use crate::sys::map::Region;
use crate::sys::sigbus::FileGuard;

const PAGE: usize = 4096;
const GEOMETRY_OFFSET: usize = FILE_HEADER_BYTES;
const SHARED_OFFSET: usize = PAGE;
const PAGES_OFFSET: usize = SHARED_OFFSET + PAGES_PER_RING * COUNTER_PAGE_BYTES;
/// Counter pages for categories from 16 on, 1 MiB.
const PAGES_COUNT: usize = 512;
const REGISTRY_OFFSET: usize = PAGES_OFFSET + PAGES_COUNT * COUNTER_PAGE_BYTES;
/// Bytes of the registry: 1 MiB of symbols and as much for everything else.
pub(crate) const REGISTRY_BYTES: usize = 2 << 20;
const AGGREGATE_OFFSET: usize = REGISTRY_OFFSET + REGISTRY_BYTES;
const LARGE_OFFSET: usize = AGGREGATE_OFFSET + AGGREGATE_BYTES;
/// Counter pages that one ring can need.
pub(super) const PAGES_PER_RING: usize = CATEGORIES_MAX / PAGE_CATEGORIES;
/// Data bytes of a fresh ring that the helper makes present ahead of its use.
const PREFAULT_BYTES: usize = 16 << 10;

const _: () = assert!(AGGREGATE_OFFSET.is_multiple_of(PAGE));
const _: () = assert!(LARGE_OFFSET.is_multiple_of(PAGE));
// What other processes read.
const _: () = assert!(GEOMETRY_OFFSET == layout::GEOMETRY_OFFSET);
const _: () = assert!(SHARED_OFFSET == layout::SHARED_COUNTERS_OFFSET);
const _: () = assert!(
    std::mem::offset_of!(Geometry, ring_total_bytes)
        == std::mem::offset_of!(layout::RingGeometry, ring_total_bytes)
);
const _: () = assert!(
    std::mem::offset_of!(Geometry, phase) == std::mem::offset_of!(layout::RingGeometry, phase)
);

/// Where the storage lives.
#[derive(Debug)]
pub(crate) enum Backend<'a> {
    /// Memory of this process alone.
    Anonymous,
    /// A new, empty file.
    File {
        file: &'a File,
        /// Its mapping is guarded against SIGBUS, if the guard has a place for it.
        guard: bool,
    },
}

/// How many rings the helper has made present.
#[derive(Debug, Default)]
pub(crate) struct Prefaulted {
    /// The first pages of so many.
    fresh: u32,
    /// All of so many.
    used: u32,
}

/// The storage of one session.
pub(crate) struct Storage {
    // Dropped before the region.
    guard: Option<FileGuard>,
    region: Region,
    slots: Box<[RingSlot]>,
    used: Used,
    /// Used rings whose threads have ended and that were drained.
    recycled: IndexStack,
    next_ring_id: AtomicU32,
    next_page: AtomicU32,
    /// For the decisions about keyless records.
    seed: u64,
    spill_offset: usize,
    pub(crate) registry: Registry,
    pub(crate) large: LargeChunks,
    pub(crate) spill: Spill,
    pub(crate) aggregates: Aggregates,
    /// What the slots point to.
    _shortcuts: Vec<Shortcuts>,
}

// SAFETY: the raw pointers lead into `region`, which lives as long as the storage; what lies there
// is atomics or bytes that the ring, registry and chunk protocols hand from thread to thread.
unsafe impl Send for Storage {}
// SAFETY: as above. `ProducerSide` is used by the owner of the ring only: `take_ring` gives a ring
// to one thread, and it comes back through `recycle` after that thread has ended.
unsafe impl Sync for Storage {}

// Not derived: the state of a producer is its own, other threads must not read it.
impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage")
            .field("rings", &self.slots.len())
            .finish_non_exhaustive()
    }
}

/// Adds 1 to a counter that only the calling thread stores.
#[inline(always)]
pub(crate) fn count_own(counter: &AtomicU64) {
    // Relaxed: own counter; exact totals are read after the owner has left.
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

impl Storage {
    /// Bytes of a storage.
    pub(crate) fn bytes(sizes: StorageSizes) -> usize {
        let rings_offset = LARGE_OFFSET
            + sizes.large_total_bytes.next_multiple_of(PAGE)
            + sizes.spill_total_bytes.next_multiple_of(PAGE);
        (rings_offset + sizes.ring_total_bytes).next_multiple_of(PAGE)
    }

    /// Makes the storage. A file gets its space reserved first, so that no access to it can meet
    /// a full disk.
    pub(crate) fn new(
        backend: &Backend<'_>,
        header: &FileHeader,
        sizes: StorageSizes,
    ) -> io::Result<Self> {
        let ring_total_bytes = sizes.ring_total_bytes;
        let large_bytes = sizes.large_total_bytes.next_multiple_of(PAGE);
        let spill_offset = LARGE_OFFSET + large_bytes;
        let spill_bytes = sizes.spill_total_bytes.next_multiple_of(PAGE);
        let rings_offset = spill_offset + spill_bytes;
        let bytes = Self::bytes(sizes);
        let mut guarded = None;
        let region = match backend {
            Backend::Anonymous => Region::anonymous(bytes)?,
            Backend::File { file, guard } => {
                crate::sys::reserve::reserve(file, bytes as u64)?;
                let region = Region::file(file, bytes)?;
                // After a page was written back the next store into it faults: large pages have
                // far fewer of these (docs/DURABILITY.md). Not every file system has them.
                drop(region.advise_huge());
                if *guard {
                    guarded = FileGuard::new(&region, file)?;
                }
                region
            }
        };
        let header = FileHeader {
            file_bytes: bytes as u64,
            ..*header
        }
        .with_crc();
        // SAFETY: the region is longer than a header, and nobody else knows it yet.
        unsafe { region.ptr().cast::<FileHeader>().write_unaligned(header) };
        let geometry = Geometry {
            pages_offset: PAGES_OFFSET as u64,
            pages_count: PAGES_COUNT as u64,
            registry_offset: REGISTRY_OFFSET as u64,
            registry_bytes: REGISTRY_BYTES as u64,
            large_offset: LARGE_OFFSET as u64,
            large_bytes: large_bytes as u64,
            rings_offset: rings_offset as u64,
            ring_total_bytes: ring_total_bytes as u64,
            spill_offset: spill_offset as u64,
            spill_bytes: spill_bytes as u64,
            spill_slot_bytes: SLOT_BYTES as u64,
            aggregate_offset: AGGREGATE_OFFSET as u64,
            aggregate_bytes: AGGREGATE_BYTES as u64,
            phase: 0,
        };
        region.write(GEOMETRY_OFFSET, bytemuck::bytes_of(&geometry));
        let capacities = ring_capacities(ring_total_bytes);
        let mut offset = rings_offset;
        let shortcuts = shortcuts(capacities.len());
        let slots = capacities
            .iter()
            .zip(&shortcuts)
            .map(|(capacity, shortcuts)| {
                let slot = RingSlot::new(&region, offset, *capacity, shortcuts);
                offset += RING_OVERHEAD + capacity;
                slot
            });
        let slots: Box<[RingSlot]> = slots.collect();
        assert!(offset <= region.len(), "the plan keeps the bound");
        // SAFETY: inside the region, which is longer.
        let registry = unsafe { region.ptr().add(REGISTRY_OFFSET) };
        // SAFETY: `REGISTRY_BYTES` of the region, page-aligned; only the registry uses them.
        let memory = unsafe { Memory::new(registry, REGISTRY_BYTES) };
        // SAFETY: inside the region, which is longer.
        let chunks = unsafe { region.ptr().add(LARGE_OFFSET) };
        // SAFETY: `large_bytes` of the region, page-aligned; only the chunks use them.
        let large = unsafe { LargeChunks::new(chunks, large_bytes) };
        // SAFETY: inside the region, which is longer.
        let slots_start = unsafe { region.ptr().add(spill_offset) };
        // SAFETY: `spill_bytes` of the region, page-aligned; only the spill uses them.
        let spill = Spill::new(unsafe { Memory::new(slots_start, spill_bytes) });
        // SAFETY: inside the region, which is longer.
        let cells = unsafe { region.ptr().add(AGGREGATE_OFFSET) };
        // SAFETY: `AGGREGATE_BYTES`, zeroed, page-aligned; only they and rings with pages use it.
        let aggregates = unsafe { Aggregates::new(cells) };
        Ok(Self {
            recycled: IndexStack::new(slots.len()),
            slots,
            used: Used::new(),
            next_ring_id: AtomicU32::new(1),
            next_page: AtomicU32::new(0),
            spill_offset,
            seed: u64::from_le_bytes(*header.nonce.first_chunk().unwrap_or(&[0; 8])),
            registry: Registry::new(memory),
            large,
            spill,
            aggregates,
            _shortcuts: shortcuts,
            guard: guarded,
            region,
        })
    }

    /// Closer: lets whoever finds the storage know that the session was being closed.
    pub(crate) fn note_closing(&self) {
        let phase = GEOMETRY_OFFSET + std::mem::offset_of!(Geometry, phase);
        self.region.store_u64(phase, layout::PHASE_CLOSING);
    }

    /// The slot of a ring.
    #[inline(always)]
    pub(crate) fn slot(&self, index: u32) -> &RingSlot {
        &self.slots[index as usize]
    }

    /// Rings that were ever used: indices are below this.
    pub(crate) fn used(&self) -> u32 {
        self.used.count()
    }

    /// Gives a ring to the calling thread; `None` when all are in use. No syscall, no lock.
    /// Returns the index of the ring.
    pub(crate) fn take_ring(&self) -> Option<u32> {
        let index = match self.recycled.pop() {
            Some(index) => index,
            None => self.used.take(self.slots.len() as u32)?,
        };
        let slot = self.slot(index);
        // Relaxed: a ticket. What follows is published by the first commit of the new owner.
        let ring_id = self.next_ring_id.fetch_add(1, Relaxed);
        slot.take(self.seed, ring_id);
        fail_point!("ring.numbered");
        let header = slot.ring().header;
        header.magic.store(RING_MAGIC, Relaxed);
        header.index.store(index, Relaxed);
        header.capacity.store(slot.buffer.capacity(), Relaxed);
        header.ring_id.store(ring_id, Relaxed);
        header.state.store(state::ACTIVE, Relaxed);
        fail_point!("ring.taken");
        Some(index)
    }

    /// Writer: puts a drained ring whose thread has ended back into circulation.
    pub(crate) fn recycle(&self, index: u32) {
        // Relaxed: the stack hands it on.
        let header = self.slot(index).ring().header;
        header.state.store(state::READY, Relaxed);
        fail_point!("ring.recycled");
        self.recycled.push(index);
    }

    /// Helper: makes the first pages of one of the next rings present, or all of a ring in use, or
    /// those for aggregates. Returns whether there is more to do: taking memory may be slow (5 ms
    /// for 2 MiB where the machine gives free memory back to its host), and who asks for all of it
    /// may have something more urgent to do in between.
    pub(crate) fn prefault(&self, done: &mut Prefaulted, ahead: u32) -> io::Result<bool> {
        let used = self.used();
        let fresh_end = (used + ahead).min(self.slots.len() as u32);
        if done.fresh < fresh_end {
            self.populate(done.fresh, PREFAULT_BYTES)?;
            done.fresh += 1;
        } else if done.used < used {
            self.populate(done.used, usize::MAX)?;
            done.used += 1;
        } else {
            let areas = self.aggregates.prefault();
            for (start, bytes) in areas {
                self.region.populate(AGGREGATE_OFFSET + start, bytes)?;
            }
            return Ok(false);
        }
        Ok(true)
    }

    fn populate(&self, index: u32, data_bytes: usize) -> io::Result<()> {
        let slot = self.slot(index);
        let start = slot.offset / PAGE * PAGE;
        let data = data_bytes.min(slot.buffer.capacity() as usize);
        let end = (slot.offset + RING_OVERHEAD + data).next_multiple_of(PAGE);
        self.region
            .populate(start, end.min(self.region.len()) - start)
            .map(drop)
    }

    /// Writer: asks every producer to wake it, or not to. True when it may sleep as far as pushes
    /// that are running now are concerned; the rings must be looked at after this.
    pub(crate) fn set_doze(&self, doze: bool) -> bool {
        let ask = |index| self.slot(index).busy.set_doze(doze);
        if doze {
            self.used.ask_each(ask);
        } else {
            // One that is taken meanwhile is woken for nothing, once.
            (0..self.used()).for_each(ask);
        }
        !(0..self.used()).any(|index| self.slot(index).busy.is_busy())
    }

    /// Closer: refuses new pushes and waits until none is running, at most `tries` rounds of
    /// `pause`. Returns how many producers are still busy.
    pub(crate) fn close_producers(&self, tries: u32, pause: impl Fn()) -> usize {
        self.slots.iter().for_each(|slot| slot.busy.close());
        barrier::heavy();
        let busy = || {
            self.slots[..self.used() as usize]
                .iter()
                .filter(|s| s.busy.is_busy())
                .count()
        };
        for _ in 0..tries {
            if busy() == 0 {
                return 0;
            }
            pause();
        }
        busy()
    }
}
