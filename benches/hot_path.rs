//! What a push costs: record A (operation symbol, 12-byte id, u16, f64, bool) against the floor
//! (one raw counter read and one 64-byte store into successive slots of a ring of the same
//! capacity), in the same run.
//!
//! `cargo bench --bench hot_path`. The writer runs and keeps up: each batch is pushed into a ring
//! that was drained before, so no record is dropped, which is checked at the end.

#[path = "support/counter.rs"]
mod counter;

use std::hint::black_box;
use std::time::{Duration, Instant};

use counter::counter;
use criterion::{Criterion, criterion_group};
use stormlog::record::{Category, DurationMs, Extra, ShortText, Symbol};
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

stormlog::record! {
    /// Fixed fields only.
    struct Fixed in "bench" keep Sampled {
        operation: Symbol,
        port: u16,
        value: f64,
        ok: bool,
    }
}

stormlog::record! {
    /// Record A with a duration, which is aggregated per operation.
    struct Timed in "bench" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        duration_ms: DurationMs<2>,
        ok: bool,
    }
}

/// Bytes of the first ring of a session with the default settings.
const RING_BYTES: usize = 512 << 10;
/// Records per batch: well below what a ring takes without its headroom.
const BATCH: u64 = 4000;

/// The floor: 64 bytes with the counter in front into the next slot.
struct Floor {
    slots: Vec<[u64; 8]>,
    next: usize,
}

impl Floor {
    fn new() -> Self {
        Self {
            slots: vec![[0; 8]; RING_BYTES / 64],
            next: 0,
        }
    }

    #[inline(always)]
    fn push(&mut self, value: u64) {
        let index = self.next % (RING_BYTES / 64);
        self.slots[index] = [counter(), value, value, value, value, value, value, value];
        self.next += 1;
        black_box(&self.slots[index]);
    }
}

fn session() -> Session {
    let dir = std::env::temp_dir().join(format!("stormlog-bench-{}", std::process::id()));
    let builder = Session::builder()
        .keep_free_bytes(0)
        .dir(dir)
        .conversion(Conversion::Later);
    builder
        .start()
        .expect("the temporary directory can be written")
}

/// Time of `iterations` calls in batches; the writer drains between batches, outside of the time.
fn timed(session: &Session, iterations: u64, mut push: impl FnMut(u64)) -> Duration {
    let mut total = Duration::ZERO;
    let mut done = 0;
    while done < iterations {
        let batch = BATCH.min(iterations - done);
        session.flush().expect("the writer runs");
        let start = Instant::now();
        for number in 0..batch {
            push(number);
        }
        total += start.elapsed();
        done += batch;
    }
    total
}

fn push_a(log: &Log, number: u64) -> Outcome {
    log.push(&RecordA {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        value: number as f64,
        ok: true,
    })
}

fn push_fixed(log: &Log, number: u64) -> Outcome {
    log.push(&Fixed {
        operation: stormlog::symbol!("bench_operation"),
        port: number as u16,
        value: number as f64,
        ok: true,
    })
}

fn push_timed(log: &Log, number: u64) -> Outcome {
    log.push(&Timed {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        duration_ms: Duration::from_nanos(number * 1000),
        ok: true,
    })
}

fn push_open(log: &Log, open: Category, number: u64) -> Outcome {
    let extras = [
        Extra::new("number", number),
        Extra::new("value", number as f64),
        Extra::new("status", "healthy"),
        Extra::new("ok", true),
    ];
    log.event(open, &extras)
}

fn lazy_a(log: &Log, number: u64) -> Outcome {
    log.push_lazy(|| RecordA {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        value: number as f64,
        ok: true,
    })
}

fn hot_path(criterion: &mut Criterion) {
    let session = session();
    let log = session.log();
    assert_eq!(push_a(&log, 1), Outcome::Kept, "the subject works");
    let mut group = criterion.benchmark_group("push");
    let mut floor = Floor::new();
    group.bench_function("floor", |bencher| {
        bencher.iter_custom(|n| timed(&session, n, |number| floor.push(number)));
    });
    group.bench_function("counter_read", |bencher| bencher.iter(counter));
    group.bench_function("record_a", |bencher| {
        bencher.iter_custom(|n| {
            timed(&session, n, |number| {
                black_box(push_a(&log, number));
            })
        });
    });
    group.bench_function("fixed", |bencher| {
        bencher.iter_custom(|n| {
            timed(&session, n, |number| {
                black_box(push_fixed(&log, number));
            })
        });
    });
    group.bench_function("timed", |bencher| {
        bencher.iter_custom(|n| {
            timed(&session, n, |number| {
                black_box(push_timed(&log, number));
            })
        });
    });
    let open = Category::named("bench_open").expect("a valid name");
    group.bench_function("open_with_4_extras", |bencher| {
        bencher.iter_custom(|n| {
            timed(&session, n, |number| {
                black_box(push_open(&log, open, number));
            })
        });
    });
    let off = Log::disabled();
    group.bench_function("empty_loop", |bencher| {
        bencher.iter(|| black_box(black_box(1_u64)));
    });
    group.bench_function("disabled_session", |bencher| {
        bencher.iter(|| lazy_a(black_box(&off), black_box(1)));
    });
    session.set_category_on(Category::named("bench").expect("a valid name"), false);
    group.bench_function("disabled_category", |bencher| {
        bencher.iter(|| lazy_a(black_box(&log), black_box(1)));
    });
    group.finish();
    let segments = session.segment_dir().map(std::path::Path::to_owned);
    let report = session.close().expect("the writer ran");
    let account = report.ledger.total();
    println!(
        "{} records, {} dropped, {} wakes, {:.2} bytes per record",
        account.written(),
        account.dropped_total(),
        report.wakes,
        report.segment_bytes as f64 / account.written() as f64
    );
    let missing = account.dropped_total() + account.sampled_out();
    assert_eq!(
        missing, 0,
        "the writer kept up: nothing was cheaper than a push"
    );
    if let Some(dir) = segments {
        std::fs::remove_dir_all(dir).expect("the bench's own directory");
    }
}

/// What callgrind counts: one function per kind of record, not inlined, and nothing around it.
#[inline(never)]
fn probe_a(log: &Log, number: u64) -> Outcome {
    push_a(log, number)
}

#[inline(never)]
fn probe_fixed(log: &Log, number: u64) -> Outcome {
    push_fixed(log, number)
}

#[inline(never)]
fn probe_timed(log: &Log, number: u64) -> Outcome {
    push_timed(log, number)
}

#[inline(never)]
fn probe_open(log: &Log, open: Category, number: u64) -> Outcome {
    push_open(log, open, number)
}

/// Pushes `count` records of each kind, without a clock.
fn probe(count: u64) {
    let session = session();
    let log = session.log();
    let open = Category::named("bench_open").expect("a valid name");
    for number in 0..count {
        let outcomes = [
            probe_a(&log, number),
            probe_fixed(&log, number),
            probe_timed(&log, number),
            probe_open(&log, open, number),
        ];
        assert_eq!(outcomes, [Outcome::Kept; 4], "the writer keeps up");
        if number % 400 == 0 {
            session.flush().expect("the writer runs");
        }
    }
    let dir = session.dir().map(std::path::Path::to_owned);
    session.close().expect("the writer ran");
    if let Some(dir) = dir {
        std::fs::remove_dir_all(dir).expect("the bench's own directory");
    }
}

criterion_group!(benches, hot_path);

fn main() {
    if let Ok(count) = std::env::var("BENCH_PUSHES") {
        return probe(count.parse().expect("a number of records"));
    }
    benches();
    let criterion = Criterion::default().configure_from_args();
    criterion.final_summary();
}
