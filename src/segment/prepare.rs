//! Making segment files ready: reserved, mapped, present in memory, with their header, so that the
//! writer neither faults nor waits when it rolls.

use std::fs::File;

use crate::error::{Error, IoContext};
use crate::segment::layout::{BLOCKS_OFFSET, FILE_SEGMENT, FileHeader, HEADER_COPY_OFFSET};
use crate::segment::sink::{Sink, SinkPlan};
use crate::sys::dir::Dir;

/// Segments are reserved and mapped in units of this, so that the kernel can use large pages.
pub(crate) const SEGMENT_ALIGN: usize = 2 << 20;

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

/// Name of a segment while it is put together from what is left of another.
pub(crate) const RESCUE_NAME: &str = "rescue";

/// A segment that is ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) bytes: usize,
    pub(crate) sink: Sink,
    pub(crate) file: File,
}

/// Creates and prepares segment `number` with `bytes` bytes (a multiple of [`SEGMENT_ALIGN`]).
/// On an error no file of that name is left.
pub(crate) fn prepare(
    dir: &Dir,
    plan: SinkPlan,
    header: &FileHeader,
    number: u64,
    bytes: usize,
) -> Result<Prepared, Error> {
    debug_assert!(bytes.is_multiple_of(SEGMENT_ALIGN) && bytes > BLOCKS_OFFSET);
    let prepared = create(dir, plan, segment_name(number), bytes, false)?;
    let path = || dir.path_of(&prepared.name);
    prepared.sink.advise_huge();
    fail_point!("prepare.present");
    let present = prepared.sink.make_present();
    fail_point!("prepare.ready");
    let filled = present
        .and_then(|()| prepared.write_header(header, number))
        .io_context("cannot fill segment", path());
    match filled {
        Ok(()) => Ok(Prepared { number, ..prepared }),
        Err(error) => {
            // The first error is the one to report; a file that cannot be removed is cut or empty.
            drop(dir.remove_file(&prepared.name));
            Err(error)
        }
    }
}

/// Reserves space for a segment that is used when there is no other. Pages of a mapping are not
/// made present: few sessions ever need it.
pub(crate) fn prepare_reserve(dir: &Dir, plan: SinkPlan, bytes: usize) -> Result<Prepared, Error> {
    let reserve = create(dir, plan, RESERVE_NAME.to_owned(), bytes, true);
    fail_point!("reserve.created");
    reserve
}

/// Creates the file and its sink. On an error no file is left.
fn create(
    dir: &Dir,
    plan: SinkPlan,
    name: String,
    bytes: usize,
    needed: bool,
) -> Result<Prepared, Error> {
    let file = dir.create_file(&name)?;
    fail_point!("prepare.created");
    let sink = plan.make(&file, bytes, needed);
    fail_point!("prepare.mapped");
    match sink.io_context("cannot reserve segment", dir.path_of(&name)) {
        Ok(sink) => Ok(Prepared {
            number: 0,
            name,
            bytes,
            sink,
            file,
        }),
        Err(error) => {
            // The first error is the one to report; a file that cannot be removed is empty.
            drop(dir.remove_file(&name));
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
        self.sink
            .make_present()
            .and_then(|()| self.write_header(header, number))
            .io_context("cannot fill segment", dir.path_of(&name))?;
        fail_point!("reserve.headed");
        dir.rename(&self.name, &name)?;
        fail_point!("reserve.renamed");
        self.number = number;
        self.name = name;
        Ok(())
    }

    fn write_header(&self, header: &FileHeader, number: u64) -> std::io::Result<()> {
        let header = segment_header(header, number, self.bytes);
        let copy = bytemuck::bytes_of(&header);
        self.sink.write(&self.file, 0, copy)?;
        fail_point!("prepare.header");
        self.sink.write(&self.file, HEADER_COPY_OFFSET, copy)
    }
}

/// The header of segment `number`, which has `bytes` bytes reserved.
pub(crate) fn segment_header(header: &FileHeader, number: u64, bytes: usize) -> FileHeader {
    FileHeader {
        file_kind: FILE_SEGMENT,
        segment: number,
        file_bytes: bytes as u64,
        ..*header
    }
    .with_crc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::layout::FILE_HEADER_BYTES;
    use crate::segment::sink::SinkKind;

    #[test]
    fn a_reserve_that_cannot_be_a_segment_stays_a_reserve() {
        for kind in [SinkKind::Mapped, SinkKind::Pwrite] {
            refused_once(SinkPlan { kind, guard: false });
        }
    }

    fn refused_once(plan: SinkPlan) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let header: FileHeader = bytemuck::Zeroable::zeroed();
        let mut reserve = prepare_reserve(&dir, plan, SEGMENT_ALIGN).unwrap();
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
