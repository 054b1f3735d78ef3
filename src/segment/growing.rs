//! Reading a segment while it is written.

use crate::error::Error;
use crate::segment::reader::{Block, SegmentReader};
use crate::segment::source::Source;

/// Bytes that are read at once.
const AHEAD_BYTES: u64 = 64 << 10;

impl<S: Source> SegmentReader<S> {
    /// The valid block at `offset`, a seal too; `None` as long as there is none.
    ///
    /// # Errors
    /// [`Error::Io`] when the system cannot read.
    pub(crate) fn growing_block_at(&mut self, offset: u64) -> Result<Option<Block<'_>>, Error> {
        self.window_end_max = offset.saturating_add(AHEAD_BYTES);
        let mut found = self.read_block_at(offset)?.valid();
        if found.is_none() {
            // What was read before may be older than the block.
            self.window.clear();
            found = self.read_block_at(offset)?.valid();
        }
        let Some(header) = found else {
            return Ok(None);
        };
        let payload = self.payload(offset, header.payload_bytes as usize);
        Ok(Some(Block {
            header,
            offset,
            payload,
        }))
    }
}
