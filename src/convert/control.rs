//! Deadline, cancellation and progress of a conversion.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use crate::error::Error;
use crate::redact::Rules;

/// What is named in errors.
const WHAT: &str = "the conversion";
/// Bytes between two looks at the clock.
const CHECK_BYTES: u64 = 256 * 1024;

/// How far a conversion is: bytes gone through and bytes to go through in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; an estimate until the first pass has ended.
    pub total: u64,
}

/// Whom a conversion obeys.
#[derive(Default)]
pub struct ConvertOptions<'a> {
    /// When to give up: temporary files are removed and [`Error::TimedOut`] is returned.
    pub deadline: Option<Instant>,
    /// Set to true, gives up as soon as possible with [`Error::Cancelled`].
    pub cancelled: Option<&'a AtomicBool>,
    /// Called now and then, by any of the threads.
    pub progress: Option<&'a mut (dyn FnMut(Progress) + Send)>,
    /// Wait until the results are on the disk before they get their names. Needed when the
    /// segments are removed afterwards.
    pub sync: bool,
    /// What is kept out of the lines besides what the session was recorded with, which by default
    /// are the built-in rules; [`Rules::on`] replaces that of the session.
    pub redact: Option<Rules>,
    /// How many threads convert, the calling one among them; 0 counts as 1, and more than 16 as 16.
    /// The lines do not depend on it.
    pub threads: usize,
    /// Go on behind damage at the next whole block. Without it a segment is read up to the first
    /// block that is damaged or missing.
    pub salvage: bool,
}

impl std::fmt::Debug for ConvertOptions<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ConvertOptions")
            .field("deadline", &self.deadline)
            .field("sync", &self.sync)
            .field("threads", &self.threads)
            .field("salvage", &self.salvage)
            .finish_non_exhaustive()
    }
}

/// The options while a conversion runs.
pub(super) struct Control<'a> {
    options: ConvertOptions<'a>,
    started: Instant,
    progress: Progress,
    /// `progress.done` at which to look at the clock again.
    check_at: u64,
}

impl<'a> Control<'a> {
    pub(super) fn new(options: ConvertOptions<'a>, total: u64) -> Self {
        Self {
            options,
            started: Instant::now(),
            progress: Progress { done: 0, total },
            check_at: 0,
        }
    }

    pub(super) fn set_total(&mut self, total: u64) {
        self.progress.total = total;
    }

    pub(super) fn salvage(&self) -> bool {
        self.options.salvage
    }

    pub(super) fn done(&self) -> u64 {
        self.progress.done
    }

    /// Counts `bytes` as done; an error when it is time to stop.
    pub(super) fn advance(&mut self, bytes: u64) -> Result<(), Error> {
        self.progress.done += bytes;
        if self.progress.done < self.check_at {
            return Ok(());
        }
        self.check_at = self.progress.done + CHECK_BYTES;
        self.check()
    }

    /// An error when it is time to stop.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        // Relaxed: a wish of the caller; no data hangs on it.
        if self
            .options
            .cancelled
            .is_some_and(|flag| flag.load(Relaxed))
        {
            return Err(Error::Cancelled { what: WHAT });
        }
        if let Some(deadline) = self.options.deadline.filter(|end| *end <= Instant::now()) {
            let limit = deadline.saturating_duration_since(self.started);
            return Err(Error::TimedOut {
                what: WHAT,
                limit_ms: limit.as_millis() as u64,
            });
        }
        if let Some(progress) = &mut self.options.progress {
            progress(self.progress);
        }
        Ok(())
    }
}
