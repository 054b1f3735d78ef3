//! Numbers as decimal digits: eight at a time in one word, without a table.

use super::buffer::Pen;

/// Numbers below this have at most eight digits.
const EIGHT_END: u64 = 100_000_000;
/// The digit 0, eight times.
const ZEROS: u64 = 0x3030_3030_3030_3030;
/// Floats with up to six decimals are written as so many millionths.
const MILLION: u64 = 1_000_000;
/// Below this such a float has at most 15 digits, of which a double keeps each.
const MILLIONTHS_END: f64 = 1e15;
/// Floats below a thousandth may get an exponent.
const THOUSANDTH: u64 = MILLION / 1000;

/// The digits of `value` (below 1e8) as numbers, the first in the lowest byte.
#[inline]
fn eight(value: u32) -> u64 {
    let (high, low) = (u64::from(value / 10_000), u64::from(value % 10_000));
    // Two numbers below 1e4, four below 100, eight below 10; each divides by a multiplication that
    // is exact in its range.
    let fours = high | low << 32;
    let hundreds = (fours * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - hundreds * 100) << 16;
    let tens = (twos * 103) >> 10 & 0x000f_000f_000f_000f;
    tens | (twos - tens * 10) << 8
}

/// `value` (below 1e9) with leading zeros.
#[inline]
pub fn nine_digits(value: u32) -> [u8; 9] {
    let mut digits = [b'0' + (value / 100_000_000) as u8; 9];
    let rest = eight(value % 100_000_000) | ZEROS;
    digits[1..].copy_from_slice(&rest.to_le_bytes());
    digits
}

impl Pen<'_> {
    /// Writes an integer.
    #[inline]
    pub fn unsigned(&mut self, value: u64) {
        if value < EIGHT_END {
            self.short(value as u32);
        } else {
            self.long(value);
        }
    }

    /// Writes an integer with its sign.
    #[inline]
    pub fn signed(&mut self, value: i64) {
        if value < 0 {
            self.put_array(b"-");
        }
        self.unsigned(value.unsigned_abs());
    }

    /// Writes an integer below 1e8.
    #[inline]
    fn short(&mut self, value: u32) {
        let digits = eight(value);
        // The last digit stays, whatever it is.
        let skip = (digits | 1 << 56).trailing_zeros() & !7;
        let text = ((digits | ZEROS) >> skip).to_le_bytes();
        self.put_prefix(&text, 8 - (skip / 8) as usize);
    }

    #[inline(never)]
    fn long(&mut self, value: u64) {
        let (high, low) = (value / EIGHT_END, value % EIGHT_END);
        if high < EIGHT_END {
            self.short(high as u32);
        } else {
            self.short((high / EIGHT_END) as u32);
            self.full((high % EIGHT_END) as u32);
        }
        self.full(low as u32);
    }

    /// Writes an integer below 1e8 with leading zeros.
    fn full(&mut self, value: u32) {
        self.put_array(&(eight(value) | ZEROS).to_le_bytes());
    }

    /// Writes a float in its shortest form; NaN and infinities as null.
    #[inline]
    pub fn float(&mut self, value: f64) {
        // What is measured or set mostly has few decimals. A number of at most 15 digits that
        // reads back equal is the only such one, so it is the shortest form too.
        let scaled = value.abs() * MILLION as f64;
        if scaled < MILLIONTHS_END {
            let count = (scaled + 0.5) as u64;
            #[expect(clippy::float_cmp, reason = "only what reads back equal will do")]
            let equal = count as f64 / MILLION as f64 == value.abs();
            if equal && (count >= THOUSANDTH || count == 0) {
                return self.millionths(value.is_sign_negative(), count);
            }
        }
        self.any_float(value);
    }

    #[inline]
    fn millionths(&mut self, negative: bool, count: u64) {
        if negative {
            self.put_array(b"-");
        }
        self.unsigned(count / MILLION);
        // Six digits behind two zeros.
        let digits = eight((count % MILLION) as u32) >> 16;
        let kept = (71 - (digits | 1).leading_zeros()) / 8;
        let text = ((digits | ZEROS) << 8 | u64::from(b'.')).to_le_bytes();
        self.put_prefix(&text, 1 + kept as usize);
    }

    #[inline(never)]
    fn any_float(&mut self, value: f64) {
        if value.is_finite() {
            self.put(zmij::Buffer::new().format_finite(value).as_bytes());
        } else {
            self.put_array(b"null");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::buffer::LineBuffer;
    use super::*;

    fn written(write: impl FnOnce(&mut Pen<'_>)) -> String {
        let mut out = LineBuffer::new();
        let mut pen = out.pen();
        write(&mut pen);
        pen.finish();
        String::from_utf8(out.content().to_vec()).unwrap()
    }

    #[track_caller]
    fn check(value: u64) {
        assert_eq!(written(|pen| pen.unsigned(value)), value.to_string());
        let value = value as i64;
        assert_eq!(written(|pen| pen.signed(value)), value.to_string());
    }

    #[track_caller]
    fn check_float(value: f64) {
        if value.is_infinite() {
            return;
        }
        let expected = zmij::Buffer::new().format(value).to_owned();
        assert_eq!(written(|pen| pen.float(value)), expected, "{value:e}");
    }

    #[test]
    fn every_short_number_has_its_digits() {
        let step = if cfg!(debug_assertions) { 997 } else { 1 };
        for value in (0..EIGHT_END as u32).step_by(step) {
            let digits: u64 = eight(value).to_le_bytes().iter().fold(0, |sum, digit| {
                assert!(*digit < 10);
                sum * 10 + u64::from(*digit)
            });
            assert_eq!(digits, u64::from(value));
        }
    }

    #[test]
    fn numbers_around_each_power_of_ten() {
        let mut power = 1_u64;
        for _ in 0..20 {
            for value in [power - 1, power, power + 1, u64::MAX - power, power / 2 * 3] {
                check(value);
            }
            power = power.saturating_mul(10);
        }
        for value in [0, 1, 9, 10, 99_999, 100_000, 123_456_789, 999_999_999] {
            assert_eq!(nine_digits(value), format!("{value:09}").as_bytes());
        }
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        for value in [
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            0.29,
            0.000_001,
            0.000_000_1,
            0.000_9,
            0.000_999,
            0.001,
            0.123_456,
            0.123_456_7,
            999_999_999.999_999,
            1e9,
            1_000_000_000.5,
            123_456_789.123_456,
            8_589_934_592.000_001,
            1e15,
            1e16,
            5e-324,
            f64::MAX,
            f64::EPSILON,
            0.1 + 0.2,
        ] {
            check_float(value);
            check_float(-value);
            check_float(value.next_up());
            check_float(value.next_down());
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(written(|pen| pen.float(value)), "null");
        }
    }

    proptest! {
        #[test]
        fn numbers_match_the_slow_way(value: u64, shift in 0..64) {
            check(value >> shift);
        }

        #[test]
        fn floats_match_the_slow_way(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            check_float(value);
        }

        #[test]
        fn decimals_match_the_slow_way(count: i64, shift in 0..63, decimals in 0..9) {
            let value = (count >> shift) as f64 / 10_f64.powi(decimals);
            check_float(value);
            check_float(value.next_up());
            check_float(value.next_down());
        }
    }
}
