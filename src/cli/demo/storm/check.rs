//! What is in the files, against what the threads know.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde_json::Value as Json;

use super::run::Run;
use super::traffic::{CATEGORIES, PLANTED, STRESS, Truth};
use crate::CloseReport;
use crate::ledger::Account;
use crate::sampling::{Estimate, Estimator, KeyHash, Outside};

/// One category: what the threads know, what the ledger says, what the lines say.
#[derive(Clone, Debug)]
pub struct Checked {
    pub truth: Truth,
    pub account: Account,
    pub lines: u64,
    pub estimate: Estimate,
}

impl Checked {
    /// The number that the estimate is for: records that were not dropped.
    pub fn meant(&self) -> f64 {
        (self.truth.offered() - self.truth.dropped) as f64
    }

    /// Whether the interval of 95 % has it. In 1 of 20 cases it has not, rightly.
    pub fn is_inside(&self) -> bool {
        (self.estimate.low..=self.estimate.high).contains(&self.meant())
    }

    /// How many standard deviations the estimate is off.
    pub fn sigmas(&self) -> f64 {
        let off = (self.estimate.total - self.meant()).abs();
        if off < 0.5 {
            0.0
        } else {
            off / self.estimate.variance.sqrt().max(1e-9)
        }
    }
}

/// Planted events that were looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stress {
    pub offered: u64,
    pub written: u64,
    pub missing: u64,
    pub twice: u64,
    /// With a number that was never planted.
    pub unknown: u64,
}

/// An episode of sampling, as its two records tell.
#[derive(Clone, Debug)]
pub struct Episode {
    pub cause: String,
    /// Of the record of its end, if it is there.
    pub duration_ms: Option<f64>,
    pub pressure: u64,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub categories: Vec<Checked>,
    pub stress: Stress,
    pub episodes: Vec<Episode>,
    /// Records `sampling_ended`.
    pub ended: usize,
}

/// Reads all lines.
///
/// # Errors
/// When a file cannot be read or a line is no JSON.
pub fn check(run: &Run) -> Result<Found> {
    let mut found = Found {
        categories: Vec::new(),
        stress: Stress::default(),
        episodes: Vec::new(),
        ended: 0,
    };
    for (index, category) in CATEGORIES.iter().enumerate() {
        let truth = run.truth_of(index);
        let ledger = &run.closed.ledger.categories;
        let account = ledger.get(*category).copied().unwrap_or_default();
        let mut estimator = Estimator::new();
        let mut events = Events::new(&run.planted);
        let mut lines = 0;
        if let Some(path) = path_of(&run.closed, category) {
            lines = read(path, |line| {
                if index == STRESS && line["event_type"] != PLANTED {
                    found.own(line);
                    return Ok(());
                }
                if index == STRESS {
                    events.see(line);
                }
                let weight = line["sample_weight"].as_f64().unwrap_or(1.0);
                let key = line["id"].as_str().unwrap_or("");
                let key = KeyHash::new(key.as_bytes(), 0);
                estimator
                    .add(weight, key, 1.0)
                    .map_err(|refused| anyhow!("a line cannot be estimated: {refused:?}"))
            })?;
        }
        estimator.set_outside(Outside {
            sampled_out: account.sampled_out(),
            dropped: account.dropped_total(),
        });
        if index == STRESS {
            found.stress = events.result();
        }
        found.categories.push(Checked {
            truth,
            account,
            lines,
            estimate: estimator.estimate(),
        });
    }
    Ok(found)
}

impl Found {
    /// A record of the session itself.
    fn own(&mut self, line: &Json) {
        let pressure = line["pressure"].as_u64().unwrap_or(0);
        if line["event_type"] == "sampling_started" {
            self.episodes.push(Episode {
                cause: line["cause"].as_str().unwrap_or("").to_owned(),
                duration_ms: None,
                pressure,
            });
        } else if line["event_type"] == "sampling_ended" {
            self.ended += 1;
            if let Some(episode) = self.episodes.last_mut() {
                episode.duration_ms = line["duration_ms"].as_f64();
                episode.pressure = pressure;
            }
        }
    }
}

/// The file of a category, if it has one.
fn path_of<'a>(closed: &'a CloseReport, category: &str) -> Option<&'a Path> {
    let file = closed.files.iter().find(|file| file.category == category);
    file.map(|file| file.path.as_path())
}

fn read(path: &Path, mut visit: impl FnMut(&Json) -> Result<()>) -> Result<u64> {
    let context = || format!("cannot check {}", path.display());
    let mut reader = BufReader::with_capacity(256 << 10, File::open(path).with_context(context)?);
    let (mut line, mut lines) = (Vec::new(), 0);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(context)? == 0 {
            return Ok(lines);
        }
        let json = serde_json::from_slice(&line).with_context(context)?;
        visit(&json).with_context(context)?;
        lines += 1;
    }
}

/// Ticks off planted events.
struct Events<'a> {
    planted: &'a [u64],
    /// How often each was seen, by thread and number.
    seen: BTreeMap<(u64, u64), u64>,
    unknown: u64,
}

impl<'a> Events<'a> {
    fn new(planted: &'a [u64]) -> Self {
        Self {
            planted,
            seen: BTreeMap::new(),
            unknown: 0,
        }
    }

    fn see(&mut self, line: &Json) {
        let number = |name: &str| line[name].as_u64();
        match (number("thread"), number("sequence")) {
            (Some(thread), Some(sequence))
                if self.planted.get(thread as usize) > Some(&sequence) =>
            {
                *self.seen.entry((thread, sequence)).or_default() += 1;
            }
            _ => self.unknown += 1,
        }
    }

    fn result(&self) -> Stress {
        let offered = self.planted.iter().sum();
        let seen: u64 = self.seen.values().sum();
        let different = self.seen.len() as u64;
        Stress {
            offered,
            written: seen + self.unknown,
            missing: offered - different,
            twice: seen - different,
            unknown: self.unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_that_are_missing_or_twice_or_foreign_are_found() {
        let planted = [3, 2];
        let mut events = Events::new(&planted);
        for (thread, sequence) in [(0, 0), (0, 2), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)] {
            events.see(&json!({"thread": thread, "sequence": sequence}));
        }
        events.see(&json!({"thread": "0"}));
        let stress = events.result();
        assert_eq!((stress.offered, stress.written), (5, 8));
        assert_eq!((stress.missing, stress.twice, stress.unknown), (1, 1, 3));
    }
}
