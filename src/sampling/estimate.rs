//! From written records to what was offered: the Horvitz-Thompson estimator, with its variance.
//!
//! A record with inclusion probability p has the weight w = 1/p; the sum of w * y over what was
//! kept is an unbiased estimate of the sum of y over all (y = 1: their number). Records of one
//! key share one r, so they are one cluster: two of them are both kept with min(p, p'), the sets
//! being nested. With that, the variance of a cluster is estimated without bias by
//!
//! ```text
//!   (sum w y)^2 - sum over all pairs (i, j), i = j too, of max(w_i, w_j) y_i y_j
//! ```
//!
//! which for a keyless record is w (w - 1) y^2, and 0 where all weights are 1. Clusters are
//! independent: their variances add up.

use std::collections::BTreeMap;

use super::KeyHash;
use super::gaps::mix;

/// Kept clusters below which the interval of an [`Estimate`] is not to be trusted.
pub const CLUSTERS_MIN: u64 = 100;
/// Different weights of one cluster: as many as there are weight ids.
const WEIGHTS_MAX: usize = 256;
/// Sums that an estimator keeps at most, unless it is told otherwise.
const SUMS_MAX: usize = 1 << 17;
/// Fewer would not do for the records of two keys with all their weights.
const SUMS_MIN: usize = 1 << 10;
/// The last halving of the clusters.
const LEVEL_MAX: u32 = 63;
/// Half width of the interval of 95 % of the normal distribution, in standard deviations.
const SIGMAS: f64 = 1.959_963_985;

/// A record that an estimator did not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The weight is not a number from 1 on.
    Weight,
    /// The value is not finite.
    Value,
    /// The 257th weight of one key.
    Weights,
}

/// What the estimate does not speak of. The ledger has the exact figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Records left out by sampling. The estimate covers them; without any it is exact.
    pub sampled_out: u64,
    /// Records lost or suppressed: the full ring, rate limits, repeats. They have no inclusion
    /// probability, so nothing stands for them: add them to the estimate of what was offered.
    pub dropped: u64,
}

/// An estimated total.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The sum of weight times value: without bias.
    pub total: f64,
    /// Its estimated variance.
    pub variance: f64,
    /// Lower end of the interval of 95 %; not below what was written, if no value is negative.
    pub low: f64,
    /// Upper end of the interval of 95 %.
    pub high: f64,
    /// Records in it.
    pub written: u64,
    /// Kept clusters with a weight above 1: keys, and keyless records one by one.
    pub clusters: u64,
    /// Sampled, and fewer than [`CLUSTERS_MIN`] clusters were kept: the interval says little.
    pub too_few: bool,
    /// What stands beside it.
    pub outside: Outside,
}

/// Sums up written records, one at a time and in any order: one estimator per category and
/// quantity.
///
/// Its memory is bounded: at most 131,072 sums, one for each pair of a key and a weight, about
/// 20 MB. When there are more, half of the keys, chosen by a hash of their own, stop being
/// followed, and those that stay count double for the variance, and so on. The total is exact all
/// the same, and the variance still without bias. Records of weight 1 and keyless ones take no
/// memory.
///
/// ```
/// use stormlog::sampling::{Estimator, KeyHash};
///
/// let mut requests = Estimator::new();
/// for key in ["4f6c0a", "9b21d7"] {
///     let key = KeyHash::new(key.as_bytes(), 0);
///     requests.add(4.0, key, 1.0).unwrap(); // its begin, at k = 2
///     requests.add(4.0, key, 1.0).unwrap(); // its end
/// }
/// let estimate = requests.estimate();
/// assert_eq!((estimate.total, estimate.written), (16.0, 4));
/// // Two clusters of 8 each: 2 * (8^2 - 4 * 4).
/// assert_eq!(estimate.variance, 96.0);
/// assert!(estimate.too_few);
/// ```
#[derive(Clone, Debug)]
pub struct Estimator {
    total: f64,
    written: u64,
    /// Sum of the values, and whether all of them are at least 0.
    least: f64,
    any_negative: bool,
    keyless: u64,
    keyless_variance: f64,
    /// By hash of the key, as far as they are followed.
    clusters: BTreeMap<u64, Cluster>,
    /// Sums in `clusters`.
    sums: usize,
    sums_max: usize,
    /// How often the followed keys were halved: one of them stands for 2^level.
    level: u32,
    outside: Outside,
}

/// The kept records of one key.
#[derive(Clone, Debug, Default)]
struct Cluster {
    variance: f64,
    /// By weight: the sum of the values.
    sums: Vec<(f64, f64)>,
}

impl Cluster {
    /// Adds a record; `None` when it has too many weights. The pairs of the new record with those
    /// before it count twice, the pair with itself once.
    fn add(&mut self, weight: f64, value: f64) -> Option<()> {
        #[expect(clippy::float_cmp, reason = "one weight id, one value")]
        let known = self.sums.iter().position(|(other, _)| *other == weight);
        if known.is_none() && self.sums.len() >= WEIGHTS_MAX {
            return None;
        }
        let mut pairs = value * (weight * weight - weight);
        for (other, sum) in &self.sums {
            pairs += 2.0 * sum * (weight * other - weight.max(*other));
        }
        self.variance += value * pairs;
        match known.and_then(|index| self.sums.get_mut(index)) {
            Some((_, sum)) => *sum += value,
            None => self.sums.push((weight, value)),
        }
        Some(())
    }
}

impl Default for Estimator {
    fn default() -> Self {
        Self::new()
    }
}

impl Estimator {
    /// An estimator of nothing yet.
    pub const fn new() -> Self {
        Self::with_sums_max(SUMS_MAX)
    }

    /// With another bound on its memory: sums of about 150 bytes each, at least 1,024 of them.
    pub const fn with_sums_max(sums_max: usize) -> Self {
        Self {
            total: 0.0,
            written: 0,
            least: 0.0,
            any_negative: false,
            keyless: 0,
            keyless_variance: 0.0,
            clusters: BTreeMap::new(),
            sums: 0,
            sums_max: if sums_max < SUMS_MIN {
                SUMS_MIN
            } else {
                sums_max
            },
            level: 0,
            outside: Outside {
                sampled_out: 0,
                dropped: 0,
            },
        }
    }

    /// Takes a written record: its weight, its key (`None` for a keyless one; any salt will do, as
    /// long as it is the same for all) and its value: 1 to count, or what is to be summed up.
    ///
    /// # Errors
    /// [`Refused`]; then nothing has changed.
    pub fn add(&mut self, weight: f64, key: Option<KeyHash>, value: f64) -> Result<(), Refused> {
        if !(weight.is_finite() && weight >= 1.0) {
            return Err(Refused::Weight);
        }
        if !value.is_finite() {
            return Err(Refused::Value);
        }
        // Pairs of a weight 1 with any other cancel out.
        if weight > 1.0 {
            if let Some(key) = key {
                self.add_keyed(weight, key.r(), value)?;
            } else {
                self.keyless += 1;
                self.keyless_variance += value * value * weight * (weight - 1.0);
            }
        }
        self.total += weight * value;
        self.written += 1;
        self.least += value;
        self.any_negative |= value < 0.0;
        Ok(())
    }

    /// States what is outside of the estimate, from the ledger of the category.
    pub fn set_outside(&mut self, outside: Outside) {
        self.outside = outside;
    }

    /// The estimate of all records so far.
    pub fn estimate(&self) -> Estimate {
        let scale = (1_u64 << self.level) as f64;
        // A cluster cannot be below 0 but by rounding.
        let own = self
            .clusters
            .values()
            .map(|cluster| cluster.variance.max(0.0));
        let variance = own.sum::<f64>() * scale + self.keyless_variance;
        let half = SIGMAS * variance.sqrt();
        let low = self.total - half;
        let keys = (self.clusters.len() as u64).saturating_mul(1 << self.level);
        let clusters = self.keyless.saturating_add(keys);
        let sampled = clusters > 0 || self.outside.sampled_out > 0;
        Estimate {
            total: self.total,
            variance,
            low: if self.any_negative {
                low
            } else {
                low.max(self.least)
            },
            high: self.total + half,
            written: self.written,
            clusters,
            too_few: sampled && clusters < CLUSTERS_MIN,
            outside: self.outside,
        }
    }

    fn add_keyed(&mut self, weight: f64, r: u64, value: f64) -> Result<(), Refused> {
        if !is_followed(r, self.level) {
            return Ok(());
        }
        let cluster = self.clusters.entry(r).or_default();
        let before = cluster.sums.len();
        cluster.add(weight, value).ok_or(Refused::Weights)?;
        self.sums += cluster.sums.len() - before;
        while self.sums > self.sums_max && self.level < LEVEL_MAX {
            self.level += 1;
            let level = self.level;
            self.clusters.retain(|r, _| is_followed(*r, level));
            let sums = self.clusters.values().map(|cluster| cluster.sums.len());
            self.sums = sums.sum();
        }
        Ok(())
    }
}

/// Whether a key is among one in 2^level. Independent of whether it was kept, which its r alone
/// decides.
fn is_followed(r: u64, level: u32) -> bool {
    level == 0 || mix(r) >> (64 - level) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sampling::Threshold;

    fn key(r: u64) -> KeyHash {
        KeyHash(r)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
    }

    proptest! {
        /// Every r there is, of 16 equally likely ones: the mean of the estimates is the truth,
        /// and the mean of the estimated variances is the variance of the estimates.
        #[test]
        fn total_and_variance_of_a_cluster_have_no_bias(
            records in prop::collection::vec((0..5_u8, -9..10_i32), 1..8),
        ) {
            let truth: f64 = records.iter().map(|(_, y)| f64::from(*y)).sum();
            let runs: Vec<Estimate> = (0..16_u64).map(|cell| {
                let r = cell << 60;
                let mut estimator = Estimator::new();
                for (k, y) in &records {
                    let threshold = Threshold::of_pressure(*k);
                    if threshold.keeps(r) {
                        estimator.add(threshold.weight(), Some(key(r)), (*y).into()).unwrap();
                    }
                }
                estimator.estimate()
            }).collect();
            let mean = |of: &dyn Fn(&Estimate) -> f64| runs.iter().map(of).sum::<f64>() / 16.0;
            prop_assert!(close(mean(&|run| run.total), truth));
            let variance = mean(&|run| (run.total - truth).powi(2));
            prop_assert!(close(mean(&|run| run.variance), variance));
        }

        /// The sum that is kept up record by record is the one of the formula, in any order.
        #[test]
        fn the_running_variance_is_that_of_all_pairs(
            records in prop::collection::vec((1.0..50.0_f64, -9.0..9.0_f64), 1..12),
        ) {
            let sum: f64 = records.iter().map(|(w, y)| w * y).sum();
            let pairs: f64 = records.iter()
                .flat_map(|a| records.iter().map(move |b| (a, b)))
                .map(|((w, y), (v, z))| w.max(*v) * y * z)
                .sum();
            let (mut forward, mut backward) = (Estimator::new(), Estimator::new());
            for ((w, y), (v, z)) in records.iter().zip(records.iter().rev()) {
                forward.add(*w, Some(key(1)), *y).unwrap();
                backward.add(*v, Some(key(1)), *z).unwrap();
            }
            let scale = records.iter().map(|(w, y)| (w * y).powi(2)).sum::<f64>();
            let (forward, backward) = (forward.estimate(), backward.estimate());
            prop_assert!((forward.variance - (sum * sum - pairs)).abs() < 1e-9 * scale.max(1.0));
            prop_assert!((backward.variance - forward.variance).abs() < 1e-9 * scale.max(1.0));
            prop_assert!(forward.variance >= 0.0);
        }
    }

    #[test]
    fn keyless_records_are_clusters_of_their_own() {
        let mut estimator = Estimator::new();
        for weight in [1.0, 2.0, 8.0, 2.5] {
            estimator.add(weight, None, 3.0).unwrap();
        }
        let estimate = estimator.estimate();
        assert_eq!((estimate.total, estimate.clusters), (40.5, 3));
        let expected = 9.0 * (2.0 + 56.0 + 3.75);
        assert!(close(estimate.variance, expected));
        let half = 1.96 * expected.sqrt();
        assert!((estimate.high - (40.5 + half)).abs() < 0.01);
        // 12 were seen, whatever the interval says.
        assert!(40.5 - half < 12.0 && close(estimate.low, 12.0));
        estimator.add(1.0, None, -1.0).unwrap();
        assert!(estimator.estimate().low < 12.0);
    }

    #[test]
    fn without_sampling_the_total_is_exact() {
        let mut estimator = Estimator::new();
        for r in 0..10 {
            estimator.add(1.0, Some(key(r)), 1.5).unwrap();
            estimator.add(1.0, None, 1.5).unwrap();
        }
        let estimate = estimator.estimate();
        assert_eq!(
            (estimate.low, estimate.total, estimate.high),
            (30.0, 30.0, 30.0)
        );
        assert_eq!((estimate.clusters, estimate.too_few), (0, false));
        // The same records are little to go by when others were left out.
        let outside = Outside {
            sampled_out: 5,
            dropped: 2,
        };
        estimator.set_outside(outside);
        let estimate = estimator.estimate();
        assert!(estimate.too_few);
        assert_eq!(estimate.outside, outside);
    }

    #[test]
    fn too_few_clusters_are_said_so() {
        let mut estimator = Estimator::new();
        for r in 0..CLUSTERS_MIN {
            assert_eq!(estimator.estimate().too_few, r > 0, "{r}");
            // Ten records of one key are one cluster.
            (0..10).for_each(|_| estimator.add(2.0, Some(key(r)), 1.0).unwrap());
        }
        let estimate = estimator.estimate();
        assert_eq!((estimate.clusters, estimate.too_few), (CLUSTERS_MIN, false));
    }

    #[test]
    fn what_is_no_record_is_refused_and_changes_nothing() {
        let mut estimator = Estimator::new();
        for weight in [0.0, 0.99, -4.0, f64::NAN, f64::INFINITY] {
            assert_eq!(estimator.add(weight, None, 1.0), Err(Refused::Weight));
        }
        for value in [f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(estimator.add(2.0, Some(key(1)), value), Err(Refused::Value));
        }
        for weight in 0..WEIGHTS_MAX {
            let weight = 2.0 + weight as f64;
            assert_eq!(estimator.add(weight, Some(key(1)), 1.0), Ok(()));
        }
        let before = estimator.estimate();
        assert_eq!(estimator.add(1e6, Some(key(1)), 1.0), Err(Refused::Weights));
        assert_eq!(
            estimator.add(f64::NAN, Some(key(2)), 1.0),
            Err(Refused::Weight)
        );
        assert_eq!(estimator.estimate(), before);
        assert_eq!(before.written, WEIGHTS_MAX as u64);
    }

    /// 100,000 keys in the memory of 2,048: the total is exact, the variance nearly right.
    #[test]
    fn memory_is_bounded_and_the_variance_stays_without_bias() {
        let (mut small, mut whole) = (Estimator::with_sums_max(2048), Estimator::new());
        for r in 0..100_000_u64 {
            for weight in [2.0, 8.0].into_iter().take(1 + (r % 2) as usize) {
                small.add(weight, Some(key(r)), 1.0).unwrap();
                whole.add(weight, Some(key(r)), 1.0).unwrap();
                assert!(small.sums <= 2048);
            }
        }
        assert_eq!(small.level, 7);
        let (small, whole) = (small.estimate(), whole.estimate());
        assert_eq!(small.total.to_bits(), whole.total.to_bits());
        let ratio = small.variance / whole.variance;
        assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
        let ratio = small.clusters as f64 / whole.clusters as f64;
        assert!((ratio - 1.0).abs() < 0.1, "{ratio}");
    }

    /// Keys made to stay for ever cannot take more than the bound either.
    #[test]
    fn chosen_keys_cannot_break_the_bound() {
        assert_eq!(mix(0), 0);
        let mut estimator = Estimator::with_sums_max(0);
        for r in (0..5_000).chain([0]) {
            for weight in 2..300 {
                let taken = estimator.add(f64::from(weight), Some(key(r)), 1.0);
                assert!(taken.is_ok() || taken == Err(Refused::Weights));
                assert!(estimator.sums <= SUMS_MIN);
            }
        }
    }
}
