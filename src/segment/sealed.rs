//! Segments that take no more blocks, until their files have their final length.

use std::fs::File;

use crate::error::{Error, IoContext};
use crate::segment::sink::{Blocks, write_hint};
use crate::sys::dir::Dir;
use crate::sys::file::FileId;

/// A segment that takes no more blocks; cut it to its length with [`finish`](Self::finish).
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(super) file: File,
    pub(super) name: String,
    /// Length of the segment.
    pub(crate) bytes: u64,
    /// Length that was reserved for it.
    pub(super) reserved: u64,
    /// The seal, while it is not in the file.
    pub(super) seal: Blocks,
}

impl Sealed {
    /// Reserved bytes that the segment does not need.
    pub(crate) fn unused_bytes(&self) -> u64 {
        self.reserved - self.bytes
    }

    /// What the file is, for finding out later whether it is still there.
    pub(crate) fn id(&self) -> Option<FileId> {
        FileId::of(&self.file)
    }

    /// Says that the seal could never be written.
    pub(crate) fn unsealed_sentence(&self, dir: &Dir) -> String {
        let path = dir.path_of(&self.name);
        format!("{} could not be sealed", path.display())
    }

    /// Whether the seal is in the file.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal.pending.is_empty()
    }

    /// Writes the seal, if it is missing, and cuts the file to its length.
    ///
    /// # Errors
    /// When either cannot be done; it can be tried again.
    pub(crate) fn finish(&mut self, dir: &Dir) -> Result<(), Error> {
        fail_point!("seal.before_cut");
        let path = || dir.path_of(&self.name);
        if !self.is_sealed() {
            let offset = self.bytes as usize - self.seal.pending.len();
            let seal = self.seal.pending.clone();
            if let Err(error) = self.seal.flush(&self.file, offset) {
                self.seal.pending = seal;
                return Err(error).io_context("cannot seal segment", path());
            }
            write_hint(&self.file, self.bytes as usize);
        }
        self.file
            .set_len(self.bytes)
            .io_context("cannot cut segment", path())
    }
}
