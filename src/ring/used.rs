//! How many rings were ever taken.

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, barrier};

/// Rings below this index were taken at some time; those from it on are fresh.
#[derive(Debug)]
pub(super) struct Used(AtomicU32);

impl Used {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Takes the next fresh ring of `end`; `None` when there is none.
    pub(super) fn take(&self, end: u32) -> Option<u32> {
        // Relaxed: one thread alone moves the counter over a ring, and what lies in the ring is
        // ordered by its own positions.
        self.0
            .fetch_update(Relaxed, Relaxed, |next| (next < end).then_some(next + 1))
            .ok()
    }

    /// Rings that were taken, maybe a little old.
    pub(super) fn count(&self) -> u32 {
        // Relaxed: see `take`.
        self.0.load(Relaxed)
    }

    /// Calls `ask` for every ring, also for one that is taken meanwhile: after this the caller
    /// sees a ring, or its owner sees what the caller had stored before, if it has a full fence
    /// between taking the ring and looking.
    pub(super) fn ask_each(&self, ask: impl Fn(u32)) {
        let mut asked = 0;
        loop {
            let used = self.count();
            (asked..used).for_each(&ask);
            asked = used;
            barrier::heavy();
            if self.count() == asked {
                return;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn each_ring_is_asked_also_one_that_is_taken_meanwhile() {
        let used = Used::new();
        assert_eq!([(); 3].map(|()| used.take(4)), [Some(0), Some(1), Some(2)]);
        let asked = RefCell::new(Vec::new());
        used.ask_each(|index| {
            if index == 1 {
                assert_eq!(used.take(4), Some(3));
            }
            asked.borrow_mut().push(index);
        });
        assert_eq!(asked.into_inner(), [0, 1, 2, 3]);
        assert_eq!((used.take(4), used.count()), (None, 4));
    }
}
