//! How the writer waits: busy while there is much to do, briefly while there is little, and asleep
//! when there is nothing. It never spins on a producer's cache line: a line that moves between
//! cores on every push costs the producer more than the push itself.

use std::time::{Duration, Instant};

use crate::core::Core;
use crate::wake::Wake;

/// A pass that drained at least this much is followed by the next one at once.
const BUSY_BYTES: usize = 32 << 10;
/// First wait after work.
const WAIT_MIN: Duration = Duration::from_micros(50);
/// Longest wait without being woken: bounds the time from a push to the segment.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// Waits from here on are sleeps that a producer with a filling ring may end.
const PARK_FROM: Duration = Duration::from_micros(200);
/// After this long without a record the writer dozes: the next push wakes it. Waking up 200 times
/// a second costs several times what an idle session may cost.
const DOZE_AFTER: Duration = Duration::from_secs(1);
/// Longest doze: the writer has small duties of its own (clock points).
const DOZE_MAX: Duration = Duration::from_secs(1);

/// How long the next wait is.
#[derive(Debug)]
pub(crate) struct Idle {
    wait: Duration,
    /// When there was something to do last.
    last_work: Instant,
}

impl Idle {
    pub(crate) fn new() -> Self {
        Self {
            wait: WAIT_MIN,
            last_work: Instant::now(),
        }
    }

    /// There is something to look after: no doze.
    pub(crate) fn stay_awake(&mut self) {
        self.last_work = Instant::now();
    }

    /// Waits as long as a pass that drained `bytes` suggests. `has_work` looks at rings and
    /// requests once more after producers were told that the writer sleeps.
    pub(crate) fn wait(&mut self, bytes: usize, core: &Core, has_work: impl Fn() -> bool) {
        if bytes > 0 {
            self.last_work = Instant::now();
            self.wait = WAIT_MIN;
            if bytes < BUSY_BYTES {
                std::thread::park_timeout(self.wait);
            }
            return;
        }
        self.wait = (self.wait * 2).min(WAIT_MAX);
        if self.wait < PARK_FROM {
            std::thread::park_timeout(self.wait);
        } else if self.last_work.elapsed() < DOZE_AFTER {
            sleep(&core.wake, self.wait, has_work);
        } else {
            doze(core, has_work);
        }
    }
}

fn sleep(wake: &Wake, wait: Duration, has_work: impl Fn() -> bool) {
    wake.set_parked(true);
    if !has_work() {
        std::thread::park_timeout(wait);
    }
    wake.set_parked(false);
}

/// Sleeps until a push, a request or the time limit.
fn doze(core: &Core, has_work: impl Fn() -> bool) {
    // First announced, then asked for: a push that sees the request finds somebody to wake.
    core.wake.set_dozing(true);
    let quiet = core.storage.set_doze(true);
    if !has_work() {
        // A push that runs right now may have missed the request: come back soon.
        std::thread::park_timeout(if quiet { DOZE_MAX } else { WAIT_MAX });
    }
    core.wake.set_dozing(false);
    core.storage.set_doze(false);
}
