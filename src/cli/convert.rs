//! `stormlog convert`: segments to JSON Lines.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};

use super::{Output, Status, human};
use crate::convert::{ConvertOptions, ConvertReport, Progress, convert_session};
use crate::ledger::{Account, Ledger};
use crate::segment::files::SessionFiles;

const EXAMPLES: &str = "\
Examples:
  stormlog convert ./debug_logs                      all sessions that still have segments
  stormlog convert ./debug_logs/.stormlog/20261121_101112
  stormlog convert 000001.seg 000002.seg --out /tmp  what is readable of two segments
  stormlog convert ./debug_logs --json | jq .faults

Exit code: 0 all records converted, 1 damage or lost records were found (what is valid is
converted all the same), 2 could not run.";

/// Convert segments to JSON Lines, one file per session and category.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Log directories, session directories or segments.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Directory of the results [default: the log directory of the session].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the report as JSON, one line per session.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When a path holds no session, or results cannot be written.
pub fn run(args: &Args, output: &mut Output) -> anyhow::Result<Status> {
    let (sessions, unreadable) = SessionFiles::find_all(&args.paths)?;
    if let Some(out) = &args.out {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(out);
        made.with_context(|| format!("cannot create {}", out.display()))?;
    }
    let mut status = human::report_unreadable(&unreadable);
    for (index, session) in sessions.iter().enumerate() {
        let out = args.out.as_deref().unwrap_or(&session.log_dir);
        let twin = sessions
            .iter()
            .take(index)
            .any(|other| other.session_id == session.session_id);
        let mut report = if twin {
            ConvertReport {
                session_id: session.session_id.clone(),
                faults: vec!["another session has the same id: not converted".to_owned()],
                ..ConvertReport::default()
            }
        } else {
            convert(session, out)?
        };
        report
            .faults
            .iter_mut()
            .for_each(|fault| *fault = human::plain(fault));
        if !report.faults.is_empty() {
            status = Status::Faults;
        }
        if args.json {
            writeln!(output, "{}", to_json(&report))?;
        } else {
            print(output, &report, out)?;
        }
        output.flush()?;
    }
    Ok(status)
}

fn convert(session: &SessionFiles, out: &Path) -> anyhow::Result<ConvertReport> {
    let bar = ProgressBar::with_draw_target(None, progress_target());
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(session.session_id.clone());
    let mut progress = |progress: Progress| {
        bar.set_length(progress.total.max(progress.done));
        bar.set_position(progress.done);
    };
    let options = ConvertOptions {
        progress: Some(&mut progress),
        ..ConvertOptions::default()
    };
    let result = convert_session(session, out, options);
    bar.finish_and_clear();
    result.with_context(|| format!("session {}", session.session_id))
}

/// Standard error when it is a terminal, else nowhere.
fn progress_target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    }
}

fn print(output: &mut Output, report: &ConvertReport, out: &Path) -> anyhow::Result<()> {
    let out = human::plain(&out.display().to_string());
    writeln!(output, "Session {} -> {out}", report.session_id)?;
    let mut table = human::table(&[
        "category",
        ">lines",
        ">bytes",
        ">offered",
        ">sampled out",
        ">dropped",
        ">damaged",
    ]);
    for (category, counted) in &report.counted.categories {
        let file = report.files.iter().find(|file| file.category == *category);
        let closed = report.ledger.as_ref();
        let closed = closed.and_then(|ledger| ledger.categories.get(category));
        let known = |value: Option<u64>| human::right(value.map_or("?".to_owned(), human::count));
        table.add_row(vec![
            category.into(),
            human::right(human::count(counted.written())),
            human::right(human::bytes(file.map_or(0, |file| file.bytes))),
            known(closed.map(Account::offered)),
            known(closed.map(Account::sampled_out)),
            known(closed.map(Account::dropped_total)),
            human::right(human::count(counted.dropped_total())),
        ]);
    }
    if !report.counted.categories.is_empty() {
        writeln!(output, "{table}")?;
    }
    let (blocks, segments) = (
        human::count(report.blocks),
        human::bytes(report.segment_bytes),
    );
    let lines = human::count(report.lines);
    writeln!(
        output,
        "{lines} lines from {blocks} blocks, {segments} of segments"
    )?;
    for fault in &report.faults {
        writeln!(output, "fault: {fault}")?;
    }
    Ok(())
}

fn to_json(report: &ConvertReport) -> Json {
    let files = report.files.iter().map(|file| {
        json!({
            "category": file.category,
            "path": file.path.display().to_string(),
            "lines": file.lines,
            "bytes": file.bytes,
        })
    });
    json!({
        "session_id": report.session_id,
        "files": files.collect::<Json>(),
        "lines": report.lines,
        "records": report.records,
        "blocks": report.blocks,
        "segment_bytes": report.segment_bytes,
        "sealed": report.sealed,
        "damaged_unknown": report.damaged_unknown,
        "counted": report.counted.to_json(),
        "ledger": report.ledger.as_ref().map(Ledger::to_json),
        "faults": report.faults,
    })
}
