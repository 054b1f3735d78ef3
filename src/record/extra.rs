//! Extra fields: `key = value` pairs that a record carries beside the fields of its schema.
//!
//! FORMAT.md section 3.4 is normative for the bytes.

use super::WHOLE;
use super::encode::Sink;
use super::symbol::{Name, Symbol};

/// Number of extra fields that one record can carry; further ones are cut (and flagged).
pub const EXTRAS_MAX: usize = u16::MAX as usize;

/// Value of an extra field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// JSON null.
    #[default]
    Null,
    /// JSON true or false.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A number; NaN and infinities are written as null.
    F64(f64),
    /// A text.
    Text(&'a str),
    /// JSON text of any value, nested or not. Not checked on the caller's thread: the conversion
    /// writes it as a string when it is not JSON.
    Json(&'a str),
    /// JSON text of a number, kept to the digit (`1.50`, integers beyond 64 bits).
    Number(&'a str),
}

/// Tag of each value kind, FORMAT.md section 3.4.
pub mod kind {
    /// Null.
    pub const NULL: u8 = 0;
    /// False.
    pub const FALSE: u8 = 1;
    /// True.
    pub const TRUE: u8 = 2;
    /// Signed integer, 8 bytes.
    pub const I64: u8 = 3;
    /// Unsigned integer, 8 bytes.
    pub const U64: u8 = 4;
    /// IEEE 754, 8 bytes.
    pub const F64: u8 = 5;
    /// Text with its length before it.
    pub const TEXT: u8 = 6;
    /// JSON text with its length before it.
    pub const JSON: u8 = 7;
    /// Number text with its length before it.
    pub const NUMBER: u8 = 8;
    /// Added to the kind when the key is a symbol id.
    pub const SYMBOL_KEY: u8 = 0x80;
}

/// One extra field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extra<'a> {
    /// Name in the JSON line. A reserved or repeated name is written as `field_<name>`.
    pub key: Name<'a>,
    /// Its value.
    pub value: Value<'a>,
}

impl<'a> Extra<'a> {
    /// `key = value`.
    #[inline]
    pub fn new(key: impl Into<Name<'a>>, value: impl Into<Value<'a>>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }

    /// The same field with its texts cut to `cap` bytes; raw JSON that is too long becomes a text,
    /// because a part of it would not be JSON.
    pub(crate) fn capped(self, cap: usize) -> Self {
        let cut = super::field::cut_text;
        let value = match self.value {
            Value::Text(text) => Value::Text(cut(text, cap)),
            Value::Json(text) | Value::Number(text) if text.len() > cap => {
                Value::Text(cut(text, cap))
            }
            value => value,
        };
        let key = match self.key {
            Name::Text(text) => Name::Text(cut(text, cap)),
            key @ Name::Symbol(_) => key,
        };
        Self { key, value }
    }

    /// The same field with its key as a text.
    pub(crate) fn with_text_key(self) -> Self {
        Self {
            key: Name::Text(self.key.text()),
            ..self
        }
    }

    /// Bytes of this entry of an extra area.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        let key = match self.key {
            Name::Symbol(_) => 4,
            Name::Text(text) => varint_bytes(text.len()) + text.len(),
        };
        let value = match self.value {
            Value::Null | Value::Bool(_) => 0,
            Value::I64(_) | Value::U64(_) | Value::F64(_) => 8,
            Value::Text(text) | Value::Json(text) | Value::Number(text) => {
                varint_bytes(text.len()) + text.len()
            }
        };
        1 + key + value
    }

    /// Writes this entry of an extra area.
    #[inline(always)]
    pub(crate) fn write(&self, out: &mut impl Sink) {
        let kind = match self.value {
            Value::Null => kind::NULL,
            Value::Bool(false) => kind::FALSE,
            Value::Bool(true) => kind::TRUE,
            Value::I64(_) => kind::I64,
            Value::U64(_) => kind::U64,
            Value::F64(_) => kind::F64,
            Value::Text(_) => kind::TEXT,
            Value::Json(_) => kind::JSON,
            Value::Number(_) => kind::NUMBER,
        };
        match self.key {
            Name::Symbol(symbol) => {
                out.put(&[kind | kind::SYMBOL_KEY]);
                out.put(&symbol.id().to_le_bytes());
            }
            Name::Text(text) if text.len() < 0x80 => {
                // One number, so that it is not put together byte by byte in memory.
                let front = u16::from(kind) | (text.len() as u16) << 8;
                out.put(&front.to_le_bytes());
                out.put(text.as_bytes());
            }
            Name::Text(text) => {
                out.put(&[kind]);
                put_text(out, text);
            }
        }
        match self.value {
            Value::Null | Value::Bool(_) => {}
            Value::I64(value) => out.put(&value.to_le_bytes()),
            Value::U64(value) => out.put(&value.to_le_bytes()),
            Value::F64(value) => out.put(&value.to_le_bytes()),
            Value::Text(text) | Value::Json(text) | Value::Number(text) => put_text(out, text),
        }
    }
}

/// Extra fields in two slices: `lead` (ids of an operation, the context of the thread) comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    /// At most [`LEAD_MAX`].
    pub(crate) lead: &'a [Extra<'a>],
    /// Those of the caller. What is over [`EXTRAS_MAX`] in all is cut.
    pub(crate) own: &'a [Extra<'a>],
}

/// The most fields that lead.
pub(crate) const LEAD_MAX: usize = 16;

impl<'a> Fields<'a> {
    /// Those that are written.
    fn each(self) -> impl Iterator<Item = &'a Extra<'a>> {
        self.lead.iter().chain(self.own.iter().take(self.room()))
    }

    fn room(self) -> usize {
        debug_assert!(self.lead.len() <= LEAD_MAX, "bounded where they are made");
        EXTRAS_MAX - self.lead.len()
    }

    /// Bytes of the area.
    pub(crate) fn bytes(self, cap: usize) -> usize {
        2 + self
            .each()
            .map(|extra| extra.capped(cap).bytes())
            .sum::<usize>()
    }

    /// Whether [`write`](Self::write) with this cap cuts anything.
    pub(crate) fn is_cut(self, cap: usize) -> bool {
        self.own.len() > self.room()
            || (cap < WHOLE && self.each().any(|extra| extra.capped(cap) != *extra))
    }

    /// Writes the area.
    pub(crate) fn write(self, cap: usize, out: &mut impl Sink) {
        let count = self.lead.len() + self.own.len().min(self.room());
        out.put(&(count as u16).to_le_bytes());
        self.each().for_each(|extra| extra.capped(cap).write(out));
    }
}

/// Whether [`write_extras`] with this cap cuts anything.
pub(crate) fn extras_cut(extras: &[Extra<'_>], cap: usize) -> bool {
    extras.len() > EXTRAS_MAX
        || (cap < WHOLE && extras.iter().any(|extra| extra.capped(cap) != *extra))
}

/// Bytes of the extra area; 0 for no extra fields.
#[inline(always)]
pub(crate) fn extras_bytes(extras: &[Extra<'_>], cap: usize) -> usize {
    if extras.is_empty() {
        0
    } else {
        some_extras_bytes(extras, cap)
    }
}

fn some_extras_bytes(extras: &[Extra<'_>], cap: usize) -> usize {
    let fields = extras
        .iter()
        .take(EXTRAS_MAX)
        .map(|extra| extra.capped(cap).bytes());
    2 + fields.sum::<usize>()
}

/// Bytes of the extra area if it is not longer than `bytes_max`, nothing of it is cut, and `known`
/// holds for all its symbols; one look at each field.
#[inline]
pub(crate) fn whole_extras_bytes(
    extras: &[Extra<'_>],
    bytes_max: usize,
    known: impl Fn(Symbol) -> bool,
) -> Option<usize> {
    let mut bytes = 2;
    for extra in extras {
        // No overflow: the sum so far is at most `bytes_max`, and two texts that lie in memory are
        // far from the end of `usize`.
        bytes += extra.bytes();
        let known = match extra.key {
            Name::Symbol(symbol) => known(symbol),
            Name::Text(_) => true,
        };
        if !known || bytes > bytes_max {
            return None;
        }
    }
    (extras.len() <= EXTRAS_MAX).then_some(bytes)
}

/// Writes the extra area.
#[inline(always)]
pub(crate) fn write_extras(extras: &[Extra<'_>], cap: usize, out: &mut impl Sink) {
    if !extras.is_empty() {
        write_some_extras(extras, cap, out);
    }
}

fn write_some_extras(extras: &[Extra<'_>], cap: usize, out: &mut impl Sink) {
    let count = extras.len().min(EXTRAS_MAX);
    out.put(&(count as u16).to_le_bytes());
    for extra in &extras[..count] {
        if cap < WHOLE {
            write_capped(*extra, cap, out);
        } else {
            extra.write(out);
        }
    }
}

#[cold]
fn write_capped(extra: Extra<'_>, cap: usize, out: &mut impl Sink) {
    extra.capped(cap).write(out);
}

#[inline]
fn put_text(out: &mut impl Sink, text: &str) {
    let mut rest = text.len();
    while rest >= 0x80 {
        out.put(&[rest as u8 | 0x80]);
        rest >>= 7;
    }
    out.put(&[rest as u8]);
    out.put(text.as_bytes());
}

/// Bytes of `value` as LEB128.
#[inline(always)]
const fn varint_bytes(value: usize) -> usize {
    if value < 0x80 {
        return 1;
    }
    let bits = (usize::BITS - value.leading_zeros()) as usize;
    bits.div_ceil(7)
}

macro_rules! value_from {
    ($($from:ty => $variant:ident as $to:ty),* $(,)?) => {$(
        impl From<$from> for Value<'_> {
            #[inline]
            fn from(value: $from) -> Self {
                Self::$variant(<$to>::from(value))
            }
        }
    )*};
}

value_from! {
    bool => Bool as bool,
    i8 => I64 as i64, i16 => I64 as i64, i32 => I64 as i64, i64 => I64 as i64,
    u8 => U64 as u64, u16 => U64 as u64, u32 => U64 as u64, u64 => U64 as u64,
    f32 => F64 as f64, f64 => F64 as f64,
}

impl From<usize> for Value<'_> {
    #[inline]
    fn from(value: usize) -> Self {
        Self::U64(value as u64)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    #[inline]
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    #[inline]
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::UNCAPPED;

    #[test]
    fn area_is_as_long_as_announced() {
        let long = "y".repeat(300);
        let extras = [
            Extra::new("a", 1_u8),
            Extra::new(crate::symbol!("extra-test-key"), -1_i64),
            Extra::new("f", 0.5),
            Extra::new("n", None::<&str>),
            Extra::new("t", long.as_str()),
            Extra::new("j", Value::Json("{\"a\":[1,2]}")),
            Extra::new("x", Value::Number("123456789012345678901234567890")),
            Extra::new("b", true),
        ];
        for cap in [UNCAPPED, WHOLE, 100, 4] {
            let bytes = extras_bytes(&extras, cap);
            let mut area = vec![0xee; bytes + 8];
            let mut out = crate::record::Variable::new(&mut area);
            write_extras(&extras, cap, &mut out);
            assert_eq!(out.remaining(), 8, "cap {cap}");
            assert_eq!(extras_cut(&extras, cap), cap < 300);
            let (lead, own) = extras.split_at(3);
            let fields = Fields { lead, own };
            let mut sliced = vec![0xee; bytes + 8];
            fields.write(cap, &mut crate::record::Variable::new(&mut sliced));
            assert_eq!((sliced, fields.bytes(cap)), (area, bytes), "in two slices");
            assert_eq!(fields.is_cut(cap), cap < 300);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "65,535 fields take minutes")]
    fn what_leads_has_its_place_before_the_last_of_many() {
        let own = vec![Extra::new("k", 1_u8); EXTRAS_MAX];
        let lead = [Extra::new("lead", "x")];
        let fields = |own| Fields { lead: &lead, own };
        assert!(fields(&own).is_cut(UNCAPPED) && !fields(&own[1..]).is_cut(UNCAPPED));
        let mut area = Vec::new();
        fields(&own).write(UNCAPPED, &mut area);
        assert_eq!(area[..2], [0xff, 0xff]);
        assert_eq!(area.len(), fields(&own).bytes(UNCAPPED));
        assert_eq!(area.len(), fields(&own[1..]).bytes(UNCAPPED));
    }

    #[test]
    fn varints_have_their_length() {
        for (value, bytes) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3)] {
            assert_eq!(varint_bytes(value), bytes, "{value}");
        }
    }
}
