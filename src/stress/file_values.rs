//! Values in a file of rules.

use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::SPAN_MAX;
use super::rule::{Episode, Limit, Pattern, Severity, Test};

/// What is wrong in a text of rules, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Offset in the text.
    pub(super) at: usize,
    /// What it is, and what it can be.
    pub(super) what: String,
}

pub(super) type Value<'t, 'i> = &'t Spanned<DeValue<'i>>;

pub(super) fn wrong<T>(at: usize, what: impl Into<String>) -> Result<T, Wrong> {
    let what = what.into();
    Err(Wrong { at, what })
}

pub(super) fn at(value: Value<'_, '_>) -> usize {
    value.span().start
}

pub(super) fn fields<'t, 'i>(
    value: Value<'t, 'i>,
    example: &str,
) -> Result<&'t DeTable<'i>, Wrong> {
    match value.get_ref().as_table() {
        Some(table) => Ok(table),
        None => wrong(at(value), format!("give a table: {example}")),
    }
}

/// `{ field = "text", other = ["a", "!b"] }`
pub(super) fn tests(value: Value<'_, '_>) -> Result<Vec<Test>, Wrong> {
    let table = fields(value, "{ operation = \"start_*\" }")?;
    let tests = table.iter().map(|(key, value)| {
        let texts = list(value)?;
        if texts.is_empty() {
            return wrong(at(value), "give at least one text");
        }
        let not = texts.iter().all(|text| text.starts_with('!'));
        if !not && texts.iter().any(|text| text.starts_with('!')) {
            return wrong(at(value), "either all texts begin with ! or none does");
        }
        let texts = texts.iter().map(|text| text.trim_start_matches('!'));
        Ok(Test {
            field: key.get_ref().to_string(),
            patterns: texts
                .map(|text| pattern(value, text))
                .collect::<Result<_, _>>()?,
            not,
        })
    });
    tests.collect()
}

/// One text or several.
pub(super) fn list(value: Value<'_, '_>) -> Result<Vec<String>, Wrong> {
    if let Some(text) = value.get_ref().as_str() {
        return Ok(vec![text.to_owned()]);
    }
    let Some(array) = value.get_ref().as_array() else {
        return wrong(at(value), "give a text or a list of texts");
    };
    array
        .iter()
        .map(|one| Ok(string(one)?.to_owned()))
        .collect()
}

pub(super) fn patterns(value: Value<'_, '_>) -> Result<Vec<Pattern>, Wrong> {
    let texts = list(value)?;
    texts.iter().map(|text| pattern(value, text)).collect()
}

fn pattern(value: Value<'_, '_>, text: &str) -> Result<Pattern, Wrong> {
    if text.starts_with('*') && !text.ends_with('*') {
        return wrong(
            at(value),
            "a text is x, x* (its beginning) or *x* (any part)",
        );
    }
    Ok(Pattern::new(text))
}

pub(super) fn string<'t>(value: Value<'t, '_>) -> Result<&'t str, Wrong> {
    match value.get_ref().as_str() {
        Some(text) => Ok(text),
        None => wrong(at(value), "give a text in quotes"),
    }
}

pub(super) fn flag(value: Value<'_, '_>) -> Result<bool, Wrong> {
    match value.get_ref().as_bool() {
        Some(flag) => Ok(flag),
        None => wrong(at(value), "give true or false"),
    }
}

pub(super) fn number(value: Value<'_, '_>) -> Result<f64, Wrong> {
    let text = match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
        DeValue::Float(number) => Some(number.as_str()),
        _ => None,
    };
    match text.and_then(|text| text.parse().ok()) {
        Some(number) => Ok(number),
        None => wrong(at(value), "give a number"),
    }
}

pub(super) fn whole(value: Value<'_, '_>) -> Result<u32, Wrong> {
    let text = match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
        _ => None,
    };
    match text.and_then(|text| text.parse().ok()) {
        Some(number) => Ok(number),
        None => wrong(at(value), "give a whole number, such as 10"),
    }
}

/// A duration (a text) or a number.
pub(super) fn limit(value: Value<'_, '_>) -> Result<Limit, Wrong> {
    if value.get_ref().as_str().is_some() {
        return time(value).map(Limit::Time);
    }
    match number(value) {
        Ok(number) => Ok(Limit::Number(number)),
        Err(_) => wrong(at(value), "give a duration such as \"5s\", or a number"),
    }
}

pub(super) fn time(value: Value<'_, '_>) -> Result<Duration, Wrong> {
    match value.get_ref().as_str().and_then(parse_time) {
        Some(time) => Ok(time),
        None => wrong(
            at(value),
            "give a duration of at most a year, such as \"250ms\", \"12.5s\", \"1m\"",
        ),
    }
}

/// A decimal number and `ns`, `us`, `ms`, `s`, `m` or `h`.
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let ns = match &text[digits.len()..] {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000_u64,
        _ => return None,
    };
    let digits = digits.trim();
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let scale = 10_u128.pow(fraction.len() as u32);
    let part: u128 = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    let part = part * u128::from(ns) / scale;
    let sum = u128::from(whole.checked_mul(ns)?) + part;
    let time = Duration::from_nanos(u64::try_from(sum).ok()?);
    (time <= SPAN_MAX).then_some(time)
}

pub(super) fn severity(value: Value<'_, '_>) -> Result<Severity, Wrong> {
    let all = [Severity::Info, Severity::Warning, Severity::Critical];
    let text = value.get_ref().as_str();
    match all.into_iter().find(|one| Some(one.name()) == text) {
        Some(severity) => Ok(severity),
        None => wrong(at(value), "give \"info\", \"warning\" or \"critical\""),
    }
}

pub(super) fn episode(value: Value<'_, '_>) -> Result<Episode, Wrong> {
    match value.get_ref().as_str() {
        Some("span") => Ok(Episode::Span),
        Some("record") => Ok(Episode::Record),
        _ => wrong(at(value), "give \"span\" or \"record\""),
    }
}
