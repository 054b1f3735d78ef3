//! From anchors to spans: where a secret begins and ends in a text.

use super::names::Names;
use super::tokens::{Alphabet, Token};
use super::{Anchor, REDACTED, value};

/// Bytes that a name in a text has at most.
const NAME_BYTES_MAX: usize = 64;
/// How far a URL is searched for the end of a password with a `/` in it.
const URL_BYTES_MAX: usize = 1024;
/// How far the last line of a PEM block goes.
const PEM_LINE_BYTES_MAX: usize = 64;
/// A user without a password in a URL that is as long as this is a token.
const USER_BYTES_MAX: usize = 20;
/// The part of a JSON web token, at least.
const JWT_PART_BYTES: usize = 8;
/// A word behind `Bearer` or `Basic`: as long as this, and not like a word of prose.
const CREDENTIALS_BYTES: usize = 8;
/// As long as this it is none of prose, whatever it looks like.
const CREDENTIALS_BYTES_LONG: usize = 20;

/// Collects the spans of one text.
pub(super) struct Finder<'a> {
    names: &'a Names,
    text: &'a [u8],
    /// Whether the text may end in the middle of a secret.
    cut: bool,
    spans: Vec<(usize, usize)>,
    /// Where the span that ends last begins and ends: hits in it are part of a secret.
    covered: (usize, usize),
}

impl<'a> Finder<'a> {
    pub(super) fn new(names: &'a Names, text: &'a [u8], cut: bool) -> Self {
        Self {
            names,
            text,
            cut,
            spans: Vec::new(),
            covered: (0, 0),
        }
    }

    /// Looks at the anchor in `start..end`.
    pub(super) fn hit(&mut self, anchor: Anchor, start: usize, end: usize) {
        let (from, to) = self.covered;
        // Before it is the user of a URL whose password it is, and may be a token all the same; a
        // name there is no name of what follows.
        if start < to && (start >= from || matches!(anchor, Anchor::Name | Anchor::Url)) {
            return;
        }
        let span = match anchor {
            Anchor::Name => self.named(end),
            Anchor::Token(token) => self.token(token, start, end),
            Anchor::Scheme => self.scheme(start, end),
            Anchor::Url => self.url(start, end),
            Anchor::Pem => self.pem(start, end),
            Anchor::Jwt => self.jwt(start),
        };
        if let Some((start, end)) = span.filter(|(start, end)| start < end) {
            self.span(start, end);
        }
    }

    /// Takes a span as it is.
    pub(super) fn span(&mut self, start: usize, end: usize) {
        if start < end && self.text.get(start..end) != Some(REDACTED.as_bytes()) {
            self.spans.push((start, end));
            if end > self.covered.1 {
                self.covered = (start, end);
            }
        }
    }

    /// Writes the text with each span replaced; returns how many there are.
    pub(super) fn replace(mut self, out: &mut Vec<u8>) -> u64 {
        out.clear();
        self.spans.sort_unstable();
        let (mut at, mut count) = (0, 0);
        for (start, end) in self.spans {
            if end <= at {
                continue;
            }
            if start >= at {
                out.extend_from_slice(self.text.get(at..start).unwrap_or_default());
                out.extend_from_slice(REDACTED.as_bytes());
                count += 1;
            }
            at = end;
        }
        out.extend_from_slice(self.text.get(at..).unwrap_or_default());
        count
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    fn before(&self, at: usize) -> Option<u8> {
        at.checked_sub(1).and_then(|at| self.byte(at))
    }

    /// Where the run of bytes from `from` on ends.
    fn run(&self, from: usize, is_in: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(from..).unwrap_or_default();
        let length = rest.iter().position(|byte| !is_in(*byte));
        from + length.unwrap_or(rest.len())
    }

    /// Whether a run of `length` bytes up to `end` is enough: `least`, or what the cut has left.
    fn enough(&self, end: usize, length: usize, least: usize) -> bool {
        length >= least || (self.cut && length > 0 && end == self.text.len())
    }

    /// The last word of a name ends at `end`: the value behind it, if the whole is a name.
    fn named(&self, end: usize) -> Option<(usize, usize)> {
        let tail = self.run(end, |byte| byte.is_ascii_digit() || byte == b'_');
        if self
            .byte(tail)
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        {
            return None;
        }
        let floor = end.saturating_sub(NAME_BYTES_MAX);
        let head = self.text.get(floor..end)?;
        let is_name =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(*byte, b'-' | b'_' | b'.');
        let start = head.iter().rposition(|byte| !is_name(byte));
        let start = start.map_or(floor, |at| floor + at + 1);
        let mut kind = self.names.find(self.text.get(start..end)?);
        if kind.is_none() {
            // "api key", where the words are not joined.
            kind = self.names.find(head).filter(|kind| !kind.short);
        }
        value::behind(self.text, start, tail, kind?)
    }

    fn token(&self, token: &Token, start: usize, end: usize) -> Option<(usize, usize)> {
        let same = self.text.get(start..end)? == token.prefix.as_bytes();
        let inside = self
            .before(start)
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !same || inside {
            return None;
        }
        let tail = self.run(end, |byte| token.alphabet.contains(byte));
        let run = self.text.get(end..tail)?;
        let fits = match token.alphabet {
            Alphabet::Capitals => {
                let goes_on = self
                    .byte(tail)
                    .is_some_and(|byte| byte.is_ascii_alphanumeric());
                run.len() <= token.more && !goes_on
            }
            Alphabet::Mixed => {
                let at_cut = self.cut && tail == self.text.len();
                at_cut || is_mixed(run)
            }
            _ => true,
        };
        (fits && self.enough(tail, run.len(), token.more)).then_some((start, tail))
    }

    fn scheme(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        if self
            .before(start)
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        {
            return None;
        }
        let mut from = self.run(end, |byte| byte == b' ');
        if from == end {
            let space = self.text.get(end..end + 3).filter(|text| *text == b"%20");
            from = space.map(|_| end + 3)?;
        }
        let is_in = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'%')
        };
        let tail = self.run(from, is_in);
        let word = self.text.get(from..tail)?;
        let prose = |byte: &u8| byte.is_ascii_lowercase() || matches!(*byte, b'.' | b'-' | b'/');
        let prose = word.iter().skip(1).all(prose);
        let tail = self.run(tail, |byte| byte == b'=');
        let run = self.text.get(from..tail)?;
        let least = if prose {
            CREDENTIALS_BYTES_LONG
        } else {
            CREDENTIALS_BYTES
        };
        self.enough(tail, run.len(), least).then_some((from, tail))
    }

    /// `scheme://user:password@host`: the password. `scheme://token@host`: the token.
    fn url(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        self.before(start).filter(u8::is_ascii_alphanumeric)?;
        let ends = |byte: u8| {
            byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b'\\')
        };
        let limit = (end + URL_BYTES_MAX).min(self.text.len());
        let whole = self.text.get(end..limit)?;
        let tail = whole.iter().position(|byte| ends(*byte));
        let tail = tail.map_or(limit, |length| end + length);
        let whole = self.text.get(end..tail)?;
        let authority = whole
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
        let authority = whole.get(..authority.unwrap_or(whole.len()))?;
        let colon = authority.iter().position(|byte| *byte == b':');
        let mut at = authority.iter().rposition(|byte| *byte == b'@');
        if let (Some(colon), None) = (colon, at) {
            let port = authority.get(colon + 1..)?;
            let is_port = port.iter().all(u8::is_ascii_digit) || authority.starts_with(b"[");
            let at_cut = self.cut && tail == self.text.len();
            if at_cut && (!is_port || authority.len() == whole.len()) {
                return Some((end + colon + 1, tail));
            }
            if !is_port {
                // A password with a `/`, `?` or `#` that should have been escaped.
                at = whole.iter().rposition(|byte| *byte == b'@');
            }
        }
        if at.is_none() && self.cut && tail == self.text.len() && is_mixed(authority) {
            // Hosts have no capitals: the token of a user.
            return Some((end, tail));
        }
        let at = at?;
        match colon.filter(|colon| *colon < at) {
            Some(colon) => Some((end + colon + 1, end + at)),
            None if at >= USER_BYTES_MAX => Some((end, end + at)),
            None => None,
        }
    }

    /// A private key from `-----BEGIN` to the end of its last line, or of the text.
    fn pem(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let title = self.run(end, |byte| byte.is_ascii_alphanumeric() || byte == b' ');
        let title = self.text.get(end..title)?;
        let secret = [b"PRIVATE KEY".as_slice(), b"Static key"];
        if !secret.iter().any(|name| find(title, name).is_some()) {
            return None;
        }
        let rest = self.text.get(end..)?;
        let tail = find(rest, b"-----END ").and_then(|from| {
            let behind = from + b"-----END ".len();
            let last = rest.get(behind..)?;
            let last = last.get(..last.len().min(PEM_LINE_BYTES_MAX))?;
            Some(end + behind + find(last, b"-----")? + 5)
        });
        Some((start, tail.unwrap_or(self.text.len())))
    }

    fn jwt(&self, start: usize) -> Option<(usize, usize)> {
        let is_in = |byte: u8| Alphabet::Word.contains(byte);
        if self.text.get(start..start + 3)? != b"eyJ" || self.before(start).is_some_and(is_in) {
            return None;
        }
        let header = self.run(start, is_in);
        let at_cut = self.cut && header == self.text.len();
        if self.byte(header) != Some(b'.') || header - start < JWT_PART_BYTES {
            return at_cut.then_some((start, header));
        }
        let payload = self.run(header + 1, is_in);
        let at_cut = self.cut && payload == self.text.len();
        let long = at_cut || payload - header > JWT_PART_BYTES;
        long.then(|| (start, self.run(payload, |byte| is_in(byte) || byte == b'.')))
    }
}

/// At least a capital and a digit, as random letters have and words have not.
fn is_mixed(run: &[u8]) -> bool {
    run.iter().any(u8::is_ascii_uppercase) && run.iter().any(u8::is_ascii_digit)
}

/// Where `part` first occurs.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
