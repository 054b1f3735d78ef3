//! `stormlog stats`: the ledger of sessions, also while they run.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Map, Value as Json, json};

use super::places::{Place, places};
use super::sessions::{self, Found};
use super::{Output, Status, human};
use crate::convert::rfc3339;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::segment::figures::Figures;
use crate::segment::files::{Liveness, SessionFiles, is_live};
use crate::segment::rings::Rings;
use crate::segment::survey::Survey;

const EXAMPLES: &str = "\
Examples:
  stormlog stats                             every session in ./debug_logs
  stormlog stats ./debug_logs --watch        again each second, until Ctrl-C
  stormlog stats ./debug_logs --json | jq 'select(.state == \"live\").pending'
  stormlog stats ./debug_logs --watch --json > stats.jsonl

States are those of stormlog sessions. A live session publishes its ledger each second (every 10 s
while nothing changes). Where its rings live in a file (not STORMLOG_RING_STORAGE=anonymous) the
counts of the producers are read from there and are those of now; written and dropped{disk} are
always the published ones. pending is what was offered and has no end yet: it is in a ring, or its
end was not yet published.

JSON, one object per line: session_id, state, pid, at, final, ledger (as in session_end), total,
pending, age_seconds and sources (by figure: ledger, rings or session_end), rings (used, active,
waiting_bytes, fullest), faults.

Exit code: 0 shown, 1 a file is damaged, 2 could not run.";

/// Time between two looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Show the ledger of sessions: offered, written, dropped, pending, per category.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A log directory or a session directory.
    #[arg(
        value_name = "DIR",
        env = "DEBUG_LOG_DIR",
        default_value = "./debug_logs"
    )]
    dir: PathBuf,
    /// Print JSON, one line per session.
    #[arg(long)]
    json: bool,
    /// Look again each second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// What is known of a session at one moment.
struct Shown {
    id: String,
    state: &'static str,
    pid: Option<u32>,
    /// Ns since 1970.
    at: u64,
    figures: Figures,
    /// The ledger is that of `session_end` in the lines.
    from_lines: bool,
}

/// Runs the command.
///
/// # Errors
/// When the directory cannot be read.
pub fn run(args: &Args, output: &mut Output) -> anyhow::Result<Status> {
    let clears = !args.json && std::io::stdout().is_terminal();
    loop {
        let mut status = Status::Ok;
        let mut shown = Vec::new();
        for place in places(&args.dir)? {
            shown.extend(look(&place)?);
        }
        if args.watch && clears {
            write!(output, "{CLEAR}")?;
        }
        if args.watch && !args.json {
            writeln!(output, "{}", rfc3339(now_ns()))?;
        }
        for session in &shown {
            if session.state == "damaged" || !session.figures.faults.is_empty() {
                status = Status::Faults;
            }
            if args.json {
                writeln!(output, "{}", human::json_line(&to_json(session)))?;
            } else {
                print(output, session)?;
            }
        }
        if shown.is_empty() && !args.json {
            let dir = human::plain(&args.dir.display().to_string());
            writeln!(output, "no sessions in {dir}")?;
        }
        if !args.watch {
            return Ok(status);
        }
        output.flush()?;
        std::thread::sleep(WATCH_EVERY);
    }
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// Looks at one session; `None` when it has just been removed.
fn look(place: &Place) -> anyhow::Result<Option<Shown>> {
    if let Some(dir) = &place.session_dir {
        // Asked first: what is closed while we read is reported as live, not as dead.
        let liveness = is_live(dir);
        match Figures::read(dir) {
            Ok(figures) => return Ok(Some(of_files(place, dir, liveness, figures)?)),
            // It was converted and removed meanwhile.
            Err(_) if !dir.exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let path = place.line_file("session");
    let mut found = Found::default();
    match sessions::read_markers(&path, &mut found) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => {}
    }
    if found.ledger.is_none() && place.lines.is_empty() {
        return Ok(None);
    }
    let (from_lines, state) = match found.state {
        "" => (false, "unknown"),
        state => (found.ledger.is_some(), state),
    };
    Ok(Some(Shown {
        id: place.id.clone(),
        state,
        pid: None,
        at: now_ns(),
        figures: Figures {
            ledger: found.ledger.unwrap_or_default(),
            ..Figures::default()
        },
        from_lines,
    }))
}

fn of_files(
    place: &Place,
    dir: &Path,
    liveness: Liveness,
    figures: Figures,
) -> Result<Shown, Error> {
    let sealed = match (liveness, figures.is_final()) {
        // Not asked for: a live session need not be read as a whole.
        (Liveness::Live { .. }, _) => None,
        (_, true) => Some(true),
        (_, false) if figures.published.is_some() => Some(false),
        // Its ledger is missing or damaged: the last seal tells.
        _ => match SessionFiles::find(dir) {
            Ok(found) => match found.first() {
                Some(files) => Some(Survey::new(files, false)?.is_sealed()),
                None => None,
            },
            Err(_) => None,
        },
    };
    Ok(Shown {
        id: place.id.clone(),
        state: sessions::state(sealed, liveness),
        pid: match liveness {
            Liveness::Live { pid } => pid,
            _ => None,
        },
        at: now_ns(),
        figures,
        from_lines: false,
    })
}

impl Shown {
    /// Whether nothing will be added to the counts.
    fn is_final(&self) -> bool {
        self.from_lines || self.figures.is_final()
    }

    fn is_live(&self) -> bool {
        self.state == "live"
    }

    /// Where the counts of the producers come from.
    fn producers_source(&self) -> Option<&'static str> {
        match (self.from_lines, &self.figures.rings) {
            (true, _) => Some("session_end"),
            (false, Some(_)) => Some("rings"),
            (false, None) => self.figures.published.as_ref().map(|_| "ledger"),
        }
    }

    /// Where the counts of the writer come from.
    fn writer_source(&self) -> Option<&'static str> {
        if self.from_lines {
            return Some("session_end");
        }
        self.figures.published.as_ref().map(|_| "ledger")
    }

    /// How old what comes from `source` is; `None` where it does not grow older.
    fn age_seconds(&self, source: &str) -> Option<f64> {
        match source {
            _ if self.is_final() => None,
            "ledger" => self.figures.age_ns().map(|ns| ns as f64 / 1e9),
            "rings" if self.is_live() => Some(0.0),
            _ => None,
        }
    }
}

fn to_json(shown: &Shown) -> Json {
    let figures = &shown.figures;
    let total = figures.ledger.total();
    let (producers, writer) = (shown.producers_source(), shown.writer_source());
    let mut ages = Map::new();
    for source in [producers, writer].into_iter().flatten() {
        ages.insert(source.to_owned(), shown.age_seconds(source).into());
    }
    let sources = json!({
        "offered": producers,
        "sampled_out": producers,
        "written": writer,
        "dropped": producers,
        "dropped.disk": writer,
        "interrupted": producers,
    });
    json!({
        "session_id": shown.id,
        "state": shown.state,
        "pid": shown.pid,
        "at": rfc3339(shown.at),
        "final": shown.is_final(),
        "ledger": producers.map(|_| figures.ledger.to_json()),
        "total": producers.map(|_| total.to_json()),
        "pending": producers.map(|_| total.pending()),
        "age_seconds": ages,
        "sources": sources,
        "rings": figures.rings.as_ref().map(rings_json),
        "faults": figures.faults,
    })
}

fn rings_json(rings: &Rings) -> Json {
    json!({
        "used": rings.used,
        "active": rings.active,
        "waiting_bytes": rings.waiting_bytes,
        "fullest": rings.fullest.map(|fill| json!({
            "ring": fill.ring_id,
            "waiting_bytes": fill.waiting_bytes,
            "capacity_bytes": fill.capacity_bytes,
            "fill": fill.part(),
        })),
    })
}

fn print(output: &mut Output, shown: &Shown) -> anyhow::Result<()> {
    let process = shown.pid.map(|pid| format!(", process {pid}"));
    let process = process.unwrap_or_default();
    writeln!(output, "Session {}: {}{process}", shown.id, shown.state)?;
    let figures = &shown.figures;
    if shown.producers_source().is_none() {
        let remedy = "stormlog inspect counts the records in its segments";
        writeln!(output, "  no ledger was published; {remedy}")?;
    } else {
        print_ledger(output, &figures.ledger)?;
    }
    if let Some(rings) = &figures.rings {
        writeln!(output, "  {}", describe_rings(rings))?;
    }
    writeln!(output, "  {}", describe_age(shown))?;
    for fault in &figures.faults {
        writeln!(output, "fault: {}", human::plain(fault))?;
    }
    Ok(())
}

fn print_ledger(output: &mut Output, ledger: &Ledger) -> anyhow::Result<()> {
    writeln!(output, "{}", human::ledger_with_pending(ledger))?;
    if let Some(reasons) = human::drop_reasons(ledger) {
        writeln!(output, "  {reasons}")?;
    }
    Ok(())
}

fn describe_rings(rings: &Rings) -> String {
    let used = human::counted(rings.used.into(), "ring");
    let waiting = human::bytes(rings.waiting_bytes);
    let fullest = rings.fullest.map(|fill| {
        let percent = fill.part() * 100.0;
        let (of, ring) = (human::bytes(fill.capacity_bytes), fill.ring_id);
        let waiting = human::bytes(fill.waiting_bytes);
        format!("; fullest {percent:.1} % ({waiting} of {of}, producer {ring})")
    });
    let fullest = fullest.unwrap_or_default();
    format!(
        "{used} used, {} active, {waiting} waiting{fullest}",
        rings.active
    )
}

fn describe_age(shown: &Shown) -> String {
    let name = |source| match source {
        "rings" => "ring storage",
        "ledger" => "ledger file",
        _ => "session_end",
    };
    let Some(producers) = shown.producers_source() else {
        return "no figures".to_owned();
    };
    if shown.is_final() {
        return format!("final figures ({})", name(producers));
    }
    let age = |source| match shown.age_seconds(source) {
        Some(0.0) => "of now".to_owned(),
        Some(seconds) => format!("{} old", human::duration((seconds * 1e9) as u64)),
        None => "of its end".to_owned(),
    };
    match shown.writer_source() {
        Some(writer) if writer != producers => format!(
            "written and dropped{{disk}} are {} ({}), the other figures {} ({})",
            age(writer),
            name(writer),
            age(producers),
            name(producers)
        ),
        Some(_) => format!("figures are {} ({})", age(producers), name(producers)),
        None => format!(
            "figures are {} ({}); written and dropped{{disk}} are not yet published",
            age(producers),
            name(producers)
        ),
    }
}
