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
    #[cfg(not(loom))]
    pub(crate) fn heavy() {
        use rustix::thread::{MembarrierCommand, membarrier};
        if !supported() || membarrier(MembarrierCommand::PrivateExpedited).is_err() {
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[cfg(loom)]
    pub(crate) fn heavy() {
        if !super::weakened("heavy") {
            loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Whether the kernel gives expedited barriers to this process; asks once.
    #[cfg(not(loom))]
    pub(crate) fn supported() -> bool {
        use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
        use std::sync::OnceLock;
        static SUPPORTED: OnceLock<bool> = OnceLock::new();
        *SUPPORTED.get_or_init(|| {
            !cfg!(miri)
                && membarrier_query().contains(MembarrierQuery::PRIVATE_EXPEDITED)
                && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
        })
    }

    #[cfg(loom)]
    pub(crate) fn supported() -> bool {
        true
    }
}

/// A full fence. The name is for models, which take it away.
pub(crate) fn full_fence(name: &'static str) {
    #[cfg(not(loom))]
    {
        let _unused = name;
        std::sync::atomic::fence(Ordering::SeqCst);
    }
    #[cfg(loom)]
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
