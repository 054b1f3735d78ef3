//! `stormlog verify`: a clean session passes, and each kind of tampering and damage is found.
#![cfg(feature = "cli")]

#[path = "support/recording.rs"]
mod recording;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::ledger::{DropReason, OFFERED};
use stormlog::record::{Category, Extra};
use stormlog::segment::files::SessionFiles;
use stormlog::{Conversion, Outcome, RingStorage, Session};

fn stormlog(words: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.env_remove("DEBUG_LOG_DIR").env_remove("DEBUG_MODE");
    command.current_dir(dir).args(words).output().unwrap()
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}\n{}", String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn verify(dir: &Path, code: i32) -> Json {
    let output = stormlog(&["verify", ".", "--json"], dir);
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
}

fn push(session: &Session) {
    for (category, count) in [("vpn", 20), ("stress", 3)] {
        let category = Category::named(category).unwrap();
        for number in 0..count {
            let outcome = session.log().event(category, &[Extra::new("n", number)]);
            assert_eq!(outcome, Outcome::Kept);
        }
    }
}

/// A closed session: its log directory and its id.
struct Closed {
    temp: tempfile::TempDir,
    id: String,
}

impl Closed {
    fn new(keep_segments: bool) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let builder = recording::builder().dir(temp.path());
        let session = builder.keep_segments(keep_segments).start().unwrap();
        push(&session);
        let report = session.close().unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        Self {
            temp,
            id: report.session_id,
        }
    }

    fn dir(&self) -> &Path {
        self.temp.path()
    }

    fn lines(&self, category: &str) -> PathBuf {
        self.dir().join(format!("{}_{category}.jsonl", self.id))
    }

    fn segment(&self) -> PathBuf {
        let dir = self.dir().join(".stormlog").join(&self.id);
        dir.join("000001.seg")
    }

    fn edit(path: &Path, edit: impl Fn(String) -> String) {
        let text = std::fs::read_to_string(path).unwrap();
        let edited = edit(text.clone());
        assert_ne!(text, edited, "nothing was changed");
        std::fs::write(path, edited).unwrap();
    }

    /// Expects exit code 1 and a sentence with the file, what is wrong and the remedy.
    #[track_caller]
    fn is_found(&self, file: &Path, says: &str, remedy: &str) {
        let json = verify(self.dir(), 1);
        assert_eq!(json["agrees"], false);
        let file = file.file_name().unwrap().to_str().unwrap();
        let sentences = json["disagreements"].as_array().unwrap();
        let found = sentences.iter().filter_map(Json::as_str).any(|sentence| {
            [file, says, remedy]
                .iter()
                .all(|part| sentence.contains(part))
        });
        assert!(found, "{file}, {says}, {remedy}: {sentences:#?}");
    }
}

#[test]
fn a_clean_session_agrees_with_and_without_segments() {
    for keep in [true, false] {
        let closed = Closed::new(keep);
        let json = verify(closed.dir(), 0);
        assert_eq!(json["agrees"], true, "{json}");
        assert_eq!(json["always_lost"], 0);
        let lines = serde_json::json!({"session": 2, "stress": 3, "vpn": 20});
        assert_eq!(json["lines"], lines);
        assert_eq!(json["records"], if keep { lines } else { Json::Null });
        assert_eq!(json["state"], if keep { "closed" } else { "converted" });
        assert_eq!(json["ledger"]["vpn"]["offered"], 20);
        let mut paths = vec![closed.lines("vpn")];
        if keep {
            paths.push(closed.segment());
            paths.push(closed.segment().parent().unwrap().to_owned());
            paths.push(closed.dir().join(".stormlog"));
        }
        for path in paths {
            let output = stormlog(&["verify", path.to_str().unwrap()], closed.dir());
            assert_eq!(output.status.code(), Some(0), "{}", text(&output));
            assert!(
                text(&output).contains("everything agrees"),
                "{}",
                text(&output)
            );
        }
    }
}

#[test]
fn a_removed_and_a_doubled_line_are_found() {
    for (keep, remedy) in [(true, "stormlog convert"), (false, "from a copy")] {
        for category in ["vpn", "stress", "session"] {
            let closed = Closed::new(keep);
            let path = closed.lines(category);
            let written = match category {
                "vpn" => 20,
                "stress" => 3,
                _ => 2,
            };
            let says = format!("{written} records were written");
            Closed::edit(&path, |text| text.split_once('\n').unwrap().1.to_owned());
            closed.is_found(&path, &says, remedy);
            let closed = Closed::new(keep);
            let path = closed.lines(category);
            let double = |text: String| {
                let first = text.lines().next().unwrap();
                format!("{first}\n{text}")
            };
            Closed::edit(&path, double);
            closed.is_found(&path, &says, remedy);
        }
    }
}

#[test]
fn changed_lines_are_found() {
    type Edit = fn(String) -> String;
    let edits: [(Edit, &str); 5] = [
        (
            |text| text.replacen("\"n\":5", "\"n\":6", 1),
            "not what its segments give",
        ),
        (
            |text| text.replacen("{\"session_id\":\"2", "{\"session_id\":\"3", 1),
            "line 1 is of another session",
        ),
        (
            |text| text.replacen("\"elapsed_seconds\":0", "\"elapsed_seconds\":9", 1),
            "line 2 has elapsed_seconds",
        ),
        (
            |text| text.replacen("}\n", "\n", 1),
            "line 1 is no JSON object",
        ),
        (|text| text.trim_end().to_owned(), "line 20 is not ended"),
    ];
    for (edit, says) in edits {
        let closed = Closed::new(true);
        let path = closed.lines("vpn");
        Closed::edit(&path, edit);
        closed.is_found(&path, says, "stormlog convert");
    }
}

#[test]
fn a_changed_count_in_session_end_is_found() {
    let vpn = |count: u64| {
        let zeros = "\"dropped\":{},\"interrupted\":0,\"offered\":N,\"pending\":0";
        let text = format!("{zeros},\"sampled_out\":0,\"written\":N");
        text.replace('N', &count.to_string())
    };
    for keep in [true, false] {
        for (from, to, says) in [
            ("\"offered\":20", "\"offered\":21", "do not add up"),
            ("\"written\":20", "\"written\":19", "do not add up"),
            ("\"pending\":0", "\"pending\":1", "as pending"),
            (&*vpn(20), &*vpn(19), ""),
        ] {
            let closed = Closed::new(keep);
            let session = closed.lines("session");
            Closed::edit(&session, |text| text.replacen(from, to, 1));
            match (says, keep) {
                ("", false) => closed.is_found(&closed.lines("vpn"), "19 records were written", ""),
                ("", true) => closed.is_found(&session, "not that of the segments", "convert"),
                _ => closed.is_found(&session, says, ""),
            }
        }
    }
    // An end that says that the last record was lost, and a file ledger that knows better.
    let closed = Closed::new(true);
    let ledger = closed.segment().with_file_name("ledger");
    Closed::edit(&closed.lines("session"), |text| {
        text.replacen(
            "\"sampled_out\":0,\"written\":3",
            "\"sampled_out\":3,\"written\":0",
            1,
        )
    });
    closed.is_found(&ledger, "not those of session_end", "copy");
}

#[test]
fn a_flipped_bit_in_a_segment_is_found() {
    let closed = Closed::new(true);
    let good = std::fs::read(closed.segment()).unwrap();
    let blocks: Vec<usize> = (8192..good.len())
        .step_by(8)
        .filter(|at| good[*at..].starts_with(b"SBLK"))
        .collect();
    assert!(blocks.len() > 3);
    for at in blocks {
        let mut bytes = good.clone();
        bytes[at + 70] ^= 4;
        std::fs::write(closed.segment(), bytes).unwrap();
        closed.is_found(&closed.segment(), "checksum", "from a copy");
    }
    for at in [40, 2100] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(closed.segment(), bytes).unwrap();
        closed.is_found(&closed.segment(), "copies of the header", "from a copy");
    }
    std::fs::write(closed.segment(), &good[..good.len() - 100]).unwrap();
    closed.is_found(&closed.segment(), "", "from a copy");
    std::fs::write(closed.segment(), good).unwrap();
    verify(closed.dir(), 0);
}

#[test]
fn a_missing_file_is_found() {
    for keep in [true, false] {
        for category in ["vpn", "session"] {
            let closed = Closed::new(keep);
            let path = closed.lines(category);
            std::fs::remove_file(&path).unwrap();
            let says = match (category, keep) {
                ("session", false) => "no session_end",
                _ => "is missing",
            };
            closed.is_found(&path, says, if keep { "stormlog convert" } else { "copy" });
        }
    }
    let closed = Closed::new(true);
    std::fs::remove_file(closed.segment()).unwrap();
    closed.is_found(
        closed.segment().parent().unwrap(),
        "no segment can be read",
        "copy",
    );
    std::fs::remove_file(closed.segment().with_file_name("ledger")).unwrap();
    closed.is_found(
        closed.segment().parent().unwrap(),
        "no segment can be read",
        "copy",
    );
}

#[test]
fn segments_that_were_not_converted_yet_are_no_fault() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path());
    let session = builder.conversion(Conversion::Later).start().unwrap();
    push(&session);
    session.close().unwrap();
    let json = verify(temp.path(), 0);
    assert_eq!(
        (&json["lines"], &json["ledger_from"]),
        (&Json::Null, &"segments".into())
    );
}

#[test]
fn a_running_session_raises_no_alarm() {
    for storage in [RingStorage::Anonymous, RingStorage::SessionDir] {
        let temp = tempfile::tempdir().unwrap();
        let builder = recording::builder().dir(temp.path()).ring_storage(storage);
        let session = builder.start().unwrap();
        for _ in 0..5 {
            push(&session);
            let json = verify(temp.path(), 0);
            assert_eq!(json["state"], "live");
            assert!(
                json["notes"][0]
                    .as_str()
                    .unwrap()
                    .contains("still being recorded")
            );
        }
        session.flush().unwrap();
        let json = verify(temp.path(), 0);
        assert_eq!(json["records"]["vpn"], 100);
        session.close().unwrap();
        verify(temp.path(), 0);
    }
}

/// The helper makes the next segment while the session runs; without its header it is none yet.
#[test]
fn a_segment_that_is_just_prepared_raises_no_alarm() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let dir = session.segment_dir().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let segments = || SessionFiles::find(dir).map_or(0, |found| found[0].segments.len());
    while segments() < 2 {
        assert!(
            Instant::now() < deadline,
            "the second segment never was ready"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let next = dir.join("000003.seg");
    std::fs::write(&next, [0; 8192]).unwrap();
    assert_eq!(verify(temp.path(), 0)["state"], "live");
    std::fs::rename(&next, dir.join("000009.seg")).unwrap();
    verify(temp.path(), 1);
    std::fs::remove_file(dir.join("000009.seg")).unwrap();
    session.close().unwrap();
}

#[test]
fn a_session_that_died_is_not_said_to_agree() {
    let (temp, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let session = recording::builder().dir(temp.path()).start().unwrap();
    push(&session);
    session.flush().unwrap();
    let dir = copy.path().join(".stormlog").join(session.id());
    std::fs::create_dir_all(&dir).unwrap();
    for name in ["000001.seg", "ledger"] {
        std::fs::copy(session.segment_dir().unwrap().join(name), dir.join(name)).unwrap();
    }
    session.close().unwrap();
    let json = verify(copy.path(), 1);
    assert_eq!(json["state"], "open");
    let sentence = json["disagreements"].to_string();
    assert!(sentence.contains("was not closed"), "{sentence}");
    assert!(sentence.contains("stormlog convert"), "{sentence}");
}

#[test]
fn a_lost_always_record_is_exit_code_1_although_all_agrees() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path());
    let session = builder.ring_total_bytes(64 << 10).start().unwrap();
    session.pause_writer();
    let log = session.log();
    let stress = Category::named("stress").unwrap();
    let body = "x".repeat(30_000);
    let lost = (0..100_000).find(|_| {
        let outcome = log.event(stress, &[Extra::new("text", &*body)]);
        matches!(outcome, Outcome::Dropped(_))
    });
    assert!(lost.is_some(), "the small ring never was full");
    session.resume_writer();
    let report = session.close().unwrap();
    let account = report.ledger.categories["stress"];
    assert!(account.counters[OFFERED] > account.written());
    let json = verify(temp.path(), 1);
    assert_eq!(json["agrees"], true, "{json}");
    assert_eq!(json["always_lost"], account.dropped_total());
    let sentence = json["lost"][0].as_str().unwrap();
    assert!(sentence.contains("of stress lost"), "{sentence}");
    assert!(
        sentence.contains("_session.jsonl") && sentence.contains("raise STORMLOG_"),
        "{sentence}"
    );
    let reason = [DropReason::AlwaysBudget, DropReason::LargeBudget];
    assert!(
        reason.iter().any(|reason| sentence.contains(reason.name())),
        "{sentence}"
    );
}

#[test]
fn what_is_no_session_is_exit_code_2() {
    let temp = tempfile::tempdir().unwrap();
    for path in ["nowhere", "."] {
        let output = stormlog(&["verify", path], temp.path());
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    }
    std::fs::write(temp.path().join("x.seg"), "hello").unwrap();
    let output = stormlog(&["verify", "x.seg"], temp.path());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

#[test]
fn a_session_that_is_just_converted_is_not_said_to_agree() {
    let closed = Closed::new(true);
    let files = SessionFiles::find(closed.dir()).unwrap().remove(0);
    let guard = files.try_lock().unwrap();
    let dir = closed.segment().parent().unwrap().to_owned();
    closed.is_found(&dir, "another process is converting it", "again");
    drop(guard);
    verify(closed.dir(), 0);
}

stormlog::record! {
    struct Timed in "performance" keep Sampled {
        operation: stormlog::record::Symbol,
        duration_ms: stormlog::record::DurationMs<2>,
    }
}

/// The durations of `session` were not looked at once: they could say anything.
#[test]
fn durations_that_do_not_fit_are_told() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path()).sampling(false);
    let session = builder.keep_segments(true).start().unwrap();
    let operations = [stormlog::symbol!("verify_a"), stormlog::symbol!("verify_b")];
    for number in 0..30_u64 {
        let timed = Timed {
            operation: operations[number as usize % 2],
            duration_ms: Duration::from_micros(number * number * 100 + 1),
        };
        assert_eq!(session.log().push(&timed), Outcome::Kept);
    }
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    verify(temp.path(), 0);
    let path = temp
        .path()
        .join(format!("{}_session.jsonl", report.session_id));
    let good = std::fs::read_to_string(&path).unwrap();
    let line = good.lines().find(|line| line.contains("verify_a")).unwrap();
    let json: Json = serde_json::from_str(line).unwrap();
    let changed = |name: &str, value: Json| {
        let mut json = json.clone();
        json[name] = value;
        json
    };
    let (sum, max) = (
        json["sum_ms"].as_f64().unwrap(),
        json["max_ms"].as_f64().unwrap(),
    );
    let mut buckets = json["buckets"].clone();
    buckets[0][0] = 7.into();
    let said = |json: Json| {
        std::fs::write(&path, good.replace(line, &json.to_string())).unwrap();
        let found = verify(temp.path(), 1)["disagreements"].clone();
        let texts = found.as_array().unwrap().iter().filter_map(Json::as_str);
        texts
            .filter(|text| text.contains("durations"))
            .collect::<Vec<_>>()
            .join("; ")
    };
    for (name, value, expected) in [
        ("count", 14.into(), "count is 14, the buckets hold 15"),
        ("sum_ms", (max * 15.0 + 1.0).into(), "ns in all"),
        ("sum_ms", (max / 2.0).into(), "ns in all"),
        ("max_ms", (max * 4.0).into(), "is not in the last bucket"),
        ("p90_ms", (max * 2.0).into(), "p90_ms is not the"),
        ("buckets", buckets, "is no bucket"),
        ("buckets", Json::Null, "there are no buckets"),
        // Nothing in the line contradicts this, but the records do.
        (
            "sum_ms",
            (sum + 0.5).into(),
            "the records in the segments have",
        ),
    ] {
        let fault = said(changed(name, value.clone()));
        assert!(fault.contains(expected), "{name} {value}: {fault}");
    }
    let mut json = json.clone();
    json["count"] = (json["count"].as_u64().unwrap() + 1000).into();
    json["buckets"][0][1] = (json["buckets"][0][1].as_u64().unwrap() + 1000).into();
    assert!(said(json).contains("durations of performance are told, and 30 records were offered"));
}
