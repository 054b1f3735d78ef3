//! What the session takes of the disk.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

/// Bytes of the session: the writer and the helper tell each other. All accesses are `Relaxed`:
/// figures for decisions that may be a moment late, and no data hangs on them.
#[derive(Debug)]
pub(crate) struct SpaceUse {
    /// Bytes of all segments, as far as they are reserved; changed by the helper.
    pub(crate) segments: AtomicU64,
    /// Bytes of the reserve, used or not; set by the helper, taken back by the writer.
    pub(crate) reserve: AtomicU64,
    /// Bytes of records written; stored by the writer.
    pub(crate) recorded: AtomicU64,
    /// Estimated bytes of their lines; stored by the writer.
    pub(crate) lines: AtomicU64,
    /// The same of `Always` records alone; stored by the writer.
    pub(crate) always_recorded: AtomicU64,
    pub(crate) always_lines: AtomicU64,
    /// Bytes of lines that are in files already; stored by the thread that appends them.
    pub(crate) live: AtomicU64,
    /// Bytes of the files among them that will be written anew; stored likewise.
    pub(crate) again: AtomicU64,
    /// Beyond this many bytes of lines normal records are shed; stored by the helper.
    pub(crate) lines_max: AtomicU64,
    /// Pressure that the disk asks for; stored by the helper.
    pub(crate) pressure: AtomicU8,
    /// The segment whose sync failed last, 0 = none: it is sealed, and not synced again.
    pub(crate) sync_failed: AtomicU64,
    /// Rounds of syncs that have ended, for tests; stored by the thread that syncs.
    pub(crate) sync_rounds: AtomicU64,
    /// A test holds new segments back.
    pub(crate) held: AtomicBool,
}

impl Default for SpaceUse {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            segments: zero(),
            reserve: zero(),
            recorded: zero(),
            lines: zero(),
            always_recorded: zero(),
            always_lines: zero(),
            live: zero(),
            again: zero(),
            lines_max: AtomicU64::new(u64::MAX),
            pressure: AtomicU8::new(0),
            sync_failed: zero(),
            sync_rounds: zero(),
            held: AtomicBool::new(false),
        }
    }
}
