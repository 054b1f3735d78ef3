//! The records of the session itself: its start and its end.

crate::record! {
    /// First record of a session.
    pub(crate) struct SessionStart in "session" keep Always {
        /// `session_start`.
        event: ShortText,
        /// Absolute path of the log directory.
        log_directory: Text,
        /// Process id as the process sees it.
        pid: u32,
        /// Version of this library.
        version: ShortText,
        /// Name of the host.
        host: ShortText,
        /// RFC 3339 UTC time of the start: the id is a name, this is the time.
        started_at: ShortText,
        /// Where the writer thread runs.
        writer: ShortText,
        /// Where the rings are, and why when that is not the first choice.
        rings: ShortText,
        /// Every setting.
        settings: Option<Json>,
    }
}

crate::record! {
    /// Last record of a session.
    pub(crate) struct SessionEnd in "session" keep Always {
        /// `session_end`.
        event: ShortText,
        /// `close` or `drop`.
        reason: ShortText,
        /// Time since the start.
        duration_ms: DurationMs<2>,
        /// Syscalls that producers made to wake the writer.
        wakes: u64,
        /// The exact ledger, this record included.
        ledger: Option<Json>,
        /// `Always` records that took the spill.
        spilled: u64,
        /// `Always` records whose push had to wait.
        always_waits: u64,
        /// `Always` records that were lost.
        always_lost: u64,
        /// What that means, as a sentence; null when none was lost.
        fault: Option<Text>,
    }
}

use crate::record::{DurationMs, Json, ShortText, Text};
