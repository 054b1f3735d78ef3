//! Segments that fail under the writer: blocks that cannot be written, files that others cut,
//! replace or remove. What cannot be read any more is counted as lost, and all else goes on.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use super::helper::{discard, note};
use super::reserve::SAY_EVERY;
use super::segments::{RETRY_AFTER, Segments};
use crate::error::{Error, IoContext};
use crate::ledger::DropReason;
use crate::record::{KeepClass, SchemaDef, schema};
use crate::segment::layout::{
    BLOCK_DATA, BLOCKS_OFFSET, HEADER_COPY_OFFSET, HINT_OFFSET, block_bytes,
};
use crate::segment::prepare::{RESCUE_NAME, segment_header, segment_name};
use crate::segment::reader::{Block, SegmentReader};
use crate::segment::records::Records;
use crate::segment::writer::{SegmentCounts, SegmentWriter, seal_block, sealed_block};
use crate::sys::file::FileId;
use crate::sys::report::say;

/// What is to be known of a sealed segment at the end.
#[derive(Debug)]
pub(super) struct SealedSegment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    /// `None`: nobody could tell which file it was.
    pub(super) id: Option<FileId>,
    pub(super) counts: SegmentCounts,
}

/// What can still be read of a segment.
#[derive(Debug, Default)]
struct Kept {
    counts: SegmentCounts,
    blocks: u64,
}

impl Segments {
    /// A block could not be written; nothing of it counts. The next segment may be better: it has
    /// space of its own. When it is not, there is the reserve, and then a pause.
    pub(super) fn write_failed(&mut self, error: &io::Error) {
        let path = self.dir.path().display();
        self.have_trouble(format!("cannot write to a segment in {path}: {error}"));
        if self.begun && !self.in_reserve {
            self.roll();
            return;
        }
        self.paused_until = Some(Instant::now() + RETRY_AFTER);
        if !self.in_reserve {
            self.exchange_for_reserve();
        }
    }

    /// Whether a segment that cannot be written has a pause.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// A block was written again.
    pub(super) fn end_trouble(&mut self) {
        if self.paused_until.take().is_some() && !self.in_reserve {
            self.trouble = None;
            self.end_shedding();
        }
    }

    /// Goes on in the reserve instead of a segment that took nothing, if there is one.
    fn exchange_for_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = self.helper.reserve.try_recv().ok();
        }
        if self.reserve.is_none() {
            return;
        }
        // The reserve takes the number of the segment, so nothing may follow it.
        match self.helper.ready.try_recv() {
            Ok(Ok(prepared)) => self.remove_unused(prepared.number, prepared.bytes as u64),
            Ok(Err(_)) | Err(TryRecvError::Disconnected) => {}
            // It is being made: after the pause.
            Err(TryRecvError::Empty) => return,
        }
        if let Some(current) = self.current.take() {
            self.requested = current.number();
            self.remove_unused(current.number(), current.reserved());
        }
        self.sequence = self.first_sequence;
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.paused_until = None;
        // Without it, the next segment is asked for when it is time.
        self.open_reserve();
    }

    fn remove_unused(&mut self, number: u64, bytes: u64) {
        self.core.space.segments.fetch_sub(bytes, Relaxed);
        if let Err(error) = discard(&self.dir, number) {
            note(&mut self.faults, error.to_string());
        }
    }

    /// Looks whether the file of the current segment is still there, and whole.
    pub(crate) fn look_at_file(&mut self) {
        let Some(current) = &self.current else {
            return;
        };
        let Ok(found) = self.dir.stat_of(&segment_name(current.number())) else {
            return;
        };
        let ours = FileId::of(current.file());
        self.missing = found.is_none_or(|stat| {
            ours != Some(FileId::in_stat(&stat)) || (stat.st_size as u64) < current.reserved()
        });
    }

    /// Saves what is left of the current segment if a part of it was lost. Returns whether it was.
    pub(crate) fn rescue_if_lost(&mut self, last: bool) -> bool {
        let missing = self.missing;
        let is_lost = |current: &mut SegmentWriter| missing || current.is_lost();
        let Some(current) = self.current.take_if(is_lost) else {
            return false;
        };
        self.missing = false;
        let (number, reserved) = (current.number(), current.reserved());
        let (file, counts) = current.into_lost();
        let saved = self.rescue(&file, number, reserved, last);
        let (kept, bytes) = saved.unwrap_or_default();
        // The seal has a number too.
        self.sequence = self.first_sequence + kept.blocks + 1;
        self.core
            .space
            .segments
            .fetch_sub(reserved.saturating_sub(bytes), Relaxed);
        self.sealed_bytes += bytes;
        self.rescues += 1;
        self.count_lost(number, &counts, &kept.counts);
        self.ended = last && bytes > 0;
        if bytes > 0 {
            let id = self.dir.open_file(&segment_name(number)).ok();
            self.sealed.push(SealedSegment {
                number,
                bytes,
                id: id.as_ref().and_then(FileId::of),
                counts: kept.counts,
            });
        }
        true
    }

    /// Before the last records: counts what others did to the segments of the session.
    pub(crate) fn audit(&mut self) {
        self.look_at_file();
        self.rescue_if_lost(false);
        for mut segment in std::mem::take(&mut self.sealed) {
            let name = segment_name(segment.number);
            let Ok(found) = self.dir.stat_of(&name) else {
                continue;
            };
            let whole = found.is_some_and(|stat| {
                Some(FileId::in_stat(&stat)) == segment.id && stat.st_size as u64 >= segment.bytes
            });
            if !whole {
                let file = self.dir.open_file(&name).ok();
                let kept = file.and_then(|file| self.read(&file, segment.number, |_| Ok(())).ok());
                let kept = kept.unwrap_or_default().counts;
                self.count_lost(segment.number, &segment.counts, &kept);
                segment.counts = kept;
            }
        }
    }

    /// Moves what was lost from `written` to `dropped`, and says so.
    fn count_lost(&mut self, number: u64, all: &SegmentCounts, kept: &SegmentCounts) {
        let mut lost = 0;
        let categories = all.categories.iter().zip(&kept.categories).enumerate();
        for (category, (before, after)) in categories {
            let fewer = before.saturating_sub(*after);
            lost += fewer;
            if fewer > 0 {
                self.core.take_back_written(category as u8, fewer);
            }
        }
        let written: u64 = all.categories.iter().sum();
        let always = all.always.saturating_sub(kept.always);
        self.core.losses.count_lost(DropReason::Disk, always);
        let what = format!(
            "{} was cut, replaced or removed while it was recorded: {lost} of its {written} \
             records are lost",
            self.dir.path_of(&segment_name(number)).display()
        );
        let told = &mut self.told.rescue;
        if told.is_none_or(|last| last.elapsed() >= SAY_EVERY) {
            *told = Some(Instant::now());
            say(&what);
        }
        note(&mut self.faults, what);
    }

    /// Makes segment `number` anew from the valid blocks of what was it. Returns these and its
    /// length, `None` when there is no such segment now.
    fn rescue(&self, file: &File, number: u64, reserved: u64, last: bool) -> Option<(Kept, u64)> {
        let made = self.rescue_into(file, number, reserved, last);
        if made.is_err() {
            // Why there is none is told by the next segment; nobody takes this for one.
            drop(self.dir.remove_file(RESCUE_NAME));
            drop(self.dir.remove_file(&segment_name(number)));
        }
        made.ok()
    }

    fn rescue_into(
        &self,
        file: &File,
        number: u64,
        reserved: u64,
        last: bool,
    ) -> Result<(Kept, u64), Error> {
        let out = self.dir.create_file(RESCUE_NAME)?;
        let path = self.dir.path_of(RESCUE_NAME);
        let mut end = BLOCKS_OFFSET;
        let mut put = |bytes: &[u8]| {
            out.write_all_at(bytes, end as u64)?;
            end += bytes.len();
            io::Result::Ok(())
        };
        let kept = self.read(file, number, |block| {
            let bytes = block_bytes(block.payload.len());
            let mut whole = Vec::with_capacity(bytes);
            whole.extend_from_slice(bytemuck::bytes_of(&block.header));
            whole.extend_from_slice(block.payload);
            whole.resize(bytes, 0);
            put(&whole).io_context("cannot write", &path)
        })?;
        let (info, payload) = seal_block(&kept.counts.categories, kept.blocks, last);
        let sequence = self.first_sequence + kept.blocks;
        let seal = sealed_block(&info, sequence, (&self.header.nonce, number), &payload);
        let header = segment_header(&self.header, number, reserved as usize);
        let header = bytemuck::bytes_of(&header);
        put(&seal)
            .and_then(|()| out.write_all_at(header, 0))
            .and_then(|()| out.write_all_at(header, HEADER_COPY_OFFSET as u64))
            .and_then(|()| out.write_all_at(&(end as u64).to_le_bytes(), HINT_OFFSET as u64))
            .io_context("cannot write", &path)?;
        self.dir.rename(RESCUE_NAME, &segment_name(number))?;
        Ok((kept, end as u64))
    }

    /// Goes through the valid blocks of a file that was segment `number` of this session; what
    /// cannot be read as that has none.
    fn read(
        &self,
        file: &File,
        number: u64,
        mut visit: impl FnMut(&Block<'_>) -> Result<(), Error>,
    ) -> Result<Kept, Error> {
        let mut kept = Kept::default();
        let path = self.dir.path_of(&segment_name(number));
        let file = file.try_clone().io_context("cannot open again", &path)?;
        let Ok(mut reader) = SegmentReader::open(file, &path) else {
            return Ok(kept);
        };
        let header = &reader.header().file;
        if (header.nonce, header.segment) != (self.header.nonce, number) {
            return Ok(kept);
        }
        // An error of the disk ends it as damage does.
        while let Ok(Some(block)) = reader.next_block() {
            visit(&block)?;
            kept.blocks += 1;
            if block.header.kind == BLOCK_DATA {
                self.count_records(block.payload, &mut kept.counts);
            }
        }
        Ok(kept)
    }

    fn count_records(&self, payload: &[u8], counts: &mut SegmentCounts) {
        for record in Records::new(payload) {
            let def = schema(record.header.schema);
            if let Some((def, ids)) = def.and_then(|def: &SchemaDef| Some((def, def.ids()?))) {
                counts.categories[usize::from(ids.category)] += 1;
                let always = self.core.keep_class(ids.category, def.keep) == KeepClass::Always;
                counts.always += u64::from(always);
            }
        }
    }
}
