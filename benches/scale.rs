//! What a record costs when there is more of something: threads, records in a session, categories,
//! bytes in a record. Cost is processor time of all threads (producers, writer, helper) per record,
//! from the first push to the closed session; beside it the rate, and the memory that came with the
//! session.
//!
//! `cargo bench --bench scale`. Every record that finds its ring full is pushed again, and all must
//! arrive. Rows of a table take turns, `BENCH_ROUNDS` (5) times; medians. With `BENCH_SVG` a plot
//! of each table goes into that directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/record_a.rs"]
mod record_a;
#[path = "support/stats.rs"]
mod stats;

use cpu::process_cpu;
use plotters::prelude::*;
use record_a::push_a;
use stats::{bootstrap, median};
use stormlog::record::{Category, Extra};
use stormlog::{Conversion, Log, Outcome, Session};

/// What one round of one row took.
#[derive(Clone, Copy, Default)]
struct Round {
    /// Processor time per record in ns.
    cpu: f64,
    /// Millions of records per second.
    rate: f64,
    /// Resident memory that came with the session, in MiB.
    memory: f64,
}

/// Resident memory of the process in MiB: all of it, with the pages of files that are mapped.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.expect("the kernel says it in kB") / 1024.0
}

/// Pushes until the record is kept. Who finds the ring full sleeps: with more threads than cores
/// those that turn round and round would take the writer's core, and be counted.
fn until_kept(mut push: impl FnMut() -> Outcome) {
    while push() != Outcome::Kept {
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// `records` in all, from `threads` threads at once; `push` offers record `number`.
fn round(
    dir: &Path,
    threads: u64,
    records: u64,
    push: impl Fn(&Log, u64) -> Outcome + Sync,
) -> Round {
    let before = resident();
    let session = Session::builder()
        .dir(dir)
        .keep_free_bytes(0)
        .conversion(Conversion::Later)
        .large_total_bytes(32 << 20)
        .sampling(false)
        .start()
        .expect("the directory can be written");
    let log = session.log();
    until_kept(|| push(&log, 0));
    session.flush().expect("the writer runs");
    let all = std::sync::Barrier::new(threads as usize + 1);
    let (start, cpu) = (Instant::now(), process_cpu());
    let memory = std::thread::scope(|scope| {
        for thread in 0..threads {
            let (log, push, all) = (session.log(), &push, &all);
            scope.spawn(move || {
                let numbers = (thread..records).step_by(threads as usize);
                numbers.for_each(|number| until_kept(|| push(&log, number)));
                // All threads have a ring, and live, when memory is measured.
                all.wait();
                all.wait();
            });
        }
        all.wait();
        let memory = resident() - before;
        all.wait();
        memory
    });
    let segments = session.segment_dir().map(Path::to_owned);
    let report = session.close().expect("the writer ran");
    let (elapsed, cpu) = (start.elapsed(), process_cpu().saturating_sub(cpu));
    let written: u64 = report.ledger.total().written();
    assert!(
        written > records,
        "all arrived, and the records of the session"
    );
    if let Some(dir) = segments {
        std::fs::remove_dir_all(dir).expect("the bench's own directory");
    }
    Round {
        cpu: cpu.as_nanos() as f64 / records as f64,
        rate: records as f64 / elapsed.as_secs_f64() / 1e6,
        memory,
    }
}

/// Measures one value of a table.
type RoundAt<'a> = Box<dyn Fn(&Path, u64) -> Round + 'a>;

/// A value of a table and what a record costs there, with its interval.
struct Point {
    value: u64,
    cost: f64,
    low: f64,
    high: f64,
}

/// One table: what grows, its values, and a round at each of them.
struct Table<'a> {
    name: &'static str,
    axis: &'static str,
    values: Vec<u64>,
    round: RoundAt<'a>,
}

fn tables(part: u64) -> Vec<Table<'static>> {
    let categories: Vec<Category> = (0..200)
        .map(|number| Category::named(&format!("bench_{number:03}")).expect("a valid name"))
        .collect();
    let text = "x".repeat(64 << 10);
    vec![
        Table {
            name: "threads",
            axis: "threads (4 M records in all)",
            values: vec![1, 2, 4, 8, 16, 32, 64],
            round: Box::new(move |dir, threads| round(dir, threads, 4_000_000 / part, push_a)),
        },
        Table {
            name: "records",
            axis: "records of the session (2 threads)",
            values: vec![250_000, 1_000_000, 4_000_000, 16_000_000],
            round: Box::new(move |dir, records| round(dir, 2, records / part, push_a)),
        },
        Table {
            name: "categories",
            axis: "categories (2 M open records, 2 threads)",
            values: vec![1, 4, 16, 64, 200],
            round: Box::new(move |dir, count| {
                let push = |log: &Log, number: u64| {
                    let category = categories[(number % count) as usize];
                    log.event(category, &[Extra::new("number", number)])
                };
                round(dir, 2, 2_000_000 / part, push)
            }),
        },
        Table {
            name: "bytes",
            axis: "bytes of text in the record (256 MB in all, 2 M records at most, 2 threads)",
            values: vec![32, 128, 512, 2048, 8192, 32_768, 65_536],
            round: Box::new(move |dir, bytes| {
                let open = Category::named("bench_text").expect("a valid name");
                let text = &text[..bytes as usize];
                let push = |log: &Log, _| log.event(open, &[Extra::new("text", text)]);
                round(dir, 2, (256_000_000 / bytes).min(2_000_000) / part, push)
            }),
        },
    ]
}

/// A line with the interval of each point, both axes logarithmic.
fn plot(path: &Path, table: &Table<'_>, points: &[Point]) {
    let drawn = (|| -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(path, (640, 400)).into_drawing_area();
        root.fill(&WHITE)?;
        let low = points
            .iter()
            .map(|point| point.low)
            .fold(f64::INFINITY, f64::min)
            / 1.5;
        let high = points.iter().map(|point| point.high).fold(0.0, f64::max) * 1.5;
        let (first, last) = (points[0].value, points[points.len() - 1].value);
        let mut chart = ChartBuilder::on(&root)
            .margin(15)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((first..last).log_scale(), (low..high).log_scale())?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(table.axis)
            .y_desc("ns of processor time per record");
        mesh.draw()?;
        let line = points.iter().map(|point| (point.value, point.cost));
        chart.draw_series(LineSeries::new(line, &BLUE))?;
        let intervals = points.iter().map(|point| {
            let ends = vec![(point.value, point.low), (point.value, point.high)];
            PathElement::new(ends, BLUE.stroke_width(3))
        });
        chart.draw_series(intervals)?;
        root.present()?;
        Ok(())
    })();
    drawn.expect("the plot can be written");
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let parse = |it: String| it.parse().expect("a number of rounds");
    let rounds = std::env::var("BENCH_ROUNDS").map_or(if quick { 1 } else { 5 }, parse);
    let plots = std::env::var_os("BENCH_SVG").map(PathBuf::from);
    let dir = std::env::temp_dir().join(format!("stormlog-scale-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be written");
    for table in tables(if quick { 100 } else { 1 }) {
        let mut rows = vec![Vec::new(); table.values.len()];
        for _ in 0..rounds {
            for (value, rows) in table.values.iter().zip(&mut rows) {
                rows.push((table.round)(&dir, *value));
            }
        }
        println!("{}", table.axis);
        println!(
            "{:>10} {:>26} {:>10} {:>12}",
            "", "ns of CPU per record", "M/s", "memory MiB"
        );
        let mut points = Vec::new();
        for (value, rounds) in table.values.iter().zip(&rows) {
            let of = |part: fn(&Round) -> f64| rounds.iter().map(part).collect::<Vec<_>>();
            let mut costs = of(|round| round.cpu);
            let (low, high) = bootstrap(&costs);
            let cost = median(&mut costs);
            let (rate, memory) = (
                median(&mut of(|it| it.rate)),
                median(&mut of(|it| it.memory)),
            );
            let cost_and_interval = format!("{cost:.1} [{low:.1}, {high:.1}]");
            println!("{value:10} {cost_and_interval:>26} {rate:10.2} {memory:12.1}");
            points.push(Point {
                value: *value,
                cost,
                low,
                high,
            });
        }
        if let Some(plots) = &plots {
            plot(
                &plots.join(format!("scale-{}.svg", table.name)),
                &table,
                &points,
            );
        }
    }
    std::fs::remove_dir_all(&dir).expect("the bench's own directory");
}
