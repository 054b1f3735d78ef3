//! From counter ticks to time: the piecewise-linear map of FORMAT.md section 9.2.
//!
//! Pure integer arithmetic that saturates, so that any clock points give a map that never falls
//! (elapsed) or falls only at a clock step (UTC).
//!
//! ```text
//!  elapsed
//!    |                     _______/   rate of the interval before
//!    |              ______/
//!    |        _____/   one second in which the error is made up
//!    |   ____/
//!    +--t0--------t1----t1+H--------t2----> ticks
//! ```

use crate::segment::entry::ClockPoint;
use crate::segment::layout::FileHeader;

const SECOND_NS: u64 = 1_000_000_000;
/// The most that elapsed time is slowed down within one second.
const SLOW_DOWN_NS_MAX: i128 = 500_000_000;
/// A larger lag than this is a counter that stood still: elapsed time jumps.
const LAG_NS_MAX: i128 = 1_000_000_000;
/// A larger lead than this is a counter that ran while the monotonic clock stood still (the machine
/// was suspended): elapsed time keeps it.
const LEAD_NS_MAX: i128 = 10_000_000_000;
/// UTC corrections up to this, and a thousandth of the interval, are made up smoothly.
const SLEW_NS: i128 = 1_000_000;

/// Nanoseconds per tick as `mantissa / 2^shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slope {
    mantissa: u64,
    shift: u32,
}

impl Slope {
    /// `ns / ticks`, rounded down to 63 significant bits.
    fn ratio(ns: u64, ticks: u64) -> Self {
        let ticks = u128::from(ticks.max(1));
        let mut shift = 64_u32;
        loop {
            let scaled = u128::from(ns)
                .checked_shl(shift)
                .and_then(|scaled| scaled.checked_div(ticks))
                .unwrap_or(0);
            match u64::try_from(scaled) {
                Ok(mantissa) if shift <= 64 => return Self { mantissa, shift },
                _ => shift = shift.saturating_sub(1),
            }
        }
    }

    /// Nanoseconds after `ticks`.
    #[inline]
    fn ns(self, ticks: u64) -> u64 {
        // At most 64 + 64 bits; the shift is at most 64.
        let product = u128::from(ticks).wrapping_mul(u128::from(self.mantissa));
        u64::try_from(product.wrapping_shr(self.shift)).unwrap_or(u64::MAX)
    }
}

/// A piece of the map: it holds from its ticks to those of the next.
#[derive(Clone, Copy, Debug)]
struct Piece {
    ticks: u64,
    elapsed_ns: u64,
    utc_ns: u64,
    elapsed_slope: Slope,
    utc_slope: Slope,
}

impl Piece {
    #[inline]
    fn at(&self, ticks: u64) -> Time {
        let ticks = ticks.saturating_sub(self.ticks);
        Time {
            elapsed_ns: self.elapsed_ns.saturating_add(self.elapsed_slope.ns(ticks)),
            utc_ns: self.utc_ns.saturating_add(self.utc_slope.ns(ticks)),
        }
    }
}

/// A moment as a line shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Nanoseconds since the session started.
    pub elapsed_ns: u64,
    /// UTC, nanoseconds since 1970.
    pub utc_ns: u64,
}

/// The map of a session.
#[derive(Clone, Debug)]
pub struct ClockMap {
    /// By ticks, never empty.
    pieces: Vec<Piece>,
    start: Start,
    /// The last point.
    last: ClockPoint,
}

/// What the map is made from beside the points.
#[derive(Clone, Copy, Debug)]
struct Start {
    point: ClockPoint,
    ticks_per_second: u64,
    /// What the monotonic clock has missed so far.
    missed_ns: i128,
}

impl ClockMap {
    /// The map of a session whose first segment has this header, with the clock points of all its
    /// segments in the order of their ticks. Points at or before the start are ignored.
    pub fn new(header: &FileHeader, points: impl IntoIterator<Item = ClockPoint>) -> Self {
        let start = Start {
            point: ClockPoint {
                ticks: header.start_ticks,
                utc_ns: header.start_utc_ns,
                mono_ns: header.start_mono_ns,
            },
            ticks_per_second: header.ticks_per_second.max(1),
            missed_ns: 0,
        };
        let slope = Slope::ratio(SECOND_NS, start.ticks_per_second);
        let mut map = Self {
            pieces: vec![Piece {
                ticks: start.point.ticks,
                elapsed_ns: 0,
                utc_ns: start.point.utc_ns,
                elapsed_slope: slope,
                utc_slope: slope,
            }],
            start,
            last: start.point,
        };
        for point in points {
            map.add(point);
        }
        map
    }

    /// Takes the next clock point, which changes no time before it; one that is not behind the last
    /// is ignored.
    pub fn add(&mut self, point: ClockPoint) {
        if point.ticks > self.last.ticks {
            let (mut start, last) = (self.start, self.last);
            self.add_pieces(&mut start, &last, &point);
            (self.start, self.last) = (start, point);
        }
    }

    /// Gives up times long past: at least `keep` clock points are left.
    pub fn forget(&mut self, keep: usize) {
        // Two pieces for a point; not each time.
        let keep = keep.saturating_mul(2);
        if self.pieces.len() > keep.saturating_mul(2) {
            self.pieces.drain(..self.pieces.len().saturating_sub(keep));
        }
    }

    /// The time at `ticks`.
    pub fn time(&self, ticks: u64) -> Time {
        ClockCursor::new(self).time(ticks)
    }

    /// Appends the two pieces of one point.
    fn add_pieces(&mut self, start: &mut Start, before: &ClockPoint, point: &ClockPoint) {
        let Some(last) = self.last_before(point.ticks) else {
            return;
        };
        let mut rate = rate(start, before, point);
        let mut now = last.at(point.ticks);
        let mono = |point: &ClockPoint| i128::from(point.mono_ns);
        let mut since_start = mono(point)
            .saturating_sub(mono(&start.point))
            .saturating_add(start.missed_ns);
        let mut error = since_start.saturating_sub(i128::from(now.elapsed_ns));
        if error < LEAD_NS_MAX.saturating_neg() {
            start.missed_ns = start.missed_ns.saturating_sub(error);
            since_start = i128::from(now.elapsed_ns);
            error = 0;
            rate = Slope::ratio(SECOND_NS, start.ticks_per_second);
        }
        let old = now;
        if error > LAG_NS_MAX {
            now.elapsed_ns = shifted(now.elapsed_ns, error);
            now.utc_ns = shifted(now.utc_ns, error);
            error = 0;
        }
        let error = error.max(SLOW_DOWN_NS_MAX.saturating_neg());
        // What UTC is ahead of the monotonic clock, as it should be and as the map has it.
        let target = i128::from(point.utc_ns)
            .saturating_sub(i128::from(start.point.utc_ns))
            .saturating_sub(since_start);
        let actual = i128::from(old.utc_ns)
            .saturating_sub(i128::from(start.point.utc_ns))
            .saturating_sub(i128::from(old.elapsed_ns));
        let mut drift = target.saturating_sub(actual);
        let interval = mono(point).saturating_sub(mono(before)).max(0);
        let slew_max = SLEW_NS.saturating_add(interval.wrapping_div(1000));
        if drift.saturating_abs() > slew_max {
            now.utc_ns = shifted(now.utc_ns, drift);
            drift = 0;
        }
        let second = start.ticks_per_second;
        let advance = shifted(rate.ns(second), error);
        let utc_advance = shifted(advance, drift);
        let first = Piece {
            ticks: point.ticks,
            elapsed_ns: now.elapsed_ns,
            utc_ns: now.utc_ns,
            elapsed_slope: Slope::ratio(advance, second),
            utc_slope: Slope::ratio(utc_advance, second),
        };
        self.pieces.push(first);
        if let Some(ticks) = point.ticks.checked_add(second) {
            let then = first.at(ticks);
            self.pieces.push(Piece {
                ticks,
                elapsed_ns: then.elapsed_ns,
                utc_ns: then.utc_ns,
                elapsed_slope: rate,
                utc_slope: rate,
            });
        }
    }

    /// The piece that holds before `ticks`; pieces that would start there or later are dropped.
    fn last_before(&mut self, ticks: u64) -> Option<Piece> {
        while self.pieces.len() > 1 && self.pieces.last()?.ticks >= ticks {
            self.pieces.pop();
        }
        self.pieces.last().copied()
    }
}

/// `ns` moved by `by`, within the range of the type.
fn shifted(ns: u64, by: i128) -> u64 {
    let moved = i128::from(ns).saturating_add(by).max(0);
    u64::try_from(moved).unwrap_or(u64::MAX)
}

/// The rate of the interval between two points, within half and twice that of the header.
fn rate(start: &Start, before: &ClockPoint, point: &ClockPoint) -> Slope {
    let ticks = point.ticks.saturating_sub(before.ticks);
    let expected = u128::from(ticks)
        .wrapping_mul(SECOND_NS.into())
        .checked_div(start.ticks_per_second.into())
        .and_then(|ns| u64::try_from(ns).ok())
        .unwrap_or(u64::MAX);
    let (low, high) = (expected.div_ceil(2), expected.saturating_mul(2));
    let ns = point.mono_ns.saturating_sub(before.mono_ns);
    Slope::ratio(ns.clamp(low, high), ticks)
}

/// Reads a map at ticks that mostly grow.
#[derive(Clone, Debug)]
pub struct ClockCursor<'a> {
    pieces: &'a [Piece],
    piece: Piece,
    /// Ticks from which on another piece holds.
    end: u64,
}

impl<'a> ClockCursor<'a> {
    /// A cursor at the start of `map`.
    pub fn new(map: &'a ClockMap) -> Self {
        let zero = Slope {
            mantissa: 0,
            shift: 0,
        };
        Self {
            pieces: &map.pieces,
            piece: Piece {
                ticks: u64::MAX,
                elapsed_ns: 0,
                utc_ns: 0,
                elapsed_slope: zero,
                utc_slope: zero,
            },
            end: 0,
        }
    }

    /// The time at `ticks`.
    #[inline]
    pub fn time(&mut self, ticks: u64) -> Time {
        if ticks < self.piece.ticks || ticks >= self.end {
            self.seek(ticks);
        }
        self.piece.at(ticks)
    }

    #[cold]
    fn seek(&mut self, ticks: u64) {
        let after = self.pieces.partition_point(|piece| piece.ticks <= ticks);
        if let Some(piece) = self.pieces.get(after.saturating_sub(1)) {
            self.piece = *piece;
        }
        self.end = self.pieces.get(after).map_or(u64::MAX, |next| next.ticks);
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
