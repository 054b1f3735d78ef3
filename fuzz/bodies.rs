//! What the fuzz targets do with their bytes. Safe and deterministic, so that stable tests replay
//! it; whoever includes this file also includes `tests/support` as `support` and `session`.
#![allow(dead_code, reason = "each target uses one of the bodies")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_lines, is_escaped};
use stormlog::record::{KeepClass, SchemaDef, SchemaIds};
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use stormlog::segment::survey::Survey;

use crate::session::{self, KINDS, OPTIONS, RESERVED};
use crate::support::{Head, SegmentBuilder, extras, large_record, record, repair, text};

/// Any bytes as a segment: as they are, and with their checksums repaired.
pub fn segment(data: &[u8]) {
    convert(data.to_vec());
    let mut repaired = data.to_vec();
    repair(&mut repaired);
    convert(repaired);
}

/// Any bytes as the payload of a data block, and as the body of a large record. The first byte
/// chooses the schema of the large record.
pub fn record_payload(data: &[u8]) {
    static OPEN: SchemaDef = SchemaDef::new("open", "open", KeepClass::Sampled, &[], 0, None);
    const OPEN_IDS: SchemaIds = SchemaIds {
        schema: 5,
        category: 22,
    };
    let (first, data) = data.split_first().unwrap_or((&0, &[]));
    let mut segment = SegmentBuilder::new(1, 0);
    session::registry(&mut segment);
    segment.registry(&[Entry::Category(22, "open"), Entry::schema(OPEN_IDS, &OPEN)]);
    let schemas = [KINDS, OPTIONS, RESERVED, OPEN_IDS];
    let ids = schemas[usize::from(*first) % schemas.len()];
    let payload = &data[..data.len().min(60_000) / 4 * 4];
    segment.payload(1, 1, payload);
    segment.large(2, 0, data);
    let flags = first >> 4 & 3;
    let head = Head {
        flags,
        ..session::at(ids, 0.5)
    };
    segment.data(2, &[(0, large_record(data.len(), head))]);
    convert(segment.seal(true));
}

/// Any text as every kind of value and as a name: one line that is JSON and gives it back.
pub fn jsonl(data: &[u8]) {
    // Five times in one record of at most 32 KiB.
    let data = &data[..data.len().min(6000)];
    let mut segment = SegmentBuilder::new(1, 0);
    session::registry(&mut segment);
    let area = extras(&[
        (b"value", 6, &text(data)),
        (b"json", 7, &text(data)),
        (b"number", 8, &text(data)),
        (b"nested", 7, &text(&[b"[\"", data, b"\"]"].concat())),
        (data, 2, b""),
    ]);
    let head = Head {
        extras: &area,
        ..session::at(RESERVED, 0.5)
    };
    segment.data(1, &[(21, record(&session::Reserved::default(), head))]);
    let lines = convert(segment.seal(true));
    let line = lines.get("names").expect("one line");
    // Numbers that no float can hold are JSON, but this parser refuses them.
    if let Ok(json) = serde_json::from_slice::<Json>(line) {
        let text = String::from_utf8_lossy(data);
        assert_eq!(json["value"].as_str(), Some(&*text));
        let object = json.as_object().map_or(0, serde_json::Map::len);
        assert_eq!(object, 3 + 5 + 5, "no key stands twice");
    }
}

/// Converts one segment and checks every line.
fn convert(bytes: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let mut lines = BTreeMap::new();
    let Ok(sessions) = SessionFiles::from_memory([(PathBuf::from("fuzz.seg"), bytes)]) else {
        return lines;
    };
    for session in &sessions {
        let report = convert_lines(session, &mut lines, ConvertOptions::default());
        let report = report.expect("memory can be read");
        let survey = Survey::new(session, true).expect("memory can be read");
        assert_eq!(report.records, survey.records());
        assert_eq!(report.blocks, survey.block_list.len() as u64);
        let count = lines
            .values()
            .map(|text| text.split(|byte| *byte == b'\n').count() - 1);
        assert_eq!(report.lines, count.sum::<usize>() as u64);
    }
    for (category, text) in &lines {
        assert!(stormlog::record::is_category_name(category));
        let text = std::str::from_utf8(text).expect("lines are UTF-8");
        text.lines().for_each(check_line);
    }
    lines
}

fn check_line(line: &str) {
    assert!(!line.contains(is_escaped), "{line:?}");
    assert!(line.starts_with("{\"session_id\":\""), "{line:?}");
    match serde_json::from_str::<Json>(line) {
        Ok(json) => assert!(json.is_object(), "{line:?}"),
        Err(error) if error.to_string().contains("number out of range") => {}
        Err(error) => panic!("{error}: {line:?}"),
    }
}
