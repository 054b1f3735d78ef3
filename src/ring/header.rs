//! What lies before the data of every ring in the ring storage, so that the storage describes
//! itself to whoever finds it.

use crate::ledger::COUNTERS;
use crate::record::{CATEGORIES_BUILTIN, CATEGORIES_MAX};
use crate::segment::layout;
use crate::sync::{AtomicU32, AtomicU64};

pub(crate) use crate::segment::layout::RING_MAGIC;
/// Bytes of [`RingHeader`] in the storage.
pub(crate) const RING_HEADER_BYTES: usize = 256;
/// Categories whose counters lie in one page.
pub(crate) const PAGE_CATEGORIES: usize = 16;
/// Bytes of one page of counters.
pub(crate) const COUNTER_PAGE_BYTES: usize = PAGE_CATEGORIES * COUNTERS * 8;

/// States of a ring.
pub(crate) mod state {
    /// Nobody owns it; all its records were drained.
    pub(crate) const READY: u32 = 0;
    /// A thread owns it.
    pub(crate) const ACTIVE: u32 = 1;
    /// Its thread has ended; the writer drains what is left and makes it ready.
    pub(crate) const EXITED: u32 = 2;
}

/// Header of a ring. Three cache lines that different sides write: identity (rarely), `write_pos`
/// (producer), `read_pos` (writer).
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct RingHeader {
    /// [`RING_MAGIC`].
    pub(crate) magic: AtomicU32,
    /// Index of the ring in the storage.
    pub(crate) index: AtomicU32,
    /// Bytes of data behind the header and the counters, a power of two.
    pub(crate) capacity: AtomicU64,
    /// Id of the producer that owns the ring now, or owned it last. Never 0 after first use.
    pub(crate) ring_id: AtomicU32,
    /// One of [`state`].
    pub(crate) state: AtomicU32,
    identity_tail: [u64; 5],
    /// Bytes committed since the storage was made. Only the owner stores it (Release): it
    /// publishes the record bytes before it.
    pub(crate) write_pos: AtomicU64,
    write_tail: [u64; 7],
    /// Bytes drained. Only the writer stores it (Release): it frees the bytes before it, and it
    /// is stored after their copy in the segment was published.
    pub(crate) read_pos: AtomicU64,
    read_tail: [u64; 7],
    /// Index plus one of the counter page of each group of categories from 16 on; 0 = none.
    pub(crate) pages: [std::sync::atomic::AtomicU32; CATEGORIES_MAX / PAGE_CATEGORIES],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<RingHeader>() == RING_HEADER_BYTES);
#[cfg(not(loom))]
const _: () = assert!(std::mem::offset_of!(RingHeader, write_pos) == 64);
#[cfg(not(loom))]
const _: () = assert!(std::mem::offset_of!(RingHeader, read_pos) == 128);
const _: () = assert!(CATEGORIES_BUILTIN.len() == PAGE_CATEGORIES);
// What other processes read.
#[cfg(not(loom))]
const _: () = assert!(
    std::mem::offset_of!(RingHeader, pages) == std::mem::offset_of!(layout::RingHead, pages)
);
const _: () = assert!(std::mem::offset_of!(layout::RingHead, write_pos) == 64);
const _: () = assert!(std::mem::offset_of!(layout::RingHead, read_pos) == 128);
const _: () = assert!(size_of::<layout::RingHead>() == RING_HEADER_BYTES);
const _: () = assert!(layout::COUNTER_PAGE_BYTES == COUNTER_PAGE_BYTES);

/// Counters of 16 categories, in the order of FORMAT.md section 8.1. One writer, many readers:
/// the owner of the ring adds with a plain load and store.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct CounterPage {
    pub(crate) categories: [[std::sync::atomic::AtomicU64; COUNTERS]; PAGE_CATEGORIES],
}

const _: () = assert!(size_of::<CounterPage>() == COUNTER_PAGE_BYTES);

#[cfg(test)]
impl RingHeader {
    /// A header outside of a storage: loom's atomics cannot lie in mapped memory.
    pub(crate) fn for_model(capacity: u64) -> Self {
        Self {
            magic: AtomicU32::new(RING_MAGIC),
            index: AtomicU32::new(0),
            capacity: AtomicU64::new(capacity),
            ring_id: AtomicU32::new(1),
            state: AtomicU32::new(state::ACTIVE),
            identity_tail: [0; 5],
            write_pos: AtomicU64::new(0),
            write_tail: [0; 7],
            read_pos: AtomicU64::new(0),
            read_tail: [0; 7],
            pages: Default::default(),
        }
    }
}
