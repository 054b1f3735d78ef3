//! Processes that die in the middle of recording, and what `recover` makes of what they leave.
//!
//! A child (this test binary again) records a self-checking stream from several threads and tells
//! of every push that returned through a shared page. It is killed at a random instant. Then
//! every record that was told of must be there exactly once, whole and in the order of its thread,
//! and no other but the one that each thread was just pushing.
//!
//! `STORMLOG_ROUNDS` sets the number of kills, `STORMLOG_SEED` the first seed.
#![expect(unsafe_code, reason = "the page that parent and child share")]
#![expect(clippy::cast_ptr_alignment, reason = "a mapping is page-aligned")]

#[path = "support/recording.rs"]
mod recording;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::ledger::{Account, Ledger};
use stormlog::record::LongText;
use stormlog::recover::{RecoverOptions, RecoverReport, State, recover_session, session_ids};
use stormlog::segment::files::SessionFiles;
use stormlog::{Conversion, Outcome, RingStorage, Session, SessionBuilder};

stormlog::record! {
    struct Normal in "requests" keep Sampled {
        thread: u32,
        number: u64,
        check: u64,
        text: LongText,
    }
}

stormlog::record! {
    struct Kept in "errors" keep Always {
        thread: u32,
        number: u64,
        check: u64,
        text: LongText,
    }
}

const THREADS: usize = 4;
/// Kills of a run, unless the environment says otherwise.
const ROUNDS: u64 = 80;
/// Words of the shared page.
const READY: usize = 0;
const WORDS: usize = 64;
const CHILD: &str = "STORMLOG_CRASH_CHILD";
const FIRST_SEED: &str = "STORMLOG_SEED";
const SIGKILL: i32 = 9;
const SIGABRT: i32 = 6;

/// Word in which a thread counts: records that were kept, and records that were dropped.
fn kept_word(thread: usize) -> usize {
    8 + thread * 2
}

fn dropped_word(thread: usize) -> usize {
    kept_word(thread) + 1
}

/// What parent and child share.
struct Page(MmapMut);

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
}

/// splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What a round does, all of it from its seed.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "any of them with any other")]
struct Plan {
    seed: u64,
    /// Rings of 4 KiB and a spill of 8 slots.
    tiny: bool,
    /// Long records, so that segments are rolled; some of them take chunks.
    long: bool,
    /// The writer rests: everything is in rings and spill.
    rests: bool,
    /// The child aborts itself.
    aborts: bool,
    /// Half of the threads end soon, and others take their rings.
    short_lived: bool,
    delay: Duration,
}

impl Plan {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut one_in = |n| random.below(n) == 0;
        Self {
            seed,
            tiny: one_in(2),
            long: one_in(3),
            rests: one_in(3),
            aborts: one_in(6),
            short_lived: one_in(4),
            delay: Duration::from_micros(random.below(30_000)),
        }
    }

    fn builder(self, dir: &Path) -> SessionBuilder {
        let builder = recording::builder()
            .dir(dir)
            .ring_storage(RingStorage::SessionDir)
            .conversion(Conversion::Later)
            .sampling(false)
            .always_wait_max(Duration::ZERO)
            .record_bytes_max(64 << 10)
            .segment_bytes(4 << 20)
            .large_total_bytes(1 << 20);
        if self.tiny {
            builder.ring_total_bytes(64 << 10).spill_total_bytes(4096)
        } else {
            builder
                .ring_total_bytes(4 << 20)
                .spill_total_bytes(64 << 10)
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

/// The child: records until it is killed.
#[test]
fn child() {
    let Ok(seed) = std::env::var(CHILD) else {
        return;
    };
    let plan = Plan::new(seed.parse().unwrap());
    let page = Page::open(Path::new("page"), false);
    let session = plan.builder(Path::new(".")).start().unwrap();
    if plan.rests {
        session.pause_writer();
    }
    page.word(READY).store(1, Release);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (session, page) = (&session, &page);
            scope.spawn(move || {
                if plan.short_lived {
                    // One thread after the other, each with a ring of its own.
                    loop {
                        std::thread::scope(|scope| {
                            let part = || record(plan, session, page, thread, 200);
                            scope.spawn(part);
                        });
                    }
                }
                record(plan, session, page, thread, u64::MAX);
            });
        }
        if plan.aborts {
            std::thread::sleep(plan.delay);
            std::process::abort();
        }
    });
}

fn record(plan: Plan, session: &Session, page: &Page, thread: usize, pushes: u64) {
    let log = session.log();
    let (kept, dropped) = (
        page.word(kept_word(thread)),
        page.word(dropped_word(thread)),
    );
    let id = thread as u32;
    let mut refused = false;
    for _ in 0..pushes {
        // Only this thread stores it.
        let number = kept.load(Acquire) + 1;
        let text = plan.text(id, number);
        let check = check_of(id, number, &text);
        // A normal record that is refused is pushed as one that must be kept.
        let outcome = if refused || plan.is_kept(id, number) {
            log.push(&Kept {
                thread: id,
                number,
                check,
                text: &text,
            })
        } else {
            log.push(&Normal {
                thread: id,
                number,
                check,
                text: &text,
            })
        };
        refused = outcome != Outcome::Kept;
        match outcome {
            Outcome::Kept => kept.store(number, Release),
            Outcome::Dropped(_) => {
                dropped.store(dropped.load(Acquire) + 1, Release);
                std::thread::yield_now();
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Kills its child at the end of a test too.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Lets a child record and die. Returns the page as the child left it.
fn crash(plan: Plan, dir: &Path) -> Page {
    let page = Page::open(&dir.join("page"), true);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, plan.seed.to_string())
        .current_dir(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let limit = Instant::now() + Duration::from_secs(30);
    while page.word(READY).load(Acquire) == 0 {
        assert!(Instant::now() < limit, "{plan:?}: the child did not start");
        std::thread::sleep(Duration::from_micros(100));
    }
    if !plan.aborts {
        std::thread::sleep(plan.delay);
        child.0.kill().unwrap();
    }
    let status = child.0.wait().unwrap();
    let signal = if plan.aborts { SIGABRT } else { SIGKILL };
    assert_eq!(status.signal(), Some(signal), "{plan:?}: {status}");
    page
}

/// Numbers by thread, in the order of each file, after a check of each line.
fn read_lines(plan: Plan, dir: &Path, id: &str) -> BTreeMap<(u32, &'static str), Vec<u64>> {
    let mut numbers: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for category in ["requests", "errors"] {
        let path = dir.join(format!("{id}_{category}.jsonl"));
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for line in text.lines() {
            let line: Json = serde_json::from_str(line).unwrap();
            let thread = line["thread"].as_u64().unwrap() as u32;
            let number = line["number"].as_u64().unwrap();
            let text = plan.text(thread, number);
            assert_eq!(line["text"], text, "{plan:?}: torn");
            let check = check_of(thread, number, &text);
            assert_eq!(line["check"].as_u64(), Some(check), "{plan:?}: torn");
            let fits = category == "errors" || !plan.is_kept(thread, number);
            assert!(fits, "{plan:?}: in the wrong file");
            numbers.entry((thread, category)).or_default().push(number);
        }
    }
    numbers
}

/// Every record that was told of, once; in order; at most one more per thread.
fn check_lines(plan: Plan, dir: &Path, id: &str, page: &Page) -> u64 {
    let numbers = read_lines(plan, dir, id);
    let mut found = 0;
    for thread in 0..THREADS {
        let mut all: Vec<u64> = Vec::new();
        for ((_, category), numbers) in numbers.iter().filter(|((of, _), _)| *of == thread as u32) {
            let ordered = numbers.is_sorted_by(|a, b| a < b);
            assert!(
                ordered,
                "{plan:?}: thread {thread}: {category}: {numbers:?}"
            );
            all.extend(numbers);
        }
        all.sort_unstable();
        found += all.len() as u64;
        let told = page.word(kept_word(thread)).load(Acquire);
        let whole = all.iter().copied().eq(1..=all.len() as u64);
        let (first, last) = (all.first(), all.last());
        assert!(
            whole,
            "{plan:?}: thread {thread}: {} records from {first:?} to {last:?}",
            all.len()
        );
        let extra = (all.len() as u64).checked_sub(told);
        assert!(
            extra.is_some_and(|extra| extra <= 1),
            "{plan:?}: thread {thread}: {told} were told of, {} found",
            all.len()
        );
    }
    found
}

fn check_ledger(plan: Plan, ledger: &Ledger, page: &Page, found: u64) {
    assert!(ledger.is_exact(), "{plan:?}: {ledger:?}");
    // Each thread and the writer may have died within one record.
    let interrupted = ledger.total().interrupted();
    assert!(interrupted <= THREADS as u64 + 1, "{plan:?}: {ledger:?}");
    let of = |name: &str| ledger.categories.get(name).copied().unwrap_or_default();
    let (normal, kept) = (of("requests"), of("errors"));
    assert_eq!(
        normal.written() + kept.written(),
        found,
        "{plan:?}: {ledger:?}"
    );
    let told = (0..THREADS).map(|thread| page.word(dropped_word(thread)).load(Acquire));
    let told: u64 = told.sum();
    let dropped = normal.dropped_total() + kept.dropped_total();
    let fits = (told..=told + THREADS as u64).contains(&dropped);
    assert!(fits, "{plan:?}: {told} drops were told of: {ledger:?}");
}

fn recover(dir: &Path, id: &str) -> RecoverReport {
    recover_session(dir, id, RecoverOptions::default()).unwrap()
}

fn convert(dir: &Path, id: &str) -> Ledger {
    let files = SessionFiles::find(&dir.join(".stormlog").join(id)).unwrap();
    let report = convert_session(&files[0], dir, ConvertOptions::default()).unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.sealed);
    report.ledger.unwrap()
}

fn only_session(dir: &Path) -> String {
    let ids = session_ids(dir).unwrap();
    assert_eq!(ids.len(), 1);
    ids[0].clone()
}

fn stormlog(dir: &Path, words: &[&str]) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    let output = command.current_dir(dir).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        println!("{words:?}: {said}{complained}");
    }
    output.status.code()
}

fn round(plan: Plan) -> (RecoverReport, u64) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let page = crash(plan, dir);
    let id = only_session(dir);
    let look = RecoverOptions {
        dry_run: true,
        ..RecoverOptions::default()
    };
    let looked = recover_session(dir, &id, look).unwrap();
    let report = recover(dir, &id);
    assert_eq!(report.state, State::Recovered, "{plan:?}: {report:?}");
    assert_eq!(report.faults, Vec::<String>::new(), "{plan:?}");
    assert_eq!(
        looked.ledger, report.ledger,
        "{plan:?}: a look says the same"
    );
    let ledger = convert(dir, &id);
    assert_eq!(ledger, report.ledger, "{plan:?}");
    let found = check_lines(plan, dir, &id, &page);
    check_ledger(plan, &ledger, &page, found);
    assert_eq!(recover(dir, &id).state, State::Complete, "{plan:?}");
    if plan.seed.is_multiple_of(8) {
        let status = stormlog(dir, &["verify", "."]);
        // Lost `Always` records are a finding of their own.
        let lost = ledger
            .categories
            .get("errors")
            .map_or(0, Account::dropped_total);
        assert_eq!(status, Some(i32::from(lost > 0)), "{plan:?}: {ledger:?}");
    }
    (report, found)
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn every_record_that_was_told_of_survives_a_kill() {
    let rounds = number_of("STORMLOG_ROUNDS", ROUNDS);
    let first = number_of(FIRST_SEED, 0);
    let (mut records, mut rings, mut spill) = (0, 0, 0);
    for seed in first..first + rounds {
        let (report, found) = round(Plan::new(seed));
        records += found;
        rings += report.from_rings;
        spill += report.from_spill;
    }
    println!("{rounds} kills, {records} records, {rings} from rings, {spill} from the spill");
    assert!(
        rings > 0,
        "nothing was left in the rings: this proves nothing"
    );
    assert!(
        spill > 0,
        "nothing was left in the spill: this proves nothing"
    );
}
