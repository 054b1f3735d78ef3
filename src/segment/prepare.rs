//! Making segment files ready: reserved, mapped, present in memory, with their header, so that the
//! writer neither faults nor waits when it rolls.

use std::fs::File;

use crate::error::{Error, IoContext};
use crate::segment::layout::{BLOCKS_OFFSET, FILE_SEGMENT, FileHeader, HEADER_COPY_OFFSET};
use crate::sys::dir::Dir;
use crate::sys::map::Region;
use crate::sys::reserve::reserve;

/// Segments are reserved and mapped in units of this, so that the kernel can use large pages.
pub(crate) const SEGMENT_ALIGN: usize = 2 << 20;
/// Bytes made present at one time, so that a stop request is noticed in between.
const POPULATE_BYTES: usize = 4 << 20;

/// File name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:06}.seg")
}

/// Whether a file of this name is a segment of ours.
pub(crate) fn is_segment_name(name: &str) -> bool {
    name.strip_suffix(".seg")
        .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A segment that is ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) file: File,
    pub(crate) region: Region,
}

/// Creates and prepares segment `number` with `bytes` bytes (a multiple of [`SEGMENT_ALIGN`]).
/// On an error no file of that name is left.
pub(crate) fn prepare(
    dir: &Dir,
    header: &FileHeader,
    number: u64,
    bytes: usize,
) -> Result<Prepared, Error> {
    debug_assert!(bytes.is_multiple_of(SEGMENT_ALIGN) && bytes > BLOCKS_OFFSET);
    let name = segment_name(number);
    let file = dir.create_file(&name)?;
    map(dir, &name, file, header, number, bytes).inspect_err(|_| {
        // The first error is the one to report; a file that cannot be removed is empty or cut.
        if let Err(error) = dir.remove_file(&name) {
            debug_assert!(false, "{error}");
        }
    })
}

fn map(
    dir: &Dir,
    name: &str,
    file: File,
    header: &FileHeader,
    number: u64,
    bytes: usize,
) -> Result<Prepared, Error> {
    let path = || dir.path_of(name);
    reserve(&file, bytes as u64).io_context("cannot reserve segment", path())?;
    let region = Region::file(&file, bytes).io_context("cannot map segment", path())?;
    if let Err(error) = region.advise_huge() {
        // Not every file system has large pages; small ones are slower, not wrong.
        debug_assert!(error.raw_os_error().is_some());
    }
    for offset in (0..bytes).step_by(POPULATE_BYTES) {
        region
            .populate(offset, POPULATE_BYTES.min(bytes - offset))
            .io_context("cannot fill segment", path())?;
    }
    let header = FileHeader {
        file_kind: FILE_SEGMENT,
        segment: number,
        file_bytes: bytes as u64,
        ..*header
    }
    .with_crc();
    let copy = bytemuck::bytes_of(&header);
    region.write(0, copy);
    region.write(HEADER_COPY_OFFSET, copy);
    Ok(Prepared {
        number,
        name: name.to_owned(),
        file,
        region,
    })
}
