//! Numbers, texts and tables for people, the same in every command.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{Cell, CellAlignment, presets};
use serde_json::Value as Json;

use super::output::{Status, complain};
use crate::convert::is_escaped;
use crate::error::Error;
use crate::ledger::{DROP_REASONS, Ledger};

/// `1234567` as `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `3 records`, `1 record`; `one` is the word without the s.
pub fn counted(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", count(number))
}

/// Bytes with a unit: `512 B`, `1.5 MiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 and more would be printed as 1024.0.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// Nanoseconds with a unit: `85 ns`, `1.2 us`, `18.8 ms`, `2.00 s`.
pub fn nanos(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// Nanoseconds as the length of a session: `1.234 s`, `2 h 03 min`.
pub fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..60 => format!("{:.3} s", ns as f64 / 1e9),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Estimates by category: whole numbers without a point.
pub fn estimates_json(estimates: &BTreeMap<String, f64>) -> Json {
    // From 2^53 on a float does not hold every whole number, and says so by its form.
    let whole = |value: f64| value.fract() == 0.0 && value < 9_007_199_254_740_992.0;
    let pairs = estimates.iter().map(|(category, value)| {
        let json = if whole(*value) {
            Json::from(*value as u64)
        } else {
            Json::from(*value)
        };
        (category.clone(), json)
    });
    Json::Object(pairs.collect())
}

/// `text` without anything that a terminal acts on: texts come from files.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A value as JSON text without anything that a terminal acts on: what of it is not escaped by a
/// serializer stands in strings, where it can be.
pub fn json_line(json: &Json) -> String {
    let text = json.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            out.extend(format!("\\u{:04x}", u32::from(c)).chars());
        } else {
            out.push(c);
        }
    }
    out
}

/// A table without lines, moved right by two, without blanks at the ends of its lines.
pub struct Table(comfy_table::Table);

impl Table {
    /// Only the heads. Columns whose head starts with `>` are numbers and stand right.
    pub fn new(heads: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(heads.iter().map(|head| head.trim_start_matches('>')));
        for (column, head) in table.column_iter_mut().zip(heads) {
            if head.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    /// Adds a row of texts, which a terminal does not act on.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells = cells.into_iter();
        self.0
            .add_row(cells.map(|text| Cell::new(plain(text.as_ref()))));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        for (index, line) in text.lines().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end} {}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A ledger as a table: one row per category and the sum.
pub fn ledger(ledger: &Ledger) -> Table {
    ledger_table(ledger, false)
}

/// The ledger of a session that may go on: also with what has no end yet.
pub fn ledger_with_pending(ledger: &Ledger) -> Table {
    ledger_table(ledger, true)
}

fn ledger_table(ledger: &Ledger, pending: bool) -> Table {
    let heads = [
        "category",
        ">offered",
        ">written",
        ">sampled out",
        ">dropped",
        ">interrupted",
        ">pending",
    ];
    let columns = heads.len() - usize::from(!pending);
    let mut table = Table::new(&heads[..columns]);
    let total = ledger.total();
    let rows = ledger
        .categories
        .iter()
        .map(|(name, account)| (name.as_str(), account));
    for (name, account) in rows.chain([("all", &total)]) {
        let cells = [
            name.to_owned(),
            count(account.offered()),
            count(account.written()),
            count(account.sampled_out()),
            count(account.dropped_total()),
            count(account.interrupted()),
            count(account.pending()),
        ];
        table.row(&cells[..columns]);
    }
    table
}

/// `dropped because ring_full: 3, disk: 1`, when anything was dropped.
pub fn drop_reasons(ledger: &Ledger) -> Option<String> {
    let total = ledger.total();
    let reasons = DROP_REASONS
        .iter()
        .filter(|reason| total.dropped(**reason) > 0);
    let reasons: Vec<_> = reasons
        .map(|reason| format!("{}: {}", reason.name(), count(total.dropped(*reason))))
        .collect();
    (!reasons.is_empty()).then(|| format!("dropped because {}", reasons.join(", ")))
}

/// `words` with commas between them in lines of at most about 96 characters, indented.
pub fn wrapped(words: impl Iterator<Item = String>) -> String {
    let mut out = String::from("   ");
    let mut column = 3;
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let count = word.chars().count() + 2;
        if column + count > 98 && column > 3 {
            out.push_str("\n   ");
            column = 3;
        }
        column += count;
        out.push(' ');
        out.push_str(&word);
        if words.peek().is_some() {
            out.push(',');
        }
    }
    out
}

/// Says on standard error which sessions cannot be read at all.
pub fn report_unreadable(errors: &[Error]) -> Status {
    for error in errors {
        complain(&format!("fault: {}", plain(&error.to_string())));
    }
    if errors.is_empty() {
        Status::Ok
    } else {
        Status::Faults
    }
}

/// `text` for a POSIX shell: quoted where it needs to be.
pub fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{DropReason, OFFERED, WRITTEN};

    #[test]
    fn numbers_are_readable() {
        for (value, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(value), expected);
        }
        for (value, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(counted(1, "line"), "1 line");
        assert_eq!(counted(2_000, "line"), "2,000 lines");
        assert_eq!(nanos(999), "999 ns");
        assert_eq!(nanos(1_234), "1.2 us");
        assert_eq!(nanos(18_800_000), "18.8 ms");
        assert_eq!(nanos(2_000_000_000), "2.00 s");
        assert_eq!(duration(1_234_567_890), "1.235 s");
        assert_eq!(duration(3_723_000_000_000), "1 h 02 min");
    }

    #[test]
    fn a_terminal_is_not_played() {
        assert_eq!(plain("a\u{1b}[2J\u{202e}"), "a\\u{1b}[2J\\u{202e}");
    }

    #[test]
    fn shell_words_are_quoted_where_needed() {
        assert_eq!(shell("./debug_logs/a_*.jsonl"), "'./debug_logs/a_*.jsonl'");
        assert_eq!(shell("./debug_logs"), "./debug_logs");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell(""), "''");
    }

    #[test]
    fn drops_are_told_with_their_reasons() {
        let mut book = Ledger::default();
        assert_eq!(drop_reasons(&book), None);
        let account = book.categories.entry("vpn".to_owned()).or_default();
        account.counters[DropReason::RingFull.counter()] = 1_000;
        account.counters[DropReason::Disk.counter()] = 2;
        let text = drop_reasons(&book).unwrap();
        assert_eq!(text, "dropped because ring_full: 1,000, disk: 2");
    }

    #[test]
    fn a_ledger_table_ends_with_the_sum() {
        let mut book = Ledger::default();
        for (name, number) in [("vpn", 1200), ("stress", 34)] {
            let account = book.categories.entry(name.to_owned()).or_default();
            account.counters[OFFERED] = number;
            account.counters[WRITTEN] = number;
        }
        let text = ledger(&book).to_string();
        let rows: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["stress", "34", "34", "0", "0", "0"]);
        assert_eq!(rows[2], ["vpn", "1,200", "1,200", "0", "0", "0"]);
        assert_eq!(rows[3], ["all", "1,234", "1,234", "0", "0", "0"]);
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }
}
