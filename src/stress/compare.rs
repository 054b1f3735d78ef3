//! One comparison of a plan, in three words: few instructions for each push.

use super::rule::{Pattern, Test};
use super::state::Reading;
use crate::record::{FieldDef, FieldKind};

/// Which values of a slot fire, and how the value is read.
///
/// | bits of `word` | |
/// |---|---|
/// | 0..16 | where the value begins |
/// | 16..32 | the rule |
/// | 32..38 | bits that the value is shorter than a word |
/// | 40 | a duration above a limit |
/// | 44 | the order of the values is not that of the bits: some have a sign |
/// | 45 | they are floats |
/// | 48..64 | 1 + the place of the byte that says that there is a value; 0 = there always is |
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Compare {
    pub(super) word: u64,
    /// The least value that fires: an integer, or the place of a float in the order of floats.
    pub(super) first: u64,
    /// The greatest that fires, less `first`.
    pub(super) span: u64,
}

const RULE_AT: u32 = 16;
const SHORTER_AT: u32 = 32;
const LONG: u64 = 1 << 40;
/// Without any bit from here on a value is compared as it lies there.
const SPECIAL_AT: u32 = 44;
const SIGNED: u64 = 1 << 44;
const FLOAT: u64 = 1 << 45;
const PRESENT_AT: u32 = 48;

/// Greater numbers are rounded before they are compared.
const EXACT_MAX: f64 = (1_u64 << 53) as f64;

/// The values that fire, both included.
type Range = (i128, i128);

/// The place of a float in the order of all, by its bits; that of -0 is before that of 0.
#[inline(always)]
fn place(bits: u64) -> u64 {
    let bits = bits as i64;
    (bits ^ ((bits >> 63) as u64 >> 1) as i64) as u64
}

fn place_of(float: f64) -> i128 {
    i128::from(place(float.to_bits()) as i64)
}

fn place_of_f32(float: f32) -> i128 {
    // Its bits at the upper end, as they are read.
    i128::from(place(u64::from(float.to_bits()) << 32) as i64 >> 32)
}

/// The integers of a kind.
fn integers(kind: FieldKind) -> Range {
    let bits = 8 * kind.slot_bytes(false) as u32;
    if is_signed(kind) {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

fn is_signed(kind: FieldKind) -> bool {
    use FieldKind::{I8, I16, I32, I64};
    matches!(kind, I8 | I16 | I32 | I64)
}

/// The values of a numeric kind above or below a limit.
fn numbers(kind: FieldKind, limit: f64, below: bool) -> Option<Range> {
    // Both zeros are on the same side of a limit.
    let zero = if below { -0.0 } else { 0.0 };
    let range = match kind {
        FieldKind::F64 => {
            let limit = place_of(if limit == 0.0 { zero } else { limit });
            if below {
                (place_of(f64::NEG_INFINITY), limit - 1)
            } else {
                (limit + 1, place_of(f64::INFINITY))
            }
        }
        FieldKind::F32 => {
            let near = limit as f32;
            let (is_above, is_below) = (f64::from(near) > limit, f64::from(near) < limit);
            let fires = if below { is_below } else { is_above };
            // The zero that fires last, or the one that does not before any that does.
            let zero = if fires { -zero } else { zero };
            let near = place_of_f32(if near == 0.0 { zero as f32 } else { near });
            let step = i128::from(!fires);
            if below {
                (place_of_f32(f32::NEG_INFINITY), near - step)
            } else {
                (near + step, place_of_f32(f32::INFINITY))
            }
        }
        kind if kind.is_integer() && limit.abs() <= EXACT_MAX => {
            let (least, greatest) = integers(kind);
            if below {
                (least, greatest.min(limit.ceil() as i128 - 1))
            } else {
                (least.max(limit.floor() as i128 + 1), greatest)
            }
        }
        _ => return None,
    };
    (!limit.is_nan()).then_some(range)
}

impl Compare {
    /// A field of a schema that is to be above or below a limit.
    pub(super) fn of_limit(
        rule: u16,
        field: &FieldDef,
        limit: Reading,
        below: bool,
    ) -> Option<Self> {
        let kind = field.field_type.kind;
        // The greatest duration is null.
        let durations = (0, i128::from(u64::MAX) - 1);
        let range = match limit {
            Reading::Time(ns) if kind.is_duration() => Some(if below {
                (durations.0, i128::from(ns) - 1)
            } else {
                (i128::from(ns) + 1, durations.1)
            }),
            Reading::Number(number) => numbers(kind, number, below),
            _ => None,
        };
        let long = if kind.is_duration() && !below {
            LONG
        } else {
            0
        };
        // A range without values becomes one of a value that the slot does not have, or hardly: the
        // field can end an episode that another one began.
        let range = range.map(|(first, last)| {
            if below {
                (first.min(last), last)
            } else {
                (first, last.max(first))
            }
        });
        range.map(|range| Self::new(rule, field, range, long))
    }

    /// A bool that is to be one of both.
    pub(super) fn of_test(rule: u16, field: &FieldDef, test: &Test) -> Option<Self> {
        let is_bool = field.field_type.kind == FieldKind::Bool;
        let range = match test.patterns.as_slice() {
            [Pattern::Is(flag)] if is_bool && flag == "true" => Some((1, 1)),
            [Pattern::Is(flag)] if is_bool && flag == "false" => Some((0, 0)),
            _ => None,
        };
        range.map(|range| Self::new(rule, field, range, 0))
    }

    fn new(rule: u16, field: &FieldDef, (first, last): Range, flags: u64) -> Self {
        let kind = field.field_type.kind;
        let has_flag = field.field_type.optional && kind.is_integer();
        let start = field.offset + u16::from(has_flag);
        let shorter = 64 - 8 * kind.slot_bytes(false) as u64;
        let present = if has_flag { field.offset + 1 } else { 0 };
        let is_float = matches!(kind, FieldKind::F32 | FieldKind::F64);
        // Values without a sign are in the order of their bits, and before those with one.
        let plain = 0..1_i128 << (63 - shorter);
        let has_sign =
            (is_float || is_signed(kind)) && !(plain.contains(&first) && plain.contains(&last));
        let word = u64::from(start)
            | u64::from(rule) << RULE_AT
            | shorter << SHORTER_AT
            | if has_sign { SIGNED } else { 0 }
            | if has_sign && is_float { FLOAT } else { 0 }
            | flags
            | u64::from(present) << PRESENT_AT;
        Self {
            word,
            first: first as u64,
            span: (last - first) as u64,
        }
    }

    #[inline(always)]
    pub(super) fn rule(self) -> u16 {
        (self.word >> RULE_AT) as u16
    }

    /// Where the value begins.
    #[inline(always)]
    pub(super) fn start(self) -> u16 {
        self.word as u16
    }

    /// Whether a duration that is above the limit fires, and nothing else does.
    pub(super) fn is_long_duration(self) -> bool {
        self.word & LONG != 0
    }

    /// Whether the value of a slot is one that fires.
    #[inline(always)]
    pub(super) fn has(self, value: u64) -> bool {
        value.wrapping_sub(self.first) <= self.span
    }

    /// Whether its value is compared as it lies there.
    pub(super) fn is_plain(self) -> bool {
        self.word >> SPECIAL_AT == 0
    }

    #[inline(always)]
    fn shorter(self) -> u64 {
        self.word >> SHORTER_AT & 63
    }

    /// Calls `holds` with the value as it lies in this fixed part; false where there is none.
    #[inline(always)]
    fn value_holds(self, fixed: &[u8], holds: impl Fn(u64) -> bool) -> bool {
        let start = usize::from(self.start());
        // As long as it was written: longer reads wait for the writes.
        match self.shorter() {
            0 => read(fixed, start).is_some_and(|slot| holds(u64::from_le_bytes(slot))),
            32 => read(fixed, start).is_some_and(|slot| holds(u32::from_le_bytes(slot).into())),
            48 => read(fixed, start).is_some_and(|slot| holds(u16::from_le_bytes(slot).into())),
            _ => read(fixed, start).is_some_and(|slot| holds(u8::from_le_bytes(slot).into())),
        }
    }

    /// Whether a plain one holds for a record with this fixed part.
    #[inline(always)]
    pub(super) fn plain_holds(self, fixed: &[u8]) -> bool {
        self.value_holds(fixed, |value| self.has(value))
    }

    /// Whether any holds.
    pub(super) fn holds(self, fixed: &[u8]) -> bool {
        let present = (self.word >> PRESENT_AT) as usize;
        if present != 0 && fixed.get(present - 1).is_none_or(|flag| *flag == 0) {
            return false;
        }
        self.value_holds(fixed, |value| {
            if self.word & SIGNED == 0 {
                return self.has(value);
            }
            // A float is put in order where its sign is that of the word.
            let shorter = self.shorter();
            let upper = value << shorter;
            let upper = if self.word & FLOAT != 0 {
                place(upper)
            } else {
                upper
            };
            self.has((upper as i64 >> shorter) as u64)
        })
    }
}

#[inline(always)]
fn read<const N: usize>(fixed: &[u8], start: usize) -> Option<[u8; N]> {
    fixed.get(start..start + N)?.try_into().ok()
}
