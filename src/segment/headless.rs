//! Segments of which both headers are damaged: another file of their session knows what stood
//! there. The number is that of their name; that a block fits proves both.

use std::path::Path;
use std::sync::Arc;

use crate::segment::header::{SegmentHeader, parse_header};
use crate::segment::layout::{
    FILE_HEADER_BYTES, FILE_LEDGER, FILE_RINGS, FILE_SEGMENT, FileHeader,
};
use crate::segment::reader::SegmentReader;
use crate::segment::source::{SegmentSource, Source};
use crate::sys::dir::Dir;

/// The header that the segment `name` in `dir` had, by that of another segment of its session or
/// by its ledger file or ring storage. `None` when no block fits, or nothing can be read.
pub(super) fn borrowed(dir: &Dir, name: &str, other: Option<&FileHeader>) -> Option<SegmentHeader> {
    let of_ledger = || header_of(dir, "ledger", FILE_LEDGER);
    let of_rings = || header_of(dir, "rings", FILE_RINGS);
    let donor = other.copied().or_else(of_ledger).or_else(of_rings)?;
    let number = name.split_once('.')?.0.parse().ok()?;
    let file = Arc::new(dir.open_file(name).ok()?);
    let header = FileHeader {
        file_kind: FILE_SEGMENT,
        segment: number,
        file_bytes: file.byte_count().ok()?,
        ..donor
    };
    let header = parse_header(bytemuck::bytes_of(&header.with_crc()), FILE_SEGMENT).ok()?;
    let source = SegmentSource::File(file);
    let reader = SegmentReader::with_header(source, Path::new(name), header.clone());
    let mut reader = reader.ok()?.salvaging();
    let found = reader.next_block().ok()?;
    found.map(|_| header)
}

fn header_of(dir: &Dir, name: &str, kind: u32) -> Option<FileHeader> {
    let file = dir.open_file(name).ok()?;
    let mut bytes = [0; FILE_HEADER_BYTES];
    Source::read_at(&file, 0, &mut bytes).ok()?;
    Some(parse_header(&bytes, kind).ok()?.file)
}
