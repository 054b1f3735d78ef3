//! Whether the session records, and who is inside it without a ring.
//!
//! ```text
//!   thread without a ring            closer
//!   inside += 1                      phase = CLOSING
//!   full fence                       full fence
//!   CLOSING? -> leave, count nothing wait until inside = 0
//!   count                            drain for the last time
//!   inside -= 1 (Release)
//! ```
//!
//! Either the closer sees the thread inside, or the thread sees the phase: the two fences exclude
//! that both miss each other (store buffering). It is what `ring::busy` does for threads with a
//! ring, where a push is not cold.

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, full_fence, order};

/// Producers may push.
pub(crate) const RECORDING: u32 = 1;
/// `close()` has begun: pushes return `Closed`.
pub(crate) const CLOSING: u32 = 2;

/// The phase of a session.
#[derive(Debug)]
pub(crate) struct Phase {
    phase: AtomicU32,
    /// Threads that push or count without a ring right now.
    inside: AtomicU32,
}

/// Proof that close waits for the calling thread; leaves when it is dropped, by a panic too.
#[derive(Debug)]
#[must_use]
pub(crate) struct WithoutRing<'a>(&'a Phase);

impl Phase {
    pub(crate) fn new() -> Self {
        Self {
            phase: AtomicU32::new(RECORDING),
            inside: AtomicU32::new(0),
        }
    }

    /// The phase, as far as the calling thread knows: what is pushed on the strength of it needs
    /// a busy flag, or [`enter`](Self::enter).
    pub(crate) fn now(&self) -> u32 {
        // Relaxed: see above.
        self.phase.load(Relaxed)
    }

    /// Closer: nobody enters from now on. False if somebody else did this before.
    pub(crate) fn close(&self) -> bool {
        // Relaxed: the fences order it.
        let first = self
            .phase
            .compare_exchange(RECORDING, CLOSING, Relaxed, Relaxed);
        full_fence("fence_close");
        first.is_ok()
    }

    /// Enters, if the session is not closing.
    pub(crate) fn enter(&self) -> Option<WithoutRing<'_>> {
        // Relaxed: the fences order it.
        self.inside.fetch_add(1, Relaxed);
        let inside = WithoutRing(self);
        full_fence("fence_enter");
        (self.now() == RECORDING).then_some(inside)
    }

    /// Closer, after [`close`](Self::close): whether a thread is inside. When not, everything that
    /// those did who were inside is visible.
    pub(crate) fn is_anybody_inside(&self) -> bool {
        // Acquire: pairs with the Release in `drop`.
        self.inside.load(order::load_inside()) > 0
    }
}

impl Drop for WithoutRing<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `is_anybody_inside`.
        self.0.inside.fetch_sub(1, order::store_outside());
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::ring::models::check;

    /// A close that races with threads that have no ring: what was counted is seen by the last
    /// look, what was not is refused.
    #[test]
    fn loom_close_without_ring() {
        let weaker = ["fence_close", "fence_enter", "store_outside", "load_inside"];
        check(20, &weaker, || {
            let phase = Arc::new(Phase::new());
            let counts = Arc::new(AtomicU32::new(0));
            let pusher = thread::spawn({
                let (phase, counts) = (Arc::clone(&phase), Arc::clone(&counts));
                move || {
                    let mut counted = 0;
                    for _ in 0..2 {
                        let inside = phase.enter();
                        if inside.is_some() {
                            counted += 1;
                            counts.store(counted, Relaxed);
                        }
                    }
                    counted
                }
            });
            let closer = thread::spawn({
                let (phase, counts) = (Arc::clone(&phase), Arc::clone(&counts));
                move || {
                    assert!(phase.close());
                    while phase.is_anybody_inside() {
                        thread::yield_now();
                    }
                    counts.load(Relaxed)
                }
            });
            let counted = pusher.join().unwrap();
            assert_eq!(closer.join().unwrap(), counted, "a count was missed");
        });
    }
}
