//! `stormlog bench pool`: threads that calculate, and record each unit of their work. It is what
//! `stormlog bench overhead` runs when it is given no command.

mod recorder;
mod work;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::json;

use crate::cli::output::{Output, Status};
use recorder::{LockedJson, Recorder, Stormlog, Values};
use work::Work;

pub use work::steps_in;

/// One part in this many of the units comes before the steady part.
const WARM_PART: u64 = 4;
/// Different ids in the records of a thread.
const IDS: usize = 64;

const HELP: &str = "\
Honours DEBUG_MODE, DEBUG_LOG_DIR and the settings of docs/DEBUG_MODE.md. Prints one line for
`stormlog bench overhead`, which runs it, and can be run by itself under perf or valgrind:
  DEBUG_MODE=true DEBUG_LOG_DIR=/tmp/pool stormlog bench pool --units 100000 --steps 200";

/// The workload of `bench overhead`: threads that calculate, and record each unit of work.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Units of work of each thread; each is one record.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    units: u64,
    /// Steps of calculation in a unit.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    steps: u64,
    /// Parts per million of more steps.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    burn_ppm: u32,
    /// Where records go.
    #[arg(long, value_enum, default_value_t = Target::Stormlog)]
    recorder: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// A session, if `DEBUG_MODE` is on.
    Stormlog,
    /// `serde_json` into a buffered file behind a lock, whatever `DEBUG_MODE` says.
    LockedJson,
}

/// Runs the command.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Status> {
    match args.recorder {
        Target::Stormlog => run_with(args, Stormlog::start()?, output),
        Target::LockedJson => {
            let dir = std::env::var_os("DEBUG_LOG_DIR").unwrap_or_else(|| "debug_logs".into());
            run_with(args, LockedJson::create(&PathBuf::from(dir))?, output)
        }
    }
}

fn run_with(args: &Args, recorder: impl Recorder, output: &mut Output) -> Result<Status> {
    let barrier = Barrier::new(usize::from(args.threads) + 1);
    let (burned, begin) = thread::scope(|scope| {
        let (recorder, barrier) = (&recorder, &barrier);
        let threads: Vec<_> = (0..args.threads)
            .map(|number| scope.spawn(move || one_thread(args, number, recorder, barrier)))
            .collect();
        barrier.wait();
        let begin = (Instant::now(), process_cpu());
        let burned = threads.into_iter().map(|thread| {
            let joined = thread.join();
            joined.map_err(|_| anyhow!("a thread of the pool has panicked"))
        });
        Ok::<_, anyhow::Error>((burned.sum::<Result<u64>>()?, begin))
    })?;
    recorder.flush()?;
    let ns = |time: Duration| time.as_nanos().max(1) as u64;
    let (wall, cpu) = (begin.0.elapsed(), process_cpu().saturating_sub(begin.1));
    let counts = recorder.close()?;
    let warm = warm_units(args) * u64::from(args.threads);
    let line = json!({"bench": {
        "units": args.units * u64::from(args.threads),
        "records": counts.offered,
        "written": counts.written,
        "burned": burned,
        "window": {
            "wall_ns": ns(wall),
            "cpu_ns": ns(cpu),
            "records": counts.offered.saturating_sub(warm),
        },
    }});
    writeln!(output, "{line}")?;
    Ok(Status::Ok)
}

/// Units of a thread before the steady part: rings are taken, pages become present, the writer
/// learns how much there is to do.
fn warm_units(args: &Args) -> u64 {
    args.units.div_ceil(WARM_PART)
}

/// All units of a thread; those of the steady part begin in all threads at the same time.
fn one_thread(args: &Args, number: u16, recorder: &impl Recorder, barrier: &Barrier) -> u64 {
    let ids: Vec<String> = (0..IDS)
        .map(|index| format!("{number:04x}{index:08x}"))
        .collect();
    let mut work = Work::new(u64::from(number));
    let mut burned = 0;
    let mut unit = || {
        let (found, more) = work.unit(args.steps, args.burn_ppm);
        burned += more;
        recorder.record(Values {
            id: &ids[found as usize % IDS],
            port: found as u16,
            value: found as f64,
            ok: found.is_multiple_of(2),
        });
    };
    let warm = warm_units(args);
    for _ in 0..warm {
        unit();
    }
    barrier.wait();
    for _ in warm..args.units {
        unit();
    }
    burned
}

/// Processor time of all threads of this process so far.
fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // Only a time below zero is none.
    Duration::try_from(time).unwrap_or_default()
}
