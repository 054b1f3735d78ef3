//! Appending blocks to the current segment, and counting what is in it.

use super::segments::Segments;
use crate::segment::layout::BLOCK_DATA;
use crate::segment::writer::BlockInfo;

impl Segments {
    /// Appends a large block; the block that refers to it comes next, and with it this one is there
    /// or not.
    pub(crate) fn append_large(
        &mut self,
        info: BlockInfo,
        payload_bytes: usize,
        fill: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) {
        let Some(current) = &mut self.current else {
            debug_assert!(false, "ensure comes first");
            return;
        };
        current.append_large(self.sequence, info, payload_bytes, fill);
        self.sequence = self.first_sequence + current.blocks();
    }

    /// Tells readers up to where there are blocks.
    pub(crate) fn publish(&mut self) {
        if let Some(current) = &mut self.current {
            current.publish();
        }
    }

    /// Appends a block; [`ensure`](Self::ensure) made room for it. False when it cannot be written:
    /// nothing of it counts, nor of the large block before it, and `ensure` knows what to do.
    #[must_use]
    pub(crate) fn append(&mut self, info: BlockInfo, payload: &[u8]) -> bool {
        let Some(current) = &mut self.current else {
            debug_assert!(false, "ensure comes first");
            return false;
        };
        let appended = current.append(self.sequence, info, payload);
        self.sequence = self.first_sequence + current.blocks();
        match appended {
            Ok(()) => {
                self.begun |= info.kind == BLOCK_DATA;
                self.end_trouble();
                true
            }
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }

    /// Adds to the records of the current segment that must always be kept.
    pub(crate) fn count_always(&mut self, records: u64) {
        if let Some(current) = &mut self.current {
            current.count_always(records);
        }
    }

    /// Adds to the records of a category that the seal of this segment will state.
    pub(crate) fn count(&mut self, category: u8, records: u64) {
        if let Some(current) = &mut self.current {
            current.count(category, records);
        }
    }
}
