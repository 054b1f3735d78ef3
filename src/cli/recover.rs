//! `stormlog recover`: completes sessions whose process died.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Value as Json, json};

use super::output::complain;
use super::sessions::left_sentence;
use super::{Output, Status, convert, human};
use crate::convert::ConvertReport;
use crate::recover::{RecoverOptions, RecoverReport, State, recover_session, session_ids};
use crate::segment::files::{SESSIONS_DIR, SessionFiles, left_in_shm};

const EXAMPLES: &str = "\
Examples:
  stormlog recover ./debug_logs                  all sessions whose process has died
  stormlog recover ./debug_logs --session 20261121_101112
  stormlog recover ./debug_logs --dry-run --json | jq .from_rings

What a dead process left in the file rings, in the session directory or in /dev/shm, is written into
one more segment, with a session_end that says \"recovered\": true and the ledger; then the session
is converted. Sessions that are alive, or complete, are not touched. It can be interrupted and run
again. Rings in /dev/shm that it does not recover, because they are of another log directory, are
named at the end. Rings in memory died with the process: the session is completed with what is
known.

Exit code: 0 all sessions are complete, 1 something was lost or damaged or is not known, or another
process works on a session, 2 could not run.";

/// Complete sessions whose process died: segments and what was left in rings.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The log directory.
    #[arg(
        value_name = "DIR",
        env = "DEBUG_LOG_DIR",
        default_value = "./debug_logs"
    )]
    dir: PathBuf,
    /// Only this session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Say what would be recovered, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not make JSON Lines.
    #[arg(long)]
    no_convert: bool,
    /// Print JSON, one line per session.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: convert::Threads,
}

/// Runs the command.
///
/// # Errors
/// When the directory or a session cannot be read, or nothing can be written.
pub fn run(args: &Args, output: &mut Output) -> anyhow::Result<Status> {
    let mut ids = session_ids(&args.dir)?;
    if let Some(wanted) = &args.session {
        ids.retain(|id| id == wanted);
        if ids.is_empty() {
            bail!("no session {wanted} in {}", args.dir.display());
        }
    }
    let options = RecoverOptions {
        dry_run: args.dry_run,
        ..RecoverOptions::default()
    };
    let mut status = Status::Ok;
    for id in ids {
        let mut report = match recover_session(&args.dir, &id, options) {
            Ok(report) => report,
            // The others may be sound.
            Err(error) if args.session.is_none() => {
                complain(&format!("stormlog: session {id}: {error}"));
                status = Status::Faults;
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("session {id}")),
        };
        let wanted = args.session.is_some() || report.state == State::Recovered;
        let complete = matches!(report.state, State::Recovered | State::Complete);
        let convert = wanted && complete && !args.dry_run && !args.no_convert;
        let converted = if convert {
            make_lines(args, &mut report)?
        } else {
            None
        };
        let lost = report.ledger.total();
        let lost = lost.interrupted() + lost.dropped(crate::ledger::DropReason::Damaged);
        if report.state == State::Busy || !report.faults.is_empty() {
            status = Status::Faults;
        }
        report
            .faults
            .iter_mut()
            .for_each(|fault| *fault = human::plain(fault));
        if args.json {
            let line = to_json(&report, converted.as_ref(), args.dry_run);
            writeln!(output, "{}", human::json_line(&line))?;
        } else {
            print(output, &report, converted.as_ref(), lost, args.dry_run)?;
        }
    }
    if !args.json {
        for rings in left_in_shm(&args.dir) {
            writeln!(output, "{}", left_sentence(&rings, &args.dir))?;
        }
    }
    Ok(status)
}

/// Makes JSON Lines of a session that is complete now; what is wrong with them is added.
fn make_lines(args: &Args, report: &mut RecoverReport) -> anyhow::Result<Option<ConvertReport>> {
    let dir = args.dir.join(SESSIONS_DIR).join(&report.session_id);
    let mut files = SessionFiles::find(&dir)?;
    let turns = convert::Turns::take(&files);
    let Some(session) = files.pop() else {
        return Ok(None);
    };
    if let Some(why) = turns.refused(&session) {
        report.faults.push(format!("{why}: not converted"));
        return Ok(None);
    }
    let converted = convert::convert(&session, &session.log_dir, false, None, args.threads)?;
    let known = &mut report.faults;
    for fault in &converted.faults {
        if !known.contains(fault) {
            known.push(fault.clone());
        }
    }
    Ok(Some(converted))
}

fn to_json(report: &RecoverReport, converted: Option<&ConvertReport>, dry_run: bool) -> Json {
    json!({
        "session_id": report.session_id,
        "state": report.state.name(),
        "dry_run": dry_run,
        "rings": report.rings_found,
        "in_segments": report.in_segments,
        "from_rings": report.from_rings,
        "from_spill": report.from_spill,
        "segment": report.segment,
        "ledger": report.ledger.to_json(),
        "lines": converted.map(|converted| converted.lines),
        "faults": report.faults,
    })
}

fn print(
    output: &mut Output,
    report: &RecoverReport,
    converted: Option<&ConvertReport>,
    lost: u64,
    dry_run: bool,
) -> anyhow::Result<()> {
    let id = &report.session_id;
    match report.state {
        State::Recovered => {
            let done = if dry_run {
                "would be recovered"
            } else {
                "recovered"
            };
            writeln!(
                output,
                "{id}: {done}: {} in segments, {} from rings, {} from the spill; {} not known to \
                 be written",
                human::counted(report.in_segments, "record"),
                human::count(report.from_rings),
                human::count(report.from_spill),
                human::count(lost),
            )?;
        }
        State::Complete => writeln!(output, "{id}: complete")?,
        State::Empty => writeln!(output, "{id}: nothing was recorded")?,
        State::Live => writeln!(output, "{id}: a process may be recording it: not touched")?,
        State::Busy => writeln!(output, "{id}: another process works on it: try again")?,
    }
    for file in converted.iter().flat_map(|converted| &converted.files) {
        let lines = human::counted(file.lines, "line");
        writeln!(output, "  {} ({lines})", file.path.display())?;
    }
    for fault in &report.faults {
        writeln!(output, "  {fault}")?;
    }
    Ok(())
}
