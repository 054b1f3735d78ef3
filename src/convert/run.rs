//! A conversion from start to end.

use std::path::Path;
use std::sync::Arc;

use super::adopt::AdoptedFiles;
use super::batch::{Batch, Totals};
use super::control::{Control, ConvertOptions};
use super::index::Index;
use super::lines::Lines;
use super::merge::Merge;
use super::output::{FinishedFile, LineSink, OutputFiles};
use super::plan::Context;
use super::render::Renderer;
use super::report::{ConvertReport, Faults};
use super::turns::Turns;
use crate::error::Error;
use crate::ledger::{Account, DropReason, WRITTEN};
use crate::redact::{Redactor, Rules};
use crate::segment::clock::ClockMap;
use crate::segment::files::SessionFiles;
use crate::segment::registry::Registry;
use crate::sys::dir::Dir;

/// Bytes of lines after which they are looked at, all threads together: a short record can become
/// a long line.
const RENDER_BYTES_TOTAL: usize = 4 << 20;
/// Bytes of blocks that batches hold on to, all threads together.
const BATCH_BYTES_TOTAL: u64 = 4 << 20;
/// Threads that convert one session.
const THREADS_MAX: usize = 16;

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
    let report = convert_lines(files, &mut output, options)?;
    let report = named(report, out, output.finish(sync)?);
    if report.sealed {
        files.forget_live(out);
    }
    Ok(report)
}

/// [`convert_into`] a directory that has files of the session, which its process appended to while
/// it recorded: those that are as they should be stay, and those that have lines whose segments are
/// lost.
///
/// # Errors
/// As [`convert_session`].
pub(crate) fn convert_over(
    files: &SessionFiles,
    out: &Dir,
    options: ConvertOptions<'_>,
) -> Result<ConvertReport, Error> {
    let sync = options.sync;
    let owner = files.owner().unwrap_or_else(|| out.ownership())?;
    let mut output = AdoptedFiles::new(out, &files.session_id, owner);
    let report = convert_lines(files, &mut output, options)?;
    let finished = output.finish(sync, !report.faults.is_empty())?;
    Ok(named(report, out, finished))
}

/// The report with the places of its files.
fn named(mut report: ConvertReport, out: &Dir, finished: Vec<FinishedFile>) -> ConvertReport {
    for finished in finished {
        let file = report
            .files
            .iter_mut()
            .find(|file| file.category == finished.category);
        if let Some(file) = file {
            file.path = out.path_of(&finished.name);
            debug_assert_eq!(file.bytes, finished.bytes);
        }
    }
    report
}

/// Converts a session into a sink; nothing is written to the disk.
///
/// # Errors
/// As [`convert_session`], and what the sink says.
pub fn convert_lines(
    files: &SessionFiles,
    sink: &mut (impl LineSink + Send),
    options: ConvertOptions<'_>,
) -> Result<ConvertReport, Error> {
    let total = files.segments.iter().map(|file| file.header.file_bytes);
    let total = total.fold(0_u64, u64::saturating_add).saturating_mul(2);
    let rules = options.redact.clone();
    let threads = options.threads.clamp(1, THREADS_MAX);
    let mut control = Control::new(options, total);
    control.check()?;
    let mut index = Index::build(files, &mut control, threads)?;
    control.set_total(control.done().saturating_add(index.data_bytes));
    let clock = clock_map(files, &index);
    let registry = std::mem::take(&mut index.registry);
    let redactor = redactor(rules, &registry)?;
    let context = Context::new(&files.session_id, clock, registry, redactor);

    let merge = Merge::new(files, &index, BATCH_BYTES_TOTAL / threads as u64);
    let lines = Lines::new(&context, files, sink, threads);
    let turns = Turns::new((merge, &mut control), lines);
    turns.run(threads, || render(&turns, &context, threads))?;
    let (merge, lines) = turns.into_inner();
    drop(merge);
    let (report, totals) = lines.finish()?;
    control.check()?;
    Ok(finish(index, &context, &totals, report))
}

/// What one thread does in the second pass.
fn render<S: LineSink + Send>(
    turns: &Turns<(Merge<'_>, &mut Control<'_>), Lines<'_, S>>,
    context: &Context,
    threads: usize,
) -> Result<(), Error> {
    let mut renderer = Renderer::new(context);
    let mut batch = Batch::default();
    while let Some((number, ())) = turns.task(|(merge, control)| {
        let more = merge.next_batch(&mut batch, control)?;
        Ok(more.then_some(()))
    })? {
        loop {
            let done = renderer.render(&mut batch, RENDER_BYTES_TOTAL / threads);
            let Some(mut lines) = turns.turn(number) else {
                return Ok(());
            };
            let later = lines.take(&mut renderer.lines)?;
            let keep_bytes = lines.keep_bytes;
            if done {
                lines.pass();
            } else {
                drop(lines);
            }
            // Others may write now too.
            for (category, place) in later {
                if let Some(lines) = renderer.lines.get_mut(category) {
                    place.write(lines.content())?;
                    lines.clear(keep_bytes);
                }
            }
            if done {
                break;
            }
            turns.source(|(_, control)| control.check())?;
        }
    }
    turns.sink(|lines| {
        lines.last(&mut renderer.lines)?;
        lines.totals.add(&renderer.totals);
        Ok(())
    })
}

/// For what the session says and the options add to it.
pub(super) fn redactor(
    more: Option<Rules>,
    registry: &Registry,
) -> Result<Option<Arc<Redactor>>, Error> {
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

pub(super) fn clock_map(files: &SessionFiles, index: &Index) -> ClockMap {
    let points = index.registry.clock_points.values().copied();
    match files.segments.first() {
        Some(first) => ClockMap::new(&first.header, points),
        None => ClockMap::new(&bytemuck::Zeroable::zeroed(), points),
    }
}

fn finish(
    index: Index,
    context: &Context,
    totals: &Totals,
    mut report: ConvertReport,
) -> ConvertReport {
    let mut faults: Faults = index.faults;
    for (name, counts) in context.categories.iter().zip(&totals.counts) {
        if counts.lines + counts.damaged == 0 {
            continue;
        }
        report.lines += counts.lines;
        let account = report.counted.categories.entry(name.clone()).or_default();
        account.counters[WRITTEN] = counts.lines;
        account.counters[DropReason::Damaged.counter()] = counts.damaged;
        let estimated = counts.estimated(context);
        report.estimated.insert(name.clone(), estimated);
    }
    if totals.extras_left_out > 0 {
        faults.add(format!(
            "{} extra fields were left out: their names occur too often in one record",
            totals.extras_left_out
        ));
    }
    let time = |ticks| context.clock.time(ticks);
    report.faults = faults.finish();
    report.redacted = totals.redacted;
    report.damaged_unknown = totals.damaged_unknown + index.damaged;
    report.left_out = index.left_out;
    report.blocks = index.block_count;
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
