//! Strings that want to be more than text: through the engine, and through segments in which
//! somebody else has written them everywhere, names included. Whatever they are, each line is one
//! JSON object without two equal names and without a raw character that could play a terminal, a
//! browser or an editor; nothing is written outside the log directory; and what the tools print
//! has no control characters either.
#![cfg(feature = "cli")]

#[path = "support/recording.rs"]
mod recording;
#[path = "support/session.rs"]
mod session;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use session::{END, KINDS, RESERVED, SessionEnd, at};
use stormlog::Outcome;
use stormlog::record::Symbol;
use stormlog::record::{
    Category, Extra, Json as JsonField, LongText, Name, ShortText, Text, Value,
};
use stormlog::segment::entry::Entry;
use support::{
    Head, SESSION, SegmentBuilder, extras, large_record, raw_entry, raw_record, record, text,
};

stormlog::record! {
    struct Texts in "errors" keep Always {
        short: ShortText<254>,
        text: Text,
        long: LongText,
        json: Option<JsonField>,
        name: Symbol,
    }
}

/// Bytes, because segments admit any.
fn hostile() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        " ",
        "\0",
        "\u{7f}",
        "\r\n",
        "\n{\"session_id\":\"x\"}\n",
        "\"",
        "\\",
        "\\\"}",
        "\\u0000",
        "\u{1b}[2J\u{1b}[31m",
        "\u{1b}]0;title\u{7}",
        "\u{9b}31m",
        "\u{85}",
        "\u{feff}",
        "\u{fffe}",
        "\u{2028}",
        "\u{2029}",
        "\u{202e}gpj.exe",
        "\u{2066}a\u{2069}",
        "\u{61c}\u{200e}\u{200f}",
        "</script><script>alert(1)</script>",
        "<!--",
        "]]>",
        "'; DROP TABLE lines; --",
        "${jndi:x}",
        "../x",
        "../../../../tmp/stormlog_escaped",
        "/etc/passwd",
        "..",
        ".",
        "a/b",
        "a\\b",
        "CON",
        "x\0y",
        "session_id",
        "timestamp",
        "elapsed_seconds",
        "sample_weight",
        "truncated",
        "__proto__",
        "field_session_id",
        "field_field_session_id",
        "NaN",
        "-",
        "{",
        "[",
        "{\"a\":1,\"a\":2}",
        "[\"\u{2028}\u{1b}\",\t1\n]",
        "\"\\ud800\"",
        "\u{10ffff}\u{e000}",
        "e\u{301}\u{325}",
        "%s%n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.extend(
        (0..=0x9f_u32)
            .filter_map(char::from_u32)
            .map(|c| format!("a{c}b").into_bytes()),
    );
    // Not UTF-8: alone, cut, overlong, surrogates, beyond the last.
    for bytes in [
        &b"\xff"[..],
        b"\x80",
        b"\xc2",
        b"\xe2\x80",
        b"\xf0\x9f\x98",
        b"\xc0\xaf",
        b"\xc0\xae\xc0\xae/",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xef\xbb\xbf\xff",
        b"\xe2\x80\xaa\xc2",
    ] {
        all.push(bytes.to_vec());
    }
    all.push("\u{1b}".repeat(5000).into_bytes());
    all.push("\u{202e}".repeat(20_000).into_bytes());
    all.push("[".repeat(5000).into_bytes());
    all
}

fn is_hostile(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The names of an object, as its text has them.
fn names(line: &str) -> Vec<String> {
    let (mut names, mut depth, mut start, mut escaped) = (Vec::new(), 0, None, false);
    for (at, c) in line.char_indices() {
        match (start, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(from), '"') => {
                if depth == 1 && line[at + 1..].starts_with(':') {
                    names.push(serde_json::from_str(&line[from..=at]).unwrap());
                }
                start = None;
            }
            (None, '"') => start = Some(at),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth -= 1,
            _ => {}
        }
    }
    names
}

/// Checks each line of a log directory; returns them by file.
#[track_caller]
fn check_lines(dir: &Path) -> Vec<(String, Json)> {
    let mut all = Vec::new();
    for path in files(dir) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(rest) = name.strip_suffix(".jsonl") else {
            continue;
        };
        assert!(stormlog::record::is_category_name(&rest[16..]), "{name}");
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        assert!(text.ends_with('\n'));
        for line in text.strip_suffix('\n').unwrap().split('\n') {
            assert!(!line.contains(is_hostile), "{name}: {line:?}");
            let json: Json = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            let names = names(line);
            let different: BTreeSet<_> = names.iter().collect();
            assert_eq!(different.len(), names.len(), "two equal names: {line}");
            assert_eq!(names[..3], ["session_id", "timestamp", "elapsed_seconds"]);
            assert_eq!(json["session_id"].as_str(), Some(&name[..15]));
            all.push((rest[16..].to_owned(), json));
        }
    }
    all
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn hostile_strings_stay_text_in_the_engine() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a").join("logs");
    std::fs::create_dir_all(&dir).unwrap();
    let session = recording::builder().dir(&dir).sampling(false);
    let session = session.ring_total_bytes(64 << 20).start().unwrap();
    let log = session.log();
    let all: Vec<String> = hostile()
        .into_iter()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    for text in &all {
        // A name of a category is a name of a file.
        let is_name = stormlog::record::is_category_name(text);
        let category = Category::named(text);
        assert_eq!(category.is_some(), is_name, "{text:?}");
        assert!(!is_name || text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        let outcome = log.event(
            category.unwrap_or(Category::custom()),
            &[
                Extra::new("category", text.as_str()),
                Extra::new(text.as_str(), 1),
                Extra::new(text.as_str(), text.as_str()),
                Extra::new("json", Value::Json(text)),
                Extra::new("number", Value::Number(text)),
                Extra::new("session_id", text.as_str()),
            ],
        );
        assert_eq!(outcome, Outcome::Kept, "{text:?}");
        let short: String = text.chars().take(60).collect();
        let outcome = log.push(&Texts {
            short: &short,
            text,
            long: text,
            json: Some(text),
            name: Name::Text(&short),
        });
        assert_eq!(outcome, Outcome::Kept, "{text:?}");
        session.flush().unwrap();
    }
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    let lines = check_lines(&dir);
    let events = lines
        .iter()
        .filter_map(|(_, json)| json["category"].as_str());
    let (mut events, mut pushed): (Vec<_>, Vec<_>) = (events.collect(), all.iter().collect());
    events.sort_unstable();
    pushed.sort_unstable();
    assert_eq!(events, pushed);
    let longs: Vec<_> = lines.iter().filter(|(name, _)| name == "errors").collect();
    assert_eq!(longs.len(), all.len());
    for ((_, json), text) in longs.iter().zip(&all) {
        let kept = json["long"].as_str().unwrap();
        // Cut where the record says so.
        assert!(kept == text || json["truncated"] == true && text.starts_with(kept));
    }
    let outside = files(temp.path())
        .into_iter()
        .filter(|path| !path.starts_with(&dir));
    assert_eq!(outside.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// A schema entry: category and fields, all short texts.
fn schema_entry(id: u16, category: u16, name: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let name = &name[..name.len().min(255)];
    let mut payload = category.to_le_bytes().to_vec();
    payload.extend([0, fields.len() as u8]);
    payload.extend((fields.len() as u16).to_le_bytes());
    payload.extend(u16::MAX.to_le_bytes());
    payload.push(name.len() as u8);
    payload.extend(name);
    for (offset, field) in fields.iter().enumerate() {
        let field = &field[..field.len().min(255)];
        payload.extend([13, 0, 0, field.len() as u8]);
        payload.extend((offset as u16).to_le_bytes());
        payload.extend(255_u32.to_le_bytes());
        payload.extend(field);
    }
    raw_entry(2, id, 0, &payload)
}

fn named_entry(kind: u8, id16: u16, id32: u32, before: &[u8], name: &[u8]) -> Vec<u8> {
    let name = &name[..name.len().min(60_000)];
    let payload = [before, &(name.len() as u16).to_le_bytes(), name].concat();
    raw_entry(kind, id16, id32, &payload)
}

/// A session in which every name that a segment can carry is a hostile one.
fn hostile_segment() -> Vec<u8> {
    let mut segment = SegmentBuilder::new(1, 0);
    session::registry(&mut segment);
    let mut positions = Vec::new();
    for (number, bytes) in (0_u16..).zip(hostile()) {
        let id = 100 + number;
        let mut entries = named_entry(1, id % 256, 0, &[], &bytes);
        entries.extend(schema_entry(
            id,
            20,
            &bytes,
            &[&bytes, b"session_id", b"timestamp"],
        ));
        // A record type of a category whose name is refused, unless it is a name.
        entries.extend(schema_entry(id + 500, id % 256, b"type", &[b"field"]));
        entries.extend(named_entry(3, 0, u32::from(id), &[], &bytes));
        entries.extend(named_entry(
            5,
            0,
            u32::from(id),
            &7_u64.to_le_bytes(),
            &bytes,
        ));
        segment.registry_bytes(&entries, 5);
        let short = &bytes[..bytes.len().min(255)];
        let area = extras(&[
            (&bytes, 2, b""),
            (b"text", 6, &text(&bytes)),
            (b"json", 7, &text(&bytes)),
            (b"number", 8, &text(&bytes)),
            (&u32::from(id).to_le_bytes(), 0x80, b""),
            (&bytes, 6, &text(&bytes)),
        ]);
        let lengths = [short.len() as u8; 3];
        let fields = [&lengths[..], short, short, short, &area].concat();
        for (schema, fields) in [
            (id, fields),
            (id + 500, [&[short.len() as u8], short, &area].concat()),
        ] {
            let head = Head {
                schema,
                flags: stormlog::record::FLAG_EXTRA,
                ..at(KINDS, 0.1 + f64::from(number) / 1000.0)
            };
            positions.push((head, fields));
        }
    }
    for (head, fields) in positions {
        if fields.len() < 30_000 {
            segment.data(1, &[(20, raw_record(&fields, head))]);
        } else {
            let position = segment.positions.get(&1).copied().unwrap_or(0);
            segment.large(1, position, &fields);
            segment.data(1, &[(20, large_record(fields.len(), head))]);
        }
    }
    let end = SessionEnd {
        event: Name::Text("session_end"),
        ledger: Some("{\"../x\":{\"offered\":1,\"written\":1},\"a\\u001b[31mb\":{}}"),
    };

    segment.data(2, &[(0, record(&end, at(END, 2.0)))]);
    segment.data(
        2,
        &[(21, record(&session::Reserved::default(), at(RESERVED, 2.5)))],
    );
    segment.registry(&[Entry::Symbol(9000, "the last")]);
    segment.seal(true)
}

#[test]
fn hostile_segments_stay_text_in_the_tools() {
    let temp = tempfile::tempdir().unwrap();
    let logs = temp.path().join("a").join("logs");
    let dir = logs.join(".stormlog").join(SESSION);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("000001.seg"), hostile_segment()).unwrap();
    let tool = env!("CARGO_BIN_EXE_stormlog");
    for words in [
        &["convert", "."][..],
        &["convert", ".", "--salvage", "--json"],
        &["inspect", ".", "--json"],
        &["inspect", "."],
        &["inspect", ".", "--blocks"],
        &["sessions", "."],
        &["sessions", ".", "--json"],
        &["stats", "."],
        &["stats", ".", "--json"],
        &["verify", "."],
        &["verify", ".", "--json"],
        &["recover", "."],
        &["convert", ".", "--out", "out"],
    ] {
        let output = Command::new(tool)
            .args(words)
            .current_dir(&logs)
            .output()
            .unwrap();
        let code = output.status.code();
        assert!(matches!(code, Some(0..=2)), "{words:?}: {code:?}");
        for bytes in [&output.stdout, &output.stderr] {
            let said = std::str::from_utf8(bytes).expect("UTF-8");
            assert!(!said.contains("panicked"), "{words:?}: {said}");
            let raw = said.chars().find(|c| is_hostile(*c) && *c != '\n');
            assert_eq!(raw, None, "{words:?}: {said:?}");
        }
    }
    let lines = check_lines(&logs);
    let text = |json: &Json| json["text"].as_str().map(str::to_owned);
    let found: Vec<_> = lines.iter().filter(|(name, _)| name == "kinds").collect();
    let found: BTreeSet<_> = found.iter().filter_map(|(_, json)| text(json)).collect();
    // The others cannot be names or symbols: such entries are refused, their records damaged.
    let is_entry = |bytes: &&Vec<u8>| (1..=1024).contains(&bytes.len());
    for bytes in hostile().iter().filter(is_entry) {
        if std::str::from_utf8(&bytes[..bytes.len().min(255)]).is_ok() {
            let text = String::from_utf8_lossy(bytes).into_owned();
            assert!(found.contains(&text), "{text:?}");
        }
    }
    let outside = files(temp.path())
        .into_iter()
        .filter(|path| !path.starts_with(&logs));
    assert_eq!(outside.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    assert!(!Path::new("/tmp/stormlog_escaped").exists());
}
