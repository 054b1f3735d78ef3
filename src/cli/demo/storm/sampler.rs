//! What is looked at while the storm goes on: pressure, fill of the rings, memory.

use std::time::{Duration, Instant};

use super::traffic::CATEGORIES;
use crate::Session;
use crate::record::Category;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(5);

/// One look.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the start of the run.
    pub at: Duration,
    /// Pressure by category.
    pub pressure: [u8; CATEGORIES.len()],
    /// Filled part of the fullest ring.
    pub fill: f64,
    /// Anonymous memory of the process, KiB.
    pub anonymous_kib: u64,
}

/// Looks at a session now and then.
#[derive(Debug)]
pub struct Sampler<'s> {
    session: &'s Session,
    categories: [Option<Category>; CATEGORIES.len()],
    start: Instant,
    pub samples: Vec<Sample>,
}

impl<'s> Sampler<'s> {
    /// For a run of at most `run`, so that looking takes no memory while it goes on.
    pub fn new(session: &'s Session, start: Instant, run: Duration) -> Self {
        let count = run.as_nanos().div_ceil(EVERY.as_nanos()) as usize + 64;
        let nothing = Sample {
            at: Duration::MAX,
            pressure: [0xff; CATEGORIES.len()],
            fill: 1.0,
            anonymous_kib: 1,
        };
        let mut samples = vec![nothing; count];
        std::hint::black_box(&mut samples).clear();
        Self {
            session,
            categories: CATEGORIES.map(Category::named),
            start,
            samples,
        }
    }

    /// Looks until `until` has come, or `done` says so.
    pub fn watch(&mut self, until: Instant, done: impl Fn(&[Sample]) -> bool) {
        while Instant::now() < until && !done(&self.samples) {
            self.look();
            std::thread::sleep(EVERY);
        }
    }

    fn look(&mut self) {
        let pressure = |category: &Option<Category>| {
            category.map_or(0, |category| self.session.pressure(category))
        };
        let sample = Sample {
            at: self.start.elapsed(),
            pressure: self.categories.each_ref().map(pressure),
            fill: self.session.ring_fill(),
            anonymous_kib: anonymous_kib(),
        };
        self.samples.push(sample);
    }
}

/// `RssAnon` of the process, KiB: memory that is not backed by a file. Pages of segments are not
/// in it, because they are the page cache's. 0 where the kernel does not tell.
pub fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|text| text.parse().ok()).unwrap_or(0)
}
