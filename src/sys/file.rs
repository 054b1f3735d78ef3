//! Which file it is.

use std::fs::File;

use rustix::fs::Stat;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file behind a descriptor; `None` when nobody can tell.
    pub(crate) fn of(file: &File) -> Option<Self> {
        rustix::fs::fstat(file)
            .ok()
            .map(|stat| Self::in_stat(&stat))
    }

    /// The file that was looked up.
    pub(crate) fn in_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}
