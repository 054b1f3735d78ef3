//! One line of an existing log: a JSON object, taken apart without losing anything.
//!
//! Numbers keep their text, nested values keep their JSON, order stays. What a conversion would
//! write differently (values nested too deep, half a surrogate pair) makes the line a bad one:
//! a line is recorded as it is or not at all.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde_core::de::{DeserializeSeed, MapAccess, Visitor};
use serde_core::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::time::parse_time;
use crate::record::{EXTRAS_MAX, Extra, Value};

/// The longest line in bytes. A field takes at most as many bytes in a record as in its line, so
/// that such a line, its header and an `original_timestamp` fit into `record_bytes_max` (1 MiB).
pub const LINE_BYTES_MAX: usize = (1 << 20) - 256;
/// The deepest value that a conversion writes as JSON; deeper ones it writes as a string.
const DEPTH_MAX: usize = 126;
/// Fields that every line has and the engine writes itself.
const COMMON: [&str; 3] = ["session_id", "timestamp", "elapsed_seconds"];

/// A line that can be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<'a> {
    /// All fields but the three common ones, in order.
    pub fields: Vec<(Cow<'a, str>, Field<'a>)>,
    /// The field `timestamp`.
    pub timestamp: Option<Field<'a>>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// JSON null.
    Null,
    /// JSON true or false.
    Bool(bool),
    /// The text of a number.
    Number(&'a str),
    /// A decoded string.
    Text(Cow<'a, str>),
    /// An array or an object.
    Json(&'a str),
}

/// Why a line cannot be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// Longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    NotJson {
        /// What is wrong.
        what: String,
        /// Byte of the line, from 1.
        column: usize,
    },
    /// JSON, but not an object.
    NotObject,
    /// Two fields have this name.
    DuplicateKey(String),
    /// The value of this field is nested too deep.
    TooDeep(String),
    /// The value of this field has half a surrogate pair in an escape: JSON, but no text.
    HalfSurrogate(String),
    /// More fields than a record can have.
    TooManyFields,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {LINE_BYTES_MAX} bytes"),
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::NotJson { what, column } => write!(f, "not JSON: {what} at column {column}"),
            Self::NotObject => f.write_str("not a JSON object"),
            Self::DuplicateKey(key) => write!(f, "two fields are called {key:?}"),
            Self::TooDeep(key) => write!(f, "{key:?} is nested more than {DEPTH_MAX} deep"),
            Self::HalfSurrogate(key) => write!(f, "{key:?} has half a surrogate pair"),
            Self::TooManyFields => write!(f, "more than {} fields", EXTRAS_MAX - 1),
        }
    }
}

impl Field<'_> {
    /// As the value of an extra field.
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Number(text) => Value::Number(text),
            Self::Text(text) => Value::Text(text),
            Self::Json(text) => Value::Json(text),
        }
    }
}

impl Parsed<'_> {
    /// The fields as extra fields; with `original_time` the timestamp follows as
    /// `original_timestamp`.
    pub fn extras(&self, original_time: bool) -> Vec<Extra<'_>> {
        let fields = self.fields.iter();
        let mut extras: Vec<_> = fields
            .map(|(key, field)| Extra::new(&**key, field.value()))
            .collect();
        if let Some(timestamp) = self.timestamp.as_ref().filter(|_| original_time) {
            extras.push(Extra::new("original_timestamp", timestamp.value()));
        }
        extras
    }

    /// The time since 1970 that `timestamp` says, if it is one.
    pub fn time(&self) -> Option<Duration> {
        match &self.timestamp {
            Some(Field::Text(text)) => parse_time(text),
            _ => None,
        }
    }
}

/// Takes one line apart (without its line end). Total: any text gives a result.
///
/// # Errors
/// When the line is not one JSON object that can be recorded as it is.
pub fn parse_line(line: &str) -> Result<Parsed<'_>, BadLine> {
    if line.len() > LINE_BYTES_MAX {
        return Err(BadLine::TooLong);
    }
    let is_object = line
        .trim_start_matches([' ', '\t', '\r', '\n'])
        .starts_with('{');
    if !is_object {
        return Err(match serde_json::from_str::<&RawValue>(line) {
            Ok(_) => BadLine::NotObject,
            Err(error) => not_json(line, &error),
        });
    }
    let Members(members) = serde_json::from_str(line).map_err(|error| not_json(line, &error))?;
    if members.len() >= EXTRAS_MAX {
        return Err(BadLine::TooManyFields);
    }
    if let Some(key) = duplicate(&members) {
        return Err(BadLine::DuplicateKey(key.to_owned()));
    }
    let mut parsed = Parsed {
        fields: Vec::with_capacity(members.len()),
        timestamp: None,
    };
    for (key, raw) in members {
        let raw = raw.get();
        if depth(raw) > DEPTH_MAX {
            return Err(BadLine::TooDeep(key.into_owned()));
        }
        if COMMON.contains(&&*key) && key != "timestamp" {
            continue;
        }
        let Some(field) = field(raw) else {
            return Err(BadLine::HalfSurrogate(key.into_owned()));
        };
        if key == "timestamp" {
            parsed.timestamp = Some(field);
        } else {
            parsed.fields.push((key, field));
        }
    }
    Ok(parsed)
}

/// The members of an object in order, names decoded, values as they stand.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            members.push((key, map.next_value()?));
        }
        Ok(Members(members))
    }
}

/// A string, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The value behind valid JSON text. `None` when an escape in it is half a surrogate pair.
fn field(raw: &str) -> Option<Field<'_>> {
    Some(match raw.as_bytes().first() {
        Some(b'n') => Field::Null,
        Some(b't') => Field::Bool(true),
        Some(b'f') => Field::Bool(false),
        Some(b'"') => {
            let mut json = serde_json::Deserializer::from_str(raw);
            // The text is valid JSON, so nothing else can be wrong with it.
            Field::Text(Key.deserialize(&mut json).ok()?)
        }
        Some(b'[' | b'{') if has_half_surrogate(raw) => return None,
        Some(b'[' | b'{') => Field::Json(raw),
        _ => Field::Number(raw),
    })
}

/// Whether an escape in valid JSON text is half a surrogate pair.
fn has_half_surrogate(raw: &str) -> bool {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at..];
        let escape_bytes = match escaped_unit(rest) {
            Some(0xd800..=0xdbff) => {
                let low = rest.get(6..).and_then(escaped_unit);
                if !matches!(low, Some(0xdc00..=0xdfff)) {
                    return true;
                }
                12
            }
            Some(0xdc00..=0xdfff) => return true,
            Some(_) => 6,
            None => 2,
        };
        rest = rest.get(escape_bytes..).unwrap_or_default();
    }
    false
}

/// The UTF-16 unit of an escape `\uXXXX` at the start of `text`.
fn escaped_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

/// How deep arrays and objects are nested in valid JSON text.
fn depth(raw: &str) -> usize {
    if !raw.starts_with(['[', '{']) {
        return 0;
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in raw.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The first name that occurs a second time.
fn duplicate<'m>(members: &'m [(Cow<'_, str>, &RawValue)]) -> Option<&'m str> {
    // A line has about ten fields: comparing them is cheaper than hashing them.
    const FEW: usize = 16;
    if members.len() <= FEW {
        let again = |index: usize| members[..index].iter().any(|m| m.0 == members[index].0);
        let index = (0..members.len()).find(|index| again(*index))?;
        return Some(&members[index].0);
    }
    let mut seen = HashSet::with_capacity(members.len());
    members
        .iter()
        .map(|(key, _)| &**key)
        .find(|key| !seen.insert(*key))
}

fn not_json(line: &str, error: &serde_json::Error) -> BadLine {
    let column = error.column();
    let from = column.saturating_sub(2);
    let near = line.get(from..).unwrap_or_default();
    // The two literals that Python writes although JSON has no such numbers.
    let literal = ["NaN", "Infinity"].into_iter().find(|literal| {
        near.get(..literal.len() + 2)
            .unwrap_or(near)
            .contains(literal)
    });
    let what = if let Some(literal) = literal {
        format!("{literal} is not a JSON number")
    } else {
        let text = error.to_string();
        let end = text.rfind(" at line ").unwrap_or(text.len());
        text[..end].to_owned()
    };
    BadLine::NotJson { what, column }
}

#[cfg(test)]
mod tests;
