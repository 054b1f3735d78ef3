//! What only tests and the demo do to a session.

use std::sync::atomic::Ordering::Relaxed;

use super::Session;
use crate::record::Category;
use crate::segment::entry::PRESSURE_MAX;

impl Session {
    /// For tests: makes the writer rest between two passes, and returns when it does. Until
    /// [`resume_writer`](Self::resume_writer) or a close it drains nothing.
    #[doc(hidden)]
    pub fn pause_writer(&self) {
        if let Some(live) = &self.live {
            live.control.pause(|| live.core.wake.unpark());
        }
    }

    /// For tests: ends [`pause_writer`](Self::pause_writer).
    #[doc(hidden)]
    pub fn resume_writer(&self) {
        if let Some(live) = &self.live {
            live.control.resume(|| live.core.wake.unpark());
        }
    }

    /// For tests: sets the pressure of a category, 0 to 15. It stays as long as the controller
    /// wants none itself.
    #[doc(hidden)]
    pub fn set_pressure(&self, category: Category, k: u8) {
        if let (Some(live), Some(ids)) = (&self.live, category.schema().ids()) {
            let change = (ids.category, k.min(PRESSURE_MAX));
            live.core.set_pressures(std::iter::once(change));
        }
    }

    /// For tests: moves UTC and the counter, as the writer sees them in clock points.
    #[doc(hidden)]
    pub fn shift_clocks(&self, utc_ns: i64, ticks: i64) {
        if let Some(live) = &self.live {
            let [utc, counter] = &live.core.clock_shifts;
            utc.store(utc_ns, Relaxed);
            counter.store(ticks, Relaxed);
        }
    }

    /// For tests: rounds of syncs that have ended, with `durability = interval`.
    #[doc(hidden)]
    pub fn sync_rounds(&self) -> u64 {
        let live = self.live.as_ref();
        live.map_or(0, |live| live.core.space.sync_rounds.load(Relaxed))
    }

    /// For tests: bytes that the writer has taken out of all rings so far.
    #[doc(hidden)]
    pub fn drained_bytes(&self) -> u64 {
        let Some(live) = self.own() else {
            return 0;
        };
        let storage = &live.core.storage;
        let read_pos = |index| storage.slot(index).ring().header.read_pos.load(Relaxed);
        (0..storage.used()).map(read_pos).sum()
    }

    /// For tests: holds back the next segment, which is not ready until this is called with false
    /// or the session closes. One that is ready already is not held.
    #[doc(hidden)]
    pub fn hold_segments(&self, held: bool) {
        if let Some(live) = &self.live {
            live.core.space.held.store(held, Relaxed);
        }
    }

    /// For the demo: the writer takes so many bytes per second from the rings, as if the disk
    /// took no more. 0 ends it; so does a close.
    #[doc(hidden)]
    pub fn limit_writer(&self, bytes_per_second: u64) {
        if let Some(live) = &self.live {
            live.control.set_limit(bytes_per_second);
        }
    }

    /// Pressure of a category now, 0..=15.
    #[doc(hidden)]
    pub fn pressure(&self, category: Category) -> u8 {
        match (&self.live, category.schema().ids()) {
            (Some(live), Some(ids)) => live.core.pressure(ids.category),
            _ => 0,
        }
    }

    /// Filled part of the fullest ring now, 0..=1.
    #[doc(hidden)]
    pub fn ring_fill(&self) -> f64 {
        let Some(live) = self.own() else {
            return 0.0;
        };
        let storage = &live.core.storage;
        let fill = |index| {
            let ring = storage.slot(index).ring();
            // Relaxed: a look. Read first, so that what is read later is never less.
            let read_pos = ring.header.read_pos.load(Relaxed);
            let waiting = ring.header.write_pos.load(Relaxed) - read_pos;
            waiting as f64 / ring.buffer.capacity() as f64
        };
        (0..storage.used()).map(fill).fold(0.0, f64::max).min(1.0)
    }
}
