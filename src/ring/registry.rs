//! The registry in the ring storage: an append-only list of entries that many threads extend
//! without a lock, and that can be read after a kill at any instruction.
//!
//! ```text
//!   [bytes crc ... payload ...][bytes crc ...][bytes 0 ...][0
//!    committed                  committed      claimed      ^ tail, or a little before it
//! ```
//!
//! A thread claims room by exchanging the first word at the tail from 0 to the length of its
//! entry, so that everybody can step over the entry even if its owner never finishes. The CRC is
//! stored last (Release): an entry without it is not there yet. `tail` is a hint that anybody may
//! move on (Michael and Scott, "Simple, fast, and practical non-blocking and blocking concurrent
//! queue algorithms", 1996: helping).
#![expect(unsafe_code, reason = "words and bytes of a shared region")]

use crate::record::Variable;
use crate::segment::entry::{ENTRY_ALIGN, ENTRY_HEADER_BYTES, Entry, entry_crc};
use crate::sync::Ordering::Relaxed;
use crate::sync::order;
use crate::sync::{AtomicU32, AtomicU64};

/// The registry's memory. The region is zero where nothing was claimed.
#[derive(Debug)]
pub(crate) struct Registry {
    memory: Memory,
    /// Hint: the first unclaimed byte is here or behind.
    tail: AtomicU64,
}

/// The registry has no room for the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegistryFull;

impl Registry {
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            tail: AtomicU64::new(0),
        }
    }

    /// Appends an entry. When this returns, every reader that learns of it sees it whole.
    pub(crate) fn append(&self, entry: &Entry<'_>) -> Result<(), RegistryFull> {
        let bytes = entry.bytes();
        let start = self.claim(bytes)?;
        let header = entry.header();
        // SAFETY: `[start, start + bytes)` was claimed by this call, so no other thread writes
        // there, and readers wait for the CRC.
        let place = unsafe { self.memory.slice_mut(start + 8, bytes - 8) };
        let mut out = Variable::new(place);
        out.put(&bytemuck::bytes_of(&header)[8..]);
        entry.payload(&mut out);
        out.fill_zero();
        fail_point!("registry.filled");
        // SAFETY: as above; nobody writes between the two slices.
        let crc = entry_crc(unsafe { self.memory.slice(start + 8, bytes - 8) });
        // Release: pairs with the Acquire in `next`; publishes the entry.
        self.memory
            .word(start + 4)
            .store(crc, order::store_entry_crc());
        fail_point!("registry.stored");
        Ok(())
    }

    fn claim(&self, bytes: usize) -> Result<usize, RegistryFull> {
        debug_assert!(bytes.is_multiple_of(ENTRY_ALIGN) && bytes >= ENTRY_HEADER_BYTES);
        // Acquire: pairs with the exchange below. Whoever moved the tail had seen the lengths of
        // the entries before it, and now so have we: whoever learns of our entry finds it.
        let mut start = self.tail.load(order::load_tail()) as usize;
        loop {
            if start + bytes > self.memory.bytes() {
                return Err(RegistryFull);
            }
            let length = self.memory.word(start);
            // Relaxed, both: no data hangs on the length of an entry.
            let claimed = length.compare_exchange(0, bytes as u32, Relaxed, Relaxed);
            let end = start + claimed.err().map_or(bytes, |other| other as usize);
            // Release: pairs with the Acquire above and that on failure, which brings back where
            // somebody else moved the tail, maybe over entries that we have not seen.
            let moved = self.tail.compare_exchange(
                start as u64,
                end as u64,
                order::store_tail(),
                order::load_moved_tail(),
            );
            if claimed.is_ok() {
                return Ok(start);
            }
            start = moved.map_or_else(|other| (other as usize).max(end), |_| end);
        }
    }

    /// The entry at `offset` with its header, and where the next one starts.
    pub(crate) fn next(&self, offset: usize) -> Next<'_> {
        if offset + ENTRY_HEADER_BYTES > self.memory.bytes() {
            return Next::End;
        }
        // Relaxed: see `claim`.
        let bytes = self.memory.word(offset).load(Relaxed) as usize;
        if bytes < ENTRY_HEADER_BYTES || offset + bytes > self.memory.bytes() {
            return Next::End;
        }
        // Acquire: pairs with the Release in `append`.
        if self.memory.word(offset + 4).load(order::load_entry_crc()) == 0 {
            return Next::Pending {
                next: offset + bytes,
            };
        }
        // SAFETY: committed entries are never written again.
        let entry = unsafe { self.memory.slice(offset, bytes) };
        Next::Entry {
            entry,
            next: offset + bytes,
        }
    }
}

/// What stands at an offset of the registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// A committed entry.
    Entry { entry: &'a [u8], next: usize },
    /// An entry whose owner has not finished it.
    Pending { next: usize },
    /// Nothing yet.
    End,
}

/// Follows the registry: yields every entry once, also those that are committed out of order.
#[derive(Debug, Default)]
pub(crate) struct RegistryCursor {
    offset: usize,
    /// Offsets that were pending when we passed; at most one per thread that died or is slow.
    pending: Vec<usize>,
}

impl RegistryCursor {
    /// Calls `visit` for every entry that was committed since the last call.
    pub(crate) fn advance(&mut self, registry: &Registry, mut visit: impl FnMut(&[u8])) {
        self.pending.retain(|offset| match registry.next(*offset) {
            Next::Entry { entry, .. } => {
                if is_whole(entry) {
                    visit(entry);
                }
                false
            }
            Next::Pending { .. } | Next::End => true,
        });
        loop {
            match registry.next(self.offset) {
                Next::Entry { entry, next } => {
                    // A part of it can be lost with a page of the file in which it lies.
                    if is_whole(entry) {
                        visit(entry);
                    }
                    self.offset = next;
                }
                Next::Pending { next } => {
                    self.pending.push(self.offset);
                    self.offset = next;
                }
                Next::End => return,
            }
        }
    }

    /// Pages of the registry were lost: goes on at the next whole entry, or at its end.
    pub(crate) fn pass_over_lost(&mut self, registry: &Registry) {
        self.pending
            .retain(|offset| registry.next(*offset) != Next::End);
        let tail = registry.tail.load(order::load_tail()) as usize;
        let is_entry = |offset: usize| match registry.next(offset) {
            Next::Entry { entry, .. } => is_whole(entry),
            Next::Pending { .. } | Next::End => false,
        };
        while self.offset < tail && registry.next(self.offset) == Next::End {
            let behind = (self.offset + ENTRY_ALIGN..tail).step_by(ENTRY_ALIGN);
            self.offset = behind.into_iter().find(|at| is_entry(*at)).unwrap_or(tail);
        }
    }

    /// Whether [`advance`](Self::advance) has nothing to do; one load.
    pub(crate) fn is_current(&self, registry: &Registry) -> bool {
        self.pending.is_empty() && matches!(registry.next(self.offset), Next::End)
    }
}

/// Whether the checksum of an entry is right. Models keep it beside the bytes, and lose no pages.
fn is_whole(entry: &[u8]) -> bool {
    if cfg!(loom) {
        return true;
    }
    let crc = entry.get(4..8).and_then(|crc| crc.first_chunk::<4>());
    crc.is_some_and(|crc| u32::from_le_bytes(*crc) == entry_crc(&entry[8..]))
}

pub(crate) use memory::Memory;

#[cfg(not(loom))]
mod memory {
    use super::{AtomicU32, AtomicU64};

    /// A part of the ring storage.
    #[derive(Debug)]
    pub(crate) struct Memory {
        start: *mut u8,
        bytes: usize,
    }

    impl Memory {
        /// # Safety
        /// `start` points to `bytes` initialised bytes, aligned to 8, that stay mapped as long
        /// as this value lives and are used through it only.
        pub(crate) unsafe fn new(start: *mut u8, bytes: usize) -> Self {
            Self { start, bytes }
        }

        pub(crate) fn bytes(&self) -> usize {
            self.bytes
        }

        pub(crate) fn word(&self, offset: usize) -> &AtomicU32 {
            assert!(offset.is_multiple_of(4) && offset + 4 <= self.bytes);
            // SAFETY: inside the region by the assertion.
            let word = unsafe { self.start.add(offset) };
            // SAFETY: aligned to 4, initialised; the first two words of an entry are only ever
            // accessed as atomics while the entry is not committed.
            unsafe { AtomicU32::from_ptr(word.cast()) }
        }

        pub(crate) fn long(&self, offset: usize) -> &AtomicU64 {
            assert!(offset.is_multiple_of(8) && offset + 8 <= self.bytes);
            // SAFETY: inside the region by the assertion.
            let long = unsafe { self.start.add(offset) };
            // SAFETY: aligned to 8, initialised; the commit word of a slot of the spill is only
            // ever accessed as an atomic.
            unsafe { AtomicU64::from_ptr(long.cast()) }
        }

        /// # Safety
        /// The caller alone uses these bytes until it publishes them.
        #[expect(
            clippy::mut_from_ref,
            reason = "the bytes belong to the caller, see Safety"
        )]
        pub(crate) unsafe fn slice_mut(&self, offset: usize, bytes: usize) -> &mut [u8] {
            assert!(offset + bytes <= self.bytes);
            // SAFETY: inside the region by the assertion.
            let start = unsafe { self.start.add(offset) };
            // SAFETY: initialised; exclusive by the requirement.
            unsafe { std::slice::from_raw_parts_mut(start, bytes) }
        }

        /// # Safety
        /// Nobody writes these bytes any more.
        pub(crate) unsafe fn slice(&self, offset: usize, bytes: usize) -> &[u8] {
            assert!(offset + bytes <= self.bytes);
            // SAFETY: inside the region by the assertion.
            let start = unsafe { self.start.add(offset) };
            // SAFETY: initialised; not written to by the requirement.
            unsafe { std::slice::from_raw_parts(start, bytes) }
        }
    }
}

#[cfg(loom)]
mod memory {
    use super::{AtomicU32, AtomicU64};
    use loom::cell::UnsafeCell;

    /// The registry of a model: one loom atomic per word, one loom cell per 8 bytes.
    #[derive(Debug)]
    pub(crate) struct Memory {
        words: Vec<AtomicU32>,
        longs: Vec<AtomicU64>,
        cells: Vec<UnsafeCell<()>>,
        data: *mut u8,
        bytes: usize,
    }

    impl Memory {
        pub(crate) unsafe fn new(start: *mut u8, bytes: usize) -> Self {
            Self {
                words: (0..bytes / 4).map(|_| AtomicU32::new(0)).collect(),
                longs: (0..bytes / 8).map(|_| AtomicU64::new(0)).collect(),
                cells: (0..bytes / 8).map(|_| UnsafeCell::new(())).collect(),
                data: start,
                bytes,
            }
        }

        pub(crate) fn bytes(&self) -> usize {
            self.bytes
        }

        pub(crate) fn word(&self, offset: usize) -> &AtomicU32 {
            &self.words[offset / 4]
        }

        pub(crate) fn long(&self, offset: usize) -> &AtomicU64 {
            &self.longs[offset / 8]
        }

        pub(crate) unsafe fn slice_mut(&self, offset: usize, bytes: usize) -> &mut [u8] {
            self.cells[offset / 8..(offset + bytes) / 8]
                .iter()
                .for_each(|c| c.with_mut(|_| ()));
            unsafe { std::slice::from_raw_parts_mut(self.data.add(offset), bytes) }
        }

        pub(crate) unsafe fn slice(&self, offset: usize, bytes: usize) -> &[u8] {
            self.cells[offset / 8..(offset + bytes) / 8]
                .iter()
                .for_each(|c| c.with(|_| ()));
            unsafe { std::slice::from_raw_parts(self.data.add(offset), bytes) }
        }
    }
}

// SAFETY: the region is shared by the protocol above: words are atomics, bytes have one writer
// before they are published and none after.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn registry(words: &mut [u64]) -> Registry {
        // SAFETY: the words outlive the registry in each test and are used through it only.
        Registry::new(unsafe { Memory::new(words.as_mut_ptr().cast(), words.len() * 8) })
    }

    #[test]
    fn entries_of_many_threads_are_all_found_once() {
        let mut words = vec![0; 4096];
        let registry = registry(&mut words);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let registry = &registry;
                scope.spawn(move || {
                    for index in 0..50 {
                        registry
                            .append(&Entry::Symbol(thread * 100 + index, "name"))
                            .unwrap();
                    }
                });
            }
        });
        let mut found = Vec::new();
        let mut cursor = RegistryCursor::default();
        cursor.advance(&registry, |entry| {
            assert_eq!(entry[4..8], entry_crc(&entry[8..]).to_le_bytes());
            found.push(u32::from_le_bytes(entry[12..16].try_into().unwrap()));
        });
        found.sort_unstable();
        let all: Vec<u32> = (0..4)
            .flat_map(|t| (0..50).map(move |i| t * 100 + i))
            .collect();
        assert_eq!(found, all);
        assert!(cursor.is_current(&registry));
    }

    #[test]
    fn full_registry_refuses_and_stays_readable() {
        let mut words = vec![0; 8];
        let registry = registry(&mut words);
        assert_eq!(registry.append(&Entry::Symbol(1, "one")), Ok(()));
        assert_eq!(registry.append(&Entry::Symbol(2, "two")), Ok(()));
        assert_eq!(
            registry.append(&Entry::Symbol(3, "three")),
            Err(RegistryFull)
        );
        let mut count = 0;
        RegistryCursor::default().advance(&registry, |_| count += 1);
        assert_eq!(count, 2);
    }

    /// There is not even room for the head of one more entry.
    #[test]
    fn a_registry_that_is_full_to_the_last_byte_ends_there() {
        let entry = Entry::Symbol(1, "one");
        for room in [0, 1] {
            let mut words = vec![0; 2 * entry.bytes() / 8 + room];
            let registry = registry(&mut words);
            for expected in [Ok(()), Ok(()), Err(RegistryFull)] {
                assert_eq!(registry.append(&entry), expected);
            }
            let (mut count, mut cursor) = (0, RegistryCursor::default());
            cursor.advance(&registry, |_| count += 1);
            assert_eq!(count, 2);
            assert!(cursor.is_current(&registry));
        }
    }

    #[test]
    fn lost_entries_are_passed_over_and_others_found() {
        for lost in [0..6, 0..40, 30..50, 55..64, 40..64] {
            let mut words = vec![0_u64; 512];
            let registry = registry(&mut words);
            let ids = |cursor: &mut RegistryCursor| {
                let mut ids = Vec::new();
                cursor.advance(&registry, |entry| {
                    ids.push(u32::from_le_bytes(entry[12..16].try_into().unwrap()));
                });
                ids
            };
            for id in 1..=20 {
                registry.append(&Entry::Symbol(id, "a name")).unwrap();
            }
            let used = registry.tail.load(Relaxed) as usize / 8;
            let bytes = (lost.end.min(used) - lost.start) * 8;
            // SAFETY: this thread is the only one.
            unsafe { registry.memory.slice_mut(lost.start * 8, bytes) }.fill(0);
            let mut cursor = RegistryCursor::default();
            let mut found = ids(&mut cursor);
            cursor.pass_over_lost(&registry);
            found.extend(ids(&mut cursor));
            registry.append(&Entry::Symbol(21, "a name")).unwrap();
            found.extend(ids(&mut cursor));
            let words = used / 20;
            let intact = |id: &u32| {
                let start = (*id as usize - 1) * words;
                start + words <= lost.start || start >= lost.end
            };
            let expected: Vec<u32> = (1..=20).filter(intact).chain([21]).collect();
            assert_eq!(found, expected, "{lost:?}");
            assert!(cursor.is_current(&registry));
        }
    }

    #[test]
    fn an_entry_that_was_never_finished_is_stepped_over() {
        let mut words = vec![0; 64];
        let registry = registry(&mut words);
        registry.claim(24).unwrap();
        registry.append(&Entry::Symbol(2, "two")).unwrap();
        let mut count = 0;
        let mut cursor = RegistryCursor::default();
        cursor.advance(&registry, |_| count += 1);
        assert_eq!(count, 1);
        assert!(!cursor.is_current(&registry));
    }
}
