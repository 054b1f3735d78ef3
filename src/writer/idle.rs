//! How the writer waits: busy while there is much to do, briefly while there is little, and asleep
//! when there is nothing. It never spins on a producer's cache line: a line that moves between
//! cores on every push costs the producer more than the push itself.

use std::time::{Duration, Instant};

use super::allowance::Allowance;
use super::drain::Drained;
use crate::core::Core;
use crate::sys::process::thread_cpu;
use crate::wake::{WAKE_PARTS, Wake, wakes_at};

/// A pass that found a ring as full as this, as a part of its capacity, is followed by the next
/// one at once: a producer would have woken the writer.
const BUSY_FILL: f64 = 1.0 / WAKE_PARTS as f64;
/// The shortest wait.
const WAIT_MIN: Duration = Duration::from_micros(50);
/// How full the fullest ring may become during one wait, as far as the last pass tells: half of
/// what its producer wakes the writer for, so that it mostly need not.
const GATHER_FILL: f64 = BUSY_FILL / 2.0;
/// A pass that found less counts as if it had found this.
const LEAST_FILL: f64 = GATHER_FILL / 32_768.0;
/// The longest wait while looks cost less than their share.
pub(super) const WAIT_CLOSE: Duration = Duration::from_millis(8);
/// Waits from here on are sleeps that a producer with a filling ring may end.
const PARK_FROM: Duration = Duration::from_micros(200);
/// After this long without a record the writer dozes: the next push wakes it, so that waking it
/// costs a thread at most four calls a second. Waking up 125 times a second costs several times
/// what an idle session may cost.
const DOZE_AFTER: Duration = Duration::from_millis(250);
/// The wait while the writer tries to doze and a push was running just then.
const DOZE_RETRY: Duration = Duration::from_millis(5);
/// Longest doze: the writer has small duties of its own (clock points).
const DOZE_MAX: Duration = Duration::from_secs(1);

/// How much in a ring keeps the writer from going to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enough {
    /// Any record: nobody wakes a writer for it that was seen awake.
    Any,
    /// What its producer wakes the writer for. A sleep with less ends by itself, or by that.
    ToWake,
}

impl Enough {
    /// Whether a ring of `capacity` with `waiting` bytes holds enough.
    pub(super) fn is_in(self, waiting: u64, capacity: u64) -> bool {
        match self {
            Self::Any => waiting > 0,
            Self::ToWake => waiting >= wakes_at(capacity),
        }
    }
}

/// How long the next wait is.
#[derive(Debug)]
pub(crate) struct Idle {
    /// When there was something to do last.
    last_work: Instant,
    /// When the last pass ended.
    last_pass: Instant,
    allowance: Allowance,
    /// When the allowance was accounted for, and the processor time of the thread then.
    accounted: (Instant, Duration),
}

impl Idle {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            last_work: now,
            last_pass: now,
            allowance: Allowance::new(),
            accounted: (now, thread_cpu()),
        }
    }

    /// There is something to look after: no doze.
    pub(crate) fn stay_awake(&mut self) {
        self.last_work = Instant::now();
    }

    /// Waits as long as a pass that has `drained` this much suggests; while records come
    /// [`WAIT_CLOSE`] at most, or `wait_max` when looks have cost more than their share. `has_work`
    /// looks at rings and requests once more after producers were told that the writer sleeps.
    pub(super) fn wait(
        &mut self,
        drained: Drained,
        wait_max: Duration,
        core: &Core,
        has_work: impl Fn(Enough) -> bool,
    ) {
        let now = Instant::now();
        let passed = now - std::mem::replace(&mut self.last_pass, now);
        if drained.bytes > 0 {
            self.last_work = now;
        }
        if drained.fill >= BUSY_FILL {
            return;
        }
        let wait = self.next_wait(wait_for(drained.fill, passed, wait_max), now);
        if wait < PARK_FROM {
            std::thread::park_timeout(wait);
        } else if now - self.last_work < DOZE_AFTER {
            sleep(&core.wake, wait, has_work);
        } else {
            doze(core, has_work);
        }
    }

    /// `wait`, or less if a closer look can be afforded.
    fn next_wait(&mut self, wait: Duration, now: Instant) -> Duration {
        if wait > WAIT_CLOSE && self.may_look_closely(now) {
            WAIT_CLOSE
        } else {
            wait
        }
    }

    /// Whether looks have cost less than their share.
    fn may_look_closely(&mut self, now: Instant) -> bool {
        let cpu = thread_cpu();
        let (then, cpu_then) = std::mem::replace(&mut self.accounted, (now, cpu));
        self.allowance
            .account(now - then, cpu.saturating_sub(cpu_then))
    }
}

/// How long it takes until a ring is [`GATHER_FILL`] full that became `fill` full in `passed`. A
/// few records a second are one look each, and not a row of looks that become rarer: those are
/// what such a load costs.
fn wait_for(fill: f64, passed: Duration, wait_max: Duration) -> Duration {
    let waits = GATHER_FILL / fill.max(LEAST_FILL);
    passed.mul_f64(waits).clamp(WAIT_MIN, wait_max)
}

/// Sleeps for a time that a filling ring may end. Records that came meanwhile are no reason to stay
/// awake: at a million a second there is always one, and the writer would never sleep.
fn sleep(wake: &Wake, wait: Duration, has_work: impl Fn(Enough) -> bool) {
    wake.set_parked(true);
    if !has_work(Enough::ToWake) {
        std::thread::park_timeout(wait);
    }
    wake.set_parked(false);
}

/// Sleeps until a push, a request or the time limit.
fn doze(core: &Core, has_work: impl Fn(Enough) -> bool) {
    // First announced, then asked for: a push that sees the request finds somebody to wake.
    core.wake.set_dozing(true);
    let quiet = core.storage.set_doze(true);
    if !has_work(Enough::Any) {
        // A push that runs right now may have missed the request: come back soon.
        std::thread::park_timeout(if quiet { DOZE_MAX } else { DOZE_RETRY });
    }
    core.wake.set_dozing(false);
    core.storage.set_doze(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_rate() {
        let ms = Duration::from_millis;
        let wait_for = |bytes: u32, passed| {
            let fill = f64::from(bytes) / f64::from(512 << 10);
            wait_for(fill, passed, ms(8))
        };
        // One record in 2 ms, none at all: the longest one.
        assert_eq!(wait_for(44, ms(2)), ms(8));
        assert_eq!(wait_for(0, Duration::from_nanos(1)), WAIT_MIN);
        assert_eq!(wait_for(0, ms(1)), ms(8));
        // A million records of 44 bytes a second fill 32 KiB in three quarters of a millisecond.
        let wait = wait_for(22_000, Duration::from_micros(500));
        assert_eq!(wait.as_micros(), 744);
        assert_eq!(wait_for(30_000, Duration::from_micros(10)), WAIT_MIN);
    }

    #[test]
    fn what_nobody_wakes_for_does_not_keep_from_sleeping() {
        let capacity = 512 << 10;
        assert!(Enough::Any.is_in(44, capacity) && !Enough::Any.is_in(0, capacity));
        assert!(!Enough::ToWake.is_in(44, capacity));
        assert!(Enough::ToWake.is_in(capacity / 8, capacity));
        let asked = std::cell::Cell::new(None);
        let has_work = |enough| {
            asked.set(Some(enough));
            true
        };
        sleep(&Wake::default(), Duration::from_secs(60), has_work);
        assert_eq!(asked.get(), Some(Enough::ToWake));
    }

    #[test]
    fn long_waits_are_for_those_who_owe() {
        let (mut idle, ms) = (Idle::new(), Duration::from_millis);
        let now = idle.accounted.0;
        assert_eq!(idle.next_wait(ms(250), now), WAIT_CLOSE);
        assert_eq!(idle.next_wait(ms(3), now), ms(3));
        assert!(!idle.allowance.account(Duration::ZERO, ms(1000)));
        assert_eq!(idle.next_wait(ms(250), now), ms(250));
        assert_eq!(idle.next_wait(ms(8), now), ms(8));
    }
}
