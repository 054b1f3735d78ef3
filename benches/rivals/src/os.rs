//! What the kernel knows of this process, and the counter.

#[path = "../../support/counter.rs"]
mod counter;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
pub use counter::counter;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

fn usage(who: UsageWho) -> Usage {
    getrusage(who).expect("the kernel knows its threads")
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// Processor time of all threads of this process so far, user and system, in seconds.
pub fn cpu_seconds() -> f64 {
    let usage = usage(UsageWho::RUSAGE_SELF);
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// A number of a line of `status` in a directory of `/proc`.
fn status(dir: &Path, name: &str) -> Option<u64> {
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.strip_prefix(':')?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The most memory that was resident so far, in MiB. (`getrusage` counts the parent's too.)
pub fn peak_mib() -> Result<f64> {
    let kib = status(Path::new("/proc/self"), "VmHWM").context("no VmHWM")?;
    Ok(kib as f64 / 1024.0)
}

/// How often this thread has waited so far.
pub fn thread_waits() -> u64 {
    usage(UsageWho::RUSAGE_THREAD).voluntary_context_switches() as u64
}

/// How often all threads that live now have waited so far.
pub fn process_waits() -> Result<u64> {
    let tasks = fs::read_dir("/proc/self/task")?;
    // A thread may end meanwhile.
    let waits = |dir: &Path| status(dir, "voluntary_ctxt_switches").unwrap_or(0);
    Ok(tasks.flatten().map(|task| waits(&task.path())).sum())
}

/// Keeps this thread on the first core that the process may use, so that a reading of the counter
/// is not one of another core. Threads that it starts later are kept there too.
pub fn pin() -> Result<()> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let this = nix::unistd::Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let first = (0..CpuSet::count()).find(|core| allowed.is_set(*core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.context("no core is allowed")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Length of all files below a directory.
pub fn dir_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() {
            dir_bytes(&entry.path())?
        } else {
            data.len()
        };
    }
    Ok(bytes)
}

/// Turns differences of the counter into nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    ns_per_tick: f64,
    /// Median of two readings one after the other, in ticks.
    empty_ticks: u64,
}

impl Clock {
    /// Measures the counter against the clock of the system for a tenth of a second.
    pub fn calibrate() -> Self {
        let (begin, ticks) = (Instant::now(), counter());
        while begin.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let ticks = counter() - ticks;
        let ns_per_tick = begin.elapsed().as_nanos() as f64 / ticks as f64;
        let mut empty: Vec<u64> = (0..4001)
            .map(|_| {
                let begin = counter();
                counter() - begin
            })
            .collect();
        empty.sort_unstable();
        Self {
            ns_per_tick,
            empty_ticks: empty[empty.len() / 2],
        }
    }

    /// Nanoseconds between two readings, without what the readings cost.
    pub fn ns(self, begin: u64, end: u64) -> f64 {
        (end - begin).saturating_sub(self.empty_ticks) as f64 * self.ns_per_tick
    }

    /// What two readings cost.
    pub fn empty_ns(self) -> f64 {
        self.empty_ticks as f64 * self.ns_per_tick
    }
}
