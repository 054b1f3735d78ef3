//! What rules remember of the past: marks of a window, numbers of values.
//!
//! Words may be torn, as in [`state`](super::state).

use super::cell::Words;
use super::state::{Reading, Truth};

/// The window of a rate: how many marks there were ever, and the last of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// The number that is still no stress.
    pub(super) limit: u32,
    /// At most so many end the episode.
    pub(super) clear: u32,
    /// Length in ns.
    pub(super) span: u64,
}

impl Window {
    /// Words behind those of the key.
    pub(super) fn words(self) -> usize {
        // One word for the number, and one mark more than the limit.
        2 + self.limit as usize
    }

    /// Marks `now` if `hit`, and judges the window that ends now.
    pub(super) fn truth(self, rest: Words<'_>, hit: bool, now: u64) -> Truth {
        let marks = u64::from(self.limit) + 1;
        if hit {
            let count = rest.get(0);
            rest.set(1 + (count % marks) as usize, now);
            rest.set(0, count.wrapping_add(1));
        }
        let held = rest.get(0).min(marks);
        let inside = |index: u64| rest.get(1 + index as usize).saturating_add(self.span) > now;
        let count = (0..held).filter(|index| inside(*index)).count() as u64;
        if count > u64::from(self.limit) {
            Truth::Stress(Reading::Number(count as f64))
        } else if count > u64::from(self.clear) {
            Truth::Between
        } else {
            Truth::Calm
        }
    }
}

/// The history of a baseline: numbers of values in four parts of each octave from 2^-10 on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Baseline {
    pub(super) quantile: f64,
    pub(super) factor: f64,
    pub(super) clear: f64,
    pub(super) samples: u32,
}

/// Buckets of a history, 16 bits each, four to a word.
const BUCKETS: usize = 256;
/// The upper bits of a float number the quarters of octaves; of the first bucket.
const BUCKET_BASE: u64 = (1023 - 10) << 2;
const BUCKET_SHIFT: u32 = f64::MANTISSA_DIGITS - 3;
/// A history of so many values is halved, so that it forgets.
const HISTORY_MAX: u64 = 8192;
/// A history that was halved has so many values at least: each bucket loses half of one more.
pub(super) const SAMPLES_MAX: u32 = (HISTORY_MAX as u32 - BUCKETS as u32) / 2;

impl Baseline {
    /// Words behind those of the key.
    pub(super) const WORDS: usize = 1 + BUCKETS / 4;

    /// Judges the value against the history, and adds it.
    pub(super) fn truth(self, rest: Words<'_>, value: Reading) -> (Truth, Reading) {
        let number = match value {
            Reading::None => return (Truth::Between, Reading::None),
            Reading::Time(ns) => ns as f64,
            Reading::Number(number) => number.max(0.0),
        };
        let count = rest.get(0);
        let mut truth = (Truth::Between, Reading::None);
        if count >= u64::from(self.samples) {
            let usual = self.usual(rest, count);
            let limit = match value {
                Reading::Time(_) => Reading::Time((usual * self.factor) as u64),
                _ => Reading::Number(usual * self.factor),
            };
            truth.1 = limit;
            truth.0 = if number > usual * self.factor {
                Truth::Stress(value)
            } else if number > usual * self.clear {
                Truth::Between
            } else {
                Truth::Calm
            };
        }
        add(rest, number);
        truth
    }

    /// The quantile of the history: the upper end of its bucket.
    fn usual(self, rest: Words<'_>, count: u64) -> f64 {
        let rank = ((count as f64 * self.quantile).ceil() as u64).max(1);
        let mut sum = 0;
        for index in 0..BUCKETS {
            sum += bucket(rest, index);
            if sum >= rank {
                return f64::from_bits((BUCKET_BASE + index as u64 + 1) << BUCKET_SHIFT);
            }
        }
        f64::MAX
    }
}

fn bucket(rest: Words<'_>, index: usize) -> u64 {
    rest.get(1 + index / 4) >> (index % 4 * 16) & 0xffff
}

fn add(rest: Words<'_>, number: f64) {
    let quarter = number.to_bits() >> BUCKET_SHIFT;
    let index = quarter.saturating_sub(BUCKET_BASE).min(BUCKETS as u64 - 1) as usize;
    // A bucket holds less than HISTORY_MAX + 1, far from the end of its 16 bits.
    rest.set(
        1 + index / 4,
        rest.get(1 + index / 4).wrapping_add(1 << (index % 4 * 16)),
    );
    let count = rest.get(0).saturating_add(1);
    if count < HISTORY_MAX {
        rest.set(0, count);
        return;
    }
    let mut left = 0;
    for word in 1..Baseline::WORDS {
        let halved = rest.get(word) >> 1 & 0x7fff_7fff_7fff_7fff;
        rest.set(word, halved);
        left += (0..4)
            .map(|part| halved >> (part * 16) & 0xffff)
            .sum::<u64>();
    }
    rest.set(0, left);
}
