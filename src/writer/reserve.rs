//! The disk bound as the writer sees it: normal records are shed while there is no space for them,
//! and the reserve, one segment's space, is kept for `Always` records and the end of the session.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use super::durations::DURATIONS_BYTES_MAX;
use super::helper::{Task, note};
use super::segments::{RETRY_AFTER, Segments};
use crate::sys::report::say;

/// Bytes of the reserve for the last records of the session: `sampling_ended`, the durations of all
/// operations, `session_end` with its ledger, changes of pressure, a clock point, block headers.
const END_RESERVE: usize = (512 << 10) + DURATIONS_BYTES_MAX;
/// What the registry leaves of it at the very end.
const LAST_RESERVE: usize = (256 << 10) + DURATIONS_BYTES_MAX;
/// Normal records are written again when lines are so far below the bound.
const LINES_SLACK: u64 = 1 << 20;
/// Standard error hears of the bound at most this often.
pub(super) const SAY_EVERY: Duration = Duration::from_secs(10);

/// What standard error was told about the bound.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<Instant>,
    /// It heard that records are shed, and not yet that they are not.
    shedding: bool,
    /// When it heard last of a segment that others damaged.
    pub(super) rescue: Option<Instant>,
}

impl Segments {
    /// Whether only `Always` records are to be written, because there is no space for others.
    pub(crate) fn is_shedding(&self) -> bool {
        self.in_reserve || self.over
    }

    /// Compares the lines of what is written with the space that there is for them.
    pub(crate) fn look_at_bound(&mut self, lines: u64) {
        let max = self.core.space.lines_max.load(Relaxed);
        if !self.over && lines > max {
            self.over = true;
            let what = match crate::writer::space(&self.dir, &self.core) {
                Ok(space) => self.bounds.sentence(&space),
                Err(error) => error.to_string(),
            };
            self.tell_shedding(&format!("{}: {what}", self.dir.path().display()));
            self.core.set_shed(true);
        } else if self.over && lines.saturating_add(LINES_SLACK) <= max {
            self.over = false;
            self.end_shedding();
        }
    }

    /// The session ends: `session_end` and what belongs to it may use the last of the reserve.
    pub(crate) fn begin_end(&mut self) {
        self.ending = true;
    }

    /// Looks whether there is space again, and goes on in a new segment then.
    pub(crate) fn relieve(&mut self) -> bool {
        if !self.in_reserve {
            return false;
        }
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.retry_at = None;
            let (number, bytes) = (self.requested, self.bytes);
            self.tell_helper(Task::Prepare { number, bytes });
        }
        match self.helper.ready.try_recv() {
            Ok(Ok(prepared)) => {
                self.roll();
                self.open(prepared);
                true
            }
            Ok(Err(_)) => {
                // The reason was told when the reserve was opened.
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                false
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => false,
        }
    }

    /// Goes on in the reserve. False when there is none.
    pub(super) fn open_reserve(&mut self) -> bool {
        if let Ok(reserve) = self.helper.reserve.try_recv() {
            self.reserve = Some(reserve);
        }
        let Some(mut reserve) = self.reserve.take() else {
            return false;
        };
        let number = self.requested;
        match reserve.activate(&self.dir, &self.header, number) {
            Ok(()) => {
                self.roll();
                self.enter_reserve(reserve.bytes);
                self.requested = number + 1;
                self.use_segment(reserve);
                true
            }
            Err(error) => {
                note(&mut self.faults, error.to_string());
                self.reserve = Some(reserve);
                false
            }
        }
    }

    /// The segment of `bytes` bytes that is used now is the reserve.
    pub(super) fn enter_reserve(&mut self, bytes: usize) {
        self.in_reserve = true;
        self.core.space.reserve.store(bytes as u64, Relaxed);
        self.core.set_shed(true);
    }

    /// An ordinary segment is used now.
    pub(super) fn leave_reserve(&mut self) {
        if self.in_reserve {
            self.in_reserve = false;
            self.core.space.reserve.store(0, Relaxed);
            self.end_shedding();
        }
    }

    pub(super) fn end_shedding(&mut self) {
        if self.is_shedding() {
            return;
        }
        self.core.set_shed(false);
        if std::mem::take(&mut self.told.shedding) {
            say("there is space again; all records are written from now on");
        }
    }

    /// Bytes of the segment that are kept for the end of the session.
    pub(super) fn held_back(&self) -> usize {
        if self.in_reserve && !self.ending {
            END_RESERVE
        } else {
            0
        }
    }

    /// Bytes of the segment that the registry may not take.
    pub(super) fn held_from_registry(&self) -> usize {
        match (self.in_reserve, self.ending) {
            (true, true) => LAST_RESERVE,
            (true, false) => END_RESERVE,
            (false, _) => 0,
        }
    }

    /// Remembers why there is no segment, and says so once.
    pub(super) fn have_trouble(&mut self, what: String) {
        if self.trouble.is_none() {
            self.tell_shedding(&what);
        }
        self.trouble = Some(what);
    }

    fn tell_shedding(&mut self, what: &str) {
        note(&mut self.faults, what.to_owned());
        let told = &mut self.told;
        if told.shedding || told.last.is_some_and(|last| last.elapsed() < SAY_EVERY) {
            return;
        }
        told.last = Some(Instant::now());
        told.shedding = true;
        say(&format!(
            "{what}; until there is space again only records that are always kept are written, \
             others are dropped and counted"
        ));
    }
}
