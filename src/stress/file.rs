//! Rules in a TOML file: further ones, and changes of those that are there.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use toml::de::DeTable;

use super::file_values::{
    Value, Wrong, at, episode, fields, flag, limit, list, number, patterns, severity, string,
    tests, time, whole, wrong,
};
use super::rule::{Below, Condition, Detail, Rule, RuleSet};
use crate::error::{Error, shown};

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 10;

impl RuleSet {
    /// Adds the rules of a TOML file (`docs/DEBUG_MODE.md` describes it). A rule with the name of
    /// one that is there changes what the file says of it, and keeps the rest.
    ///
    /// # Errors
    /// [`Error::Setting`] with file, line and remedy; also when the file cannot be read.
    pub fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        let text = read(path)?;
        self.add(&text, &path.display().to_string())
    }

    /// Adds the rules of a text in that format; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Setting`] with name, line and remedy.
    pub fn add_toml(&mut self, text: &str, name: &str) -> Result<(), Error> {
        self.add(text, name)
    }

    fn add(&mut self, text: &str, name: &str) -> Result<(), Error> {
        let mut changed = self.clone();
        parse(text, &mut changed).map_err(|wrong| {
            let before = text.as_bytes().get(..wrong.at).unwrap_or(text.as_bytes());
            let line = before.split(|byte| *byte == b'\n').count();
            Error::Setting {
                name: "stress_rules".to_owned(),
                value: name.to_owned(),
                remedy: format!("line {line}: {}", wrong.what),
            }
        })?;
        *self = changed;
        Ok(())
    }
}

/// A key that there is not.
fn unknown(key: &str, instead: &str) -> String {
    format!("{}: {instead}", shown(key))
}

/// The built-in rules with those of `text`, or what is wrong. For fuzzing.
///
/// # Errors
/// As [`RuleSet::add_toml`].
#[doc(hidden)]
pub fn parse_rules(text: &str) -> Result<RuleSet, Error> {
    let mut set = RuleSet::default();
    set.add_toml(text, "rules")?;
    Ok(set)
}

/// The text of a file that the environment names: a plain file, not too long.
fn read(path: &Path) -> Result<String, Error> {
    let refuse = |remedy: &str| Error::Setting {
        name: "stress_rules".to_owned(),
        value: path.display().to_string(),
        remedy: remedy.to_owned(),
    };
    let mut options = File::options();
    // Not to wait for whoever writes to a pipe.
    options
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32);
    let cannot = |error: std::io::Error| refuse(&format!("cannot read it: {error}"));
    let file = options.open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(refuse("give the path of a plain file"));
    }
    let mut bytes = Vec::new();
    let mut start = file.take(FILE_BYTES_MAX + 1);
    start.read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refuse("a file of rules has at most 256 KiB"));
    }
    String::from_utf8(bytes).map_err(|_| refuse("a file of rules is UTF-8"))
}

fn parse(text: &str, set: &mut RuleSet) -> Result<(), Wrong> {
    let table = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        what: error.message().to_owned(),
    })?;
    for (key, value) in table.get_ref() {
        if key.get_ref() != "rule" {
            let what = format!("{}: there is only [[rule]] here", shown(key.get_ref()));
            return wrong(key.span().start, what);
        }
        let Some(rules) = value.get_ref().as_array() else {
            return wrong(at(value), "write [[rule]] before each rule");
        };
        for value in rules {
            let table = fields(value, "a rule is a table")?;
            let rule = rule(at(value), table, set)?;
            if let Err(what) = rule.check() {
                return wrong(at(value), format!("rule {}: {what}", shown(&rule.name)));
            }
            match set.rules.iter_mut().find(|one| one.name == rule.name) {
                Some(known) => *known = rule,
                None => set.rules.push(rule),
            }
            if let Err(error) = set.validate() {
                return wrong(at(value), error.to_string());
            }
        }
    }
    Ok(())
}

fn rule(start: usize, table: &DeTable<'_>, set: &RuleSet) -> Result<Rule, Wrong> {
    let Some(name) = table.get("name") else {
        return wrong(start, "a rule needs a name");
    };
    let name = string(name)?;
    let known = set.rules.iter().find(|rule| rule.name == name);
    let condition = table.iter().find_map(|(key, value)| {
        let read = condition_of(key.get_ref())?;
        Some(read(value))
    });
    let mut rule = match (known, condition) {
        (Some(known), None) => known.clone(),
        (Some(known), Some(condition)) => Rule {
            condition: condition?,
            ..known.clone()
        },
        (None, Some(condition)) => Rule::new(name, "", condition?),
        (None, None) => {
            return wrong(
                start,
                format!(
                    "rule {}: there is no such built-in rule, and a new one needs one of \
                     threshold, match, edge, ratio, rate, baseline",
                    shown(name)
                ),
            );
        }
    };
    let mut conditions = 0;
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "name" => {}
            "category" => string(value)?.clone_into(&mut rule.category),
            "on" => rule.on = flag(value)?,
            "severity" => rule.severity = severity(value)?,
            "where" => rule.tests = tests(value)?,
            "key" => rule.key = Some(string(value)?.to_owned()),
            "episode" => rule.episode = episode(value)?,
            "cooldown" => rule.cooldown = time(value)?,
            "burst" => rule.burst = whole(value)?,
            "description" => string(value)?.clone_into(&mut rule.description),
            "details" => {
                let details = list(value)?;
                rule.details = details.iter().map(|text| Detail::parse(text)).collect();
            }
            name if condition_of(name).is_some() => {
                conditions += 1;
                if conditions > 1 {
                    return wrong(key.span().start, "a rule has one condition");
                }
            }
            other => {
                return wrong(
                    key.span().start,
                    format!(
                        "{}: a rule has name, category, on, severity, where, key, episode, \
                         cooldown, burst, description, details, and one of threshold, match, \
                         edge, ratio, rate, baseline",
                        shown(other)
                    ),
                );
            }
        }
    }
    Ok(rule)
}

type ReadCondition = fn(Value<'_, '_>) -> Result<Condition, Wrong>;

fn condition_of(name: &str) -> Option<ReadCondition> {
    Some(match name {
        "threshold" => threshold,
        "match" => |value| Ok(Condition::Match { any: tests(value)? }),
        "edge" => edge,
        "ratio" => ratio,
        "rate" => rate,
        "baseline" => baseline,
        _ => return None,
    })
}

fn threshold(value: Value<'_, '_>) -> Result<Condition, Wrong> {
    let table = fields(
        value,
        "threshold = { field = \"duration_ms\", above = \"5s\" }",
    )?;
    let (mut names, mut over, mut under) = (Vec::new(), None, None);
    let (mut up_to, mut clear) = (None, None);
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "field" => names = list(value)?,
            "above" => over = Some(limit(value)?),
            "below" => under = Some(limit(value)?),
            "up_to" => up_to = Some(limit(value)?),
            "clear" => clear = Some(limit(value)?),
            other => {
                let what = unknown(other, "a threshold has field, above or below, up_to, clear");
                return wrong(key.span().start, what);
            }
        }
    }
    let (limit, below) = match (over, under) {
        (Some(limit), None) => (limit, Below::No),
        (None, Some(limit)) => (limit, Below::Yes),
        _ => return wrong(at(value), "a threshold has either above or below"),
    };
    Ok(Condition::Threshold {
        fields: names,
        limit,
        up_to,
        clear,
        below,
    })
}

fn edge(value: Value<'_, '_>) -> Result<Condition, Wrong> {
    let table = fields(
        value,
        "edge = { field = \"state\", from = \"closed\", to = \"open\" }",
    )?;
    let (mut names, mut previous) = (Vec::new(), None);
    let [mut from, mut to, mut clear] = [const { Vec::new() }; 3];
    let (mut from_unknown, mut or) = (false, Vec::new());
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "field" => names = list(value)?,
            "previous" => previous = Some(string(value)?.to_owned()),
            "from" => from = patterns(value)?,
            "to" => to = patterns(value)?,
            "clear" => clear = patterns(value)?,
            "from_unknown" => from_unknown = flag(value)?,
            "or" => or = tests(value)?,
            other => {
                let what = unknown(
                    other,
                    "an edge has field, previous, from, to, clear, from_unknown, or",
                );
                return wrong(key.span().start, what);
            }
        }
    }
    Ok(Condition::Edge {
        fields: names,
        previous,
        from,
        to,
        clear,
        from_unknown,
        or,
    })
}

fn ratio(value: Value<'_, '_>) -> Result<Condition, Wrong> {
    let example = "ratio = { part = \"unhealthy\", whole = \"total\", above = 0.3 }";
    let table = fields(value, example)?;
    let (mut part, mut total, mut above, mut clear) = (None, Vec::new(), None, None);
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "part" => part = Some(string(value)?.to_owned()),
            "whole" => total = list(value)?,
            "above" => above = Some(number(value)?),
            "clear" => clear = Some(number(value)?),
            other => {
                let what = unknown(other, "a ratio has part, whole, above, clear");
                return wrong(key.span().start, what);
            }
        }
    }
    let (Some(part), Some(limit)) = (part, above) else {
        return wrong(at(value), format!("a ratio is {example}"));
    };
    Ok(Condition::Ratio {
        part,
        whole: total,
        limit,
        clear,
    })
}

fn rate(value: Value<'_, '_>) -> Result<Condition, Wrong> {
    let table = fields(value, "rate = { more_than = 10, window = \"60s\" }")?;
    let (mut more_than, mut span, mut clear, mut counted) = (None, None, None, None);
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "more_than" => more_than = Some(whole(value)?),
            "window" => span = Some(time(value)?),
            "clear" => clear = Some(whole(value)?),
            "threshold" | "match" if counted.is_some() => {
                let what = "a rate counts a threshold or a match, not both";
                return wrong(at(value), what);
            }
            "threshold" => counted = Some(Box::new(threshold(value)?)),
            "match" => counted = Some(Box::new(Condition::Match { any: tests(value)? })),
            other => {
                let what = unknown(
                    other,
                    "a rate has more_than, window, clear, threshold or match",
                );
                return wrong(key.span().start, what);
            }
        }
    }
    let (Some(more_than), Some(span)) = (more_than, span) else {
        return wrong(at(value), "a rate has more_than and window");
    };
    Ok(Condition::Rate {
        counted,
        more_than,
        span,
        clear,
    })
}

fn baseline(value: Value<'_, '_>) -> Result<Condition, Wrong> {
    let table = fields(value, "baseline = { field = \"duration_ms\", times = 3 }")?;
    let (mut names, mut quantile, mut factor) = (Vec::new(), 0.9, None);
    let (mut samples, mut clear) = (20, None);
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "field" => names = list(value)?,
            "quantile" => quantile = number(value)?,
            "times" => factor = Some(number(value)?),
            "samples" => samples = whole(value)?,
            "clear" => clear = Some(number(value)?),
            other => {
                let what = unknown(
                    other,
                    "a baseline has field, quantile, times, samples, clear",
                );
                return wrong(key.span().start, what);
            }
        }
    }
    let Some(factor) = factor else {
        return wrong(at(value), "a baseline has times, such as times = 3");
    };
    Ok(Condition::Baseline {
        fields: names,
        quantile,
        factor,
        samples,
        clear,
    })
}

#[cfg(all(test, not(loom)))]
#[path = "file_tests.rs"]
mod file_tests;
