//! Pages of memory that take the place of those of a mapped file that cannot be accessed any more:
//! somebody cut the file, the disk cannot be read, or the file system refuses the next store.
//!
//! A page keeps its bytes where the file can still be read. What several threads share is shared
//! as before: they all get the same page, whoever comes first, and no thread waits for another.
//!
//! ```text
//!   file      | 0 | 1 | 2 | 3 |     memory    | 0 | 1 | 2 | 3 | spare ...
//!   pages       -   2   -   4       stands for      1       3
//! ```
//!
//! Page 1 of the file is page 1 of the memory, unless two threads fill it at the same moment: then
//! one of them fills a spare one, and an exchange decides which of the two it is.
#![expect(unsafe_code, reason = "mapping a page over a lost one")]

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// What became of the pages of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LostPages {
    /// Replacements that began. Counted before anybody can see the new page.
    pub(crate) begun: u64,
    /// And those that are done.
    pub(crate) done: u64,
    /// Pages whose bytes are lost: they read as zero.
    pub(crate) lost: u64,
    /// Pages that have kept their bytes.
    pub(crate) kept: u64,
}

impl fmt::Display for LostPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lost, kept, .. } = self;
        if *lost > 0 {
            return write!(
                f,
                "{lost} pages of the file of the rings were lost while it was recorded: records in \
                 them are damaged, and of those that were offered within a second before, some may \
                 not be counted"
            );
        }
        write!(
            f,
            "{kept} pages of the file of the rings cannot be written any more: they go on in \
             memory, where a kill loses them"
        )
    }
}

/// The memory that stands in for a file.
#[derive(Debug)]
pub(super) struct StandIn {
    file: File,
    /// The mapping of the file.
    start: usize,
    bytes: usize,
    page_bytes: usize,
    /// Twice as many pages: a spare one for each.
    memory: *mut u8,
    /// By page of the file: number of the page that stands for it, plus 1; 0 = none.
    pages: Box<[AtomicU32]>,
    /// By page: somebody fills, or has filled, the page of memory of the same number.
    taken: Box<[AtomicBool]>,
    next_spare: AtomicU32,
    begun: AtomicU64,
    done: AtomicU64,
    lost: AtomicU64,
    kept: AtomicU64,
}

// SAFETY: `memory` is used by the protocol above only: a page has one writer until it is in
// `pages`, and is bytes of the mapping after that.
unsafe impl Send for StandIn {}
// SAFETY: as above.
unsafe impl Sync for StandIn {}

impl StandIn {
    /// For `bytes` bytes from the page boundary `start` on, which are the first ones of `file`.
    pub(super) fn new(file: File, start: usize, bytes: usize) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let count = bytes.div_ceil(page_bytes);
        // SAFETY: a new mapping, where the kernel wants it. Nothing of it is there until it is
        // touched. Shared, because only that can be mapped a second time.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                2 * count * page_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stand_in = Self {
            file,
            start,
            bytes,
            page_bytes,
            memory: memory.cast(),
            pages: (0..count).map(|_| AtomicU32::new(0)).collect(),
            taken: (0..count).map(|_| AtomicBool::new(false)).collect(),
            next_spare: AtomicU32::new(0),
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        };
        // As the mapping of the file: no child has it, nor what is mapped from it.
        // SAFETY: exactly the mapping from above, which nobody else knows.
        let advised = unsafe { libc::madvise(memory, 2 * count * page_bytes, libc::MADV_DONTFORK) };
        if advised != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stand_in)
    }

    pub(super) fn counts(&self) -> LostPages {
        // Acquire, each: pairs with the Release in `replace`. In this order: what is done has
        // begun, and what has begun since does not look done.
        let (done, lost) = (self.done.load(Acquire), self.lost.load(Acquire));
        LostPages {
            done,
            lost,
            kept: self.kept.load(Acquire),
            begun: self.begun.load(Acquire),
        }
    }

    pub(super) fn begun(&self) -> u64 {
        // Acquire: pairs with the addition in `replace`, before which nobody sees the new page.
        self.begun.load(Acquire)
    }

    /// Whether bytes of the file cannot be had, or were lost: a replaced page without them, or the
    /// file ends before.
    pub(super) fn is_lost(&self, offset: usize, bytes: usize) -> bool {
        let cut = self.file_bytes() < offset + bytes;
        let mut pages = offset / self.page_bytes..(offset + bytes).div_ceil(self.page_bytes);
        // Acquire: pairs with the exchange in `replace`.
        cut || pages.any(|page| self.pages[page].load(Acquire) & EMPTY != 0)
    }

    /// Replaces every page that lies behind the end of the file.
    pub(super) fn replace_cut(&self) {
        let first = self.file_bytes().div_ceil(self.page_bytes);
        for page in first..self.pages.len() {
            // Acquire: pairs with the exchange in `replace`.
            if self.pages[page].load(Acquire) == 0 && !self.replace(page) {
                // The next fault tries again.
                return;
            }
        }
    }

    fn file_bytes(&self) -> usize {
        let length = rustix::fs::fstat(&self.file).map_or(0, |stat| stat.st_size as u64);
        length.min(self.bytes as u64) as usize
    }

    /// Replaces the page with this address. False when that is not possible. Called by the signal
    /// handler: no lock, no allocation.
    pub(super) fn replace_at(&self, address: usize) -> bool {
        self.replace((address - self.start) / self.page_bytes)
    }

    fn replace(&self, page: usize) -> bool {
        // Before the page can be seen. Acquire and Release: neither moves below the other.
        self.begun.fetch_add(1, AcqRel);
        // Acquire: pairs with the exchange in `choose`; the page of memory is filled.
        let known = self.pages[page].load(Acquire);
        let chosen = if known == 0 {
            self.choose(page)
        } else {
            Some(known)
        };
        let mapped = chosen.is_some_and(|chosen| self.map((chosen & !EMPTY) as usize - 1, page));
        if mapped {
            // Release: pairs with the Acquire in `counts`.
            self.done.fetch_add(1, Release);
        }
        mapped
    }

    /// Fills a page of memory for a page of the file; what `pages` says of it then. `None` when
    /// there is no spare one.
    fn choose(&self, page: usize) -> Option<u32> {
        // Relaxed, both: who fills what.
        let own = if self.taken[page].swap(true, Relaxed) {
            self.pages.len() + self.next_spare.fetch_add(1, Relaxed) as usize
        } else {
            page
        };
        if own >= 2 * self.pages.len() {
            return None;
        }
        let whole = self.fill(own, page);
        let entry = (own as u32 + 1) | if whole { 0 } else { EMPTY };
        let counter = if whole { &self.kept } else { &self.lost };
        // Release: pairs with the Acquire of whoever finds the entry; publishes the bytes.
        match self.pages[page].compare_exchange(0, entry, AcqRel, Acquire) {
            Ok(_) => {
                counter.fetch_add(1, Release);
                Some(entry)
            }
            Err(other) => Some(other),
        }
    }

    /// Reads a page of the file into a page of memory. False, and zeros, where that is not
    /// possible.
    fn fill(&self, own: usize, page: usize) -> bool {
        let offset = page * self.page_bytes;
        let bytes = self.page_bytes.min(self.bytes - offset);
        // SAFETY: inside the memory: `own` is below twice the number of pages.
        let place = unsafe { self.memory.add(own * self.page_bytes) };
        // SAFETY: `bytes` of the memory, which this thread alone uses; async-signal-safe.
        let read = unsafe {
            libc::pread(
                self.file.as_raw_fd(),
                place.cast(),
                bytes,
                offset as libc::off_t,
            )
        };
        let whole = read == bytes as isize;
        if !whole && read > 0 {
            // SAFETY: as above; what was read of a page of which a part is gone.
            unsafe { std::ptr::write_bytes(place, 0, bytes) };
        }
        whole
    }

    /// Maps a page of memory over a page of the file, for all threads at once.
    fn map(&self, own: usize, page: usize) -> bool {
        // SAFETY: inside the memory, as in `fill`.
        let from = unsafe { self.memory.add(own * self.page_bytes) };
        let to = self.start + page * self.page_bytes;
        // SAFETY: with the length 0 a second mapping of a shared page is made, and the first one
        // stays; its place is a page of our own mapping of the file, which lives as long as this.
        let mapped = unsafe {
            libc::mremap(
                from.cast(),
                0,
                self.page_bytes,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                to as *mut libc::c_void,
            )
        };
        mapped != libc::MAP_FAILED
    }
}

/// In an entry of `pages`: the bytes of the file are lost.
const EMPTY: u32 = 1 << 31;

impl Drop for StandIn {
    fn drop(&mut self) {
        let bytes = 2 * self.pages.len() * self.page_bytes;
        // SAFETY: exactly the mapping of `new`. Pages that were mapped a second time stay.
        unsafe { libc::munmap(self.memory.cast(), bytes) };
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::sys::map::Region;
    use std::os::unix::fs::FileExt;

    const PAGES: usize = 8;

    fn mapped() -> (File, Region, StandIn, usize) {
        let page = rustix::param::page_size();
        let file = tempfile::tempfile().unwrap();
        for number in 0..PAGES {
            let bytes = vec![number as u8 + 1; page];
            file.write_all_at(&bytes, (number * page) as u64).unwrap();
        }
        let region = Region::file(&file, PAGES * page).unwrap();
        let own = file.try_clone().unwrap();
        let stand_in = StandIn::new(own, region.ptr() as usize, PAGES * page).unwrap();
        (file, region, stand_in, page)
    }

    #[test]
    fn a_page_keeps_its_bytes_and_its_stores() {
        let (_file, region, stand_in, page) = mapped();
        for _ in 0..3 {
            assert!(stand_in.replace_at(region.ptr() as usize + 2 * page + 17));
            region.with(2 * page + 8, 8, |bytes| assert_eq!(bytes, [3; 8]));
        }
        region.write(2 * page, &[77; 8]);
        // Somebody else who comes late does not undo it.
        assert!(stand_in.replace_at(region.ptr() as usize + 2 * page));
        region.with(2 * page, 9, |bytes| {
            assert_eq!(bytes, [77, 77, 77, 77, 77, 77, 77, 77, 3]);
        });
        assert!(!stand_in.is_lost(0, PAGES * page));
        let counts = stand_in.counts();
        assert_eq!((counts.kept, counts.lost), (1, 0));
        assert_eq!((counts.begun, counts.done), (4, 4));
    }

    #[test]
    fn pages_behind_the_end_are_empty_and_known() {
        let (file, region, stand_in, page) = mapped();
        file.set_len(2 * page as u64 + 5).unwrap();
        stand_in.replace_cut();
        region.with(3 * page, 5 * page, |bytes| {
            assert!(bytes.iter().all(|byte| *byte == 0));
        });
        assert_eq!(stand_in.counts().lost, 5);
        assert!(!stand_in.is_lost(0, 2 * page + 5));
        assert!(stand_in.is_lost(2 * page, page), "cut in the middle");
        assert!(stand_in.is_lost(3 * page, 1) && stand_in.is_lost(7 * page, page));
        stand_in.replace_cut();
        assert_eq!(stand_in.counts().begun, 5, "once each");
    }

    #[test]
    fn threads_that_race_share_one_page() {
        for _ in 0..50 {
            let (_file, region, stand_in, page) = mapped();
            let sum = region.atomic_u64(4 * page + 64);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        assert!(stand_in.replace_at(region.ptr() as usize + 4 * page));
                        sum.fetch_add(1, Relaxed);
                    });
                }
            });
            let before = u64::from_le_bytes([5; 8]);
            assert_eq!(sum.load(Relaxed), before + 4, "no store is lost");
            assert_eq!(stand_in.counts().kept, 1);
        }
    }
}
