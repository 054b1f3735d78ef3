//! The sequence of segments as the writer sees it: room for the next block, rolling, and the
//! registry in every segment.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::SpaceBounds;
use super::helper::{HelperHandle, Task, discard, note, space};
use super::reserve::Told;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::ring::{REGISTRY_BYTES, RegistryCursor};
use crate::segment::entry::{ClockPoint, Entry};
use crate::segment::layout::{FileHeader, block_bytes};
use crate::segment::prepare::{Prepared, SEGMENT_ALIGN, segment_name};
use crate::segment::writer::{BlockInfo, SEAL_RESERVE, SegmentWriter};
use crate::sys::dir::Dir;

/// A segment that was filled in less than this is followed by larger ones.
const FAST_FILL: Duration = Duration::from_secs(1);
/// How long one call waits for a segment that is not ready yet.
const READY_WAIT: Duration = Duration::from_millis(1);
/// Pause after a segment could not be prepared.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The segments of one session.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(super) core: Arc<Core>,
    pub(super) dir: Arc<Dir>,
    pub(super) helper: HelperHandle,
    pub(super) header: FileHeader,
    /// `None` after a roll until the next segment is ready.
    current: Option<SegmentWriter>,
    opened: Instant,
    /// Bytes of the segments that are prepared now, and the most they may grow to.
    pub(super) bytes: usize,
    bytes_max: usize,
    /// Bytes of the first segment, the smallest.
    pub(super) bytes_min: usize,
    /// Number of the segment that the helper was asked for last.
    pub(super) requested: u64,
    /// The first segment that no sync has covered to its end.
    unsynced: u64,
    /// When a failed preparation may be tried again.
    pub(super) retry_at: Option<Instant>,
    /// Space for `Always` records and the end of the session when there is none for a segment.
    pub(super) reserve: Option<Prepared>,
    /// The current segment is a reserve.
    pub(super) in_reserve: bool,
    /// There is no space for more lines of normal records.
    pub(super) over: bool,
    pub(super) told: Told,
    pub(super) bounds: SpaceBounds,
    /// The session ends: the last part of the reserve may be used.
    pub(super) ending: bool,
    sequence: u64,
    pub(super) cursor: RegistryCursor,
    /// Every registry entry so far, and how many of its bytes are in the current segment.
    pub(super) registry: Vec<u8>,
    pub(super) registry_in_segment: usize,
    last_clock: Option<ClockPoint>,
    /// Bytes of the segments that were sealed.
    sealed_bytes: u64,
    /// Preparations that failed since a segment was opened.
    failures: u32,
    /// Why there is no segment, while there is none.
    pub(crate) trouble: Option<String>,
    pub(crate) faults: Vec<String>,
}

impl Segments {
    /// Starts with a segment that is ready, and asks for the next. When there is no space for
    /// another one, the first is the reserve.
    pub(crate) fn new(
        core: Arc<Core>,
        dir: Arc<Dir>,
        helper: HelperHandle,
        header: FileHeader,
        first: Prepared,
        bytes_max: usize,
        bounds: SpaceBounds,
    ) -> Self {
        let first_bytes = first.region.len();
        let mut segments = Self {
            core,
            dir,
            helper,
            header,
            bytes: first_bytes,
            bytes_max,
            bytes_min: first_bytes,
            requested: first.number,
            unsynced: first.number,
            current: None,
            opened: Instant::now(),
            retry_at: None,
            reserve: None,
            in_reserve: false,
            over: false,
            told: Told::default(),
            bounds,
            ending: false,
            sequence: 0,
            cursor: RegistryCursor::default(),
            registry: Vec::new(),
            registry_in_segment: 0,
            last_clock: None,
            sealed_bytes: 0,
            failures: 0,
            trouble: None,
            faults: Vec::new(),
        };
        let now = space(&segments.dir, &segments.core);
        let tight = now.ok().and_then(|space| bounds.tight(&space));
        if tight.is_some() {
            // Before the helper is asked for anything: it would make another.
            let reserve = &segments.core.space.reserve;
            reserve.store(first_bytes as u64, Relaxed);
        }
        segments.open(first);
        if let Some(what) = tight {
            segments.have_trouble(format!("{}: {what}", segments.dir.path().display()));
            segments.enter_reserve(first_bytes);
        }
        segments
    }

    /// Makes room for blocks that take `bytes` bytes in the file, after every registry entry that
    /// is committed now. False when there is no segment: try again later, nothing is lost.
    pub(crate) fn ensure(&mut self, bytes: usize) -> bool {
        if bytes + REGISTRY_BYTES + SEAL_RESERVE > self.bytes_min {
            note(
                &mut self.faults,
                format!("a block of {bytes} bytes does not fit into a segment"),
            );
            return false;
        }
        self.collect_registry();
        for _ in 0..3 {
            if self.current.is_none() && !self.open_next() {
                return false;
            }
            // At the end only what is in the registry from the start is written still.
            let known = self.write_registry() || (self.in_reserve && self.ending);
            if known && self.room() >= bytes + self.held_back() {
                return true;
            }
            if !self.in_reserve {
                self.roll();
            } else if !self.relieve() {
                return false;
            }
        }
        false
    }

    /// Appends a block; [`ensure`](Self::ensure) made room for it.
    pub(crate) fn append(
        &mut self,
        info: BlockInfo,
        payload_bytes: usize,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) {
        let Some(current) = &mut self.current else {
            debug_assert!(false, "ensure comes first");
            return;
        };
        current.append(self.sequence, info, payload_bytes, fill);
        self.sequence += 1;
    }

    /// Adds to the records of a category that the seal of this segment will state.
    pub(crate) fn count(&mut self, category: u8, records: u64) {
        if let Some(current) = &mut self.current {
            current.count(category, records);
        }
    }

    /// Writes a clock point. False when there is no segment.
    pub(crate) fn write_clock(&mut self, point: ClockPoint) -> bool {
        let mut entry = Vec::new();
        Entry::Clock(point).append(&mut entry);
        if !self.ensure(block_bytes(entry.len())) {
            return false;
        }
        self.last_clock = Some(point);
        self.append_registry_block(&entry, 1);
        true
    }

    /// Writes registry entries that are of this moment only. False when there is no segment.
    pub(crate) fn write_entries(&mut self, entries: &[u8], count: usize) -> bool {
        let fits = self.ensure(block_bytes(entries.len()));
        if fits {
            self.append_registry_block(entries, count as u32);
        }
        fits
    }

    /// Whether UTC has moved against the monotonic clock since the last point.
    pub(crate) fn is_clock_step(&self, point: &ClockPoint) -> bool {
        const STEP_NS: i128 = 1_000_000;
        let offset = |point: &ClockPoint| i128::from(point.utc_ns) - i128::from(point.mono_ns);
        self.last_clock
            .is_some_and(|last| (offset(point) - offset(&last)).abs() > STEP_NS)
    }

    /// Asks the helper to make pages of new rings present.
    pub(crate) fn tell_helper(&self, task: Task) {
        // An error means that the helper has died by a panic, which close reports; recording goes
        // on as long as the current segment has room.
        drop(self.helper.tasks.send(task));
    }

    /// Waits until all blocks so far are on the disk, those of sealed segments too. A segment whose
    /// sync failed is not synced again: after a failure the kernel may say yes to lost pages.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        let current = self
            .current
            .as_ref()
            .map_or(u64::MAX, SegmentWriter::number);
        let sealed_end = current.min(self.requested);
        let sealed = std::mem::replace(&mut self.unsynced, sealed_end)..sealed_end;
        let mut result = Ok(());
        for number in sealed {
            let name = segment_name(number);
            let file = self.dir.open_file(&name);
            let path = self.dir.path_of(&name);
            let synced =
                file.and_then(|file| file.sync_data().io_context("cannot sync segment", path));
            result = result.and(synced);
        }
        if let Some(current) = &self.current
            && let Err(error) = current.sync(&self.dir)
        {
            result = result.and(Err(error));
            self.roll();
            self.unsynced = self.requested;
        }
        result.and(self.dir.sync())
    }

    /// Bytes of all segments so far.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.sealed_bytes + self.current.as_ref().map_or(0, SegmentWriter::bytes)
    }

    /// Seals the last segment and ends the helper, whose unused segment is removed. Whether there
    /// was one to seal, and what went wrong.
    pub(crate) fn finish(mut self) -> (bool, Vec<String>) {
        let sealed = self.current.is_some();
        if let Some(current) = self.current.take() {
            let sealed = current.seal(self.sequence, true);
            self.tell_helper(Task::Finish(sealed));
        }
        drop(self.helper.tasks);
        // The helper ends now; until then it may still hand over a segment.
        for prepared in self.helper.ready.into_iter().flatten() {
            if let Err(error) = discard(&self.dir, prepared.number) {
                note(&mut self.faults, error.to_string());
            }
        }
        for unused in self.helper.reserve.into_iter().chain(self.reserve) {
            if let Err(error) = self.dir.remove_file(&unused.name) {
                note(&mut self.faults, error.to_string());
            }
        }
        (sealed, self.faults)
    }

    pub(super) fn room(&self) -> usize {
        // The room is for a payload; a second block needs its header and padding in it.
        self.current.as_ref().map_or(0, SegmentWriter::payload_room)
    }

    pub(super) fn roll(&mut self) {
        if let Some(current) = self.current.take() {
            if self.opened.elapsed() < FAST_FILL && !self.is_shedding() {
                self.bytes = (self.bytes * 2).min(self.bytes_max);
            }
            let sealed = current.seal(self.sequence, false);
            self.sequence += 1;
            self.sealed_bytes += sealed.bytes;
            self.tell_helper(Task::Finish(sealed));
        }
    }

    fn open_next(&mut self) -> bool {
        if let Some(at) = self.retry_at {
            if Instant::now() < at {
                return false;
            }
            self.retry_at = None;
            let (number, bytes) = (self.requested, self.bytes);
            self.tell_helper(Task::Prepare { number, bytes });
        }
        let ready = match self.helper.ready.try_recv() {
            Err(TryRecvError::Empty) => self.helper.ready.recv_timeout(READY_WAIT),
            Ok(ready) => Ok(ready),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        };
        match ready {
            Ok(Ok(prepared)) => {
                self.open(prepared);
                true
            }
            Ok(Err(error)) => {
                // The first failure may be an old one: the segment was prepared ahead.
                let pause = if self.failures == 0 {
                    Duration::ZERO
                } else {
                    self.have_trouble(reason(&error));
                    RETRY_AFTER
                };
                self.failures += 1;
                self.retry_at = Some(Instant::now() + pause);
                self.failures > 1 && self.open_reserve()
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                self.have_trouble("the helper thread has ended".to_owned());
                !self.in_reserve && self.open_reserve()
            }
        }
    }

    pub(super) fn open(&mut self, prepared: Prepared) {
        self.trouble = None;
        self.failures = 0;
        self.leave_reserve();
        self.requested = prepared.number + 1;
        self.tell_helper(Task::Prepare {
            number: self.requested,
            bytes: self.bytes,
        });
        self.use_segment(prepared);
    }

    pub(super) fn use_segment(&mut self, prepared: Prepared) {
        self.opened = Instant::now();
        self.current = Some(SegmentWriter::new(prepared, self.header.nonce));
        self.registry_in_segment = 0;
        if let Some(point) = self.last_clock {
            let mut entry = Vec::new();
            Entry::Clock(point).append(&mut entry);
            self.append_registry_block(&entry, 1);
        }
    }
}

/// Why there is no segment. Lack of space is told in the words of the bound.
fn reason(error: &Error) -> String {
    match error {
        Error::NoSpace { path, what } => format!("{}: {what}", path.display()),
        other => other.to_string(),
    }
}

/// What a record may exceed `record_bytes_max` by (768 KiB, see the producer), the data block that
/// refers to it, headers and the seal.
const RECORD_SLACK: usize = 1 << 20;

/// The smallest segment that can hold the whole registry, the longest record and what goes with
/// them.
pub(crate) const fn segment_bytes_min(record_bytes_max: usize) -> usize {
    let needed = REGISTRY_BYTES + record_bytes_max + RECORD_SLACK;
    needed.next_multiple_of(SEGMENT_ALIGN)
}
