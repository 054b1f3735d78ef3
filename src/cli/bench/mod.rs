//! `stormlog bench`: what recording costs, measured by the tool itself.

mod overhead;
mod pool;

use anyhow::Result;

use super::output::{Output, Status};

/// Measure what recording costs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Overhead(Box<overhead::Args>),
    Pool(pool::Args),
}

/// Runs the command.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Status> {
    match &args.bench {
        Bench::Overhead(args) => overhead::run(args, output),
        Bench::Pool(args) => pool::run(args, output),
    }
}
