//! Records that are too long for a ring: their bodies lie in chunks.

use super::Outcome;
use super::offer::Offer;
use crate::core::Core;
use crate::ledger::DropReason;
use crate::record::{
    FLAG_LARGE, HEADER_BYTES, LARGE_RECORD_BYTES, LargeReference, Record, RecordHeader, UNCAPPED,
    Variable,
};
use crate::ring::{LargeChunks, RingSlot};

/// How much the fixed part and the names of extra fields, which are not cut, may add to
/// `record_bytes_max`; the smallest segment has room for it (`segment_bytes_min`).
pub(super) const FIXED_BYTES_SLACK: usize = 768 << 10;

/// Chunks of a body that is being written; they go back unless the record is committed.
pub(super) struct TakenChunks<'a> {
    pub(super) chunks: &'a LargeChunks,
    pub(super) first: u32,
}

impl Drop for TakenChunks<'_> {
    fn drop(&mut self) {
        self.chunks.give_back(self.first);
    }
}

impl<R: Record> Offer<'_, R> {
    /// A record that is too long for the ring: its body goes into a chain of chunks.
    #[cold]
    #[inline(never)]
    pub(super) fn push_large(
        self,
        core: &Core,
        slot: &RingSlot,
        ticks: u64,
        body: usize,
    ) -> Outcome {
        let (cap, body) = self.cap(core.record_bytes_max, body);
        let chunks = &core.storage.large;
        // Only a record that breaks the promise of `Record` is still too long here.
        let fits = HEADER_BYTES + body <= core.record_bytes_max + FIXED_BYTES_SLACK;
        let chain = if fits { chunks.take(body) } else { None };
        let Some(mut chain) = chain else {
            return self.overflow(core, slot, ticks, DropReason::LargeBudget);
        };
        let chunk = chain.first;
        let taken = TakenChunks {
            chunks,
            first: chunk,
        };
        fail_point!("large.taken");
        let mut out = Variable::chained(&mut chain);
        self.write_body(cap, &mut out);
        fail_point!("large.filled");
        let ring = slot.ring();
        let wake = || core.wake.wake_if_parked();
        let Ok(place) = slot
            .side
            .reserve(ring, LARGE_RECORD_BYTES, self.class(core), wake)
        else {
            drop(taken);
            return self.full(core, slot, ticks);
        };
        let flags = self.flags(cap) | FLAG_LARGE;
        let header = RecordHeader::new(LARGE_RECORD_BYTES, self.schema, flags, self.weight, ticks);
        let mut out = Variable::new(slot.side.bytes(ring, place));
        out.put(bytemuck::bytes_of(&header));
        out.put(bytemuck::bytes_of(&LargeReference {
            body_bytes: body as u32,
            chunk,
        }));
        slot.side.commit(ring, place);
        fail_point!("large.committed");
        // The writer gives them back.
        std::mem::forget(taken);
        core.wake.long_record(body, chunks.pool_bytes());
        Outcome::Kept
    }

    /// How long each text may be so that the whole record stays within `bytes_max`, and the length
    /// of the body then. Halves the texts until it fits.
    pub(super) fn cap(&self, bytes_max: usize, body: usize) -> (usize, usize) {
        let mut cap = UNCAPPED;
        let mut body = body;
        let mut next = bytes_max;
        while HEADER_BYTES + body > bytes_max && next > 0 {
            cap = next;
            body = self.body_bytes(cap);
            next /= 2;
        }
        (cap, body)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::super::{Log, order_tests};
    use super::*;
    use crate::record::{Category, Extra};

    /// They fill hardly a ring, so it is not the ring that wakes the writer.
    #[test]
    fn long_records_wake_a_writer_that_sleeps() {
        let core = order_tests::core_of(32 << 10);
        let log = Log::new(Arc::clone(&core));
        let category = Category::named("vpn").unwrap();
        let push = |bytes| log.event(category, &[Extra::new("text", "x".repeat(bytes).as_str())]);
        assert_eq!(push(1), Outcome::Kept);
        core.wake.set_parked(true);
        let eighth = core.storage.large.pool_bytes() / 8;
        assert_eq!(push(eighth * 3 / 4), Outcome::Kept);
        assert_eq!(core.wake.wakes(), 0);
        assert_eq!(push(eighth * 3 / 4), Outcome::Kept);
        assert_eq!(core.wake.wakes(), 1);
    }
}
