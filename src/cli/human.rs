//! Numbers, texts and tables for people.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::Status;
use crate::convert::is_escaped;
use crate::error::Error;

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

/// Bytes with a unit: `512 B`, `1.5 MiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// Nanoseconds as a length of time: `1.234 s`, `2 h 03 min`.
pub fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..60 => format!("{:.3} s", ns as f64 / 1e9),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
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

/// A table without lines. A head that starts with `>` stands right, as the cells of
/// [`right`] below it do.
pub fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads.iter().map(|head| match head.strip_prefix('>') {
        Some(head) => right(head),
        None => Cell::new(head),
    }));
    table
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
        anstream::eprintln!("fault: {}", plain(&error.to_string()));
    }
    if errors.is_empty() {
        Status::Ok
    } else {
        Status::Faults
    }
}

/// A cell aligned to the right.
pub fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (1536, "1.5 KiB"),
            (1 << 30, "1.0 GiB"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(duration(1_234_567_890), "1.235 s");
        assert_eq!(duration(3_723_000_000_000), "1 h 02 min");
    }

    #[test]
    fn a_terminal_is_not_played() {
        assert_eq!(plain("a\u{1b}[2J\u{202e}"), "a\\u{1b}[2J\\u{202e}");
    }
}
