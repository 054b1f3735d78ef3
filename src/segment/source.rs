//! Where a reader takes the bytes of a segment from: a file by `pread`, or memory.
//!
//! Never a mapping: a file that somebody else truncates under a mapping kills the process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes that can be read at any offset.
pub trait Source {
    /// Reads bytes at `offset` into `place`; returns how many, fewer only at the end.
    ///
    /// # Errors
    /// What the system says; never `Interrupted`.
    fn read_at(&self, offset: u64, place: &mut [u8]) -> io::Result<usize>;

    /// Length in bytes, as it is now.
    ///
    /// # Errors
    /// What the system says.
    fn byte_count(&self) -> io::Result<u64>;
}

impl Source for File {
    fn read_at(&self, offset: u64, place: &mut [u8]) -> io::Result<usize> {
        let mut done = 0_usize;
        while let Some(rest) = place.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn byte_count(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, place: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(start..).unwrap_or(&[]);
        let count = bytes.len().min(place.len());
        if let (Some(place), Some(bytes)) = (place.get_mut(..count), bytes.get(..count)) {
            place.copy_from_slice(bytes);
        }
        Ok(count)
    }

    fn byte_count(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// The bytes of one segment.
#[derive(Clone, Debug)]
pub enum SegmentSource {
    /// An open file.
    File(Arc<File>),
    /// Bytes in memory.
    Memory(Arc<[u8]>),
}

impl Source for SegmentSource {
    fn read_at(&self, offset: u64, place: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => Source::read_at(&**file, offset, place),
            Self::Memory(bytes) => bytes.read_at(offset, place),
        }
    }

    fn byte_count(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => file.byte_count(),
            Self::Memory(bytes) => bytes.byte_count(),
        }
    }
}
