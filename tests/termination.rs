//! SIGTERM and SIGINT, closes from several places at once, and clocks that step: what the process
//! is told from outside.
//!
//! Parts that end their process are played by this binary again: see `child`.

#[path = "support/process.rs"]
mod process;
#[path = "support/recording.rs"]
mod recording;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use process::{Page, end, fork, lines, lock_dir, send, sessions_left, spawn, wait, wait_until};
use stormlog::segment::files::SessionFiles;
use stormlog::segment::layout::{CLOCK_MONOTONIC, FILE_HEADER_BYTES, FileHeader};
use stormlog::segment::survey::Survey;
use stormlog::signals::close_on_termination;
use stormlog::{CloseReport, Error, Log, Outcome, Session};

stormlog::record! {
    struct Step in "requests" keep Sampled { owner: u32, number: u64 }
}

const THREADS: u32 = 3;
/// Word of the page in which it says that a push returned `Closed`.
const CLOSED: usize = 16;

fn push(log: &Log, owner: u32, number: u64) -> Outcome {
    log.push(&Step { owner, number })
}

/// Records of one thread, each in the page when its push has returned, until the session is closed.
fn produce(log: &Log, owner: u32, page: &Page) {
    let mut kept = 0;
    loop {
        match push(log, owner, kept) {
            Outcome::Kept => {
                kept += 1;
                page.word(owner as usize).store(kept, Release);
            }
            Outcome::Closed => break,
            _ => {}
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    page.word(CLOSED).fetch_add(1, Release);
}

/// A service under load.
fn serve(deadline: Duration) -> ! {
    let builder = recording::builder().dir(".").sampling(false);
    let session = builder.close_deadline(deadline).start().unwrap();
    let _guard = close_on_termination(&[&session]).unwrap();
    for owner in 0..THREADS {
        let (log, page) = (session.log(), Page::open(Path::new(".")));
        std::thread::spawn(move || produce(&log, owner, &page));
    }
    loop {
        std::thread::park();
    }
}

fn is_busy(page: &Page) -> bool {
    (0..THREADS).all(|owner| page.word(owner as usize).load(Acquire) > 100)
}

/// Every record whose push had returned is in the lines, and at most one more of each thread.
fn check_lines(dir: &Path, page: &Page) {
    let lines = lines(dir, "requests");
    for owner in 0..THREADS {
        let told = page.word(owner as usize).load(Acquire);
        let own = lines.iter().filter(|line| line["owner"] == owner);
        let numbers: Vec<_> = own.map(|line| line["number"].as_u64().unwrap()).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
        let found = numbers.len() as u64;
        assert!(found == told || found == told + 1, "{found} {told}");
    }
}

#[test]
fn a_termination_signal_closes_the_session_and_ends_the_process_by_itself() {
    for (signal, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT")] {
        let temp = tempfile::tempdir().unwrap();
        let child = spawn("serve", temp.path());
        let page = Page::open(temp.path());
        wait_until("load", || is_busy(&page));
        send(child.id() as i32, signal);
        let (status, _, stderr) = end(child);
        assert_eq!(status.signal(), Some(signal), "{stderr}");
        assert_eq!(sessions_left(temp.path()), Vec::<std::path::PathBuf>::new());
        check_lines(temp.path(), &page);
        let last = lines(temp.path(), "session").pop().unwrap();
        assert_eq!(
            (&last["event"], &last["reason"]),
            (&"session_end".into(), &name.into())
        );
    }
}

/// The conversion is held up, so the close is certainly not done.
#[test]
fn a_second_signal_ends_the_process_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let child = spawn("serve-patiently", temp.path());
    let page = Page::open(temp.path());
    wait_until("load", || is_busy(&page));
    let left = sessions_left(temp.path());
    let held = lock_dir(&left[0]);
    send(child.id() as i32, libc::SIGTERM);
    wait_until("the close", || {
        page.word(CLOSED).load(Acquire) == u64::from(THREADS)
    });
    send(child.id() as i32, libc::SIGINT);
    let (status, _, stderr) = end(child);
    assert_eq!(status.signal(), Some(libc::SIGINT), "{stderr}");
    assert_eq!(sessions_left(temp.path()), left);
    drop(held);
}

/// The kernel does not end the first process of a container by the default action of a signal.
#[test]
fn the_first_process_of_a_container_exits_with_the_code_of_the_signal() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(process::ROLE, "serve")
        .current_dir(temp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("skipped: there is no unshare");
        return;
    };
    let page = Page::open(temp.path());
    wait_until("load", || {
        is_busy(&page) || child.try_wait().unwrap().is_some()
    });
    if child.try_wait().unwrap().is_some() {
        eprintln!("skipped: no pid namespace for us: {}", end(child).2);
        return;
    }
    let id = child.id();
    let first = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    send(first.trim().parse().unwrap(), libc::SIGTERM);
    let (status, _, stderr) = end(child);
    assert_eq!(status.code(), Some(128 + libc::SIGTERM), "{stderr}");
    check_lines(temp.path(), &page);
}

/// One process, because handlers are its: none behind its back, none beside another, none left.
#[test]
fn handlers_are_installed_when_asked_for_and_taken_back() {
    let temp = tempfile::tempdir().unwrap();
    let (status, _, stderr) = end(spawn("handlers", temp.path()));
    assert_eq!(status.code(), Some(0), "{stderr}");
}

fn handlers() -> ! {
    use process::{handler, set_handler};
    let both = || [libc::SIGTERM, libc::SIGINT].map(handler);
    let session = recording::builder().dir(".").start().unwrap();
    let log = session.log();
    assert_eq!(push(&log, 0, 0), Outcome::Kept);
    assert_eq!(both(), [libc::SIG_DFL; 2], "nobody asked");
    let guard = close_on_termination(&[&session]).unwrap();
    assert!(both().iter().all(|handler| *handler != libc::SIG_DFL));
    let second = close_on_termination(&[&session]);
    assert!(matches!(second, Err(Error::Signals { .. })), "{second:?}");
    // A child gets its own signal, and the session of its parent goes on.
    let child = fork(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    send(child, libc::SIGTERM);
    assert_eq!(wait(child).signal(), Some(libc::SIGTERM));
    // A child may end the guard that it inherited.
    let mut guard = Some(guard);
    let child = fork(|| {
        drop(guard.take());
        3
    });
    assert_eq!(wait(child).code(), Some(3));
    assert_eq!(push(&log, 0, 1), Outcome::Kept);
    drop(guard);
    assert_eq!(both(), [libc::SIG_DFL; 2]);
    // What is ignored stays ignored.
    set_handler(libc::SIGINT, libc::SIG_IGN);
    let guard = close_on_termination(&[&session]).unwrap();
    assert_eq!(handler(libc::SIGINT), libc::SIG_IGN);
    send(std::process::id() as i32, libc::SIGINT);
    assert_eq!(push(&log, 0, 2), Outcome::Kept);
    let report = session.close().unwrap();
    assert_eq!(report.ledger.categories["requests"].written(), 3);
    drop(guard);
    std::process::exit(0)
}

/// The program closes the session itself while signals come: it is closed once, and whole.
#[test]
fn a_close_and_a_signal_at_once_close_the_session_once() {
    for round in 0..3 {
        let temp = tempfile::tempdir().unwrap();
        let (status, _, stderr) = end(spawn("race", temp.path()));
        assert_eq!(status.signal(), Some(libc::SIGTERM), "{stderr}");
        assert!(!stderr.contains("stormlog"), "{stderr}");
        check_lines(temp.path(), &Page::open(temp.path()));
        let mut ends = lines(temp.path(), "session");
        ends.retain(|line| line["event"] == "session_end");
        assert_eq!(ends.len(), 1, "round {round}");
    }
}

fn race() -> ! {
    let builder = recording::builder().dir(".").sampling(false);
    let session = builder.start().unwrap();
    let guard = close_on_termination(&[&session]).unwrap();
    for owner in 0..THREADS {
        let (log, page) = (session.log(), Page::open(Path::new(".")));
        std::thread::spawn(move || produce(&log, owner, &page));
    }
    let page = Page::open(Path::new("."));
    wait_until("load", || is_busy(&page));
    std::thread::spawn(|| send(std::process::id() as i32, libc::SIGTERM));
    let report: CloseReport = session.close().unwrap();
    assert!(report.ledger.is_exact() && report.faults.is_empty());
    // Until the signal has come.
    wait_until("the signal", || {
        let is_handled = process::handler(libc::SIGTERM) != libc::SIG_DFL;
        std::thread::sleep(Duration::from_millis(50));
        !is_handled
    });
    drop(guard);
    std::process::exit(9)
}

/// The tool closes what it records, too.
#[test]
fn the_demo_closes_its_sessions_on_a_signal() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command
        .args(["demo", "--rate", "2000", "--records", "1000000", "--dir"])
        .arg(&dir);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    wait_until("a handler", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16).unwrap();
        caught & (1 << (libc::SIGTERM - 1)) != 0
    });
    // Signals come at any moment: here, when there is something to lose.
    wait_until("both sessions", || {
        let left = sessions_left(&dir);
        left.len() == 2 && left.iter().all(|dir| dir.join("000001.seg").exists())
    });
    send(child.id() as i32, libc::SIGTERM);
    let (ended, stdout, stderr) = end(child);
    assert_eq!(ended.signal(), Some(libc::SIGTERM), "{stdout}{stderr}");
    assert_eq!(
        sessions_left(&dir),
        Vec::<std::path::PathBuf>::new(),
        "{stderr}"
    );
    let mut ends = lines(&dir, "session");
    ends.retain(|line| line["event"] == "session_end");
    let reasons: Vec<_> = ends
        .iter()
        .map(|line| line["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons.len(), 2, "{stderr}");
    assert!(reasons.contains(&"SIGTERM"), "{reasons:?}");
}

/// The kernel refuses membarrier after the session has begun without fences: every heavy barrier
/// waits instead, and the close is exact.
#[test]
fn a_membarrier_that_is_refused_later_is_made_up_by_waiting() {
    let temp = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) = end(spawn("membarrier", temp.path()));
    assert_eq!(status.code(), Some(0), "{stderr}");
    if stdout.contains("no filters") {
        eprintln!("skipped: this kernel has no filters of system calls");
        return;
    }
    check_lines(temp.path(), &Page::open(temp.path()));
}

fn membarrier() -> ! {
    const FLUSHES: u32 = 40;
    let session = recording::builder()
        .dir(".")
        .sampling(false)
        .start()
        .unwrap();
    session.flush().unwrap();
    let workers: Vec<_> = (0..THREADS)
        .map(|owner| {
            let (log, page) = (session.log(), Page::open(Path::new(".")));
            std::thread::spawn(move || produce(&log, owner, &page))
        })
        .collect();
    let page = Page::open(Path::new("."));
    wait_until("load", || is_busy(&page));
    if process::refuse_membarrier() {
        let begin = Instant::now();
        for _ in 0..FLUSHES {
            session.flush().unwrap();
        }
        assert!(begin.elapsed() >= FLUSHES * Duration::from_millis(10));
    } else {
        println!("no filters");
    }
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    assert_eq!(report.faults, Vec::<String>::new());
    for worker in workers {
        worker.join().unwrap();
    }
    std::process::exit(0)
}

/// Elapsed seconds and UTC seconds of all lines of `requests`, in their order.
fn times(dir: &Path) -> Vec<(f64, String)> {
    let lines = lines(dir, "requests");
    lines
        .iter()
        .map(|line| {
            let elapsed = line["elapsed_seconds"].as_f64().unwrap();
            (elapsed, line["timestamp"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// Pushes records until what the segments of the session say is so.
fn push_until(session: &Session, what: &str, mut is_so: impl FnMut(&Survey) -> bool) {
    let dir = session.segment_dir().unwrap().to_owned();
    wait_until(what, || {
        assert_eq!(push(&session.log(), 0, 0), Outcome::Kept);
        session.flush().unwrap();
        let files = SessionFiles::find(&dir).unwrap();
        is_so(&Survey::new(&files[0], false).unwrap())
    });
}

/// UTC is set back by an hour in the middle: the lines stay in order, elapsed time goes on as if
/// nothing had happened, and timestamps show the step once.
#[test]
fn a_step_of_utc_neither_disorders_lines_nor_falsifies_elapsed_seconds() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let temp = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let started = Instant::now();
    push_until(&session, "a record", |survey| survey.span().is_some());
    session.shift_clocks(-HOUR_NS, 0);
    push_until(&session, "a clock point after the step", |survey| {
        let (start, _, last) = survey.span().unwrap();
        last.utc_ns < start.utc_ns
    });
    let lower = started.elapsed().as_secs_f64();
    assert_eq!(push(&session.log(), 0, 0), Outcome::Kept);
    let most = begin.elapsed().as_secs_f64();
    assert_eq!(session.close().unwrap().faults, Vec::<String>::new());
    let times = times(temp.path());
    assert!(times.is_sorted_by(|a, b| a.0 <= b.0), "elapsed falls");
    let newest = times.last().unwrap().0;
    // The rate of the counter is not known to the last digit.
    let within = lower * 0.99..=most * 1.01;
    assert!(within.contains(&newest), "{newest} of {within:?}");
    let steps = times.windows(2).filter(|pair| pair[1].1 < pair[0].1);
    assert_eq!(steps.count(), 1);
}

/// A counter that is set back, as some processors do when the machine is suspended, cannot be
/// mapped to time: the close says so.
#[test]
fn a_counter_that_is_set_back_is_told() {
    const TICKS: i64 = 1 << 40;
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    // Clock points by their ticks.
    let last = |survey: &Survey| survey.registry.clock_points.keys().last().copied();
    let mut before = None;
    push_until(&session, "a clock point", |survey| {
        before = last(survey);
        before.is_some()
    });
    session.shift_clocks(0, TICKS);
    push_until(&session, "a clock point of the larger counter", |survey| {
        last(survey) > before.map(|ticks| ticks + TICKS as u64)
    });
    session.shift_clocks(0, 0);
    let report = session.close().unwrap();
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert!(
        report.faults[0].contains("was set back"),
        "{:?}",
        report.faults
    );
    assert!(report.ledger.is_exact());
}

/// A processor without an invariant counter: the header says so, and all else is the same.
#[test]
fn without_an_invariant_counter_the_monotonic_clock_stamps() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path()).keep_segments(true);
    let begin = Instant::now();
    let session = builder.without_counter().start().unwrap();
    let segments = session.segment_dir().unwrap().to_owned();
    std::thread::scope(|scope| {
        for owner in 0..THREADS {
            let log = session.log();
            scope.spawn(move || {
                for number in 0..300 {
                    assert_eq!(push(&log, owner, number), Outcome::Kept);
                }
            });
        }
    });
    let report = session.close().unwrap();
    let took = begin.elapsed().as_secs_f64();
    assert_eq!(report.faults, Vec::<String>::new());
    let mut files = std::fs::read_dir(segments)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let first = files
        .find(|path| path.extension().is_some_and(|end| end == "seg"))
        .unwrap();
    let bytes = std::fs::read(first).unwrap();
    let header: FileHeader = stormlog::bytemuck::pod_read_unaligned(&bytes[..FILE_HEADER_BYTES]);
    assert_eq!(
        (header.clock_kind, header.ticks_per_second),
        (CLOCK_MONOTONIC, 1_000_000_000)
    );
    let found = lines(temp.path(), "requests");
    for owner in 0..THREADS {
        let own = found.iter().filter(|line| line["owner"] == owner);
        let numbers = own.map(|line| line["number"].as_u64().unwrap());
        assert!(numbers.eq(0..300), "of thread {owner}");
    }
    let times = times(temp.path());
    assert!(
        times.is_sorted(),
        "both times follow the order of the lines"
    );
    let (from, to) = (times[0].0, times.last().unwrap().0);
    // From before the start to behind the close.
    assert!(to > from && to <= took, "{from} {to} {took}");
}

/// Plays a part of a test above; not a test of its own.
#[test]
fn child() {
    let Ok(role) = std::env::var(process::ROLE) else {
        return;
    };
    process::take_interrupts();
    match role.as_str() {
        "serve" => serve(Duration::from_secs(60)),
        "serve-patiently" => serve(Duration::from_secs(300)),
        "handlers" => handlers(),
        "race" => race(),
        "membarrier" => membarrier(),
        role => panic!("no part {role}"),
    }
}
