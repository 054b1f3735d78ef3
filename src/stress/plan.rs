//! What a push looks at before it evaluates rules: a few comparisons of values in the fixed part of
//! the record, which say that no rule can fire on it.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::compile::{Category, Check, Compiled, Level};
use super::evaluate::Rules;
use super::rule::{Condition, Pattern, Test};
use super::state::Reading;
use crate::record::{FieldDef, FieldKind, SCHEMAS_MAX, SchemaDef};

/// Schemas of one session that can have a plan; further ones evaluate every record.
const PLANS_MAX: usize = 64;
/// Comparisons of one plan; a schema that needs more evaluates every record.
const CHECKS_MAX: usize = 8;
/// One word, and two for each comparison.
const PLAN_WORDS: usize = 1 + 2 * CHECKS_MAX;

/// No rule looks at records of the schema.
const NO_RULES: u8 = 0;
/// Every record is evaluated.
const EVERY: u8 = u8::MAX;

/// Bit of the first word of a plan: a record with extra fields is evaluated.
const EXTRAS: u64 = 1 << 8;
/// All that is compared is whether the first duration of the record is above limits.
const TIMED: u64 = 1 << 9;

/// Plans of the schemas of one session, in memory that is there from the start.
#[derive(Debug)]
pub(super) struct Plans {
    /// [`NO_RULES`], [`EVERY`], or the number of a plan from 1 on.
    by_schema: Box<[AtomicU8]>,
    next: AtomicU32,
    words: Box<[[AtomicU64; PLAN_WORDS]]>,
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Compare {
    kind: FieldKind,
    optional: bool,
    below: bool,
    offset: u16,
    rule: u16,
    limit: u64,
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
        let plan = |_| [const { AtomicU64::new(0) }; PLAN_WORDS];
        Self {
            by_schema: (0..SCHEMAS_MAX).map(|_| AtomicU8::new(NO_RULES)).collect(),
            next: AtomicU32::new(0),
            words: (0..PLANS_MAX).map(plan).collect(),
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
        let Some([first, words @ ..]) = self.words_of(number) else {
            return;
        };
        let mut flags = if plan.extras { EXTRAS } else { 0 };
        let mut durations = def
            .fields
            .iter()
            .filter(|field| field.field_type.kind.is_duration());
        let duration = durations.next().map(|field| field.offset);
        let timed =
            |one: &Compare| one.kind.is_duration() && !one.below && Some(one.offset) == duration;
        if plan.compares.iter().all(timed) {
            flags |= TIMED;
        }
        for (compare, pair) in plan.compares.iter().zip(words.chunks_exact(2)) {
            pair[0].store(compare.word(), Relaxed);
            pair[1].store(compare.limit, Relaxed);
        }
        first.store(plan.compares.len() as u64 | flags, Relaxed);
    }

    #[inline(always)]
    fn words_of(&self, number: u8) -> Option<&[AtomicU64; PLAN_WORDS]> {
        self.words.get(usize::from(number).wrapping_sub(1))
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
        rules: &[Compiled],
        schema: u16,
        fixed: &[u8],
        has_extras: bool,
    ) -> bool {
        let number = self.number(schema);
        let Some([first, words @ ..]) = self.words_of(number) else {
            return number == EVERY;
        };
        let first = first.load(Relaxed);
        let fires = |pair: &[AtomicU64]| {
            let (word, limit) = (pair[0].load(Relaxed), pair[1].load(Relaxed));
            goes_on(rules, word) || holds(fixed, word, limit)
        };
        (has_extras && first & EXTRAS != 0) || compares(first, words).any(fires)
    }

    /// The same for a plan that compares the first duration of the record, `ns`, and nothing else;
    /// `None` for any other.
    #[inline(always)]
    pub(super) fn may_fire_timed(
        &self,
        rules: &[Compiled],
        schema: u16,
        ns: u64,
        has_extras: bool,
    ) -> Option<bool> {
        let [first, words @ ..] = self.words_of(self.number(schema))?;
        let first = first.load(Relaxed);
        if first & TIMED == 0 {
            return None;
        }
        let fires = |pair: &[AtomicU64]| {
            ns > pair[1].load(Relaxed) || goes_on(rules, pair[0].load(Relaxed))
        };
        Some((has_extras && first & EXTRAS != 0) || compares(first, words).any(fires))
    }
}

/// The comparisons of a plan, two words each.
#[inline(always)]
fn compares(first: u64, words: &[AtomicU64]) -> impl Iterator<Item = &[AtomicU64]> {
    let count = (first as usize & 0xff).min(CHECKS_MAX);
    words[..2 * count].chunks_exact(2)
}

/// Whether the rule of a comparison has an episode, which any record can end.
#[inline(always)]
fn goes_on(rules: &[Compiled], word: u64) -> bool {
    let rule = (word >> 16) as u16;
    rules
        .get(usize::from(rule))
        .is_none_or(|rule| rule.cell.is_active())
}

/// Whether a comparison holds.
#[inline(always)]
fn holds(fixed: &[u8], word: u64, limit: u64) -> bool {
    let offset = usize::from(word as u16);
    let below = word >> 41 & 1 != 0;
    let kind = (word >> 32) as u8;
    if kind == FieldKind::DurationMs as u8 {
        let slot = fixed.get(offset..).and_then(<[u8]>::first_chunk);
        let ns = slot.map_or(u64::MAX, |slot| u64::from_le_bytes(*slot));
        // The greatest value is null.
        return ns != u64::MAX && if below { ns < limit } else { ns > limit };
    }
    let optional = word >> 40 & 1 != 0;
    let Some(number) = number(fixed, offset, kind, optional) else {
        return false;
    };
    let limit = f64::from_bits(limit);
    if kind == FieldKind::Bool as u8 {
        // Both are 0 or 1.
        (number > 0.5) == (limit > 0.5)
    } else if below {
        number < limit
    } else {
        number > limit
    }
}

impl Compare {
    fn word(self) -> u64 {
        u64::from(self.offset)
            | u64::from(self.rule) << 16
            | (self.kind as u64) << 32
            | u64::from(self.optional) << 40
            | u64::from(self.below) << 41
    }
}

/// The number in a slot; `None` for null.
#[inline]
fn number(fixed: &[u8], offset: usize, kind: u8, optional: bool) -> Option<f64> {
    let kind = FieldKind::from_u8(kind)?;
    let mut slot = fixed.get(offset..)?;
    if kind.is_integer() && optional {
        let (present, rest) = slot.split_first()?;
        if *present == 0 {
            return None;
        }
        slot = rest;
    }
    Some(match kind {
        FieldKind::U8 | FieldKind::Bool => f64::from(*slot.first()?),
        FieldKind::U16 => f64::from(u16::from_le_bytes(*slot.first_chunk()?)),
        FieldKind::U32 => f64::from(u32::from_le_bytes(*slot.first_chunk()?)),
        FieldKind::U64 => u64::from_le_bytes(*slot.first_chunk()?) as f64,
        FieldKind::I8 => f64::from(i8::from_le_bytes(*slot.first_chunk()?)),
        FieldKind::I16 => f64::from(i16::from_le_bytes(*slot.first_chunk()?)),
        FieldKind::I32 => f64::from(i32::from_le_bytes(*slot.first_chunk()?)),
        FieldKind::I64 => i64::from_le_bytes(*slot.first_chunk()?) as f64,
        FieldKind::F32 => f64::from(f32::from_le_bytes(*slot.first_chunk()?)),
        FieldKind::F64 => f64::from_le_bytes(*slot.first_chunk()?),
        _ => return None,
    })
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

impl Compare {
    fn of_limit(rule: u16, field: &FieldDef, limit: Reading, below: bool) -> Option<Self> {
        let kind = field.field_type.kind;
        let limit = match limit {
            Reading::Time(ns) if kind.is_duration() => ns,
            Reading::Number(number)
                if kind.is_integer() || matches!(kind, FieldKind::F32 | FieldKind::F64) =>
            {
                number.to_bits()
            }
            _ => return None,
        };
        Some(Self::new(rule, field, limit, below))
    }

    /// A bool that is to be one of both.
    fn of_test(rule: u16, field: &FieldDef, test: &Test) -> Option<Self> {
        let wanted = match test.patterns.as_slice() {
            [Pattern::Is(flag)] if flag == "true" => 1.0_f64,
            [Pattern::Is(flag)] if flag == "false" => 0.0,
            _ => return None,
        };
        let is_bool = field.field_type.kind == FieldKind::Bool;
        is_bool.then(|| Self::new(rule, field, wanted.to_bits(), false))
    }

    fn new(rule: u16, field: &FieldDef, limit: u64, below: bool) -> Self {
        Self {
            kind: field.field_type.kind,
            optional: field.field_type.optional,
            below,
            offset: field.offset,
            rule,
            limit,
        }
    }
}
