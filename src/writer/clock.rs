//! When the writer writes a clock point, and looks at its file.

use std::time::{Duration, Instant};

use super::Writer;
use super::helper::note;
use crate::segment::entry::ClockPoint;

/// Clock points come this often while records are written.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// And this often while there are none.
const CLOCK_EVERY_IDLE: Duration = Duration::from_secs(60);
/// The first ones come sooner, because the rate of the counter is not known well yet.
const CLOCK_FIRST: Duration = Duration::from_millis(20);

/// When the next clock point is due.
#[derive(Debug)]
pub(super) struct ClockSchedule {
    written: Instant,
    checked: Instant,
    every: Duration,
    /// Records were written since the last point.
    used: bool,
}

impl ClockSchedule {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            written: now,
            checked: now,
            every: CLOCK_FIRST,
            used: true,
        }
    }

    /// Records were written since the last point.
    pub(super) fn set_used(&mut self) {
        self.used = true;
    }
}

impl Writer {
    /// Writes a clock point when one is due: every second while there are records, when UTC has
    /// made a step, and now and then when idle.
    pub(super) fn clock_due(&mut self) {
        if self.clock.checked.elapsed() < self.clock.every {
            return;
        }
        self.clock.checked = Instant::now();
        self.segments.look_at_file();
        self.remember_counts();
        let point = self.core.clock_point();
        if self.clock.used
            || self.segments.is_clock_step(&point)
            || self.clock.written.elapsed() >= CLOCK_EVERY_IDLE
        {
            self.write_clock(point);
        }
    }

    pub(super) fn write_clock(&mut self, point: ClockPoint) {
        if self.segments.has_counter_fallen(&point) {
            note(
                &mut self.faults,
                "the counter of the processor was set back (the machine was suspended?): times of \
                 records after that are wrong"
                    .to_owned(),
            );
        }
        self.core.rate.refine(&point);
        if self.segments.write_clock(point) {
            self.clock.written = Instant::now();
            self.clock.every = (self.clock.every * 10).min(CLOCK_EVERY);
            self.clock.used = false;
        }
    }
}
