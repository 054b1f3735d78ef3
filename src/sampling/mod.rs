//! Sampling: which records stay under load, and what their number says about all of them.
//!
//! Nothing here is shared, timed or allocated but in the [`Estimator`]: decisions are pure
//! functions of a [`Threshold`] and a number r, and [`Gaps`] is a generator that belongs to one
//! thread. docs/SAMPLING.md has the reasons and the formulas.
//!
//! ```text
//!  pressure k --.                                .-- keyed:   KeyHash of the key and the salt
//!                >-- the larger Threshold T   r <
//!  fixed rate --'                                '-- keyless: Gaps, or a random number
//!                        keep iff r >= T, with weight 1/p
//! ```
//!
//! # Nested sets
//!
//! r is uniform over 64 bits and T = 2^64 - p * 2^64, so a record is kept with probability p.
//! Where two thresholds meet one r, what the larger keeps the smaller keeps too: a key that is
//! kept at k = 3 is kept at every k below. A key survives whole when its r passes the highest
//! threshold that was met during its operation, and processes with one salt keep the same keys.

mod estimate;
mod gaps;

pub use estimate::{CLUSTERS_MIN, Estimate, Estimator, Outside, Refused};
pub use gaps::Gaps;

/// Steps of pressure: k is 0..=15, and the weight of a record at most 2^15.
pub const PRESSURES: usize = 16;
/// 2^64.
const WHOLE: f64 = 18_446_744_073_709_551_616.0;

/// What r must reach for a record to be kept. The larger one wins: [`Ord::max`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

impl Threshold {
    /// Keeps everything.
    pub const ALL: Self = Self(0);

    /// p = 2^-k; of `k` only the lowest 4 bits count.
    #[inline]
    pub const fn of_pressure(k: u8) -> Self {
        // 2^64 - 2^(64 - k); k = 0 gives 0.
        Self(!(u64::MAX >> (k & 15)))
    }

    /// A fixed rate p in (0, 1]; `None` for anything else, and for a p below 2^-65.
    pub fn of_rate(p: f64) -> Option<Self> {
        #[expect(clippy::float_cmp, reason = "exactly one is no sampling")]
        if p == 1.0 {
            return Some(Self::ALL);
        }
        let kept = (p * WHOLE).round();
        // NaN fails both comparisons. p below 1 is at most 1 - 2^-53: `kept` fits 64 bits.
        let fits = kept >= 1.0 && p < 1.0;
        fits.then(|| Self((kept as u64).wrapping_neg()))
    }

    /// Whether a record with this r is kept.
    #[inline]
    pub const fn keeps(self, r: u64) -> bool {
        r >= self.0
    }

    /// The k of which this is the threshold, if it is that of one: such a rate needs no entry in
    /// the rate table, because weight id k stands for 2^k already.
    pub fn pressure(self) -> Option<u8> {
        let ones = self.0.leading_ones();
        let is_power = self.0 == Self::of_pressure(ones as u8).0;
        (ones < PRESSURES as u32 && is_power).then_some(ones as u8)
    }

    /// What a kept record stands for: 1/p.
    pub fn weight(self) -> f64 {
        match self.0 {
            0 => 1.0,
            threshold => WHOLE / threshold.wrapping_neg() as f64,
        }
    }
}

/// A fixed rate and the weight id that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Threshold of the rate.
    pub threshold: Threshold,
    /// Weight id in record headers.
    pub weight_id: u8,
}

/// The threshold that counts for a record, and the weight id that the record carries.
///
/// The larger threshold wins, so p = min(rate, 2^-k). At a tie the pressure does: its weight is a
/// whole number.
#[inline]
pub fn effective(k: u8, rate: Option<Rate>) -> Rate {
    let pressure = Rate {
        threshold: Threshold::of_pressure(k),
        weight_id: k & 15,
    };
    match rate {
        Some(rate) if rate.threshold > pressure.threshold => rate,
        _ => pressure,
    }
}

/// A correlation key, hashed: its r. Prepare it where a key is used more than once.
///
/// XXH3-64 (xxHash, Collet; format 0.8) of the raw bytes with the salt as seed. The name of the
/// hash is part of the contract: processes in other languages that use it keep the same keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// `None` for an empty key: such a record is keyless.
    #[inline]
    pub fn new(key: &[u8], salt: u64) -> Option<Self> {
        let hash = || Self(xxhash_rust::xxh3::xxh3_64_with_seed(key, salt));
        (!key.is_empty()).then(hash)
    }

    /// The number to compare with a [`Threshold`].
    #[inline]
    pub const fn r(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thresholds_of_pressure_are_what_the_formula_says() {
        for k in 0..16_u32 {
            let threshold = Threshold::of_pressure(k as u8);
            let exact = (1_u128 << 64) - (1_u128 << (64 - k));
            assert_eq!(u128::from(threshold.0), exact, "k {k}");
            assert_eq!(threshold.weight().to_bits(), f64::from(1 << k).to_bits());
            assert_eq!(threshold.pressure(), Some(k as u8));
            let rate = Threshold::of_rate(0.5_f64.powi(k as i32));
            assert_eq!(rate, Some(threshold));
            // As often kept as left at the border, and nowhere else.
            assert!(threshold.keeps(threshold.0));
            assert!(threshold.keeps(u64::MAX));
            assert_eq!(threshold.keeps(threshold.0.wrapping_sub(1)), k == 0);
        }
        assert_eq!(Threshold(u64::MAX).pressure(), None);
        assert_eq!(Threshold(3 << 62 | 1).pressure(), None);
        assert_eq!(Threshold(u64::MAX << 48).pressure(), None);
    }

    #[test]
    fn rates_outside_of_0_to_1_are_refused() {
        let subnormal = f64::MIN_POSITIVE;
        for p in [0.0, -0.0, -0.5, 1.0 + f64::EPSILON, 2.0, subnormal] {
            assert_eq!(Threshold::of_rate(p), None, "{p}");
        }
        for p in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Threshold::of_rate(p), None, "{p}");
        }
        let nearly = Threshold::of_rate(1.0 - f64::EPSILON / 2.0).unwrap();
        assert_eq!(nearly, Threshold(1 << 11));
        let rarest = Threshold::of_rate(0.5_f64.powi(64)).unwrap();
        assert_eq!(rarest, Threshold(u64::MAX));
        assert_eq!(rarest.weight().to_bits(), WHOLE.to_bits());
        assert_eq!(Threshold::of_rate(1.0), Some(Threshold::ALL));
        let tenth = Threshold::of_rate(0.1).unwrap();
        assert_eq!(tenth.weight().to_bits(), 10.0_f64.to_bits());
    }

    #[test]
    fn the_larger_threshold_gives_the_weight_id() {
        let third = Rate {
            threshold: Threshold::of_rate(1.0 / 3.0).unwrap(),
            weight_id: 20,
        };
        let ids = [0, 1, 2, 15].map(|k| effective(k, Some(third)).weight_id);
        assert_eq!(ids, [20, 20, 2, 15]);
        let quarter = Rate {
            threshold: Threshold::of_rate(0.25).unwrap(),
            weight_id: 21,
        };
        assert_eq!(effective(2, Some(quarter)).weight_id, 2);
        assert_eq!(effective(1, Some(quarter)).weight_id, 21);
        assert_eq!(effective(0, None).weight_id, 0);
    }

    /// Values of the reference implementation (`XXH3_64bits_withSeed` of xxHash 0.8).
    #[test]
    fn keys_hash_as_xxh3_does() {
        let r = |key: &[u8], salt| KeyHash::new(key, salt).map(KeyHash::r);
        assert_eq!(r(b"", 7), None);
        assert_eq!(r(b"a", 0), Some(0xe6c6_32b6_1e96_4e1f));
        assert_eq!(r(b"abc", 0), Some(0x78af_5f94_892f_3950));
        assert_ne!(r(b"abc", 0), r(b"abc", 1));
    }

    proptest! {
        #[test]
        fn what_a_larger_threshold_keeps_a_smaller_keeps(a: u64, b: u64, r: u64) {
            let (low, high) = (Threshold(a.min(b)), Threshold(a.max(b)));
            prop_assert!(!high.keeps(r) || low.keeps(r));
            prop_assert_eq!(low.max(high), high);
            prop_assert!(low.weight() <= high.weight());
        }

        #[test]
        fn a_rate_and_its_weight_are_inverse(p in 1e-12_f64..1.0) {
            let threshold = Threshold::of_rate(p).unwrap();
            // Rounding to 2^-64 costs at most 2^-65 / p.
            let error = (threshold.weight() * p - 1.0).abs();
            prop_assert!(error < 1e-7, "{}", error);
        }
    }
}
