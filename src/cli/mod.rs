//! The command line tool: one file per command, over the public API only.

mod bench;
mod convert;
mod demo;
mod human;
mod inspect;
mod output;
mod places;
mod random;
mod recover;
pub mod replay;
mod secrets;
mod sessions;
mod stats;
mod stress;
mod svg;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::{Output, Status};

/// What the commands that record leave free on the file system. Less than the default of an
/// embedded session: these records are the only thing that the user asked for.
const KEEP_FREE_BYTES: u64 = 64 << 20;

const QUICK_START: &str = "\
Quick start:
  stormlog demo --dir /tmp/demo          record made-up traffic of two services
  stormlog sessions /tmp/demo            list what is there
  jq -c . /tmp/demo/*_stress.jsonl       read it: JSON Lines, one file per session and category

Exit code: 0 ok, 1 faults were found (damage, lost records, bad lines), 2 could not run.";

/// Flight recorder for services: record, convert and inspect sessions.
#[derive(Debug, Parser)]
#[command(name = "stormlog", version, about, max_term_width = 100, after_help = QUICK_START)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Replay(replay::Args),
    Convert(convert::Args),
    Recover(recover::Args),
    Inspect(inspect::Args),
    Sessions(sessions::Args),
    Stats(stats::Args),
    Stress(stress::Args),
    Verify(verify::Args),
    Bench(bench::Args),
}

/// Runs the tool with the arguments of the process.
///
/// Exit code: 0 ok, 1 faults were found in what was read or recorded, 2 could not run. Writing to
/// a pipe whose reader has gone is success.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let mut output = Output::stdout();
    let result: anyhow::Result<Status> = match cli.command {
        Command::Demo(args) => demo::run(&args, &mut output),
        Command::Replay(args) => replay::run(&args, &mut output),
        Command::Convert(args) => convert::run(&args, &mut output),
        Command::Recover(args) => recover::run(&args, &mut output),
        Command::Inspect(args) => inspect::run(&args, &mut output),
        Command::Sessions(args) => sessions::run(&args, &mut output),
        Command::Stats(args) => stats::run(&args, &mut output),
        Command::Stress(args) => stress::run(&args, &mut output),
        Command::Verify(args) => verify::run(&args, &mut output),
        Command::Bench(args) => bench::run(&args, &mut output),
    };
    output.finish(result)
}
