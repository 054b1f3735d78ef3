//! The counts of one duration aggregate.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::storage::count_own;
use crate::durations::{BUCKETS, Histogram, bucket_of};

/// Counts of one slot. FORMAT.md section 7.2.
#[repr(C, align(64))]
pub(crate) struct Cell {
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

const _: () = assert!(size_of::<Cell>() == 512);

impl Cell {
    /// Owner: counts a duration.
    #[inline(always)]
    pub(crate) fn observe_own(&self, ns: u64) {
        // Relaxed, as all here: own counters; exact totals are read after the owner has left.
        let (sum, is_over) = self.sum_ns.load(Relaxed).overflowing_add(ns);
        self.sum_ns.store(sum, Relaxed);
        if is_over {
            self.keep_sum_at_bound();
        }
        if ns > self.max_ns.load(Relaxed) {
            self.max_ns.store(ns, Relaxed);
        }
        count_own(&self.buckets[bucket_of(ns)]);
    }

    /// Owner: the sum does not fit; it stays where it is told to be too large.
    #[cold]
    fn keep_sum_at_bound(&self) {
        self.sum_ns.store(u64::MAX, Relaxed);
    }

    /// Anybody: counts a duration in a shared cell.
    pub(super) fn observe_shared(&self, ns: u64) {
        let add = |sum: u64| Some(sum.saturating_add(ns));
        let added = self.sum_ns.fetch_update(Relaxed, Relaxed, add);
        debug_assert!(added.is_ok(), "the sum stays at its bound");
        self.max_ns.fetch_max(ns, Relaxed);
        self.buckets[bucket_of(ns)].fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Relaxed)),
            sum_ns: self.sum_ns.load(Relaxed),
            max_ns: self.max_ns.load(Relaxed),
        }
    }
}
