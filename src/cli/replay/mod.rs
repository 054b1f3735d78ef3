//! `stormlog replay`: existing JSON Lines logs go through the engine, line by line.

mod lines;
mod parse;
mod push;
mod report;
mod run;
mod source;
mod time;

use std::io::{IsTerminal, stderr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(super) use lines::Lines;
pub use parse::{BadLine, Field, LINE_BYTES_MAX, Parsed, parse_line};

use super::KEEP_FREE_BYTES;
use super::output::{Output, Status};
use crate::record::Category;
use crate::signals::close_on_termination;
use crate::{CloseReport, Session};
use push::Input;
pub(super) use push::line_text;
pub(super) use source::Source;

/// How long the conversion at the end may take: as long as it needs.
const CLOSE_DEADLINE: Duration = Duration::from_secs(24 * 3600);

const HELP: &str = "\
Every line is recorded with all its fields, types and digits; session_id, timestamp and
elapsed_seconds are new (--original-time keeps the old time as original_timestamp). The
category comes from the file name, {session}_{category}.jsonl.
Bad lines are named on standard error and left out.
The lines of a file stay in order, unless there are more threads than files.
A field sample_weight, which the engine writes itself, becomes field_sample_weight.

Examples:
  stormlog replay old_logs/*.jsonl
  stormlog replay --dir again --original-time old_logs/20251018_144523_*.jsonl
  stormlog replay --speed 10 old_logs/*.jsonl
  zcat old.jsonl.gz | stormlog replay --category vpn -

Exit code: 0 every line was recorded, 1 lines were bad or lost or the session did not end well, 2
could not run.";

/// Record existing JSON Lines logs again.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// JSON Lines files; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Log directory for the new session.
    #[arg(long, env = "DEBUG_LOG_DIR", default_value = "./debug_logs")]
    dir: PathBuf,
    /// Keep the binary segments beside the JSON Lines files.
    #[arg(long)]
    keep_segments: bool,
    /// Keep the old time of each line in an extra field.
    #[arg(long)]
    original_time: bool,
    /// Pace: max, original, or a factor such as 10 (all files together, by their timestamps).
    #[arg(long, default_value = "max", value_parser = parse_speed)]
    speed: Speed,
    /// Threads that push at --speed max, up to 32 [default: one per file, at most one per core].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=push::THREADS_MAX as i64))]
    threads: Option<u16>,
    /// Category of all lines, instead of the one in each file's name.
    #[arg(long, value_parser = parse_category, value_name = "NAME")]
    category: Option<Category>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speed {
    Max,
    /// Times as fast as the lines were written.
    Factor(f64),
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    match text {
        "max" => return Ok(Speed::Max),
        "original" => return Ok(Speed::Factor(1.0)),
        _ => {}
    }
    let factor = text.strip_suffix('x').unwrap_or(text).parse::<f64>();
    match factor {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Speed::Factor(factor)),
        _ => Err("it is max, original, or a factor above 0".to_owned()),
    }
}

pub(super) fn parse_category(name: &str) -> Result<Category, String> {
    Category::named(name)
        .ok_or_else(|| "a category has 1 to 64 characters of a-z, 0-9 and _".to_owned())
}

/// Runs the command.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Status> {
    let sources = sources(args)?;
    let bar = progress_bar(&sources)?;
    let inputs = sources.into_iter();
    let inputs: Vec<_> = inputs
        .map(|source| Input::new(source, bar.clone()))
        .collect();
    let session = Session::builder()
        .dir(&args.dir)
        .keep_segments(args.keep_segments)
        .sigbus_guard(true)
        .close_deadline(CLOSE_DEADLINE)
        // Every object that goes in comes out.
        .sampling(false)
        .keep_free_bytes(KEEP_FREE_BYTES)
        .start()?;
    let guard = close_on_termination(&[&session])?;
    let read = match args.speed {
        Speed::Max => run::at_full_speed(&session, &inputs, threads(args), args.original_time),
        Speed::Factor(factor) => run::paced(&session, &inputs, factor, args.original_time),
    };
    bar.finish_and_clear();
    for input in &inputs {
        input.finish();
    }
    // What was read before an error is recorded and stays.
    let closed: CloseReport = session.close()?;
    drop(guard);
    read?;
    let summary = report::Summary::new(&inputs, &closed);
    if args.json {
        summary.write_json(output)?;
    } else {
        summary.write_text(output)?;
    }
    Ok(summary.status())
}

/// The files, all of which can be opened.
fn sources(args: &Args) -> Result<Vec<Source>> {
    let standard = args.files.iter().filter(|path| path.as_os_str() == "-");
    ensure!(
        standard.count() <= 1,
        "- (standard input) can be read only once"
    );
    let sources = args
        .files
        .iter()
        .map(|path| Source::new(path, args.category));
    sources.collect()
}

/// A bar on standard error if that is a terminal, otherwise nothing.
fn progress_bar(sources: &[Source]) -> Result<ProgressBar> {
    if !stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bytes: Option<u64> = sources.iter().map(|source| source.bytes).sum();
    let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template(match bytes {
        Some(_) => "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        None => "{spinner} {bytes}, {bytes_per_sec}",
    });
    bar.set_style(style.context("cannot show progress")?);
    Ok(bar)
}

fn threads(args: &Args) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let default = args.files.len().min(cores).min(push::THREADS_MAX);
    args.threads.map_or(default, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_words_or_factors() {
        assert_eq!(parse_speed("max"), Ok(Speed::Max));
        assert_eq!(parse_speed("original"), Ok(Speed::Factor(1.0)));
        assert_eq!(parse_speed("10"), Ok(Speed::Factor(10.0)));
        assert_eq!(parse_speed("0.5x"), Ok(Speed::Factor(0.5)));
        for wrong in ["", "0", "-1", "NaN", "inf", "fast", "x"] {
            assert!(parse_speed(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_fit_together() {
        <Command as clap::CommandFactory>::command().debug_assert();
        let parse = |words: &[&str]| <Command as clap::Parser>::try_parse_from(words);
        let args = parse(&["replay", "a", "b", "--threads", "32"])
            .unwrap()
            .args;
        assert_eq!((args.files.len(), threads(&args)), (2, 32));
        assert!(parse(&["replay"]).is_err());
        assert!(parse(&["replay", "a", "--threads", "33"]).is_err());
        assert!(parse(&["replay", "a", "--threads", "0"]).is_err());
    }

    #[test]
    fn categories_are_checked() {
        assert_eq!(parse_category("vpn_2").unwrap().name(), "vpn_2");
        assert!(parse_category("../x").is_err());
    }
}
