//! The structures of the file format. FORMAT.md sections 2, 4, 5 and 8 are normative.

use bytemuck::{Pod, Zeroable};

/// Magic of every file.
pub const FILE_MAGIC: [u8; 8] = *b"STORMLOG";
/// Major version: readers refuse others.
pub const VERSION_MAJOR: u16 = 1;
/// Minor version: readers read older ones.
pub const VERSION_MINOR: u16 = 0;
/// Bytes of [`FileHeader`].
pub const FILE_HEADER_BYTES: usize = 256;
/// Offset of the second copy of the header in a segment.
pub const HEADER_COPY_OFFSET: usize = 2048;
/// Offset of the hint in a segment.
pub const HINT_OFFSET: usize = 4096;
/// Offset of the first block of a segment.
pub const BLOCKS_OFFSET: usize = 8192;
/// Blocks start at multiples of this.
pub const BLOCK_ALIGN: usize = 8;
/// Bytes of [`BlockHeader`].
pub const BLOCK_HEADER_BYTES: usize = 64;
/// Magic of a block, `SBLK`.
pub const BLOCK_MAGIC: u32 = 0x4B4C_4253;
/// The longest payload of a data block.
pub const DATA_BYTES_MAX: usize = 65_536;
/// The longest payload of any block.
pub const PAYLOAD_BYTES_MAX: usize = (16 << 20) + 65_536;
/// Bytes of [`SealHeader`].
pub const SEAL_HEADER_BYTES: usize = 24;

/// `file_kind` of a segment.
pub const FILE_SEGMENT: u32 = 1;
/// `file_kind` of a ring storage.
pub const FILE_RINGS: u32 = 2;
/// `file_kind` of a ledger file.
pub const FILE_LEDGER: u32 = 3;
/// `file_kind` of a reference to a ring storage in `/dev/shm`.
pub const FILE_REFERENCE: u32 = 4;

/// `clock_kind`: time stamp counter of x86.
pub const CLOCK_TSC: u32 = 1;
/// `clock_kind`: virtual counter of aarch64.
pub const CLOCK_CNTVCT: u32 = 2;
/// `clock_kind`: `CLOCK_MONOTONIC` in nanoseconds.
pub const CLOCK_MONOTONIC: u32 = 3;

/// `kind` of a data block.
pub const BLOCK_DATA: u16 = 1;
/// `kind` of a registry block.
pub const BLOCK_REGISTRY: u16 = 2;
/// `kind` of a large block.
pub const BLOCK_LARGE: u16 = 3;
/// `kind` of a seal block.
pub const BLOCK_SEAL: u16 = 4;

/// FORMAT.md section 2.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "FORMAT.md section 2 describes each field")]
pub struct FileHeader {
    pub magic: [u8; 8],
    pub version_major: u16,
    pub version_minor: u16,
    pub header_bytes: u32,
    pub file_kind: u32,
    pub crc: u32,
    pub nonce: [u8; 16],
    pub session: [u8; 16],
    pub boot_id: [u8; 16],
    pub pid: u64,
    pub pid_namespace: u64,
    pub process_start: u64,
    pub clock_kind: u32,
    pub zero: u32,
    pub ticks_per_second: u64,
    pub segment: u64,
    pub file_bytes: u64,
    pub start_ticks: u64,
    pub start_utc_ns: u64,
    pub start_mono_ns: u64,
    pub program: [u8; 40],
    pub zero_tail: [u8; 64],
}

const _: () = assert!(size_of::<FileHeader>() == FILE_HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(FileHeader, crc) == 20);
const _: () = assert!(std::mem::offset_of!(FileHeader, nonce) == 24);
const _: () = assert!(std::mem::offset_of!(FileHeader, pid) == 72);
const _: () = assert!(std::mem::offset_of!(FileHeader, clock_kind) == 96);
const _: () = assert!(std::mem::offset_of!(FileHeader, start_ticks) == 128);
const _: () = assert!(std::mem::offset_of!(FileHeader, program) == 152);
const _: () = assert!(HEADER_COPY_OFFSET + FILE_HEADER_BYTES <= HINT_OFFSET);
const _: () = assert!(HINT_OFFSET + 16 <= BLOCKS_OFFSET);
const _: () = assert!(BLOCKS_OFFSET.is_multiple_of(BLOCK_ALIGN));

impl FileHeader {
    /// The CRC that the header must carry: that of its bytes with `crc` set to 0.
    pub fn expected_crc(&self) -> u32 {
        crc32c::crc32c(bytemuck::bytes_of(&Self { crc: 0, ..*self }))
    }

    /// The header with its CRC filled in.
    #[must_use]
    pub fn with_crc(self) -> Self {
        Self {
            crc: self.expected_crc(),
            ..self
        }
    }
}

/// Flag of a data block: records of the ring before it were dropped, because there was no space.
pub const BLOCK_FLAG_SHED: u16 = 1 << 0;

/// FORMAT.md section 5.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "FORMAT.md section 5 describes each field")]
pub struct BlockHeader {
    pub magic: u32,
    pub crc: u32,
    pub payload_bytes: u32,
    pub kind: u16,
    pub flags: u16,
    pub sequence: u64,
    pub ring: u32,
    pub records: u32,
    pub first_pos: u64,
    pub next_pos: u64,
    pub min_ticks: u64,
    pub max_ticks: u64,
}

const _: () = assert!(size_of::<BlockHeader>() == BLOCK_HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(BlockHeader, sequence) == 16);
const _: () = assert!(std::mem::offset_of!(BlockHeader, first_pos) == 32);
const _: () = assert!(BLOCK_HEADER_BYTES.is_multiple_of(BLOCK_ALIGN));
const _: () = assert!(crate::record::INLINE_BYTES_MAX <= DATA_BYTES_MAX);

impl BlockHeader {
    /// Whether this is a data block of spilled records, which stand between two positions.
    pub const fn is_spilled(&self) -> bool {
        self.kind == BLOCK_DATA && self.payload_bytes > 0 && self.first_pos == self.next_pos
    }

    /// The CRC of a block with this header: over nonce, segment number, the header from its
    /// `payload_bytes` on, and the payload.
    pub fn expected_crc(&self, nonce: &[u8; 16], segment: u64, payload: &[u8]) -> u32 {
        let crc = crc32c::crc32c(nonce);
        let crc = crc32c::crc32c_append(crc, &segment.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &bytemuck::bytes_of(self)[8..]);
        crc32c::crc32c_append(crc, payload)
    }
}

/// Bytes that a block with `payload` bytes of payload takes in a segment.
pub const fn block_bytes(payload: usize) -> usize {
    (BLOCK_HEADER_BYTES + payload + (BLOCK_ALIGN - 1)) & !(BLOCK_ALIGN - 1)
}

/// First 24 bytes of a seal payload, FORMAT.md section 5.1.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "FORMAT.md section 5.1 describes each field")]
pub struct SealHeader {
    pub blocks: u64,
    pub records: u64,
    pub last: u32,
    pub categories: u32,
}

/// One category of a seal payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "FORMAT.md section 5.1 describes each field")]
pub struct SealCount {
    pub category: u32,
    pub zero: u32,
    pub records: u64,
}

const _: () = assert!(size_of::<SealHeader>() == SEAL_HEADER_BYTES);
const _: () = assert!(size_of::<SealCount>() == 16);

/// Offset of the first slot of the ledger file.
pub const LEDGER_SLOT_OFFSET: usize = 4096;
/// Bytes of each of the two slots of the ledger file.
pub const LEDGER_SLOT_BYTES: usize = 40_960;
/// Bytes of the ledger file.
pub const LEDGER_FILE_BYTES: usize = LEDGER_SLOT_OFFSET + 2 * LEDGER_SLOT_BYTES;
/// Entries that fit into one slot.
pub const LEDGER_ENTRIES_MAX: usize = 200;

/// Start of a slot of the ledger file, FORMAT.md section 8.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "FORMAT.md section 8 describes each field")]
pub struct LedgerSlotHeader {
    pub sequence: u64,
    pub crc: u32,
    pub count: u32,
    pub published_utc_ns: u64,
    pub state: u64,
}

/// One category in a slot of the ledger file, FORMAT.md section 8.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "FORMAT.md section 8 describes each field")]
pub struct LedgerEntry {
    pub category: u32,
    pub name_bytes: u32,
    pub name: [u8; 64],
    pub counters: [u64; 16],
}

const _: () = assert!(size_of::<LedgerSlotHeader>() == 32);
const _: () = assert!(size_of::<LedgerEntry>() == 200);
const _: () = assert!(
    size_of::<LedgerSlotHeader>() + LEDGER_ENTRIES_MAX * size_of::<LedgerEntry>()
        <= LEDGER_SLOT_BYTES
);

/// Offset of [`RingGeometry`] in a ring storage.
pub const GEOMETRY_OFFSET: usize = FILE_HEADER_BYTES;
/// Offset of the shared counters of a ring storage: 16 pages.
pub const SHARED_COUNTERS_OFFSET: usize = 4096;
/// Bytes of one page of counters in a ring storage: 16 categories.
pub const COUNTER_PAGE_BYTES: usize = 2048;
/// Magic of a ring header, `SRNG`.
pub const RING_MAGIC: u32 = 0x474E_5253;

/// Where the parts of a ring storage lie, FORMAT.md section 7: as much of it as readers need.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "the names say it")]
pub struct RingGeometry {
    pub pages_offset: u64,
    pub pages_count: u64,
    pub registry_offset: u64,
    pub registry_bytes: u64,
    pub large_offset: u64,
    pub large_bytes: u64,
    pub rings_offset: u64,
    pub ring_total_bytes: u64,
    pub spill_offset: u64,
    pub spill_bytes: u64,
    pub spill_slot_bytes: u64,
    pub aggregate_offset: u64,
    pub aggregate_bytes: u64,
    pub phase: u64,
}

/// `phase` of a session that is being closed; 0 before.
pub const PHASE_CLOSING: u64 = 1;

/// What stands before the counters and the data of each ring in a ring storage, as bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "see the header of a ring in the engine")]
pub struct RingHead {
    pub magic: u32,
    pub index: u32,
    pub capacity: u64,
    pub ring_id: u32,
    pub state: u32,
    pub identity_tail: [u64; 5],
    pub write_pos: u64,
    pub write_tail: [u64; 7],
    pub read_pos: u64,
    pub read_tail: [u64; 7],
    /// Index plus one of the counter page of each group of 16 categories; 0 = none.
    pub pages: [u32; 16],
}

const _: () = assert!(size_of::<RingHead>() == 256);
const _: () = assert!(GEOMETRY_OFFSET + size_of::<RingGeometry>() <= SHARED_COUNTERS_OFFSET);

/// Header and counters of a ring.
pub const RING_OVERHEAD: usize = size_of::<RingHead>() + COUNTER_PAGE_BYTES;
/// No storage has more rings.
pub const RINGS_MAX: usize = 4096;
/// Bytes of data of the smallest ring.
pub const RING_BYTES_MIN: usize = 4096;
/// Bytes of data of the largest ring.
pub const RING_BYTES_MAX: usize = 64 << 20;

/// (rings up to this one, each the total divided by this).
const TIERS: [(usize, usize); 4] = [(8, 32), (64, 256), (288, 1024), (RINGS_MAX, 2048)];

/// Data bytes of each ring of a storage whose rings have `total` bytes, in the order in which
/// threads get them: few large ones for those that come first, small ones for the many that may
/// follow. The sum with overhead is at most `total`.
pub fn ring_capacities(total: usize) -> Vec<usize> {
    let mut capacities = Vec::new();
    let mut left = total;
    for (upto, divisor) in TIERS {
        let share = (total / divisor).clamp(RING_BYTES_MIN, RING_BYTES_MAX);
        let capacity = 1 << share.ilog2();
        while capacities.len() < upto && left >= capacity + RING_OVERHEAD {
            capacities.push(capacity);
            left -= capacity + RING_OVERHEAD;
        }
    }
    capacities
}
