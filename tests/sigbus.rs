//! Files that others cut, replace or remove while a session records into them. Without the guard
//! a mapped segment that is cut kills the process; with it, or with the `pwrite` sink, the process
//! lives and the ledger says what was lost. SIGBUS elsewhere is none of our business.
//!
//! What may die runs in a child: this program again, with a role.
#![expect(unsafe_code, reason = "signal handlers, and memory that is lost")]

#[path = "support/recording.rs"]
mod recording;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::ledger::DropReason;
use stormlog::record::LongText;
use stormlog::record::Symbol;
use stormlog::{
    CloseReport, Log, Outcome, RingStorage, SegmentSink, Session, SessionBuilder, symbol,
};

stormlog::record! {
    struct Call in "calls" keep Sampled {
        number: u64,
        text: LongText,
    }
}

stormlog::record! {
    struct Alarm in "stress" keep Always {
        number: u64,
    }
}

stormlog::record! {
    /// Of a category that is pushed for the first time after the cut.
    struct Late in "process" keep Sampled {
        operation: Symbol,
        number: u64,
    }
}

/// Names what a child is to do.
const ROLE: &str = "SIGBUS_TEST_ROLE";
/// Exit code of the handler that stands for the program's own.
const OWN_HANDLER: i32 = 42;

fn builder(dir: &Path) -> SessionBuilder {
    recording::builder()
        .dir(dir)
        .sampling(false)
        .close_deadline(Duration::from_secs(120))
}

fn call(log: &Log, number: u64) -> Outcome {
    let text = "0123456789abcdef".repeat(12);
    log.push(&Call {
        number,
        text: &text,
    })
}

fn session_dir(dir: &Path, session: &Session) -> PathBuf {
    dir.join(".stormlog").join(session.id())
}

/// The segment that is written now, and its number.
fn live(dir: &Path, session: &Session, number: u32) -> PathBuf {
    session_dir(dir, session).join(format!("{number:06}.seg"))
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

/// Numbers in the lines of a category, each once and in order.
fn numbers(report: &CloseReport, category: &str) -> Vec<u64> {
    let file = report.files.iter().find(|file| file.category == category);
    let text = file.map(|file| std::fs::read_to_string(&file.path).unwrap());
    let lines = text.unwrap_or_default();
    let numbers: Vec<u64> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<Json>(line).unwrap()["number"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "once and in order");
    numbers
}

/// What must hold however much was lost.
fn check(dir: &Path, report: &CloseReport, pushed: u64) {
    let ledger = &report.ledger;
    assert!(ledger.is_exact(), "{ledger:?}");
    let calls = ledger.categories["calls"];
    assert_eq!(calls.offered(), pushed);
    assert_eq!(calls.written(), numbers(report, "calls").len() as u64);
    assert_eq!(
        calls.written() + calls.dropped(DropReason::Disk),
        pushed,
        "nothing else was lost: {ledger:?}"
    );
    let verify = Command::new(env!("CARGO_BIN_EXE_stormlog"))
        .arg("verify")
        .arg(dir.join(format!("{}_session.jsonl", report.session_id)))
        .output()
        .unwrap();
    let code = i32::from(report.always_lost > 0);
    assert_eq!(verify.status.code(), Some(code), "{verify:?} {report:?}");
}

fn assert_told(report: &CloseReport) {
    let told = |fault: &&String| fault.contains("while it was recorded");
    assert!(report.faults.iter().any(|fault| told(&fault)), "{report:?}");
}

/// Runs a role in a child.
fn child(role: &str) -> (ExitStatus, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status, said)
}

fn assert_lives(role: &str) {
    let (status, said) = child(role);
    assert!(status.success(), "{role}: {status:?}\n{said}");
}

fn assert_killed(role: &str) {
    let (status, said) = child(role);
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{role}: {said}");
}

/// Not a test of its own: what the children do.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let (first, second) = role.split_once('/').unwrap_or((&role, ""));
    match first {
        "cut" => {
            let (sink, guard) = match second {
                "bare" => (SegmentSink::Mapped, false),
                "guard" => (SegmentSink::Mapped, true),
                _ => (SegmentSink::Pwrite, false),
            };
            cut_again_and_again(sink, guard);
        }
        "grown" => cut_and_grown(),
        "rings" => cut_rings(second.parse().unwrap(), true),
        "rings_bare" => cut_rings(0, false),
        "elsewhere" => fault_elsewhere(second),
        "own" => {
            set_handler(second);
            cut_again_and_again(SegmentSink::Mapped, true);
        }
        "sent" => {
            set_handler(second);
            let temp = tempfile::tempdir().unwrap();
            let _session = builder(temp.path()).sigbus_guard(true).start().unwrap();
            // SAFETY: sends a signal to this thread.
            unsafe { libc::raise(libc::SIGBUS) };
        }
        other => panic!("no role {other}"),
    }
}

/// Cuts the segment that is written, to several lengths, and goes on recording.
fn cut_again_and_again(sink: SegmentSink, guard: bool) {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .segment_sink(sink)
        .sigbus_guard(guard)
        .start()
        .unwrap();
    let log = session.log();
    let mut pushed = 0;
    let mut push = |many: u64| {
        for _ in 0..many {
            assert_eq!(call(&log, pushed), Outcome::Kept);
            pushed += 1;
            if pushed.is_multiple_of(500) {
                session.flush().unwrap();
            }
        }
        session.flush().unwrap();
    };
    for (segment, bytes) in [(1, 0), (2, 100), (3, 70_000), (4, 300_001), (5, 4096)] {
        push(2000);
        let path = live(temp.path(), &session, segment);
        cut(&path, bytes);
        // Until the loss is seen: when the page is touched, or at a look.
        let end = Instant::now() + Duration::from_secs(60);
        let next = live(temp.path(), &session, segment + 2);
        while !next.exists() {
            assert!(Instant::now() < end, "{} goes on", path.display());
            push(20);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    push(2000);
    let report = session.close().unwrap();
    check(temp.path(), &report, pushed);
    assert_told(&report);
    let calls = numbers(&report, "calls");
    assert!((pushed - 2000..pushed).all(|number| calls.contains(&number)));
    let lost = report.ledger.categories["calls"].dropped(DropReason::Disk);
    assert!(lost > 0, "nothing was cut");
    // What stood before the cut in segments 3 and 4 is there.
    assert!(report.ledger.categories["calls"].written() > 2000 + 500);
}

/// A look finds the segment as long as it should be: only the guard knows that a part was lost.
fn cut_and_grown() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .segment_sink(SegmentSink::Mapped)
        .sigbus_guard(true)
        .start()
        .unwrap();
    let log = session.log();
    let push = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            assert_eq!(call(&log, number), Outcome::Kept);
        }
        session.flush().unwrap();
    };
    push(0..1000);
    let path = live(temp.path(), &session, 1);
    let bytes = std::fs::metadata(&path).unwrap().len();
    cut(&path, 8192);
    push(1000..2000);
    cut(&path, bytes);
    push(2000..3000);
    let report = session.close().unwrap();
    check(temp.path(), &report, 3000);
    assert_told(&report);
    let calls = numbers(&report, "calls");
    assert!((2000..3000).all(|number| calls.contains(&number)));
    let lost = report.ledger.categories["calls"].dropped(DropReason::Disk);
    assert!(lost >= 1000, "{lost}");
}

#[test]
fn a_cut_segment_kills_a_process_without_the_guard() {
    assert_killed("cut/bare");
}

#[test]
fn a_cut_segment_is_survived_and_counted_with_the_guard() {
    assert_lives("cut/guard");
}

#[test]
fn a_segment_that_is_cut_and_grown_again_is_counted_with_the_guard() {
    assert_lives("grown");
}

#[test]
fn a_cut_segment_is_survived_and_counted_by_pwrite() {
    assert_lives("cut/pwrite");
}

extern "C" fn with_info(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel, or the guard, gives a valid one.
    let info = unsafe { &*info };
    let code = if info.si_signo == libc::SIGBUS {
        OWN_HANDLER
    } else {
        1
    };
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

extern "C" fn plain(signal: libc::c_int) {
    let code = if signal == libc::SIGBUS {
        OWN_HANDLER
    } else {
        1
    };
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

/// What the program does about SIGBUS before it starts a session.
fn set_handler(kind: &str) {
    // SAFETY: all bytes zero are the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = match kind {
        "info" => (with_info as *const () as usize, libc::SA_SIGINFO),
        "plain" => (plain as *const () as usize, 0),
        "ignore" => (libc::SIG_IGN, 0),
        "default" => (libc::SIG_DFL, 0),
        // That of std.
        _ => return,
    };
    // SAFETY: a valid action.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

/// A fault in a mapping that is not ours, under a session with the guard.
fn fault_elsewhere(kind: &str) {
    set_handler(kind);
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).sigbus_guard(true).start().unwrap();
    assert_eq!(call(&session.log(), 0), Outcome::Kept);
    session.flush().unwrap();
    let path = temp.path().join("foreign");
    std::fs::write(&path, vec![1; 4096]).unwrap();
    let file = File::open(&path).unwrap();
    // SAFETY: the file is cut below, which is what this is about.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    cut(&path, 0);
    let byte = std::hint::black_box(&map)[17];
    panic!("read {byte}");
}

#[test]
fn a_fault_elsewhere_reaches_the_handler_that_was_there() {
    for kind in ["info", "plain"] {
        let (status, said) = child(&format!("elsewhere/{kind}"));
        assert_eq!(status.code(), Some(OWN_HANDLER), "{kind}: {said}");
    }
    for kind in ["default", "ignore", "std"] {
        assert_killed(&format!("elsewhere/{kind}"));
    }
}

#[test]
fn our_faults_do_not_reach_the_handler_that_was_there() {
    for kind in ["info", "ignore"] {
        assert_lives(&format!("own/{kind}"));
    }
}

#[test]
fn a_sent_signal_does_what_it_did_before() {
    for kind in ["info", "plain"] {
        let (status, said) = child(&format!("sent/{kind}"));
        assert_eq!(status.code(), Some(OWN_HANDLER), "{kind}: {said}");
    }
    assert_killed("sent/default");
    assert_lives("sent/ignore");
}

/// Producers push all the time, while somebody cuts what is written at any moment.
#[test]
fn cuts_at_any_moment_under_load() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).sigbus_guard(true).start().unwrap();
    let stop = AtomicBool::new(false);
    let cuts = AtomicU32::new(0);
    let (offered, kept) = std::thread::scope(|scope| {
        let pushers: Vec<_> = (0..2_u64)
            .map(|_| {
                let log = session.log();
                let stop = &stop;
                scope.spawn(move || {
                    let (mut offered, mut kept) = (0_u64, 0_u64);
                    while !stop.load(SeqCst) {
                        offered += 1;
                        let outcome = log.push(&Alarm { number: offered });
                        kept += u64::from(outcome == Outcome::Kept);
                        if offered.is_multiple_of(64) {
                            std::thread::sleep(Duration::from_micros(200));
                        }
                    }
                    (offered, kept)
                })
            })
            .collect();
        for round in 0..12_u64 {
            std::thread::sleep(Duration::from_millis(40));
            let files = std::fs::read_dir(session_dir(temp.path(), &session)).unwrap();
            let segments: BTreeSet<PathBuf> = files
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|it| it == "seg"))
                .collect();
            // The newest one is prepared and not used yet; every fourth time it is cut instead.
            let back = usize::from(round % 4 != 3);
            if let Some(path) = segments.iter().rev().nth(back) {
                cut(path, round * 5000);
                cuts.fetch_add(1, SeqCst);
            }
        }
        stop.store(true, SeqCst);
        pushers
            .into_iter()
            .map(|pusher| pusher.join().unwrap())
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    let report = session.close().unwrap();
    assert!(cuts.load(SeqCst) > 0);
    let stress = report.ledger.categories["stress"];
    assert!(report.ledger.is_exact());
    assert_eq!(stress.offered(), offered);
    let file = report.files.iter().find(|file| file.category == "stress");
    let lines = file.map_or(0, |file| file.lines);
    assert_eq!(stress.written(), lines, "{report:?}");
    let lost = stress.dropped(DropReason::Disk);
    assert_eq!(stress.written() + lost, kept);
    // `session_start` may have been in a segment that was cut.
    let own = report.ledger.categories["session"].dropped(DropReason::Disk);
    assert_eq!(report.always_lost, lost + own + (offered - kept));
    assert_told(&report);
}

#[test]
fn a_removed_segment_is_put_back() {
    for sink in [SegmentSink::Mapped, SegmentSink::Pwrite] {
        let temp = tempfile::tempdir().unwrap();
        let session = builder(temp.path()).segment_sink(sink).start().unwrap();
        let log = session.log();
        for number in 0..1000 {
            assert_eq!(call(&log, number), Outcome::Kept);
        }
        session.flush().unwrap();
        std::fs::remove_file(live(temp.path(), &session, 1)).unwrap();
        for number in 1000..2000 {
            assert_eq!(call(&log, number), Outcome::Kept);
        }
        let report = session.close().unwrap();
        check(temp.path(), &report, 2000);
        assert_eq!(numbers(&report, "calls").len(), 2000, "nothing is lost");
        assert_told(&report);
    }
}

#[test]
fn a_replaced_segment_is_put_back() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let log = session.log();
    for number in 0..1000 {
        assert_eq!(call(&log, number), Outcome::Kept);
    }
    session.flush().unwrap();
    let path = live(temp.path(), &session, 1);
    let other = temp.path().join("other");
    std::fs::write(&other, vec![7; 8 << 20]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let report = session.close().unwrap();
    check(temp.path(), &report, 1000);
    assert_eq!(numbers(&report, "calls").len(), 1000, "nothing is lost");
    assert_told(&report);
}

/// A sealed segment is nobody's but the directory's: what is lost with it is counted at the end.
#[test]
fn removed_and_cut_segments_that_were_sealed_are_counted() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let log = session.log();
    let mut pushed = 0;
    while !live(temp.path(), &session, 5).exists() {
        assert_eq!(call(&log, pushed), Outcome::Kept);
        pushed += 1;
        if pushed.is_multiple_of(100) {
            session.flush().unwrap();
        }
    }
    session.flush().unwrap();
    std::fs::remove_file(live(temp.path(), &session, 1)).unwrap();
    cut(&live(temp.path(), &session, 2), 1 << 20);
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    let calls = report.ledger.categories["calls"];
    assert_eq!(calls.offered(), pushed);
    assert_eq!(calls.written(), numbers(&report, "calls").len() as u64);
    let lost = calls.dropped(DropReason::Disk);
    assert_eq!(calls.written() + lost, pushed);
    assert!(lost > 0 && calls.written() > 0);
    assert_told(&report);
}

/// Bytes of the parts of the file with the rings, with the default settings
/// (docs/ARCHITECTURE.md, section 4.1).
const RING_FILE: [u64; 8] = [
    0, 4_096, 1_085_440, 3_182_592, 4_231_168, 8_425_472, 9_474_048, 26_251_264,
];

/// The text of a call: short, or so long that it takes chunks.
fn text_of(number: u64) -> String {
    let many = if number.is_multiple_of(97) { 9_000 } else { 10 };
    format!("{number}:").repeat(many)
}

/// Three threads push all the time while somebody cuts the file with the rings.
fn cut_rings(bytes: u64, guard: bool) {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .ring_storage(RingStorage::SessionDir)
        .sigbus_guard(guard)
        .start()
        .unwrap();
    let rings = session_dir(temp.path(), &session).join("rings");
    assert_eq!(std::fs::metadata(&rings).unwrap().len(), RING_FILE[7]);
    let stop = AtomicBool::new(false);
    let pushed = AtomicU64::new(0);
    let (kept, alarms) = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let log = session.log();
            let mut kept = Vec::new();
            while !stop.load(SeqCst) {
                let number = pushed.load(SeqCst);
                let outcome = log.push(&Call {
                    number,
                    text: &text_of(number),
                });
                kept.extend((outcome == Outcome::Kept).then_some(number));
                pushed.store(number + 1, SeqCst);
                if number.is_multiple_of(16) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            kept
        });
        let alarms: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let log = session.log();
                    let (mut number, mut lost) = (0, 0);
                    while !stop.load(SeqCst) {
                        lost += u64::from(log.push(&Alarm { number }) != Outcome::Kept);
                        number += 1;
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    (number, lost)
                })
            })
            .collect();
        let more = |many: u64| {
            let until = pushed.load(SeqCst) + many;
            let end = Instant::now() + Duration::from_secs(60);
            while pushed.load(SeqCst) < until {
                assert!(Instant::now() < end, "a producer hangs");
                std::thread::sleep(Duration::from_millis(1));
            }
            session.flush().unwrap();
        };
        more(2000);
        cut(&rings, bytes);
        more(2000);
        let settled = pushed.load(SeqCst);
        let log = session.log();
        for number in 0..200 {
            log.push(&Late {
                operation: symbol!("after_the_cut"),
                number,
            });
        }
        more(1000);
        stop.store(true, SeqCst);
        let mut kept = thread.join().unwrap();
        kept.retain(|number| *number >= settled);
        let alarms = alarms
            .into_iter()
            .map(|alarm| alarm.join().unwrap())
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        (kept, alarms)
    });
    let report = session.close().unwrap();
    check_cut_rings(temp.path(), &report, pushed.load(SeqCst), &kept, alarms);
}

/// `kept`: numbers that were kept after the writer had seen the loss.
fn check_cut_rings(
    dir: &Path,
    report: &CloseReport,
    pushed: u64,
    kept: &[u64],
    alarms: (u64, u64),
) {
    let ledger = &report.ledger;
    assert!(ledger.is_exact(), "{report:?}");
    let calls = ledger.categories["calls"];
    // What was offered within the last second before the cut may be unknown, and never more.
    assert!(calls.offered() <= pushed, "{pushed} {calls:?}");
    let found = numbers(report, "calls");
    assert_eq!(calls.written(), found.len() as u64, "{report:?}");
    let stress = report.files.iter().find(|file| file.category == "stress");
    let written = ledger.categories["stress"].written();
    assert_eq!(stress.map(|file| file.lines), Some(written), "{report:?}");
    assert!(written <= alarms.0 - alarms.1);
    // No line is torn.
    let file = report.files.iter().find(|file| file.category == "calls");
    for line in std::fs::read_to_string(&file.unwrap().path)
        .unwrap()
        .lines()
    {
        let line: Json = serde_json::from_str(line).unwrap();
        let number = line["number"].as_u64().unwrap();
        assert_eq!(line["text"], text_of(number), "{number}");
    }
    // Recording goes on as if nothing had happened.
    let found: BTreeSet<u64> = found.into_iter().collect();
    assert!(kept.len() >= 900, "{} {report:?}", kept.len());
    assert!(
        kept.iter().all(|number| found.contains(number)),
        "{report:?}"
    );
    let late = ledger.categories["process"];
    assert!(late.written() > 0 && late.written() <= 200, "{report:?}");
    let told = |fault: &&String| fault.contains("of the file of the rings");
    assert_eq!(report.faults.iter().filter(told).count(), 1, "{report:?}");
    assert!(report.faults.len() < 4, "{report:?}");
    let verify = Command::new(env!("CARGO_BIN_EXE_stormlog"))
        .arg("verify")
        .arg(dir.join(format!("{}_session.jsonl", report.session_id)))
        .output()
        .unwrap();
    assert!(
        matches!(verify.status.code(), Some(0 | 1)),
        "{verify:?} {report:?}"
    );
}

#[test]
fn a_cut_ring_file_kills_a_process_without_the_guard() {
    assert_killed("rings_bare");
}

#[test]
fn a_cut_ring_file_is_survived_and_counted_with_the_guard() {
    // At every border of a part, inside of each, and inside of a ring.
    let inside = RING_FILE[..7].iter().map(|start| start + 5_003);
    for bytes in RING_FILE[..7].iter().copied().chain(inside) {
        assert_lives(&format!("rings/{bytes}"));
    }
}
