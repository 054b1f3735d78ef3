//! The measurements themselves, the same code for every logger. Runs in a child process of its
//! own, because most loggers are one per process.

use std::hint::black_box;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::os::{self, Clock, counter};
use crate::record::{Record, Records};
use crate::task::{Figures, Kind, Task, figure};

/// A logger that writes to files.
pub trait Logger: Sized {
    /// What a thread logs with.
    type Producer: Producer;

    /// Starts it; it may write into `dir`, which is empty.
    fn start(dir: &Path) -> Result<Self>;

    /// For one thread.
    fn producer(&self) -> Self::Producer;

    /// Brings all that was logged into the files and stops it. Called once all producers are gone.
    fn finish(self) -> Result<()>;

    /// What its users do with the files before they can read lines; measured by itself.
    /// `None`: nothing.
    fn after(_dir: &Path) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// The side of a logger that is called.
pub trait Producer: Send + 'static {
    /// Logs one record, in the way that the users of this logger do.
    fn log(&mut self, record: &Record);
}

/// Bytes that a cold call finds in the caches instead of its own: the second level of common
/// processors several times over.
const WALK_BYTES: usize = 8 << 20;
const LINE_BYTES: usize = 64;
/// Calls before anything is measured.
const WARM_UP: usize = 2000;

/// Measures `task` with the logger `L`.
pub fn measure<L: Logger>(task: &Task) -> Result<Figures> {
    let records = Records::new();
    match task.kind {
        Kind::Calls => calls::<L>(task, &records),
        Kind::Cold => cold::<L>(task, &records),
        Kind::File1 => file::<L>(task, &records, 1),
        Kind::File2 => file::<L>(task, &records, 2),
        Kind::Idle => idle::<L>(task, &records),
    }
}

fn figures<const N: usize>(of: [(&str, f64); N]) -> Figures {
    of.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_unstable_by(f64::total_cmp);
    samples
}

/// Logs the next records, and counts them.
struct Caller<'a, P> {
    producer: P,
    records: &'a Records,
    logged: usize,
}

impl<P: Producer> Caller<'_, P> {
    #[inline(always)]
    fn call(&mut self) {
        self.producer.log(black_box(self.records.get(self.logged)));
        self.logged += 1;
    }
}

/// A logger that has been called, and has come to rest.
fn warmed<'a, L: Logger>(
    task: &Task,
    records: &'a Records,
) -> Result<(L, Caller<'a, L::Producer>)> {
    let logger = L::start(&task.dir)?;
    let mut caller = Caller {
        producer: logger.producer(),
        records,
        logged: 0,
    };
    for _ in 0..WARM_UP {
        caller.call();
    }
    thread::sleep(Duration::from_millis(200));
    // Only now: threads of the logger must not be kept where the caller is.
    os::pin()?;
    Ok((logger, caller))
}

/// Ends a logger whose calls were measured.
fn finished<L: Logger>(logger: L, caller: Caller<'_, L::Producer>) -> Result<f64> {
    let logged = caller.logged as f64;
    drop(caller);
    logger.finish()?;
    Ok(logged)
}

/// Bursts with pauses, in which every logger can catch up. Every other burst is timed as a whole,
/// without a clock inside; in the others each call is timed.
fn calls<L: Logger>(task: &Task, records: &Records) -> Result<Figures> {
    let (logger, mut caller) = warmed::<L>(task, records)?;
    let clock = Clock::calibrate();
    let (mut means, mut singles) = (Vec::new(), Vec::new());
    let mut waits = 0;
    for number in 0..task.bursts {
        thread::sleep(Duration::from_micros(task.gap_us));
        let waits_before = os::thread_waits();
        if number % 2 == 0 {
            let begin = counter();
            for _ in 0..task.burst {
                caller.call();
            }
            means.push(clock.ns(begin, counter()) / task.burst as f64);
        } else {
            for _ in 0..task.burst {
                let begin = counter();
                caller.call();
                singles.push(clock.ns(begin, counter()));
            }
        }
        waits += os::thread_waits() - waits_before;
    }
    let calls = (task.bursts * task.burst) as f64;
    let logged = finished(logger, caller)?;
    let (means, singles) = (sorted(means), sorted(singles));
    Ok(figures([
        (figure::LOGGED, logged),
        (figure::CLOCK_NS, clock.empty_ns()),
        (figure::BURST_P50_NS, quantile(&means, 0.5)),
        (figure::BURST_P99_NS, quantile(&means, 0.99)),
        (figure::CALL_P50_NS, quantile(&singles, 0.5)),
        (figure::CALL_P99_NS, quantile(&singles, 0.99)),
        (figure::CALL_P999_NS, quantile(&singles, 0.999)),
        (figure::WAITS_PER_K, waits as f64 / calls * 1e3),
    ]))
}

/// Single calls, each after a pause and with the caches full of something else.
fn cold<L: Logger>(task: &Task, records: &Records) -> Result<Figures> {
    let (logger, mut caller) = warmed::<L>(task, records)?;
    let clock = Clock::calibrate();
    let mut other = vec![0_u8; WALK_BYTES];
    let mut samples = Vec::new();
    for _ in 0..task.cold {
        thread::sleep(Duration::from_millis(1));
        for byte in other.iter_mut().step_by(LINE_BYTES) {
            *byte = byte.wrapping_add(1);
        }
        black_box(&mut other);
        let begin = counter();
        caller.call();
        samples.push(clock.ns(begin, counter()));
    }
    let logged = finished(logger, caller)?;
    let samples = sorted(samples);
    Ok(figures([
        (figure::LOGGED, logged),
        (figure::COLD_P50_NS, quantile(&samples, 0.5)),
        (figure::COLD_P99_NS, quantile(&samples, 0.99)),
    ]))
}

/// As fast as it goes, until all is in the file.
fn file<L: Logger>(task: &Task, records: &Records, producers: usize) -> Result<Figures> {
    let logger = L::start(&task.dir)?;
    let start = Barrier::new(producers + 1);
    let each = task.records / producers;
    let (begin, cpu, waits) = thread::scope(|scope| {
        let threads: Vec<_> = (0..producers)
            .map(|_| {
                let (mut producer, start) = (logger.producer(), &start);
                scope.spawn(move || {
                    start.wait();
                    let waits = os::thread_waits();
                    for number in 0..each {
                        producer.log(black_box(records.get(number)));
                    }
                    os::thread_waits() - waits
                })
            })
            .collect();
        let (begin, cpu) = (Instant::now(), os::cpu_seconds());
        start.wait();
        let waits = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        (begin, cpu, waits.sum::<u64>())
    });
    logger.finish()?;
    let (seconds, cpu_seconds) = (begin.elapsed().as_secs_f64(), os::cpu_seconds() - cpu);
    let mut out = figures([
        (figure::LOGGED, (each * producers) as f64),
        (figure::SECONDS, seconds),
        (figure::CPU_SECONDS, cpu_seconds),
        (figure::BYTES, os::dir_bytes(&task.dir)? as f64),
        (figure::WAITS, waits as f64),
        (figure::PEAK_MIB, os::peak_mib()?),
    ]);
    let cpu = os::cpu_seconds();
    if let Some(bytes) = L::after(&task.dir)? {
        out.insert(
            figure::AFTER_CPU_SECONDS.to_owned(),
            os::cpu_seconds() - cpu,
        );
        out.insert(figure::AFTER_BYTES.to_owned(), bytes as f64);
    }
    Ok(out)
}

/// A logger that was used a little and then left alone.
fn idle<L: Logger>(task: &Task, records: &Records) -> Result<Figures> {
    let (logger, caller) = warmed::<L>(task, records)?;
    thread::sleep(Duration::from_secs(1));
    let (begin, cpu, waits) = (Instant::now(), os::cpu_seconds(), os::process_waits()?);
    thread::sleep(Duration::from_millis(task.idle_ms));
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), os::cpu_seconds() - cpu);
    let waits = os::process_waits()? - waits;
    let logged = finished(logger, caller)?;
    Ok(figures([
        (figure::LOGGED, logged),
        (figure::IDLE_PERCENT, cpu / seconds * 100.0),
        // One of them is our own.
        (figure::IDLE_WAKES, waits.saturating_sub(1) as f64 / seconds),
    ]))
}
