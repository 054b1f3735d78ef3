//! How the writer waits: busy while there is much to do, briefly while there is little, and asleep
//! when there is nothing. It never spins on a producer's cache line: a line that moves between
//! cores on every push costs the producer more than the push itself.

use std::time::Duration;

use crate::core::Wake;

/// A pass that drained at least this much is followed by the next one at once.
const BUSY_BYTES: usize = 32 << 10;
/// First wait after work.
const WAIT_MIN: Duration = Duration::from_micros(50);
/// Longest wait: bounds the time from a push to the segment.
const WAIT_MAX: Duration = Duration::from_millis(8);
/// Waits from here on are sleeps that a producer with a filling ring may end.
const PARK_FROM: Duration = Duration::from_micros(200);

/// How long the next wait is.
#[derive(Debug)]
pub(crate) struct Idle {
    wait: Duration,
}

impl Idle {
    pub(crate) fn new() -> Self {
        Self { wait: WAIT_MIN }
    }

    /// Waits as long as a pass that drained `bytes` suggests. `has_work` is asked once more after
    /// producers were told that the writer sleeps.
    pub(crate) fn wait(&mut self, bytes: usize, wake: &Wake, has_work: impl FnOnce() -> bool) {
        if bytes >= BUSY_BYTES {
            self.wait = WAIT_MIN;
            return;
        }
        self.wait = if bytes > 0 {
            WAIT_MIN
        } else {
            (self.wait * 2).min(WAIT_MAX)
        };
        if self.wait < PARK_FROM {
            std::thread::park_timeout(self.wait);
            return;
        }
        wake.set_parked(true);
        if !has_work() {
            std::thread::park_timeout(self.wait);
        }
        wake.set_parked(false);
    }
}
