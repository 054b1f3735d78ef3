//! Pages of the ring storage that its file could not keep, under the guard: somebody cut the file,
//! or it cannot be read. What stood in them reads as zeros; no zero is taken for a record.
//!
//! - Data of a ring: all that was committed into this ring is passed over, and so is the record
//!   that its thread was just writing.
//! - Header of a ring: `read_pos` is stored again; the next commit brings `write_pos` back.
//! - Slots of the spill: those are passed over.
//! - Registry: entries that are known in memory are written again.
//! - Counts: those of at most a second before are added again, the rest raised to what adds up.
//! - Chunks, durations: the session has its own tables of what leads to them.

use super::helper::note;
use super::segments::Segments;
use super::{Core, Writer};
use crate::ledger::Account;
use crate::record::LargeReference;
use crate::ring::{Consumer, SLOT_BYTES, Storage};
use crate::segment::entry::Entry;
use crate::segment::layout::DATA_BYTES_MAX;
use crate::sys::report::say;
use crate::sys::sigbus::LostPages;

/// What the writer knows of lost pages.
#[derive(Debug, Default)]
pub(super) struct Lost {
    seen: LostPages,
    /// By ring: bytes before this position are not what was written.
    rings: Vec<LostRing>,
    /// What producers had counted a second ago at most.
    counts: Vec<Account>,
    /// Standard error has heard of pages that were lost, and of some that were kept.
    told: (bool, bool),
    pub(super) held: Held,
}

/// The bytes of a block, copied out of a storage whose pages can be lost at any moment: what was
/// checked is what is written.
#[derive(Debug, Default)]
pub(super) struct Held {
    payload: Vec<u8>,
    body: Vec<u8>,
}

impl Held {
    /// Keeps no more memory than a block takes.
    pub(super) fn emptied(mut self) -> Self {
        self.payload.clear();
        self.body.clear();
        self.body.shrink_to(DATA_BYTES_MAX);
        self
    }

    /// The payload that was held, or else `run`.
    pub(super) fn payload<'a>(&'a self, storage: &Storage, run: &'a [u8]) -> &'a [u8] {
        if storage.is_guarded() {
            &self.payload
        } else {
            run
        }
    }

    /// Shows the body of a large record.
    pub(super) fn body(
        &self,
        storage: &Storage,
        large: LargeReference,
        put: &mut dyn FnMut(&[u8]),
    ) {
        if storage.is_guarded() {
            put(&self.body);
        } else {
            storage
                .large
                .read(large.chunk, large.body_bytes as usize, put);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct LostRing {
    until: u64,
    /// A push was running: its record comes next.
    open: bool,
}

impl Writer {
    /// Looks for lost pages, and mends what can be mended, before the rings are drained.
    pub(super) fn look_at_pages(&mut self, core: &Core) {
        let storage = &core.storage;
        if !storage.is_guarded() || (self.is_settled() && storage.lost_pages() == self.lost.seen) {
            return;
        }
        let lost_before = self.lost.seen.lost;
        if storage.lost_pages().lost > lost_before {
            storage.lose_cut_pages();
        }
        // What is lost from now on is seen at the next look.
        self.lost.seen = storage.lost_pages();
        if self.lost.seen.lost > lost_before {
            self.damaged = true;
            self.pass_over(core);
            self.segments.mend_registry();
            self.mend_counts(core);
        }
        for (index, consumer) in self.consumers.iter().enumerate() {
            consumer.mend(storage.slot(index as u32).ring());
        }
        let worst = (self.lost.seen.lost > 0, self.lost.seen.kept > 0);
        if worst > self.lost.told {
            self.lost.told = worst;
            say(&self.lost.seen.to_string());
        }
    }

    /// Whether all bytes of the ring storage that were read until now are what was written there.
    pub(super) fn is_settled(&self) -> bool {
        self.core.storage.losses_begun() == self.lost.seen.begun
    }

    /// Whether there is something for [`look_at_pages`](Self::look_at_pages).
    pub(super) fn has_lost_pages(&self, core: &Core) -> bool {
        core.storage.lost_pages() != self.lost.seen
    }

    /// Copies what a block is to hold, where that is needed. False when pages were lost until then.
    pub(super) fn hold(
        &self,
        core: &Core,
        held: &mut Held,
        payload: &[u8],
        large: Option<LargeReference>,
    ) -> bool {
        if !core.storage.is_guarded() {
            return true;
        }
        held.payload.extend_from_slice(payload);
        if let Some(large) = large {
            let body_bytes = large.body_bytes as usize;
            let put = |piece: &[u8]| held.body.extend_from_slice(piece);
            core.storage.large.read(large.chunk, body_bytes, put);
        }
        self.is_settled()
    }

    fn pass_over(&mut self, core: &Core) {
        // A push that is running is seen, or sees the new pages.
        core.storage.meet_pushes();
        self.lost
            .rings
            .resize(self.consumers.len(), LostRing::default());
        for (index, (consumer, lost)) in self.consumers.iter().zip(&mut self.lost.rings).enumerate()
        {
            let slot = core.storage.slot(index as u32);
            if core.storage.is_ring_lost(index as u32) {
                // In this order: a push that ends in between is behind the position, or seen.
                let until = consumer.committed(slot.ring());
                lost.open = slot.busy.is_busy();
                lost.until = until.max(lost.until);
            }
        }
        self.collect_spilled(core);
        let spill = &core.storage.spill;
        self.spilled.lose(spill, |offset| {
            core.storage.is_spill_lost(offset, SLOT_BYTES)
        });
    }

    /// Passes over what was lost of a ring. Returns whether that was something.
    pub(super) fn pass_over_ring(
        &mut self,
        core: &Core,
        index: u32,
        consumer: &mut Consumer,
    ) -> bool {
        let Some(lost) = self.lost.rings.get_mut(index as usize) else {
            return false;
        };
        let ring = core.storage.slot(index).ring();
        let committed = consumer.committed(ring);
        if lost.open && committed > lost.until {
            *lost = LostRing {
                until: committed,
                open: false,
            };
        }
        let until = lost.until.min(committed);
        if until <= consumer.read_pos() {
            return false;
        }
        consumer.free(ring, until);
        true
    }

    /// Remembers what producers have counted.
    pub(super) fn remember_counts(&mut self) {
        if self.core.storage.is_guarded() {
            let counts = self.core.storage.accounts();
            if self.is_settled() {
                self.lost.counts = counts;
            }
        }
    }

    /// Adds what was counted before its page was lost.
    fn mend_counts(&mut self, core: &Core) {
        let found = core.storage.accounts();
        for (category, (before, now)) in self.lost.counts.iter().zip(&found).enumerate() {
            for (counter, (before, now)) in before.counters.iter().zip(now.counters).enumerate() {
                if *before > now {
                    core.storage
                        .add_shared(category as u8, counter, before - now);
                }
            }
        }
        self.lost.counts = core.storage.accounts();
    }

    /// After the last drain: notes what was lost, and lets the ledger add up.
    pub(super) fn end_lost(&mut self, core: &Core) {
        let pages = core.storage.lost_pages();
        if pages.done > 0 {
            note(&mut self.faults, pages.to_string());
        }
        if pages.lost > 0 {
            core.settle();
        }
    }
}

impl Segments {
    /// Pages of the registry were lost: what is missing of it is made anew from memory.
    fn mend_registry(&mut self) {
        self.collect_registry();
        let core = std::sync::Arc::clone(&self.core);
        self.cursor.pass_over_lost(&core.storage.registry);
        self.collect_registry();
        let known = entries(&self.registry).map(<[u8]>::to_vec);
        let known: std::collections::BTreeSet<Vec<u8>> = known.collect();
        core.registered(&mut |entry: &Entry<'_>| {
            let mut bytes = Vec::new();
            entry.append(&mut bytes);
            if !known.contains(&bytes) {
                self.registry.extend_from_slice(&bytes);
            }
        });
    }
}

/// The entries of a registry, one after the other.
fn entries(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let bytes = u32::from_le_bytes(*rest.first_chunk()?) as usize;
        let (entry, behind) = rest.split_at_checked(bytes.max(1))?;
        rest = behind;
        Some(entry)
    })
}
