//! Random records through the whole engine, against what a simple model says their lines are.

#[path = "support/recording.rs"]
mod recording;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use stormlog::record::{DurationMs, Extra, LongText, Name, ShortText, Symbol, Text, Value};
use stormlog::{Outcome, RingStorage, Session};

stormlog::record! {
    struct Everything in "custom" keep Sampled key short {
        symbol: Symbol,
        maybe_symbol: Option<Symbol>,
        a: u8,
        b: Option<u16>,
        c: i32,
        d: Option<i64>,
        e: u64,
        f: f64,
        g: Option<f64>,
        h: bool,
        i: Option<bool>,
        short: ShortText<8>,
        text: Option<Text<300>>,
        long: LongText,
        duration_ms: Option<DurationMs<0>>,
        json: Option<Json_>,
    }
}

use stormlog::record::Json as Json_;

#[derive(Clone, Debug)]
struct Case {
    interned: bool,
    name: String,
    maybe_name: Option<String>,
    integers: (u8, Option<u16>, i32, Option<i64>, u64),
    floats: (f64, Option<f64>),
    flags: (bool, Option<bool>),
    short: String,
    text: Option<String>,
    long: String,
    duration_ns: Option<u64>,
    json: Option<Json>,
    extras: Vec<(String, Json)>,
}

fn text(bytes_max: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..bytes_max / 4).prop_map(String::from_iter)
}

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        text(80).prop_map(Json::from),
    ]
}

fn nested() -> impl Strategy<Value = Json> {
    scalar().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn case()(
        interned in any::<bool>(),
        name in "[a-z_]{1,20}",
        maybe_name in prop::option::of(text(40)),
        integers in any::<(u8, Option<u16>, i32, Option<i64>, u64)>(),
        floats in any::<(f64, Option<f64>)>(),
        flags in any::<(bool, Option<bool>)>(),
        short in text(40),
        text in prop::option::of(text(600)),
        long in prop_oneof![9 => text(2000), 1 => text(200_000)],
        duration_ns in prop::option::of(0..u64::MAX - 1),
        json in prop::option::of(nested()),
        extras in prop::collection::vec((text(24), scalar()), 0..5),
    ) -> Case {
        Case {
            interned, name, maybe_name, integers, floats, flags, short, text, long, duration_ns,
            json, extras,
        }
    }
}

fn push(session: &Session, case: &Case) {
    let json = case.json.as_ref().map(Json::to_string);
    let symbol = Symbol::intern(&case.name).filter(|_| case.interned);
    let record = Everything {
        symbol: symbol.map_or(Name::Text(&case.name), Name::Symbol),
        maybe_symbol: case.maybe_name.as_deref().map(Name::Text),
        a: case.integers.0,
        b: case.integers.1,
        c: case.integers.2,
        d: case.integers.3,
        e: case.integers.4,
        f: case.floats.0,
        g: case.floats.1,
        h: case.flags.0,
        i: case.flags.1,
        short: &case.short,
        text: case.text.as_deref(),
        long: &case.long,
        duration_ms: case.duration_ns.map(Duration::from_nanos),
        json: json.as_deref(),
    };
    let value = |json: &Json| -> String { json.to_string() };
    let texts: Vec<String> = case.extras.iter().map(|extra| value(&extra.1)).collect();
    let extras: Vec<Extra<'_>> = case
        .extras
        .iter()
        .zip(&texts)
        .map(|((key, json), text)| {
            let value = match json {
                Json::Null => Value::Null,
                Json::Bool(value) => Value::Bool(*value),
                Json::Number(_) => Value::Number(text),
                Json::String(text) => Value::Text(text),
                _ => Value::Json(text),
            };
            Extra::new(key.as_str(), value)
        })
        .collect();
    assert_eq!(session.log().push_with(&record, &extras), Outcome::Kept);
}

/// `text` cut to `bytes_max` bytes between characters, and whether it was cut.
fn cut(text: &str, bytes_max: usize) -> (&str, bool) {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (&text[..end], end < text.len())
}

/// The line, without the three common fields.
fn expected(case: &Case) -> Map<String, Json> {
    let (short, short_cut) = cut(&case.short, 8);
    let text = case.text.as_deref().map(|text| cut(text, 300));
    let fields = json!({
        "symbol": case.name,
        "maybe_symbol": case.maybe_name,
        "a": case.integers.0,
        "b": case.integers.1,
        "c": case.integers.2,
        "d": case.integers.3,
        "e": case.integers.4,
        "f": case.floats.0,
        "g": case.floats.1,
        "h": case.flags.0,
        "i": case.flags.1,
        "short": short,
        "text": text.map(|text| text.0),
        "long": case.long,
        "duration_ms": case.duration_ns.map(|ns| ns / 1_000_000),
        "json": case.json,
    });
    let Json::Object(mut line) = fields else {
        unreachable!("an object");
    };
    for (key, value) in &case.extras {
        let mut key = key.clone();
        while line.contains_key(&key) {
            key.insert_str(0, "field_");
        }
        line.insert(key, value.clone());
    }
    if short_cut || text.is_some_and(|text| text.1) {
        line.insert("truncated".to_owned(), Json::Bool(true));
    }
    line
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn lines_are_what_was_pushed(
        cases in prop::collection::vec(case(), 1..40),
        file_backed in any::<bool>(),
    ) {
        let temp = tempfile::tempdir().unwrap();
        let storage =
            if file_backed { RingStorage::SessionDir } else { RingStorage::Anonymous };
        let builder = recording::builder().dir(temp.path()).redact(false);
        let session = builder.ring_storage(storage).start().unwrap();
        // Twice: the first push of a symbol takes the long way, the next one the quick path.
        for case in &cases {
            push(&session, case);
            push(&session, case);
            session.flush().unwrap();
        }
        let report = session.close().unwrap();
        prop_assert_eq!(&report.faults, &Vec::<String>::new());
        let file = report.files.iter().find(|file| file.category == "custom").unwrap();
        let lines = std::fs::read_to_string(&file.path).unwrap();
        prop_assert_eq!(lines.lines().count(), cases.len() * 2);
        let pushed = cases.iter().flat_map(|case| [case, case]);
        for (line, case) in lines.lines().zip(pushed) {
            let mut line: Map<String, Json> = serde_json::from_str(line).unwrap();
            for common in ["session_id", "timestamp", "elapsed_seconds"] {
                prop_assert!(line.remove(common).is_some());
            }
            prop_assert_eq!(line, expected(case));
        }
    }
}
