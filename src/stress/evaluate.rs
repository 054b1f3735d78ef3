//! Evaluating rules: the same for a session and for what was recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cell::{Change, Episodes};
use super::check::{CATEGORY_RULES_MAX, RuleError};
use super::compile::{Category, Check, Compiled, Values, compile};
use super::event::StressEvent;
use super::rule::{Episode, RuleSet};
use super::state::{self, Reading, Told, Truth};
use super::value::FieldValue;

/// One record can make every rule of its category fire.
const FIRINGS_MAX: usize = CATEGORY_RULES_MAX;

/// A rule that fired.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Firing {
    pub(super) rule: u16,
    /// The number of the update of the rule's state.
    pub(super) sequence: u64,
    pub(super) told: Told,
    /// The limit, where that is not the one of the rule.
    pub(super) limit: Reading,
}

/// The rules that one record made fire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Firings {
    list: [Option<Firing>; FIRINGS_MAX],
    count: usize,
}

impl Firings {
    pub(crate) fn new() -> Self {
        Self {
            list: [None; FIRINGS_MAX],
            count: 0,
        }
    }

    fn push(&mut self, firing: Firing) {
        if let Some(place) = self.list.get_mut(self.count) {
            *place = Some(firing);
            self.count += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Firing> {
        self.list.iter().flatten()
    }
}

/// What one rule made of one record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Updates of the state, this one included.
    pub(super) sequence: u64,
    /// Whether it was one.
    pub(super) changed: bool,
    pub(super) told: Option<Told>,
    pub(super) limit: Reading,
}

/// Rules with their state.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(super) compiled: Vec<Compiled>,
    pub(super) categories: Vec<Category>,
    pub(super) episodes: Arc<Episodes>,
    /// Evaluations that were given up, because too many threads were in the middle of one.
    skipped: AtomicU64,
}

impl Rules {
    pub(crate) fn new(set: &RuleSet) -> Result<Self, RuleError> {
        let set = compile(set)?;
        Ok(Self {
            compiled: set.rules,
            categories: set.categories,
            episodes: set.episodes,
            skipped: AtomicU64::new(0),
        })
    }

    pub(super) fn category(&self, name: &str) -> Option<&Category> {
        self.categories.iter().find(|one| one.name == name)
    }

    /// Evaluations that were given up.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.load(Relaxed)
    }

    /// Evaluates the rules of a category at `now`.
    pub(super) fn evaluate(&self, category: &Category, values: &Values<'_>, now: u64) -> Firings {
        let mut firings = Firings::new();
        self.trace(category, values, now, |rule, step| {
            if let Some(told) = step.told {
                firings.push(Firing {
                    rule,
                    sequence: step.sequence,
                    told,
                    limit: step.limit,
                });
            }
        });
        firings
    }

    /// The same; `seen` hears of each rule that has looked at the record.
    pub(super) fn trace(
        &self,
        category: &Category,
        values: &Values<'_>,
        now: u64,
        mut seen: impl FnMut(u16, Step),
    ) {
        for rule in &category.rules {
            let Some(compiled) = self.compiled.get(usize::from(*rule)) else {
                continue;
            };
            match compiled.look(values, now) {
                Look::Nothing => {}
                Look::Step(step) => seen(*rule, step),
                Look::Skipped => {
                    self.skipped.fetch_add(1, Relaxed);
                }
            }
        }
    }
}

enum Look {
    Nothing,
    Step(Step),
    Skipped,
}

impl Look {
    /// A look that could not change anything.
    fn unchanged(sequence: u64) -> Self {
        Self::Step(Step {
            sequence,
            changed: false,
            told: None,
            limit: Reading::None,
        })
    }
}

impl Compiled {
    /// What the record means to the rule at `now`.
    fn look(&self, values: &Values<'_>, now: u64) -> Look {
        if !self.concerns(values) {
            return Look::Nothing;
        }
        match &self.check {
            Check::Level(level) => {
                let Some(truth) = level.truth(values) else {
                    return Look::Nothing;
                };
                let value = match truth {
                    Truth::Stress(value) => Some(value),
                    _ => None,
                };
                if self.rule.episode == Episode::Record {
                    return value.map_or(Look::Nothing, |value| self.record(value, now));
                }
                if value.is_none()
                    && let Some(sequence) = self.cell.quiet_version()
                {
                    return Look::unchanged(sequence);
                }
                let key = self.key_of(values);
                self.update(|words| {
                    let below = level.is_below();
                    state::span(words, self.keys, key, truth, now, self.budget, below)
                })
            }
            Check::Edge(edge) => {
                let Some(seen) = edge.seen(values) else {
                    return Look::Nothing;
                };
                let (key, unknown) = (self.key_of(values), edge.from_unknown);
                self.update(|words| {
                    state::edge(words, self.keys, key, seen, unknown, now, self.budget)
                })
            }
            Check::Rate(window, counted) => {
                let hit = match counted {
                    None => true,
                    Some(level) => matches!(level.truth(values), Some(Truth::Stress(_))),
                };
                if !hit && let Some(sequence) = self.cell.quiet_version() {
                    return Look::unchanged(sequence);
                }
                self.update(|words| state::rate(words, *window, hit, now, self.budget))
            }
            Check::Baseline(baseline, fields, is_time) => {
                let Some(value) = Self::baseline_value(fields, *is_time, values) else {
                    return Look::Nothing;
                };
                let updated = self
                    .cell
                    .update(|words| state::baseline(words, *baseline, value, now, self.budget));
                let Some((sequence, (told, limit))) = updated else {
                    return Look::Skipped;
                };
                Look::Step(Step {
                    sequence,
                    changed: true,
                    told,
                    limit,
                })
            }
        }
    }

    /// A record that fires by itself.
    fn record(&self, value: Reading, now: u64) -> Look {
        if self.is_stateless() {
            let told = Told::Begin {
                value,
                suppressed: 0,
            };
            return Look::Step(Step {
                sequence: 0,
                changed: false,
                told: Some(told),
                limit: Reading::None,
            });
        }
        self.update(|words| state::single(words, value, now, self.budget))
    }

    fn update(
        &self,
        mut change: impl FnMut(super::cell::Words<'_>) -> (Change, Option<Told>),
    ) -> Look {
        let updated = self.cell.update(|words| {
            let (change, told) = change(words);
            (change, (told, change != Change::Same))
        });
        match updated {
            None => Look::Skipped,
            Some((sequence, (told, changed))) => Look::Step(Step {
                sequence,
                changed,
                told,
                limit: Reading::None,
            }),
        }
    }
}

/// Evaluates rules over events that come from anywhere: recorded sessions, lines of old loggers.
/// Threads may share it.
#[derive(Debug)]
pub struct Evaluator {
    rules: Rules,
}

impl Evaluator {
    /// With every state as at the start of a session.
    ///
    /// # Errors
    /// A rule that cannot be.
    pub fn new(set: &RuleSet) -> Result<Self, RuleError> {
        Ok(Self {
            rules: Rules::new(set)?,
        })
    }

    /// Whether a rule looks at records of this category.
    pub fn concerns(&self, category: &str) -> bool {
        self.rules.category(category).is_some()
    }

    /// Names of the rules of which an episode goes on: it has begun, and nothing has ended it.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        let all = self.rules.compiled.iter();
        let open = all.filter(|compiled| compiled.cell.is_active());
        open.map(|compiled| compiled.rule.name.as_str())
    }

    /// Evaluates the rules of `category` for one record at `time_ns`, and calls `told` for each
    /// begin and end of an episode. Times should not go back; where they do, windows and durations
    /// are as if they did not.
    pub fn evaluate<'a>(
        &self,
        category: &str,
        time_ns: u64,
        fields: impl IntoIterator<Item = (&'a str, FieldValue<'a>)>,
        mut told: impl FnMut(&StressEvent<'_>),
    ) {
        let Some(category) = self.rules.category(category) else {
            return;
        };
        let mut values = Values::new();
        for (name, value) in fields {
            values.put(category, name, value);
        }
        let firings = self.rules.evaluate(category, &values, time_ns);
        for firing in firings.iter() {
            if let Some(event) = StressEvent::new(&self.rules, category, &values, firing) {
                told(&event);
            }
        }
    }
}
