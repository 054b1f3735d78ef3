//! What the process and its machine use, every few seconds, as records of the category
//! `performance`.
//!
//! One thread, `stormlog-resources`, which only a session with `resource_interval` has. What cannot
//! be read (another kernel, a container without `/proc/pressure`) is left out of the record.

mod cgroup;
mod read;
mod sample;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::producer::{Log, Outcome};
use crate::record::{Extra, Symbol};
use crate::symbol;
use crate::sys::report::say;
use sample::{FIELDS_MAX, Reader};

crate::record! {
    /// What follows are extra fields, so that those that are not known are not there.
    struct Resources in "performance" keep Sampled {
        operation: Symbol,
    }
}

/// The thread of one session.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Its other end is what the thread waits for.
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Sampler {
    /// Samples every `interval` from now on, until the session is closed; `None` when that is zero,
    /// and when there is no thread to be had, which is told. `dir` is the log directory.
    pub(crate) fn start(log: Log, interval: Duration, dir: PathBuf) -> Option<Self> {
        if interval.is_zero() {
            return None;
        }
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("stormlog-resources".to_owned())
            .spawn(move || run(&log, interval, dir, &stopped));
        match thread {
            Ok(thread) => Some(Self { stop, thread }),
            Err(error) => {
                say(&format!("cannot sample resources: {error}"));
                None
            }
        }
    }

    /// Ends the thread, after the sample that it is taking.
    pub(crate) fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            say("the thread that samples resources has panicked");
        }
    }
}

fn run(log: &Log, interval: Duration, dir: PathBuf, stopped: &Receiver<()>) {
    let mut reader = Reader::new(PathBuf::from("/"), dir);
    let mut next = Instant::now();
    loop {
        // A sample that took long does not lead to a burst of samples.
        next = (next + interval).max(Instant::now());
        let pause = next.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        let sample = reader.sample();
        let mut room = [Extra::default(); FIELDS_MAX];
        let fields = sample.fields(&mut room);
        let record = Resources {
            operation: symbol!("resources"),
        };
        if log.push_with(&record, fields) == Outcome::Closed {
            return;
        }
    }
}
