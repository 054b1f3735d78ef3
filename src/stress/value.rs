//! Values of fields as rules see them.

/// The value of a field of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FieldValue<'a> {
    /// Null, or no such field.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An unsigned integer.
    U64(u64),
    /// A number.
    F64(f64),
    /// A text.
    Text(&'a str),
    /// The text of a JSON number.
    Number(&'a str),
    /// A duration in nanoseconds.
    Duration(u64),
}

/// Nanoseconds of one unit of a number that is a duration, by the end of the field's name; without
/// one of these ends it is seconds.
pub(super) fn unit_of(name: &str) -> Unit {
    let ends = |end: &str| name.ends_with(end);
    if ends("_ms") {
        Unit(6)
    } else if ends("_us") {
        Unit(3)
    } else if ends("_ns") {
        Unit(0)
    } else {
        Unit(9)
    }
}

/// A unit of time: so many digits before nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit(u32);

impl Unit {
    fn ns(self) -> u64 {
        10_u64.pow(self.0)
    }

    /// Digits before nanoseconds.
    pub(super) fn digits(self) -> i32 {
        self.0 as i32
    }
}

impl<'a> FieldValue<'a> {
    /// The text, if it is one.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As a number; a duration in milliseconds, as lines show it.
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::I64(value) => Some(value as f64),
            Self::U64(value) => Some(value as f64),
            Self::F64(value) => Some(value).filter(|value| !value.is_nan()),
            Self::Number(text) => text.parse().ok().filter(|value: &f64| !value.is_nan()),
            Self::Duration(ns) => Some(ns as f64 / 1e6),
            Self::Null | Self::Bool(_) | Self::Text(_) => None,
        }
    }

    /// As a whole number, if it is one.
    pub(super) fn whole(self) -> Option<i128> {
        match self {
            Self::I64(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::Number(text) => text.parse().ok().or_else(|| whole(text.parse().ok()?)),
            value => whole(value.number()?),
        }
    }

    /// As nanoseconds, of a number in `unit`.
    pub(super) fn ns(self, unit: Unit) -> Option<u64> {
        match self {
            Self::Duration(ns) => Some(ns),
            Self::U64(value) => Some(value.saturating_mul(unit.ns())),
            Self::I64(value) => Some(u64::try_from(value).ok()?.saturating_mul(unit.ns())),
            Self::F64(value) => float_ns(value, unit),
            Self::Number(text) => decimal_ns(text, unit),
            Self::Null | Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

/// The same number without a fraction, if it has none and is not too great.
fn whole(number: f64) -> Option<i128> {
    let is_whole = number.fract() == 0.0 && number.abs() < 2_f64.powi(64);
    is_whole.then_some(number as i128)
}

/// As [`decimal_ns`]; but a difference that the multiplication can have made is none.
fn float_ns(value: f64, unit: Unit) -> Option<u64> {
    let ns = value * unit.ns() as f64;
    let whole = ns.round();
    let is_more = ns - whole > ns * (2.0 * f64::EPSILON);
    // The cast ends at the bounds of the type.
    (value >= 0.0).then_some((whole as u64).saturating_add(u64::from(is_more)))
}

/// Digits of a decimal number as nanoseconds, exactly; what is less than one counts as one, so that
/// a value just over a limit stays over it.
fn decimal_ns(text: &str, unit: Unit) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        // With an exponent, or no number at all.
        return float_ns(text.parse().ok()?, unit);
    }
    let whole: u64 = whole.parse().unwrap_or(u64::MAX);
    let places = unit.0 as usize;
    let mut ns = 0;
    for place in 0..places {
        let digit = fraction.as_bytes().get(place).map_or(0, |byte| byte - b'0');
        ns = ns * 10 + u64::from(digit);
    }
    let rest = fraction.bytes().skip(places).any(|byte| byte != b'0');
    let ns = ns + u64::from(rest);
    Some(whole.saturating_mul(unit.ns()).saturating_add(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_nanoseconds_to_the_digit() {
        let ms = unit_of("duration_ms");
        for (text, ns) in [
            ("12500", 12_500_000_000),
            ("12500.0", 12_500_000_000),
            ("12500.000001", 12_500_000_001),
            ("12500.0000001", 12_500_000_001),
            ("0.5", 500_000),
            ("1.25e4", 12_500_000_000),
            ("99999999999999999999999", u64::MAX),
        ] {
            assert_eq!(decimal_ns(text, ms), Some(ns), "{text}");
        }
        for text in ["-1", "", "x", "NaN", "1.x"] {
            assert_eq!(decimal_ns(text, ms), None, "{text}");
        }
        assert_eq!(
            decimal_ns("12.500000001", unit_of("duration")),
            Some(12_500_000_001)
        );
        assert_eq!(FieldValue::U64(7).ns(unit_of("wait_us")), Some(7000));
        assert_eq!(
            FieldValue::F64(12.500_000_001).ns(unit_of("s")),
            Some(12_500_000_001)
        );
        assert_eq!(FieldValue::I64(-1).ns(ms), None);
        assert_eq!(FieldValue::F64(f64::NAN).ns(ms), None);
    }
}
