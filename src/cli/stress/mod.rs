//! `stormlog stress`: the stress rules over what was recorded.

mod groups;
mod look;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::human;
use super::output::{Output, Status, complain};
use crate::record::Category;
use crate::stress::{Evaluator, RuleSet, STARTUP_TIMEOUT};
use groups::groups;
use look::{Looked, look};

const HELP: &str = "\
PATH is a log directory (all sessions in it), a session directory, a segment, or a file of JSON
Lines, ours or of the old loggers; - is standard input. A session with segments is read from
them, where durations are exact. The category of lines comes from the file name,
{session}_{category}.jsonl. Each session begins with the state of a new one.
What sampling left out was not recorded, so these rules do not see it: those of the session did.

Examples:
  stormlog stress ./debug_logs
  stormlog stress --rules rules.toml old_logs/*.jsonl
  stormlog stress --on slow_get_request --off high_cpu ./debug_logs

Exit code: 0 the rules saw everything, 1 something could not be read, 2 could not run.";

/// Evaluate the stress rules over recorded sessions and JSON Lines.
///
/// Prints one JSON object per begin and end of an episode, in the order of time of each session,
/// and on standard error which rules have an episode that nothing has ended, and a summary.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Log directories, session directories, segments, files of JSON Lines.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A TOML file with further rules, and changes of the built-in ones.
    #[arg(long, value_name = "FILE", env = "STORMLOG_STRESS_RULES")]
    rules: Option<PathBuf>,
    /// Switch a rule on that is off by default.
    #[arg(long, value_name = "RULE")]
    on: Vec<String>,
    /// Switch a rule off.
    #[arg(long, value_name = "RULE")]
    off: Vec<String>,
    /// Seconds that a container may take to start.
    #[arg(long, value_name = "SECONDS", env = "STARTUP_TIMEOUT_S", value_parser = parse_seconds)]
    startup_timeout: Option<Duration>,
    /// Category of all lines, instead of the one in each file's name.
    #[arg(long, value_parser = super::replay::parse_category, value_name = "NAME")]
    category: Option<Category>,
}

/// As a session reads `STARTUP_TIMEOUT_S`: nothing means the default.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(STARTUP_TIMEOUT);
    }
    let seconds = text.parse::<f64>().ok();
    let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
    let time = seconds.map(Duration::from_secs_f64);
    time.filter(|time| !time.is_zero()).ok_or_else(|| {
        "give a number of seconds above 0, at most 86400, such as 25 (STARTUP_TIMEOUT_S is it, \
         where the option is not given)"
            .to_owned()
    })
}

/// Runs the command.
///
/// # Errors
/// When the rules cannot be, or a path holds nothing to look at.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Status> {
    let rules = rules(args)?;
    let groups = groups(&args.paths, args.category)?;
    let mut status = Status::Ok;
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let (mut records, mut events) = (0, 0);
    for group in &groups {
        let evaluator = Evaluator::new(&rules)?;
        let Looked {
            mut told,
            records: more,
            faults,
        } = look(group, &evaluator)?;
        // Files of several categories come one after the other.
        told.sort_by_key(|one| one.time_ns);
        for one in &told {
            writeln!(output, "{}", one.line)?;
            *sums.entry(one.event_type.clone()).or_default() += 1;
        }
        for fault in group.fault.iter().chain(&faults) {
            complain(&human::plain(&format!("{}: {fault}", group.name)));
            status = Status::Faults;
        }
        for rule in evaluator.open() {
            let line = format!("{}: {rule} goes on at the end", group.name);
            complain(&human::plain(&line));
        }
        records += more;
        events += told.len() as u64;
    }
    output.flush()?;
    let sums: Vec<_> = sums
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    complain(&format!(
        "{} in {} of {}{}{}",
        human::counted(events, "event"),
        human::counted(records, "record"),
        human::counted(groups.len() as u64, "session"),
        if sums.is_empty() { "" } else { ": " },
        sums.join(", "),
    ));
    Ok(status)
}

fn rules(args: &Args) -> Result<RuleSet> {
    let mut set = match args.startup_timeout {
        Some(timeout) => RuleSet::builtin(timeout),
        None => RuleSet::default(),
    };
    if let Some(file) = args
        .rules
        .as_ref()
        .filter(|file| !file.as_os_str().is_empty())
    {
        set.add_file(file)?;
    }
    for (names, on) in [(&args.off, false), (&args.on, true)] {
        for name in names {
            match set.rules.iter_mut().find(|rule| rule.name == *name) {
                Some(rule) => rule.on = on,
                None => {
                    bail!("there is no rule {name}: docs/DEBUG_MODE.md lists the built-in ones")
                }
            }
        }
    }
    set.validate().context("the rules cannot be used")?;
    Ok(set)
}
