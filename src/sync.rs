//! Atomics of the protocols that loom explores: the one place that chooses between `std` and loom.
//!
//! Process-wide tables (ids, symbols) use `std` directly, because loom's atomics cannot live in
//! statics; they are write-once cells and are covered by miri.

pub(crate) mod order;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The two halves of an asymmetric barrier: `light` on the side that runs often, `heavy` on the
/// side that runs rarely. After `heavy` returns, every thread of the process has had a full
/// barrier since it began, so a store before a `light` and a load after it are never both on the
/// wrong side. (Corbet, "Expedited membarrier", LWN 2017; `membarrier(2)`.)
pub(crate) mod barrier {
    /// The cheap half: keeps the compiler from moving memory accesses across it.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn light() {
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// The cheap half as the model sees it: the fence that `heavy` causes on this thread. loom
    /// has no barrier that one thread causes on another, so both sides carry their own.
    #[cfg(loom)]
    pub(crate) fn light() {
        if !super::weakened("light") {
            loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        }
    }

    /// The expensive half. Where the kernel refuses membarrier, producers run with full fences
    /// instead (see `supported`), and a fence here is enough.
    ///
    /// A kernel that begins to refuse it later (a filter of syscalls was installed) leaves
    /// producers without fences. Then time does what the call did: see [`GRACE`].
    #[cfg(not(loom))]
    pub(crate) fn heavy() {
        use std::sync::atomic::{Ordering::SeqCst, fence};
        if supported() {
            if expedited() {
                return;
            }
            STATE.store(LOST, SeqCst);
        }
        fence(SeqCst);
        if STATE.load(SeqCst) == LOST {
            std::thread::sleep(GRACE);
            fence(SeqCst);
        }
    }

    /// How long a store of a running thread may take to be seen by others, at the very most: no
    /// machine guarantees a bound, but store buffers empty in less than a microsecond, and a thread
    /// that does not run has passed the full barrier of its context switch.
    #[cfg(not(loom))]
    pub(crate) const GRACE: std::time::Duration = std::time::Duration::from_millis(10);

    /// What is known of membarrier.
    #[cfg(not(loom))]
    static STATE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(UNKNOWN);
    #[cfg(not(loom))]
    const UNKNOWN: u8 = 0;
    /// The kernel gives expedited barriers to this process.
    #[cfg(not(loom))]
    const GIVEN: u8 = 1;
    /// It never did: all producers use fences.
    #[cfg(not(loom))]
    const REFUSED: u8 = 2;
    /// It did, and does not any more: producers of older sessions have no fences.
    #[cfg(not(loom))]
    const LOST: u8 = 3;

    /// Makes every running thread of the process pass a full barrier. False: the kernel refuses.
    #[cfg(not(loom))]
    fn expedited() -> bool {
        use rustix::thread::{MembarrierCommand, membarrier};
        // A process that was forked or has not yet done so registers first.
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
            || (membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
                && membarrier(MembarrierCommand::PrivateExpedited).is_ok())
    }

    #[cfg(loom)]
    pub(crate) fn heavy() {
        if !super::weakened("heavy") {
            loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Whether the kernel gives expedited barriers to this process; asks once. Not a lock: a child
    /// that is forked meanwhile would wait for ever.
    #[cfg(not(loom))]
    pub(crate) fn supported() -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        let mut state = STATE.load(SeqCst);
        if state == UNKNOWN {
            let found = if !cfg!(miri) && expedited() {
                GIVEN
            } else {
                REFUSED
            };
            // Of threads that asked at the same time the first is right.
            state = STATE
                .compare_exchange(UNKNOWN, found, SeqCst, SeqCst)
                .map_or_else(|first| first, |_| found);
        }
        state == GIVEN
    }

    #[cfg(loom)]
    pub(crate) fn supported() -> bool {
        true
    }
}

/// A full fence. The name is for models, which take it away.
#[cfg(not(loom))]
pub(crate) fn full_fence(_name: &'static str) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(loom)]
pub(crate) fn full_fence(name: &'static str) {
    if !weakened(name) {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Whether the running model has weakened the order of this name: it must fail then.
#[cfg(loom)]
pub(crate) fn weakened(name: &str) -> bool {
    WEAKENED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .iter()
        .any(|weaker| weaker == name)
}

/// The orders that the running model weakens.
#[cfg(loom)]
pub(crate) static WEAKENED: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
