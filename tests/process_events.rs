//! What becomes of sessions when the process forks, executes another program, panics, exits, or
//! loses threads: the table in docs/ARCHITECTURE.md, row by row.
//!
//! Parts that end their process are played by this binary again: see `child`.

#[path = "support/acting.rs"]
mod acting;
#[path = "support/process.rs"]
mod process;
#[path = "support/recording.rs"]
mod recording;

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use acting::Acting;
use process::{Page, convert_rest, end, exit_now, fork, lines, sessions_left, spawn, wait};
use stormlog::ledger::DropReason;
use stormlog::record::{KeepClass, SchemaDef};
use stormlog::recover::{RecoverOptions, RecoverReport, State, recover_session, session_ids};
use stormlog::segment::files::{Liveness, is_live};
use stormlog::{Log, Outcome, RingStorage, Session};

stormlog::record! {
    struct Step in "requests" keep Sampled { owner: u32, number: u64 }
}

fn push(log: &Log, owner: u32, number: u64) -> Outcome {
    log.push(&Step { owner, number })
}

/// Numbers of the lines of one owner.
fn numbers(dir: &Path, owner: u32) -> Vec<u64> {
    let lines = lines(dir, "requests").into_iter();
    let own = lines.filter(|line| line["owner"] == owner);
    own.map(|line| line["number"].as_u64().unwrap()).collect()
}

fn start(dir: &Path, storage: RingStorage) -> Session {
    let builder = recording::builder().dir(dir).ring_storage(storage);
    builder.sampling(false).start().unwrap()
}

/// A forked child: a session of its own in `dir`, complete to the last record. 0 = all well.
fn record_alone(dir: &Path) -> i32 {
    let session = start(dir, RingStorage::Anonymous);
    let kept = (0..200).all(|number| push(&session.log(), 7, number) == Outcome::Kept);
    let report = session.close().unwrap();
    let written = report.ledger.categories["requests"].written();
    i32::from(!(kept && written == 200 && report.faults.is_empty() && report.ledger.is_exact()))
}

/// Recovers the only session of a log directory, and converts it.
fn recover_only(dir: &Path) -> RecoverReport {
    let ids = session_ids(dir).unwrap();
    assert_eq!(ids.len(), 1);
    let report = recover_session(dir, &ids[0], RecoverOptions::default()).unwrap();
    assert_eq!(report.state, State::Recovered, "{:?}", report.faults);
    convert_rest(dir);
    report
}

/// Threads of the parent hold what the library locks while it forks: the list of locks of sessions,
/// and the lock of standard error. A child that waited for one of them would wait for ever.
#[test]
fn a_child_records_whatever_its_parents_threads_held_at_the_fork() {
    let temp = tempfile::tempdir().unwrap();
    let own = start(&temp.path().join("parent"), RingStorage::Anonymous);
    let looked_at = own.segment_dir().unwrap().to_owned();
    let is_over = AtomicBool::new(false);
    let codes: Vec<_> = std::thread::scope(|scope| {
        // Each look holds the list while it reads a directory.
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    assert!(matches!(is_live(&looked_at), Liveness::Live { .. }));
                }
            });
        }
        let held = std::io::stderr().lock();
        let codes = (0..15).map(|round| {
            let dir = temp.path().join(format!("child{round}"));
            let pid = fork(|| {
                // Says that the parent's session is not taken, past the lock of the parent.
                let refused = push(&own.log(), 0, 0);
                record_alone(&dir) | i32::from(refused != Outcome::Disabled) << 1
            });
            wait(pid)
        });
        let codes = codes.collect();
        drop(held);
        is_over.store(true, Relaxed);
        codes
    });
    let ends: Vec<_> = codes.iter().map(std::process::ExitStatus::code).collect();
    assert_eq!(ends, [Some(0); 15]);
    let report = own.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
}

/// The first session of a process measures the clock and asks for membarrier.
#[test]
fn a_child_records_that_was_forked_while_the_first_session_began() {
    for round in 0..4 {
        let temp = tempfile::tempdir().unwrap();
        let child = spawn("first", temp.path());
        let (status, _, stderr) = end(child);
        assert_eq!(status.code(), Some(0), "round {round}: {stderr}");
    }
}

fn first() -> ! {
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            begun.store(true, Release);
            start(Path::new("parent"), RingStorage::Anonymous)
        });
        while !begun.load(Acquire) {
            std::hint::spin_loop();
        }
        let pids: Vec<_> = (0..8)
            .map(|number| {
                std::thread::sleep(Duration::from_micros(300));
                fork(|| record_alone(&Path::new("children").join(number.to_string())))
            })
            .collect();
        for pid in pids {
            assert_eq!(wait(pid).code(), Some(0));
        }
        started.join().unwrap().close().unwrap();
    });
    std::process::exit(0)
}

/// Workers that are forked under load record into sessions of their own, some into the log
/// directory of the parent. Neither side has a record of the other.
#[test]
fn forks_under_load_mix_no_records() {
    for storage in [RingStorage::Anonymous, RingStorage::SessionDir] {
        let temp = tempfile::tempdir().unwrap();
        let session = start(temp.path(), storage);
        let own_file = format!("{}_requests.jsonl", session.id());
        let is_over = AtomicBool::new(false);
        let (kept, codes) = std::thread::scope(|scope| {
            let produce = |thread: u32| {
                let (log, is_over) = (session.log(), &is_over);
                scope.spawn(move || {
                    let outcomes = (0..).take_while(|_| !is_over.load(Relaxed));
                    // Not at full speed: all of it is converted and read at the end.
                    let kept = outcomes.filter(|n| {
                        std::thread::sleep(Duration::from_micros(20));
                        push(&log, thread, *n) == Outcome::Kept
                    });
                    kept.count() as u64
                })
            };
            let threads: Vec<_> = (0..2).map(produce).collect();
            let fork_one = |_| fork(|| record_alone(temp.path()));
            let pids: Vec<_> = (0..6).map(fork_one).collect();
            let codes: Vec<_> = pids.into_iter().map(|pid| wait(pid).code()).collect();
            is_over.store(true, Relaxed);
            let kept = threads.into_iter().map(|thread| thread.join().unwrap());
            (kept.sum::<u64>(), codes)
        });
        assert_eq!(codes, [Some(0); 6]);
        let report = session.close().unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        assert!(report.ledger.is_exact());
        assert_eq!(report.ledger.categories["requests"].written(), kept);
        assert_eq!(numbers(temp.path(), 7).len(), 6 * 200);
        let own = std::fs::read_to_string(temp.path().join(own_file)).unwrap();
        assert_eq!(own.lines().count() as u64, kept);
        assert!(
            !own.contains("\"owner\":7"),
            "a child's record in the parent's file"
        );
    }
}

static ACTING: SchemaDef = SchemaDef::new("Acting", "requests", KeepClass::Sampled, &[], 0, None);

/// A fork after which the child simply goes on.
fn fork_here() -> i32 {
    #[expect(unsafe_code, reason = "the standard library cannot fork")]
    // SAFETY: the child goes on with a push, and ends behind it.
    unsafe {
        libc::fork()
    }
}

/// The child goes on with the push that its parent is in. With rings in memory it writes into its
/// copy; with rings in a file there is no mapping in it, and it ends.
#[test]
fn a_child_that_goes_on_with_its_parents_push_does_not_reach_the_parents_rings() {
    for storage in [RingStorage::Anonymous, RingStorage::SessionDir] {
        let temp = tempfile::tempdir().unwrap();
        let session = start(temp.path(), storage);
        let log = session.log();
        assert_eq!(push(&log, 0, 0), Outcome::Kept);
        let parent = std::process::id();
        let ended = Cell::new(None);
        let outcome = log.push(&Acting::first(&ACTING, || {
            let pid = fork_here();
            if std::process::id() == parent {
                // The child goes on first.
                let status = wait(pid);
                ended.set(Some((status.code(), status.signal())));
            }
        }));
        if std::process::id() != parent {
            exit_now(i32::from(push(&log, 0, 9) != Outcome::Disabled));
        }
        assert_eq!(outcome, Outcome::Kept);
        let expected = match storage {
            RingStorage::Anonymous => (Some(0), None),
            _ => (None, Some(libc::SIGSEGV)),
        };
        assert_eq!(ended.get(), Some(expected), "{storage:?}");
        assert_eq!(push(&log, 0, 1), Outcome::Kept);
        let report = session.close().unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        assert!(report.ledger.is_exact());
        assert_eq!(report.ledger.categories["requests"].written(), 3);
    }
}

/// Programs that are started (vfork or `posix_spawn`) inherit no file of the session.
#[test]
fn started_programs_do_not_disturb_and_inherit_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let session = start(temp.path(), RingStorage::SessionDir);
    let log = session.log();
    for number in 0..20 {
        assert_eq!(push(&log, 0, number), Outcome::Kept);
        let listed = Command::new("ls").args(["-l", "/proc/self/fd"]).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        assert!(listed.contains(" -> "), "{listed}");
        assert!(!listed.contains(temp.path().to_str().unwrap()), "{listed}");
    }
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!(numbers(temp.path(), 0), (0..20).collect::<Vec<_>>());
}

/// The process goes on as another program: its session is dead at once, and whole.
#[test]
fn a_session_whose_process_executes_another_program_is_dead_and_recoverable() {
    let temp = tempfile::tempdir().unwrap();
    let mut child = spawn("exec", temp.path());
    let mut said = [0; 9];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    assert_eq!(&said, b"replaced\n");
    let left = sessions_left(temp.path());
    assert_eq!(left.len(), 1);
    assert_eq!(is_live(&left[0]), Liveness::Dead);
    let report = recover_only(temp.path());
    assert!(report.ledger.is_exact());
    assert_eq!(numbers(temp.path(), 0), (0..1000).collect::<Vec<_>>());
    assert!(child.try_wait().unwrap().is_none(), "it lives all the time");
    drop(child.stdin.take());
    assert_eq!(end(child).0.code(), Some(0));
}

fn exec() -> ! {
    let session = start(Path::new("."), RingStorage::SessionDir);
    for number in 0..1000 {
        assert_eq!(push(&session.log(), 0, number), Outcome::Kept);
    }
    let error = Command::new("sh")
        .args(["-c", "echo replaced >&2; cat"])
        .exec();
    panic!("{error}")
}

/// A service that starts its session before it becomes a daemon: the daemon is told, once; what was
/// recorded before is recoverable; a session of its own is whole.
#[test]
fn a_daemon_starts_its_own_session() {
    let temp = tempfile::tempdir().unwrap();
    let (status, _, stderr) = end(spawn("daemon", temp.path()));
    assert_eq!(status.code(), Some(0), "{stderr}");
    let page = Page::open(temp.path());
    process::wait_until("the daemon", || page.word(0).load(Acquire) > 0);
    assert_eq!(page.word(0).load(Acquire), 1, "{stderr}");
    // The daemon ends after its parent; standard error was open until then.
    let told = stderr
        .matches("this process was forked while a session was open")
        .count();
    assert_eq!(told, 1, "{stderr}");
    assert_eq!(numbers(&temp.path().join("own"), 7).len(), 200);
    recover_only(temp.path());
    assert_eq!(numbers(temp.path(), 0), (0..100).collect::<Vec<_>>());
}

fn daemon() -> ! {
    let session = start(Path::new("."), RingStorage::SessionDir);
    let log = session.log();
    for number in 0..100 {
        assert_eq!(push(&log, 0, number), Outcome::Kept);
    }
    let page = Page::open(Path::new("."));
    let middle = fork(|| {
        process::setsid();
        fork(|| {
            let refused = (0..5).all(|number| push(&log, 0, number) == Outcome::Disabled);
            let code = record_alone(Path::new("own")) + i32::from(!refused);
            page.word(0).store(1 + code as u64, Release);
            code
        });
        0
    });
    wait(middle);
    std::process::exit(0)
}

/// Pushes when its thread ends.
struct LastWords {
    log: Log,
    number: u64,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let outcomes = (0..3).map(|n| push(&self.log, 1, self.number + n));
        self.outcomes.lock().unwrap().extend(outcomes);
    }
}

thread_local! {
    static BEFORE: RefCell<Option<LastWords>> = const { RefCell::new(None) };
    static AFTER: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

/// Destructors of thread-locals that are older and younger than ours push, and are written.
#[test]
fn destructors_of_thread_locals_push_before_and_after_ours() {
    let temp = tempfile::tempdir().unwrap();
    let session = start(temp.path(), RingStorage::Anonymous);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let log = session.log();
    let words = |number| LastWords {
        log: session.log(),
        number,
        outcomes: Arc::clone(&outcomes),
    };
    let (before, after) = (words(0), words(10));
    let thread = std::thread::spawn(move || {
        BEFORE.set(Some(before));
        assert_eq!(push(&log, 0, 0), Outcome::Kept);
        AFTER.set(Some(after));
        push(&log, 0, 1)
    });
    assert_eq!(thread.join().unwrap(), Outcome::Kept);
    assert_eq!(*outcomes.lock().unwrap(), [Outcome::Kept; 6]);
    // Threads of which each pushes for the first time when it ends.
    for number in 0..50 {
        let word = words(100 + 10 * number);
        std::thread::spawn(move || BEFORE.set(Some(word)))
            .join()
            .unwrap();
    }
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.ledger.is_exact());
    let found = numbers(temp.path(), 1);
    assert_eq!(found.len(), 6 + 150);
    assert!(
        outcomes
            .lock()
            .unwrap()
            .iter()
            .all(|outcome| *outcome == Outcome::Kept)
    );
}

/// Threads push while the process exits without a close, its exit handlers too. Rings in a file:
/// every record whose push had returned is there. In memory: what was flushed is.
#[test]
fn an_exit_without_close_keeps_what_was_promised() {
    for (role, storage) in [
        ("exit", RingStorage::SessionDir),
        ("exit-memory", RingStorage::Anonymous),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let (status, _, stderr) = end(spawn(role, temp.path()));
        assert_eq!(status.code(), Some(3), "{stderr}");
        let page = Page::open(temp.path());
        recover_only(temp.path());
        for owner in 0..3 {
            let told = page.word(owner as usize).load(Acquire);
            let found = numbers(temp.path(), owner);
            assert!(told > 0);
            assert!(found.is_sorted() && found.first() == Some(&0));
            match storage {
                RingStorage::Anonymous => assert!(found.len() as u64 >= FLUSHED, "{told}"),
                _ => assert!(found.len() as u64 >= told, "{told}"),
            }
        }
        assert_eq!(page.word(8).load(Acquire), 4, "pushes of the exit handler");
        if storage == RingStorage::SessionDir {
            assert_eq!(numbers(temp.path(), 9), [0, 1, 2, 3]);
        }
    }
}

/// Records of each thread before the flush.
const FLUSHED: u64 = 100;
static AT_EXIT: OnceLock<(Log, Page)> = OnceLock::new();

extern "C" fn at_exit() {
    let (log, page) = AT_EXIT.get().unwrap();
    let kept = (0..4).filter(|number| push(log, 9, *number) == Outcome::Kept);
    page.word(8).store(kept.count() as u64, Release);
}

fn exit(storage: RingStorage) -> ! {
    let session = start(Path::new("."), storage);
    assert!(
        AT_EXIT
            .set((session.log(), Page::open(Path::new("."))))
            .is_ok()
    );
    #[expect(unsafe_code, reason = "the standard library has no exit handlers")]
    // SAFETY: a function without arguments that lives for ever.
    let registered = unsafe { libc::atexit(at_exit) };
    assert_eq!(registered, 0);
    for owner in 0..3 {
        let (log, page) = (session.log(), Page::open(Path::new(".")));
        std::thread::spawn(move || {
            let mut kept = 0;
            loop {
                // Number and count agree, because only what was kept is counted on.
                if push(&log, owner, kept) == Outcome::Kept {
                    kept += 1;
                    page.word(owner as usize).store(kept, Release);
                }
                std::thread::sleep(Duration::from_micros(20));
            }
        });
    }
    let page = Page::open(Path::new("."));
    let told = || (0..3).map(|owner| page.word(owner).load(Acquire)).min();
    process::wait_until("records", || told() >= Some(FLUSHED));
    session.flush().unwrap();
    std::mem::forget(session);
    std::process::exit(3)
}

/// Main returns while threads push: the drop of the session closes it.
#[test]
fn a_main_that_returns_while_threads_push_closes_its_session() {
    let temp = tempfile::tempdir().unwrap();
    let (status, _, stderr) = end(spawn("main-returns", temp.path()));
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(
        sessions_left(temp.path()),
        Vec::<std::path::PathBuf>::new(),
        "{stderr}"
    );
    let page = Page::open(temp.path());
    for owner in 0..3 {
        // The process may have ended between a push and its number in the page.
        let told = page.word(owner as usize).load(Acquire);
        let found = numbers(temp.path(), owner).len() as u64;
        assert!(found == told || found == told + 1, "{found} {told}");
    }
    assert_eq!(
        lines(temp.path(), "session").last().unwrap()["reason"],
        "drop"
    );
}

fn main_returns() -> ! {
    let session = start(Path::new("."), RingStorage::Anonymous);
    for owner in 0..3 {
        let (log, page) = (session.log(), Page::open(Path::new(".")));
        std::thread::spawn(move || {
            let mut kept = 0;
            while push(&log, owner, kept) != Outcome::Closed {
                kept += 1;
                page.word(owner as usize).store(kept, Release);
                std::thread::sleep(Duration::from_micros(20));
            }
        });
    }
    let page = Page::open(Path::new("."));
    process::wait_until("records", || {
        (0..3).all(|owner| page.word(owner).load(Acquire) > 100)
    });
    drop(session);
    std::process::exit(0)
}

/// A panic hook that logs, in a thread that panics between pushes and in one that panics in a push;
/// then the session is dropped by a panic, and the process ends by a second one.
#[test]
fn panics_are_logged_and_lose_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = end(spawn("panics", temp.path()));
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{stdout}{stderr}");
    let mut ledgers = lines(temp.path(), "session");
    ledgers.retain(|line| line["event"] == "session_end");
    assert_eq!(ledgers.len(), 1, "the session that was dropped");
    let account = &ledgers[0]["ledger"]["requests"];
    // 2 of threads and 2 of the hook; the third of the hook came inside a push.
    assert_eq!(
        (&account["written"], &account["interrupted"]),
        (&4.into(), &1.into())
    );
    assert_eq!(
        account["dropped"][DropReason::Reentrant.name()],
        1,
        "{account}"
    );
    assert_eq!(ledgers[0]["reason"], "drop");
    let report = recover_only(temp.path());
    assert!(report.ledger.is_exact());
    assert_eq!(numbers(temp.path(), 5), (0..100).collect::<Vec<_>>());
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("the second one")
    }
}

fn panics() -> ! {
    static HOOK: Mutex<Option<Log>> = Mutex::new(None);
    std::panic::set_hook(Box::new(|_| {
        let log = HOOK.lock().unwrap().clone();
        if let Some(log) = log {
            push(&log, 2, 0);
        }
    }));
    let session = start(Path::new("."), RingStorage::Anonymous);
    *HOOK.lock().unwrap() = Some(session.log());
    let log = session.log();
    let between = std::thread::spawn(move || {
        push(&log, 1, 0);
        panic!("between pushes")
    });
    assert!(between.join().is_err());
    let log = session.log();
    let inside = std::thread::spawn(move || {
        push(&log, 1, 1);
        log.push(&Acting::first(&ACTING, || panic!("in a push")))
    });
    assert!(inside.join().is_err());
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        let _session = session;
        panic!("drops the session")
    }));
    assert!(dropped.is_err());
    *HOOK.lock().unwrap() = None;
    let last = start(Path::new("."), RingStorage::SessionDir);
    for number in 0..100 {
        push(&last.log(), 5, number);
    }
    let _second = PanicsWhenDropped;
    panic!("the first one")
}

/// A push closes the session that it belongs to: the close waits for it in vain, and goes on.
#[test]
fn a_close_inside_a_push_ends_and_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let session = start(temp.path(), RingStorage::Anonymous);
    let log = session.log();
    assert_eq!(push(&log, 0, 0), Outcome::Kept);
    let (session, report) = (Cell::new(Some(session)), Cell::new(None));
    let outcome = log.push(&Acting::first(&ACTING, || {
        let session = session.take().unwrap();
        report.set(Some(session.close().unwrap()));
    }));
    // Its ring took it, but nobody drains it any more.
    assert_eq!(outcome, Outcome::Kept);
    let report = report.take().unwrap();
    let fault = "1 threads were inside a push and did not leave it";
    assert_eq!(report.faults, [fault]);
    assert!(report.ledger.is_exact());
    let account = report.ledger.categories["requests"];
    assert_eq!((account.written(), account.interrupted()), (1, 1));
    assert_eq!(push(&log, 0, 2), Outcome::Closed);
}

/// Plays a part of a test above; not a test of its own.
#[test]
fn child() {
    let Ok(role) = std::env::var(process::ROLE) else {
        return;
    };
    match role.as_str() {
        "first" => first(),
        "exec" => exec(),
        "daemon" => daemon(),
        "exit" => exit(RingStorage::SessionDir),
        "exit-memory" => exit(RingStorage::Anonymous),
        "main-returns" => main_returns(),
        "panics" => panics(),
        role => panic!("no part {role}"),
    }
}
