//! Sessions: start, handle, close.

mod builder;
mod close;
mod dirs;
mod first;
mod hooks;
mod live;
mod markers;
mod rings;
mod salvage;
mod start;
mod sync;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::core::Core;
use crate::durations::Durations;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::producer::Log;
use crate::record::Category;
use crate::resources::Sampler;
use crate::segment::ledger_file::LedgerFile;
use crate::sync::barrier;
use crate::sys::alive::SessionLock;
use crate::sys::dir::Dir;
use crate::sys::report::say;
use crate::writer::{Control, Request, WriterEnd};

pub use builder::SessionBuilder;

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
    live: Option<Arc<Live>>,
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
    /// What the first to close it was told; locked while it is being closed.
    closed: Mutex<Option<CloseReport>>,
    rings: rings::Rings,
    /// With a `resource_interval`, until the session is closed.
    resources: Mutex<Option<Sampler>>,
    /// Says that the session is alive, until it has been converted.
    _lock: SessionLock,
}

#[derive(Debug)]
struct Threads {
    writer: JoinHandle<WriterEnd>,
    helper: JoinHandle<(Vec<String>, LedgerFile)>,
    /// Unless `durability` is off.
    syncer: Option<JoinHandle<Vec<String>>>,
    /// With `live`.
    live: Option<live::LiveThread>,
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
    /// Secrets that were replaced in the lines; 0 when segments were left for later.
    pub redacted: u64,
    /// With `live`: lines whose records were committed after later ones had been appended. The
    /// close puts them in order where it converts.
    pub late: u64,
    /// Where the rings were, and why when that is not the first choice; as `session_start.rings`.
    pub rings: String,
    /// What is not as it should be, as sentences; empty when all is well.
    pub faults: Vec<String>,
}

impl Session {
    /// Settings with their defaults; recording is on.
    pub fn builder() -> SessionBuilder {
        SessionBuilder::new()
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

    /// The ledger as it is now: `offered = written + sampled_out + dropped + interrupted +
    /// pending` in every category; `pending` records are still in a ring. Empty when recording
    /// is off.
    ///
    /// The counts are read one after the other while threads push, so they are not of one
    /// instant; `offered` is never less than what is accounted for, and every push that returned
    /// before this call, on the calling thread, is in it. Producers do not notice.
    pub fn stats(&self) -> Ledger {
        let Some(live) = self.own() else {
            return Ledger::default();
        };
        let mut ledger = live.core.ledger();
        ledger.settle();
        ledger
    }

    /// The durations of each operation as they are now: of all records that were offered, whether
    /// they were written, sampled out or dropped. Every push that returned before this call, on
    /// the calling thread, is in it; close writes the same into the category `session`. Empty when
    /// recording is off.
    pub fn durations(&self) -> Vec<Durations> {
        self.own()
            .map_or_else(Vec::new, |live| live.core.durations())
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
        self.ask(Request::Sync)?;
        let Some(live) = &self.live else {
            return Ok(());
        };
        // The name of the session itself.
        live.root_dir.sync()?;
        live.log_dir.sync()
    }

    /// The session, unless it belongs to the parent of this process: its rings may not be mapped
    /// here.
    fn own(&self) -> Option<&Live> {
        let live = self.live.as_deref();
        live.filter(|live| !live.core.gates.is_forked())
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
            Some(live) => Live::close(&live, "close"),
            None => Ok(CloseReport::default()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else {
            return;
        };
        match Live::close(&live, "drop") {
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

/// Closes a session that somebody else owns.
#[derive(Clone, Debug)]
pub(crate) struct Closer(Weak<Live>);

impl Session {
    /// For who has to close the session without owning it.
    pub(crate) fn closer(&self) -> Closer {
        Closer(self.live.as_ref().map_or_else(Weak::new, Arc::downgrade))
    }
}

impl Closer {
    /// As [`Session::close`]; nothing when that was done before. `reason` goes into `session_end`.
    pub(crate) fn close(&self, reason: &'static str) -> Result<CloseReport, Error> {
        match self.0.upgrade() {
            Some(live) => Live::close(&live, reason),
            None => Ok(CloseReport::default()),
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
#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod ruled_tests;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{DropReason, OFFERED};
    use crate::record::{DurationMs, ShortText};

    /// A look between the two counts of a dropped record, held still.
    #[test]
    fn stats_never_shows_an_end_without_its_begin() {
        let temp = tempfile::tempdir().unwrap();
        let session = Session::builder().dir(temp.path()).start().unwrap();
        let id = Category::named("vpn").unwrap().schema().ids().unwrap();
        let storage = &session.live.as_ref().unwrap().core.storage;
        storage.count_shared(id.category, DropReason::NoRing.counter());
        let torn = session.stats().categories["vpn"];
        assert_eq!(
            (torn.offered(), torn.dropped_total(), torn.pending()),
            (1, 1, 0)
        );
        storage.count_shared(id.category, OFFERED);
        assert_eq!(session.stats().categories["vpn"], torn);
        assert!(session.close().unwrap().ledger.is_exact());
    }

    /// Whoever comes later waits for the first, and is told the same.
    #[test]
    fn closes_from_several_threads_close_once() {
        let temp = tempfile::tempdir().unwrap();
        let session = Session::builder().dir(temp.path()).start().unwrap();
        let log = session.log();
        log.event(Category::named("vpn").unwrap(), &[]);
        let closer = session.closer();
        let close = |reason| {
            let closer = closer.clone();
            std::thread::spawn(move || closer.close(reason))
        };
        // One that comes when everything is over has nothing to close.
        let others: Vec<_> = ["a", "b", "c"].into_iter().map(close).collect();
        let report = session.close().unwrap();
        assert!(report.ledger.is_exact() && report.faults.is_empty());
        for other in others {
            let told = other.join().unwrap().unwrap();
            if !told.session_id.is_empty() {
                assert_eq!(
                    (told.ledger, told.files),
                    (report.ledger.clone(), report.files.clone())
                );
            }
        }
        assert_eq!(report.ledger.categories["vpn"].written(), 1);
        let ended = closer.close("d").unwrap();
        assert!(ended.session_id.is_empty());
        assert_eq!(
            log.event(Category::named("vpn").unwrap(), &[]),
            crate::Outcome::Closed
        );
    }

    /// A pressure that comes, goes or changes while an operation runs does not part its records.
    #[test]
    fn an_operation_keeps_the_decision_of_its_begin() {
        const COUNT: u64 = 300;
        let temp = tempfile::tempdir().unwrap();
        let builder = Session::builder().dir(temp.path()).keep_free_bytes(0);
        let session = builder.start().unwrap();
        let log = session.log();
        drop(log.provisioning().start("first"));
        let ids = crate::record::catalog::orchestrator::Provisioning::default();
        let ids = crate::record::Record::schema(&ids).ids().unwrap();
        let core = Arc::clone(&session.live.as_ref().unwrap().core);
        let press = |k| core.set_pressures([(ids.category, k)].into_iter());
        for (begin, end) in [(0, 15), (3, 0), (2, 4), (4, 2)] {
            press(begin);
            let all: Vec<_> = (0..COUNT / 10)
                .map(|_| log.provisioning().start("step").detach())
                .collect();
            press(end);
            for operation in all {
                operation.success(&[]);
            }
        }
        let report = session.close().unwrap();
        let account = report.ledger.categories["provisioning"];
        assert_eq!(account.offered(), 2 + 2 * 4 * COUNT / 10);
        assert!(account.sampled_out() > 0 && report.ledger.is_exact());
        let file = report
            .files
            .iter()
            .find(|file| file.category == "provisioning");
        let text = std::fs::read_to_string(&file.unwrap().path).unwrap();
        let mut weights = std::collections::BTreeMap::<u64, Vec<f64>>::new();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let weight = line
                .get("sample_weight")
                .map_or(1.0, |w| w.as_f64().unwrap());
            let id = line["operation_id"].as_u64().unwrap();
            weights.entry(id).or_default().push(weight);
        }
        assert!(
            weights
                .values()
                .all(|w| w.len() == 2 && w[0].to_bits() == w[1].to_bits()),
            "{weights:?}"
        );
        let seen = |weight: f64| weights.values().any(|w| w[0].to_bits() == weight.to_bits());
        assert!(seen(1.0) && (seen(8.0) || seen(4.0)), "{weights:?}");
    }

    crate::record! {
        struct Timed in "vpn" keep Sampled { duration_ms: DurationMs<2> }
    }
    crate::record! {
        struct TimedKey in "vpn" keep Sampled key id { id: ShortText, duration_ms: DurationMs<2> }
    }

    /// The shortcut of a category under pressure leaves records out early, but not unseen.
    #[test]
    fn durations_are_exact_under_the_pressure_of_a_category() {
        const COUNT: u64 = 400;
        let temp = tempfile::tempdir().unwrap();
        let session = Session::builder().dir(temp.path()).start().unwrap();
        let log = session.log();
        let id = Category::named("vpn").unwrap().schema().ids().unwrap();
        // The first push of a type takes the slow path; the second finds the gate open.
        for k in [0, 6] {
            let core = &session.live.as_ref().unwrap().core;
            core.set_pressures([(id.category, k)].into_iter());
            for number in 1..=COUNT {
                let duration_ms = Duration::from_nanos(number);
                log.push(&Timed { duration_ms });
                log.push_lazy(|| Timed { duration_ms });
                let id = number.to_string();
                let record = TimedKey {
                    id: &id,
                    duration_ms,
                };
                log.push(&record);
                log.push_keyed(&record, log.key_hash(id.as_bytes()).unwrap());
            }
        }
        let told = session.durations();
        let counts = told.iter().map(|one| one.histogram.count());
        assert_eq!(counts.collect::<Vec<_>>(), [4 * COUNT; 2]);
        for one in &told {
            assert_eq!(one.histogram.sum_ns, 2 * COUNT * (COUNT + 1));
            assert_eq!(one.histogram.max_ns, COUNT);
        }
        let account = session.close().unwrap().ledger.categories["vpn"];
        assert_eq!(account.offered(), 8 * COUNT);
        assert!(account.sampled_out() > 3 * COUNT, "{account:?}");
    }
}
