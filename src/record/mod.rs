//! Records: fixed-layout structs with an optional variable area.
//!
//! [`record!`](crate::record!) declares a type; its fields have one of these types:
//!
//! | type | caller passes | bytes | in the JSON line |
//! |---|---|---|---|
//! | `u8` .. `u64`, `i8` .. `i64` | the number | 1 to 8 | number |
//! | `f32`, `f64` | the number | 4, 8 | number; NaN and infinities null |
//! | `bool` | the flag | 1 | true, false |
//! | [`Symbol`] | [`symbol!`](crate::symbol!) or any text, as [`Name`] | 4, text inline | string |
//! | [`ShortText`], [`Text`], [`LongText`] | `&str` | 1, 2, 4 + text | string |
//! | [`DurationMs`] | `Duration` | 8 | number of milliseconds |
//! | `Option<..>` of each, `Option<Json>` | `Option` | as above, integers + 1 | or null |

pub mod catalog;
mod category;
mod encode;
mod extra;
mod field;
mod header;
mod intern;
mod macros;
mod open;
mod packed;
mod schema;
mod symbol;
pub(crate) mod whole;

pub use category::{CATEGORIES_ALWAYS, Category};
pub(crate) use encode::ChunkSource;
pub use encode::{Place, Sink, Variable};
pub use extra::{EXTRAS_MAX, Extra, Value, kind as value_kind};
pub(crate) use extra::{
    Fields, LEAD_MAX, extras_bytes, extras_cut, whole_extras_bytes, write_extras,
};
pub(crate) use field::cut_text;
pub use field::{DurationMs, Field, Json, LongText, Maybe, ShortText, Text};
pub use header::{
    FLAG_CONTEXT, FLAG_CUT, FLAG_EXTRA, FLAG_LARGE, FLAG_RULE, FLAG_SPILLED, FLAGS_KNOWN,
    HEADER_BYTES, INLINE_BYTES_MAX, LARGE_RECORD_BYTES, LargeReference, RECORD_ALIGN, RecordHeader,
    SCHEMA_PADDING, align_record,
};
pub(crate) use intern::StaticSlot;
pub(crate) use open::{Described, Open};
pub(crate) use packed::PackedIds;
pub use schema::{
    CATEGORIES_BUILTIN, CATEGORIES_MAX, CATEGORY_BYTES_MAX, CATEGORY_CUSTOM, CATEGORY_SESSION,
    FieldDef, FieldKind, FieldType, KeepClass, SCHEMAS_MAX, SchemaDef, SchemaIds, category_id,
    category_name, is_category_name, schema, schemas_end,
};
pub(crate) use symbol::symbol_text;
pub use symbol::{Name, OPERATION_TEXT, SYMBOL_BYTES_MAX, SYMBOLS_MAX, StaticSymbol, Symbol};

use bytemuck::Pod;

/// The cap that leaves only the bounds of the field types.
pub const UNCAPPED: usize = usize::MAX;
/// The cap that cuts nothing at all: the caller has asked [`is_cut`](Record::is_cut) before, so the
/// bounds of the field types need no second look.
pub const WHOLE: usize = UNCAPPED - 1;

/// One event that can be pushed. Implemented by [`record!`](crate::record!).
///
/// `cap` is the longest text in bytes: [`UNCAPPED`] unless the whole record would be longer than
/// `record_bytes_max`; or it is [`WHOLE`]. The bytes that [`write_variable`](Self::write_variable)
/// appends must be as many as [`variable_bytes`](Self::variable_bytes) says for the same cap; an
/// implementation that gets this wrong spoils its own record only. A push may ask the same
/// question twice.
///
/// A record is `Copy`, numbers and borrowed texts: a push works on a copy of its own, which lives
/// in registers.
pub trait Record: Copy {
    /// The fixed part as it lies in the record.
    type Fixed: Pod;
    /// Whether [`key_bytes`](Self::key_bytes) can be other than empty.
    const KEYED: bool = true;
    /// Whether [`observed`](Self::observed) can be other than `None`: records of the type are
    /// counted in the duration aggregates.
    const OBSERVED: bool = false;

    /// The schema of the record.
    fn schema(&self) -> &'static SchemaDef;
    /// Keep class of the schema.
    fn keep(&self) -> KeepClass;
    /// The fixed part.
    fn fixed(&self, cap: usize) -> Self::Fixed;
    /// Length of the variable area in bytes.
    fn variable_bytes(&self, cap: usize) -> usize;
    /// Appends the texts in the order of the fields.
    fn write_variable(&self, cap: usize, out: &mut impl Sink);
    /// Whether a text is longer than its bound or `cap`.
    fn is_cut(&self, cap: usize) -> bool;
    /// Whether `check` holds for every symbol that the record uses.
    fn all_symbols(&self, check: impl FnMut(Symbol) -> bool) -> bool;
    /// The same record with its symbols as texts; `None` where that cannot be said.
    fn without_symbols(&self) -> Option<Self> {
        None
    }
    /// The correlation key; empty when there is none.
    fn key_bytes(&self) -> &[u8];
    /// The duration that aggregates count, whatever becomes of the record; `None` when it has
    /// none.
    #[inline(always)]
    fn observed(&self) -> Option<Observed> {
        None
    }
    /// Shows every field as an extra field, in order.
    fn visit<'s>(&'s self, visit: &mut dyn FnMut(Extra<'s>));
}

/// A duration, and the operation that took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Id of a symbol, 0 = none, [`OPERATION_TEXT`] = a text that is no symbol.
    pub operation: u32,
    /// The duration in nanoseconds.
    pub ns: u64,
}

/// A record type whose schema is known without a record: every type of
/// [`record!`](crate::record!).
pub trait Declared {
    /// The schema of all records of the type.
    fn declared() -> &'static SchemaDef;
}

/// Field values that can be a correlation key.
pub trait KeyText {
    /// The bytes of the key; empty for none.
    fn key_text(&self) -> &[u8];
}

impl KeyText for &str {
    #[inline(always)]
    fn key_text(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl KeyText for Option<&str> {
    #[inline(always)]
    fn key_text(&self) -> &[u8] {
        self.unwrap_or("").as_bytes()
    }
}

/// A field's name without the `r#` of a raw identifier.
#[doc(hidden)]
pub const fn field_name(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Where the field `name` stands in `fields`.
#[doc(hidden)]
pub const fn field_index(fields: &[FieldDef], name: &str) -> u16 {
    let mut index = 0;
    while index < fields.len() {
        if schema::same_text(fields[index].name, name) {
            return index as u16;
        }
        index += 1;
    }
    panic!("the key is not a field of the record")
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::record! {
        /// The standard record of the benches.
        struct Standard in "record_test" keep Sampled key id {
            operation: Symbol,
            id: ShortText<12>,
            port: u16,
            value: f64,
            ok: bool,
        }
    }

    crate::record! {
        struct Keywords in "record_test" keep Always { r#type: u8 }
    }

    #[test]
    fn standard_record_takes_44_bytes() {
        let record = Standard {
            operation: crate::symbol!("record-test-operation"),
            id: "0123456789ab",
            ..Default::default()
        };
        let bytes =
            HEADER_BYTES + size_of_val(&record.fixed(UNCAPPED)) + record.variable_bytes(UNCAPPED);
        assert_eq!(align_record(bytes), 44);
        assert_eq!(record.key_bytes(), b"0123456789ab");
    }

    #[test]
    fn schema_lists_slots_in_order() {
        let schema = Standard::default().schema();
        let offsets: Vec<_> = schema.fields.iter().map(|f| (f.name, f.offset)).collect();
        assert_eq!(
            offsets,
            [
                ("operation", 0),
                ("id", 4),
                ("port", 5),
                ("value", 7),
                ("ok", 15)
            ]
        );
        assert_eq!((schema.fixed_bytes, schema.key), (16, Some(1)));
        assert_eq!(Keywords { r#type: 1 }.schema().fields[0].name, "type");
    }
}
