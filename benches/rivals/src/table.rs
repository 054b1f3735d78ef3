//! Results as tables in Markdown.

use std::fmt::Write;

use crate::loggers::{BASELINE, Entry, LEFT_OUT, STORMLOG};
use crate::run::Results;
use crate::task::{Kind, figure};

/// Versions of the packages.
const LOCK: &str = include_str!("../Cargo.lock");

/// The version of a package in the lock file.
fn version(package: &str) -> Option<&'static str> {
    let (_, entry) = LOCK.split_once(&format!("\nname = \"{package}\"\nversion = \""))?;
    entry.split('"').next()
}

/// What stands where nothing was measured.
const NOT_MEASURED: &str = "-";

/// Three digits that matter.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.001.. => 4,
        _ if value == 0.0 => 0,
        // Not nothing, though it is next to nothing.
        _ => return format!("{value:.2e}"),
    };
    format!("{value:.decimals$}")
}

/// What stands in a column.
enum Column {
    /// Median and, in brackets, the smallest and the largest of all rounds.
    Spread(&'static str, Kind, &'static str),
    /// Median only.
    Median(&'static str, Kind, &'static str),
    /// As a multiple of the same figure of another logger: the other way round for costs.
    Ratio(&'static str, Kind, &'static str, &'static str),
}

use Column::{Median, Ratio, Spread};

/// Why a write into a `String` has no error.
const TAKES_ALL: &str = "a String takes everything";

impl Column {
    fn title(&self) -> &'static str {
        match self {
            Spread(title, ..) | Median(title, ..) | Ratio(title, ..) => title,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Spread(_, kind, _) | Median(_, kind, _) | Ratio(_, kind, ..) => *kind,
        }
    }

    fn cell(&self, results: &Results, logger: &str) -> Option<String> {
        match *self {
            Spread(_, kind, name) => {
                let spread = results.spread(logger, kind, name)?;
                let [median, min, max] = [spread.median, spread.min, spread.max].map(number);
                Some(format!("{median} ({min} to {max})"))
            }
            Median(_, kind, name) => Some(number(results.spread(logger, kind, name)?.median)),
            Ratio(_, kind, name, to) => {
                let ratio = results.ratio(logger, to, kind, name)?;
                Some(number(ratio.median))
            }
        }
    }
}

const CALLS: [Column; 12] = [
    Spread("burst mean, p50", Kind::Calls, figure::BURST_P50_NS),
    Ratio("x Stormlog", Kind::Calls, figure::BURST_P50_NS, STORMLOG),
    Ratio("x baseline", Kind::Calls, figure::BURST_P50_NS, BASELINE),
    Median("burst mean, p99", Kind::Calls, figure::BURST_P99_NS),
    Median("call p50", Kind::Calls, figure::CALL_P50_NS),
    Median("p99", Kind::Calls, figure::CALL_P99_NS),
    Median("p99.9", Kind::Calls, figure::CALL_P999_NS),
    Spread("cold p50", Kind::Cold, figure::COLD_P50_NS),
    Ratio("x Stormlog", Kind::Cold, figure::COLD_P50_NS, STORMLOG),
    Median("cold p99", Kind::Cold, figure::COLD_P99_NS),
    Median("waits per 1,000", Kind::Calls, figure::WAITS_PER_K),
    Median("lost %", Kind::Calls, figure::LOST_PERCENT),
];

const FILES: [Column; 10] = [
    Spread("1 producer", Kind::File1, figure::RATE),
    Ratio("x Stormlog", Kind::File1, figure::RATE, STORMLOG),
    Ratio("x baseline", Kind::File1, figure::RATE, BASELINE),
    Median("lost %", Kind::File1, figure::LOST_PERCENT),
    Median("waits per 1,000", Kind::File1, figure::WAITS_PER_K),
    Spread("2 producers", Kind::File2, figure::RATE),
    Ratio("x Stormlog", Kind::File2, figure::RATE, STORMLOG),
    Ratio("x baseline", Kind::File2, figure::RATE, BASELINE),
    Median("lost %", Kind::File2, figure::LOST_PERCENT),
    Median("waits per 1,000", Kind::File2, figure::WAITS_PER_K),
];

const COSTS: [Column; 10] = [
    Spread("CPU s per M, 1 producer", Kind::File1, figure::CPU_PER_M),
    Ratio("x Stormlog", Kind::File1, figure::CPU_PER_M, STORMLOG),
    Ratio("x baseline", Kind::File1, figure::CPU_PER_M, BASELINE),
    Spread("CPU s per M, 2 producers", Kind::File2, figure::CPU_PER_M),
    Ratio("x Stormlog", Kind::File2, figure::CPU_PER_M, STORMLOG),
    Ratio("x baseline", Kind::File2, figure::CPU_PER_M, BASELINE),
    Median("bytes per record", Kind::File1, figure::BYTES_EACH),
    Median("peak MiB", Kind::File1, figure::PEAK_MIB),
    Spread("idle, % of a core", Kind::Idle, figure::IDLE_PERCENT),
    Median("idle, wakes per s", Kind::Idle, figure::IDLE_WAKES),
];

/// The loggers and how they are used.
pub fn loggers(entries: &[Entry]) -> String {
    let mut out = "| logger | package | file | how |\n|---|---|---|---|\n".to_owned();
    for Entry {
        name,
        package,
        format,
        how,
        ..
    } in entries
    {
        let package = package.map_or("-".to_owned(), |package| {
            format!(
                "{package} {}",
                version(package).unwrap_or("of this machine")
            )
        });
        writeln!(out, "| `{name}` | {package} | {format} | {how} |").expect(TAKES_ALL);
    }
    out
}

/// One table; columns whose kind was not measured are left out, and loggers without figures.
fn table(out: &mut String, entries: &[Entry], results: &Results, all: &[Column]) {
    let columns: Vec<_> = all
        .iter()
        .filter(|column| results.rounds_of(column.kind()) > 0)
        .collect();
    if columns.is_empty() {
        return;
    }
    out.push_str("| logger |");
    for column in &columns {
        write!(out, " {} |", column.title()).expect(TAKES_ALL);
    }
    writeln!(out, "\n|---|{}", "---:|".repeat(columns.len())).expect(TAKES_ALL);
    for Entry { name, .. } in entries {
        let cells: Vec<_> = columns
            .iter()
            .map(|column| column.cell(results, name))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        write!(out, "| `{name}` |").expect(TAKES_ALL);
        for cell in cells {
            let cell = cell.as_deref().unwrap_or(NOT_MEASURED);
            write!(out, " {cell} |").expect(TAKES_ALL);
        }
        out.push('\n');
    }
    out.push('\n');
}

/// Stormlog with its conversion beside those that write lines at once.
fn lines(out: &mut String, entries: &[Entry], results: &Results) {
    let total = figure::TOTAL_CPU_PER_M;
    for (kind, title) in [(Kind::File1, "1 producer"), (Kind::File2, "2 producers")] {
        if results.rounds_of(kind) == 0 {
            continue;
        }
        writeln!(
            out,
            "| {title} | CPU s per M, until there are lines | Stormlog's part of it |"
        )
        .expect(TAKES_ALL);
        out.push_str("|---|---:|---:|\n");
        for Entry { name, format, .. } in entries {
            let Some(spread) = results.spread(name, kind, total) else {
                continue;
            };
            let part = results.ratio(STORMLOG, name, kind, total);
            let part = part.map_or_else(|| NOT_MEASURED.to_owned(), |part| number(part.median));
            let converted = results.spread(name, kind, figure::AFTER_BYTES_EACH);
            let note = match converted {
                Some(bytes) => format!(" + conversion to lines of {:.0} bytes", bytes.median),
                None if format.starts_with("binary") => ", not converted".to_owned(),
                None => String::new(),
            };
            let [median, min, max] = [spread.median, spread.min, spread.max].map(number);
            writeln!(
                out,
                "| `{name}`{note} | {median} ({min} to {max}) | {part} |"
            )
            .expect(TAKES_ALL);
        }
        out.push('\n');
    }
}

/// Everything.
pub fn tables(entries: &[Entry], results: &Results) -> String {
    let rounds = Kind::ALL.map(|kind| format!("{} {}", kind.name(), results.rounds_of(kind)));
    let mut out = format!(
        "Medians of all rounds ({}), in brackets the smallest and the largest; ratios are medians \
         of the ratios within a round. `{NOT_MEASURED}`: not measured.\n\n",
        rounds.join(", ")
    );
    if let Some(clock) = results.spread(STORMLOG, Kind::Calls, figure::CLOCK_NS) {
        writeln!(
            out,
            "Cost of a call, ns. Two readings of the counter cost {} ns, which are subtracted once \
             from each burst of {} calls and once from each single call.\n",
            number(clock.median),
            results.burst
        )
        .expect(TAKES_ALL);
    }
    table(&mut out, entries, results, &CALLS);
    let more = entries.iter().filter(|entry| entry.factor != 1);
    let more: String = more
        .map(|entry| format!(", {} times as many of `{}`", entry.factor, entry.name))
        .collect();
    writeln!(
        out,
        "Into the file, millions of records per second until all has arrived; {} records{more}.\n",
        results.records,
    )
    .expect(TAKES_ALL);
    table(&mut out, entries, results, &FILES);
    out.push_str("Processor time of all threads per million records that arrived, and more.\n\n");
    table(&mut out, entries, results, &COSTS);
    lines(&mut out, entries, results);
    for (name, reason) in &results.skipped {
        writeln!(out, "`{name}` skipped: {reason}.").expect(TAKES_ALL);
    }
    for (name, reason) in LEFT_OUT {
        writeln!(out, "{name} left out: {reason}.").expect(TAKES_ALL);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_not_zero_unless_it_is() {
        let told = [0.0, 0.000_4, -0.000_4, 0.001, 0.25, 12.34, 1234.0].map(number);
        assert_eq!(
            told,
            [
                "0", "4.00e-4", "-4.00e-4", "0.0010", "0.250", "12.3", "1234"
            ]
        );
        assert_eq!(number(f64::NAN), "NaN");
    }

    #[test]
    fn what_was_not_measured_is_told_as_that() {
        let figures = |values: &[(&str, f64)]| -> crate::task::Figures {
            let values = values.iter();
            values
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect()
        };
        let kinds = |figures| [(Kind::File1, figures)].into();
        let all = [
            (figure::RATE, 2.0),
            (figure::WAITS_PER_K, 0.0),
            (figure::LOST_PERCENT, 0.0),
        ];
        let round = [
            (STORMLOG.to_owned(), kinds(figures(&all))),
            (BASELINE.to_owned(), kinds(figures(&all[..1]))),
        ];
        let results = Results {
            rounds: vec![round.into()],
            ..Results::default()
        };
        let columns = &FILES[..5];
        let row = |logger| -> Vec<Option<String>> {
            columns
                .iter()
                .map(|column| column.cell(&results, logger))
                .collect()
        };
        assert!(row(STORMLOG).iter().all(Option::is_some));
        let entries = crate::loggers::all();
        let mut out = String::new();
        table(&mut out, &entries, &results, columns);
        let told = out
            .lines()
            .find(|line| line.contains(&format!("`{BASELINE}`")));
        let expected = format!("| `{BASELINE}` | 2.00 (2.00 to 2.00) | 1.00 | 1.00 | - | - |");
        assert_eq!(told, Some(expected.as_str()));
    }
}
