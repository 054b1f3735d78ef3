//! How the state of a rule goes on from one record to the next: pure functions of words.
//!
//! Words may be torn (see [`cell`](super::cell)): everything here ends and panics for no value.

use super::cell::{Change, Words};
use super::history::{Baseline, Window};

/// Values of a key that have a state of their own at a time.
pub(super) const KEYS_MAX: usize = 16;

// What all keys of a rule share.
const FULL_AT: usize = 0;
const SUPPRESSED: usize = 1;
const SHARED_WORDS: usize = 2;

// One key.
const KEY: usize = 0;
const FLAGS: usize = 1;
const SINCE: usize = 2;
const RECORDS: usize = 3;
const WORST: usize = 4;
const TOUCHED: usize = 5;
const ENTRY_WORDS: usize = 6;

/// An episode is going on.
const ACTIVE: u64 = 1;
/// Its begin was told.
const TOLD: u64 = 2;
/// The state that was seen last, of an edge.
const LAST_SHIFT: u32 = 8;

/// A value that a rule judged, as one word that is greater when it is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Reading {
    /// There is none.
    #[default]
    None,
    /// Nanoseconds.
    Time(u64),
    /// A number.
    Number(f64),
}

impl Reading {
    fn word(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Time(ns) => ns,
            Self::Number(number) => number.to_bits(),
        }
    }

    /// The word of another reading of this kind.
    pub(super) fn of_word(self, word: u64) -> Self {
        match self {
            Self::None => Self::None,
            Self::Time(_) => Self::Time(word),
            Self::Number(_) => Self::Number(f64::from_bits(word)),
        }
    }

    fn is_less(self, other: Self) -> bool {
        match (self, other) {
            (Self::Time(a), Self::Time(b)) => a < b,
            (Self::Number(a), Self::Number(b)) => a < b,
            _ => false,
        }
    }
}

/// What a record says about the condition of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Truth {
    /// It holds.
    Stress(Reading),
    /// Neither: the value lies between both limits.
    Between,
    /// It does not hold any more.
    Calm,
}

/// Begin or end of an episode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    /// It began.
    Begin {
        /// What the rule judged.
        value: Reading,
        /// Episodes before it that were not told.
        suppressed: u64,
    },
    /// It ended.
    End {
        /// Its length in ns.
        duration: u64,
        /// Records of which the condition held.
        records: u64,
        /// The worst of their values, as [`Reading::word`].
        worst: u64,
    },
}

/// How often a rule may tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// ns per episode; 0 = as often as there are.
    pub(super) interval: u64,
    /// ns in which an exhausted budget is full again, less one interval.
    pub(super) tolerance: u64,
}

impl Budget {
    pub(super) fn new(interval: u64, burst: u32) -> Self {
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst.saturating_sub(1))),
        }
    }

    /// Takes one of a budget in the form of the generic cell rate algorithm, as `policy` does.
    fn take(self, shared: Words<'_>, now: u64) -> bool {
        if self.interval == 0 {
            return true;
        }
        let full_at = shared.get(FULL_AT).max(now);
        let good = full_at - now <= self.tolerance;
        if good {
            shared.set(FULL_AT, full_at.saturating_add(self.interval));
        }
        good
    }

    /// Whether an episode that begins may be told, and how many were not since the last.
    fn tell(self, shared: Words<'_>, now: u64) -> Option<u64> {
        let good = self.take(shared, now);
        good.then(|| {
            let suppressed = shared.get(SUPPRESSED);
            shared.set(SUPPRESSED, 0);
            suppressed
        })
    }
}

/// Words of a state with so many keys, and `more` behind them.
pub(super) const fn words(keys: usize, more: usize) -> usize {
    SHARED_WORDS + keys * ENTRY_WORDS + more
}

/// The words behind those of the keys.
pub(super) fn rest(words: Words<'_>, keys: usize) -> Words<'_> {
    words.from(SHARED_WORDS + keys * ENTRY_WORDS)
}

fn entry(words: Words<'_>, index: usize) -> Words<'_> {
    words.from(SHARED_WORDS + index * ENTRY_WORDS)
}

fn any_active(words: Words<'_>, keys: usize) -> bool {
    (0..keys).any(|index| entry(words, index).get(FLAGS) & ACTIVE != 0)
}

/// The entry of a key (not 0): its own, a free one, or the quiet one that was touched longest ago.
/// `None` when all have an episode.
fn find(words: Words<'_>, keys: usize, key: u64) -> Option<Words<'_>> {
    let entries = || (0..keys).map(|index| entry(words, index));
    if let Some(found) = entries().find(|one| one.get(KEY) == key) {
        return Some(found);
    }
    let quiet = entries().filter(|one| one.get(FLAGS) & ACTIVE == 0);
    let found = quiet.min_by_key(|one| (one.get(KEY) != 0, one.get(TOUCHED)))?;
    (KEY..ENTRY_WORDS).for_each(|index| found.set(index, 0));
    found.set(KEY, key);
    Some(found)
}

fn done(words: Words<'_>, keys: usize, changed: bool) -> Change {
    if changed {
        let active = any_active(words, keys);
        Change::New { active }
    } else {
        Change::Same
    }
}

/// An episode of its own for a record of which the condition holds.
pub(super) fn single(
    words: Words<'_>,
    value: Reading,
    now: u64,
    budget: Budget,
) -> (Change, Option<Told>) {
    let told = budget.tell(words, now);
    if told.is_none() {
        words.add(SUPPRESSED, 1);
    }
    let told = told.map(|suppressed| Told::Begin { value, suppressed });
    (Change::New { active: false }, told)
}

/// An episode from the first record of which the condition holds to the first of which it does not.
pub(super) fn span(
    words: Words<'_>,
    keys: usize,
    key: u64,
    truth: Truth,
    now: u64,
    budget: Budget,
    below: bool,
) -> (Change, Option<Told>) {
    let Some(entry) = find(words, keys, key) else {
        return (Change::Same, None);
    };
    let (changed, told) = step(words, entry, truth, now, budget, below);
    if changed {
        entry.set(TOUCHED, now);
    }
    (done(words, keys, changed), told)
}

fn step(
    shared: Words<'_>,
    entry: Words<'_>,
    truth: Truth,
    now: u64,
    budget: Budget,
    below: bool,
) -> (bool, Option<Told>) {
    let flags = entry.get(FLAGS);
    match truth {
        Truth::Stress(value) => {
            let begins = flags & ACTIVE == 0;
            if begins {
                entry.set(SINCE, now);
                entry.set(RECORDS, 0);
                entry.set(WORST, value.word());
            }
            entry.add(RECORDS, 1);
            let worst = value.of_word(entry.get(WORST));
            let (a, b) = if below {
                (value, worst)
            } else {
                (worst, value)
            };
            if a.is_less(b) {
                entry.set(WORST, value.word());
            }
            let flags = if begins { flags & !TOLD } else { flags } | ACTIVE;
            entry.set(FLAGS, flags);
            if flags & TOLD != 0 {
                return (true, None);
            }
            // An episode that could not be told at its begin is told as soon as that may be.
            let told = budget.tell(shared, now).map(|suppressed| {
                entry.set(FLAGS, flags | TOLD);
                // This one was counted when it began.
                let before = suppressed.saturating_sub(u64::from(!begins));
                Told::Begin {
                    value,
                    suppressed: before,
                }
            });
            if told.is_none() && begins {
                shared.add(SUPPRESSED, 1);
            }
            (true, told)
        }
        Truth::Calm if flags & ACTIVE != 0 => {
            entry.set(FLAGS, flags & !(ACTIVE | TOLD));
            let end = Told::End {
                duration: now.saturating_sub(entry.get(SINCE)),
                records: entry.get(RECORDS),
                worst: entry.get(WORST),
            };
            (true, (flags & TOLD != 0).then_some(end))
        }
        Truth::Calm | Truth::Between => (false, None),
    }
}

/// What a state means to an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Seen {
    /// It is one of `from`.
    pub(super) from: bool,
    /// It is one of `to`.
    pub(super) to: bool,
    /// It ends an episode.
    pub(super) clears: bool,
    /// Whether the state before is known to be one of `from`, or does not matter.
    pub(super) entered: bool,
}

/// Classes of the state that was seen last.
const LAST_FROM: u64 = 1;
const LAST_OTHER: u64 = 2;

/// A change of state.
pub(super) fn edge(
    words: Words<'_>,
    keys: usize,
    key: u64,
    seen: Seen,
    from_unknown: bool,
    now: u64,
    budget: Budget,
) -> (Change, Option<Told>) {
    let Some(entry) = find(words, keys, key) else {
        return (Change::Same, None);
    };
    let flags = entry.get(FLAGS);
    let last = flags >> LAST_SHIFT;
    if !(seen.from || seen.to || seen.clears) {
        // A state that the rule does not know changes nothing.
        return (Change::Same, None);
    }
    let entered = seen.entered || last == LAST_FROM || (last == 0 && from_unknown);
    let truth = if seen.to && (entered || flags & ACTIVE != 0) {
        Truth::Stress(Reading::None)
    } else if seen.clears {
        Truth::Calm
    } else {
        Truth::Between
    };
    let next = if seen.from { LAST_FROM } else { LAST_OTHER };
    let (stepped, told) = step(words, entry, truth, now, budget, false);
    let low = entry.get(FLAGS) & ((1 << LAST_SHIFT) - 1);
    entry.set(FLAGS, low | next << LAST_SHIFT);
    let changed = stepped || next != last;
    if changed {
        entry.set(TOUCHED, now);
    }
    (done(words, keys, changed), told)
}

/// A rate: every record that counts changes the state.
pub(super) fn rate(
    words: Words<'_>,
    window: Window,
    hit: bool,
    now: u64,
    budget: Budget,
) -> (Change, Option<Told>) {
    let truth = window.truth(rest(words, 1), hit, now);
    let (changed, told) = span(words, 1, 1, truth, now, budget, false);
    let active = any_active(words, 1);
    match changed {
        Change::Same if hit => (Change::New { active }, told),
        changed => (changed, told),
    }
}

/// A value against its history: every value changes the state.
pub(super) fn baseline(
    words: Words<'_>,
    baseline: Baseline,
    value: Reading,
    now: u64,
    budget: Budget,
) -> (Change, (Option<Told>, Reading)) {
    let (truth, limit) = baseline.truth(rest(words, 1), value);
    let (_, told) = span(words, 1, 1, truth, now, budget, false);
    let active = any_active(words, 1);
    (Change::New { active }, (told, limit))
}
