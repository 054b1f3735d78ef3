//! The records of one block that no batch has yet.

use std::sync::Arc;

use super::batch::{Batch, Run};
use crate::record::FLAG_LARGE;
use crate::segment::layout::BLOCK_HEADER_BYTES;
use crate::segment::records::Records;

/// Records of one batch.
pub(super) const BATCH_RECORDS: usize = 2048;

/// A block of which a part is in batches.
pub(super) struct Unread {
    /// The block with its header.
    bytes: Arc<Vec<u8>>,
    /// Where the next record stands in `bytes`.
    offset: usize,
    /// The last batch that has it, and its index there.
    in_batch: (u64, u32),
}

/// What [`Unread::emit`] has found.
pub(super) struct Emitted {
    /// Ticks of the record that comes next; `None` after the last.
    pub(super) next: Option<u64>,
    /// Where the LARGE record stands that was moved last.
    pub(super) large: Option<usize>,
}

impl Unread {
    /// All records of a block, given with its header.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(bytes),
            offset: BLOCK_HEADER_BYTES,
            in_batch: (0, 0),
        }
    }

    /// The block with its header.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Ticks of the next record.
    pub(super) fn next_ticks(&self) -> Option<u64> {
        let mut records = Records::from_offset(&self.bytes, self.offset);
        records.next().map(|record| record.header.ticks())
    }

    /// Moves records of up to `ticks_max` into the batch, at most to the end of the block or of
    /// the batch, and at most one with a large body. `so_far`: the largest ticks of the producer.
    pub(super) fn emit(
        &mut self,
        so_far: &mut u64,
        ticks_max: u64,
        batch: &mut Batch,
        number: u64,
    ) -> Emitted {
        let mut room = BATCH_RECORDS.saturating_sub(batch.records);
        let mut records = Records::from_offset(&self.bytes, self.offset);
        let mut run = Run {
            bytes: 0,
            body: None,
            start: self.offset as u32,
            end: self.offset as u32,
            ticks: *so_far,
        };
        let mut last = *so_far;
        let mut large = None;
        let mut next = None;
        while let Some(record) = records.next() {
            let ticks = record.header.ticks().max(last);
            if ticks > ticks_max || room == 0 {
                next = Some(ticks);
                break;
            }
            room -= 1;
            batch.records += 1;
            last = ticks;
            run.end = records.offset() as u32;
            if record.header.flags & FLAG_LARGE != 0 {
                // Behind the record, or it is the last: the same key sorts right.
                large = Some(record.offset);
                next = Some(ticks);
                break;
            }
        }
        *so_far = last;
        if run.end > run.start {
            self.offset = run.end as usize;
            if self.in_batch.0 != number {
                self.in_batch = (number, batch.bytes.len() as u32);
                batch.bytes.push(Arc::clone(&self.bytes));
            }
            run.bytes = self.in_batch.1;
            batch.runs.push(run);
        }
        Emitted { next, large }
    }
}

/// Whether a payload of so many bytes holds a body of this length.
pub(super) fn is_body(payload_bytes: u32, body_bytes: u32) -> bool {
    let padding = payload_bytes.checked_sub(body_bytes);
    padding.is_some_and(|padding| padding < 4)
}
