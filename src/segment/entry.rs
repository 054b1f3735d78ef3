//! Registry entries: how schemas, categories, symbols, clock points and producers are written.
//! FORMAT.md section 6 is normative. The reader's half is in `reader`.

use bytemuck::{Pod, Zeroable};

use crate::record::{KeepClass, SchemaDef, SchemaIds, Sink};

/// Bytes of [`EntryHeader`].
pub const ENTRY_HEADER_BYTES: usize = 16;
/// Entries are as long as a multiple of this.
pub const ENTRY_ALIGN: usize = 8;
/// The longest entry: a schema of 255 fields with names of 255 bytes.
pub const ENTRY_BYTES_MAX: usize = 16 + 9 + 255 + 255 * (10 + 255) + 1;

/// `kind` of a category.
pub const ENTRY_CATEGORY: u8 = 1;
/// `kind` of a schema.
pub const ENTRY_SCHEMA: u8 = 2;
/// `kind` of a symbol.
pub const ENTRY_SYMBOL: u8 = 3;
/// `kind` of a clock point.
pub const ENTRY_CLOCK: u8 = 4;
/// `kind` of a producer.
pub const ENTRY_PRODUCER: u8 = 5;
/// `kind` of a rate.
pub const ENTRY_RATE: u8 = 6;
/// `kind` of a change of pressure.
pub const ENTRY_PRESSURE: u8 = 7;
/// `kind` of the rules for secrets.
pub const ENTRY_REDACTION: u8 = 8;

/// The largest pressure: a weight id up to it stands for 2^id.
pub const PRESSURE_MAX: u8 = 15;

/// `key` of a schema without one.
pub const KEY_NONE: u16 = u16::MAX;

/// FORMAT.md section 6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[expect(missing_docs, reason = "FORMAT.md section 6 describes each field")]
pub struct EntryHeader {
    pub entry_bytes: u32,
    pub crc: u32,
    pub kind: u8,
    pub zero: u8,
    pub id16: u16,
    pub id32: u32,
}

const _: () = assert!(size_of::<EntryHeader>() == ENTRY_HEADER_BYTES);

/// A reading of the three clocks at one moment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ClockPoint {
    /// Raw counter.
    pub ticks: u64,
    /// UTC, ns since 1970.
    pub utc_ns: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub mono_ns: u64,
}

/// The pressure of a category from `ticks` on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct PressureChange {
    /// Raw counter.
    pub ticks: u64,
    /// The new pressure, at most [`PRESSURE_MAX`].
    pub k: u8,
    /// Why it changed: one of [`PressureCause`], or of a later version.
    pub cause: u8,
    /// Zero.
    pub zero: [u8; 6],
}

/// Why the pressure of a category changed. FORMAT.md section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PressureCause {
    /// The fullest ring fills faster than it is drained.
    RingFill = 1,
    /// The writer does not keep up with what is offered.
    DrainLag = 2,
    /// There is no segment to write to.
    NoSegment = 3,
    /// The disk: no room, or a bound on the space of the session.
    Disk = 4,
    /// It has become less.
    Relief = 5,
}

impl PressureCause {
    /// Name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFill => "ring_fill",
            Self::DrainLag => "drain_lag",
            Self::NoSegment => "no_segment",
            Self::Disk => "disk",
            Self::Relief => "relief",
        }
    }

    /// What it means.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::RingFill => "a ring fills faster than the writer drains it",
            Self::DrainLag => "the writer takes long for one look at all rings",
            Self::NoSegment => "there is no segment to write to",
            Self::Disk => "space for the session runs out",
            Self::Relief => "the load has fallen",
        }
    }
}

/// The CRC field of an entry whose bytes from 8 on are `rest`.
pub fn entry_crc(rest: &[u8]) -> u32 {
    match crc32c::crc32c(rest) {
        0 => 1,
        crc => crc,
    }
}

/// Counts the bytes of an entry.
#[derive(Debug, Default)]
struct EntryLength(usize);

impl Sink for EntryLength {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// One registry entry to be written.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A category and its name.
    Category(u8, &'a str),
    /// A schema and its ids.
    Schema(SchemaIds, KeepClass, &'a SchemaDef),
    /// A symbol id and its text.
    Symbol(u32, &'a str),
    /// A reading of the clocks.
    Clock(ClockPoint),
    /// A ring id, the kernel id of the thread that took the ring, and the thread's name.
    Producer(u32, u64, &'a str),
    /// A weight id from 16 on and the weight it stands for, at least 1.
    Rate(u8, f64),
    /// A category and its pressure from now on.
    Pressure(u8, PressureChange),
    /// What is kept out of lines, as JSON text.
    Redaction(&'a str),
}

impl<'a> Entry<'a> {
    /// A schema whose keep class is its own.
    pub const fn schema(ids: SchemaIds, def: &'a SchemaDef) -> Self {
        Self::Schema(ids, def.keep, def)
    }

    /// Length of the entry with header and padding.
    pub fn bytes(&self) -> usize {
        let mut length = EntryLength(ENTRY_HEADER_BYTES);
        self.payload(&mut length);
        length.0.next_multiple_of(ENTRY_ALIGN)
    }

    /// The header; its CRC is still 0.
    pub fn header(&self) -> EntryHeader {
        let (kind, id16, id32) = match *self {
            Self::Category(id, _) => (ENTRY_CATEGORY, u16::from(id), 0),
            Self::Schema(ids, ..) => (ENTRY_SCHEMA, ids.schema, 0),
            Self::Symbol(id, _) => (ENTRY_SYMBOL, 0, id),
            Self::Clock(_) => (ENTRY_CLOCK, 0, 0),
            Self::Producer(ring, ..) => (ENTRY_PRODUCER, 0, ring),
            Self::Rate(id, _) => (ENTRY_RATE, u16::from(id), 0),
            Self::Pressure(category, _) => (ENTRY_PRESSURE, u16::from(category), 0),
            Self::Redaction(_) => (ENTRY_REDACTION, 0, 0),
        };
        EntryHeader {
            entry_bytes: self.bytes() as u32,
            crc: 0,
            kind,
            zero: 0,
            id16,
            id32,
        }
    }

    /// Writes what follows the header, without padding.
    pub fn payload(&self, out: &mut impl Sink) {
        match *self {
            Self::Category(_, text) | Self::Symbol(_, text) | Self::Redaction(text) => {
                put_text(out, text);
            }
            Self::Schema(ids, keep, schema) => put_schema(out, ids, keep, schema),
            Self::Clock(point) => out.put(bytemuck::bytes_of(&point)),
            Self::Producer(_, thread, name) => {
                out.put(&thread.to_le_bytes());
                put_text(out, name);
            }
            Self::Rate(_, weight) => out.put(&weight.to_le_bytes()),
            Self::Pressure(_, change) => out.put(bytemuck::bytes_of(&change)),
        }
    }

    /// Appends the whole entry to `out`.
    pub fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(bytemuck::bytes_of(&self.header()));
        self.payload(out);
        out.resize(start + self.bytes(), 0);
        let crc = entry_crc(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

fn put_text(out: &mut impl Sink, text: &str) {
    out.put(&(text.len() as u16).to_le_bytes());
    out.put(text.as_bytes());
}

fn put_schema(out: &mut impl Sink, ids: SchemaIds, keep: KeepClass, schema: &SchemaDef) {
    out.put(&u16::from(ids.category).to_le_bytes());
    out.put(&[keep as u8, schema.fields.len() as u8]);
    out.put(&schema.fixed_bytes.to_le_bytes());
    out.put(&schema.key.unwrap_or(KEY_NONE).to_le_bytes());
    let name = crate::record::cut_text(schema.name, 255);
    out.put(&[name.len() as u8]);
    out.put(name.as_bytes());
    for field in schema.fields {
        let kind = field.field_type;
        out.put(&[
            kind.kind as u8,
            u8::from(kind.optional),
            kind.decimals,
            field.name.len() as u8,
        ]);
        out.put(&field.offset.to_le_bytes());
        out.put(&kind.bytes_max.to_le_bytes());
        out.put(field.name.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{FieldDef, FieldKind, FieldType};

    #[test]
    fn longest_entry_is_as_long_as_told() {
        let text = |bytes: usize| &*Box::leak("n".repeat(bytes).into_boxed_str());
        let field_type = FieldType {
            kind: FieldKind::U64,
            optional: false,
            decimals: 0,
            bytes_max: 0,
        };
        let fields: Vec<_> = (0..255_u16)
            .map(|index| FieldDef {
                name: Box::leak(format!("{index:0>255}").into_boxed_str()),
                field_type,
                offset: index * 8,
            })
            .collect();
        let schema = SchemaDef::new(
            text(300),
            text(64),
            KeepClass::Sampled,
            fields.leak(),
            255 * 8,
            None,
        );
        let ids = SchemaIds {
            schema: 1,
            category: 20,
        };
        let bytes = Entry::Schema(ids, schema.keep, &schema).bytes();
        assert_eq!(bytes, ENTRY_BYTES_MAX);
        let longest = text(u16::MAX.into());
        assert!(Entry::Redaction(longest).bytes() <= ENTRY_BYTES_MAX);
    }

    #[test]
    fn entry_is_as_long_as_its_header_says() {
        for entry in [
            Entry::Category(3, "errors"),
            Entry::Symbol(77, "start"),
            Entry::Clock(ClockPoint {
                ticks: 1,
                utc_ns: 2,
                mono_ns: 3,
            }),
            Entry::Producer(9, 4711, "main"),
            Entry::Rate(16, 2.5),
            Entry::Pressure(3, PressureChange::default()),
            Entry::Redaction("{}"),
        ] {
            let mut bytes = Vec::new();
            entry.append(&mut bytes);
            let header: EntryHeader = bytemuck::pod_read_unaligned(&bytes[..ENTRY_HEADER_BYTES]);
            assert_eq!(header.entry_bytes as usize, bytes.len());
            assert_eq!(header.crc, entry_crc(&bytes[8..]));
            assert!(bytes.len().is_multiple_of(ENTRY_ALIGN));
        }
    }
}
