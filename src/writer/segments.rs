//! The sequence of segments as the writer sees it: room for the next block, rolling, and the
//! registry in every segment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::SpaceBounds;
use super::durability::SegmentEvent;
use super::failed::SealedSegment;
use super::helper::{HelperHandle, Task, note, space, tell_sync};
use super::reserve::Told;
use crate::core::Core;
use crate::error::Error;
use crate::ring::{REGISTRY_BYTES, RegistryCursor};
use crate::segment::entry::{ClockPoint, Entry};
use crate::segment::layout::{FileHeader, block_bytes};
use crate::segment::prepare::{Prepared, SEGMENT_ALIGN};
use crate::segment::writer::{SEAL_RESERVE, SegmentWriter};
use crate::sys::dir::Dir;

/// A segment that was filled in less than this is followed by larger ones.
const FAST_FILL: Duration = Duration::from_secs(1);
/// How long one call waits for a segment that is not ready yet.
const READY_WAIT: Duration = Duration::from_millis(1);
/// Pause after a segment could not be prepared.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The segments of one session.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent of each other")]
pub(crate) struct Segments {
    pub(super) core: Arc<Core>,
    pub(super) dir: Arc<Dir>,
    pub(super) helper: HelperHandle,
    pub(super) header: FileHeader,
    /// `None` after a roll until the next segment is ready.
    pub(super) current: Option<SegmentWriter>,
    opened: Instant,
    /// Bytes of the segments that are prepared now, and the most they may grow to.
    pub(super) bytes: usize,
    bytes_max: usize,
    /// Bytes of the first segment, the smallest.
    pub(super) bytes_min: usize,
    /// Number of the segment that the helper was asked for last.
    pub(super) requested: u64,
    /// The first segment that no sync has covered to its end.
    pub(super) unsynced: u64,
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
    pub(super) sequence: u64,
    /// Sequence of the first block of the current segment.
    pub(super) first_sequence: u64,
    /// The current segment has blocks that are nowhere else.
    pub(super) begun: bool,
    /// A block could not be written; not dealt with yet.
    pub(super) failed: Option<io::Error>,
    /// Nothing is written before.
    pub(super) paused_until: Option<Instant>,
    /// The file of the current segment is not ours any more, or shorter.
    pub(super) missing: bool,
    /// The last segment was lost, and has been sealed as what is left of it.
    pub(super) ended: bool,
    /// Segments that were lost, wholly or in part. Reading starts anew behind each.
    pub(crate) rescues: u64,
    pub(super) sealed: Vec<SealedSegment>,
    pub(super) cursor: RegistryCursor,
    /// Every registry entry so far, and how many of its bytes are in the current segment.
    pub(super) registry: Vec<u8>,
    pub(super) registry_in_segment: usize,
    last_clock: Option<ClockPoint>,
    /// Bytes of the segments that were sealed.
    pub(super) sealed_bytes: u64,
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
        let first_bytes = first.bytes;
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
            first_sequence: 0,
            begun: false,
            failed: None,
            paused_until: None,
            missing: false,
            ended: false,
            rescues: 0,
            sealed: Vec::new(),
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
        if let Some(error) = self.failed.take() {
            self.write_failed(&error);
        }
        self.rescue_if_lost(false);
        if self.is_paused() {
            return false;
        }
        self.collect_registry();
        for _ in 0..3 {
            if self.current.is_none() && !self.open_next() {
                return false;
            }
            // At the end only what is in the registry from the start is written still.
            let known = self.write_registry() || (self.in_reserve && self.ending);
            if self.failed.is_some() {
                return false;
            }
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

    /// Writes a clock point. False when there is no segment.
    pub(crate) fn write_clock(&mut self, point: ClockPoint) -> bool {
        let mut entry = Vec::new();
        Entry::Clock(point).append(&mut entry);
        if !self.ensure(block_bytes(entry.len())) {
            return false;
        }
        self.last_clock = Some(point);
        self.append_registry_block(&entry, 1)
    }

    /// Writes registry entries that are of this moment only. False when there is no segment.
    pub(crate) fn write_entries(&mut self, entries: &[u8], count: usize) -> bool {
        let written = self.ensure(block_bytes(entries.len()))
            && self.append_registry_block(entries, count as u32);
        self.begun |= written;
        written
    }

    /// Whether UTC has moved against the monotonic clock since the last point.
    pub(crate) fn is_clock_step(&self, point: &ClockPoint) -> bool {
        const STEP_NS: i128 = 1_000_000;
        let offset = |point: &ClockPoint| i128::from(point.utc_ns) - i128::from(point.mono_ns);
        self.last_clock
            .is_some_and(|last| (offset(point) - offset(&last)).abs() > STEP_NS)
    }

    /// Whether the counter is behind the last point.
    pub(crate) fn has_counter_fallen(&self, point: &ClockPoint) -> bool {
        self.last_clock.is_some_and(|last| point.ticks < last.ticks)
    }

    /// Asks the helper to make pages of new rings present.
    pub(crate) fn tell_helper(&self, task: Task) {
        // An error means that the helper has died by a panic, which close reports; recording goes
        // on as long as the current segment has room.
        drop(self.helper.tasks.send(task));
    }

    pub(super) fn room(&self) -> usize {
        // The room is for a payload; a second block needs its header and padding in it.
        self.current.as_ref().map_or(0, SegmentWriter::payload_room)
    }

    pub(super) fn roll(&mut self) {
        self.rescue_if_lost(false);
        if let Some(current) = self.current.take() {
            let fast = self.opened.elapsed() < FAST_FILL;
            if fast && !self.is_shedding() && self.trouble.is_none() {
                self.bytes = (self.bytes * 2).min(self.bytes_max);
            }
            let (number, counts) = (current.number(), current.counts().clone());
            let sealed = current.seal(self.sequence, false);
            fail_point!("roll.sealed");
            self.sequence += 1;
            self.sealed_bytes += sealed.bytes;
            self.sealed.push(SealedSegment {
                number,
                bytes: sealed.bytes,
                id: sealed.id(),
                counts,
            });
            self.tell_helper(Task::Finish(sealed));
            tell_sync(self.helper.syncs.as_ref(), SegmentEvent::Sealed(number));
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
        fail_point!("roll.opened");
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
        tell_sync(
            self.helper.syncs.as_ref(),
            SegmentEvent::Opened(prepared.number),
        );
        self.first_sequence = self.sequence;
        (self.begun, self.missing) = (false, false);
        self.paused_until = None;
        self.current = Some(SegmentWriter::new(prepared, self.header.nonce));
        fail_point!("roll.used");
        self.registry_in_segment = 0;
        if let Some(point) = self.last_clock {
            let mut entry = Vec::new();
            Entry::Clock(point).append(&mut entry);
            if !self.append_registry_block(&entry, 1) {
                // The next `ensure` deals with it.
            }
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
