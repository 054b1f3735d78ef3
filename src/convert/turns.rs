//! Threads that work at the same time and hand in what they have made in order.
//!
//! ```text
//!   source --task n--> thread: works alone --turn n--> sink
//!  (one lock)                                        (one lock, in the order of the tasks)
//! ```
//!
//! Which thread has made something does not show: tasks are cut the same for any number of them.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// What threads share.
pub(super) struct Turns<S, T> {
    /// With the number of the next task.
    source: Mutex<(S, u64)>,
    sink: Mutex<Sink<T>>,
    passed: Condvar,
}

struct Sink<T> {
    value: T,
    /// The task whose turn it is.
    turn: u64,
    /// A thread has failed: no further turn comes.
    stopped: bool,
}

/// The sink, while it is the turn of a task.
pub(super) struct Turn<'a, T> {
    sink: MutexGuard<'a, Sink<T>>,
    passed: &'a Condvar,
}

impl<S: Send, T: Send> Turns<S, T> {
    pub(super) fn new(source: S, sink: T) -> Self {
        Self {
            source: Mutex::new((source, 0)),
            sink: Mutex::new(Sink {
                value: sink,
                turn: 0,
                stopped: false,
            }),
            passed: Condvar::new(),
        }
    }

    /// Takes the next task from the source; returns it with its number.
    pub(super) fn task<K>(
        &self,
        take: impl FnOnce(&mut S) -> Result<Option<K>, Error>,
    ) -> Result<Option<(u64, K)>, Error> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let (source, next) = &mut *source;
        let task = take(source)?;
        Ok(task.map(|task| {
            *next += 1;
            (*next - 1, task)
        }))
    }

    /// Uses the source for something else. Allowed within a turn.
    pub(super) fn source<K>(&self, using: impl FnOnce(&mut S) -> K) -> K {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        using(&mut source.0)
    }

    /// Waits for the turn of a task; `None` when another thread has failed.
    pub(super) fn turn(&self, number: u64) -> Option<Turn<'_, T>> {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |sink: &mut Sink<T>| sink.turn != number && !sink.stopped;
        let sink = self.passed.wait_while(sink, waits);
        let sink = sink.unwrap_or_else(PoisonError::into_inner);
        (!sink.stopped).then_some(Turn {
            sink,
            passed: &self.passed,
        })
    }

    /// Uses the sink, whose turn ever it is.
    pub(super) fn sink<K>(&self, using: impl FnOnce(&mut T) -> K) -> K {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        using(&mut sink.value)
    }

    /// Runs `work` on so many threads, the calling one among them; fewer when the system has none.
    /// The first of their errors.
    pub(super) fn run(
        &self,
        threads: usize,
        work: impl Fn() -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let work = || {
            let stop = Stop(self);
            let result = work();
            if result.is_ok() {
                std::mem::forget(stop);
            }
            result
        };
        std::thread::scope(|scope| {
            let spawned = (1..threads).map_while(|_| {
                let thread = std::thread::Builder::new().name("stormlog-convert".to_owned());
                thread.spawn_scoped(scope, work).ok()
            });
            let spawned: Vec<_> = spawned.collect();
            let mut result = work();
            for thread in spawned {
                let other = thread.join();
                let other = other.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = result.and(other);
            }
            result
        })
    }

    pub(super) fn into_inner(self) -> (S, T) {
        let source = self.source.into_inner();
        let sink = self.sink.into_inner();
        (
            source.unwrap_or_else(PoisonError::into_inner).0,
            sink.unwrap_or_else(PoisonError::into_inner).value,
        )
    }
}

/// Dropped, ends the waiting of all threads: one has failed or panicked, and its turn never ends.
struct Stop<'a, S, T>(&'a Turns<S, T>);

impl<S, T> Drop for Stop<'_, S, T> {
    fn drop(&mut self) {
        let mut sink = self.0.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.stopped = true;
        self.0.passed.notify_all();
    }
}

impl<T> Turn<'_, T> {
    /// The next task has its turn.
    pub(super) fn pass(mut self) {
        self.sink.turn += 1;
        self.passed.notify_all();
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.sink.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.sink.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(threads: usize, fail_at: Option<u64>) -> Result<Vec<u64>, Error> {
        let turns = Turns::new(0..1000_u64, Vec::new());
        turns.run(threads, || {
            while let Some((number, task)) = turns.task(|source| Ok(source.next()))? {
                assert_eq!(number, task);
                if task % 7 == number % 5 {
                    std::thread::yield_now();
                }
                if fail_at == Some(task) {
                    return Err(Error::Cancelled { what: "the sum" });
                }
                let Some(mut turn) = turns.turn(number) else {
                    return Ok(());
                };
                turn.push(task);
                turn.pass();
            }
            Ok(())
        })?;
        Ok(turns.into_inner().1)
    }

    #[test]
    fn results_are_in_order_whoever_made_them() {
        let expected: Vec<u64> = (0..1000).collect();
        for threads in [0, 1, 2, 3, 8] {
            assert_eq!(sum(threads, None).unwrap(), expected);
        }
    }

    #[test]
    fn an_error_ends_all_threads() {
        for fail_at in [0, 500, 999] {
            let result = sum(4, Some(fail_at));
            assert!(matches!(result, Err(Error::Cancelled { .. })));
        }
    }

    #[test]
    fn a_panic_ends_all_threads() {
        let turns = Turns::new(0..100_u64, ());
        let panics = std::panic::AssertUnwindSafe(|| {
            turns.run(4, || {
                while let Some((number, task)) = turns.task(|source| Ok(source.next()))? {
                    assert!(task != 50, "on purpose");
                    match turns.turn(number) {
                        Some(turn) => turn.pass(),
                        None => return Ok(()),
                    }
                }
                Ok(())
            })
        });
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
