//! SIGTERM and SIGINT as an event that a thread can wait for.
//!
//! The handler writes one byte into a pipe and is done. What it needs lies in atomics, because a
//! handler may not lock.
#![expect(unsafe_code, reason = "signal handlers have no safe interface")]

use std::io::{self, PipeReader, Read, pipe};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use libc::{SIG_DFL, SIG_IGN, c_int};

use super::fork;

/// What ends a process in order, and the names.
pub(crate) const TERMINATION: [(c_int, &str); 2] =
    [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT")];

/// Write end of the pipe; -1 = none.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process that waits; a forked child inherits handler and pipe.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// The first signal that came; 0 = none.
static SEEN: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(signal: c_int) {
    let own = PROCESS.load(SeqCst) == std::process::id().cast_signed();
    let first = SEEN.compare_exchange(0, signal, SeqCst, SeqCst).is_ok();
    if own && first {
        let byte = 0_u8;
        // SAFETY: one byte from the stack; the descriptor is never closed. A pipe has room for it,
        // so the call succeeds and does not touch errno.
        unsafe { libc::write(PIPE.load(SeqCst), ptr::from_ref(&byte).cast(), 1) };
    } else {
        // The second one, or in a child that did not ask for it. Delivered when this returns.
        send_default(signal);
    }
}

/// What a signal does when nobody handles it, to this process.
fn send_default(signal: c_int) {
    let action = action_of(SIG_DFL);
    // SAFETY: a whole action that calls no function; an error leaves the handler as it is.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if std::process::id() == 1 {
        // For the first process of a container the kernel leaves out what would end it.
        exit_as(signal);
    }
    // SAFETY: no memory is involved.
    unsafe { libc::kill(std::process::id().cast_signed(), signal) };
}

/// The exit code by which shells and container runtimes tell of a signal.
fn exit_as(signal: c_int) -> ! {
    // SAFETY: ends the process without running any more of its code, as the signal would.
    unsafe { libc::_exit(128 + signal) }
}

fn action_of(handler: libc::sighandler_t) -> libc::sigaction {
    // SAFETY: all zeros is a whole action: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    // System calls of the program go on; programs with small stacks set others for handlers.
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    action
}

/// Handlers of [`TERMINATION`], until it is dropped.
#[derive(Debug)]
pub(crate) struct Handlers {
    installed: Vec<c_int>,
    process: u64,
}

/// What the thread that waits holds.
#[derive(Debug)]
pub(crate) struct Waiter(PipeReader);

impl Handlers {
    /// Handles the signals that have their default action. One that is ignored stays so, as a
    /// shell or nohup wants it.
    ///
    /// # Errors
    /// When the program handles one of them otherwise, or there are no descriptors.
    pub(crate) fn install() -> io::Result<(Self, Waiter)> {
        let (reader, writer) = pipe()?;
        let mut handlers = Self {
            installed: Vec::new(),
            process: fork::generation(),
        };
        for (signal, name) in TERMINATION {
            match disposition(signal)? {
                SIG_DFL => handlers.installed.push(signal),
                SIG_IGN => {}
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::AlreadyExists,
                        format!("{name} has a handler already"),
                    ));
                }
            }
        }
        SEEN.store(0, SeqCst);
        PROCESS.store(std::process::id().cast_signed(), SeqCst);
        // Never closed: a handler on another thread may be just about to write.
        PIPE.store(ManuallyDrop::new(writer).as_raw_fd(), SeqCst);
        let handler: extern "C" fn(c_int) = on_signal;
        for signal in &handlers.installed {
            set(*signal, handler as libc::sighandler_t)?;
        }
        Ok((handlers, Waiter(reader)))
    }

    /// Whether a signal has come, and its name.
    pub(crate) fn seen() -> Option<(c_int, &'static str)> {
        let seen = SEEN.load(SeqCst);
        TERMINATION.into_iter().find(|(signal, _)| *signal == seen)
    }

    /// Whether this process installed them, and not its parent.
    pub(crate) fn is_own(&self) -> bool {
        self.process == fork::generation()
    }

    /// Gives the signals their default action back and ends the wait.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for signal in &self.installed {
            set(*signal, SIG_DFL)?;
        }
        // SAFETY: never closed, see `install`; the value is not dropped.
        let pipe = unsafe { std::os::fd::BorrowedFd::borrow_raw(PIPE.load(SeqCst)) };
        rustix::io::write(pipe, &[0])?;
        Ok(())
    }
}

impl Waiter {
    /// Waits for the first signal, or for the end of the handlers.
    pub(crate) fn wait(&mut self) {
        let mut byte = [0];
        while let Err(error) = self.0.read_exact(&mut byte) {
            if error.kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
    }
}

/// Ends the process by a signal, as if nobody had handled it.
pub(crate) fn end_by(signal: c_int) -> ! {
    send_default(signal);
    // Another thread may be the one that takes it.
    std::thread::sleep(Duration::from_secs(1));
    exit_as(signal)
}

fn disposition(signal: c_int) -> io::Result<libc::sighandler_t> {
    let mut now = action_of(SIG_DFL);
    // SAFETY: writes one action.
    match unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) } {
        0 => Ok(now.sa_sigaction),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(signal: c_int, handler: libc::sighandler_t) -> io::Result<()> {
    let action = action_of(handler);
    // SAFETY: a whole action; the handler is one of this file and calls nothing that a handler may
    // not call.
    match unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
