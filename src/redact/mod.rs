//! Secrets out of lines: what is never written into JSON Lines, by the name of a field and by the
//! look of a text. docs/SECURITY.md section 3 lists what is found and what is not.
//!
//! ```text
//!  text --may_hold--> anchors (one pass, Aho-Corasick) --find--> spans --> [redacted]
//!         few ns       words that every secret has before it      only at a hit
//! ```
//!
//! Invariants
//! - What replaces a secret is the same for all: neither its length nor a hash of it is told.
//! - The work for a text is linear in its length (but for patterns of the user's own): what lies
//!   in a span that was found is not looked at again, every other look ahead has a bound.
//! - Redacting a second time changes nothing.

mod find;
mod json;
mod names;
mod plain;
mod rules;
mod tokens;
mod value;

use std::borrow::Cow;
use std::sync::Arc;

use aho_corasick::automaton::Automaton;
use aho_corasick::{MatchKind, dfa};
use regex_lite::Regex;

use crate::record::StaticSlot;
use find::Finder;
use names::Names;
pub(crate) use plain::is_plain;
pub use rules::{RuleError, Rules};
use tokens::{TOKENS, Token};

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Texts below this length hold no secret without a separator, unless they were cut.
const SHORT_BYTES: usize = 16;

/// What an anchor announces.
#[derive(Clone, Copy, Debug)]
enum Anchor {
    /// The last word of a name: a value may follow.
    Name,
    /// The prefix of a token.
    Token(&'static Token),
    /// `Bearer` or `Basic`.
    Scheme,
    /// `://`.
    Url,
    /// `-----BEGIN `.
    Pem,
    /// The first letters of a JSON web token.
    Jwt,
}

/// Anchors that are no names, and what the user calls them.
const LOOKS: [(&str, Anchor, &str); 5] = [
    ("bearer", Anchor::Scheme, "auth_scheme"),
    ("basic", Anchor::Scheme, "auth_scheme"),
    ("://", Anchor::Url, "url_password"),
    ("-----begin ", Anchor::Pem, "pem"),
    ("eyj", Anchor::Jwt, "jwt_look"),
];

/// Finds secrets and replaces them; made once from [`Rules`], shared.
#[derive(Debug)]
pub struct Redactor {
    names: Names,
    anchors: Vec<Anchor>,
    automaton: dfa::DFA,
    patterns: Vec<Regex>,
}

impl Redactor {
    /// A redactor for these rules, whatever [`Rules::on`] says.
    ///
    /// # Errors
    /// [`RuleError`] when a name or a pattern is not one.
    pub fn new(rules: &Rules) -> Result<Self, RuleError> {
        rules.check()?;
        let names = Names::new(rules);
        let mut words: Vec<String> = names.last_words().collect();
        let mut anchors = vec![Anchor::Name; words.len()];
        let looks = LOOKS.iter().filter(|(_, _, name)| !rules.keeps(name));
        let tokens = TOKENS.iter().filter(|token| !rules.keeps(token.name));
        for (word, anchor) in looks
            .map(|(word, anchor, _)| (*word, *anchor))
            .chain(tokens.map(|token| (token.prefix, Anchor::Token(token))))
        {
            words.push(word.to_owned());
            anchors.push(anchor);
        }
        let automaton = dfa::DFA::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(&words)
            .map_err(|_| RuleError::TooMany)?;
        let patterns: Result<_, _> = rules
            .patterns
            .iter()
            .map(|text| rules::pattern(text))
            .collect();
        Ok(Self {
            names,
            anchors,
            automaton,
            patterns: patterns?,
        })
    }

    /// The redactor for the built-in rules.
    ///
    /// # Panics
    /// If these were not valid, which a test excludes.
    pub fn built_in() -> Arc<Self> {
        // Nothing that locks: a child that was forked while a thread of its parent made it would
        // wait for ever. Threads that race make one each, of which one stays.
        static BUILT_IN: StaticSlot<Arc<Redactor>> = StaticSlot::new();
        let make = || Arc::new(Self::new(&Rules::default()).expect("the built-in rules are valid"));
        let built = BUILT_IN.get();
        Arc::clone(built.unwrap_or_else(|| BUILT_IN.set(Box::leak(Box::new(make())))))
    }

    /// `text` without secrets: for callers who want none in the segments either, and redact what
    /// they push.
    ///
    /// ```
    /// use stormlog::redact::Redactor;
    ///
    /// let redactor = Redactor::built_in();
    /// let url = "redis://cache:hunter2@10.0.0.7/0";
    /// assert_eq!(redactor.clean(url), "redis://cache:[redacted]@10.0.0.7/0");
    /// assert_eq!(redactor.clean("12 engines"), "12 engines");
    /// ```
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.cleaned(text, false)
    }

    /// The same for a text that was cut, and may end in the middle of a secret.
    #[cfg(any(feature = "log", feature = "tracing"))]
    pub(crate) fn clean_cut<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.cleaned(text, true)
    }

    fn cleaned<'a>(&self, text: &'a str, cut: bool) -> Cow<'a, str> {
        let mut out = Vec::new();
        if self.text(text.as_bytes(), cut, &mut out) == 0 {
            return Cow::Borrowed(text);
        }
        // A span may start or end inside of a character only if a pattern of bytes did; none does.
        Cow::Owned(String::from_utf8_lossy(&out).into_owned())
    }

    /// Whether the value of a field of this name is a secret.
    #[inline]
    pub fn is_secret_name(&self, name: &[u8]) -> bool {
        self.names.matches(name)
    }

    /// Whether there are patterns of the user's own: then [`is_plain`] says nothing about secrets.
    pub(crate) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether it is worth to look closer at `text`. False for most texts, after one quick pass.
    #[inline]
    pub(crate) fn may_hold(&self, text: &[u8], cut: bool) -> bool {
        if text.len() < SHORT_BYTES && !cut {
            // Without an early end and by table: the bytes do not wait for each other.
            let found = text
                .iter()
                .fold(0, |found, byte| found | SEPARATORS[usize::from(*byte)]);
            found != 0 || !self.patterns.is_empty()
        } else {
            has_odd_byte(text) || !self.patterns.is_empty()
        }
    }

    /// Puts `text` without its secrets into `out`, which is emptied before, and returns how many
    /// there were; when there are none `out` is of no meaning. `cut`: the text may end in the
    /// middle of a secret.
    pub(crate) fn text(&self, text: &[u8], cut: bool, out: &mut Vec<u8>) -> u64 {
        if !self.may_hold(text, cut) {
            return 0;
        }
        let mut finder = Finder::new(&self.names, text, cut);
        for found in self.hits(text) {
            if let Some(anchor) = self.anchors.get(found.pattern().as_usize()) {
                finder.hit(*anchor, found.start(), found.end());
            }
        }
        if !self.patterns.is_empty() {
            self.own_patterns(text, &mut finder);
        }
        finder.replace(out)
    }

    /// As [`text`](Self::text) for JSON, which must be valid; what is put into `out` is valid too.
    /// `counts`: numbers and containers under a secret name stay (FORMAT.md section 9.4).
    pub(crate) fn json(&self, text: &str, counts: bool, out: &mut Vec<u8>) -> u64 {
        let bytes = text.as_bytes();
        let plain = self.patterns.is_empty()
            && !bytes.contains(&b'\\')
            && (!self.may_hold(bytes, false) || self.hits(bytes).next().is_none());
        if plain {
            return 0;
        }
        json::redact(self, bytes, counts, out)
    }

    fn hits<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = aho_corasick::Match> + 'a {
        let input = aho_corasick::Input::new(text);
        // The search is of the kind that the automaton was built for.
        self.automaton
            .try_find_overlapping_iter(input)
            .into_iter()
            .flatten()
    }

    #[cold]
    fn own_patterns(&self, text: &[u8], finder: &mut Finder<'_>) {
        let mut start = 0;
        for chunk in text.utf8_chunks() {
            let valid = chunk.valid();
            for found in self
                .patterns
                .iter()
                .flat_map(|pattern| pattern.find_iter(valid))
            {
                finder.span(start + found.start(), start + found.end());
            }
            start += valid.len() + chunk.invalid().len();
        }
    }
}

/// 1 for a byte behind which a value may follow.
static SEPARATORS: [u8; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        table[index] = matches!(index as u8, b'=' | b':' | b'>' | b'%' | b' ') as u8;
        index += 1;
    }
    table
};

/// Whether there is any byte but small letters, digits, `.` and `/`: every secret that is found
/// by its look has one. Without an early end, so that it is done sixteen bytes at a time.
#[inline]
fn has_odd_byte(text: &[u8]) -> bool {
    let odd = |byte: u8| {
        u8::from(byte.wrapping_sub(b'.') > b'9' - b'.') & u8::from(byte.wrapping_sub(b'a') > 25)
    };
    text.iter().fold(0, |found, byte| found | odd(*byte)) != 0
}

#[cfg(test)]
mod tests;
