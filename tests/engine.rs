//! The whole path: records pushed by threads, through rings, writer and segments, to JSON Lines.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::path::Path;
use std::time::Duration;

use closed::{close_clean, close_with_report};
use serde_json::Value as Json;
use stormlog::convert::ConvertOptions;
use stormlog::record::{Category, DurationMs, Extra, LongText, ShortText, Symbol, Text, Value};
use stormlog::{Conversion, Outcome, RingStorage, Session, SessionBuilder};

stormlog::record! {
    struct Started in "provisioning" keep Sampled key container_id {
        operation: Symbol,
        container_id: Option<ShortText<64>>,
        duration_ms: Option<DurationMs<2>>,
        success: bool,
        error: Option<Text>,
    }
}

stormlog::record! {
    struct Counted in "performance" keep Sampled {
        thread: u16,
        number: u32,
    }
}

stormlog::record! {
    struct Failed in "errors" keep Always {
        component: ShortText,
        traceback: LongText,
    }
}

fn builder(dir: &Path) -> SessionBuilder {
    recording::builder().dir(dir)
}

#[test]
fn a_session_ends_as_json_lines() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let log = session.log();
    let id = session.id().to_owned();
    let started = Started {
        operation: stormlog::symbol!("start_container_success"),
        container_id: Some("4f6c0a"),
        duration_ms: Some(Duration::from_micros(264_125)),
        success: true,
        error: None,
    };
    assert_eq!(log.push(&started), Outcome::Kept);
    let extras = [
        Extra::new("host_http_port", 19_001_u16),
        Extra::new("labels", Value::Json("{\"test\":\"stress\"}")),
        Extra::new(stormlog::symbol!("engine"), "e1"),
        Extra::new("success", "caller's own"),
    ];
    assert_eq!(log.push_with(&started, &extras), Outcome::Kept);
    let (report, lines) = close_with_report(session);
    assert_eq!(report.session_id, id);
    assert_eq!(report.segments, None);
    let provisioning = &lines["provisioning"];
    assert_eq!(provisioning.len(), 2);
    let line = &provisioning[1];
    assert_eq!(line["session_id"], Json::from(id));
    assert_eq!(line["operation"], "start_container_success");
    assert_eq!(line["duration_ms"].to_string(), "264.12");
    assert_eq!(line["error"], Json::Null);
    assert_eq!(line["host_http_port"], 19_001);
    assert_eq!(line["labels"]["test"], "stress");
    assert_eq!(line["engine"], "e1");
    assert_eq!(line["field_success"], "caller's own");
    let start = &lines["session"][0];
    assert_eq!(start["event"], "session_start");
    assert_eq!(start["pid"], std::process::id());
    assert_eq!(start["settings"]["conversion"], "wait");
    let names: Vec<_> = std::fs::read_dir(temp.path().join(".stormlog"))
        .unwrap()
        .collect();
    assert!(names.is_empty(), "segments go after a verified conversion");
}

/// Four threads, more bytes than the rings hold at a time, both backends: nothing is lost while
/// the producers wait for the writer now and then, every thread's order is kept, every file is in
/// order of time.
#[test]
fn threads_lose_nothing_and_keep_their_order() {
    const THREADS: u16 = 4;
    const RECORDS: u32 = if cfg!(debug_assertions) {
        50_000
    } else {
        1_000_000
    };
    for storage in [RingStorage::Anonymous, RingStorage::SessionDir] {
        let temp = tempfile::tempdir().unwrap();
        let session = builder(temp.path())
            .ring_storage(storage)
            .close_deadline(Duration::from_secs(600))
            .start()
            .unwrap();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (log, session) = (session.log(), &session);
                scope.spawn(move || {
                    for number in 0..RECORDS {
                        if number % 1000 == 0 {
                            session.flush().unwrap();
                        }
                        assert_eq!(log.push(&Counted { thread, number }), Outcome::Kept);
                    }
                });
            }
        });
        let report = session.close().unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        assert!(report.ledger.is_exact());
        let total = u64::from(THREADS) * u64::from(RECORDS);
        assert_eq!(report.ledger.categories["performance"].written(), total);
        let file = report
            .files
            .iter()
            .find(|file| file.category == "performance")
            .unwrap();
        check_counted(&file.path, usize::from(THREADS), RECORDS);
    }
}

/// Every number of every thread once, in order; time never falls.
fn check_counted(path: &Path, threads: usize, records: u32) {
    use std::io::BufRead;
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut next = vec![0; threads];
    let (mut elapsed, mut timestamp) = (0.0, String::new());
    for line in file.lines() {
        let line: Json = serde_json::from_str(&line.unwrap()).unwrap();
        let thread = usize::try_from(line["thread"].as_u64().unwrap()).unwrap();
        assert_eq!(
            line["number"].as_u64().unwrap(),
            next[thread],
            "thread {thread}"
        );
        next[thread] += 1;
        let now = line["elapsed_seconds"].as_f64().unwrap();
        assert!(now >= elapsed, "{now} after {elapsed}");
        elapsed = now;
        let stamp = line["timestamp"].as_str().unwrap();
        assert!(stamp >= timestamp.as_str(), "{stamp} after {timestamp}");
        timestamp.replace_range(.., stamp);
    }
    assert!(
        next.iter().all(|next| *next == u64::from(records)),
        "{next:?}"
    );
}

#[test]
fn full_ring_drops_are_counted_to_the_record() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .ring_total_bytes(64 << 10)
        .sampling(false)
        .start()
        .unwrap();
    let log = session.log();
    let (mut kept, mut dropped) = (0_u64, 0_u64);
    for number in 0..200_000 {
        match log.push(&Counted { thread: 0, number }) {
            Outcome::Kept => kept += 1,
            Outcome::Dropped(_) => dropped += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(dropped > 0, "the test needs a ring that is full");
    let (report, _) = close_with_report(session);
    let account = report.ledger.categories["performance"];
    assert_eq!(account.offered(), kept + dropped);
    assert_eq!(account.written(), kept);
    assert_eq!(
        account.dropped(stormlog::ledger::DropReason::RingFull),
        dropped
    );
}

#[test]
fn long_records_survive_whole_and_longer_ones_are_cut() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let log = session.log();
    let text = |bytes: usize| -> String {
        (0..bytes)
            .map(|index| char::from(b'a' + (index % 26) as u8))
            .collect()
    };
    let (a, b, c) = (text(64 << 10), text(70_000), text(2 << 20));
    let failed = |traceback| Failed {
        component: "docker",
        traceback,
    };
    assert_eq!(log.push(&failed(&a)), Outcome::Kept);
    let extras = [Extra::new("x", b.as_str()), Extra::new("y", b.as_str())];
    assert_eq!(log.push_with(&failed(&b), &extras), Outcome::Kept);
    session.flush().unwrap();
    assert_eq!(log.push(&failed(&c)), Outcome::Kept);
    let lines = close_clean(session);
    let errors = &lines["errors"];
    assert_eq!(errors[0]["traceback"], a.as_str());
    assert_eq!(errors[1]["traceback"], b.as_str());
    assert_eq!(
        (&errors[1]["x"], &errors[1]["y"]),
        (&Json::from(b.as_str()), &Json::from(b))
    );
    assert_eq!(errors[1].get("truncated"), None);
    let cut = errors[2]["traceback"].as_str().unwrap();
    assert!(cut.len() >= 512 << 10 && c.starts_with(cut));
    assert_eq!(errors[2]["truncated"], true);
}

#[test]
fn many_large_records_roll_segments_and_stay_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .segment_bytes(4 << 20)
        .keep_segments(true)
        .start()
        .unwrap();
    let log = session.log();
    let text = "t".repeat(300_000);
    for number in 0..60 {
        let outcome = log.push_with(
            &Failed {
                component: "c",
                traceback: &text,
            },
            &[Extra::new("number", number as u64)],
        );
        assert_eq!(outcome, Outcome::Kept);
        session.flush().unwrap();
    }
    let segments = session.segment_dir().unwrap().to_owned();
    let (report, lines) = close_with_report(session);
    assert!(report.segment_bytes > 60 * 300_000);
    let numbers: Vec<_> = lines["errors"]
        .iter()
        .map(|line| line["number"].clone())
        .collect();
    assert_eq!(numbers, (0..60_u64).map(Json::from).collect::<Vec<_>>());
    let files = std::fs::read_dir(segments).unwrap().count();
    assert!(files >= 5, "{files} files");
}

#[test]
fn switches_work_at_run_time() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .categories_off(["vpn"])
        .start()
        .unwrap();
    let log = session.log();
    let (vpn, health) = (
        Category::named("vpn").unwrap(),
        Category::named("health").unwrap(),
    );
    let extras = [Extra::new("status", "healthy")];
    assert_eq!(log.event(vpn, &extras), Outcome::Disabled);
    assert_eq!(log.event(health, &extras), Outcome::Kept);
    session.set_category_on(vpn, true);
    assert_eq!(log.event(vpn, &extras), Outcome::Kept);
    let mut made = 0;
    let mut push_lazy = |log: &stormlog::Log| {
        log.push_lazy(|| {
            made += 1;
            Failed {
                component: "c",
                traceback: "t",
            }
        })
    };
    let errors = Category::named("errors").unwrap();
    assert_eq!(push_lazy(&log), Outcome::Kept);
    session.set_category_on(errors, false);
    assert_eq!(push_lazy(&log), Outcome::Disabled);
    assert_eq!(push_lazy(&stormlog::Log::disabled()), Outcome::Disabled);
    assert_eq!(made, 1, "the arguments of a disabled record were evaluated");
    session.set_on(false);
    assert_eq!(log.event(vpn, &extras), Outcome::Disabled);
    assert!(!log.is_on(health));
    session.set_on(true);
    session.set_category_on(health, false);
    assert_eq!(log.event(health, &extras), Outcome::Disabled);
    let (report, _) = close_with_report(session);
    assert_eq!(report.ledger.categories["vpn"].offered(), 1);
    assert_eq!(report.ledger.categories["health"].offered(), 1);
    assert_eq!(log.event(vpn, &extras), Outcome::Closed);
}

#[test]
fn disabled_session_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let session = builder(&dir).enabled(false).start().unwrap();
    assert_eq!(session.log().push(&Counted::default()), Outcome::Disabled);
    session.flush().unwrap();
    let report = session.close().unwrap();
    assert!(report.ledger.categories.is_empty() && report.files.is_empty());
    assert!(!dir.exists());
}

#[test]
fn sessions_of_one_process_do_not_mix() {
    let temp = tempfile::tempdir().unwrap();
    let sessions: Vec<Session> = (0..6)
        .map(|_| builder(temp.path()).start().unwrap())
        .collect();
    let mut ids: Vec<_> = sessions
        .iter()
        .map(|session| session.id().to_owned())
        .collect();
    for round in 0..10 {
        for (index, session) in sessions.iter().enumerate() {
            let counted = Counted {
                thread: index as u16,
                number: round,
            };
            assert_eq!(session.log().push(&counted), Outcome::Kept);
        }
    }
    for (index, session) in sessions.into_iter().enumerate() {
        let lines = close_clean(session);
        assert_eq!(lines["performance"].len(), 10);
        assert!(
            lines["performance"]
                .iter()
                .all(|line| line["thread"] == index)
        );
    }
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn rings_of_ended_threads_are_drained_and_used_again() {
    let temp = tempfile::tempdir().unwrap();
    // Room for ten rings.
    let session = builder(temp.path())
        .ring_total_bytes(64 << 10)
        .start()
        .unwrap();
    for thread in 0..100 {
        let log = session.log();
        std::thread::spawn(move || {
            assert_eq!(log.push(&Counted { thread, number: 1 }), Outcome::Kept);
        })
        .join()
        .unwrap();
        session.flush().unwrap();
    }
    let lines = close_clean(session);
    assert_eq!(lines["performance"].len(), 100);
}

#[test]
fn no_ring_left_is_counted() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .ring_total_bytes(64 << 10)
        .start()
        .unwrap();
    let barrier = std::sync::Barrier::new(40);
    std::thread::scope(|scope| {
        for thread in 0..40 {
            let (log, barrier) = (session.log(), &barrier);
            scope.spawn(move || {
                let outcome = log.push(&Counted { thread, number: 1 });
                barrier.wait();
                assert!(
                    matches!(outcome, Outcome::Kept | Outcome::Dropped(_)),
                    "{outcome:?}"
                );
            });
        }
    });
    let (report, _) = close_with_report(session);
    let account = report.ledger.categories["performance"];
    assert_eq!(account.offered(), 40);
    assert!(account.dropped(stormlog::ledger::DropReason::NoRing) > 0);
}

#[test]
fn segments_stay_when_asked_and_convert_later_to_the_same_lines() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).keep_segments(true).start().unwrap();
    let log = session.log();
    for number in 0..1000 {
        log.push(&Counted { thread: 7, number });
    }
    let (report, _) = close_with_report(session);
    let kept = report.segments.unwrap();
    let out = temp.path().join("again");
    std::fs::create_dir(&out).unwrap();
    let files = stormlog::segment::files::SessionFiles::find(&kept).unwrap();
    let again =
        stormlog::convert::convert_session(&files[0], &out, ConvertOptions::default()).unwrap();
    assert_eq!(again.faults, Vec::<String>::new());
    for file in &report.files {
        let name = file.path.file_name().unwrap();
        let (first, second) = (std::fs::read(&file.path), std::fs::read(out.join(name)));
        assert!(first.unwrap() == second.unwrap(), "{name:?}");
    }
}

#[test]
fn later_leaves_segments_and_drop_closes() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .conversion(Conversion::Later)
        .start()
        .unwrap();
    session.log().push(&Counted {
        thread: 1,
        number: 1,
    });
    let report = session.close().unwrap();
    assert_eq!((report.files.len(), report.faults.len()), (0, 0));
    assert!(report.segments.unwrap().join("000001.seg").exists());

    let session = builder(temp.path()).start().unwrap();
    let id = session.id().to_owned();
    session.log().push(&Counted {
        thread: 1,
        number: 1,
    });
    drop(session);
    let path = temp.path().join(format!("{id}_session.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.lines().last().unwrap().contains("\"reason\":\"drop\""));
}

#[test]
fn a_deadline_that_has_passed_leaves_the_segments_and_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .close_deadline(Duration::ZERO)
        .start()
        .unwrap();
    session.log().push(&Counted {
        thread: 1,
        number: 1,
    });
    let report = session.close().unwrap();
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert!(
        report.faults[0].contains("stormlog convert"),
        "{:?}",
        report.faults
    );
    assert!(report.segments.unwrap().exists());
    let jsonl = std::fs::read_dir(temp.path())
        .unwrap()
        .filter_map(Result::ok);
    let names: Vec<_> = jsonl.map(|entry| entry.file_name()).collect();
    assert_eq!(names, [".stormlog"]);
}

/// A flush that came while the writer waited for its next segment was once answered although
/// records were still in the rings: whoever relied on it lost them to a full ring.
#[test]
fn flush_waits_for_the_next_segment() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).segment_bytes(4 << 20).start().unwrap();
    let log = session.log();
    for round in 0..400_u32 {
        for number in 0..4_000 {
            let outcome = log.push(&Counted {
                thread: 0,
                number: round * 4000 + number,
            });
            assert_eq!(outcome, Outcome::Kept, "round {round}");
        }
        session.flush().unwrap();
        assert_eq!(
            session.stats().categories["performance"].pending(),
            0,
            "round {round}"
        );
    }
    let report = session.close().unwrap();
    assert_eq!(report.ledger.total().dropped_total(), 0);
}
