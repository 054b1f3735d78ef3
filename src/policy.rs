//! What the configuration asks of single categories at run time: fixed rates, rate limits, log on
//! change. Looked at by pushes whose gate says so, and by no others.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::{CategoryRules, RateLimit};
use crate::record::{CATEGORIES_MAX, Category, KeepClass};
use crate::sampling::{Rate, Threshold};

/// First id of the rate table; those below are powers of two.
pub(crate) const RATE_ID_FIRST: u8 = 16;

/// Policies of a session, by category id.
#[derive(Debug)]
pub(crate) struct Policies {
    by_category: Box<[Policy]>,
}

/// Policy of one category.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// The class of all its records, if the configuration says so.
    pub(crate) keep: Option<KeepClass>,
    /// Part of the normal records that is kept.
    pub(crate) rate: Option<Rate>,
    pub(crate) limit: Option<TokenBucket>,
    pub(crate) on_change: Option<LastStates>,
}

impl Policies {
    /// Policies for the categories that have rules. `ticks_per_second` is that of the clock.
    pub(crate) fn new(rules: &CategoryRules, ticks_per_second: u64) -> Self {
        let mut by_category: Box<[Policy]> =
            (0..CATEGORIES_MAX).map(|_| Policy::default()).collect();
        let mut rates = Vec::new();
        for name in rules.categories() {
            let Some(ids) = Category::named(name).and_then(|category| category.schema().ids())
            else {
                // The process has no category id left: records of it go to `custom` anyway.
                continue;
            };
            let threshold = rules.sample_rate(name).and_then(Threshold::of_rate);
            let threshold = threshold.filter(|threshold| *threshold > Threshold::ALL);
            by_category[usize::from(ids.category)] = Policy {
                keep: rules.keep(name),
                rate: threshold.map(|threshold| fixed_rate(threshold, &mut rates)),
                limit: rules
                    .rate_limit(name)
                    .map(|limit| TokenBucket::new(limit, ticks_per_second)),
                on_change: rules
                    .on_change
                    .iter()
                    .any(|other| other == name)
                    .then(LastStates::new),
            };
        }
        Self { by_category }
    }

    pub(crate) fn of(&self, category: u8) -> &Policy {
        &self.by_category[usize::from(category)]
    }

    /// The rate table, for the registry.
    pub(crate) fn rates(&self) -> impl Iterator<Item = (u8, f64)> {
        let rates = self.by_category.iter().filter_map(|policy| policy.rate);
        rates
            .filter(|rate| rate.weight_id >= RATE_ID_FIRST)
            .map(|rate| (rate.weight_id, rate.threshold.weight()))
    }
}

impl Policy {
    /// Whether records of this class have to look at the policy at all.
    pub(crate) fn concerns(&self, class: KeepClass) -> bool {
        let thinned = self.rate.is_some() || self.limit.is_some();
        self.on_change.is_some() || (class == KeepClass::Sampled && thinned)
    }
}

/// The rate with its weight id: that of a pressure, or one of the rate table, which `rates`
/// becomes.
fn fixed_rate(threshold: Threshold, rates: &mut Vec<Threshold>) -> Rate {
    let weight_id = threshold.pressure().unwrap_or_else(|| {
        let index = rates.iter().position(|other| *other == threshold);
        let index = index.unwrap_or_else(|| {
            rates.push(threshold);
            rates.len() - 1
        });
        // The configuration allows 240 rates.
        RATE_ID_FIRST + index as u8
    });
    Rate {
        threshold,
        weight_id,
    }
}

/// A token bucket that all threads share, in the form of the generic cell rate algorithm (ITU-T
/// I.371): one word says when the bucket will be full again.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// Counter reading at which the bucket is full.
    full_at: AtomicU64,
    /// Ticks per token.
    interval: u64,
    /// Ticks in which an empty bucket fills up, less one interval.
    tolerance: u64,
}

impl TokenBucket {
    fn new(limit: RateLimit, ticks_per_second: u64) -> Self {
        let interval = (ticks_per_second as f64 / limit.per_second).max(1.0) as u64;
        Self {
            full_at: AtomicU64::new(0),
            interval,
            tolerance: interval.saturating_mul(u64::from(limit.burst) - 1),
        }
    }

    /// Takes a token; false when there is none. Lock-free: a thread retries only when another one
    /// has taken a token meanwhile.
    pub(crate) fn take(&self, now: u64) -> bool {
        // Relaxed: the word alone; no data hangs on it.
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let base = full_at.max(now);
            (base - now <= self.tolerance).then(|| base.saturating_add(self.interval))
        });
        taken.is_ok()
    }
}

/// Entries of [`LastStates`]: states that are watched at one time.
const STATES: usize = 1024;

/// The last state of each thing that records of a category tell about.
///
/// One word per thing: 32 bits that name it, 32 bits that stand for its state. Two things that meet
/// in one entry evict each other, which costs suppression, never a state that changed: but one
/// change in 2^32 looks like a repeat.
#[derive(Debug)]
pub(crate) struct LastStates {
    states: Box<[State]>,
}

#[derive(Debug)]
struct State {
    /// Name and state; 0 = empty.
    word: AtomicU64,
    /// Repeats that were suppressed since the last record was kept.
    repeats: AtomicU64,
}

/// A record that differs from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    index: usize,
    word: u64,
    /// Repeats of the state before, to be told in this record.
    pub(crate) repeats: u64,
}

impl LastStates {
    fn new() -> Self {
        let state = |_| State {
            word: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
        };
        Self {
            states: (0..STATES).map(state).collect(),
        }
    }

    /// Whether the thing that `name` stands for is in a new state; `None` = a repeat, which is
    /// counted.
    pub(crate) fn look(&self, name: u64, state: u64) -> Option<Changed> {
        let index = name as usize % STATES;
        let word = (name & !0xffff_ffff) | (state >> 32) | 1;
        let entry = &self.states[index];
        // Relaxed: the words alone; a race between two threads of one thing decides which of their
        // records counts as the repeat.
        if entry.word.load(Relaxed) == word {
            entry.repeats.fetch_add(1, Relaxed);
            return None;
        }
        Some(Changed {
            index,
            word,
            repeats: entry.repeats.swap(0, Relaxed),
        })
    }

    /// The record of a change was kept: what equals it from now on is a repeat.
    pub(crate) fn kept(&self, changed: Changed) {
        self.states[changed.index].word.store(changed.word, Relaxed);
    }

    /// The record does not tell of the repeats, for whatever reason: the next one does.
    pub(crate) fn not_told(&self, changed: Changed) {
        let entry = &self.states[changed.index];
        entry.repeats.fetch_add(changed.repeats, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_its_burst_and_then_its_rate() {
        let limit = RateLimit {
            per_second: 10.0,
            burst: 5,
        };
        let bucket = TokenBucket::new(limit, 1_000_000_000);
        let start = 77_000_000_000;
        let taken = (0..20).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, 5);
        let second = (1..=1000_u64).filter(|ms| bucket.take(start + ms * 1_000_000));
        assert_eq!(second.count(), 10);
        let later = start + 100_000_000_000;
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 5, "rested");
    }

    #[test]
    fn repeats_are_counted_until_something_changes() {
        let states = LastStates::new();
        let (vpn, up, down) = (1 << 40, 1 << 50, 2 << 50);
        let first = states.look(vpn, up).unwrap();
        assert_eq!(first.repeats, 0);
        states.kept(first);
        for _ in 0..3 {
            assert_eq!(states.look(vpn, up), None);
        }
        let lost = states.look(vpn, down).unwrap();
        assert_eq!(lost.repeats, 3);
        states.not_told(lost);
        let change = states.look(vpn, down).unwrap();
        assert_eq!(change.repeats, 3);
        states.kept(change);
        assert_eq!(states.look(vpn, down), None);
        assert_eq!(states.look(vpn, up).unwrap().repeats, 1);
    }

    #[test]
    fn equal_rates_share_an_id_of_the_table() {
        let rules = CategoryRules {
            sample_rates: vec![
                ("policy_a".to_owned(), 0.1),
                ("policy_b".to_owned(), 0.1),
                ("policy_c".to_owned(), 0.3),
                ("policy_d".to_owned(), 1.0),
                ("policy_e".to_owned(), 0.25),
            ],
            ..CategoryRules::default()
        };
        let policies = Policies::new(&rules, 1_000_000_000);
        let mut rates: Vec<_> = policies.rates().collect();
        rates.sort_by_key(|rate| rate.0);
        rates.dedup();
        let ids: Vec<u8> = rates.iter().map(|rate| rate.0).collect();
        assert_eq!(ids, [16, 17]);
        assert!((rates[0].1 - 10.0).abs() < 1e-9);
    }
}
