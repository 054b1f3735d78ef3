//! The thread that brings segments to the disk while a session records (`durability`).
//!
//! ```text
//!   writer --Opened(n), Sealed(n)--> this thread: fdatasync of segments, fsync of the directory
//!          <-- give_up(n) ---------- its sync has failed: seal it, go on in the next
//! ```
//!
//! It is a thread of its own, because a sync can take as long as the disk wants: neither the writer
//! nor the helper, which prepares the next segment, may wait for it. Only segments are synced,
//! which no producer touches. A file whose sync failed is never synced again: the kernel may have
//! dropped its pages and say yes the next time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::helper::note;
use super::segments::Segments;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::segment::layout::HINT_OFFSET;
use crate::segment::prepare::segment_name;
use crate::sys::dir::Dir;
use crate::sys::report::say;

/// What the writer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentEvent {
    /// It writes into this segment now.
    Opened(u64),
    /// It will not write into it any more.
    Sealed(u64),
}

/// The disk, as far as syncing goes.
pub(crate) trait Disk {
    /// Waits until a segment is on the disk.
    fn sync_segment(&mut self, number: u64) -> Result<(), Error>;
    /// Waits until the names of all segments are.
    fn sync_names(&mut self) -> Result<(), Error>;
    /// Where the blocks of a segment end now; it changes with each of them.
    fn committed(&mut self, number: u64) -> u64;
    /// Has the writer leave the segment.
    fn give_up(&mut self, number: u64);
    /// All that was there when this round began is on the disk, or was said to have failed.
    fn end_round(&mut self) {}
    /// Whether a sync of the segment has failed, whoever asked for it.
    fn has_failed(&self, number: u64) -> bool;
}

/// The session directory.
#[derive(Debug)]
pub(crate) struct SessionDisk {
    dir: Arc<Dir>,
    core: Arc<Core>,
    /// The segment that was used last.
    file: Option<(u64, File)>,
}

impl SessionDisk {
    pub(crate) fn new(dir: Arc<Dir>, core: Arc<Core>) -> Self {
        Self {
            dir,
            core,
            file: None,
        }
    }

    /// A descriptor that stays open, so that no error of the kernel's own writing is missed.
    fn file(&mut self, number: u64) -> Result<&File, Error> {
        let known = self.file.take().filter(|(known, _)| *known == number);
        let file = match known {
            Some((_, file)) => file,
            None => self.dir.open_file(&segment_name(number))?,
        };
        Ok(&self.file.insert((number, file)).1)
    }
}

impl Disk for SessionDisk {
    fn sync_segment(&mut self, number: u64) -> Result<(), Error> {
        let path = self.dir.path_of(&segment_name(number));
        self.file(number)?
            .sync_data()
            .io_context("cannot sync segment", path)
    }

    fn sync_names(&mut self) -> Result<(), Error> {
        self.dir.sync()
    }

    fn committed(&mut self, number: u64) -> u64 {
        let mut hint = [0; 8];
        let read = self
            .file(number)
            .map(|file| file.read_exact_at(&mut hint, HINT_OFFSET as u64));
        match read {
            Ok(Ok(())) => u64::from_le_bytes(hint),
            // The sync that follows says what is wrong.
            _ => u64::MAX,
        }
    }

    fn give_up(&mut self, number: u64) {
        self.core.space.sync_failed.store(number, Relaxed);
        self.core.wake.unpark();
    }

    fn end_round(&mut self) {
        self.core.space.sync_rounds.fetch_add(1, Relaxed);
    }

    fn has_failed(&self, number: u64) -> bool {
        self.core.space.sync_failed.load(Relaxed) == number
    }
}

/// State of the thread.
#[derive(Debug)]
pub(crate) struct Syncer<D> {
    disk: D,
    /// How often the open segment is synced; `None` = sealed ones only.
    every: Option<Duration>,
    events: Receiver<SegmentEvent>,
    open: Option<u64>,
    /// Sealed and not synced since.
    sealed: Vec<u64>,
    /// Segment and end of its blocks as of the last sync of an open segment.
    synced: (u64, u64),
    /// A name is not known to be on the disk.
    new_names: bool,
    faults: Vec<String>,
}

impl<D: Disk> Syncer<D> {
    pub(crate) fn new(disk: D, every: Option<Duration>, events: Receiver<SegmentEvent>) -> Self {
        Self {
            disk,
            every,
            events,
            open: None,
            sealed: Vec::new(),
            synced: (0, 0),
            new_names: false,
            faults: Vec::new(),
        }
    }

    /// Works until the writer has ended; returns what went wrong.
    pub(crate) fn run(mut self) -> Vec<String> {
        let mut due = self.every.map(|every| Instant::now() + every);
        loop {
            let event = match due {
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    self.events.recv_timeout(left)
                }
                None => self
                    .events
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {
                    self.sync();
                    self.disk.end_round();
                    due = self.every.map(|every| Instant::now() + every);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.sync();
                    return self.faults;
                }
            }
        }
    }

    fn take(&mut self, event: SegmentEvent) {
        match event {
            SegmentEvent::Opened(number) => {
                self.open = Some(number);
                self.new_names = true;
            }
            SegmentEvent::Sealed(number) => {
                self.open = self.open.filter(|open| *open != number);
                self.sealed.push(number);
                if self.every.is_none() {
                    self.sync();
                }
            }
        }
    }

    /// Brings to the disk what is not there.
    fn sync(&mut self) {
        for number in std::mem::take(&mut self.sealed) {
            if !self.disk.has_failed(number)
                && let Err(error) = self.disk.sync_segment(number)
            {
                self.fail(number, &error);
            }
        }
        if let Some(number) = self.open.filter(|_| self.every.is_some()) {
            // Before the sync: what is committed meanwhile is for the next one.
            let now = (number, self.disk.committed(number));
            if now != self.synced && !self.disk.has_failed(number) {
                self.synced = now;
                if let Err(error) = self.disk.sync_segment(number) {
                    self.fail(number, &error);
                }
            }
        }
        if std::mem::take(&mut self.new_names)
            && let Err(error) = self.disk.sync_names()
        {
            note(&mut self.faults, error.to_string());
        }
    }

    fn fail(&mut self, number: u64, error: &Error) {
        say(&format!(
            "{error}: what was recorded there may not survive the loss of the machine"
        ));
        note(&mut self.faults, error.to_string());
        self.disk.give_up(number);
    }
}

impl Segments {
    /// Leaves the segment whose sync has failed: nothing more is trusted to it.
    pub(crate) fn leave_failed(&mut self) {
        // Relaxed: nothing else hangs on the number.
        let failed = self.core.space.sync_failed.load(Relaxed);
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.number() == failed)
        {
            self.roll();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::sync::{Mutex, MutexGuard};

    /// What was asked of the disk, and what of it fails.
    #[derive(Default)]
    struct Log {
        asked: Vec<String>,
        failing: Vec<u64>,
        failed: Vec<u64>,
        committed: u64,
    }

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Log>>);

    impl Fake {
        fn log(&self) -> MutexGuard<'_, Log> {
            self.0.lock().unwrap()
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut self.log().asked)
        }
    }

    impl Disk for Fake {
        fn sync_segment(&mut self, number: u64) -> Result<(), Error> {
            let mut log = self.log();
            log.asked.push(format!("segment {number}"));
            if log.failing.contains(&number) {
                return Err(std::io::Error::other("broken")).io_context("cannot sync", "disk");
            }
            Ok(())
        }

        fn sync_names(&mut self) -> Result<(), Error> {
            self.log().asked.push("names".to_owned());
            Ok(())
        }

        fn committed(&mut self, _: u64) -> u64 {
            self.log().committed
        }

        fn give_up(&mut self, number: u64) {
            let mut log = self.log();
            log.asked.push(format!("give up {number}"));
            log.failed.push(number);
        }

        fn has_failed(&self, number: u64) -> bool {
            self.log().failed.contains(&number)
        }
    }

    fn syncer(every: Option<Duration>) -> (Fake, Syncer<Fake>) {
        let fake = Fake::default();
        let (_, events) = channel();
        (fake.clone(), Syncer::new(fake, every, events))
    }

    const EVERY: Option<Duration> = Some(Duration::from_secs(3600));

    #[test]
    fn a_seal_is_synced_at_once_and_an_open_segment_not_without_interval() {
        let (fake, mut syncer) = syncer(None);
        syncer.take(SegmentEvent::Opened(1));
        syncer.sync();
        assert_eq!(fake.asked(), ["names"]);
        syncer.take(SegmentEvent::Sealed(1));
        assert_eq!(fake.asked(), ["segment 1"]);
        syncer.take(SegmentEvent::Opened(2));
        syncer.take(SegmentEvent::Sealed(2));
        assert_eq!(fake.asked(), ["segment 2", "names"]);
    }

    #[test]
    fn an_interval_syncs_what_is_new_and_nothing_else() {
        let (fake, mut syncer) = syncer(EVERY);
        syncer.take(SegmentEvent::Opened(1));
        fake.log().committed = 100;
        syncer.sync();
        assert_eq!(fake.asked(), ["segment 1", "names"]);
        syncer.sync();
        assert!(fake.asked().is_empty());
        fake.log().committed = 200;
        syncer.sync();
        assert_eq!(fake.asked(), ["segment 1"]);
        // Two rolls since: all three are due, the names once.
        syncer.take(SegmentEvent::Sealed(1));
        for number in 2..=3 {
            syncer.take(SegmentEvent::Opened(number));
        }
        syncer.take(SegmentEvent::Sealed(2));
        syncer.sync();
        assert_eq!(
            fake.asked(),
            ["segment 1", "segment 2", "segment 3", "names"]
        );
    }

    #[test]
    fn a_sync_that_failed_is_not_tried_again_and_the_segment_is_left() {
        let (fake, mut syncer) = syncer(EVERY);
        fake.log().failing = vec![1];
        syncer.take(SegmentEvent::Opened(1));
        syncer.sync();
        assert_eq!(fake.asked(), ["segment 1", "give up 1", "names"]);
        // The writer has not come to it yet.
        fake.log().committed = 300;
        syncer.sync();
        syncer.take(SegmentEvent::Sealed(1));
        syncer.take(SegmentEvent::Opened(2));
        syncer.sync();
        assert_eq!(fake.asked(), ["segment 2", "names"]);
        assert_eq!(syncer.faults, ["cannot sync disk: broken"]);
    }

    #[test]
    fn the_end_of_the_writer_syncs_what_is_left() {
        let fake = Fake::default();
        let (events, receiver) = channel();
        let syncer = Syncer::new(fake.clone(), EVERY, receiver);
        events.send(SegmentEvent::Opened(1)).unwrap();
        events.send(SegmentEvent::Sealed(1)).unwrap();
        drop(events);
        assert!(syncer.run().is_empty());
        assert_eq!(fake.asked(), ["segment 1", "names"]);
    }
}
