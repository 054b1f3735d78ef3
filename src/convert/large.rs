//! Where the bodies of LARGE records are. FORMAT.md sections 3.5 and 5.

use std::collections::HashMap;

use super::index::BlockRef;
use crate::record::RecordHeader;
use crate::segment::layout::BlockHeader;

/// Where the body of a LARGE record is.
#[derive(Clone, Copy, Debug)]
pub(super) struct LargeRef {
    /// Index in [`SessionFiles::segments`](crate::segment::files::SessionFiles::segments).
    pub segment: u32,
    pub payload_bytes: u32,
    pub offset: u64,
}

/// All large blocks of a session.
#[derive(Debug, Default)]
pub(super) struct LargeBlocks {
    /// By ring and position.
    placed: HashMap<(u32, u64), LargeRef>,
    /// Those of spilled records, which share a position: by segment and offset of the data block
    /// that stands directly behind them.
    spilled: HashMap<(u32, u64), LargeRef>,
    /// By ring and position, with the ticks of their records: the block behind them is lost, so it
    /// is not known whether the record was a spilled one, and another may have the same position.
    orphans: HashMap<(u32, u64), (LargeRef, u64)>,
    /// The block that was read last, when it was a large one, with its ring, position and ticks.
    last: Option<((u32, u64), LargeRef, u64)>,
}

impl LargeBlocks {
    /// Notes a large block. Before it, [`next_block`](Self::next_block) was told of it.
    pub(super) fn add(&mut self, header: &BlockHeader, large: LargeRef) {
        self.last = Some(((header.ring, header.first_pos), large, header.min_ticks));
    }

    /// Says what the block at this place is: it decides to which record the large block before it
    /// belongs. Returns that block when there was one for its record already.
    pub(super) fn next_block(
        &mut self,
        segment: u32,
        offset: u64,
        header: &BlockHeader,
    ) -> Option<LargeRef> {
        let (of, large, _) = self.last.take()?;
        if header.is_spilled() && of == (header.ring, header.first_pos) {
            self.spilled.insert((segment, offset), large)
        } else {
            self.placed.insert(of, large).map(|_| large)
        }
    }

    /// Blocks are missing behind the one that was read last.
    pub(super) fn gap(&mut self) {
        if let Some((of, large, ticks)) = self.last.take() {
            self.orphans.insert(of, (large, ticks));
        }
    }

    /// As [`next_block`](Self::next_block), at the end of a segment.
    pub(super) fn end_segment(&mut self) -> Option<LargeRef> {
        let (of, large, _) = self.last.take()?;
        self.placed.insert(of, large).map(|_| large)
    }

    /// The body of a record in this data block of `ring`, which starts at `first_pos`.
    pub(super) fn of_record(
        &self,
        (ring, first_pos): (u32, u64),
        block: &BlockRef,
        offset: u32,
        record: &RecordHeader,
    ) -> Option<&LargeRef> {
        let large = if record.is_spilled() {
            // Only the first record of such a block can be large.
            let first = self.spilled.get(&(block.segment, block.offset));
            first.filter(|_| offset == 0)
        } else {
            let position = first_pos.wrapping_add(offset.into());
            let orphan = self.orphans.get(&(ring, position));
            let orphan = orphan.filter(|(_, ticks)| *ticks == record.ticks());
            let placed = self.placed.get(&(ring, position));
            placed.or(orphan.map(|(large, _)| large))
        };
        large.filter(|large| (large.segment, large.offset) < (block.segment, block.offset))
    }
}
