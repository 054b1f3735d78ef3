//! The flag by which a producer says that it is inside a push, and the closer that it must not
//! begin another one.
//!
//! ```text
//!   producer                         closer
//!   busy = 1                         closed = 1
//!   barrier::light                   barrier::heavy
//!   closed? -> leave, push nothing   wait until busy = 0
//!   write, commit                    drain for the last time
//!   busy = 0 (Release)
//! ```
//!
//! Either the closer sees `busy = 1` and waits for the commit, or the producer sees `closed = 1`
//! and pushes nothing: the two barriers exclude that both miss each other (store buffering). A
//! writer that wants to doze uses the same protocol: it sees the push, or the push wakes it.

use crate::sync::Ordering::Relaxed;
use crate::sync::order;
use crate::sync::{AtomicU32, barrier};

/// Busy and closed flags of one producer.
#[derive(Debug)]
pub(crate) struct BusyFlag {
    /// 1 while the owner is between `enter` and `leave`. Only the owner stores it.
    busy: AtomicU32,
    /// Wishes: [`CLOSED`], [`FENCED`], [`DOZE`], [`PRESSED`].
    mode: AtomicU32,
}

/// No push may begin.
const CLOSED: u32 = 1;
/// The kernel has no membarrier: the owner needs a full fence of its own.
const FENCED: u32 = 2;
/// The writer dozes: whoever begins a push wakes it.
const DOZE: u32 = 4;

/// The owner found its ring half full and looks before each push whether it still is.
const PRESSED: u32 = 8;

/// Why a push cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The session is closing.
    Closed,
    /// The owner is inside a push already: a signal handler interrupted it.
    Reentrant,
}

/// Proof of being inside a push; leaves when it is dropped, by a panic too.
#[derive(Debug)]
#[must_use]
pub(crate) struct BusyGuard<'a>(&'a BusyFlag);

impl BusyGuard<'_> {
    /// Whether it is the guard of this flag.
    pub(crate) fn is_of(&self, flag: &BusyFlag) -> bool {
        std::ptr::eq(self.0, flag)
    }
}

impl BusyFlag {
    pub(crate) fn new() -> Self {
        Self {
            busy: AtomicU32::new(0),
            mode: AtomicU32::new(0),
        }
    }

    /// Makes the owner use full fences. Before the first `enter`.
    pub(crate) fn set_fenced(&self) {
        self.mode.fetch_or(FENCED, Relaxed);
    }

    /// Sets the flag; what is read after this sees the wishes of others. `None` when it is set.
    #[inline(always)]
    fn raise(&self) -> Option<BusyGuard<'_>> {
        // Relaxed: own flag; only a signal handler of this thread could see it set here.
        if self.busy.load(Relaxed) != 0 {
            return None;
        }
        // Relaxed: ordered against the load of `mode` by the barrier pair.
        self.busy.store(1, Relaxed);
        barrier::light();
        Some(BusyGuard(self))
    }

    /// Begins a push if nobody wishes anything of it: no close, no doze, no fence. Otherwise
    /// `None`, and nothing has happened: [`enter`](Self::enter) knows what to do.
    #[inline(always)]
    pub(crate) fn enter_quick(&self) -> Option<BusyGuard<'_>> {
        let guard = self.raise()?;
        // Relaxed: see `raise`.
        (self.mode.load(Relaxed) == 0).then_some(guard)
    }

    /// Begins a push. `wake` is called when the writer dozes.
    pub(crate) fn enter(&self, wake: impl FnOnce()) -> Result<BusyGuard<'_>, Refused> {
        let guard = self.raise().ok_or(Refused::Reentrant)?;
        // Relaxed: see `raise`.
        if self.mode.load(Relaxed) & !PRESSED != 0 {
            self.enter_slow(wake)?;
        }
        Ok(guard)
    }

    /// Owner: keeps its own pushes off the quick path, or not any more.
    pub(crate) fn set_pressed(&self, pressed: bool) {
        // Relaxed: for the owner alone; the other bits of the word are wishes of others.
        if pressed {
            self.mode.fetch_or(PRESSED, Relaxed);
        } else {
            self.mode.fetch_and(!PRESSED, Relaxed);
        }
    }

    /// Owner: whether [`set_pressed`](Self::set_pressed) was called last with true.
    pub(crate) fn is_pressed(&self) -> bool {
        self.mode.load(Relaxed) & PRESSED != 0
    }

    #[cold]
    fn enter_slow(&self, wake: impl FnOnce()) -> Result<(), Refused> {
        // Full fence instead of membarrier, and then a second look. Harmless where it is not
        // needed.
        crate::sync::full_fence("fence_busy");
        // Relaxed: the fences order it, as everything here.
        let mode = self.mode.load(Relaxed);
        if mode & CLOSED != 0 {
            return Err(Refused::Closed);
        }
        if mode & DOZE != 0 {
            wake();
        }
        Ok(())
    }

    /// Writer: asks to be woken by the next push, or not any more. After asking,
    /// [`barrier::heavy`] must follow before [`is_busy`](Self::is_busy) and the ring are looked
    /// at: a push that they do not show will wake.
    pub(crate) fn set_doze(&self, doze: bool) {
        if doze {
            self.mode.fetch_or(DOZE, Relaxed);
        } else {
            self.mode.fetch_and(!DOZE, Relaxed);
        }
    }

    /// Closer: no later push begins. [`barrier::heavy`] must follow before [`is_busy`] is asked.
    ///
    /// [`is_busy`]: Self::is_busy
    pub(crate) fn close(&self) {
        self.mode.fetch_or(CLOSED, Relaxed);
    }

    /// Closer: whether the owner is still inside a push. When not, everything it pushed is
    /// visible.
    pub(crate) fn is_busy(&self) -> bool {
        // Acquire: pairs with the Release in `BusyGuard::drop`.
        self.busy.load(order::load_busy()) != 0
    }
}

impl Drop for BusyGuard<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `is_busy`; the push comes before.
        self.0.busy.store(0, order::store_idle());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often a push wakes the writer, and whether it could have been a quick one.
    fn push(flag: &BusyFlag) -> (u32, bool) {
        let woken = Cell::new(0);
        drop(flag.enter(|| woken.set(woken.get() + 1)).expect("is open"));
        (woken.get(), flag.enter_quick().is_some())
    }

    #[test]
    fn a_wish_ends_without_the_others() {
        let flag = BusyFlag::new();
        assert_eq!((push(&flag), flag.is_pressed()), ((0, true), false));
        flag.set_doze(true);
        assert_eq!(push(&flag), (1, false));
        flag.set_pressed(true);
        flag.set_doze(false);
        assert_eq!((push(&flag), flag.is_pressed()), ((0, false), true));
        flag.set_doze(true);
        flag.set_pressed(false);
        assert_eq!((push(&flag), flag.is_pressed()), ((1, false), false));
        flag.set_doze(false);
        assert_eq!(push(&flag), (0, true));
    }
}
