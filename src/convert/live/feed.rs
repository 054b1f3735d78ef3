//! The blocks of a session that is recorded, in the order in which they are written.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::segment::layout::{BLOCK_SEAL, BLOCKS_OFFSET, FileHeader, block_bytes};
use crate::segment::prepare::segment_name;
use crate::segment::reader::{Block, SegmentReader};
use crate::sys::dir::Dir;

/// Goes through segments that others write.
pub(super) struct Feed {
    dir: Arc<Dir>,
    /// Number of the segment that is read, and the segment once it was found.
    number: u64,
    reader: Option<SegmentReader<File>>,
    /// Where its next block stands, and the sequence of that.
    offset: u64,
    sequence: u64,
}

impl Feed {
    /// From the first block of the session with this directory.
    pub(super) fn new(dir: Arc<Dir>) -> Self {
        Self {
            dir,
            number: 1,
            reader: None,
            offset: BLOCKS_OFFSET as u64,
            sequence: 0,
        }
    }

    /// The session directory.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The header of the first segment; `None` when it is not there.
    pub(super) fn header(&self) -> Result<Option<FileHeader>, Error> {
        let reader = self.open(1)?;
        Ok(reader.map(|reader| reader.header().file))
    }

    /// Whether the block with the sequence `until` is the next one.
    pub(super) fn is_at(&self, until: u64) -> bool {
        self.sequence == until
    }

    /// Hands out blocks up to the one with the sequence `until`, which comes next, or as long as
    /// `visit` wants more. Whether all of them were found.
    pub(super) fn read(
        &mut self,
        until: u64,
        mut visit: impl FnMut(&Block<'_>) -> bool,
    ) -> Result<bool, Error> {
        while self.sequence != until {
            if self.reader.is_none() {
                self.reader = self.open(self.number)?;
            }
            let block = match &mut self.reader {
                Some(reader) => reader.growing_block_at(self.offset)?,
                None => None,
            };
            let Some(block) = block else {
                // A segment whose seal could not be written, or of which blocks were lost: what
                // stands in the next one is known all the same.
                if self.enter_next()? {
                    continue;
                }
                return Ok(false);
            };
            self.sequence = block.header.sequence.wrapping_add(1);
            if block.header.kind == BLOCK_SEAL {
                (self.reader, self.number) = (None, self.number + 1);
                self.offset = BLOCKS_OFFSET as u64;
                continue;
            }
            let more = visit(&block);
            self.offset += block_bytes(block.header.payload_bytes as usize) as u64;
            if !more {
                return Ok(self.sequence == until);
            }
        }
        Ok(true)
    }

    /// Goes to the next segment, if it has a block.
    fn enter_next(&mut self) -> Result<bool, Error> {
        let Some(mut reader) = self.open(self.number + 1)? else {
            return Ok(false);
        };
        let offset = BLOCKS_OFFSET as u64;
        if reader.growing_block_at(offset)?.is_none() {
            return Ok(false);
        }
        (self.reader, self.offset) = (Some(reader), offset);
        self.number += 1;
        Ok(true)
    }

    /// Opens a segment; `None` when there is none of this number yet, or it has no header yet.
    fn open(&self, number: u64) -> Result<Option<SegmentReader<File>>, Error> {
        let name = segment_name(number);
        let Some(file) = self.dir.open_file_if_there(&name)? else {
            return Ok(None);
        };
        match SegmentReader::open(file, &self.dir.path_of(&name)) {
            Err(Error::Corrupt { .. }) => Ok(None),
            other => other.map(Some),
        }
    }
}
