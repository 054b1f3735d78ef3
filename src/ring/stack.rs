//! A lock-free stack of small numbers: rings and chunks that belong to nobody.
//!
//! Treiber, "Systems programming: coping with parallelism", IBM 1986, with a tag in the head that
//! changes with every operation, so that a head that was taken and put back meanwhile is noticed.
//! Neither side ever waits for the other, wherever that one is stopped.

use crossbeam_utils::CachePadded;

use crate::sync::Ordering::Relaxed;
use crate::sync::order;
use crate::sync::{AtomicU32, AtomicU64};

/// A stack that can hold the numbers below its capacity, each once.
#[derive(Debug)]
pub(crate) struct IndexStack {
    /// Tag in the upper half, top number plus one in the lower; 0 = empty.
    head: CachePadded<AtomicU64>,
    /// What lies below each number that is on the stack, in the same form.
    below: Box<[AtomicU32]>,
}

impl IndexStack {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            head: CachePadded::new(AtomicU64::new(0)),
            below: (0..capacity).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Puts a number on the stack that is not on it.
    pub(crate) fn push(&self, index: u32) {
        // Relaxed: the exchange below decides; nothing is read through the head here.
        let mut head = self.head.load(Relaxed);
        loop {
            self.below[index as usize].store(head as u32, Relaxed);
            let new = next_tag(head) | u64::from(index + 1);
            // Release: pairs with the Acquire in `pop`; publishes `below`, and what the caller
            // has written into the thing of this number.
            match self
                .head
                .compare_exchange_weak(head, new, order::store_head(), Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether the stack looks empty; one load.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a hint; `pop` decides.
        self.head.load(Relaxed) as u32 == 0
    }

    /// Takes a number; `None` when the stack is empty.
    pub(crate) fn pop(&self) -> Option<u32> {
        // Acquire: pairs with the Release in `push`. The exchange below keeps the release sequence
        // of that push, so that the next `pop` sees what lies below too.
        let mut head = self.head.load(order::load_head());
        loop {
            let index = (head as u32).checked_sub(1)?;
            // Relaxed: if the number was taken meanwhile, this may be anything, and the tag makes
            // the exchange fail.
            let below = self.below[index as usize].load(Relaxed);
            let new = next_tag(head) | u64::from(below);
            // The same order on failure: the head that it brings back is used as the first one.
            match self
                .head
                .compare_exchange_weak(head, new, Relaxed, order::load_moved_head())
            {
                Ok(_) => return Some(index),
                Err(now) => head = now,
            }
        }
    }
}

fn next_tag(head: u64) -> u64 {
    (head >> 32).wrapping_add(1) << 32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_once() {
        let stack = IndexStack::new(8);
        assert_eq!(stack.pop(), None);
        (0..8).for_each(|index| stack.push(index));
        let mut taken: Vec<u32> = std::iter::from_fn(|| stack.pop()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn threads_never_hold_the_same_number() {
        use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let stack = IndexStack::new(3);
        (0..3).for_each(|index| stack.push(index));
        let held: Vec<AtomicBool> = (0..3).map(|_| AtomicBool::new(false)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        if let Some(index) = stack.pop() {
                            assert!(!held[index as usize].swap(true, SeqCst), "held twice");
                            held[index as usize].store(false, SeqCst);
                            stack.push(index);
                        }
                    }
                });
            }
        });
        assert_eq!(std::iter::from_fn(|| stack.pop()).count(), 3);
    }
}
