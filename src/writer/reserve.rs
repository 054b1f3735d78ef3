//! The reserve: one segment's space that is kept for `Always` records and the end of the session,
//! for when there is no other.

use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use super::durations::DURATIONS_BYTES_MAX;
use super::helper::{Task, note};
use super::segments::{RETRY_AFTER, Segments};
use crate::sys::report::say;

/// Bytes of the reserve for the last records of the session: `sampling_ended`, the durations of all
/// operations, `session_end` with its ledger, a clock point, block headers.
const END_RESERVE: usize = (256 << 10) + DURATIONS_BYTES_MAX;

impl Segments {
    /// Whether only `Always` records are to be written, because there is no space for others.
    pub(crate) fn is_shedding(&self) -> bool {
        self.shedding
    }

    /// The session ends: `session_end` and what belongs to it may use the last of the reserve.
    pub(crate) fn begin_end(&mut self) {
        self.ending = true;
    }

    /// Looks whether there is space again, and goes on in a new segment then.
    pub(crate) fn relieve(&mut self) -> bool {
        if !self.shedding {
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
                self.shedding = false;
                self.core.set_shed(false);
                say("there is space for segments again; all records are written from now on");
                self.open(prepared);
                self.ask_for_reserve();
                true
            }
            Ok(Err(error)) => {
                note(&mut self.faults, error.to_string());
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
                false
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => false,
        }
    }

    pub(super) fn ask_for_reserve(&self) {
        let bytes = self.bytes_min;
        self.tell_helper(Task::Reserve { bytes });
    }

    /// Goes on in the reserve. False when there is none.
    pub(super) fn open_reserve(&mut self) -> bool {
        if let Ok(reserve) = self.helper.reserve.try_recv() {
            self.reserve = Some(reserve);
        }
        let Some(reserve) = self.reserve.take() else {
            return false;
        };
        let number = self.requested;
        match reserve.activate(&self.dir, &self.header, number) {
            Ok(prepared) => {
                self.shedding = true;
                self.core.set_shed(true);
                self.requested = number + 1;
                self.use_segment(prepared);
                true
            }
            Err(error) => {
                note(&mut self.faults, error.to_string());
                false
            }
        }
    }

    /// Bytes of the reserve that are kept for the end of the session.
    pub(super) fn held_back(&self) -> usize {
        if self.shedding && !self.ending {
            END_RESERVE
        } else {
            0
        }
    }

    /// Remembers why there is no segment, and says so once.
    pub(super) fn have_trouble(&mut self, what: String) {
        if self.trouble.is_none() {
            say(&format!(
                "{what}; until there is space again only records that are always kept are written, \
                 others are dropped and counted"
            ));
        }
        note(&mut self.faults, what.clone());
        self.trouble = Some(what);
    }
}
