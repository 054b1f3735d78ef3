//! What the segments of a dead session hold already: positions of each ring, records by schema,
//! the registry, and where the next block belongs.

use std::collections::{BTreeMap, HashMap};

use super::Limit;
use super::durations::Written;
use super::storage::Leftover;
use crate::error::Error;
use crate::ring::NO_RING;
use crate::segment::files::{SegmentFile, SessionFiles};
use crate::segment::layout::{
    BLOCK_DATA, BLOCK_LARGE, BLOCK_REGISTRY, BLOCKS_OFFSET, BlockHeader, FileHeader,
};
use crate::segment::reader::End;
use crate::segment::records::{RecordRef, Records};
use crate::segment::registry::Registry;
use crate::segment::source::Source;

/// The last segment that holds blocks, when it has no seal.
#[derive(Clone, Debug)]
pub(super) struct OpenTail {
    pub(super) number: u64,
    /// Where the seal belongs.
    pub(super) offset: u64,
    pub(super) sequence: u64,
    pub(super) blocks: u64,
    pub(super) records: u64,
    pub(super) by_schema: BTreeMap<u16, u64>,
}

/// What the segments hold.
#[derive(Debug, Default)]
pub(super) struct Covered {
    pub(super) registry: Registry,
    /// Position behind the last block of each ring.
    pub(super) rings: HashMap<u32, u64>,
    /// Records of threads without a ring.
    pub(super) no_ring: u64,
    /// Records that can be read, by schema.
    pub(super) by_schema: BTreeMap<u16, u64>,
    pub(super) max_ticks: u64,
    /// What the process wrote about durations before it died.
    pub(super) durations: Written,
    /// The header of a segment.
    pub(super) header: Option<FileHeader>,
    /// Sequence of the next block, the seal of an open tail counted.
    pub(super) next_sequence: u64,
    pub(super) tail: Option<OpenTail>,
    /// Number of the next segment.
    pub(super) next_number: u64,
    /// The session was closed, or recovered before.
    pub(super) complete: bool,
    /// Blocks or records are damaged.
    pub(super) damaged: bool,
    pub(super) faults: Vec<String>,
}

impl Covered {
    /// Goes through all segments. Records of the spill that are found are taken from `leftover`.
    pub(super) fn read<S: Source + ?Sized>(
        files: &SessionFiles,
        mut leftover: Option<&mut Leftover<'_, S>>,
        limit: &Limit,
    ) -> Result<Self, Error> {
        let mut covered = Self {
            next_number: 1,
            ..Self::default()
        };
        for file in &files.segments {
            limit.check()?;
            match covered.segment(file, leftover.as_deref_mut()) {
                Err(error @ Error::Corrupt { .. }) => covered.fault(error.to_string()),
                other => other?,
            }
        }
        Ok(covered)
    }

    fn fault(&mut self, fault: String) {
        const FAULTS_MAX: usize = 100;
        self.damaged = true;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn segment<S: Source + ?Sized>(
        &mut self,
        file: &SegmentFile,
        mut leftover: Option<&mut Leftover<'_, S>>,
    ) -> Result<(), Error> {
        self.header.get_or_insert(file.header);
        let mut reader = file.reader()?;
        let mut by_schema = BTreeMap::new();
        let mut last = None;
        // A large block whose data block has not come yet: place, sequence.
        let mut large = None;
        let mut records = 0_u64;
        while let Some(block) = reader.next_block()? {
            let sequence = block.header.sequence;
            last = Some(sequence);
            large = (block.header.kind == BLOCK_LARGE).then_some((block.offset, sequence));
            match block.header.kind {
                BLOCK_REGISTRY => drop(self.registry.add_block(block.payload)),
                BLOCK_DATA => {
                    let found = self.data(&block.header, block.payload, &mut by_schema);
                    records = records.saturating_add(found);
                    if let Some(leftover) = leftover.as_deref_mut()
                        && block.header.is_spilled()
                    {
                        for record in Records::new(block.payload) {
                            let bytes = bytes_of(block.payload, &record);
                            leftover.is_written(
                                block.header.ring,
                                block.header.first_pos,
                                bytes,
                            )?;
                        }
                    }
                }
                _ => {}
            }
        }
        let (blocks, end) = (reader.blocks(), reader.end().cloned());
        let unused = BLOCKS_OFFSET as u64;
        if blocks == 0 && end == Some(End::Open { offset: unused }) {
            // Prepared ahead, and never used: its number is free.
            return Ok(());
        }
        if let Some(tail) = self.tail.take() {
            let number = tail.number;
            self.fault(format!(
                "segment {number} has no seal, although another follows"
            ));
        }
        let mut next = last.map_or(self.next_sequence, |last| last.wrapping_add(1));
        // The process died between a large block and its data block: the record is still in its
        // ring or slot, and is written whole. The seal takes the place of the large block.
        let large = large.filter(|_| matches!(end, Some(End::Open { .. })));
        if let Some((_, sequence)) = large {
            next = sequence;
        }
        // The seal takes a sequence too.
        self.next_sequence = next.wrapping_add(1);
        self.next_number = file.number().saturating_add(1);
        match end {
            Some(End::Sealed(seal)) => self.complete = seal.last,
            Some(End::Open { offset }) => {
                self.tail = Some(OpenTail {
                    number: file.number(),
                    offset: large.map_or(offset, |(at, _)| at),
                    sequence: next,
                    blocks: blocks.saturating_sub(u64::from(large.is_some())),
                    records,
                    by_schema,
                });
            }
            Some(End::Damaged { offset, what, .. }) => {
                let path = file.path.display();
                self.fault(format!("{path}: at byte {offset}: {what}"));
            }
            None => {}
        }
        Ok(())
    }

    /// Notes the records of a data block. Returns how many there are.
    fn data(
        &mut self,
        header: &BlockHeader,
        payload: &[u8],
        by_schema: &mut BTreeMap<u16, u64>,
    ) -> u64 {
        let mut records = Records::new(payload);
        let mut count = 0_u64;
        let misplaced = records
            .clone()
            .any(|record| record.header.is_spilled() != header.is_spilled());
        for record in records.by_ref() {
            count = count.saturating_add(1);
            self.max_ticks = self.max_ticks.max(record.header.ticks());
            let id = record.header.schema;
            if header.ring == 0 {
                let bytes = bytes_of(payload, &record);
                self.durations.note(&self.registry, &record, bytes);
            }
            add(by_schema, id);
            if !misplaced {
                add(&mut self.by_schema, id);
            }
        }
        if records.is_damaged() || misplaced {
            let ring = header.ring;
            self.fault(format!("a block of producer {ring} has damaged records"));
        }
        if header.ring == NO_RING {
            self.no_ring = header.first_pos.saturating_add(count);
        } else {
            self.rings.insert(header.ring, header.next_pos);
        }
        count
    }
}

/// Counts a record.
pub(super) fn add(counts: &mut BTreeMap<u16, u64>, schema: u16) {
    let count = counts.entry(schema).or_default();
    *count = count.saturating_add(1);
}

/// The bytes of a record in its payload.
fn bytes_of<'a>(payload: &'a [u8], record: &RecordRef<'_>) -> &'a [u8] {
    let end = record.offset.saturating_add(record.header.record_bytes());
    payload.get(record.offset..end).unwrap_or_default()
}
