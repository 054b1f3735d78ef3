//! What the parts of a storage know of each other.

use std::os::unix::fs::FileExt;

use bytemuck::Zeroable as _;

use super::*;
use crate::ledger::{OFFERED, SAMPLED_OUT};
use crate::ring::{Observation, quick_cell, read_aggregates};

/// The smallest one.
const SIZES: StorageSizes = StorageSizes {
    ring_total_bytes: 64 << 10,
    large_total_bytes: 64 << 10,
    spill_total_bytes: 64 << 10,
};

fn storage(backend: &Backend<'_>, sizes: StorageSizes) -> Storage {
    Storage::new(backend, &FileHeader::zeroed(), sizes).unwrap()
}

/// Durations in cells of rings, in those that all share, and of operations without a slot.
#[test]
fn recovery_finds_the_durations_that_the_session_tells() {
    // More than there are slots, in more rings than there are pages for. Not under miri, which
    // takes many minutes.
    const OPERATIONS: u64 = if cfg!(miri) { 9 } else { 300 };
    const RINGS: usize = if cfg!(miri) { 2 } else { 10 };
    let storage = storage(&Backend::Anonymous, SIZES);
    let of = |operation: u64, ns| Observation::new(5, operation as u32, ns);
    let mut have_own = Vec::new();
    for ring in 0..RINGS as u64 {
        let slot = storage.slot(storage.take_ring().unwrap());
        for operation in 1..=OPERATIONS {
            let observation = of(operation, operation * 1000 + ring);
            storage.aggregates.observe(slot, observation);
        }
        have_own.push(quick_cell(slot, of(OPERATIONS, 0).key).is_some());
    }
    storage.aggregates.observe_shared(of(7, 1 << 41));
    assert_eq!(have_own.first(), Some(&true), "a ring counts by itself");
    let last = have_own.last();
    assert_eq!(last, Some(&cfg!(miri)), "until no page is left");
    let told = storage.aggregates.read();
    let count: u64 = told.iter().map(|(_, sum)| sum.count()).sum();
    assert_eq!(count, RINGS as u64 * OPERATIONS + 1);
    let area = |area: &[u8]| read_aggregates(area);
    let found = storage.region.with(AGGREGATE_OFFSET, AGGREGATE_BYTES, area);
    assert_eq!(found, told);
}

#[test]
fn what_rings_were_offered_is_told_by_category() {
    let storage = storage(&Backend::Anonymous, SIZES);
    let rings = [(); 2].map(|()| storage.take_ring().unwrap());
    let offered = [(0, 0, 3), (1, 0, 2), (0, 17, 1), (1, 255, 4)];
    let mut expected = [0; CATEGORIES_MAX];
    for (ring, category, count) in offered {
        let slot = storage.slot(rings[ring]);
        (0..count).for_each(|_| storage.count(slot, category, OFFERED));
        storage.count(slot, category, SAMPLED_OUT);
        expected[usize::from(category)] += count;
    }
    storage.count_shared(3, OFFERED);
    for _ in 0..2 {
        let mut sums = [9; CATEGORIES_MAX];
        storage.offered(&mut sums);
        assert_eq!(
            sums, expected,
            "of those with a ring, and not those of the last time"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn rings_are_present_before_a_thread_takes_them() {
    // Rings far from everything else: the kernel may make more present than was asked for.
    let sizes = StorageSizes {
        ring_total_bytes: 1 << 20,
        large_total_bytes: 8 << 20,
        ..SIZES
    };
    let storage = storage(&Backend::Anonymous, sizes);
    if !storage.region.populate(0, PAGE).unwrap() {
        return;
    }
    let taken = storage.take_ring().unwrap();
    let (mut done, mut steps) = (Prefaulted::default(), 1);
    while storage.prefault(&mut done, 1000).unwrap() {
        steps += 1;
    }
    // A ring at a time: each one's first pages, the rest of the one taken, the aggregates.
    assert_eq!(steps, storage.slots.len() + 2);
    for (index, slot) in storage.slots.iter().enumerate() {
        let bytes = slot.bytes();
        let ahead = (RING_OVERHEAD + PREFAULT_BYTES).min(bytes);
        let ahead = if index == taken as usize {
            bytes
        } else {
            ahead
        };
        assert!(is_present(&storage, slot.offset, ahead), "ring {index}");
    }
    let chunks = LARGE_OFFSET + sizes.large_total_bytes / 2;
    assert!(!is_present(&storage, chunks, 1), "it takes no more memory");
}

/// Whether all pages of a part of the storage have memory.
fn is_present(storage: &Storage, offset: usize, bytes: usize) -> bool {
    let map = File::open("/proc/self/pagemap").unwrap();
    let page_bytes = rustix::param::page_size();
    let start = storage.region.ptr() as usize + offset;
    let mut pages = start / page_bytes..(start + bytes).div_ceil(page_bytes);
    pages.all(|page| {
        let mut entry = [0; 8];
        map.read_exact_at(&mut entry, page as u64 * 8).unwrap();
        // In memory, or in the swap by now.
        u64::from_le_bytes(entry) >> 62 != 0
    })
}

#[test]
fn a_writer_that_dozes_is_woken_by_each_ring() {
    let storage = storage(&Backend::Anonymous, SIZES);
    let rings = [(); 3].map(|()| storage.take_ring().unwrap());
    for doze in [true, false] {
        assert!(storage.set_doze(doze), "no push is running");
        for index in rings {
            let woken = std::cell::Cell::new(false);
            let push = storage.slot(index).busy.enter(|| woken.set(true));
            assert!(push.is_ok());
            assert_eq!(woken.get(), doze, "ring {index}");
        }
    }
}

/// Only what the file has no page for any more is lost.
#[test]
#[cfg_attr(miri, ignore = "maps a file, and handles SIGBUS")]
fn slots_behind_the_end_of_a_cut_file_are_lost() {
    let file = tempfile::tempfile().unwrap();
    let backend = Backend::File {
        file: &file,
        guard: true,
    };
    let storage = storage(&backend, SIZES);
    assert!(storage.is_guarded());
    let ring = storage.take_ring().unwrap();
    let slots = SIZES.spill_total_bytes / SLOT_BYTES;
    let lost = |storage: &Storage| {
        let lost = |slot: &usize| storage.is_spill_lost(slot * SLOT_BYTES, SLOT_BYTES);
        (0..slots).filter(lost).collect::<Vec<_>>()
    };
    assert_eq!(
        (lost(&storage), storage.is_ring_lost(ring)),
        (vec![], false)
    );
    let page = rustix::param::page_size();
    let end = (storage.spill_offset + 1).next_multiple_of(page);
    let kept = (end - storage.spill_offset) / SLOT_BYTES;
    file.set_len(end as u64).unwrap();
    storage.lose_cut_pages();
    let behind: Vec<usize> = (kept..slots).collect();
    assert_eq!((lost(&storage), storage.is_ring_lost(ring)), (behind, true));
}
