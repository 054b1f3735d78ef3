//! What a rule tells: name, severity, a sentence, fields.

use std::fmt::{self, Write};

use super::compile::{Category, Check, Compiled, Level, Values};
use super::evaluate::{Firing, Rules};
use super::rule::{Detail, Severity};
use super::state::{Reading, Told};
use super::value::{FieldValue, unit_of};
use crate::record::cut_text;

/// Begin or end of an episode of a rule.
#[derive(Clone, Copy, Debug)]
pub struct StressEvent<'a> {
    compiled: &'a Compiled,
    category: &'a Category,
    values: &'a Values<'a>,
    firing: &'a Firing,
}

/// Bytes of a description; what is longer is cut.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 512;

/// The most fields that [`StressEvent::fields`] gives.
pub(crate) const EVENT_FIELDS_MAX: usize = super::check::DETAILS_MAX + 6;

impl<'a> StressEvent<'a> {
    pub(super) fn new(
        rules: &'a Rules,
        category: &'a Category,
        values: &'a Values<'a>,
        firing: &'a Firing,
    ) -> Option<Self> {
        Some(Self {
            compiled: rules.compiled.get(usize::from(firing.rule))?,
            category,
            values,
            firing,
        })
    }

    /// The name of the rule; `{name}_cleared` at the end of an episode.
    pub fn event_type(&self) -> &'a str {
        match self.firing.told {
            Told::Begin { .. } => &self.compiled.rule.name,
            Told::End { .. } => &self.compiled.cleared_name,
        }
    }

    /// Whether an episode ended.
    pub fn is_end(&self) -> bool {
        matches!(self.firing.told, Told::End { .. })
    }

    /// That of the rule; `Info` at the end of an episode.
    pub fn severity(&self) -> Severity {
        if self.is_end() {
            Severity::Info
        } else {
            self.compiled.rule.severity
        }
    }

    /// A sentence for people.
    pub fn description(&self) -> impl fmt::Display {
        Description(*self)
    }

    /// Calls `field` with each further field: the details of the rule, what the rule has measured,
    /// and `rule_seq`, the number of this update of the rule's state.
    pub fn fields(&self, mut field: impl FnMut(&'a str, FieldValue<'a>)) {
        let rule = &self.compiled.rule;
        for (detail, source) in rule.details.iter().zip(&self.compiled.details) {
            field(&detail.name, shown(detail, self.values.get(*source)));
        }
        match self.firing.told {
            Told::Begin { value, suppressed } => {
                if let (Check::Rate(..), Reading::Number(count)) = (&self.compiled.check, value) {
                    field("count", FieldValue::U64(count as u64));
                    field("window", FieldValue::Text(&self.compiled.window));
                }
                match self.firing.limit {
                    Reading::None => {}
                    Reading::Time(ns) => field("limit", seconds(ns)),
                    Reading::Number(number) => field("limit", FieldValue::F64(number)),
                }
                if suppressed > 0 {
                    field("suppressed", FieldValue::U64(suppressed));
                }
            }
            Told::End {
                duration,
                records,
                worst,
            } => {
                field("episode_seconds", seconds(duration));
                field("records", FieldValue::U64(records));
                match self.compiled.kind().of_word(worst) {
                    Reading::None => {}
                    Reading::Time(ns) => field("worst", seconds(ns)),
                    Reading::Number(number) => field("worst", FieldValue::F64(number)),
                }
            }
        }
        field("rule_seq", FieldValue::U64(self.firing.sequence));
    }
}

fn seconds(ns: u64) -> FieldValue<'static> {
    FieldValue::F64(ns as f64 / 1e9)
}

/// The value of a detail: a duration in the unit that its name ends with, otherwise in seconds.
fn shown<'a>(detail: &Detail, value: FieldValue<'a>) -> FieldValue<'a> {
    let (from, to) = (unit_of(&detail.field), unit_of(&detail.name));
    let is_time = matches!(value, FieldValue::Duration(_));
    match value.ns(from) {
        Some(ns) if is_time || from != to => FieldValue::F64(ns as f64 / 10_f64.powi(to.digits())),
        _ => value,
    }
}

struct Description<'a>(StressEvent<'a>);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cut = Cut {
            f,
            room: DESCRIPTION_BYTES_MAX,
            is_full: false,
        };
        match self.0.describe(&mut cut) {
            Err(_) if cut.is_full => Ok(()),
            result => result,
        }
    }
}

/// Writes the beginning of a text; the rest is an error.
struct Cut<'f, 'a> {
    f: &'f mut fmt::Formatter<'a>,
    room: usize,
    is_full: bool,
}

impl Write for Cut<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let part = cut_text(text, self.room);
        self.f.write_str(part)?;
        self.room -= part.len();
        self.is_full = part.len() < text.len();
        if self.is_full {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

impl StressEvent<'_> {
    fn describe(&self, f: &mut impl Write) -> fmt::Result {
        let rule = &self.compiled.rule;
        let value = match self.firing.told {
            Told::Begin { value, .. } => value,
            Told::End {
                duration, records, ..
            } => {
                let seconds = duration as f64 / 1e9;
                let ends = if records == 1 { "" } else { "s" };
                return write!(
                    f,
                    "{} ended after {seconds:.2}s, {records} record{ends}",
                    rule.name
                );
            }
        };
        if rule.description.is_empty() {
            return f.write_str(&rule.name);
        }
        let mut rest = rule.description.as_str();
        while let Some((before, (name, after))) = rest
            .split_once('{')
            .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            f.write_str(before)?;
            match name {
                "value" | "count" => write_reading(f, value)?,
                "limit" => write_reading(f, self.limit())?,
                "window" => f.write_str(&self.compiled.window)?,
                name => self.write_field(f, name)?,
            }
            rest = after;
        }
        f.write_str(rest)
    }

    fn limit(&self) -> Reading {
        match (&self.compiled.check, self.firing.limit) {
            (Check::Level(Level::Threshold { limit, .. }), _) => *limit,
            (Check::Level(Level::Ratio { limit, .. }), _) => Reading::Number(*limit),
            (Check::Rate(window, _), _) => Reading::Number(f64::from(window.limit)),
            (_, limit) => limit,
        }
    }

    fn write_field(&self, f: &mut impl Write, name: &str) -> fmt::Result {
        let index = self.category.fields.iter().position(|field| field == name);
        let Some(index) = index else {
            return Ok(());
        };
        match self.values.at(index) {
            FieldValue::Null => f.write_str("null"),
            FieldValue::Bool(flag) => write!(f, "{flag}"),
            FieldValue::I64(value) => write!(f, "{value}"),
            FieldValue::U64(value) => write!(f, "{value}"),
            FieldValue::F64(value) => write_reading(f, Reading::Number(value)),
            FieldValue::Text(text) | FieldValue::Number(text) => f.write_str(text),
            FieldValue::Duration(ns) => write_reading(f, Reading::Time(ns)),
        }
    }
}

fn write_reading(f: &mut impl Write, reading: Reading) -> fmt::Result {
    match reading {
        Reading::None => Ok(()),
        Reading::Time(ns) => write!(f, "{:.2}s", ns as f64 / 1e9),
        Reading::Number(number) if number.fract() == 0.0 => write!(f, "{number}"),
        Reading::Number(number) => write!(f, "{number:.2}"),
    }
}
