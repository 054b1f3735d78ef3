//! Records that stress rules look at: whether one can fire, and the evaluation when it can.

use std::fmt::Write;
use std::sync::Arc;

use super::offer::{Decided, Offer};
use super::{Log, Outcome};
use crate::context::Inline;
use crate::core::Core;
use crate::gates::is_ruled;
use crate::record::catalog::orchestrator::Stress;
use crate::record::{Extra, FLAG_RULE, PackedIds, Record, WHOLE};
use crate::stress::{DESCRIPTION_BYTES_MAX, EVENT_FIELDS_MAX, Online, StressEvent, name_of};

impl Log {
    /// Whether a rule can fire on a record whose gate says that there are rules. Inlined, so that a
    /// record on which none can goes the way of any other.
    #[inline(always)]
    pub(super) fn may_fire<R: Record>(&self, record: &R, ids: PackedIds, has_extras: bool) -> bool {
        let rules = self.link.core().and_then(|core| core.rules.as_deref());
        rules.is_some_and(|rules| may_fire(rules, record, ids.schema(), has_extras))
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
        (kept.decided, kept.weight) = (Decided::Keep, 0);
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
        let ids = offer.record.schema().packed_ids();
        if is_ruled(self.gate(ids)) && may_fire(rules, &offer.record, ids.schema(), has_extras) {
            return self.push_fired(core, rules, offer);
        }
        None
    }

    /// What becomes of it is in the ledger, as of any other record.
    fn push_stress(&self, event: &StressEvent<'_>) {
        // On the stack: a push does not allocate. A description that is too long is cut.
        let mut description = Inline::<DESCRIPTION_BYTES_MAX>::EMPTY;
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
            description: description.as_str(),
        };
        self.push_with(&stress, &extras[..count]);
    }
}

#[inline(always)]
fn may_fire<R: Record>(rules: &Online, record: &R, schema: u16, has_extras: bool) -> bool {
    if R::OBSERVED {
        let ns = record.observed().map_or(0, |observed| observed.ns);
        if let Some(may) = rules.may_fire_timed(schema, ns, has_extras) {
            return may;
        }
    }
    let fixed = record.fixed(WHOLE);
    rules.may_fire(schema, bytemuck::bytes_of(&fixed), has_extras)
}
