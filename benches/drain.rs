//! From rings into sealed segments at full speed: records per second that arrive, processor time
//! of all threads per million of them, bytes per record in the file, for each kind of sink, against
//! a raw ring whose consumer writes 64 KiB pieces with `pwrite`, in the same run.
//!
//! `cargo bench --bench drain`. Producers never pause: a record that finds its ring full is pushed
//! again until it is kept, and only kept ones count. Rounds of all subjects take turns; the median
//! of each and of the ratios within a round are printed. `BENCH_ROUNDS` (7), `BENCH_RECORDS`
//! (16,000,000 per round) and `BENCH_DIR` (the temporary directory) change the run.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

#[path = "support/counter.rs"]
mod counter;
#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/record_a.rs"]
mod record_a;
#[path = "support/stats.rs"]
mod stats;

use counter::counter;
use cpu::{process_cpu, thread_cpu};
use record_a::push_a;
use stats::{bootstrap, median};
use stormlog::{Conversion, Log, Outcome, SegmentSink, Session};

/// Bytes of the raw ring, as many as the first ring of a session has.
const RING_WORDS: usize = (512 << 10) / 8;
/// Words of a raw record: counter, symbol and port, id, value.
const RAW_WORDS: usize = 5;
/// How long a producer that finds its ring full leaves it alone, in spins.
const PAUSE: usize = 100;
/// What the raw consumer writes at one time.
const PIECE_BYTES: usize = 64 << 10;

/// What one round of one subject took.
#[derive(Clone, Copy)]
struct Round {
    /// From the first push to the seal of the last segment.
    elapsed: Duration,
    /// Of all threads.
    cpu: Duration,
    /// Of the producers among them.
    producers: Duration,
    records: u64,
    bytes: u64,
    /// Pushes that found the ring full.
    refused: u64,
}

impl Round {
    fn rate(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64() / 1e6
    }

    /// Seconds per million records.
    fn per_million(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / self.records as f64 * 1e6
    }
}

/// Pushes until everything is kept; returns how often it had to try again.
fn produce(log: &Log, records: u64) -> (u64, Duration) {
    let mut refused = 0;
    for number in 0..records {
        while push_a(log, number) != Outcome::Kept {
            refused += 1;
            // A full ring: what is between two looks must not cost the writer its cache lines.
            for _ in 0..PAUSE {
                std::hint::spin_loop();
            }
        }
    }
    (refused, thread_cpu())
}

/// Waits for the producers: how often they were refused, and their processor time.
fn join(producers: Vec<ScopedJoinHandle<'_, (u64, Duration)>>) -> (u64, Duration) {
    producers
        .into_iter()
        .fold((0, Duration::ZERO), |sum, thread| {
            let (refused, cpu) = thread.join().expect("a producer ends");
            (sum.0 + refused, sum.1 + cpu)
        })
}

fn stormlog(dir: &Path, threads: u64, records: u64, sink: SegmentSink) -> Round {
    let builder = Session::builder()
        .dir(dir)
        .keep_free_bytes(0)
        .conversion(Conversion::Later)
        .segment_sink(sink)
        .sampling(false);
    let session = builder.start().expect("the directory can be written");
    // The first push of the process takes names and numbers.
    assert_eq!(push_a(&session.log(), 0), Outcome::Kept);
    session.flush().expect("the writer runs");
    let (start, cpu) = (Instant::now(), process_cpu());
    let (refused, producers) = std::thread::scope(|scope| {
        let produce = |_| {
            let log = session.log();
            scope.spawn(move || produce(&log, records / threads))
        };
        join((0..threads).map(produce).collect())
    });
    session.flush().expect("the writer runs");
    let segments = session.segment_dir().map(Path::to_owned);
    let report = session.close().expect("the writer ran");
    let (elapsed, cpu) = (start.elapsed(), process_cpu().saturating_sub(cpu));
    let written = report.ledger.categories["bench"].written();
    assert_eq!(written, records / threads * threads + 1, "all arrived");
    if let Some(dir) = segments {
        std::fs::remove_dir_all(dir).expect("the bench's own directory");
    }
    Round {
        elapsed,
        cpu,
        records: written,
        bytes: report.segment_bytes,
        producers,
        refused,
    }
}

/// A ring of words without anything that a logger needs.
struct RawRing {
    words: Vec<AtomicU64>,
    write: Position,
    read: Position,
    done: AtomicBool,
}

#[repr(align(128))]
struct Position(AtomicU64);

impl RawRing {
    fn new() -> Self {
        Self {
            words: (0..RING_WORDS).map(|_| AtomicU64::new(0)).collect(),
            write: Position(AtomicU64::new(0)),
            read: Position(AtomicU64::new(0)),
            done: AtomicBool::new(false),
        }
    }

    fn produce(&self, records: u64) -> (u64, Duration) {
        let (mut at, mut limit, mut refused) = (0, RING_WORDS as u64, 0);
        for number in 0..records {
            while at + RAW_WORDS as u64 > limit {
                limit = self.read.0.load(Acquire) + RING_WORDS as u64;
                if at + RAW_WORDS as u64 > limit {
                    refused += 1;
                    for _ in 0..PAUSE {
                        std::hint::spin_loop();
                    }
                }
            }
            let record = [counter(), number, 0x6162_6364, number, number ^ 1];
            for (word, value) in (at..).zip(record) {
                self.words[word as usize % RING_WORDS].store(value, Relaxed);
            }
            at += RAW_WORDS as u64;
            self.write.0.store(at, Release);
        }
        self.done.store(true, Release);
        (refused, thread_cpu())
    }

    /// Takes what there is, in one piece; false when there was little.
    fn consume(&self, at: &mut u64, file: &File, offset: &mut u64, piece: &mut Vec<u8>) -> bool {
        let end = self.write.0.load(Acquire);
        let words = (end - *at).min((PIECE_BYTES / 8) as u64);
        piece.clear();
        for word in *at..*at + words {
            let value = self.words[word as usize % RING_WORDS].load(Relaxed);
            piece.extend_from_slice(&value.to_le_bytes());
        }
        *at += words;
        self.read.0.store(*at, Release);
        file.write_all_at(piece, *offset)
            .expect("the disk has room");
        *offset += piece.len() as u64;
        words >= (PIECE_BYTES / 16) as u64
    }
}

fn raw(dir: &Path, threads: u64, records: u64) -> Round {
    let path = dir.join("raw");
    let file = File::create(&path).expect("the directory can be written");
    let rings: Vec<_> = (0..threads).map(|_| Arc::new(RawRing::new())).collect();
    let (start, cpu) = (Instant::now(), process_cpu());
    let ((refused, producers), bytes) = std::thread::scope(|scope| {
        let (drained, file) = (rings.clone(), &file);
        let consumer = scope.spawn(move || {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let (mut at, mut offset) = (vec![0; drained.len()], 0);
            loop {
                let done = drained.iter().all(|ring| ring.done.load(Acquire));
                let mut busy = false;
                let before = offset;
                for (ring, at) in drained.iter().zip(&mut at) {
                    busy |= ring.consume(at, file, &mut offset, &mut piece);
                }
                if done && offset == before {
                    return offset;
                }
                if !busy {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        let produce = |ring: &Arc<RawRing>| {
            let ring = Arc::clone(ring);
            scope.spawn(move || ring.produce(records / threads))
        };
        let producers = join(rings.iter().map(produce).collect());
        (producers, consumer.join().expect("the consumer ends"))
    });
    let (elapsed, cpu) = (start.elapsed(), process_cpu().saturating_sub(cpu));
    std::fs::remove_file(path).expect("the bench's own file");
    Round {
        elapsed,
        cpu,
        records: records / threads * threads,
        bytes,
        producers,
        refused,
    }
}

fn number(name: &str, default: u64) -> u64 {
    let parse = |it: String| it.parse().expect("a number");
    std::env::var(name).map_or(default, parse)
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let rounds = number("BENCH_ROUNDS", if quick { 1 } else { 7 });
    let records = number("BENCH_RECORDS", if quick { 200_000 } else { 16_000_000 });
    let root = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = root.join(format!("stormlog-drain-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be written");
    let subjects: [Subject; 3] = [
        ("raw ring + pwrite", raw),
        ("mapped segments", |dir, threads, records| {
            stormlog(dir, threads, records, SegmentSink::Mapped)
        }),
        ("pwrite segments", |dir, threads, records| {
            stormlog(dir, threads, records, SegmentSink::Pwrite)
        }),
    ];
    println!(
        "{:9} {:17} {:>6} {:>12} {:>19} {:>11} {:>9} {:>8} {:>8}",
        "producers",
        "subject",
        "M/s",
        "min..max",
        "of raw",
        "CPU-s per M",
        "producers",
        "B/record",
        "refused"
    );
    for threads in [1, 2] {
        let mut all = vec![Vec::new(); subjects.len()];
        for _ in 0..rounds {
            for (subject, rounds) in subjects.iter().zip(&mut all) {
                rounds.push(subject.1(&dir, threads, records));
            }
        }
        let raw = all[0].clone();
        for ((name, _), rounds) in subjects.iter().zip(&all) {
            print_row(name, threads, rounds, &raw);
        }
    }
    std::fs::remove_dir_all(&dir).expect("the bench's own directory");
}

/// Name and one round.
type Subject = (&'static str, fn(&Path, u64, u64) -> Round);

fn print_row(name: &str, threads: u64, rounds: &[Round], raw: &[Round]) {
    let of = |value: &dyn Fn(&Round) -> f64| rounds.iter().map(value).collect::<Vec<_>>();
    let mut rates = of(&Round::rate);
    let pairs = rounds.iter().zip(raw);
    let mut ratios: Vec<_> = pairs.map(|(it, raw)| it.rate() / raw.rate()).collect();
    let (low, high) = bootstrap(&ratios);
    let rate = median(&mut rates);
    println!(
        "{threads:9} {name:17} {rate:6.1} {:>12} {:>19} {:11.4} {:9.4} {:8.1} {:8}",
        format!("{:.1}..{:.1}", rates[0], rates[rates.len() - 1]),
        format!("{:.2} [{low:.2}, {high:.2}]", median(&mut ratios)),
        median(&mut of(&|it| it.per_million(it.cpu))),
        median(&mut of(&|it| it.per_million(it.producers))),
        rounds[0].bytes as f64 / rounds[0].records as f64,
        rounds.iter().map(|round| round.refused).sum::<u64>() / rounds.len() as u64,
    );
}
