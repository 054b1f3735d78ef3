//! Values as JSON text. FORMAT.md section 9.3 is normative.

use super::buffer::{LineBuffer, LongText, Pen};

/// Bytes that a string may need to escape: C0, `"`, `\`, DEL, and the first bytes of characters
/// of which some are escaped (C1, U+061C, general punctuation, U+FEFF).
static SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        special[byte] =
            byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | 0x7f | 0xc2 | 0xd8 | 0xe2 | 0xef);
        byte += 1;
    }
    special
};

/// Bytes of a long text that are escaped at once.
const PIECE_BYTES: usize = 64 << 10;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether a line must not contain `c` as it is, inside a string or elsewhere.
pub fn is_escaped(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// Appends `text` as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD.
#[inline]
pub fn put_string(out: &mut LineBuffer, text: &[u8]) {
    out.push(b'"');
    put_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` as it stands between the quotes of a JSON string.
#[inline]
pub fn put_escaped(out: &mut LineBuffer, text: &[u8]) {
    if is_plain(text) {
        out.put(text);
    } else {
        put_escaped_slow(out, text);
    }
}

/// Whether every byte is printable ASCII without quote and backslash. Eight bytes at a time:
/// none of the tests can miss a byte; a borrow from a byte below can only report too much.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let special = words.iter().fold(0, |found, word| {
        found | special_mask(u64::from_le_bytes(*word))
    });
    let rest_special = rest
        .iter()
        .any(|byte| SPECIAL[usize::from(*byte)] || *byte >= 0x80);
    special == 0 && !rest_special
}

/// Not 0 when a byte of `word` is not plain.
#[inline(always)]
fn special_mask(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES * 0x80;
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES);
    (word | control | quote | backslash | delete) & HIGH
}

#[cold]
fn put_escaped_slow(out: &mut LineBuffer, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        put_escaped_str(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.put("\u{fffd}".as_bytes());
        }
    }
}

fn put_escaped_str(out: &mut LineBuffer, text: &str) {
    let mut rest = text;
    while let Some(index) = rest.bytes().position(|byte| SPECIAL[usize::from(byte)]) {
        let (run, special) = rest.split_at(index);
        out.put(run.as_bytes());
        let mut chars = special.chars();
        if let Some(c) = chars.next() {
            put_char(out, c);
        }
        rest = chars.as_str();
    }
    out.put(rest.as_bytes());
}

fn put_char(out: &mut LineBuffer, c: char) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        c if is_escaped(c) => return put_unicode_escape(out, c),
        c => return out.put(c.encode_utf8(&mut [0; 4]).as_bytes()),
    };
    out.put_array(&[b'\\', short]);
}

/// `c` is in the basic plane.
fn put_unicode_escape(out: &mut LineBuffer, c: char) {
    let code = c as u32;
    let digit = |shift: u32| HEX[(code >> shift & 0xf) as usize];
    out.put_array(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Appends JSON text of any value as it is, in one line. It must be valid: characters to be
/// escaped stand inside strings, except white space between tokens, which becomes a space.
pub fn put_json_str(out: &mut LineBuffer, text: &str) {
    let mut rest = text;
    while let Some(index) = rest.find(is_escaped) {
        let (run, special) = rest.split_at(index);
        out.put(run.as_bytes());
        let mut chars = special.chars();
        match chars.next() {
            Some('\t' | '\n' | '\r') => out.push(b' '),
            Some(c) => put_unicode_escape(out, c),
            None => {}
        }
        rest = chars.as_str();
    }
    out.put(rest.as_bytes());
}

/// Gives a long text to `write` as it stands in a line, in pieces of a bounded length.
///
/// # Errors
/// The first of `write`.
pub fn write_long<E>(
    text: &LongText,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = text.text.as_slice();
    let mut out = LineBuffer::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(piece_end(rest));
        rest = behind;
        out.truncate(0);
        match std::str::from_utf8(piece) {
            Ok(piece) if text.json => put_json_str(&mut out, piece),
            _ => put_escaped(&mut out, piece),
        }
        write(out.content())?;
    }
    Ok(())
}

/// Where a text can be cut without cutting what is, or should be, one character: before a byte that
/// begins one, or behind as many bytes that begin none as a character can have.
fn piece_end(text: &[u8]) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let begins = |at: &usize| text.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let mut last = (PIECE_BYTES - 3..=PIECE_BYTES).rev();
    last.find(begins).unwrap_or(PIECE_BYTES)
}

/// Writes a float with the digits that an `f32` needs; NaN and infinities as null.
pub fn put_f32(out: &mut Pen<'_>, value: f32) {
    if value.is_finite() {
        out.put(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.put_array(b"null");
    }
}

/// Writes nanoseconds as milliseconds with up to `decimals` (0..=6) digits, half to even, at
/// least one; with 0 decimals cut to whole milliseconds.
#[inline]
pub fn put_duration(out: &mut Pen<'_>, ns: u64, decimals: u8) {
    const POWERS: [u64; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    let decimals = usize::from(decimals.min(6));
    if decimals == 0 {
        return out.unsigned(ns / 1_000_000);
    }
    let (unit, one_ms) = (POWERS[6 - decimals], POWERS[decimals]);
    let (mut count, rest) = (ns / unit, ns % unit);
    // At most 1e5: no overflow. `unit` is 1 or even.
    if rest * 2 > unit || (rest * 2 == unit && count % 2 == 1) {
        count += 1;
    }
    out.unsigned(count / one_ms);
    let mut fraction = [b'.', b'0', b'0', b'0', b'0', b'0', b'0'];
    let mut digits = count % one_ms;
    let mut end = 2;
    for index in (1..=decimals).rev() {
        let digit = (digits % 10) as u8;
        digits /= 10;
        fraction[index] += digit;
        if digit != 0 && end == 2 {
            end = index + 1;
        }
    }
    out.put_prefix(&fraction, end);
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
