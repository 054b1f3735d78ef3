//! Rules with names of fields as numbers, and their state.

use std::sync::Arc;

use super::cell::{Cell, Episodes};
use super::check::{CATEGORY_RULES_MAX, FIELDS_MAX, RuleError};
use super::history::{Baseline, Window};
use super::rule::{Below, Condition, Episode, Limit, Pattern, Rule, RuleSet, Test};
use super::state::{self, Budget, KEYS_MAX, Reading};
use super::value::{FieldValue, Unit, unit_of};

/// A field of a category, by its index in [`Category::fields`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldRef {
    pub(super) index: u8,
    pub(super) unit: Unit,
}

/// A test of a field.
#[derive(Clone, Debug)]
pub(super) struct FieldTest {
    pub(super) field: FieldRef,
    pub(super) patterns: Vec<Pattern>,
    pub(super) not: bool,
}

/// A condition that one record decides.
#[derive(Clone, Debug)]
pub(super) enum Level {
    Threshold {
        fields: Vec<FieldRef>,
        limit: Reading,
        up_to: Option<Reading>,
        clear: Reading,
        below: bool,
    },
    Match(Vec<FieldTest>),
    Ratio {
        part: FieldRef,
        whole: Vec<FieldRef>,
        limit: f64,
        clear: f64,
    },
}

/// A condition.
#[derive(Clone, Debug)]
pub(super) enum Check {
    Level(Level),
    Edge(Edge),
    Rate(Window, Option<Level>),
    Baseline(Baseline, Vec<FieldRef>, bool),
}

#[derive(Clone, Debug)]
pub(super) struct Edge {
    pub(super) fields: Vec<FieldRef>,
    pub(super) previous: Option<FieldRef>,
    pub(super) from: Vec<Pattern>,
    pub(super) to: Vec<Pattern>,
    pub(super) clear: Vec<Pattern>,
    pub(super) from_unknown: bool,
    pub(super) or: Vec<FieldTest>,
}

/// A rule with its state.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    pub(super) cleared_name: String,
    /// The span of a rate as a text.
    pub(super) window: String,
    pub(super) tests: Vec<FieldTest>,
    pub(super) check: Check,
    pub(super) key: Option<FieldRef>,
    pub(super) keys: usize,
    pub(super) budget: Budget,
    /// Fields of the details and of the description.
    pub(super) details: Vec<FieldRef>,
    pub(super) cell: Cell,
}

/// The rules of one category.
#[derive(Debug)]
pub(super) struct Category {
    pub(super) name: String,
    /// Fields that its rules look at.
    pub(super) fields: Vec<String>,
    /// Indexes of its rules.
    pub(super) rules: Vec<u16>,
}

/// Values of the fields of a category, by [`FieldRef`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    list: [FieldValue<'a>; FIELDS_MAX],
    /// Bits of the fields that were there, be it as null.
    seen: u64,
}

const _: () = assert!(FIELDS_MAX <= u64::BITS as usize);

impl<'a> Values<'a> {
    pub(super) fn new() -> Self {
        Self {
            list: [FieldValue::Null; FIELDS_MAX],
            seen: 0,
        }
    }

    /// Remembers a field, if a rule of the category looks at it. Of two the first counts, as in the
    /// line.
    pub(super) fn put(&mut self, category: &Category, name: &str, value: FieldValue<'a>) {
        let index = category.fields.iter().position(|field| field == name);
        if let Some(index) = index
            && let Some(found) = self.list.get_mut(index)
            && self.seen >> index & 1 == 0
        {
            self.seen |= 1 << index;
            *found = value;
        }
    }

    pub(super) fn get(&self, field: FieldRef) -> FieldValue<'a> {
        self.at(usize::from(field.index))
    }

    pub(super) fn at(&self, index: usize) -> FieldValue<'a> {
        self.list.get(index).copied().unwrap_or_default()
    }
}

impl Category {
    /// The number of a field, which is new or known.
    fn field(&mut self, name: &str) -> FieldRef {
        let known = self.fields.iter().position(|field| field == name);
        let index = known.unwrap_or_else(|| {
            self.fields.push(name.to_owned());
            self.fields.len() - 1
        });
        FieldRef {
            // Checked at the end of `compile`.
            index: index.min(255) as u8,
            unit: unit_of(name),
        }
    }

    fn fields(&mut self, names: &[String]) -> Vec<FieldRef> {
        names.iter().map(|name| self.field(name)).collect()
    }

    fn tests(&mut self, tests: &[Test]) -> Vec<FieldTest> {
        let tests = tests.iter().map(|test| FieldTest {
            field: self.field(&test.field),
            patterns: test.patterns.clone(),
            not: test.not,
        });
        tests.collect()
    }

    fn level(&mut self, condition: &Condition) -> Option<Level> {
        Some(match condition {
            Condition::Threshold {
                fields,
                limit,
                up_to,
                clear,
                below,
            } => Level::Threshold {
                fields: self.fields(fields),
                limit: reading(*limit),
                up_to: up_to.map(reading),
                clear: reading(clear.unwrap_or(*limit)),
                below: *below == Below::Yes,
            },
            Condition::Match { any } => Level::Match(self.tests(any)),
            Condition::Ratio {
                part,
                whole,
                limit,
                clear,
            } => Level::Ratio {
                part: self.field(part),
                whole: self.fields(whole),
                limit: *limit,
                clear: clear.unwrap_or(*limit),
            },
            _ => return None,
        })
    }

    fn check(&mut self, condition: &Condition) -> Option<Check> {
        Some(match condition {
            Condition::Edge {
                fields,
                previous,
                from,
                to,
                clear,
                from_unknown,
                or,
            } => {
                let clear = if clear.is_empty() { from } else { clear };
                Check::Edge(Edge {
                    fields: self.fields(fields),
                    previous: previous.as_ref().map(|name| self.field(name)),
                    from: from.clone(),
                    to: to.clone(),
                    clear: clear.clone(),
                    from_unknown: *from_unknown,
                    or: self.tests(or),
                })
            }
            Condition::Rate {
                counted,
                more_than,
                span,
                clear,
            } => {
                let window = Window {
                    limit: *more_than,
                    clear: clear.unwrap_or(*more_than),
                    span: ns_of(*span),
                };
                let counted = counted.as_ref().and_then(|condition| self.level(condition));
                Check::Rate(window, counted)
            }
            Condition::Baseline {
                fields,
                quantile,
                factor,
                samples,
                clear,
            } => {
                let is_time = fields.iter().any(|name| unit_of(name) != unit_of(""));
                let baseline = Baseline {
                    quantile: *quantile,
                    factor: *factor,
                    clear: clear.unwrap_or(*factor),
                    samples: *samples,
                };
                Check::Baseline(baseline, self.fields(fields), is_time)
            }
            level => Check::Level(self.level(level)?),
        })
    }

    fn compile(&mut self, rule: &Rule, episodes: &Arc<Episodes>) -> Option<Compiled> {
        let check = self.check(&rule.condition)?;
        let keys = match (&rule.key, rule.episode) {
            (Some(_), Episode::Span) => KEYS_MAX,
            _ => 1,
        };
        let more = match &check {
            Check::Rate(window, _) => window.words(),
            Check::Baseline(..) => Baseline::WORDS,
            Check::Level(_) | Check::Edge(_) => 0,
        };
        for name in placeholders(&rule.description) {
            self.field(name);
        }
        Some(Compiled {
            cleared_name: format!("{}_cleared", rule.name),
            window: window_text(&rule.condition),
            tests: self.tests(&rule.tests),
            check,
            key: rule.key.as_ref().map(|name| self.field(name)),
            keys,
            budget: Budget::new(ns_of(rule.cooldown), rule.burst),
            details: rule
                .details
                .iter()
                .map(|one| self.field(&one.field))
                .collect(),
            cell: Cell::new(state::words(keys, more), Arc::clone(episodes)),
            rule: rule.clone(),
        })
    }
}

/// `1m`, `90s`; empty where there is none.
fn window_text(condition: &Condition) -> String {
    let Condition::Rate { span, .. } = condition else {
        return String::new();
    };
    match (span.as_secs(), span.subsec_nanos()) {
        (seconds, 0) if seconds % 60 == 0 => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", span.as_secs_f64() * 1e3),
    }
}

/// Names in braces that are not values of the rule itself.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split('{').skip(1);
    let names = parts.filter_map(|part| part.split_once('}'));
    names
        .map(|(name, _)| name)
        .filter(|name| !["value", "limit", "count", "window"].contains(name) && !name.is_empty())
}

fn reading(limit: Limit) -> Reading {
    match limit {
        Limit::Time(time) => Reading::Time(ns_of(time)),
        Limit::Number(number) => Reading::Number(number),
    }
}

fn ns_of(time: std::time::Duration) -> u64 {
    time.as_nanos().min(u128::from(u64::MAX)) as u64
}

/// All rules that are on.
#[derive(Debug)]
pub(super) struct CompiledSet {
    pub(super) rules: Vec<Compiled>,
    pub(super) categories: Vec<Category>,
    /// Counts the episodes of all of them.
    pub(super) episodes: Arc<Episodes>,
}

pub(super) fn compile(set: &RuleSet) -> Result<CompiledSet, RuleError> {
    set.validate()?;
    let mut categories: Vec<Category> = Vec::new();
    let mut all = Vec::new();
    let episodes = Episodes::none();
    for rule in set.rules.iter().filter(|rule| rule.on) {
        let known = categories.iter().position(|one| one.name == rule.category);
        let index = known.unwrap_or_else(|| {
            categories.push(Category {
                name: rule.category.clone(),
                fields: Vec::new(),
                rules: Vec::new(),
            });
            categories.len() - 1
        });
        let category = &mut categories[index];
        let Some(compiled) = category.compile(rule, &episodes) else {
            continue;
        };
        category.rules.push(all.len() as u16);
        all.push(compiled);
        if category.rules.len() > CATEGORY_RULES_MAX || category.fields.len() > FIELDS_MAX {
            return Err(RuleError {
                rule: rule.name.clone(),
                what: format!(
                    "the rules of category {} are more than {CATEGORY_RULES_MAX}, or look at more \
                     than {FIELDS_MAX} fields",
                    category.name
                ),
            });
        }
    }
    Ok(CompiledSet {
        rules: all,
        categories,
        episodes,
    })
}
