//! What it costs to append lines while a session records (`live`): the callers, and processor time
//! in the background; and how soon a line is in its file.
//!
//! `cargo bench --bench live`. Sessions with and without `live` take turns in one process, their
//! order turned round in every other pair; medians of the pairs and 95 % intervals. `BENCH_PAIRS`
//! (12) and `BENCH_SECONDS` (1 per session) choose. The background is what the process took but for
//! the thread that pushes: writer, helper and the thread that appends, from the first push to the
//! end of the last line; the second column has the close with its conversion too, which both
//! sides have, and which compares where the other one writes.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/record_a.rs"]
mod record_a;
#[path = "support/stats.rs"]
mod stats;

use std::path::Path;
use std::time::{Duration, Instant};

use cpu::{process_cpu, thread_cpu};
use record_a::RecordA;
use stats::{bootstrap, median, quantile};
use stormlog::record::{Category, Extra};
use stormlog::{Outcome, Session, SessionBuilder};

/// Records that are pushed one after the other; then the thread waits for its turn.
const BATCH: u64 = 20;

fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn ns(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// What one session took, in ns per record.
#[derive(Clone, Copy, Default)]
struct Run {
    push: f64,
    background: f64,
    with_close: f64,
    late: u64,
}

fn builder(dir: &Path, live: bool) -> SessionBuilder {
    Session::builder()
        .dir(dir)
        .keep_free_bytes(0)
        .sampling(false)
        .live(live)
        .close_deadline(Duration::from_secs(600))
}

/// Records at a rate per second.
fn run(dir: &Path, live: bool, rate: f64, seconds: f64) -> Run {
    let session = builder(dir, live)
        .start()
        .expect("the directory can be written");
    let log = session.log();
    let batches = (rate * seconds) as u64 / BATCH;
    let pause = Duration::from_secs_f64(BATCH as f64 / rate);
    let push = |number: u64| {
        let record = RecordA {
            operation: stormlog::symbol!("select_engine"),
            id: "0123456789ab",
            port: number as u16,
            value: number as f64 * 0.25,
            ok: true,
        };
        // A writer that has no processor leaves a full ring.
        while log.push(&record) != Outcome::Kept {
            std::thread::yield_now();
        }
    };
    push(0);
    let (before, own) = (ns(process_cpu()), ns(thread_cpu()));
    let mut pushing = Vec::new();
    let start = Instant::now();
    for batch in 0..batches {
        // Not asleep: a thread that wakes up finds its caches cold.
        while start.elapsed() < pause * batch as u32 {
            std::hint::spin_loop();
        }
        let begin = Instant::now();
        (0..BATCH).for_each(push);
        pushing.push(begin.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    session.flush().expect("there is a disk");
    let records = (batches * BATCH) as f64;
    let path = dir.join(format!("{}_bench.jsonl", session.id()));
    let lines = |path: &Path| path.metadata().map_or(0, |data| data.len());
    let mut length = None;
    // All lines are there when no more come for two windows.
    while live && length.replace(lines(&path)) != Some(lines(&path)) {
        std::thread::sleep(Duration::from_millis(120));
    }
    let background = || ns(process_cpu()) - before - (ns(thread_cpu()) - own);
    let in_background = background() / records;
    // The close converts on this thread.
    let closing = ns(thread_cpu());
    let report = session.close().expect("the writer ran");
    let closing = ns(thread_cpu()) - closing;
    assert_eq!(report.faults, Vec::<String>::new(), "nothing was lost");
    Run {
        push: median(&mut pushing),
        background: in_background,
        with_close: (background() + closing) / records,
        late: report.late,
    }
}

fn table(dir: &Path, pairs: u32, seconds: f64) {
    println!(
        "| records/s | push off ns | push on / off | background off ns | added in the background \
         | added with the close | late lines |\n|---|---|---|---|---|---|---|"
    );
    for rate in [10_000.0, 100_000.0, 1_000_000.0] {
        let mut runs: Vec<[Run; 2]> = Vec::new();
        for pair in 0..pairs {
            let mut both = [Run::default(); 2];
            for turn in 0..2 {
                let live = (pair + turn) % 2 == 1;
                both[usize::from(live)] = run(dir, live, rate, seconds);
            }
            runs.push(both);
        }
        let of = |value: fn(&[Run; 2]) -> f64| runs.iter().map(value).collect::<Vec<f64>>();
        let shown = |values: Vec<f64>, digits: usize| {
            let (low, high) = bootstrap(&values);
            let middle = median(&mut values.clone());
            format!("{middle:.digits$} [{low:.digits$}, {high:.digits$}]")
        };
        println!(
            "| {rate} | {:.1} | {} | {:.0} | {} | {} | {} |",
            median(&mut of(|[off, _]| off.push)),
            shown(of(|[off, on]| on.push / off.push), 3),
            median(&mut of(|[off, _]| off.background)),
            shown(of(|[off, on]| on.background - off.background), 0),
            shown(of(|[off, on]| on.with_close - off.with_close), 0),
            runs.iter().map(|[_, on]| on.late).sum::<u64>(),
        );
    }
}

/// How long after its push a lone record is in the file.
fn latency(dir: &Path, count: u64) {
    let session = builder(dir, true)
        .start()
        .expect("the directory can be written");
    let log = session.log();
    let vpn = Category::named("vpn").expect("a valid name");
    let path = dir.join(format!("{}_vpn.jsonl", session.id()));
    let length = || path.metadata().map_or(0, |data| data.len());
    let mut latencies = Vec::new();
    for number in 0..count {
        // Out of step with the waits of the threads.
        std::thread::sleep(Duration::from_micros(20_000 + number * 7919 % 73_000));
        let before = length();
        let start = Instant::now();
        let outcome = log.event(vpn, &[Extra::new("number", number)]);
        assert_eq!(outcome, Outcome::Kept, "the subject works");
        while length() == before {
            std::thread::sleep(Duration::from_micros(100));
        }
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    println!(
        "lone record to its line: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms, {count} records",
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        quantile(&latencies, 1.0)
    );
    session.close().expect("the writer ran");
}

fn main() {
    let smoke = std::env::args().any(|arg| arg == "--test");
    let pairs = if smoke {
        1.0
    } else {
        number("BENCH_PAIRS", 12.0)
    };
    let seconds = if smoke {
        0.02
    } else {
        number("BENCH_SECONDS", 1.0)
    };
    let dir = std::env::temp_dir().join(format!("stormlog-live-{}", std::process::id()));
    table(&dir, pairs as u32, seconds);
    latency(&dir, if smoke { 2 } else { 100 });
    std::fs::remove_dir_all(dir).expect("the bench's own directory");
}
