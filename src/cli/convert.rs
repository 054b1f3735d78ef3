//! `stormlog convert`: segments to JSON Lines.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};

use super::output::{complain, files_json};
use super::secrets::Redaction;
use super::{Output, Status, human};
use crate::convert::{ConvertOptions, ConvertReport, LeftOut, Progress, convert_session};
use crate::ledger::{Account, Ledger};
use crate::redact::Rules;
use crate::segment::files::{ConversionGuard, Liveness, SessionFiles};

const EXAMPLES: &str = "\
Examples:
  stormlog convert ./debug_logs                      all sessions that still have segments
  stormlog convert ./debug_logs/.stormlog/20261121_101112
  stormlog convert 000001.seg 000002.seg --out /tmp  what is readable of two segments
  stormlog convert ./debug_logs --json | jq .faults
  stormlog convert ./debug_logs --redact-name engine_pin --redact-pattern 'corp-[0-9]+'
  stormlog convert ./debug_logs --salvage            also what stands behind damage

Of a damaged segment everything before the first damaged block is converted. With --salvage also
every whole block behind it, and segments of which both headers are damaged, if another file of
their session tells what stood there. A record is never made up: one that needs a damaged part of
the registry, or a body that is lost, is counted as damaged. The report says what was left out
(left_out in JSON: bytes, and blocks and records where a seal counts them, else null).

Values of fields with names such as password, and texts that look like tokens, are written as
[redacted]; docs/SECURITY.md tells which.

A session that is still being recorded is converted as far as it is; its process replaces the
results with the whole when it ends.

Exit code: 0 all records converted, 1 damage or lost records were found (what is valid is
converted all the same) or a session is still being recorded, 2 could not run.";

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
    /// Besides what the session was recorded with.
    #[command(flatten)]
    redaction: Redaction,
    /// Go on behind damage: take every whole block of a damaged segment, not only those before the
    /// first that is damaged or missing.
    #[arg(long)]
    salvage: bool,
    #[command(flatten)]
    threads: Threads,
}

/// How many threads convert a session.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Threads {
    /// Threads that convert, 1 to 16; the lines do not depend on it [default: as many as cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    threads: Option<u8>,
}

impl Threads {
    fn count(self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, usize::from)
    }
}

/// Runs the command.
///
/// # Errors
/// When a path holds no session, or results cannot be written.
pub fn run(args: &Args, output: &mut Output) -> anyhow::Result<Status> {
    let rules = args.redaction.rules()?;
    let find = if args.salvage {
        SessionFiles::find_headless
    } else {
        SessionFiles::find_all
    };
    let mut found = find(&args.paths)?;
    let turns = Turns::take(&found.0);
    if found.0.iter().any(|session| session.liveness().may_live()) {
        // Those that were recorded meanwhile too.
        found = find(&args.paths)?;
    }
    let (sessions, unreadable) = found;
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
        let refused = if twin {
            Some("another session has the same id")
        } else {
            turns.refused(session)
        };
        let mut report = match refused {
            Some(why) => ConvertReport {
                session_id: session.session_id.clone(),
                faults: vec![format!("{why}: not converted")],
                ..ConvertReport::default()
            },
            None => convert(session, out, args.salvage, rules.clone(), args.threads)?,
        };
        report
            .faults
            .iter_mut()
            .for_each(|fault| *fault = human::plain(fault));
        if !report.sealed && has_rings(session) {
            let dir = human::shell(&session.log_dir.display().to_string());
            report.faults.push(format!(
                "its process died and left its rings: stormlog recover {dir} takes what is in them"
            ));
        }
        if report.left_out != LeftOut::default() && !args.salvage {
            let dir = human::shell(&session.log_dir.display().to_string());
            report.faults.push(format!(
                "what stands behind damage was not read: stormlog convert --salvage {dir} does"
            ));
        }
        let unfinished = !report.sealed && still_records(session);
        if unfinished || !report.faults.is_empty() {
            status = Status::Faults;
        }
        if args.json {
            writeln!(output, "{}", human::json_line(&to_json(&report)))?;
        } else {
            print(output, &report, out)?;
        }
        output.flush()?;
    }
    Ok(status)
}

/// Whether a dead process has left its rings.
fn has_rings(session: &SessionFiles) -> bool {
    let path = session.segments.first().map(|segment| &segment.path);
    let exists = |name| path.is_some_and(|path| path.with_file_name(name).exists());
    !session.liveness().may_live() && (exists("rings") || exists("rings.shm"))
}

/// The right to convert each of several sessions.
pub(super) struct Turns(BTreeMap<[u8; 16], Turn>);

enum Turn {
    /// Until the guard is dropped.
    Ours(#[expect(dead_code, reason = "held")] ConversionGuard),
    /// Another process has it.
    Busy,
    /// It cannot be taken here: only for sessions that nobody else converts.
    Unsafe,
}

impl Turns {
    /// Takes those that can be had now.
    pub(super) fn take(sessions: &[SessionFiles]) -> Self {
        let turns = sessions.iter().map(|session| {
            let turn = match session.try_lock() {
                Ok(Some(guard)) => Turn::Ours(guard),
                Ok(None) => Turn::Busy,
                Err(_) => Turn::Unsafe,
            };
            (session.nonce, turn)
        });
        Self(turns.collect())
    }

    /// Why a session cannot be converted now.
    pub(super) fn refused(&self, session: &SessionFiles) -> Option<&'static str> {
        match self.0.get(&session.nonce) {
            Some(Turn::Ours(_)) => None,
            Some(Turn::Busy) => Some("another process is converting it"),
            Some(Turn::Unsafe) if !session.liveness().may_live() => None,
            Some(Turn::Unsafe) => Some("it may still be recording and cannot be locked"),
            None => Some("it has just started"),
        }
    }
}

/// Whether a session goes on; says so on standard error.
fn still_records(session: &SessionFiles) -> bool {
    let Liveness::Live { pid } = session.liveness() else {
        return false;
    };
    let process = pid
        .map(|pid| format!(" by process {pid}"))
        .unwrap_or_default();
    complain(&format!(
        "stormlog: session {} is still being recorded{process}: this is what was there",
        session.session_id
    ));
    true
}

pub(super) fn convert(
    session: &SessionFiles,
    out: &Path,
    salvage: bool,
    redact: Option<Rules>,
    threads: Threads,
) -> anyhow::Result<ConvertReport> {
    let bar = progress_bar(&session.session_id);
    let mut progress = |progress: Progress| {
        bar.set_length(progress.total.max(progress.done));
        bar.set_position(progress.done);
    };
    let options = ConvertOptions {
        progress: Some(&mut progress),
        redact,
        salvage,
        threads: threads.count(),
        ..ConvertOptions::default()
    };
    let result = convert_session(session, out, options);
    bar.finish_and_clear();
    result.with_context(|| format!("session {}", session.session_id))
}

/// A bar that shows bytes, where standard error is a terminal.
pub(super) fn progress_bar(session_id: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, progress_target());
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(session_id.to_owned());
    bar
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
    let mut table = human::Table::new(&[
        "category",
        ">lines",
        ">estimated",
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
        let known = |value: Option<u64>| value.map_or("?".to_owned(), human::count);
        table.row([
            category.clone(),
            human::count(counted.written()),
            human::count(
                report
                    .estimated
                    .get(category)
                    .map_or(0, |sum| sum.round() as u64),
            ),
            human::bytes(file.map_or(0, |file| file.bytes)),
            known(closed.map(Account::offered)),
            known(closed.map(Account::sampled_out)),
            known(closed.map(Account::dropped_total)),
            human::count(counted.dropped_total()),
        ]);
    }
    if !report.counted.categories.is_empty() {
        writeln!(output, "{table}")?;
    }
    let lines = human::counted(report.lines, "line");
    let blocks = human::counted(report.blocks, "block");
    let segments = human::bytes(report.segment_bytes);
    writeln!(output, "{lines} from {blocks}, {segments} of segments")?;
    if report.redacted > 0 {
        let secrets = human::counted(report.redacted, "secret");
        writeln!(
            output,
            "{secrets} replaced by [redacted]; --no-redact shows the values"
        )?;
    }
    let LeftOut {
        bytes,
        blocks,
        records,
    } = report.left_out;
    if bytes > 0 || blocks != Some(0) {
        let known = |count: Option<u64>, one| match count {
            Some(count) => human::counted(count, one),
            None => format!("an unknown number of {one}s"),
        };
        let (blocks, records) = (known(blocks, "block"), known(records, "record"));
        let bytes = human::bytes(bytes);
        writeln!(output, "left out: {bytes} with {blocks} and {records}")?;
    }
    for fault in &report.faults {
        writeln!(output, "fault: {fault}")?;
    }
    Ok(())
}

fn to_json(report: &ConvertReport) -> Json {
    json!({
        "session_id": report.session_id,
        "files": files_json(&report.files),
        "lines": report.lines,
        "redacted": report.redacted,
        "records": report.records,
        "blocks": report.blocks,
        "segment_bytes": report.segment_bytes,
        "sealed": report.sealed,
        "damaged_unknown": report.damaged_unknown,
        "left_out": {
            "bytes": report.left_out.bytes,
            "blocks": report.left_out.blocks,
            "records": report.left_out.records,
        },
        "counted": report.counted.to_json(),
        "estimated": human::estimates_json(&report.estimated),
        "ledger": report.ledger.as_ref().map(Ledger::to_json),
        "faults": report.faults,
    })
}
