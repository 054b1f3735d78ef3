//! The start of every line: session, timestamp, elapsed seconds.
//!
//! The texts of a whole second are kept, so that most lines only need two times nine digits.

use super::buffer::LineBuffer;
use crate::segment::clock::Time;

const SECOND_NS: u64 = 1_000_000_000;
/// `{"session_id":"YYYYMMDD_HHMMSS","timestamp":"YYYY-MM-DDTHH:MM:SS.`
const HEAD_BYTES: usize = 15 + 15 + 15 + 20;
/// [`HEAD_BYTES`] rounded up to whole vector registers.
const HEAD_PLACE: usize = 80;
const MIDDLE: &[u8; 21] = b"Z\",\"elapsed_seconds\":";
/// A cached second that no time has.
const NO_SECOND: u64 = u64::MAX;

/// Digits of 0 to 99.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    pairs
};

/// Writes the start of lines of one session.
#[derive(Debug)]
pub struct LineStart {
    head: [u8; HEAD_PLACE],
    /// Second that the timestamp in `head` shows.
    head_second: u64,
    /// `{middle}{seconds}.`, which is `elapsed_len` bytes long.
    elapsed: [u8; 48],
    elapsed_len: usize,
    elapsed_second: u64,
}

impl LineStart {
    /// For lines of this session; the id is cut to its 15 characters.
    pub fn new(session_id: &str) -> Self {
        let mut head = [0; HEAD_PLACE];
        let text = format!("{{\"session_id\":\"{session_id:<15.15}\",\"timestamp\":\"");
        for (place, byte) in head.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Self {
            head,
            head_second: NO_SECOND,
            elapsed: [0; 48],
            elapsed_len: 0,
            elapsed_second: NO_SECOND,
        }
    }

    /// Appends the start of a line, up to the last digit of `elapsed_seconds`.
    #[inline]
    pub fn put(&mut self, out: &mut LineBuffer, time: Time) {
        let second = time.utc_ns / SECOND_NS;
        if second != self.head_second {
            self.set_second(second);
        }
        let elapsed_second = time.elapsed_ns / SECOND_NS;
        if elapsed_second != self.elapsed_second {
            self.set_elapsed_second(elapsed_second);
        }
        out.put_prefix(&self.head, HEAD_BYTES);
        out.put_array(&nine_digits((time.utc_ns % SECOND_NS) as u32));
        out.put_prefix(&self.elapsed, self.elapsed_len);
        out.put_array(&nine_digits((time.elapsed_ns % SECOND_NS) as u32));
    }

    #[cold]
    fn set_second(&mut self, second: u64) {
        self.head_second = second;
        let text = date_time(second);
        let start = HEAD_BYTES - 20;
        self.head[start..HEAD_BYTES - 1].copy_from_slice(&text);
        self.head[HEAD_BYTES - 1] = b'.';
    }

    #[cold]
    fn set_elapsed_second(&mut self, second: u64) {
        self.elapsed_second = second;
        let mut buffer = itoa::Buffer::new();
        let parts = [MIDDLE.as_slice(), buffer.format(second).as_bytes(), b"."];
        let bytes = parts.into_iter().flatten();
        self.elapsed_len = 0;
        for (place, byte) in self.elapsed.iter_mut().zip(bytes) {
            *place = *byte;
            self.elapsed_len += 1;
        }
    }
}

/// `value` (below 1e9) with leading zeros.
#[inline]
#[expect(clippy::many_single_char_names, reason = "one name per digit")]
fn nine_digits(value: u32) -> [u8; 9] {
    let pair = |value: u32| PAIRS[(value % 100) as usize];
    let (high, low) = (value / 10_000, value % 10_000);
    let [a, b] = pair(high / 1000);
    let [c, d] = pair(high / 10);
    let [e, f] = [b'0' + (high % 10) as u8, b'0' + (low / 1000) as u8];
    let [g, h] = pair(low / 10);
    [a, b, c, d, e, f, g, h, b'0' + (low % 10) as u8]
}

/// `YYYY-MM-DDTHH:MM:SS` of a second since 1970; the range of ns in 64 bits ends in 2554.
#[expect(clippy::many_single_char_names, reason = "one name per digit")]
fn date_time(second: u64) -> [u8; 19] {
    let (year, month, day) = date(second / 86_400);
    let of_day = second % 86_400;
    let pair = |value: u64| PAIRS[(value % 100) as usize];
    let ([a, b], [c, d]) = (pair(year / 100), pair(year));
    let ([e, f], [g, h]) = (pair(month), pair(day));
    let ([i, j], [k, l]) = (pair(of_day / 3600), pair(of_day / 60 % 60));
    let [m, n] = pair(of_day % 60);
    [
        a, b, c, d, b'-', e, f, b'-', g, h, b'T', i, j, b':', k, l, b':', m, n,
    ]
}

/// Year, month and day of a day since 1970. Counts in eras of 400 years from 1 March of year 0,
/// so that the leap day is the last of its year.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ` of a moment in ns since 1970.
pub fn rfc3339(utc_ns: u64) -> String {
    let second = date_time(utc_ns / SECOND_NS);
    let text = String::from_utf8_lossy(&second);
    format!("{text}.{:09}Z", utc_ns % SECOND_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_keep_their_zeros() {
        for value in [0, 1, 9, 10, 99_999, 100_000, 123_456_789, 999_999_999] {
            assert_eq!(nine_digits(value), format!("{value:09}").as_bytes());
        }
    }

    #[test]
    fn dates_match_a_day_by_day_count() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for count in 0..213_504 {
            assert_eq!(date(count), (year, month, day), "day {count}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > days {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn line_start_follows_both_clocks() {
        let mut start = LineStart::new("20261121_101112");
        for (utc_ns, elapsed_ns, expected) in [
            (
                1_795_255_872_123_456_789,
                5,
                "{\"session_id\":\"20261121_101112\",\"timestamp\":\"2026-11-21T10:11:12.123456789Z\",\
                 \"elapsed_seconds\":0.000000005",
            ),
            (
                1_795_255_872_123_456_789,
                u64::MAX,
                "{\"session_id\":\"20261121_101112\",\"timestamp\":\"2026-11-21T10:11:12.123456789Z\",\
                 \"elapsed_seconds\":18446744073.709551615",
            ),
            (
                u64::MAX,
                1_000_000_000,
                "{\"session_id\":\"20261121_101112\",\"timestamp\":\"2554-07-21T23:34:33.709551615Z\",\
                 \"elapsed_seconds\":1.000000000",
            ),
        ] {
            let mut out = LineBuffer::new();
            start.put(&mut out, Time { elapsed_ns, utc_ns });
            assert_eq!(String::from_utf8_lossy(out.content()), expected);
        }
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
    }
}
