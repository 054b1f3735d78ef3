//! The second half of a push: reserve > encode > commit, and what happens when one of them cannot.
#![expect(unsafe_code, reason = "`Head` is Pod by its packed layout")]

use std::cell::Cell;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::Outcome;
use super::decide::{left_out, look_at_fill};
use super::unfinished::Unfinished;
use crate::core::Core;
use crate::ledger::{DropReason, OFFERED};
use crate::local;
use crate::record::{
    Extra, FLAG_CUT, FLAG_EXTRA, Fields, HEADER_BYTES, KeepClass, Name, PackedIds, Place, Record,
    RecordHeader, SCHEMA_PADDING, Sink, Symbol, UNCAPPED, align_record, extras_bytes, extras_cut,
    write_extras,
};
use crate::ring::{self, BusyGuard, Observation, Refused, RingSlot};
use crate::sampling::KeyHash;

/// Counts a record that has no ring to be counted in.
#[cold]
pub(super) fn dropped(
    core: &Core,
    category: u8,
    keep: KeepClass,
    reason: DropReason,
    observation: Option<Observation>,
) -> Outcome {
    if core.count_dropped(category, reason, observation) {
        if keep == KeepClass::Always {
            core.losses.count_lost(reason, 1);
        }
        Outcome::Dropped(reason)
    } else {
        Outcome::Closed
    }
}

/// What the duration aggregates count of a record of this schema.
#[inline(always)]
pub(super) fn observation_of<R: Record>(record: &R, schema: u16) -> Option<Observation> {
    if !R::OBSERVED {
        return None;
    }
    let observed = record.observed()?;
    Some(Observation::new(schema, observed.operation, observed.ns))
}

/// Owner of the ring, inside a push: counts a duration, if there is one.
#[inline(always)]
pub(super) fn observe(core: &Core, slot: &RingSlot, observation: Option<Observation>) {
    if let Some(observation) = observation {
        core.storage.aggregates.observe(slot, observation);
    }
}

/// Header and fixed part of a record, which are written in one go: to the compiler a few stores
/// of their natural widths, without a copy on the stack.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(super) struct Head<F> {
    /// [`RecordHeader::front`].
    front: u64,
    ticks: u64,
    fixed: F,
}

// SAFETY: all bytes zero are a zero header and a zeroed `F`, which is `Zeroable`.
unsafe impl<F: Zeroable> Zeroable for Head<F> {}
// SAFETY: packed, so there is no padding; both members are Pod, so any bytes are a value.
unsafe impl<F: Pod> Pod for Head<F> {}

/// Longer bodies cannot be; keeps sums far from overflow.
const BODY_BYTES_MAX: usize = 1 << 40;

/// Whether sampling and policies still have a say in a record.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Decided {
    No,
    /// They have let it through.
    Keep,
    /// It is to be left out, because another record of its operation was.
    LeaveOut,
}

/// A record that passed its gate.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a, R> {
    pub(super) record: R,
    pub(super) extras: &'a [Extra<'a>],
    /// Fields before the extra ones. Empty on the quick path.
    pub(super) lead: &'a [Extra<'a>],
    /// The record has the request id of the context as a field of its own.
    pub(super) tells_request: bool,
    /// `lead` has the context of the thread.
    pub(super) in_context: bool,
    pub(super) schema: u16,
    pub(super) category: u8,
    /// Flags beyond those that follow from the record and the extra fields.
    pub(super) flags: u8,
    /// As in [`RecordHeader::weight`].
    pub(super) weight: u8,
    /// The hash of its key, if the caller has it.
    pub(super) key: Option<KeyHash>,
    pub(super) decided: Decided,
    /// A reading of the counter to be used; 0 = none.
    pub(super) at: u64,
    /// Where its weight is noted when it is to be kept.
    pub(super) told: Option<&'a Cell<u8>>,
}

impl<'a, R: Record> Offer<'a, R> {
    /// A record whose schema has these packed ids.
    #[inline(always)]
    pub(super) fn new(record: R, extras: &'a [Extra<'a>], ids: PackedIds) -> Self {
        Self {
            record,
            extras,
            lead: &[],
            tells_request: false,
            in_context: false,
            schema: ids.schema(),
            category: ids.category(),
            flags: 0,
            weight: 0,
            key: None,
            decided: Decided::No,
            at: 0,
            told: None,
        }
    }

    /// The same, whose schema has these packed ids now.
    pub(super) fn of(self, ids: PackedIds) -> Self {
        Self {
            schema: ids.schema(),
            category: ids.category(),
            ..self
        }
    }

    /// What the duration aggregates count of the record.
    #[inline(always)]
    pub(super) fn observation(&self) -> Option<Observation> {
        observation_of(&self.record, self.schema)
    }

    /// Counts the record as offered, and its duration: what happens to it later changes neither.
    pub(super) fn count_offered(&self, core: &Core, slot: &RingSlot) {
        let observation = self.observation();
        core.storage.count(slot, self.category, OFFERED);
        observe(core, slot, observation);
    }

    /// Encodes the record into its place and commits it.
    #[inline(always)]
    pub(super) fn write(
        &self,
        slot: &RingSlot,
        place: ring::Place,
        flags: u8,
        ticks: u64,
        cap: usize,
    ) {
        let fixed = self.record.fixed(cap);
        let ring = slot.ring();
        let out = slot.side.bytes(ring, place);
        // Zeroes the padding; the body overwrites what is not padding.
        if let Some(last) = out.last_chunk_mut::<4>() {
            *last = [0; 4];
        }
        let header = RecordHeader::new(out.len(), self.schema, flags, self.weight, ticks);
        let front = header.front();
        let head = Head {
            front,
            ticks,
            fixed,
        };
        if let Some((place, rest)) = out.split_at_mut_checked(size_of::<Head<R::Fixed>>()) {
            place.copy_from_slice(bytemuck::bytes_of(&head));
            let mut rest = Place::new(rest);
            self.record.write_variable(cap, &mut rest);
            self.write_extras(cap, &mut rest);
        }
        fail_point!("push.encoded");
        slot.side.commit(ring, place);
        fail_point!("push.committed");
    }

    /// Every other push into the ring of the calling thread, which may have none yet.
    #[cold]
    #[inline(never)]
    pub(super) fn push_any(self, core: &Arc<Core>) -> Outcome {
        self.with_context(|offer| offer.push_whole(core))
    }

    fn push_whole(self, core: &Arc<Core>) -> Outcome {
        match local::fast_slot(core) {
            Some(slot) => self.push(core, slot),
            None => local::with_slot(core, |slot| self.push(core, slot)).unwrap_or_else(|| {
                self.push_without_ring(core)
                    .unwrap_or_else(|_| self.push_without_symbols(core))
            }),
        }
    }

    fn push(mut self, core: &Arc<Core>, slot: &RingSlot) -> Outcome {
        debug_assert_ne!(self.schema, SCHEMA_PADDING, "the schema has no id");
        let wake = || core.wake.wake_if_parked();
        let mut guard = match slot.busy.enter(wake) {
            Ok(guard) => guard,
            Err(refused) => return self.refused(core, refused),
        };
        if self.decided == Decided::LeaveOut {
            left_out(core, slot, self.category, self.observation());
            return Outcome::SampledOut;
        }
        if self.decided == Decided::No {
            self.decided = Decided::Keep;
            match self.decide(core, slot, &mut guard) {
                Ok(None) => {}
                Ok(Some(change)) => return self.push_change(core, slot, guard, change),
                Err(outcome) => return outcome,
            }
        }
        self.push_entered(core, slot, guard)
    }

    /// The push of a record that is to be kept.
    pub(super) fn push_entered(
        self,
        core: &Arc<Core>,
        slot: &RingSlot,
        guard: BusyGuard<'_>,
    ) -> Outcome {
        let mut unfinished = Unfinished::new(core, slot, self.category);
        if !self.symbols_known(core) && !self.register_symbols(core) {
            unfinished.finish();
            drop(guard);
            return self.push_without_symbols(core);
        }
        // Before the commit: no record is written that was not offered.
        self.count_offered(core, slot);
        unfinished.offered = true;
        fail_point!("push.offered");
        if let Some(told) = self.told {
            told.set(self.weight);
        }
        let ticks = self.ticks(core);
        let flags = self.flags(UNCAPPED);
        let body = self.body_bytes(UNCAPPED);
        let bytes = align_record(HEADER_BYTES + body);
        if bytes > slot.side.inline_bytes_max() {
            let outcome = self.push_large(core, slot, ticks, body);
            unfinished.finish();
            return outcome;
        }
        let wake = || core.wake.wake_if_parked();
        let reserved = slot
            .side
            .reserve(slot.ring(), bytes, self.class(core), wake);
        look_at_fill(core, slot);
        let Ok(place) = reserved else {
            let outcome = self.full(core, slot, ticks);
            unfinished.finish();
            return outcome;
        };
        self.write(slot, place, flags, ticks, UNCAPPED);
        unfinished.finish();
        drop(guard);
        Outcome::Kept
    }

    pub(super) fn class(&self, core: &Core) -> KeepClass {
        core.keep_class(self.category, self.record.keep())
    }

    /// Length of the body. A record that claims absurd lengths gets one that fits nowhere.
    pub(super) fn body_bytes(self, cap: usize) -> usize {
        let extras = if self.lead.is_empty() {
            extras_bytes(self.extras, cap)
        } else {
            self.fields().bytes(cap)
        };
        (size_of::<R::Fixed>() + extras)
            .saturating_add(self.record.variable_bytes(cap))
            .min(BODY_BYTES_MAX)
    }

    pub(super) fn write_body(self, cap: usize, out: &mut impl Sink) {
        out.put(bytemuck::bytes_of(&self.record.fixed(cap)));
        self.record.write_variable(cap, out);
        self.write_extras(cap, out);
    }

    #[inline(always)]
    fn write_extras(&self, cap: usize, out: &mut impl Sink) {
        if self.lead.is_empty() {
            write_extras(self.extras, cap, out);
        } else {
            self.fields().write(cap, out);
        }
    }

    pub(super) fn fields(&self) -> Fields<'a> {
        Fields {
            lead: self.lead,
            own: self.extras,
        }
    }

    /// Ticks of the record.
    pub(super) fn ticks(&self, core: &Core) -> u64 {
        if self.at == 0 {
            core.clock.ticks()
        } else {
            self.at
        }
    }

    #[inline(always)]
    pub(super) fn extra_flag(&self) -> u8 {
        if self.lead.is_empty() && self.extras.is_empty() {
            0
        } else {
            FLAG_EXTRA
        }
    }

    pub(super) fn flags(&self, cap: usize) -> u8 {
        let cut_extras = if self.lead.is_empty() {
            !self.extras.is_empty() && extras_cut(self.extras, cap)
        } else {
            self.fields().is_cut(cap)
        };
        let cut = self.record.is_cut(cap) || cut_extras;
        self.flags | self.extra_flag() | if cut { FLAG_CUT } else { 0 }
    }

    pub(super) fn symbols_known(&self, core: &Core) -> bool {
        self.all_symbols(|symbol| core.knows_symbol(symbol))
    }

    #[cold]
    pub(super) fn register_symbols(self, core: &Core) -> bool {
        self.all_symbols(|symbol| core.register_symbol(symbol))
    }

    fn all_symbols(&self, mut check: impl FnMut(Symbol) -> bool) -> bool {
        let mut extras = self.lead.iter().chain(self.extras);
        self.record.all_symbols(&mut check)
            && extras.all(|extra| match extra.key {
                Name::Symbol(symbol) => check(symbol),
                Name::Text(_) => true,
            })
    }

    #[cold]
    fn refused(self, core: &Core, refused: Refused) -> Outcome {
        match refused {
            Refused::Closed => Outcome::Closed,
            Refused::Reentrant => {
                let keep = self.record.keep();
                let observation = self.observation();
                let reason = DropReason::Reentrant;
                dropped(core, self.category, keep, reason, observation)
            }
        }
    }

    #[cold]
    pub(super) fn full(self, core: &Core, slot: &RingSlot, ticks: u64) -> Outcome {
        let reason = match self.class(core) {
            KeepClass::Sampled => DropReason::RingFull,
            KeepClass::Always => DropReason::AlwaysBudget,
        };
        self.overflow(core, slot, ticks, reason)
    }
}
