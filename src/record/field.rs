//! Field types of [`record!`](crate::record!): what the caller passes, what lies in the slot of
//! the fixed part, what is appended to the variable area. FORMAT.md section 6.2 is normative.
#![expect(unsafe_code, reason = "`Maybe` is Pod by its packed layout")]

use std::fmt::Debug;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};

use super::WHOLE;
use super::extra::Value;
use super::schema::{FieldKind, FieldType};
use super::symbol::{INLINE_BIT, Name, OPERATION_TEXT, Symbol};

/// A type that a field of [`record!`](crate::record!) can have.
pub trait Field {
    /// What the caller passes.
    type Arg<'a>: Copy + Default + Debug;
    /// What lies in the fixed part.
    type Slot: Pod;
    /// The type as the registry names it.
    const TYPE: FieldType;

    /// The slot for `arg`, its text cut to `cap` bytes.
    fn slot(arg: Self::Arg<'_>, cap: usize) -> Self::Slot;

    /// What goes to the variable area: the text, cut to `cap` bytes.
    #[inline(always)]
    fn variable(_arg: Self::Arg<'_>, _cap: usize) -> &[u8] {
        &[]
    }

    /// Whether a cap of `cap` bytes, or the bound of the type, cuts the text.
    #[inline(always)]
    fn is_cut(_arg: Self::Arg<'_>, _cap: usize) -> bool {
        false
    }

    /// The symbol in `arg`, if it is one.
    #[inline(always)]
    fn symbol(_arg: Self::Arg<'_>) -> Option<Symbol> {
        None
    }

    /// The operation that `arg` names: the id of a symbol, [`OPERATION_TEXT`] for a text, 0 for
    /// none.
    #[inline(always)]
    fn operation(_arg: Self::Arg<'_>) -> u32 {
        0
    }

    /// The duration in `arg` in nanoseconds; `u64::MAX` when there is none.
    #[inline(always)]
    fn duration_ns(_arg: Self::Arg<'_>) -> u64 {
        u64::MAX
    }

    /// `arg` with a symbol replaced by its text.
    fn without_symbol(arg: Self::Arg<'_>) -> Self::Arg<'_> {
        arg
    }

    /// `arg` as the value of an extra field.
    fn value(arg: Self::Arg<'_>) -> Value<'_>;
}

/// `text` cut to `bytes_max` bytes, at a character boundary; as it is, if that is [`WHOLE`].
#[inline(always)]
pub(crate) fn cut_text(text: &str, bytes_max: usize) -> &str {
    if bytes_max == WHOLE || text.len() <= bytes_max {
        text
    } else {
        cut_long(text, bytes_max)
    }
}

/// How long a text may be under this cap, if its type bounds it to `bound` bytes.
#[inline(always)]
fn bounded(cap: usize, bound: usize) -> usize {
    if cap == WHOLE { WHOLE } else { cap.min(bound) }
}

#[cold]
#[inline(never)]
fn cut_long(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    &text[..end]
}

const fn field_type(kind: FieldKind, optional: bool) -> FieldType {
    FieldType {
        kind,
        optional,
        decimals: 0,
        bytes_max: 0,
    }
}

/// Slot of an optional integer: a presence byte, then the value.
#[repr(C, packed)]
#[derive(Clone, Copy)]
pub struct Maybe<T> {
    present: u8,
    value: T,
}

// SAFETY: all bytes zero are `present = 0` and a zeroed `T`, which is `Zeroable`.
unsafe impl<T: Zeroable> Zeroable for Maybe<T> {}
// SAFETY: packed, so there is no padding; both members are Pod, so any bytes are a value.
unsafe impl<T: Pod> Pod for Maybe<T> {}

macro_rules! integer_field {
    ($($type:ident $kind:ident),* $(,)?) => {$(
        impl Field for $type {
            type Arg<'a> = $type;
            type Slot = $type;
            const TYPE: FieldType = field_type(FieldKind::$kind, false);
            #[inline(always)]
            fn slot(arg: Self::Arg<'_>, _cap: usize) -> $type {
                arg
            }
            fn value(arg: Self::Arg<'_>) -> Value<'_> {
                arg.into()
            }
        }

        impl Field for Option<$type> {
            type Arg<'a> = Option<$type>;
            type Slot = Maybe<$type>;
            const TYPE: FieldType = field_type(FieldKind::$kind, true);
            #[inline(always)]
            fn slot(arg: Self::Arg<'_>, _cap: usize) -> Maybe<$type> {
                Maybe { present: u8::from(arg.is_some()), value: arg.unwrap_or(0) }
            }
            fn value(arg: Self::Arg<'_>) -> Value<'_> {
                arg.into()
            }
        }
    )*};
}

integer_field!(u8 U8, u16 U16, u32 U32, u64 U64, i8 I8, i16 I16, i32 I32, i64 I64);

macro_rules! float_field {
    ($($type:ident $kind:ident),* $(,)?) => {$(
        impl Field for $type {
            type Arg<'a> = $type;
            type Slot = $type;
            const TYPE: FieldType = field_type(FieldKind::$kind, false);
            #[inline(always)]
            fn slot(arg: Self::Arg<'_>, _cap: usize) -> $type {
                arg
            }
            fn value(arg: Self::Arg<'_>) -> Value<'_> {
                arg.into()
            }
        }

        /// NaN stands for null, which is what JSON has for it anyway.
        impl Field for Option<$type> {
            type Arg<'a> = Option<$type>;
            type Slot = $type;
            const TYPE: FieldType = field_type(FieldKind::$kind, true);
            #[inline(always)]
            fn slot(arg: Self::Arg<'_>, _cap: usize) -> $type {
                arg.unwrap_or($type::NAN)
            }
            fn value(arg: Self::Arg<'_>) -> Value<'_> {
                arg.into()
            }
        }
    )*};
}

float_field!(f32 F32, f64 F64);

impl Field for bool {
    type Arg<'a> = bool;
    type Slot = u8;
    const TYPE: FieldType = field_type(FieldKind::Bool, false);
    #[inline(always)]
    fn slot(arg: Self::Arg<'_>, _cap: usize) -> u8 {
        u8::from(arg)
    }
    fn value(arg: Self::Arg<'_>) -> Value<'_> {
        arg.into()
    }
}

impl Field for Option<bool> {
    type Arg<'a> = Option<bool>;
    type Slot = u8;
    const TYPE: FieldType = field_type(FieldKind::Bool, true);
    #[inline(always)]
    fn slot(arg: Self::Arg<'_>, _cap: usize) -> u8 {
        arg.map_or(2, u8::from)
    }
    fn value(arg: Self::Arg<'_>) -> Value<'_> {
        arg.into()
    }
}

impl Field for Symbol {
    type Arg<'a> = Name<'a>;
    type Slot = u32;
    const TYPE: FieldType = field_type(FieldKind::Symbol, false);
    #[inline(always)]
    fn slot(arg: Self::Arg<'_>, cap: usize) -> u32 {
        match arg {
            Name::Symbol(symbol) => symbol.id(),
            Name::Text(text) => {
                INLINE_BIT | cut_text(text, bounded(cap, NAME_BYTES_MAX)).len() as u32
            }
        }
    }
    #[inline(always)]
    fn variable(arg: Self::Arg<'_>, cap: usize) -> &[u8] {
        match arg {
            Name::Symbol(_) => &[],
            Name::Text(text) => cut_text(text, bounded(cap, NAME_BYTES_MAX)).as_bytes(),
        }
    }
    #[inline(always)]
    fn is_cut(arg: Self::Arg<'_>, cap: usize) -> bool {
        matches!(arg, Name::Text(text) if text.len() > cap.min(NAME_BYTES_MAX))
    }
    #[inline(always)]
    fn symbol(arg: Self::Arg<'_>) -> Option<Symbol> {
        match arg {
            Name::Symbol(symbol) => Some(symbol),
            Name::Text(_) => None,
        }
    }
    #[inline(always)]
    fn operation(arg: Self::Arg<'_>) -> u32 {
        match arg {
            Name::Symbol(symbol) => symbol.id(),
            Name::Text(_) => OPERATION_TEXT,
        }
    }
    fn without_symbol(arg: Self::Arg<'_>) -> Self::Arg<'_> {
        Name::Text(arg.text())
    }
    fn value(arg: Self::Arg<'_>) -> Value<'_> {
        Value::Text(arg.text())
    }
}

/// The longest inline text of a symbol field, in bytes.
const NAME_BYTES_MAX: usize = 1 << 20;

impl Field for Option<Symbol> {
    type Arg<'a> = Option<Name<'a>>;
    type Slot = u32;
    const TYPE: FieldType = field_type(FieldKind::Symbol, true);
    #[inline(always)]
    fn slot(arg: Self::Arg<'_>, cap: usize) -> u32 {
        arg.map_or(0, |name| Symbol::slot(name, cap))
    }
    #[inline(always)]
    fn variable(arg: Self::Arg<'_>, cap: usize) -> &[u8] {
        arg.map_or(&[], |name| Symbol::variable(name, cap))
    }
    #[inline(always)]
    fn is_cut(arg: Self::Arg<'_>, cap: usize) -> bool {
        arg.is_some_and(|name| Symbol::is_cut(name, cap))
    }
    #[inline(always)]
    fn symbol(arg: Self::Arg<'_>) -> Option<Symbol> {
        arg.and_then(Symbol::symbol)
    }
    #[inline(always)]
    fn operation(arg: Self::Arg<'_>) -> u32 {
        arg.map_or(0, Symbol::operation)
    }
    fn without_symbol(arg: Self::Arg<'_>) -> Self::Arg<'_> {
        arg.map(Symbol::without_symbol)
    }
    fn value(arg: Self::Arg<'_>) -> Value<'_> {
        arg.map_or(Value::Null, Symbol::value)
    }
}

/// A text of at most `N` (1..=254) bytes with a 1-byte length. Longer ones are cut and flagged.
#[derive(Clone, Copy, Debug)]
pub enum ShortText<const N: usize = 254> {}

/// A text of at most `N` (1..=65,534) bytes with a 2-byte length. Longer ones are cut and flagged.
#[derive(Clone, Copy, Debug)]
pub enum Text<const N: usize = 65_534> {}

/// A text of at most `N` bytes with a 4-byte length, for tracebacks; `record_bytes_max` bounds it.
#[derive(Clone, Copy, Debug)]
pub enum LongText<const N: usize = { 1 << 24 }> {}

/// JSON text of any value, nested or not. The conversion writes it as a string when it is not
/// JSON; when it is too long it becomes null and the record is flagged as cut.
#[derive(Clone, Copy, Debug)]
pub enum Json {}

macro_rules! text_field {
    ($($type:ident $slot:ident $kind:ident $max:expr),* $(,)?) => {$(
        impl<const N: usize> $type<N> {
            /// The bound, checked at compile time.
            const BOUND: usize = {
                assert!(N >= 1 && N <= $max, "the bound does not fit the length of this text type");
                N
            };
        }

        impl<const N: usize> Field for $type<N> {
            type Arg<'a> = &'a str;
            type Slot = $slot;
            const TYPE: FieldType = FieldType {
                bytes_max: Self::BOUND as u32,
                ..field_type(FieldKind::$kind, false)
            };
            #[inline(always)]
            fn slot(arg: Self::Arg<'_>, cap: usize) -> $slot {
                cut_text(arg, bounded(cap, Self::BOUND)).len() as $slot
            }
            #[inline(always)]
            fn variable(arg: Self::Arg<'_>, cap: usize) -> &[u8] {
                cut_text(arg, bounded(cap, Self::BOUND)).as_bytes()
            }
            #[inline(always)]
            fn is_cut(arg: Self::Arg<'_>, cap: usize) -> bool {
                arg.len() > cap.min(Self::BOUND)
            }
            fn value(arg: Self::Arg<'_>) -> Value<'_> {
                Value::Text(arg)
            }
        }

        impl<const N: usize> Field for Option<$type<N>> {
            type Arg<'a> = Option<&'a str>;
            type Slot = $slot;
            const TYPE: FieldType = FieldType { optional: true, ..$type::<N>::TYPE };
            #[inline(always)]
            fn slot(arg: Self::Arg<'_>, cap: usize) -> $slot {
                arg.map_or($slot::MAX, |text| $type::<N>::slot(text, cap))
            }
            #[inline(always)]
            fn variable(arg: Self::Arg<'_>, cap: usize) -> &[u8] {
                arg.map_or(&[], |text| $type::<N>::variable(text, cap))
            }
            #[inline(always)]
            fn is_cut(arg: Self::Arg<'_>, cap: usize) -> bool {
                arg.is_some_and(|text| $type::<N>::is_cut(text, cap))
            }
            fn value(arg: Self::Arg<'_>) -> Value<'_> {
                arg.into()
            }
        }
    )*};
}

text_field! {
    ShortText u8 ShortText 254,
    Text u16 Text 65_534,
    LongText u32 LongText (1 << 24),
}

/// The longest JSON text of a field, in bytes.
const JSON_BYTES_MAX: usize = 1 << 24;

impl Field for Option<Json> {
    type Arg<'a> = Option<&'a str>;
    type Slot = u32;
    const TYPE: FieldType = FieldType {
        bytes_max: JSON_BYTES_MAX as u32,
        ..field_type(FieldKind::Json, true)
    };
    #[inline(always)]
    fn slot(arg: Self::Arg<'_>, cap: usize) -> u32 {
        match arg {
            Some(json) if json.len() <= bounded(cap, JSON_BYTES_MAX) => json.len() as u32,
            _ => u32::MAX,
        }
    }
    #[inline(always)]
    fn variable(arg: Self::Arg<'_>, cap: usize) -> &[u8] {
        match arg {
            Some(json) if json.len() <= bounded(cap, JSON_BYTES_MAX) => json.as_bytes(),
            _ => &[],
        }
    }
    #[inline(always)]
    fn is_cut(arg: Self::Arg<'_>, cap: usize) -> bool {
        arg.is_some_and(|json| json.len() > cap.min(JSON_BYTES_MAX))
    }
    fn value(arg: Self::Arg<'_>) -> Value<'_> {
        arg.map_or(Value::Null, Value::Json)
    }
}

/// A duration, kept in nanoseconds and written in milliseconds with `DECIMALS` (0..=6) digits,
/// half to even; 0 cuts to whole milliseconds as Go's `Milliseconds()` does.
#[derive(Clone, Copy, Debug)]
pub enum DurationMs<const DECIMALS: u8 = 2> {}

impl<const DECIMALS: u8> Field for DurationMs<DECIMALS> {
    type Arg<'a> = Duration;
    type Slot = u64;
    const TYPE: FieldType = {
        assert!(DECIMALS <= 6, "a duration has 0 to 6 decimals");
        FieldType {
            decimals: DECIMALS,
            ..field_type(FieldKind::DurationMs, false)
        }
    };
    #[inline(always)]
    fn slot(arg: Self::Arg<'_>, _cap: usize) -> u64 {
        duration_ns(arg)
    }
    #[inline(always)]
    fn duration_ns(arg: Self::Arg<'_>) -> u64 {
        duration_ns(arg)
    }
    fn value(arg: Self::Arg<'_>) -> Value<'_> {
        Value::F64(arg.as_secs_f64() * 1e3)
    }
}

impl<const DECIMALS: u8> Field for Option<DurationMs<DECIMALS>> {
    type Arg<'a> = Option<Duration>;
    type Slot = u64;
    const TYPE: FieldType = FieldType {
        optional: true,
        ..DurationMs::<DECIMALS>::TYPE
    };
    #[inline(always)]
    fn slot(arg: Self::Arg<'_>, _cap: usize) -> u64 {
        arg.map_or(u64::MAX, duration_ns)
    }
    #[inline(always)]
    fn duration_ns(arg: Self::Arg<'_>) -> u64 {
        arg.map_or(u64::MAX, duration_ns)
    }
    fn value(arg: Self::Arg<'_>) -> Value<'_> {
        arg.map_or(Value::Null, DurationMs::<DECIMALS>::value)
    }
}

/// Nanoseconds, at most `u64::MAX - 1` (584 years), because `u64::MAX` is null.
#[inline(always)]
fn duration_ns(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
        .min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::UNCAPPED;

    #[test]
    fn null_has_its_own_slot_value() {
        assert_eq!(<Option<ShortText<12>>>::slot(None, UNCAPPED), 255);
        assert_eq!(<Option<ShortText<12>>>::slot(Some(""), UNCAPPED), 0);
        assert_eq!(<Option<bool>>::slot(None, 0), 2);
        assert_eq!(<Option<Symbol>>::slot(None, 0), 0);
        assert_eq!(<Option<DurationMs>>::slot(None, 0), u64::MAX);
        assert_eq!(bytemuck::bytes_of(&<Option<u16>>::slot(None, 0)), [0, 0, 0]);
        assert_eq!(
            bytemuck::bytes_of(&<Option<u16>>::slot(Some(258), 0)),
            [1, 2, 1]
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut_text("a\u{e4}b", 2), "a");
        assert_eq!(cut_text("a\u{e4}b", 3), "a\u{e4}");
        assert_eq!(ShortText::<2>::variable("a\u{e4}b", UNCAPPED), b"a");
        assert!(ShortText::<2>::is_cut("a\u{e4}b", UNCAPPED));
        assert!(!ShortText::<4>::is_cut("a\u{e4}b", UNCAPPED));
    }

    #[test]
    fn slots_are_as_long_as_the_registry_says() {
        fn check<F: Field>() {
            assert_eq!(
                size_of::<F::Slot>(),
                F::TYPE.kind.slot_bytes(F::TYPE.optional)
            );
        }
        check::<u8>();
        check::<Option<u8>>();
        check::<i64>();
        check::<Option<i64>>();
        check::<f32>();
        check::<Option<f64>>();
        check::<bool>();
        check::<Option<bool>>();
        check::<Symbol>();
        check::<ShortText>();
        check::<Option<Text>>();
        check::<LongText>();
        check::<Option<Json>>();
        check::<Option<DurationMs>>();
    }
}
