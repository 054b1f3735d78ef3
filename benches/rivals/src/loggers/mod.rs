//! The loggers that are compared, one file per family. All get the same record; each is set up and
//! called as its own documents show it, with the settings that lose nothing where it has them.

mod baseline;
mod deferred;
mod dial9;
mod emit;
mod facade;
mod fastrace;
mod kvlog;
mod slog;
mod spdlog;
mod stormlog;
mod tracing;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Result;

use crate::measure::{Logger, measure};
use crate::record::Matcher;
use crate::task::{Figures, Kind, Task};

/// What Stormlog's row is called.
pub const STORMLOG: &str = "stormlog";
/// What is as simple as it gets.
pub const BASELINE: &str = "json-mutex";

/// A logger with its settings.
pub struct Entry {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// The package whose version is named; `None`: part of this program.
    pub package: Option<&'static str>,
    /// What is in the file.
    pub format: &'static str,
    /// Settings and idiom.
    pub how: &'static str,
    /// So many times more records into the file than others, where a run would be too short.
    pub factor: usize,
    /// What is measured of it.
    pub kinds: &'static [Kind],
    /// Who measures.
    pub program: Program,
    /// Counts the records in the files.
    pub arrived: fn(&Path) -> Result<u64>,
}

/// Where a logger is measured.
pub enum Program {
    /// In this program, started anew.
    Own(fn(&Task) -> Result<Figures>),
    /// In the C++ program, `crate::cpp`.
    Cpp,
}

impl Entry {
    fn of<L: Logger>(
        name: &'static str,
        package: Option<&'static str>,
        format: &'static str,
        how: &'static str,
    ) -> Self {
        Self {
            name,
            package,
            format,
            how,
            factor: 1,
            kinds: &Kind::ALL,
            program: Program::Own(measure::<L>),
            arrived: lines,
        }
    }

    fn factor(self, factor: usize) -> Self {
        Self { factor, ..self }
    }

    fn kinds(self, kinds: &'static [Kind]) -> Self {
        Self { kinds, ..self }
    }

    fn arrived(self, arrived: fn(&Path) -> Result<u64>) -> Self {
        Self { arrived, ..self }
    }
}

/// Loggers that were tried and cannot be compared, and why.
pub const LEFT_OUT: [(&str, &str); 1] = [(
    "quicklog 0.1.18",
    "no thread of its own: the program has to drain its queue by `flush!`, and the last release \
     documents one thread only",
)];

/// All loggers, Stormlog and the baseline first.
pub fn all() -> Vec<Entry> {
    let families = [
        stormlog::entries(),
        baseline::entries(),
        dial9::entries(),
        kvlog::entries(),
        deferred::entries(),
        spdlog::entries(),
        tracing::entries(),
        slog::entries(),
        emit::entries(),
        fastrace::entries(),
        facade::entries(),
    ];
    families.into_iter().flatten().collect()
}

/// Counts the lines of all files of a directory that hold a record.
pub fn lines(dir: &Path) -> Result<u64> {
    let matcher = Matcher::new();
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        count += if path.is_dir() {
            lines(&path)?
        } else {
            lines_of(&path, &matcher)?
        };
    }
    Ok(count)
}

fn lines_of(path: &Path, matcher: &Matcher) -> Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut line, mut count) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        // A line without its end was not written whole.
        count += u64::from(line.ends_with(b"\n") && matcher.is_record(&line));
        line.clear();
    }
    Ok(count)
}
