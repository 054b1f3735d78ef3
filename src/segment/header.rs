//! The header of a segment and its checks. FORMAT.md section 2 is normative.

use std::path::Path;

use crate::error::Error;
use crate::segment::layout::{
    FILE_HEADER_BYTES, FILE_MAGIC, FILE_REFERENCE, FILE_RINGS, FILE_SEGMENT, FileHeader,
    HEADER_COPY_OFFSET, VERSION_MAJOR,
};

/// Bytes of a session id.
pub(crate) const SESSION_ID_BYTES: usize = 15;

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
        parse_header(head.get(offset..end).unwrap_or_default(), FILE_SEGMENT)
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

/// What a `file_kind` is called.
fn kind_name(kind: u32) -> &'static str {
    match kind {
        FILE_SEGMENT => "segment",
        FILE_RINGS => "ring storage",
        FILE_REFERENCE => "reference to a ring storage",
        _ => "ledger file",
    }
}

/// Checks in the order of FORMAT.md section 2.
pub(super) fn parse_header(bytes: &[u8], kind: u32) -> Result<SegmentHeader, String> {
    let Ok(file) = bytemuck::try_pod_read_unaligned::<FileHeader>(bytes) else {
        return Err(format!("too short for a {}", kind_name(kind)));
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
    if file.file_kind != kind {
        let name = kind_name(kind);
        return Err(format!("a stormlog file, but not a {name}"));
    }
    let session_id = session_id(&file.session)
        .ok_or_else(|| "the session id is not YYYYMMDD_HHMMSS".to_owned())?;
    if kind == FILE_SEGMENT && file.segment == 0 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::layout::FILE_LEDGER;

    fn header(kind: u32) -> FileHeader {
        FileHeader {
            magic: FILE_MAGIC,
            version_major: VERSION_MAJOR,
            header_bytes: FILE_HEADER_BYTES as u32,
            file_kind: kind,
            session: *b"20261121_101112\0",
            segment: 1,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    fn parse(header: FileHeader, kind: u32) -> Result<SegmentHeader, String> {
        parse_header(bytemuck::bytes_of(&header.with_crc()), kind)
    }

    #[test]
    fn a_file_of_another_kind_is_refused_by_the_name_of_what_it_should_be() {
        let kinds = [FILE_SEGMENT, FILE_RINGS, FILE_REFERENCE, FILE_LEDGER];
        let names = [
            "segment",
            "ring storage",
            "reference to a ring storage",
            "ledger file",
        ];
        for (kind, name) in kinds.into_iter().zip(names) {
            for found in kinds {
                let parsed = parse(header(found), kind).map(|header| header.session_id);
                let expected = if found == kind {
                    Ok("20261121_101112".to_owned())
                } else {
                    Err(format!("a stormlog file, but not a {name}"))
                };
                assert_eq!(parsed, expected);
            }
            let short = parse_header(&[], kind).unwrap_err();
            assert_eq!(short, format!("too short for a {name}"));
        }
    }

    #[test]
    fn only_a_segment_needs_a_number() {
        let numberless = |kind| FileHeader {
            segment: 0,
            ..header(kind)
        };
        assert!(parse(numberless(FILE_RINGS), FILE_RINGS).is_ok());
        let refused = parse(numberless(FILE_SEGMENT), FILE_SEGMENT).unwrap_err();
        assert!(refused.contains("at least 1"), "{refused}");
    }

    #[test]
    fn the_version_of_the_program_is_printable_up_to_its_end() {
        let mut written = header(FILE_SEGMENT);
        let text = b"0.1.0 \x1b[31m\0behind";
        written.program[..text.len()].copy_from_slice(text);
        let parsed = parse(written, FILE_SEGMENT).unwrap();
        assert_eq!(parsed.program, "0.1.0 ?[31m");
        written.program.fill(b'x');
        let parsed = parse(written, FILE_SEGMENT).unwrap();
        assert_eq!(parsed.program, "x".repeat(40));
    }

    /// It becomes a part of file names.
    #[test]
    fn a_session_id_that_is_none_is_refused() {
        for session in [
            *b"../../../../etc\0",
            *b"20261121-101112\0",
            *b"20261121_10111x\0",
            *b"20261121_10111\0\0",
            *b"20261121_1011123",
            [0xff; 16],
            [0; 16],
        ] {
            let forged = FileHeader {
                session,
                ..header(FILE_SEGMENT)
            };
            let refused = parse(forged, FILE_SEGMENT).unwrap_err();
            assert!(refused.contains("session id"), "{session:?}: {refused}");
        }
    }
}
