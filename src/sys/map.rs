//! Memory regions: anonymous, or a mapped file of our own session directory.
#![expect(
    unsafe_code,
    reason = "mapping memory and advising the kernel about it"
)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Release;

use memmap2::{MmapOptions, MmapRaw};

use super::fork;

/// What madvise says to an advice that it does not know.
const EINVAL: i32 = rustix::io::Errno::INVAL.raw_os_error();

/// A mapped region. Only raw pointers are handed out: other threads, and for files other
/// processes that read, look at the same bytes.
#[derive(Debug)]
pub(crate) struct Region {
    map: ManuallyDrop<MmapRaw>,
    /// The process that has mapped a file ([`fork::generation`]); a child has a hole instead, in
    /// which something else may lie by now. `None`: memory, of which a child has a copy.
    owner: Option<u64>,
}

impl Region {
    /// Zeroed memory that belongs to this process alone.
    pub(crate) fn anonymous(bytes: usize) -> io::Result<Self> {
        let map = MmapRaw::from(MmapOptions::new().len(bytes).map_anon()?);
        Ok(Self {
            map: ManuallyDrop::new(map),
            owner: None,
        })
    }

    /// The first `bytes` bytes of `file`, shared. The file must be at least that long and its
    /// space reserved, or an access past what the disk can hold kills the process.
    ///
    /// A forked child does not have the mapping: whatever it does, it cannot write to the file.
    pub(crate) fn file(file: &File, bytes: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        if !cfg!(miri) {
            map.advise(memmap2::Advice::DontFork)?;
        }
        Ok(Self {
            map: ManuallyDrop::new(map),
            owner: Some(fork::generation()),
        })
    }

    /// First byte.
    #[inline]
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Length in bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Copies bytes into the region.
    ///
    /// # Panics
    /// When they do not fit.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let place = self.range(offset, bytes.len());
        // SAFETY: inside the region by `range`; `bytes` is ordinary memory, so it does not overlap
        // the mapping. The region has one writer thread; other processes only read the file.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) }
    }

    /// Reads the last byte: a file that was cut anywhere has no page there.
    pub(crate) fn touch_end(&self) {
        let last = self.range(self.len() - 1, 1);
        // SAFETY: inside the region by `range`; whatever it is, nobody looks at it.
        unsafe { last.read_volatile() };
    }

    /// Sets bytes of the region to zero.
    ///
    /// # Panics
    /// When the range leaves the region.
    pub(crate) fn zero(&self, offset: usize, bytes: usize) {
        let place = self.range(offset, bytes);
        // SAFETY: inside the region by `range`; one writer thread, as above.
        unsafe { std::ptr::write_bytes(place, 0, bytes) }
    }

    /// Shows bytes of the region that the calling thread, the only writer, does not write
    /// meanwhile.
    ///
    /// # Panics
    /// When the range leaves the region.
    pub(crate) fn with<T>(&self, offset: usize, bytes: usize, read: impl FnOnce(&[u8]) -> T) -> T {
        let place = self.range(offset, bytes);
        // SAFETY: inside the region by `range`, initialised, not written while `read` runs.
        read(unsafe { std::slice::from_raw_parts(place, bytes) })
    }

    /// Stores a number for readers in other processes (Release: the bytes before it come first).
    ///
    /// # Panics
    /// When it leaves the region or is not aligned.
    pub(crate) fn store_u64(&self, offset: usize, value: u64) {
        self.atomic_u64(offset).store(value, Release);
    }

    /// A number that threads share.
    ///
    /// # Panics
    /// When it leaves the region or is not aligned.
    #[expect(clippy::cast_ptr_alignment, reason = "asserted")]
    pub(crate) fn atomic_u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        let place = self.range(offset, 8).cast::<u64>();
        // SAFETY: inside the region by `range`, which lives as long as `self`; aligned; accessed
        // as an atomic only.
        unsafe { AtomicU64::from_ptr(place) }
    }

    fn range(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(
            offset <= self.len() && bytes <= self.len() - offset,
            "leaves the region"
        );
        // SAFETY: inside the region by the assertion.
        unsafe { self.ptr().add(offset) }
    }

    /// Makes the region read as zero in a forked child.
    pub(crate) fn wipe_on_fork(&self) -> io::Result<()> {
        if cfg!(miri) {
            return Ok(());
        }
        // SAFETY: the range is exactly this mapping; the advice changes what a child sees, not
        // what this process sees.
        unsafe {
            rustix::mm::madvise(
                self.ptr().cast(),
                self.len(),
                rustix::mm::Advice::LinuxWipeOnFork,
            )?;
        }
        Ok(())
    }

    /// Asks for large pages; a file system that has none refuses, which does no harm.
    pub(crate) fn advise_huge(&self) -> io::Result<()> {
        if cfg!(miri) {
            Ok(())
        } else {
            self.map.advise(memmap2::Advice::HugePage)
        }
    }

    /// Makes the pages of a range present and writable now, so that touching them later does not
    /// fault; an error (no space) comes back here instead of as a signal later. False where the
    /// kernel cannot do that (before 5.14).
    pub(crate) fn populate(&self, offset: usize, bytes: usize) -> io::Result<bool> {
        if cfg!(miri) {
            return Ok(true);
        }
        match self
            .map
            .advise_range(memmap2::Advice::PopulateWrite, offset, bytes)
        {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the pages of a range are on the disk.
    pub(crate) fn sync(&self, offset: usize, bytes: usize) -> io::Result<()> {
        self.map.flush_range(offset, bytes)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.owner.is_none_or(|owner| owner == fork::generation()) {
            // SAFETY: dropped here only, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.map) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Acquire;

    use super::*;

    /// Stands for the readers in other processes, who have no name in the language.
    #[test]
    fn bytes_before_a_number_come_before_it() {
        let region = Region::anonymous(4096).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                region.write(64, b"before");
                region.store_u64(0, 1);
            });
            let number = region.atomic_u64(0);
            while number.load(Acquire) == 0 {
                std::thread::yield_now();
            }
            // The writer has written: what it did before the number is done.
            region.with(64, 6, |bytes| assert_eq!(bytes, b"before"));
        });
    }
}
