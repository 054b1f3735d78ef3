//! The seal of a segment: what it says, and where it is when blocks before it are damaged.
//! FORMAT.md section 5.1 is normative.

use crate::error::Error;
use crate::segment::layout::{
    BLOCK_ALIGN, BLOCK_MAGIC, BLOCK_SEAL, SEAL_HEADER_BYTES, SealCount, SealHeader, block_bytes,
};
use crate::segment::reader::{Seal, SegmentReader};
use crate::segment::source::Source;

/// Categories that one seal can count.
const SEAL_CATEGORIES_MAX: usize = 256;
/// Bytes of the longest seal payload.
const SEAL_BYTES_MAX: usize = SEAL_HEADER_BYTES + SEAL_CATEGORIES_MAX * size_of::<SealCount>();

impl<S: Source> SegmentReader<S> {
    /// Looks for the seal behind damage at `after`: it is the last block, so it ends where the
    /// committed part or the file ends.
    pub(super) fn find_seal(&mut self, after: u64) -> Result<Option<Seal>, Error> {
        for end in [self.committed, self.byte_count] {
            // Brings all candidates into the window at once.
            let first = end
                .saturating_sub(block_bytes(SEAL_BYTES_MAX) as u64)
                .max(after);
            self.view(first, end.saturating_sub(first) as usize)?;
            for count in 0..=SEAL_CATEGORIES_MAX {
                let payload_bytes = size_of::<SealCount>()
                    .saturating_mul(count)
                    .saturating_add(SEAL_HEADER_BYTES);
                let offset = end.saturating_sub(block_bytes(payload_bytes) as u64);
                if offset < after || !offset.is_multiple_of(BLOCK_ALIGN as u64) {
                    break;
                }
                // Anything else at this place would be another length.
                let (magic, length) = (BLOCK_MAGIC.to_le_bytes(), payload_bytes as u32);
                let length = length.to_le_bytes();
                if self.in_window(offset, 4) != Some(&magic)
                    || self.in_window(offset.saturating_add(8), 4) != Some(&length)
                {
                    continue;
                }
                let found = self.read_block_at(offset)?;
                if let Some(header) = found.valid().filter(|found| found.kind == BLOCK_SEAL) {
                    let payload = self.payload(offset, header.payload_bytes as usize);
                    return Ok(parse_seal(payload));
                }
            }
        }
        Ok(None)
    }
}

/// What the payload of a seal says; `None` when it cannot be.
pub(super) fn parse_seal(payload: &[u8]) -> Option<Seal> {
    let (head, rest) = payload.split_at_checked(SEAL_HEADER_BYTES)?;
    let head = bytemuck::try_pod_read_unaligned::<SealHeader>(head).ok()?;
    let count = head.categories as usize;
    let counts = rest.chunks_exact(size_of::<SealCount>());
    if count > SEAL_CATEGORIES_MAX || counts.len() < count {
        return None;
    }
    let categories = counts
        .take(count)
        .filter_map(|bytes| bytemuck::try_pod_read_unaligned::<SealCount>(bytes).ok())
        .map(|count| (count.category, count.records))
        .collect();
    Some(Seal {
        blocks: head.blocks,
        records: head.records,
        last: head.last != 0,
        categories,
    })
}
