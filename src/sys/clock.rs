//! The counter that stamps records, and readings that tie it to UTC.
#![expect(
    unsafe_code,
    reason = "reading the counter is an intrinsic on some targets"
)]

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::segment::entry::ClockPoint;
use crate::segment::layout::{CLOCK_MONOTONIC, CLOCK_TSC};

/// Where ticks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The invariant time stamp counter of x86-64.
    #[cfg(target_arch = "x86_64")]
    Tsc,
    /// `CLOCK_MONOTONIC`, where there is no counter that runs at one rate on all cores.
    Monotonic,
}

impl Clock {
    /// The best clock of this machine.
    pub(crate) fn detect() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if tsc_is_invariant() {
            return Self::Tsc;
        }
        Self::Monotonic
    }

    /// Number in the file header.
    pub(crate) fn kind(self) -> u32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tsc => CLOCK_TSC,
            Self::Monotonic => CLOCK_MONOTONIC,
        }
    }

    /// The counter now.
    #[inline(always)]
    pub(crate) fn ticks(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tsc => tsc(),
            Self::Monotonic => monotonic_ticks(),
        }
    }

    /// Whether reading it is for the quick path: not when this machine has a quick counter and this
    /// clock is another.
    #[inline(always)]
    pub(crate) fn is_quick(self) -> bool {
        !(cfg!(target_arch = "x86_64") && matches!(self, Self::Monotonic))
    }

    /// All three clocks at (nearly) one moment: of a few tries the one with the shortest span.
    pub(crate) fn point(self) -> ClockPoint {
        let read = |_| {
            let before = self.ticks();
            let utc_ns = utc_ns();
            let mono_ns = monotonic_ns();
            let after = self.ticks();
            let ticks = before + (after.saturating_sub(before)) / 2;
            (
                after.saturating_sub(before),
                ClockPoint {
                    ticks,
                    utc_ns,
                    mono_ns,
                },
            )
        };
        (0..5)
            .map(read)
            .min_by_key(|reading| reading.0)
            .map_or_else(Default::default, |r| r.1)
    }
}

/// Ticks per second, from two readings.
pub(crate) fn ticks_per_second(first: &ClockPoint, second: &ClockPoint) -> u64 {
    let ticks = u128::from(second.ticks.saturating_sub(first.ticks));
    let ns = u128::from(second.mono_ns.saturating_sub(first.mono_ns)).max(1);
    u64::try_from(ticks * 1_000_000_000 / ns)
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Out of line, so that the counter's path stays short.
#[cold]
#[inline(never)]
fn monotonic_ticks() -> u64 {
    monotonic_ns()
}

/// `CLOCK_MONOTONIC` in ns.
pub(crate) fn monotonic_ns() -> u64 {
    timespec_ns(clock_gettime(ClockId::Monotonic))
}

/// UTC in ns since 1970; 0 before that.
pub(crate) fn utc_ns() -> u64 {
    timespec_ns(clock_gettime(ClockId::Realtime))
}

fn timespec_ns(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction; it reads a register.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// CPUID leaf `0x8000_0007`, EDX bit 8: the counter runs at one rate in every power state.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[allow(
    unused_unsafe,
    reason = "the intrinsic is safe in newer standard libraries"
)]
fn tsc_is_invariant() -> bool {
    // SAFETY: every x86-64 processor has CPUID.
    let highest = unsafe { std::arch::x86_64::__cpuid(0x8000_0000) }.eax;
    if highest < 0x8000_0007 {
        return false;
    }
    // SAFETY: as above; the leaf exists.
    let power = unsafe { std::arch::x86_64::__cpuid(0x8000_0007) };
    power.edx & (1 << 8) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_do_not_fall_and_their_rate_is_plausible() {
        let clock = Clock::detect();
        let first = clock.point();
        let mut last = first.ticks;
        for _ in 0..1000 {
            let now = clock.ticks();
            assert!(now >= last);
            last = now;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        let rate = ticks_per_second(&first, &clock.point());
        assert!(
            (1_000_000..20_000_000_000).contains(&rate),
            "{rate} ticks per second"
        );
    }
}
