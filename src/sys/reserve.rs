//! Reserving disk space before a file is mapped, so that no store into the mapping can meet a
//! full disk (which would kill the process).

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate, fstatfs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Types of file systems (statfs) on which a store into reserved space never needs more: ext2 to
/// ext4, xfs, tmpfs. Others copy on write, or ask a server or a program.
const MAP_SAFE: [u64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

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
    let kind = fstatfs(file)?.f_type as u64;
    Ok(MAP_SAFE.contains(&kind))
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
