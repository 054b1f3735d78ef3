//! The records of a session one by one, in the order of their lines, for who wants values instead
//! of lines.

use super::batch::Batch;
use super::control::{Control, ConvertOptions};
use super::index::Index;
use super::merge::Merge;
use super::run::clock_map;
use crate::error::Error;
use crate::record::{FLAG_EXTRA, FLAG_LARGE};
use crate::segment::clock::{ClockCursor, Time};
use crate::segment::files::SessionFiles;
use crate::segment::layout::BLOCK_HEADER_BYTES;
use crate::segment::records::{Body, Damaged, Extras, KeyRef, RecordRef, Records, ValueRef};
use crate::segment::registry::{Registry, Schema};

/// Bytes of blocks that a batch holds on to.
const BATCH_BYTES: u64 = 4 << 20;

/// One record of a session.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Its category.
    pub category: &'a str,
    /// Its time, as its line has it.
    pub time: Time,
    registry: &'a Registry,
    schema: &'a Schema,
    flags: u8,
    body: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// Calls `visit` for each field and extra field, in the order of the line. Symbols come as
    /// texts; whether texts are UTF-8 is not checked.
    ///
    /// # Errors
    /// [`Damaged`] when the record cannot be read to its end.
    pub fn fields(&self, visit: &mut dyn FnMut(&'a [u8], ValueRef<'a>)) -> Result<(), Damaged> {
        let mut body = Body::new(self.body, self.schema.fixed_bytes)?;
        for field in &self.schema.fields {
            let value = body.value(field.field_type)?;
            visit(field.name.as_bytes(), self.as_text(value)?);
        }
        if self.flags & FLAG_EXTRA == 0 {
            return Ok(());
        }
        let mut extras = Extras::new(body.rest())?;
        while let Some((key, value)) = extras.next_extra()? {
            let key = match key {
                KeyRef::Text(text) => text,
                KeyRef::Symbol(id) => self.registry.symbol(id).ok_or(Damaged)?.as_bytes(),
            };
            visit(key, self.as_text(value)?);
        }
        Ok(())
    }

    fn as_text(&self, value: ValueRef<'a>) -> Result<ValueRef<'a>, Damaged> {
        match value {
            ValueRef::Symbol(id) => {
                let text = self.registry.symbol(id).ok_or(Damaged)?;
                Ok(ValueRef::Text(text.as_bytes()))
            }
            value => Ok(value),
        }
    }
}

/// Calls `visit` with every record of a session, in the order of the lines. Returns what is wrong
/// with the session, as sentences.
///
/// # Errors
/// As [`convert_session`](super::convert_session).
pub fn visit_records(
    files: &SessionFiles,
    options: ConvertOptions<'_>,
    visit: &mut dyn FnMut(&RecordView<'_>),
) -> Result<Vec<String>, Error> {
    let mut control = Control::new(options, 0);
    let mut index = Index::build(files, &mut control, 1)?;
    let clock = clock_map(files, &index);
    let mut clock = ClockCursor::new(&clock);
    let registry = std::mem::take(&mut index.registry);
    let mut merge = Merge::new(files, &index, BATCH_BYTES);
    let mut batch = Batch::default();
    let mut damaged = 0_u64;
    while merge.next_batch(&mut batch, &mut control)? {
        for run in &batch.runs {
            let bytes = batch.bytes.get(run.bytes as usize);
            let bytes = bytes.and_then(|bytes| bytes.get(..run.end as usize));
            let mut ticks = run.ticks;
            for record in Records::from_offset(bytes.unwrap_or_default(), run.start as usize) {
                ticks = ticks.max(record.header.ticks());
                let large = run.body.and_then(|index| batch.bodies.get(index as usize));
                let time = clock.time(ticks);
                match view(&registry, &record, large.map(Vec::as_slice), time) {
                    Some(view) => visit(&view),
                    None => damaged += 1,
                }
            }
        }
    }
    drop(merge);
    let mut faults = index.faults.finish();
    if damaged > 0 {
        faults.push(format!("{damaged} records are damaged"));
    }
    Ok(faults)
}

fn view<'a>(
    registry: &'a Registry,
    record: &RecordRef<'a>,
    large: Option<&'a [u8]>,
    time: Time,
) -> Option<RecordView<'a>> {
    let schema = registry.schema(record.header.schema)?;
    let body = if record.header.flags & FLAG_LARGE == 0 {
        record.body
    } else {
        large?.get(BLOCK_HEADER_BYTES..)?
    };
    record.flags_known().then_some(RecordView {
        category: registry.category(schema.category)?,
        time,
        registry,
        schema,
        flags: record.header.flags,
        body,
    })
}
