//! Fields of a record of another interface, gathered within bounds before they are pushed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::record::{Extra, Value, cut_text};
use crate::redact::{REDACTED, Redactor};

/// Fields of the caller that a record has at most.
const OWN_FIELDS_MAX: usize = 32;
/// The same, and the number of those that were left out.
pub(super) const FIELDS_MAX: usize = OWN_FIELDS_MAX + 1;
/// Bytes of all texts of a record.
const TEXTS_BYTES_MAX: usize = 16 << 10;
/// Bytes of one text.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// What a text, or a name, ends with that was cut.
const CUT: &str = "...";
/// Bytes of texts that a thread keeps for its next record.
const KEPT_BYTES_MAX: usize = 2 * TEXTS_BYTES_MAX;

/// Last words of names whose values are addresses: what follows a `?` in them is a query.
const ADDRESSES: [&str; 8] = [
    "uri",
    "url",
    "full",
    "target",
    "path",
    "path_and_query",
    "referer",
    "location",
];
/// Names whose whole value may be secret, and is found by no look.
const WHOLE: [&str; 4] = ["headers", "url.query", "http.query", "query_string"];

thread_local! {
    static KEPT: RefCell<Option<Fields>> = const { RefCell::new(None) };
}

/// Fields with their types.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    texts: String,
    all: Vec<Field>,
    left_out: u64,
}

#[derive(Clone, Debug)]
struct Field {
    name: Range<usize>,
    value: Typed,
}

#[cfg(feature = "tracing")]
impl Field {
    /// Where its texts are: those of a field lie behind each other, and before those of the next.
    fn texts(&self) -> Range<usize> {
        match &self.value {
            Typed::Plain(_) => self.name.clone(),
            Typed::Text(value) | Typed::Number(value) => self.name.start..value.end,
        }
    }

    /// Its texts have moved.
    fn move_back(&mut self, bytes: usize) {
        let back = |range: &mut Range<usize>| *range = range.start - bytes..range.end - bytes;
        back(&mut self.name);
        match &mut self.value {
            Typed::Plain(_) => {}
            Typed::Text(value) | Typed::Number(value) => back(value),
        }
    }
}

#[derive(Clone, Debug)]
enum Typed {
    Plain(Value<'static>),
    Text(Range<usize>),
    /// JSON text of a number.
    Number(Range<usize>),
}

impl Fields {
    /// Calls `gather` with an empty set: one that the thread keeps, unless it is in use, because a
    /// value that is being formatted logs something itself.
    pub(super) fn with<T>(gather: impl FnOnce(&mut Self) -> T) -> T {
        let kept = KEPT.try_with(|kept| kept.try_borrow_mut().ok()?.take());
        let mut fields = kept.ok().flatten().unwrap_or_default();
        let result = gather(&mut fields);
        if fields.texts.capacity() <= KEPT_BYTES_MAX {
            fields.clear();
            // When the thread is ending there is nowhere to keep it, and no need to.
            KEPT.try_with(|kept| {
                kept.try_borrow_mut()
                    .map(|mut kept| *kept = Some(fields))
                    .ok()
            })
            .ok();
        }
        result
    }

    fn clear(&mut self) {
        self.texts.clear();
        self.all.clear();
        self.left_out = 0;
    }

    pub(super) fn plain(&mut self, name: &str, value: impl Into<Value<'static>>) {
        self.put(name, |_| Typed::Plain(value.into()));
    }

    /// A whole number of any size.
    pub(super) fn number(&mut self, name: &str, number: impl fmt::Display) {
        self.put(name, |fields| {
            let begin = fields.texts.len();
            fields.append(TEXT_BYTES_MAX, |out| write!(out, "{number}"));
            Typed::Number(begin..fields.texts.len())
        });
    }

    /// A text, or whatever can be formatted.
    pub(super) fn text(&mut self, name: &str, value: impl fmt::Display) {
        if WHOLE.contains(&name) {
            return self.put(name, |fields| fields.literal(REDACTED));
        }
        let is_address = name
            .rsplit('.')
            .next()
            .is_some_and(|last| ADDRESSES.contains(&last));
        self.put(name, |fields| {
            let begin = fields.texts.len();
            let formatted = catch_unwind(AssertUnwindSafe(|| {
                fields.append(TEXT_BYTES_MAX, |out| write!(out, "{value}"));
            }));
            if formatted.is_err() {
                fields.texts.truncate(begin);
                return fields.literal("[panicked]");
            }
            if is_address {
                fields.drop_query(begin);
            }
            Typed::Text(begin..fields.texts.len())
        });
    }

    fn literal(&mut self, text: &str) -> Typed {
        let begin = self.texts.len();
        self.texts.push_str(text);
        Typed::Text(begin..self.texts.len())
    }

    /// Puts `[redacted]` in the place of each query in the text from `begin` on: of all up to a
    /// white space but for closing characters before it, which may be in a query too.
    fn drop_query(&mut self, mut begin: usize) {
        while let Some(at) = self.texts[begin..].find('?') {
            let query = begin + at + 1;
            let rest = &self.texts[query..];
            let rest = &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())];
            let closing = |c| matches!(c, '"' | '\'' | '>' | ')' | ']' | '}' | ',' | ';');
            let end = query + rest.trim_end_matches(closing).len();
            self.texts.replace_range(query..end, REDACTED);
            begin = query + REDACTED.len();
        }
    }

    fn put(&mut self, name: &str, value: impl FnOnce(&mut Self) -> Typed) {
        if self.all.len() == OWN_FIELDS_MAX {
            self.left_out += 1;
            return;
        }
        let begin = self.texts.len();
        let is_cut = name.len() > NAME_BYTES_MAX;
        if is_cut {
            self.texts
                .push_str(cut_text(name, NAME_BYTES_MAX - CUT.len()));
            self.texts.push_str(CUT);
        } else {
            self.texts.push_str(name);
        }
        // What is left of a name need not tell that its value is a secret.
        let is_secret = is_cut && Redactor::built_in().is_secret_name(name.as_bytes());
        let name = begin..self.texts.len();
        let value = if is_secret {
            self.literal(REDACTED)
        } else {
            value(self)
        };
        self.all.push(Field { name, value });
    }

    /// Appends at most `most` bytes of what `write` writes, and fewer where there is no more room.
    fn append(&mut self, most: usize, write: impl FnOnce(&mut Bounded<'_>) -> fmt::Result) {
        let begin = self.texts.len();
        let end = TEXTS_BYTES_MAX.min(begin + most);
        let mut out = Bounded {
            text: &mut self.texts,
            end,
            is_full: false,
        };
        // An error tells that it is full, or comes from the value: then this is all it has to say.
        let _: fmt::Result = write(&mut out);
        if out.is_full {
            // A secret that was cut is not known by its look any more.
            let clean = Redactor::built_in().clean_cut(&self.texts[begin..]);
            if let Cow::Owned(clean) = clean {
                self.texts.replace_range(begin.., &clean);
            }
            self.texts.push_str(CUT);
        }
    }

    /// Appends all fields to `room`; returns how many there are then.
    pub(super) fn extras<'a>(&'a self, room: &mut [Extra<'a>], mut count: usize) -> usize {
        let text = |range: &Range<usize>| self.texts.get(range.clone()).unwrap_or_default();
        let mut put = |extra| {
            if let Some(place) = room.get_mut(count) {
                *place = extra;
                count += 1;
            }
        };
        for field in &self.all {
            let value = match &field.value {
                Typed::Plain(value) => *value,
                Typed::Text(range) => Value::Text(text(range)),
                Typed::Number(range) => Value::Number(text(range)),
            };
            put(Extra::new(text(&field.name), value));
        }
        if self.left_out > 0 {
            put(Extra::new("fields_left_out", self.left_out));
        }
        count
    }

    /// Takes over the fields of another set; a name that it has already gets the new value.
    #[cfg(feature = "tracing")]
    pub(super) fn append_all(&mut self, other: &Self) {
        for field in &other.all {
            let name = &other.texts[field.name.clone()];
            let same = |own: &Field| self.texts[own.name.clone()] == *name;
            if let Some(same) = self.all.iter().position(same) {
                self.remove(same);
            }
            match &field.value {
                Typed::Plain(value) => self.plain(name, *value),
                Typed::Number(range) => self.number(name, &other.texts[range.clone()]),
                // Not `text`, which looks for a query a second time.
                Typed::Text(range) => self.put(name, |fields| {
                    let begin = fields.texts.len();
                    let text = &other.texts[range.clone()];
                    fields.append(TEXT_BYTES_MAX, |out| out.write_str(text));
                    Typed::Text(begin..fields.texts.len())
                }),
            }
        }
        self.left_out += other.left_out;
    }

    /// Removes a field and its texts, so that there is room for another value.
    #[cfg(feature = "tracing")]
    fn remove(&mut self, at: usize) {
        let gone = self.all.remove(at).texts();
        self.texts.drain(gone.clone());
        for later in &mut self.all[at..] {
            later.move_back(gone.len());
        }
    }

    /// The text of a field.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        let text = |range: &Range<usize>| self.texts.get(range.clone());
        let field = self
            .all
            .iter()
            .find(|field| text(&field.name) == Some(name))?;
        match &field.value {
            Typed::Text(range) => text(range),
            Typed::Plain(_) | Typed::Number(_) => None,
        }
    }
}

/// Writes up to a bound.
struct Bounded<'a> {
    text: &'a mut String,
    end: usize,
    is_full: bool,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_full {
            return Err(fmt::Error);
        }
        let room = self.end.saturating_sub(self.text.len());
        let fits = cut_text(text, room);
        self.text.push_str(fits);
        self.is_full = fits.len() < text.len();
        if self.is_full {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(gather: impl FnOnce(&mut Fields)) -> Vec<(String, String)> {
        Fields::with(|fields| {
            gather(fields);
            let mut room = [Extra::default(); FIELDS_MAX];
            let count = fields.extras(&mut room, 0);
            let tell = |extra: &Extra<'_>| {
                let value = match extra.value {
                    Value::Text(text) | Value::Number(text) => text.to_owned(),
                    value => format!("{value:?}"),
                };
                (extra.key.text().to_owned(), value)
            };
            room[..count].iter().map(tell).collect()
        })
    }

    #[test]
    fn queries_and_headers_are_not_kept() {
        let cases = [
            ("uri", "/a?token=x", "/a?[redacted]"),
            (
                "http.url",
                "http://h/p?a=1&b=2 HTTP",
                "http://h/p?[redacted] HTTP",
            ),
            ("url.full", "\"http://h/p?a\"", "\"http://h/p?[redacted]\""),
            ("path", "/a/b", "/a/b"),
            ("message", "why? because", "why? because"),
            ("headers", "{\"cookie\": \"x\"}", "[redacted]"),
            ("url.query", "a=1", "[redacted]"),
            // Brackets and quotes are allowed in a query.
            ("uri", "/a?q=(b)&code=x", "/a?[redacted]"),
            (
                "url",
                "Url(\"http://h/a?q='b'&code=x\")",
                "Url(\"http://h/a?[redacted]\")",
            ),
            (
                "location",
                "http://h/a?x=1, http://h/b?y=2",
                "http://h/a?[redacted], http://h/b?[redacted]",
            ),
        ];
        for (name, value, kept) in cases {
            let all = told(|fields| fields.text(name, value));
            assert_eq!(all, [(name.to_owned(), kept.to_owned())]);
        }
    }

    #[test]
    fn texts_fields_and_names_are_bounded() {
        let long = "\u{e4}".repeat(20_000);
        let all = told(|fields| {
            for _ in 0..OWN_FIELDS_MAX + 5 {
                fields.text(&long, &long);
            }
        });
        assert_eq!(all.len(), FIELDS_MAX);
        assert_eq!(
            all[OWN_FIELDS_MAX],
            ("fields_left_out".to_owned(), "U64(5)".to_owned())
        );
        let bytes: usize = all
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(
            bytes < TEXTS_BYTES_MAX + FIELDS_MAX * (NAME_BYTES_MAX + 4),
            "{bytes}"
        );
        assert!(all[0].1.ends_with("\u{e4}..."));
        assert_eq!(all[31].1, CUT);
    }

    /// A field of a span that lives long is recorded again and again.
    #[cfg(feature = "tracing")]
    #[test]
    fn a_value_takes_the_place_of_the_one_before() {
        let mut later = Fields::default();
        let long = "y".repeat(5000);
        for round in 0..10_000_u64 {
            let mut more = Fields::default();
            more.plain("done", round);
            more.text("step", &long);
            more.number("bytes", u128::from(round));
            later.append_all(&more);
            assert!(later.texts.len() < 6000, "{} bytes", later.texts.len());
        }
        let mut room = [Extra::default(); FIELDS_MAX];
        let count = later.extras(&mut room, 0);
        let expected = [
            Extra::new("done", 9_999_u64),
            Extra::new("step", long.as_str()),
            Extra::new("bytes", Value::Number("9999")),
        ];
        assert_eq!(room[..count], expected);
    }

    /// What it is known by is behind the cut.
    #[test]
    fn secrets_that_are_cut_are_not_told() {
        let url = format!(
            "{} postgres://app:{}",
            "y".repeat(8000),
            "hunter2".repeat(99)
        );
        let name = format!("{}.password", "n".repeat(90));
        let all = told(|fields| {
            fields.text("message", &url);
            fields.text(&name, "hunter2");
            fields.plain(&name, 1234_u64);
        });
        assert!(
            all[0].1.ends_with(" postgres://app:[redacted]..."),
            "{all:?}"
        );
        let name = format!("{}...", "n".repeat(61));
        assert_eq!(all[1], (name.clone(), REDACTED.to_owned()));
        assert_eq!(all[2], (name, REDACTED.to_owned()));
    }

    /// Goes on after an error.
    struct Stubborn;
    impl fmt::Display for Stubborn {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let _: fmt::Result = f.write_str(&"y".repeat(2 * TEXT_BYTES_MAX));
            f.write_str("")
        }
    }

    #[test]
    fn a_cut_is_told_whatever_a_value_goes_on_with() {
        let all = told(|fields| fields.text("a", Stubborn));
        assert!(all[0].1.ends_with("y..."));
    }

    struct Panics;
    impl fmt::Display for Panics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half of")?;
            std::panic::resume_unwind(Box::new("on purpose"))
        }
    }

    /// Logs while it is being logged.
    struct Logs;
    impl fmt::Display for Logs {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let inner = told(|fields| fields.text("inner", 1));
            write!(f, "{}", inner[0].1)
        }
    }

    #[test]
    fn values_may_panic_and_log() {
        let all = told(|fields| {
            fields.text("a", Panics);
            fields.text("b", Logs);
            fields.number("c", u128::MAX);
        });
        let values: Vec<&str> = all.iter().map(|(_, value)| &**value).collect();
        assert_eq!(values, ["[panicked]", "1", &*u128::MAX.to_string()]);
    }
}
