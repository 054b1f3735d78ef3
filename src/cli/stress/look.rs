//! Evaluating the rules over the records of one session.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_core::de::IgnoredAny;
use serde_json::Value as Json;

use super::groups::{Files, Group};
use crate::cli::human::json_line;
use crate::cli::replay::{Field, Lines, Source, line_text, parse_line};
use crate::convert::{ConvertOptions, RecordView, free_name, is_reserved, rfc3339, visit_records};
use crate::redact::Redactor;
use crate::segment::files::SessionFiles;
use crate::segment::records::ValueRef;
use crate::stress::{Evaluator, FieldValue, StressEvent};

/// Bad lines that are named.
const BAD_LINES_SHOWN: u64 = 20;

/// Begin or end of an episode, ready to be printed.
#[derive(Debug)]
pub struct Told {
    pub time_ns: u64,
    pub event_type: String,
    pub line: String,
}

/// What the rules made of a session.
#[derive(Debug, Default)]
pub struct Looked {
    pub told: Vec<Told>,
    /// Records of categories with rules.
    pub records: u64,
    pub faults: Vec<String>,
}

/// Evaluates the rules over one session.
///
/// # Errors
/// When it cannot be read.
pub fn look(group: &Group, rules: &Evaluator) -> Result<Looked> {
    let mut looked = Looked::default();
    match &group.files {
        Files::Segments(files) => segments(group, files, rules, &mut looked)?,
        Files::Lines(sources) => {
            for source in sources {
                let concerned = rules.concerns(source.category.name());
                if concerned {
                    lines(group, source, rules, &mut looked)?;
                }
            }
        }
    }
    Ok(looked)
}

fn segments(
    group: &Group,
    files: &SessionFiles,
    rules: &Evaluator,
    looked: &mut Looked,
) -> Result<()> {
    let redactor = Redactor::built_in();
    let mut unread = 0_u64;
    let faults = visit_records(files, ConvertOptions::default(), &mut |record| {
        if !rules.concerns(record.category) {
            return;
        }
        looked.records += 1;
        let Some(fields) = fields_of(record) else {
            unread += 1;
            return;
        };
        let time = record.time;
        rules.evaluate(record.category, time.elapsed_ns, fields, |event| {
            let head = format!(
                "{{\"session_id\":{},\"timestamp\":\"{}\",\"elapsed_seconds\":{}",
                json_line(&Json::from(group.name.as_str())),
                rfc3339(time.utc_ns),
                time.elapsed_ns as f64 / 1e9,
            );
            looked
                .told
                .push(told(event, time.elapsed_ns, head, &redactor));
        });
    })?;
    looked.faults.extend(faults);
    if unread > 0 {
        looked
            .faults
            .push(format!("{unread} records cannot be read"));
    }
    Ok(())
}

fn fields_of<'a>(record: &RecordView<'a>) -> Option<Vec<(&'a str, FieldValue<'a>)>> {
    let mut fields = Vec::new();
    let read = record.fields(&mut |name, value| {
        let text = |text: &'a [u8]| std::str::from_utf8(text).ok();
        let value = match value {
            ValueRef::Bool(flag) => FieldValue::Bool(flag),
            ValueRef::U64(value) => FieldValue::U64(value),
            ValueRef::I64(value) => FieldValue::I64(value),
            ValueRef::F32(value) => FieldValue::F64(value.into()),
            ValueRef::F64(value) => FieldValue::F64(value),
            ValueRef::Duration(ns, _) => FieldValue::Duration(ns),
            ValueRef::Text(bytes) => text(bytes).map_or(FieldValue::Null, FieldValue::Text),
            ValueRef::Number(bytes) => text(bytes).map_or(FieldValue::Null, FieldValue::Number),
            ValueRef::Null | ValueRef::Json(_) | ValueRef::Symbol(_) => FieldValue::Null,
        };
        if let Some(name) = text(name) {
            fields.push((name, value));
        }
    });
    read.is_ok().then_some(fields)
}

fn lines(group: &Group, source: &Source, rules: &Evaluator, looked: &mut Looked) -> Result<()> {
    let category = source.category.name();
    let redactor = Redactor::built_in();
    let cannot = || format!("cannot read {}", source.name());
    let mut lines = Lines::open(&source.path).with_context(cannot)?;
    let mut line = Vec::new();
    let mut bad = 0;
    while let Some(read) = lines.next_into(&mut line).with_context(cannot)? {
        let parsed = match read {
            Err(reason) => Err(reason),
            Ok(()) => match line_text(&line) {
                None => continue,
                Some(text) => text.and_then(parse_line),
            },
        };
        let parsed = match parsed.map(|parsed| (parsed.time(), parsed)) {
            Ok((Some(time), parsed)) => Ok((time, parsed)),
            Ok((None, _)) => Err("it has no timestamp".to_owned()),
            Err(reason) => Err(reason.to_string()),
        };
        let (time, parsed) = match parsed {
            Ok(parsed) => parsed,
            Err(reason) => {
                bad += 1;
                if bad <= BAD_LINES_SHOWN {
                    let fault = format!("{}:{}: {reason}", source.name(), lines.number());
                    looked.faults.push(fault);
                }
                continue;
            }
        };
        looked.records += 1;
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let fields = parsed.fields.iter();
        let fields = fields.map(|(name, field)| (&**name, value_of(field)));
        rules.evaluate(category, time_ns, fields, |event| {
            let head = format!(
                "{{\"session_id\":{},\"timestamp\":\"{}\"",
                json_line(&Json::from(group.name.as_str())),
                rfc3339(time_ns),
            );
            looked.told.push(told(event, time_ns, head, &redactor));
        });
    }
    if bad > BAD_LINES_SHOWN {
        let more = bad - BAD_LINES_SHOWN;
        looked
            .faults
            .push(format!("{}: {more} more bad lines", source.name()));
    }
    Ok(())
}

fn value_of<'a>(field: &'a Field<'_>) -> FieldValue<'a> {
    match field {
        Field::Null | Field::Json(_) => FieldValue::Null,
        Field::Bool(flag) => FieldValue::Bool(*flag),
        Field::Number(text) => FieldValue::Number(text),
        Field::Text(text) => FieldValue::Text(text),
    }
}

/// The object of an event, whose begin is `head`. Segments hold what was pushed, so secrets are
/// taken out here.
fn told(event: &StressEvent<'_>, time_ns: u64, head: String, redactor: &Redactor) -> Told {
    let mut line = head;
    let text = |text: &str| json_line(&Json::from(&*redactor.clean(text)));
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut put = |name: &str, value: String| {
        // As in the lines of a session: what is reserved or taken gets another name.
        let is_taken = |name: &[u8]| is_reserved(name) || names.iter().any(|one| one == name);
        let Some(name) = free_name(name.as_bytes(), is_taken) else {
            return;
        };
        let shown = String::from_utf8_lossy(&name);
        // A text takes whatever is written to it.
        let _always = write!(line, ",{}:{value}", json_line(&Json::from(&*shown)));
        names.push(name);
    };
    put("event_type", Json::from(event.event_type()).to_string());
    put("severity", Json::from(event.severity().name()).to_string());
    put("description", text(&event.description().to_string()));
    event.fields(|name, value| {
        let secret = redactor.is_secret_name(name.as_bytes());
        put(
            name,
            match value {
                FieldValue::Null => "null".to_owned(),
                _ if secret => text_of_secret(),
                FieldValue::Bool(flag) => flag.to_string(),
                FieldValue::I64(value) => value.to_string(),
                FieldValue::U64(value) => value.to_string(),
                FieldValue::F64(value) => Json::from(value).to_string(),
                FieldValue::Number(value) if is_number(value) => value.to_owned(),
                FieldValue::Text(value) | FieldValue::Number(value) => text(value),
                FieldValue::Duration(ns) => Json::from(ns as f64 / 1e6).to_string(),
            },
        );
    });
    line.push('}');
    Told {
        time_ns,
        event_type: event.event_type().to_owned(),
        line,
    }
}

/// Whether it can stand in a line as it is. What is recorded as a number can be any text.
fn is_number(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    value.bytes().all(plain) && serde_json::from_str::<IgnoredAny>(value).is_ok()
}

fn text_of_secret() -> String {
    Json::from(crate::redact::REDACTED).to_string()
}
