//! The value behind a name in a text: `name=value`, `"name": "value"`, `Name: value`,
//! `--name value`, `<name>value</name>`, and how they look inside of other texts.

use super::REDACTED;
use super::names::Kind;

/// Spaces around a separator, at most.
const SPACES_MAX: usize = 16;
/// How far it is looked for the name behind a delimiter.
const NEXT_NAME_BYTES_MAX: usize = 64;
/// Values that tell that there is none.
const NONE: [&[u8]; 7] = [
    b"null",
    b"none",
    b"nil",
    b"true",
    b"false",
    b"undefined",
    b"***",
];

/// The value of the name `text[start..end]`; `None` when there is none.
pub(super) fn behind(text: &[u8], start: usize, end: usize, kind: Kind) -> Option<(usize, usize)> {
    let mut rest = Rest { text, at: end };
    let quoted = rest.quote();
    if text.get(rest.at) == Some(&b']') {
        rest.at += 1;
    }
    let spaces = rest.spaces();
    let separator = match rest.separator() {
        Some(separator) => separator,
        None if spaces > 0 && is_option(text, start) => b' ',
        None => return None,
    };
    if kind.short && separator == b':' && quoted.is_none() {
        return None;
    }
    rest.spaces();
    let (from, to) = if separator == b'>' {
        let tag = start.checked_sub(1).and_then(|at| text.get(at));
        if spaces > 0 || !tag.is_some_and(|byte| matches!(byte, b'<' | b':')) {
            return None;
        }
        (rest.at, rest.until(|byte| byte == b'<'))
    } else if let Some(quote) = rest.value_quote() {
        (rest.at, rest.closing(&quote))
    } else if kind.header && separator == b':' {
        // `'Cookie: a=b'` ends with the quote that it began with.
        let around = start.checked_sub(1).and_then(|at| text.get(at));
        let around = around.filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
        let ends = |byte: u8| matches!(byte, b'\n' | b'\r') || Some(&byte) == around;
        let stop = rest.until(ends);
        // An escaped quote: the backslash is not part of it.
        let value = text.get(rest.at..stop)?;
        let slashes = value
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        (rest.at, stop - slashes)
    } else {
        (rest.at, rest.bare_end())
    };
    let value = text.get(from..to)?;
    let none = NONE.iter().any(|none| value.eq_ignore_ascii_case(none))
        // The password of a URL whose user has this name, redacted before.
        || value.strip_prefix(REDACTED.as_bytes()).is_some_and(|rest| rest.starts_with(b"@"));
    (!none && !value.is_empty()).then_some((from, to))
}

/// Whether a name stands behind a dash, as an option of a command line.
fn is_option(text: &[u8], start: usize) -> bool {
    let head = text.get(..start).unwrap_or_default();
    let first = text.get(start) == Some(&b'-');
    first && head.last().is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// A quote, and the backslashes before it.
struct Quote {
    byte: u8,
    slashes: usize,
}

struct Rest<'a> {
    text: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn until(&self, ends: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| ends(*byte));
        self.at + length.unwrap_or(rest.len())
    }

    fn spaces(&mut self) -> usize {
        let from = self.at;
        while matches!(self.peek(0), Some(b' ' | b'\t')) && self.at - from < SPACES_MAX {
            self.at += 1;
        }
        self.at - from
    }

    /// Takes a quote with the backslashes before it.
    fn quote(&mut self) -> Option<Quote> {
        let slashes = self.until(|byte| byte != b'\\') - self.at;
        let byte = self.peek(slashes)?;
        if !matches!(byte, b'"' | b'\'' | b'`') {
            return None;
        }
        self.at += slashes + 1;
        Some(Quote { byte, slashes })
    }

    /// The quote that a value begins with; a letter before it (`b'..'`) is skipped.
    fn value_quote(&mut self) -> Option<Quote> {
        let letter = self.peek(0)?.is_ascii_alphabetic();
        let quote_next = matches!(self.peek(1), Some(b'"' | b'\''));
        if letter && quote_next {
            self.at += 1;
        }
        self.quote()
    }

    /// `=`, `:`, `>` or what stands for the first two in a URL.
    fn separator(&mut self) -> Option<u8> {
        let first = self.peek(0)?;
        let second = self.peek(1);
        let length = match (first, second) {
            (b':', Some(b':' | b'/')) => return None,
            (b':', Some(b'=')) | (b'=', Some(b'=' | b'>')) => 2,
            (b':' | b'=' | b'>', _) => 1,
            (b'%', Some(b'3')) => {
                let separator = match self.peek(2)? {
                    b'D' | b'd' => b'=',
                    b'A' | b'a' => b':',
                    _ => return None,
                };
                self.at += 3;
                return Some(separator);
            }
            _ => return None,
        };
        self.at += length;
        Some(first)
    }

    /// Where the quote ends that was taken; the end of the text if nowhere.
    fn closing(&self, quote: &Quote) -> usize {
        let mut at = self.at;
        let mut slashes = 0;
        while let Some(byte) = self.text.get(at) {
            if *byte == b'\\' {
                slashes += 1;
            } else {
                // One escaped deeper has more backslashes; a text that is not escaped has an even
                // number of them before its end.
                let even = quote.slashes == 0 && slashes % 2 == 0;
                if *byte == quote.byte && (even || (quote.slashes > 0 && slashes <= quote.slashes))
                {
                    return at - if quote.slashes > 0 { slashes } else { 0 };
                }
                slashes = 0;
            }
            at += 1;
        }
        at
    }

    /// Where a value without quotes ends.
    fn bare_end(&self) -> usize {
        let mut at = self.bracket_end().unwrap_or(self.at);
        while let Some(byte) = self.text.get(at).copied() {
            let next = self.text.get(at + 1).copied();
            let ends = match byte {
                b'<' => true,
                b'"' | b'\'' | b'`' => {
                    let before = at.checked_sub(1).and_then(|before| self.text.get(before));
                    if at > self.at && matches!(before, Some(b'(' | b'[' | b'{')) {
                        let inner = Rest {
                            at: at + 1,
                            ..*self
                        };
                        let quote = Quote { byte, slashes: 0 };
                        at = inner.closing(&quote);
                        false
                    } else {
                        true
                    }
                }
                b'\\' => matches!(next, Some(b'"' | b'\'' | b'`' | b'\\')),
                b'&' | b';' | b',' => self.name_follows(at + 1),
                b')' | b']' | b'}' => next.is_none_or(|next| !next.is_ascii_alphanumeric()),
                byte => byte.is_ascii_whitespace(),
            };
            if ends {
                return at;
            }
            at += 1;
        }
        at.min(self.text.len())
    }

    /// Where a list or an object ends that begins here; the end of the text if nowhere.
    fn bracket_end(&self) -> Option<usize> {
        let open = self.peek(0)?;
        let close = match open {
            b'[' => b']',
            b'{' => b'}',
            b'(' => b')',
            _ => return None,
        };
        let mut depth = 0_usize;
        let rest = self.text.get(self.at..)?;
        let length = rest.iter().position(|byte| {
            depth += usize::from(*byte == open);
            depth -= usize::from(*byte == close);
            depth == 0
        });
        Some(self.at + length.map_or(rest.len(), |at| at + 1))
    }

    /// Whether a delimiter before `at` ends a value: `name=`, `name:`, a space or nothing follows.
    fn name_follows(&self, at: usize) -> bool {
        let Some(first) = self.text.get(at) else {
            return true;
        };
        if first.is_ascii_whitespace() || matches!(first, b'"' | b'\'' | b'&') {
            return true;
        }
        let rest = self.text.get(at..).unwrap_or_default();
        let rest = rest
            .get(..rest.len().min(NEXT_NAME_BYTES_MAX))
            .unwrap_or_default();
        let is_name = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'%' | b'[' | b']')
        };
        let end = rest.iter().position(|byte| !is_name(*byte));
        let end = end.and_then(|at| rest.get(at).map(|byte| (at, *byte)));
        end.is_some_and(|(length, byte)| length > 0 && matches!(byte, b'=' | b':'))
    }
}
