//! The ledger of a running session: what producers, writer and closer have counted.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Core;
use crate::ledger::{Account, DropReason, Ledger, OFFERED, WRITTEN};
use crate::record::category_name;

impl Core {
    /// Writer: adds to the count of records found in blocks.
    pub(crate) fn add_written(&self, category: u8, records: u64) {
        add_own(&self.written[usize::from(category)], records);
    }

    /// Writer: counts records as dropped that were counted as written, and are lost.
    pub(crate) fn take_back_written(&self, category: u8, records: u64) {
        let written = &self.written[usize::from(category)];
        // In this order: a look in between finds them pending, not twice.
        store_own(written, written.load(Relaxed).saturating_sub(records));
        self.add_dropped_disk(category, records);
    }

    /// Writer: adds to the count of records that found no disk.
    pub(crate) fn add_dropped_disk(&self, category: u8, records: u64) {
        // In the ring storage, where whoever finds it after a kill sees it too.
        self.storage
            .add_shared(category, DropReason::Disk.counter(), records);
    }

    /// Writer: counts a record that it offers itself.
    pub(crate) fn add_own_offered(&self, category: u8) {
        self.storage.count_shared(category, OFFERED);
    }

    /// Writer, after the last drain: counts the offered records of which nothing is known under
    /// `counter`.
    pub(crate) fn count_missing_as(&self, counter: usize) {
        for (category, account) in self.accounts().iter().enumerate() {
            let missing = account.pending();
            if missing > 0 {
                self.storage.add_shared(category as u8, counter, missing);
            }
        }
    }

    /// Writer, when nothing is counted any more: what was found somewhere was offered, also where
    /// the count of it was lost.
    pub(crate) fn settle(&self) {
        for (category, account) in self.accounts().iter().enumerate() {
            let mut settled = *account;
            settled.settle();
            let missing = settled.offered() - account.offered();
            self.storage.add_shared(category as u8, OFFERED, missing);
        }
    }

    /// The ledger now: exact after close, else a snapshot that may be torn by pushes meanwhile.
    pub(crate) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for (category, account) in self.accounts().iter().enumerate() {
            if account.counters.iter().any(|counter| *counter > 0) {
                let name = category_name(category as u8).unwrap_or("custom");
                ledger
                    .categories
                    .entry(name.to_owned())
                    .or_default()
                    .add(account);
            }
        }
        ledger
    }

    /// Counts per category id.
    fn accounts(&self) -> Vec<Account> {
        // Written first: a record that is counted as written was offered before.
        let written: Vec<u64> = self
            .written
            .iter()
            .map(|count| count.load(Acquire))
            .collect();
        let mut accounts = self.storage.accounts();
        for (category, account) in accounts.iter_mut().enumerate() {
            account.counters[WRITTEN] += written[category];
        }
        accounts
    }
}

/// Adds to a counter that only the calling thread stores.
fn add_own(counter: &AtomicU64, count: u64) {
    store_own(counter, counter.load(Relaxed) + count);
}

fn store_own(counter: &AtomicU64, count: u64) {
    // Release: pairs with the Acquire in `accounts`.
    counter.store(count, Release);
}
