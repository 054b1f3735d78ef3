//! Records of the session itself, which no ring carries.

use super::Writer;
use super::helper::note;
use crate::core::Core;
use crate::ledger::{DropReason, Ledger};
use crate::record::{LargeReference, Record, SchemaIds, align_record, whole};
use crate::segment::layout::{BLOCK_DATA, block_bytes};
use crate::segment::writer::BlockInfo;

/// Segments that are tried for one record.
const TRIES: u32 = 3;

/// Makes the last record of the session from its final ledger.
pub(crate) type EndRecord<'a> = &'a dyn Fn(&Ledger, &mut dyn FnMut(&dyn OwnRecord));

/// A record of the writer itself, as bytes.
pub(crate) trait OwnRecord {
    /// Schema ids; the schema is in the registry.
    fn ids(&self, core: &Core) -> Option<SchemaIds>;
    /// The body.
    fn body(&self) -> Vec<u8>;
}

impl<R: Record> OwnRecord for R {
    fn ids(&self, core: &Core) -> Option<SchemaIds> {
        let ids = self.schema().ids()?;
        core.register_schema(ids, self.schema()).then_some(ids)
    }

    fn body(&self) -> Vec<u8> {
        whole::body(self)
    }
}

impl Writer {
    /// Writes a record of the session itself, which no ring carries. Counted like any other.
    pub(super) fn write_own(&mut self, record: &dyn OwnRecord) {
        let Some(ids) = record.ids(&self.core) else {
            note(
                &mut self.faults,
                "the registry had no room for the session's record".to_owned(),
            );
            return;
        };
        self.core.add_own_offered(ids.category);
        self.own_ticks = self.own_ticks.max(self.core.clock.ticks());
        let ticks = self.own_ticks;
        let body = record.body();
        let (payload, large) = whole::record(ids.schema, ticks, &body);
        let bytes = payload.len();
        let room = block_bytes(bytes) + block_bytes(align_record(body.len()));
        // Again for a segment that cannot be written: there may be another.
        let written = (0..TRIES)
            .any(|_| self.segments.ensure(room) && self.put_own(&payload, &body, large, ticks));
        if !written {
            self.core.add_dropped_disk(ids.category, 1);
            self.core.losses.count_lost(DropReason::Disk, 1);
        }
    }

    fn put_own(
        &mut self,
        payload: &[u8],
        body: &[u8],
        large: Option<LargeReference>,
        ticks: u64,
    ) -> bool {
        let scan = self.scanner.scan(payload);
        debug_assert_eq!(scan.records, 1);
        if let Some(reference) = large {
            self.write_large(0, self.own_pos, &scan, reference, |put| put(body));
        }
        let bytes = payload.len();
        let info = BlockInfo {
            kind: BLOCK_DATA,
            flags: self.shed_flag(0),
            ring: 0,
            records: 1,
            first_pos: self.own_pos,
            next_pos: self.own_pos + bytes as u64,
            min_ticks: ticks,
            max_ticks: ticks,
        };
        if !self.segments.append(info, payload) {
            self.scanner.take_unwritten(|_, _| ());
            return false;
        }
        self.shed_rings.remove(&0);
        self.own_pos += bytes as u64;
        self.count_written();
        true
    }
}
