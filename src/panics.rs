//! Panics as records of the category `errors`.
//!
//! Nothing is installed unless the program asks for it.

use std::backtrace::Backtrace;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use crate::producer::Log;
use crate::record::Extra;
use crate::record::catalog::orchestrator::Failure;
use crate::symbol;

/// Panics are recorded until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the recording of panics"]
pub struct PanicGuard {
    on: Arc<AtomicBool>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        self.on.store(false, Relaxed);
    }
}

/// From now on every panic of the process is recorded in `errors`, before the hook that was there
/// is called: `error_message`, the backtrace as `traceback`, and the extra fields `location`
/// (`file:line:column`) and `thread`, beside the context of the thread. Made before the program
/// unwinds or aborts, whether or not the panic is caught.
///
/// The backtrace is taken whatever `RUST_BACKTRACE` says, which allocates and takes milliseconds,
/// more where debug information is large. A panic inside of a push (in a
/// [`Record`](crate::record::Record) of the caller's own) cannot be recorded there, and is counted
/// as `dropped{reentrant}`. Message and traceback are searched for secrets when they become lines,
/// as all texts are.
///
/// A hook cannot be taken out from under one that was installed later, so dropping the guard leaves
/// it in its place; it then only calls the one before. The hook keeps the handle `log`; when its
/// session is closed, panics are not recorded any more.
///
/// ```
/// # fn main() -> Result<(), stormlog::Error> {
/// # let temp = tempfile::tempdir().unwrap();
/// let session = stormlog::Session::builder().dir(temp.path()).start()?;
/// let panics = stormlog::panics::record(&session.log());
/// // ... the service runs ...
/// session.close()?;
/// drop(panics);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// If it is called while the calling thread panics, as [`std::panic::set_hook`] does.
pub fn record(log: &Log) -> PanicGuard {
    let on = Arc::new(AtomicBool::new(true));
    let guard = PanicGuard {
        on: Arc::clone(&on),
    };
    let log = log.clone();
    let before = take_hook();
    set_hook(Box::new(move |info| {
        if on.load(Relaxed) {
            push(&log, info);
        }
        before(info);
    }));
    guard
}

fn push(log: &Log, info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let location = info.location().map(ToString::to_string);
    let thread = std::thread::current();
    let traceback = Backtrace::force_capture().to_string();
    log.push_with(
        &Failure {
            component: symbol!("panic"),
            operation: None,
            error_type: symbol!("panic"),
            error_message: message.unwrap_or("a value that is no text"),
            traceback: Some(&traceback),
        },
        &[
            Extra::new("location", location.as_deref()),
            Extra::new("thread", thread.name()),
        ],
    );
}
