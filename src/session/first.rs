//! What a session writes into its registry before anything else.

use super::markers::{SessionEnd, SessionStart};
use crate::config::Settings;
use crate::core::Core;
use crate::record::catalog::orchestrator::Stress;
use crate::record::{Category, Record};
use crate::redact::Rules;
use crate::segment::entry::Entry;
use crate::writer::OperationEnd;

/// What must be in the registry before it can get full, and the categories that start off.
pub(super) fn register_first(core: &Core, settings: &Settings) {
    let first = [
        Category::custom().schema(),
        SessionStart::default().schema(),
        SessionEnd::default().schema(),
        OperationEnd::default().schema(),
    ];
    for schema in first {
        if let Some(ids) = schema.ids() {
            let registered = core.register_schema(ids, schema);
            debug_assert!(registered, "the registry is empty");
        }
    }
    if core.rules.is_some() {
        // What the rules tell must not find the registry full.
        let schema = Stress::default().schema();
        if let Some(ids) = schema.ids() {
            core.register_schema(ids, schema);
        }
    }
    if settings.redact != Rules::default() {
        // Whoever converts the session, now or after a crash, has the same rules.
        let rules = settings.redact.to_json().to_string();
        let appended = core.storage.registry.append(&Entry::Redaction(&rules));
        debug_assert!(appended.is_ok(), "the registry is nearly empty");
    }
    for (id, weight) in core.policies.rates() {
        let appended = core.storage.registry.append(&Entry::Rate(id, weight));
        debug_assert!(appended.is_ok(), "the registry is nearly empty");
    }
    for name in &settings.categories_off {
        if let Some(ids) = Category::named(name).and_then(|category| category.schema().ids()) {
            core.set_category_on(ids.category, false);
        }
    }
}
