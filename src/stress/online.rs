//! Rules in a session: names as symbols, times from the counter, plans per schema.

use super::check::RuleError;
use super::compile::{Category, Values};
use super::evaluate::{Firings, Rules};
use super::event::StressEvent;
use super::plan::Plans;
use super::rule::{RuleSet, Severity};
use super::settings::StressSettings;
use super::value::FieldValue;
use crate::error::Error;
use crate::record::{Extra, FieldDef, Name, Record, SchemaDef, Symbol, Value, WHOLE};

/// The rules of a session.
#[derive(Debug)]
pub(crate) struct Online {
    rules: Rules,
    plans: Plans,
    start_ticks: u64,
    ns_per_tick: f64,
}

/// What the rules make of one record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked<'a> {
    online: &'a Online,
    category: &'a Category,
    values: Values<'a>,
    firings: Firings,
}

impl Online {
    /// The rules that the settings ask for, if any; see [`new`](Self::new).
    pub(crate) fn of(
        settings: &StressSettings,
        start_ticks: u64,
        ticks_per_second: u64,
    ) -> Result<Option<Box<Self>>, Error> {
        let Some(set) = settings.rules()? else {
            return Ok(None);
        };
        let rules = Self::new(&set, start_ticks, ticks_per_second);
        rules
            .map(|rules| Some(Box::new(rules)))
            .map_err(|error| settings.refuse(&error))
    }

    /// The rules of `set`, in a session whose counter stood at `start_ticks` when it began.
    pub(crate) fn new(
        set: &RuleSet,
        start_ticks: u64,
        ticks_per_second: u64,
    ) -> Result<Self, RuleError> {
        let rules = Rules::new(set)?;
        // Names of events get their numbers here, so that a push does not have to allocate.
        for compiled in &rules.compiled {
            for name in [&compiled.rule.name, &compiled.cleared_name] {
                Symbol::intern(name);
            }
        }
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            Symbol::intern(severity.name());
        }
        Ok(Self {
            rules,
            plans: Plans::new(),
            start_ticks,
            ns_per_tick: 1e9 / ticks_per_second.max(1) as f64,
        })
    }

    /// Makes the plan of a schema, before its gate opens.
    pub(crate) fn prepare(&self, schema: u16, def: &'static SchemaDef) {
        self.plans.prepare(&self.rules, schema, def);
    }

    /// Whether rules look at records of the schema.
    pub(crate) fn concerns(&self, schema: u16) -> bool {
        self.plans.concerns(schema)
    }

    /// Whether a rule can fire on a record with this fixed part, or an episode can end. Changes no
    /// state: it may be asked twice.
    #[inline(never)]
    pub(crate) fn may_fire(&self, schema: u16, fixed: &[u8], has_extras: bool) -> bool {
        self.plans.may_fire(&self.rules, schema, fixed, has_extras)
    }

    /// As [`may_fire`](Self::may_fire), of a record whose first duration is `ns` (0 for none), if
    /// that is all that the plan of the schema compares.
    #[inline(never)]
    pub(crate) fn may_fire_timed(&self, schema: u16, ns: u64, has_extras: bool) -> Option<bool> {
        self.plans
            .may_fire_timed(&self.rules, schema, ns, has_extras)
    }

    /// Evaluations that were given up.
    pub(crate) fn skipped(&self) -> u64 {
        self.rules.skipped()
    }

    /// Evaluates the rules for a record that is offered at `ticks`. `None`: there are none.
    pub(crate) fn look<'a, R: Record>(
        &'a self,
        record: &'a R,
        extras: [&'a [Extra<'a>]; 2],
        ticks: u64,
    ) -> Option<Looked<'a>> {
        let schema = record.schema();
        let category = self.rules.category(schema.category)?;
        let mut values = Values::new();
        let fixed = record.fixed(WHOLE);
        let fixed = bytemuck::bytes_of(&fixed);
        let mut fields = schema.fields.iter();
        record.visit(&mut |extra| {
            let duration = fields.next().and_then(|field| duration(field, fixed));
            let value = duration.unwrap_or_else(|| value_of(extra.value));
            values.put(category, extra.key.text(), value);
        });
        for extra in extras.into_iter().flatten() {
            values.put(category, extra.key.text(), value_of(extra.value));
        }
        let elapsed = ticks.saturating_sub(self.start_ticks);
        let now = (elapsed as f64 * self.ns_per_tick) as u64;
        let firings = self.rules.evaluate(category, &values, now);
        Some(Looked {
            online: self,
            category,
            values,
            firings,
        })
    }
}

/// The exact duration in the slot of a field, if it has one.
fn duration(field: &FieldDef, fixed: &[u8]) -> Option<FieldValue<'static>> {
    if !field.field_type.kind.is_duration() {
        return None;
    }
    let slot = fixed.get(usize::from(field.offset)..)?.first_chunk()?;
    Some(match u64::from_le_bytes(*slot) {
        u64::MAX => FieldValue::Null,
        ns => FieldValue::Duration(ns),
    })
}

fn value_of(value: Value<'_>) -> FieldValue<'_> {
    match value {
        Value::Null | Value::Json(_) => FieldValue::Null,
        Value::Bool(flag) => FieldValue::Bool(flag),
        Value::I64(value) => FieldValue::I64(value),
        Value::U64(value) => FieldValue::U64(value),
        Value::F64(value) => FieldValue::F64(value),
        Value::Text(text) => FieldValue::Text(text),
        Value::Number(text) => FieldValue::Number(text),
    }
}

impl<'a> From<FieldValue<'a>> for Value<'a> {
    fn from(value: FieldValue<'a>) -> Self {
        match value {
            FieldValue::Null => Self::Null,
            FieldValue::Bool(flag) => Self::Bool(flag),
            FieldValue::I64(value) => Self::I64(value),
            FieldValue::U64(value) => Self::U64(value),
            FieldValue::F64(value) => Self::F64(value),
            FieldValue::Text(text) => Self::Text(text),
            FieldValue::Number(text) => Self::Number(text),
            FieldValue::Duration(ns) => Self::F64(ns as f64 / 1e6),
        }
    }
}

impl Looked<'_> {
    /// Whether no rule fired.
    pub(crate) fn is_quiet(&self) -> bool {
        self.firings.is_empty()
    }

    /// Calls `told` for each rule that fired.
    pub(crate) fn each(&self, mut told: impl FnMut(&StressEvent<'_>)) {
        for firing in self.firings.iter() {
            let rules = &self.online.rules;
            let event = StressEvent::new(rules, self.category, &self.values, firing);
            if let Some(event) = event {
                told(&event);
            }
        }
    }
}

/// A text as a symbol, if the process has it as one.
pub(crate) fn name_of(text: &str) -> Name<'_> {
    Symbol::known(text).map_or(Name::Text(text), Name::Symbol)
}
