//! The counters of all producers, in the pages of their rings and in those that all share.
#![expect(unsafe_code, reason = "turns offsets into the pages that lie there")]
#![expect(
    clippy::cast_ptr_alignment,
    reason = "the region is page-aligned, see the offsets"
)]

use super::{PAGES_COUNT, PAGES_OFFSET, PAGES_PER_RING, SHARED_OFFSET, Storage, count_own};
use crate::ledger::{Account, OFFERED};
use crate::record::CATEGORIES_MAX;
use crate::ring::RingSlot;
use crate::ring::header::{COUNTER_PAGE_BYTES, CounterPage, PAGE_CATEGORIES};
use crate::sync::Ordering::Relaxed;

impl Storage {
    /// Adds 1 to a shared counter: for cold paths without a ring, and signal handlers.
    pub(crate) fn count_shared(&self, category: u8, counter: usize) {
        self.add_shared(category, counter, 1);
    }

    /// Adds to a shared counter.
    pub(crate) fn add_shared(&self, category: u8, counter: usize, count: u64) {
        let page = self.page_at(SHARED_OFFSET, usize::from(category) / PAGE_CATEGORIES);
        page.categories[usize::from(category) % PAGE_CATEGORIES][counter].fetch_add(count, Relaxed);
    }

    /// Adds 1 to a counter of the ring's owner.
    pub(crate) fn count(&self, slot: &RingSlot, category: u8, counter: usize) {
        if slot.counters(category).is_none() {
            self.add_counter_page(slot, usize::from(category) / PAGE_CATEGORIES);
        }
        match slot.counters(category) {
            Some(counters) => count_own(&counters[counter]),
            None => self.count_shared(category, counter),
        }
    }

    /// Gives the ring a page for a group of categories; `None` when there is none left.
    #[cold]
    fn add_counter_page(&self, slot: &RingSlot, group: usize) -> Option<()> {
        let end = PAGES_COUNT as u32;
        let take = |next| (next < end).then_some(next + 1);
        // Relaxed: one thread alone moves the counter over a page.
        let index = self.next_page.fetch_update(Relaxed, Relaxed, take).ok()?;
        let page = self.page_at(PAGES_OFFSET, index as usize);
        // Relaxed: for whoever finds the storage after the process has died.
        slot.ring().header.pages[group].store(index + 1, Relaxed);
        // Relaxed: the page was there, all zero, before the storage was shared.
        slot.pages[group].store(std::ptr::from_ref(page).cast_mut(), Relaxed);
        Some(())
    }

    fn page_at(&self, offset: usize, index: usize) -> &CounterPage {
        assert!(index < PAGES_COUNT);
        // SAFETY: both areas lie in the region: the shared one has 16 pages and is followed by
        // the other, which has `PAGES_COUNT`.
        let page = unsafe { self.region.ptr().add(offset + index * COUNTER_PAGE_BYTES) };
        // SAFETY: aligned to 64 (the region to 4,096, pages to 2,048); zeroed memory is a page
        // of zero counters; never accessed but as atomics.
        unsafe { &*page.cast::<CounterPage>() }
    }

    /// Sums the producers' counters of every category.
    pub(crate) fn accounts(&self) -> Vec<Account> {
        let mut accounts = vec![Account::default(); CATEGORIES_MAX];
        let mut add = |page: &CounterPage, group: usize| {
            for (index, counters) in page.categories.iter().enumerate() {
                let account = &mut accounts[group * PAGE_CATEGORIES + index];
                for (sum, counter) in account.counters.iter_mut().zip(counters) {
                    *sum += counter.load(Relaxed);
                }
            }
        };
        for group in 0..PAGES_PER_RING {
            add(self.page_at(SHARED_OFFSET, group), group);
        }
        for slot in &self.slots[..self.used() as usize] {
            for (group, page) in slot.pages.iter().enumerate() {
                // SAFETY: null or a page of the region, which outlives `self`; it is atomics.
                if let Some(page) = unsafe { page.load(Relaxed).as_ref() } {
                    add(page, group);
                }
            }
        }
        accounts
    }

    /// Sums up what producers with rings have offered so far, per category.
    pub(crate) fn offered(&self, sums: &mut [u64; CATEGORIES_MAX]) {
        sums.fill(0);
        for slot in &self.slots[..self.used() as usize] {
            for (page, sums) in slot.pages.iter().zip(sums.chunks_mut(PAGE_CATEGORIES)) {
                // SAFETY: null or a page of the region, which outlives `self`; it is atomics.
                if let Some(page) = unsafe { page.load(Relaxed).as_ref() } {
                    for (counters, sum) in page.categories.iter().zip(sums) {
                        // Relaxed: a measure.
                        *sum += counters[OFFERED].load(Relaxed);
                    }
                }
            }
        }
    }
}
