//! Pushes of records that stress rules look at: evaluate, then go on as any other.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::offer::{Offer, observation_of};
use super::{Log, Outcome, Verdict};
use crate::core::Core;
use crate::gates::{GATE_ON, GATE_POLICY, is_pressure, is_ruled, without_rules};
use crate::ledger::DropReason;
use crate::record::catalog::orchestrator::Stress;
use crate::record::{Extra, FLAG_RULE, Record, WHOLE};
use crate::sampling::KeyHash;
use crate::stress::{EVENT_FIELDS_MAX, Online, StressEvent, name_of};

/// Bytes of a description; longer ones are cut.
const DESCRIPTION_BYTES_MAX: usize = 512;

impl Log {
    /// A record whose gate says that there are rules.
    #[inline(never)]
    pub(super) fn push_ruled<R: Record>(
        &self,
        record: R,
        extras: &[Extra<'_>],
        gate: u8,
        key: Option<KeyHash>,
    ) -> Outcome {
        if gate & GATE_POLICY != 0 {
            return self.push_slow(record, extras, key);
        }
        if let Some(core) = self.link.core()
            && let Some(rules) = core.rules.as_deref()
            && may_fire(rules, &record, !extras.is_empty())
        {
            let mut offer = Offer::new(record, extras, record.schema().packed_ids());
            offer.key = key;
            if let Some(outcome) = self.push_fired(core, rules, &offer) {
                return outcome;
            }
        }
        self.push_unfired(record, extras, without_rules(gate), key)
    }

    /// A record on which no rule has fired.
    #[inline(always)]
    fn push_unfired<R: Record>(
        &self,
        record: R,
        extras: &[Extra<'_>],
        gate: u8,
        key: Option<KeyHash>,
    ) -> Outcome {
        let ids = record.schema().packed_ids();
        if gate == GATE_ON
            && let Some((core, slot)) = self.link.fast()
        {
            let offer = Offer::new(record, extras, ids);
            if offer.push_quick(core, slot, ids) {
                return Outcome::Kept;
            }
        } else if is_pressure(gate) {
            let key = match key {
                None if R::KEYED => self.key_hash(record.key_bytes()),
                key => key,
            };
            let observation = observation_of(&record, ids.schema());
            if self.leave_out(ids, gate, key, observation) {
                return Outcome::SampledOut;
            }
            // Not by `push_pressed`, which may come to `push_slow`: the rules have had their look.
            match self.verdict(ids, gate, key, observation) {
                Verdict::LeaveOut => return Outcome::SampledOut,
                Verdict::Full => return Outcome::Dropped(DropReason::RingFull),
                Verdict::Keep(weight) => return self.push_decided(record, extras, weight),
                Verdict::Unknown => {}
            }
        }
        self.push_rest(record, extras, key)
    }

    /// A record of a schema whose gate was open, on the slow path.
    #[cold]
    #[inline(never)]
    fn push_rest<R: Record>(
        &self,
        record: R,
        extras: &[Extra<'_>],
        key: Option<KeyHash>,
    ) -> Outcome {
        let Some(core) = self.link.core() else {
            return Outcome::Disabled;
        };
        let mut offer = Offer::new(record, extras, record.schema().packed_ids());
        offer.key = key;
        offer.push_any(core)
    }

    /// Evaluates the rules. A record on which one fires is kept with weight 1, and what the rules
    /// tell follows it. `None`: none has fired, and nothing was pushed.
    #[cold]
    #[inline(never)]
    fn push_fired<R: Record>(
        &self,
        core: &Arc<Core>,
        rules: &Online,
        offer: &Offer<'_, R>,
    ) -> Option<Outcome> {
        let extras = [offer.lead, offer.extras];
        let looked = rules.look(&offer.record, extras, offer.ticks(core))?;
        if looked.is_quiet() {
            return None;
        }
        let mut kept = *offer;
        (kept.decided, kept.weight, kept.leave_out) = (true, 0, false);
        kept.flags |= FLAG_RULE;
        let outcome = kept.push_any(core);
        looked.each(|event| self.push_stress(event));
        Some(outcome)
    }

    /// The same for a record on the slow path, whose gate may say that there are rules.
    pub(super) fn push_if_fired<R: Record>(
        &self,
        core: &Arc<Core>,
        offer: &Offer<'_, R>,
    ) -> Option<Outcome> {
        let rules = core.rules.as_deref()?;
        let has_extras = !(offer.extras.is_empty() && offer.lead.is_empty());
        let gate = self.gate(offer.record.schema().packed_ids());
        if is_ruled(gate) && may_fire(rules, &offer.record, has_extras) {
            return self.push_fired(core, rules, offer);
        }
        None
    }

    /// What becomes of it is in the ledger, as of any other record.
    fn push_stress(&self, event: &StressEvent<'_>) {
        let mut description = Text::default();
        // A description that is too long is cut.
        let _cut = write!(description, "{}", event.description());
        let mut extras = [Extra::default(); EVENT_FIELDS_MAX];
        let mut count = 0;
        event.fields(|name, value| {
            if let Some(extra) = extras.get_mut(count) {
                *extra = Extra::new(name, value);
                count += 1;
            }
        });
        let stress = Stress {
            event_type: name_of(event.event_type()),
            severity: name_of(event.severity().name()),
            description: description.text(),
        };
        self.push_with(&stress, &extras[..count]);
    }
}

#[inline(always)]
fn may_fire<R: Record>(rules: &Online, record: &R, has_extras: bool) -> bool {
    let schema = record.schema().packed_ids().schema();
    if R::OBSERVED {
        let ns = record.observed().map_or(0, |observed| observed.ns);
        if let Some(may) = rules.may_fire_timed(schema, ns, has_extras) {
            return may;
        }
    }
    let fixed = record.fixed(WHOLE);
    rules.may_fire(schema, bytemuck::bytes_of(&fixed), has_extras)
}

/// A text on the stack: a push does not allocate.
struct Text {
    bytes: [u8; DESCRIPTION_BYTES_MAX],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            bytes: [0; DESCRIPTION_BYTES_MAX],
            length: 0,
        }
    }
}

impl Text {
    fn text(&self) -> &str {
        let bytes = &self.bytes[..self.length];
        // Whole characters were written.
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.length;
        let part = crate::record::cut_text(text, room);
        self.bytes[self.length..][..part.len()].copy_from_slice(part.as_bytes());
        self.length += part.len();
        if part.len() == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}
