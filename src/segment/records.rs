//! Records in the payload of a block: where they are, and what is in them. FORMAT.md section 3.
//!
//! Values are views into the payload. Anything inconsistent is [`Damaged`], which the caller
//! counts; nothing here panics or allocates, whatever the bytes are.
#![expect(
    clippy::inline_always,
    reason = "reading a field is one match in the loop over the fields, not a call"
)]

use crate::record::{
    FLAGS_KNOWN, FieldKind, FieldType, HEADER_BYTES, INLINE_BYTES_MAX, LargeReference,
    RECORD_ALIGN, RecordHeader, SCHEMA_PADDING, value_kind,
};

/// Set in the slot of a symbol field whose text is in the variable area.
pub const INLINE_BIT: u32 = 1 << 31;

/// A record, field or extra area that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// One record in a payload.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// What follows the header, padding included.
    pub body: &'a [u8],
    /// Offset of the record in the payload.
    pub offset: usize,
}

impl<'a> RecordRef<'a> {
    /// The record at `offset` of `payload`; `None` where there is none or only padding.
    #[inline]
    pub fn at(payload: &'a [u8], offset: usize) -> Option<Self> {
        let bytes = payload.get(offset..)?;
        let header = bytemuck::pod_read_unaligned::<[u8; HEADER_BYTES]>(bytes.get(..HEADER_BYTES)?);
        let header: RecordHeader = bytemuck::cast(header);
        let length = header.record_bytes();
        if header.schema == SCHEMA_PADDING || length > INLINE_BYTES_MAX {
            return None;
        }
        Some(Self {
            header,
            body: bytes.get(HEADER_BYTES..length)?,
            offset,
        })
    }

    /// Whether a 1.0 reader understands all flags.
    #[inline]
    pub fn flags_known(&self) -> bool {
        self.header.flags & !FLAGS_KNOWN == 0
    }

    /// The length of the body of a LARGE record.
    ///
    /// # Errors
    /// [`Damaged`] when the record is not as long as a LARGE record.
    pub fn large_body_bytes(&self) -> Result<u32, Damaged> {
        let reference = bytemuck::try_pod_read_unaligned::<LargeReference>(self.body);
        reference
            .map(|reference| reference.body_bytes)
            .map_err(|_| Damaged)
    }
}

/// Goes through the records of a data block; padding is skipped.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    payload: &'a [u8],
    offset: usize,
    damaged: bool,
}

impl<'a> Records<'a> {
    /// The records of `payload`.
    pub fn new(payload: &'a [u8]) -> Self {
        Self::from_offset(payload, 0)
    }

    /// The records of `payload` from `offset` on, where one must start.
    pub fn from_offset(payload: &'a [u8], offset: usize) -> Self {
        Self {
            payload,
            offset,
            damaged: false,
        }
    }

    /// Whether the records ended before the payload did, because a length cannot be right.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Offset behind the record that was returned last.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        while self.offset < self.payload.len() {
            let head = self
                .payload
                .get(self.offset..)
                .and_then(<[u8]>::first_chunk::<4>);
            let Some([words_low, words_high, schema_low, schema_high]) = head else {
                break;
            };
            let words = u16::from_le_bytes([*words_low, *words_high]);
            let length = usize::from(words).saturating_mul(RECORD_ALIGN);
            let next = self.offset.saturating_add(length);
            if words == 0 || next > self.payload.len() {
                break;
            }
            if u16::from_le_bytes([*schema_low, *schema_high]) == SCHEMA_PADDING {
                self.offset = next;
                continue;
            }
            let Some(record) = RecordRef::at(self.payload, self.offset) else {
                break;
            };
            self.offset = next;
            return Some(record);
        }
        self.damaged = self.offset < self.payload.len();
        None
    }
}

/// The value of a field or extra field. Texts are bytes: whether they are UTF-8 is not checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Null.
    Null,
    /// True or false.
    Bool(bool),
    /// Unsigned integer.
    U64(u64),
    /// Signed integer.
    I64(i64),
    /// A float that is written with the digits of an `f32`.
    F32(f32),
    /// A float.
    F64(f64),
    /// Text.
    Text(&'a [u8]),
    /// A text by its symbol id, not 0.
    Symbol(u32),
    /// What should be JSON.
    Json(&'a [u8]),
    /// What should be a JSON number.
    Number(&'a [u8]),
    /// Nanoseconds, written in milliseconds with so many decimals.
    Duration(u64, u8),
}

/// What is left of a body while its values are taken from the front.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    fixed: &'a [u8],
    variable: &'a [u8],
}

impl<'a> Body<'a> {
    /// The body of a record whose schema has `fixed_bytes` bytes of slots.
    ///
    /// # Errors
    /// [`Damaged`] when the body is shorter.
    #[inline]
    pub fn new(body: &'a [u8], fixed_bytes: u16) -> Result<Self, Damaged> {
        let split = body.split_at_checked(usize::from(fixed_bytes));
        let (fixed, variable) = split.ok_or(Damaged)?;
        Ok(Self { fixed, variable })
    }

    /// The value of the next field.
    ///
    /// # Errors
    /// [`Damaged`] when its slot or text does not fit.
    #[inline(always)]
    pub fn value(&mut self, field: FieldType) -> Result<ValueRef<'a>, Damaged> {
        if field.kind.is_integer() && field.optional {
            let [present] = self.slot()?;
            let value = self.required(field)?;
            return Ok(if present == 0 { ValueRef::Null } else { value });
        }
        self.required(field)
    }

    #[inline(always)]
    fn required(&mut self, field: FieldType) -> Result<ValueRef<'a>, Damaged> {
        let optional = field.optional;
        Ok(match field.kind {
            FieldKind::U8 => ValueRef::U64(u8::from_le_bytes(self.slot()?).into()),
            FieldKind::U16 => ValueRef::U64(u16::from_le_bytes(self.slot()?).into()),
            FieldKind::U32 => ValueRef::U64(u32::from_le_bytes(self.slot()?).into()),
            FieldKind::U64 => ValueRef::U64(u64::from_le_bytes(self.slot()?)),
            FieldKind::I8 => ValueRef::I64(i8::from_le_bytes(self.slot()?).into()),
            FieldKind::I16 => ValueRef::I64(i16::from_le_bytes(self.slot()?).into()),
            FieldKind::I32 => ValueRef::I64(i32::from_le_bytes(self.slot()?).into()),
            FieldKind::I64 => ValueRef::I64(i64::from_le_bytes(self.slot()?)),
            FieldKind::F32 => ValueRef::F32(f32::from_le_bytes(self.slot()?)),
            FieldKind::F64 => ValueRef::F64(f64::from_le_bytes(self.slot()?)),
            FieldKind::Bool => match self.slot()? {
                [0] => ValueRef::Bool(false),
                [2] if optional => ValueRef::Null,
                [_] => ValueRef::Bool(true),
            },
            FieldKind::Symbol => match u32::from_le_bytes(self.slot()?) {
                0 if optional => ValueRef::Null,
                0 => return Err(Damaged),
                id if id & INLINE_BIT != 0 => ValueRef::Text(self.text(id & !INLINE_BIT)?),
                id => ValueRef::Symbol(id),
            },
            FieldKind::ShortText => match u8::from_le_bytes(self.slot()?) {
                u8::MAX if optional => ValueRef::Null,
                count => ValueRef::Text(self.text(count.into())?),
            },
            FieldKind::Text => match u16::from_le_bytes(self.slot()?) {
                u16::MAX if optional => ValueRef::Null,
                count => ValueRef::Text(self.text(count.into())?),
            },
            FieldKind::LongText => match u32::from_le_bytes(self.slot()?) {
                u32::MAX if optional => ValueRef::Null,
                count => ValueRef::Text(self.text(count)?),
            },
            FieldKind::Json => match u32::from_le_bytes(self.slot()?) {
                u32::MAX if optional => ValueRef::Null,
                count => ValueRef::Json(self.text(count)?),
            },
            FieldKind::DurationMs => match u64::from_le_bytes(self.slot()?) {
                u64::MAX => ValueRef::Null,
                ns => ValueRef::Duration(ns, field.decimals),
            },
        })
    }

    /// What follows the texts: the extra area and the padding.
    #[inline]
    pub fn rest(self) -> &'a [u8] {
        self.variable
    }

    /// The bytes of the next slot, for readers who know how long it is.
    ///
    /// # Errors
    /// [`Damaged`] when there are not so many.
    #[inline(always)]
    pub fn slot<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (slot, rest) = self.fixed.split_first_chunk::<N>().ok_or(Damaged)?;
        self.fixed = rest;
        Ok(*slot)
    }

    /// The next `count` bytes of the texts.
    ///
    /// # Errors
    /// [`Damaged`] when there are not so many.
    #[inline(always)]
    pub fn text(&mut self, count: u32) -> Result<&'a [u8], Damaged> {
        let split = self.variable.split_at_checked(count as usize);
        let (text, rest) = split.ok_or(Damaged)?;
        self.variable = rest;
        Ok(text)
    }
}

/// The key of an extra field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRef<'a> {
    /// A text by its symbol id.
    Symbol(u32),
    /// A text.
    Text(&'a [u8]),
}

/// Goes through an extra area.
#[derive(Clone, Debug)]
pub struct Extras<'a> {
    rest: &'a [u8],
    /// How many are left, as the area says.
    left: u16,
}

impl<'a> Extras<'a> {
    /// The extra area at the front of `rest`.
    ///
    /// # Errors
    /// [`Damaged`] when there is not even a count.
    pub fn new(rest: &'a [u8]) -> Result<Self, Damaged> {
        let (count, rest) = rest.split_first_chunk::<2>().ok_or(Damaged)?;
        Ok(Self {
            rest,
            left: u16::from_le_bytes(*count),
        })
    }

    /// What follows the extra fields that were taken so far.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next extra field; `None` after the last.
    ///
    /// # Errors
    /// [`Damaged`] when it cannot be read; the area cannot be read any further then.
    pub fn next_extra(&mut self) -> Result<Option<(KeyRef<'a>, ValueRef<'a>)>, Damaged> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let [kind] = self.chunk()?;
        let key = if kind & value_kind::SYMBOL_KEY == 0 {
            KeyRef::Text(self.text()?)
        } else {
            KeyRef::Symbol(u32::from_le_bytes(self.chunk()?))
        };
        let value = match kind & !value_kind::SYMBOL_KEY {
            value_kind::NULL => ValueRef::Null,
            value_kind::FALSE => ValueRef::Bool(false),
            value_kind::TRUE => ValueRef::Bool(true),
            value_kind::I64 => ValueRef::I64(i64::from_le_bytes(self.chunk()?)),
            value_kind::U64 => ValueRef::U64(u64::from_le_bytes(self.chunk()?)),
            value_kind::F64 => ValueRef::F64(f64::from_le_bytes(self.chunk()?)),
            value_kind::TEXT => ValueRef::Text(self.text()?),
            value_kind::JSON => ValueRef::Json(self.text()?),
            value_kind::NUMBER => ValueRef::Number(self.text()?),
            _ => return Err(Damaged),
        };
        Ok(Some((key, value)))
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>().ok_or(Damaged)?;
        self.rest = rest;
        Ok(*chunk)
    }

    /// A LEB128 length of at most 5 bytes and as many bytes.
    fn text(&mut self) -> Result<&'a [u8], Damaged> {
        let mut count = 0_u64;
        for shift in [0_u32, 7, 14, 21, 28] {
            let [byte] = self.chunk()?;
            count |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                let split = self.rest.split_at_checked(count as usize);
                let (text, rest) = split.ok_or(Damaged)?;
                self.rest = rest;
                return Ok(text);
            }
        }
        Err(Damaged)
    }
}

/// Whether `rest` is what may follow the last value of a record: up to 3 zero bytes.
#[inline]
pub fn is_record_padding(rest: &[u8]) -> bool {
    rest.len() < RECORD_ALIGN && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of `bytes` bytes, zeros but for what says that.
    fn record(schema: u16, bytes: usize) -> Vec<u8> {
        let mut record = vec![0; bytes];
        record[..2].copy_from_slice(&((bytes / RECORD_ALIGN) as u16).to_le_bytes());
        record[2..4].copy_from_slice(&schema.to_le_bytes());
        record
    }

    #[test]
    fn padding_and_what_is_too_long_are_no_records() {
        let bytes_of = |payload: &[u8]| {
            let found = RecordRef::at(payload, 0)?;
            Some(found.body.len() + HEADER_BYTES)
        };
        for bytes in [HEADER_BYTES, 64, INLINE_BYTES_MAX] {
            assert_eq!(bytes_of(&record(1, bytes)), Some(bytes));
            assert_eq!(bytes_of(&record(SCHEMA_PADDING, bytes)), None);
        }
        let long = record(1, INLINE_BYTES_MAX + RECORD_ALIGN);
        assert_eq!(bytes_of(&long), None);
        let mut records = Records::new(&long);
        assert!(records.next().is_none() && records.is_damaged());
    }

    #[test]
    fn only_an_optional_field_can_be_null() {
        use FieldKind::{Bool, Json, LongText, ShortText, Symbol, Text};
        let texts = vec![b'x'; 70_000];
        let text = |count: usize| Ok(ValueRef::Text(&texts[..count]));
        // A slot that means null, and what it means in a field that is not optional.
        let slots: [(FieldKind, &[u8], _); 6] = [
            (Bool, &[2], Ok(ValueRef::Bool(true))),
            (Symbol, &[0; 4], Err(Damaged)),
            (ShortText, &[0xff], text(255)),
            (Text, &[0xff; 2], text(65_535)),
            (LongText, &[0xff; 4], Err(Damaged)),
            (Json, &[0xff; 4], Err(Damaged)),
        ];
        for (kind, slot, required) in slots {
            for (optional, expected) in [(true, Ok(ValueRef::Null)), (false, required)] {
                let mut body = Body {
                    fixed: slot,
                    variable: &texts,
                };
                let field = FieldType {
                    kind,
                    optional,
                    decimals: 0,
                    bytes_max: u32::MAX,
                };
                assert_eq!(body.value(field), expected, "{field:?}");
            }
        }
    }
}
