//! Seeded random numbers: the same seed gives the same traffic, and the same interval, for ever.

use std::time::Duration;

/// `SplitMix64`: small, fast, good enough for traffic and for drawing samples. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

/// What a quantity is at given shares of its distribution, both rising; the first share is 0 and
/// the last one 1, so that no value leaves the range that was seen.
pub type Quantiles = [(f64, f64)];

impl Random {
    /// A generator of its own for each pair of seed and stream.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self { state: seed };
        random.state = random.next() ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93);
        random
    }

    /// Any 64 bits.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 .. `end` - 1; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// 0 <= x < 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `from` <= x < `to`.
    pub fn between(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    /// Seconds between `from` and `to`.
    pub fn seconds(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(self.between(from, to))
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// A value between its quantiles, straight in its logarithm: a log-normal one piece by piece.
    pub fn draw(&mut self, quantiles: &Quantiles) -> f64 {
        let share = self.unit();
        let pairs = quantiles.windows(2);
        let mut pieces = pairs.filter(|pair| share < pair[1].0);
        let Some(&[(share_a, a), (share_b, b)]) = pieces.next() else {
            return quantiles.last().map_or(0.0, |last| last.1);
        };
        let part = (share - share_a) / (share_b - share_a);
        (a.ln() + (b.ln() - a.ln()) * part).exp().clamp(a, b)
    }

    /// A duration from quantiles in milliseconds.
    pub fn millis(&mut self, quantiles: &Quantiles) -> Duration {
        Duration::from_secs_f64(self.draw(quantiles) / 1e3)
    }

    /// `digits` hexadecimal digits.
    pub fn hex(&mut self, digits: usize) -> String {
        let digit = |random: &mut Self| char::from(b"0123456789abcdef"[random.below(16)]);
        (0..digits).map(|_| digit(self)).collect()
    }

    /// Puts `items` into any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_meet_their_quantiles() {
        let table = [(0.0, 9.2), (0.5, 10.7), (0.9, 15.7), (1.0, 30.7)];
        let mut random = Random::new(1, 0);
        let mut values: Vec<_> = (0..20_000).map(|_| random.draw(&table)).collect();
        values.sort_by(f64::total_cmp);
        assert!(values[0] >= 9.2 && values[19_999] <= 30.7);
        assert!((values[10_000] - 10.7).abs() < 0.1, "{}", values[10_000]);
        assert!((values[18_000] - 15.7).abs() < 0.3, "{}", values[18_000]);
    }

    #[test]
    fn numbers_spread_over_their_range() {
        let mut random = Random::new(7, 3);
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            seen[random.below(10)] += 1;
        }
        assert!(
            seen.iter().all(|count| (800..1_200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(random.below(0), 0);
        assert_eq!(random.hex(64).len(), 64);
        assert_ne!(Random::new(7, 3).next(), Random::new(7, 4).next());
        assert_ne!(Random::new(7, 3).next(), Random::new(8, 3).next());
    }
}
