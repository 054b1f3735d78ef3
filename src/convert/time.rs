//! The start of every line: session, timestamp, elapsed seconds.
//!
//! The start of the line before is kept: within a second only two times nine digits change.

use super::buffer::Pen;
use super::digits::nine_digits;
use crate::segment::clock::Time;

const SECOND_NS: u64 = 1_000_000_000;
/// Where the date and time stand in the start of a line:
/// `{"session_id":"YYYYMMDD_HHMMSS","timestamp":"YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ`
const DATE_AT: usize = 15 + 15 + 15;
/// Where the digits behind the second stand.
const FRACTION_AT: usize = DATE_AT + 20;
const MIDDLE: &[u8; 21] = b"Z\",\"elapsed_seconds\":";
/// Where `elapsed_seconds` stands.
const ELAPSED_AT: usize = FRACTION_AT + 9 + MIDDLE.len();
/// Room for the start of any line: 64 bits of nanoseconds are 11 digits of seconds.
const START_BYTES: usize = 128;
const _: () = assert!(ELAPSED_AT + 11 + 1 + 9 <= START_BYTES);

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
    /// The start of the line before, up to the last digit of `elapsed_seconds`.
    text: [u8; START_BYTES],
    len: usize,
    /// The moments that the whole seconds in `text` stand for, in ns.
    utc_ns: u64,
    elapsed_ns: u64,
}

impl LineStart {
    /// For lines of this session; the id is cut to its 15 characters.
    pub fn new(session_id: &str) -> Self {
        let mut text = [0; START_BYTES];
        let head = format!("{{\"session_id\":\"{session_id:<15.15}\",\"timestamp\":\"");
        for (place, byte) in text.iter_mut().zip(head.bytes()) {
            *place = byte;
        }
        text[FRACTION_AT - 1] = b'.';
        text[FRACTION_AT + 9..ELAPSED_AT].copy_from_slice(MIDDLE);
        let mut start = Self {
            text,
            len: 0,
            utc_ns: 0,
            elapsed_ns: 0,
        };
        start.set_seconds(Time::default());
        start
    }

    /// Writes the start of a line, up to the last digit of `elapsed_seconds`.
    #[inline]
    pub fn put(&mut self, out: &mut Pen<'_>, time: Time) {
        let mut utc = time.utc_ns.wrapping_sub(self.utc_ns);
        let mut elapsed = time.elapsed_ns.wrapping_sub(self.elapsed_ns);
        if utc >= SECOND_NS || elapsed >= SECOND_NS {
            self.set_seconds(time);
            utc = time.utc_ns % SECOND_NS;
            elapsed = time.elapsed_ns % SECOND_NS;
        }
        let len = self.len;
        out.put_changed(&self.text, len, |text| {
            text[FRACTION_AT..FRACTION_AT + 9].copy_from_slice(&nine_digits(utc as u32));
            let place = text.get_mut(len - 9..len);
            if let Some(place) = place.and_then(<[u8]>::first_chunk_mut) {
                *place = nine_digits(elapsed as u32);
            }
        });
    }

    #[cold]
    #[inline(never)]
    fn set_seconds(&mut self, time: Time) {
        let second = time.utc_ns / SECOND_NS;
        self.utc_ns = second * SECOND_NS;
        self.text[DATE_AT..FRACTION_AT - 1].copy_from_slice(&date_time(second));
        let second = time.elapsed_ns / SECOND_NS;
        self.elapsed_ns = second * SECOND_NS;
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(second).as_bytes();
        self.len = ELAPSED_AT + digits.len() + 1 + 9;
        let place = self.text[ELAPSED_AT..].iter_mut();
        for (place, byte) in place.zip(digits.iter().chain(b".")) {
            *place = *byte;
        }
    }
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
    use super::super::buffer::LineBuffer;
    use super::*;

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
            let mut pen = out.pen();
            start.put(&mut pen, Time { elapsed_ns, utc_ns });
            pen.finish();
            assert_eq!(String::from_utf8_lossy(out.content()), expected);
        }
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
    }
}
