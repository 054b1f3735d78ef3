//! The quick look at short texts that are names and ids: most texts of most records.

use super::tokens::TOKENS;
use super::{LOOKS, SHORT_BYTES};

/// A byte that is no small letter, digit, `.` or `/`: every secret that is found by its look has
/// one.
const ODD: u8 = 1;
/// A byte that is no letter, digit, `.`, `/`, `-` or `_`: before every value of a name stands one,
/// and every byte that JSON escapes is one.
const OTHER: u8 = 2;
/// Bytes that are looked at together.
const LANE_BYTES: usize = 16;

/// Whether there is neither a secret in `text` nor anything that JSON escapes. False for some texts
/// of which both are true. `secrets`: whether secrets matter; the text is not cut then, and there
/// are no patterns of the user's own.
#[inline]
pub(crate) fn is_plain(text: &[u8], secrets: bool) -> bool {
    let Some(last) = text.last_chunk::<LANE_BYTES>() else {
        // Too short for a secret without a separator.
        return !has_other(text);
    };
    let (lanes, _) = text.as_chunks::<LANE_BYTES>();
    let found = lanes.iter().fold(0, |found, lane| found | kinds_of(lane));
    let found = found | kinds_of(last);
    found == 0 || (found & OTHER == 0 && (!secrets || !may_start_token(text)))
}

const _: () = assert!(LANE_BYTES == SHORT_BYTES);

/// Whether an [`OTHER`] byte is among less than [`LANE_BYTES`] bytes: some are looked at twice.
#[inline]
fn has_other(text: &[u8]) -> bool {
    if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        let (head, tail) = (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
        other_mask(head) | other_mask(tail) != 0
    } else if let (Some(head), Some(tail)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let (head, tail) = (u32::from_le_bytes(*head), u32::from_le_bytes(*tail));
        other_mask(u64::from(tail) << 32 | u64::from(head)) != 0
    } else {
        text.iter().any(|byte| kind(*byte) & OTHER != 0)
    }
}

/// The highest bit of each byte of a word that is an [`OTHER`] one.
#[inline]
const fn other_mask(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    /// The highest bit of each byte (below 128) that is at least `low`: no sum reaches 256.
    const fn at_least(word: u64, low: u8) -> u64 {
        word.wrapping_add(ONES * (0x80 - low as u64))
    }
    let low = word & !HIGH;
    let small = low | (ONES * 0x20);
    let letter = at_least(small, b'a') & !at_least(small, b'z' + 1);
    let number = at_least(low, b'-') & !at_least(low, b'9' + 1);
    let not_joint = at_least(low ^ (ONES * b'_' as u64), 1);
    (word | (!letter & !number & not_joint)) & HIGH
}

/// The same for one lane. Without an early end, so that all of it is done at once.
#[inline]
fn kinds_of(lane: &[u8; LANE_BYTES]) -> u8 {
    lane.iter().fold(0, |found, byte| found | kind(*byte))
}

#[inline]
const fn kind(byte: u8) -> u8 {
    let small = byte.wrapping_sub(b'a') <= 25;
    let letter = (byte | 0x20).wrapping_sub(b'a') <= 25;
    let number = byte.wrapping_sub(b'.') <= b'9' - b'.';
    let joint = matches!(byte, b'-' | b'_');
    let odd = !(small | number) as u8;
    let other = !(letter | number | joint) as u8;
    (odd * ODD) | (other * OTHER)
}

/// By first byte: one bit for each second byte, modulo 32, that tokens start with.
static STARTS: [u32; 256] = {
    let mut starts = [0; 256];
    let mut index = 0;
    while index < TOKENS.len() {
        let prefix = TOKENS[index].prefix.as_bytes();
        starts[prefix[0] as usize] |= 1 << (prefix[1] % 32);
        index += 1;
    }
    // JSON web tokens; `LOOKS` has them in small letters, as the automaton wants them.
    assert!(matches!(LOOKS[4].0.as_bytes(), b"eyj"));
    starts[b'e' as usize] |= 1 << (b'y' % 32);
    starts
};

/// Whether a token may start in a text without separators: at its start, or behind a byte that is
/// no letter or digit, and with enough of the text behind it.
fn may_start_token(text: &[u8]) -> bool {
    let end = (text.len() + 1).saturating_sub(SHORT_BYTES);
    let mut before = b'.';
    text.windows(2).take(end).any(|pair| {
        let (first, second) = (pair[0], pair[1]);
        let starts = !std::mem::replace(&mut before, first).is_ascii_alphanumeric();
        starts && STARTS[usize::from(first)] >> (second % 32) & 1 != 0
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Redactor;
    use super::*;

    /// What `is_plain` promises.
    #[track_caller]
    fn check(text: &[u8]) {
        let readable = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if is_plain(text, false) {
            assert!(text.iter().all(readable), "{}", text.escape_ascii());
        }
        if is_plain(text, true) {
            let mut out = Vec::new();
            let secrets = Redactor::built_in().text(text, false, &mut out);
            assert_eq!(secrets, 0, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn every_byte_is_seen_at_every_place() {
        for length in 0..70 {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    let plain = matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'-'..=b'9' | b'_');
                    assert_eq!(
                        is_plain(&text, false),
                        plain,
                        "{byte} at {place} of {length}"
                    );
                    check(&text);
                }
            }
        }
    }

    #[test]
    fn every_token_is_seen_wherever_it_may_start() {
        let run = "aB3".repeat(20);
        for token in &TOKENS {
            for more in [token.more, 40] {
                for before in ["", "x_", "some/path-to.", "x"] {
                    for behind in ["", "-x", "/and/more"] {
                        let text = format!("{before}{}{}{behind}", token.prefix, &run[..more]);
                        check(text.as_bytes());
                        check(text.to_ascii_uppercase().as_bytes());
                    }
                }
                let text = format!("{}{}", token.prefix, &run[..more]);
                assert!(!is_plain(text.as_bytes(), true), "{text}");
            }
        }
        check(b"eyJhbGciOi.eyJzdWIiOiI.c2ln");
        check(b"x/eyJhbGci.eyJzdWIi");
        assert!(is_plain(b"start_container_begin", true));
        assert!(is_plain(b"AceStream-Engine-12/worker_3", true));
    }

    fn near_secret() -> impl Strategy<Value = String> {
        let prefixes = TOKENS.iter().map(|token| token.prefix);
        let parts: Vec<&str> = prefixes
            .chain([
                "eyJ", "password", "pwd", "=", ":", "-", "_", ".", "/", "a", "7", "Z", " ",
            ])
            .collect();
        let part = prop_oneof![
            prop::sample::select(parts).prop_map(str::to_owned),
            "[a-zA-Z0-9_.-]{0,24}",
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn nothing_plain_is_a_secret(text in near_secret()) {
            check(text.as_bytes());
        }

        #[test]
        fn nothing_plain_is_escaped(text in prop::collection::vec(any::<u8>(), 0..40)) {
            check(&text);
        }
    }
}
