//! Rules as they are declared, and their bounds.

use std::time::Duration;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something is slow or degraded.
    #[default]
    Warning,
    /// Something does not work.
    Critical,
}

impl Severity {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A text that a value is compared with, without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The whole text.
    Is(String),
    /// Its beginning: `start_*`.
    Starts(String),
    /// Any part of it: `*breaker*`.
    Contains(String),
}

impl Pattern {
    /// `text`, `text*` or `*text*`.
    pub fn new(text: &str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(rest), Some(_)) if !rest.is_empty() => {
                Self::Contains(rest.strip_suffix('*').unwrap_or(rest).to_owned())
            }
            (_, Some(start)) => Self::Starts(start.to_owned()),
            _ => Self::Is(text.to_owned()),
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let (text, pattern) = (text.as_bytes(), self.text().as_bytes());
        match self {
            Self::Is(_) => text.eq_ignore_ascii_case(pattern),
            Self::Starts(_) => text
                .get(..pattern.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(pattern)),
            Self::Contains(_) => {
                pattern.is_empty()
                    || text
                        .windows(pattern.len())
                        .any(|part| part.eq_ignore_ascii_case(pattern))
            }
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Is(text) | Self::Starts(text) | Self::Contains(text) => text,
        }
    }
}

/// A test of one field: one of the patterns matches, or none if `not`. Bools are the texts `true`
/// and `false`; a field that is null or not there matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Name of the field.
    pub field: String,
    /// What its value may be.
    pub patterns: Vec<Pattern>,
    /// Whether it is what the value may not be.
    pub not: bool,
}

impl Test {
    /// A test of `field` against patterns as in [`Pattern::new`].
    pub fn new(field: &str, patterns: &[&str]) -> Self {
        Self {
            field: field.to_owned(),
            patterns: patterns.iter().map(|text| Pattern::new(text)).collect(),
            not: false,
        }
    }

    /// The opposite test.
    #[must_use]
    pub fn negated(mut self) -> Self {
        self.not = !self.not;
        self
    }
}

/// What a value is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// A duration. Numbers are durations in the unit that the name of their field ends with: `_ms`,
    /// `_us`, `_ns`, otherwise seconds.
    Time(Duration),
    /// A number.
    Number(f64),
}

/// The lower end of a band, see [`Condition::Threshold`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Below {
    /// The value is too high.
    #[default]
    No,
    /// The value is too low.
    Yes,
}

/// When there is stress. All comparisons are strict.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The first of `fields` that is not null is above `limit` (or below it).
    Threshold {
        /// Names, in the order of preference.
        fields: Vec<String>,
        /// Above is stress.
        limit: Limit,
        /// Above this it is not this rule's stress any more: another rule's.
        up_to: Option<Limit>,
        /// Hysteresis: the episode ends when the value is not above this; `None` = `limit`.
        clear: Option<Limit>,
        /// Whether low values are stress.
        below: Below,
    },
    /// One of the tests holds.
    Match {
        /// The tests.
        any: Vec<Test>,
    },
    /// A state changed from one of `from` to one of `to`.
    Edge {
        /// Names of the field with the state, in the order of preference.
        fields: Vec<String>,
        /// A field that has the state before; where it is null, the state that was seen last.
        previous: Option<String>,
        /// States before.
        from: Vec<Pattern>,
        /// States after.
        to: Vec<Pattern>,
        /// States that end the episode; empty = `from`.
        clear: Vec<Pattern>,
        /// Whether a state that was never seen counts as one of `from`.
        from_unknown: bool,
        /// Where one of these tests holds, the state before does not matter.
        or: Vec<Test>,
    },
    /// `part` is more than `limit` of the whole, which is the first of `whole` that is not null.
    Ratio {
        /// The field with the part.
        part: String,
        /// The field with the whole.
        whole: Vec<String>,
        /// 0.3 = 30 %.
        limit: f64,
        /// Hysteresis; `None` = `limit`.
        clear: Option<f64>,
    },
    /// More than `more_than` records within `span`, which slides: those of which `counted` holds.
    Rate {
        /// A threshold or a match; `None` = every record that the rule looks at.
        counted: Option<Box<Condition>>,
        /// The number that is still no stress, 1 to 255.
        more_than: u32,
        /// The length of the window: (now - span, now].
        span: Duration,
        /// Hysteresis: the episode ends when there are not more than this; `None` = `more_than`.
        clear: Option<u32>,
    },
    /// The value is more than `factor` times the quantile of all values before it.
    Baseline {
        /// Names, in the order of preference.
        fields: Vec<String>,
        /// 0.5 = the median. It is exact to a quarter: the upper end of one of four parts of an
        /// octave.
        quantile: f64,
        /// Times the quantile.
        factor: f64,
        /// Values that are needed first.
        samples: u32,
        /// Hysteresis; `None` = `factor`.
        clear: Option<f64>,
    },
}

/// What one firing stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Episode {
    /// The time from the first record of which the condition holds to the first of which it does
    /// not: one event at its begin, one at its end.
    #[default]
    Span,
    /// Each record is an episode of its own: one event, none at the end.
    Record,
}

/// A field of an event, and the field of the record that it is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Name in the event.
    pub name: String,
    /// Name in the record.
    pub field: String,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What the event is called: `[a-z0-9_]{1,64}`.
    pub name: String,
    /// The category whose records it looks at.
    pub category: String,
    /// Whether it is evaluated.
    pub on: bool,
    /// How bad it is.
    pub severity: Severity,
    /// Which records it looks at: all tests hold.
    pub tests: Vec<Test>,
    /// When there is stress.
    pub condition: Condition,
    /// A field whose values each have a state of their own, up to 16 of them at a time.
    pub key: Option<String>,
    /// What one firing stands for.
    pub episode: Episode,
    /// At most one episode per this time is told, after a rest `burst` at once; those that are not
    /// told are counted in the next one.
    pub cooldown: Duration,
    /// See `cooldown`.
    pub burst: u32,
    /// A sentence with `{value}`, `{limit}`, `{count}`, `{window}` or `{field}`.
    pub description: String,
    /// Further fields of the event.
    pub details: Vec<Detail>,
}

impl Rule {
    /// A rule with the default cool-down, without tests, key and details.
    pub fn new(name: &str, category: &str, condition: Condition) -> Self {
        Self {
            name: name.to_owned(),
            category: category.to_owned(),
            on: true,
            severity: Severity::default(),
            tests: Vec::new(),
            condition,
            key: None,
            episode: Episode::default(),
            cooldown: Duration::from_secs(1),
            burst: 60,
            description: String::new(),
            details: Vec::new(),
        }
    }
}

/// A set of rules. `default()` are the built-in ones.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    /// The rules; names are unique.
    pub rules: Vec<Rule>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_they_are_written() {
        let matches = |pattern: &str, text: &str| Pattern::new(pattern).matches(text);
        assert!(matches("open", "OPEN") && !matches("open", "opened"));
        assert!(matches("start_*", "start_x") && !matches("start_*", "restart_"));
        assert!(matches("*circuit_breaker*", "the Circuit_Breaker is open"));
        assert!(!matches("*circuit_breaker*", "breaker"));
        assert!(matches("*", "") && matches("**", "x"));
        assert!(!matches("start_\u{e4}", "start_\u{c4}"));
    }
}
