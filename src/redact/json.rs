//! Secrets in JSON text: the strings in it, and the values of members by their names.

use super::{REDACTED, Redactor};

/// Nesting that valid JSON has at most here; deeper levels count as lists.
const DEPTH_MAX: u32 = 128;

/// Writes `text` without its secrets into `out`; returns how many there were.
pub(super) fn redact(redactor: &Redactor, text: &[u8], counts: bool, out: &mut Vec<u8>) -> u64 {
    out.clear();
    let mut walk = Walk {
        redactor,
        text,
        at: 0,
        out,
        counts,
        found: 0,
        decoded: Vec::new(),
        cleaned: Vec::new(),
    };
    walk.document();
    walk.found
}

struct Walk<'a> {
    redactor: &'a Redactor,
    text: &'a [u8],
    at: usize,
    out: &'a mut Vec<u8>,
    counts: bool,
    found: u64,
    decoded: Vec<u8>,
    cleaned: Vec<u8>,
}

impl Walk<'_> {
    fn document(&mut self) {
        // One bit per container: 1 is an object.
        let (mut objects, mut depth) = (0_u128, 0_u32);
        // The next string is the name of a member.
        let mut key_next = false;
        // The value that comes belongs to a secret name.
        let mut secret = false;
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b'"' if key_next => {
                    secret = self.key();
                    key_next = false;
                    continue;
                }
                b'"' => {
                    self.string(std::mem::take(&mut secret));
                    continue;
                }
                b'{' | b'[' if secret && !self.counts => {
                    secret = false;
                    self.container();
                    continue;
                }
                b'{' | b'[' => {
                    secret = false;
                    depth = (depth + 1).min(DEPTH_MAX);
                    objects = objects << 1 | u128::from(byte == b'{');
                    key_next = byte == b'{';
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    objects >>= 1;
                    key_next = false;
                }
                b',' => key_next = depth > 0 && objects & 1 == 1,
                b'-' | b'0'..=b'9' if secret => {
                    secret = false;
                    self.number();
                    continue;
                }
                b't' | b'f' | b'n' => secret = false,
                _ => {}
            }
            self.out.push(byte);
            self.at += 1;
        }
    }

    /// The content of the string that starts here; goes behind it.
    fn take_string(&mut self) -> std::ops::Range<usize> {
        let start = self.at + 1;
        let mut at = start;
        while let Some(byte) = self.text.get(at) {
            match byte {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        let end = at.min(self.text.len());
        self.at = (end + 1).min(self.text.len());
        start..end
    }

    /// Copies a name without its secrets; whether it is a secret name.
    fn key(&mut self) -> bool {
        let range = self.take_string();
        let secret = self.is_secret(range.clone());
        self.copy_string(range);
        secret
    }

    fn is_secret(&mut self, range: std::ops::Range<usize>) -> bool {
        let raw = self.text.get(range).unwrap_or_default();
        if !raw.contains(&b'\\') {
            return self.redactor.is_secret_name(raw);
        }
        unescape(raw, &mut self.decoded);
        self.redactor.is_secret_name(&self.decoded)
    }

    fn string(&mut self, secret: bool) {
        let range = self.take_string();
        let raw = self.text.get(range.clone()).unwrap_or_default();
        if secret && !raw.is_empty() && raw != REDACTED.as_bytes() {
            self.constant();
        } else {
            self.copy_string(range);
        }
    }

    /// Copies a string without its secrets, to the byte if it has none.
    fn copy_string(&mut self, range: std::ops::Range<usize>) {
        let raw = self.text.get(range).unwrap_or_default();
        let found = if raw.contains(&b'\\') {
            unescape(raw, &mut self.decoded);
            self.redactor.text(&self.decoded, false, &mut self.cleaned)
        } else {
            self.redactor.text(raw, false, &mut self.cleaned)
        };
        self.found += found;
        self.out.push(b'"');
        if found == 0 {
            self.out.extend_from_slice(raw);
        } else {
            escape(&self.cleaned, self.out);
        }
        self.out.push(b'"');
    }

    /// Goes over a number, which is a secret.
    fn number(&mut self) {
        let start = self.at;
        let is_in = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        while self.text.get(self.at).is_some_and(is_in) {
            self.at += 1;
        }
        if self.counts {
            self.out
                .extend_from_slice(self.text.get(start..self.at).unwrap_or_default());
        } else {
            self.constant();
        }
    }

    /// Goes over a container, which is a secret unless it is empty.
    fn container(&mut self) {
        let start = self.at;
        let mut depth = 0_u32;
        let mut empty = true;
        while let Some(byte) = self.text.get(self.at).copied() {
            match byte {
                b'"' => {
                    empty = false;
                    self.take_string();
                    continue;
                }
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' => depth = depth.saturating_sub(1),
                byte => empty &= byte.is_ascii_whitespace(),
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        if empty {
            self.out
                .extend_from_slice(self.text.get(start..self.at).unwrap_or_default());
        } else {
            self.constant();
        }
    }

    fn constant(&mut self) {
        self.found += 1;
        self.out.push(b'"');
        self.out.extend_from_slice(REDACTED.as_bytes());
        self.out.push(b'"');
    }
}

/// What `raw`, the content of a valid JSON string, stands for.
fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let quoted = [b"\"", raw, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(text) => out.extend_from_slice(text.as_bytes()),
        // Not valid after all: as it is.
        Err(_) => out.extend_from_slice(raw),
    }
}

/// Appends `text` as the content of a JSON string.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => out.push(*byte),
        }
    }
}
