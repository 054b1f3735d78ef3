//! `stormlog demo`: traffic of an orchestrator and a proxy, made up and recorded.
//!
//! The generator (`model` with `orchestrator`, `proxy`, `episodes`) is pure and seeded; `record`
//! takes its events to the engine; `report` prints what happened. `storm` is another demo: load
//! far past what the writer can take.

mod ending;
mod episodes;
mod event;
mod model;
mod orchestrator;
mod proxy;
mod record;
mod report;
mod storm;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::output::{Output, Status};
use record::{Pace, Plan};

/// How long the default demo takes: ten minutes of traffic are compressed into it.
const COMPRESSED_SECONDS: f64 = 2.0;
/// More records than this are made by repeating the first ones.
const DISTINCT_RECORDS: u64 = 50_000;

/// How long the storm lasts.
const STORM_SECONDS: u64 = 3;
/// The longest one.
const STORM_SECONDS_MAX: u64 = 60;
/// What the writer takes in a whole storm: bounds the disk and the time that reading it takes.
const STORM_KIB: u64 = 48 << 10;

const HELP: &str = "\
The traffic is made up after real runs of two services: health checks, requests, streams, and
in every ten minutes one of each kind of trouble (VPN loss, circuit breaker, slow starts, mass
disconnect, unhealthy engines, changed ports). The same seed gives the same traffic.

Threads wait for the writer before their rings are full, outside of the measured pushes, so that
nothing is lost. With --rate they do not wait, as a service would not: what does not fit is dropped
and counted.

Examples:
  stormlog demo
  stormlog demo --dir /tmp/demo --seed 7 --keep-segments
  stormlog demo --records 1000000 --threads 2
  stormlog demo --records 20000 --rate 5000 --json
  stormlog demo --storm --plot storm.svg

With --storm threads of one service offer all they can, while the writer is held to a rate that is
far below it. The demo prints what was offered, written, sampled out and dropped, looks for every
planted event in the files, and holds the estimates against the truth.

Exit code: 0 every record was kept, or the proof of the storm holds; 1 records were lost, the proof
fails, or a session did not end well; 2 could not run.";

/// Record made-up traffic of two services and show what happened.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Log directory.
    #[arg(long, env = "DEBUG_LOG_DIR", default_value = "./debug_logs")]
    dir: PathBuf,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records per second, both services together [default: the shape of the traffic,
    /// compressed to about 2 s; with --records as fast as the writer takes them]
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// Threads of each service, up to 256 [default: 2; of the storm 8, up to 255]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Seconds of traffic, up to a week [default: 600; of the storm 3, up to 60]
    #[arg(long, conflicts_with = "records", value_name = "S")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=604_800))]
    duration: Option<u64>,
    /// Number of records; repeats the traffic after 50,000.
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// Keep the binary segments beside the JSON Lines files.
    #[arg(long)]
    keep_segments: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Drive load far past what the writer can take, and prove what was promised about it.
    #[arg(long, conflicts_with_all = ["records", "rate"])]
    storm: bool,
    /// Storm: KiB of records per second that the writer takes, as on a slow disk
    /// [default: 48 MiB in the whole storm]
    #[arg(long, requires = "storm", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(64..=16_777_216))]
    drain_kib: Option<u64>,
    /// Storm: planted stress events per second, all threads together.
    #[arg(long, requires = "storm", value_name = "N", default_value_t = 2_000.0)]
    #[arg(value_parser = parse_rate)]
    stress_rate: f64,
    /// Storm: most MiB of segments and lines on the disk; past it records are shed, and the proof
    /// says so.
    #[arg(long, requires = "storm", value_name = "N", default_value_t = 1_536)]
    #[arg(value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    disk_mib: u64,
    /// Storm: write a plot of pressure, fill and time of calls.
    #[arg(long, requires = "storm", value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Storm: write the same as a table.
    #[arg(long, requires = "storm", value_name = "FILE.csv")]
    samples: Option<PathBuf>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.001 => Ok(rate),
        _ => Err("it is a number of records per second, at least 0.001".to_owned()),
    }
}

/// Runs the command.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Status> {
    if args.storm {
        let pictures = storm::Pictures {
            plot: args.plot.as_deref(),
            samples: args.samples.as_deref(),
            json: args.json,
        };
        return storm::run(&storm_plan(args), pictures, output);
    }
    let plan = plan(args);
    let clock_ns = record::clock_nanos();
    let run = record::record(&plan)?;
    let report = report::Report {
        run: &run,
        dir: &args.dir,
        seed: args.seed,
        clock_ns,
        slept: plan.pace != Pace::Unpaced,
    };
    if args.json {
        report.write_json(output)?;
    } else {
        report.write_text(output)?;
    }
    Ok(report.status())
}

fn storm_plan(args: &Args) -> storm::Plan {
    let seconds = args
        .duration
        .unwrap_or(STORM_SECONDS)
        .min(STORM_SECONDS_MAX);
    let drain_kib = args.drain_kib.unwrap_or(STORM_KIB / seconds);
    storm::Plan {
        dir: args.dir.clone(),
        seed: args.seed,
        threads: args.threads.unwrap_or(8).min(u16::from(u8::MAX)) as u8,
        storm: Duration::from_secs(seconds),
        drain_bytes: drain_kib << 10,
        stress_per_second: args.stress_rate,
        session_bytes_max: args.disk_mib << 20,
        keep_segments: args.keep_segments,
    }
}

fn plan(args: &Args) -> Plan {
    let duration = args.duration.unwrap_or(600);
    let events = match args.records {
        Some(records) => {
            let distinct = records.min(DISTINCT_RECORDS) as usize;
            model::traffic(args.seed, Duration::MAX, distinct)
        }
        None => model::traffic(args.seed, Duration::from_secs(duration), usize::MAX),
    };
    let pace = match (args.rate, args.records) {
        (Some(rate), _) => Pace::Rate(rate),
        (None, Some(_)) => Pace::Unpaced,
        (None, None) => Pace::Compressed(duration as f64 / COMPRESSED_SECONDS),
    };
    Plan {
        dir: args.dir.clone(),
        keep_segments: args.keep_segments,
        records: args.records.unwrap_or(events.len() as u64),
        events,
        threads: usize::from(args.threads.unwrap_or(2)),
        pace,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        let words = [&["demo", "--dir", "x"], words].concat();
        Command::try_parse_from(words).unwrap().args
    }

    #[test]
    fn ten_minutes_are_the_default() {
        let plan = plan(&args(&[]));
        assert!(plan.events.len() > 1_000);
        assert_eq!(plan.records, plan.events.len() as u64);
        assert_eq!((plan.threads, plan.pace), (2, Pace::Compressed(300.0)));
    }

    #[test]
    fn a_number_of_records_is_exact() {
        let plan = plan(&args(&["--records", "60000", "--rate", "2.5"]));
        assert_eq!((plan.events.len(), plan.records), (50_000, 60_000));
        assert_eq!(plan.pace, Pace::Rate(2.5));
        let few = super::plan(&args(&["--records", "10"]));
        assert_eq!((few.events.len(), few.pace), (10, Pace::Unpaced));
        assert_eq!(super::plan(&args(&["--records", "0"])).events.len(), 0);
    }

    #[test]
    fn options_fit_together() {
        <Command as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for wrong in [
            &["--rate", "0"][..],
            &["--rate", "nan"],
            &["--threads", "0"],
            &["--duration", "0"],
            &["--duration", "5", "--records", "5"],
        ] {
            let words = [&["demo"], wrong].concat();
            assert!(Command::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }
}
