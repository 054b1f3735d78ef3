//! The push: enabled > sample > reserve > encode > commit.
#![expect(unsafe_code, reason = "the handle points straight at the gates")]

mod decide;
mod described;
mod large;
mod offer;
#[cfg(all(test, not(loom)))]
mod order_tests;
mod overflow;
mod quick;
mod ruled;
mod span;
mod unfinished;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Acquire;

use crate::core::{Core, phase};
use crate::gates::{
    GATE_K, GATE_OFF, GATE_ON, Gates, is_open, is_pressure, is_ruled, without_rules,
};
use crate::ledger::DropReason;
use crate::local::Link;
use crate::record::{Category, Declared, Extra, Open, PackedIds, Record, SCHEMAS_MAX};
use crate::ring::Observation;
use crate::sampling::KeyHash;
use decide::{keeps_keyed, keeps_keyless, leave_out_quick};
use offer::{Decided, Offer, observation_of};
pub(crate) use span::Fate;

/// What became of an offered record, as far as the caller's thread knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the ring or the spill; the writer takes it from there.
    Kept,
    /// Left out by sampling; counted.
    SampledOut,
    /// Dropped for this reason; counted.
    Dropped(DropReason),
    /// Recording, or the category, is switched off, or this is a forked child; not counted.
    Disabled,
    /// The session is closed; not counted.
    Closed,
}

/// Cheap handle for producers; clone it freely, send it anywhere.
///
/// For normal records a push never waits, locks, allocates or enters the kernel, except for a
/// counted wake of a sleeping writer. An `Always` record may wait for room, when its ring and the
/// spill are full, for `always_wait_max` at most. It never panics and never returns an error: see
/// [`Outcome`].
#[derive(Clone)]
pub struct Log {
    /// One gate per schema: those of `core`, or the page of the disabled handle.
    gates: *const [AtomicU8; SCHEMAS_MAX],
    /// None: a handle that records nothing.
    link: Link,
}

/// Gates of handles that record nothing.
static GATES_OFF: [AtomicU8; SCHEMAS_MAX] = [const { AtomicU8::new(GATE_OFF) }; SCHEMAS_MAX];

// SAFETY: `gates` points to atomics that live as long as `core` or for ever.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("enabled", &self.link.core().is_some())
            .finish_non_exhaustive()
    }
}

/// What sampling says about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes on with this weight id.
    Keep(u8),
    /// It was counted, and that is all.
    LeaveOut,
    /// The ring may have no room for it: counted as dropped.
    Full,
    /// Not decided: the slow path knows what to do.
    Unknown,
}

impl Log {
    /// A handle that records nothing: every push returns [`Outcome::Disabled`] at once.
    pub fn disabled() -> Self {
        Self {
            gates: &raw const GATES_OFF,
            link: Link::none(),
        }
    }

    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            gates: core.gates.ptr(),
            link: Link::new(core),
        }
    }

    /// Offers a record.
    #[inline(always)]
    pub fn push<R: Record>(&self, record: &R) -> Outcome {
        self.push_with(record, &[])
    }

    /// Offers a record with extra fields, which follow the fields of its schema in the line.
    #[inline(always)]
    pub fn push_with<R: Record>(&self, record: &R, extras: &[Extra<'_>]) -> Outcome {
        self.push_under(record, extras, None)
    }

    /// Offers a record under a prepared hash of its key, which then is not hashed again under
    /// pressure. The hash should be that of the record's own key.
    #[inline(always)]
    pub fn push_keyed<R: Record>(&self, record: &R, key: KeyHash) -> Outcome {
        self.push_under(record, &[], Some(key))
    }

    #[inline(always)]
    fn push_under<R: Record>(
        &self,
        record: &R,
        extras: &[Extra<'_>],
        key: Option<KeyHash>,
    ) -> Outcome {
        // A copy whose address goes nowhere: its fields can live in registers.
        let record = *record;
        let ids = record.schema().packed_ids();
        let mut gate = self.gate(ids);
        // Compared first: who has no rules pays nothing.
        if gate != GATE_ON && is_ruled(gate) {
            if self.may_fire(&record, ids, !extras.is_empty()) {
                return self.push_slow(record, extras, key);
            }
            gate = without_rules(gate);
        }
        if gate == GATE_ON
            && let Some((core, slot)) = self.link.fast()
        {
            let offer = Offer::new(record, extras, ids);
            if offer.push_quick(core, slot, ids) {
                return Outcome::Kept;
            }
        } else if gate == GATE_OFF {
            return Outcome::Disabled;
        } else if is_pressure(gate) {
            let key = match key {
                None if R::KEYED => self.key_hash(record.key_bytes()),
                key => key,
            };
            let observation = observation_of(&record, ids.schema());
            if self.leave_out(ids, gate, key, observation) {
                return Outcome::SampledOut;
            }
            return self.push_pressed(record, extras, gate, key);
        }
        self.push_slow(record, extras, key)
    }

    /// The hash of a correlation key in this session, for [`push_keyed`](Self::push_keyed).
    /// `None` for an empty key.
    #[inline(never)]
    pub fn key_hash(&self, key: &[u8]) -> Option<KeyHash> {
        KeyHash::new(key, self.link.core().map_or(0, |core| core.salt))
    }

    /// Offers the record that `make` returns. While recording or the category is switched off,
    /// `make` is not called: the record costs one load, not its arguments. Nor is it for a record
    /// without a key and without a duration that pressure leaves out. (It is called for the first
    /// record of its type, after close and in a forked child.)
    #[inline(always)]
    pub fn push_lazy<R: Record + Declared>(&self, make: impl FnOnce() -> R) -> Outcome {
        let ids = R::declared().packed_ids();
        let gate = self.gate(ids);
        if gate == GATE_OFF {
            return Outcome::Disabled;
        }
        if !R::KEYED && !R::OBSERVED && is_pressure(gate) {
            if self.leave_out(ids, gate, None, None) {
                return Outcome::SampledOut;
            }
            match self.verdict_keyless(ids, gate) {
                Verdict::LeaveOut => return Outcome::SampledOut,
                Verdict::Full => return Outcome::Dropped(DropReason::RingFull),
                Verdict::Keep(weight) => return self.push_decided(make(), &[], weight),
                Verdict::Unknown => {}
            }
        }
        self.push(&make())
    }

    /// Offers an open record: a category and any fields.
    #[inline]
    pub fn event(&self, category: Category, extras: &[Extra<'_>]) -> Outcome {
        self.push_with(&Open(category), extras)
    }

    /// Whether records of this category are taken now. For callers that want to skip the work of
    /// gathering arguments; a push checks it anyway.
    pub fn is_on(&self, category: Category) -> bool {
        match (self.link.core(), category.schema().ids()) {
            (Some(core), Some(ids)) => {
                !core.gates.is_forked()
                    && core.phase() == phase::RECORDING
                    && core.is_on(ids.category)
            }
            _ => false,
        }
    }

    /// The gate of a schema; that of id 0, which is never [`GATE_ON`], when it has no id yet.
    #[inline(always)]
    fn gate(&self, ids: PackedIds) -> u8 {
        // SAFETY: points to the gates of `core`, which this handle keeps alive, or to a static.
        let gates = unsafe { &*self.gates };
        // Acquire: pairs with the store in `refresh_gate`; the schema is in the registry.
        gates[usize::from(ids.schema())].load(Acquire)
    }

    /// Leaves out a record of a category that is under pressure and has no policy, and counts it:
    /// it costs no more than this. False: [`verdict`](Self::verdict) decides.
    #[inline(always)]
    fn leave_out(
        &self,
        ids: PackedIds,
        gate: u8,
        key: Option<KeyHash>,
        observation: Option<Observation>,
    ) -> bool {
        let Some((_, slot)) = self.link.fast() else {
            return false;
        };
        leave_out_quick(slot, ids, gate - GATE_OFF, key, observation)
    }

    /// A record under pressure that was not left out at once.
    #[cold]
    #[inline(never)]
    fn push_pressed<R: Record>(
        &self,
        record: R,
        extras: &[Extra<'_>],
        gate: u8,
        key: Option<KeyHash>,
    ) -> Outcome {
        let ids = record.schema().packed_ids();
        let observation = observation_of(&record, ids.schema());
        match self.verdict(ids, gate, key, observation) {
            Verdict::LeaveOut => Outcome::SampledOut,
            Verdict::Full => Outcome::Dropped(DropReason::RingFull),
            Verdict::Keep(weight) => self.push_decided(record, extras, weight),
            Verdict::Unknown => self.push_slow(record, extras, key),
        }
    }

    /// Decides about a record of a category that was under pressure and had no policy a moment ago.
    /// One copy for all record types.
    #[cold]
    #[inline(never)]
    fn verdict(
        &self,
        ids: PackedIds,
        gate: u8,
        key: Option<KeyHash>,
        observation: Option<Observation>,
    ) -> Verdict {
        let k = gate & GATE_K;
        let Some((core, slot)) = self.link.fast() else {
            return Verdict::Unknown;
        };
        let Ok(mut guard) = slot.busy.enter(|| core.wake.wake_if_parked()) else {
            return Verdict::Unknown;
        };
        let category = ids.category();
        match key {
            None => keeps_keyless(core, slot, &mut guard, category, k, observation),
            Some(key) => keeps_keyed(core, slot, category, k, key, observation),
        }
    }

    /// The same for a record without a key and a duration. One of its own: the caller would write
    /// down the duration that there is none of, before it knows that it needs to.
    #[cold]
    #[inline(never)]
    fn verdict_keyless(&self, ids: PackedIds, gate: u8) -> Verdict {
        self.verdict(ids, gate, None, None)
    }

    /// A record that pressure keeps.
    #[cold]
    #[inline(never)]
    fn push_decided<R: Record>(&self, record: R, extras: &[Extra<'_>], weight: u8) -> Outcome {
        let Some(core) = self.link.core() else {
            return Outcome::Disabled;
        };
        let mut offer = Offer::new(record, extras, record.schema().packed_ids());
        offer.weight = weight;
        offer.decided = Decided::Keep;
        offer.push_any(core)
    }

    /// Whatever [`Offer::push_quick`] leaves alone, and what does not get as far.
    ///
    /// Takes the record by value: the caller makes the copy on the way here, so that its own
    /// record needs no address.
    #[cold]
    #[inline(never)]
    fn push_slow<R: Record>(
        &self,
        record: R,
        extras: &[Extra<'_>],
        key: Option<KeyHash>,
    ) -> Outcome {
        let mut offer = Offer::new(record, extras, record.schema().packed_ids());
        offer.key = key;
        self.push_offer(offer)
    }

    /// A push without a quick path.
    fn push_offer<R: Record>(&self, offer: Offer<'_, R>) -> Outcome {
        let Some(core) = self.link.core() else {
            return Outcome::Disabled;
        };
        let outcome = self.push_open(core, offer);
        if outcome == Outcome::Kept {
            core.line_sync();
        }
        outcome
    }

    fn push_open<R: Record>(&self, core: &Arc<Core>, offer: Offer<'_, R>) -> Outcome {
        let schema = offer.record.schema();
        let ids = schema.packed_ids();
        if is_open(self.gate(ids)) {
            // Another thread may have pushed the first record of the type since it was asked for
            // its ids.
            let offer = offer.of(ids);
            if let Some(outcome) = self.push_if_fired(core, &offer) {
                return outcome;
            }
            return offer.push_any(core);
        }
        if core.gates.is_forked() {
            Gates::tell_forked();
            return Outcome::Disabled;
        }
        if core.phase() != phase::RECORDING {
            return Outcome::Closed;
        }
        let Some(ids) = schema.ids() else {
            return offer.push_without_schema(core);
        };
        if !core.is_on(ids.category) {
            core.refresh_gate(ids);
            return Outcome::Disabled;
        }
        if !core.register_schema(ids, schema) {
            return offer.push_without_schema(core);
        }
        let offer = offer.of(schema.packed_ids());
        if let Some(outcome) = self.push_if_fired(core, &offer) {
            return outcome;
        }
        offer.push_any(core)
    }
}
