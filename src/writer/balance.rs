//! What the writer does about pressure: measures the load, asks the controller, sets the gates, and
//! writes down what changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notice::{SamplingEnded, SamplingStarted};
use super::pressure::{Change, Episode, Load, Pressure};
use super::scan::Scanner;
use crate::core::Core;
use crate::ledger::Ledger;
use crate::record::CATEGORIES_MAX;
use crate::segment::entry::{Entry, PressureCause as Cause, PressureChange};

/// Changes that wait for a segment are at most as many; further ones are not recorded.
const PENDING_MAX: usize = 4096;

/// How much of the mean length of records is renewed by one tick.
const MEAN_PART: f64 = 0.2;

/// Load since the last tick, the controller, and what waits to be written.
#[derive(Debug)]
pub(crate) struct Balance {
    core: Arc<Core>,
    pressure: Pressure,
    started: Instant,
    /// Filled part of the fullest ring since the last tick, and the longest pass.
    fill: f64,
    pass: Duration,
    /// When the running pass began.
    pass_began: Option<Instant>,
    /// When what `draining` has of the running pass began.
    counted_from: Instant,
    /// Time in passes since the last tick.
    draining: Duration,
    /// Filled part of all rings together, now.
    backlog: f64,
    /// Bytes drained up to the last tick.
    drained: u64,
    offered: Offered,
    /// Counts when the running episode began.
    before: Ledger,
    /// Registry entries of changes that no segment has yet, and how many they are.
    entries: Vec<u8>,
    pending: usize,
    notices: Vec<Notice>,
}

/// What producers offer, from their own counters: records that wait in full rings, or were left
/// out, are in it at once.
#[derive(Debug)]
struct Offered {
    /// The counts at the last tick, if it needed them.
    before: Option<Box<[u64; CATEGORIES_MAX]>>,
    /// Bytes of `Sampled` records per offered record, as drained ones tell.
    mean_bytes: Box<[f64; CATEGORIES_MAX]>,
    demand: Box<[u64; CATEGORIES_MAX]>,
}

/// A record of the session about its own sampling.
#[derive(Debug)]
pub(crate) enum Notice {
    Started {
        k: u8,
        cause: Cause,
    },
    Ended {
        duration: Duration,
        k_max: u8,
        /// Counts of the episode alone.
        ledger: Ledger,
    },
}

impl Balance {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            pressure: Pressure::new(0),
            started: Instant::now(),
            fill: 0.0,
            pass: Duration::ZERO,
            pass_began: None,
            counted_from: Instant::now(),
            draining: Duration::ZERO,
            backlog: 0.0,
            drained: 0,
            offered: Offered::new(),
            before: Ledger::default(),
            entries: Vec::new(),
            pending: 0,
            notices: Vec::new(),
        }
    }

    /// A ring of `capacity` bytes had `waiting` bytes when the writer looked at it.
    pub(crate) fn ring(&mut self, waiting: u64, capacity: u64) {
        self.fill = self.fill.max(waiting as f64 / capacity as f64);
    }

    /// All rings together, `capacity` bytes, have `waiting` bytes now.
    pub(crate) fn rings(&mut self, waiting: u64, capacity: u64) {
        self.backlog = waiting as f64 / capacity.max(1) as f64;
    }

    /// A pass over the rings begins.
    pub(crate) fn begin_pass(&mut self) {
        self.counted_from = Instant::now();
        self.pass_began = Some(self.counted_from);
    }

    /// It has ended.
    pub(crate) fn end_pass(&mut self) {
        self.count_draining();
        if let Some(began) = self.pass_began.take() {
            self.pass = self.pass.max(self.counted_from - began);
        }
    }

    /// Adds what has passed of the running pass to the time in passes.
    fn count_draining(&mut self) {
        if self.pass_began.is_some() {
            let now = Instant::now();
            self.draining += now - self.counted_from;
            self.counted_from = now;
        }
    }

    /// Whether the controller has set a budget: a pressure is on, or may come.
    pub(crate) fn is_active(&self) -> bool {
        self.pressure.is_active()
    }

    /// Whether it is time for the controller to look.
    pub(crate) fn is_due(&self) -> bool {
        self.core.sampling && self.pressure.is_due(self.now_ns())
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Lets the controller look, if it is time.
    pub(crate) fn tick(&mut self, scanner: &mut Scanner, stalled: bool, disk: u8) {
        if !self.is_due() {
            return;
        }
        self.count_draining();
        let now_ns = self.now_ns();
        let exact = self.pressure.is_active() || Pressure::is_close(self.fill);
        let counted = self.offered.count(&self.core, scanner, exact);
        let demand = match counted {
            Some(demand) => Some(demand),
            // What is not drained cannot be seen.
            None if stalled => None,
            None => Some(scanner.demand()),
        };
        let load = Load {
            now_ns,
            draining_ns: self.draining.as_nanos() as u64,
            fill: self.fill,
            lag_ns: self.pass.as_nanos() as u64,
            backlog: self.backlog,
            stalled,
            disk,
            drained: scanner.written().recorded - self.drained,
            demand,
        };
        let changes = self.pressure.tick(&load);
        if !changes.is_empty() {
            self.core
                .set_pressures(changes.iter().map(|change| (change.category, change.k)));
            let ticks = self.core.clock.ticks();
            for change in changes {
                record(&mut self.entries, &mut self.pending, ticks, *change);
            }
        }
        if let Some(episode) = self.pressure.episode() {
            self.note(episode);
        }
        self.fill = 0.0;
        self.pass = Duration::ZERO;
        self.draining = Duration::ZERO;
        self.drained = scanner.written().recorded;
        scanner.reset_demand();
    }

    /// The session ends, and the episode with it.
    pub(crate) fn end(&mut self) {
        if let Some(episode) = self.pressure.end_episode() {
            self.note(episode);
        }
    }

    /// Registry entries of the changes since the last call, and how many they are.
    pub(crate) fn take_changes(&mut self) -> (Vec<u8>, usize) {
        let pending = std::mem::take(&mut self.pending);
        (std::mem::take(&mut self.entries), pending)
    }

    /// Whether there is something to be written.
    pub(crate) fn has_news(&self) -> bool {
        self.pending > 0 || !self.notices.is_empty()
    }

    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn note(&mut self, episode: Episode) {
        let now = self.core.ledger();
        self.notices.push(match episode {
            Episode::Started { k, cause } => {
                self.before = now;
                Notice::Started { k, cause }
            }
            Episode::Ended { duration_ns, k_max } => Notice::Ended {
                duration: Duration::from_nanos(duration_ns),
                k_max,
                ledger: now.since(&self.before),
            },
        });
    }
}

impl Offered {
    fn new() -> Self {
        Self {
            before: None,
            mean_bytes: Box::new([0.0; CATEGORIES_MAX]),
            demand: Box::new([0; CATEGORIES_MAX]),
        }
    }

    /// The demand since the last call, if that was exact too.
    fn count(
        &mut self,
        core: &Core,
        scanner: &Scanner,
        exact: bool,
    ) -> Option<&[u64; CATEGORIES_MAX]> {
        let drained = scanner.demand().iter().zip(scanner.stands_for());
        for (mean, (bytes, records)) in self.mean_bytes.iter_mut().zip(drained) {
            if *records > 0 {
                let new = *bytes as f64 / *records as f64;
                let part = if *mean > 0.0 { MEAN_PART } else { 1.0 };
                *mean += (new - *mean) * part;
            }
        }
        if !exact {
            self.before = None;
            return None;
        }
        let mut now = Box::new([0; CATEGORIES_MAX]);
        core.storage.offered(&mut now);
        let before = self.before.replace(now)?;
        let now = self.before.as_deref()?;
        for (index, demand) in self.demand.iter_mut().enumerate() {
            let records = now[index].saturating_sub(before[index]);
            *demand = (records as f64 * self.mean_bytes[index]) as u64;
        }
        Some(&self.demand)
    }
}

fn record(entries: &mut Vec<u8>, pending: &mut usize, ticks: u64, change: Change) {
    if *pending == PENDING_MAX {
        return;
    }
    *pending += 1;
    let Change { category, k, cause } = change;
    let change = PressureChange {
        ticks,
        k,
        cause: cause as u8,
        zero: [0; 6],
    };
    Entry::Pressure(category, change).append(entries);
}

impl Notice {
    /// Hands the record of the notice to `write`.
    pub(crate) fn write(&self, write: &mut dyn FnMut(&dyn super::OwnRecord)) {
        match self {
            Self::Started { k, cause } => {
                let description = format!(
                    "records are sampled from now on, of the busiest category 1 in {}: {}",
                    1_u32 << k,
                    cause.sentence()
                );
                write(&SamplingStarted {
                    event_type: "sampling_started",
                    severity: "warning",
                    description: &description,
                    cause: cause.name(),
                    pressure: *k,
                });
            }
            Self::Ended {
                duration,
                k_max,
                ledger,
            } => {
                let total = ledger.total();
                let description = format!(
                    "{} of {} records were left out; the kept ones carry their weight",
                    total.sampled_out(),
                    total.offered()
                );
                let categories = ledger.to_json().to_string();
                write(&SamplingEnded {
                    event_type: "sampling_ended",
                    severity: "info",
                    description: &description,
                    duration_ms: *duration,
                    pressure: *k_max,
                    offered: total.offered(),
                    sampled_out: total.sampled_out(),
                    dropped: total.dropped_total(),
                    categories: Some(&categories),
                });
            }
        }
    }
}
