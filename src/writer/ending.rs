//! What the disk has of the segments: syncing them, and ending them.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::durability::SegmentEvent;
use super::helper::{discard, note, tell_sync};
use super::segments::Segments;
use crate::error::{Error, IoContext};
use crate::segment::prepare::segment_name;
use crate::segment::writer::SegmentWriter;

impl Segments {
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
        let failed = self.core.space.sync_failed.load(Relaxed);
        for number in sealed {
            let name = segment_name(number);
            let path = self.dir.path_of(&name);
            if number == failed {
                let source = io::Error::other("a sync of it has failed before");
                result = result.and(Err(source).io_context("cannot sync segment", path));
                continue;
            }
            let file = self.dir.open_file(&name);
            let synced =
                file.and_then(|file| file.sync_data().io_context("cannot sync segment", path));
            result = result.and(synced);
        }
        if let Some(current) = &self.current
            && let Err(error) = current.sync(&self.dir)
        {
            result = result.and(Err(error));
            self.core.space.sync_failed.store(current.number(), Relaxed);
            self.roll();
            self.unsynced = self.requested;
        }
        result.and(self.dir.sync())
    }

    /// Bytes of all segments so far.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.sealed_bytes + self.current.as_ref().map_or(0, SegmentWriter::bytes)
    }

    /// Ends the helper, whose unused segment is removed, and seals the last segment. In this order:
    /// killed in between, nothing follows a segment that is sealed as the last one. Whether it is
    /// sealed, and what went wrong.
    pub(crate) fn finish(mut self) -> (bool, Vec<String>) {
        self.rescue_if_lost(true);
        let syncs = self.helper.syncs;
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
        fail_point!("close.alone");
        let mut is_sealed = self.ended;
        if let Some(current) = self.current.take() {
            let number = current.number();
            let mut sealed = current.seal(self.sequence, true);
            fail_point!("close.sealed");
            if let Err(error) = sealed.finish(&self.dir) {
                note(&mut self.faults, error.to_string());
            }
            is_sealed = sealed.is_sealed();
            tell_sync(syncs.as_ref(), SegmentEvent::Sealed(number));
        }
        drop(syncs);
        (is_sealed, self.faults)
    }
}
