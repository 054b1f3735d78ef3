//! Records to lines: a pure function of a batch of records and the [`Context`] of the session.
//!
//! One [`Renderer`] per thread; it shares nothing but the context. A record that turns out to be
//! damaged half way leaves no byte behind.
#![expect(
    clippy::inline_always,
    reason = "one match per field, not a call; measured in benches/convert.rs"
)]

use std::collections::HashSet;

use super::batch::{Batch, Totals};
use super::buffer::{LineBuffer, Pen};
use super::json::{put_duration, put_f32};
use super::plan::{Context, Plan, StepValue, free_name};
use super::scrub::Scrub;
use super::time::LineStart;
use crate::record::{FLAG_CUT, FLAG_EXTRA, FLAG_LARGE, FieldType};
use crate::segment::clock::ClockCursor;
use crate::segment::layout::BLOCK_HEADER_BYTES;
use crate::segment::records::{
    Body, Damaged, Extras, INLINE_BIT, KeyRef, RecordRef, Records, ValueRef, is_record_padding,
};

/// Extra fields whose names are compared one by one; those of further ones are hashed.
const NAMES_LINEAR_MAX: usize = 32;

/// Renders batches into one buffer per category.
#[derive(Debug)]
pub(super) struct Renderer<'a> {
    context: &'a Context,
    clock: ClockCursor<'a>,
    start: LineStart,
    /// Lines that the caller has not taken yet, by category.
    pub lines: Vec<LineBuffer>,
    pub totals: Totals,
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
            lines: (0..count).map(|_| LineBuffer::with_long_texts()).collect(),
            totals: Totals::new(count),
            scrub: Scrub::new(context.redactor.as_deref()),
            rendered_bytes: 0,
            names: Names::default(),
        }
    }

    /// Appends the lines of a batch until they are longer than `bytes_max`, or all of them.
    /// Whether the batch is done.
    pub(super) fn render(&mut self, batch: &mut Batch, bytes_max: usize) -> bool {
        self.rendered_bytes = 0;
        while let Some(run) = batch.runs.get_mut(batch.done) {
            let bytes = batch.bytes.get(run.bytes as usize);
            let bytes = bytes.and_then(|bytes| bytes.get(..run.end as usize));
            let mut records = Records::from_offset(bytes.unwrap_or_default(), run.start as usize);
            let mut ticks = run.ticks;
            while let Some(record) = records.next() {
                ticks = ticks.max(record.header.ticks());
                let body = if record.header.flags & FLAG_LARGE == 0 {
                    Some(record.body)
                } else {
                    let body = run.body.and_then(|index| batch.bodies.get(index as usize));
                    body.and_then(|block| block.get(BLOCK_HEADER_BYTES..))
                };
                self.record(&record, ticks, body);
                if self.rendered_bytes > bytes_max {
                    (run.start, run.ticks) = (records.offset() as u32, ticks);
                    return false;
                }
            }
            batch.done += 1;
        }
        true
    }

    /// Appends the line of one record, or counts it as damaged.
    #[inline(always)]
    fn record(&mut self, record: &RecordRef<'_>, ticks: u64, body: Option<&[u8]>) {
        let header = record.header;
        let cut = header.flags & FLAG_CUT != 0;
        let plan = self.context.plan(header.schema, cut);
        let (Some(plan), Some(body), true) = (plan, body, record.flags_known()) else {
            return self.damaged(header.schema);
        };
        let category = usize::from(plan.category);
        let (Some(out), Some(counts)) = (
            self.lines.get_mut(category),
            self.totals.counts.get_mut(category),
        ) else {
            return self.damaged(header.schema);
        };
        let before = out.len();
        self.scrub.found = 0;
        let mut pen = out.pen();
        self.start.put(&mut pen, self.clock.time(ticks));
        let mut line = Line {
            context: self.context,
            plan,
            scrub: &mut self.scrub,
            cut,
            names: &mut self.names,
            left_out: 0,
        };
        let done = line.rest(&mut pen, record, body);
        pen.finish();
        self.totals.extras_left_out += line.left_out;
        if done.is_ok() {
            self.rendered_bytes += out.len() - before;
            if let Some(text) = out.long_texts().last() {
                self.rendered_bytes += text.text.len();
            }
            counts.lines += 1;
            self.totals.redacted += self.scrub.found;
            if header.weight != 0 {
                counts.weigh(header.weight);
            }
        } else {
            counts.damaged += 1;
            out.truncate(before);
        }
    }

    #[cold]
    fn damaged(&mut self, schema: u16) {
        let category = self.context.category_of(schema).map(usize::from);
        match category.and_then(|category| self.totals.counts.get_mut(category)) {
            Some(counts) => counts.damaged += 1,
            None => self.totals.damaged_unknown += 1,
        }
    }
}

/// One line while it is written.
struct Line<'a, 'c> {
    context: &'a Context,
    plan: &'a Plan,
    scrub: &'a mut Scrub<'c>,
    /// Whether texts of the record may have been cut.
    cut: bool,
    names: &'a mut Names,
    left_out: u64,
}

impl Line<'_, '_> {
    /// Everything behind the time.
    #[inline(always)]
    fn rest(
        &mut self,
        out: &mut Pen<'_>,
        record: &RecordRef<'_>,
        body: &[u8],
    ) -> Result<(), Damaged> {
        let header = record.header;
        if header.weight != 0 {
            self.weight(out, header.weight)?;
        }
        let mut body = Body::new(body, self.plan.fixed_bytes)?;
        let plan = self.plan;
        for step in &plan.steps {
            out.put_fragment(&step.name);
            match step.value {
                StepValue::U8 => out.unsigned(u8::from_le_bytes(body.slot()?).into()),
                StepValue::U16 => out.unsigned(u16::from_le_bytes(body.slot()?).into()),
                StepValue::U32 => out.unsigned(u32::from_le_bytes(body.slot()?).into()),
                StepValue::U64 => out.unsigned(u64::from_le_bytes(body.slot()?)),
                StepValue::I64 => out.signed(i64::from_le_bytes(body.slot()?)),
                StepValue::F64 => out.float(f64::from_le_bytes(body.slot()?)),
                StepValue::Bool => {
                    let no = body.slot()? == [0];
                    let text = if no { b"false" } else { b"true\n" };
                    out.put_prefix(text, 4 + usize::from(no));
                }
                StepValue::Symbol => {
                    let id = u32::from_le_bytes(body.slot()?);
                    if id & INLINE_BIT == 0 {
                        self.scrub.found += self.context.redacted_in_symbol(id);
                        out.put_fragment(self.context.symbol(id).ok_or(Damaged)?);
                    } else {
                        out.put_array(b"\"");
                        self.scrub
                            .write(out, body.text(id & !INLINE_BIT)?, self.cut);
                        out.put_array(b"\"");
                    }
                }
                StepValue::ShortText => {
                    let count = u8::from_le_bytes(body.slot()?);
                    self.scrub.write(out, body.text(count.into())?, self.cut);
                    out.put_array(b"\"");
                }
                StepValue::Text => {
                    let count = u16::from_le_bytes(body.slot()?);
                    self.scrub.write(out, body.text(count.into())?, self.cut);
                    out.put_array(b"\"");
                }
                StepValue::DurationMs(decimals) => match u64::from_le_bytes(body.slot()?) {
                    u64::MAX => out.put_array(b"null"),
                    ns => put_duration(out, ns, decimals),
                },
                StepValue::Any { field, secret } => {
                    body = out.with(|out| self.any(out, body, field, secret))?;
                }
            }
        }
        let mut rest = body.rest();
        if header.flags & FLAG_EXTRA != 0 {
            rest = out.with(|out| self.extras(out, rest))?;
        }
        if !is_record_padding(rest) {
            return Err(Damaged);
        }
        if header.flags & FLAG_CUT != 0 {
            out.put(b",\"truncated\":true");
        }
        out.put_array(b"}\n");
        Ok(())
    }

    #[cold]
    fn weight(&mut self, out: &mut Pen<'_>, id: u8) -> Result<(), Damaged> {
        let weight = self.context.registry.weight(id).ok_or(Damaged)?;
        #[expect(clippy::float_cmp, reason = "exactly one is no sampling")]
        if weight == 1.0 {
            return Ok(());
        }
        out.put(b",\"sample_weight\":");
        if id < 16 {
            out.unsigned(weight as u64);
        } else {
            out.float(weight);
        }
        Ok(())
    }

    /// Appends the value of a field of any kind; returns what follows it.
    #[inline(never)]
    fn any<'b>(
        &mut self,
        out: &mut LineBuffer,
        mut body: Body<'b>,
        field: FieldType,
        secret: bool,
    ) -> Result<Body<'b>, Damaged> {
        let value = body.value(field)?;
        self.value(out, value, secret)?;
        Ok(body)
    }

    fn value(
        &mut self,
        out: &mut LineBuffer,
        value: ValueRef<'_>,
        secret: bool,
    ) -> Result<(), Damaged> {
        let mut pen = out.pen();
        match value {
            ValueRef::Null | ValueRef::Json(b"null") => pen.put_array(b"null"),
            ValueRef::Bool(true) => pen.put_array(b"true"),
            ValueRef::Bool(false) => pen.put_array(b"false"),
            _ if secret && !is_empty(value) => pen.with(|out| self.scrub.put_constant(out)),
            ValueRef::U64(value) => pen.unsigned(value),
            ValueRef::I64(value) => pen.signed(value),
            ValueRef::F32(value) => put_f32(&mut pen, value),
            ValueRef::F64(value) => pen.float(value),
            ValueRef::Text(text) => {
                pen.put_array(b"\"");
                self.scrub.write(&mut pen, text, self.cut);
                pen.put_array(b"\"");
            }
            ValueRef::Symbol(id) => {
                self.scrub.found += self.context.redacted_in_symbol(id);
                pen.put_fragment(self.context.symbol(id).ok_or(Damaged)?);
            }
            ValueRef::Json(text) => {
                pen.with(|out| self.scrub.put_json(out, text, self.plan.counts, self.cut));
            }
            ValueRef::Number(text) => pen.with(|out| self.scrub.put_number(out, text, self.cut)),
            ValueRef::Duration(ns, decimals) => put_duration(&mut pen, ns, decimals),
        }
        pen.finish();
        Ok(())
    }

    /// Appends the extra fields; returns what follows them.
    #[inline(never)]
    fn extras<'b>(&mut self, out: &mut LineBuffer, area: &'b [u8]) -> Result<&'b [u8], Damaged> {
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
            let mut name = self.names.escaped.pen();
            self.scrub.write(&mut name, key, self.cut);
            name.finish();
            let secret = self.scrub.is_secret_name(key);
            if !self.names.take(self.plan) {
                self.left_out += 1;
                continue;
            }
            out.put_array(b",\"");
            out.put(self.names.escaped.content());
            out.put_array(b"\":");
            self.value(out, value, secret)?;
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
