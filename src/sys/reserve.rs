//! Reserving disk space before a file is mapped, so that no store into the mapping can meet a
//! full disk (which would kill the process).

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Reserves `bytes` bytes for an empty file and makes it that long.
///
/// Where the file system cannot reserve, the file is filled with zeros. When there is no space the
/// file is cut back to nothing: a failed reservation can leave the disk full otherwise (ext4).
pub(crate) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let reserved = match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        other => other.map_err(io::Error::from),
    };
    if reserved.is_err() {
        // The first error is the one to report; this leaves a file that is too long at worst.
        drop(file.set_len(0));
    }
    reserved
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
