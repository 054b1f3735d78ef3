//! How a segment ends, and what is missing in it.

use std::collections::BTreeMap;

use super::index::{Index, SegmentCounts};
use super::report::LeftOut;
use crate::segment::files::SegmentFile;
use crate::segment::reader::{End, Seal};
use crate::segment::resync::Skipped;

impl Index {
    /// Adds up what was left out of a segment.
    pub(super) fn skipped(
        &mut self,
        file: &SegmentFile,
        skipped: &[Skipped],
        end: Option<&End>,
        counts: &SegmentCounts,
    ) {
        if skipped.is_empty() {
            return;
        }
        let path = file.path.display();
        let at_end = matches!(end, Some(End::Damaged { .. }));
        // The end is told by `end`.
        let inside = skipped.len().saturating_sub(at_end.into());
        for gap in skipped.iter().take(inside) {
            let Skipped { offset, bytes, .. } = gap;
            let blocks = match gap.blocks {
                Some(blocks) => format!(", {blocks} blocks are missing"),
                None => String::new(),
            };
            let what = gap.what;
            self.faults.add(format!(
                "{path}: at byte {offset}: {what}; {bytes} bytes skipped{blocks}"
            ));
        }
        let seal = match end {
            Some(End::Sealed(seal)) => Some(seal),
            Some(End::Damaged { seal, .. }) => seal.as_ref(),
            _ => None,
        };
        let add = |sum: &mut Option<u64>, said: Option<u64>, found: u64| {
            let missing = said.map(|said| said.saturating_sub(found));
            *sum = sum.zip(missing).map(|(sum, more)| sum.saturating_add(more));
        };
        let LeftOut {
            blocks, records, ..
        } = &mut self.left_out;
        add(blocks, seal.map(|seal| seal.blocks), counts.blocks);
        add(records, seal.map(|seal| seal.records), counts.records);
    }

    /// Says how a segment ends, if that is not as it should be.
    pub(super) fn end(
        &mut self,
        file: &SegmentFile,
        end: Option<End>,
        counts: &SegmentCounts,
        is_last: bool,
    ) {
        let path = file.path.display();
        let fault = match end {
            Some(End::Sealed(seal)) => return self.seal(file, &seal, counts, is_last),
            Some(End::Damaged { offset, what, seal }) => {
                let lost = seal.map_or_else(String::new, |seal| {
                    let lost = seal.records.saturating_sub(counts.records);
                    format!("; {lost} records behind it are lost")
                });
                format!("{path}: at byte {offset}: {what}{lost}")
            }
            Some(End::Open { .. }) | None if is_last => format!(
                "{path} has no seal: the process is still recording, or ended without closing \
                 the session"
            ),
            Some(End::Open { .. }) | None => {
                format!("{path} has no seal, although another segment follows")
            }
        };
        self.faults.add(fault);
    }

    fn seal(&mut self, file: &SegmentFile, seal: &Seal, counts: &SegmentCounts, is_last: bool) {
        let path = file.path.display();
        if (seal.blocks, seal.records) != (counts.blocks, counts.records) {
            self.faults.add(format!(
                "{path}: the seal counts {} blocks and {} records, {} and {} were found",
                seal.blocks, seal.records, counts.blocks, counts.records
            ));
        }
        let mut by_category: BTreeMap<u32, u64> = BTreeMap::new();
        for schema in self.registry.schemas() {
            let count = counts.by_schema.get(usize::from(schema.id));
            let count = count.copied().unwrap_or(0);
            *by_category.entry(schema.category.into()).or_default() += count;
        }
        let sealed: BTreeMap<u32, u64> = seal.categories.iter().copied().collect();
        let counted = |category: &u32| by_category.get(category).copied().unwrap_or(0);
        for (category, records) in sealed.iter().filter(|(id, count)| **count != counted(id)) {
            let found = counted(category);
            let name = u8::try_from(*category).ok();
            let name = name
                .and_then(|id| self.registry.category(id))
                .unwrap_or("?");
            self.faults.add(format!(
                "{path}: the seal counts {records} records of {name}, {found} were found"
            ));
        }
        match (seal.last, is_last) {
            (true, true) => self.sealed = true,
            (false, false) => {}
            (true, false) => self.faults.add(format!(
                "{path} is sealed as the last segment, but another follows"
            )),
            (false, true) => self.faults.add(format!(
                "{path} is sealed, and the segment that should follow is missing"
            )),
        }
    }
}
