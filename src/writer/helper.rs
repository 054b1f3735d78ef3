//! The helper thread: everything slow that the writer must not wait for. Prepares the next
//! segment, cuts sealed ones, makes ring pages present, publishes the ledger each second.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::time::Duration;

use crate::core::Core;
use crate::error::Error;
use crate::segment::layout::FileHeader;
use crate::segment::ledger_file::LedgerFile;
use crate::segment::prepare::{Prepared, prepare, segment_name};
use crate::segment::writer::Sealed;
use crate::sys::dir::Dir;

/// How often the ledger is published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// Rings that are kept ready beyond those in use.
const RINGS_AHEAD: u32 = 8;

/// What the writer asks of the helper.
#[derive(Debug)]
pub(crate) enum Task {
    /// Prepare segment `number` with `bytes` bytes.
    Prepare { number: u64, bytes: usize },
    /// Cut a sealed segment to its length.
    Finish(Sealed),
    /// A thread took a ring.
    Rings,
}

/// State of the helper thread.
#[derive(Debug)]
pub(crate) struct Helper {
    pub(crate) core: Arc<Core>,
    pub(crate) dir: Arc<Dir>,
    pub(crate) header: FileHeader,
    pub(crate) tasks: Receiver<Task>,
    pub(crate) ready: SyncSender<Result<Prepared, Error>>,
    pub(crate) ledger: LedgerFile,
}

impl Helper {
    /// Works until the writer drops its end of the channel; returns what went wrong and
    /// the ledger file.
    pub(crate) fn run(mut self) -> (Vec<String>, LedgerFile) {
        let mut faults = Vec::new();
        let mut prefaulted = (0, 0);
        self.prefault(&mut prefaulted, &mut faults);
        loop {
            match self.tasks.recv_timeout(PUBLISH_EVERY) {
                Ok(Task::Prepare { number, bytes }) => self.prepare(number, bytes),
                Ok(Task::Finish(sealed)) => {
                    if let Err(error) = sealed.finish(&self.dir) {
                        note(&mut faults, error.to_string());
                    }
                }
                Ok(Task::Rings) => self.prefault(&mut prefaulted, &mut faults),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return (faults, self.ledger),
            }
            if let Err(error) = self
                .ledger
                .publish_if_due(PUBLISH_EVERY, || self.core.ledger())
            {
                note(&mut faults, error.to_string());
            }
        }
    }

    fn prepare(&self, number: u64, bytes: usize) {
        let prepared = prepare(&self.dir, &self.header, number, bytes);
        match self.ready.try_send(prepared) {
            Ok(()) => {}
            // The writer has ended meanwhile, or has an unused segment: this one is not needed.
            Err(TrySendError::Full(prepared) | TrySendError::Disconnected(prepared)) => {
                if prepared.is_ok() {
                    // It would stay behind as an empty segment, which readers skip.
                    drop(discard(&self.dir, number));
                }
            }
        }
    }

    fn prefault(&self, done: &mut (u32, u32), faults: &mut Vec<String>) {
        if let Err(error) = self.core.storage.prefault(done, RINGS_AHEAD) {
            // Slower first pushes, nothing lost.
            note(faults, format!("cannot make ring pages present: {error}"));
        }
    }
}

/// Removes a segment that was prepared and never used.
pub(crate) fn discard(dir: &Dir, number: u64) -> Result<(), Error> {
    dir.remove_file(&segment_name(number))
}

/// Keeps a bounded list of different faults.
pub(crate) fn note(faults: &mut Vec<String>, fault: String) {
    const FAULTS_MAX: usize = 32;
    if faults.len() < FAULTS_MAX && !faults.contains(&fault) {
        faults.push(fault);
    }
}

/// The writer's end of the channels.
#[derive(Debug)]
pub(crate) struct HelperHandle {
    pub(crate) tasks: Sender<Task>,
    pub(crate) ready: Receiver<Result<Prepared, Error>>,
}
