//! What is left in rings and spill when there is no segment to take it: it is counted.

use super::helper::note;
use super::{Consumer, Writer};
use crate::ledger::DropReason;
use crate::record::{KeepClass, SchemaDef, schema};
use crate::segment::records::Records;

impl Writer {
    /// Counts what is still in the rings and the spill because there is no segment for it.
    pub(super) fn abandon_rest(&mut self) {
        let core = std::sync::Arc::clone(&self.core);
        let mut always = 0;
        for index in 0..self.consumers.len() as u32 {
            let ring = core.storage.slot(index).ring();
            let mut consumer =
                std::mem::replace(&mut self.consumers[index as usize], Consumer::new());
            let end = consumer.committed(ring);
            while consumer.read_pos() < end {
                let run = consumer.run(ring, end);
                let (covered, kept) = self.abandon(run);
                always += kept;
                consumer.free(ring, consumer.read_pos() + covered as u64);
            }
            self.consumers[index as usize] = consumer;
        }
        self.collect_spilled(&core);
        let spill = &core.storage.spill;
        for ring in self.spilled.rings() {
            while self.spilled.next(ring).is_some() {
                let mut record = Vec::new();
                self.spilled.copy(spill, ring, u64::MAX, 0, &mut record);
                always += self.abandon(&record).1;
                self.spilled.free(spill, ring, u64::MAX, 1);
            }
        }
        let mut lost = 0;
        self.scanner.take_unwritten(|category, records| {
            core.add_dropped_disk(category, records);
            lost += records;
        });
        core.losses.count_lost(DropReason::Disk, always);
        if lost > 0 {
            let reason = DropReason::Disk.name();
            note(
                &mut self.faults,
                format!("{lost} records were dropped ({reason})"),
            );
        }
    }

    /// Counts the records at the start of a run. Returns their bytes, all if there are none, and
    /// how many of them must always be kept.
    fn abandon(&mut self, run: &[u8]) -> (usize, u64) {
        let scan = self.scanner.scan(run);
        if scan.covered == 0 {
            return (run.len(), 0);
        }
        let core = &self.core;
        let keep = |id| {
            let def: &SchemaDef = schema(id)?;
            Some(core.keep_class(def.ids()?.category, def.keep))
        };
        let records = Records::new(&run[..scan.covered]);
        let always = records.filter(|record| keep(record.header.schema) == Some(KeepClass::Always));
        (scan.covered, always.count() as u64)
    }
}
