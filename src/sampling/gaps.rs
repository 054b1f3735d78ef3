//! Which keyless records stay, without a random number for each of them.
//!
//! With probability p = 2^-k each, records are left out in runs. A run is drawn once, and then a
//! record that is left out costs one subtraction. The trials stay independent of each other and
//! have exactly the probability 2^-k: the bits of k random words, taken together by AND, are 64
//! such trials at once.

use super::{PRESSURES, Threshold};

/// What a record to be left out takes from a counter.
const STEP: u8 = 2;
/// Lowest bit of a counter: the record behind the run is kept. Else the next run is drawn for it.
const KEEP: u8 = 1;

/// A counter from here on has gone below 0: the longest run takes less than half of its range.
const BORROWED: u8 = 1 << 7;
const _: () = assert!(63 * STEP + KEEP < BORROWED);

/// The generator of one thread: 24 bytes. Not to be cloned: two copies would decide alike.
#[derive(Debug)]
pub struct Gaps {
    /// By k: twice the records that are left out before the next look, and [`KEEP`].
    left: [u8; PRESSURES],
    random: SplitMix64,
}

impl Gaps {
    /// A generator for one thread. `seed` is random and belongs to the session; `stream` is a
    /// number of the thread (its ring id), so that no two threads decide alike.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self {
            left: [0; PRESSURES],
            random: SplitMix64(mix(seed ^ mix(stream))),
        }
    }

    /// Whether the next keyless record at pressure `k` is kept: a trial with probability 2^-k. Of
    /// `k` only the lowest 4 bits count; 0 keeps everything.
    ///
    /// Each k has a run of its own, so that k may change between any two records: what is left of
    /// a run says nothing about the records of another.
    #[inline]
    pub fn keeps(&mut self, k: u8) -> bool {
        let k = k & 15;
        let left = &mut self.left[usize::from(k)];
        // Two instructions on x86-64: subtract in memory, jump if the sign is set.
        *left = left.wrapping_sub(STEP);
        if *left < BORROWED {
            return false;
        }
        self.draw(k)
    }

    /// Leaves the next keyless record at pressure `k` out, if it is within a run. Otherwise false,
    /// and nothing has happened: [`keeps`](Self::keeps) decides.
    #[inline(always)]
    pub(crate) fn leave_out(&mut self, k: u8) -> bool {
        let left = &mut self.left[usize::from(k & 15)];
        let less = left.wrapping_sub(STEP);
        if less >= BORROWED {
            return false;
        }
        *left = less;
        true
    }

    /// Whether the next keyless record at any `threshold` is kept: one random number each time.
    #[inline]
    pub fn keeps_at(&mut self, threshold: Threshold) -> bool {
        threshold.keeps(self.random.next())
    }

    /// The end of a run: its counter has gone below 0.
    #[cold]
    #[inline(never)]
    fn draw(&mut self, k: u8) -> bool {
        let left = &mut self.left[usize::from(k)];
        let ended = left.wrapping_add(STEP);
        *left = 0;
        if ended == KEEP {
            return true;
        }
        // Bit i is set if trial i succeeds. Once all have failed, further words change nothing.
        let mut trials = u64::MAX;
        for _ in 0..k {
            trials &= self.random.next();
            if trials == 0 {
                break;
            }
        }
        // The first success decides; trials behind it are thrown away, which no later one sees.
        // This record is the first of the run.
        let fails = trials.trailing_zeros() as u8;
        *left = match fails {
            0 => return true,
            64 => 63 * STEP,
            fails => (fails - 1) * STEP + KEEP,
        };
        false
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with the
/// constants of Vigna's `splitmix64.c` (public domain). Every 64-bit value once per period.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    #[inline]
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// A bijection whose outputs look random.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = SplitMix64(1_234_567);
        let found = [(); 3].map(|()| random.next());
        let reference = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(found, reference);
    }

    /// The same trials one by one: the bits of each word from the lowest on, up to a success.
    struct Model {
        random: SplitMix64,
        /// By k: the trials that are left of the word, and how many.
        words: [(u64, u32); PRESSURES],
    }

    impl Model {
        fn keeps(&mut self, k: usize) -> bool {
            if self.words[k].1 == 0 {
                let mut word = u64::MAX;
                for _ in 0..k {
                    if word != 0 {
                        word &= self.random.next();
                    }
                }
                self.words[k] = (word, 64);
            }
            let (word, left) = self.words[k];
            let success = word & 1 == 1;
            self.words[k] = (word >> 1, if success { 0 } else { left - 1 });
            success
        }
    }

    #[test]
    fn every_trial_of_a_word_counts_once() {
        let mut gaps = Gaps::new(11, 4);
        let mut model = Model {
            random: SplitMix64(gaps.random.0),
            words: [(0, 0); PRESSURES],
        };
        let mut choose = SplitMix64(5);
        for number in 0..500_000 {
            // Long stretches of one pressure, and every change there is.
            let k = match number % 1000 {
                0..900 => number / 1000 % PRESSURES,
                _ => (choose.next() % 16) as usize,
            };
            assert_eq!(gaps.keeps(k as u8), model.keeps(k), "{number}: k {k}");
        }
    }

    /// Pearson's statistic of `found` against the expected counts.
    fn chi_square(found: &[u64], expected: &[f64]) -> f64 {
        let cells = found.iter().zip(expected);
        cells.map(|(f, e)| (*f as f64 - e).powi(2) / e).sum()
    }

    /// Runs of left-out records are geometric: P(run = n) = (1 - p)^n p. Twenty cells of about
    /// equal size; 43.8 is exceeded by chance once in a thousand cases, and the seed is fixed.
    #[test]
    fn runs_are_geometric_at_every_pressure() {
        for k in 1..16_u8 {
            let p = 0.5_f64.powi(k.into());
            let runs = if k < 10 { 20_000 } else { 1_000 };
            let ends: Vec<u64> = (1..20)
                .map(|i| ((1.0 - f64::from(i) / 20.0).ln() / (1.0 - p).ln()).ceil() as u64)
                .collect();
            let survive = |n: u64| (1.0 - p).powf(n as f64);
            let mut cells: Vec<u64> = ends.clone();
            cells.dedup();
            let mut expected = Vec::new();
            let mut from = 1.0;
            for end in &cells {
                expected.push((from - survive(*end)) * f64::from(runs));
                from = survive(*end);
            }
            expected.push(from * f64::from(runs));
            let mut found = vec![0; expected.len()];
            let mut gaps = Gaps::new(42, k.into());
            for _ in 0..runs {
                let mut run = 0;
                while !gaps.keeps(k) {
                    run += 1;
                }
                found[cells.partition_point(|end| *end <= run)] += 1;
            }
            let statistic = chi_square(&found, &expected);
            assert!(
                statistic < 43.8,
                "k {k}: {statistic} {found:?} {expected:?}"
            );
        }
    }

    /// Pressures that change from record to record do not disturb each other, and neighbours are
    /// independent: pairs of decisions come as often as they should.
    #[test]
    fn changing_pressure_keeps_the_probability() {
        let mut gaps = Gaps::new(7, 1);
        let (mut kept, mut pairs) = ([0_u64; 16], 0_u64);
        let rounds = 200_000;
        let mut before = false;
        for _ in 0..rounds {
            for k in [1, 6, 3, 0, 2] {
                let keeps = gaps.keeps(k);
                kept[usize::from(k)] += u64::from(keeps);
                if k == 6 {
                    pairs += u64::from(before && keeps);
                }
                before = keeps;
            }
        }
        assert_eq!(kept[0], rounds);
        for k in [1, 2, 3, 6] {
            let p = 0.5_f64.powi(k);
            let (mean, spread) = (rounds as f64 * p, (rounds as f64 * p * (1.0 - p)).sqrt());
            let off = (kept[k as usize] as f64 - mean) / spread;
            assert!(off.abs() < 3.5, "k {k}: {off}");
        }
        let mean = rounds as f64 / 128.0;
        assert!((pairs as f64 - mean).abs() < 3.5 * mean.sqrt(), "{pairs}");
    }

    #[test]
    fn a_fixed_rate_is_kept_too() {
        let mut gaps = Gaps::new(3, 3);
        let threshold = Threshold::of_rate(0.3).unwrap();
        let kept = (0..100_000).filter(|_| gaps.keeps_at(threshold)).count();
        let spread = (100_000.0 * 0.3 * 0.7_f64).sqrt();
        assert!((kept as f64 - 30_000.0).abs() < 3.5 * spread, "{kept}");
    }

    #[test]
    fn threads_decide_differently_and_a_seed_repeats() {
        let decisions = |seed, stream| {
            let mut gaps = Gaps::new(seed, stream);
            (0..128).map(|_| gaps.keeps(1)).collect::<Vec<_>>()
        };
        assert_eq!(decisions(1, 2), decisions(1, 2));
        assert_ne!(decisions(1, 2), decisions(1, 3));
        assert_ne!(decisions(1, 2), decisions(2, 2));
        assert_ne!(decisions(1, 2), decisions(2, 1));
    }
}
