//! Making segment files ready: reserved, mapped, present in memory, with their header, so that the
//! writer neither faults nor waits when it rolls.

use std::fs::File;
use std::io;

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

/// Name of the reserve: space for a segment that has no number yet.
pub(crate) const RESERVE_NAME: &str = "reserve";

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
    fail_point!("prepare.created");
    let prepared = map(dir, &name, file, header, number, bytes);
    if prepared.is_err() {
        // The first error is the one to report; a file that cannot be removed is cut or empty.
        drop(dir.remove_file(&name));
    }
    prepared
}

/// Reserves and maps space for a segment that is used when there is no other. Its pages are not
/// made present: few sessions ever need it.
pub(crate) fn prepare_reserve(dir: &Dir, bytes: usize) -> Result<Prepared, Error> {
    let file = dir.create_file(RESERVE_NAME)?;
    fail_point!("reserve.created");
    let path = || dir.path_of(RESERVE_NAME);
    let region = reserve(&file, bytes as u64)
        .io_context("cannot reserve segment", path())
        .and_then(|()| Region::file(&file, bytes).io_context("cannot map segment", path()));
    match region {
        Ok(region) => Ok(Prepared {
            number: 0,
            name: RESERVE_NAME.to_owned(),
            file,
            region,
        }),
        Err(error) => {
            // The first error is the one to report; a file that cannot be removed is empty.
            drop(dir.remove_file(RESERVE_NAME));
            Err(error)
        }
    }
}

impl Prepared {
    /// Makes a reserve segment `number`. On an error it stays a reserve.
    pub(crate) fn activate(
        &mut self,
        dir: &Dir,
        header: &FileHeader,
        number: u64,
    ) -> Result<(), Error> {
        let name = segment_name(number);
        // Not before: a file system that turned read-only says so here, and not by a signal.
        make_present(&self.region).io_context("cannot fill segment", dir.path_of(&name))?;
        write_header(&self.region, header, number);
        fail_point!("reserve.headed");
        dir.rename(&self.name, &name)?;
        fail_point!("reserve.renamed");
        self.number = number;
        self.name = name;
        Ok(())
    }
}

/// Makes the pages of a region present whose space is reserved and that nobody else knows.
fn make_present(region: &Region) -> io::Result<()> {
    for offset in (0..region.len()).step_by(POPULATE_BYTES) {
        let piece = POPULATE_BYTES.min(region.len() - offset);
        if !region.populate(offset, piece)? {
            region.zero(offset, piece);
        }
    }
    Ok(())
}

fn write_header(region: &Region, header: &FileHeader, number: u64) {
    let header = FileHeader {
        file_kind: FILE_SEGMENT,
        segment: number,
        file_bytes: region.len() as u64,
        ..*header
    }
    .with_crc();
    let copy = bytemuck::bytes_of(&header);
    region.write(0, copy);
    fail_point!("prepare.header");
    region.write(HEADER_COPY_OFFSET, copy);
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
    fail_point!("prepare.mapped");
    // Not every file system has large pages; small ones are slower, not wrong.
    drop(region.advise_huge());
    fail_point!("prepare.present");
    make_present(&region).io_context("cannot fill segment", path())?;
    fail_point!("prepare.ready");
    write_header(&region, header, number);
    Ok(Prepared {
        number,
        name: name.to_owned(),
        file,
        region,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::layout::FILE_HEADER_BYTES;

    #[test]
    fn a_reserve_that_cannot_be_a_segment_stays_a_reserve() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let header: FileHeader = bytemuck::Zeroable::zeroed();
        let mut reserve = prepare_reserve(&dir, SEGMENT_ALIGN).unwrap();
        // A directory in its place.
        dir.create_dir("000002.seg").unwrap();
        assert!(reserve.activate(&dir, &header, 2).is_err());
        assert_eq!((reserve.number, reserve.name.as_str()), (0, RESERVE_NAME));
        assert!(dir.exists(RESERVE_NAME).unwrap());
        reserve.activate(&dir, &header, 3).unwrap();
        assert!(!dir.exists(RESERVE_NAME).unwrap());
        let bytes = std::fs::read(temp.path().join("000003.seg")).unwrap();
        assert_eq!(bytes.len(), SEGMENT_ALIGN);
        let found: FileHeader = bytemuck::pod_read_unaligned(&bytes[..FILE_HEADER_BYTES]);
        assert_eq!((found.segment, found.file_kind), (3, FILE_SEGMENT));
    }
}
