//! What the fuzz targets do with their bytes. Safe and deterministic, so that stable tests replay
//! it; whoever includes this file also includes `tests/support` as `support` and `session`.
#![allow(dead_code, reason = "each target uses one of the bodies")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_lines, convert_session, is_escaped};
use stormlog::ledger::Account;
use stormlog::record::{KeepClass, SchemaDef, SchemaIds};
use stormlog::recover::{RecoverOptions, State, recover_session};
use stormlog::redact::Rules;
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use stormlog::segment::layout::{
    BLOCK_DATA, FILE_HEADER_BYTES, FILE_LEDGER, FILE_RINGS, FileHeader, LEDGER_ENTRIES_MAX,
    LEDGER_FILE_BYTES, LEDGER_SLOT_BYTES, LEDGER_SLOT_OFFSET, LedgerEntry,
};
use stormlog::segment::published::Published;
use stormlog::segment::reader::SegmentReader;
use stormlog::segment::registry::Registry;
use stormlog::segment::rings::{RingFill, Rings};
use stormlog::segment::survey::Survey;

use crate::session::{self, KINDS, OPTIONS, RESERVED};
use crate::support::{
    Head, SegmentBuilder, body, extras, header, large_record, raw_record, record, repair,
    repair_entries, text,
};

/// Any bytes as a segment, and as the blocks behind a valid header: as they are, and with their
/// checksums repaired. Behind the header, because what a fuzzer makes is shorter than a header and
/// the bytes behind it that mean nothing.
pub fn segment(data: &[u8]) {
    let mut behind = SegmentBuilder::new(1, 0).finish();
    behind.extend_from_slice(data);
    for mut bytes in [data.to_vec(), behind] {
        convert(bytes.clone());
        repair(&mut bytes);
        convert(bytes);
    }
}

/// Any bytes as entries of the registry, as they are and with their checksums repaired: what is
/// taken keeps the rules of FORMAT.md section 6, and records of every schema become lines.
pub fn registry(data: &[u8]) {
    let data = &data[..data.len().min(60_000) / 4 * 4];
    entries(data);
    let mut repaired = data.to_vec();
    repair_entries(&mut repaired);
    entries(&repaired);
}

fn entries(payload: &[u8]) {
    let mut registry = Registry::default();
    let count = registry.add_block(payload);
    assert!(count <= payload.len() as u64 / 16 + 1);
    assert!(registry.rejected + registry.unknown <= count);
    let name_is_safe = |(_, name): (u8, &str)| stormlog::record::is_category_name(name);
    assert!(registry.categories().all(name_is_safe));
    assert!(
        registry
            .symbols()
            .all(|(id, text)| id > 0 && text.len() <= 1024)
    );
    assert!(registry.pressures().all(|(_, change)| change.k <= 15));
    assert!((16..=255).all(|id| {
        registry
            .weight(id)
            .is_none_or(|w| w.is_finite() && w >= 1.0)
    }));
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry_bytes(payload, count as u32);
    for schema in registry.schemas() {
        let slots = schema.fields.iter().map(|field| {
            let of = field.field_type;
            assert!(!field.name.is_empty() && of.decimals <= 6);
            of.kind.slot_bytes(of.optional)
        });
        assert_eq!(slots.sum::<usize>(), usize::from(schema.fixed_bytes));
        // Zeros, with room for the padding, and the same with ones.
        for (byte, ring) in [(0, 1), (1, 2), (0xff, 3)] {
            let body = vec![byte; usize::from(schema.fixed_bytes).min(30_000)];
            let head = Head {
                schema: schema.id,
                ..Head::default()
            };
            segment.data(ring, &[(schema.category.into(), raw_record(&body, head))]);
        }
    }
    convert(segment.seal(true));
}

/// Any text as settings, a `NAME=VALUE` per line: settings within their bounds, or an error that
/// says what to give instead, and no more than the start of a long value.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let vars = text.lines().map(|line| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    });
    match stormlog::check_settings(vars) {
        Ok(json) => assert!(json.is_object()),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() <= 6000, "{said}");
        }
    }
}

/// Any text as a file of stress rules, and behind a line `---` lines of JSON that they look at:
/// each file gives rules, or an error with a line; what the rules tell can be told.
#[cfg(feature = "cli")]
pub fn rules(data: &[u8]) {
    use stormlog::cli::replay::{Field, parse_line};
    use stormlog::stress::{Evaluator, FieldValue, parse_rules};
    let text = String::from_utf8_lossy(data);
    let (rules, lines) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let evaluator = match parse_rules(rules).map(|set| (Evaluator::new(&set), set)) {
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("stress_rules=rules: line "), "{said}");
            assert!(said.len() < 2000, "{said}");
            return;
        }
        Ok((Err(error), _)) => return assert!(error.to_string().starts_with("rule ")),
        Ok((Ok(evaluator), set)) => (evaluator, set),
    };
    let (evaluator, set) = evaluator;
    let mut categories: Vec<_> = set
        .rules
        .iter()
        .map(|rule| rule.category.as_str())
        .collect();
    categories.sort_unstable();
    categories.dedup();
    for (number, line) in lines.lines().take(200).enumerate() {
        let Ok(parsed) = parse_line(line) else {
            continue;
        };
        let fields = || {
            parsed.fields.iter().map(|(name, field)| {
                let value = match field {
                    Field::Null | Field::Json(_) => FieldValue::Null,
                    Field::Bool(flag) => FieldValue::Bool(*flag),
                    Field::Number(text) => FieldValue::Number(text),
                    Field::Text(text) => FieldValue::Text(text),
                };
                (&**name, value)
            })
        };
        for category in categories.iter().take(8) {
            // Times that go back too.
            let time = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (number % 40);
            evaluator.evaluate(category, time, fields(), |event| {
                assert!(set.rules.iter().any(|rule| {
                    event.event_type().strip_suffix("_cleared") == Some(&rule.name)
                        || event.event_type() == rule.name
                }));
                assert!(!event.description().to_string().is_empty());
                let mut count = 0;
                event.fields(|_, _| count += 1);
                assert!((1..=14).contains(&count));
            });
        }
    }
}

/// Any bytes as the lines that `replay` reads: each is refused, or recorded as it is.
#[cfg(feature = "cli")]
pub fn replay(data: &[u8]) {
    use stormlog::cli::replay::{Field, parse_line};
    for line in data[..data.len().min(20_000)].split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else {
            continue;
        };
        let Ok(parsed) = parse_line(line) else {
            continue;
        };
        let value = |field: &Field<'_>| match field {
            Field::Null => (0, Vec::new()),
            Field::Bool(false) => (1, Vec::new()),
            Field::Bool(true) => (2, Vec::new()),
            Field::Text(value) => (6, text(value.as_bytes())),
            Field::Json(value) => (7, text(value.as_bytes())),
            Field::Number(value) => (8, text(value.as_bytes())),
        };
        let values: Vec<_> = parsed
            .fields
            .iter()
            .map(|(_, field)| value(field))
            .collect();
        let names = parsed.fields.iter().map(|(name, _)| name.as_bytes());
        let fields = names
            .zip(&values)
            .map(|(name, (kind, value))| (name, *kind, &**value));
        let area = extras(&fields.collect::<Vec<_>>());
        let mut segment = SegmentBuilder::new(1, 0);
        session::registry(&mut segment);
        let body = body(&session::Reserved::default(), &area);
        let head = Head {
            extras: &area,
            ..session::at(RESERVED, 0.5)
        };
        segment.large(1, 0, &body);
        segment.data(1, &[(21, large_record(body.len(), head))]);
        let lines = convert(segment.seal(true));
        let made = lines.get("names").expect("one line");
        let parsed_again = (
            serde_json::from_str::<Json>(line),
            serde_json::from_slice::<Json>(made),
        );
        // Numbers that no float can hold are JSON, but this parser refuses them.
        let (Ok(before), Ok(after)) = parsed_again else {
            continue;
        };
        assert_eq!(
            after.as_object().map_or(0, serde_json::Map::len),
            3 + 5 + parsed.fields.len()
        );
        for (name, _) in &parsed.fields {
            let mut place = name.to_string();
            // A name of the line, of a field, or of one that was moved.
            while after.get(&place) != before.get(&**name) && place.len() < name.len() + 60 {
                place.insert_str(0, "field_");
            }
            assert_eq!(
                after.get(&place),
                before.get(&**name),
                "{name:?} of {line:?}"
            );
        }
    }
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

/// Any bytes as a ledger file and as a ring storage: as they are, and as [`pieces`].
pub fn figures(data: &[u8]) {
    read_figures(data);
    read_figures(&pieces(data, FILE_LEDGER));
    read_figures(&pieces(data, FILE_RINGS));
}

/// Any bytes as the ring storage of a dead session, as [`pieces`]: an error, or a session that can
/// be converted and has lost nothing that its segment had.
pub fn recover(data: &[u8]) {
    recovered(data);
}

/// Records that a recovery wrote.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    pub from_rings: u64,
    pub from_spill: u64,
    /// Its own: the end of the session, and durations.
    pub own: u64,
}

/// Does it.
pub fn recovered(data: &[u8]) -> Recovered {
    use std::os::unix::fs::DirBuilderExt;
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("stormlog-recover-{}-{number}", std::process::id());
    let log_dir = std::env::temp_dir().join(name);
    let head = header(1);
    let id = std::str::from_utf8(&head.session[..15]).expect("an id");
    let dir = log_dir.join(".stormlog").join(id);
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .expect("a directory");
    let [segment, _] = session::session();
    std::fs::write(dir.join("000001.seg"), &segment).expect("a segment");
    std::fs::write(dir.join("rings"), pieces(data, FILE_RINGS)).expect("a ring storage");
    let report = recover_session(&log_dir, id, RecoverOptions::default()).expect("no error");
    assert_eq!(report.state, State::Recovered);
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let written = std::fs::metadata(dir.join("000002.seg")).expect("the new segment");
    assert!(
        written.len() < 4 * LEDGER_FILE_BYTES as u64,
        "bounded by what there was"
    );
    let files = SessionFiles::find(&dir).expect("segments");
    let survey = Survey::new(&files[0], false).expect("no error");
    assert!(
        survey.is_sealed() && survey.damaged_blocks == 0,
        "{:?}",
        survey.faults
    );
    // Beside what was left there are the end of the session, and durations that were counted.
    let own = own_records(&dir.join("000002.seg"));
    assert!(own > 0);
    let records = report.in_segments + report.from_rings + report.from_spill + own;
    assert_eq!(survey.records(), records);
    convert_session(&files[0], &log_dir, ConvertOptions::default()).expect("no error");
    std::fs::remove_dir_all(&log_dir).expect("the directory");
    Recovered {
        from_rings: report.from_rings,
        from_spill: report.from_spill,
        own,
    }
}

/// Records of the session itself in the segment that a recovery wrote.
fn own_records(path: &Path) -> u64 {
    let file = std::fs::File::open(path).expect("the new segment");
    let mut reader = SegmentReader::open(file, path).expect("a segment");
    let mut count = 0;
    while let Some(block) = reader.next_block().expect("it can be read") {
        let header = block.header;
        // A block of spilled records stands between two positions.
        let spilled = header.first_pos == header.next_pos;
        if header.kind == BLOCK_DATA && header.ring == 0 && !spilled {
            count += u64::from(header.records);
        }
    }
    count
}

/// A file of this kind from pieces (`offset u32, length u16, bytes`), zero elsewhere, with valid
/// checksums.
pub fn pieces(data: &[u8], kind: u32) -> Vec<u8> {
    let mut file = vec![0; LEDGER_FILE_BYTES];
    let mut rest = data;
    while let Some((piece, after)) = rest.split_at_checked(6) {
        let at = u32::from_le_bytes(*piece.first_chunk().expect("6 bytes")) as usize;
        let length = usize::from(u16::from_le_bytes([piece[4], piece[5]])).min(after.len());
        let at = at % file.len();
        let length = length.min(file.len() - at);
        file[at..at + length].copy_from_slice(&after[..length]);
        rest = &after[length..];
    }
    let head = FileHeader {
        file_kind: kind,
        file_bytes: file.len() as u64,
        ..header(1)
    };
    file[..FILE_HEADER_BYTES].copy_from_slice(stormlog::bytemuck::bytes_of(&head.with_crc()));
    repair_slots(&mut file, kind);
    file
}

/// Gives the slots of a ledger file their checksums.
fn repair_slots(file: &mut [u8], kind: u32) {
    let slots = file[LEDGER_SLOT_OFFSET..].chunks_exact_mut(LEDGER_SLOT_BYTES);
    for slot in slots.filter(|_| kind == FILE_LEDGER) {
        let count = u32::from_le_bytes(*slot[12..].first_chunk().expect("a slot")) as usize;
        if count <= LEDGER_ENTRIES_MAX {
            let crc = crc32c::crc32c(&slot[16..32 + count * size_of::<LedgerEntry>()]);
            slot[8..12].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn read_figures(bytes: &[u8]) {
    let path = Path::new("fuzz");
    if let Ok(published) = Published::read(bytes, path) {
        let mut ledger = published.ledger();
        ledger.settle();
        check_account(&ledger.total());
        ledger.categories.values().for_each(check_account);
        let mut names = ledger.categories.keys();
        assert!(names.all(|name| stormlog::record::is_category_name(name)));
    }
    if let Ok(rings) = Rings::read(bytes, path) {
        assert!(rings.active <= rings.used && rings.accounts.len() == 256);
        // Each has a header, counters and at least 4,096 bytes of data in the file.
        assert!(rings.used as usize <= bytes.len() / (256 + 2048 + 4096));
        assert_eq!(rings.fullest.is_some(), rings.used > 0);
        let fits = |fill: &RingFill| {
            fill.waiting_bytes <= fill.capacity_bytes && (0.0..=1.0).contains(&fill.part())
        };
        assert!(rings.fullest.is_none_or(|fill| fits(&fill)));
        for account in &rings.accounts {
            let mut account = *account;
            account.settle();
            check_account(&account);
        }
        let registry = rings.registry(bytes, path).expect("memory can be read");
        let mut names = registry.categories();
        assert!(names.all(|(_, name)| stormlog::record::is_category_name(name)));
    }
}

/// What is settled has no end without a begin.
fn check_account(account: &Account) {
    assert!(account.written() <= account.offered());
    assert!(account.dropped_total() <= account.offered());
    assert!(account.pending() <= account.offered());
}

/// Converts one segment, also behind damage, and checks every line, also of those without secrets;
/// returns the others.
fn convert(bytes: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let Ok(sessions) = SessionFiles::from_memory([(PathBuf::from("fuzz.seg"), bytes)]) else {
        return BTreeMap::new();
    };
    convert_with(&sessions, &Rules::default());
    convert_with(
        &sessions,
        &Rules {
            on: false,
            ..Rules::default()
        },
    )
}

fn convert_with(sessions: &[SessionFiles], rules: &Rules) -> BTreeMap<String, Vec<u8>> {
    let mut lines = BTreeMap::new();
    for session in sessions {
        let salvage = ConvertOptions {
            salvage: true,
            redact: Some(rules.clone()),
            ..ConvertOptions::default()
        };
        let mut salvaged = BTreeMap::<String, Vec<u8>>::new();
        let more = convert_lines(session, &mut salvaged, salvage).expect("memory can be read");
        for text in salvaged.values() {
            let text = std::str::from_utf8(text).expect("lines are UTF-8");
            text.lines().for_each(check_line);
        }
        let options = ConvertOptions {
            redact: Some(rules.clone()),
            ..ConvertOptions::default()
        };
        let report = convert_lines(session, &mut lines, options);
        let report = report.expect("memory can be read");
        assert!(more.blocks >= report.blocks && more.records >= report.records);
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
