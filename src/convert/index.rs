//! The first pass of a conversion: every block once, for its checksum and for where it is.
//!
//! What stays in memory is the registry and 24 bytes per data block; everything that is wrong
//! with the session becomes a sentence in `faults`.

use std::collections::BTreeMap;

use super::control::Control;
use super::large::{LargeBlocks, LargeRef};
use super::report::LeftOut;
use crate::error::Error;
use crate::record::{INLINE_BYTES_MAX, SCHEMAS_MAX};
use crate::segment::files::{SegmentFile, SessionFiles};
use crate::segment::layout::{BLOCK_DATA, BLOCK_FLAG_SHED, BLOCK_LARGE, BLOCK_REGISTRY};
use crate::segment::reader::{Block, End};
use crate::segment::records::Records;
use crate::segment::registry::Registry;

/// Faults of one kind that are named one by one; the rest is counted.
const FAULTS_MAX: usize = 100;
/// The longest padding of a ring.
const PADDING_BYTES_MAX: u64 = INLINE_BYTES_MAX as u64;

/// Where a data block is.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockRef {
    /// Index in [`SessionFiles::segments`].
    pub segment: u32,
    pub payload_bytes: u32,
    pub offset: u64,
    /// Largest ticks of the producer up to the first record of the block.
    pub first_ticks: u64,
}

/// The blocks of one producer in their order.
#[derive(Debug, Default)]
pub(super) struct RingBlocks {
    pub blocks: Vec<BlockRef>,
    /// Largest ticks so far.
    ticks: u64,
    /// Position behind the last block.
    next_pos: u64,
    gaps: u64,
}

/// What the first pass found.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub registry: Registry,
    pub rings: BTreeMap<u32, RingBlocks>,
    pub large: LargeBlocks,
    pub faults: Faults,
    pub left_out: LeftOut,
    pub blocks: u64,
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
    /// Sequence that the next segment starts with, if this is known.
    next_sequence: Option<u64>,
    /// Number that the next segment has when none is missing.
    next_number: u64,
}

/// Sentences, not without bound.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub sentences: Vec<String>,
    more: u64,
}

impl Faults {
    pub(super) fn add(&mut self, sentence: String) {
        if self.sentences.len() < FAULTS_MAX {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.sentences
                .push(format!("and {} more faults", self.more));
        }
        self.sentences
    }
}

/// Counts of one segment, to be compared with its seal.
pub(super) struct SegmentCounts {
    pub blocks: u64,
    pub records: u64,
    pub by_schema: Vec<u64>,
}

impl Index {
    /// Goes through all segments.
    pub(super) fn build(files: &SessionFiles, control: &mut Control<'_>) -> Result<Self, Error> {
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
        for (number, segment) in files.segments.iter().enumerate() {
            let is_last = number + 1 == files.segments.len();
            match index.segment(number as u32, segment, is_last, control) {
                Err(Error::Corrupt { path, offset, what }) => {
                    let path = path.display();
                    index
                        .faults
                        .add(format!("{path}: at byte {offset}: {what}"));
                    index.next_sequence = None;
                }
                other => other?,
            }
        }
        index.finish();
        Ok(index)
    }

    fn segment(
        &mut self,
        number: u32,
        file: &SegmentFile,
        is_last: bool,
        control: &mut Control<'_>,
    ) -> Result<(), Error> {
        let mut reader = file.reader()?;
        if control.salvage() {
            reader = reader.salvaging();
        }
        self.segment_bytes += reader.byte_count();
        if file.number() != self.next_number {
            self.next_sequence = None;
        }
        self.next_number = file.number().saturating_add(1);
        let mut expected = self.next_sequence.take();
        let mut counts = SegmentCounts {
            blocks: 0,
            records: 0,
            by_schema: vec![0; SCHEMAS_MAX],
        };
        let mut sequence = None;
        while let Some(block) = reader.next_block()? {
            if let Some(expected) = expected
                .take()
                .filter(|next| *next != block.header.sequence)
            {
                let (path, found) = (file.path.display(), block.header.sequence);
                let fault = format!("{path}: starts with block {found}, expected was {expected}");
                self.faults.add(fault);
            }
            let before = sequence.replace(block.header.sequence);
            if before.is_some_and(|before| before.wrapping_add(1) != block.header.sequence) {
                self.large.gap();
            }
            counts.blocks += 1;
            control.advance(block.header.payload_bytes.into())?;
            self.block(number, file, &block, &mut counts);
        }
        if matches!(reader.end(), Some(End::Damaged { .. })) {
            self.large.gap();
        }
        let twice = self.large.end_segment();
        self.large_twice(file, twice);
        self.blocks += counts.blocks;
        self.records += counts.records;
        let end = reader.end().cloned();
        self.left_out.bytes += reader.skipped_bytes();
        self.skipped(file, reader.skipped(), end.as_ref(), &counts);
        // The seal takes a sequence too.
        self.next_sequence = match &end {
            Some(End::Sealed(_)) => sequence.map(|sequence| sequence.wrapping_add(2)),
            _ => None,
        };
        self.end(file, end, &counts, is_last);
        Ok(())
    }

    fn block(
        &mut self,
        segment: u32,
        file: &SegmentFile,
        block: &Block<'_>,
        counts: &mut SegmentCounts,
    ) {
        let (path, offset) = (file.path.display(), block.offset);
        let header = &block.header;
        let twice = self.large.next_block(segment, offset, header);
        self.large_twice(file, twice);
        match header.kind {
            BLOCK_REGISTRY => {
                let entries = self.registry.add_block(block.payload);
                if entries != u64::from(header.records) {
                    let said = header.records;
                    let fault = format!(
                        "{path}: the registry block at byte {offset} says it has {said} entries, it has {entries}"
                    );
                    self.faults.add(fault);
                }
            }
            BLOCK_LARGE => {
                let large = LargeRef {
                    segment,
                    payload_bytes: header.payload_bytes,
                    offset,
                };
                self.large.add(header, large);
            }
            BLOCK_DATA => self.data_block(segment, file, block, counts),
            _ => {}
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

    fn data_block(
        &mut self,
        segment: u32,
        file: &SegmentFile,
        block: &Block<'_>,
        counts: &mut SegmentCounts,
    ) {
        let header = &block.header;
        let ring = self.rings.entry(header.ring).or_default();
        // Padding that ended a block run alone is in no block.
        let padding = ring.next_pos..=ring.next_pos.saturating_add(PADDING_BYTES_MAX);
        let shed = header.flags & BLOCK_FLAG_SHED != 0 && header.first_pos >= ring.next_pos;
        if !ring.blocks.is_empty() && !padding.contains(&header.first_pos) && !shed {
            ring.gaps += 1;
        }
        ring.next_pos = header.next_pos;
        let mut records = Records::new(block.payload);
        let mut count = 0;
        let mut misplaced = 0;
        let mut first_ticks = None;
        for record in records.by_ref() {
            count += 1;
            misplaced += u64::from(record.header.is_spilled() != header.is_spilled());
            let ticks = record.header.ticks();
            ring.ticks = ring.ticks.max(ticks);
            first_ticks.get_or_insert(ring.ticks);
            let (low, high) = self.ticks.unwrap_or((ticks, ticks));
            self.ticks = Some((low.min(ticks), high.max(ticks)));
            if let Some(count) = counts.by_schema.get_mut(usize::from(record.header.schema)) {
                *count += 1;
            }
        }
        counts.records += count;
        let said = u64::from(header.records);
        let (path, offset) = (file.path.display(), block.offset);
        if records.is_damaged() {
            let unread = block.payload.len().saturating_sub(records.offset()) as u64;
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
        if misplaced > 0 {
            // Where its records belong cannot be known.
            self.damaged += count;
            self.faults.add(format!(
                "{path}: the block at byte {offset} mixes spilled records with others: {count} \
                 records are left out"
            ));
            return;
        }
        if let Some(first_ticks) = first_ticks {
            self.data_bytes += u64::from(header.payload_bytes);
            ring.blocks.push(BlockRef {
                segment,
                payload_bytes: header.payload_bytes,
                offset,
                first_ticks,
            });
        }
    }

    fn finish(&mut self) {
        if self.registry.rejected > 0 {
            let count = self.registry.rejected;
            self.faults
                .add(format!("{count} entries of the registry are damaged"));
        }
        for (ring, blocks) in &self.rings {
            if blocks.gaps > 0 {
                let gaps = blocks.gaps;
                self.faults.add(format!(
                    "records of producer {ring} are missing, in {gaps} places between its blocks"
                ));
            }
        }
    }
}
