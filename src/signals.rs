//! Closing sessions when the process is told to end.
//!
//! A process that SIGTERM or SIGINT ends does not run the code behind its loop, so its sessions are
//! not closed. A program that has no handling of its own for these signals asks for it here;
//! nothing is installed unless it does.

use std::thread::JoinHandle;

use crate::error::Error;
use crate::session::{Closer, Session};
use crate::sys::report::say;
use crate::sys::signal::{Handlers, Waiter, end_by};

/// Handles SIGTERM and SIGINT until it is dropped. Drop it after the sessions are closed.
///
/// Dropping it gives the signals their default action back. When one has come, it does not return:
/// the sessions are being closed, and then the process ends.
#[derive(Debug)]
#[must_use = "dropping it ends the handling"]
pub struct TerminationGuard {
    handlers: Handlers,
    thread: Option<JoinHandle<()>>,
}

/// From now on SIGTERM and SIGINT close these sessions, one after the other as [`Session::close`]
/// does, and then end the process by the same signal, so that whoever waits for it sees what it
/// would have seen without this. Pushes after the signal return `Closed`.
///
/// A second signal ends the process at once: sessions that are not closed by then are as after a
/// kill. A signal that the process ignores (as under `nohup`, or in the background of a shell)
/// stays ignored. The first process of a container, which the kernel does not end by these
/// signals, exits with code 128 + signal. A forked child has the default actions. Faults go to
/// standard error. A session that the program closes itself meanwhile is closed once, and
/// [`Session::close`] returns what it returns without a signal, unless the process has ended
/// before.
///
/// The signals are waited for on a thread of its own; nothing but a write to a pipe happens in
/// the handler. With [`Conversion::Background`](crate::Conversion::Background) the segments stay;
/// `stormlog convert` makes the files.
///
/// ```
/// # fn main() -> Result<(), stormlog::Error> {
/// # let temp = tempfile::tempdir().unwrap();
/// let session = stormlog::Session::builder().dir(temp.path()).start()?;
/// let guard = stormlog::signals::close_on_termination(&[&session])?;
/// // ... the service runs ...
/// session.close()?;
/// drop(guard);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Signals`] when the program, or another guard, handles one of the signals, or when there
/// are no descriptors or threads.
pub fn close_on_termination(sessions: &[&Session]) -> Result<TerminationGuard, Error> {
    let failed = |source| Error::Signals { source };
    let closers: Vec<Closer> = sessions.iter().map(|session| session.closer()).collect();
    let (handlers, waiter) = Handlers::install().map_err(failed)?;
    let mut guard = TerminationGuard {
        handlers,
        thread: None,
    };
    let thread = std::thread::Builder::new()
        .name("stormlog-signals".to_owned())
        .spawn(move || close_on_signal(waiter, &closers));
    guard.thread = Some(thread.map_err(failed)?);
    Ok(guard)
}

fn close_on_signal(mut waiter: Waiter, closers: &[Closer]) {
    waiter.wait();
    let Some((signal, name)) = Handlers::seen() else {
        return;
    };
    for closer in closers {
        match closer.close(name) {
            Ok(report) => {
                for fault in report.faults {
                    say(&format!("session {}: {fault}", report.session_id));
                }
            }
            Err(error) => say(&error.to_string()),
        }
    }
    end_by(signal);
}

impl Drop for TerminationGuard {
    fn drop(&mut self) {
        if !self.handlers.is_own() {
            // A forked child: the thread is the parent's, and the handler does nothing here.
            return std::mem::forget(self.thread.take());
        }
        if let Err(error) = self.handlers.remove() {
            // The thread may wait for ever.
            return say(&format!(
                "cannot give signals their default action: {error}"
            ));
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            say("the thread that closes sessions on signals has panicked");
        }
    }
}
