//! Numbers for ids: of traces, random; of operations, counted.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::sys::fork;

thread_local! {
    /// State of this thread, and the process that seeded it: a forked child seeds anew.
    static RANDOM: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    /// The next number of this thread, and the end of its block.
    static OPERATIONS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// How many numbers a thread takes at once.
const BLOCK: u64 = 1 << 10;

/// The next random number of this thread (`SplitMix64`).
pub(super) fn next() -> u64 {
    let (mut state, process) = RANDOM.get();
    let now = fork::generation();
    if process != now {
        // Keys of the kernel, made anew for each thread, and what differs in a child.
        state = RandomState::new().hash_one((now, std::process::id()));
    }
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set((state, now));
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The next number of an operation, from 1: different in all threads of the process.
pub(crate) fn next_operation() -> u64 {
    static BLOCKS: AtomicU64 = AtomicU64::new(0);
    let (mut id, mut end) = OPERATIONS.get();
    if id == end {
        // Relaxed: a ticket.
        id = BLOCKS.fetch_add(1, Relaxed) * BLOCK + 1;
        end = id + BLOCK;
    }
    OPERATIONS.set((id + 1, end));
    id
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_operations_differ_in_all_threads() {
        let made = || (0..3 * BLOCK).map(|_| next_operation()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(made)).collect();
        let mut all: Vec<u64> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(all[0] > 0);
    }
}
