//! Rounds: every logger, one after the other, each measurement in a child process; then all over.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cpp;
use crate::loggers::{Entry, Program};
use crate::os;
use crate::stats::Spread;
use crate::task::{Figures, Kind, Task, figure};

/// A child that takes longer is ended and its logger skipped.
const CHILD_MAX: Duration = Duration::from_secs(120);

/// What is measured.
pub struct Plan {
    /// Rounds.
    pub rounds: usize,
    /// Kinds, in order.
    pub kinds: Vec<Kind>,
    /// Sizes; its directory is the one in which each child gets its own.
    pub task: Task,
}

/// What was seen in one round: figures by logger and kind.
pub type Round = BTreeMap<String, BTreeMap<Kind, Figures>>;

/// Everything that was seen.
#[derive(Default, Serialize, Deserialize)]
pub struct Results {
    /// Records into the file, where a logger does not get more.
    pub records: usize,
    /// Calls in a burst.
    pub burst: usize,
    /// All rounds; a round of a slice has some kinds or loggers only.
    pub rounds: Vec<Round>,
    /// Loggers that were left out, and why.
    pub skipped: BTreeMap<String, String>,
}

impl Results {
    /// Adds the rounds of another run.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        if self.rounds.is_empty() {
            *self = other;
            return Ok(());
        }
        let sizes = |results: &Self| (results.records, results.burst);
        ensure!(sizes(self) == sizes(&other), "runs of different sizes");
        self.rounds.extend(other.rounds);
        self.skipped.extend(other.skipped);
        Ok(())
    }

    /// Rounds in which a kind was measured.
    pub fn rounds_of(&self, kind: Kind) -> usize {
        let has = |round: &&Round| round.values().any(|kinds| kinds.contains_key(&kind));
        self.rounds.iter().filter(has).count()
    }

    /// One figure over all rounds.
    pub fn spread(&self, logger: &str, kind: Kind, name: &str) -> Option<Spread> {
        let figure = |round| value(round, logger, kind, name);
        Spread::of(self.rounds.iter().filter_map(figure).collect())
    }

    /// One figure as a multiple of the same of another logger, taken in each round by itself.
    pub fn ratio(&self, logger: &str, to: &str, kind: Kind, name: &str) -> Option<Spread> {
        let ratio = |round| {
            let ratio = value(round, logger, kind, name)? / value(round, to, kind, name)?;
            ratio.is_finite().then_some(ratio)
        };
        Spread::of(self.rounds.iter().filter_map(ratio).collect())
    }
}

fn value(round: &Round, logger: &str, kind: Kind, name: &str) -> Option<f64> {
    round.get(logger)?.get(&kind)?.get(name).copied()
}

/// Measures all loggers. A logger that fails is left out from then on.
pub fn run(plan: &Plan, entries: &[Entry]) -> Results {
    let mut results = Results {
        records: plan.task.records,
        burst: plan.task.burst,
        ..Results::default()
    };
    for number in 1..=plan.rounds {
        let mut round = Round::new();
        for &kind in &plan.kinds {
            for entry in entries.iter().filter(|entry| entry.kinds.contains(&kind)) {
                if results.skipped.contains_key(entry.name) {
                    continue;
                }
                eprintln!(
                    "round {number} of {}: {} {}",
                    plan.rounds,
                    kind.name(),
                    entry.name
                );
                match child(plan, entry, kind) {
                    Ok(figures) => {
                        let kinds = round.entry(entry.name.to_owned()).or_default();
                        kinds.insert(kind, figures);
                    }
                    Err(error) => {
                        let reason = format!("{}: {error:#}", kind.name());
                        eprintln!("skipped: {reason}");
                        results.skipped.insert(entry.name.to_owned(), reason);
                    }
                }
            }
        }
        results.rounds.push(round);
    }
    results
}

/// A directory that is gone when it is dropped.
struct OwnDir(PathBuf);

impl OwnDir {
    fn new(parent: &Path) -> Result<Self> {
        let dir = parent.join("rivals-child");
        fs::create_dir_all(parent)?;
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for OwnDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn child(plan: &Plan, entry: &Entry, kind: Kind) -> Result<Figures> {
    let dir = OwnDir::new(&plan.task.dir)?;
    let records = plan.task.records * entry.factor;
    let task = Task {
        kind,
        dir: dir.0.clone(),
        records,
        ..plan.task.clone()
    };
    let mut command = match &entry.program {
        Program::Own(_) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["child", entry.name]);
            command
        }
        Program::Cpp => Command::new(cpp::built()?),
    };
    let output = output(command.args(task.to_args()))?;
    let line = output.lines().last().context("the child printed nothing")?;
    let figures: Figures = serde_json::from_str(line).context("the child printed no figures")?;
    if let Some(bytes) = figures.get(figure::BYTES) {
        let bytes = bytes + figures.get(figure::AFTER_BYTES).copied().unwrap_or(0.0);
        let late = os::dir_bytes(&dir.0)? as f64 - bytes;
        ensure!(
            late == 0.0,
            "{late} bytes were written after it had been finished"
        );
    }
    let arrived = (entry.arrived)(&dir.0).context("the files cannot be read")?;
    Ok(derived(figures, arrived))
}

/// What the child printed; its standard error is ours.
fn output(command: &mut Command) -> Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().context("it has a pipe")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if begin.elapsed() > CHILD_MAX {
            child.kill()?;
            child.wait()?;
            bail!("not done after {CHILD_MAX:?}");
        }
        thread::sleep(Duration::from_millis(20));
    };
    let text = reader.join().expect("the reader does not panic")?;
    if !status.success() {
        bail!("the child ended with {status}");
    }
    Ok(text)
}

/// Adds what follows from the number of records that arrived.
fn derived(mut figures: Figures, arrived: u64) -> Figures {
    let arrived = arrived as f64;
    let get = |name: &str| figures.get(name).copied();
    let millions = arrived / 1e6;
    let after = get(figure::AFTER_CPU_SECONDS);
    let logged = get(figure::LOGGED);
    let derived = [
        (figure::ARRIVED, Some(arrived)),
        (
            figure::LOST_PERCENT,
            logged.map(|logged| (logged - arrived) / logged * 100.0),
        ),
        (
            figure::RATE,
            get(figure::SECONDS).map(|seconds| millions / seconds),
        ),
        (
            figure::CPU_PER_M,
            get(figure::CPU_SECONDS).map(|cpu| cpu / millions),
        ),
        (
            figure::BYTES_EACH,
            get(figure::BYTES).map(|bytes| bytes / arrived),
        ),
        (
            figure::WAITS_PER_K,
            get(figure::WAITS)
                .zip(logged)
                .map(|(waits, logged)| waits / logged * 1e3),
        ),
        (
            figure::TOTAL_CPU_PER_M,
            get(figure::CPU_SECONDS).map(|cpu| (cpu + after.unwrap_or(0.0)) / millions),
        ),
        (
            figure::AFTER_BYTES_EACH,
            get(figure::AFTER_BYTES).map(|bytes| bytes / arrived),
        ),
    ];
    for (name, value) in derived {
        if let Some(value) = value {
            figures.insert(name.to_owned(), value);
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_arrived() {
        let given = [
            (figure::LOGGED, 4e6),
            (figure::SECONDS, 2.0),
            (figure::CPU_SECONDS, 3.0),
            (figure::BYTES, 2e8),
            (figure::AFTER_CPU_SECONDS, 1.0),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value)).into();
        let figures = derived(given, 1_000_000);
        assert_eq!(figures[figure::LOST_PERCENT], 75.0);
        assert_eq!(figures[figure::RATE], 0.5);
        assert_eq!(figures[figure::CPU_PER_M], 3.0);
        assert_eq!(figures[figure::TOTAL_CPU_PER_M], 4.0);
        assert_eq!(figures[figure::BYTES_EACH], 200.0);
        assert!(!figures.contains_key(figure::AFTER_BYTES_EACH));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let one = |values: &[(&str, f64)]| -> Round {
            let kinds = |value| BTreeMap::from([(Kind::Idle, [("x".to_owned(), value)].into())]);
            values
                .iter()
                .map(|(logger, value)| ((*logger).to_owned(), kinds(*value)))
                .collect()
        };
        let rounds = |rounds: &[&[(&str, f64)]]| Results {
            rounds: rounds.iter().map(|round| one(round)).collect(),
            ..Results::default()
        };
        let mut results = rounds(&[&[("a", 1.0), ("b", 2.0)], &[("b", 7.0)]]);
        let more = rounds(&[&[("a", 10.0), ("b", 30.0)], &[("a", 4.0), ("b", 16.0)]]);
        results.merge(more).unwrap();
        let ratio = results.ratio("b", "a", Kind::Idle, "x").unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (2.0, 3.0, 4.0));
        assert!(results.ratio("b", "c", Kind::Idle, "x").is_none());
        assert_eq!(results.rounds_of(Kind::Idle), 4);
        assert_eq!(results.rounds_of(Kind::Cold), 0);
        assert!(
            results
                .merge(Results {
                    records: 1,
                    ..rounds(&[&[]])
                })
                .is_err()
        );
    }
}
