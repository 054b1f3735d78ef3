//! What is in the segments of a session, without converting it: for listing and inspecting.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::segment::clock::{ClockMap, Time};
use crate::segment::files::{SegmentFile, SessionFiles};
use crate::segment::header::SegmentHeader;
use crate::segment::layout::{BLOCK_DATA, BLOCK_REGISTRY, BlockHeader};
use crate::segment::reader::End;
use crate::segment::records::Records;
use crate::segment::registry::Registry;

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentSurvey {
    /// Its header.
    pub header: SegmentHeader,
    /// Where it is.
    pub path: std::path::PathBuf,
    /// Length of the file.
    pub bytes: u64,
    /// Valid blocks without the seal.
    pub blocks: u64,
    /// Records in its data blocks.
    pub records: u64,
    /// How it ends.
    pub end: End,
}

/// A whole session.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Segments that can be read, by number.
    pub segments: Vec<SegmentSurvey>,
    /// Offset and header of each block with the index of its segment, when they were asked for.
    pub block_list: Vec<(usize, u64, BlockHeader)>,
    /// The registry of all segments.
    pub registry: Registry,
    /// Records by schema id.
    pub by_schema: BTreeMap<u16, u64>,
    /// By schema id: what the weights of its records add to their number.
    beyond: BTreeMap<u16, f64>,
    /// Records with a weight id that the registry does not know.
    unknown_weights: u64,
    /// Records that took the spill.
    pub spilled: u64,
    /// Data blocks with records that cannot be told apart.
    pub damaged_blocks: u64,
    /// Smallest and largest ticks.
    ticks: Option<(u64, u64)>,
    /// What is wrong, as sentences.
    pub faults: Vec<String>,
}

impl Survey {
    /// Goes through all blocks of a session. Damage is in `faults` and in the ends of segments.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(files: &SessionFiles, list_blocks: bool) -> Result<Self, Error> {
        let mut survey = Self {
            faults: files.faults.clone(),
            ..Self::default()
        };
        for missing in files.missing() {
            let (first, last) = (missing.start(), missing.end());
            survey
                .faults
                .push(format!("segments {first} to {last} are missing"));
        }
        for file in &files.segments {
            match survey.segment(file, list_blocks) {
                Err(error @ Error::Corrupt { .. }) => survey.faults.push(error.to_string()),
                other => other?,
            }
        }
        if survey.registry.rejected > 0 {
            let count = survey.registry.rejected;
            let fault = format!("{count} entries of the registry are damaged");
            survey.faults.push(fault);
        }
        if survey.unknown_weights > 0 {
            let count = survey.unknown_weights;
            let fault = format!("{count} records have a weight that the registry does not know");
            survey.faults.push(fault);
        }
        Ok(survey)
    }

    fn segment(&mut self, file: &SegmentFile, list_blocks: bool) -> Result<(), Error> {
        let mut reader = file.reader()?;
        let index = self.segments.len();
        let mut records = 0_u64;
        while let Some(block) = reader.next_block()? {
            if list_blocks {
                self.block_list.push((index, block.offset, block.header));
            }
            match block.header.kind {
                BLOCK_REGISTRY => drop(self.registry.add_block(block.payload)),
                BLOCK_DATA => records = records.saturating_add(self.data(block.payload)),
                _ => {}
            }
        }
        let offset = reader.byte_count();
        let end = reader.end().cloned().unwrap_or(End::Open { offset });
        if let End::Damaged { offset, what, .. } = &end {
            let path = file.path.display();
            self.faults
                .push(format!("{path}: at byte {offset}: {what}"));
        }
        self.segments.push(SegmentSurvey {
            header: reader.header().clone(),
            path: file.path.clone(),
            bytes: reader.byte_count(),
            blocks: reader.blocks(),
            records,
            end,
        });
        Ok(())
    }

    /// Counts the records of a data block.
    fn data(&mut self, payload: &[u8]) -> u64 {
        let mut records = Records::new(payload);
        let mut count = 0_u64;
        for record in records.by_ref() {
            count = count.saturating_add(1);
            let of_schema = self.by_schema.entry(record.header.schema).or_default();
            *of_schema = of_schema.saturating_add(1);
            if record.header.weight != 0 {
                self.weight(record.header.schema, record.header.weight);
            }
            let ticks = record.header.ticks();
            let spilled = u64::from(record.header.is_spilled());
            self.spilled = self.spilled.saturating_add(spilled);
            let (low, high) = self.ticks.unwrap_or((ticks, ticks));
            self.ticks = Some((low.min(ticks), high.max(ticks)));
        }
        if records.is_damaged() {
            self.damaged_blocks = self.damaged_blocks.saturating_add(1);
        }
        count
    }

    /// A record of a weight that is not 1. Its rate comes before it in the file.
    fn weight(&mut self, schema: u16, id: u8) {
        match self.registry.weight(id) {
            Some(weight) => *self.beyond.entry(schema).or_default() += weight - 1.0,
            None => self.unknown_weights = self.unknown_weights.saturating_add(1),
        }
    }

    fn category_of(&self, schema: u16) -> String {
        let schema = self.registry.schema(schema);
        let name = schema.and_then(|schema| self.registry.category(schema.category));
        name.unwrap_or("?").to_owned()
    }

    /// Records by category; those whose category is not known under `?`.
    pub fn by_category(&self) -> BTreeMap<String, u64> {
        let mut categories = BTreeMap::new();
        for (schema, count) in &self.by_schema {
            let sum: &mut u64 = categories.entry(self.category_of(*schema)).or_default();
            *sum = sum.saturating_add(*count);
        }
        categories
    }

    /// Estimates by category of how many records the found ones stand for: the sums of their
    /// weights. A record of unknown weight counts as 1.
    pub fn estimated(&self) -> BTreeMap<String, f64> {
        let mut categories = BTreeMap::new();
        for (schema, count) in &self.by_schema {
            let beyond = self.beyond.get(schema).copied().unwrap_or(0.0);
            let sum: &mut f64 = categories.entry(self.category_of(*schema)).or_default();
            *sum += *count as f64 + beyond;
        }
        categories
    }

    /// Records in all segments.
    pub fn records(&self) -> u64 {
        let records = self.segments.iter().map(|segment| segment.records);
        records.fold(0, u64::saturating_add)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        let bytes = self.segments.iter().map(|segment| segment.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Whether the session was closed.
    pub fn is_sealed(&self) -> bool {
        let last = self.segments.last().map(|segment| &segment.end);
        matches!(last, Some(End::Sealed(seal)) if seal.last)
    }

    /// Times of the start of the session, its first and its last record.
    pub fn span(&self) -> Option<(Time, Time, Time)> {
        let header = &self.segments.first()?.header.file;
        let map = ClockMap::new(header, self.registry.clock_points.values().copied());
        let (first, last) = self
            .ticks
            .unwrap_or((header.start_ticks, header.start_ticks));
        Some((
            map.time(header.start_ticks),
            map.time(first),
            map.time(last),
        ))
    }
}
