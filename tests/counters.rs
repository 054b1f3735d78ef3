//! Every count, one by one: a push that is not counted, or counted twice, shows here. Most counts
//! have other tests too; `.ci/mutants` breaks each of them and demands that one fails.

#[path = "support/acting.rs"]
mod acting;
#[path = "support/recording.rs"]
mod recording;

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acting::Acting;
use stormlog::ledger::{Account, DropReason};
use stormlog::record::{
    Category, DurationMs, Extra, KeepClass, Name, SchemaDef, ShortText, Symbol,
};
use stormlog::segment::files::SessionFiles;
use stormlog::segment::reader::End;
use stormlog::segment::survey::Survey;
use stormlog::{CloseReport, Conversion, Log, Outcome, RingStorage, Session};

stormlog::record! {
    struct Normal in "performance" keep Sampled { number: u64 }
}

stormlog::record! {
    struct Kept in "errors" keep Always { number: u64 }
}

stormlog::record! {
    struct Keyed in "requests" keep Sampled key id { id: ShortText, number: u64 }
}

stormlog::record! {
    struct Named in "vpn" keep Sampled { operation: Symbol }
}

stormlog::record! {
    struct Timed in "health" keep Sampled { operation: Symbol, duration_ms: DurationMs<2> }
}

/// A record whose duration is counted, whatever becomes of it.
fn timed() -> Timed<'static> {
    Timed {
        operation: stormlog::symbol!("counters_timed"),
        duration_ms: Duration::from_micros(1),
    }
}

static CALLS: SchemaDef = SchemaDef::new("Calls", "docker", KeepClass::Sampled, &[], 0, None);
static CALLS_KEPT: SchemaDef =
    SchemaDef::new("CallsKept", "docker", KeepClass::Always, &[], 0, None);

fn start(dir: &Path) -> Session {
    recording::builder().dir(dir).start().unwrap()
}

fn account(report: &CloseReport, category: &str) -> Account {
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    report.ledger.categories[category]
}

/// Every way to be left out under pressure, the quick one and the one around it.
#[test]
fn what_pressure_leaves_out_is_counted_once() {
    const PUSHES: u64 = 20_000;
    for k in [1, 6, 15] {
        let temp = tempfile::tempdir().unwrap();
        let session = start(temp.path());
        for name in ["performance", "requests"] {
            session.set_pressure(Category::named(name).unwrap(), k);
        }
        let log = session.log();
        let (mut keyless, mut keyed) = (0, 0);
        for number in 0..PUSHES {
            if number % 1000 == 0 {
                session.flush().unwrap();
            }
            let id = number.to_string();
            let key = log.key_hash(id.as_bytes()).unwrap();
            let record = Keyed { id: &id, number };
            let outcomes = [
                log.push(&Normal { number }),
                log.push_lazy(|| Normal { number }),
                log.push(&record),
                log.push_keyed(&record, key),
            ];
            assert_eq!(outcomes[2], outcomes[3], "a key decides the same each time");
            let left_out = |outcome: &Outcome| *outcome == Outcome::SampledOut;
            keyless += outcomes[..2].iter().copied().filter(left_out).count() as u64;
            keyed += outcomes[2..].iter().copied().filter(left_out).count() as u64;
        }
        let report = session.close().unwrap();
        for (category, left_out) in [("performance", keyless), ("requests", keyed)] {
            let account = account(&report, category);
            assert!(left_out > PUSHES / 2, "k {k}");
            assert_eq!(account.offered(), 2 * PUSHES);
            assert_eq!(account.sampled_out(), left_out);
            assert_eq!(account.written(), 2 * PUSHES - left_out);
        }
    }
}

thread_local! {
    static NESTED: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// As a signal handler does: pushes while its thread is inside a push.
fn push_nested() {
    NESTED.with_borrow(|log| {
        let log = log.as_ref().unwrap();
        let refused = Outcome::Dropped(DropReason::Reentrant);
        assert_eq!(log.push(&Normal { number: 1 }), refused);
        assert_eq!(log.push(&Kept { number: 2 }), refused);
        assert_eq!(log.push(&timed()), refused);
    });
}

#[test]
fn a_push_inside_a_push_is_counted() {
    let temp = tempfile::tempdir().unwrap();
    let session = start(temp.path());
    let log = session.log();
    NESTED.set(Some(session.log()));
    // Known to the registry first, so that all of them meet the busy flag.
    log.push(&Normal { number: 0 });
    log.push(&Kept { number: 0 });
    log.push(&timed());
    for _ in 0..5 {
        assert_eq!(
            log.push(&Acting::in_body(&CALLS, push_nested)),
            Outcome::Kept
        );
    }
    // Under pressure too.
    session.set_pressure(Category::named("performance").unwrap(), 15);
    for _ in 0..5 {
        assert_eq!(
            log.push(&Acting::in_body(&CALLS, push_nested)),
            Outcome::Kept
        );
    }
    NESTED.set(None);
    let durations = session.durations();
    assert_eq!(durations.len(), 1);
    let histogram = &durations[0].histogram;
    assert_eq!((histogram.count(), histogram.sum_ns), (11, 11_000));
    let report = session.close().unwrap();
    assert_eq!(account(&report, "docker").written(), 10);
    for category in ["performance", "errors"] {
        let account = account(&report, category);
        assert_eq!(account.offered(), 11, "{category}");
        assert_eq!(account.dropped(DropReason::Reentrant), 10, "{category}");
    }
    assert_eq!(report.always_lost, 10);
    let sentence = "10 records that must always be kept were lost: 10 reentrant";
    assert_eq!(report.faults, [sentence]);
}

/// The registry takes no further symbol: how often that happened is said, and nothing is lost.
#[test]
fn a_full_registry_is_counted() {
    const NAMES: u64 = 32_000;
    const KEYS: u64 = 10;
    let temp = tempfile::tempdir().unwrap();
    // A slow machine would sample.
    let builder = recording::builder().dir(temp.path()).sampling(false);
    let session = builder.conversion(Conversion::Later).start().unwrap();
    let log = session.log();
    let name = |number: u64| Name::Symbol(Symbol::intern(&format!("{number:060}")).unwrap());
    for number in 0..NAMES {
        if number % 1000 == 0 {
            session.flush().unwrap();
        }
        let operation = name(number);
        assert_eq!(log.push(&Named { operation }), Outcome::Kept);
    }
    let vpn = Category::named("vpn").unwrap();
    for number in NAMES..NAMES + KEYS {
        let extra = Extra::new(name(number), number);
        assert_eq!(log.event(vpn, &[extra]), Outcome::Kept);
    }
    let segments = session.segment_dir().unwrap().to_owned();
    let report = session.close().unwrap();
    assert_eq!(account(&report, "vpn").written(), NAMES);
    assert_eq!(account(&report, "custom").written(), KEYS);
    let files = SessionFiles::find(&segments).unwrap().remove(0);
    let survey = Survey::new(&files, false).unwrap();
    let is_ours = |text: &str| text.len() == 60;
    let known = survey.registry.symbols().filter(|symbol| is_ours(symbol.1));
    // A record with such a key is sent on twice: without symbols, and then as it describes itself.
    let full = NAMES - known.count() as u64 + 2 * KEYS;
    assert!(full > 2 * KEYS, "the test needs a full registry");
    let sentence = format!("the registry was full {full} times");
    assert!(
        report.faults[0].starts_with(&sentence),
        "{:?}",
        report.faults
    );
}

fn panics() {
    panic!("a caller's own panic");
}

/// A record that panics on a thread without a ring.
#[test]
fn an_interrupted_push_without_a_ring_is_counted() {
    const RINGS: usize = 10;
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path());
    let session = builder.ring_total_bytes(64 << 10).start().unwrap();
    let (hold, done) = (Barrier::new(RINGS + 1), Barrier::new(RINGS + 1));
    std::thread::scope(|scope| {
        for _ in 0..RINGS {
            let (log, hold, done) = (session.log(), &hold, &done);
            scope.spawn(move || {
                log.push(&Normal { number: 0 });
                hold.wait();
                done.wait();
            });
        }
        hold.wait();
        let log = session.log();
        let push = || log.push(&Acting::in_body(&CALLS_KEPT, panics));
        for _ in 0..3 {
            assert!(catch_unwind(AssertUnwindSafe(push)).is_err());
        }
        done.wait();
    });
    let account = account(&session.close().unwrap(), "docker");
    assert_eq!((account.offered(), account.interrupted()), (3, 3));
}

/// The pages for the counts of further categories are all given away: the shared ones take over.
#[test]
fn counts_without_a_page_of_their_own_are_counted() {
    const THREADS: usize = 40;
    let temp = tempfile::tempdir().unwrap();
    let session = start(temp.path());
    let names: Vec<String> = (0..224).map(|number| format!("page_{number}")).collect();
    let categories: Vec<Category> = names
        .iter()
        .map(|name| Category::named(name).unwrap())
        .collect();
    let all_hold = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let (log, categories, all_hold) = (session.log(), &categories, &all_hold);
            scope.spawn(move || {
                for category in categories.iter().step_by(16) {
                    for number in 0..3_u64 {
                        let extras = [Extra::new("number", number)];
                        assert_eq!(log.event(*category, &extras), Outcome::Kept);
                    }
                }
                all_hold.wait();
            });
        }
    });
    let report = session.close().unwrap();
    for name in names.iter().step_by(16) {
        let account = account(&report, name);
        let pushes = 3 * THREADS as u64;
        assert_eq!((account.offered(), account.written()), (pushes, pushes));
    }
}

static INSIDE: AtomicBool = AtomicBool::new(false);
static LEAVE: AtomicBool = AtomicBool::new(false);

fn stays_inside() {
    INSIDE.store(true, Ordering::Release);
    while !LEAVE.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A push that does not end before the last drain.
#[test]
fn a_push_that_close_cannot_wait_for_is_interrupted() {
    let temp = tempfile::tempdir().unwrap();
    let session = start(temp.path());
    let log = session.log();
    let thread = std::thread::spawn(move || log.push(&Acting::in_body(&CALLS, stays_inside)));
    while !INSIDE.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let report = session.close().unwrap();
    LEAVE.store(true, Ordering::Release);
    thread.join().unwrap();
    let account = account(&report, "docker");
    assert_eq!((account.offered(), account.interrupted()), (1, 1));
    let sentence = "1 threads were inside a push and did not leave it";
    assert_eq!(report.faults, [sentence]);
}

/// Somebody overwrites a ring: what cannot be read any more is counted.
#[test]
fn records_that_were_overwritten_are_counted() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder().dir(temp.path());
    let session = builder
        .ring_storage(RingStorage::SessionDir)
        .start()
        .unwrap();
    let log = session.log();
    let marker = 0x5354_4f52_4d4c_4f47_u64;
    log.push(&Normal { number: 0 });
    session.flush().unwrap();
    session.pause_writer();
    for number in [marker, 1, 2] {
        assert_eq!(log.push(&Normal { number }), Outcome::Kept);
    }
    let path = session.segment_dir().unwrap().join("rings");
    let bytes = std::fs::read(&path).unwrap();
    let marker = marker.to_le_bytes();
    let at = bytes.windows(8).position(|bytes| bytes == marker).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The length in the header of the first of them.
    file.write_all_at(&[0xff; 4], at as u64 - 16).unwrap();
    session.resume_writer();
    let report = session.close().unwrap();
    let account = account(&report, "performance");
    assert_eq!((account.offered(), account.written()), (4, 1));
    assert_eq!(account.dropped(DropReason::Damaged), 3);
}

/// Seals say what their segment holds.
#[test]
fn seals_state_what_is_in_their_segment() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder()
        .dir(temp.path())
        .segment_bytes(4 << 20)
        .conversion(Conversion::Later)
        // A slow machine would sample.
        .sampling(false);
    let session = builder.start().unwrap();
    let log = session.log();
    let text = "x".repeat(2000);
    for number in 0..4000 {
        if number % 50 == 0 {
            session.flush().unwrap();
        }
        let extras = [Extra::new("text", text.as_str())];
        let vpn = Category::named("vpn").unwrap();
        assert_eq!(log.event(vpn, &extras), Outcome::Kept);
        assert_eq!(log.push(&Kept { number }), Outcome::Kept);
    }
    let segments = session.segment_dir().unwrap().to_owned();
    let report = session.close().unwrap();
    let files = SessionFiles::find(&segments).unwrap().remove(0);
    let survey = Survey::new(&files, true).unwrap();
    assert_eq!(survey.faults, Vec::<String>::new());
    assert!(survey.segments.len() > 1, "the test needs several segments");
    let mut sealed = 0;
    for (index, segment) in survey.segments.iter().enumerate() {
        let End::Sealed(seal) = &segment.end else {
            panic!("{:?}", segment.end);
        };
        let blocks = survey.block_list.iter().filter(|block| block.0 == index);
        assert_eq!(seal.blocks, blocks.count() as u64);
        assert_eq!(seal.records, segment.records);
        let categories = seal.categories.iter().map(|count| count.1);
        assert_eq!(categories.sum::<u64>(), seal.records);
        sealed += seal.records;
    }
    assert_eq!(report.ledger.total().written(), sealed);
}

/// Each push that has to wait for room waits once, whatever comes of it.
#[test]
fn every_wait_is_counted_once() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .ring_total_bytes(64 << 10)
        .spill_total_bytes(8 * 512)
        .always_wait_max(Duration::from_millis(1))
        .start()
        .unwrap();
    let log = session.log();
    session.pause_writer();
    let kept = (0..10_000)
        .take_while(|number| log.push(&Kept { number: *number }) == Outcome::Kept)
        .count() as u64;
    let budget = Outcome::Dropped(DropReason::AlwaysBudget);
    for number in 0..2 {
        assert_eq!(log.push(&Kept { number }), budget);
    }
    session.resume_writer();
    let report = session.close().unwrap();
    assert_eq!((report.always_waits, report.always_lost), (3, 3));
    assert_eq!(account(&report, "errors").written(), kept);
}
