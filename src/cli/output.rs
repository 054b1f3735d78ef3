//! What a command prints and how it ends.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value as Json, json};

use super::human;
use crate::ConvertedFile;

/// How a command ended that could run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing to complain about: exit code 0.
    Ok,
    /// Faults were found (damage, lost records, bad lines): exit code 1.
    Faults,
    /// What was measured does not decide: exit code 3.
    Undecided,
}

/// Standard output. Colour is stripped where it is not a terminal or `NO_COLOR` is set.
pub struct Output {
    out: Box<dyn Write>,
}

impl Output {
    /// The standard output of the process.
    pub fn stdout() -> Self {
        Self {
            out: Box::new(io::BufWriter::new(anstream::stdout())),
        }
    }

    /// Flushes and turns the result into an exit code; prints errors with their causes.
    pub fn finish(mut self, result: anyhow::Result<Status>) -> ExitCode {
        let flushed = self.out.flush();
        let result = result.and_then(|status| flushed.map(|()| status).map_err(Into::into));
        match result {
            Ok(Status::Ok) => ExitCode::SUCCESS,
            Ok(Status::Faults) => ExitCode::from(1),
            Ok(Status::Undecided) => ExitCode::from(3),
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("stormlog: {}", with_causes(&error)));
                ExitCode::from(2)
            }
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints a line on standard error. Nobody may be reading it: that changes nothing.
pub fn complain(line: &str) {
    let _unread = writeln!(anstream::stderr(), "{line}");
}

/// An error and its causes on one line, without those that the text before them ends with:
/// [`Error`](crate::Error) says its cause itself, because it is mostly printed alone.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = human::plain(&cause.to_string());
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Converted files for a report of a command.
pub fn files_json(files: &[ConvertedFile]) -> Json {
    let files = files.iter().map(|file| {
        json!({
            "category": file.category,
            "path": file.path.display().to_string(),
            "lines": file.lines,
            "bytes": file.bytes,
        })
    });
    files.collect()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::error::IoContext;

    #[test]
    fn a_cause_is_told_once() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let ours: Result<(), _> = Err(missing()).io_context("cannot open", "/x");
        let ours = with_causes(&ours.context("session 1").unwrap_err());
        assert_eq!(ours, "session 1: cannot open /x: entity not found");
        let other: anyhow::Result<()> = Err(missing()).context("cannot read y");
        assert_eq!(
            with_causes(&other.unwrap_err()),
            "cannot read y: entity not found"
        );
    }
}
