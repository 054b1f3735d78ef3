//! What a push looks at before it evaluates rules: a few comparisons of values in the fixed part of
//! the record, which say that no rule can fire on it.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::compare::Compare;
use super::compile::{Category, Check, Level};
use super::evaluate::Rules;
use super::rule::{Condition, Test};
use crate::record::{SCHEMAS_MAX, SchemaDef};

/// Schemas of one session that can have a plan; further ones evaluate every record.
const PLANS_MAX: usize = 64;
/// Comparisons of one plan; a schema that needs more evaluates every record.
const CHECKS_MAX: usize = 8;
/// No rule looks at records of the schema.
const NO_RULES: u8 = 0;
/// Every record is evaluated.
const EVERY: u8 = u8::MAX;

/// Bit of the head of a plan: a record with extra fields is evaluated.
const EXTRAS: u64 = 1 << 8;
/// All that is compared is whether the first duration of the record is above limits.
const TIMED: u64 = 1 << 9;
/// A comparison is not a plain one.
const SPECIAL: u64 = 1 << 10;

/// Plans of the schemas of one session, in memory that is there from the start.
#[derive(Debug)]
pub(super) struct Plans {
    /// [`NO_RULES`], [`EVERY`], or the number of a plan from 1 on.
    by_schema: Box<[AtomicU8; SCHEMAS_MAX]>,
    next: AtomicU32,
    stored: Box<[Stored; PLANS_MAX]>,
}

/// A plan that pushes read; head and two comparisons lie on one cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Stored {
    /// The number of comparisons, and flags.
    head: AtomicU64,
    /// The words of [`Compare`].
    compares: [[AtomicU64; 3]; CHECKS_MAX],
}

/// What is to be compared of a schema.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    compares: Vec<Compare>,
    extras: bool,
    every: bool,
}

impl Plans {
    pub(super) fn new() -> Self {
        Self {
            by_schema: Box::new([const { AtomicU8::new(NO_RULES) }; SCHEMAS_MAX]),
            next: AtomicU32::new(0),
            stored: Box::new(std::array::from_fn(|_| Stored::default())),
        }
    }

    /// Makes the plan of a schema, before its gate opens: the orders of the gate are those of the
    /// plan. Threads that do it at the same time write the same words to the same place, so each
    /// may open the gate.
    #[cold]
    pub(super) fn prepare(&self, rules: &Rules, schema: u16, def: &'static SchemaDef) {
        let category = rules.category(def.category);
        let place = self.by_schema.get(usize::from(schema));
        let (Some(category), Some(place)) = (category, place) else {
            return;
        };
        let plan = plan(rules, category, def);
        if plan.compares.is_empty() && !plan.extras && !plan.every {
            return;
        }
        let number = if plan.every || plan.compares.len() > CHECKS_MAX {
            EVERY
        } else {
            self.free_number()
        };
        let number = match place.compare_exchange(NO_RULES, number, Relaxed, Relaxed) {
            Ok(_) => number,
            Err(first) => first,
        };
        if number != EVERY {
            self.store(&plan, def, number);
        }
    }

    /// The number of a plan that nobody has; two threads that race on one schema waste one.
    fn free_number(&self) -> u8 {
        let taken = self.next.fetch_update(Relaxed, Relaxed, |next| {
            (next < PLANS_MAX as u32).then_some(next + 1)
        });
        taken.map_or(EVERY, |index| index as u8 + 1)
    }

    fn store(&self, plan: &Plan, def: &SchemaDef, number: u8) {
        let Some(stored) = self.stored(number) else {
            return;
        };
        let mut flags = if plan.extras { EXTRAS } else { 0 };
        let mut durations = def
            .fields
            .iter()
            .filter(|field| field.field_type.kind.is_duration());
        let duration = durations.next().map(|field| field.offset);
        let timed = |one: &Compare| one.is_long_duration() && Some(one.start()) == duration;
        if plan.compares.iter().all(timed) {
            flags |= TIMED;
        }
        if !plan.compares.iter().all(|one| one.is_plain()) {
            flags |= SPECIAL;
        }
        for (compare, words) in plan.compares.iter().zip(&stored.compares) {
            words[0].store(compare.word, Relaxed);
            words[1].store(compare.first, Relaxed);
            words[2].store(compare.span, Relaxed);
        }
        let head = plan.compares.len() as u64 | flags;
        stored.head.store(head, Relaxed);
    }

    #[inline(always)]
    fn stored(&self, number: u8) -> Option<&Stored> {
        self.stored.get(usize::from(number).wrapping_sub(1))
    }

    /// The number of the plan of a schema.
    #[inline(always)]
    fn number(&self, schema: u16) -> u8 {
        let number = self.by_schema.get(usize::from(schema));
        number.map_or(NO_RULES, |number| number.load(Relaxed))
    }

    /// Whether rules look at records of the schema.
    pub(super) fn concerns(&self, schema: u16) -> bool {
        self.number(schema) != NO_RULES
    }

    /// Whether a rule can fire on a record with this fixed part, or an episode can end.
    #[inline(always)]
    pub(super) fn may_fire(
        &self,
        rules: &Rules,
        schema: u16,
        fixed: &[u8],
        has_extras: bool,
    ) -> bool {
        let number = self.number(schema);
        let Some(stored) = self.stored(number) else {
            return number == EVERY;
        };
        let head = stored.head.load(Relaxed);
        if head & SPECIAL != 0 || rules.episodes.any() {
            return stored.fires(head, rules, fixed, has_extras);
        }
        (has_extras && head & EXTRAS != 0)
            || stored
                .compares(head)
                .any(|compare| compare.plain_holds(fixed))
    }

    /// The same for a plan that compares the first duration of the record, `ns`, and nothing else;
    /// `None` for any other.
    #[inline(always)]
    pub(super) fn may_fire_timed(
        &self,
        rules: &Rules,
        schema: u16,
        ns: u64,
        has_extras: bool,
    ) -> Option<bool> {
        let stored = self.stored(self.number(schema))?;
        let head = stored.head.load(Relaxed);
        if head & TIMED == 0 {
            return None;
        }
        let fires = (has_extras && head & EXTRAS != 0)
            || (rules.episodes.any() && stored.goes_on(head, rules))
            || stored.compares(head).any(|compare| compare.has(ns));
        Some(fires)
    }
}

impl Stored {
    #[inline(always)]
    fn compares(&self, head: u64) -> impl Iterator<Item = Compare> {
        let count = (head as usize & 0xff).min(CHECKS_MAX);
        self.compares[..count].iter().map(|words| Compare {
            word: words[0].load(Relaxed),
            first: words[1].load(Relaxed),
            span: words[2].load(Relaxed),
        })
    }

    /// As [`Plans::may_fire`], whatever the comparisons are and the rules have.
    #[inline(never)]
    fn fires(&self, head: u64, rules: &Rules, fixed: &[u8], has_extras: bool) -> bool {
        (has_extras && head & EXTRAS != 0)
            || self.goes_on(head, rules)
            || self.compares(head).any(|compare| compare.holds(fixed))
    }

    /// Whether the rule of a comparison has an episode, which any record can end.
    #[cold]
    #[inline(never)]
    fn goes_on(&self, head: u64, rules: &Rules) -> bool {
        self.compares(head).any(|compare| {
            let rule = rules.compiled.get(usize::from(compare.rule()));
            rule.is_none_or(|rule| rule.cell.is_active())
        })
    }
}

/// What has to be compared so that no rule of the category fires unseen.
fn plan(rules: &Rules, category: &Category, def: &'static SchemaDef) -> Plan {
    let mut plan = Plan::default();
    for index in &category.rules {
        let Some(compiled) = rules.compiled.get(usize::from(*index)) else {
            continue;
        };
        let condition = match &compiled.rule.condition {
            Condition::Rate { counted, .. } => counted.as_deref(),
            condition => Some(condition),
        };
        let level = match &compiled.check {
            Check::Level(level) | Check::Rate(_, Some(level)) => Some(level),
            Check::Edge(_) | Check::Baseline(..) | Check::Rate(_, None) => None,
        };
        let Some(condition) = condition else {
            plan.every = true;
            continue;
        };
        plan.add(*index, condition, level, def);
    }
    plan
}

impl Plan {
    fn add(
        &mut self,
        rule: u16,
        condition: &Condition,
        level: Option<&Level>,
        def: &'static SchemaDef,
    ) {
        let find = |name: &str| def.fields.iter().find(|field| field.name == name);
        let names: Vec<&str> = match condition {
            Condition::Threshold { fields, .. }
            | Condition::Edge { fields, .. }
            | Condition::Baseline { fields, .. } => fields.iter().map(String::as_str).collect(),
            Condition::Ratio { part, .. } => vec![part],
            Condition::Match { any } => return self.add_match(rule, any, def),
            Condition::Rate { .. } => Vec::new(),
        };
        // What is in no field of the schema can be an extra field.
        self.extras |= names.iter().any(|name| find(name).is_none());
        for field in names.iter().filter_map(|name| find(name)) {
            self.push(match level {
                Some(Level::Threshold { limit, below, .. }) => {
                    Compare::of_limit(rule, field, *limit, *below)
                }
                _ => None,
            });
        }
    }

    fn add_match(&mut self, rule: u16, any: &[Test], def: &'static SchemaDef) {
        for test in any {
            let field = def.fields.iter().find(|field| field.name == test.field);
            match field {
                // An absent field makes such a test hold.
                _ if test.not => self.every = true,
                Some(field) => self.push(Compare::of_test(rule, field, test)),
                None => self.extras = true,
            }
        }
    }

    /// Remembers a comparison; without one every record is evaluated.
    fn push(&mut self, compare: Option<Compare>) {
        match compare {
            Some(compare) => self.compares.push(compare),
            None => self.every = true,
        }
    }
}
