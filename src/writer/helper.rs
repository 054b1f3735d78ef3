//! The helper thread: everything slow that the writer must not wait for. Prepares the next
//! segment, cuts sealed ones, makes ring pages present, publishes the ledger each second.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::time::Duration;

use super::durability::SegmentEvent;
use super::space::{Space, SpaceBounds};
use crate::core::{Core, phase};
use crate::error::Error;
use crate::ring::Prefaulted;
use crate::segment::layout::FileHeader;
use crate::segment::ledger_file::LedgerFile;
use crate::segment::prepare::{
    Prepared, RESERVE_NAME, SEGMENT_ALIGN, prepare, prepare_reserve, segment_name,
};
use crate::segment::sealed::Sealed;
use crate::segment::sink::SinkPlan;
use crate::sys::dir::Dir;
use crate::sys::reserve::file_bytes_max;

/// How often the ledger is published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// Rings that are kept ready beyond those in use.
const RINGS_AHEAD: u32 = 8;

/// How often a helper that a test holds looks again.
const HELD_STEP: Duration = Duration::from_micros(200);

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
    pub(crate) reserve: SyncSender<Prepared>,
    pub(crate) ledger: LedgerFile,
    pub(crate) bounds: SpaceBounds,
    pub(crate) plan: SinkPlan,
    /// Segments whose seal could not be written.
    pub(crate) unsealed: Vec<Sealed>,
    /// Length of the segment that was asked for last.
    pub(crate) wanted: usize,
}

impl Helper {
    /// Works until the writer drops its end of the channel; returns what went wrong and
    /// the ledger file.
    pub(crate) fn run(mut self) -> (Vec<String>, LedgerFile) {
        let mut faults = Vec::new();
        // Pages of rings are made present one ring at a time, when nobody waits for anything else.
        let (mut prefaulted, mut more_rings) = (Prefaulted::default(), true);
        loop {
            let wait = if more_rings {
                Duration::ZERO
            } else {
                PUBLISH_EVERY
            };
            match self.tasks.recv_timeout(wait) {
                Ok(Task::Prepare { number, bytes }) => {
                    // First: what must be kept has the right of way.
                    self.reserve();
                    self.prepare(number, bytes);
                    self.look_at_space();
                }
                Ok(Task::Finish(sealed)) => self.finish(sealed, &mut faults),
                Ok(Task::Rings) => more_rings = true,
                Err(RecvTimeoutError::Timeout) if more_rings => {
                    more_rings = self.prefault(&mut prefaulted, &mut faults);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.reserve();
                    self.look_at_space();
                    self.seal_again(&mut faults);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.seal_again(&mut faults);
                    for sealed in &self.unsealed {
                        note(&mut faults, sealed.unsealed_sentence(&self.dir));
                    }
                    return (faults, self.ledger);
                }
            }
            if let Err(error) = self
                .ledger
                .publish_if_due(PUBLISH_EVERY, || self.core.ledger())
            {
                note(&mut faults, error.to_string());
            }
        }
    }

    /// Cuts a segment. One whose seal cannot be written is kept for later.
    fn finish(&mut self, mut sealed: Sealed, faults: &mut Vec<String>) {
        let unused = sealed.unused_bytes();
        match sealed.finish(&self.dir) {
            Ok(()) => {
                self.core.space.segments.fetch_sub(unused, Relaxed);
            }
            Err(_) if !sealed.is_sealed() => self.unsealed.push(sealed),
            Err(error) => note(faults, error.to_string()),
        }
    }

    fn seal_again(&mut self, faults: &mut Vec<String>) {
        for sealed in std::mem::take(&mut self.unsealed) {
            self.finish(sealed, faults);
        }
    }

    fn prepare(&mut self, number: u64, wanted: usize) {
        self.wanted = wanted;
        while self.core.space.held.load(Relaxed) && self.core.phase() == phase::RECORDING {
            std::thread::sleep(HELD_STEP);
        }
        let prepared = self.room_for(wanted).and_then(|bytes| {
            let prepared = prepare(&self.dir, self.plan, &self.header, number, bytes)?;
            self.core.space.segments.fetch_add(bytes as u64, Relaxed);
            Ok(prepared)
        });
        match self.ready.try_send(prepared) {
            Ok(()) => {}
            // The writer has ended meanwhile, or has an unused segment: this one is not needed.
            Err(TrySendError::Full(prepared) | TrySendError::Disconnected(prepared)) => {
                if let Ok(prepared) = prepared {
                    let bytes = prepared.bytes as u64;
                    self.core.space.segments.fetch_sub(bytes, Relaxed);
                    // It would stay behind as an empty segment, which readers skip.
                    drop(discard(&self.dir, number));
                }
            }
        }
    }

    /// How long a segment of `wanted` bytes may be.
    fn room_for(&self, wanted: usize) -> Result<usize, Error> {
        let space = space(&self.dir, &self.core)?;
        let most = file_bytes_max().min(wanted as u64) as usize;
        let wanted = (most / SEGMENT_ALIGN * SEGMENT_ALIGN).max(self.bounds.segment_bytes_min);
        let bytes = self.bounds.segment_bytes(&space, wanted);
        bytes.ok_or_else(|| Error::NoSpace {
            path: self.dir.path().to_owned(),
            what: self.bounds.sentence(&space),
        })
    }

    /// Tells the writer how much space there is. When nobody can say, the last answer stands.
    fn look_at_space(&self) {
        if let Ok(space) = space(&self.dir, &self.core) {
            let told = &self.core.space;
            let pressure = self.bounds.pressure(&space, self.wanted);
            told.pressure.store(pressure, Relaxed);
            told.lines_max.store(self.bounds.lines_max(&space), Relaxed);
        }
    }

    /// Makes a reserve if there is none. What goes wrong here goes wrong for the next segment too,
    /// and is told there.
    fn reserve(&self) {
        let used = &self.core.space;
        let bytes = self.bounds.segment_bytes_min;
        if used.reserve.load(Relaxed) > 0
            || !space(&self.dir, &self.core).is_ok_and(|now| self.bounds.allows_reserve(&now))
        {
            return;
        }
        let Ok(prepared) = prepare_reserve(&self.dir, self.plan, bytes) else {
            return;
        };
        // Before it is handed over: the writer takes it back.
        used.segments.fetch_add(bytes as u64, Relaxed);
        used.reserve.store(bytes as u64, Relaxed);
        if self.reserve.try_send(prepared).is_err() {
            // The writer has ended; a file that stays behind is nobody's segment.
            drop(self.dir.remove_file(RESERVE_NAME));
        }
    }

    /// Makes pages of a ring present. Returns whether there are more.
    fn prefault(&self, done: &mut Prefaulted, faults: &mut Vec<String>) -> bool {
        match self.core.storage.prefault(done, RINGS_AHEAD) {
            Ok(more) => more,
            Err(error) => {
                // Slower first pushes, nothing lost.
                note(faults, format!("cannot make ring pages present: {error}"));
                false
            }
        }
    }
}

/// The file system and the session, now.
pub(crate) fn space(dir: &Dir, core: &Core) -> Result<Space, Error> {
    let (free, total) = dir.space()?;
    let used = &core.space;
    Ok(Space {
        free,
        total,
        segments: used.segments.load(Relaxed),
        reserve: used.reserve.load(Relaxed),
        recorded: used.recorded.load(Relaxed),
        lines: used.lines.load(Relaxed),
        always_recorded: used.always_recorded.load(Relaxed),
        always_lines: used.always_lines.load(Relaxed),
        live: used.live.load(Relaxed),
        again: used.again.load(Relaxed),
    })
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
    pub(crate) reserve: Receiver<Prepared>,
    /// To the thread that syncs, if there is one.
    pub(crate) syncs: Option<Sender<SegmentEvent>>,
}

/// Tells the thread that syncs, if there is one.
pub(super) fn tell_sync(syncs: Option<&Sender<SegmentEvent>>, event: SegmentEvent) {
    if let Some(syncs) = syncs {
        // Refused when it has ended by a panic, which close reports.
        syncs.send(event).ok();
    }
}
