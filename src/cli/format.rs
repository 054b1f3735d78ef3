//! Numbers and tables as people read them.

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::ledger::{DROP_REASONS, Ledger};

/// `1,234,567`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3 records`, `1 record`; `one` is the word without the s.
pub(super) fn counted(number: u64, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", count(number))
}

/// `217 B`, `1.4 KiB`, `3.0 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 and more would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `85 ns`, `1.2 us`, `18.8 ms`, `2.00 s`.
pub(super) fn nanos(nanos: u64) -> String {
    let value = nanos as f64;
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// A table without lines, only its header set apart; columns from `numbers_from` on are numbers
/// and stand right.
pub(super) fn table(header: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().enumerate().map(|(index, name)| {
        let alignment = if index < numbers_from {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(name).set_alignment(alignment)
    }));
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A ledger as a table: one row per category and the sum.
pub(super) fn ledger(ledger: &Ledger) -> Table {
    let header = [
        "category",
        "offered",
        "written",
        "sampled out",
        "dropped",
        "interrupted",
    ];
    let mut table = table(&header, 1);
    let total = ledger.total();
    let rows = ledger
        .categories
        .iter()
        .map(|(name, account)| (name.as_str(), account));
    for (name, account) in rows.chain([("all", &total)]) {
        let numbers = [
            account.offered(),
            account.written(),
            account.sampled_out(),
            account.dropped_total(),
            account.interrupted(),
        ];
        let mut row = vec![name.to_owned()];
        row.extend(numbers.map(count));
        table.add_row(row);
    }
    table
}

/// `dropped because ring_full: 3, disk: 1`, when anything was dropped.
pub(super) fn drop_reasons(ledger: &Ledger) -> Option<String> {
    let total = ledger.total();
    let reasons = DROP_REASONS
        .iter()
        .filter(|reason| total.dropped(**reason) > 0);
    let reasons: Vec<_> = reasons
        .map(|reason| format!("{}: {}", reason.name(), count(total.dropped(*reason))))
        .collect();
    (!reasons.is_empty()).then(|| format!("dropped because {}", reasons.join(", ")))
}

/// `table`, each line moved right by two and without blanks at its end.
pub(super) fn indented(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<_> = text
        .lines()
        .map(|line| format!(" {}", line.trim_end()))
        .collect();
    lines.join("\n")
}

/// `text` for a POSIX shell: quoted where it needs to be.
pub(super) fn shell(text: &str) -> String {
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
    fn numbers_are_short_and_exact_enough() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "line"), "1 line");
        assert_eq!(counted(2_000, "line"), "2,000 lines");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(nanos(999), "999 ns");
        assert_eq!(nanos(1_234), "1.2 us");
        assert_eq!(nanos(18_800_000), "18.8 ms");
        assert_eq!(nanos(2_000_000_000), "2.00 s");
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
        let text = indented(&ledger(&book));
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
