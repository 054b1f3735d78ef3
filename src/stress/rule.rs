//! Rules as they are declared, and their bounds.

use std::time::Duration;

use crate::error::shown;
use crate::record::is_category_name;

/// Rules of one set.
pub(super) const RULES_MAX: usize = 256;
/// Rules that look at one category.
pub(super) const CATEGORY_RULES_MAX: usize = 32;
/// Different fields that the rules of one category look at.
pub(super) const FIELDS_MAX: usize = 48;
/// Bytes of a name of a rule.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// Bytes of any other text of a rule.
pub(super) const TEXT_BYTES_MAX: usize = 256;
/// Texts of a list, tests of a rule, details of an event.
const LIST_MAX: usize = 16;
/// Details of an event.
pub(super) const DETAILS_MAX: usize = 8;
/// The most records per window that a rule can ask for.
const COUNT_MAX: u32 = 255;
/// Longest span, cool-down and limit: a year.
pub(super) const SPAN_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Records that a baseline can ask for before it judges.
const SAMPLES_MAX: u32 = 4096;

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

    fn text(&self) -> &str {
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
    pub fn not(mut self) -> Self {
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

/// A rule that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rule {}: {what}", shown(rule))]
pub struct RuleError {
    /// Its name.
    pub rule: String,
    /// What is wrong, and what it can be.
    pub what: String,
}

impl RuleSet {
    /// Checks every rule, and the set.
    ///
    /// # Errors
    /// The first rule that cannot be.
    pub fn validate(&self) -> Result<(), RuleError> {
        let wrong = |rule: &Rule, what: &str| RuleError {
            rule: rule.name.clone(),
            what: what.to_owned(),
        };
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|what| wrong(rule, &what))?;
            if index >= RULES_MAX {
                return Err(wrong(rule, "there can be at most 256 rules"));
            }
            if self.rules[..index].iter().any(|one| one.name == rule.name) {
                return Err(wrong(rule, "there is another one of this name"));
            }
        }
        Ok(())
    }
}

impl Rule {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        let say = |good: bool, what: &str| if good { Ok(()) } else { Err(what.to_owned()) };
        let name = is_category_name(&self.name) && self.name.len() <= NAME_BYTES_MAX;
        say(name, "a name has 1 to 64 characters of a-z, 0-9 and _")?;
        say(
            is_category_name(&self.category),
            "category: 1 to 64 characters of a-z, 0-9 and _",
        )?;
        let own = ["session", "stress"].contains(&self.category.as_str());
        say(
            !own,
            "category: records of session and stress have no rules",
        )?;
        say(self.cooldown <= SPAN_MAX, "cooldown: at most a year")?;
        say(self.burst >= 1, "burst: at least 1")?;
        say(
            self.description.len() <= TEXT_BYTES_MAX,
            "description: at most 256 bytes",
        )?;
        say(
            self.details.len() <= DETAILS_MAX,
            "details: at most 8 fields",
        )?;
        for detail in &self.details {
            say(
                is_field(&detail.name) && is_field(&detail.field),
                "details: a name has 1 to 64 bytes",
            )?;
        }
        check_tests(&self.tests)?;
        let key = self.key.as_deref().is_none_or(is_field);
        say(key, "key: a field has 1 to 64 bytes")?;
        let many = matches!(
            self.condition,
            Condition::Rate { .. } | Condition::Baseline { .. }
        );
        say(
            !(many && self.key.is_some()),
            "key: a rate or a baseline has one state for all",
        )?;
        let record = self.episode == Episode::Record;
        let kept = many || matches!(self.condition, Condition::Edge { .. });
        say(
            !(record && kept),
            "episode: only a threshold, a ratio or a match can fire for each record",
        )?;
        self.condition.check()
    }
}

fn is_field(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

fn check_tests(tests: &[Test]) -> Result<(), String> {
    let good = tests.len() <= LIST_MAX
        && tests
            .iter()
            .all(|test| is_field(&test.field) && check_patterns(&test.patterns));
    if good {
        Ok(())
    } else {
        Err("at most 16 tests of 16 texts of 256 bytes; a field has 1 to 64 bytes".to_owned())
    }
}

fn check_patterns(patterns: &[Pattern]) -> bool {
    patterns.len() <= LIST_MAX
        && patterns
            .iter()
            .all(|pattern| pattern.text().len() <= TEXT_BYTES_MAX)
}

fn check_fields(fields: &[String]) -> Result<(), String> {
    if (1..=LIST_MAX).contains(&fields.len()) && fields.iter().all(|name| is_field(name)) {
        Ok(())
    } else {
        Err("field: 1 to 16 names of 1 to 64 bytes".to_owned())
    }
}

impl Limit {
    fn check(self) -> bool {
        match self {
            Self::Time(time) => time <= SPAN_MAX,
            Self::Number(number) => number.is_finite(),
        }
    }

    fn same_kind(self, other: Self) -> bool {
        matches!(self, Self::Time(_)) == matches!(other, Self::Time(_))
    }
}

impl Condition {
    fn check(&self) -> Result<(), String> {
        let say = |good: bool, what: &str| if good { Ok(()) } else { Err(what.to_owned()) };
        match self {
            Self::Threshold {
                fields,
                limit,
                up_to,
                clear,
                ..
            } => {
                check_fields(fields)?;
                let others = [*up_to, *clear];
                let mut others = others.into_iter().flatten();
                say(
                    limit.check() && others.all(|one| one.check() && one.same_kind(*limit)),
                    "limits: all durations of at most a year, or all numbers",
                )
            }
            Self::Match { any } => {
                say(!any.is_empty(), "a match needs a test")?;
                check_tests(any)
            }
            Self::Edge {
                fields,
                previous,
                from,
                to,
                clear,
                or,
                ..
            } => {
                check_fields(fields)?;
                let previous = previous.as_deref().is_none_or(is_field);
                say(previous, "previous: a field has 1 to 64 bytes")?;
                let lists = [from, to, clear]
                    .into_iter()
                    .all(|list| check_patterns(list));
                say(lists, "from, to, clear: at most 16 texts of 256 bytes")?;
                say(!to.is_empty(), "to: at least one state")?;
                check_tests(or)
            }
            Self::Ratio {
                part,
                whole,
                limit,
                clear,
            } => {
                check_fields(whole)?;
                check_fields(std::slice::from_ref(part))?;
                let limits = limit.is_finite() && clear.is_none_or(f64::is_finite);
                say(limits, "limits: numbers, such as 0.3")
            }
            Self::Rate {
                counted,
                more_than,
                span,
                clear,
            } => {
                let number = (1..=COUNT_MAX).contains(more_than);
                say(number, "more_than: 1 to 255")?;
                let clear = clear.is_none_or(|clear| clear <= *more_than);
                say(clear, "clear: at most more_than")?;
                let span = !span.is_zero() && *span <= SPAN_MAX;
                say(span, "window: more than nothing, at most a year")?;
                match counted.as_deref() {
                    None => Ok(()),
                    Some(one @ (Self::Threshold { .. } | Self::Match { .. })) => one.check(),
                    Some(_) => Err("a rate counts a threshold or a match".to_owned()),
                }
            }
            Self::Baseline {
                fields,
                quantile,
                factor,
                samples,
                clear,
            } => {
                check_fields(fields)?;
                let good = (0.0..=1.0).contains(quantile)
                    && (1e-3..=1e6).contains(factor)
                    && clear.is_none_or(|clear| (0.0..=*factor).contains(&clear))
                    && (1..=SAMPLES_MAX).contains(samples);
                say(
                    good,
                    "quantile: 0 to 1; factor: 0.001 to 1000000; samples: 1 to 4096; clear: at \
                     most factor",
                )
            }
        }
    }
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

    #[test]
    fn rules_that_cannot_be_are_refused() {
        let rate = |more_than, span| Condition::Rate {
            counted: None,
            more_than,
            span: Duration::from_secs(span),
            clear: None,
        };
        let good = Rule::new("a", "vpn", rate(1, 60));
        good.check().unwrap();
        let wrong = [
            Rule {
                name: "A".to_owned(),
                ..good.clone()
            },
            Rule {
                category: "stress".to_owned(),
                ..good.clone()
            },
            Rule {
                burst: 0,
                ..good.clone()
            },
            Rule {
                key: Some("x".to_owned()),
                ..good.clone()
            },
            Rule {
                episode: Episode::Record,
                ..good.clone()
            },
            Rule {
                condition: rate(0, 60),
                ..good.clone()
            },
            Rule {
                condition: rate(256, 60),
                ..good.clone()
            },
            Rule {
                condition: rate(1, 0),
                ..good.clone()
            },
            Rule {
                condition: Condition::Match { any: Vec::new() },
                ..good.clone()
            },
        ];
        for rule in wrong {
            assert!(rule.check().is_err(), "{rule:?}");
        }
        let twice = RuleSet {
            rules: vec![good.clone(), good],
        };
        let error = twice.validate().unwrap_err().to_string();
        assert_eq!(error, "rule a: there is another one of this name");
    }
}
