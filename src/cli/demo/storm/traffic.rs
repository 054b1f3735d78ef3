//! The traffic of the storm: what one thread offers, and what it knows about it.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::latency::{Latency, Windows};
use crate::cli::random::Random;
use crate::record::{ShortText, Symbol, Text};
use crate::{Log, Outcome, symbol};

crate::record! {
    /// Of the noisy category: no key, in a flood.
    pub struct Measured in "performance" keep Sampled {
        /// What was measured.
        metric: Symbol,
        /// Number of the thread.
        thread: u8,
        /// Any number.
        value: f64,
    }
}

crate::record! {
    /// Begin or end of an operation, which are kept or left out together.
    pub struct Step in "requests" keep Sampled key id {
        /// `begin` or `end`.
        operation: Symbol,
        /// 16 hexadecimal digits.
        id: ShortText<16>,
        /// Number of the thread.
        thread: u8,
    }
}

crate::record! {
    /// Of the quiet category, which has little to say and is not to pay for the others.
    pub struct Check in "vpn" keep Sampled {
        /// What was checked.
        component: Symbol,
        /// Number of the check in its thread.
        number: u64,
    }
}

crate::record! {
    /// A planted event: each must be found again.
    pub struct Planted in "stress" keep Always {
        /// `planted`.
        event_type: Symbol,
        /// `info`.
        severity: Symbol,
        /// A sentence.
        description: Text,
        /// Number of the thread.
        thread: u8,
        /// Number of the event in its thread, from 0.
        sequence: u64,
    }
}

/// The categories in the order of [`Truth`] and of all tables.
pub const CATEGORIES: [&str; 4] = ["performance", "requests", "vpn", "stress"];
pub const NOISY: usize = 0;
pub const KEYED: usize = 1;
pub const QUIET: usize = 2;
pub const STRESS: usize = 3;

/// `event_type` of planted events.
pub const PLANTED: &str = "planted";

/// Checks per second and thread.
const CHECKS_PER_SECOND: f64 = 50.0;
/// Noisy records of one round; with them come the two of an operation.
const NOISY_PER_ROUND: u32 = 14;
/// Of so many calls one is timed: has no divisor in common with the 16 calls of a round, so that
/// each of them has its turn.
const TIMED_EVERY: u32 = 7;
/// A calm thread does so many rounds at once, then sleeps.
const CALM_ROUNDS: u32 = 4;
const CALM_PAUSE: Duration = Duration::from_millis(20);

/// Parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not measured: first touches of memory.
    Warm = 0,
    /// Calm before the storm.
    Before = 1,
    /// All threads as fast as they can.
    Storm = 2,
    /// Calm again.
    After = 3,
    /// The end.
    Stop = 4,
}

impl Phase {
    fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Warm,
            1 => Self::Before,
            2 => Self::Storm,
            3 => Self::After,
            _ => Self::Stop,
        }
    }
}

/// The phase of all threads.
#[derive(Debug, Default)]
pub struct Signal(AtomicU8);

impl Signal {
    pub fn set(&self, phase: Phase) {
        // Relaxed: nothing hangs on it but the phase itself.
        self.0.store(phase as u8, Relaxed);
    }

    pub fn get(&self) -> Phase {
        Phase::from_u8(self.0.load(Relaxed))
    }
}

/// What the pushes of a category returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    pub kept: u64,
    pub sampled_out: u64,
    pub dropped: u64,
    /// Neither: the session was closed or off, which it never is here.
    pub refused: u64,
}

impl Truth {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Kept => self.kept += 1,
            Outcome::SampledOut => self.sampled_out += 1,
            Outcome::Dropped(_) => self.dropped += 1,
            Outcome::Disabled | Outcome::Closed => self.refused += 1,
        }
    }

    /// Records that were offered.
    pub fn offered(&self) -> u64 {
        self.kept + self.sampled_out + self.dropped
    }

    pub fn add(&mut self, other: &Self) {
        self.kept += other.kept;
        self.sampled_out += other.sampled_out;
        self.dropped += other.dropped;
        self.refused += other.refused;
    }
}

/// What one thread has done.
#[derive(Debug)]
pub struct Worker {
    number: u8,
    log: Log,
    random: Random,
    start: Instant,
    stress_per_second: f64,
    /// Calls until the next one that is timed.
    untimed: u32,
    /// Of each phase, by category.
    pub truth: [[Truth; CATEGORIES.len()]; 4],
    pub latency: Latency,
    pub windows: Windows,
    /// Since the start: when the first record of the storm was left out.
    pub first_left_out: Option<Duration>,
}

impl Worker {
    pub fn new(
        number: u8,
        log: Log,
        seed: u64,
        start: Instant,
        stress_per_second: f64,
        windows: Windows,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            number,
            log,
            random: Random::new(seed, u64::from(number)),
            start,
            stress_per_second,
            untimed: 1,
            truth: [[Truth::default(); CATEGORIES.len()]; 4],
            latency: Latency::new()?,
            windows,
            first_left_out: None,
        })
    }

    /// Events that this thread has planted.
    pub fn planted(&self) -> u64 {
        let phases = self.truth.iter();
        phases.map(|truth| truth[STRESS].offered()).sum()
    }

    /// Offers records until the signal says stop.
    pub fn run(&mut self, signal: &Signal) {
        let (mut checks, mut planted) = (0, 0);
        loop {
            let phase = signal.get();
            if phase == Phase::Stop {
                return;
            }
            let now = Instant::now();
            let elapsed = now.duration_since(self.start).as_secs_f64();
            let rounds = if phase == Phase::Storm {
                1
            } else {
                CALM_ROUNDS
            };
            for _ in 0..rounds {
                self.round(phase);
            }
            while (checks as f64) < elapsed * CHECKS_PER_SECOND {
                self.check(phase, checks);
                checks += 1;
            }
            while (planted as f64) < elapsed * self.stress_per_second {
                self.plant(phase, planted);
                planted += 1;
            }
            if phase != Phase::Storm {
                std::thread::sleep(CALM_PAUSE);
            } else if self.first_left_out.is_none() {
                let left_out = |truth: &Truth| truth.sampled_out > 0;
                if self.truth[Phase::Storm as usize].iter().any(left_out) {
                    self.first_left_out = Some(self.start.elapsed());
                }
            }
        }
    }

    /// A flood of measurements and one operation.
    fn round(&mut self, phase: Phase) {
        let thread = self.number;
        for _ in 0..NOISY_PER_ROUND {
            let record = Measured {
                metric: symbol!("queue_depth"),
                thread,
                value: self.random.unit(),
            };
            self.offer(phase, NOISY, |log| log.push(&record));
        }
        let digits = hex(self.random.next());
        let id = std::str::from_utf8(&digits).unwrap_or("");
        // Once per operation, as a service would: at the request, not at each of its records.
        let key = self.log.key_hash(id.as_bytes());
        for operation in [symbol!("begin"), symbol!("end")] {
            let record = Step {
                operation,
                id,
                thread,
            };
            self.offer(phase, KEYED, |log| match key {
                Some(key) => log.push_keyed(&record, key),
                None => log.push(&record),
            });
        }
    }

    fn check(&mut self, phase: Phase, number: u64) {
        let record = Check {
            component: symbol!("tunnel"),
            number,
        };
        self.offer(phase, QUIET, |log| log.push(&record));
    }

    fn plant(&mut self, phase: Phase, sequence: u64) {
        let record = Planted {
            event_type: symbol!("planted"),
            severity: symbol!("info"),
            description: "a planted event: it has to be in the file, once",
            thread: self.number,
            sequence,
        };
        self.offer(phase, STRESS, |log| log.push(&record));
    }

    #[inline]
    fn offer(&mut self, phase: Phase, category: usize, push: impl Fn(&Log) -> Outcome) {
        self.untimed -= 1;
        let outcome = if self.untimed == 0 {
            self.untimed = TIMED_EVERY;
            let before = Instant::now();
            let outcome = push(&self.log);
            let after = Instant::now();
            let nanos = after.duration_since(before).as_nanos() as u64;
            self.latency.record(phase, category, outcome, nanos);
            self.windows.record(before - self.start, nanos);
            outcome
        } else {
            push(&self.log)
        };
        self.truth[phase as usize][category].count(outcome);
    }
}

fn hex(value: u64) -> [u8; 16] {
    std::array::from_fn(|digit| b"0123456789abcdef"[(value >> (60 - 4 * digit) & 15) as usize])
}
