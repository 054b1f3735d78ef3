//! `stormlog bench overhead`: what recording costs a program, with an interval and a verdict.
//!
//! `plan` says what each side runs, `child` runs it, `said` reads what it tells of itself, `data`
//! keeps what was measured, `stats` and `judge` say what it means, `report`, `text` and `plot` show
//! it. The method is in docs/BENCHMARKS.md.

mod child;
mod data;
mod judge;
mod plan;
mod plot;
mod report;
mod said;
mod stats;
mod text;

use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value as Json, json};

use super::pool;
use crate::cli::output::{Output, Status};
use data::{Data, Kind};
use judge::{Metric, Question, Verdict};
use plan::{BURN_VARIABLE, Plan, Side};
use report::Report;

const HELP: &str = "\
Runs a program without and with recording (DEBUG_MODE=false, true) in turn, A B B A and B A A B,
each time as a new process, and compares processor time and wall time. Without --command the
program is `stormlog bench pool`: threads that calculate and record each unit of their work; the
same with serde_json behind a lock is measured beside it.

Examples:
  stormlog bench overhead                                  1 million records/s in each thread
  stormlog bench overhead --rate 10000 --pairs 200 --json overhead.json --svg overhead.svg
  stormlog bench overhead --command './service --once'     a program of yours
  stormlog bench overhead --aa                             nothing against nothing: no effect?
  stormlog bench overhead --inject 2%                      2 % more work: is it seen?
  stormlog bench overhead --append pairs.json --collect    more pairs, without a look at them
  stormlog bench overhead --from pairs.json                the verdict on pairs measured before

Exit code: 0 the overhead is under the limit (--aa: no effect), 1 it is over (--aa: an effect),
3 undecided: the report says how many more pairs that takes; 2 could not run.";

/// What recording costs a program, with a verdict.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// A program that honours `DEBUG_MODE` and `DEBUG_LOG_DIR`, for `sh -c`, instead of the pool.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// Pairs of runs to measure, rounded up to an even number; 0 judges what is there.
    #[arg(long, default_value_t = 40, value_name = "N")]
    pairs: u32,
    /// Begin no more pairs after so many seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// What may be lost to recording.
    #[arg(long, default_value = "1%", value_parser = parse_part, value_name = "PERCENT")]
    limit: f64,
    /// The wanted half of the width of the interval: decides --aa, and a report says what it takes.
    #[arg(long, default_value = "0.25%", value_parser = parse_part, value_name = "PERCENT")]
    half_width: f64,
    /// What the verdict is about.
    #[arg(long, value_enum, default_value_t = Metric::Cpu)]
    metric: Metric,
    /// Both sides without recording: a harness that works sees no effect.
    #[arg(long, conflicts_with = "inject")]
    aa: bool,
    /// Both sides without recording, one with so much more work: a harness that works sees it.
    #[arg(long, value_parser = parse_part, value_name = "PERCENT")]
    inject: Option<f64>,
    /// Pool: records per second in each thread.
    #[arg(long, default_value_t = 1e6, value_parser = parse_rate, value_name = "N")]
    #[arg(conflicts_with = "command")]
    rate: f64,
    /// Pool: threads [default: one per core].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    #[arg(conflicts_with = "command")]
    threads: Option<u16>,
    /// Pool: length of a run, ms.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    #[arg(conflicts_with = "command", value_name = "MS")]
    run_ms: u64,
    /// Pool: leave out the logger that others are compared with (`serde_json` behind a lock).
    #[arg(long, conflicts_with = "command")]
    no_baseline: bool,
    /// Where log directories are made, and removed [default: the directory for temporary files]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Add the pairs to those in this file, which is made if it is not there.
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,
    /// Only collect pairs, without a look at them, which would cost some certainty.
    #[arg(long, requires = "append")]
    collect: bool,
    /// Judge the pairs in this file, measure nothing.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["append", "command", "aa", "inject"])]
    from: Option<PathBuf>,
    /// Seed of the samples that the interval is made of.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Another logger and what a record costs it, ns, for the table of rates.
    #[arg(long, value_parser = parse_rival, value_name = "NAME=NS")]
    rival: Vec<(String, f64)>,
    /// Write the report as one JSON object, with all pairs; - instead of the text.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a picture of the pairs and the interval.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn parse_part(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match percent {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("it is a percentage above 0, up to 100, such as 0.5%".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1.0..=1e9).contains(&rate) => Ok(rate),
        _ => Err("it is a number of records per second, 1 to 1e9".to_owned()),
    }
}

fn parse_rival(text: &str) -> Result<(String, f64), String> {
    let parsed = text.split_once('=').and_then(|(name, nanos)| {
        let nanos = nanos.parse::<f64>().ok()?;
        (nanos > 0.0 && nanos.is_finite() && !name.is_empty()).then(|| (name.to_owned(), nanos))
    });
    parsed.ok_or_else(|| "it is NAME=NS with nanoseconds above 0".to_owned())
}

/// Runs the command.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Status> {
    let mut data = match &args.from {
        Some(path) => Data::read(path)?,
        None => measure(args)?,
    };
    if args.collect {
        writeln!(
            output,
            "{} pairs are collected, nobody looked at them.",
            data.pairs()
        )?;
        return Ok(Status::Ok);
    }
    ensure!(!data.blocks.is_empty(), "there are no pairs to judge");
    let question = Question {
        metric: args.metric,
        limit: args.limit,
        half_width: args.half_width,
        seed: args.seed,
    };
    let judgement = judge::judge(&data, &question);
    let known = judgement.comparisons.first();
    ensure!(
        known.is_some_and(|first| first.effect(args.metric).is_some()),
        "the command does not tell the steady part of its run, so there is no {}",
        args.metric.name()
    );
    let (_, new) = data.look();
    if let Some(path) = args.append.as_ref().filter(|_| new) {
        data.looks.push(data.blocks.len() as u64);
        data.write(path)?;
    }
    let report = Report {
        data: &data,
        question,
        judgement: &judgement,
        rivals: &args.rival,
    };
    if let Some(path) = &args.svg {
        let svg = plot::svg(&report);
        std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match &args.json {
        Some(path) if path.as_os_str() == "-" => writeln!(output, "{}", report.json())?,
        Some(path) => {
            let json = format!("{}\n", report.json());
            std::fs::write(path, json)
                .with_context(|| format!("cannot write {}", path.display()))?;
            report.write_text(output)?;
        }
        None => report.write_text(output)?,
    }
    Ok(match judgement.verdict {
        Verdict::Holds => Status::Ok,
        Verdict::Fails => Status::Faults,
        Verdict::Undecided => Status::Undecided,
    })
}

/// Measures what was asked for, after what is known already.
fn measure(args: &Args) -> Result<Data> {
    let known = match &args.append {
        Some(path) if path.exists() => Some(Data::read(path)?),
        _ => None,
    };
    let plan = plan(args, known.as_ref())?;
    let mut data = known.unwrap_or_else(|| plan.data());
    let empty = Data {
        blocks: Vec::new(),
        looks: Vec::new(),
        ..data.clone()
    };
    ensure!(
        empty == plan.data(),
        "the pairs in the file are of another comparison: {}, {}",
        data.workload,
        Json::Object(data.settings)
    );
    let blocks = args.pairs.div_ceil(2);
    let bar = progress_bar(u64::from(blocks))?;
    let deadline = args.seconds.map(Duration::from_secs);
    let begin = Instant::now();
    let mut measured = || {
        // Not counted: programs and libraries come into memory.
        for side in 0..if blocks > 0 { plan.sides.len() } else { 0 } {
            plan.run(side)?;
        }
        for _ in 0..blocks {
            if deadline.is_some_and(|deadline| begin.elapsed() >= deadline) {
                break;
            }
            data.blocks.push(plan.block(data.blocks.len())?);
            if let Some(path) = &args.append {
                data.write(path)?;
            }
            bar.inc(1);
        }
        Ok(())
    };
    let result = measured();
    bar.finish_and_clear();
    if plan.dir.exists() {
        plan.clean()?;
    }
    result.map(|()| data)
}

/// The comparison that the arguments ask for. The pool has as many steps in a unit as in `known`.
fn plan(args: &Args, known: Option<&Data>) -> Result<Plan> {
    let kind = match args.inject {
        Some(part) => Kind::Burn((part * 1e6).round() as u32),
        None if args.aa => Kind::Same,
        None => Kind::Recording,
    };
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = base.join(format!("stormlog-bench-{}", std::process::id()));
    let mut settings = Map::new();
    let (workload, off) = match &args.command {
        Some(command) => {
            settings.insert("command".to_owned(), command.as_str().into());
            (command.clone(), command_side(command))
        }
        None => pool_side(args, known, &mut settings)?,
    };
    let mut other = off.clone();
    match kind {
        Kind::Same => "off again".clone_into(&mut other.name),
        Kind::Recording => {
            let name = if args.command.is_some() {
                "on"
            } else {
                "stormlog"
            };
            name.clone_into(&mut other.name);
            (other.recording, other.leaves_files) = (true, true);
        }
        Kind::Burn(ppm) => {
            other.name = format!("off + {} %", f64::from(ppm) / 1e4);
            if args.command.is_none() {
                other
                    .arguments
                    .extend(["--burn-ppm".into(), ppm.to_string().into()]);
            }
            other
                .variables
                .push((BURN_VARIABLE.to_owned(), ppm.to_string()));
        }
    }
    let mut sides = vec![off, other];
    if kind == Kind::Recording && args.command.is_none() && !args.no_baseline {
        let mut baseline = sides[0].clone();
        "serde_json, locked".clone_into(&mut baseline.name);
        baseline.leaves_files = true;
        baseline
            .arguments
            .extend(["--recorder".into(), "locked-json".into()]);
        sides.push(baseline);
    }
    Ok(Plan {
        workload,
        kind,
        sides,
        settings,
        dir,
    })
}

fn command_side(command: &str) -> Side {
    Side {
        name: "off".to_owned(),
        program: "sh".into(),
        arguments: vec!["-c".into(), command.into()],
        recording: false,
        leaves_files: false,
        variables: Vec::new(),
    }
}

/// The pool without recording. What a service that runs for long does not do now, it does not do
/// here: segments stay segments, unless the environment says otherwise.
fn pool_side(
    args: &Args,
    known: Option<&Data>,
    settings: &mut Map<String, Json>,
) -> Result<(String, Side)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores as u16);
    let units = ((args.rate * args.run_ms as f64 / 1e3).round() as u64).max(1);
    let steps = known.and_then(|data| data.settings.get("steps")?.as_u64());
    let steps = steps.unwrap_or_else(|| pool::steps_in(1e9 / args.rate));
    let conversion = std::env::var("STORMLOG_CONVERSION").unwrap_or_else(|_| "later".to_owned());
    for (name, value) in [
        ("rate", json!(args.rate)),
        ("threads", json!(threads)),
        ("units", json!(units)),
        ("steps", json!(steps)),
        ("conversion", json!(conversion)),
    ] {
        settings.insert(name.to_owned(), value);
    }
    let mut arguments: Vec<_> = ["bench", "pool"].map(Into::into).to_vec();
    for (name, value) in [
        ("--threads", u64::from(threads)),
        ("--units", units),
        ("--steps", steps),
    ] {
        arguments.extend([name.into(), value.to_string().into()]);
    }
    let mut variables = vec![("STORMLOG_CONVERSION".to_owned(), conversion)];
    if std::env::var_os("STORMLOG_KEEP_FREE_BYTES").is_none() {
        let free = crate::cli::KEEP_FREE_BYTES.to_string();
        variables.push(("STORMLOG_KEEP_FREE_BYTES".to_owned(), free));
    }
    let side = Side {
        name: "off".to_owned(),
        program: std::env::current_exe()
            .context("cannot find this program")?
            .into(),
        arguments,
        recording: false,
        leaves_files: false,
        variables,
    };
    let workload = format!(
        "pool of {threads} threads that calculate, {} records/s in each",
        crate::cli::human::count(args.rate as u64)
    );
    Ok((workload, side))
}

fn progress_bar(blocks: u64) -> Result<ProgressBar> {
    let bar = ProgressBar::new(blocks);
    if !stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = "{bar:40} {pos} of {len} blocks of two pairs, {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    Ok(bar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        assert_eq!(parse_part("2%"), Ok(0.02));
        assert_eq!(parse_part("0.25"), Ok(0.0025));
        for bad in ["0", "-1%", "x", "101%", "nan", "%"] {
            assert!(parse_part(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_rival("a b=12.5"), Ok(("a b".to_owned(), 12.5)));
        for bad in ["a", "a=", "=5", "a=0", "a=-1", "a=inf"] {
            assert!(parse_rival(bad).is_err(), "{bad}");
        }
        assert!(parse_rate("0").is_err() && parse_rate("1e6").is_ok());
    }
}
