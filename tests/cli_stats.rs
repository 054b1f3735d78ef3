//! `stormlog stats`, and what it reads: the ledger of a session as another process sees it.
#![cfg(feature = "cli")]

#[path = "support/recording.rs"]
mod recording;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::ledger::Account;
use stormlog::record::{Category, Extra};
use stormlog::segment::figures::Figures;
use stormlog::segment::layout::{LEDGER_SLOT_BYTES, LEDGER_SLOT_OFFSET};
use stormlog::segment::rings::Rings;
use stormlog::{Outcome, RingStorage, Session};

fn stormlog(words: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.env_remove("DEBUG_LOG_DIR").env_remove("DEBUG_MODE");
    command.current_dir(dir).args(words);
    command
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}\n{}", String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn stats(dir: &Path, code: i32) -> Json {
    let output = stormlog(&["stats", ".", "--json"], dir).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
}

fn session(dir: &Path, storage: RingStorage) -> Session {
    let builder = recording::builder().dir(dir).ring_storage(storage);
    builder.keep_segments(true).start().unwrap()
}

fn push(session: &Session, category: &str, count: u64) {
    let category = Category::named(category).unwrap();
    for number in 0..count {
        let outcome = session.log().event(category, &[Extra::new("n", number)]);
        assert_eq!(outcome, Outcome::Kept);
    }
}

fn account(json: &Json, category: &str, counter: &str) -> Option<u64> {
    json["ledger"][category][counter].as_u64()
}

/// `offered = written + sampled_out + dropped + interrupted + pending` in every category.
#[track_caller]
fn assert_equation(json: &Json) {
    for (category, counts) in json["ledger"].as_object().into_iter().flatten() {
        let count = |name: &str| counts[name].as_u64().unwrap();
        let dropped = counts["dropped"].as_object().unwrap().values();
        let dropped: u64 = dropped.map(|count| count.as_u64().unwrap()).sum();
        let sum = ["written", "sampled_out", "interrupted", "pending"].map(count);
        let sum = sum.iter().sum::<u64>() + dropped;
        assert_eq!(count("offered"), sum, "{category}: {counts}");
    }
}

/// Asks until the answer is as expected.
fn wait_for(dir: &Path, expected: impl Fn(&Json) -> bool) -> Json {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let json = stats(dir, 0);
        if expected(&json) {
            return json;
        }
        assert!(Instant::now() < deadline, "{json}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A copy of the session's directory without its lock: a session whose process died now.
fn killed(session: &Session, into: &Path) -> PathBuf {
    let dir = into.join(".stormlog").join(session.id());
    std::fs::create_dir_all(&dir).unwrap();
    for entry in std::fs::read_dir(session.segment_dir().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        // To open the lock would drop it.
        if name != "lock" {
            std::fs::copy(&path, dir.join(name)).unwrap();
        }
    }
    dir
}

#[test]
fn the_ledger_of_a_running_session_adds_up_with_pending() {
    for storage in [RingStorage::Anonymous, RingStorage::SessionDir] {
        let temp = tempfile::tempdir().unwrap();
        let session = session(temp.path(), storage);
        push(&session, "vpn", 1);
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for category in ["vpn", "a_category_of_its_own"] {
                let (log, ends) = (session.log(), &ends);
                let category = Category::named(category).unwrap();
                scope.spawn(move || {
                    while !ends.load(Ordering::Relaxed) {
                        log.event(category, &[Extra::new("a", 1)]);
                    }
                });
            }
            let mut before = 0;
            for _ in 0..20 {
                let json = stats(temp.path(), 0);
                assert_equation(&json);
                assert_eq!(json["state"], "live");
                assert_eq!(json["pid"], std::process::id());
                let offered = account(&json, "vpn", "offered").unwrap_or(0);
                assert!(offered >= before, "{offered} after {before}");
                before = offered;
            }
            ends.store(true, Ordering::Relaxed);
        });
        let report = session.close().unwrap();
        let json = stats(temp.path(), 0);
        assert_eq!(json["ledger"], report.ledger.to_json());
        assert_eq!(
            (&json["state"], &json["final"]),
            (&"closed".into(), &true.into())
        );
        assert_eq!(json["pending"], 0);
        // Without its directory there are its lines.
        std::fs::remove_dir_all(report.segments.unwrap()).unwrap();
        let json = stats(temp.path(), 0);
        assert_eq!(json["ledger"], report.ledger.to_json());
        assert_eq!(json["state"], "converted");
        assert_eq!(json["sources"]["offered"], "session_end");
    }
}

#[test]
fn rings_in_a_file_give_the_figures_of_now() {
    let temp = tempfile::tempdir().unwrap();
    let session = session(temp.path(), RingStorage::SessionDir);
    // The 17th and later categories have counter pages of their own.
    let names: Vec<String> = (0..20).map(|n| format!("stats_{n}")).collect();
    for count in 1..4 {
        for name in &names {
            push(&session, name, 1);
        }
        push(&session, "vpn", 5);
        let json = stats(temp.path(), 0);
        assert_equation(&json);
        assert_eq!(account(&json, "vpn", "offered"), Some(5 * count));
        for name in &names {
            assert_eq!(account(&json, name, "offered"), Some(count), "{name}");
        }
        assert_eq!(json["sources"]["offered"], "rings");
        assert_eq!(json["age_seconds"]["rings"], 0.0);
        assert_eq!(json["rings"]["active"], 1);
        let fill = &json["rings"]["fullest"];
        assert!(fill["waiting_bytes"].as_u64() <= fill["capacity_bytes"].as_u64());
    }
    let json = wait_for(temp.path(), |json| {
        account(json, "vpn", "written") == Some(15)
    });
    assert_eq!(json["sources"]["written"], "ledger");
    assert!(json["age_seconds"]["ledger"].as_f64().unwrap() >= 0.0);
    let output = stormlog(&["stats", "."], temp.path()).output().unwrap();
    let shown = text(&output);
    for part in [
        "live, process",
        "1 ring used, 1 active",
        "of now (ring storage)",
        "pending",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    session.close().unwrap();
}

#[test]
fn rings_in_memory_give_the_published_figures() {
    let temp = tempfile::tempdir().unwrap();
    let session = session(temp.path(), RingStorage::Anonymous);
    push(&session, "vpn", 7);
    let json = wait_for(temp.path(), |json| {
        account(json, "vpn", "written") == Some(7)
    });
    assert_equation(&json);
    assert_eq!(json["rings"], Json::Null);
    assert_eq!(json["sources"]["offered"], "ledger");
    session.close().unwrap();
}

#[test]
fn a_session_that_died_is_open_and_keeps_what_was_pending() {
    let (temp, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let session = session(temp.path(), RingStorage::SessionDir);
    push(&session, "vpn", 3);
    killed(&session, copy.path());
    let json = stats(copy.path(), 0);
    assert_equation(&json);
    assert_eq!(
        (&json["state"], &json["pid"]),
        (&"open".into(), &Json::Null)
    );
    assert_eq!(account(&json, "vpn", "offered"), Some(3));
    assert_eq!(json["age_seconds"]["rings"], Json::Null);
    session.close().unwrap();
}

type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn damaged_files_are_named_and_never_more() {
    let (temp, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let session = session(temp.path(), RingStorage::SessionDir);
    push(&session, "vpn", 3);
    wait_for(temp.path(), |json| {
        account(json, "vpn", "written") == Some(3)
    });
    let dir = killed(&session, copy.path());
    session.close().unwrap();
    let flip = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 1;
    let slots = LEDGER_SLOT_OFFSET + LEDGER_SLOT_BYTES;
    let damages: [(&str, Damage<'_>, &str); 10] = [
        (
            "ledger",
            &|bytes| bytes.clear(),
            "too short for a ledger file",
        ),
        (
            "ledger",
            &|bytes| bytes.truncate(300),
            "neither of the two copies",
        ),
        ("ledger", &|bytes| flip(bytes, 30), "checksum of the header"),
        (
            "ledger",
            &|bytes| {
                flip(bytes, LEDGER_SLOT_OFFSET + 20);
                flip(bytes, slots + 20);
            },
            "neither of the two copies",
        ),
        ("ledger", &|bytes| bytes.fill(b'x'), "not a stormlog file"),
        (
            "rings",
            &|bytes| bytes.clear(),
            "too short for a ring storage",
        ),
        ("rings", &|bytes| flip(bytes, 30), "checksum of the header"),
        (
            "rings",
            &|bytes| bytes.truncate(5000),
            "shorter than it says",
        ),
        (
            "rings",
            &|bytes| bytes[256..4096].fill(0xff),
            "what it says of its parts",
        ),
        ("rings", &|bytes| bytes.fill(0), "not a stormlog file"),
    ];
    for (name, damage, says) in damages {
        let path = dir.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bytes = good.clone();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let json = stats(copy.path(), 1);
        assert_equation(&json);
        let fault = json["faults"][0].as_str().unwrap();
        assert!(
            fault.contains(name) && fault.contains(says),
            "{says}: {fault}"
        );
        std::fs::write(&path, good).unwrap();
    }
    // One slot is always whole: a torn one costs nothing but time.
    let path = dir.join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    flip(&mut bytes, LEDGER_SLOT_OFFSET + 20);
    std::fs::write(&path, bytes).unwrap();
    let torn = stats(copy.path(), 0);
    assert_eq!(torn["faults"], Json::Array(Vec::new()));
    for name in ["ledger", "rings"] {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
    let json = stats(copy.path(), 0);
    assert_eq!(
        (&json["ledger"], &json["state"]),
        (&Json::Null, &"open".into())
    );
}

/// More than there are rings of the first of their four lengths.
const THREADS: usize = 11;

#[test]
fn rings_that_are_taken_and_not_yet_described_hide_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let session = session(temp.path(), RingStorage::SessionDir);
    let vpn = Category::named("vpn").unwrap();
    let (barrier, log) = (Barrier::new(THREADS), session.log());
    let work = || {
        barrier.wait();
        assert_eq!(log.event(vpn, &[]), Outcome::Kept);
        barrier.wait();
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            scope.spawn(work);
        }
        work();
    });
    let path = session.segment_dir().unwrap().join("rings");
    let mut bytes = std::fs::read(&path).unwrap();
    session.close().unwrap();
    let read = |bytes: &[u8]| Rings::read(bytes, &path).unwrap();
    // Without the records of the session itself.
    let offered = |rings: &Rings| {
        let accounts = rings.accounts.iter().skip(1);
        accounts.map(Account::offered).sum::<u64>()
    };
    let whole = read(&bytes);
    assert_eq!((whole.used, offered(&whole)), (11, 11));
    let geometry: [u64; 8] = bytemuck::pod_read_unaligned(&bytes[256..320]);
    let mut offset = geometry[6] as usize;
    // All but the last one after the other; its owner counts only after it has described the ring.
    for hidden in 1..11 {
        assert_eq!(&bytes[offset..offset + 4], b"SRNG");
        let capacity: u64 = bytemuck::pod_read_unaligned(&bytes[offset + 8..offset + 16]);
        bytes[offset..offset + 2304].fill(0);
        offset += 2304 + capacity as usize;
        let rest = read(&bytes);
        assert_eq!(
            (rest.used, offered(&rest)),
            (11 - hidden, 11 - u64::from(hidden))
        );
    }
}

#[test]
fn watch_goes_on_until_nobody_reads() {
    let temp = tempfile::tempdir().unwrap();
    let session = session(temp.path(), RingStorage::Anonymous);
    let mut child = stormlog(&["stats", ".", "--watch", "--json"], temp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let json: Json = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(json["session_id"], session.id());
    }
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(output.stderr.is_empty(), "{}", text(&output));
    session.close().unwrap();
}

#[test]
fn what_is_no_log_directory_is_said() {
    let temp = tempfile::tempdir().unwrap();
    let output = stormlog(&["stats", "nowhere"], temp.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("cannot find nowhere"),
        "{}",
        text(&output)
    );
    let output = stormlog(&["stats", "."], temp.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).contains("no sessions in ."));
    let figures = Figures::read(&temp.path().join("nowhere"));
    assert!(figures.is_err());
}
