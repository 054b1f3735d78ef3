//! The header of a segment and its checks. FORMAT.md section 2 is normative.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used
    )
)]

use std::path::Path;

use crate::error::Error;
use crate::segment::layout::{
    FILE_HEADER_BYTES, FILE_MAGIC, FILE_SEGMENT, FileHeader, HEADER_COPY_OFFSET, VERSION_MAJOR,
};

/// Bytes of a session id.
const SESSION_ID_BYTES: usize = 15;

/// The header of a segment after every check.
#[derive(Clone, Debug)]
pub struct SegmentHeader {
    /// The header as it stands in the file.
    pub file: FileHeader,
    /// Session id, `YYYYMMDD_HHMMSS`: safe as a part of a file name.
    pub session_id: String,
    /// Version of the program that wrote the file, with what is not printable replaced.
    pub program: String,
    /// Whether one of the two copies is damaged.
    pub copy_damaged: bool,
}

/// The first valid copy of the header.
pub(super) fn parse_headers(head: &[u8], path: &Path) -> Result<SegmentHeader, Error> {
    let copy = |offset: usize| {
        let end = offset.saturating_add(FILE_HEADER_BYTES);
        parse_header(head.get(offset..end).unwrap_or_default())
    };
    let (first, second) = (copy(0), copy(HEADER_COPY_OFFSET));
    let damaged = first.is_err() || second.is_err();
    match first.or_else(|what| second.map_err(|_| what)) {
        Ok(header) => Ok(SegmentHeader {
            copy_damaged: damaged,
            ..header
        }),
        Err(what) => Err(Error::Corrupt {
            path: path.to_owned(),
            offset: 0,
            what,
        }),
    }
}

/// Checks in the order of FORMAT.md section 2.
fn parse_header(bytes: &[u8]) -> Result<SegmentHeader, String> {
    let Ok(file) = bytemuck::try_pod_read_unaligned::<FileHeader>(bytes) else {
        return Err("too short for a segment".to_owned());
    };
    if file.magic != FILE_MAGIC {
        return Err("not a stormlog file".to_owned());
    }
    if file.version_major != VERSION_MAJOR {
        let (major, minor) = (file.version_major, file.version_minor);
        return Err(format!(
            "written in format version {major}.{minor}, this program reads {VERSION_MAJOR}.x"
        ));
    }
    if file.header_bytes as usize != FILE_HEADER_BYTES {
        return Err("the length of the header is wrong".to_owned());
    }
    if file.expected_crc() != file.crc {
        return Err("the checksum of the header does not match".to_owned());
    }
    if file.file_kind != FILE_SEGMENT {
        return Err("a stormlog file, but not a segment".to_owned());
    }
    let session_id = session_id(&file.session)
        .ok_or_else(|| "the session id is not YYYYMMDD_HHMMSS".to_owned())?;
    if file.segment == 0 {
        return Err("a segment number is at least 1".to_owned());
    }
    let program = file.program.split(|byte| *byte == 0).next();
    let program = String::from_utf8_lossy(program.unwrap_or_default())
        .replace(|c: char| !c.is_ascii_graphic() && c != ' ', "?");
    Ok(SegmentHeader {
        file,
        session_id,
        program,
        copy_damaged: false,
    })
}

/// Whether `id` is a session id, `YYYYMMDD_HHMMSS`.
pub fn is_session_id(id: &str) -> bool {
    let digit = |(index, byte): (usize, u8)| match index {
        8 => byte == b'_',
        _ => byte.is_ascii_digit(),
    };
    id.len() == SESSION_ID_BYTES && id.bytes().enumerate().all(digit)
}

fn session_id(field: &[u8; 16]) -> Option<String> {
    let (id, zero) = field.split_at_checked(SESSION_ID_BYTES)?;
    let id = std::str::from_utf8(id).ok()?;
    (zero == [0] && is_session_id(id)).then(|| id.to_owned())
}
