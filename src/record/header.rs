//! The record header: the first 16 bytes of every record, in a ring and in a segment alike.
//!
//! FORMAT.md section 3 is normative; this file binds it to code.

use bytemuck::{Pod, Zeroable};

/// Bytes of [`RecordHeader`].
pub const HEADER_BYTES: usize = 16;
/// Records start at multiples of this and are as long as a multiple of it.
pub const RECORD_ALIGN: usize = 4;
/// The longest record that fits into a ring and a data block. Longer ones take the large path.
pub const INLINE_BYTES_MAX: usize = 32 * 1024;
/// The schema id of padding.
pub const SCHEMA_PADDING: u16 = 0;

/// An extra area follows the variable area.
pub const FLAG_EXTRA: u8 = 1 << 0;
/// A text was cut because it was longer than its bound or than the record may be.
pub const FLAG_CUT: u8 = 1 << 1;
/// The body lies in the large block of the same ring and position; 8 bytes of reference follow.
pub const FLAG_LARGE: u8 = 1 << 2;
/// A context area (ids) lies between the variable area and the extra area.
pub const FLAG_CONTEXT: u8 = 1 << 3;
/// The record took the spill instead of its ring; only in blocks that say so.
pub const FLAG_SPILLED: u8 = 1 << 4;
/// A stress rule fired on this record; it was kept with weight 1.
pub const FLAG_RULE: u8 = 1 << 5;
/// Flags that a version 1.0 reader understands.
pub const FLAGS_KNOWN: u8 = FLAG_EXTRA | FLAG_CUT | FLAG_LARGE | FLAG_SPILLED | FLAG_RULE;

/// The first 16 bytes of a record.
///
/// Alignment in memory is 4: read it from bytes with `bytemuck::pod_read_unaligned`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RecordHeader {
    /// Length of the record with this header and its padding, in units of 4 bytes.
    pub words: u16,
    /// Schema id; [`SCHEMA_PADDING`] marks padding, of which only the first 4 bytes exist.
    pub schema: u16,
    /// `FLAG_*` bits.
    pub flags: u8,
    /// 0 = weight 1; 1..=15 = weight 2^id; others index the rate table of the registry.
    pub weight: u8,
    /// Zero.
    pub spare: u16,
    /// Counter reading, low and high half.
    pub ticks: [u32; 2],
}

const _: () = assert!(size_of::<RecordHeader>() == HEADER_BYTES);
const _: () = assert!(align_of::<RecordHeader>() == RECORD_ALIGN);
const _: () = assert!(INLINE_BYTES_MAX / RECORD_ALIGN <= u16::MAX as usize);
#[cfg(target_endian = "big")]
compile_error!("the file format is little-endian and records are written as they lie in memory");

impl RecordHeader {
    /// Counter reading as one number.
    #[inline]
    pub const fn ticks(&self) -> u64 {
        (self.ticks[1] as u64) << 32 | self.ticks[0] as u64
    }

    /// The first 8 bytes as one number: one store instead of five.
    #[inline]
    pub(crate) const fn front(&self) -> u64 {
        self.words as u64
            | (self.schema as u64) << 16
            | (self.flags as u64) << 32
            | (self.weight as u64) << 40
            | (self.spare as u64) << 48
    }

    /// Whether the record took the spill.
    #[inline]
    pub const fn is_spilled(&self) -> bool {
        self.flags & FLAG_SPILLED != 0
    }

    /// Length of the record in bytes, with header and padding.
    #[inline]
    pub const fn record_bytes(&self) -> usize {
        self.words as usize * RECORD_ALIGN
    }

    /// A header for a record of `bytes` bytes (a multiple of 4, at most [`INLINE_BYTES_MAX`]).
    #[inline]
    pub const fn new(bytes: usize, schema: u16, flags: u8, weight: u8, ticks: u64) -> Self {
        debug_assert!(bytes.is_multiple_of(RECORD_ALIGN));
        debug_assert!(bytes <= INLINE_BYTES_MAX);
        Self {
            words: (bytes / RECORD_ALIGN) as u16,
            schema,
            flags,
            weight,
            spare: 0,
            ticks: [ticks as u32, (ticks >> 32) as u32],
        }
    }
}

/// What follows the header of a record with [`FLAG_LARGE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LargeReference {
    /// Length of the body in bytes, without header, not padded.
    pub body_bytes: u32,
    /// First chunk of the body in the ring storage; has no meaning in a segment.
    pub chunk: u32,
}

/// Bytes of a record that carries a [`LargeReference`].
pub const LARGE_RECORD_BYTES: usize = HEADER_BYTES + size_of::<LargeReference>();

/// `bytes` rounded up to a multiple of [`RECORD_ALIGN`].
#[inline]
pub const fn align_record(bytes: usize) -> usize {
    (bytes + (RECORD_ALIGN - 1)) & !(RECORD_ALIGN - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_is_the_first_half() {
        let header = RecordHeader::new(44, 0x1234, FLAG_CUT, 7, 0x0102_0304_0506_0708);
        let bytes = bytemuck::bytes_of(&header);
        assert_eq!(header.front().to_le_bytes(), bytes[..8]);
        assert_eq!(header.ticks().to_le_bytes(), bytes[8..]);
    }
}
