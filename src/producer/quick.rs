//! The quick path: the usual push, inlined into the program.

use super::offer::{Head, Offer};
use super::unfinished::Unfinished;
use crate::core::Core;
use crate::ledger::OFFERED;
use crate::record::{
    Extra, PackedIds, RECORD_ALIGN, Record, UNCAPPED, WHOLE, align_record, whole_extras_bytes,
};
use crate::ring::{Cell, RING_BYTES_MIN, RingSlot, count_own, quick_cell};

/// Longer records leave the quick path: copying them takes longer than the way round. Every ring
/// takes records of this length.
const QUICK_BYTES_MAX: usize = RING_BYTES_MIN / 4;

impl<R: Record> Offer<'_, R> {
    /// The usual push: nobody has a wish (close, doze), everything is known to the registry,
    /// nothing is cut, and there is room up to the limit that the producer remembers. Otherwise
    /// false, and nothing has happened: [`push`](Self::push) can do all of it.
    ///
    /// Leaves through one door and calls nothing on the way but the copy of longer texts and the
    /// code for extra fields, so that the record stays in registers.
    #[inline(always)]
    pub(super) fn push_quick(self, core: &Core, slot: &RingSlot, ids: PackedIds) -> bool {
        let Some(guard) = slot.busy.enter_quick() else {
            return false;
        };
        let clock = core.clock;
        let mut unfinished = Unfinished::new(core, slot, self.category);
        if let Some(counters) = slot.quick_counters(ids)
            && let Some(bytes) = self.whole_bytes(core)
            && let Some(place) = slot.side.reserve_quick(bytes)
            && clock.is_quick()
            && let Some(cell) = self.quick_cell(slot)
        {
            unfinished.offered = true;
            count_own(&counters[OFFERED]);
            fail_point!("push.quick_offered");
            if let Some((cell, ns)) = cell {
                cell.observe_own(ns);
            }
            fail_point!("push.quick_counted");
            // Not before: two registers that the counts need.
            let ticks = clock.ticks();
            let flags = self.flags | self.extra_flag();
            self.write(slot, place, flags, ticks, WHOLE);
            unfinished.finish();
            drop(guard);
            return true;
        }
        unfinished.finish();
        false
    }

    /// Where its duration counts, if it has one; `None` when the ring has no cell for it yet.
    #[inline(always)]
    #[expect(clippy::option_option, reason = "no duration; no cell: both are plain")]
    fn quick_cell<'s>(&self, slot: &'s RingSlot) -> Option<Option<(&'s Cell, u64)>> {
        let Some(observation) = self.observation() else {
            return Some(None);
        };
        let cell = quick_cell(slot, observation.key)?;
        Some(Some((cell, observation.ns)))
    }

    /// Length of the record, if it fits the quick path as it is.
    #[inline(always)]
    fn whole_bytes(&self, core: &Core) -> Option<usize> {
        if self.record.is_cut(UNCAPPED) || !self.record.all_symbols(|s| core.knows_symbol(s)) {
            return None;
        }
        let mut variable = self.record.variable_bytes(WHOLE);
        if !self.extras.is_empty() {
            variable = variable.saturating_add(quick_extras_bytes(core, self.extras)?);
        }
        // What the head has beyond whole words counts to what follows: so the compiler sees that
        // the sum is no less than the head.
        let head = size_of::<Head<R::Fixed>>();
        let words = head / RECORD_ALIGN * RECORD_ALIGN;
        let room = QUICK_BYTES_MAX.checked_sub(head)?;
        (variable <= room).then(|| words + align_record(head - words + variable))
    }
}

/// Length of the extra area, if it fits the quick path. One copy for all record types.
#[inline(never)]
fn quick_extras_bytes(core: &Core, extras: &[Extra<'_>]) -> Option<usize> {
    whole_extras_bytes(extras, QUICK_BYTES_MAX, |symbol| core.knows_symbol(symbol))
}
