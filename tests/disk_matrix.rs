//! The disk fills up at every step of a session, on several kinds of file systems, with both
//! sinks. Whatever the step: nobody dies, no push fails or waits, what must be kept is kept.
//!
//! ```text
//! cargo test --test disk_matrix -- --nocapture                     a part of the table
//! STORMLOG_ROUNDS=13 cargo test --test disk_matrix -- --nocapture  0 to 12 MiB left, both sinks
//! ```

#[path = "support/mount.rs"]
mod mount;
#[path = "support/recording.rs"]
mod recording;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mount::{Kind, Mount};
use serde_json::Value as Json;
use stormlog::ledger::DropReason;
use stormlog::record::{LongText, Symbol};
use stormlog::{CloseReport, Log, Outcome, SegmentSink, Session, SessionBuilder, symbol};

stormlog::record! {
    struct Call in "calls" keep Sampled {
        operation: Symbol,
        number: u64,
    }
}

stormlog::record! {
    struct Alarm in "stress" keep Always {
        number: u64,
        text: LongText,
    }
}

const MIB: usize = 1 << 20;
/// Alarms while there is no space: far less than ring and spill hold.
const ALARMS: u64 = 400;
/// Normal records that a producer pushes at least while there is no space.
const CALLS_LEAST: u64 = 300_000;

fn builder(dir: &Path, sink: SegmentSink) -> SessionBuilder {
    recording::builder()
        .dir(dir)
        .sampling(false)
        .segment_sink(sink)
        .ring_total_bytes(MIB)
}

fn call(log: &Log, number: u64) -> Outcome {
    log.push(&Call {
        operation: symbol!("scale_up"),
        number,
    })
}

fn alarm(log: &Log, number: u64) {
    let text = "d".repeat(200);
    let outcome = log.push(&Alarm {
        number,
        text: &text,
    });
    assert_eq!(outcome, Outcome::Kept, "alarm {number}");
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Times that the calling thread gave the processor away by itself.
fn voluntary_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("voluntary_ctxt_switches"));
    let number = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// A row of the table: what came of one outage.
struct Row {
    file_system: Kind,
    sink: SegmentSink,
    step: String,
    mapped: bool,
    report: CloseReport,
    /// Voluntary context switches of the producer of normal records.
    switches: u64,
}

impl Row {
    fn print(&self) {
        let calls = self.report.ledger.categories["calls"];
        println!(
            "| {:?} | {:?} ({}) | {} | {} | {} | {} | {} | {} | {} |",
            self.file_system,
            self.sink,
            if self.mapped { "mapped" } else { "pwrite" },
            self.step,
            calls.offered(),
            calls.written(),
            calls.dropped(DropReason::Disk) + calls.dropped(DropReason::RingFull),
            self.report.ledger.categories["stress"].written(),
            self.report.always_lost,
            self.switches,
        );
    }

    /// What must hold in every row.
    fn check(&self, dir: &Path, alarms: u64) {
        let Self { report, step, .. } = self;
        assert!(report.ledger.is_exact(), "{step}: {report:?}");
        assert_eq!(report.always_lost, 0, "{step}: {report:?}");
        assert_eq!(report.always_waits, 0, "{step}: {report:?}");
        // Each wake that a producer gives the writer may let it run at once.
        assert!(self.switches <= report.wakes, "{step}: a producer waited");
        let file = dir.join(format!("{}_stress.jsonl", report.session_id));
        let text = std::fs::read_to_string(file).unwrap();
        let numbers: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<Json>(line).unwrap())
            .map(|line| line["number"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, (0..alarms).collect::<Vec<_>>(), "{step}");
        let verify = Command::new(env!("CARGO_BIN_EXE_stormlog"))
            .arg("verify")
            .arg(dir.join(format!("{}_session.jsonl", report.session_id)))
            .output()
            .unwrap();
        assert_eq!(verify.status.code(), Some(0), "{step}: {verify:?}");
    }
}

/// Whether a segment of the session is mapped by this process.
fn is_mapped(session: &Session) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .any(|line| line.contains(session.id()) && line.contains(".seg"))
}

/// Fills the disk up to `left` bytes while a session records, until it has noticed, and gives
/// the space back.
fn while_recording(kind: Kind, sink: SegmentSink, left: usize) -> Option<()> {
    let mount = Mount::new(kind)?;
    let dir = mount.path().join("logs");
    let session = builder(&dir, sink).start().unwrap();
    let mapped = is_mapped(&session);
    let log = session.log();
    alarm(&log, 0);
    session.flush().unwrap();
    let filler = mount.fill_but(left);
    let enough = AtomicBool::new(false);
    let switches = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let log = session.log();
            // Its ring is taken, and present, after the first lap.
            for number in 0..50_000 {
                call(&log, number);
            }
            let before = voluntary_switches();
            let (mut number, mut refused) = (0, 0_u64);
            while number < CALLS_LEAST || refused == 0 || !enough.load(SeqCst) {
                refused += u64::from(call(&log, number) != Outcome::Kept);
                number += 1;
            }
            voluntary_switches() - before
        });
        for number in 1..ALARMS {
            alarm(&log, number);
            std::thread::sleep(Duration::from_micros(500));
        }
        enough.store(true, SeqCst);
        producer.join().unwrap()
    });
    drop(filler);
    mount.wait_for_space();
    wait_until("relief", || call(&log, 0) == Outcome::Kept);
    for number in ALARMS..ALARMS + 100 {
        alarm(&log, number);
    }
    wait_until("flush", || session.flush().is_ok());
    let row = Row {
        file_system: kind,
        sink,
        step: format!("recording, {} MiB left", left / MIB),
        mapped,
        report: session.close().unwrap(),
        switches,
    };
    row.print();
    row.check(&dir, ALARMS + 100);
    assert_eq!(row.report.segments, None, "{:?}", row.report.faults);
    Some(())
}

/// Fills the disk before the session ends: no file has its final name and is not whole.
fn at_the_conversion(kind: Kind, sink: SegmentSink) -> Option<()> {
    let mount = Mount::new(kind)?;
    let dir = mount.path().join("logs");
    let session = builder(&dir, sink).start().unwrap();
    let mapped = is_mapped(&session);
    let log = session.log();
    // More lines than what the close gives back.
    for number in 0..200_000 {
        call(&log, number);
        if number % 2000 == 0 {
            session.flush().unwrap();
        }
    }
    (0..ALARMS).for_each(|number| alarm(&log, number));
    session.flush().unwrap();
    let filler = mount.fill();
    let report = session.close().unwrap();
    assert!(report.segments.is_some(), "there is no space for lines");
    let names: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".stormlog")
        .collect();
    assert_eq!(names, Vec::<String>::new());
    drop(filler);
    mount.wait_for_space();
    wait_until("a conversion", || {
        let mut convert = Command::new(env!("CARGO_BIN_EXE_stormlog"));
        let status = convert.arg("convert").arg(&dir).status();
        status.unwrap().success()
    });
    let row = Row {
        file_system: kind,
        sink,
        step: "conversion".to_owned(),
        mapped,
        report,
        switches: 0,
    };
    row.print();
    row.check(&dir, ALARMS);
    Some(())
}

/// There is no space at all when the session is to start: it says so, and leaves nothing.
fn at_the_start(kind: Kind, sink: SegmentSink) -> Option<()> {
    let mount = Mount::new(kind)?;
    let dir = mount.path().join("logs");
    let filler = mount.fill();
    if let Ok(session) = builder(&dir, sink).start() {
        // btrfs keeps some space for small files.
        let log = session.log();
        for number in 0..100_000 {
            call(&log, number);
        }
        assert!(session.close().unwrap().ledger.is_exact());
    }
    drop(filler);
    mount.wait_for_space();
    let mut started = None;
    wait_until("a start", || {
        started = builder(&dir, sink).start().ok();
        started.is_some()
    });
    let session = started.unwrap();
    alarm(&session.log(), 0);
    let report = session.close().unwrap();
    assert_eq!(report.always_lost, 0, "{report:?}");
    println!("| {kind:?} | {sink:?} | start | | | | 1 | 0 | |");
    Some(())
}

/// The rows of a file system: those of a short test, or as many as the environment asks for.
fn rows(kind: Kind) {
    let rounds = std::env::var("STORMLOG_ROUNDS").ok();
    let rounds = rounds.map(|rounds| rounds.parse::<usize>().unwrap());
    let sinks: &[SegmentSink] = match (rounds, kind) {
        (_, Kind::Btrfs) => &[SegmentSink::Pwrite],
        (None, Kind::Ext4) => &[SegmentSink::Mapped],
        _ => &[SegmentSink::Mapped, SegmentSink::Pwrite],
    };
    let few = if kind == Kind::Btrfs {
        vec![0]
    } else {
        vec![0, 5]
    };
    let left = rounds.map_or(few, |rounds| (0..rounds).collect());
    for sink in sinks {
        // A full btrfs keeps some space for small files, and takes long to fill.
        let done = (kind == Kind::Btrfs && rounds.is_none())
            .then_some(())
            .or_else(|| at_the_start(kind, *sink))
            .and_then(|()| at_the_conversion(kind, *sink))
            .and_then(|()| {
                let mut left = left.iter();
                left.try_for_each(|left| while_recording(kind, *sink, left * MIB))
            });
        if done.is_none() {
            println!("| {kind:?} | {sink:?} | skipped: cannot be mounted here |");
        }
    }
}

#[test]
fn tmpfs_full_at_every_step() {
    rows(Kind::Tmpfs);
}

#[test]
fn ext4_full_at_every_step() {
    rows(Kind::Ext4);
}

#[test]
fn btrfs_full_at_every_step() {
    rows(Kind::Btrfs);
}
