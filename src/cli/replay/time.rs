//! Timestamps of the old loggers: RFC 3339 with 0 to 9 digits of a second, `Z` or an offset.

use std::time::Duration;

/// Time since 1970 of an RFC 3339 timestamp with 0 to 9 (or more) digits of a second.
pub fn parse_time(text: &str) -> Option<Duration> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        let value = |sum: i64, digit: &u8| Some(sum * 10 + i64::from(digit.checked_sub(b'0')?));
        let all = digits.iter().all(u8::is_ascii_digit);
        all.then(|| digits.iter().try_fold(0, value)).flatten()
    };
    let separators: [(usize, &[u8]); 5] =
        [(4, b"-"), (7, b"-"), (10, b"Tt "), (13, b":"), (16, b":")];
    let stands = |(at, set): &(usize, &[u8])| bytes.get(*at).is_some_and(|b| set.contains(b));
    if !separators.iter().all(stands) {
        return None;
    }
    let days = days_since_1970(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, zone) = fraction(&bytes[19..])?;
    let offset = zone_seconds(zone)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// Nanoseconds of `.123`, or 0, and what follows.
fn fraction(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let Some(digits) = bytes.strip_prefix(b".") else {
        return Some((0, bytes));
    };
    let count = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if count == 0 {
        return None;
    }
    let padded = digits[..count].iter().map(|byte| u32::from(byte - b'0'));
    let nanos = padded.chain(std::iter::repeat(0)).take(9);
    Some((
        nanos.fold(0, |sum, digit| sum * 10 + digit),
        &digits[count..],
    ))
}

/// Seconds east of UTC of `Z` or `+hh:mm`.
fn zone_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let pair = |tens: &u8, ones: &u8| {
                let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
                digits.then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
            };
            let seconds = pair(h1, h2)? * 3_600 + pair(m1, m2)? * 60;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years start in March here, so that a leap day is the last day of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_of_both_loggers_are_times() {
        let second = Duration::from_secs(1_760_798_723);
        for (text, nanos) in [
            ("2025-10-18T14:45:23Z", 0),
            ("2025-10-18T14:45:23+00:00", 0),
            ("2025-10-18T16:45:23.5+02:00", 500_000_000),
            ("2025-10-18T09:15:23.000001-05:30", 1_000),
            ("2025-10-18T14:45:23.123456789Z", 123_456_789),
            ("2025-10-18T14:45:23.1234567899Z", 123_456_789),
        ] {
            let expected = second + Duration::from_nanos(nanos);
            assert_eq!(parse_time(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2025-10-18",
            "2025-13-18T14:45:23Z",
            "2025-10-18T14:45:23",
            "x",
            "2025-10-18T14:45:23.Z",
            "2025-10-18T25:45:23Z",
            "1969-12-31T23:59:59Z",
            "2025-10-18T14:45:23+0000",
            "2025-1\u{e4}-18T14:45:23Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2000, 3, 1), Some(11_017));
        assert_eq!(days_since_1970(2024, 2, 29), Some(19_782));
    }

    proptest! {
        #[test]
        fn any_text_as_a_time_gives_a_result(
            text in r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.Z+\-]{0,20}",
        ) {
            if let Some(time) = parse_time(&text) {
                prop_assert!(time < Duration::from_secs(400_000_000_000));
            }
        }
    }
}
