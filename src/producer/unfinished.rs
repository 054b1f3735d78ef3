//! What is counted of a push that a panic ends.

use crate::core::Core;
use crate::ledger::{INTERRUPTED, OFFERED};
use crate::ring::RingSlot;

/// A record of which it is not known yet what becomes of it. If a panic in the caller's `Record`
/// ends the push, it is counted as interrupted.
pub(super) struct Unfinished<'a> {
    core: &'a Core,
    slot: &'a RingSlot,
    category: u8,
    /// Whether it was counted as offered.
    pub(super) offered: bool,
}

impl<'a> Unfinished<'a> {
    #[inline(always)]
    pub(super) fn new(core: &'a Core, slot: &'a RingSlot, category: u8) -> Self {
        Self {
            core,
            slot,
            category,
            offered: false,
        }
    }

    #[inline(always)]
    pub(super) fn finish(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        interrupted(self.core, self.slot, self.category, self.offered);
    }
}

/// A function of values: where no panic is possible, nothing of `Unfinished` is left.
#[cold]
fn interrupted(core: &Core, slot: &RingSlot, category: u8, offered: bool) {
    if !offered {
        core.storage.count(slot, category, OFFERED);
    }
    core.storage.count(slot, category, INTERRUPTED);
}
