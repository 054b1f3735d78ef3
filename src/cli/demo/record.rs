//! Takes the generated events to the engine: two sessions, some threads each, paced and timed.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;

use super::event::{EXTRAS_MAX, Event, Side};
use crate::cli::KEEP_FREE_BYTES;
use crate::record::Extra;
use crate::signals::close_on_termination;
use crate::{CloseReport, Log, Outcome, Session};

/// The longest push that the histogram tells apart, ns.
const PUSH_NS_MAX: u64 = 60_000_000_000;
/// How long the conversion at the end may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3600);

/// When an event is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// At its virtual time, divided by this.
    Compressed(f64),
    /// One after the other at this rate per second.
    Rate(f64),
    /// At once.
    Unpaced,
}

/// What is to be recorded, and how.
#[derive(Debug)]
pub struct Plan {
    /// Log directory.
    pub dir: PathBuf,
    /// Whether segments stay.
    pub keep_segments: bool,
    /// The events in order of time; repeated from the start until there are `records`.
    pub events: Vec<Event>,
    /// How many to push.
    pub records: u64,
    /// Threads of each side.
    pub threads: usize,
    /// When to push them.
    pub pace: Pace,
}

/// What one side or both did.
#[derive(Clone, Debug)]
pub struct Pushes {
    /// Time of each push, ns.
    pub nanos: Histogram<u64>,
    /// Pushes that were neither kept nor sampled out.
    pub refused: u64,
}

/// A recorded side.
#[derive(Debug)]
pub struct Recorded {
    /// Which one.
    pub side: Side,
    /// Its session.
    pub closed: CloseReport,
}

/// The result.
#[derive(Debug)]
pub struct Run {
    /// Orchestrator and proxy.
    pub sides: [Recorded; 2],
    /// The pushes of all threads.
    pub pushes: Pushes,
    /// Time from the first push to the last, all threads.
    pub elapsed: Duration,
}

impl Pushes {
    fn new() -> Result<Self> {
        let nanos = Histogram::new_with_max(PUSH_NS_MAX, 3).context("cannot measure pushes")?;
        Ok(Self { nanos, refused: 0 })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.refused += other.refused;
        self.nanos.add(&other.nanos).context("cannot add up pushes")
    }
}

/// Records the plan.
///
/// # Errors
/// When a session cannot start or end.
pub fn record(plan: &Plan) -> Result<Run> {
    // Who has the time to wait for room (see `Throttle`) has nothing to leave out: a slow disk
    // makes the demo slower, not its files thinner.
    let sampling = matches!(plan.pace, Pace::Rate(_));
    let start_session = || {
        Session::builder()
            .dir(&plan.dir)
            .keep_segments(plan.keep_segments)
            .sigbus_guard(true)
            .sampling(sampling)
            .keep_free_bytes(KEEP_FREE_BYTES)
            .close_deadline(CLOSE_DEADLINE)
            .start()
    };
    // Both may start within one second: the engine gives the second one another id.
    let orchestrator = start_session()?;
    let proxy = start_session()?;
    let guard = close_on_termination(&[&orchestrator, &proxy])?;
    let start = Instant::now();
    let pushes = thread::scope(|scope| {
        let mut workers = Vec::new();
        for (side, session) in [(Side::Orchestrator, &orchestrator), (Side::Proxy, &proxy)] {
            for thread in 0..plan.threads {
                let mine = move |event: &Event| {
                    event.side == side && event.lane as usize % plan.threads == thread
                };
                workers.push(scope.spawn(move || push_all(plan, session, start, mine)));
            }
        }
        let mut all = Pushes::new()?;
        for worker in workers {
            let pushes = worker
                .join()
                .map_err(|_| anyhow!("a thread of the demo has panicked"))??;
            all.add(&pushes)?;
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    let elapsed = start.elapsed();
    let closed = |side, session: Session| -> Result<Recorded> {
        let closed = session.close()?;
        Ok(Recorded { side, closed })
    };
    let sides = [
        closed(Side::Orchestrator, orchestrator)?,
        closed(Side::Proxy, proxy)?,
    ];
    drop(guard);
    Ok(Run {
        sides,
        pushes,
        elapsed,
    })
}

/// Pushes the events of one thread.
fn push_all(
    plan: &Plan,
    session: &Session,
    start: Instant,
    mine: impl Fn(&Event) -> bool,
) -> Result<Pushes> {
    let log = session.log();
    let mut throttle = Throttle::new(session, plan);
    let numbered = plan.events.iter().enumerate();
    let events: Vec<_> = numbered.filter(|(_, event)| mine(event)).collect();
    let mut pushes = Pushes::new()?;
    let round_events = plan.events.len() as u64;
    let mut round = 0;
    while !events.is_empty() && round * round_events < plan.records {
        for (index, event) in &events {
            let number = round * round_events + *index as u64;
            if number >= plan.records {
                break;
            }
            let due = match plan.pace {
                Pace::Compressed(factor) => event.at.div_f64(factor),
                Pace::Rate(rate) => Duration::from_secs_f64(number as f64 / rate),
                Pace::Unpaced => Duration::ZERO,
            };
            if plan.pace != Pace::Unpaced
                && let Some(wait) = due.checked_sub(start.elapsed())
            {
                thread::sleep(wait);
            }
            throttle.before(event)?;
            push(event, &log, &mut pushes);
        }
        round += 1;
    }
    Ok(pushes)
}

/// Flushes before the ring of its thread can be full. A record that finds its ring full is
/// dropped, because a service must never wait; the demo has the time, unless it was given a rate.
struct Throttle<'s> {
    session: &'s Session,
    /// Bytes between two flushes: half of the smallest ring that as many threads get, because the
    /// last quarter is for records of the class `Always`.
    flush_bytes: usize,
    /// Upper bound of the bytes in the ring.
    unflushed_bytes: usize,
}

impl<'s> Throttle<'s> {
    fn new(session: &'s Session, plan: &Plan) -> Self {
        let flush_bytes = match (plan.pace, plan.threads) {
            (Pace::Rate(_), _) => usize::MAX,
            (_, ..=8) => 256 << 10,
            (_, ..=64) => 32 << 10,
            _ => 8 << 10,
        };
        Self {
            session,
            flush_bytes,
            unflushed_bytes: 0,
        }
    }

    fn before(&mut self, event: &Event) -> Result<()> {
        let bytes = event.ring_bytes_max();
        self.unflushed_bytes = self.unflushed_bytes.saturating_add(bytes);
        if self.unflushed_bytes > self.flush_bytes {
            self.session.flush()?;
            self.unflushed_bytes = bytes;
        }
        Ok(())
    }
}

/// Pushes one event and takes the time of the push alone.
fn push(event: &Event, log: &Log, pushes: &mut Pushes) {
    let mut space = [Extra::default(); EXTRAS_MAX];
    let extras = event.extras(&mut space);
    let before = Instant::now();
    let outcome = event.payload.push(log, extras);
    let nanos = before.elapsed().as_nanos() as u64;
    pushes.nanos.saturating_record(nanos);
    if !matches!(outcome, Outcome::Kept | Outcome::SampledOut) {
        pushes.refused += 1;
    }
}

/// What two readings of the clock take, which every measured push contains: the median, ns.
pub fn clock_nanos() -> u64 {
    let mut samples: Vec<_> = (0..4_001)
        .map(|_| {
            let before = Instant::now();
            before.elapsed().as_nanos() as u64
        })
        .collect();
    samples.sort_unstable();
    samples[samples.len() / 2]
}
