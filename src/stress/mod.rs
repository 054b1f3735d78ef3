//! Stress rules: what is detected where records are offered, before sampling.
//!
//! A [`Rule`] looks at the records of one category and says when the system is under stress: a
//! value over a limit, a state that changed, a part of a whole, a number per window, a value far
//! above its own history. It fires once when an episode begins, and once more, as
//! `{name}_cleared`, when the episode ends. The same rules run in a session
//! ([`SessionBuilder::stress_rules`](crate::SessionBuilder::stress_rules)) and over what was
//! recorded ([`Evaluator`], `stormlog stress`).
//!
//! ```
//! use stormlog::stress::{Evaluator, FieldValue, RuleSet};
//!
//! let rules = Evaluator::new(&RuleSet::default()).expect("the built-in rules are valid");
//! let record = |ns| [("operation", FieldValue::Text("start_container_success")),
//!     ("duration_ms", FieldValue::Duration(ns))];
//! let mut fired = Vec::new();
//! for ns in [12_500_000_000, 12_500_000_001, 13_000_000_000, 1_000_000_000] {
//!     rules.evaluate("provisioning", 0, record(ns), |event| {
//!         fired.push(event.event_type().to_owned());
//!     });
//! }
//! assert_eq!(fired, ["slow_provisioning", "slow_provisioning_cleared"]);
//! ```

mod builtin;
mod cell;
mod check;
mod compare;
mod compile;
mod evaluate;
#[cfg(all(test, not(loom)))]
mod evaluate_tests;
mod event;
#[cfg(feature = "rules")]
mod file;
#[cfg(feature = "rules")]
mod file_values;
mod history;
mod judge;
#[cfg(all(test, not(loom)))]
mod model_tests;
mod online;
mod plan;
#[cfg(all(test, not(loom)))]
mod plan_tests;
mod rule;
mod settings;
mod state;
mod value;

pub use builtin::STARTUP_TIMEOUT;
pub use check::RuleError;
pub use evaluate::Evaluator;
pub use event::StressEvent;
pub use rule::{Below, Condition, Detail, Episode, Limit, Pattern, Rule, RuleSet, Severity, Test};
pub use value::FieldValue;

pub(crate) use event::{DESCRIPTION_BYTES_MAX, EVENT_FIELDS_MAX};
#[doc(hidden)]
#[cfg(feature = "rules")]
pub use file::parse_rules;
pub(crate) use online::{Online, name_of};
pub(crate) use settings::StressSettings;
