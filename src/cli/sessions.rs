//! `stormlog sessions`: the sessions in a log directory.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value as Json, json};

use super::places::open_lines;
use super::{Output, Status, human};
use crate::convert::{parse_ledger, rfc3339};
use crate::ledger::Ledger;
use crate::record::is_category_name;
use crate::segment::files::{
    LeftRings, Liveness, SESSIONS_DIR, SessionFiles, is_live, left_in_shm,
};
use crate::segment::header::{SESSION_ID_BYTES, is_session_id};
use crate::segment::survey::Survey;

const EXAMPLES: &str = "\
Examples:
  stormlog sessions                     sessions in ./debug_logs
  stormlog sessions /var/log/app --json | jq -r 'select(.state == \"open\").session_id'

States:
  live       a process records it, or converts what it has recorded
  closed     ended, its segments are still there
  open       its process died before the end: stormlog convert saves what was recorded
  converted  ended, only its JSON Lines are there
  unknown    JSON Lines without a session_end, or segments without the last seal of which it
             cannot be told whether a process records them
  damaged    no segment can be read

Rings in /dev/shm whose process has died are named below the sessions, with their bytes: they take
memory until they are recovered or removed.

Exit code: 0 listed, 1 a session is damaged, 2 could not run.";

/// Bytes at the end of a `session` file in which `session_end` is looked for.
const TAIL_BYTES: u64 = 1 << 20;
/// The longest first line that is read.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// List the sessions in a log directory.
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
    /// Print JSON, one line per session.
    #[arg(long)]
    json: bool,
}

/// What is known about a session.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) state: &'static str,
    started: Option<String>,
    duration_ns: Option<u64>,
    /// From `session_end` in the JSON Lines.
    pub(super) ledger: Option<Ledger>,
    records: Option<u64>,
    bytes: u64,
    /// Bytes of rings in `/dev/shm` that its dead process has left.
    in_shm: Option<u64>,
    /// Records by category, where they are known.
    categories: BTreeMap<String, Option<u64>>,
}

/// Runs the command.
///
/// # Errors
/// When the directory cannot be read.
pub fn run(args: &Args, output: &mut Output) -> anyhow::Result<Status> {
    let mut sessions = from_json_lines(&args.dir)?;
    add_segments(&args.dir, &mut sessions)?;
    let left = left_in_shm(&args.dir);
    for rings in &left {
        let session = rings
            .session_id
            .as_ref()
            .and_then(|id| sessions.get_mut(id));
        if let Some(session) = session {
            session.in_shm = Some(rings.bytes);
        }
    }
    let damaged = sessions.values().any(|session| session.state == "damaged");
    if args.json {
        for (id, session) in &sessions {
            writeln!(output, "{}", human::json_line(&to_json(id, session)))?;
        }
    } else {
        print(output, &args.dir, &sessions)?;
        for rings in &left {
            writeln!(output, "{}", left_sentence(rings, &args.dir))?;
        }
    }
    Ok(if damaged { Status::Faults } else { Status::Ok })
}

/// Sessions of the files `{session}_{category}.jsonl`.
fn from_json_lines(dir: &Path) -> anyhow::Result<BTreeMap<String, Found>> {
    let mut sessions: BTreeMap<String, Found> = BTreeMap::new();
    let shown = || format!("cannot list {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        let name = entry.file_name();
        let Some((id, category)) = name.to_str().and_then(split_name) else {
            continue;
        };
        let metadata = entry.metadata().with_context(shown)?;
        if !metadata.is_file() {
            continue;
        }
        let session = sessions.entry(id.to_owned()).or_default();
        session.state = "unknown";
        session.bytes += metadata.len();
        session.categories.entry(category.to_owned()).or_default();
    }
    for (id, session) in &mut sessions {
        let path = dir.join(format!("{id}_session.jsonl"));
        match read_markers(&path, session) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(sessions)
}

/// Session id and category of a file `{session}_{category}.jsonl`.
pub(super) fn split_name(name: &str) -> Option<(&str, &str)> {
    let (id, rest) = name
        .strip_suffix(".jsonl")?
        .split_at_checked(SESSION_ID_BYTES)?;
    let category = rest.strip_prefix('_')?;
    (is_session_id(id) && is_category_name(category)).then_some((id, category))
}

/// Takes start and end from the first and the last lines of a `session` file.
pub(super) fn read_markers(path: &Path, session: &mut Found) -> io::Result<()> {
    let mut file = open_lines(path)?;
    let mut first = Vec::new();
    BufReader::new(&file)
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut first)?;
    if let Ok(json) = serde_json::from_slice::<Json>(&first) {
        session.started = json["timestamp"].as_str().map(str::to_owned);
    }
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    for line in tail.split(|byte| *byte == b'\n') {
        let Ok(json) = serde_json::from_slice::<Json>(line) else {
            continue;
        };
        if json["event"] != "session_end" {
            continue;
        }
        session.state = "converted";
        let elapsed = json["elapsed_seconds"].as_f64();
        session.duration_ns = elapsed.map(|seconds| (seconds * 1e9) as u64);
        let Some(ledger) = parse_ledger(&json["ledger"]) else {
            continue;
        };
        session.records = Some(ledger.total().written());
        for (category, account) in &ledger.categories {
            session
                .categories
                .insert(category.clone(), Some(account.written()));
        }
        session.ledger = Some(ledger);
    }
    Ok(())
}

/// Sessions of the directories in `.stormlog`.
fn add_segments(dir: &Path, sessions: &mut BTreeMap<String, Found>) -> anyhow::Result<()> {
    let segments = dir.join(SESSIONS_DIR);
    let entries = match std::fs::read_dir(&segments) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("cannot list {}", segments.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", segments.display()))?;
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let Some(id) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if !is_dir || !is_session_id(&id) {
            continue;
        }
        // Asked first: what is closed while we read is reported as live, not as damaged.
        let liveness = is_live(&path);
        let found = SessionFiles::find(&path).ok();
        let found = found.and_then(|found| found.into_iter().find(|s| s.session_id == id));
        let survey = found.map(|files| Survey::new(&files, false)).transpose();
        if survey.as_ref().map_or(true, Option::is_none) && !path.exists() {
            // It was converted and removed meanwhile.
            continue;
        }
        let session = sessions.entry(id).or_default();
        match survey? {
            Some(survey) => add_survey(&survey, liveness, session),
            None => session.state = state(None, liveness),
        }
    }
    Ok(())
}

/// The state of a session with a directory; `sealed` is `None` when no segment can be read.
pub(super) fn state(sealed: Option<bool>, liveness: Liveness) -> &'static str {
    match (liveness, sealed) {
        (Liveness::Live { .. }, _) => "live",
        (_, None) => "damaged",
        (_, Some(true)) => "closed",
        (Liveness::Dead, Some(false)) => "open",
        (Liveness::Unknown, Some(false)) => "unknown",
    }
}

fn add_survey(survey: &Survey, liveness: Liveness, session: &mut Found) {
    session.state = state(Some(survey.is_sealed()), liveness);
    if let Some((start, _, last)) = survey.span() {
        session.started = Some(rfc3339(start.utc_ns));
        session.duration_ns = Some(last.elapsed_ns);
    }
    session.records = Some(survey.records());
    session.bytes += survey.bytes();
    for (category, records) in survey.by_category() {
        session.categories.insert(category, Some(records));
    }
}

/// What a dead process has left in `/dev/shm`, and what to do about it.
pub(super) fn left_sentence(rings: &LeftRings, dir: &Path) -> String {
    let (bytes, path) = (human::bytes(rings.bytes), rings.path.display());
    let what = match &rings.session_id {
        Some(id) => format!(
            "{id}: a process that died has left its rings in {path} ({bytes}): stormlog recover {} \
             saves what is in them and removes them",
            dir.display()
        ),
        None => format!(
            "rings of a session that is not in {}: {path} ({bytes}): stormlog recover in its log \
             directory saves what is in them; when that is gone, rm -r {path}",
            dir.display()
        ),
    };
    human::plain(&what)
}

fn print(
    output: &mut Output,
    dir: &Path,
    sessions: &BTreeMap<String, Found>,
) -> anyhow::Result<()> {
    if sessions.is_empty() {
        let dir = human::plain(&dir.display().to_string());
        writeln!(output, "no sessions in {dir}")?;
        return Ok(());
    }
    let mut table = human::Table::new(&[
        "session",
        "state",
        "started",
        ">duration",
        ">records",
        ">bytes",
        "categories",
    ]);
    for (id, session) in sessions {
        let names: Vec<&str> = session.categories.keys().map(String::as_str).collect();
        let started = session.started.as_deref().unwrap_or("?");
        table.row([
            id.clone(),
            session.state.to_owned(),
            started.to_owned(),
            session.duration_ns.map_or("?".to_owned(), human::duration),
            session.records.map_or("?".to_owned(), human::count),
            human::bytes(session.bytes),
            names.join(" "),
        ]);
    }
    writeln!(output, "{table}")?;
    Ok(())
}

fn to_json(id: &str, session: &Found) -> Json {
    json!({
        "session_id": id,
        "state": session.state,
        "started_at": session.started,
        "duration_seconds": session.duration_ns.map(|ns| ns as f64 / 1e9),
        "records": session.records,
        "bytes": session.bytes,
        "shm_bytes": session.in_shm,
        "categories": session.categories,
    })
}
