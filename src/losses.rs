//! What became of `Always` records that found no room: counts of cold paths, for a report that
//! names every loss.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::ledger::{DROP_REASONS, DropReason};

/// Waits and losses of `Always` records in one session. Any thread adds.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    waits: AtomicU64,
    /// By reason, in the order of [`DROP_REASONS`].
    lost: [AtomicU64; DROP_REASONS.len()],
}

impl Losses {
    /// Counts a push that waits for room.
    pub(crate) fn count_wait(&self) {
        // Relaxed here and below: statistics; close reads them after the producers have left.
        self.waits.fetch_add(1, Relaxed);
    }

    /// Counts lost records.
    pub(crate) fn count_lost(&self, reason: DropReason, records: u64) {
        self.lost[reason as usize].fetch_add(records, Relaxed);
    }

    /// Pushes that have waited for room.
    pub(crate) fn waits(&self) -> u64 {
        self.waits.load(Relaxed)
    }

    /// Records that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// The loss as a sentence; `None` when there is none.
    pub(crate) fn sentence(&self) -> Option<String> {
        let counts = DROP_REASONS.iter().zip(&self.lost);
        let counts: Vec<String> = counts
            .map(|(reason, count)| (reason.name(), count.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        if counts.is_empty() {
            return None;
        }
        let (lost, counts) = (self.lost(), counts.join(", "));
        Some(format!(
            "{lost} records that must always be kept were lost: {counts}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_in_the_sentence() {
        let losses = Losses::default();
        assert_eq!(losses.sentence(), None);
        for reason in DROP_REASONS {
            losses.count_lost(reason, 2);
        }
        let sentence = losses.sentence().unwrap();
        assert!(sentence.starts_with("20 records "), "{sentence}");
        for reason in DROP_REASONS {
            let part = format!("2 {}", reason.name());
            assert!(sentence.contains(&part), "{sentence}");
        }
    }
}
