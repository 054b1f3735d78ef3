//! The duration aggregates of a dead process, from the bytes of its ring storage. FORMAT.md
//! section 7.2.

use super::aggregate::{GROUP_SLOTS, GROUPS, PAGE_BYTES, PAGES, RING_PAGE, SHARED_PAGE, SLOTS};
use crate::durations::{BUCKETS, Histogram};

const CELL_BYTES: usize = 512;
/// Where page 0 says to whom the others belong.
const OWNERS_OFFSET: usize = SLOTS * 8;

/// Adds everything up that stands in the area, as far as it goes: key (`None`: of all operations
/// without a slot) and counts of every slot that has any.
pub(crate) fn read_aggregates(area: &[u8]) -> Vec<(Option<u64>, Histogram)> {
    let mut sums = vec![Histogram::default(); GROUPS * GROUP_SLOTS];
    let shared = (0..GROUPS).map(|group| (SHARED_PAGE.saturating_add(group), group));
    let owned = (RING_PAGE..PAGES).filter_map(|page| {
        let owner = word(area, OWNERS_OFFSET.saturating_add(page.saturating_mul(4)))? as u16;
        Some((page, usize::from(owner.checked_sub(1)?)))
    });
    for (page, group) in shared.chain(owned) {
        let sums = sums.chunks_exact_mut(GROUP_SLOTS).nth(group);
        let start = page.saturating_mul(PAGE_BYTES);
        let cells = area.get(start..).unwrap_or_default();
        let cells = cells.chunks_exact(CELL_BYTES);
        for (sum, cell) in sums.unwrap_or_default().iter_mut().zip(cells) {
            sum.add(&histogram(cell));
        }
    }
    let keys = (0..SLOTS).map(|slot| Some(long(area, slot.saturating_mul(8)).unwrap_or(0)));
    let named = keys.chain([None]).zip(sums);
    named
        .filter(|(key, sum)| *key != Some(0) && sum.count() > 0)
        .collect()
}

fn histogram(cell: &[u8]) -> Histogram {
    let long = |index: usize| long(cell, index.saturating_mul(8)).unwrap_or(0);
    let mut histogram = Histogram {
        sum_ns: long(0),
        max_ns: long(1),
        buckets: [0; BUCKETS],
    };
    for (index, bucket) in histogram.buckets.iter_mut().enumerate() {
        *bucket = long(index.saturating_add(2));
    }
    histogram
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Miri has no directory for failures, and takes seconds for each case.
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 256 })
        })]

        #[test]
        fn any_bytes_are_an_answer(
            words in prop::collection::vec((0..PAGES * PAGE_BYTES / 8, any::<u64>()), 0..200),
            cut in 0..PAGES * PAGE_BYTES,
        ) {
            let mut area = vec![0; PAGES * PAGE_BYTES];
            for (at, value) in words {
                area[at * 8..][..8].copy_from_slice(&value.to_le_bytes());
            }
            let all = read_aggregates(&area);
            prop_assert!(all.len() <= SLOTS + 1);
            prop_assert!(read_aggregates(&area[..cut]).len() <= SLOTS + 1);
        }
    }
}
