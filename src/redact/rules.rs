//! What is redacted: settings, checked, and as text that travels with a session.

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Value as Json, json};

use super::LOOKS;
use super::names::NAMES;
use super::tokens::TOKENS;
use crate::error::shown;

/// Names or patterns that one may add.
const OWN_MAX: usize = 64;
/// Bytes of each.
const OWN_BYTES_MAX: usize = 256;
/// Bytes of the text of all rules: it is one entry of the registry.
const TEXT_BYTES_MAX: usize = 60_000;
/// Size that a pattern may take when it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 18;

/// What is redacted. The default: on, with the built-in names and looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether anything is.
    pub on: bool,
    /// Names of fields, besides the built-in ones. At most 64, of at most 256 bytes.
    pub names: Vec<String>,
    /// Regular expressions for texts, besides the built-in looks; what they match is replaced. At
    /// most 64, of at most 256 bytes.
    pub patterns: Vec<String>,
    /// Built-in names and looks that stay as they are; `docs/SECURITY.md` lists them.
    pub keep: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            on: true,
            names: Vec::new(),
            patterns: Vec::new(),
            keep: Vec::new(),
        }
    }
}

/// Why rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A name has no letter at its end, is too long, or has other characters than printable ASCII.
    #[error(
        "a name has up to 256 printable ASCII characters and ends with a letter: not {:?}",
        shown(.0)
    )]
    Name(String),
    /// A pattern is no regular expression, or too large.
    #[error("not a regular expression that can be used: {0}")]
    Pattern(String),
    /// What is to be kept is not built in.
    #[error("{:?} is neither a built-in name nor a built-in look: {}", shown(.0), built_in_list())]
    Keep(String),
    /// Too many names or patterns.
    #[error("at most 64 names and 64 patterns can be added, of 60,000 bytes together")]
    TooMany,
}

impl Rules {
    /// Checks every name and pattern.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.names.len() > OWN_MAX || self.patterns.len() > OWN_MAX || self.keep.len() > OWN_MAX
        {
            return Err(RuleError::TooMany);
        }
        for name in &self.names {
            let ends = name
                .bytes()
                .last()
                .is_some_and(|byte| byte.is_ascii_alphabetic());
            let graphic = name.bytes().all(|byte| byte.is_ascii_graphic());
            if !ends || !graphic || name.len() > OWN_BYTES_MAX {
                return Err(RuleError::Name(name.clone()));
            }
        }
        for kept in &self.keep {
            if !built_in().any(|name| name == kept) {
                return Err(RuleError::Keep(kept.clone()));
            }
        }
        self.patterns
            .iter()
            .try_for_each(|text| pattern(text).map(drop))?;
        if self.to_json().to_string().len() > TEXT_BYTES_MAX {
            return Err(RuleError::TooMany);
        }
        Ok(())
    }

    pub(super) fn keeps(&self, name: &str) -> bool {
        self.keep.iter().any(|kept| kept == name)
    }

    /// As text: a JSON object.
    pub(crate) fn to_json(&self) -> Json {
        json!({
            "on": self.on,
            "names": self.names,
            "patterns": self.patterns,
            "keep": self.keep,
        })
    }

    /// From the text of [`to_json`](Self::to_json); `None` when it is something else or breaks a
    /// bound. Members that are missing have their default.
    pub(crate) fn from_text(text: &[u8]) -> Option<Self> {
        let json: Json = serde_json::from_slice(text).ok()?;
        let json = json.as_object()?;
        let list = |name: &str| match json.get(name) {
            None => Some(Vec::new()),
            Some(list) => {
                let texts = list.as_array()?.iter();
                texts.map(|text| Some(text.as_str()?.to_owned())).collect()
            }
        };
        let rules = Self {
            on: json.get("on").is_none_or(|on| on != false),
            names: list("names")?,
            patterns: list("patterns")?,
            keep: list("keep")?,
        };
        rules.check().ok()?;
        Some(rules)
    }
}

pub(super) fn pattern(text: &str) -> Result<Regex, RuleError> {
    let fail = |why: String| RuleError::Pattern(format!("{:?}: {why}", shown(text)));
    if text.len() > OWN_BYTES_MAX {
        return Err(fail(format!("longer than {OWN_BYTES_MAX} bytes")));
    }
    let built = RegexBuilder::new(text)
        .size_limit(PATTERN_BYTES_MAX)
        .build();
    let regex = built.map_err(|error| fail(error.to_string()))?;
    if regex.is_match("") {
        return Err(fail("it matches nothing at all".to_owned()));
    }
    Ok(regex)
}

/// What [`Rules::keep`] may name.
pub(crate) fn built_in() -> impl Iterator<Item = &'static str> {
    let mut looks: Vec<&str> = LOOKS.iter().map(|(_, _, name)| *name).collect();
    looks.extend(TOKENS.iter().map(|token| token.name));
    looks.dedup();
    NAMES.into_iter().chain(looks)
}

fn built_in_list() -> String {
    built_in().collect::<Vec<_>>().join(", ")
}
