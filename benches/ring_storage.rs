//! What a push costs by where the rings are (`ring_storage`), its tail above all: a page of a
//! file is write-protected when it is written back, and the next store into it faults.
//!
//! `cargo bench --bench ring_storage`. One session per storage in one process; all are pushed to in
//! turn, in an order that changes with each round, so that what the machine does meanwhile meets
//! all of them. Scenarios:
//!
//! - `full`: batches of pushes into drained rings, one behind the other.
//! - `sparse`: threads with a ring of their own each, which push now and then. Many of these pushes
//!   are the first one after a page was written back.
//! - `busy`: another process writes 300 MB/s into the same file system and syncs its file.
//! - `sync`: it syncs the whole file system each second besides, the rings with it.
//!
//! `BENCH_DIR` is the directory (default: that of temporary files), `BENCH_SECONDS` the time of
//! each scenario (default 60), `BENCH_ONLY` a part of the names of those that are to run.

#[path = "support/counter.rs"]
mod counter;
#[path = "support/record_a.rs"]
mod record_a;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use counter::counter;
use hdrhistogram::Histogram;
use record_a::push_a;
use stormlog::{Conversion, Log, Outcome, RingStorage, Session};

/// Tells the process that it is the foreign one, and where it writes.
const FOREIGN: &str = "BENCH_FOREIGN";
const FOREIGN_BYTES_PER_SECOND: u64 = 300_000_000;
const FOREIGN_FILE_BYTES: u64 = 1 << 30;
/// Pushes of one turn: well below what a ring takes without its headroom.
const BATCH: u64 = 3000;
const STORAGES: [(&str, RingStorage); 3] = [
    ("anonymous", RingStorage::Anonymous),
    ("session_dir", RingStorage::SessionDir),
    ("shm", RingStorage::Shm),
];

/// Nanoseconds per tick of [`counter`].
fn tick_ns() -> f64 {
    let (start, ticks) = (Instant::now(), counter());
    std::thread::sleep(Duration::from_millis(50));
    start.elapsed().as_nanos() as f64 / (counter() - ticks) as f64
}

/// What was seen of one storage in one scenario.
struct Seen {
    /// Ticks of single pushes.
    single: Histogram<u64>,
    /// Ns per push of whole batches, without a reading of the counter between.
    batches: Vec<f64>,
    lost: u64,
}

impl Seen {
    fn new() -> Self {
        Self {
            single: Histogram::new_with_bounds(1, 1 << 40, 3).expect("three digits"),
            batches: Vec::new(),
            lost: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.single.add(&other.single).expect("equal bounds");
        self.batches.extend(&other.batches);
        self.lost += other.lost;
    }

    fn timed_push(&mut self, log: &Log, number: u64) {
        let start = counter();
        let outcome = push_a(log, number);
        let ticks = counter() - start;
        self.lost += u64::from(outcome != Outcome::Kept);
        self.single.saturating_record(ticks);
    }

    /// The median of the batches.
    fn batch_p50(&mut self) -> Option<f64> {
        self.batches.sort_unstable_by(f64::total_cmp);
        self.batches.get(self.batches.len() / 2).copied()
    }
}

struct Subject {
    name: &'static str,
    session: Session,
}

fn start(dir: &Path) -> Vec<Subject> {
    let start = |(name, storage)| {
        let builder = Session::builder()
            .keep_free_bytes(0)
            .dir(dir.join(name))
            .conversion(Conversion::Later)
            .segment_bytes(16 << 20)
            // The bench keeps no more than a few segments.
            .keep_free_bytes(0)
            .sampling(false)
            .ring_storage(storage);
        let session = builder.start().expect("the directory can be written");
        Subject { name, session }
    };
    STORAGES.map(start).into()
}

/// Segments are removed while the bench runs, as they would fill the disk.
fn tidy_up(subjects: &[Subject]) {
    for subject in subjects {
        let dir = subject.session.segment_dir().expect("the session records");
        let entries = std::fs::read_dir(dir).expect("the directory of the session");
        let mut segments: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        segments.sort_unstable();
        // The open one, the next one, and one that the helper may be cutting.
        let old = segments.len().saturating_sub(4);
        for path in &segments[..old] {
            std::fs::remove_file(path).expect("a segment of this bench");
        }
    }
}

/// One thread, at full speed.
fn full(subjects: &[Subject], time: Duration, tick_ns: f64) -> Vec<Seen> {
    if let Some(core) = core_affinity::get_core_ids().and_then(|ids| ids.first().copied()) {
        core_affinity::set_for_current(core);
    }
    let logs: Vec<Log> = subjects
        .iter()
        .map(|subject| subject.session.log())
        .collect();
    let mut seen: Vec<Seen> = subjects.iter().map(|_| Seen::new()).collect();
    let start = Instant::now();
    let mut round = 0;
    // The first rounds take rings and fill caches.
    let warm_up = 3;
    while start.elapsed() < time || round <= warm_up {
        for turn in 0..subjects.len() {
            let index = (turn + round) % subjects.len();
            let (log, seen) = (&logs[index], &mut seen[index]);
            let flush = || subjects[index].session.flush().expect("the writer runs");
            flush();
            if round < warm_up {
                for number in 0..BATCH {
                    black_box(push_a(log, number));
                }
                continue;
            }
            let begin = counter();
            for number in 0..BATCH {
                seen.lost += u64::from(push_a(log, number) != Outcome::Kept);
            }
            let ticks = counter() - begin;
            seen.batches.push(ticks as f64 * tick_ns / BATCH as f64);
            flush();
            for number in 0..BATCH {
                seen.timed_push(log, number);
            }
        }
        if round.is_multiple_of(64) {
            tidy_up(subjects);
        }
        round += 1;
    }
    seen
}

/// `threads` threads, each with `rate` pushes per second into each session.
fn sparse(subjects: &[Subject], time: Duration, threads: usize, rate: u32) -> Vec<Seen> {
    let all: Mutex<Vec<Seen>> = Mutex::new(subjects.iter().map(|_| Seen::new()).collect());
    let run = |thread: usize| {
        let logs: Vec<Log> = subjects
            .iter()
            .map(|subject| subject.session.log())
            .collect();
        let mut seen: Vec<Seen> = subjects.iter().map(|_| Seen::new()).collect();
        // The first push takes the ring.
        for log in &logs {
            _ = black_box(push_a(log, 0));
        }
        let every = Duration::from_secs(1) / rate;
        let begin = Instant::now() + every.mul_f64(thread as f64 / threads as f64);
        let mut number = 0;
        while u64::from(rate) * time.as_secs() > number || number == 0 {
            let at = begin + every * number as u32;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            for turn in 0..logs.len() {
                let index = (turn + number as usize) % logs.len();
                seen[index].timed_push(&logs[index], number);
            }
            number += 1;
        }
        let mut all = all.lock().expect("no thread panics");
        for (sum, seen) in all.iter_mut().zip(&seen) {
            sum.add(seen);
        }
    };
    std::thread::scope(|scope| {
        let run = &run;
        for thread in 0..threads {
            scope.spawn(move || run(thread));
        }
    });
    tidy_up(subjects);
    all.into_inner().expect("no thread panics")
}

/// The foreign process: writes over one file again and again, until it is killed.
fn foreign(path: &Path, sync_all: bool) {
    let file = File::create(path).expect("the directory can be written");
    let syncing = file.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            syncing.sync_data().expect("the disk takes it");
        }
    });
    if sync_all {
        let any = file.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                rustix::fs::syncfs(&any).expect("the disk takes it");
            }
        });
    }
    let block = vec![0xA5; 1 << 20];
    let (start, mut done) = (Instant::now(), 0_u64);
    loop {
        let due =
            start + Duration::from_nanos(done * 1000 / (FOREIGN_BYTES_PER_SECOND / 1_000_000));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let place = done % FOREIGN_FILE_BYTES;
        file.write_all_at(&block, place).expect("the disk has room");
        done += block.len() as u64;
    }
}

struct Foreign(Child);

impl Foreign {
    fn start(path: &Path, sync_all: bool) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command
            .env(FOREIGN, path)
            .env("BENCH_SYNC_ALL", if sync_all { "1" } else { "0" });
        let child = command.stdin(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_secs(1));
        Self(child)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.0.kill().expect("it is a child");
        self.0.wait().expect("it is a child");
    }
}

/// Bytes that the machine has written back so far.
fn written_back() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").expect("Linux has it");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("nr_written "));
    line.and_then(|pages| pages.trim().parse::<u64>().ok())
        .expect("a number of pages")
        * 4096
}

fn print(scenario: &str, subjects: &[Subject], seen: &mut [Seen], tick_ns: f64, note: &str) {
    const QUANTILES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
    println!("\n{scenario}: {note}");
    println!(
        "{:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>9} {:>6}",
        "ns", "batch", "p50", "p90", "p99", "p99.9", "p99.99", "p99.999", "max", "pushes", "lost"
    );
    let mut base: Option<(Option<f64>, Vec<f64>)> = None;
    for (subject, seen) in subjects.iter().zip(seen) {
        let batch = seen.batch_p50();
        let ns = |ticks: u64| ticks as f64 * tick_ns;
        let mut values: Vec<f64> = QUANTILES
            .iter()
            .map(|q| ns(seen.single.value_at_quantile(*q)))
            .collect();
        values.push(ns(seen.single.max()));
        print!("{:<12} {:>9.2}", subject.name, batch.unwrap_or(f64::NAN));
        for (index, value) in values.iter().enumerate() {
            let width = if index < 5 { 9 } else { 10 };
            print!(" {value:>width$.0}");
        }
        println!(" {:>9} {:>6}", seen.single.len(), seen.lost);
        if let Some((base_batch, base)) = &base {
            let batch = batch.zip(*base_batch).map_or(f64::NAN, |(a, b)| a / b);
            print!("{:<12} {batch:>9.3}", "  ratio");
            for (index, (value, base)) in values.iter().zip(base).enumerate() {
                let width = if index < 5 { 9 } else { 10 };
                print!(" {:>width$.3}", value / base);
            }
            println!();
        } else {
            base = Some((batch, values));
        }
    }
}

fn main() {
    if let Some(path) = std::env::var_os(FOREIGN) {
        let sync_all = std::env::var("BENCH_SYNC_ALL").is_ok_and(|value| value == "1");
        return foreign(Path::new(&path), sync_all);
    }
    let smoke = std::env::args().any(|arg| arg == "--test");
    let parent = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("stormlog-ring-storage-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be written");
    let seconds = std::env::var("BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let seconds = if smoke { 0 } else { seconds.unwrap_or(60) };
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let time = Duration::from_secs(seconds);
    let tick_ns = tick_ns();
    let subjects = start(&dir);
    let few = |count: usize| if smoke { 2 } else { count };
    let loads: &[(&str, Option<bool>)] = if smoke {
        &[("quiet", None)]
    } else {
        &[("quiet", None), ("busy", Some(false)), ("sync", Some(true))]
    };
    for (load, sync_all) in loads {
        for kind in ["full", "sparse 100/s", "sparse 10/s", "sparse 1/s"] {
            let scenario = format!("{load} {kind}");
            if !scenario.contains(&only) {
                continue;
            }
            let foreign = sync_all.map(|sync_all| Foreign::start(&dir.join("foreign"), sync_all));
            let (begin, before) = (Instant::now(), written_back());
            let mut seen = match kind {
                "full" => full(&subjects, time, tick_ns),
                "sparse 100/s" => sparse(&subjects, time, few(30), 100),
                "sparse 10/s" => sparse(&subjects, time, few(100), 10),
                _ => sparse(&subjects, time, few(300), 1),
            };
            let megabytes = (written_back() - before) as f64 / 1e6;
            let note = format!(
                "{:.0} MB/s written back",
                megabytes / begin.elapsed().as_secs_f64()
            );
            drop(foreign);
            print(&scenario, &subjects, &mut seen, tick_ns, &note);
        }
    }
    for Subject { name, session } in subjects {
        let report = session.close().expect("the writer ran");
        assert_eq!(
            report.ledger.total().dropped_total(),
            0,
            "{name}: nothing was lost"
        );
    }
    std::fs::remove_dir_all(dir).expect("the bench's own directory");
}
