//! What a session costs when there is little to do, and how long a record takes to reach the
//! segment: two sides of one choice, the longest wait of the writer. First as by default, then with
//! looks that are 8 ms apart whatever they cost.
//!
//! `cargo bench --bench idle`. Processor time is that of the whole process, and without the thread
//! that pushes; the latency is seen from outside, in the file, by pread.

#[path = "support/cpu.rs"]
mod cpu;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cpu::{process_cpu, thread_cpu};
use hdrhistogram::Histogram;
use stormlog::record::{Category, Extra};
use stormlog::{Conversion, Log, Outcome, Session};

/// Offset of the committed length in a segment, FORMAT.md section 4.
const HINT_OFFSET: u64 = 4096;

/// Context switches of all threads of the process so far.
fn switches() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a Linux system");
    let of_task = |path: &Path| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        let counts = lines.filter_map(|line| -> Option<u64> {
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        });
        counts.sum::<u64>()
    };
    tasks.flatten().map(|task| of_task(&task.path())).sum()
}

/// Processor time and context switches from here on.
struct Costs {
    start: Instant,
    process: Duration,
    own: Duration,
    switches: u64,
}

impl Costs {
    fn begin() -> Self {
        Self {
            start: Instant::now(),
            process: process_cpu(),
            own: thread_cpu(),
            switches: switches(),
        }
    }

    fn tell(&self, what: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let process = process_cpu().saturating_sub(self.process);
        let engine = process.saturating_sub(thread_cpu().saturating_sub(self.own));
        let percent = |time: Duration| time.as_secs_f64() / seconds * 100.0;
        println!(
            "{what}: {:.4} % of a core over {seconds:.1} s, {:.4} % without the thread that \
             pushes; {:.0} context switches per second of both",
            percent(process),
            percent(engine),
            (switches() - self.switches) as f64 / seconds
        );
    }
}

fn committed(segment: &File) -> u64 {
    let mut bytes = [0; 8];
    segment
        .read_exact_at(&mut bytes, HINT_OFFSET)
        .expect("the segment has a hint");
    u64::from_le_bytes(bytes)
}

/// Up to a minute, in ns. Its bounds are given, because a histogram without them clamps what
/// `saturating_record` brings to 2,047.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("three digits")
}

/// The first push of a thread: it takes a ring. One thread after the other, so that the figure is
/// that of the push and not of a fight for the processor.
fn first_push(session: &Session, threads: u64) {
    let vpn = Category::named("vpn").expect("a valid name");
    let mut latency = histogram();
    let mut second = histogram();
    for number in 0..threads {
        let log = session.log();
        let thread = std::thread::spawn(move || {
            let push = || {
                let start = Instant::now();
                let outcome = log.event(vpn, &[Extra::new("number", number)]);
                let elapsed = start.elapsed();
                assert_eq!(outcome, Outcome::Kept, "the subject works");
                elapsed.as_nanos() as u64
            };
            (push(), push())
        });
        let (first, next) = thread.join().expect("the push does not panic");
        latency.saturating_record(first);
        second.saturating_record(next);
    }
    println!(
        "first push of a thread: p50 {} ns, p99 {} ns, max {} ns; its second push: p50 {} ns; \
         {threads} threads, clock readings included",
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        latency.max(),
        second.value_at_quantile(0.5)
    );
}

/// The load of the first users: a burst of 74 records within 0.8 s, then 1 to 100 a second.
fn real_load(log: &Log, category: Category, seconds: u64) {
    let costs = Costs::begin();
    let mut pushed = 0_u64;
    let mut push = |pause| {
        let outcome = log.event(category, &[Extra::new("number", pushed)]);
        assert_eq!(outcome, Outcome::Kept, "the subject works");
        pushed += 1;
        std::thread::sleep(pause);
    };
    for _ in 0..74 {
        push(Duration::from_micros(10_800));
    }
    // Seconds of 1, 10 and 100 records in turn.
    for second in 0..seconds {
        let records = 10_u32.pow(second as u32 % 3);
        for _ in 0..records {
            push(Duration::from_secs(1) / records);
        }
    }
    costs.tell(&format!("real load, {pushed} records"));
}

/// So many records a second, after the time in which the writer uses up what it has saved.
fn even_load(log: &Log, category: Category, per_second: u32, smoke: bool) {
    let load = |seconds: u32| {
        for number in 0..per_second * seconds {
            let outcome = log.event(category, &[Extra::new("number", number)]);
            assert_eq!(outcome, Outcome::Kept, "the subject works");
            std::thread::sleep(Duration::from_secs(1) / per_second);
        }
    };
    let (before, seconds) = if smoke { (0, 1) } else { (8, 20) };
    load(before);
    let costs = Costs::begin();
    load(seconds);
    costs.tell(&format!("{per_second} a second"));
}

/// How long `count` records take to reach the segment, each after a pause that is out of step with
/// the waits of the writer.
fn latency(
    session: &Session,
    category: Category,
    (what, count): (&str, u64),
    pause: impl Fn(u64) -> Duration,
) {
    let log = session.log();
    let segments = session.segment_dir().expect("the session records");
    let segment = File::open(segments.join("000001.seg")).expect("the first segment");
    let mut latency = histogram();
    for number in 0..count {
        std::thread::sleep(pause(number));
        let before = committed(&segment);
        let start = Instant::now();
        let outcome = log.event(category, &[Extra::new("number", number)]);
        assert_eq!(outcome, Outcome::Kept, "the subject works");
        while committed(&segment) == before {
            std::thread::sleep(Duration::from_micros(50));
        }
        latency.saturating_record(start.elapsed().as_nanos() as u64);
    }
    println!(
        "{what} to segment: p50 {} us, p99 {} us, max {} us, {count} records",
        latency.value_at_quantile(0.5) / 1000,
        latency.value_at_quantile(0.99) / 1000,
        latency.max() / 1000
    );
}

/// A session at rest, at the real load, and with records that somebody waits for.
fn measure(drain_wait_max: Option<Duration>, smoke: bool) {
    let (idle, count) = if smoke { (1, 4_u64) } else { (20, 74) };
    let dir = std::env::temp_dir().join(format!("stormlog-idle-{}", std::process::id()));
    let mut builder = Session::builder()
        .keep_free_bytes(0)
        .dir(&dir)
        .conversion(Conversion::Later);
    if let Some(wait) = drain_wait_max {
        builder = builder.drain_wait_max(wait);
    }
    let session = builder
        .start()
        .expect("the temporary directory can be written");
    let log = session.log();
    let vpn = Category::named("vpn").expect("a valid name");
    std::thread::sleep(Duration::from_secs(1));

    let costs = Costs::begin();
    std::thread::sleep(Duration::from_secs(idle));
    costs.tell("idle");
    real_load(&log, vpn, idle);
    // A burst comes after a rest.
    std::thread::sleep(Duration::from_secs(if smoke { 0 } else { 30 }));
    latency(&session, vpn, ("record of a burst", count), |number| {
        Duration::from_micros(2_000 + number * 7919 % 11_000)
    });
    latency(&session, vpn, ("lone record", count / 4), |number| {
        Duration::from_micros(1_100_000 + number * 7919 % 23_000)
    });
    latency(&session, vpn, ("30 a second, record", count), |number| {
        Duration::from_micros(20_000 + number * 7919 % 23_000)
    });
    even_load(&log, vpn, 500, smoke);
    if drain_wait_max.is_none() {
        first_push(&session, if smoke { 5 } else { 500 });
    }
    let report = session.close().expect("the writer ran");
    assert_eq!(report.ledger.total().dropped_total(), 0, "nothing was lost");
    std::fs::remove_dir_all(dir).expect("the bench's own directory");
}

fn main() {
    let smoke = std::env::args().any(|arg| arg == "--test");
    println!("-- as by default");
    measure(None, smoke);
    println!("-- looks 8 ms apart");
    measure(Some(Duration::from_millis(8)), smoke);
}
