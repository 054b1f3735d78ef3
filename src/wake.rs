//! Waking the writer.

use std::cell::Cell;
use std::sync::OnceLock;
use std::thread::Thread;

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicBool, AtomicU64, full_fence};

thread_local! {
    /// The thread is one of the engine: the writer of some session, or who appends its lines.
    static IS_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// Writer, and who appends lines: the calling thread is one.
pub(crate) fn become_engine() {
    IS_ENGINE.set(true);
}

/// Whether the calling thread is one of the engine, which must not wait for itself.
pub(crate) fn is_engine() -> bool {
    IS_ENGINE.get()
}

/// A sleeping writer is woken when one part in this many of a ring, or of the memory of long
/// records, is filled.
pub(crate) const WAKE_PARTS: u32 = 8;

/// Bytes of a `capacity` for which a producer wakes a sleeping writer.
pub(crate) const fn wakes_at(capacity: u64) -> u64 {
    capacity / WAKE_PARTS as u64
}

/// How producers wake a sleeping writer.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// The writer sleeps, or is about to.
    parked: AtomicBool,
    /// It sleeps until a push wakes it, or is about to.
    dozing: AtomicBool,
    thread: OnceLock<Thread>,
    /// Wakes by producers: their only syscalls.
    wakes: AtomicU64,
    /// Bytes that long records took beside the rings since the writer has looked.
    long_bytes: AtomicU64,
}

impl Wake {
    /// Writer: who is to be woken.
    pub(crate) fn register(&self, thread: Thread) {
        let first = self.thread.set(thread).is_ok();
        debug_assert!(first, "one writer per session");
    }

    /// Writer: announces that it will sleep, or that it is awake.
    pub(crate) fn set_parked(&self, parked: bool) {
        // Relaxed: a sleep that a push misses is short; a doze is ordered by the barrier of
        // `Storage::set_doze`, which follows.
        self.parked.store(parked, Relaxed);
    }

    /// Writer: announces that it will doze, or that it is awake.
    pub(crate) fn set_dozing(&self, dozing: bool) {
        self.set_parked(dozing);
        // Relaxed: as above.
        self.dozing.store(dozing, Relaxed);
    }

    /// Producer with a new ring: wakes the writer if it dozes and does not know the ring.
    pub(crate) fn wake_if_dozing(&self) {
        // Either the writer sees the ring, or we see that it dozes.
        full_fence("fence_new_ring");
        if self.dozing.load(Relaxed) {
            self.wake_if_parked();
        }
    }

    /// Producer: wakes the writer if it sleeps; at most one syscall per sleep, counted.
    pub(crate) fn wake_if_parked(&self) {
        // A load first: the line is shared and rarely written. Relaxed: unparking orders.
        if self.parked.load(Relaxed) && self.parked.swap(false, Relaxed) {
            self.wakes.fetch_add(1, Relaxed);
            self.unpark();
        }
    }

    /// Writer: what long records have taken since the last call, in bytes, is looked at now.
    pub(crate) fn look_at_long(&self) -> u64 {
        // Relaxed: a hint; who adds in between is seen by this look or wakes for the next one.
        self.long_bytes.swap(0, Relaxed)
    }

    /// Producer: a long record took `bytes` of a pool of `pool_bytes`. A ring that fills wakes the
    /// writer; long records fill hardly a ring, so the same is done for their pool.
    pub(crate) fn long_record(&self, bytes: usize, pool_bytes: usize) {
        // Relaxed: as above.
        let before = self.long_bytes.fetch_add(bytes as u64, Relaxed);
        if before.saturating_add(bytes as u64) >= wakes_at(pool_bytes as u64) {
            self.wake_if_parked();
        }
    }

    /// Cold callers (flush, close): wakes in any case.
    pub(crate) fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// How often producers woke the writer.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wake_per_sleep_is_made_and_counted() {
        let wake = Wake::default();
        wake.wake_if_parked();
        assert_eq!(wake.wakes(), 0, "it is awake");
        for sleeps in 1..4 {
            wake.set_parked(true);
            wake.wake_if_parked();
            wake.wake_if_parked();
            assert_eq!(wake.wakes(), sleeps);
        }
    }

    #[test]
    fn long_records_wake_when_their_pool_fills() {
        let wake = Wake::default();
        for sleeps in 1..4 {
            wake.set_parked(true);
            wake.look_at_long();
            (0..7).for_each(|_| wake.long_record(100, 6400));
            assert_eq!(wake.wakes(), sleeps - 1);
            wake.long_record(100, 6400);
            assert_eq!(wake.wakes(), sleeps);
        }
    }
}
