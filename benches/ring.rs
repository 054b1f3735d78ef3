//! Rings and writer together: how many records per second go from producers into sealed segments,
//! and what that costs in processor time of all threads, against a raw copy of as many bytes into
//! a file by `write`.
//!
//! `cargo bench --bench ring`. Producers flush when they have pushed half a ring, so that nothing
//! is dropped, which is checked in every round. Segments are removed after each round, outside of
//! the time.

use std::io::Write;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stormlog::record::{ShortText, Symbol};
use stormlog::{Conversion, Log, Outcome, Session};

stormlog::record! {
    /// Record A.
    struct RecordA in "bench" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

/// Bytes of record A in a ring.
const RECORD_BYTES: u64 = 44;
/// Records between two flushes of a thread: a quarter of the smallest ring that is used here.
const FLUSH_EVERY: u64 = 2500;

fn push(log: &Log, number: u64) -> Outcome {
    log.push(&RecordA {
        operation: stormlog::symbol!("bench_operation"),
        id: "0123456789ab",
        port: number as u16,
        value: number as f64,
        ok: true,
    })
}

/// Time from the first push to the last record in a segment.
fn round(threads: u64, records: u64) -> Duration {
    let dir = std::env::temp_dir().join(format!("stormlog-ring-{}", std::process::id()));
    let builder = Session::builder()
        .keep_free_bytes(0)
        .dir(&dir)
        .conversion(Conversion::Later)
        .sampling(false);
    let session = builder
        .start()
        .expect("the temporary directory can be written");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (log, session) = (session.log(), &session);
            scope.spawn(move || {
                for number in 0..records / threads {
                    if number % FLUSH_EVERY == 0 {
                        session.flush().expect("the writer runs");
                    }
                    assert_eq!(push(&log, number), Outcome::Kept);
                }
            });
        }
    });
    session.flush().expect("the writer runs");
    let elapsed = start.elapsed();
    let report = session.close().expect("the writer ran");
    let account = report.ledger.categories["bench"];
    assert_eq!(
        account.written(),
        records / threads * threads,
        "nothing is lost"
    );
    std::fs::remove_dir_all(dir).expect("the bench's own directory");
    elapsed
}

/// As many bytes through `write` in pieces of 64 KiB.
fn raw_write(records: u64) -> Duration {
    let path = std::env::temp_dir().join(format!("stormlog-raw-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).expect("the temporary directory can be written");
    let piece = vec![7; 64 << 10];
    let start = Instant::now();
    let mut left = (records * RECORD_BYTES) as usize;
    while left > 0 {
        let bytes = left.min(piece.len());
        file.write_all(&piece[..bytes]).expect("the disk has room");
        left -= bytes;
    }
    let elapsed = start.elapsed();
    std::fs::remove_file(path).expect("the bench's own file");
    elapsed
}

fn ring(criterion: &mut Criterion) {
    const RECORDS: u64 = 200_000;
    round(2, 10_000);
    let mut group = criterion.benchmark_group("ring");
    group
        .throughput(Throughput::Elements(RECORDS))
        .sample_size(10);
    group.bench_function("raw_write", |bencher| {
        bencher.iter_custom(|n| (0..n).map(|_| raw_write(RECORDS)).sum());
    });
    for threads in [1, 2, 4] {
        let id = BenchmarkId::new("to_segment", threads);
        group.bench_with_input(id, &threads, |bencher, threads| {
            bencher.iter_custom(|n| (0..n).map(|_| round(*threads, RECORDS)).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, ring);
criterion_main!(benches);
