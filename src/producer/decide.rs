//! The decision about a record whose gate or ring asks for one: shed, sample, suppress, limit.
//!
//! Nothing of this runs while there is no pressure and no policy: the gate of the schema is exactly
//! `GATE_ON` then, and no flag of the ring is set.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::Xxh3;

use super::offer::{Offer, observe};
use super::{Outcome, Verdict};
use crate::core::Core;
use crate::gates::{GATE_K, GATE_POLICY};
use crate::ledger::{DropReason, OFFERED, SAMPLED_OUT};
use crate::policy::{Changed, LastStates};
use crate::record::{Extra, FieldKind, KeepClass, PackedIds, Record, Sink};
use crate::ring::{BusyGuard, Observation, RingSlot, count_own, quick_cell};
use crate::sampling::{KeyHash, Threshold, effective};

/// Extra fields that a record may have so that the number of repeats still finds room.
const CHANGE_EXTRAS_MAX: usize = 31;

/// A change of state, which is remembered when its record is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    states: &'a LastStates,
    changed: Changed,
}

/// Decides about a keyless record of a category under pressure `k` alone. One that is left out is
/// counted.
pub(super) fn keeps_keyless(
    core: &Core,
    slot: &RingSlot,
    guard: &mut BusyGuard<'_>,
    category: u8,
    k: u8,
    observation: Option<Observation>,
) -> Verdict {
    let local = local(core, slot);
    let k = k.max(local.keyless);
    let keeps = || slot.gaps(guard).keeps(k);
    verdict(core, slot, category, observation, local, k, keeps)
}

/// The same for a record with a key.
pub(super) fn keeps_keyed(
    core: &Core,
    slot: &RingSlot,
    category: u8,
    k: u8,
    key: KeyHash,
    observation: Option<Observation>,
) -> Verdict {
    let local = local(core, slot);
    let k = k.max(local.keyed);
    let keeps = || Threshold::of_pressure(k).keeps(key.r());
    verdict(core, slot, category, observation, local, k, keeps)
}

fn verdict(
    core: &Core,
    slot: &RingSlot,
    category: u8,
    observation: Option<Observation>,
    local: Local,
    weight: u8,
    keeps: impl FnOnce() -> bool,
) -> Verdict {
    // First: a record that was chosen and then finds no room would take with it those that it
    // stands for, and the estimate would be too low.
    if local.full {
        core.storage.count(slot, category, OFFERED);
        observe(core, slot, observation);
        core.storage
            .count(slot, category, DropReason::RingFull.counter());
        return Verdict::Full;
    }
    if keeps() {
        return Verdict::Keep(weight);
    }
    left_out(core, slot, category, observation);
    Verdict::LeaveOut
}

/// Leaves out a record of a category under pressure `k` alone and counts it, if that is all there
/// is to it: nobody has a wish (close, doze, a ring half full), and the key, or the run of a record
/// without one, says so. Otherwise false, and nothing has happened.
///
/// Inlined into the program: a call would take longer than what it does.
#[inline(always)]
pub(super) fn leave_out_quick(
    slot: &RingSlot,
    ids: PackedIds,
    k: u8,
    key: Option<KeyHash>,
    observation: Option<Observation>,
) -> bool {
    let Some(mut guard) = slot.busy.enter_quick() else {
        return false;
    };
    let Some(counters) = slot.quick_counters(ids) else {
        return false;
    };
    let cell = match observation {
        None => None,
        Some(observation) => match quick_cell(slot, observation.key) {
            None => return false,
            Some(cell) => Some((cell, observation.ns)),
        },
    };
    let leaves_out = match key {
        None => slot.gaps(&mut guard).leave_out(k),
        Some(key) => !Threshold::of_pressure(k).keeps(key.r()),
    };
    if leaves_out {
        count_own(&counters[OFFERED]);
        fail_point!("sample.quick_offered");
        if let Some((cell, ns)) = cell {
            cell.observe_own(ns);
        }
        count_own(&counters[SAMPLED_OUT]);
    }
    leaves_out
}

/// Counts a record that is left out.
pub(super) fn left_out(
    core: &Core,
    slot: &RingSlot,
    category: u8,
    observation: Option<Observation>,
) {
    core.storage.count(slot, category, OFFERED);
    observe(core, slot, observation);
    fail_point!("sample.offered");
    core.storage.count(slot, category, SAMPLED_OUT);
}

/// What the ring itself asks for.
#[derive(Clone, Copy, Debug, Default)]
struct Local {
    /// Pressure for records without a key.
    keyless: u8,
    /// For those with one. It comes later: an operation should meet the same pressure in all
    /// threads, unless the alternative is to drop it.
    keyed: u8,
    /// There may be no room for a record of the class `Sampled`.
    full: bool,
}

/// Nothing, unless a push has found the ring half full.
fn local(core: &Core, slot: &RingSlot) -> Local {
    if !slot.busy.is_pressed() {
        return Local::default();
    }
    let local = if core.sampling {
        fill_pressure(slot.side.used(slot.ring()), slot.ring().buffer.capacity())
    } else {
        Local::default()
    };
    if local.keyless == 0 {
        slot.busy.set_pressed(false);
    }
    local
}

/// Asks the pushes to come to look at the ring, if it is half full.
pub(super) fn look_at_fill(core: &Core, slot: &RingSlot) {
    let (used, capacity) = (slot.side.used(slot.ring()), slot.ring().buffer.capacity());
    if core.sampling && fill_pressure(used, capacity).keyless > 0 {
        slot.busy.set_pressed(true);
    }
}

/// Parts of 1/128 of a ring from which on it counts as full: a little before the headroom.
const FULL_PARTS: u64 = 95;
/// As much later pressure begins for records with a key.
const KEYED_LATER: u64 = 4;

/// Pressure of a ring that holds `used` bytes: 0 below half of its capacity, then one more per
/// 1/64, so that hardly a record gets through before the ring is full.
fn fill_pressure(used: u64, capacity: u64) -> Local {
    let parts = used * 64 / capacity;
    let k = |from: u64| parts.saturating_sub(from).min(15) as u8;
    Local {
        keyless: k(31),
        keyed: k(31 + KEYED_LATER),
        full: used * 128 >= capacity * FULL_PARTS,
    }
}

impl<R: Record> Offer<'_, R> {
    fn dropped(&self, core: &Core, slot: &RingSlot, reason: DropReason) -> Outcome {
        self.count_offered(core, slot);
        core.storage.count(slot, self.category, reason.counter());
        Outcome::Dropped(reason)
    }

    /// Decides about the record and sets its weight. `Err`: it goes no further, and is counted.
    pub(super) fn decide<'c>(
        &mut self,
        core: &'c Core,
        slot: &RingSlot,
        guard: &mut BusyGuard<'_>,
    ) -> Result<Option<Change<'c>>, Outcome> {
        // Relaxed: the schema was registered before; a pressure that is a moment old is as good.
        let gate = core.gates.gate(self.schema).load(Relaxed);
        let local = match local(core, slot) {
            // Others are under pressure, because they take more than their share. This category
            // does not, and it needs little of the room that is left.
            _ if gate & GATE_K == 0 && core.has_pressure() => Local::default(),
            local => local,
        };
        if gate & (GATE_K | GATE_POLICY) == 0 && local.keyless == 0 {
            return Ok(None);
        }
        let class = core.keep_class(self.category, self.record.keep());
        if class == KeepClass::Sampled {
            if gate & GATE_POLICY != 0 && core.is_shedding() {
                return Err(self.dropped(core, slot, DropReason::Disk));
            }
            match self.sample(core, slot, guard, gate & GATE_K, local) {
                Verdict::LeaveOut => return Err(Outcome::SampledOut),
                Verdict::Full => return Err(Outcome::Dropped(DropReason::RingFull)),
                Verdict::Keep(_) | Verdict::Unknown => {}
            }
        }
        let policy = core.policies.of(self.category);
        let change = match &policy.on_change {
            None => None,
            Some(states) => {
                let (name, state) = fingerprint(&self.record, self.extras, self.schema);
                let Some(changed) = states.look(name, state) else {
                    return Err(self.dropped(core, slot, DropReason::Repeat));
                };
                Some(Change { states, changed })
            }
        };
        if let (KeepClass::Sampled, Some(limit)) = (class, &policy.limit)
            && !limit.take(core.clock.ticks())
        {
            if let Some(Change { states, changed }) = change {
                states.not_told(changed);
            }
            return Err(self.dropped(core, slot, DropReason::RateLimit));
        }
        Ok(change)
    }

    /// What sampling says about the record; sets its weight, and counts it unless it goes on.
    /// `k` is the pressure of the category, `local` that of the ring.
    fn sample(
        &mut self,
        core: &Core,
        slot: &RingSlot,
        guard: &mut BusyGuard<'_>,
        k: u8,
        local: Local,
    ) -> Verdict {
        let fixed = core.policies.of(self.category).rate;
        let key = self
            .key
            .or_else(|| KeyHash::new(self.record.key_bytes(), core.salt));
        let pressed = if key.is_some() {
            local.keyed
        } else {
            local.keyless
        };
        let k = k.max(pressed);
        let rate = effective(k, fixed);
        if rate.threshold == Threshold::ALL {
            return Verdict::Keep(0);
        }
        self.weight = rate.weight_id;
        verdict(
            core,
            slot,
            self.category,
            self.observation(),
            local,
            rate.weight_id,
            || match key {
                Some(key) => rate.threshold.keeps(key.r()),
                None if rate.threshold == Threshold::of_pressure(k) => slot.gaps(guard).keeps(k),
                None => slot.gaps(guard).keeps_at(rate.threshold),
            },
        )
    }

    /// Pushes a record that is a change of state, with the number of suppressed repeats in the
    /// field `repeats`, if there were any and the record has room for one more extra field.
    #[cold]
    pub(super) fn push_change(
        self,
        core: &Arc<Core>,
        slot: &RingSlot,
        guard: BusyGuard<'_>,
        change: Change<'_>,
    ) -> Outcome {
        let Change { states, changed } = change;
        let mut more = [Extra::default(); CHANGE_EXTRAS_MAX + 1];
        let count = self.extras.len();
        let told = changed.repeats > 0 && count <= CHANGE_EXTRAS_MAX;
        let extras = if told {
            more[..count].copy_from_slice(self.extras);
            more[count] = Extra::new("repeats", changed.repeats);
            &more[..=count]
        } else {
            self.extras
        };
        let outcome = Offer { extras, ..self }.push_entered(core, slot, guard);
        if outcome == Outcome::Kept {
            states.kept(changed);
        }
        if outcome != Outcome::Kept || !told {
            states.not_told(changed);
        }
        outcome
    }
}

/// What a record is about, and in which state that is, as two hashes: its type and key; all its
/// values but durations.
fn fingerprint<R: Record>(record: &R, extras: &[Extra<'_>], schema: u16) -> (u64, u64) {
    let mut name = Xxh3::with_seed(u64::from(schema));
    name.update(record.key_bytes());
    let fields = record.schema().fields;
    let mut state = Hashed(Xxh3::new());
    let mut index = 0;
    record.visit(&mut |field| {
        let kind = fields.get(index).map(|field| field.field_type.kind);
        if kind != Some(FieldKind::DurationMs) {
            field.write(&mut state);
        }
        index += 1;
    });
    for extra in extras {
        extra.write(&mut state);
    }
    (name.digest(), state.0.digest())
}

/// Hashes what is written to it.
struct Hashed(Xxh3);

impl Sink for Hashed {
    fn put(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_presses_from_half_full_on() {
        let k = |percent: u64| fill_pressure(percent * 4096 / 100, 4096);
        assert_eq!([0, 20, 49].map(|p| k(p).keyless), [0, 0, 0]);
        let steep = [50, 54, 60, 70, 74, 100].map(|p| k(p).keyless);
        assert_eq!(steep, [1, 3, 7, 13, 15, 15]);
        let later = [50, 54, 60, 70, 74, 100].map(|p| k(p).keyed);
        assert_eq!(later, [0, 0, 3, 9, 12, 15]);
        assert_eq!([50, 74, 75].map(|p| k(p).full), [false, false, true]);
    }
}
