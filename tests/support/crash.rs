//! A child process that records a self-checking stream and dies, and the check of what it left.
//!
//! Each thread of the child numbers its records, tells of every push that returned through a page
//! that it shares with the parent, and pushes a record that was refused again, as one that must be
//! kept. So what has to be found is known to the record, wherever the child dies.
#![expect(unsafe_code, reason = "the page that parent and child share")]
#![expect(clippy::cast_ptr_alignment, reason = "a mapping is page-aligned")]
#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]

#[path = "crash_check.rs"]
mod check;

pub use check::{Found, check_all, check_durations, check_ledger, check_lines, check_live_lines};

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::ledger::Ledger;
use stormlog::record::{DurationMs, LongText, Name, Symbol};
use stormlog::recover::{RecoverOptions, RecoverReport, recover_session, session_ids};
use stormlog::segment::files::SessionFiles;
use stormlog::{Conversion, Log, Outcome, RingStorage, SegmentSink, Session, SessionBuilder};

use crate::recording;

stormlog::record! {
    struct Normal in "requests" keep Sampled {
        operation: Symbol,
        thread: u32,
        number: u64,
        check: u64,
        duration_ms: DurationMs<6>,
        text: LongText,
    }
}

stormlog::record! {
    struct Kept in "errors" keep Always {
        operation: Symbol,
        thread: u32,
        number: u64,
        check: u64,
        duration_ms: DurationMs<6>,
        text: LongText,
    }
}

/// Longest wait for anything: other work may hold the machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Words of the shared page.
const WORDS: usize = 256;
/// The child records.
const READY: usize = 0;
/// Its session was closed.
const CLOSED: usize = 1;
const FIRST_THREAD: usize = 8;
const PER_THREAD: usize = 4;
/// What the child does: a role, and what it needs to know.
const CHILD: &str = "STORMLOG_CRASH_CHILD";
const FAIL_POINT: &str = "STORMLOG_FAIL_POINT";
pub const SIGKILL: i32 = 9;
pub const SIGABRT: i32 = 6;

/// What a thread tells, each a word that it alone stores.
#[derive(Clone, Copy)]
pub enum Told {
    /// Number of the last record that was kept.
    Kept,
    /// Pushes that were dropped.
    Dropped,
    /// Pushes that were sampled out.
    SampledOut,
    /// Pushes that began.
    Begun,
}

/// What parent and child share.
pub struct Page(MmapMut);

impl Page {
    fn open(path: &Path, new: bool) -> Self {
        let mut options = File::options();
        let file = options.read(true).write(true).create(new).truncate(new);
        let file = file.open(path).unwrap();
        file.set_len((WORDS * 8) as u64).unwrap();
        // SAFETY: only parent and child map the file, and nobody cuts it while they do.
        Self(unsafe { MmapMut::map_mut(&file) }.unwrap())
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS);
        let words = self.0.as_ptr().cast_mut().cast::<AtomicU64>();
        // SAFETY: inside the mapping by the assertion.
        let word = unsafe { words.add(index) };
        // SAFETY: page-aligned, and never accessed but as atomics.
        unsafe { &*word }
    }

    fn thread(&self, thread: usize, told: Told) -> &AtomicU64 {
        self.word(FIRST_THREAD + thread * PER_THREAD + told as usize)
    }

    pub fn told(&self, thread: usize, told: Told) -> u64 {
        self.thread(thread, told).load(Acquire)
    }

    /// What all threads have told.
    pub fn all(&self, plan: Plan, told: Told) -> u64 {
        let all = (0..plan.threads).map(|thread| self.told(thread, told));
        all.sum()
    }

    pub fn is_closed(&self) -> bool {
        self.word(CLOSED).load(Acquire) == 1
    }
}

/// splitmix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// How the child ends itself, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The parent kills it.
    Killed,
    /// `abort()`.
    Aborts,
    /// A panic inside a push, as in a program with `panic = "abort"`: the hook aborts it before
    /// anything is unwound.
    Panics,
    /// Its threads end after so many pushes, and it closes the session.
    Closes(u64),
}

/// What a round does, all of it from its seed.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "any of them with any other")]
pub struct Plan {
    pub seed: u64,
    pub threads: usize,
    /// Rings of 4 KiB and a spill of 8 slots.
    pub tiny: bool,
    /// Long records, so that segments are rolled; some of them take chunks.
    pub long: bool,
    /// The writer rests: everything is in rings and spill.
    pub rests: bool,
    /// Sampling, a slow writer, and the disk bound.
    pub storm: bool,
    /// The rings are in `/dev/shm`.
    pub shm: bool,
    /// Threads end soon, and others take their rings.
    pub short_lived: bool,
    /// Lines are appended while it records.
    pub live: bool,
    pub ending: Ending,
    pub delay: Duration,
}

/// Whether there is a `/dev/shm`, which not every container has.
pub fn has_shm() -> bool {
    Path::new("/dev/shm").is_dir()
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut one_in = |n| random.below(n) == 0;
        let mut plan = Self {
            seed,
            threads: 4,
            tiny: one_in(2),
            long: one_in(3),
            rests: one_in(3),
            storm: false,
            shm: one_in(5) && has_shm(),
            short_lived: one_in(4),
            // With both sinks.
            live: seed % 4 >= 2,
            ending: match (one_in(8), one_in(8)) {
                (true, _) => Ending::Aborts,
                (_, true) => Ending::Panics,
                _ => Ending::Killed,
            },
            delay: Duration::from_micros(random.below(30_000)),
        };
        if random.below(6) == 0 {
            plan.storm = true;
            (plan.tiny, plan.rests, plan.long) = (false, false, true);
            plan.delay = Duration::from_micros(random.below(400_000));
        } else if seed % 8 == 6 {
            // Long enough for lines of which the window is over.
            (plan.rests, plan.long) = (false, false);
            plan.delay = Duration::from_micros(random.below(120_000));
        }
        plan
    }

    fn builder(self, dir: &Path) -> SessionBuilder {
        let conversion = match self.ending {
            Ending::Closes(_) => Conversion::Wait,
            _ => Conversion::Later,
        };
        let builder = recording::builder()
            .dir(dir)
            .ring_storage(if self.shm {
                RingStorage::Shm
            } else {
                RingStorage::SessionDir
            })
            .segment_sink(self.sink())
            .live(self.live)
            .conversion(conversion)
            .sampling(self.storm)
            .always_wait_max(Duration::ZERO)
            .record_bytes_max(64 << 10)
            .segment_bytes(4 << 20)
            .large_total_bytes(1 << 20);
        if self.storm {
            return builder
                .ring_total_bytes(1 << 20)
                .spill_total_bytes(64 << 10)
                .session_bytes_max(24 << 20);
        }
        if self.tiny {
            builder.ring_total_bytes(64 << 10).spill_total_bytes(4096)
        } else {
            builder
                .ring_total_bytes(4 << 20)
                .spill_total_bytes(64 << 10)
        }
    }

    /// Every other seed has the sink that is not the default.
    fn sink(self) -> SegmentSink {
        if self.seed.is_multiple_of(2) {
            SegmentSink::Mapped
        } else {
            SegmentSink::Pwrite
        }
    }

    /// The text of a record: its thread, its number and a length that follows from both.
    fn text(self, thread: u32, number: u64) -> String {
        let mut random = Random(self.seed ^ u64::from(thread) << 40 ^ number);
        let length = match random.below(64) {
            0 if self.long => 34_000 + random.below(20_000),
            1 => random.below(600),
            _ if self.long => random.below(2_000),
            _ => random.below(40),
        };
        let letters = b'a' + (random.below(26) as u8);
        String::from_utf8(vec![letters; length as usize]).unwrap()
    }

    fn is_kept(self, thread: u32, number: u64) -> bool {
        Random(self.seed ^ u64::from(thread) << 20 ^ number << 1).below(4) == 0
    }
}

fn check_of(thread: u32, number: u64, text: &str) -> u64 {
    let mut random = Random(u64::from(thread) << 48 ^ number);
    text.bytes()
        .take(64)
        .fold(random.next() ^ text.len() as u64, |sum, byte| {
            Random(sum ^ u64::from(byte)).next()
        })
        >> 12
}

/// Duration of a push: so long that each bucket has its share.
fn duration_ns(thread: usize, push: u64) -> u64 {
    let mut random = Random((thread as u64) << 50 ^ push);
    let bits = random.below(34);
    random.next() >> (63 - bits)
}

/// The child: does what the environment says.
pub fn child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    let words: Vec<&str> = role.split(' ').collect();
    let dir = Path::new(".");
    match words.as_slice() {
        ["record", plan] => record_all(parse(plan)),
        ["recover", id] => drop(recover(dir, id)),
        ["convert", id] => drop(convert(dir, id)),
        _ => panic!("{role}"),
    }
}

/// A plan as one word, and back.
fn word_of(plan: Plan) -> String {
    let flags = [
        plan.tiny,
        plan.long,
        plan.rests,
        plan.storm,
        plan.short_lived,
        plan.shm,
        plan.live,
    ];
    let flags: String = flags
        .iter()
        .map(|flag| if *flag { '1' } else { '0' })
        .collect();
    let ending = match plan.ending {
        Ending::Killed => "killed,0".to_owned(),
        Ending::Aborts => "aborts,0".to_owned(),
        Ending::Panics => "panics,0".to_owned(),
        Ending::Closes(pushes) => format!("closes,{pushes}"),
    };
    let delay = plan.delay.as_micros();
    format!("{},{},{flags},{ending},{delay}", plan.seed, plan.threads)
}

fn parse(word: &str) -> Plan {
    let parts: Vec<&str> = word.split(',').collect();
    let &[seed, threads, flags, ending, pushes, delay] = parts.as_slice() else {
        panic!("{word}");
    };
    let flags: Vec<bool> = flags.chars().map(|flag| flag == '1').collect();
    Plan {
        seed: seed.parse().unwrap(),
        threads: threads.parse().unwrap(),
        tiny: flags[0],
        long: flags[1],
        rests: flags[2],
        storm: flags[3],
        short_lived: flags[4],
        shm: flags[5],
        live: flags[6],
        ending: match ending {
            "killed" => Ending::Killed,
            "aborts" => Ending::Aborts,
            "panics" => Ending::Panics,
            _ => Ending::Closes(pushes.parse().unwrap()),
        },
        delay: Duration::from_micros(delay.parse().unwrap()),
    }
}

fn record_all(plan: Plan) {
    if plan.ending == Ending::Panics {
        std::panic::set_hook(Box::new(|_| std::process::abort()));
    }
    let page = Page::open(Path::new("page"), false);
    let session = plan.builder(Path::new(".")).start().unwrap();
    if plan.rests {
        session.pause_writer();
    }
    if plan.storm {
        session.limit_writer(48 << 20);
    }
    page.word(READY).store(1, Release);
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let (session, page) = (&session, &page);
            scope.spawn(move || {
                let pushes = match plan.ending {
                    Ending::Closes(pushes) => pushes,
                    _ => u64::MAX,
                };
                if plan.short_lived {
                    // One thread after the other, each with a ring of its own.
                    let mut left = pushes;
                    while left > 0 {
                        let part = left.min(200);
                        std::thread::scope(|scope| {
                            scope.spawn(|| record(plan, session, page, thread, part));
                        });
                        left -= part;
                    }
                    return;
                }
                record(plan, session, page, thread, pushes);
            });
        }
        match plan.ending {
            Ending::Aborts => {
                std::thread::sleep(plan.delay);
                std::process::abort();
            }
            Ending::Panics => {
                std::thread::sleep(plan.delay);
                // Again where sampling leaves the record out before it is built.
                loop {
                    let log = session.log();
                    log.push_lazy(|| -> Normal<'static> { panic!("in a push") });
                }
            }
            Ending::Killed | Ending::Closes(_) => {}
        }
    });
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    page.word(CLOSED).store(1, Release);
}

fn record(plan: Plan, session: &Session, page: &Page, thread: usize, pushes: u64) {
    let log = session.log();
    let kept = page.thread(thread, Told::Kept);
    let begun = page.thread(thread, Told::Begun);
    let id = thread as u32;
    let mut refused = false;
    for _ in 0..pushes {
        // Only this thread stores any of them.
        let number = kept.load(Acquire) + 1;
        let push = begun.load(Acquire) + 1;
        begun.store(push, Release);
        // A normal record that is refused is pushed as one that must be kept.
        let must = refused || plan.is_kept(id, number);
        let outcome = push_one(plan, &log, (thread, number, push), must);
        refused = outcome != Outcome::Kept;
        let told = match outcome {
            Outcome::Kept => {
                kept.store(number, Release);
                continue;
            }
            Outcome::Dropped(_) => Told::Dropped,
            Outcome::SampledOut => Told::SampledOut,
            other => panic!("{other:?}"),
        };
        let told = page.thread(thread, told);
        told.store(told.load(Acquire) + 1, Release);
        if must {
            std::thread::yield_now();
        }
    }
}

fn push_one(
    plan: Plan,
    log: &Log,
    (thread, number, push): (usize, u64, u64),
    must: bool,
) -> Outcome {
    let id = thread as u32;
    let text = plan.text(id, number);
    let check = check_of(id, number, &text);
    let operation = Name::Symbol(Symbol::intern(&format!("operation_{thread}")).unwrap());
    let duration_ms = Duration::from_nanos(duration_ns(thread, push));
    if must {
        return log.push(&Kept {
            operation,
            thread: id,
            number,
            check,
            duration_ms,
            text: &text,
        });
    }
    log.push(&Normal {
        operation,
        thread: id,
        number,
        check,
        duration_ms,
        text: &text,
    })
}

/// Kills its child at the end of a test too.
pub struct Running(pub Child);

impl Running {
    /// Starts a child in a role; `point` is where it kills itself.
    pub fn start(dir: &Path, role: &str, point: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, role)
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::from(File::create(dir.join("stderr")).unwrap()));
        command.env_remove(FAIL_POINT);
        if let Some(point) = point {
            command.env(FAIL_POINT, point);
        }
        Self(command.spawn().unwrap())
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < limit, "the child does not end");
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Starts a child that records.
pub fn start(plan: Plan, dir: &Path, point: Option<&str>) -> (Running, Page) {
    let page = Page::open(&dir.join("page"), true);
    let child = Running::start(dir, &format!("record {}", word_of(plan)), point);
    (child, page)
}

/// Lets a child record and die, not before it has kept `least` records. Returns the page as the
/// child left it.
pub fn crash(plan: Plan, dir: &Path, least: u64) -> Page {
    let (mut child, page) = start(plan, dir, None);
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let limit = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < limit, "{plan:?}: the child did not {what}");
            std::thread::sleep(Duration::from_micros(100));
        }
    };
    wait("start", &|| page.word(READY).load(Acquire) == 1);
    if plan.ending == Ending::Killed {
        wait("record", &|| page.all(plan, Told::Kept) >= least);
        let sampled_out = plan.storm && plan.seed.is_multiple_of(2);
        wait("sample", &|| {
            !sampled_out || page.all(plan, Told::SampledOut) > 0
        });
    }
    let signal = match plan.ending {
        Ending::Aborts | Ending::Panics => SIGABRT,
        Ending::Killed | Ending::Closes(_) => {
            std::thread::sleep(plan.delay);
            child.0.kill().unwrap();
            SIGKILL
        }
    };
    let status = child.end();
    assert_eq!(status.signal(), Some(signal), "{plan:?}: {status}");
    page
}

/// Lets a child do something and kills it after `delay`. Whether it was killed before its end.
pub fn interrupt(dir: &Path, role: &str, delay: Duration) -> bool {
    let mut child = Running::start(dir, role, None);
    std::thread::sleep(delay);
    child.0.kill().unwrap();
    let status = child.end();
    let said = || std::fs::read_to_string(dir.join("stderr")).unwrap();
    assert!(
        status.success() || status.signal() == Some(SIGKILL),
        "{status}: {}",
        said()
    );
    !status.success()
}

pub fn recover(dir: &Path, id: &str) -> RecoverReport {
    recover_session(dir, id, RecoverOptions::default()).unwrap()
}

/// Converts what is there; the ledger of its last record, when it has one.
pub fn convert(dir: &Path, id: &str) -> Ledger {
    let files = SessionFiles::find(&dir.join(".stormlog").join(id)).unwrap();
    let report = convert_session(&files[0], dir, ConvertOptions::default()).unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.sealed);
    report.ledger.unwrap()
}

pub fn only_session(dir: &Path) -> String {
    let ids = session_ids(dir).unwrap();
    assert_eq!(ids.len(), 1);
    ids[0].clone()
}

pub fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}
