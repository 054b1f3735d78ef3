//! `stormlog verify`: counts a session again and compares.

mod check;
mod content;
mod durations;
mod lines;
mod losses;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};

use self::check::{Facts, Findings, Recounted};
use self::content::Comparison;
use self::durations::Found;
use self::lines::Counted;
use super::convert::progress_bar;
use super::places::{Place, places};
use super::secrets::Redaction;
use super::{Output, Status, human};
use crate::convert::{ConvertOptions, Progress, convert_lines};
use crate::error::Error;
use crate::ledger::{Account, Ledger};
use crate::redact::Rules;
use crate::segment::figures::Figures;
use crate::segment::files::{ConversionGuard, Liveness, SegmentFile, SessionFiles, is_live};
use crate::segment::survey::Survey;

const EXAMPLES: &str = "\
Examples:
  stormlog verify ./debug_logs                  every session of a log directory
  stormlog verify ./debug_logs/.stormlog/20261121_101112
  stormlog verify ./debug_logs/20261121_101112_session.jsonl
  stormlog verify ./debug_logs --json | jq 'select(.agrees == false).disagreements[]'

Counts the records in the segments and the lines of the JSON Lines files, parses every line, and
compares with the ledger in session_end and with the file ledger: per category
offered = written + sampled_out + dropped + interrupted, and written = records = lines; lines have
the right session_id and elapsed_seconds that do not fall; seals and checksums are right; where
there are segments the lines are theirs, byte for byte; the durations that the session tells at its
end fit each other and the offered records, and those in the segments where all of a category were
written. A session without segments is verified
from its lines alone, a session that is still being recorded as far as it can be.

JSON, one object per session: session_id, state, agrees, always_lost, records and lines (by
category), ledger, ledger_from (lines, segments or ledger), disagreements, lost, notes.

Exit code: 0 all agrees and no Always record was lost, 1 something disagrees or one was lost,
2 could not run.";

/// How often, and in which steps, the end of a conversion is waited for: 2 s in all.
const TURN_TRIES: u32 = 40;
const TURN_PAUSE: Duration = Duration::from_millis(50);
/// Looks at a session that is removed or closed meanwhile.
const TRIES: u32 = 3;

/// Count sessions again and compare with their ledgers: is everything there?
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Log directories, session directories, segments or files with lines.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print JSON, one line per session.
    #[arg(long)]
    json: bool,
    /// As the lines were made with.
    #[command(flatten)]
    redaction: Redaction,
}

/// Runs the command.
///
/// # Errors
/// When a path holds no session, or a file cannot be read.
pub fn run(args: &Args, output: &mut Output) -> anyhow::Result<Status> {
    let rules = args.redaction.rules()?;
    let mut sessions: BTreeMap<(PathBuf, String), Place> = BTreeMap::new();
    for path in &args.paths {
        let found = places(path)?;
        if found
            .iter()
            .all(|place| place.session_dir.is_none() && place.lines.is_empty())
        {
            return Err(Error::NoSession {
                path: path.clone(),
                remedy: "name a log directory, a session directory, a segment or a file of lines",
            }
            .into());
        }
        for place in found {
            sessions.insert((place.log_dir.clone(), place.id.clone()), place);
        }
    }
    let mut status = Status::Ok;
    for place in sessions.into_values() {
        let facts = read(place, rules.as_ref())?;
        let findings = facts.check();
        if !findings.agrees() || findings.always_lost > 0 {
            status = Status::Faults;
        }
        if args.json {
            writeln!(output, "{}", human::json_line(&to_json(&facts, &findings)))?;
        } else {
            print(output, &facts, &findings)?;
        }
        output.flush()?;
    }
    Ok(status)
}

/// Reads a session; again when it was removed or closed while it was read.
fn read(mut place: Place, rules: Option<&Rules>) -> anyhow::Result<Facts> {
    for _ in 1..TRIES {
        let was_there = place.session_dir.clone();
        let facts = read_once(place.clone(), rules);
        let is_gone = was_there.as_ref().is_some_and(|dir| !dir.exists());
        let has_ended = facts.as_ref().is_ok_and(|facts| facts.live)
            && was_there.is_some_and(|dir| !is_live(&dir).may_live());
        if !is_gone && !has_ended {
            return facts;
        }
        let mut found = places(&place.log_dir)?.into_iter();
        match found.find(|found| found.id == place.id) {
            Some(found) => place = found,
            None => return facts,
        }
    }
    read_once(place, rules)
}

fn read_once(place: Place, rules: Option<&Rules>) -> anyhow::Result<Facts> {
    let mut facts = Facts::default();
    let bar = progress_bar(&place.id);
    if let Some(dir) = &place.session_dir {
        // Asked first: what is closed while we read is taken for live.
        let liveness = is_live(dir);
        facts.live = matches!(liveness, Liveness::Live { .. });
        facts.figures = Some(Figures::read(dir)?);
        let _turn = read_segments(&place, dir, rules, &mut facts, &bar)?;
        read_lines(&place, &mut facts, &bar)?;
    } else {
        read_lines(&place, &mut facts, &bar)?;
    }
    bar.finish_and_clear();
    facts.place = place;
    Ok(facts)
}

/// Reads the segments. The guard keeps others from replacing the lines meanwhile.
fn read_segments(
    place: &Place,
    dir: &Path,
    rules: Option<&Rules>,
    facts: &mut Facts,
    bar: &ProgressBar,
) -> anyhow::Result<Option<ConversionGuard>> {
    let sessions = match SessionFiles::find_all(&[dir]) {
        Ok((sessions, _)) => sessions,
        Err(error @ (Error::NoSession { .. } | Error::Corrupt { .. })) => {
            let live = facts.live;
            facts.recounted = (!live).then(|| Recounted {
                faults: vec![format!("no segment can be read: {error}")],
                ..Recounted::default()
            });
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let mut sessions = sessions.into_iter();
    let Some(mut files) = sessions.find(|files| files.session_id == place.id) else {
        return Ok(None);
    };
    if facts.live {
        forget_unprepared(dir, &mut files);
        facts.survey = Some(Survey::new(&files, false)?);
        return Ok(None);
    }
    let mut survey = Survey::new(&files, false)?;
    // The conversion has its own; a segment may hold millions.
    survey.registry.clock_points.clear();
    facts.survey = Some(survey);
    if let Some(survey) = facts
        .survey
        .as_ref()
        .filter(|survey| survey.faults.is_empty())
    {
        facts.durations = Some(Found::read(&files, &survey.registry)?);
    }
    let guard = wait_for_turn(&files, facts);
    let none = BTreeMap::new();
    let mut comparison = Comparison::open(if facts.converting {
        &none
    } else {
        &place.lines
    })?;
    let mut progress = |progress: Progress| {
        bar.set_length(progress.total.max(progress.done));
        bar.set_position(progress.done);
    };
    let options = ConvertOptions {
        progress: Some(&mut progress),
        redact: rules.cloned(),
        ..ConvertOptions::default()
    };
    let report = convert_lines(&files, &mut comparison, options)
        .with_context(|| format!("session {}", place.id))?;
    let counted = report.counted.categories.iter();
    let counted = counted.map(|(name, account)| (name.clone(), account.written()));
    let lines: BTreeMap<_, _> = counted.collect();
    let differs = lines
        .keys()
        .filter_map(|name| Some((name.clone(), comparison.differs_at(name)?)));
    facts.recounted = Some(Recounted {
        differs: differs.collect(),
        lines,
        ledger: report.ledger,
        sealed: report.sealed,
        faults: report.faults,
    });
    Ok(guard)
}

/// Keeps others from converting the session. Where directories cannot be locked nobody converts
/// one that has ended.
fn wait_for_turn(files: &SessionFiles, facts: &mut Facts) -> Option<ConversionGuard> {
    for _ in 0..TURN_TRIES {
        match files.try_lock() {
            Ok(None) => std::thread::sleep(TURN_PAUSE),
            Ok(guard) => return guard,
            Err(_) => return None,
        }
    }
    facts.converting = true;
    None
}

/// A session that runs prepares its next segment: that file is no segment until its two headers
/// are there.
fn forget_unprepared(dir: &Path, files: &mut SessionFiles) {
    let last = files.segments.last().map_or(0, SegmentFile::number);
    for number in [last, last.saturating_add(1)] {
        let path = dir.join(format!("{number:06}.seg")).display().to_string();
        files.faults.retain(|fault| !fault.starts_with(&path));
    }
}

fn read_lines(place: &Place, facts: &mut Facts, bar: &ProgressBar) -> anyhow::Result<()> {
    if facts.converting {
        return Ok(());
    }
    let mut bytes = 0;
    for path in place.lines.values() {
        bytes += path.metadata().map_or(0, |metadata| metadata.len());
    }
    bar.set_length(bytes);
    bar.set_position(0);
    let tick = |bytes| bar.inc(bytes);
    for (category, path) in &place.lines {
        let counted = Counted::read(path, &place.id, &tick);
        let counted = counted.with_context(|| format!("cannot read {}", path.display()))?;
        facts.lines.insert(category.clone(), counted);
    }
    Ok(())
}

impl Findings {
    fn agrees(&self) -> bool {
        self.disagreements.is_empty()
    }
}

impl Facts {
    /// As in `stormlog sessions`.
    fn state(&self) -> &'static str {
        let sealed = self.recounted.as_ref().map(|recounted| recounted.sealed);
        match (self.live, sealed) {
            (true, _) => "live",
            (false, Some(true)) => "closed",
            (false, Some(false)) if self.survey.is_some() => "open",
            (false, Some(false)) => "damaged",
            (false, None) if self.ends_in_lines() => "converted",
            (false, None) => "unknown",
        }
    }

    fn ends_in_lines(&self) -> bool {
        let session = self.lines.get("session");
        session.is_some_and(|session| session.ledger.is_some())
    }

    /// Records in segments by category.
    fn records(&self) -> Option<BTreeMap<String, u64>> {
        self.survey.as_ref().map(Survey::by_category)
    }
}

fn to_json(facts: &Facts, findings: &Findings) -> Json {
    let lines = facts.lines.iter();
    let lines: BTreeMap<_, _> = lines.map(|(name, counted)| (name, counted.lines)).collect();
    let ledger = findings.ledger.as_ref();
    json!({
        "session_id": facts.place.id,
        "state": facts.state(),
        "agrees": findings.agrees(),
        "always_lost": findings.always_lost,
        "records": facts.records(),
        "lines": (!lines.is_empty()).then_some(lines),
        "ledger": ledger.map(|(ledger, _)| ledger.to_json()),
        "ledger_from": ledger.map(|(_, from)| from),
        "disagreements": findings.disagreements,
        "lost": findings.lost,
        "notes": findings.notes,
    })
}

fn print(output: &mut Output, facts: &Facts, findings: &Findings) -> anyhow::Result<()> {
    writeln!(output, "Session {}: {}", facts.place.id, facts.state())?;
    let nothing = Ledger::default();
    let ledger = findings.ledger.as_ref().map(|(ledger, _)| ledger);
    let accounts = &ledger.unwrap_or(&nothing).categories;
    let records = facts.records();
    let mut names: Vec<&String> = accounts.keys().chain(facts.lines.keys()).collect();
    names.extend(records.iter().flat_map(BTreeMap::keys));
    names.sort_unstable();
    names.dedup();
    let mut table = human::Table::new(&[
        "category",
        ">records",
        ">lines",
        ">written",
        ">offered",
        ">sampled out",
        ">dropped",
        ">interrupted",
    ]);
    for name in &names {
        let shown = |count: Option<u64>| count.map_or("-".to_owned(), human::count);
        let account = accounts.get(*name);
        table.row([
            (*name).clone(),
            shown(records.as_ref().map(|r| r.get(*name).copied().unwrap_or(0))),
            shown(facts.lines.get(*name).map(|counted| counted.lines)),
            shown(account.map(Account::written)),
            shown(account.map(Account::offered)),
            shown(account.map(Account::sampled_out)),
            shown(account.map(Account::dropped_total)),
            shown(account.map(Account::interrupted)),
        ]);
    }
    if !names.is_empty() {
        writeln!(output, "{table}")?;
    }
    for note in &findings.notes {
        writeln!(output, "  {}", human::plain(note))?;
    }
    for lost in &findings.lost {
        writeln!(output, "lost: {}", human::plain(lost))?;
    }
    for disagreement in &findings.disagreements {
        writeln!(output, "disagrees: {}", human::plain(disagreement))?;
    }
    if findings.agrees() {
        writeln!(output, "  everything agrees")?;
    }
    Ok(())
}
