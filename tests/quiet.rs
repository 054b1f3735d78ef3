//! Promise P1: a producer of normal records never allocates, never enters the kernel, never waits.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stormlog::record::{Category, Extra, ShortText, Symbol};
use stormlog::{Log, Outcome, Session};

stormlog::record! {
    struct Quiet in "performance" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        number: u64,
    }
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
    let session = Session::builder().dir(temp.path()).start().unwrap();
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
    let builder = Session::builder()
        .dir(temp.path())
        .ring_total_bytes(256 << 10);
    let session = builder.start().unwrap();
    let counts: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let spawn = |_| {
            let log = session.log();
            scope.spawn(move || {
                push(&log, 0);
                let before = voluntary_switches();
                let dropped = (0..300_000)
                    .filter(|number| matches!(push(&log, *number), Outcome::Dropped(_)))
                    .count();
                (voluntary_switches() - before, dropped as u64)
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
        (900_003, dropped)
    );
    for (switches, _) in counts {
        assert_eq!(switches, 0, "a producer waited");
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

/// How far the thread under the filter is: 1 done, 2 not started.
static DONE: AtomicU32 = AtomicU32::new(0);

/// Not a test of its own: see `producers_make_no_syscall`.
#[test]
fn child_without_syscalls() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let session = Session::builder().dir(temp.path()).start().unwrap();
    let open = Category::named("vpn").unwrap();
    let log = session.log();
    std::thread::spawn(move || {
        if !forbid_syscalls() {
            DONE.store(2, Ordering::Release);
            return;
        }
        push_all_kinds(&log, open, 500);
        DONE.store(1, Ordering::Release);
        // To leave, the thread would need the kernel.
        loop {
            std::hint::spin_loop();
        }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while DONE.load(Ordering::Acquire) == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    match DONE.load(Ordering::Acquire) {
        1 => {
            let report = session.close().unwrap();
            let written = |name: &str| report.ledger.categories[name].written();
            println!("{} + {} written", written("performance"), written("vpn"));
        }
        2 => println!("seccomp refused"),
        _ => println!("the producer was killed"),
    }
    drop(temp);
    std::process::exit(0);
}
