//! Values that may hold secrets, written without them. Off the path of values that cannot.

use super::buffer::{LineBuffer, Pen};
use super::json::{put_escaped, put_json_str, put_string};
use super::json_text::{JsonText, is_json_number, json_text};
use crate::redact::{REDACTED, Redactor, is_plain};

/// Writes values without secrets, and counts these for one line.
#[derive(Debug)]
pub(super) struct Scrub<'a> {
    redactor: Option<&'a Redactor>,
    /// Whether patterns of the user's own have to see every text.
    patterns: bool,
    cleaned: Vec<u8>,
    /// Secrets replaced in the line so far.
    pub found: u64,
}

impl<'a> Scrub<'a> {
    pub(super) fn new(redactor: Option<&'a Redactor>) -> Self {
        Self {
            redactor,
            patterns: redactor.is_some_and(Redactor::has_patterns),
            cleaned: Vec::new(),
            found: 0,
        }
    }

    /// Whether the value of an extra field of this name is a secret.
    #[inline]
    pub(super) fn is_secret_name(&self, name: &[u8]) -> bool {
        let redactor = self.redactor;
        redactor.is_some_and(|redactor| redactor.is_secret_name(name))
    }

    /// Writes a text as it stands between quotes. `cut`: it may end in the middle of a secret.
    #[inline]
    pub(super) fn write(&mut self, out: &mut Pen<'_>, text: &[u8], cut: bool) {
        if !self.patterns && !cut && is_plain(text, self.redactor.is_some()) {
            out.put(text);
        } else {
            out.with(|out| self.put_text(out, text, cut));
        }
    }

    /// Appends a text as it stands between quotes, as [`write`](Self::write).
    #[inline(never)]
    pub(super) fn put_text(&mut self, out: &mut LineBuffer, text: &[u8], cut: bool) {
        match self.redactor {
            Some(redactor) if redactor.may_hold(text, cut) => {
                self.put_suspect(redactor, out, text, cut);
            }
            _ => put_any(out, text),
        }
    }

    #[inline(never)]
    fn put_suspect(&mut self, redactor: &Redactor, out: &mut LineBuffer, text: &[u8], cut: bool) {
        match redactor.text(text, cut, &mut self.cleaned) {
            0 => put_any(out, text),
            found => {
                self.found += found;
                if out.is_long(self.cleaned.len()) {
                    out.put_long(std::mem::take(&mut self.cleaned), false);
                } else {
                    put_escaped(out, &self.cleaned);
                }
            }
        }
    }

    /// Appends what should be JSON; as a string when it is not. `counts`: see `Redactor::json`.
    pub(super) fn put_json(&mut self, out: &mut LineBuffer, text: &[u8], counts: bool, cut: bool) {
        let JsonText::Valid(text) = json_text(text) else {
            return self.put_string(out, text, cut);
        };
        let redactor = self.redactor;
        match redactor.map_or(0, |redactor| redactor.json(text, counts, &mut self.cleaned)) {
            0 if out.is_long(text.len()) => out.put_long(text.as_bytes().to_vec(), true),
            0 => put_json_str(out, text),
            found => {
                self.found += found;
                match std::str::from_utf8(&self.cleaned) {
                    Ok(cleaned) if out.is_long(cleaned.len()) => {
                        out.put_long(std::mem::take(&mut self.cleaned), true);
                    }
                    Ok(cleaned) => put_json_str(out, cleaned),
                    // Cannot be: what is replaced begins and ends between characters.
                    Err(_) => put_string(out, REDACTED.as_bytes()),
                }
            }
        }
    }

    /// Appends the text of a JSON number; as a string when it is not one.
    pub(super) fn put_number(&mut self, out: &mut LineBuffer, text: &[u8], cut: bool) {
        if is_json_number(text) {
            out.put(text);
        } else {
            self.put_string(out, text, cut);
        }
    }

    /// Appends a text with its quotes.
    pub(super) fn put_string(&mut self, out: &mut LineBuffer, text: &[u8], cut: bool) {
        out.push(b'"');
        self.put_text(out, text, cut);
        out.push(b'"');
    }

    /// Appends what stands for a secret.
    #[cold]
    pub(super) fn put_constant(&mut self, out: &mut LineBuffer) {
        self.found += 1;
        put_string(out, REDACTED.as_bytes());
    }
}

/// Appends a text as it stands between quotes.
fn put_any(out: &mut LineBuffer, text: &[u8]) {
    if out.is_long(text.len()) {
        out.put_long(text.to_vec(), false);
    } else {
        put_escaped(out, text);
    }
}
