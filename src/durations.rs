//! Durations as they were offered: exact counts and sums, and a histogram for quantiles.
//!
//! A [`Histogram`] has two buckets per octave, from 512 ns to 2^39 ns (9 minutes), one for what is
//! shorter and one for what is longer:
//!
//! ```text
//!   bucket   0        1         2          3           ...  60              61
//!   ns       0..512   512..768  768..1024  1024..1536       1.5 2^38..2^39  2^39..
//! ```
//!
//! A quantile is off by at most [`RELATIVE_ERROR`] between 512 ns and 2^39 ns, by at most 256 ns
//! below. The longest duration is exact.

use std::time::Duration;

/// Buckets of a histogram.
pub const BUCKETS: usize = 62;
/// Largest error of a quantile between 512 ns and 2^39 ns, as a part of the true one.
pub const RELATIVE_ERROR: f64 = 0.2;

/// Octave of the first bucket with a lower end: 2^9 ns.
const OCTAVE_MIN: u64 = 9;
/// The upper 13 bits of a float (sign, exponent, first digit behind the point) number the half
/// octaves; this is what they are for the bucket below.
const HALF_OCTAVE_BASE: u64 = ((1023 + OCTAVE_MIN) << 1) - 1;
const HALF_OCTAVE_SHIFT: u32 = f64::MANTISSA_DIGITS - 2;

/// The bucket that a duration counts in.
#[inline(always)]
pub(crate) fn bucket_of(ns: u64) -> usize {
    // Numbers over 2^53 are rounded, and over 2^63 negative: both lie far in the last bucket.
    let half_octave = (ns as i64 as f64).to_bits() >> HALF_OCTAVE_SHIFT;
    let bucket = half_octave.saturating_sub(HALF_OCTAVE_BASE);
    bucket.min(BUCKETS as u64 - 1) as usize
}

/// Where a bucket begins, in ns.
fn bucket_start(index: usize) -> u64 {
    match index.checked_sub(1) {
        None => 0,
        Some(half) => (2 + (half as u64 & 1)) << (OCTAVE_MIN - 1 + half as u64 / 2),
    }
}

/// What was observed of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Sum of all durations in ns; `u64::MAX` when that is too little to hold it.
    pub sum_ns: u64,
    /// The longest in ns.
    pub max_ns: u64,
    /// How many lie in each bucket.
    pub buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            sum_ns: 0,
            max_ns: 0,
            buckets: [0; BUCKETS],
        }
    }
}

impl Histogram {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        // What a dead process left says anything.
        self.buckets
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds one duration.
    pub fn observe(&mut self, ns: u64) {
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
        self.buckets[bucket_of(ns)] += 1;
    }

    /// Adds all that is in another one.
    pub fn add(&mut self, other: &Self) {
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// The shortest duration that at least the part `q` of all are not longer than (nearest
    /// rank), with the error that the module states; exact where it is the longest one. `None`
    /// when nothing was observed.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((q * count as f64).ceil() as u64).max(1);
        if rank >= count {
            return (count > 0).then(|| Duration::from_nanos(self.max_ns));
        }
        let mut left = rank;
        for (index, in_bucket) in self.buckets.iter().enumerate() {
            if left <= *in_bucket {
                return Some(Duration::from_nanos(self.middle(index)));
            }
            left -= in_bucket;
        }
        None
    }

    /// The value whose largest relative error in the bucket is the least: the harmonic mean of
    /// its ends. No duration is longer than the longest.
    fn middle(&self, index: usize) -> u64 {
        let start = bucket_start(index);
        let end = bucket_end(index).unwrap_or(u64::MAX);
        let end = end.min(self.max_ns).max(start);
        if start == 0 {
            return end / 2;
        }
        let (start, end) = (u128::from(start), u128::from(end));
        (2 * start * end / (start + end)) as u64
    }

    /// The buckets that are not empty: durations below how many ns (`None`: no bound), and how
    /// many there are.
    pub fn filled(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let counts = self.buckets.iter().enumerate();
        let filled = counts.filter(|(_, count)| **count > 0);
        filled.map(|(index, count)| (bucket_end(index), *count))
    }
}

/// Where a bucket ends, in ns; the last one has no end.
fn bucket_end(index: usize) -> Option<u64> {
    (index + 1 < BUCKETS).then(|| bucket_start(index + 1))
}

/// The durations of one operation: of all records that were offered, whether they were written or
/// not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    /// Category of the records; `None` where they are of several.
    pub category: Option<String>,
    /// Name of the record type; `None` where there are several.
    pub record: Option<String>,
    /// The operation, from the first [`Symbol`](crate::record::Symbol) field of the record.
    pub operation: Option<String>,
    /// Of several operations: they were texts and not symbols, or there were more than 256.
    pub other: bool,
    /// What was observed.
    pub histogram: Histogram,
}

impl Durations {
    /// What they are ordered by.
    pub(crate) fn name(&self) -> [&Option<String>; 3] {
        [&self.category, &self.record, &self.operation]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_meet_at_half_octaves() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_of(1 << 63), BUCKETS - 1);
        assert_eq!(bucket_start(BUCKETS - 1), 1 << 39);
        for index in 1..BUCKETS {
            let start = bucket_start(index);
            assert_eq!(bucket_end(index - 1), Some(start));
            assert_eq!((bucket_of(start), bucket_of(start - 1)), (index, index - 1));
        }
        assert_eq!([1, 2, 3].map(bucket_start), [512, 768, 1024]);
    }

    fn exact(sorted: &[u64], q: f64) -> u64 {
        let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
        sorted[rank - 1]
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_stated_error(
            logs in prop::collection::vec(0.0..39.0_f64, 1..300),
            q in 0.0..=1.0_f64,
        ) {
            let mut all: Vec<u64> = logs.iter().map(|log| log.exp2() as u64).collect();
            let mut histogram = Histogram::default();
            for ns in &all {
                histogram.observe(*ns);
            }
            all.sort_unstable();
            prop_assert_eq!(histogram.count(), all.len() as u64);
            prop_assert_eq!(histogram.sum_ns, all.iter().sum::<u64>());
            prop_assert_eq!(histogram.max_ns, all[all.len() - 1]);
            for q in [q, 0.5, 0.9, 0.99, 1.0] {
                let (told, truth) = (histogram.quantile(q).unwrap(), exact(&all, q));
                let told = told.as_nanos() as f64;
                let bound = if truth < 512 { 256.0 } else { truth as f64 * RELATIVE_ERROR + 1.0 };
                prop_assert!((told - truth as f64).abs() <= bound, "{q}: {told}, {truth}");
            }
            prop_assert_eq!(histogram.quantile(1.0).unwrap().as_nanos(), histogram.max_ns.into());
        }
    }

    #[test]
    fn too_long_a_sum_stays_at_its_bound() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        histogram.observe(u64::MAX - 1);
        histogram.observe(5);
        assert_eq!((histogram.sum_ns, histogram.count()), (u64::MAX, 2));
        let filled: Vec<_> = histogram.filled().collect();
        assert_eq!(filled, [(Some(512), 1), (None, 1)]);
    }
}
