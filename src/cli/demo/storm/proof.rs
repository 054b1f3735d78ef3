//! The bars that a storm has to pass, and which of them it did not.

use super::check::Found;
use super::run::{RING_TOTAL_BYTES, Run, SPILL_TOTAL_BYTES};
use super::traffic::{CATEGORIES, Phase, QUIET};
use crate::cli::human;

/// A storm offers at least as many times what the writer takes.
const OVERLOAD_MIN: f64 = 10.0;
/// A call in the storm may take as many times that of one in the calm, in the median.
const P50_RATIO_MAX: f64 = 1.5;
/// An estimate that is further off is wrong: by chance it is so in 1 of 1,700,000 cases.
const SIGMAS_MAX: f64 = 5.0;

/// Part of the records of the quiet category that may be missing: those of the first moments of
/// the storm, in rings that were full before the writer had looked.
const QUIET_PART_MAX: f64 = 0.01;

/// A bar that was not passed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// `stress`, `ledger`, `estimate`, `fair_share`, `episode`, `overload`, `latency`, `memory`
    /// or `session`.
    pub bar: &'static str,
    /// A sentence.
    pub what: String,
}

/// The figures that bars are about.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Records per second that were offered in the storm.
    pub offered_per_second: f64,
    /// Records per second that the writer can take: the limit over the mean length of a record.
    pub capacity_per_second: f64,
    /// One over the other.
    pub overload: f64,
    /// Median of a call without the clock, ns: before, and in the storm.
    pub p50_before: u64,
    pub p50_storm: u64,
    /// One over the other.
    pub p50_ratio: f64,
    pub memory_grown_kib: u64,
    pub memory_bound_kib: u64,
}

impl Figures {
    /// `clock_ns` is in every measured call.
    pub fn new(run: &Run, drain_bytes: u64, clock_ns: u64) -> Self {
        let offered_per_second = run.offered(Phase::Storm) as f64 / run.storm_seconds();
        let mean_bytes = run.drained.bytes as f64 / run.drained.records.max(1) as f64;
        let capacity_per_second = drain_bytes as f64 / mean_bytes.max(1.0);
        // A call takes some time, however short: 1 ns is the resolution of the clock.
        let p50 = |phase: Phase| {
            let nanos = run.latency.phases[phase as usize].value_at_quantile(0.5);
            nanos.saturating_sub(clock_ns).max(1)
        };
        let (p50_before, p50_storm) = (p50(Phase::Before), p50(Phase::Storm));
        let memory = run.memory;
        Self {
            offered_per_second,
            capacity_per_second,
            overload: offered_per_second / capacity_per_second,
            p50_before,
            p50_storm,
            p50_ratio: p50_storm as f64 / p50_before as f64,
            memory_grown_kib: memory.peak_kib.saturating_sub(memory.before_kib),
            memory_bound_kib: (RING_TOTAL_BYTES + SPILL_TOTAL_BYTES) as u64 / 1024,
        }
    }
}

/// Every bar that was not passed; none: the proof holds.
pub fn failures(run: &Run, found: &Found, figures: &Figures) -> Vec<Failure> {
    let mut failures = Failures(Vec::new());
    failures.stress(run, found);
    failures.books(run, found);
    failures.episode(found);
    failures.figures(run, figures);
    for fault in &run.closed.faults {
        failures.add("session", fault.clone());
    }
    failures.0
}

struct Failures(Vec<Failure>);

impl Failures {
    fn add(&mut self, bar: &'static str, what: String) {
        self.0.push(Failure { bar, what });
    }

    fn stress(&mut self, run: &Run, found: &Found) {
        let stress = found.stress;
        if stress.missing > 0 || stress.twice > 0 || stress.unknown > 0 {
            self.add(
                "stress",
                format!(
                    "of {} planted events {} are missing, {} came twice, {} were never planted",
                    stress.offered, stress.missing, stress.twice, stress.unknown
                ),
            );
        }
        let lost = run.closed.always_lost;
        if lost > 0 {
            self.add(
                "stress",
                format!("{lost} records were lost that must be kept"),
            );
        }
    }

    /// Threads, ledger and lines have to agree, and the estimate with the truth.
    fn books(&mut self, run: &Run, found: &Found) {
        if !run.closed.ledger.is_exact() {
            self.add("ledger", "the ledger does not add up".to_owned());
        }
        let own = (found.episodes.len() + found.ended) as u64;
        for (name, checked) in CATEGORIES.iter().zip(&found.categories) {
            let (truth, account) = (&checked.truth, &checked.account);
            let own = if *name == "stress" { own } else { 0 };
            for (what, threads, ledger) in [
                ("offered", truth.offered() + own, account.offered()),
                ("sampled_out", truth.sampled_out, account.sampled_out()),
                ("lines", checked.lines, account.written()),
            ] {
                if threads != ledger {
                    let what = format!("{name}: {what} is {threads}, in the ledger {ledger}");
                    self.add("ledger", what);
                }
            }
            if truth.refused > 0 {
                self.add(
                    "ledger",
                    format!("{name}: {} pushes were refused", truth.refused),
                );
            }
            if !checked.estimate.too_few && checked.sigmas() > SIGMAS_MAX {
                let what = format!(
                    "{name}: the estimate {:.0} is {:.1} standard deviations away from {:.0}",
                    checked.estimate.total,
                    checked.sigmas(),
                    checked.meant()
                );
                self.add("estimate", what);
            }
        }
        let quiet = &found.categories[QUIET].truth;
        let paid = (quiet.sampled_out + quiet.dropped) as f64;
        if paid > QUIET_PART_MAX * quiet.offered() as f64 {
            let what = format!(
                "the quiet category {} pays for the noisy ones: {} of {} records were left out, \
                 {} dropped",
                CATEGORIES[QUIET],
                quiet.sampled_out,
                quiet.offered(),
                quiet.dropped
            );
            self.add("fair_share", what);
        }
    }

    fn episode(&mut self, found: &Found) {
        let begun = found.episodes.len();
        if (begun, found.ended) != (1, 1) {
            let what = format!(
                "one storm is one episode, but there are {begun} records sampling_started and {} \
                 sampling_ended",
                found.ended
            );
            self.add("episode", what);
        }
    }

    fn figures(&mut self, run: &Run, figures: &Figures) {
        if figures.overload < OVERLOAD_MIN {
            let what = format!(
                "the storm reached only {:.1} times the capacity of the writer, not \
                 {OVERLOAD_MIN:.0}: try more --threads or a lower --drain-kib",
                figures.overload
            );
            self.add("overload", what);
        }
        if figures.p50_ratio > P50_RATIO_MAX {
            let what = format!(
                "the median call took {} in the storm and {} before it: {:.2} times, not \
                 {P50_RATIO_MAX}",
                human::nanos(figures.p50_storm),
                human::nanos(figures.p50_before),
                figures.p50_ratio
            );
            self.add("latency", what);
        }
        if run.memory.before_kib == 0 {
            let what = "memory was not measured: /proc/self/status has no RssAnon".to_owned();
            self.add("memory", what);
        }
        if figures.memory_grown_kib > figures.memory_bound_kib {
            let what = format!(
                "memory grew by {}, more than rings and spill ({})",
                human::bytes(figures.memory_grown_kib * 1024),
                human::bytes(figures.memory_bound_kib * 1024)
            );
            self.add("memory", what);
        }
    }
}
