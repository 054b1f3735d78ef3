//! What a line keeps, and which lines are refused.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::record::extras_bytes;

fn fields(line: &str) -> Vec<(String, Field<'_>)> {
    let parsed = parse_line(line).unwrap();
    let fields = parsed.fields.into_iter();
    fields
        .map(|(key, field)| (key.into_owned(), field))
        .collect()
}

fn reason(line: &str) -> String {
    parse_line(line).unwrap_err().to_string()
}

fn text(text: &str) -> Field<'_> {
    Field::Text(text.into())
}

#[test]
fn order_types_and_number_text_stay() {
    let line = r#"{"z":1.50,"a":-0,"big":123456789012345678901234567890,"e":1E5,"n":null,
        "t":true,"f":false,"s":"x","o":{"b":[1, 2.0],"a":"q"},"l":[]}"#;
    assert_eq!(
        fields(line),
        [
            ("z".to_owned(), Field::Number("1.50")),
            ("a".to_owned(), Field::Number("-0")),
            (
                "big".to_owned(),
                Field::Number("123456789012345678901234567890")
            ),
            ("e".to_owned(), Field::Number("1E5")),
            ("n".to_owned(), Field::Null),
            ("t".to_owned(), Field::Bool(true)),
            ("f".to_owned(), Field::Bool(false)),
            ("s".to_owned(), text("x")),
            ("o".to_owned(), Field::Json(r#"{"b":[1, 2.0],"a":"q"}"#)),
            ("l".to_owned(), Field::Json("[]")),
        ]
    );
}

#[test]
fn common_fields_are_left_to_the_engine() {
    let line = r#"{"session_id":"20260102_030405","elapsed_seconds":1.5,"event":"x",
        "timestamp":"2026-01-02T03:04:05.000001+00:00"}"#;
    let parsed = parse_line(line).unwrap();
    assert_eq!(parsed.fields, [("event".into(), text("x"))]);
    assert_eq!(parsed.extras(false), [Extra::new("event", "x")]);
    assert_eq!(
        parsed.extras(true),
        [
            Extra::new("event", "x"),
            Extra::new("original_timestamp", "2026-01-02T03:04:05.000001+00:00"),
        ]
    );
    assert_eq!(parsed.time(), Some(Duration::new(1_767_323_045, 1_000)));
}

#[test]
fn strings_are_decoded() {
    assert_eq!(
        fields(r#"{"a":"\u00e4\n\ud83d\ude00","\u0062":"","c":["\ud83d\ude00\\ud800"]}"#),
        [
            ("a".to_owned(), text("\u{e4}\n\u{1f600}")),
            ("b".to_owned(), text("")),
            ("c".to_owned(), Field::Json(r#"["\ud83d\ude00\\ud800"]"#)),
        ]
    );
}

#[test]
fn half_a_surrogate_pair_is_no_text() {
    for value in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""x\ud83dy\ude00""#,
        r#"["a",{"b":"\ud83d"}]"#,
        r#"{"b":"\ude00\ud83d"}"#,
        r#"{"\ud83d\n":1}"#,
        r#"["\ud83d\ud83d\ude00"]"#,
    ] {
        let line = format!("{{\"a\":{value}}}");
        assert_eq!(reason(&line), "\"a\" has half a surrogate pair", "{line}");
    }
    // As the engine writes the common fields itself, theirs do not matter.
    assert_eq!(fields(r#"{"session_id":"\ud800"}"#), []);
}

#[test]
fn an_object_without_fields_is_a_record() {
    assert_eq!(fields(" {} "), []);
}

#[test]
fn bad_lines_say_why() {
    assert_eq!(reason("[1]"), "not a JSON object");
    assert_eq!(reason("null"), "not a JSON object");
    assert_eq!(reason("hello"), "not JSON: expected value at column 1");
    assert!(reason("").starts_with("not JSON: EOF"), "{}", reason(""));
    assert!(reason("{\"a\":1").starts_with("not JSON: EOF"));
    assert_eq!(
        reason("{\"a\":1}{}"),
        "not JSON: trailing characters at column 8"
    );
    assert_eq!(
        reason(r#"{"a":1,"b":2,"\u0061":3}"#),
        "two fields are called \"a\""
    );
    assert!(reason("{\"a\":\"\u{1}\"}").starts_with("not JSON: control character"));
    assert!(reason(r#"{"a":01}"#).starts_with("not JSON: "));
}

#[test]
fn numbers_that_are_none_are_named() {
    for literal in ["NaN", "Infinity", "-Infinity"] {
        for line in [
            format!("{{\"a\":{literal}}}"),
            format!("{{\"a\":[1, {literal}]}}"),
        ] {
            let name = literal.trim_start_matches('-');
            let expected = format!("not JSON: {name} is not a JSON number");
            assert!(
                reason(&line).starts_with(&expected),
                "{line}: {}",
                reason(&line)
            );
        }
    }
    assert!(!reason(r#"{"NaN":1,"b":x}"#).contains("NaN"));
}

#[test]
fn duplicates_are_found_among_many_fields() {
    let many: Vec<_> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
    let line = |more: &str| format!("{{{}{more}}}", many.join(","));
    assert_eq!(fields(&line("")).len(), 100);
    assert_eq!(reason(&line(",\"k7\":0")), "two fields are called \"k7\"");
    let common = r#"{"timestamp":"a","timestamp":"b"}"#;
    assert_eq!(reason(common), "two fields are called \"timestamp\"");
}

#[test]
fn depth_is_bounded_and_brackets_in_texts_do_not_count() {
    let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(fields(&nested(DEPTH_MAX)).len(), 1);
    assert_eq!(
        reason(&nested(DEPTH_MAX + 1)),
        "\"a\" is nested more than 126 deep"
    );
    // Far deeper than a recursive reader could go.
    assert_eq!(
        reason(&nested(200_000)),
        "\"a\" is nested more than 126 deep"
    );
    let brackets = format!("{{\"a\":[\"\\\"{}\"]}}", "[".repeat(500));
    assert_eq!(fields(&brackets).len(), 1);
}

#[test]
fn length_is_bounded() {
    let line = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    assert_eq!(fields(&line(LINE_BYTES_MAX)).len(), 1);
    assert_eq!(parse_line(&line(LINE_BYTES_MAX + 1)), Err(BadLine::TooLong));
}

#[test]
fn field_count_is_bounded() {
    let line = |count: usize| {
        let fields: Vec<_> = (0..count).map(|n| format!("\"{n}\":0")).collect();
        format!("{{{}}}", fields.join(","))
    };
    assert_eq!(fields(&line(EXTRAS_MAX - 1)).len(), EXTRAS_MAX - 1);
    assert_eq!(parse_line(&line(EXTRAS_MAX)), Err(BadLine::TooManyFields));
}

/// Any JSON value, nested up to four deep.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// The JSON that the engine writes for a value.
fn written(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => flag.into(),
        Value::Text(text) => text.into(),
        Value::Number(text) | Value::Json(text) => serde_json::from_str(text).unwrap(),
        other => panic!("{other:?} is never made"),
    }
}

proptest! {
    #[test]
    fn any_object_comes_out_equal(
        object in prop::collection::hash_map(any::<String>(), any_json(), 0..20),
        pretty: bool,
    ) {
        let object = Json::Object(object.into_iter().collect());
        let line = if pretty {
            serde_json::to_string_pretty(&object).unwrap()
        } else {
            object.to_string()
        };
        let parsed = parse_line(&line).unwrap();
        let extras = parsed.extras(false);
        let back: serde_json::Map<_, _> = extras
            .iter()
            .map(|extra| (extra.key.text().to_owned(), written(extra.value)))
            .collect();
        // Read back from the line: the last digit of a float depends on the reader.
        let mut expected: serde_json::Map<_, _> = serde_json::from_str(&line).unwrap();
        for name in COMMON {
            expected.remove(name);
        }
        prop_assert_eq!(back, expected);
        // What makes LINE_BYTES_MAX safe: a count of two bytes, no field longer than in the line.
        prop_assert!(extras_bytes(&extras, usize::MAX) <= 2 + line.len());
    }

    #[test]
    fn any_text_gives_a_result(line in any::<String>()) {
        if let Ok(parsed) = parse_line(&line) {
            prop_assert!(parsed.extras(true).len() <= EXTRAS_MAX);
        }
    }

    #[test]
    fn text_that_looks_like_json_gives_a_result(line in r#"[\[\]{}",:\\u0-9a-eN+.\- ]{0,60}"#) {
        let strict = serde_json::from_str::<Json>(&line).is_ok_and(|value| value.is_object());
        // Everything accepted here is JSON; a half surrogate pair alone makes the other stricter.
        if strict {
            let repeated = matches!(parse_line(&line), Err(BadLine::DuplicateKey(_)));
            prop_assert!(repeated || parse_line(&line).is_ok());
        }
    }
}
