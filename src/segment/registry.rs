//! The registry as a reader sees it: every entry of a session, checked. FORMAT.md section 6.
//!
//! An entry that is inconsistent is rejected and counted, never half taken: what is in a
//! [`Registry`] is safe to use (category names are safe file names, slots lie in the fixed part).

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{
    CATEGORIES_MAX, FieldKind, FieldType, KeepClass, SCHEMAS_MAX, SYMBOL_BYTES_MAX, SYMBOLS_MAX,
    is_category_name,
};
use crate::redact::Rules;
use crate::segment::entry::{
    ClockPoint, ENTRY_ALIGN, ENTRY_CATEGORY, ENTRY_CLOCK, ENTRY_HEADER_BYTES, ENTRY_PRESSURE,
    ENTRY_PRODUCER, ENTRY_RATE, ENTRY_REDACTION, ENTRY_SCHEMA, ENTRY_SYMBOL, EntryHeader, KEY_NONE,
    PRESSURE_MAX, PressureChange, entry_crc,
};

/// The longest thread name that is kept, in bytes.
const THREAD_NAME_BYTES_MAX: usize = 256;
/// Producers that are kept; further ones are rejected.
const PRODUCERS_MAX: usize = 1 << 20;
/// Changes of pressure that are kept; further ones are counted.
const PRESSURES_MAX: usize = 1 << 16;

/// One field of a [`Schema`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaField {
    /// Name, not empty.
    pub name: String,
    /// Type.
    pub field_type: FieldType,
    /// Offset of the slot: slots lie one behind the other and fill the fixed part.
    pub offset: u16,
}

/// The layout of one record type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Id in record headers, 1..[`SCHEMAS_MAX`].
    pub id: u16,
    /// Id of the category.
    pub category: u8,
    /// Name of the record type.
    pub name: String,
    /// Keep class.
    pub keep: KeepClass,
    /// Index of the correlation key among the fields.
    pub key: Option<u16>,
    /// Length of the fixed part.
    pub fixed_bytes: u16,
    /// Fields in the order of the JSON line.
    pub fields: Vec<SchemaField>,
}

/// A thread that took a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Kernel thread id.
    pub thread: u64,
    /// Name of the thread.
    pub name: String,
}

/// Every registry entry of a session or a segment.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    categories: Vec<Option<String>>,
    schemas: Vec<Option<Schema>>,
    symbols: Vec<Option<Box<str>>>,
    rates: Vec<Option<f64>>,
    /// Changes of pressure with their categories, by ticks: those that come in two segments, once.
    pressures: BTreeSet<(PressureChange, u8)>,
    /// By category id: the highest pressure, of all changes.
    highest_pressure: BTreeMap<u8, u8>,
    /// Changes of pressure that are not kept because there are too many.
    pub pressures_left_out: u64,
    /// Readings of the clocks by ticks.
    pub clock_points: BTreeMap<u64, ClockPoint>,
    /// What is kept out of lines, if the session does not leave it at the built-in rules.
    pub redaction: Option<Rules>,
    /// Producers by ring id.
    pub producers: BTreeMap<u32, Producer>,
    /// Entries that are inconsistent, or contradict an earlier entry of the same id.
    pub rejected: u64,
    /// Entries of kinds that this version does not know.
    pub unknown: u64,
}

impl Registry {
    /// Takes the entries of a registry block; returns how many there were, rejected ones among
    /// them. An entry whose length cannot be right ends the block and counts as one rejected.
    pub fn add_block(&mut self, payload: &[u8]) -> u64 {
        let mut rest = payload;
        let mut entries = 0_u64;
        while !rest.is_empty() {
            entries = entries.saturating_add(1);
            let Some((header, payload, after)) = split_entry(rest) else {
                self.rejected = self.rejected.saturating_add(1);
                break;
            };
            rest = after;
            match payload.and_then(|payload| self.add_entry(&header, payload)) {
                Some(()) => {}
                None => self.rejected = self.rejected.saturating_add(1),
            }
        }
        entries
    }

    /// The category with this id.
    pub fn category(&self, id: u8) -> Option<&str> {
        self.categories.get(usize::from(id))?.as_deref()
    }

    /// The schema with this id.
    pub fn schema(&self, id: u16) -> Option<&Schema> {
        self.schemas.get(usize::from(id))?.as_ref()
    }

    /// The symbol with this id.
    pub fn symbol(&self, id: u32) -> Option<&str> {
        self.symbols.get(id as usize)?.as_deref()
    }

    /// The weight that a weight id stands for; `None` for an id without a rate.
    pub fn weight(&self, id: u8) -> Option<f64> {
        match id {
            0..=15 => Some(f64::from(1_u16.wrapping_shl(u32::from(id)))),
            _ => *self.rates.get(usize::from(id))?,
        }
    }

    /// Changes of pressure with their category ids, by ticks; at most 65,536 of them, see
    /// [`pressures_left_out`](Self::pressures_left_out).
    pub fn pressures(&self) -> impl Iterator<Item = (u8, &PressureChange)> {
        let changes = self.pressures.iter();
        changes.map(|(change, category)| (*category, change))
    }

    /// The highest pressure of each category that had any, by category id.
    pub fn highest_pressures(&self) -> impl Iterator<Item = (u8, u8)> {
        self.highest_pressure.iter().map(|(id, k)| (*id, *k))
    }

    /// Category ids and names.
    pub fn categories(&self) -> impl Iterator<Item = (u8, &str)> {
        let named = self.categories.iter().enumerate();
        named.filter_map(|(id, name)| Some((id as u8, name.as_deref()?)))
    }

    /// Schemas by id.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.schemas.iter().flatten()
    }

    /// Symbol ids and texts.
    pub fn symbols(&self) -> impl Iterator<Item = (u32, &str)> {
        let texts = self.symbols.iter().enumerate();
        texts.filter_map(|(id, text)| Some((id as u32, text.as_deref()?)))
    }

    fn add_entry(&mut self, header: &EntryHeader, payload: &[u8]) -> Option<()> {
        let mut bytes = Cursor { rest: payload };
        match header.kind {
            ENTRY_CATEGORY => {
                let id = u8::try_from(header.id16).ok()?;
                let name = bytes.text16().filter(|name| is_category_name(name))?;
                put(&mut self.categories, id.into(), CATEGORIES_MAX, name.into())
            }
            ENTRY_SCHEMA => {
                let schema = parse_schema(header.id16, &mut bytes)?;
                let id = usize::from(schema.id);
                put(&mut self.schemas, id, SCHEMAS_MAX, schema)
            }
            ENTRY_SYMBOL => {
                let id = usize::try_from(header.id32).ok().filter(|id| *id != 0)?;
                let text = bytes.text16().filter(|t| t.len() <= SYMBOL_BYTES_MAX)?;
                let end = SYMBOLS_MAX.saturating_add(1);
                put(&mut self.symbols, id, end, text.into())
            }
            ENTRY_CLOCK => {
                let point = bytemuck::try_pod_read_unaligned(bytes.take(24)?);
                let point: ClockPoint = point.ok()?;
                self.clock_points.entry(point.ticks).or_insert(point);
                Some(())
            }
            ENTRY_PRODUCER => self.add_producer(header.id32, &mut bytes),
            ENTRY_RATE => {
                let id = usize::from(header.id16);
                let weight = f64::from_le_bytes(*bytes.take(8)?.first_chunk()?);
                let valid = (16..=255).contains(&id) && weight.is_finite() && weight >= 1.0;
                valid.then_some(())?;
                put(&mut self.rates, id, 256, weight)
            }
            ENTRY_REDACTION => {
                let rules = Rules::from_text(bytes.text16()?.as_bytes())?;
                let known = self.redaction.get_or_insert_with(|| rules.clone());
                (*known == rules).then_some(())
            }
            ENTRY_PRESSURE => {
                let category = u8::try_from(header.id16).ok()?;
                let change = bytemuck::try_pod_read_unaligned(bytes.take(16)?);
                self.add_pressure(category, change.ok()?)
            }
            _ => {
                self.unknown = self.unknown.saturating_add(1);
                Some(())
            }
        }
    }

    fn add_pressure(&mut self, category: u8, change: PressureChange) -> Option<()> {
        (change.k <= PRESSURE_MAX).then_some(())?;
        let highest = self.highest_pressure.entry(category).or_default();
        *highest = change.k.max(*highest);
        let zero = [0; 6];
        let entry = (PressureChange { zero, ..change }, category);
        if self.pressures.len() < PRESSURES_MAX {
            self.pressures.insert(entry);
        } else if !self.pressures.contains(&entry) {
            self.pressures_left_out = self.pressures_left_out.saturating_add(1);
        }
        Some(())
    }

    fn add_producer(&mut self, ring: u32, bytes: &mut Cursor<'_>) -> Option<()> {
        let thread = u64::from_le_bytes(*bytes.take(8)?.first_chunk()?);
        let count = bytes.u16()?;
        let name = bytes.take(count.into())?;
        let name = name.get(..THREAD_NAME_BYTES_MAX).unwrap_or(name);
        let name = String::from_utf8_lossy(name).into_owned();
        let producer = Producer { thread, name };
        let full = self.producers.len() >= PRODUCERS_MAX;
        match self.producers.get(&ring) {
            Some(known) => (*known == producer).then_some(()),
            None if full => None,
            None => {
                self.producers.insert(ring, producer);
                Some(())
            }
        }
    }
}

/// Puts `value` at `id`; `None` when the id is too large or stands for something else already.
fn put<T: PartialEq>(table: &mut Vec<Option<T>>, id: usize, end: usize, value: T) -> Option<()> {
    if id >= end {
        return None;
    }
    if table.len() <= id {
        table.resize_with(id.saturating_add(1), || None);
    }
    let slot = table.get_mut(id)?;
    if let Some(known) = slot {
        return (*known == value).then_some(());
    }
    *slot = Some(value);
    Some(())
}

/// Header, payload (`None` where the CRC does not match) and what follows the entry.
type Split<'a> = (EntryHeader, Option<&'a [u8]>, &'a [u8]);

fn split_entry(bytes: &[u8]) -> Option<Split<'_>> {
    let head = bytes.get(..ENTRY_HEADER_BYTES)?;
    let header: EntryHeader = bytemuck::try_pod_read_unaligned(head).ok()?;
    let length = header.entry_bytes as usize;
    if length < ENTRY_HEADER_BYTES || !length.is_multiple_of(ENTRY_ALIGN) {
        return None;
    }
    let (entry, after) = bytes.split_at_checked(length)?;
    let valid = entry_crc(entry.get(8..)?) == header.crc;
    let payload = entry.get(ENTRY_HEADER_BYTES..).filter(|_| valid);
    Some((header, payload, after))
}

fn parse_schema(id: u16, bytes: &mut Cursor<'_>) -> Option<Schema> {
    let category = u8::try_from(bytes.u16()?).ok()?;
    let keep = match bytes.u8()? {
        0 => KeepClass::Sampled,
        1 => KeepClass::Always,
        _ => return None,
    };
    let field_count = bytes.u8()?;
    let fixed_bytes = bytes.u16()?;
    let key = bytes.u16()?;
    let name = bytes.text8()?.to_owned();
    let mut fields = Vec::with_capacity(field_count.into());
    let mut slots_end = 0_u16;
    for _ in 0..field_count {
        let field = parse_field(bytes, slots_end)?;
        let slot = field.field_type.kind.slot_bytes(field.field_type.optional);
        slots_end = slots_end.checked_add(slot as u16)?;
        fields.push(field);
    }
    let key = (key != KEY_NONE).then_some(key);
    let valid =
        id != 0 && slots_end == fixed_bytes && key.is_none_or(|key| key < u16::from(field_count));
    valid.then_some(Schema {
        id,
        category,
        name,
        keep,
        key,
        fixed_bytes,
        fields,
    })
}

/// A field whose slot starts at `slot`, as it must.
fn parse_field(bytes: &mut Cursor<'_>, slot: u16) -> Option<SchemaField> {
    let kind = FieldKind::from_u8(bytes.u8()?)?;
    let flags = bytes.u8()?;
    let decimals = bytes.u8()?;
    let name_bytes = bytes.u8()?;
    let offset = bytes.u16()?;
    let bytes_max = bytes.u32()?;
    let name = std::str::from_utf8(bytes.take(name_bytes.into())?).ok()?;
    let optional = flags & 1 != 0;
    let valid = !name.is_empty() && flags <= 1 && decimals <= 6 && offset == slot;
    valid.then(|| SchemaField {
        name: name.to_owned(),
        field_type: FieldType {
            kind,
            optional,
            decimals,
            bytes_max,
        },
        offset,
    })
}

/// Takes values from the front of an entry.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(*self.take(2)?.first_chunk()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn text8(&mut self) -> Option<&'a str> {
        let count = self.u8()?;
        std::str::from_utf8(self.take(count.into())?).ok()
    }

    fn text16(&mut self) -> Option<&'a str> {
        let count = self.u16()?;
        std::str::from_utf8(self.take(count.into())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, id16: u16, payload: &[u8]) -> Vec<u8> {
        let header = EntryHeader {
            kind,
            id16,
            ..EntryHeader::default()
        };
        let mut bytes = [bytemuck::bytes_of(&header), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(ENTRY_ALIGN), 0);
        let length = (bytes.len() as u32).to_le_bytes();
        bytes[..4].copy_from_slice(&length);
        let crc = entry_crc(&bytes[8..]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        bytes
    }

    /// A later version may need no more than ids to say something.
    #[test]
    fn an_entry_of_nothing_but_a_header_does_not_hide_those_behind_it() {
        let bare = entry(200, 0, &[]);
        assert_eq!(bare.len(), ENTRY_HEADER_BYTES);
        let block = [bare, entry(ENTRY_CATEGORY, 20, b"\x03\0vpn")].concat();
        let mut registry = Registry::default();
        assert_eq!(registry.add_block(&block), 2);
        assert_eq!((registry.unknown, registry.rejected), (1, 0));
        assert_eq!(registry.category(20), Some("vpn"));
    }
}
