//! What a command prints and how it ends.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value as Json, json};

use crate::session::ConvertedFile;

/// How a command ended that could run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing to complain about: exit code 0.
    Ok,
    /// Faults were found (damage, lost records, bad lines): exit code 1.
    Faults,
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
            Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                anstream::eprintln!("stormlog: {error:#}");
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
