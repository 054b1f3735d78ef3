//! `stormlog stress` against the session: the same events with the same fields, the same settings,
//! and what it says of what it cannot read.
#![cfg(feature = "cli")]

#[path = "support/recording.rs"]
mod recording;
#[path = "support/tool.rs"]
mod tool;

use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;
use stormlog::record::{Extra, Value, catalog::proxy};
use stormlog::{CloseReport, Log, SessionBuilder, symbol};

fn lines(text: &str) -> Vec<Json> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A session with rules whose segments stay.
fn recorded(
    dir: &Path,
    more: impl FnOnce(SessionBuilder) -> SessionBuilder,
    record: impl FnOnce(&Log),
) -> CloseReport {
    let builder = recording::builder()
        .dir(dir)
        .sampling(false)
        .stress_rules(true)
        .keep_segments(true);
    let session = more(builder).start().unwrap();
    record(&session.log());
    let report = session.close().unwrap();
    assert!(
        report.ledger.is_exact() && report.faults.is_empty(),
        "{report:?}"
    );
    report
}

fn slow_request(log: &Log, extras: &[Extra<'_>]) {
    let record = proxy::Request {
        method: symbol!("GET"),
        path: "/ace/getstream",
        duration_ms: Duration::from_secs(6),
        status_code: 200,
        ace_id: "{id: 0123}",
    };
    log.push_with(&record, extras);
}

/// Fields of an event have the names and values that the session gave them.
#[test]
fn offline_writes_events_as_the_session_did() {
    let temp = tempfile::tempdir().unwrap();
    let rules = temp.path().join("rules.toml");
    let names = "\"session_id\", \"severity\", \"number\", \"rule_seq\", \"number=status_code\"";
    let text = format!(
        "[[rule]]\nname = \"slow_request\"\ndescription = \"{{text}}\"\ndetails = [{names}]\n"
    );
    std::fs::write(&rules, text).unwrap();
    let text = "\u{e4}".repeat(400);
    let extras = [
        Extra::new("session_id", "mine"),
        Extra::new("severity", "odd"),
        Extra::new("number", Value::Number("1}\n{\"x\":2")),
        Extra::new("rule_seq", 1.5),
        Extra::new("text", text.as_str()),
    ];
    let report = recorded(
        temp.path(),
        |builder| builder.stress_rules_file(&rules),
        |log| slow_request(log, &extras),
    );
    let file = report.files.iter().find(|file| file.category == "stress");
    let online = lines(&std::fs::read_to_string(&file.unwrap().path).unwrap());
    let output = tool::run(temp.path(), &["stress", "--rules", "rules.toml", "."]);
    assert!(output.status.success(), "{output:?}");
    let offline = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(online.len(), 1);
    for events in [&online, &offline] {
        assert_eq!(events[0]["session_id"].as_str(), Some(&*report.session_id));
        assert_eq!(events[0]["field_session_id"], "mine");
        assert_eq!(events[0]["severity"], "warning");
        assert_eq!(events[0]["field_severity"], "odd");
        assert_eq!(events[0]["number"], "1}\n{\"x\":2");
        assert_eq!(events[0]["field_number"], 200);
        assert_eq!(events[0]["rule_seq"], 1.5);
        assert_eq!(events[0]["field_rule_seq"], 1);
    }
    let plain = |event: &Json| {
        let mut event = event.clone();
        for name in ["timestamp", "elapsed_seconds"] {
            event.as_object_mut().unwrap().remove(name);
        }
        event
    };
    assert_eq!(
        offline.iter().map(plain).collect::<Vec<_>>(),
        [plain(&online[0])]
    );
}

/// What cannot be read is told, also where there is something else of the session, or nothing.
#[test]
fn a_session_that_cannot_be_read_is_a_fault() {
    let temp = tempfile::tempdir().unwrap();
    let report = recorded(temp.path(), |builder| builder, |log| slow_request(log, &[]));
    let segments = std::fs::read_dir(report.segments.unwrap()).unwrap();
    let segments = segments.map(|entry| entry.unwrap().path());
    let segments = segments.filter(|path| path.extension().is_some_and(|end| end == "seg"));
    for segment in segments {
        std::fs::write(segment, [7; 4096]).unwrap();
    }
    for without_lines in [false, true] {
        if without_lines {
            for file in &report.files {
                std::fs::remove_file(&file.path).unwrap();
            }
        }
        let output = tool::run(temp.path(), &["stress", "."]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(".seg"), "{errors}");
        let events = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            events.lines().count(),
            usize::from(!without_lines),
            "{errors}"
        );
        assert!(
            without_lines || errors.contains("slow_request goes on at the end"),
            "{errors}"
        );
    }
}

#[test]
fn names_of_files_are_shown_without_control_characters() {
    let temp = tempfile::tempdir().unwrap();
    // The other direction, and a bell.
    let name = "a\u{202e}\u{7}requests.jsonl";
    std::fs::write(temp.path().join(name), "x\n").unwrap();
    let output = tool::run(temp.path(), &["stress", "--category", "requests", name]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(!errors.contains(['\u{202e}', '\u{7}']), "{errors:?}");
}

/// The tool takes the timeout from the environment as a session does.
#[test]
fn the_timeout_of_the_environment_is_that_of_a_session() {
    let temp = tempfile::tempdir().unwrap();
    let line = |ms: u32| {
        format!(
            "{{\"timestamp\":\"2025-10-18T14:45:23Z\",\"operation\":\
             \"start_container_success\",\"duration_ms\":{ms}}}\n"
        )
    };
    let file = temp.path().join("20251018_144523_provisioning.jsonl");
    std::fs::write(file, [line(5_001), line(1), line(12_501)].concat()).unwrap();
    let run = |timeout: &str| {
        let mut command = tool::stormlog(temp.path(), &["stress", "."]);
        let output = command.env("STARTUP_TIMEOUT_S", timeout).output().unwrap();
        let events = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), events.lines().count(), errors)
    };
    // Nothing is the default, 25 seconds.
    for (timeout, events) in [("", 1), (" ", 1), ("25", 1), (" 10 ", 3)] {
        let (code, count, errors) = run(timeout);
        assert_eq!((code, count), (Some(0), events), "{timeout:?}: {errors}");
    }
    for timeout in ["x", "0", "-1", "nan", "1e-12", "86401"] {
        let (code, count, errors) = run(timeout);
        assert_eq!((code, count), (Some(2), 0), "{timeout:?}: {errors}");
        assert!(errors.contains("STARTUP_TIMEOUT_S"), "{errors}");
    }
}
