//! Sessions: start, handle, close.

mod close;
mod dirs;
mod hooks;
mod markers;
mod start;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{Conversion, RingStorage, Settings, WriterCore};
use crate::core::Core;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::producer::Log;
use crate::record::Category;
use crate::segment::ledger_file::LedgerFile;
use crate::sync::barrier;
use crate::sys::alive::SessionLock;
use crate::sys::dir::Dir;
use crate::sys::report::say;
use crate::writer::{Control, Request, WriterEnd};

/// Longest time that `flush` and `sync_now` wait for the writer.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A recording session: the owner. Dropping it closes it. In a forked child it records nothing,
/// dropping it does nothing, and every other call returns [`Error::Forked`].
///
/// ```
/// use stormlog::{Outcome, Session};
/// use stormlog::record::{Category, Extra};
///
/// # fn main() -> Result<(), stormlog::Error> {
/// # let temp = tempfile::tempdir().unwrap();
/// let session = Session::builder().dir(temp.path().join("debug_logs")).start()?;
/// let log = session.log();
/// let vpn = Category::named("vpn").unwrap();
/// assert_eq!(log.event(vpn, &[Extra::new("status", "healthy")]), Outcome::Kept);
/// let report = session.close()?;
/// assert_eq!(report.ledger.categories["vpn"].written(), 1);
/// assert!(report.ledger.is_exact() && report.faults.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session {
    log: Log,
    /// `None`: recording is off.
    live: Option<Live>,
}

/// A session that records.
#[derive(Debug)]
struct Live {
    id: String,
    started: Instant,
    settings: Settings,
    core: Arc<Core>,
    control: Arc<Control>,
    log_dir: Arc<Dir>,
    root_dir: Dir,
    session_dir: Arc<Dir>,
    threads: Mutex<Option<Threads>>,
    /// Says that the session is alive, until it has been converted.
    _lock: SessionLock,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<WriterEnd>,
    helper: JoinHandle<(Vec<String>, LedgerFile)>,
}

/// Settings of a session before it starts. See `docs/DEBUG_MODE.md` for each of them.
#[derive(Clone, Debug)]
pub struct SessionBuilder {
    settings: Settings,
}

/// One JSON Lines file that a conversion wrote.
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
#[derive(Clone, Debug, Default)]
pub struct CloseReport {
    /// Id of the session; empty when recording was off.
    pub session_id: String,
    /// Time from start to close.
    pub duration: Duration,
    /// The final ledger, the same as in `session_end`.
    pub ledger: Ledger,
    /// Files written; empty when segments were left for later.
    pub files: Vec<ConvertedFile>,
    /// The directory of the segments, if it is still there.
    pub segments: Option<PathBuf>,
    /// Bytes of all segments.
    pub segment_bytes: u64,
    /// Times a producer had to wake the sleeping writer: the producers' only syscalls.
    pub wakes: u64,
    /// `Always` records that took the spill, because their ring was full or they had none.
    pub spilled: u64,
    /// `Always` records whose push had to wait for room.
    pub always_waits: u64,
    /// `Always` records that were lost, for whatever reason; a fault when it is not 0.
    pub always_lost: u64,
    /// What is not as it should be, as sentences; empty when all is well.
    pub faults: Vec<String>,
}

impl Session {
    /// Settings with their defaults; recording is on.
    pub fn builder() -> SessionBuilder {
        SessionBuilder {
            settings: Settings::default(),
        }
    }

    /// Starts a session as the environment says (`DEBUG_MODE`, `DEBUG_LOG_DIR`, `STORMLOG_*`).
    /// Without `DEBUG_MODE` it is a session that records nothing.
    ///
    /// # Errors
    /// As [`SessionBuilder::from_env`] and [`SessionBuilder::start`].
    pub fn from_env() -> Result<Self, Error> {
        SessionBuilder::from_env()?.start()
    }

    /// A session that records nothing and costs next to nothing.
    pub fn disabled() -> Self {
        Self {
            log: Log::disabled(),
            live: None,
        }
    }

    /// A handle for producers.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// Session id, `YYYYMMDD_HHMMSS`; empty when recording is off.
    pub fn id(&self) -> &str {
        self.live.as_ref().map_or("", |live| &live.id)
    }

    /// Whether the session records at all.
    pub fn is_enabled(&self) -> bool {
        self.live.is_some()
    }

    /// The log directory; `None` when recording is off.
    pub fn dir(&self) -> Option<&Path> {
        self.live.as_ref().map(|live| live.log_dir.path())
    }

    /// The directory of segments while the session runs; `None` when recording is off.
    pub fn segment_dir(&self) -> Option<&Path> {
        self.live.as_ref().map(|live| live.session_dir.path())
    }

    /// The ledger as it is now: `offered = written + sampled_out + dropped + pending`.
    pub fn stats(&self) -> Ledger {
        self.live
            .as_ref()
            .map_or_else(Ledger::default, |live| live.core.ledger())
    }

    /// Switches recording on or off at run time. Off: a push returns `Disabled` after one load.
    pub fn set_on(&self, on: bool) {
        if let Some(live) = &self.live {
            live.core.set_on(on);
        }
    }

    /// Switches one category on or off at run time.
    pub fn set_category_on(&self, category: Category, on: bool) {
        if let (Some(live), Some(ids)) = (&self.live, category.schema().ids()) {
            live.core.set_category_on(ids.category, on);
        }
    }

    /// Waits until every push that returned before this call, on any thread, is in a segment.
    ///
    /// # Errors
    /// When the writer has failed, cannot write (no disk), or takes longer than 10 s.
    pub fn flush(&self) -> Result<(), Error> {
        self.ask(Request::Flush)
    }

    /// As [`flush`](Self::flush), and waits until it is on the disk (`msync` and `fdatasync`).
    ///
    /// # Errors
    /// As [`flush`](Self::flush), and when the disk fails.
    pub fn sync_now(&self) -> Result<(), Error> {
        self.ask(Request::Sync)
    }

    fn ask(&self, request: Request) -> Result<(), Error> {
        let Some(live) = &self.live else {
            return Ok(());
        };
        if live.core.gates.is_forked() {
            return Err(Error::Forked);
        }
        // Every store of every thread that came before this point is visible after it.
        barrier::heavy();
        live.control
            .ask(request, ASK_LIMIT, || live.core.wake.unpark())
    }

    /// Ends the session: no push begins after this, those that run are waited for (at most 1 s),
    /// everything is drained, `session_end` with the exact ledger is written, segments are sealed
    /// and converted as the settings say.
    ///
    /// # Errors
    /// When the writer thread has panicked; [`Error::Forked`] in a forked child. Trouble with files
    /// is in [`CloseReport::faults`].
    pub fn close(mut self) -> Result<CloseReport, Error> {
        match self.live.take() {
            Some(live) => live.close("close"),
            None => Ok(CloseReport::default()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else {
            return;
        };
        match live.close("drop") {
            Ok(report) => {
                for fault in report.faults {
                    say(&format!("session {}: {fault}", report.session_id));
                }
            }
            // A child that ends without exec drops what it inherited: nothing to tell.
            Err(Error::Forked) => {}
            Err(error) => say(&error.to_string()),
        }
    }
}

impl Live {
    fn take_threads(&self) -> Option<Threads> {
        self.threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl SessionBuilder {
    /// Settings from the environment. `DEBUG_MODE` switches recording on (default off).
    ///
    /// # Errors
    /// [`Error::Setting`] names the variable, its value and what it can be.
    pub fn from_env() -> Result<Self, Error> {
        Ok(Self {
            settings: Settings::from_env()?,
        })
    }

    /// Whether to record at all. Default true here, `DEBUG_MODE` in [`from_env`](Self::from_env).
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Log directory, default `./debug_logs`; created with its parents (0700) when missing.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.settings.dir = dir.into();
        self
    }

    /// Hard bound of the memory of all rings, default 16 MiB.
    #[must_use]
    pub fn ring_total_bytes(mut self, bytes: usize) -> Self {
        self.settings.ring_total_bytes = bytes;
        self
    }

    /// Memory for records that are too long for a ring, default 4 MiB; at least `record_bytes_max`
    /// and an eighth of it and 64 KiB, so that one record of any length finds room.
    #[must_use]
    pub fn large_total_bytes(mut self, bytes: usize) -> Self {
        self.settings.large_total_bytes = bytes;
        self
    }

    /// Memory for `Always` records that find their ring full, or have none; default 1 MiB. Each
    /// takes 512 bytes of it.
    #[must_use]
    pub fn spill_total_bytes(mut self, bytes: usize) -> Self {
        self.settings.spill_total_bytes = bytes;
        self
    }

    /// How long the push of an `Always` record waits when its ring and the spill are full, default
    /// 1 ms, at most 100 ms; 0 = not at all. After that the record is dropped and counted.
    #[must_use]
    pub fn always_wait_max(mut self, wait: Duration) -> Self {
        self.settings.always_wait_max = wait;
        self
    }

    /// Largest segment, a multiple of 2 MiB, default 64 MiB. Sessions start with small ones.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: usize) -> Self {
        self.settings.segment_bytes = bytes;
        self
    }

    /// Longest record, default 1 MiB. Longer ones have their texts cut and are flagged.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.record_bytes_max = bytes;
        self
    }

    /// Where rings live, default [`RingStorage::Anonymous`].
    #[must_use]
    pub fn ring_storage(mut self, storage: RingStorage) -> Self {
        self.settings.ring_storage = storage;
        self
    }

    /// Where the writer thread runs, default [`WriterCore::Auto`].
    #[must_use]
    pub fn writer_core(mut self, core: WriterCore) -> Self {
        self.settings.writer_core = core;
        self
    }

    /// When segments become JSON Lines, default [`Conversion::Wait`].
    #[must_use]
    pub fn conversion(mut self, conversion: Conversion) -> Self {
        self.settings.conversion = conversion;
        self
    }

    /// How long `close()` may convert before it leaves the segments for later, default 5 s: below
    /// the grace that container runtimes give.
    #[must_use]
    pub fn close_deadline(mut self, deadline: Duration) -> Self {
        self.settings.close_deadline = deadline;
        self
    }

    /// Keep segments after a verified conversion, default false.
    #[must_use]
    pub fn keep_segments(mut self, keep: bool) -> Self {
        self.settings.keep_segments = keep;
        self
    }

    /// Categories that are off from the start.
    #[must_use]
    pub fn categories_off(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.categories_off = names.into_iter().map(Into::into).collect();
        self
    }

    /// Starts recording.
    ///
    /// # Errors
    /// [`Error::Setting`] for a value out of bounds, [`Error::Insecure`] for a log directory that
    /// others can write to, [`Error::Io`] when directory, segment or threads cannot be made. To
    /// go on without recording use [`Session::disabled`] then.
    pub fn start(self) -> Result<Session, Error> {
        self.settings.validate()?;
        if !self.settings.enabled {
            return Ok(Session::disabled());
        }
        let live = start::start(self.settings)?;
        Ok(Session {
            log: Log::new(Arc::clone(&live.core)),
            live: Some(live),
        })
    }
}
