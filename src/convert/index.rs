//! The first pass of a conversion: every block once, for its checksum and for where it is.
//!
//! What stays in memory is the registry and 32 bytes per data block; everything that is wrong
//! with the session becomes a sentence in `faults`. Threads read parts of segments ([`scan`]) and
//! hand in what they found in the order of the file; from the first block on that is not as it
//! should be, one thread goes through the rest of a segment block by block.
//!
//! [`scan`]: super::scan

use std::collections::HashMap;

use super::control::Control;
use super::large::{LargeBlocks, LargeRef};
use super::report::{Faults, LeftOut};
use super::scan::{Content, Data, Found, Note, Part, Scan, Walk, note};
use super::turns::Turns;
use crate::error::Error;
use crate::record::INLINE_BYTES_MAX;
use crate::segment::files::{SegmentFile, SessionFiles};
use crate::segment::layout::{BLOCK_FLAG_SHED, BLOCK_LARGE, BLOCKS_OFFSET};
use crate::segment::reader::End;
use crate::segment::registry::Registry;

/// The longest padding of a ring.
const PADDING_BYTES_MAX: u64 = INLINE_BYTES_MAX as u64;

/// Where a data block is.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockRef {
    pub offset: u64,
    /// Largest ticks of the producer up to the first record of the block.
    pub first_ticks: u64,
    /// Index in [`SessionFiles::segments`].
    pub segment: u32,
    pub payload_bytes: u32,
    pub ring: u32,
}

const _: () = assert!(size_of::<BlockRef>() == 32);

/// One producer, up to the block that was read last.
#[derive(Debug, Default)]
struct Ring {
    /// Largest ticks so far.
    ticks: u64,
    /// Position behind the last block.
    next_pos: u64,
    /// Places where records are missing.
    gaps: u32,
    /// Whether there was a data block with records.
    begun: bool,
}

/// What the first pass found.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub registry: Registry,
    /// The data blocks, sorted by ring and then by their place in the session.
    pub blocks: Vec<BlockRef>,
    pub large: LargeBlocks,
    pub faults: Faults,
    pub left_out: LeftOut,
    pub block_count: u64,
    pub records: u64,
    pub segment_bytes: u64,
    /// Bytes of payload that the second pass will read.
    pub data_bytes: u64,
    /// Records that cannot even be told apart.
    pub damaged: u64,
    /// Smallest and largest ticks.
    pub ticks: Option<(u64, u64)>,
    /// Whether the last segment carries the seal of the session.
    pub sealed: bool,
    rings: HashMap<u32, Ring>,
    /// Sequence that the next segment starts with, if this is known.
    next_sequence: Option<u64>,
    /// Number that the next segment has when none is missing.
    next_number: u64,
}

/// Counts of one segment, to be compared with its seal.
#[derive(Default)]
pub(super) struct SegmentCounts {
    pub blocks: u64,
    pub records: u64,
    pub by_schema: Vec<u64>,
}

/// The segment that is gone through.
struct Current {
    /// Index in [`SessionFiles::segments`].
    number: usize,
    counts: SegmentCounts,
    /// Sequence that its first block should have.
    expected: Option<u64>,
    /// Of the last block.
    sequence: Option<u64>,
    /// Where the next block stands.
    offset: u64,
    /// A part ended before its end: what others have read behind it does not count.
    broken: bool,
}

impl Index {
    /// Goes through all segments.
    pub(super) fn build(
        files: &SessionFiles,
        control: &mut Control<'_>,
        threads: usize,
    ) -> Result<Self, Error> {
        let mut index = Self {
            next_number: 1,
            ..Self::default()
        };
        files
            .faults
            .iter()
            .for_each(|fault| index.faults.add(fault.clone()));
        for missing in files.missing() {
            let (first, last) = (missing.start(), missing.end());
            index.faults.add(if first == last {
                format!("segment {first} is missing")
            } else {
                format!("segments {first} to {last} are missing")
            });
        }
        let salvage = control.salvage();
        let walk = Walk::new(files, threads > 1);
        let turns = Turns::new((walk, control), (index, None));
        turns.run(threads, || {
            let mut scan = Scan::new(files);
            while let Some((number, part)) = turns.task(|(walk, control)| {
                control.check()?;
                Ok(walk.next_part())
            })? {
                let found = scan.part(&part);
                let Some(mut turn) = turns.turn(number) else {
                    break;
                };
                let (index, current) = &mut *turn;
                let progress = |bytes| turns.source(|(_, control)| control.advance(bytes));
                index.part(files, current, &part, &found, salvage, progress)?;
                turn.pass();
            }
            Ok(())
        })?;
        let (mut index, _) = turns.into_inner().1;
        index.finish();
        Ok(index)
    }

    /// Takes a part of a segment.
    fn part(
        &mut self,
        files: &SessionFiles,
        current: &mut Option<Current>,
        part: &Part,
        found: &Found,
        salvage: bool,
        mut progress: impl FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(file) = files.segments.get(part.segment) else {
            return Ok(());
        };
        let now = match current {
            Some(now) if now.number == part.segment => now,
            _ => current.insert(self.begin(file, part.segment)),
        };
        let next = now.sequence.map(|sequence| sequence.wrapping_add(1));
        let first = found.notes.first().map(|note| note.header.sequence);
        now.broken |= next.zip(first).is_some_and(|(next, first)| next != first);
        if !now.broken {
            for (sum, more) in now.counts.by_schema.iter_mut().zip(&found.by_schema) {
                *sum += more;
            }
            for note in &found.notes {
                progress(note.header.payload_bytes.into())?;
                self.block(file, now, note);
            }
            now.offset = found.end;
            now.broken = found.end != part.end;
        }
        if !part.last {
            return Ok(());
        }
        let Some(now) = current.take() else {
            return Ok(());
        };
        let is_last = part.segment + 1 == files.segments.len();
        match self.rest(file, now, is_last, salvage, progress) {
            Err(Error::Corrupt { path, offset, what }) => {
                let path = path.display();
                let fault = format!("{path}: at byte {offset}: {what}");
                self.faults.add(fault);
                self.next_sequence = None;
                Ok(())
            }
            other => other,
        }
    }

    fn begin(&mut self, file: &SegmentFile, number: usize) -> Current {
        if file.number() != self.next_number {
            self.next_sequence = None;
        }
        Current {
            number,
            counts: SegmentCounts {
                by_schema: vec![0; crate::record::SCHEMAS_MAX],
                ..SegmentCounts::default()
            },
            expected: self.next_sequence,
            sequence: None,
            offset: BLOCKS_OFFSET as u64,
            broken: false,
        }
    }

    /// Goes through the rest of a segment, block by block.
    fn rest(
        &mut self,
        file: &SegmentFile,
        mut now: Current,
        is_last: bool,
        salvage: bool,
        mut progress: impl FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut reader = file.reader()?;
        if salvage {
            reader = reader.salvaging();
        }
        let next = now.sequence.map(|sequence| sequence.wrapping_add(1));
        reader.go_on_at(now.offset, next);
        self.segment_bytes += reader.byte_count();
        self.next_number = file.number().saturating_add(1);
        while let Some(block) = reader.next_block()? {
            progress(block.header.payload_bytes.into())?;
            let note = note(&block, &mut now.counts.by_schema);
            self.block(file, &mut now, &note);
        }
        if matches!(reader.end(), Some(End::Damaged { .. })) {
            self.large.gap();
        }
        let twice = self.large.end_segment();
        self.large_twice(file, twice);
        self.block_count += now.counts.blocks;
        self.records += now.counts.records;
        let end = reader.end().cloned();
        self.left_out.bytes += reader.skipped_bytes();
        self.skipped(file, reader.skipped(), end.as_ref(), &now.counts);
        // The seal takes a sequence too.
        self.next_sequence = match &end {
            Some(End::Sealed(_)) => now.sequence.map(|sequence| sequence.wrapping_add(2)),
            _ => None,
        };
        self.end(file, end, &now.counts, is_last);
        Ok(())
    }

    /// Takes the next block of a segment.
    fn block(&mut self, file: &SegmentFile, now: &mut Current, note: &Note<'_>) {
        let (path, offset) = (file.path.display(), note.offset);
        let header = &note.header;
        let expected = now.expected.take();
        if let Some(expected) = expected.filter(|next| *next != header.sequence) {
            let found = header.sequence;
            let fault = format!("{path}: starts with block {found}, expected was {expected}");
            self.faults.add(fault);
        }
        let before = now.sequence.replace(header.sequence);
        if before.is_some_and(|before| before.wrapping_add(1) != header.sequence) {
            self.large.gap();
        }
        now.counts.blocks += 1;
        let twice = self.large.next_block(now.number as u32, offset, header);
        self.large_twice(file, twice);
        match &note.content {
            Content::Registry(payload) => {
                let entries = self.registry.add_block(payload);
                if entries != u64::from(header.records) {
                    let said = header.records;
                    let fault = format!(
                        "{path}: the registry block at byte {offset} says it has {said} entries, it has {entries}"
                    );
                    self.faults.add(fault);
                }
            }
            Content::Data(data) => self.data_block(file, now, note, data),
            Content::Other if header.kind == BLOCK_LARGE => {
                let large = LargeRef {
                    segment: now.number as u32,
                    payload_bytes: header.payload_bytes,
                    offset,
                };
                self.large.add(header, large);
            }
            Content::Other => {}
        }
    }

    fn large_twice(&mut self, file: &SegmentFile, twice: Option<LargeRef>) {
        if let Some(LargeRef { offset, .. }) = twice {
            let path = file.path.display();
            self.faults.add(format!(
                "{path}: the large block at byte {offset} is the second for its record"
            ));
        }
    }

    fn data_block(&mut self, file: &SegmentFile, now: &mut Current, note: &Note<'_>, data: &Data) {
        let header = &note.header;
        let ring = self.rings.entry(header.ring).or_default();
        // Padding that ended a block run alone is in no block.
        let padding = ring.next_pos..=ring.next_pos.saturating_add(PADDING_BYTES_MAX);
        let shed = header.flags & BLOCK_FLAG_SHED != 0 && header.first_pos >= ring.next_pos;
        if ring.begun && !padding.contains(&header.first_pos) && !shed {
            ring.gaps += 1;
        }
        ring.next_pos = header.next_pos;
        let first_ticks = ring.ticks.max(data.first_ticks);
        let count = data.count;
        now.counts.records += count;
        if count > 0 {
            ring.ticks = ring.ticks.max(data.max_ticks);
            let (low, high) = self.ticks.unwrap_or((u64::MAX, 0));
            self.ticks = Some((low.min(data.min_ticks), high.max(data.max_ticks)));
        }
        let said = u64::from(header.records);
        let (path, offset) = (file.path.display(), note.offset);
        if let Some(unread) = data.unread {
            let lost = said.saturating_sub(count).min(unread / 16).max(1);
            self.damaged += lost;
            let fault = format!("{path}: the block at byte {offset} has {lost} unreadable records");
            self.faults.add(fault);
        } else if count != said {
            let fault = format!(
                "{path}: the block at byte {offset} says it has {said} records, it has {count}"
            );
            self.faults.add(fault);
        }
        if data.misplaced > 0 {
            // Where its records belong cannot be known.
            self.damaged += count;
            self.faults.add(format!(
                "{path}: the block at byte {offset} mixes spilled records with others: {count} \
                 records are left out"
            ));
            return;
        }
        if count > 0 {
            ring.begun = true;
            self.data_bytes += u64::from(header.payload_bytes);
            self.blocks.push(BlockRef {
                offset,
                first_ticks,
                segment: now.number as u32,
                payload_bytes: header.payload_bytes,
                ring: header.ring,
            });
        }
    }

    fn finish(&mut self) {
        if self.registry.rejected > 0 {
            let count = self.registry.rejected;
            self.faults
                .add(format!("{count} entries of the registry are damaged"));
        }
        let rings = std::mem::take(&mut self.rings).into_iter();
        let gaps = rings.filter(|(_, ring)| ring.gaps > 0);
        let mut gaps: Vec<_> = gaps.map(|(ring, state)| (ring, state.gaps)).collect();
        gaps.sort_unstable();
        for (ring, gaps) in gaps {
            self.faults.add(format!(
                "records of producer {ring} are missing, in {gaps} places between its blocks"
            ));
        }
        self.blocks
            .sort_unstable_by_key(|block| (block.ring, block.segment, block.offset));
    }
}
