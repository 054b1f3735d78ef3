//! What a tick of the counter is worth, as well as it is known so far.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::segment::entry::ClockPoint;

/// A measured rate that differs from the first one by more is not taken: the machine was suspended,
/// or a clock was set. The first measurement is good to about 25 ppm.
const CHANGE_MAX: f64 = 0.001;
/// A span of clock points below this is not better than the first measurement.
const SPAN_NS_MIN: u64 = 100_000_000;

/// Nanoseconds per tick; the writer makes it better with each clock point.
#[derive(Debug, Default)]
pub(crate) struct TickRate {
    /// Of the first measurement, as bits of a float.
    first: AtomicU64,
    now: AtomicU64,
    start_ticks: AtomicU64,
    start_mono_ns: AtomicU64,
}

impl TickRate {
    /// Before the session has handles: its start, and how many ticks a second has.
    pub(crate) fn start(&self, ticks_per_second: u64, point: &ClockPoint) {
        // Relaxed, here and below: single numbers, and what is a moment old is as good.
        let rate = (1e9 / ticks_per_second.max(1) as f64).to_bits();
        self.first.store(rate, Relaxed);
        self.now.store(rate, Relaxed);
        self.start_ticks.store(point.ticks, Relaxed);
        self.start_mono_ns.store(point.mono_ns, Relaxed);
    }

    /// Writer: another clock point.
    pub(crate) fn refine(&self, point: &ClockPoint) {
        let ticks = point.ticks.saturating_sub(self.start_ticks.load(Relaxed));
        let ns = point
            .mono_ns
            .saturating_sub(self.start_mono_ns.load(Relaxed));
        if ticks == 0 || ns < SPAN_NS_MIN {
            return;
        }
        let rate = ns as f64 / ticks as f64;
        let first = f64::from_bits(self.first.load(Relaxed));
        if (rate / first - 1.0).abs() <= CHANGE_MAX {
            self.now.store(rate.to_bits(), Relaxed);
        }
    }

    /// The time between two readings of the counter.
    pub(crate) fn between(&self, begin: u64, end: u64) -> Duration {
        let rate = f64::from_bits(self.now.load(Relaxed));
        Duration::from_nanos((end.saturating_sub(begin) as f64 * rate).round() as u64)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn later_points_make_the_rate_better_and_absurd_ones_do_not() {
        let rate = TickRate::default();
        let point = |ticks, mono_ns| ClockPoint {
            ticks,
            mono_ns,
            utc_ns: 0,
        };
        rate.start(2_000_000_000, &point(1000, 50));
        assert_eq!(rate.between(5, 2_000_000_005), Duration::from_secs(1));
        // 20 ppm less than it seemed.
        rate.refine(&point(1000 + 20_000_000_000, 50 + 10_000_200_000));
        let better = Duration::new(1, 20_000);
        assert_eq!(rate.between(0, 2_000_000_000), better);
        // The counter ran while the monotonic clock stood still; the counter was set back.
        rate.refine(&point(1000 + 40_000_000_000, 50 + 10_000_200_000));
        rate.refine(&point(0, 50 + 30_000_200_000));
        rate.refine(&point(1000 + 2_000_000, 50 + 1_000_000));
        assert_eq!(rate.between(0, 2_000_000_000), better);
        assert_eq!(rate.between(7, 3), Duration::ZERO);
    }
}
