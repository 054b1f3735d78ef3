//! The statistics of `stormlog bench overhead`: pure functions over numbers.
//!
//! What a list of values is about is its trimmed mean: that of the values without the lowest and
//! the highest fifth. On a machine with other work some blocks are far off, to both sides, and a
//! plain mean would need many times as many of them. Its interval is the symmetric bootstrap-t:
//! Wilcox, Introduction to Robust Estimation and Hypothesis Testing, 2012, section 4.4; Hall, On
//! Symmetric Bootstrap Confidence Intervals, Journal of the Royal Statistical Society B 50(1),
//! 1988. `docs/BENCHMARKS.md` says how it is used.

use crate::cli::random::Random;

/// So many samples are drawn from the values.
pub const RESAMPLES: usize = 10_000;
/// Fewer values have no interval: so few do not show how much they differ.
pub const VALUES_MIN: usize = 8;

/// Part of the values that is left out on each side.
const TRIMMED: f64 = 0.2;

/// A trimmed mean and where it may lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub centre: f64,
    pub high: f64,
}

impl Interval {
    pub fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }

    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }

    /// The interval of a rising function.
    pub fn map(&self, function: impl Fn(f64) -> f64) -> Self {
        Self {
            low: function(self.low),
            centre: function(self.centre),
            high: function(self.high),
        }
    }
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// How many of so many sorted values are left out on each side.
fn trimmed_count(count: usize) -> usize {
    (count as f64 * TRIMMED) as usize
}

/// The mean without the lowest and the highest fifth.
pub fn trimmed_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    mean_and_error(&mut sorted).0
}

/// Divided by the root of the number of values, the standard error of their trimmed mean.
pub fn deviation(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    mean_and_error(&mut sorted).1 * (values.len() as f64).sqrt()
}

/// The trimmed mean of sorted values, and its standard error: that of the values whose lowest and
/// highest fifth are moved to their neighbours, for which the values are overwritten.
fn mean_and_error(sorted: &mut [f64]) -> (f64, f64) {
    let count = sorted.len();
    let cut = trimmed_count(count);
    let mean = self::mean(&sorted[cut..count - cut]);
    let (low, high) = (sorted[cut], sorted[count - cut - 1]);
    sorted[..cut].fill(low);
    sorted[count - cut..].fill(high);
    let moved = self::mean(sorted);
    let squares: f64 = sorted.iter().map(|value| (value - moved).powi(2)).sum();
    let deviation = (squares / (count as f64 - 1.0)).sqrt();
    (
        mean,
        deviation / ((1.0 - 2.0 * TRIMMED) * (count as f64).sqrt()),
    )
}

/// How much a value goes with the one before it, -1 to 1: about 0 when they are independent, which
/// the interval takes them for.
pub fn lag_correlation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let both = values.windows(2).map(|w| (w[0] - mean) * (w[1] - mean));
    let own: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if own == 0.0 {
        0.0
    } else {
        both.sum::<f64>() / own
    }
}

/// The interval that misses the trimmed mean with probability `error`. `None` with less than
/// [`VALUES_MIN`] values. The same seed gives the same interval.
///
/// Samples are drawn from the values, and of each is seen how many of its own standard errors its
/// trimmed mean is off; as many standard errors of the values are the half of the width.
pub fn bootstrap(values: &[f64], error: f64, resamples: usize, seed: u64) -> Option<Interval> {
    let count = values.len();
    if count < VALUES_MIN {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let mut drawn = sorted.clone();
    let (centre, spread) = mean_and_error(&mut drawn);
    let mut random = Random::new(seed, count as u64);
    let mut errors_off = || {
        drawn.fill_with(|| sorted[random.below(count)]);
        drawn.sort_unstable_by(f64::total_cmp);
        let (mean, error) = mean_and_error(&mut drawn);
        // The values of the sample are one and the same: nothing is known of its error.
        if error > 0.0 {
            (mean - centre).abs() / error
        } else {
            f64::MAX
        }
    };
    let mut off: Vec<f64> = (0..resamples).map(|_| errors_off()).collect();
    off.sort_unstable_by(f64::total_cmp);
    let half_width = if spread > 0.0 {
        spread * quantile(&off, 1.0 - error)
    } else {
        0.0
    };
    Some(Interval {
        low: centre - half_width,
        centre,
        high: centre + half_width,
    })
}

/// The quantile of sorted values, straight between two of them.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share.clamp(0.0, 1.0) * (sorted.len() as f64 - 1.0);
    let (below, part) = (at.floor(), at.fract());
    let value = |index: f64| sorted[(index as usize).min(sorted.len() - 1)];
    value(below) + (value(below + 1.0) - value(below)) * part
}

/// How much error the look with this number (1, 2, ...) may spend of `error`, so that all looks
/// together, however many they are, err with at most that probability: the sum over all numbers of
/// 1 / (n (n + 1)) is 1, and chances of errors add up to no more than their sum.
pub fn error_of_look(error: f64, look: u64) -> f64 {
    error / (look as f64 * (look as f64 + 1.0))
}

/// The share of a standard normal distribution below `z`.
///
/// Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17: wrong by 7.5e-8 at most.
pub fn normal_share(z: f64) -> f64 {
    const FACTORS: [f64; 5] = [
        1.330_274_429,
        -1.821_255_978,
        1.781_477_937,
        -0.356_563_782,
        0.319_381_530,
    ];
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let sum = FACTORS.iter().fold(0.0, |sum, factor| (sum + factor) * t);
    let above = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum;
    if z > 0.0 { 1.0 - above } else { above }
}

/// Where a standard normal distribution has this share below it.
pub fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if normal_share(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// How many values an interval needs that is this wide on each side, in the look that comes next.
pub fn values_for(half_width: f64, deviation: f64, error: f64) -> f64 {
    let z = normal_quantile(1.0 - error / 2.0);
    (z * deviation / half_width).powi(2).ceil()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: f64, wanted: f64, error: f64) {
        assert!((found - wanted).abs() <= error, "{found}, not {wanted}");
    }

    #[test]
    fn distributions_have_the_values_of_the_tables() {
        near(normal_share(0.0), 0.5, 1e-7);
        near(normal_share(1.96), 0.975_002, 1e-6);
        near(normal_share(-3.0), 0.001_349_9, 1e-7);
        near(normal_quantile(0.975), 1.959_964, 1e-5);
        near(normal_quantile(0.0125), -2.241_403, 1e-5);
    }

    #[test]
    fn a_trimmed_mean_leaves_out_a_fifth_on_each_side() {
        let values = [-900.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 70.0];
        near(trimmed_mean(&values), 4.5, 1e-12);
        // Moved: 2 2 2 3 4 5 6 7 7 7.
        near(deviation(&values), (42.5_f64 / 9.0).sqrt() / 0.6, 1e-9);
    }

    #[test]
    fn looks_spend_no_more_than_there_is() {
        near(error_of_look(0.05, 1), 0.025, 1e-12);
        near(error_of_look(0.05, 2), 0.05 / 6.0, 1e-12);
        let all: f64 = (1..100_000).map(|look| error_of_look(0.05, look)).sum();
        assert!(all < 0.05 && all > 0.0499, "{all}");
    }

    #[test]
    fn few_values_have_no_interval() {
        let values: Vec<f64> = (0..VALUES_MIN).map(|index| index as f64).collect();
        assert_eq!(bootstrap(&values[1..], 0.05, 100, 1), None);
        assert!(bootstrap(&values, 0.05, 100, 1).is_some());
    }

    /// How often the interval holds the trimmed mean of what was drawn from, over `sets` samples.
    fn coverage(sets: u64, count: usize, error: f64, draw: impl Fn(&mut Random) -> f64) -> f64 {
        let hits = (0..sets).filter(|set| {
            let mut random = Random::new(*set, 77);
            let values: Vec<f64> = (0..count).map(|_| draw(&mut random)).collect();
            // All sources have a trimmed mean of 0.
            bootstrap(&values, error, 400, *set).is_some_and(|found| found.contains(0.0))
        });
        hits.count() as f64 / sets as f64
    }

    fn normal(random: &mut Random) -> f64 {
        // The sum of 12 numbers from 0 to 1 has a variance of 1.
        (0..12).map(|_| random.unit()).sum::<f64>() - 6.0
    }

    /// As a machine with other work: one value in twelve is this much further off.
    fn disturbed(random: &mut Random, further: f64) -> f64 {
        let far = if random.chance(1.0 / 12.0) {
            further
        } else {
            1.0
        };
        normal(random) * far
    }

    fn off(random: &mut Random) -> f64 {
        disturbed(random, 3.0)
    }

    fn far_off(random: &mut Random) -> f64 {
        disturbed(random, 10.0)
    }

    /// Leans to one side, as times do.
    fn skewed(random: &mut Random) -> f64 {
        // With the normal share P: exp(1/8) (P(0.8416 - 0.5) - P(-0.8416 - 0.5)) / 0.6.
        (0.5 * normal(random)).exp() - 1.027_0
    }

    #[test]
    fn ninety_five_percent_are_ninety_five_percent() {
        type Source = fn(&mut Random) -> f64;
        let sources: [(&str, usize, Source); 5] = [
            ("normal", 10, normal),
            ("normal", 20, normal),
            ("normal", 60, normal),
            ("off", 60, off),
            ("skewed", 60, skewed),
        ];
        for (name, count, source) in sources {
            let found = coverage(1_500, count, 0.05, source);
            assert!((0.93..=0.97).contains(&found), "{name}, {count}: {found}");
        }
    }

    #[test]
    fn values_that_are_far_off_do_not_mislead() {
        let found = coverage(1_000, 60, 0.05, far_off);
        assert!((0.93..=0.97).contains(&found), "{found}");
    }

    #[test]
    fn a_look_with_less_error_covers_more() {
        let found = coverage(1_000, 20, error_of_look(0.05, 1), normal);
        assert!((0.96..=0.99).contains(&found), "{found}");
    }

    #[test]
    fn what_follows_itself_is_seen() {
        let values: Vec<f64> = (0..200).map(|index| f64::from(index / 20 % 2)).collect();
        assert!(lag_correlation(&values) > 0.8);
        let mut random = Random::new(5, 5);
        let values: Vec<f64> = (0..2_000).map(|_| normal(&mut random)).collect();
        near(lag_correlation(&values), 0.0, 0.06);
        near(lag_correlation(&[1.0; 9]), 0.0, 0.0);
    }

    #[test]
    fn the_number_of_values_that_is_asked_for_is_enough() {
        let mut random = Random::new(9, 9);
        let mut half_width = |count: usize| {
            let values: Vec<f64> = (0..count).map(|_| normal(&mut random)).collect();
            bootstrap(&values, 0.05, 4_000, 1).unwrap().half_width()
        };
        near(values_for(0.1, 1.0, 0.05), 385.0, 0.0);
        let mut random = Random::new(4, 4);
        let some: Vec<f64> = (0..2_000).map(|_| normal(&mut random)).collect();
        // A trimmed mean of normal values needs a few more of them than a mean.
        let deviation = deviation(&some);
        near(deviation, 1.07, 0.05);
        let count = values_for(0.1, deviation, 0.05);
        near(half_width(count as usize), 0.1, 0.012);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn an_interval_moves_and_grows_with_its_values(
            values in prop::collection::vec(-1.0..1.0_f64, VALUES_MIN..40),
            shift in -5.0..5.0_f64,
            scale in 0.1..10.0_f64,
            seed in any::<u64>(),
        ) {
            let found = bootstrap(&values, 0.05, 300, seed).unwrap();
            prop_assert!(found.low <= found.centre && found.centre <= found.high);
            let moved: Vec<f64> = values.iter().map(|value| value * scale + shift).collect();
            let moved = bootstrap(&moved, 0.05, 300, seed).unwrap();
            let wanted = found.map(|value| value * scale + shift);
            let width = 1.0 + wanted.half_width();
            prop_assert!((moved.low - wanted.low).abs() < 1e-6 * width);
            prop_assert!((moved.high - wanted.high).abs() < 1e-6 * width);
        }

        #[test]
        fn less_error_is_a_wider_interval(
            values in prop::collection::vec(-1.0..1.0_f64, VALUES_MIN..40),
            look in 1..6_u64,
        ) {
            let at = |look| bootstrap(&values, error_of_look(0.05, look), 500, 3).unwrap();
            let (early, late) = (at(look), at(look + 1));
            prop_assert!(late.low <= early.low && early.high <= late.high);
        }

        #[test]
        fn shares_and_quantiles_are_inverse(share in 0.000_1..0.999_9_f64) {
            prop_assert!((normal_share(normal_quantile(share)) - share).abs() < 1e-9);
        }
    }
}
