//! Secrets must not reach the files of lines, whatever place of a record they are in; what looks
//! like one and is none comes through. The list of looks is in src/redact/tests.rs; here is one of
//! each kind, in every place, through a whole session.

#[path = "support/recording.rs"]
mod recording;
mod support;

use std::path::Path;

use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_lines};
use stormlog::record::{
    Category, DurationMs, Extra, LongText, Name, Record, SchemaIds, ShortText, Symbol, Text, Value,
};
use stormlog::redact::Rules;
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use stormlog::{CloseReport, Conversion, Outcome, RingStorage, Session, SessionBuilder};
use support::{Head, SegmentBuilder, record};

/// Texts and the secret in each: parts that are put together at run time, so that nobody takes
/// this file for a leak.
const LEAKS: [(&str, &str); 14] = [
    ("password=", "hunter2-and-more"),
    ("{\"user\":\"bob\",\"api_key\":\"", "k3y-0f-the-engine"),
    ("GET /ace/getstream?id=1&token=", "t0k3n0ft3st"),
    ("redis://cache:", "S3cr3tInUrl@10.0.0.7/0"),
    ("sent Bearer ", "QmVhcmVyIHRva2VuIDEyMw"),
    ("Authorization: Basic ", "dXNlcjpwYXNzd29yZA=="),
    ("Cookie: theme=dark; sid=", "c00k1e5e55i0n"),
    ("gh", "p_Q7aZ3kR9tB1xW5mC8vN2eJ6Q7aZ3kR9tB1xW"),
    ("AKIA", "2222333344445555"),
    ("xoxb", "-123456789012-Q7aZ3kR9tB1x"),
    ("ey", "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"),
    (
        "-----BEGIN PRIVATE KEY-----\n",
        "MIIEvQIBADANBgkqhkiG9w0BAQ",
    ),
    (
        "WIREGUARD_PRIVATE_KEY=",
        "Q7aZ3kR9tB1xW5mC8vN2eJ6Q7aZ3kR9tB1xW5mC8vN2=",
    ),
    ("OPENVPN_PASSWORD: ", "vpn-hunter-3"),
];

/// Texts that stay.
const HARMLESS: [&str; 6] = [
    "{id: 4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c}",
    "max_tokens: 4096, password_changed=true",
    "http://10.0.0.7:19000/ace/getstream?id=4f6c0a",
    "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "cannot connect: Connection refused (os error 111)",
    "ssh://git@github.com/engine.git",
];

stormlog::record! {
    struct Request in "requests" keep Sampled {
        operation: Symbol,
        short: ShortText<200>,
        text: Text,
        long: LongText,
        duration_ms: DurationMs<2>,
    }
}

stormlog::record! {
    struct Login in "logins" keep Always {
        user: ShortText<40>,
        password: ShortText<40>,
        pin_token: u32,
        api_key: Option<Text>,
        has_password: bool,
        access_token: Option<Symbol>,
    }
}

fn builder(dir: &Path) -> SessionBuilder {
    recording::builder().dir(dir).sampling(false)
}

/// Everything that is below the directory but segments and rings.
fn written(dir: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    assert!(!all.is_empty());
    all
}

/// Whether a text holds `secret` as it is or escaped.
fn holds(text: &str, secret: &str) -> bool {
    let escaped = serde_json::to_string(secret).unwrap();
    text.contains(secret) || text.contains(escaped.trim_matches('"'))
}

/// Pushes `text` into every place of a record where a text can be; returns how many lines hold it.
fn push_everywhere(session: &Session, text: &str) {
    let log = session.log();
    let named = Category::named("of_run_time").unwrap();
    let symbol = Symbol::intern(text).unwrap();
    let json = serde_json::json!({"a": [text, {"b": text}], text: 1}).to_string();
    let twice = serde_json::json!({"inner": json}).to_string();
    let request = Request {
        operation: Name::Symbol(symbol),
        short: text,
        text,
        long: text,
        ..Request::default()
    };
    let filler = "x ".repeat(40_000);
    let large = format!("{filler}{text} {filler}");
    let extras = [
        Extra::new("extra", text),
        Extra::new(text, 1_u64),
        Extra::new(Name::Symbol(symbol), true),
        Extra::new("json", Value::Json(&json)),
        Extra::new("twice", Value::Json(&twice)),
        Extra::new("no_json", Value::Json(text)),
        Extra::new("number", Value::Number(text)),
    ];
    assert_eq!(log.push_with(&request, &extras), Outcome::Kept);
    assert_eq!(log.event(named, &extras), Outcome::Kept);
    assert_eq!(
        log.event(Category::custom(), &[Extra::new("message", text)]),
        Outcome::Kept
    );
    let record = Request {
        long: &large,
        ..Request::default()
    };
    assert_eq!(log.push(&record), Outcome::Kept);
}

fn close(session: Session) -> CloseReport {
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    report
}

#[test]
fn no_secret_of_any_place_is_in_a_line() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    for (before, secret) in LEAKS {
        push_everywhere(&session, &format!("{before}{secret}"));
    }
    let report = close(session);
    let text = written(temp.path());
    for (before, secret) in LEAKS {
        let secret = secret.split('@').next().unwrap();
        assert!(!holds(&text, secret), "{before}{secret}");
    }
    // The places of the first record, three of the second, one each of the others.
    assert!(report.redacted >= 14 * 20, "{}", report.redacted);
    assert_eq!(text.matches("[redacted]").count() as u64, report.redacted);
    for line in text.lines() {
        serde_json::from_str::<Json>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn look_alikes_come_through_every_place() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    for text in HARMLESS {
        push_everywhere(&session, text);
    }
    let report = close(session);
    assert_eq!(report.redacted, 0);
    let lines = written(temp.path());
    for text in HARMLESS {
        let escaped = serde_json::to_string(text).unwrap();
        assert!(
            lines.matches(escaped.trim_matches('"')).count() >= 15,
            "{text}"
        );
    }
}

#[test]
fn values_of_secret_names_go_whatever_their_type() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let log = session.log();
    let symbol = Symbol::intern("s1mb0l").unwrap();
    let login = Login {
        user: "bob",
        password: "plainword",
        pin_token: 987_654_321,
        api_key: Some("plainkey"),
        has_password: true,
        access_token: Some(Name::Symbol(symbol)),
    };
    let extras = [
        Extra::new("db_password", "word1"),
        Extra::new("X-Api-Key", 123_456_789_u64),
        Extra::new("secret", -123_456_789_i64),
        Extra::new("token", 1234.5678),
        Extra::new("cookies", Value::Json("{\"sid\":\"word2\",\"n\":[1]}")),
        Extra::new("private_key", Value::Json("[\"word3\"]")),
        Extra::new("psk", Value::Number("12345678901234567890123")),
        Extra::new("passwd", Value::Null),
        Extra::new("use_token", true),
        Extra::new("passphrase", ""),
        Extra::new(
            "labels",
            Value::Json("{\"a\":{\"Password\":\"word4\",\"ok\":1}}"),
        ),
        Extra::new("token_count", 12_u64),
    ];
    assert_eq!(log.push_with(&login, &extras), Outcome::Kept);
    let report = close(session);
    let path = &report
        .files
        .iter()
        .find(|file| file.category == "logins")
        .unwrap()
        .path;
    let line = std::fs::read_to_string(path).unwrap();
    let (_, fields) = line.split_once("\"user\"").unwrap();
    assert_eq!(
        fields,
        ":\"bob\",\"password\":\"[redacted]\",\"pin_token\":\"[redacted]\",\
         \"api_key\":\"[redacted]\",\"has_password\":true,\"access_token\":\"[redacted]\",\
         \"db_password\":\"[redacted]\",\"X-Api-Key\":\"[redacted]\",\"secret\":\"[redacted]\",\
         \"token\":\"[redacted]\",\"cookies\":\"[redacted]\",\"private_key\":\"[redacted]\",\
         \"psk\":\"[redacted]\",\"passwd\":null,\"use_token\":true,\"passphrase\":\"\",\
         \"labels\":{\"a\":{\"Password\":\"[redacted]\",\"ok\":1}},\"token_count\":12}\n"
    );
    assert_eq!(report.redacted, 12);
}

/// The cap of a field can end a text anywhere, so also in a secret, of which no rule then sees the
/// length that it asks for.
#[test]
fn a_text_that_is_cut_inside_of_a_secret_does_not_show_the_rest() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let log = session.log();
    let mut parts = Vec::new();
    for (before, secret) in LEAKS {
        for shown in [6, 8, 10] {
            let filler = "y".repeat(199 - before.len() - shown);
            let text = format!("{filler} {before}{secret}");
            let request = Request {
                short: &text,
                ..Request::default()
            };
            assert_eq!(log.push(&request), Outcome::Kept);
            parts.push((before, secret[..shown].to_owned()));
        }
    }
    close(session);
    let lines = written(temp.path());
    assert_eq!(lines.matches("\"truncated\":true").count(), parts.len());
    for (before, part) in parts {
        assert!(!holds(&lines, &part), "{before}{part}");
    }
}

#[test]
fn a_category_with_the_name_of_a_secret_keeps_its_counts() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let token = Category::named("token").unwrap();
    assert_eq!(
        session.log().event(token, &[Extra::new("n", 1_u64)]),
        Outcome::Kept
    );
    let report = close(session);
    assert_eq!(report.redacted, 0);
    let lines = written(temp.path());
    let end = lines.lines().find(|line| line.contains("session_end"));
    let end: Json = serde_json::from_str(end.unwrap()).unwrap();
    assert_eq!(end["ledger"]["token"]["written"], 1, "{end}");
}

#[test]
fn switched_off_nothing_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).redact(false).start().unwrap();
    for (before, secret) in LEAKS {
        push_everywhere(&session, &format!("{before}{secret}"));
    }
    let report = close(session);
    assert_eq!(report.redacted, 0);
    let text = written(temp.path());
    for (before, secret) in LEAKS {
        assert!(holds(&text, secret), "{before}{secret}");
    }
}

/// Rules of the program travel with its segments: who converts them later knows no builder.
#[test]
fn rules_of_a_session_hold_for_whoever_converts_it() {
    for storage in [RingStorage::Anonymous, RingStorage::SessionDir] {
        let temp = tempfile::tempdir().unwrap();
        let session = builder(temp.path())
            .redact_names(["engine_pin"])
            .redact_patterns(["corp-[0-9]+"])
            .redact_keep(["psk"])
            .conversion(Conversion::Later)
            .ring_storage(storage)
            .start()
            .unwrap();
        let extras = [
            Extra::new("engine_pin", 4711_u64),
            Extra::new("text", "about corp-12345"),
            Extra::new("psk", "shown"),
            Extra::new("token", "hidden"),
        ];
        assert_eq!(
            session.log().event(Category::custom(), &extras),
            Outcome::Kept
        );
        let dir = close(session).segments.unwrap();
        let files = SessionFiles::find(&dir).unwrap().remove(0);
        let convert = |redact: Option<Rules>| {
            let mut lines = std::collections::BTreeMap::new();
            let options = ConvertOptions {
                redact,
                ..ConvertOptions::default()
            };
            let report = convert_lines(&files, &mut lines, options).unwrap();
            (
                String::from_utf8(lines.remove("custom").unwrap()).unwrap(),
                report.redacted,
            )
        };
        let (line, redacted) = convert(None);
        let expected = "\"engine_pin\":\"[redacted]\",\"text\":\"about [redacted]\",\
                        \"psk\":\"shown\",\"token\":\"[redacted]\"}\n";
        assert!(line.ends_with(expected), "{line}");
        assert_eq!(redacted, 3);
        // What is added is added; what is switched off is off.
        let names = vec!["text".to_owned()];
        let (line, redacted) = convert(Some(Rules {
            names,
            ..Rules::default()
        }));
        assert!(
            line.contains("\"text\":\"[redacted]\"") && redacted == 3,
            "{line}"
        );
        let off = Rules {
            on: false,
            ..Rules::default()
        };
        let (line, redacted) = convert(Some(off));
        assert!(line.contains("corp-12345") && redacted == 0, "{line}");
    }
}

/// Of another's segment: names of fields and symbols are texts of theirs too.
#[test]
fn names_of_a_hostile_schema_are_looked_at() {
    const IDS: SchemaIds = SchemaIds {
        schema: 1,
        category: 20,
    };
    let mut segment = SegmentBuilder::new(1, 0);
    let (before, secret) = LEAKS[3];
    let url = format!("{before}{secret}");
    let bad_rules = "{\"on\":false,\"patterns\":[\"(\"]}";
    segment.registry(&[
        Entry::Category(20, "logins"),
        Entry::schema(IDS, Login::default().schema()),
        Entry::Symbol(1, &url),
        Entry::Redaction(bad_rules),
    ]);
    let login = Login {
        user: &url,
        ..Login::default()
    };
    segment.data(
        1,
        &[(
            20,
            record(
                &login,
                Head {
                    schema: 1,
                    ..Head::default()
                },
            ),
        )],
    );
    let (lines, report) = support::convert(&[segment.seal(true)]);
    assert!(
        !lines["logins"].contains("S3cr3tInUrl"),
        "{}",
        lines["logins"]
    );
    // The text, and the number `pin_token`.
    assert_eq!(report.redacted, 2);
    assert!(
        !report.faults.is_empty(),
        "the rules that are none are a fault"
    );
}
