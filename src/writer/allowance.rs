//! How much processor time the looks of a writer may cost that finds little: to sleep, wake up and
//! look takes 3 us on some machines, 40 us on others, and 130 us there when all caches hold
//! something else; a service that is nearly idle must not pay for 125 looks a second.

use std::time::Duration;

/// Looks may take one part in this many of a core.
const SHARE: u32 = 2000;
/// What a session begins with: a burst of a second is looked at closely on any machine.
const FIRST: i64 = 5_000_000;
/// What is saved up at most, in some forty seconds of rest: several such bursts.
const SAVED_MAX: i64 = 20_000_000;
/// What a busy time may leave owing: two seconds of the share.
const OWED_MAX: i64 = 1_000_000;

/// Processor time in ns that is left for looks; less than 0 is owing.
#[derive(Debug)]
pub(super) struct Allowance {
    left: i64,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self { left: FIRST }
    }

    /// The thread took `used` of processor time in the `passed` since the last call. Whether there
    /// is time left for close looks.
    pub(super) fn account(&mut self, passed: Duration, used: Duration) -> bool {
        let ns = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let left = self.left.saturating_add(ns(passed / SHARE));
        let left = left.saturating_sub(ns(used));
        self.left = left.clamp(-OWED_MAX, SAVED_MAX);
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSE: Duration = Duration::from_millis(8);
    const FAR: Duration = Duration::from_millis(250);

    /// Looks for that long, each of which costs so much: how many are close, and what all cost.
    fn look_for(allowance: &mut Allowance, time: Duration, cost: Duration) -> (u32, Duration) {
        let (mut now, mut close, mut costs) = (Duration::ZERO, 0, Duration::ZERO);
        let mut wait = CLOSE;
        while now < time {
            now += wait;
            costs += cost;
            wait = if allowance.account(wait, cost) {
                close += 1;
                CLOSE
            } else {
                FAR
            };
        }
        (close, costs)
    }

    #[test]
    fn a_burst_is_looked_at_closely() {
        let second = Duration::from_secs(1);
        let (close, _) = look_for(&mut Allowance::new(), second, Duration::from_micros(40));
        assert_eq!(close, 125);
    }

    #[test]
    fn looks_cost_their_share_at_most() {
        let hour = Duration::from_secs(3600);
        for us in [12, 25, 40, 120] {
            let cost = Duration::from_micros(us);
            let mut allowance = Allowance::new();
            let (close, costs) = look_for(&mut allowance, hour, cost);
            let most = hour / SHARE + Duration::from_nanos(FIRST as u64) + cost;
            assert!(costs <= most, "{costs:?} of {most:?}");
            assert!(
                costs > hour / SHARE * 9 / 10,
                "{costs:?}: as close as it may"
            );
            assert!(close > 0);
        }
    }

    #[test]
    fn cheap_looks_stay_close() {
        let minute = Duration::from_secs(60);
        let (close, _) = look_for(&mut Allowance::new(), minute, Duration::from_micros(3));
        assert_eq!(close, 7500);
    }

    #[test]
    fn a_busy_time_is_forgiven() {
        let mut allowance = Allowance::new();
        let second = Duration::from_secs(1);
        assert!(!allowance.account(second, second));
        // Two seconds later the debt is gone.
        assert!(!allowance.account(2 * second, Duration::ZERO));
        assert!(allowance.account(second, Duration::ZERO));
        // And a long rest saves no more than a burst needs.
        allowance.account(3600 * second, Duration::ZERO);
        assert!(!allowance.account(Duration::ZERO, Duration::from_nanos(SAVED_MAX as u64)));
    }
}
