//! Promise P1: a producer of normal records never allocates, never enters the kernel, never waits.

#[path = "support/recording.rs"]
mod recording;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stormlog::context::Context;
use stormlog::ledger::DropReason;
use stormlog::record::{Category, Extra, ShortText, Symbol};
use stormlog::{CloseReport, Log, Outcome, Session};

stormlog::record! {
    struct Quiet in "performance" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        number: u64,
    }
}

stormlog::record! {
    struct Stress in "stress" keep Always { number: u64 }
}

stormlog::record! {
    /// Its category is not built in: the first push makes it known to the process.
    struct Fresh in "quiet_fresh" keep Always { number: u64 }
}

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "a counting allocator")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's requirements are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn push(log: &Log, number: u64) -> Outcome {
    log.push(&Quiet {
        operation: stormlog::symbol!("quiet_operation"),
        id: "0123456789ab",
        number,
    })
}

/// Every kind of push, the first of the thread, of the schema and of a symbol among them.
fn push_all_kinds(log: &Log, open: Category, count: u64) {
    for number in 0..count {
        assert_eq!(push(log, number), Outcome::Kept);
        let extras = [
            Extra::new("status", "healthy"),
            Extra::new(stormlog::symbol!("quiet_key"), number),
        ];
        assert_eq!(log.event(open, &extras), Outcome::Kept);
    }
    assert_eq!(log.push(&Fresh { number: count }), Outcome::Kept);
}

#[test]
fn pushes_do_not_allocate() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let open = Category::named("vpn").unwrap();
    let log = session.log();
    let allocated = std::thread::spawn(move || {
        let before = allocations();
        push_all_kinds(&log, open, 1000);
        allocations() - before
    });
    assert_eq!(allocated.join().unwrap(), 0);
    let report = session.close().unwrap();
    assert_eq!(report.ledger.categories["vpn"].written(), 1000);
}

/// In a scope, and with begin and end: nothing either, once the names are known to the process.
#[test]
fn scopes_and_operations_do_not_allocate() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path()).sampling(false);
    let session = builder.start().unwrap();
    let log = session.log();
    let step = |fails: bool| {
        let operation = log.performance().start("quiet_step");
        if fails {
            operation.fail("no engine is free", &[Extra::new("port", 1_u8)]);
        } else {
            operation.success(&[]);
        }
    };
    step(true);
    step(false);
    let allocated = std::thread::scope(|threads| {
        let run = || {
            let before = allocations();
            let context = Context::new().request_id("r1").thread().process();
            for number in 0..300 {
                let _scope = context.field("user", "ana").enter();
                assert_eq!(push(&log, number), Outcome::Kept);
                step(number % 2 == 0);
            }
            allocations() - before
        };
        threads.spawn(run).join().unwrap()
    });
    assert_eq!(allocated, 0);
    let report = session.close().unwrap();
    let account = report.ledger.categories["performance"];
    assert_eq!(account.offered(), 904);
}

/// Times that the calling thread gave the processor away by itself.
fn voluntary_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("voluntary_ctxt_switches"))
        .unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Far more records than the rings hold, as fast as possible: full rings drop, nobody waits.
#[test]
fn full_rings_do_not_make_producers_wait() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder()
        .dir(temp.path())
        .ring_total_bytes(256 << 10)
        .sampling(false);
    let session = builder.start().unwrap();
    let counts: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let spawn = |_| {
            let log = session.log();
            scope.spawn(move || {
                let push_all = |count| {
                    let dropped = |number: &u64| matches!(push(&log, *number), Outcome::Dropped(_));
                    (0..count).filter(dropped).count() as u64
                };
                // Its ring is taken, and all of it present, after some laps.
                let first = push_all(20_000);
                let before = voluntary_switches();
                let dropped = push_all(300_000);
                (voluntary_switches() - before, first + dropped)
            })
        };
        let threads: Vec<_> = (0..3).map(spawn).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let report = session.close().unwrap();
    let dropped: u64 = counts.iter().map(|count| count.1).sum();
    assert!(dropped > 0, "the test needs full rings");
    let account = report.ledger.categories["performance"];
    assert_eq!(
        (account.offered(), account.dropped_total()),
        (960_000, dropped)
    );
    for (switches, _) in counts {
        assert_eq!(switches, 0, "a producer waited");
    }
}

/// `Always` records of one thread that headroom and spill have room for in any case: the spill of
/// a session with the default settings has 2,048 slots, and at most three threads push.
const STRESS_KEPT: u64 = 600;
/// And so many of each that have none.
const STRESS_LOST: u64 = 100;

fn stress(log: &Log, number: u64) -> Outcome {
    log.push(&Stress { number })
}

/// How long the writer stands still: `STORMLOG_STALL_MS`, else as long as the pushes take.
fn stall() -> Duration {
    let ms = std::env::var("STORMLOG_STALL_MS").map_or(0, |ms| ms.parse().unwrap());
    Duration::from_millis(ms)
}

/// Full load on a ring that nobody drains, at least until `is_over`: the fixed number of normal
/// records fills the ring several times. `Always` records among them, as many as are promised a
/// place, and then more than there is room for. Returns the normal records and the lost ones.
///
/// Neither waits, allocates or looks at a clock: it runs under a filter that forbids syscalls.
fn storm(log: &Log, is_over: &AtomicU32) -> (u64, u64) {
    const NORMAL: u64 = 100_000;
    let mut normal = 0;
    while normal < NORMAL || is_over.load(Ordering::Acquire) == 0 {
        let kept =
            normal % (NORMAL / STRESS_KEPT) == 0 && normal / (NORMAL / STRESS_KEPT) < STRESS_KEPT;
        if kept {
            assert_eq!(stress(log, normal), Outcome::Kept, "lost within the budget");
        }
        let outcome = push(log, normal);
        assert!(
            matches!(
                outcome,
                Outcome::Kept | Outcome::SampledOut | Outcome::Dropped(DropReason::RingFull)
            ),
            "{outcome:?}"
        );
        normal += 1;
    }
    let mut number = normal;
    while stress(log, number) == Outcome::Kept {
        number += 1;
    }
    for _ in 1..STRESS_LOST {
        let outcome = stress(log, number);
        assert_eq!(outcome, Outcome::Dropped(DropReason::AlwaysBudget));
    }
    (normal, STRESS_LOST)
}

/// What the ledger must say after storms.
fn check_storms(report: &CloseReport, normal: u64, lost: u64) {
    assert!(report.ledger.is_exact());
    let account = report.ledger.categories["performance"];
    assert_eq!(account.offered(), normal);
    assert_eq!(
        account.dropped_total(),
        account.dropped(DropReason::RingFull)
    );
    assert!(account.sampled_out() > 0, "the rings react");
    let account = report.ledger.categories["stress"];
    assert_eq!(account.dropped(DropReason::AlwaysBudget), lost);
    assert_eq!(account.dropped_total(), lost);
    assert_eq!((report.always_lost, report.always_waits), (lost, 0));
    let sentence =
        format!("{lost} records that must always be kept were lost: {lost} always_budget");
    assert_eq!(report.faults, [sentence]);
}

/// The writer stands still under full load. Nobody waits for it; `Always` records find the room
/// that is stated, and past it every loss is counted.
#[test]
fn a_writer_that_stands_still_makes_no_producer_wait() {
    const THREADS: u64 = 3;
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path());
    let session = builder.always_wait_max(Duration::ZERO).start().unwrap();
    let is_over = AtomicU32::new(0);
    session.pause_writer();
    let counts: Vec<(u64, u64, u64)> = std::thread::scope(|scope| {
        let spawn = |_| {
            let (log, is_over) = (session.log(), &is_over);
            scope.spawn(move || {
                push(&log, 0);
                let before = voluntary_switches();
                let (normal, lost) = storm(&log, is_over);
                (voluntary_switches() - before, normal + 1, lost)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(spawn).collect();
        std::thread::sleep(stall());
        is_over.store(1, Ordering::Release);
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    });
    session.resume_writer();
    let report = session.close().unwrap();
    let normal = counts.iter().map(|count| count.1).sum();
    check_storms(&report, normal, THREADS * STRESS_LOST);
    for (switches, ..) in counts {
        assert!(switches <= report.wakes, "a producer waited");
    }
}

const CHILD: &str = "STORMLOG_TEST_SECCOMP_CHILD";

/// A child whose producer thread may make no syscall at all: the kernel kills it at the first.
/// The records stay below the eighth of the ring at which a sleeping writer would be woken.
#[test]
fn producers_make_no_syscall() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_without_syscalls", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("seccomp refused") {
        println!("skipped: this kernel has no seccomp filters");
        return;
    }
    assert!(
        text.contains("500 + 500 written"),
        "{:?}\n{text}",
        output.status
    );
}

/// Every further syscall of the calling thread ends it. False when the kernel refuses.
///
/// A filter of one instruction, because the strict mode forbids reading the counter too.
fn forbid_syscalls() -> bool {
    const RETURN_KILL_THREAD: [libc::sock_filter; 1] = [libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_KILL_THREAD,
    }];
    let mut filter = RETURN_KILL_THREAD;
    let program = libc::sock_fprog {
        len: 1,
        filter: filter.as_mut_ptr(),
    };
    #[expect(unsafe_code, reason = "there is no safe interface to filters")]
    // SAFETY: takes no pointer.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    #[expect(unsafe_code, reason = "there is no safe interface to filters")]
    // SAFETY: reads its arguments only; `program` and `filter` live until it returns, and the
    // kernel copies them.
    let filtered = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    promised == 0 && filtered == 0
}

/// The same while the writer stands still: two threads under the filter fill their rings and the
/// spill, and lose what has no room.
#[test]
fn producers_make_no_syscall_while_the_writer_stands_still() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_without_syscalls", "--nocapture"])
        .env(CHILD, "storm")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("seccomp refused") {
        println!("skipped: this kernel has no seccomp filters");
        return;
    }
    assert!(text.contains("0 wakes"), "{:?}\n{text}", output.status);
}

/// Threads under the filter that are done.
static DONE: AtomicU32 = AtomicU32::new(0);
/// Added for one that could not start.
const REFUSED: u32 = 1000;

/// Calls `produce` on a thread that may make no syscall, and says in [`DONE`] that it has returned.
fn spawn_under_filter(produce: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        if !forbid_syscalls() {
            DONE.fetch_add(REFUSED, Ordering::AcqRel);
            return;
        }
        produce();
        DONE.fetch_add(1, Ordering::AcqRel);
        // To leave, the thread would need the kernel.
        loop {
            std::hint::spin_loop();
        }
    });
}

/// Waits until so many threads under the filter are done; false when one was killed.
fn wait_for(threads: u32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30) + stall();
    while DONE.load(Ordering::Acquire) < threads && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    match DONE.load(Ordering::Acquire) {
        REFUSED.. => println!("seccomp refused"),
        done if done < threads => println!("a producer was killed"),
        _ => return true,
    }
    false
}

/// Not a test of its own: see `producers_make_no_syscall` and the one after it.
#[test]
fn child_without_syscalls() {
    let Ok(what) = std::env::var(CHILD) else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path());
    let session = builder.always_wait_max(Duration::ZERO).start().unwrap();
    if what == "storm" {
        storm_without_syscalls(session);
    } else {
        push_without_syscalls(session);
    }
    drop(temp);
    std::process::exit(0);
}

fn push_without_syscalls(session: Session) {
    let open = Category::named("vpn").unwrap();
    let log = session.log();
    spawn_under_filter(move || push_all_kinds(&log, open, 500));
    if wait_for(1) {
        let report = session.close().unwrap();
        let written = |name: &str| report.ledger.categories[name].written();
        println!("{} + {} written", written("performance"), written("vpn"));
    }
}

fn storm_without_syscalls(session: Session) {
    static IS_OVER: AtomicU32 = AtomicU32::new(0);
    static NORMAL: AtomicU64 = AtomicU64::new(0);
    static LOST: AtomicU64 = AtomicU64::new(0);
    session.pause_writer();
    for _ in 0..2 {
        let log = session.log();
        spawn_under_filter(move || {
            let (normal, lost) = storm(&log, &IS_OVER);
            NORMAL.fetch_add(normal, Ordering::AcqRel);
            LOST.fetch_add(lost, Ordering::AcqRel);
        });
    }
    std::thread::sleep(stall());
    IS_OVER.store(1, Ordering::Release);
    if wait_for(2) {
        session.resume_writer();
        let report = session.close().unwrap();
        let [normal, lost] = [&NORMAL, &LOST].map(|count| count.load(Ordering::Acquire));
        check_storms(&report, normal, lost);
        println!("{} wakes", report.wakes);
    }
}
