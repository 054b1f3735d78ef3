//! Records to lines: a pure function of a batch of records and the [`Context`] of the session.
//!
//! One [`Renderer`] per thread; it shares nothing but the context. A record that turns out to be
//! damaged half way leaves no byte behind.
#![expect(
    clippy::inline_always,
    reason = "one match per field, not a call; measured in benches/convert.rs"
)]

use std::collections::HashSet;
use std::sync::Arc;

use super::buffer::LineBuffer;
use super::json::{put_duration, put_f32, put_f64, put_integer};
use super::plan::{Context, Plan, free_name};
use super::scrub::Scrub;
use super::time::LineStart;
use crate::record::{FLAG_CUT, FLAG_EXTRA, FLAG_LARGE};
use crate::segment::clock::ClockCursor;
use crate::segment::records::{
    Body, Damaged, Extras, KeyRef, RecordRef, ValueRef, is_record_padding,
};

/// Extra fields whose names are compared one by one; those of further ones are hashed.
const NAMES_LINEAR_MAX: usize = 32;

/// A record of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchRecord {
    /// Index of its payload.
    pub payload: u32,
    /// Its offset in the payload.
    pub offset: u32,
    /// The largest ticks of its producer up to it: its place in the order, and its time.
    pub ticks: u64,
}

/// Records in the order of their lines.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub payloads: Vec<Arc<Vec<u8>>>,
    pub records: Vec<BatchRecord>,
    /// Bodies of LARGE records, by index of the record; one that is missing is not in here.
    pub bodies: Vec<(u32, Vec<u8>)>,
}

/// What rendering has counted for one category.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub lines: u64,
    pub damaged: u64,
    /// What the weights of the lines add to their number.
    pub beyond: f64,
}

/// Renders batches into one buffer per category.
#[derive(Debug)]
pub(super) struct Renderer<'a> {
    context: &'a Context,
    clock: ClockCursor<'a>,
    start: LineStart,
    /// Lines that the caller has not taken yet, by category.
    pub lines: Vec<LineBuffer>,
    pub counts: Vec<Counts>,
    /// Damaged records whose category is not known.
    pub damaged_unknown: u64,
    /// Extra fields that were left out because their names were taken too often.
    pub extras_left_out: u64,
    /// Secrets that were replaced in the lines.
    pub redacted: u64,
    scrub: Scrub<'a>,
    /// By the call of [`render`](Self::render) that runs, or ran last.
    rendered_bytes: usize,
    names: Names,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        let count = context.categories.len();
        Self {
            context,
            clock: ClockCursor::new(&context.clock),
            start: LineStart::new(&context.session_id),
            lines: (0..count).map(|_| LineBuffer::new()).collect(),
            counts: vec![Counts::default(); count],
            damaged_unknown: 0,
            extras_left_out: 0,
            redacted: 0,
            scrub: Scrub::new(context.redactor.as_deref()),
            rendered_bytes: 0,
            names: Names::default(),
        }
    }

    /// Appends the lines of the records of a batch from `first` on, until they are longer than
    /// `bytes_max`; returns the record that comes next.
    pub(super) fn render(&mut self, batch: &Batch, first: usize, bytes_max: usize) -> usize {
        let bodies = batch.bodies.iter();
        let mut bodies = bodies
            .skip_while(|(of, _)| (*of as usize) < first)
            .peekable();
        self.rendered_bytes = 0;
        for (index, item) in batch.records.iter().enumerate().skip(first) {
            if self.rendered_bytes > bytes_max {
                return index;
            }
            let payload = batch.payloads.get(item.payload as usize);
            let record = payload.and_then(|bytes| RecordRef::at(bytes, item.offset as usize));
            let Some(record) = record else {
                self.damaged_unknown += 1;
                continue;
            };
            let body = bodies.next_if(|(of, _)| *of as usize == index);
            let body = if record.header.flags & FLAG_LARGE == 0 {
                Some(record.body)
            } else {
                body.map(|(_, body)| body.as_slice())
            };
            self.record(&record, item.ticks, body);
        }
        batch.records.len()
    }

    /// Appends the line of one record, or counts it as damaged.
    #[inline]
    pub(super) fn record(&mut self, record: &RecordRef<'_>, ticks: u64, body: Option<&[u8]>) {
        let header = record.header;
        let cut = header.flags & FLAG_CUT != 0;
        let plan = self.context.plan(header.schema, cut);
        let (Some(plan), Some(body), true) = (plan, body, record.flags_known()) else {
            return self.damaged(header.schema);
        };
        let category = usize::from(plan.category);
        let (Some(out), Some(counts)) =
            (self.lines.get_mut(category), self.counts.get_mut(category))
        else {
            return self.damaged(header.schema);
        };
        let before = out.len();
        self.scrub.found = 0;
        self.start.put(out, self.clock.time(ticks));
        let mut line = Line {
            context: self.context,
            plan,
            out,
            scrub: &mut self.scrub,
            cut,
            names: &mut self.names,
            left_out: 0,
        };
        let done = line.rest(record, body);
        self.extras_left_out += line.left_out;
        if done.is_ok() {
            self.rendered_bytes += out.len() - before;
            counts.lines += 1;
            self.redacted += self.scrub.found;
            if header.weight != 0 {
                // Known, or the record would be damaged.
                let weight = self.context.registry.weight(header.weight);
                counts.beyond += weight.unwrap_or(1.0) - 1.0;
            }
        } else {
            counts.damaged += 1;
            out.truncate(before);
        }
    }

    #[cold]
    fn damaged(&mut self, schema: u16) {
        let category = self.context.category_of(schema).map(usize::from);
        match category.and_then(|category| self.counts.get_mut(category)) {
            Some(counts) => counts.damaged += 1,
            None => self.damaged_unknown += 1,
        }
    }
}

/// One line while it is written.
struct Line<'a, 'c> {
    context: &'a Context,
    plan: &'a Plan,
    out: &'a mut LineBuffer,
    scrub: &'a mut Scrub<'c>,
    /// Whether texts of the record may have been cut.
    cut: bool,
    names: &'a mut Names,
    left_out: u64,
}

impl Line<'_, '_> {
    /// Everything behind the time.
    #[inline]
    fn rest(&mut self, record: &RecordRef<'_>, body: &[u8]) -> Result<(), Damaged> {
        let header = record.header;
        if header.weight != 0 {
            self.weight(header.weight)?;
        }
        let mut body = Body::new(body, self.plan.fixed_bytes)?;
        let plan = self.plan;
        for step in &plan.steps {
            match body.value(step.field)? {
                ValueRef::Text(text) if !step.secret => {
                    self.out.put_fragment(&step.name_quote);
                    self.scrub.put_text(self.out, text, self.cut);
                    self.out.push(b'"');
                }
                value => {
                    self.out.put_fragment(&step.name);
                    self.value(value, step.secret)?;
                }
            }
        }
        let mut rest = body.rest();
        if header.flags & FLAG_EXTRA != 0 {
            rest = self.extras(rest)?;
        }
        if !is_record_padding(rest) {
            return Err(Damaged);
        }
        if header.flags & FLAG_CUT != 0 {
            self.out.put(b",\"truncated\":true");
        }
        self.out.put_array(b"}\n");
        Ok(())
    }

    #[cold]
    fn weight(&mut self, id: u8) -> Result<(), Damaged> {
        let weight = self.context.registry.weight(id).ok_or(Damaged)?;
        #[expect(clippy::float_cmp, reason = "exactly one is no sampling")]
        if weight == 1.0 {
            return Ok(());
        }
        self.out.put(b",\"sample_weight\":");
        if id < 16 {
            put_integer(self.out, weight as u64);
        } else {
            put_f64(self.out, weight);
        }
        Ok(())
    }

    #[inline(always)]
    fn value(&mut self, value: ValueRef<'_>, secret: bool) -> Result<(), Damaged> {
        let out = &mut *self.out;
        match value {
            ValueRef::Null | ValueRef::Json(b"null") => out.put_array(b"null"),
            ValueRef::Bool(true) => out.put_array(b"true"),
            ValueRef::Bool(false) => out.put_array(b"false"),
            _ if secret && !is_empty(value) => self.scrub.put_constant(out),
            ValueRef::U64(value) => put_integer(out, value),
            ValueRef::I64(value) => put_integer(out, value),
            ValueRef::F32(value) => put_f32(out, value),
            ValueRef::F64(value) => put_f64(out, value),
            ValueRef::Text(text) => self.scrub.put_string(out, text, self.cut),
            ValueRef::Symbol(id) => {
                self.scrub.found += self.context.redacted_in_symbol(id);
                out.put_fragment(self.context.symbol(id).ok_or(Damaged)?);
            }
            ValueRef::Json(text) => {
                self.scrub.put_json(out, text, self.plan.counts, self.cut);
            }
            ValueRef::Number(text) => self.scrub.put_number(out, text, self.cut),
            ValueRef::Duration(ns, decimals) => put_duration(out, ns, decimals),
        }
        Ok(())
    }

    /// Appends the extra fields; returns what follows them.
    #[inline(never)]
    fn extras<'b>(&mut self, area: &'b [u8]) -> Result<&'b [u8], Damaged> {
        let mut extras = Extras::new(area)?;
        self.names.clear();
        while let Some((key, value)) = extras.next_extra()? {
            let key = match key {
                KeyRef::Text(text) => text,
                KeyRef::Symbol(id) => {
                    let text = self.context.registry.symbol(id).ok_or(Damaged)?;
                    text.as_bytes()
                }
            };
            self.names.escaped.truncate(0);
            self.scrub.put_text(&mut self.names.escaped, key, self.cut);
            let secret = self.scrub.is_secret_name(key);
            if !self.names.take(self.plan) {
                self.left_out += 1;
                continue;
            }
            self.out.put_array(b",\"");
            self.out.put(self.names.escaped.content());
            self.out.put_array(b"\":");
            self.value(value, secret)?;
        }
        Ok(extras.rest())
    }
}

/// Whether there is nothing in a value that could be a secret.
fn is_empty(value: ValueRef<'_>) -> bool {
    match value {
        ValueRef::Text(text) => text.is_empty(),
        ValueRef::Json(text) => matches!(text, b"" | b"true" | b"false" | b"\"\"" | b"{}" | b"[]"),
        ValueRef::F32(value) => !value.is_finite(),
        ValueRef::F64(value) => !value.is_finite(),
        _ => false,
    }
}

/// Names of the extra fields of a line so far. Kept between lines for its memory.
#[derive(Debug, Default)]
struct Names {
    /// The name in question, escaped.
    escaped: LineBuffer,
    /// The first names, one behind the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Further names.
    more: HashSet<Box<[u8]>>,
}

impl Names {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        if !self.more.is_empty() {
            self.more = HashSet::new();
        }
    }

    /// Makes the name in question different from all others and remembers it; `false` when it
    /// cannot be made so.
    fn take(&mut self, plan: &Plan) -> bool {
        if self.is_taken(self.escaped.content(), plan) {
            let free = free_name(self.escaped.content(), |name| self.is_taken(name, plan));
            let Some(name) = free else { return false };
            self.escaped.truncate(0);
            self.escaped.put(&name);
        }
        let name = self.escaped.content();
        if self.ends.len() < NAMES_LINEAR_MAX {
            self.text.extend_from_slice(name);
            self.ends.push(self.text.len());
        } else {
            self.more.insert(name.into());
        }
        true
    }

    fn is_taken(&self, name: &[u8], plan: &Plan) -> bool {
        let mut start = 0;
        let mut in_line = self.ends.iter().any(|end| {
            let taken = self.text.get(start..*end);
            start = *end;
            taken == Some(name)
        });
        in_line |= !self.more.is_empty() && self.more.contains(name);
        in_line || plan.is_taken(name)
    }
}
