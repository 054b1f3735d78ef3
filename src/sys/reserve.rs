//! Reserving disk space before a file is mapped, so that no store into the mapping can meet a
//! full disk (which would kill the process).

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, IFlags, fallocate, fstatfs, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// What is known of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// Space that was reserved is there for every later store.
    Kept,
    /// That is up to the file system below it, which it hides: so it is in a container, mostly on
    /// one that keeps it. The rings take the risk, because `/dev/shm` of a container does not
    /// outlive it; segments need not, because `pwrite` has none.
    Hidden,
}

/// The file systems of which it is known, by their type (statfs): the one list. A store into a
/// mapping that finds no space kills the process. Others (btrfs, ZFS and other copy-on-write ones,
/// network file systems, FUSE) may take new space for a rewrite, or lose their server.
const RESERVED: [(u32, Reserved); 5] = [
    // ext2, ext3, ext4
    (0xEF53, Reserved::Kept),
    // xfs
    (0x5846_5342, Reserved::Kept),
    // tmpfs
    (0x0102_1994, Reserved::Kept),
    // ramfs
    (0x8584_58F6, Reserved::Kept),
    // overlayfs
    (0x794C_7630, Reserved::Hidden),
];

/// What a file system of this type (statfs) does about reserved space; `None` = it is not known.
pub(crate) fn reserved(kind: u32) -> Option<Reserved> {
    let known = RESERVED.iter().find(|known| known.0 == kind);
    known.map(|known| known.1)
}

/// Reserves `bytes` bytes for an empty file and makes it that long.
///
/// Where the file system cannot reserve, the file is filled with zeros. When there is no space the
/// file is cut back to nothing: a failed reservation can leave the disk full otherwise (ext4).
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    if allocate(file, bytes)? {
        return Ok(());
    }
    fill_with_zeros(file, bytes)
}

/// [`reserve`], but false where the file system cannot: the file is empty still.
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<bool> {
    check_length(bytes)?;
    rewrite_in_place(file);
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(give_back(file, error.into())),
    }
}

/// Makes an empty file `bytes` bytes long by writing zeros to it.
pub(crate) fn fill_with_zeros(file: &File, bytes: u64) -> io::Result<()> {
    write_zeros(file, bytes).map_err(|error| give_back(file, error))
}

/// Makes an empty file `bytes` bytes long without reserving anything.
pub(crate) fn extend(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

/// Refuses what is longer than the process may make a file (`ulimit -f`): the kernel answers that
/// by SIGXFSZ, which ends the process.
pub(crate) fn check_length(bytes: u64) -> io::Result<()> {
    if bytes > file_bytes_max() {
        return Err(Errno::FBIG.into());
    }
    Ok(())
}

/// How long the process may make a file.
pub(crate) fn file_bytes_max() -> u64 {
    getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// Whether a store into reserved space of this file cannot fail for lack of it.
pub(crate) fn can_map(file: &File) -> io::Result<bool> {
    // 32 bits, in a field whose type depends on the architecture.
    let kind = fstatfs(file)?.f_type as u32;
    Ok(reserved(kind) == Some(Reserved::Kept))
}

/// Asks btrfs not to copy the blocks of an empty file when they are written again: the second
/// block of records in a page of 4 KiB needs space otherwise, which a full disk does not have,
/// reserved or not. Others do not know this, or do not copy; and after a snapshot each block is
/// copied once.
fn rewrite_in_place(file: &File) {
    if let Ok(flags) = ioctl_getflags(file) {
        // Refused: a rewrite can fail then, which is dealt with where it happens.
        ioctl_setflags(file, flags | IFlags::NOCOW).ok();
    }
}

fn give_back(file: &File, error: io::Error) -> io::Error {
    // The first error is the one to report; this leaves a file that is too long at worst.
    drop(file.set_len(0));
    error
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = [0; 16 << 10];
    let mut offset = 0;
    while offset < bytes {
        let count = (bytes - offset).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_keep_reserved_space_is_trusted() {
        const BTRFS: u32 = 0x9123_683E;
        assert_eq!(reserved(BTRFS), None);
        assert_eq!(reserved(0xEF53), Some(Reserved::Kept));
        assert_eq!(reserved(0x794C_7630), Some(Reserved::Hidden));
        let temp = tempfile::tempfile().unwrap();
        let kind = fstatfs(&temp).unwrap().f_type as u32;
        let kept = reserved(kind) == Some(Reserved::Kept);
        assert_eq!(can_map(&temp).unwrap(), kept);
    }
}
