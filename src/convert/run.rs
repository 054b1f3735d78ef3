//! A conversion from start to end.

use std::path::Path;
use std::sync::Arc;

use super::control::{Control, ConvertOptions};
use super::index::{Faults, Index};
use super::merge::Merge;
use super::output::{LineSink, OutputFiles};
use super::plan::{Context, SESSION};
use super::render::{Batch, Renderer};
use super::report::{ConvertReport, ledger_of_line};
use crate::error::Error;
use crate::ledger::{Account, DropReason, WRITTEN};
use crate::redact::{Redactor, Rules};
use crate::segment::clock::ClockMap;
use crate::segment::files::SessionFiles;
use crate::segment::registry::Registry;
use crate::session::ConvertedFile;
use crate::sys::dir::Dir;

/// Lines of a category are written out when they are longer than this.
const WRITE_BYTES: usize = 128 * 1024;
/// The same where there are many categories: what all of them hold together, at most.
const WRITE_BYTES_TOTAL: usize = 8 << 20;
/// The buffer of a category keeps so many times the memory after which it is written out.
const KEEP_TIMES: usize = 2;
/// Bytes of lines after which they are looked at: a short record can become a long line.
const RENDER_BYTES: usize = 4 << 20;
/// The longest line that is searched for the ledger.
const LEDGER_LINE_BYTES_MAX: usize = 1 << 20;

/// Converts a session into the directory `out`, which must exist: one file
/// `{session}_{category}.jsonl` per category with records. Files appear under their names when
/// all of them are complete and replace older ones; until then they are hidden temporary files,
/// which are removed when the conversion fails.
///
/// Damage in the segments is reported in [`ConvertReport::faults`], not an error.
///
/// # Errors
/// [`Error::Io`] when a segment cannot be read or a file not be written (disk full);
/// [`Error::TimedOut`] and [`Error::Cancelled`] as `options` say; [`Error::Corrupt`] when a
/// segment changes meanwhile.
pub fn convert_session(
    files: &SessionFiles,
    out: &Path,
    options: ConvertOptions<'_>,
) -> Result<ConvertReport, Error> {
    convert_into(files, &Dir::open(out)?, options)
}

/// [`convert_session`] into an open directory.
///
/// # Errors
/// As [`convert_session`].
pub(crate) fn convert_into(
    files: &SessionFiles,
    out: &Dir,
    options: ConvertOptions<'_>,
) -> Result<ConvertReport, Error> {
    let sync = options.sync;
    let owner = files.owner().unwrap_or_else(|| out.ownership())?;
    let mut output = OutputFiles::new(out, &files.session_id, owner);
    let mut report = convert_lines(files, &mut output, options)?;
    for finished in output.finish(sync)? {
        let file = report
            .files
            .iter_mut()
            .find(|file| file.category == finished.category);
        if let Some(file) = file {
            file.path = out.path_of(&finished.name);
            debug_assert_eq!(file.bytes, finished.bytes);
        }
    }
    Ok(report)
}

/// Converts a session into a sink; nothing is written to the disk.
///
/// # Errors
/// As [`convert_session`], and what the sink says.
pub fn convert_lines(
    files: &SessionFiles,
    sink: &mut impl LineSink,
    options: ConvertOptions<'_>,
) -> Result<ConvertReport, Error> {
    let total = files.segments.iter().map(|file| file.header.file_bytes);
    let total = total.fold(0_u64, u64::saturating_add).saturating_mul(2);
    let rules = options.redact.clone();
    let mut control = Control::new(options, total);
    control.check()?;
    let mut index = Index::build(files, &mut control)?;
    control.set_total(control.done().saturating_add(index.data_bytes));
    let clock = clock_map(files, &index);
    let registry = std::mem::take(&mut index.registry);
    let redactor = redactor(rules, &registry)?;
    let context = Context::new(&files.session_id, clock, registry, redactor);

    let mut renderer = Renderer::new(&context);
    let mut output = Lines::new(&context, files);
    let mut merge = Merge::new(files, &index);
    let mut batch = Batch::default();
    let write_bytes = WRITE_BYTES.min(WRITE_BYTES_TOTAL / context.categories.len().max(1));
    while merge.next_batch(&mut batch, &mut control)? {
        let mut next = 0;
        while next < batch.records.len() {
            next = renderer.render(&batch, next, RENDER_BYTES);
            output.take(&mut renderer, write_bytes, sink)?;
        }
    }
    output.take(&mut renderer, 0, sink)?;
    control.check()?;
    Ok(finish(index, &context, &renderer, output))
}

/// For what the session says and the options add to it.
fn redactor(more: Option<Rules>, registry: &Registry) -> Result<Option<Arc<Redactor>>, Error> {
    let mut rules = registry.redaction.clone().unwrap_or_default();
    if let Some(more) = more {
        rules.on = more.on;
        rules.names.extend(more.names);
        rules.patterns.extend(more.patterns);
        rules.keep.extend(more.keep);
    }
    if !rules.on {
        return Ok(None);
    }
    if rules == Rules::default() {
        return Ok(Some(Redactor::built_in()));
    }
    let redactor = Redactor::new(&rules).map_err(|error| Error::Setting {
        name: "redact".to_owned(),
        value: rules.to_json().to_string(),
        remedy: error.to_string(),
    })?;
    Ok(Some(Arc::new(redactor)))
}

fn clock_map(files: &SessionFiles, index: &Index) -> ClockMap {
    let points = index.registry.clock_points.values().copied();
    match files.segments.first() {
        Some(first) => ClockMap::new(&first.header, points),
        None => ClockMap::new(&bytemuck::Zeroable::zeroed(), points),
    }
}

fn finish(
    index: Index,
    context: &Context,
    renderer: &Renderer<'_>,
    output: Lines<'_>,
) -> ConvertReport {
    let mut report = output.report;
    let mut faults: Faults = index.faults;
    for (name, counts) in context.categories.iter().zip(&renderer.counts) {
        if counts.lines + counts.damaged == 0 {
            continue;
        }
        report.lines += counts.lines;
        let account = report.counted.categories.entry(name.clone()).or_default();
        account.counters[WRITTEN] = counts.lines;
        account.counters[DropReason::Damaged.counter()] = counts.damaged;
        let estimated = counts.lines as f64 + counts.beyond;
        report.estimated.insert(name.clone(), estimated);
    }
    if renderer.extras_left_out > 0 {
        faults.add(format!(
            "{} extra fields were left out: their names occur too often in one record",
            renderer.extras_left_out
        ));
    }
    let time = |ticks| context.clock.time(ticks);
    report.faults = faults.finish();
    report.redacted = renderer.redacted;
    report.damaged_unknown = renderer.damaged_unknown + index.damaged;
    report.left_out = index.left_out;
    report.blocks = index.blocks;
    report.records = index.records;
    report.segment_bytes = index.segment_bytes;
    report.sealed = index.sealed;
    report.started_utc_ns = time(0).utc_ns;
    report.span = index.ticks.map(|(first, last)| (time(first), time(last)));
    for (file, lines) in report.files.iter_mut().map(|file| {
        let account = report.counted.categories.get(&file.category);
        (file, account.map_or(0, Account::written))
    }) {
        file.lines = lines;
    }
    report.compare();
    report
}

/// Moves rendered lines to the sink.
struct Lines<'a> {
    context: &'a Context,
    /// Index of each category in `report.files`, once it has lines.
    files: Vec<Option<usize>>,
    report: ConvertReport,
}

impl<'a> Lines<'a> {
    fn new(context: &'a Context, files: &SessionFiles) -> Self {
        Self {
            context,
            files: vec![None; context.categories.len()],
            report: ConvertReport {
                session_id: files.session_id.clone(),
                ..ConvertReport::default()
            },
        }
    }

    /// Writes the lines of categories that have more than `more_than` bytes of them.
    fn take(
        &mut self,
        renderer: &mut Renderer<'_>,
        more_than: usize,
        sink: &mut impl LineSink,
    ) -> Result<(), Error> {
        let categories = self.context.categories.iter().zip(&mut self.files);
        for ((category, file), lines) in categories.zip(&mut renderer.lines) {
            if lines.len() <= more_than {
                continue;
            }
            if category == SESSION {
                let ends = lines.content().split(|byte| *byte == b'\n');
                let ends = ends.filter(|line| line.len() <= LEDGER_LINE_BYTES_MAX);
                if let Some(ledger) = ends.rev().find_map(ledger_of_line) {
                    self.report.ledger = Some(ledger);
                }
            }
            sink.write(category, lines.content())?;
            let files = &mut self.report.files;
            let index = *file.get_or_insert_with(|| {
                files.push(ConvertedFile {
                    category: category.clone(),
                    path: format!("{}_{category}.jsonl", self.context.session_id).into(),
                    lines: 0,
                    bytes: 0,
                });
                files.len() - 1
            });
            if let Some(file) = files.get_mut(index) {
                file.bytes += lines.len() as u64;
            }
            lines.clear(KEEP_TIMES * more_than);
        }
        Ok(())
    }
}
