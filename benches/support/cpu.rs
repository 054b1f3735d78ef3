//! Processor time, for benches that tell costs.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of all threads of the process.
pub fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// Of the calling thread.
pub fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).expect("times are positive")
}
