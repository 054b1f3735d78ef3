//! Starting a session: directories, storage, first segment, threads.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::dirs;
use super::first::register_first;
use super::live::{self, LiveThread};
use super::markers::{SessionEnd, SessionStart};
use super::rings::{self, Rings};
use super::sync::start_syncer;
use super::{Live, Threads, salvage};
use crate::config::{SegmentSink, Settings};
use crate::convert::rfc3339;
use crate::core::Core;
use crate::error::{Error, IoContext};
use crate::ledger::Ledger;
use crate::policy::Policies;
use crate::producer::Log;
use crate::record::cut_text;
use crate::resources::Sampler;
use crate::ring::Storage;
use crate::segment::entry::ClockPoint;
use crate::segment::layout::{
    FILE_HEADER_BYTES, FILE_MAGIC, FileHeader, VERSION_MAJOR, VERSION_MINOR,
};
use crate::segment::ledger_file::LedgerFile;
use crate::segment::prepare::prepare;
use crate::segment::sink::{SinkKind, SinkPlan};
use crate::stress::Online;
use crate::sys::affinity;
use crate::sys::alive::SessionLock;
use crate::sys::clock::{Clock, ticks_per_second};
use crate::sys::dir::Dir;
use crate::sys::process::{Identity, host_name};
use crate::sys::report::say;
use crate::writer::{
    Control, Helper, HelperHandle, OwnRecord, Segments, SpaceBounds, Writer, segment_bytes_min,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Starts a session. On an error nothing of it is left in the log directory.
pub(super) fn start(settings: Settings) -> Result<Live, Error> {
    let log_dir = Dir::open_log_dir(&settings.dir)?;
    let claimed = dirs::claim(log_dir)?;
    let (id, root_dir) = (claimed.id.clone(), &claimed.root_dir);
    let session_dir = Arc::clone(&claimed.session_dir);
    match start_in(&claimed, &settings) {
        Ok(started) => {
            salvage::begin(claimed.log_dir.path(), root_dir, &id);
            let log = Log::new(Arc::clone(&started.core));
            let dir = claimed.log_dir.path().to_owned();
            let resources = Sampler::start(log, settings.resource_interval, dir);
            Ok(Live {
                id,
                started: Instant::now(),
                settings,
                core: started.core,
                control: started.control,
                log_dir: claimed.log_dir,
                root_dir: claimed.root_dir,
                session_dir,
                threads: Mutex::new(Some(started.threads)),
                closed: Mutex::new(None),
                rings: started.rings,
                resources: Mutex::new(resources),
                _lock: started.lock,
            })
        }
        Err(error) => {
            if let Err(second) = dirs::remove(root_dir, &session_dir, &id) {
                say(&second.to_string());
            }
            Err(error)
        }
    }
}

struct Started {
    core: Arc<Core>,
    control: Arc<Control>,
    threads: Threads,
    lock: SessionLock,
    rings: Rings,
}

/// What identifies a session and its time.
struct Base {
    header: FileHeader,
    clock: Clock,
    rate: u64,
    point: ClockPoint,
}

fn start_in(claimed: &dirs::Claimed, settings: &Settings) -> Result<Started, Error> {
    let dir = &claimed.session_dir;
    let lock = SessionLock::take(dir)?;
    fail_point!("start.locked");
    let clock = if settings.without_counter {
        Clock::Monotonic
    } else {
        Clock::detect()
    };
    let rate = calibrated_rate(clock);
    let point = clock.point();
    let base = Base {
        header: file_header(&claimed.id, clock, rate, point),
        clock,
        rate,
        point,
    };
    let (storage, rings) = rings::make(dir, settings, &base.header)?;
    fail_point!("start.rings");
    match start_threads(claimed, settings, &base, storage, &rings) {
        Ok((core, control, threads)) => Ok(Started {
            core,
            control,
            threads,
            lock,
            rings,
        }),
        Err(error) => {
            // They may lie outside of the directory that is removed now.
            if let Err(second) = rings.remove(dir) {
                say(&second.to_string());
            }
            Err(error)
        }
    }
}

fn start_threads(
    claimed: &dirs::Claimed,
    settings: &Settings,
    base: &Base,
    storage: Storage,
    rings: &Rings,
) -> Result<(Arc<Core>, Arc<Control>, Threads), Error> {
    let dir = &claimed.session_dir;
    let path = dir.path();
    let Base {
        header,
        clock,
        rate,
        point,
    } = *base;
    let policies = Policies::new(&settings.rules, rate);
    let rules = Online::of(&settings.stress, point.ticks, rate)?;
    let mut core = Core::new(
        storage,
        clock,
        settings.record_bytes_max,
        policies,
        settings.sampling,
        settings.sampling_salt,
        settings.always_wait_max,
    )
    .io_context("cannot map memory for session", path)?;
    core.rules = rules;
    core.rate.start(rate, &point);
    let control = Arc::new(Control::default());
    core.live = live::feed(settings, &control);
    let core = Arc::new(core);
    register_first(&core, settings);
    let ledger_file = LedgerFile::create(dir, &header)?;
    let first_bytes = segment_bytes_min(settings.record_bytes_max);
    let bounds = SpaceBounds {
        session_bytes_max: settings.session_bytes_max,
        keep_free_bytes: settings.keep_free_bytes,
        segment_bytes_min: first_bytes,
    };
    let plan = sink_plan(settings);
    let first = prepare(dir, plan, &header, 1, first_bytes)?;
    fail_point!("start.segment");

    let (tasks, helper_tasks) = channel();
    let (helper_ready, ready) = sync_channel(1);
    let (helper_reserve, reserve) = sync_channel(1);
    let helper = Helper {
        core: Arc::clone(&core),
        dir: Arc::clone(dir),
        header,
        tasks: helper_tasks,
        ready: helper_ready,
        reserve: helper_reserve,
        ledger: ledger_file,
        bounds,
        plan,
        unsealed: Vec::new(),
        wanted: first_bytes,
    };
    core.space.segments.store(first_bytes as u64, Relaxed);
    let (syncs, syncer) = start_syncer(claimed, settings, &core)?;
    let live = LiveThread::start(claimed, &core, rate)?;
    let helper = match spawn("stormlog-helper", path, move || helper.run()) {
        Ok(helper) => helper,
        Err(error) => {
            live::give_up(live);
            return Err(error);
        }
    };
    let segments = Segments::new(
        Arc::clone(&core),
        Arc::clone(dir),
        HelperHandle {
            tasks,
            ready,
            reserve,
            syncs,
        },
        header,
        first,
        settings.segment_bytes,
        bounds,
    );
    let wait_max = settings.drain_wait_max(rings.in_session_dir);
    let writer = Writer::new(Arc::clone(&core), Arc::clone(&control), segments, wait_max);
    let mut run = WriterRun::new(claimed, settings, &core, &control, point);
    run.settings.drain_wait_max = Some(wait_max);
    rings.text.clone_into(&mut run.rings);
    let writer = match spawn("stormlog-writer", path, move || run.run(writer)) {
        Ok(writer) => writer,
        Err(error) => {
            // The helper ends when the writer's end of its channel is gone, which it is; it must
            // not make another file while the directory is removed.
            drop(helper.join());
            drop(syncer.map(std::thread::JoinHandle::join));
            live::give_up(live);
            return Err(error);
        }
    };
    core.wake.register(writer.thread().clone());
    let threads = Threads {
        writer,
        helper,
        syncer,
        live,
    };
    Ok((core, control, threads))
}

fn sink_plan(settings: &Settings) -> SinkPlan {
    SinkPlan {
        kind: match settings.segment_sink {
            SegmentSink::Auto | SegmentSink::Pwrite => SinkKind::Pwrite,
            SegmentSink::Mapped => SinkKind::Mapped,
        },
        guard: settings.sigbus_guard,
    }
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    path: &Path,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .io_context("cannot start a thread for", path)
}

/// What the writer thread does around draining.
struct WriterRun {
    control: Arc<Control>,
    core: Arc<Core>,
    settings: Settings,
    log_directory: String,
    /// Where the rings are.
    rings: String,
    started_at: String,
    started: Instant,
}

impl WriterRun {
    fn new(
        claimed: &dirs::Claimed,
        settings: &Settings,
        core: &Arc<Core>,
        control: &Arc<Control>,
        point: ClockPoint,
    ) -> Self {
        let path = claimed.log_dir.path();
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            control: Arc::clone(control),
            core: Arc::clone(core),
            settings: settings.clone(),
            log_directory: absolute.to_string_lossy().into_owned(),
            rings: String::new(),
            started_at: rfc3339(point.utc_ns),
            started: Instant::now(),
        }
    }

    fn run(self, writer: Writer) -> crate::writer::WriterEnd {
        /// Lets callers and producers know when the writer ends, by a panic too.
        struct Ended(Arc<Control>, Arc<Core>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.1.begin_closing();
                self.0.end();
            }
        }
        let _ended = Ended(Arc::clone(&self.control), Arc::clone(&self.core));
        let pinned = affinity::pin(self.settings.writer_core);
        let host = host_name();
        let json = self.settings.to_json().to_string();
        let start = SessionStart {
            event: "session_start",
            log_directory: &self.log_directory,
            pid: std::process::id(),
            version: VERSION,
            host: cut_text(&host, 254),
            started_at: &self.started_at,
            writer: cut_text(&pinned, 254),
            rings: cut_text(&self.rings, 254),
            settings: Some(&json),
        };
        writer.run(&start, &|ledger, write| self.end(ledger, write))
    }

    fn end(&self, ledger: &Ledger, write: &mut dyn FnMut(&dyn OwnRecord)) {
        let json = ledger.to_json().to_string();
        let fault = self.core.losses.sentence();
        write(&SessionEnd {
            event: "session_end",
            reason: self.control.reason(),
            duration_ms: self.started.elapsed(),
            wakes: self.core.wake.wakes(),
            ledger: Some(&json),
            spilled: self.core.storage.spill.spilled(),
            always_waits: self.core.losses.waits(),
            always_lost: self.core.losses.lost(),
            fault: fault.as_deref(),
        });
    }
}

fn file_header(id: &str, clock: Clock, rate: u64, point: ClockPoint) -> FileHeader {
    let identity = Identity::read();
    let mut session = [0; 16];
    session[..id.len().min(15)].copy_from_slice(&id.as_bytes()[..id.len().min(15)]);
    let mut program = [0; 40];
    let name = format!("stormlog {VERSION}");
    let bytes = name.len().min(program.len());
    program[..bytes].copy_from_slice(&name.as_bytes()[..bytes]);
    FileHeader {
        magic: FILE_MAGIC,
        version_major: VERSION_MAJOR,
        version_minor: VERSION_MINOR,
        header_bytes: FILE_HEADER_BYTES as u32,
        file_kind: 0,
        crc: 0,
        nonce: identity.nonce,
        session,
        boot_id: identity.boot_id,
        pid: identity.pid,
        pid_namespace: identity.pid_namespace,
        process_start: identity.process_start,
        clock_kind: clock.kind(),
        zero: 0,
        ticks_per_second: rate,
        segment: 0,
        file_bytes: 0,
        start_ticks: point.ticks,
        start_utc_ns: point.utc_ns,
        start_mono_ns: point.mono_ns,
        program,
        zero_tail: [0; 64],
    }
}

/// Ticks per second, measured once per process. Two milliseconds give it to about 25 ppm; the
/// clock points of the session make it exact.
fn calibrated_rate(clock: Clock) -> u64 {
    /// 0 = not measured. Not a lock: a child that is forked meanwhile would wait for ever.
    static RATE: AtomicU64 = AtomicU64::new(0);
    if clock == Clock::Monotonic {
        return 1_000_000_000;
    }
    let known = RATE.load(Relaxed);
    if known > 0 {
        return known;
    }
    let first = clock.point();
    std::thread::sleep(Duration::from_millis(2));
    let rate = ticks_per_second(&first, &clock.point());
    // Threads that measured at the same time use the rate of the first.
    RATE.compare_exchange(0, rate, Relaxed, Relaxed)
        .map_or_else(|first| first, |_| rate)
}
