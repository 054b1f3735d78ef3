//! What a child process measures. The C++ program understands the same arguments and prints the
//! same figures (`cpp/spdlog_mark.cpp`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Figures by name. The names are in `figure`.
pub type Figures = BTreeMap<String, f64>;

/// Names of figures. The first group is what a child prints, the second what becomes of it with
/// the number of records that arrived.
pub mod figure {
    /// Records that were handed to the logger.
    pub const LOGGED: &str = "logged";
    /// From the first call until everything was in the file.
    pub const SECONDS: &str = "seconds";
    /// Processor time of all threads in that time.
    pub const CPU_SECONDS: &str = "cpu_seconds";
    /// Length of the files.
    pub const BYTES: &str = "bytes";
    /// How often the calling threads waited in the kernel.
    pub const WAITS: &str = "waits";
    /// Peak of the resident memory.
    pub const PEAK_MIB: &str = "peak_mib";
    /// Two readings of the counter, which are subtracted from each latency.
    pub const CLOCK_NS: &str = "clock_ns";
    /// Mean of the calls of a burst: median of all bursts.
    pub const BURST_P50_NS: &str = "burst_p50_ns";
    /// The same: 99th percentile of all bursts.
    pub const BURST_P99_NS: &str = "burst_p99_ns";
    /// A single call in a burst.
    pub const CALL_P50_NS: &str = "call_p50_ns";
    /// A single call in a burst.
    pub const CALL_P99_NS: &str = "call_p99_ns";
    /// A single call in a burst.
    pub const CALL_P999_NS: &str = "call_p999_ns";
    /// A call after a pause, with cold caches.
    pub const COLD_P50_NS: &str = "cold_p50_ns";
    /// A call after a pause, with cold caches.
    pub const COLD_P99_NS: &str = "cold_p99_ns";
    /// Part of one core that is used when nothing is logged.
    pub const IDLE_PERCENT: &str = "idle_percent";
    /// How often any thread waits in the kernel per second when nothing is logged.
    pub const IDLE_WAKES: &str = "idle_wakes";
    /// Processor time of the conversion that follows.
    pub const AFTER_CPU_SECONDS: &str = "after_cpu_seconds";
    /// Length of the files that the conversion wrote.
    pub const AFTER_BYTES: &str = "after_bytes";

    /// Records whose values were found in the files.
    pub const ARRIVED: &str = "arrived";
    /// Part of the records that did not arrive.
    pub const LOST_PERCENT: &str = "lost_percent";
    /// Millions of records that arrived, per second.
    pub const RATE: &str = "rate_m_per_s";
    /// Processor time per million records that arrived.
    pub const CPU_PER_M: &str = "cpu_s_per_m";
    /// Length of the files per record that arrived.
    pub const BYTES_EACH: &str = "bytes_each";
    /// Waits of the calling threads per 1,000 records.
    pub const WAITS_PER_K: &str = "waits_per_k";
    /// With the conversion: processor time per million records that arrived.
    pub const TOTAL_CPU_PER_M: &str = "total_cpu_s_per_m";
    /// Of the conversion: length of its files per record that arrived.
    pub const AFTER_BYTES_EACH: &str = "after_bytes_each";
}

/// A kind of measurement.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Cost of calls in bursts.
    Calls,
    /// Cost of a call after a pause, with cold caches.
    Cold,
    /// Throughput into the file, one producer.
    File1,
    /// Throughput into the file, two producers.
    File2,
    /// Nothing is logged.
    Idle,
}

impl Kind {
    /// All kinds in the order in which they are measured.
    pub const ALL: [Self; 5] = [
        Self::Calls,
        Self::Cold,
        Self::File1,
        Self::File2,
        Self::Idle,
    ];

    /// Its name on command lines and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Cold => "cold",
            Self::File1 => "file1",
            Self::File2 => "file2",
            Self::Idle => "idle",
        }
    }
}

/// One measurement of one logger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What is measured.
    pub kind: Kind,
    /// Where the logger writes; empty and its own.
    pub dir: PathBuf,
    /// Records to log in `file1` and `file2`.
    pub records: usize,
    /// Bursts in `calls`.
    pub bursts: usize,
    /// Calls in a burst.
    pub burst: usize,
    /// Pause between bursts.
    pub gap_us: u64,
    /// Calls in `cold`.
    pub cold: usize,
    /// Duration of `idle`.
    pub idle_ms: u64,
}

impl Task {
    /// As arguments of a child process.
    pub fn to_args(&self) -> Vec<String> {
        vec![
            format!("kind={}", self.kind.name()),
            format!("dir={}", self.dir.display()),
            format!("records={}", self.records),
            format!("bursts={}", self.bursts),
            format!("burst={}", self.burst),
            format!("gap_us={}", self.gap_us),
            format!("cold={}", self.cold),
            format!("idle_ms={}", self.idle_ms),
        ]
    }

    /// From the arguments of this child process.
    pub fn from_args(args: &[String]) -> Result<Self> {
        let get = |name: &str| -> Result<&str> {
            let found = args
                .iter()
                .find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
            found.with_context(|| format!("{name} is missing"))
        };
        let kind = get("kind")?;
        let Some(kind) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
            bail!("there is no {kind}");
        };
        Ok(Self {
            kind,
            dir: get("dir")?.into(),
            records: get("records")?.parse()?,
            bursts: get("bursts")?.parse()?,
            burst: get("burst")?.parse()?,
            gap_us: get("gap_us")?.parse()?,
            cold: get("cold")?.parse()?,
            idle_ms: get("idle_ms")?.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_child_come_back() {
        let task = Task {
            kind: Kind::File2,
            dir: "a dir/b=c".into(),
            records: 1,
            bursts: 2,
            burst: 3,
            gap_us: 4,
            cold: 5,
            idle_ms: 6,
        };
        assert_eq!(Task::from_args(&task.to_args()).unwrap(), task);
        assert!(Task::from_args(&task.to_args()[1..]).is_err());
    }
}
