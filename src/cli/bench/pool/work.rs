//! The work of a thread of the pool: steps that calculate and touch memory, all of one length.

use std::hint::black_box;
use std::time::Instant;

/// Words that a thread works on: 32 KiB, so that what a push puts into the caches has a price.
const WORDS: usize = 4096;

/// Parts of a million.
const MILLION: u64 = 1_000_000;

/// The state of one thread.
pub struct Work {
    /// [`WORDS`] of them.
    words: Vec<u64>,
    state: u64,
    /// Millionths of a step of the burn that are not done yet.
    owed: u64,
}

impl Work {
    pub fn new(number: u64) -> Self {
        Self {
            words: vec![number; WORDS],
            state: number,
            owed: 0,
        }
    }

    /// Each step waits for the one before it.
    pub fn steps(&mut self, count: u64) -> u64 {
        let mut state = self.state;
        for _ in 0..count {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let word = &mut self.words[(state >> 52) as usize];
            *word ^= state;
            state = state.rotate_left(23) ^ *word;
        }
        self.state = black_box(state);
        state
    }

    /// One unit with `burn_ppm` parts per million more, to the step over all units. Returns what
    /// was calculated and the steps that were burned.
    pub fn unit(&mut self, steps: u64, burn_ppm: u32) -> (u64, u64) {
        self.owed += steps * u64::from(burn_ppm);
        let more = self.owed / MILLION;
        self.owed %= MILLION;
        (self.steps(steps + more), more)
    }
}

/// How many steps take so many nanoseconds here: the quickest of some tries, since the machine
/// may do other things meanwhile.
pub fn steps_in(nanos: f64) -> u64 {
    const STEPS: u64 = 1_000_000;
    let mut work = Work::new(1);
    let once = |_| {
        let begin = Instant::now();
        work.steps(STEPS);
        begin.elapsed().as_nanos() as u64
    };
    let quickest = (0..10).map(once).min().unwrap_or(1).max(1);
    let steps = nanos * STEPS as f64 / quickest as f64;
    (steps.round() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burn_is_exact_over_all_units() {
        let mut work = Work::new(3);
        let burned: u64 = (0..1_000).map(|_| work.unit(37, 20_000).1).sum();
        assert_eq!(burned, 740);
        assert!((0..1_000).all(|_| work.unit(37, 0).1 == 0));
    }

    #[test]
    fn steps_depend_on_all_before() {
        let (mut one, mut two) = (Work::new(3), Work::new(3));
        let all = one.steps(100);
        two.steps(60);
        assert_eq!(two.steps(40), all);
        assert_ne!(Work::new(4).steps(100), all);
    }

    #[test]
    fn longer_is_more_steps() {
        assert!(steps_in(1e6) > steps_in(1e3));
        assert_eq!(steps_in(0.0), 1);
    }
}
