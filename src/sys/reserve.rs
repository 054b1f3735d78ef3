//! Reserving disk space before a file is mapped, so that no store into the mapping can meet a
//! full disk (which would kill the process).

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, IFlags, fallocate, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// The file systems of which it is known that space which was reserved is there for every later
/// store, by their type (statfs): a store into a mapping that finds no space kills the process.
/// Others (btrfs, ZFS and other copy-on-write ones, network file systems, FUSE) may take new space
/// for a rewrite, or lose their server.
const KEEPS_RESERVED: [u32; 5] = [
    // ext2, ext3, ext4
    0xEF53,
    // xfs
    0x5846_5342,
    // tmpfs
    0x0102_1994,
    // ramfs
    0x8584_58F6,
    // overlayfs: that is up to what lies below it, which it hides; in a container one that keeps
    // it, mostly. The rings take the risk, because its `/dev/shm` does not outlive the container.
    0x794C_7630,
];

/// Whether a file system of this type (statfs) keeps reserved space, as far as is known.
pub(crate) fn keeps_reserved(kind: u32) -> bool {
    KEEPS_RESERVED.contains(&kind)
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
        assert!(!keeps_reserved(BTRFS));
        assert!(keeps_reserved(0xEF53));
    }
}
