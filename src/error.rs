//! The error of the cold paths: starting, closing, reading, converting.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// Error of the cold paths. A push never returns one: its result is an `Outcome`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system said no.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, as the start of a sentence that ends with the path.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The session may not take more space.
    #[error("no further segment in {}: {what}", path.display())]
    NoSpace {
        /// The session directory.
        path: PathBuf,
        /// Which bound it is.
        what: String,
    },
    /// A file is not ours, of another version, or damaged where nothing can be read without it.
    #[error("{}: at byte {offset}: {what}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Offset of the damage.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Other users can write to the log directory.
    #[error(
        "other users can write to {}: make it private (chmod go-w) or sticky (chmod +t)",
        path.display()
    )]
    Insecure {
        /// The directory.
        path: PathBuf,
    },
    /// A setting has a value that it cannot have.
    #[error("{}={}: {remedy}", shown(name), shown(value))]
    Setting {
        /// Name of the setting or environment variable.
        name: String,
        /// The value.
        value: String,
        /// What it can be.
        remedy: String,
    },
    /// There is no session where one was expected.
    #[error("no session in {}: {remedy}", path.display())]
    NoSession {
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// The writer thread has ended, by a panic or because it could not be started.
    #[error("the writer thread has failed: {what}")]
    WriterFailed {
        /// What is known.
        what: String,
    },
    /// The session belongs to the parent of this forked process.
    #[error(
        "this process was forked while the session was open; the session belongs to its parent: \
         start a session of your own"
    )]
    Forked,
    /// Signals cannot be handled.
    #[error("cannot close sessions on signals: {source}")]
    Signals {
        /// Why.
        source: io::Error,
    },
    /// A time limit passed.
    #[error("{what} took longer than {limit_ms} ms")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// The limit.
        limit_ms: u64,
    },
    /// The caller asked to stop.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was stopped.
        what: &'static str,
    },
}

impl Error {
    /// Whether it says that a file or directory is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Characters of a value that a message shows: a value can be as long as the environment.
const SHOWN_MAX: usize = 200;

/// A text as messages show it.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Puts what was tried and where into an [`Error::Io`].
pub(crate) trait IoContext<T> {
    fn io_context(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn io_context(self, what: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            what,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}
