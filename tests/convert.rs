//! Segments to JSON Lines, against golden files: the bytes of a version 1.0 session and its lines.
//!
//! `STORMLOG_BLESS=1 cargo test --test convert` writes the files anew. Do that only with a
//! version bump or a deliberate change of the lines, and read the difference.

#[path = "support/session.rs"]
mod session;
mod support;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use session::{Options, RESERVED, Reserved, at, kinds, registry, session};
use stormlog::Error;
use stormlog::convert::{ConvertOptions, convert_session, is_escaped};
use stormlog::record::SchemaIds;
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use support::{
    Head, SESSION, SegmentBuilder, body, convert, extras, large_record, raw_entry, record, text,
};

fn golden(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", name]
        .iter()
        .collect()
}

#[track_caller]
fn assert_golden(name: &str, found: &[u8]) {
    let path = golden(name);
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read(&path).unwrap();
    assert!(
        found == expected,
        "{name} differs:\n{}",
        String::from_utf8_lossy(found)
    );
}

#[test]
fn the_bytes_of_version_1_0_do_not_change() {
    let [first, second] = session();
    assert_golden("v1_0/000001.seg", &first);
    assert_golden("v1_0/000002.seg", &second);
}

#[test]
fn version_1_0_becomes_the_lines_that_it_always_became() {
    let files =
        ["v1_0/000001.seg", "v1_0/000002.seg"].map(|name| std::fs::read(golden(name)).unwrap());
    let (lines, report) = convert(&files);
    assert_eq!(report.faults, [""; 0]);
    assert!(report.sealed);
    assert_eq!(
        lines.keys().collect::<Vec<_>>(),
        ["kinds", "names", "session"]
    );
    for (category, text) in &lines {
        assert_golden(&format!("v1_0/{category}.jsonl"), text.as_bytes());
    }
    assert_eq!((report.lines, report.records, report.blocks), (10, 10, 10));
    let ledger = report.ledger.unwrap();
    assert_eq!(ledger.categories["kinds"].written(), 7);
    assert_eq!(report.counted.categories["kinds"].written(), 7);
}

/// Checks what every line must be, whatever was recorded.
#[track_caller]
fn assert_line(line: &str) -> Vec<String> {
    assert!(!line.contains(is_escaped), "{line:?}");
    let json: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let start = "{\"session_id\":\"20261121_101112\",\"timestamp\":\"2026-11-21T10:11:";
    assert!(line.starts_with(start), "{line}");
    // Keys in their order, from a parser that keeps what is said twice.
    let keys = top_level_keys(line);
    assert_eq!(keys[..3], ["session_id", "timestamp", "elapsed_seconds"]);
    let different: HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len(), "{line}");
    assert_eq!(json.as_object().unwrap().len(), keys.len());
    keys
}

fn top_level_keys(line: &str) -> Vec<String> {
    let (mut depth, mut keys, mut rest) = (0, Vec::new(), line);
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
            let text = stream.next().unwrap().unwrap();
            rest = &rest[stream.byte_offset()..];
            if depth == 1 && rest.starts_with(':') && (before == '{' || before == ',') {
                keys.push(text.as_str().unwrap().to_owned());
            }
            before = '"';
            continue;
        }
        depth += i32::from(matches!(c, '{' | '[')) - i32::from(matches!(c, '}' | ']'));
        before = c;
        rest = &rest[c.len_utf8()..];
    }
    keys
}

#[test]
fn every_line_is_json_with_different_keys_in_the_right_order() {
    let (lines, _) = convert(&session());
    let lines: Vec<_> = lines.values().flat_map(|text| text.lines()).collect();
    assert_eq!(lines.len(), 10);
    for line in lines {
        assert_line(line);
    }
    let (lines, _) = convert(&session());
    let last = assert_line(lines["kinds"].lines().last().unwrap());
    assert!(
        last.ends_with(&[
            "field_i".into(),
            "field_field_i".into(),
            "field_session_id".into(),
            "truncated".into(),
            String::new()
        ]),
        "{last:?}"
    );
}

/// One record in a sealed session of its own.
fn one(schema: SchemaIds, record: Vec<u8>) -> Vec<Vec<u8>> {
    let mut segment = SegmentBuilder::new(1, 0);
    registry(&mut segment);
    segment.data(1, &[(schema.category.into(), record)]);
    vec![segment.seal(true)]
}

fn one_with_extras(extras: &[u8]) -> (String, u64) {
    let head = Head {
        extras,
        ..at(RESERVED, 0.5)
    };
    let (lines, report) = convert(&one(RESERVED, record(&Reserved::default(), head)));
    let damaged = report.counted.total().dropped_total();
    (lines.get("names").cloned().unwrap_or_default(), damaged)
}

#[test]
fn hostile_texts_leave_lines_that_a_terminal_can_show() {
    let mut texts: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    for text in [
        "\u{0}",
        "\u{1b}[2J",
        "\u{9b}31m",
        "\u{202e}txt.exe",
        "\u{2066}\u{2069}",
        "\u{feff}",
        "\u{2028}\u{2029}",
        "\"},{\"x\":\"",
        "\\",
        "\\u0000",
        "\r\n",
        "</script>",
        "\u{1f600}",
        "\u{fffd}",
        "a\u{300}",
        "\u{10ffff}",
        "\u{61c}\u{200e}\u{200f}",
        "\u{7f}",
    ] {
        texts.push(text.as_bytes().to_vec());
    }
    for bytes in [
        &b"\xed\xa0\x80"[..],
        b"\xc0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x80",
        b"ok\xffok",
        b"\xc2",
    ] {
        texts.push(bytes.to_vec());
    }
    for hostile in texts {
        let long = hostile.repeat(20);
        for bytes in [&hostile, &long] {
            let json = [b"{\"k\":\"", bytes.as_slice(), b"\"}"].concat();
            let area = extras(&[
                (bytes, 6, &text(bytes)),
                (b"json", 7, &text(&json)),
                (b"raw", 7, &text(bytes)),
                (b"number", 8, &text(bytes)),
                (bytes, 6, &text(bytes)),
            ]);
            let (lines, damaged) = one_with_extras(&area);
            assert_eq!((lines.lines().count(), damaged), (1, 0), "{bytes:?}");
            let keys = assert_line(lines.trim_end_matches('\n'));
            assert_eq!(keys.len(), 3 + 5 + 5, "{keys:?}");
            let json: Json = serde_json::from_str(&lines).unwrap();
            let key = String::from_utf8_lossy(bytes);
            assert_eq!(json[&*key], Json::from(&*key), "{bytes:?}");
        }
    }
}

#[test]
fn names_that_are_taken_too_often_are_left_out_and_counted() {
    let fields: Vec<_> = (0..1000).map(|_| (&b"same"[..], 0_u8, &b""[..])).collect();
    let area = extras(&fields);
    let head = Head {
        extras: &area,
        ..at(RESERVED, 0.5)
    };
    let (lines, report) = convert(&one(RESERVED, record(&Reserved::default(), head)));
    assert_eq!(assert_line(lines["names"].trim_end()).len(), 3 + 5 + 9);
    assert!(
        report
            .faults
            .iter()
            .any(|fault| fault.starts_with("991 extra fields")),
        "{:?}",
        report.faults
    );
    let names: Vec<String> = (0..1000).map(|n| format!("name{}", n / 2)).collect();
    let fields: Vec<_> = names
        .iter()
        .map(|name| (name.as_bytes(), 0_u8, &b""[..]))
        .collect();
    let (lines, damaged) = one_with_extras(&extras(&fields));
    assert_eq!(damaged, 0);
    assert_eq!(assert_line(lines.trim_end()).len(), 3 + 5 + 1000);
}

#[test]
fn records_that_do_not_fit_their_schema_are_counted_as_damaged() {
    let good = record(&kinds(), at(session::KINDS, 0.5));
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let cases: [(&str, Vec<u8>); 9] = [
        ("unknown flag", with(&|r| r[4] |= 0x40)),
        ("context area", with(&|r| r[4] |= 0x08)),
        ("unknown schema", with(&|r| r[2] = 99)),
        (
            "unknown symbol",
            with(&|r| r[16..20].copy_from_slice(&9_u32.to_le_bytes())),
        ),
        ("null symbol", with(&|r| r[16..20].copy_from_slice(&[0; 4]))),
        (
            "text behind the end",
            with(&|r| r[25..27].copy_from_slice(&[0xff; 2])),
        ),
        ("unknown weight", with(&|r| r[5] = 17)),
        (
            "bytes left over",
            with(&|r| {
                let words = r[0] + 1;
                r[0] = words;
                r.extend_from_slice(&[0; 4]);
            }),
        ),
        (
            "extra area cut off",
            with(&|r| {
                let end = r.len();
                r[4] |= 1;
                r[end - 2..].fill(1);
            }),
        ),
    ];
    assert_eq!(convert(&one(session::KINDS, good.clone())).1.lines, 1);
    for (name, bytes) in cases {
        let (lines, report) = convert(&one(session::KINDS, bytes));
        assert!(lines.is_empty(), "{name}: {lines:?}");
        let damaged = report.counted.total().dropped_total() + report.damaged_unknown;
        assert_eq!((report.lines, damaged), (0, 1), "{name}");
        assert!(
            report.faults.iter().any(|fault| fault.contains("damaged")),
            "{name}"
        );
    }
}

#[test]
fn a_large_record_needs_its_body_before_it() {
    let large = body(&Options::default(), &[]);
    let reference = large_record(large.len(), at(session::OPTIONS, 0.5));
    let lines = |place: u8, body_bytes: usize| {
        let mut segment = SegmentBuilder::new(1, 0);
        registry(&mut segment);
        if place == 0 {
            segment.large(1, 0, &vec![0; body_bytes]);
        }
        segment.data(1, &[(20, reference.clone()), (20, reference.clone())]);
        if place == 1 {
            segment.large(1, 0, &vec![0; body_bytes]);
        }
        let (_, report) = convert(&[segment.seal(true)]);
        (report.lines, report.counted.total().dropped_total())
    };
    assert_eq!(lines(0, large.len()), (1, 1), "the second one has no body");
    assert_eq!(lines(1, large.len()), (0, 2), "behind the record");
    assert_eq!(lines(0, large.len() + 4), (0, 2), "another length");
    assert_eq!(lines(2, 0), (0, 2), "nowhere");
}

/// An entry with this payload, in a session with one record of another schema.
fn with_entry(entry: &[u8]) -> (u64, Vec<String>, Vec<String>) {
    let mut segment = SegmentBuilder::new(1, 0);
    registry(&mut segment);
    segment.registry_bytes(entry, 1);
    segment.data(1, &[(20, record(&kinds(), at(session::KINDS, 0.5)))]);
    let (lines, report) = convert(&[segment.seal(true)]);
    (report.lines, report.faults, lines.into_keys().collect())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, one line per entry")]
fn registry_entries_that_are_wrong_are_rejected_and_nothing_else() {
    let name = |name: &str| [&(name.len() as u16).to_le_bytes(), name.as_bytes()].concat();
    // category 20, sampled, one field, 4 bytes fixed, no key, name "x", then the field.
    let schema = |fixed: u8, field: &[u8]| {
        [&[20, 0, 0, 1, fixed, 0, 0xff, 0xff, 1, b'x'][..], field].concat()
    };
    let field = |kind: u8, flags: u8, decimals: u8, offset: u8| {
        vec![kind, flags, decimals, 1, offset, 0, 0, 0, 0, 0, b'f']
    };
    for (what, rejected, entry) in [
        (
            "valid schema",
            false,
            raw_entry(2, 50, 0, &schema(4, &field(3, 0, 0, 0))),
        ),
        (
            "path as category",
            true,
            raw_entry(1, 50, 0, &name("../../etc/x")),
        ),
        ("empty category", true, raw_entry(1, 50, 0, &name(""))),
        (
            "long category",
            true,
            raw_entry(1, 50, 0, &name(&"a".repeat(65))),
        ),
        ("category id", true, raw_entry(1, 256, 0, &name("fine"))),
        (
            "renamed category",
            true,
            raw_entry(1, 20, 0, &name("other")),
        ),
        (
            "same category again",
            false,
            raw_entry(1, 20, 0, &name("kinds")),
        ),
        (
            "slot behind the fixed part",
            true,
            raw_entry(2, 50, 0, &schema(3, &field(3, 0, 0, 0))),
        ),
        (
            "slot with a gap",
            true,
            raw_entry(2, 50, 0, &schema(5, &field(3, 0, 0, 1))),
        ),
        (
            "unused fixed part",
            true,
            raw_entry(2, 50, 0, &schema(8, &field(3, 0, 0, 0))),
        ),
        (
            "unknown field kind",
            true,
            raw_entry(2, 50, 0, &schema(4, &field(18, 0, 0, 0))),
        ),
        (
            "unknown field flag",
            true,
            raw_entry(2, 50, 0, &schema(4, &field(3, 2, 0, 0))),
        ),
        (
            "7 decimals",
            true,
            raw_entry(2, 50, 0, &schema(8, &field(17, 0, 7, 0))),
        ),
        (
            "fields cut off",
            true,
            raw_entry(2, 50, 0, &schema(4, &[3, 0, 0, 200, 0, 0, 0, 0, 0, 0])),
        ),
        (
            "schema 0",
            true,
            raw_entry(2, 0, 0, &schema(4, &field(3, 0, 0, 0))),
        ),
        (
            "schema id",
            true,
            raw_entry(2, 4096, 0, &schema(4, &field(3, 0, 0, 0))),
        ),
        ("symbol 0", true, raw_entry(3, 0, 0, &name("s"))),
        ("symbol id", true, raw_entry(3, 0, u32::MAX, &name("s"))),
        (
            "symbol too long",
            true,
            raw_entry(3, 0, 9, &name(&"s".repeat(1025))),
        ),
        ("symbol not UTF-8", true, raw_entry(3, 0, 9, &[1, 0, 0xff])),
        (
            "another text for a symbol",
            true,
            raw_entry(3, 0, 7, &name("eight")),
        ),
        (
            "rate below the table",
            true,
            raw_entry(6, 15, 0, &1_f64.to_le_bytes()),
        ),
        (
            "rate NaN",
            true,
            raw_entry(6, 20, 0, &f64::NAN.to_le_bytes()),
        ),
        ("clock cut off", true, raw_entry(4, 0, 0, &[0; 16])),
        ("unknown kind", false, raw_entry(77, 0, 0, &[1; 8])),
        ("length 0", true, vec![0; 16]),
        (
            "length behind the end",
            true,
            [&[0xff_u8; 4][..], &[0; 12]].concat(),
        ),
    ] {
        let (lines, faults, categories) = with_entry(&entry);
        assert_eq!(
            (lines, categories.as_slice()),
            (1, &["kinds".to_owned()][..]),
            "{what}"
        );
        let found = faults
            .iter()
            .any(|fault| fault.contains("entries of the registry"));
        assert_eq!(found, rejected, "{what}: {faults:?}");
    }
    let mut crc = raw_entry(1, 50, 0, &name("fine"));
    crc[4] ^= 1;
    assert!(
        with_entry(&crc)
            .1
            .iter()
            .any(|fault| fault.contains("registry"))
    );
}

#[test]
fn counts_that_differ_are_faults() {
    let faults = |segments: &[Vec<u8>]| convert(segments).1.faults.join("; ");
    let [first, second] = session();
    assert!(faults(std::slice::from_ref(&first)).contains("segment that should follow is missing"));
    assert!(faults(std::slice::from_ref(&second)).contains("segment 1 is missing"));
    assert!(faults(&[first.clone(), first.clone(), second.clone()]).contains("left out"));
    // The seal says 2 records, the block 2, there is 1.
    let mut segment = SegmentBuilder::new(1, 0);
    registry(&mut segment);
    segment.payload(1, 2, &record(&kinds(), at(session::KINDS, 0.5)));
    let found = faults(&[segment.seal(true)]);
    assert!(found.contains("says it has 2 records, it has 1"), "{found}");
    let counts = "the seal counts 3 blocks and 2 records, 3 and 1 were found";
    assert!(found.contains(counts), "{found}");
    assert!(found.contains("no readable session_end"), "{found}");
    // The ledger counts another number of records than there are, and does not add up.
    let ledger = |written: u64, offered: u64| {
        let ledger = format!(
            "{{\"kinds\":{{\"offered\":{offered},\"written\":{written}}},\
                              \"session\":{{\"offered\":0,\"written\":0}}}}"
        );
        let end = session::SessionEnd {
            event: stormlog::record::Name::Text("session_end"),
            ledger: Some(&ledger),
        };
        let mut segment = SegmentBuilder::new(1, 0);
        registry(&mut segment);
        let one = record(&kinds(), at(session::KINDS, 0.5));
        segment.data(1, &[(20, one), (0, record(&end, at(session::END, 1.0)))]);
        faults(&[segment.seal(true)])
    };
    assert_eq!(ledger(1, 1), "");
    assert_eq!(
        ledger(2, 2),
        "kinds: session_end counts 2 records written, 1 were found"
    );
    assert!(ledger(1, 2).contains("do not add up"));
    // Bytes of a producer that are in no block.
    let mut segment = SegmentBuilder::new(1, 0);
    registry(&mut segment);
    segment.data(3, &[(20, record(&kinds(), at(session::KINDS, 0.5)))]);
    // More than the padding that a reader has to expect between two blocks.
    *segment.positions.get_mut(&3).unwrap() += 1 << 20;
    segment.data(3, &[(20, record(&kinds(), at(session::KINDS, 0.6)))]);
    // Without the seal: as after a kill.
    let open = faults(&[segment.finish()]);
    assert!(open.contains("has no seal"), "{open}");
    let found = faults(&[segment.seal(true)]);
    assert!(
        found.contains("records of producer 3 are missing, in 1 places"),
        "{found}"
    );
}

#[test]
fn lines_of_a_thread_keep_their_order_and_elapsed_never_falls() {
    // Many rings, blocks of several sizes, ticks that step back now and then.
    let mut segment = SegmentBuilder::new(1, 0);
    registry(&mut segment);
    let mut seed = 42_u64;
    let mut random = move |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut next = [0_u64; 9];
    let mut clock = [0_u64; 9];
    let mut total = 0;
    for _ in 0..300 {
        let ring = random(9) as usize;
        let mut records = Vec::new();
        for _ in 0..random(60) {
            clock[ring] += random(1_000_000);
            let back = if random(20) == 0 {
                random(3_000_000)
            } else {
                0
            };
            let fields = Options {
                u64_: Some(next[ring]),
                u8_: Some(ring as u8),
                ..Options::default()
            };
            let mut head = at(session::OPTIONS, 0.0);
            head.ticks = (head.ticks + clock[ring]).saturating_sub(back);
            records.push((20, record(&fields, head)));
            next[ring] += 1;
            total += 1;
        }
        segment.data(ring as u32 + 1, &records);
    }
    let (lines, report) = convert(&[segment.seal(true)]);
    assert_eq!(report.lines, total);
    let mut lines_of = [0_u64; 9];
    let (mut elapsed, mut ring_before, mut same) = (-1.0, 0, 0_u64);
    for line in lines["kinds"].lines() {
        let json: Json = serde_json::from_str(line).unwrap();
        let ring = json["u8_"].as_u64().unwrap() as usize;
        assert_eq!(json["u64_"], lines_of[ring], "ring {ring}");
        lines_of[ring] += 1;
        let now = json["elapsed_seconds"].as_f64().unwrap();
        assert!(now >= elapsed, "{now} after {elapsed}");
        same += u64::from(ring == ring_before);
        (elapsed, ring_before) = (now, ring);
    }
    assert_eq!(lines_of, next);
    assert!(same < total / 2, "the rings were merged, not appended");
}

fn on_disk(temp: &tempfile::TempDir, segments: &[Vec<u8>]) -> SessionFiles {
    let dir = temp.path().join(".stormlog").join(SESSION);
    std::fs::create_dir_all(&dir).unwrap();
    for (index, bytes) in segments.iter().enumerate() {
        std::fs::write(dir.join(format!("{:06}.seg", index + 1)), bytes).unwrap();
    }
    SessionFiles::find(temp.path()).unwrap().remove(0)
}

fn names(temp: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(temp.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_appear_complete_and_replace_older_ones() {
    let temp = tempfile::tempdir().unwrap();
    let files = on_disk(&temp, &session());
    assert_eq!(files.log_dir, temp.path().canonicalize().unwrap());
    let stale = temp.path().join(format!(".{SESSION}_kinds.jsonl.tmp"));
    std::fs::write(&stale, "stale").unwrap();
    std::fs::write(temp.path().join(format!("{SESSION}_kinds.jsonl")), "old").unwrap();
    let report = convert_session(
        &files,
        temp.path(),
        ConvertOptions {
            sync: true,
            ..Default::default()
        },
    )
    .unwrap();
    assert_eq!(report.files.len(), 3);
    for file in &report.files {
        let text = std::fs::read(&file.path).unwrap();
        assert_golden(&format!("v1_0/{}.jsonl", file.category), &text);
        assert_eq!(file.bytes, text.len() as u64);
        assert_eq!(
            file.lines,
            text.split(|byte| *byte == b'\n').count() as u64 - 1
        );
    }
    let expected = [".stormlog".to_owned()].into_iter();
    let expected =
        expected.chain(["kinds", "names", "session"].map(|c| format!("{SESSION}_{c}.jsonl")));
    assert_eq!(names(&temp), expected.collect::<Vec<_>>());
}

#[test]
fn a_conversion_that_is_stopped_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let files = on_disk(&temp, &session());
    let stop = AtomicBool::new(true);
    let cancelled = ConvertOptions {
        cancelled: Some(&stop),
        ..Default::default()
    };
    assert!(matches!(
        convert_session(&files, temp.path(), cancelled),
        Err(Error::Cancelled { .. })
    ));
    let deadline = Some(
        Instant::now()
            .checked_sub(Duration::from_millis(1))
            .unwrap(),
    );
    let late = ConvertOptions {
        deadline,
        ..Default::default()
    };
    assert!(matches!(
        convert_session(&files, temp.path(), late),
        Err(Error::TimedOut { .. })
    ));
    assert_eq!(names(&temp), [".stormlog"]);
    // Stopped late: the files exist under their temporary names by then.
    let stop = AtomicBool::new(false);
    let mut calls = 0;
    let mut progress = |_| {
        calls += 1;
        stop.store(calls > 1, std::sync::atomic::Ordering::Relaxed);
    };
    let options = ConvertOptions {
        cancelled: Some(&stop),
        progress: Some(&mut progress),
        ..Default::default()
    };
    let result = convert_session(&files, temp.path(), options);
    assert!(matches!(result, Err(Error::Cancelled { .. })), "{result:?}");
    assert_eq!(names(&temp), [".stormlog"]);
}

#[test]
fn a_result_that_cannot_get_its_name_leaves_no_temporary_file() {
    let temp = tempfile::tempdir().unwrap();
    let files = on_disk(&temp, &session());
    let out = tempfile::tempdir().unwrap();
    std::fs::create_dir(out.path().join(format!("{SESSION}_session.jsonl"))).unwrap();
    let error = convert_session(&files, out.path(), ConvertOptions::default()).unwrap_err();
    assert!(error.to_string().contains("cannot rename"), "{error}");
    assert!(
        !names(&out).iter().any(|name| name.contains(".tmp")),
        "{:?}",
        names(&out)
    );
}

#[test]
fn a_newer_major_version_is_refused_by_name() {
    let mut segment = SegmentBuilder::new(1, 0);
    segment.header.version_major = 2;
    segment.header.version_minor = 3;
    let error = SessionFiles::from_memory([("x.seg".into(), segment.seal(true))]).unwrap_err();
    assert!(error.to_string().contains("version 2.3"), "{error}");
    let mut segment = SegmentBuilder::new(1, 0);
    segment.header.version_minor = 9;
    assert!(SessionFiles::from_memory([("x.seg".into(), segment.seal(true))]).is_ok());
    let mut segment = SegmentBuilder::new(1, 0);
    segment.header.session = *b"../../etc/passwd";
    assert!(SessionFiles::from_memory([("x.seg".into(), segment.seal(true))]).is_err());
}

#[test]
fn one_damaged_copy_of_the_header_is_a_fault_and_two_are_the_end() {
    let [first, second] = session();
    let mut damaged = first.clone();
    damaged[30] ^= 1;
    let (lines, report) = convert(&[damaged.clone(), second]);
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert_eq!(
        lines
            .values()
            .map(|text| text.lines().count())
            .sum::<usize>(),
        10
    );
    damaged[2048 + 30] ^= 1;
    assert!(SessionFiles::from_memory([("x.seg".into(), damaged)]).is_err());
}

#[test]
fn an_empty_schema_stands_for_open_records() {
    static OPEN: stormlog::record::SchemaDef = stormlog::record::SchemaDef::new(
        "open",
        "open",
        stormlog::record::KeepClass::Sampled,
        &[],
        0,
        None,
    );
    let ids = SchemaIds {
        schema: 9,
        category: 30,
    };
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry(&[Entry::Category(30, "open"), Entry::schema(ids, &OPEN)]);
    let area = extras(&[(b"a", 4, &1_u64.to_le_bytes())]);
    segment.data(
        1,
        &[(
            30,
            support::raw_record(
                &area,
                Head {
                    flags: 1,
                    ..at(ids, 0.5)
                },
            ),
        )],
    );
    let (lines, _) = convert(&[segment.seal(true)]);
    assert_eq!(
        lines["open"],
        "{\"session_id\":\"20261121_101112\",\"timestamp\":\"2026-11-21T10:11:12.500000000Z\",\
         \"elapsed_seconds\":0.500000000,\"a\":1}\n"
    );
}
