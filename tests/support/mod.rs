//! Builds segments byte by byte, from the structures of the format only, so that the reader is
//! tested against something that is not the writer. Safe and deterministic.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use stormlog::Error;
use stormlog::convert::{ConvertOptions, ConvertReport, convert_lines};
use stormlog::record::{
    FLAG_EXTRA, FLAG_LARGE, HEADER_BYTES, Record, RecordHeader, Variable, align_record,
};
use stormlog::segment::entry::{ClockPoint, Entry, EntryHeader, entry_crc};
use stormlog::segment::files::SessionFiles;
use stormlog::segment::layout::{
    BLOCK_DATA, BLOCK_HEADER_BYTES, BLOCK_LARGE, BLOCK_MAGIC, BLOCK_REGISTRY, BLOCK_SEAL,
    BLOCKS_OFFSET, BlockHeader, CLOCK_TSC, FILE_HEADER_BYTES, FILE_MAGIC, FILE_SEGMENT, FileHeader,
    HEADER_COPY_OFFSET, HINT_OFFSET, SealCount, SealHeader, VERSION_MAJOR, VERSION_MINOR,
    block_bytes,
};

/// Ticks per second of the sessions built here: one tick is one nanosecond.
pub const TICKS: u64 = 1_000_000_000;
/// Ticks at the start.
pub const START_TICKS: u64 = 5_000_000_000;
/// 2026-11-21T10:11:12Z.
pub const START_UTC_NS: u64 = 1_795_255_872_000_000_000;
/// `CLOCK_MONOTONIC` at the start.
pub const START_MONO_NS: u64 = 77_000_000_000;
/// Session id.
pub const SESSION: &str = "20261121_101112";

/// A segment that grows block by block.
pub struct SegmentBuilder {
    pub header: FileHeader,
    blocks: Vec<u8>,
    pub sequence: u64,
    count: u64,
    records: u64,
    by_category: BTreeMap<u32, u64>,
    /// Position of the next record by ring.
    pub positions: BTreeMap<u32, u64>,
}

pub fn header(segment: u64) -> FileHeader {
    let mut session = [0; 16];
    session[..15].copy_from_slice(SESSION.as_bytes());
    let mut program = [0; 40];
    program[..5].copy_from_slice(b"0.1.0");
    FileHeader {
        magic: FILE_MAGIC,
        version_major: VERSION_MAJOR,
        version_minor: VERSION_MINOR,
        header_bytes: FILE_HEADER_BYTES as u32,
        file_kind: FILE_SEGMENT,
        crc: 0,
        nonce: *b"nonce of a test!",
        session,
        boot_id: [0; 16],
        pid: 4711,
        pid_namespace: 0,
        process_start: 0,
        clock_kind: CLOCK_TSC,
        zero: 0,
        ticks_per_second: TICKS,
        segment,
        file_bytes: 0,
        start_ticks: START_TICKS,
        start_utc_ns: START_UTC_NS,
        start_mono_ns: START_MONO_NS,
        program,
        zero_tail: [0; 64],
    }
}

impl SegmentBuilder {
    pub fn new(segment: u64, sequence: u64) -> Self {
        Self {
            header: header(segment),
            blocks: Vec::new(),
            sequence,
            count: 0,
            records: 0,
            by_category: BTreeMap::new(),
            positions: BTreeMap::new(),
        }
    }

    /// The segment that follows one that was finished at `before`.
    pub fn after(before: &Self) -> Self {
        let mut next = Self::new(before.header.segment + 1, before.sequence);
        next.positions.clone_from(&before.positions);
        next
    }

    /// Offset at which the next block will stand.
    pub fn offset(&self) -> usize {
        BLOCKS_OFFSET + self.blocks.len()
    }

    pub fn block(&mut self, mut block: BlockHeader, payload: &[u8]) {
        block.magic = BLOCK_MAGIC;
        block.payload_bytes = payload.len() as u32;
        block.sequence = self.sequence;
        block.crc = block.expected_crc(&self.header.nonce, self.header.segment, payload);
        self.sequence += 1;
        let end = self.blocks.len() + block_bytes(payload.len());
        self.blocks.extend_from_slice(bytemuck_bytes(&block));
        self.blocks.extend_from_slice(payload);
        self.blocks.resize(end, 0);
    }

    pub fn registry(&mut self, entries: &[Entry<'_>]) {
        let mut payload = Vec::new();
        for entry in entries {
            entry.append(&mut payload);
        }
        self.registry_bytes(&payload, entries.len() as u32);
    }

    pub fn registry_bytes(&mut self, payload: &[u8], records: u32) {
        self.count += 1;
        let block = BlockHeader {
            kind: BLOCK_REGISTRY,
            records,
            ..BlockHeader::default()
        };
        self.block(block, payload);
    }

    /// A data block; each record with the id of its category.
    pub fn data(&mut self, ring: u32, records: &[(u32, Vec<u8>)]) {
        let payload: Vec<u8> = records
            .iter()
            .flat_map(|(_, bytes)| bytes.clone())
            .collect();
        for (category, _) in records {
            *self.by_category.entry(*category).or_default() += 1;
        }
        self.payload(ring, records.len() as u32, &payload);
    }

    /// A data block of any bytes.
    pub fn payload(&mut self, ring: u32, records: u32, payload: &[u8]) {
        self.count += 1;
        self.records += u64::from(records);
        let position = self.positions.entry(ring).or_default();
        let block = BlockHeader {
            kind: BLOCK_DATA,
            ring,
            records,
            first_pos: *position,
            next_pos: *position + payload.len() as u64,
            ..BlockHeader::default()
        };
        *position = block.next_pos;
        self.block(block, payload);
    }

    /// A data block between two positions: what stood in the spill. Sets the flag of its records.
    pub fn spilled(&mut self, ring: u32, records: &[(u32, Vec<u8>)]) {
        let position = *self.positions.entry(ring).or_default();
        let records: Vec<_> = records.iter().cloned().map(spill_record).collect();
        self.data(ring, &records);
        self.positions.insert(ring, position);
        // Where `data` has put its header.
        let payload: usize = records.iter().map(|(_, bytes)| bytes.len()).sum();
        let start = self.blocks.len() - block_bytes(payload);
        let header = &mut self.blocks[start..start + BLOCK_HEADER_BYTES];
        let mut block: BlockHeader = stormlog::bytemuck::pod_read_unaligned(header);
        block.next_pos = block.first_pos;
        header.copy_from_slice(bytemuck_bytes(&block));
        let payload = &self.blocks[start + BLOCK_HEADER_BYTES..][..payload];
        block.crc = block.expected_crc(&self.header.nonce, self.header.segment, payload);
        self.blocks[start..start + BLOCK_HEADER_BYTES].copy_from_slice(bytemuck_bytes(&block));
    }

    /// The body of the LARGE record at `position`.
    pub fn large(&mut self, ring: u32, position: u64, body: &[u8]) {
        self.large_at(ring, position, 0, body);
    }

    /// The same, with the ticks of the record.
    pub fn large_at(&mut self, ring: u32, position: u64, ticks: u64, body: &[u8]) {
        self.count += 1;
        let mut payload = body.to_vec();
        payload.resize(align_record(body.len()), 0);
        let block = BlockHeader {
            kind: BLOCK_LARGE,
            ring,
            records: 1,
            first_pos: position,
            next_pos: position,
            min_ticks: ticks,
            max_ticks: ticks,
            ..BlockHeader::default()
        };
        self.block(block, &payload);
    }

    /// The whole file, with a seal.
    pub fn seal(&mut self, last: bool) -> Vec<u8> {
        let counts: Vec<_> = self.by_category.iter().collect();
        let head = SealHeader {
            blocks: self.count,
            records: self.records,
            last: last.into(),
            categories: counts.len() as u32,
        };
        let mut payload = bytemuck_bytes(&head).to_vec();
        for (category, records) in counts {
            payload.extend_from_slice(bytemuck_bytes(&SealCount {
                category: *category,
                zero: 0,
                records: *records,
            }));
        }
        let block = BlockHeader {
            kind: BLOCK_SEAL,
            ..BlockHeader::default()
        };
        self.block(block, &payload);
        self.finish()
    }

    /// The whole file as it is.
    pub fn finish(&self) -> Vec<u8> {
        let mut header = self.header;
        header.file_bytes = self.offset() as u64;
        let header = header.with_crc();
        let mut file = vec![0; BLOCKS_OFFSET];
        file[..FILE_HEADER_BYTES].copy_from_slice(bytemuck_bytes(&header));
        file[HEADER_COPY_OFFSET..][..FILE_HEADER_BYTES].copy_from_slice(bytemuck_bytes(&header));
        file[HINT_OFFSET..][..8].copy_from_slice(&(self.offset() as u64).to_le_bytes());
        file.extend_from_slice(&self.blocks);
        file
    }
}

fn bytemuck_bytes<T: stormlog::bytemuck::NoUninit>(value: &T) -> &[u8] {
    stormlog::bytemuck::bytes_of(value)
}

fn spill_record((category, mut bytes): (u32, Vec<u8>)) -> (u32, Vec<u8>) {
    bytes[4] |= stormlog::record::FLAG_SPILLED;
    (category, bytes)
}

/// What a record carries beside its fields.
#[derive(Clone, Copy, Default)]
pub struct Head<'a> {
    pub schema: u16,
    pub ticks: u64,
    pub weight: u8,
    pub flags: u8,
    /// Extra area, as [`extras`] makes it.
    pub extras: &'a [u8],
}

/// The body of a record.
pub fn body(record: &impl Record, extras: &[u8]) -> Vec<u8> {
    let mut bytes = bytemuck_bytes(&record.fixed(usize::MAX)).to_vec();
    let start = bytes.len();
    bytes.resize(start + record.variable_bytes(usize::MAX), 0);
    record.write_variable(usize::MAX, &mut Variable::new(&mut bytes[start..]));
    bytes.extend_from_slice(extras);
    bytes
}

/// A record as it stands in a block.
pub fn record(record: &impl Record, head: Head<'_>) -> Vec<u8> {
    raw_record(&body(record, head.extras), head)
}

/// A record with any bytes as body.
pub fn raw_record(body: &[u8], head: Head<'_>) -> Vec<u8> {
    let length = align_record(HEADER_BYTES + body.len());
    let flags = head.flags
        | if head.extras.is_empty() {
            0
        } else {
            FLAG_EXTRA
        };
    let header = RecordHeader::new(length, head.schema, flags, head.weight, head.ticks);
    let mut bytes = bytemuck_bytes(&header).to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(length, 0);
    bytes
}

/// The reference to a body of `body_bytes` in a large block.
pub fn large_record(body_bytes: usize, head: Head<'_>) -> Vec<u8> {
    let mut reference = (body_bytes as u32).to_le_bytes().to_vec();
    reference.extend_from_slice(&[0; 4]);
    let flags = head.flags
        | FLAG_LARGE
        | if head.extras.is_empty() {
            0
        } else {
            FLAG_EXTRA
        };
    raw_record(
        &reference,
        Head {
            flags,
            extras: &[],
            ..head
        },
    )
}

/// An extra area from (key, kind, value) with the value as it stands behind the key.
pub fn extras(fields: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
    let mut bytes = (fields.len() as u16).to_le_bytes().to_vec();
    for (key, kind, value) in fields {
        bytes.push(*kind);
        if kind & 0x80 == 0 {
            bytes.extend_from_slice(&leb128(key.len()));
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
    }
    bytes
}

/// A text of an extra field: its length and itself.
pub fn text(text: &[u8]) -> Vec<u8> {
    [leb128(text.len()).as_slice(), text].concat()
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = value >= 0x80;
        bytes.push((value & 0x7f) as u8 | u8::from(more) << 7);
        value >>= 7;
        if !more {
            return bytes;
        }
    }
}

/// An entry of any kind and payload with a valid CRC.
pub fn raw_entry(kind: u8, id16: u16, id32: u32, payload: &[u8]) -> Vec<u8> {
    let length = (16 + payload.len()).next_multiple_of(8);
    let header = EntryHeader {
        entry_bytes: length as u32,
        crc: 0,
        kind,
        zero: 0,
        id16,
        id32,
    };
    let mut bytes = bytemuck_bytes(&header).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(length, 0);
    let crc = entry_crc(&bytes[8..]).to_le_bytes();
    bytes[4..8].copy_from_slice(&crc);
    bytes
}

/// A clock point `seconds` after the start on clocks that agree.
pub fn clock(seconds: u64) -> Entry<'static> {
    Entry::Clock(ClockPoint {
        ticks: START_TICKS + seconds * TICKS,
        utc_ns: START_UTC_NS + seconds * 1_000_000_000,
        mono_ns: START_MONO_NS + seconds * 1_000_000_000,
    })
}

/// Lines by category and the report of the only session in `segments`.
pub fn convert(segments: &[Vec<u8>]) -> (BTreeMap<String, String>, ConvertReport) {
    let named = segments.iter().enumerate();
    let named = named.map(|(i, bytes)| (PathBuf::from(format!("{:06}.seg", i + 1)), bytes.clone()));
    let mut sessions = SessionFiles::from_memory(named).unwrap();
    assert_eq!(sessions.len(), 1);
    let (lines, report) = convert_by_threads(&sessions.remove(0), false).unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("lines are UTF-8");
    let lines = lines.into_iter().map(|(name, bytes)| (name, text(bytes)));
    (lines.collect(), report)
}

/// Lines by category and the report of a session. One thread and three give the same.
#[track_caller]
pub fn convert_by_threads(
    session: &SessionFiles,
    salvage: bool,
) -> Result<(BTreeMap<String, Vec<u8>>, ConvertReport), Error> {
    let convert = |threads| {
        let mut lines = BTreeMap::new();
        let options = ConvertOptions {
            salvage,
            threads,
            ..ConvertOptions::default()
        };
        let report = convert_lines(session, &mut lines, options)?;
        Ok((lines, report))
    };
    let (one, three) = (convert(1)?, convert(3)?);
    assert!(one.0 == three.0, "the lines do not depend on threads");
    assert_eq!(format!("{:?}", one.1), format!("{:?}", three.1));
    Ok(one)
}

/// Repairs every checksum that can be found, so that damage reaches the code behind them.
pub fn repair(file: &mut [u8]) {
    let header = |file: &[u8]| -> Option<FileHeader> {
        let bytes = file.get(..FILE_HEADER_BYTES)?;
        Some(stormlog::bytemuck::pod_read_unaligned(bytes))
    };
    let Some(first) = header(file).map(FileHeader::with_crc) else {
        return;
    };
    file[..FILE_HEADER_BYTES].copy_from_slice(bytemuck_bytes(&first));
    let mut offset = BLOCKS_OFFSET;
    while let Some(bytes) = file.get(offset..offset + BLOCK_HEADER_BYTES) {
        let mut block: BlockHeader = stormlog::bytemuck::pod_read_unaligned(bytes);
        let start = offset + BLOCK_HEADER_BYTES;
        let Some(payload) = file.get_mut(start..start + block.payload_bytes as usize) else {
            return;
        };
        if block.kind == BLOCK_REGISTRY {
            repair_entries(payload);
        }
        block.crc = block.expected_crc(&first.nonce, first.segment, payload);
        file[offset..start].copy_from_slice(bytemuck_bytes(&block));
        offset += block_bytes(block.payload_bytes as usize);
    }
}

/// Gives the entries of a registry block their checksums.
pub fn repair_entries(payload: &mut [u8]) {
    let mut offset = 0;
    while let Some(length) = payload
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
    {
        let length = u32::from_le_bytes(*length) as usize;
        let Some(entry) = payload.get_mut(offset..offset.saturating_add(length.max(16))) else {
            return;
        };
        let crc = entry_crc(&entry[8..]).to_le_bytes();
        entry[4..8].copy_from_slice(&crc);
        offset += length.max(16);
    }
}
