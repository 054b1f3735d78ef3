//! The ledger: what happened to every record that was offered, per category.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

/// Number of counters per category, in rings and in the ledger file. FORMAT.md section 8.1.
pub const COUNTERS: usize = 16;
/// Index of `offered`.
pub const OFFERED: usize = 0;
/// Index of `sampled_out`.
pub const SAMPLED_OUT: usize = 1;
/// Index of `written`.
pub const WRITTEN: usize = 2;
/// Index of the first drop reason.
pub const DROPPED: usize = 3;
/// Index of `interrupted`.
pub const INTERRUPTED: usize = 13;

/// Why a record was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// The ring of the thread was full.
    RingFull = 0,
    /// No ring was left for the thread: `ring_total_bytes` is used up.
    NoRing = 1,
    /// An `Always` record found headroom and spill full, and waiting did not help.
    AlwaysBudget = 2,
    /// No segment could be written.
    Disk = 3,
    /// A push interrupted another push of the same thread (signal handler).
    Reentrant = 4,
    /// A rate limit of the category.
    RateLimit = 5,
    /// Suppressed because it repeated the state before it.
    Repeat = 6,
    /// No room for a record that is too long for a ring: `large_total_bytes` is used up.
    LargeBudget = 7,
    /// The registry had no room for the schema.
    RegistryFull = 8,
    /// The bytes in a ring or segment could not be read.
    Damaged = 9,
}

/// Every reason in the order of its counter.
pub const DROP_REASONS: [DropReason; 10] = [
    DropReason::RingFull,
    DropReason::NoRing,
    DropReason::AlwaysBudget,
    DropReason::Disk,
    DropReason::Reentrant,
    DropReason::RateLimit,
    DropReason::Repeat,
    DropReason::LargeBudget,
    DropReason::RegistryFull,
    DropReason::Damaged,
];

const _: () = assert!(DROPPED + DROP_REASONS.len() == INTERRUPTED);

impl DropReason {
    /// Index of its counter.
    pub const fn counter(self) -> usize {
        DROPPED + self as usize
    }

    /// Name in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::NoRing => "no_ring",
            Self::AlwaysBudget => "always_budget",
            Self::Disk => "disk",
            Self::Reentrant => "reentrant",
            Self::RateLimit => "rate_limit",
            Self::Repeat => "repeat",
            Self::LargeBudget => "large_budget",
            Self::RegistryFull => "registry_full",
            Self::Damaged => "damaged",
        }
    }
}

/// Counts of one category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The counters in the order of FORMAT.md section 8.1.
    pub counters: [u64; COUNTERS],
}

impl Account {
    /// Records that a caller offered.
    pub const fn offered(&self) -> u64 {
        self.counters[OFFERED]
    }

    /// Records found in blocks.
    pub const fn written(&self) -> u64 {
        self.counters[WRITTEN]
    }

    /// Records left out by sampling.
    pub const fn sampled_out(&self) -> u64 {
        self.counters[SAMPLED_OUT]
    }

    /// Records dropped for this reason.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.counters[reason.counter()]
    }

    /// Records dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        let counts = DROP_REASONS.iter().map(|reason| self.dropped(*reason));
        counts.fold(0, u64::saturating_add)
    }

    /// Records whose push a kill interrupted.
    pub const fn interrupted(&self) -> u64 {
        self.counters[INTERRUPTED]
    }

    /// Offered records of which nothing else is known yet: they are still in a ring.
    pub fn pending(&self) -> u64 {
        self.offered().saturating_sub(self.accounted())
    }

    /// Whether `offered = written + sampled_out + dropped + interrupted`.
    pub fn is_exact(&self) -> bool {
        self.offered() == self.accounted()
    }

    /// Adds the counts of `other`. Sums stop at the largest number: counts come from files too.
    pub fn add(&mut self, other: &Self) {
        for (counter, other) in self.counters.iter_mut().zip(other.counters) {
            *counter = counter.saturating_add(other);
        }
    }

    /// The larger of both counts, each: the newer one, since counts of a session only grow.
    pub fn merge_newer(&mut self, other: &Self) {
        for (counter, other) in self.counters.iter_mut().zip(other.counters) {
            *counter = (*counter).max(other);
        }
    }

    /// Raises `offered` to what is accounted for. A look at counts that grow meanwhile can see
    /// the end of a record and not yet its begin; a record that has an end was offered.
    pub fn settle(&mut self) {
        self.counters[OFFERED] = self.offered().max(self.accounted());
    }

    /// Offered records that are written, left out, dropped or interrupted.
    fn accounted(&self) -> u64 {
        [self.sampled_out(), self.dropped_total(), self.interrupted()]
            .into_iter()
            .fold(self.written(), u64::saturating_add)
    }

    /// `{offered, written, sampled_out, dropped: {reason: n}, pending, interrupted}`.
    pub fn to_json(self) -> Json {
        let dropped: Map<String, Json> = DROP_REASONS
            .iter()
            .filter(|reason| self.dropped(**reason) > 0)
            .map(|reason| (reason.name().to_owned(), self.dropped(*reason).into()))
            .collect();
        json!({
            "offered": self.offered(),
            "written": self.written(),
            "sampled_out": self.sampled_out(),
            "dropped": dropped,
            "pending": self.pending(),
            "interrupted": self.interrupted(),
        })
    }
}

/// Counts per category.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Account of each category that was offered a record.
    pub categories: BTreeMap<String, Account>,
}

impl Ledger {
    /// Sum over all categories.
    pub fn total(&self) -> Account {
        let mut total = Account::default();
        self.categories
            .values()
            .for_each(|account| total.add(account));
        total
    }

    /// The counts since an earlier ledger of the same session.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (name, before) in &earlier.categories {
            let account = since.categories.entry(name.clone()).or_default();
            for (counter, before) in account.counters.iter_mut().zip(before.counters) {
                *counter = counter.saturating_sub(before);
            }
        }
        since.categories.retain(|_, account| account.offered() > 0);
        since
    }

    /// Whether every category adds up.
    pub fn is_exact(&self) -> bool {
        self.categories.values().all(Account::is_exact)
    }

    /// [`Account::settle`] for every category.
    pub fn settle(&mut self) {
        self.categories.values_mut().for_each(Account::settle);
    }

    /// `{category: {offered, written, sampled_out, dropped: {reason: n}, pending, interrupted}}`,
    /// the same object that `session_end` carries.
    pub fn to_json(&self) -> Json {
        let categories = self.categories.iter();
        Json::Object(
            categories
                .map(|(name, account)| (name.clone(), account.to_json()))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_needed_for_the_sum() {
        let mut account = Account::default();
        for reason in DROP_REASONS {
            account.counters[reason.counter()] = 1;
        }
        account.counters[SAMPLED_OUT] = 2;
        account.counters[WRITTEN] = 3;
        account.counters[INTERRUPTED] = 1;
        account.counters[OFFERED] = 16;
        assert!(account.is_exact());
        for index in 0..=INTERRUPTED {
            let mut wrong = account;
            wrong.counters[index] += 1;
            assert!(!wrong.is_exact(), "counter {index}");
        }
    }

    #[test]
    fn a_torn_look_is_settled_and_hostile_counts_do_not_overflow() {
        let mut account = Account::default();
        account.counters[OFFERED] = 4;
        account.counters[WRITTEN] = 4;
        account.counters[DropReason::RingFull.counter()] = 2;
        assert!(!account.is_exact());
        account.settle();
        assert_eq!((account.offered(), account.pending()), (6, 0));
        assert!(account.is_exact());
        let mut hostile = Account {
            counters: [u64::MAX; COUNTERS],
        };
        hostile.add(&account);
        hostile.settle();
        assert_eq!((hostile.dropped_total(), hostile.pending()), (u64::MAX, 0));
        account.merge_newer(&Account::default());
        assert_eq!(account.offered(), 6);
    }

    #[test]
    fn json_names_only_reasons_that_occurred() {
        let mut ledger = Ledger::default();
        let account = ledger.categories.entry("vpn".to_owned()).or_default();
        account.counters[OFFERED] = 5;
        account.counters[WRITTEN] = 3;
        account.counters[DropReason::RingFull.counter()] = 1;
        assert_eq!(
            ledger.to_json().to_string(),
            "{\"vpn\":{\"dropped\":{\"ring_full\":1},\"interrupted\":0,\"offered\":5,\
             \"pending\":1,\"sampled_out\":0,\"written\":3}}"
        );
    }
}
