//! The traffic generator: what the orchestrator and the proxy log in ten minutes.
//!
//! Pure: the same seed gives the same events, on any day. Times are virtual, from 0 to
//! [`CYCLE`]; each cycle is a run of its own with new engines, and has every stress episode once.
//! Rates, sizes and durations are those measured on real runs of the two programs; ids, names
//! and texts are made up.

use std::time::Duration;

use super::event::{Event, Extras, Payload, Side};
use crate::cli::random::Random;

/// Length of one cycle.
pub const CYCLE: Duration = Duration::from_secs(600);
/// Engines that are started first.
pub const ENGINES: usize = 10;

/// One engine of the pool.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Id of its container, 64 hexadecimal digits.
    pub container_id: String,
    /// Port on the host, 19000..=19999.
    pub port: u16,
}

/// Collects the events of one cycle.
pub struct Generator {
    /// Source of all that is random.
    pub random: Random,
    /// Whether stress episodes are among the traffic.
    pub episodes: bool,
    /// The pool, as far as streams use it.
    pub engines: Vec<Engine>,
    events: Vec<Event>,
    lanes: u32,
}

/// All events of cycle `index`, in order of time.
pub fn cycle(seed: u64, index: u64, episodes: bool) -> Vec<Event> {
    let mut random = Random::new(seed, index);
    let first_port = 19_000 + random.below(800) as u16;
    let engines = (0..ENGINES as u16).map(|index| Engine {
        container_id: random.hex(64),
        port: first_port + index,
    });
    let engines = engines.collect();
    let mut generator = Generator {
        random,
        episodes,
        engines,
        events: Vec::new(),
        lanes: 0,
    };
    generator.orchestrator();
    generator.proxy();
    if episodes {
        generator.episodes();
    }
    let mut events = generator.events;
    events.retain(|event| event.at < CYCLE);
    // Stable: events of one instant keep the order in which they were made.
    events.sort_by_key(|event| event.at);
    events
}

/// The events of the first `span` of traffic, or the first `limit` ones.
pub fn traffic(seed: u64, span: Duration, limit: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut index = 0;
    loop {
        let start = CYCLE * index;
        if start >= span || events.len() >= limit {
            break;
        }
        let shifted = cycle(seed, u64::from(index), true)
            .into_iter()
            .map(|event| Event {
                at: event.at + start,
                ..event
            });
        events.extend(shifted.take_while(|event| event.at < span));
        index += 1;
    }
    events.truncate(limit);
    events
}

impl Generator {
    /// A new task or goroutine.
    pub fn lane(&mut self) -> u32 {
        self.lanes += 1;
        self.lanes
    }

    /// Adds an event.
    pub fn emit(&mut self, side: Side, lane: u32, at: Duration, payload: Payload, extras: Extras) {
        self.events.push(Event {
            at,
            side,
            lane,
            payload,
            extras,
        });
    }
}

/// Seconds as a duration.
pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds as a duration.
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests;
