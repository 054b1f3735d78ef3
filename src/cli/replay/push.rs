//! Taking lines to the engine without losing any, and counting what became of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

use super::parse::{BadLine, Parsed, parse_line};
use super::source::Source;
use crate::cli::human;
use crate::cli::output::complain;
use crate::error::Error;
use crate::record::Category;
use crate::{Log, Outcome, Session};

/// Bytes that one thread pushes between two flushes.
///
/// A record that finds its ring full is dropped, because a caller must never wait; a tool that
/// reads files has all the time, so it waits itself. After a flush the ring of the thread is
/// empty, and this much fits into the rings that [`THREADS_MAX`] threads get, under the headroom
/// that only records of the class `Always` may use.
const FLUSH_BYTES: usize = 32 * 1024;
/// Threads that may push: later ones would get rings too small for [`FLUSH_BYTES`].
pub const THREADS_MAX: usize = 32;
/// Held while a record longer than [`FLUSH_BYTES`] is on its way to a segment: such records share
/// one small budget of memory, so there is one of them at a time.
static LONG_RECORD: Mutex<()> = Mutex::new(());
/// What a record can take beyond the bytes of its line: header, counts, padding.
const RECORD_OVERHEAD_BYTES: usize = 128;
/// How many bad lines are printed per file.
const BAD_LINES_SHOWN: u64 = 20;

/// What became of the lines of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that are not blank.
    pub lines: u64,
    /// Lines that could not be recorded as they are.
    pub bad: u64,
    /// Records that the engine took.
    pub kept: u64,
    /// Records that the engine sampled out, dropped or refused.
    pub lost: u64,
}

impl Counts {
    /// Adds the counts of `other`.
    pub fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.bad += other.bad;
        self.kept += other.kept;
        self.lost += other.lost;
    }
}

/// One file while it is replayed.
pub struct Input {
    /// The file.
    pub source: Source,
    counts: Mutex<Counts>,
    bar: ProgressBar,
}

impl Input {
    /// Nothing read yet. `bar` is where progress is shown.
    pub fn new(source: Source, bar: ProgressBar) -> Self {
        Self {
            source,
            counts: Mutex::default(),
            bar,
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        *self.lock()
    }

    /// Shows that `bytes` more were read.
    pub fn progress(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Adds to the counts.
    pub fn add(&self, counts: Counts) {
        self.lock().add(counts);
    }

    /// Counts a line that cannot be recorded, and prints the first ones.
    pub fn bad_line(&self, number: u64, reason: &BadLine) {
        let mut counts = self.lock();
        counts.lines += 1;
        counts.bad += 1;
        if counts.bad <= BAD_LINES_SHOWN {
            self.print(&format!("{}:{number}: {reason}", self.source.name()));
        }
    }

    /// Says how many bad lines were not printed.
    pub fn finish(&self) {
        let bad = self.counts().bad;
        if let Some(more @ 1..) = bad.checked_sub(BAD_LINES_SHOWN) {
            let lines = human::counted(more, "more bad line");
            self.print(&format!("{}: {lines}", self.source.name()));
        }
    }

    fn print(&self, text: &str) {
        self.bar.suspend(|| complain(text));
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Counts are whole at any time, whoever panicked.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a line, or why there is none. `None` for a blank line.
pub fn line_text(line: &[u8]) -> Option<Result<&str, BadLine>> {
    if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
        return None;
    }
    Some(std::str::from_utf8(line).map_err(|_| BadLine::NotUtf8))
}

/// Pushes lines from one thread.
pub struct Pusher<'s> {
    session: &'s Session,
    log: Log,
    original_time: bool,
    /// Upper bound of the bytes in this thread's ring.
    unflushed_bytes: usize,
}

impl<'s> Pusher<'s> {
    /// Pushes to `session`; `original_time` keeps the timestamp as a field.
    pub fn new(session: &'s Session, original_time: bool) -> Self {
        Self {
            session,
            log: session.log(),
            original_time,
            unflushed_bytes: 0,
        }
    }

    /// Pushes a line, or reports it as bad.
    ///
    /// # Errors
    /// When the writer has failed, so that nothing more can be recorded.
    pub fn line(&mut self, input: &Input, number: u64, line: &[u8]) -> Result<Counts, Error> {
        let parsed = match line_text(line) {
            None => return Ok(Counts::default()),
            Some(text) => text.and_then(parse_line),
        };
        match parsed {
            Ok(parsed) => self.parsed(input.source.category, &parsed, line.len()),
            Err(reason) => {
                input.bad_line(number, &reason);
                Ok(Counts::default())
            }
        }
    }

    fn parsed(
        &mut self,
        category: Category,
        parsed: &Parsed<'_>,
        line_bytes: usize,
    ) -> Result<Counts, Error> {
        let bytes = line_bytes + RECORD_OVERHEAD_BYTES;
        if self.unflushed_bytes + bytes > FLUSH_BYTES {
            self.flush()?;
        }
        self.unflushed_bytes += bytes;
        let extras = parsed.extras(self.original_time);
        let outcome = if bytes > FLUSH_BYTES {
            let _one = LONG_RECORD.lock().unwrap_or_else(PoisonError::into_inner);
            let outcome = self.log.event(category, &extras);
            self.flush()?;
            outcome
        } else {
            self.log.event(category, &extras)
        };
        let kept = u64::from(outcome == Outcome::Kept);
        Ok(Counts {
            lines: 1,
            bad: 0,
            kept,
            lost: 1 - kept,
        })
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.unflushed_bytes > 0 {
            self.session.flush()?;
            self.unflushed_bytes = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_nothing_and_broken_text_is_bad() {
        assert_eq!(line_text(b""), None);
        assert_eq!(line_text(b" \t\r"), None);
        assert_eq!(line_text(b" {}"), Some(Ok(" {}")));
        assert_eq!(line_text(b"{\"a\":\"\xff\"}"), Some(Err(BadLine::NotUtf8)));
        assert_eq!(line_text("{\u{feff}".as_bytes()), Some(Ok("{\u{feff}")));
    }

    #[test]
    fn bad_lines_are_counted_beyond_those_shown() {
        let source = Source {
            path: "x.jsonl".into(),
            category: Category::custom(),
            bytes: None,
        };
        let input = Input::new(source, ProgressBar::hidden());
        for number in 0..BAD_LINES_SHOWN + 5 {
            input.bad_line(number, &BadLine::NotObject);
        }
        input.add(Counts {
            lines: 2,
            kept: 2,
            ..Counts::default()
        });
        let expected = Counts {
            lines: 27,
            bad: 25,
            kept: 2,
            lost: 0,
        };
        assert_eq!(input.counts(), expected);
    }
}
