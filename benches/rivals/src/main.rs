//! Stormlog beside other loggers, in one run.
//!
//! `cargo run --release --manifest-path benches/rivals/Cargo.toml -- --help`
//!
//! Each measurement is made in a process of its own; the loggers take turns in every round, so
//! that trouble of the machine meets all of them. What arrived is counted in the files by another
//! process. The method is described in docs/BENCHMARKS.md, section "Rivals".

mod cpp;
mod loggers;
mod measure;
mod os;
mod record;
mod run;
mod stats;
mod table;
mod task;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::loggers::{BASELINE, Entry, Program, STORMLOG};
use crate::run::{Plan, Results};
use crate::task::{Kind, Task};

/// Measures Stormlog and other loggers and prints tables in Markdown.
#[derive(Parser)]
#[command(
    after_help = "Progress goes to standard error. Stop everything else on the machine first."
)]
struct Args {
    /// Loggers to measure, with commas, beside Stormlog and the baseline [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// What to measure, with commas [default: all]
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Records into the file; binary loggers get more
    #[arg(long, default_value_t = 300_000)]
    records: usize,
    /// Seconds of the idle measurement
    #[arg(long, default_value_t = 3.0)]
    idle: f64,
    /// Where the loggers write; a disk that is not busy [default: the temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Prints all figures of all rounds as JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Prints the tables of earlier runs, all their rounds together, and ends: files of --json
    #[arg(long, value_delimiter = ',')]
    tables: Vec<PathBuf>,
    /// Lists the loggers and ends
    #[arg(long)]
    list: bool,
    /// A few records and one round, to see that all of it works; the figures mean nothing
    #[arg(long)]
    smoke: bool,
}

impl Args {
    fn plan(&self) -> Plan {
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = parent.join(format!("stormlog-rivals-{}", std::process::id()));
        let kinds = if self.kinds.is_empty() {
            Kind::ALL.to_vec()
        } else {
            self.kinds.clone()
        };
        let full = Task {
            kind: Kind::Calls,
            dir,
            records: self.records,
            bursts: 300,
            burst: 256,
            gap_us: 3000,
            cold: 300,
            idle_ms: (self.idle * 1e3) as u64,
        };
        if self.smoke {
            let task = Task {
                records: 2000,
                bursts: 4,
                cold: 4,
                idle_ms: 100,
                ..full
            };
            Plan {
                rounds: 1,
                kinds,
                task,
            }
        } else {
            Plan {
                rounds: self.rounds.max(1),
                kinds,
                task: full,
            }
        }
    }

    fn selected(&self) -> Result<Vec<Entry>> {
        let mut entries = loggers::all();
        if let Some(name) = self
            .only
            .iter()
            .find(|name| entries.iter().all(|e| e.name != **name))
        {
            bail!("there is no logger {name}; see --list");
        }
        if !self.only.is_empty() {
            let always = [STORMLOG, BASELINE];
            entries.retain(|entry| {
                always.contains(&entry.name) || self.only.iter().any(|name| name == entry.name)
            });
        }
        Ok(entries)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, logger, task @ ..] = args.as_slice()
        && first == "child"
    {
        return child(logger, task);
    }
    let args = Args::parse();
    let entries = args.selected()?;
    if args.list {
        print!("{}", table::loggers(&entries));
        return Ok(());
    }
    if !args.tables.is_empty() {
        let mut all = Results::default();
        for path in &args.tables {
            let text = std::fs::read_to_string(path)?;
            all.merge(serde_json::from_str(&text).context("not written by --json")?)?;
        }
        print!("{}", table::tables(&entries, &all));
        return Ok(());
    }
    let plan = args.plan();
    let results = run::run(&plan, &entries);
    // Not there when nothing could be measured.
    if plan.task.dir.exists() {
        std::fs::remove_dir_all(&plan.task.dir)?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    } else {
        print!("{}", table::tables(&entries, &results));
    }
    Ok(())
}

/// Measures one logger and ends without unwinding: what it still holds is not in the files.
fn child(logger: &str, task: &[String]) -> Result<()> {
    let entries = loggers::all();
    let entry = entries.iter().find(|entry| entry.name == logger);
    let Program::Own(measure) = entry.context("no such logger")?.program else {
        bail!("{logger} is measured by another program");
    };
    let figures = measure(&Task::from_args(task)?)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(&figures)?)?;
    stdout.flush()?;
    std::process::exit(0)
}
