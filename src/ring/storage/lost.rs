//! Pages of the storage that its file could not keep.

use super::Storage;
use crate::sync::barrier;
use crate::sys::sigbus::{FileGuard, LostPages};

impl Storage {
    /// Whether pages can be lost without the end of the process.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    /// What was lost up to now.
    pub(crate) fn lost_pages(&self) -> LostPages {
        self.guard
            .as_ref()
            .map(FileGuard::counts)
            .unwrap_or_default()
    }

    /// A number that grows with every page that is lost. Bytes that were read while it stayed the
    /// same are those that were written, also where the file was cut within their page.
    pub(crate) fn losses_begun(&self) -> u64 {
        self.guard.as_ref().map_or(0, |guard| {
            self.region.touch_end();
            guard.begun()
        })
    }

    /// Loses all that the file has no page for now, and not one page at a time.
    pub(crate) fn lose_cut_pages(&self) {
        if let Some(guard) = &self.guard {
            guard.replace_cut();
        }
    }

    /// After this the caller sees of every push that it is running, or the push sees what the
    /// caller has done before.
    #[expect(
        clippy::unused_self,
        reason = "it is about the pushes into this storage"
    )]
    pub(crate) fn meet_pushes(&self) {
        barrier::heavy();
    }

    /// Whether a part of a ring was lost.
    pub(crate) fn is_ring_lost(&self, index: u32) -> bool {
        let slot = self.slot(index);
        self.is_lost(slot.offset, slot.bytes())
    }

    /// Whether a part of a slot of the spill was lost. `offset`: from the first slot on.
    pub(crate) fn is_spill_lost(&self, offset: usize, bytes: usize) -> bool {
        self.is_lost(self.spill_offset + offset, bytes)
    }

    fn is_lost(&self, offset: usize, bytes: usize) -> bool {
        self.guard
            .as_ref()
            .is_some_and(|guard| guard.is_lost(offset, bytes))
    }
}
