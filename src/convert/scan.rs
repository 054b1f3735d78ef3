//! Reading parts of segments, by any thread: what each block holds, without what stood before it.

use std::borrow::Cow;

use crate::record::SCHEMAS_MAX;
use crate::segment::files::SessionFiles;
use crate::segment::layout::{
    BLOCK_DATA, BLOCK_HEADER_BYTES, BLOCK_REGISTRY, BLOCK_SEAL, BLOCKS_OFFSET, BlockHeader,
    block_bytes,
};
use crate::segment::reader::{Block, SegmentReader, check_block_header};
use crate::segment::records::Records;
use crate::segment::source::{SegmentSource, Source};

/// Bytes of a part, about.
const PART_BYTES: u64 = 1 << 20;
/// Bytes that are read at once to go from header to header.
const HEADERS_BYTES: usize = 4096;

/// A part of a segment: blocks one behind the other, if what their headers say is true.
#[derive(Debug)]
pub(super) struct Part {
    /// Index in [`SessionFiles::segments`].
    pub segment: usize,
    pub start: u64,
    pub end: u64,
    /// What stands behind it is no block that can be hopped over, or the end.
    pub last: bool,
}

/// Cuts segments into parts.
pub(super) struct Walk<'a> {
    files: &'a SessionFiles,
    /// Whether there is to be more than one part, an empty one, per segment.
    cut: bool,
    segment: usize,
    /// The open segment and its length.
    source: Option<(SegmentSource, u64)>,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(files: &'a SessionFiles, cut: bool) -> Self {
        Self {
            files,
            cut,
            segment: 0,
            source: None,
            at: BLOCKS_OFFSET as u64,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// The next part of the session.
    pub(super) fn next_part(&mut self) -> Option<Part> {
        let file = self.files.segments.get(self.segment)?;
        if self.cut && self.source.is_none() {
            let source = file.open().ok();
            self.source = source.and_then(|source| {
                let bytes = source.byte_count().ok()?;
                Some((source, bytes))
            });
        }
        let (segment, start) = (self.segment, self.at);
        let mut last = false;
        while self.at - start < PART_BYTES && !last {
            match self.hop() {
                Some(next) => self.at = next,
                None => last = true,
            }
        }
        let end = self.at;
        if last {
            self.segment += 1;
            self.source = None;
            self.at = BLOCKS_OFFSET as u64;
            self.window.clear();
        }
        Some(Part {
            segment,
            start,
            end,
            last,
        })
    }

    /// Where the block behind the one at `at` stands, if the header is that of one.
    fn hop(&mut self) -> Option<u64> {
        let (source, byte_count) = self.source.as_ref()?;
        let place = self.at.checked_sub(self.window_at);
        let place = place.and_then(|place| usize::try_from(place).ok());
        let in_window = |window: &[u8], place: usize| {
            let head = window.get(place..)?.first_chunk::<BLOCK_HEADER_BYTES>()?;
            Some(bytemuck::pod_read_unaligned::<BlockHeader>(head))
        };
        let header = if let Some(header) = place.and_then(|place| in_window(&self.window, place)) {
            header
        } else {
            self.window.resize(HEADERS_BYTES, 0);
            self.window_at = self.at;
            let count = source.read_at(self.at, &mut self.window).ok()?;
            self.window.truncate(count);
            in_window(&self.window, 0)?
        };
        if check_block_header(&header).is_err() || header.kind == BLOCK_SEAL {
            return None;
        }
        let next = self.at + block_bytes(header.payload_bytes as usize) as u64;
        (next <= *byte_count).then_some(next)
    }
}

/// What a block holds.
pub(super) struct Note<'a> {
    pub header: BlockHeader,
    pub offset: u64,
    pub content: Content<'a>,
}

pub(super) enum Content<'a> {
    Data(Data),
    /// The payload.
    Registry(Cow<'a, [u8]>),
    /// All there is to know is in the header.
    Other,
}

/// The records of a data block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Data {
    pub count: u64,
    /// Records that are spilled in a block that is not, or the other way round.
    pub misplaced: u64,
    pub first_ticks: u64,
    pub min_ticks: u64,
    pub max_ticks: u64,
    /// Bytes behind the last record that can be told apart, where that is not the end.
    pub unread: Option<u64>,
}

/// Looks at a block; `by_schema` has its records added.
pub(super) fn note<'a>(block: &Block<'a>, by_schema: &mut [u64]) -> Note<'a> {
    Note {
        header: block.header,
        offset: block.offset,
        content: match block.header.kind {
            BLOCK_DATA => Content::Data(data(block, by_schema)),
            BLOCK_REGISTRY => Content::Registry(Cow::Borrowed(block.payload)),
            _ => Content::Other,
        },
    }
}

/// Looks at a data block, as [`note`].
pub(super) fn data(block: &Block<'_>, by_schema: &mut [u64]) -> Data {
    let spilled = block.header.is_spilled();
    let mut records = Records::new(block.payload);
    let mut found = Data {
        min_ticks: u64::MAX,
        ..Data::default()
    };
    // Of the records of one schema that stand together only the last counts them.
    let (mut schema, mut since) = (0, 0);
    let mut add = |schema: u16, count: u64| {
        if let Some(sum) = by_schema.get_mut(usize::from(schema)) {
            *sum += count;
        }
    };
    for record in records.by_ref() {
        let ticks = record.header.ticks();
        if found.count == 0 {
            found.first_ticks = ticks;
        }
        if record.header.schema != schema {
            add(schema, found.count - since);
            (schema, since) = (record.header.schema, found.count);
        }
        found.count += 1;
        found.misplaced += u64::from(record.header.is_spilled() != spilled);
        found.min_ticks = found.min_ticks.min(ticks);
        found.max_ticks = found.max_ticks.max(ticks);
    }
    add(schema, found.count - since);
    found.unread = records
        .is_damaged()
        .then(|| block.payload.len().saturating_sub(records.offset()) as u64);
    found
}

/// What was found in a part.
#[derive(Default)]
pub(super) struct Found {
    pub notes: Vec<Note<'static>>,
    pub by_schema: Vec<u64>,
    /// Where it ends: before the end of the part at the first block that is not valid.
    pub end: u64,
}

/// Reads parts.
pub(super) struct Scan<'a> {
    files: &'a SessionFiles,
    /// The segment that was read last.
    reader: Option<(usize, SegmentReader<SegmentSource>)>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(files: &'a SessionFiles) -> Self {
        Self {
            files,
            reader: None,
        }
    }

    /// Reads a part up to the first block that is not valid or cannot be read.
    pub(super) fn part(&mut self, part: &Part) -> Found {
        let mut found = Found {
            end: part.start,
            ..Found::default()
        };
        if part.start == part.end {
            return found;
        }
        if self
            .reader
            .as_ref()
            .is_none_or(|(of, _)| *of != part.segment)
        {
            let file = self.files.segments.get(part.segment);
            let reader = file.and_then(|file| file.reader().ok());
            self.reader = reader.map(|reader| (part.segment, reader));
        }
        let Some((_, reader)) = &mut self.reader else {
            return found;
        };
        found.by_schema.resize(SCHEMAS_MAX, 0);
        let mut sequence = None;
        while found.end < part.end {
            let Ok(Some(block)) = reader.block_at(found.end, part.end) else {
                break;
            };
            let header = block.header;
            if sequence.is_some_and(|next| next != header.sequence) {
                break;
            }
            sequence = Some(header.sequence.wrapping_add(1));
            let Note {
                header,
                offset,
                content,
            } = note(&block, &mut found.by_schema);
            let content = match content {
                Content::Registry(payload) => Content::Registry(Cow::Owned(payload.into_owned())),
                Content::Data(data) => Content::Data(data),
                Content::Other => Content::Other,
            };
            found.notes.push(Note {
                header,
                offset,
                content,
            });
            found.end += block_bytes(header.payload_bytes as usize) as u64;
        }
        found
    }
}
