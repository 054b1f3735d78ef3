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
    reserved.inspect_err(|_| {
        if let Err(error) = file.set_len(0) {
            // The caller reports the first error, which is the one that matters; this one leaves
            // an empty file behind at worst.
            debug_assert!(false, "cannot cut a file back: {error}");
        }
    })
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
