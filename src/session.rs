//! Sessions: start, handle, close.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::ledger::Ledger;
use crate::producer::Log;

/// When segments become JSON Lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conversion {
    /// `close()` converts and returns when the files are there, or at the deadline.
    #[default]
    Wait,
    /// `close()` leaves a thread behind that converts.
    Background,
    /// Segments stay; `stormlog convert` converts them.
    Later,
}

/// A recording session: the owner. Dropping it closes it.
#[derive(Debug)]
pub struct Session {
    log: Log,
}

/// Settings of a session before it starts.
#[derive(Clone, Debug)]
pub struct SessionBuilder {
    dir: PathBuf,
    keep_segments: bool,
    conversion: Conversion,
    close_deadline: Duration,
}

/// One JSON Lines file that a close wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedFile {
    /// Category.
    pub category: String,
    /// Where it is.
    pub path: PathBuf,
    /// Lines in it.
    pub lines: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What `close()` did.
#[derive(Clone, Debug)]
pub struct CloseReport {
    /// Id of the session.
    pub session_id: String,
    /// Time from start to close.
    pub duration: Duration,
    /// The final ledger, the same as in `session_end`.
    pub ledger: Ledger,
    /// Files written, empty when segments were left for later.
    pub files: Vec<ConvertedFile>,
    /// The directory of the segments, if it is still there.
    pub segments: Option<PathBuf>,
    /// Bytes of all segments.
    pub segment_bytes: u64,
    /// What is not as it should be, as sentences; empty when all is well.
    pub faults: Vec<String>,
}

impl Session {
    /// Settings with their defaults.
    pub fn builder() -> SessionBuilder {
        SessionBuilder {
            dir: PathBuf::from("./debug_logs"),
            keep_segments: false,
            conversion: Conversion::Wait,
            close_deadline: Duration::from_secs(5),
        }
    }

    /// A handle for producers.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Session id, `YYYYMMDD_HHMMSS`.
    pub fn id(&self) -> &str {
        ""
    }

    /// The ledger as it is now.
    pub fn stats(&self) -> Ledger {
        Ledger::default()
    }

    /// Waits until every push that returned before is in a segment.
    ///
    /// # Errors
    /// When the writer has failed or takes longer than the deadline.
    pub fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends the session.
    ///
    /// # Errors
    /// When the writer has failed.
    pub fn close(self) -> Result<CloseReport, Error> {
        Ok(CloseReport {
            session_id: String::new(),
            duration: Duration::ZERO,
            ledger: Ledger::default(),
            files: Vec::new(),
            segments: None,
            segment_bytes: 0,
            faults: Vec::new(),
        })
    }
}

impl SessionBuilder {
    /// Log directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Keep segments after a verified conversion.
    #[must_use]
    pub fn keep_segments(mut self, keep: bool) -> Self {
        self.keep_segments = keep;
        self
    }

    /// When segments become JSON Lines.
    #[must_use]
    pub fn conversion(mut self, conversion: Conversion) -> Self {
        self.conversion = conversion;
        self
    }

    /// How long `close()` may convert before it leaves the segments for later.
    #[must_use]
    pub fn close_deadline(mut self, deadline: Duration) -> Self {
        self.close_deadline = deadline;
        self
    }

    /// Starts recording.
    ///
    /// # Errors
    /// When the log directory cannot be used.
    pub fn start(self) -> Result<Session, Error> {
        Ok(Session {
            log: Log::disabled(),
        })
    }
}
