//! `stormlog replay` through the real engine: every object that goes in comes out equal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value as Json;
use stormlog::cli::replay::{Field, LINE_BYTES_MAX, parse_line};
use tempfile::TempDir;

fn stormlog(out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.env_remove("DEBUG_LOG_DIR").env_remove("DEBUG_MODE");
    command.arg("replay").arg("--json").arg("--dir").arg(out);
    command
}

fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Runs the command; the summary it prints.
fn run(command: &mut Command, code: i32) -> Json {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
}

/// The lines that the session wrote, by category, without the engine's own.
fn written(summary: &Json) -> BTreeMap<String, Vec<String>> {
    let files = summary["files"].as_array().unwrap();
    let mut found = BTreeMap::new();
    for file in files {
        let category = file["category"].as_str().unwrap();
        let text = fs::read_to_string(file["path"].as_str().unwrap()).unwrap();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!(file["lines"], lines.len());
        if category != "session" {
            found.insert(category.to_owned(), lines);
        }
    }
    found
}

/// The fields of a line but the common three, with number text.
fn fields(line: &str) -> Vec<(Cow<'_, str>, Field<'_>)> {
    parse_line(line).unwrap().fields
}

fn assert_equal_lines(went_in: &[impl AsRef<str>], came_out: &[String]) {
    assert_eq!(went_in.len(), came_out.len());
    for (went_in, came_out) in went_in.iter().zip(came_out) {
        assert_eq!(fields(went_in.as_ref()), fields(came_out));
    }
}

#[test]
fn lines_of_both_loggers_come_out_equal_in_their_categories() {
    let dir = TempDir::new().unwrap();
    let common = r#""session_id": "20260101_000000", "elapsed_seconds": 0.5"#;
    let vpn = [
        format!(
            r#"{{{common}, "timestamp": "2026-01-01T00:00:00.000001+00:00", "operation":
            "health_check", "status": "healthy", "duration_ms": 10.50}}"#
        ),
        format!(
            r#"{{{common}, "timestamp": "2026-01-01T00:00:05+00:00", "status": "error",
            "duration_ms": null, "error": "a\u00e4\n\"b\""}}"#
        ),
    ]
    .map(|line| line.replace('\n', " "));
    let nested = r#""nested":{"b":[1,2.0,{"x":null}],"a":true}"#;
    let streams = [format!(
        r#"{{"ace_id":"{{id: 0a}}","bytes":12345678901234567890123,{common},{nested}}}"#
    )];
    let summary = run(
        stormlog(&dir.path().join("out"))
            .arg(write(&dir, "20260101_000000_vpn.jsonl", vpn.join("\r\n")))
            .arg(write(
                &dir,
                "proxy_streams.jsonl",
                streams.join("\n") + "\n\n",
            )),
        0,
    );
    assert_eq!((&summary["lines"], &summary["bad"]), (&3.into(), &0.into()));
    let written = written(&summary);
    assert_equal_lines(&vpn, &written["vpn"]);
    assert_equal_lines(&streams, &written["streams"]);
    assert_eq!(written.len(), 2);
    for line in written.values().flatten() {
        let object: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        assert_eq!(object["session_id"], summary["session_id"]);
        assert!(object["timestamp"].as_str().unwrap().ends_with('Z'));
        assert!(object["elapsed_seconds"].is_number());
    }
    assert_eq!(summary["ledger"]["vpn"]["written"], 2);
}

#[test]
fn bad_lines_are_named_and_the_others_recorded() {
    let dir = TempDir::new().unwrap();
    let mut content = b"{\"n\":1}\n{\"n\":NaN}\n\n[1]\n{\"n\":1,\"n\":2}\n\"\xff\"\n".to_vec();
    content.extend(vec![b'x'; 2 << 20]);
    content.extend(b"\n{\"n\":2}\n");
    content.extend(b"broken\n".repeat(30));
    content.extend(b"{\"n\":3}");
    let path = write(&dir, "20260101_000000_health.jsonl", content);
    let mut command = stormlog(&dir.path().join("out"));
    let summary = run(command.arg(&path), 1);
    assert_eq!(
        (&summary["lines"], &summary["bad"]),
        (&38.into(), &35.into())
    );
    assert_eq!(summary["lost"], 0);
    let written = written(&summary);
    assert_equal_lines(&["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"], &written["health"]);

    let errors = command.output().unwrap().stderr;
    let errors = String::from_utf8(errors).unwrap();
    let lines: Vec<_> = errors.lines().collect();
    let name = path.display();
    assert_eq!(lines.len(), 21, "{errors}");
    assert!(
        lines[0].starts_with(&format!("{name}:2: not JSON: NaN")),
        "{errors}"
    );
    assert_eq!(lines[1], format!("{name}:4: not a JSON object"));
    assert_eq!(lines[2], format!("{name}:5: two fields are called \"n\""));
    assert_eq!(lines[3], format!("{name}:6: not UTF-8"));
    assert_eq!(
        lines[4],
        format!("{name}:7: longer than {LINE_BYTES_MAX} bytes")
    );
    assert_eq!(lines[20], format!("{name}: 15 more bad lines"));
}

#[test]
fn files_that_cannot_be_opened_stop_it_before_it_starts() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let output = stormlog(&out)
        .arg(dir.path().join("missing.jsonl"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!out.exists());
}

#[test]
fn standard_input_is_a_file_with_a_category() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let lines = ["{\"a\":1}", "{\"a\":2}"];
    let summary = run(stormlog(&out).arg("-").write_stdin(lines.join("\n")), 0);
    assert_equal_lines(&lines, &written(&summary)["custom"]);
    let mut command = stormlog(&out);
    let summary = run(
        command
            .args(["--category", "mine", "-"])
            .write_stdin(lines.join("\n")),
        0,
    );
    assert_equal_lines(&lines, &written(&summary)["mine"]);
}

#[test]
fn the_old_time_can_be_kept() {
    let dir = TempDir::new().unwrap();
    let line = r#"{"timestamp":"2026-01-01T00:00:00.5+00:00","a":1,"original_timestamp":"mine"}"#;
    let path = write(&dir, "x_vpn.jsonl", line);
    let mut command = stormlog(&dir.path().join("out"));
    let summary = run(command.arg("--original-time").arg(path), 0);
    let expected = r#"{"a":1,"original_timestamp":"mine",
        "field_original_timestamp":"2026-01-01T00:00:00.5+00:00"}"#;
    assert_equal_lines(&[expected], &written(&summary)["vpn"]);
}

#[test]
fn a_name_that_the_engine_uses_itself_is_prefixed() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "x_vpn.jsonl", r#"{"sample_weight":8,"a":1}"#);
    let summary = run(stormlog(&dir.path().join("out")).arg(path), 0);
    let expected = r#"{"field_sample_weight":8,"a":1}"#;
    assert_equal_lines(&[expected], &written(&summary)["vpn"]);
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "x_vpn.jsonl", "{\"a\":1}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command
        .arg("replay")
        .arg("--dir")
        .arg(dir.path().join("out"))
        .arg(path);
    let status = command.stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_long_log_loses_nothing_and_keeps_its_order() {
    let dir = TempDir::new().unwrap();
    let lines: Vec<_> = (0..20_000)
        .map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(n % 300)))
        .collect();
    let path = write(&dir, "x_requests.jsonl", lines.join("\n"));
    let summary = run(stormlog(&dir.path().join("a")).arg(&path), 0);
    assert_equal_lines(&lines, &written(&summary)["requests"]);
    assert_eq!(summary["ledger"]["requests"]["offered"], 20_000);

    // More threads than files: the order may change, the lines not.
    let mut command = stormlog(&dir.path().join("b"));
    let summary = run(command.args(["--threads", "5"]).arg(&path), 0);
    let mut found = written(&summary).remove("requests").unwrap();
    found.sort_by_key(|line| match &fields(line)[0].1 {
        Field::Number(number) => number.parse::<u64>().unwrap(),
        other => panic!("{other:?}"),
    });
    assert_equal_lines(&lines, &found);
}

#[test]
fn long_lines_come_out_whole() {
    let dir = TempDir::new().unwrap();
    let sizes = [32_000, 33_000, 70_000, 500_000, LINE_BYTES_MAX];
    let line =
        |bytes: usize, n: usize| format!("{{\"n\":{n},\"text\":\"{}\"}}", "y".repeat(bytes - 18));
    let mut paths = Vec::new();
    for n in 10..16 {
        let lines: Vec<_> = sizes.iter().map(|bytes| line(*bytes, n)).collect();
        assert_eq!(lines[4].len(), LINE_BYTES_MAX);
        paths.push(write(&dir, &format!("x{n}.jsonl"), lines.join("\n")));
    }
    let mut command = stormlog(&dir.path().join("out"));
    let summary = run(command.args(["--threads", "6"]).args(&paths), 0);
    let written = written(&summary);
    for n in 10..16 {
        // With the common fields they are longer than a line to replay may be.
        let found = written[&format!("x{n}")].iter().zip(sizes);
        assert_eq!(found.len(), sizes.len());
        for (came_out, bytes) in found {
            let went_in = line(bytes, n);
            assert!(came_out.ends_with(&went_in[1..]), "{n}: {bytes} bytes");
        }
    }
}

#[test]
fn paced_replay_merges_files_by_time() {
    let dir = TempDir::new().unwrap();
    let line = |ms: u32| {
        format!(
            "{{\"timestamp\":\"2026-01-01T00:00:0{}.{:03}Z\",\"ms\":{ms}}}",
            ms / 1000,
            ms % 1000
        )
    };
    let odd: Vec<_> = (0..50).map(|n| line(n * 40 + 20)).collect();
    let even: Vec<_> = (0..50).map(|n| line(n * 40)).collect();
    let all: Vec<_> = (0..100).map(|n| line(n * 20)).collect();
    let summary = run(
        stormlog(&dir.path().join("out"))
            .args(["--speed", "50"])
            .arg(write(&dir, "a_vpn.jsonl", odd.join("\n")))
            .arg(write(&dir, "b_vpn.jsonl", even.join("\n"))),
        0,
    );
    assert_equal_lines(&all, &written(&summary)["vpn"]);
}

#[test]
fn awkward_values_come_out_equal() {
    let dir = TempDir::new().unwrap();
    let lines = [
        "{}",
        r#"{"":0,"\u0000":1,"\n":2}"#,
        "{\"pair\":\"\\ud83d\\ude00\",\"raw\":\"\u{1f600}\"}",
        r#"{"a":-0,"b":-0.0,"c":1e400,"d":1E-7,"e":0.1000,"f":18446744073709551616}"#,
        "{\"bidi\":\"\u{202e}x\u{2066}\",\"bom\":\"\u{feff}\",\"del\":\"\u{7f}\u{85}\u{2028}\"}",
        r#"{"a":[],"b":{},"c":[[[[1]]]],"d":{"x":1,"x":2}}"#,
        r#"{"\"quoted\"":"\\\"","slash":"\/"}"#,
        r#"{"event_type":"e","field_a":1,"a":2,"truncated":false}"#,
    ];
    let path = write(&dir, "x_stress.jsonl", lines.join("\n"));
    let summary = run(stormlog(&dir.path().join("out")).arg(path), 0);
    let written = &written(&summary)["stress"];
    assert_eq!(written.len(), lines.len());
    for (went_in, came_out) in lines.iter().zip(written) {
        // Escapes within raw JSON may differ; the number text may not.
        assert_eq!(canonical(went_in), canonical(came_out));
    }
}

/// Fields with every string in raw JSON decoded as far as it can be.
fn canonical(line: &str) -> Vec<(String, String)> {
    let show = |field: Field<'_>| match field {
        Field::Json(raw) => serde_json::from_str::<Json>(raw)
            .map_or_else(|_| raw.to_owned(), |value| format!("json {value}")),
        other => format!("{other:?}"),
    };
    let fields = fields(line).into_iter();
    fields
        .map(|(key, field)| (key.into_owned(), show(field)))
        .collect()
}

/// Any JSON value, nested up to three deep, whose floats read back equal.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<i32>().prop_map(|n| Json::from(f64::from(n) / 8.0)),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn any_objects_come_out_equal() {
    let dir = TempDir::new().unwrap();
    let mut runner = TestRunner::deterministic();
    let objects = prop::collection::hash_map("[^_]{0,12}", any_json(), 0..12);
    let lines: Vec<_> = (0..500)
        .map(|_| {
            let object = objects.new_tree(&mut runner).unwrap().current();
            Json::Object(object.into_iter().collect()).to_string()
        })
        .collect();
    let path = write(&dir, "x_custom.jsonl", lines.join("\n"));
    let summary = run(stormlog(&dir.path().join("out")).arg(path), 0);
    let written = &written(&summary)["custom"];
    assert_eq!(written.len(), lines.len());
    for (went_in, came_out) in lines.iter().zip(written) {
        assert_eq!(canonical(went_in), canonical(came_out));
    }
}
