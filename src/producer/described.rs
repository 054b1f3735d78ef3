//! Records that carry more than they were pushed with: the context of the thread, or, where the
//! registry has no room, their own description.

use std::sync::Arc;

use super::Outcome;
use super::offer::{Offer, dropped, observation_of};
use crate::context;
use crate::core::Core;
use crate::ledger::DropReason;
use crate::record::{
    CATEGORY_CUSTOM, Described, Extra, FLAG_CUT, FLAG_EXTRA, LEAD_MAX, Name, Record,
};

/// The registry has no room: the record describes itself in category `custom`.
#[cold]
fn push_described<R: Record>(core: &Arc<Core>, offer: &Offer<'_, R>) -> Outcome {
    let (record, fields) = (&offer.record, offer.fields());
    let described = Described { record, fields };
    let schema = described.schema();
    core.note_registry_full();
    match schema.ids() {
        // The writer registers `custom` when the session starts, so there is always room.
        Some(ids) if core.register_schema(ids, schema) => {
            let flags = offer.flags & FLAG_CUT | FLAG_EXTRA;
            let mut offer = Offer::new(described, &[], schema.packed_ids());
            offer.flags = flags;
            offer.in_context = true;
            offer.push_any(core)
        }
        _ => {
            let reason = DropReason::RegistryFull;
            // A key of its own would be one that nobody can name.
            let observation = observation_of(record, 0);
            dropped(core, CATEGORY_CUSTOM, record.keep(), reason, observation)
        }
    }
}

impl<R: Record> Offer<'_, R> {
    /// Calls `then` with the record in the context of the calling thread, if it has one.
    pub(super) fn with_context<T>(self, then: impl FnOnce(Offer<'_, R>) -> T) -> T {
        if self.in_context || !context::is_active() {
            return then(self);
        }
        let mut active = context::active();
        if self.tells_request {
            active = active.without_request();
        }
        let mut lead = [Extra::default(); LEAD_MAX];
        let lead = active.lead(self.lead, &mut lead);
        let in_context = true;
        // A value that was cut may end in the middle of a secret.
        let cut = if active.is_cut() { FLAG_CUT } else { 0 };
        then(Offer {
            lead,
            in_context,
            flags: self.flags | cut,
            ..self
        })
    }

    /// The registry has no room for the schema.
    #[cold]
    pub(super) fn push_without_schema(self, core: &Arc<Core>) -> Outcome {
        self.with_context(|offer| push_described(core, &offer))
    }

    /// The registry has no room for a symbol: its text travels inline. Keys of extra fields need
    /// the registry; with them the record describes itself.
    #[cold]
    #[inline(never)]
    pub(super) fn push_without_symbols(self, core: &Arc<Core>) -> Outcome {
        core.note_registry_full();
        let keys = self
            .lead
            .iter()
            .chain(self.extras)
            .any(|extra| matches!(extra.key, Name::Symbol(_)));
        match (self.record.without_symbols(), keys) {
            (Some(plain), false) => {
                let plain = Self {
                    record: plain,
                    ..self
                };
                plain.push_any(core)
            }
            _ => push_described(core, &self),
        }
    }
}
