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
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::ledger::DropReason;
use stormlog::record::LongText;
use stormlog::{CloseReport, Log, Outcome, SegmentSink, Session, SessionBuilder};

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

#[test]
fn a_cut_segment_kills_a_process_without_the_guard() {
    assert_killed("cut/bare");
}

#[test]
fn a_cut_segment_is_survived_and_counted_with_the_guard() {
    assert_lives("cut/guard");
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
