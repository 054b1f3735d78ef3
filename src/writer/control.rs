//! Requests of cold callers (flush, sync, close) to the writer, and its answers.

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
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

/// How often a pause looks again.
const PAUSE_STEP: Duration = Duration::from_micros(200);

/// Shared by callers, the writer and the helper. Producers never touch it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    flushes: AtomicU64,
    syncs: AtomicU64,
    stop: AtomicBool,
    /// Why the session ends.
    reason: OnceLock<&'static str>,
    /// Producers that did not leave their push before the last drain.
    stuck: AtomicUsize,
    /// A test wants the writer to rest; it does. Relaxed, both: no data hangs on them.
    pause: AtomicBool,
    paused: AtomicBool,
    /// Bytes per second that the writer may take, for the demo; 0 = all.
    limit: AtomicU64,
    answers: Mutex<Answers>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Answers {
    /// Every flush up to this number is answered.
    flushed: u64,
    /// Every sync up to this number is answered.
    synced: u64,
    /// What went wrong with the flushes and syncs up to these numbers.
    failed: Option<(Seen, String)>,
    /// The writer has ended and will not answer any more.
    ended: bool,
}

/// Requests as the writer saw them before it drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
        // Release: pairs with the Acquire in `seen`; what the caller has seen comes before.
        let number = counter.fetch_add(1, Release) + 1;
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
            if let Some((upto, what)) = &answers.failed {
                let upto = match request {
                    Request::Flush => upto.flushes,
                    Request::Sync => upto.syncs,
                };
                if upto >= number {
                    return Err(Error::WriterFailed { what: what.clone() });
                }
            }
            if answers.ended {
                return Err(Error::WriterFailed {
                    what: format!("it ended before a {what}"),
                });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let limit_ms = limit.as_millis() as u64;
                return Err(Error::TimedOut { what, limit_ms });
            }
            answers = self
                .answered
                .wait_timeout(answers, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Caller: the writer is to drain for the last time and end.
    pub(crate) fn stop(&self, reason: &'static str, stuck: usize) {
        // Relaxed: the store of `stop` publishes it.
        self.stuck.store(stuck, Relaxed);
        self.reason.get_or_init(|| reason);
        // Release: pairs with the Acquire in `seen`; every push that was waited for comes before.
        self.stop.store(true, Release);
    }

    /// Test: the writer is to rest; returns when it does, or has ended. `wake` ends its sleep.
    pub(crate) fn pause(&self, wake: impl Fn()) {
        self.pause.store(true, Relaxed);
        while !self.paused.load(Relaxed) && !self.answers().ended {
            wake();
            std::thread::sleep(PAUSE_STEP);
        }
    }

    /// Test: the writer is to go on; returns when it does, or has ended.
    pub(crate) fn resume(&self, wake: impl Fn()) {
        self.pause.store(false, Relaxed);
        while self.paused.load(Relaxed) && !self.answers().ended {
            wake();
            std::thread::sleep(PAUSE_STEP);
        }
    }

    /// Writer, between two passes: rests while a test wants it to, but not beyond a stop.
    pub(crate) fn rest(&self) {
        while self.pause.load(Relaxed) && !self.stop.load(Relaxed) {
            self.paused.store(true, Relaxed);
            std::thread::park_timeout(PAUSE_STEP);
        }
        self.paused.store(false, Relaxed);
    }

    /// Demo: the writer is to take so many bytes per second; 0 = all.
    pub(crate) fn set_limit(&self, bytes_per_second: u64) {
        self.limit.store(bytes_per_second, Relaxed);
    }

    /// Writer: the limit of [`set_limit`](Self::set_limit), which ends with a stop.
    pub(crate) fn limit(&self) -> Option<NonZeroU64> {
        let limit = NonZeroU64::new(self.limit.load(Relaxed))?;
        (!self.stop.load(Relaxed)).then_some(limit)
    }

    /// Writer: producers that are still inside a push that began before close.
    pub(crate) fn stuck(&self) -> usize {
        self.stuck.load(Relaxed)
    }

    /// Writer: why the session ends.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason.get().copied().unwrap_or("unknown")
    }

    /// Writer: what is asked now. Requests seen here are answered by the drain that follows.
    pub(crate) fn seen(&self) -> Seen {
        Seen {
            // Acquire: pairs with the Release in `ask` and `stop`.
            flushes: self.flushes.load(Acquire),
            syncs: self.syncs.load(Acquire),
            stop: self.stop.load(Acquire),
        }
    }

    /// Writer: the flushes up to `seen` are done, and the syncs unless `sync` is `None`.
    pub(crate) fn answer(&self, seen: Seen, sync: Option<Result<(), String>>) {
        let mut answers = self.answers();
        answers.flushed = seen.flushes;
        match sync {
            Some(Ok(())) => answers.synced = seen.syncs,
            Some(Err(what)) => answers.failed = Some((Seen { flushes: 0, ..seen }, what)),
            None => {}
        }
        self.answered.notify_all();
    }

    /// Writer: the requests up to `seen` cannot be done now.
    pub(crate) fn fail(&self, seen: Seen, what: String) {
        self.answers().failed = Some((seen, what));
        self.answered.notify_all();
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writer, when it ends for whatever reason.
    pub(crate) fn end(&self) {
        self.answers().ended = true;
        self.answered.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests of memory orders: miri shows any of the values that the orders allow.
    const ROUNDS: usize = if cfg!(miri) { 4 } else { 50 };

    fn wait_for(control: &Control, is_there: impl Fn(Seen) -> bool) -> Seen {
        loop {
            let seen = control.seen();
            if is_there(seen) {
                return seen;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn whoever_sees_a_request_sees_what_came_before_it() {
        for round in 0..2 * ROUNDS {
            let (control, pushed) = (Control::default(), AtomicU64::new(0));
            let request = [Request::Flush, Request::Sync][round % 2];
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    pushed.store(1, Relaxed);
                    control
                        .ask(request, Duration::from_secs(60), || ())
                        .unwrap();
                });
                let seen = wait_for(&control, |seen| seen.flushes + seen.syncs > 0);
                assert_eq!(pushed.load(Relaxed), 1, "{request:?}");
                control.answer(seen, Some(Ok(())));
            });
        }
    }

    #[test]
    fn whoever_sees_the_stop_sees_what_came_before_it() {
        for _ in 0..ROUNDS {
            let (control, pushed) = (Control::default(), AtomicU64::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    pushed.store(1, Relaxed);
                    control.stop("test", 3);
                });
                wait_for(&control, |seen| seen.stop);
                assert_eq!((pushed.load(Relaxed), control.stuck()), (1, 3));
                assert_eq!(control.reason(), "test");
            });
        }
    }
}
