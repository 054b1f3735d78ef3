//! Requests of cold callers (flush, sync, close) to the writer, and its answers.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Everything pushed before is in a segment.
    Flush,
    /// And on the disk.
    Sync,
}

/// Shared by callers, the writer and the helper. Producers never touch it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    flushes: AtomicU64,
    syncs: AtomicU64,
    stop: AtomicBool,
    /// Why the session ends.
    reason: OnceLock<&'static str>,
    answers: Mutex<Answers>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Answers {
    flushed: u64,
    synced: u64,
    /// The writer has ended and will not answer any more.
    ended: bool,
    /// Why records are not reaching the disk, if they are not.
    trouble: Option<String>,
}

/// Requests as the writer saw them before it drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) flushes: u64,
    pub(crate) syncs: u64,
    pub(crate) stop: bool,
}

impl Control {
    /// Caller: asks, wakes the writer with `wake` and waits. A barrier that makes every push that
    /// returned before visible must come first.
    pub(crate) fn ask(
        &self,
        request: Request,
        limit: Duration,
        wake: impl Fn(),
    ) -> Result<(), Error> {
        let (counter, what) = match request {
            Request::Flush => (&self.flushes, "flush"),
            Request::Sync => (&self.syncs, "sync"),
        };
        let number = counter.fetch_add(1, SeqCst) + 1;
        wake();
        let deadline = Instant::now() + limit;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let done = match request {
                Request::Flush => answers.flushed,
                Request::Sync => answers.synced,
            };
            if done >= number {
                return Ok(());
            }
            if answers.ended {
                return Err(Error::WriterFailed {
                    what: format!("it ended before a {what}"),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let limit_ms = limit.as_millis() as u64;
                return Err(match answers.trouble.clone() {
                    Some(what) => Error::WriterFailed { what },
                    None => Error::TimedOut { what, limit_ms },
                });
            }
            answers = self
                .answered
                .wait_timeout(answers, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Caller: the writer is to drain for the last time and end.
    pub(crate) fn stop(&self, reason: &'static str) {
        self.reason.get_or_init(|| reason);
        self.stop.store(true, SeqCst);
    }

    /// Writer: why the session ends.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason.get().copied().unwrap_or("unknown")
    }

    /// Writer: what is asked now. Requests seen here are answered by the drain that follows.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            flushes: self.flushes.load(SeqCst),
            syncs: self.syncs.load(SeqCst),
            stop: self.stop.load(SeqCst),
        }
    }

    /// Writer: the drain after `seen` is done; `synced` tells whether it is on the disk too.
    pub(crate) fn answer(&self, seen: Seen, synced: bool, trouble: Option<String>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.flushed = if trouble.is_none() {
            seen.flushes
        } else {
            answers.flushed
        };
        answers.synced = if synced { seen.syncs } else { answers.synced };
        answers.trouble = trouble;
        self.answered.notify_all();
    }

    /// Writer, when it ends for whatever reason.
    pub(crate) fn end(&self) {
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended = true;
        self.answered.notify_all();
    }
}
