//! How long calls took: per phase, and per window of time for the plot.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::traffic::{Phase, STRESS};
use crate::Outcome;

/// The longest call that is told apart, ns.
const CALL_NS_MAX: u64 = 60_000_000_000;
/// Digits of the figures.
const DIGITS: u8 = 2;

/// One window of the plot.
pub const WINDOW: Duration = Duration::from_millis(20);

/// Times of calls, ns, with the two clock readings around each.
#[derive(Clone, Debug)]
pub struct Latency {
    /// By phase: all calls.
    pub phases: [Histogram<u64>; 4],
    /// In the storm: calls whose record was kept, and of the category stress.
    pub kept: Histogram<u64>,
    pub stress: Histogram<u64>,
}

impl Latency {
    pub fn new() -> Result<Self> {
        let new = Histogram::new_with_max(CALL_NS_MAX, DIGITS).context("cannot measure calls")?;
        Ok(Self {
            phases: std::array::from_fn(|_| new.clone()),
            kept: new.clone(),
            stress: new,
        })
    }

    pub fn record(&mut self, phase: Phase, category: usize, outcome: Outcome, nanos: u64) {
        self.phases[phase as usize].saturating_record(nanos);
        if phase != Phase::Storm {
            return;
        }
        if outcome == Outcome::Kept {
            self.kept.saturating_record(nanos);
        }
        if category == STRESS {
            self.stress.saturating_record(nanos);
        }
    }

    pub fn add(&mut self, other: &Self) -> Result<()> {
        let pairs = self.phases.iter_mut().zip(&other.phases);
        let more = [
            (&mut self.kept, &other.kept),
            (&mut self.stress, &other.stress),
        ];
        for (mine, other) in pairs.chain(more) {
            mine.add(other).context("cannot add up calls")?;
        }
        Ok(())
    }
}

/// Buckets of a window: 8 per doubling, from 8 ns on; the last one is for all that is longer.
const BUCKETS: usize = 8 * 30;

/// Counts per window: of fixed size, so that measuring takes no memory while it goes on.
#[derive(Clone, Debug)]
pub struct Windows(Vec<[u32; BUCKETS]>);

impl Windows {
    /// For so long a run. The memory is touched here, not later.
    pub fn new(run: Duration) -> Self {
        let count = run.as_nanos().div_ceil(WINDOW.as_nanos()) as usize;
        let mut windows = vec![[u32::MAX; BUCKETS]; count];
        for window in std::hint::black_box(&mut windows) {
            window.fill(0);
        }
        Self(windows)
    }

    pub fn record(&mut self, at: Duration, nanos: u64) {
        let index = (at.as_nanos() / WINDOW.as_nanos()) as usize;
        if let Some(window) = self.0.get_mut(index) {
            window[bucket(nanos)] += 1;
        }
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, other) in self.0.iter_mut().zip(&other.0) {
            for (count, more) in mine.iter_mut().zip(other) {
                *count += more;
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The quantile of a window, ns; `None` without calls.
    pub fn quantile(&self, window: usize, quantile: f64) -> Option<f64> {
        let counts = self.0.get(window)?;
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let wanted = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut sum = 0;
        let reached = |count: &u32| {
            sum += u64::from(*count);
            sum >= wanted
        };
        let index = counts.iter().position(reached)?;
        Some(middle(index))
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(8);
    let octave = nanos.ilog2();
    // The three bits below the first one.
    let part = (nanos >> (octave - 3)) & 7;
    ((octave as usize - 3) * 8 + part as usize).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(index: usize) -> f64 {
    let (octave, part) = ((index / 8) as i32, (index % 8) as f64);
    (8.0 + part + 0.5) * 2.0_f64.powi(octave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_a_few_percent_wide() {
        for nanos in [8, 9, 15, 16, 100, 1_000, 12_345, 4_000_000_000] {
            let found = middle(bucket(nanos)) / nanos as f64;
            assert!((0.93..1.07).contains(&found), "{nanos}: {found}");
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn windows_have_quantiles() {
        let mut windows = Windows::new(Duration::from_millis(50));
        assert_eq!(windows.len(), 3);
        let at = Duration::from_millis(21);
        for nanos in [100, 100, 100, 5_000] {
            windows.record(at, nanos);
        }
        windows.record(Duration::from_secs(9), 1);
        let near = |found: Option<f64>, wanted: f64| (found.unwrap() / wanted - 1.0).abs() < 0.07;
        assert!(near(windows.quantile(1, 0.5), 100.0));
        assert!(near(windows.quantile(1, 0.99), 5_000.0));
        assert_eq!(windows.quantile(0, 0.5), None);
        assert_eq!(windows.quantile(7, 0.5), None);
    }
}
