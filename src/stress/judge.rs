//! What one record says about the condition of a rule.

use super::compile::{Check, Compiled, Edge, FieldRef, FieldTest, Level, Values};
use super::rule::{Episode, Pattern};
use super::state::{Reading, Seen, Truth};
use super::value::FieldValue;

impl FieldTest {
    fn holds(&self, values: &Values<'_>) -> bool {
        let value = values.get(self.field);
        let text = match value {
            FieldValue::Bool(true) => Some("true"),
            FieldValue::Bool(false) => Some("false"),
            value => value.text(),
        };
        let number = value.number().filter(|_| text.is_none());
        let found = self
            .patterns
            .iter()
            .any(|pattern| match (text, number, pattern) {
                (Some(text), ..) => pattern.matches(text),
                (None, Some(number), Pattern::Is(text)) => text.parse() == Ok(number),
                _ => false,
            });
        found != self.not
    }
}

fn any(tests: &[FieldTest], values: &Values<'_>) -> bool {
    tests.iter().any(|test| test.holds(values))
}

/// The first value that is a duration, or a number.
fn first(fields: &[FieldRef], values: &Values<'_>, is_time: bool) -> Option<Reading> {
    fields.iter().find_map(|field| {
        let value = values.get(*field);
        if is_time {
            value.ns(field.unit).map(Reading::Time)
        } else {
            value.number().map(Reading::Number)
        }
    })
}

/// Whether `value` is strictly above.
fn above(value: Reading, limit: Reading) -> bool {
    match (value, limit) {
        (Reading::Time(value), Reading::Time(limit)) => value > limit,
        (Reading::Number(value), Reading::Number(limit)) => value > limit,
        _ => false,
    }
}

impl Level {
    /// What the record says; `None` where it says nothing.
    pub(super) fn truth(&self, values: &Values<'_>) -> Option<Truth> {
        let judge = |stress, calm, value| match (stress, calm) {
            (true, _) => Truth::Stress(value),
            (_, true) => Truth::Calm,
            _ => Truth::Between,
        };
        match self {
            Self::Threshold {
                fields,
                limit,
                up_to,
                clear,
                below,
            } => {
                let value = first(fields, values, matches!(limit, Reading::Time(_)))?;
                let (stress, calm) = if *below {
                    (above(*limit, value), !above(*clear, value))
                } else {
                    (above(value, *limit), !above(value, *clear))
                };
                let out = up_to.is_some_and(|up_to| above(value, up_to));
                Some(judge(stress && !out, calm || out, value))
            }
            Self::Match(tests) => {
                let stress = any(tests, values);
                Some(judge(stress, !stress, Reading::None))
            }
            Self::Ratio {
                part,
                whole,
                limit,
                clear,
            } => {
                let part = values.get(*part).number()?;
                let Some(Reading::Number(whole)) = first(whole, values, false) else {
                    return None;
                };
                if whole <= 0.0 {
                    return Some(Truth::Calm);
                }
                let ratio = part / whole;
                let value = Reading::Number(ratio);
                Some(judge(ratio > *limit, ratio <= *clear, value))
            }
        }
    }

    /// A reading of the kind that it judges.
    pub(super) fn kind(&self) -> Reading {
        match self {
            Self::Threshold { limit, .. } => *limit,
            Self::Match(_) => Reading::None,
            Self::Ratio { limit, .. } => Reading::Number(*limit),
        }
    }

    pub(super) fn is_below(&self) -> bool {
        matches!(self, Self::Threshold { below: true, .. })
    }
}

impl Edge {
    /// What the state of the record means; `None` where it has none.
    pub(super) fn seen(&self, values: &Values<'_>) -> Option<Seen> {
        let state = self
            .fields
            .iter()
            .find_map(|field| values.get(*field).text())?;
        let one_of = |list: &[Pattern], state: &str| list.iter().any(|one| one.matches(state));
        let previous = self.previous.and_then(|field| values.get(field).text());
        Some(Seen {
            from: one_of(&self.from, state),
            to: one_of(&self.to, state),
            clears: one_of(&self.clear, state),
            entered: previous.is_some_and(|state| one_of(&self.from, state))
                || any(&self.or, values),
        })
    }
}

impl Compiled {
    /// Whether the rule looks at the record.
    pub(super) fn concerns(&self, values: &Values<'_>) -> bool {
        self.tests.iter().all(|test| test.holds(values))
    }

    /// The key of the record as a number that is not 0.
    pub(super) fn key_of(&self, values: &Values<'_>) -> u64 {
        use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
        let Some(field) = self.key else {
            return 1;
        };
        let value = values.get(field);
        // A number is the same however it is written; each kind has a seed, so none is another.
        let hash = match (value, value.whole(), value.number()) {
            (FieldValue::Text(text), ..) => xxh3_64(text.as_bytes()),
            (FieldValue::Bool(flag), ..) => xxh3_64_with_seed(&[u8::from(flag)], 1),
            (_, Some(whole), _) => xxh3_64_with_seed(&whole.to_le_bytes(), 2),
            (_, None, Some(number)) => xxh3_64_with_seed(&number.to_le_bytes(), 3),
            (_, None, None) => 1,
        };
        hash | 1
    }

    /// The value that a baseline looks at.
    pub(super) fn baseline_value(
        fields: &[FieldRef],
        is_time: bool,
        values: &Values<'_>,
    ) -> Option<Reading> {
        first(fields, values, is_time)
    }

    /// The state of the rule does not exist: it judges each record by itself.
    pub(super) fn is_stateless(&self) -> bool {
        self.rule.episode == Episode::Record && self.budget.interval == 0
    }

    /// The kind of reading that its episodes have.
    pub(super) fn kind(&self) -> Reading {
        match &self.check {
            Check::Level(level) => level.kind(),
            // A window does not remember how many there were beyond its limit.
            Check::Edge(_) | Check::Rate(..) => Reading::None,
            Check::Baseline(_, _, true) => Reading::Time(0),
            Check::Baseline(_, _, false) => Reading::Number(0.0),
        }
    }
}
