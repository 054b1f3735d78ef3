//! What rendering needs to know beforehand: one compiled plan per schema, symbols as JSON text.
//!
//! A plan holds the constant text between two values (names escaped, collisions resolved), so
//! that rendering a field is one copy and the value. Plans are compiled when the first record of
//! their schema is met: a file may declare more schemas than it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::buffer::{Fragment, LineBuffer};
use super::json::{put_escaped, put_string};
use crate::record::{CATEGORIES_MAX, FieldKind, FieldType};
use crate::redact::Redactor;
use crate::segment::clock::ClockMap;
use crate::segment::registry::{Registry, Schema};

/// Names that a field cannot have.
const RESERVED: [&[u8]; 4] = [
    b"session_id",
    b"timestamp",
    b"elapsed_seconds",
    b"sample_weight",
];
/// Reserved in records with the flag CUT.
const RESERVED_CUT: &[u8] = b"truncated";
/// The category of the session itself.
pub(super) const SESSION: &str = "session";
/// What is put before a name that is taken.
const PREFIX: &[u8] = b"field_";
/// How often it is put there at most.
const PREFIXES_MAX: usize = 8;

/// One field of a plan.
#[derive(Debug)]
pub(super) struct Step {
    /// What to do.
    pub value: StepValue,
    /// `,"name":`, and the quote of texts.
    pub name: Fragment,
}

/// The value of a field: how it is read, and how it is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum StepValue {
    U8,
    U16,
    U32,
    U64,
    I64,
    F64,
    Bool,
    Symbol,
    ShortText,
    Text,
    /// With so many decimals; may be absent.
    DurationMs(u8),
    /// One of the others, one that may be absent, or a secret by its name.
    Any {
        field: FieldType,
        secret: bool,
    },
}

impl StepValue {
    fn new(field: FieldType, secret: bool) -> Self {
        if secret || (field.optional && field.kind != FieldKind::DurationMs) {
            return Self::Any { field, secret };
        }
        match field.kind {
            FieldKind::U8 => Self::U8,
            FieldKind::U16 => Self::U16,
            FieldKind::U32 => Self::U32,
            FieldKind::U64 => Self::U64,
            FieldKind::I64 => Self::I64,
            FieldKind::F64 => Self::F64,
            FieldKind::Bool => Self::Bool,
            FieldKind::Symbol => Self::Symbol,
            FieldKind::ShortText => Self::ShortText,
            FieldKind::Text => Self::Text,
            FieldKind::DurationMs => Self::DurationMs(field.decimals),
            _ => Self::Any { field, secret },
        }
    }
}

/// How records of one schema become lines.
#[derive(Debug)]
pub(super) struct Plan {
    /// Index of the category in [`Context::categories`].
    pub category: u16,
    pub fixed_bytes: u16,
    pub steps: Vec<Step>,
    /// Names of the fields as they stand in the line, escaped, without quotes.
    names: Vec<Box<[u8]>>,
    cut: bool,
    /// Whether records of the session itself have this plan: their JSON holds counts by category.
    pub counts: bool,
}

impl Plan {
    /// `None` when the fields cannot be given different names.
    fn compile(
        schema: &Schema,
        category: u16,
        cut: bool,
        redactor: Option<&Redactor>,
    ) -> Option<Self> {
        let mut plan = Self {
            category,
            fixed_bytes: schema.fixed_bytes,
            steps: Vec::with_capacity(schema.fields.len()),
            names: Vec::with_capacity(schema.fields.len()),
            cut,
            counts: false,
        };
        let mut cleaned = Vec::new();
        let mut escaped = LineBuffer::new();
        for field in &schema.fields {
            escaped.truncate(0);
            let name = field.name.as_bytes();
            let found = redactor.map_or(0, |redactor| redactor.text(name, false, &mut cleaned));
            put_escaped(&mut escaped, if found > 0 { &cleaned } else { name });
            let secret = redactor.is_some_and(|redactor| redactor.is_secret_name(name));
            let name = free_name(escaped.content(), |name| plan.is_taken(name))?;
            let value = StepValue::new(field.field_type, secret);
            let quote: &[u8] = match value {
                StepValue::ShortText | StepValue::Text => b"\"",
                _ => b"",
            };
            let before = [b",\"", name.as_slice(), b"\":", quote].concat();
            plan.steps.push(Step {
                value,
                name: Fragment::new(&before),
            });
            plan.names.push(name.into());
        }
        Some(plan)
    }

    /// Whether a line of this plan has this (escaped) name before its extra fields.
    pub(super) fn is_taken(&self, name: &[u8]) -> bool {
        is_reserved(name)
            || (self.cut && name == RESERVED_CUT)
            || self.names.iter().any(|taken| **taken == *name)
    }
}

/// Whether no field can have this name, because lines have it.
pub fn is_reserved(name: &[u8]) -> bool {
    RESERVED.contains(&name)
}

/// `name`, with `field_` before it as often as needed; `None` when that does not help.
pub fn free_name(name: &[u8], is_taken: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut name = name.to_vec();
    for _ in 0..PREFIXES_MAX {
        if !is_taken(&name) {
            return Some(name);
        }
        name.splice(..0, PREFIX.iter().copied());
    }
    (!is_taken(&name)).then_some(name)
}

/// Everything about a session that rendering its records needs. Shared, and not changed meanwhile.
#[derive(Debug)]
pub(super) struct Context {
    pub session_id: String,
    pub clock: ClockMap,
    pub registry: Registry,
    /// What keeps secrets out of the lines; `None` when nothing does.
    pub redactor: Option<Arc<Redactor>>,
    /// Names of the categories, sorted, each once.
    pub categories: Vec<String>,
    /// Index in `categories` by category id.
    category_index: Vec<Option<u16>>,
    /// By schema id: the plan of whole records and of cut ones.
    plans: Vec<[OnceLock<Option<Plan>>; 2]>,
    /// By symbol id: the JSON string, without its secrets.
    symbols: Vec<Option<Fragment>>,
    /// How many secrets were in a symbol, if any.
    redacted_symbols: BTreeMap<u32, u64>,
}

impl Context {
    pub(super) fn new(
        session_id: &str,
        clock: ClockMap,
        registry: Registry,
        redactor: Option<Arc<Redactor>>,
    ) -> Self {
        let mut context = Self {
            session_id: session_id.to_owned(),
            clock,
            registry,
            redactor,
            categories: Vec::new(),
            category_index: vec![None; CATEGORIES_MAX],
            plans: Vec::new(),
            symbols: Vec::new(),
            redacted_symbols: BTreeMap::new(),
        };
        context.refresh();
        context
    }

    /// Takes over what is new in the registry.
    pub(super) fn refresh(&mut self) {
        let names: BTreeSet<&str> = self.registry.categories().map(|(_, name)| name).collect();
        if names.len() != self.categories.len() {
            self.categories = names.into_iter().map(str::to_owned).collect();
            // They know categories by their indices.
            self.plans.clear();
        }
        for (id, name) in self.registry.categories() {
            let index = self.categories.iter().position(|other| other == name);
            if let Some(slot) = self.category_index.get_mut(usize::from(id)) {
                *slot = index.map(|index| index as u16);
            }
        }
        let schemas_end = self.registry.schemas().last().map_or(0, |last| last.id + 1);
        self.plans
            .resize_with(usize::from(schemas_end), Default::default);
        let mut cleaned = Vec::new();
        let mut text = LineBuffer::new();
        for (id, symbol) in self.registry.symbols() {
            if self.symbols.get(id as usize).is_some_and(Option::is_some) {
                continue;
            }
            text.truncate(0);
            let symbol = symbol.as_bytes();
            let found = self.redactor.as_ref();
            let found = found.map_or(0, |redactor| redactor.text(symbol, false, &mut cleaned));
            if found > 0 {
                self.redacted_symbols.insert(id, found);
            }
            put_string(&mut text, if found > 0 { &cleaned } else { symbol });
            if self.symbols.len() <= id as usize {
                self.symbols.resize(id as usize + 1, None);
            }
            if let Some(slot) = self.symbols.get_mut(id as usize) {
                *slot = Some(Fragment::new(text.content()));
            }
        }
    }

    /// The plan for records of this schema; `None` when schema or category are not known.
    #[inline]
    pub(super) fn plan(&self, schema: u16, cut: bool) -> Option<&Plan> {
        let slot = &self.plans.get(usize::from(schema))?[usize::from(cut)];
        match slot.get() {
            Some(plan) => plan.as_ref(),
            None => self.compile(slot, schema, cut),
        }
    }

    #[cold]
    fn compile<'a>(
        &self,
        slot: &'a OnceLock<Option<Plan>>,
        schema: u16,
        cut: bool,
    ) -> Option<&'a Plan> {
        let plan = || {
            let category = self.category_of(schema)?;
            let redactor = self.redactor.as_deref();
            let schema = self.registry.schema(schema)?;
            let mut plan = Plan::compile(schema, category, cut, redactor)?;
            plan.counts = self.categories.get(usize::from(category))? == SESSION;
            Some(plan)
        };
        slot.get_or_init(plan).as_ref()
    }

    /// Index of the category of a schema.
    pub(super) fn category_of(&self, schema: u16) -> Option<u16> {
        let category = self.registry.schema(schema)?.category;
        *self.category_index.get(usize::from(category))?
    }

    /// The JSON string of a symbol.
    #[inline]
    pub(super) fn symbol(&self, id: u32) -> Option<&Fragment> {
        self.symbols.get(id as usize)?.as_ref()
    }

    /// How many secrets were taken out of a symbol.
    #[inline]
    pub(super) fn redacted_in_symbol(&self, id: u32) -> u64 {
        if self.redacted_symbols.is_empty() {
            return 0;
        }
        self.redacted_symbols.get(&id).copied().unwrap_or(0)
    }
}
