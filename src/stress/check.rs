//! Bounds of rules.

use std::time::Duration;

use super::history::SAMPLES_MAX;
use super::rule::{Below, Condition, Episode, Limit, Pattern, Rule, RuleSet, Test};
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
pub(super) const LIST_MAX: usize = 16;
/// Details of an event.
pub(super) const DETAILS_MAX: usize = 8;
/// The most records per window that a rule can ask for.
pub(super) const COUNT_MAX: u32 = 255;
/// Longest span, cool-down and limit: a year.
pub(super) const SPAN_MAX: Duration = Duration::from_secs(366 * 86_400);

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

    /// For comparisons with one of the same kind.
    fn value(self) -> (Duration, f64) {
        match self {
            Self::Time(time) => (time, 0.0),
            Self::Number(number) => (Duration::ZERO, number),
        }
    }

    fn same_kind(self, other: Self) -> bool {
        matches!(self, Self::Time(_)) == matches!(other, Self::Time(_))
    }
}

fn check_limits(
    limit: Limit,
    up_to: Option<Limit>,
    clear: Option<Limit>,
    is_low: bool,
) -> Result<(), String> {
    let say = |good: bool, what: &str| if good { Ok(()) } else { Err(what.to_owned()) };
    let mut others = [up_to, clear].into_iter().flatten();
    say(
        limit.check() && others.all(|one| one.check() && one.same_kind(limit)),
        "limits: all durations of at most a year, or all numbers",
    )?;
    let clears = clear.is_none_or(|clear| {
        if is_low {
            clear.value() >= limit.value()
        } else {
            clear.value() <= limit.value()
        }
    });
    say(
        clears,
        "clear: not above the limit; with below, not below it",
    )?;
    let ends = up_to.is_none_or(|end| !is_low && end.value() > limit.value());
    say(ends, "up_to: above the limit, and not with below")
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
                below,
            } => {
                check_fields(fields)?;
                check_limits(*limit, *up_to, *clear, *below == Below::Yes)
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
                from_unknown,
            } => {
                check_fields(fields)?;
                let previous = previous.as_deref().is_none_or(is_field);
                say(previous, "previous: a field has 1 to 64 bytes")?;
                let lists = [from, to, clear]
                    .into_iter()
                    .all(|list| check_patterns(list));
                say(lists, "from, to, clear: at most 16 texts of 256 bytes")?;
                say(!to.is_empty(), "to: at least one state")?;
                let begins = !from.is_empty() || *from_unknown || !or.is_empty();
                say(
                    begins,
                    "from: at least one state; or from_unknown, or a test in or",
                )?;
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
                say(limits, "limits: numbers, such as 0.3")?;
                say(
                    clear.is_none_or(|clear| clear <= *limit),
                    "clear: at most above",
                )
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
                    "quantile: 0 to 1; factor: 0.001 to 1000000; samples: 1 to 3968; clear: at \
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
    #[test]
    fn limits_that_cannot_fire_or_end_are_refused() {
        let good = Rule::new("a", "vpn", Condition::Match { any: Vec::new() });
        let above = |up_to, clear, below| Rule {
            condition: Condition::Threshold {
                fields: vec!["level".to_owned()],
                limit: Limit::Number(2.0),
                up_to,
                clear,
                below,
            },
            ..good.clone()
        };
        let edge = |from: &[Pattern], from_unknown| Rule {
            condition: Condition::Edge {
                fields: vec!["state".to_owned()],
                previous: None,
                from: from.to_vec(),
                to: vec![Pattern::new("down")],
                clear: Vec::new(),
                from_unknown,
                or: Vec::new(),
            },
            ..good.clone()
        };
        let ratio = |clear| Rule {
            condition: Condition::Ratio {
                part: "part".to_owned(),
                whole: vec!["whole".to_owned()],
                limit: 0.3,
                clear: Some(clear),
            },
            ..good.clone()
        };
        let number = |number| Some(Limit::Number(number));
        for (rule, wrong) in [
            (above(number(3.0), number(2.0), Below::No), ""),
            (above(number(2.0), None, Below::No), "up_to: above"),
            (above(number(3.0), None, Below::Yes), "up_to: above"),
            (above(None, number(2.5), Below::No), "clear: not above"),
            (above(None, number(2.5), Below::Yes), ""),
            (above(None, number(1.5), Below::Yes), "clear: not above"),
            (edge(&[Pattern::new("up")], false), ""),
            (edge(&[], true), ""),
            (edge(&[], false), "from: at least one state"),
            (ratio(0.3), ""),
            (ratio(0.4), "clear: at most above"),
        ] {
            let said = rule.check().err().unwrap_or_default();
            assert_eq!(said.is_empty(), wrong.is_empty(), "{rule:?}: {said}");
            assert!(said.starts_with(wrong), "{said}");
        }
    }
}
