//! The segment that a recovery writes: under a temporary name until it is whole and on the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::covered::{OpenTail, add};
use crate::error::{Error, IoContext};
use crate::segment::layout::{
    BLOCK_REGISTRY, BLOCK_SEAL, BLOCKS_OFFSET, DATA_BYTES_MAX, FILE_SEGMENT, FileHeader,
    HEADER_COPY_OFFSET, HINT_OFFSET, SealCount, SealHeader, block_bytes,
};
use crate::segment::prepare::segment_name;
use crate::segment::registry::Registry;
use crate::segment::writer::BlockInfo;
use crate::sys::dir::Dir;

/// Name of the new segment while it is written.
pub(super) const TEMPORARY_NAME: &str = "recover.tmp";

/// The blocks of the new segment. Without a file they are only counted.
pub(super) struct NewSegment {
    file: Option<File>,
    pub(super) header: FileHeader,
    offset: u64,
    sequence: u64,
    blocks: u64,
    pub(super) records: u64,
    pub(super) by_schema: BTreeMap<u16, u64>,
    /// Registry entries that wait for their block.
    entries: Vec<u8>,
    entry_count: u32,
}

impl NewSegment {
    /// Starts segment `number`. What an interrupted recovery left of it is made anew.
    pub(super) fn new(
        dir: Option<&Dir>,
        header: &FileHeader,
        number: u64,
        sequence: u64,
    ) -> Result<Self, Error> {
        let file = match dir {
            Some(dir) => {
                if dir.exists(TEMPORARY_NAME)? {
                    dir.remove_file(TEMPORARY_NAME)?;
                }
                Some(dir.create_file_of(TEMPORARY_NAME, dir.ownership()?)?)
            }
            None => None,
        };
        fail_point!("recover.created");
        Ok(Self {
            file,
            header: FileHeader {
                file_kind: FILE_SEGMENT,
                segment: number,
                ..*header
            },
            offset: BLOCKS_OFFSET as u64,
            sequence,
            blocks: 0,
            records: 0,
            by_schema: BTreeMap::new(),
            entries: Vec::new(),
            entry_count: 0,
        })
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        match &self.file {
            Some(file) => file
                .write_all_at(bytes, offset)
                .io_context("cannot write", TEMPORARY_NAME),
            None => Ok(()),
        }
    }

    /// Appends a block; registry entries that wait come before it.
    pub(super) fn block(&mut self, info: BlockInfo, payload: &[u8]) -> Result<(), Error> {
        self.registry_block()?;
        self.append(info, payload)?;
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    fn append(&mut self, info: BlockInfo, payload: &[u8]) -> Result<(), Error> {
        let (nonce, number) = (&self.header.nonce, self.header.segment);
        let bytes = block(nonce, number, self.sequence, info, payload);
        self.put(self.offset, &bytes)?;
        fail_point!("recover.block");
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }

    /// Counts a record that a block holds.
    pub(super) fn count(&mut self, schema: u16) {
        self.records = self.records.saturating_add(1);
        add(&mut self.by_schema, schema);
    }

    /// Adds a registry entry.
    pub(super) fn entry(&mut self, entry: &[u8]) -> Result<(), Error> {
        if self.entries.len().saturating_add(entry.len()) > DATA_BYTES_MAX {
            self.registry_block()?;
        }
        self.entries.extend_from_slice(entry);
        self.entry_count = self.entry_count.saturating_add(1);
        Ok(())
    }

    fn registry_block(&mut self) -> Result<(), Error> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut self.entries);
        let info = BlockInfo {
            kind: BLOCK_REGISTRY,
            records: std::mem::take(&mut self.entry_count),
            ..BlockInfo::default()
        };
        self.append(info, &entries)?;
        self.blocks = self.blocks.saturating_add(1);
        Ok(())
    }

    /// Seals the session with it and waits until it is on the disk, still under its temporary
    /// name. Returns its length.
    pub(super) fn finish(mut self, registry: &Registry) -> Result<u64, Error> {
        self.registry_block()?;
        let seal = seal(self.blocks, self.records, &self.by_schema, registry, true);
        let info = BlockInfo {
            kind: BLOCK_SEAL,
            ..BlockInfo::default()
        };
        self.append(info, &seal)?;
        let header = FileHeader {
            file_bytes: self.offset,
            ..self.header
        }
        .with_crc();
        self.put(0, bytemuck::bytes_of(&header))?;
        self.put(HEADER_COPY_OFFSET as u64, bytemuck::bytes_of(&header))?;
        self.put(HINT_OFFSET as u64, &self.offset.to_le_bytes())?;
        fail_point!("recover.written");
        if let Some(file) = &self.file {
            file.sync_all().io_context("cannot sync", TEMPORARY_NAME)?;
        }
        fail_point!("recover.synced");
        Ok(self.offset)
    }
}

/// Seals the segment that was being written when the process died, and cuts it to its length: the
/// same bytes again when that was interrupted.
pub(super) fn seal_tail(
    dir: &Dir,
    header: &FileHeader,
    tail: &OpenTail,
    registry: &Registry,
) -> Result<(), Error> {
    let name = segment_name(tail.number);
    let path = dir.path_of(&name);
    let payload = seal(tail.blocks, tail.records, &tail.by_schema, registry, false);
    let info = BlockInfo {
        kind: BLOCK_SEAL,
        ..BlockInfo::default()
    };
    let bytes = block(&header.nonce, tail.number, tail.sequence, info, &payload);
    let end = tail.offset.saturating_add(bytes.len() as u64);
    let file = dir.open_file_to_change(&name)?;
    // First: nothing behind the end of the blocks is missed if this is interrupted.
    file.write_all_at(&tail.offset.to_le_bytes(), HINT_OFFSET as u64)
        .io_context("cannot seal", &path)?;
    fail_point!("recover.hint");
    file.write_all_at(&bytes, tail.offset)
        .io_context("cannot seal", &path)?;
    fail_point!("recover.sealed");
    file.write_all_at(&end.to_le_bytes(), HINT_OFFSET as u64)
        .io_context("cannot seal", &path)?;
    file.set_len(end).io_context("cannot cut", &path)?;
    fail_point!("recover.tail_cut");
    file.sync_all().io_context("cannot sync", &path)
}

fn block(
    nonce: &[u8; 16],
    segment: u64,
    sequence: u64,
    info: BlockInfo,
    payload: &[u8],
) -> Vec<u8> {
    let mut header = info.header(sequence, payload.len());
    header.crc = header.expected_crc(nonce, segment, payload);
    let mut bytes = bytemuck::bytes_of(&header).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(block_bytes(payload.len()), 0);
    bytes
}

/// The payload of a seal.
fn seal(
    blocks: u64,
    records: u64,
    by_schema: &BTreeMap<u16, u64>,
    registry: &Registry,
    last: bool,
) -> Vec<u8> {
    let mut categories: BTreeMap<u32, u64> = BTreeMap::new();
    for (id, records) in by_schema {
        if let Some(schema) = registry.schema(*id) {
            let sum = categories.entry(schema.category.into()).or_default();
            *sum = sum.saturating_add(*records);
        }
    }
    let header = SealHeader {
        blocks,
        records,
        last: u32::from(last),
        categories: categories.len() as u32,
    };
    let mut payload = bytemuck::bytes_of(&header).to_vec();
    for (category, records) in categories {
        payload.extend_from_slice(bytemuck::bytes_of(&SealCount {
            category,
            zero: 0,
            records,
        }));
    }
    payload
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    /// A session has up to 2 MiB of them; a damaged block costs what is in it.
    #[test]
    fn registry_entries_fill_blocks_of_the_length_of_others() {
        let mut out = NewSegment::new(None, &FileHeader::zeroed(), 1, 0).unwrap();
        let entry = [1; 1000];
        let (mut offset, mut blocks) = (out.offset, 0);
        for _ in 0..300 {
            out.entry(&entry).unwrap();
            if out.blocks > blocks {
                let bytes = out.offset - offset;
                let longest = block_bytes(DATA_BYTES_MAX) as u64;
                assert!((longest - 1000..=longest).contains(&bytes), "{bytes}");
                (offset, blocks) = (out.offset, out.blocks);
            }
        }
        assert_eq!(blocks, 4);
        let length = out.finish(&Registry::default()).unwrap();
        let rest = length - offset;
        assert!(rest > 300 * 1000 - 4 * DATA_BYTES_MAX as u64, "{rest}");
    }
}
