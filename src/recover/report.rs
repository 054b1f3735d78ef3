//! What a recovery is asked for and what it tells.

use std::path::PathBuf;
use std::time::Duration;

use crate::ledger::Ledger;

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its process had died; it is complete now, or would be without `dry_run`.
    Recovered,
    /// It was closed, or recovered before.
    Complete,
    /// Its process died before it recorded anything.
    Empty,
    /// A process records it, or it cannot be told that none does: it was not touched.
    Live,
    /// Another process works on it.
    Busy,
}

impl State {
    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Complete => "complete",
            Self::Empty => "empty",
            Self::Live => "live",
            Self::Busy => "busy",
        }
    }
}

/// What a recovery found and did.
#[derive(Clone, Debug)]
pub struct RecoverReport {
    /// Session id, `YYYYMMDD_HHMMSS`.
    pub session_id: String,
    /// What became of it.
    pub state: State,
    /// Whether its rings were in a file: else what was in them is lost.
    pub rings_found: bool,
    /// Records that were only in rings.
    pub from_rings: u64,
    /// Records that were only in the spill.
    pub from_spill: u64,
    /// Records that were in segments.
    pub in_segments: u64,
    /// The new segment.
    pub segment: Option<PathBuf>,
    /// The ledger, as `session_end` has it.
    pub ledger: Ledger,
    /// What could not be read, or is not known.
    pub faults: Vec<String>,
}

impl RecoverReport {
    pub(super) fn new(session_id: &str, state: State) -> Self {
        Self {
            session_id: session_id.to_owned(),
            state,
            rings_found: false,
            from_rings: 0,
            from_spill: 0,
            in_segments: 0,
            segment: None,
            ledger: Ledger::default(),
            faults: Vec::new(),
        }
    }
}

/// How a recovery is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecoverOptions {
    /// Only look: nothing is written.
    pub dry_run: bool,
    /// When to give up: the session stays as it was.
    pub time_max: Option<Duration>,
}
