//! The commands convert, inspect and sessions as a user runs them.
#![cfg(feature = "cli")]

#[path = "support/session.rs"]
mod session;
mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value as Json;
use session::session;
use support::SESSION;

fn stormlog(args: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(cargo_bin!("stormlog"));
    command.args(args).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let text = format!("{}\n{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// A log directory with the segments in `.stormlog`.
fn log_dir(segments: &[Vec<u8>]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join(".stormlog").join(SESSION);
    std::fs::create_dir_all(&dir).unwrap();
    for (number, bytes) in (1..).zip(segments) {
        std::fs::write(dir.join(format!("{number:06}.seg")), bytes).unwrap();
    }
    temp
}

#[test]
fn help_has_examples() {
    let temp = tempfile::tempdir().unwrap();
    let top = stormlog(&["--help"], temp.path());
    assert_code(&top, 0);
    assert!(stdout(&top).contains("Quick start:\n  stormlog demo"));
    assert!(stdout(&top).contains("Exit code:"));
    for command in [
        "convert", "demo", "inspect", "replay", "sessions", "stats", "verify",
    ] {
        let output = stormlog(&[command, "--help"], temp.path());
        assert_code(&output, 0);
        let example = format!("stormlog {command} ");
        assert!(stdout(&output).contains("Examples:"), "{command}");
        assert!(stdout(&output).contains(&example), "{command}");
        assert!(stdout(&output).contains("Exit code:"), "{command}");
    }
}

#[test]
fn convert_writes_beside_the_segments_directory() {
    let temp = log_dir(&session());
    let output = stormlog(&["convert", "."], temp.path());
    assert_code(&output, 0);
    let text = stdout(&output);
    assert!(
        text.contains(SESSION) && text.contains("10 lines"),
        "{text}"
    );
    assert!(!text.contains("fault"), "{text}");
    let kinds = std::fs::read_to_string(temp.path().join(format!("{SESSION}_kinds.jsonl")));
    assert_eq!(kinds.unwrap().lines().count(), 7);
}

#[test]
fn convert_of_segments_into_another_directory_tells_in_json() {
    let temp = log_dir(&session());
    let dir = format!(".stormlog/{SESSION}");
    let (first, second) = (format!("{dir}/000001.seg"), format!("{dir}/000002.seg"));
    let output = stormlog(
        &["convert", &first, &second, "--out", "a/b", "--json"],
        temp.path(),
    );
    assert_code(&output, 0);
    let report: Json = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["lines"], 10);
    assert_eq!(report["ledger"]["kinds"]["written"], 7);
    assert_eq!(report["faults"], Json::Array(Vec::new()));
    assert!(
        temp.path()
            .join(format!("a/b/{SESSION}_names.jsonl"))
            .exists()
    );
    // One of them alone: its records, and what is missing.
    let output = stormlog(&["convert", &second, "--out", "c", "--json"], temp.path());
    assert_code(&output, 1);
    let report: Json = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["lines"], 4);
    assert!(
        report["faults"]
            .to_string()
            .contains("segment 1 is missing")
    );
}

#[test]
fn damaged_files_end_in_an_error_or_their_valid_prefix() {
    let [first, second] = session();
    let flipped = |offset: usize| {
        let mut bytes = first.clone();
        bytes[offset] ^= 1;
        bytes
    };
    let mut both_headers = flipped(100);
    both_headers[2148] ^= 1;
    for (name, bytes, code, says) in [
        ("empty", Vec::new(), 2, "too short for a segment"),
        (
            "text",
            b"hello, world\n".repeat(1000),
            2,
            "not a stormlog file",
        ),
        ("header cut", first[..100].to_vec(), 2, "too short"),
        ("header", both_headers, 2, "checksum of the header"),
        (
            "no blocks",
            first[..8192].to_vec(),
            1,
            "the file ends before the next block",
        ),
        (
            "half",
            first[..first.len() / 10 * 9].to_vec(),
            1,
            "the file ends within a block",
        ),
        (
            "bit",
            flipped(first.len() - 400),
            1,
            "checksum of the block does not match",
        ),
        (
            "whole",
            first.clone(),
            1,
            "segment that should follow is missing",
        ),
    ] {
        let temp = log_dir(&[bytes]);
        for command in [
            &["convert", "."][..],
            &["inspect", "."],
            &["inspect", ".", "--json"],
        ] {
            let output = stormlog(command, temp.path());
            if name == "whole" && command[0] == "inspect" {
                assert_code(&output, 0);
                continue;
            }
            assert_code(&output, code);
            let text = stdout(&output) + &stderr(&output);
            assert!(text.contains(says), "{name} {command:?}: {text}");
        }
        let listed = stormlog(&["sessions", "."], temp.path());
        assert_code(&listed, i32::from(code == 2));
        let state = if code == 2 { "damaged" } else { "open" };
        assert!(
            stdout(&listed).contains(state),
            "{name}: {}",
            stdout(&listed)
        );
    }
    // A good session beside one of which nothing can be read.
    let temp = log_dir(&session());
    let other = temp.path().join(".stormlog/20250101_000000");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("000001.seg"), "garbage").unwrap();
    for command in ["convert", "inspect"] {
        let output = stormlog(&[command, "."], temp.path());
        assert_code(&output, 1);
        assert!(stdout(&output).contains(SESSION));
        assert!(
            stderr(&output).contains("20250101_000000/000001.seg"),
            "{}",
            stderr(&output)
        );
    }
    // A good segment beside a damaged one.
    let temp = log_dir(&[b"garbage".to_vec(), second]);
    assert_code(&stormlog(&["convert", "."], temp.path()), 1);
}

#[test]
fn paths_without_a_session_are_named() {
    let temp = tempfile::tempdir().unwrap();
    let output = stormlog(&["convert", "."], temp.path());
    assert_code(&output, 2);
    assert!(
        stderr(&output).contains("no session in"),
        "{}",
        stderr(&output)
    );
    let output = stormlog(&["convert", "nowhere"], temp.path());
    assert_code(&output, 2);
    let once = "stormlog: cannot find nowhere: No such file or directory (os error 2)\n";
    assert_eq!(stderr(&output), once);
    assert_code(&stormlog(&["sessions", "nowhere"], temp.path()), 2);
    let output = stormlog(&["sessions", "."], temp.path());
    assert_code(&output, 0);
    assert!(stdout(&output).contains("no sessions"));
}

#[test]
fn inspect_shows_schemas_blocks_and_counts() {
    let temp = log_dir(&session());
    let output = stormlog(&["inspect", ".", "--blocks"], temp.path());
    assert_code(&output, 0);
    let text = stdout(&output);
    for part in [
        "duration_ms: DurationMs",
        "sealed, last",
        "registry",
        "large",
        "2 clock points",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = stormlog(&["inspect", ".", "--json", "--blocks"], temp.path());
    let json: Json = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["categories"]["kinds"], 7);
    assert_eq!(json["blocks"].as_array().unwrap().len(), 10);
    assert_eq!(json["schemas"][0]["key"], "short");
    assert_eq!(json["segments"][1]["sealed"], true);
}

#[test]
fn sessions_are_listed_from_segments_and_from_lines() {
    let temp = log_dir(&session());
    assert_code(&stormlog(&["convert", "."], temp.path()), 0);
    std::fs::write(temp.path().join("20250101_000000_vpn.jsonl"), "{}\n").unwrap();
    std::fs::write(temp.path().join("20250101_000000_../x.jsonl.bak"), "").unwrap_err();
    std::fs::write(temp.path().join("notes.jsonl"), "{}\n").unwrap();
    let list = || {
        let output = stormlog(&["sessions", ".", "--json"], temp.path());
        assert_code(&output, 0);
        let text = stdout(&output);
        let lines: Vec<Json> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        lines
    };
    let sessions = list();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[0]["state"], "unknown");
    assert_eq!(sessions[1]["state"], "closed");
    assert_eq!(sessions[1]["records"], 10);
    assert_eq!(sessions[1]["started_at"], "2026-11-21T10:11:12.000000000Z");
    std::fs::remove_dir_all(temp.path().join(".stormlog")).unwrap();
    let sessions = list();
    assert_eq!(sessions[1]["state"], "converted");
    assert_eq!(sessions[1]["records"], 10);
    assert_eq!(sessions[1]["categories"]["kinds"], 7);
}

#[test]
fn a_reader_that_goes_away_is_success() {
    let temp = log_dir(&session());
    let mut child = Command::new(cargo_bin!("stormlog"))
        .args(["inspect", ".", "--blocks"])
        .current_dir(temp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_code(&output, 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn what_goes_into_a_file_or_a_pipe_has_no_colours() {
    let temp = log_dir(&session());
    for command in [
        &["--help"][..],
        &["inspect", "."],
        &["convert", "."],
        &["sessions", "."],
        &["convert", "nowhere"],
        &["no such command"],
    ] {
        for no_color in ["", "1"] {
            let mut child = Command::new(cargo_bin!("stormlog"));
            child
                .args(command)
                .current_dir(temp.path())
                .env("NO_COLOR", no_color);
            let output = child.output().unwrap();
            let text = stdout(&output) + &stderr(&output);
            assert!(!text.contains('\u{1b}') && !text.is_empty(), "{text:?}");
        }
    }
}

#[test]
fn an_error_that_nobody_reads_is_still_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(cargo_bin!("stormlog"))
        .args(["convert", "nowhere"])
        .current_dir(temp.path())
        .stderr(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn an_output_directory_that_cannot_be_written_is_an_error() {
    let temp = log_dir(&session());
    let output = stormlog(&["convert", ".", "--out", "/proc/nowhere"], temp.path());
    assert_code(&output, 2);
    assert!(
        stderr(&output).contains("/proc/nowhere"),
        "{}",
        stderr(&output)
    );
}

/// A damaged block once ended its segment: what stood behind it could not be had. Without
/// `--salvage` that is still so, and the report says that more may be had.
#[test]
fn salvage_takes_what_stands_behind_damage() {
    let mut segments = session();
    let bytes = &mut segments[0];
    // The second block of the first segment: one of the data blocks.
    let starts: Vec<usize> = (8192..bytes.len())
        .step_by(8)
        .filter(|at| bytes[*at..].starts_with(b"SBLK"))
        .collect();
    bytes[starts[2] + 70] ^= 1;
    let dir = log_dir(&segments);
    let report = |words: &[&str]| -> Json {
        let output = stormlog(words, dir.path());
        assert_code(&output, 1);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let plain = report(&["convert", ".", "--json"]);
    let salvaged = report(&["convert", ".", "--json", "--salvage"]);
    assert_eq!(
        plain["lines"].as_u64().unwrap() + 3,
        salvaged["lines"].as_u64().unwrap()
    );
    let left_out = &salvaged["left_out"];
    assert_eq!(
        (&left_out["blocks"], &left_out["records"]),
        (&1.into(), &3.into())
    );
    let hint = plain["faults"].to_string();
    assert!(hint.contains("convert --salvage"), "{hint}");
    let text = stdout(&stormlog(&["convert", ".", "--salvage"], dir.path()));
    assert!(text.contains("1 block and 3 records"), "{text}");
}

/// Both headers lie in the same page of a disk.
#[test]
fn salvage_reads_a_segment_without_headers() {
    let segments = session();
    let whole = log_dir(&segments);
    assert_code(&stormlog(&["convert", "."], whole.path()), 0);
    for lost in 0..2 {
        let mut damaged = segments.clone();
        damaged[lost][..4096].fill(0);
        let dir = log_dir(&damaged);
        assert_code(&stormlog(&["convert", ".", "--json"], dir.path()), 1);
        let output = stormlog(&["convert", ".", "--salvage"], dir.path());
        assert_code(&output, 1);
        assert!(stdout(&output).contains("another file of the session tells"));
        for category in ["kinds", "names", "session"] {
            let name = format!("{SESSION}_{category}.jsonl");
            let read = |dir: &Path| std::fs::read_to_string(dir.join(&name)).unwrap();
            assert_eq!(read(dir.path()), read(whole.path()), "{category}");
        }
    }
    // Nothing tells what stood there, or it does not fit.
    let mut damaged = segments[1].clone();
    damaged[..4096].fill(0);
    let dir = log_dir(&[damaged]);
    assert_code(&stormlog(&["convert", ".", "--salvage"], dir.path()), 2);
}
