//! Calm, storm, calm: the threads, the session and what is measured about them.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::latency::{Latency, Windows};
use super::sampler::{Sample, Sampler, anonymous_kib};
use super::traffic::{CATEGORIES, Phase, Signal, Truth, Worker};
use crate::cli::KEEP_FREE_BYTES;
use crate::signals::close_on_termination;
use crate::{CloseReport, RingStorage, Session};

/// First touches, not measured.
const WARM: Duration = Duration::from_millis(200);
const BEFORE: Duration = Duration::from_secs(1);
/// An episode ends after 2 s without pressure.
const QUIET: Duration = Duration::from_millis(2_300);
const AFTER_MAX: Duration = Duration::from_secs(8);
/// How long the conversion at the end may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(60);
/// Small segments, so that little is prepared ahead.
const SEGMENT_BYTES: usize = 8 << 20;
/// The rings of the session, and its spill: what it may take of memory.
pub const RING_TOTAL_BYTES: usize = 16 << 20;
pub const SPILL_TOTAL_BYTES: usize = 1 << 20;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub dir: PathBuf,
    pub seed: u64,
    pub threads: u8,
    pub storm: Duration,
    /// Bytes per second that the writer takes.
    pub drain_bytes: u64,
    /// Planted events per second, all threads together.
    pub stress_per_second: f64,
    pub session_bytes_max: u64,
    pub keep_segments: bool,
}

/// When phases began, since the start of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    pub before: Duration,
    pub storm: Duration,
    pub after: Duration,
    pub end: Duration,
}

/// Anonymous memory of the process, KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Before the session was started.
    pub before_kib: u64,
    /// The most until the threads had ended.
    pub peak_kib: u64,
}

/// What the writer took during the storm.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    pub bytes: u64,
    pub records: u64,
}

/// What happened.
#[derive(Debug)]
pub struct Run {
    pub closed: CloseReport,
    /// By phase and category.
    pub truth: [[Truth; CATEGORIES.len()]; 4],
    pub latency: Latency,
    pub windows: Windows,
    pub samples: Vec<Sample>,
    /// Events that each thread planted.
    pub planted: Vec<u64>,
    pub marks: Marks,
    pub memory: Memory,
    pub drained: Drained,
    /// From the begin of the storm to the first record that was left out.
    pub first_left_out: Option<Duration>,
}

impl Run {
    /// Truth of a category over all phases.
    pub fn truth_of(&self, category: usize) -> Truth {
        let mut sum = Truth::default();
        self.truth
            .iter()
            .for_each(|phase| sum.add(&phase[category]));
        sum
    }

    pub fn storm_seconds(&self) -> f64 {
        self.marks
            .after
            .saturating_sub(self.marks.storm)
            .as_secs_f64()
    }

    /// Records of a phase that were offered, all categories.
    pub fn offered(&self, phase: Phase) -> u64 {
        self.truth[phase as usize].iter().map(Truth::offered).sum()
    }
}

/// Makes the storm.
///
/// # Errors
/// When the session cannot start or end.
pub fn run(plan: &Plan) -> Result<Run> {
    let longest = WARM + BEFORE + plan.storm + AFTER_MAX + Duration::from_secs(2);
    let windows = vec![Windows::new(longest); usize::from(plan.threads)];
    let before_kib = anonymous_kib();
    let session = Session::builder()
        .dir(&plan.dir)
        .keep_segments(plan.keep_segments)
        .sigbus_guard(true)
        .close_deadline(CLOSE_DEADLINE)
        .segment_bytes(SEGMENT_BYTES)
        .session_bytes_max(plan.session_bytes_max)
        .keep_free_bytes(KEEP_FREE_BYTES)
        .ring_total_bytes(RING_TOTAL_BYTES)
        .spill_total_bytes(SPILL_TOTAL_BYTES)
        // So that they are in the memory that is measured.
        .ring_storage(RingStorage::Anonymous)
        .start()?;
    let _guard = close_on_termination(&[&session])?;
    session.limit_writer(plan.drain_bytes);
    let start = Instant::now();
    let mut sampler = Sampler::new(&session, start, longest);
    let rate = plan.stress_per_second / f64::from(plan.threads);
    let workers = (0..plan.threads).zip(windows);
    let workers: Result<Vec<_>> = workers
        .map(|(number, windows)| {
            Worker::new(number, session.log(), plan.seed, start, rate, windows)
        })
        .collect();
    let (workers, marks, drained) = weather(plan, &session, &mut sampler, start, workers?)?;
    let looks = std::mem::take(&mut sampler.samples);
    let anonymous = looks.iter().map(|sample| sample.anonymous_kib);
    let peak_kib = anonymous.chain([anonymous_kib()]).max().unwrap_or(0);
    let mut run = Run {
        closed: session.close()?,
        truth: [[Truth::default(); CATEGORIES.len()]; 4],
        latency: Latency::new()?,
        windows: Windows::new(longest),
        samples: looks,
        planted: workers.iter().map(Worker::planted).collect(),
        marks,
        memory: Memory {
            before_kib,
            peak_kib,
        },
        drained,
        first_left_out: workers
            .iter()
            .filter_map(|worker| worker.first_left_out)
            .min()
            .map(|first| first.saturating_sub(marks.storm)),
    };
    for worker in &workers {
        run.latency.add(&worker.latency)?;
        run.windows.add(&worker.windows);
        for (sums, truths) in run.truth.iter_mut().zip(&worker.truth) {
            for (sum, truth) in sums.iter_mut().zip(truths) {
                sum.add(truth);
            }
        }
    }
    Ok(run)
}

/// Takes the threads through the phases, and watches.
fn weather(
    plan: &Plan,
    session: &Session,
    sampler: &mut Sampler<'_>,
    start: Instant,
    mut workers: Vec<Worker>,
) -> Result<(Vec<Worker>, Marks, Drained)> {
    let signal = Signal::default();
    let mut marks = Marks::default();
    let taken = || {
        let records = session.stats().total().written();
        (session.drained_bytes(), records)
    };
    let drained = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(|| worker.run(&signal)))
            .collect();
        let never = |_: &[Sample]| false;
        let phase = |phase: Phase, sampler: &mut Sampler<'_>, length: Duration| {
            signal.set(phase);
            let begin = start.elapsed();
            sampler.watch(Instant::now() + length, never);
            begin
        };
        phase(Phase::Warm, sampler, WARM);
        marks.before = phase(Phase::Before, sampler, BEFORE);
        let before = taken();
        marks.storm = phase(Phase::Storm, sampler, plan.storm);
        signal.set(Phase::After);
        let after = taken();
        marks.after = start.elapsed();
        let since = marks.after;
        sampler.watch(Instant::now() + AFTER_MAX, |samples| {
            is_quiet(samples, since)
        });
        signal.set(Phase::Stop);
        marks.end = start.elapsed();
        for thread in threads {
            let joined = thread.join();
            joined.map_err(|_| anyhow!("a thread of the storm has panicked"))?;
        }
        Ok::<_, anyhow::Error>(Drained {
            bytes: after.0 - before.0,
            records: after.1 - before.1,
        })
    })?;
    Ok((workers, marks, drained))
}

/// Whether the storm, which ended at `since`, and its pressure have been over for a while.
fn is_quiet(samples: &[Sample], since: Duration) -> bool {
    let pressed = |sample: &&Sample| sample.pressure.iter().any(|k| *k > 0);
    let last = samples.iter().rev().find(pressed);
    let from = last.map_or(since, |sample| sample.at.max(since));
    let now = samples.last().map_or(Duration::ZERO, |sample| sample.at);
    now.saturating_sub(from) > QUIET
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sample(at: u64, pressure: [u8; 4]) -> Sample {
        Sample {
            at: ms(at),
            pressure,
            fill: 0.5,
            anonymous_kib: 7,
        }
    }

    /// A run of 60 ms that never was.
    pub fn small_run() -> (Run, Plan) {
        let mut windows = Windows::new(ms(60));
        windows.record(ms(25), 120);
        let run = Run {
            closed: CloseReport::default(),
            truth: [[Truth::default(); CATEGORIES.len()]; 4],
            latency: Latency::new().unwrap(),
            windows,
            samples: vec![
                sample(5, [0; 4]),
                sample(30, [5, 2, 0, 0]),
                sample(55, [0; 4]),
            ],
            planted: Vec::new(),
            marks: Marks {
                before: ms(10),
                storm: ms(20),
                after: ms(40),
                end: ms(60),
            },
            memory: Memory {
                before_kib: 1,
                peak_kib: 2,
            },
            drained: Drained {
                bytes: 64,
                records: 2,
            },
            first_left_out: None,
        };
        let plan = Plan {
            dir: PathBuf::new(),
            seed: 1,
            threads: 2,
            storm: ms(20),
            drain_bytes: 1 << 20,
            stress_per_second: 10.0,
            session_bytes_max: 0,
            keep_segments: false,
        };
        (run, plan)
    }

    #[test]
    fn it_is_quiet_when_the_last_pressure_is_long_ago() {
        let early = sample(100, [1, 0, 0, 0]);
        let late = |at| [early, sample(at, [0; 4])];
        assert!(!is_quiet(&late(2_300), ms(50)));
        assert!(is_quiet(&late(2_500), ms(50)));
        assert!(!is_quiet(&late(2_500), ms(300)), "the storm has just ended");
        assert!(!is_quiet(&[], ms(0)));
    }
}
