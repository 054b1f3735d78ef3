//! Lack of space: the bounds hold, what must be kept is kept as long as there is room for it, all
//! else is counted, and recording goes on when there is space again.

#[path = "support/mount.rs"]
mod mount;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mount::{Kind, Mount};
use serde_json::Value as Json;
use stormlog::ledger::DropReason;
use stormlog::record::{DurationMs, LongText, Symbol};
use stormlog::{
    CloseReport, Conversion, Log, Outcome, RingStorage, SegmentSink, Session, SessionBuilder,
    symbol,
};

stormlog::record! {
    struct Call in "calls" keep Sampled {
        operation: Symbol,
        thread: u32,
        number: u64,
        duration_ms: DurationMs<2>,
    }
}

stormlog::record! {
    struct Blob in "blobs" keep Sampled {
        text: LongText,
    }
}

stormlog::record! {
    struct Alarm in "stress" keep Always {
        thread: u32,
        number: u64,
        text: LongText,
    }
}

const MIB: u64 = 1 << 20;

fn call(log: &Log, thread: u32, number: u64) -> Outcome {
    log.push(&Call {
        operation: symbol!("scale_up"),
        thread,
        number,
        duration_ms: Duration::from_nanos(number * 977),
    })
}

fn alarm(log: &Log, thread: u32, number: u64, text: &str) -> Outcome {
    log.push(&Alarm {
        thread,
        number,
        text,
    })
}

fn builder(dir: &Path) -> SessionBuilder {
    Session::builder()
        .dir(dir)
        // The space of the small file systems here is for segments and lines.
        .ring_storage(RingStorage::Anonymous)
        .close_deadline(Duration::from_secs(120))
}

fn stormlog(words: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stormlog"))
        .args(words)
        .arg(dir)
        .output()
        .unwrap()
}

/// Exit code of `verify` of a session, which is printed when it is another one.
fn verify(dir: &Path, report: &CloseReport, expected: i32) {
    let file = format!("{}_session.jsonl", report.session_id);
    let output = stormlog(&["verify"], &dir.join(file));
    assert_eq!(output.status.code(), Some(expected), "{output:?}");
}

/// Lines of a category that have a number: those of the test.
fn numbers(report: &CloseReport, category: &str) -> BTreeMap<u64, Vec<u64>> {
    let file = report.files.iter().find(|file| file.category == category);
    let text = file.map(|file| std::fs::read_to_string(&file.path).unwrap());
    let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in text.unwrap_or_default().lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        if let Some(number) = line["number"].as_u64() {
            let thread = numbers.entry(line["thread"].as_u64().unwrap()).or_default();
            thread.push(number);
        }
    }
    numbers
}

fn line_bytes(report: &CloseReport) -> u64 {
    let files = report.files.iter();
    files.map(|file| file.path.metadata().unwrap().len()).sum()
}

/// Bytes that a directory takes, with all below it.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let entries = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    entries.sum()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pushes from several threads, every `every`th record an alarm. Returns the alarms per thread.
fn storm(session: &Session, threads: u32, records: u64, every: u64) -> u64 {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let log = session.log();
            scope.spawn(move || {
                for number in 0..records {
                    call(&log, thread, number);
                    if number % every == 0 {
                        let outcome = alarm(&log, thread, number / every, "too slow");
                        assert_eq!(outcome, Outcome::Kept);
                    }
                }
            });
        }
    });
    records.div_ceil(every)
}

fn assert_all(numbers: &BTreeMap<u64, Vec<u64>>, threads: u32, each: u64) {
    assert_eq!(numbers.len(), threads as usize);
    for found in numbers.values() {
        assert_eq!(*found, (0..each).collect::<Vec<_>>(), "once and in order");
    }
}

/// The faults that are about space, of which there is to be one.
fn assert_said_once(report: &CloseReport, words: &str) {
    let faults = &report.faults;
    let found = faults.iter().filter(|fault| fault.contains(words)).count();
    assert_eq!((found, faults.len()), (1, 1), "{faults:?}");
}

/// Writes and writes again files of 8 MiB in all, until it is told to stop. Returns the errors.
fn neighbour(dir: &Path, stop: &AtomicBool) -> Vec<String> {
    let piece = vec![0x55; 256 << 10];
    let mut errors = Vec::new();
    let mut round = 0_usize;
    while !stop.load(SeqCst) {
        let path = dir.join(format!("neighbour{}", round % 2));
        let written = std::fs::File::create(path).and_then(|mut file| {
            use std::io::Write;
            (0..16).try_for_each(|_| file.write_all(&piece))?;
            if round.is_multiple_of(8) {
                file.sync_all()
            } else {
                Ok(())
            }
        });
        errors.extend(written.err().map(|error| error.to_string()));
        round += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    errors
}

/// What happened is said once, however often it happened.
fn assert_few(faults: &[String]) {
    let mut different = faults.to_vec();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), faults.len(), "{faults:?}");
    assert!(faults.len() < 12, "said without end: {faults:?}");
}

fn storm_beside_a_neighbour(kind: Kind) {
    let Some(mount) = Mount::new(kind) else {
        return;
    };
    let dir = mount.path().join("logs");
    let stop = AtomicBool::new(false);
    let (report, alarms, errors) = std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| neighbour(&mount.path(), &stop));
        std::thread::sleep(Duration::from_millis(50));
        let session = builder(&dir).start().unwrap();
        let alarms = storm(&session, 4, 200_000, 500);
        let report = session.close().unwrap();
        stop.store(true, SeqCst);
        (report, alarms, neighbour.join().unwrap())
    });
    assert_eq!(errors, Vec::<String>::new(), "the neighbour met them");
    assert!(report.ledger.is_exact());
    assert_eq!(report.always_lost, 0);
    let calls = report.ledger.categories["calls"];
    assert_eq!(calls.offered(), 800_000);
    assert!(calls.dropped(DropReason::Disk) + calls.sampled_out() > 0);
    assert_all(&numbers(&report, "stress"), 4, alarms);
    assert_eq!(report.segments, None, "converted and removed");
    verify(&dir, &report, 0);
}

#[test]
fn storm_on_a_small_tmpfs() {
    storm_beside_a_neighbour(Kind::Tmpfs);
}

#[test]
fn storm_on_a_small_ext4() {
    storm_beside_a_neighbour(Kind::Ext4);
}

#[test]
fn a_session_stays_within_its_bytes() {
    // Lines that are appended while it records take their space earlier, and not twice.
    for (sampling, live) in [(true, false), (false, false), (false, true)] {
        let max = 40 * MIB;
        let temp = tempfile::tempdir().unwrap();
        let session = builder(temp.path())
            .session_bytes_max(max)
            .keep_free_bytes(0)
            .sampling(sampling)
            .live(live)
            .keep_segments(true);
        let session = session.start().unwrap();
        let stop = AtomicBool::new(false);
        let (alarms, most) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !stop.load(SeqCst) {
                    most = most.max(bytes_below(temp.path()));
                    std::thread::sleep(Duration::from_millis(1));
                }
                most
            });
            let alarms = storm(&session, 2, 400_000, 1000);
            stop.store(true, SeqCst);
            (alarms, watch.join().unwrap())
        });
        let report = session.close().unwrap();
        let whole = report.segment_bytes + line_bytes(&report);
        eprintln!("{most} at most while it ran, {whole} in the end, {max} allowed");
        assert!(most <= max && whole <= max, "{most} {whole} of {max}");
        assert!(whole > max / 4, "a bound is no reason to record nothing");
        assert!(report.ledger.is_exact());
        for (category, account) in &report.ledger.categories {
            let less = account.dropped(DropReason::Disk) + account.sampled_out();
            assert_eq!(less > 0, category == "calls", "{category}");
            assert!(sampling || account.sampled_out() == 0);
        }
        assert_all(&numbers(&report, "stress"), 2, alarms);
        if !sampling {
            assert_said_once(&report, "session_bytes_max");
        }
        verify(temp.path(), &report, 0);
    }
}

#[test]
fn a_full_disk_takes_normal_records_first_and_recording_goes_on_after_it() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let Some(mount) = Mount::new(kind) else {
            continue;
        };
        let dir = mount.path().join("logs");
        let session = builder(&dir)
            .keep_free_bytes(0)
            .ring_total_bytes(64 << 10)
            .spill_total_bytes(8 << 10)
            // A roll at the bound takes some milliseconds, and ring and spill are tiny.
            .always_wait_max(Duration::from_millis(50))
            .sampling(false);
        let session = session.start().unwrap();
        let log = session.log();
        assert_eq!(call(&log, 0, 0), Outcome::Kept);
        let (mut number, mut lost) = (0, Vec::new());
        let text = "x".repeat(1000);
        let mut push = |lost: &mut Vec<u64>| {
            let outcome = alarm(&log, 0, number, &text);
            if outcome != Outcome::Kept {
                assert_eq!(outcome, Outcome::Dropped(DropReason::AlwaysBudget));
                lost.push(number);
            }
            number += 1;
        };
        push(&mut lost);
        session.flush().unwrap();
        let filler = mount.fill();
        wait_until("shedding", || {
            push(&mut lost);
            call(&log, 0, 1) == Outcome::Dropped(DropReason::Disk)
        });
        assert!(lost.is_empty(), "there is room for what must be kept");
        while lost.len() < 50 {
            push(&mut lost);
        }
        // The current segment, and the reserve.
        assert!(lost[0] * 1000 > 5 * MIB, "lost {}", lost[0]);
        drop(filler);
        wait_until("relief", || call(&log, 0, 2) == Outcome::Kept);
        session.flush().unwrap();
        let before = lost.len();
        for _ in 0..100 {
            push(&mut lost);
        }
        assert_eq!(lost.len(), before, "{:?}", &lost[before..]);
        // And once more: there is a new reserve.
        wait_until("a new reserve", || {
            let root = dir.join(".stormlog").join(session.id());
            root.join("reserve").exists()
        });
        let filler = mount.fill();
        wait_until("shedding", || {
            call(&log, 0, 3) == Outcome::Dropped(DropReason::Disk)
        });
        for _ in 0..5_000 {
            push(&mut lost);
        }
        assert_eq!(lost.len(), before, "the new reserve takes them");
        drop(filler);
        wait_until("relief", || call(&log, 0, 4) == Outcome::Kept);
        let report = session.close().unwrap();
        assert!(report.ledger.is_exact());
        assert_eq!(report.always_lost, lost.len() as u64);
        let kept: Vec<u64> = (0..number).filter(|n| !lost.contains(n)).collect();
        assert_eq!(numbers(&report, "stress")[&0], kept);
        let faults = &report.faults;
        assert_eq!(faults.len(), 2, "space and loss, once each: {faults:?}");
        assert_eq!(report.segments, None);
        verify(&dir, &report, 1);
    }
}

#[test]
fn a_session_can_start_at_the_bound() {
    let Some(mount) = Mount::new(Kind::Tmpfs) else {
        return;
    };
    let dir = mount.path().join("logs");
    let filler = mount.path().join("filler");
    std::fs::write(&filler, vec![1; 30 << 20]).unwrap();
    let session = builder(&dir).start().unwrap();
    let log = session.log();
    wait_until("shedding", || {
        call(&log, 0, 0) == Outcome::Dropped(DropReason::Disk)
    });
    for number in 0..100 {
        assert_eq!(alarm(&log, 0, number, "a"), Outcome::Kept);
    }
    session.flush().unwrap();
    session.sync_now().unwrap();
    std::fs::remove_file(filler).unwrap();
    wait_until("relief", || call(&log, 0, 1) == Outcome::Kept);
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    assert_eq!(report.always_lost, 0);
    assert_all(&numbers(&report, "stress"), 1, 100);
    assert_eq!(numbers(&report, "calls")[&0], [1]);
    assert_said_once(&report, "keep_free_bytes");
    verify(&dir, &report, 0);
}

#[test]
fn relief_reaches_a_session_that_is_silent() {
    let Some(mount) = Mount::new(Kind::Tmpfs) else {
        return;
    };
    let dir = mount.path().join("logs");
    let session = builder(&dir).keep_free_bytes(0).sampling(false);
    let session = session.start().unwrap();
    let log = session.log();
    call(&log, 0, 0);
    let filler = mount.fill();
    wait_until("shedding", || {
        call(&log, 0, 1) == Outcome::Dropped(DropReason::Disk)
    });
    // Long enough for the writer to doze.
    std::thread::sleep(Duration::from_millis(2500));
    drop(filler);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(call(&log, 0, 2), Outcome::Kept);
    assert!(session.close().unwrap().ledger.is_exact());
}

#[test]
fn long_records_that_are_shed_give_their_chunks_back() {
    let Some(mount) = Mount::new(Kind::Tmpfs) else {
        return;
    };
    let dir = mount.path().join("logs");
    let session = builder(&dir)
        .keep_free_bytes(0)
        .sampling(false)
        .start()
        .unwrap();
    let log = session.log();
    let text = "y".repeat(60_000);
    let fill = || {
        (0..10_000)
            .take_while(|_| log.push(&Blob { text: &text }) == Outcome::Kept)
            .count()
    };
    session.pause_writer();
    let first = fill();
    assert!(first > 10);
    let filler = mount.fill();
    // The helper looks at the space each second.
    std::thread::sleep(Duration::from_millis(1500));
    session.resume_writer();
    session.flush().unwrap();
    wait_until("shedding", || {
        log.push(&Blob { text: "" }) == Outcome::Dropped(DropReason::Disk)
    });
    drop(filler);
    wait_until("relief", || log.push(&Blob { text: "" }) == Outcome::Kept);
    session.flush().unwrap();
    session.pause_writer();
    assert_eq!(fill(), first, "chunks were lost");
    session.resume_writer();
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    let shed = report.ledger.categories["blobs"].dropped(DropReason::Disk);
    assert!(shed >= first as u64, "{shed} of {first}");
    verify(&dir, &report, 0);
}

/// The reserve is full, the registry grows, and the disk stays full until after the close.
#[test]
fn a_session_that_closes_on_a_full_disk_has_its_end() {
    let Some(mount) = Mount::new(Kind::Tmpfs) else {
        return;
    };
    let dir = mount.path().join("logs");
    let session = builder(&dir)
        .keep_free_bytes(0)
        .ring_total_bytes(64 << 10)
        .spill_total_bytes(8 << 10)
        .sampling(false)
        .start()
        .unwrap();
    let log = session.log();
    assert_eq!(alarm(&log, 0, 0, ""), Outcome::Kept);
    session.flush().unwrap();
    let filler = mount.fill();
    wait_until("shedding", || {
        call(&log, 0, 0) == Outcome::Dropped(DropReason::Disk)
    });
    let text = "x".repeat(3000);
    let (mut number, mut lost) = (1, 0);
    while lost < 100 {
        lost += u64::from(alarm(&log, 0, number, &text) != Outcome::Kept);
        number += 1;
    }
    for index in 0..100 {
        let category = format!("{}{index}", "a_long_name_".repeat(4));
        let category = stormlog::record::Category::named(&category).unwrap();
        log.event(category, &[]);
    }
    assert!(session.flush().is_err(), "what waits cannot be written");
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    assert!(report.always_lost >= lost);
    assert!(report.segments.is_some(), "there is no space for lines");
    assert_few(&report.faults);
    drop(filler);
    let output = stormlog(&["convert"], &dir);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    verify(&dir, &report, 1);
}

/// Where nothing can be reserved, segments are written in full before they are used.
#[test]
fn a_file_system_that_cannot_reserve_space_loses_nothing() {
    const CALLS: u64 = 1000;
    for sink in [SegmentSink::Mapped, SegmentSink::Pwrite] {
        let Some(mount) = Mount::new(Kind::Ramfs) else {
            return;
        };
        let dir = mount.path().join("logs");
        let builder = builder(&dir).segment_sink(sink).sampling(false);
        let session = builder.start().unwrap();
        let log = session.log();
        for number in 0..CALLS {
            assert_eq!(call(&log, 0, number), Outcome::Kept);
        }
        let report = session.close().unwrap();
        assert!(report.faults.is_empty(), "{sink:?}: {:?}", report.faults);
        assert_all(&numbers(&report, "calls"), 1, CALLS);
        verify(&dir, &report, 0);
    }
}

#[test]
fn a_removed_directory_is_counted() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .ring_total_bytes(64 << 10)
        .spill_total_bytes(8 << 10)
        .start()
        .unwrap();
    let log = session.log();
    let text = "z".repeat(3000);
    call(&log, 0, 0);
    session.flush().unwrap();
    std::fs::remove_dir_all(temp.path().join(".stormlog")).unwrap();
    let mut pushed = 0;
    while alarm(&log, 0, pushed, &text) == Outcome::Kept {
        pushed += 1;
        call(&log, 0, pushed);
    }
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    assert!(report.always_lost > 0);
    assert_few(&report.faults);
    let faults = &report.faults;
    assert!(
        faults.iter().any(|fault| fault.contains(".seg")),
        "{faults:?}"
    );
    // What was written is gone with the directory.
    for (category, account) in &report.ledger.categories {
        assert_eq!(account.written(), 0, "{category}: {:?}", report.ledger);
    }
    // All but the calls must be kept: each that was dropped is said to be lost, once.
    let kept = report.ledger.categories.iter();
    let kept = kept.filter(|(category, _)| *category != "calls");
    let lost: u64 = kept.map(|(_, account)| account.dropped_total()).sum();
    assert_eq!(report.always_lost, lost, "{:?}", report.ledger);
}

#[test]
fn a_file_system_that_turns_read_only_is_counted() {
    let Some(mount) = Mount::new(Kind::Ext4) else {
        return;
    };
    let dir = mount.path().join("logs");
    let session = builder(&dir)
        .keep_free_bytes(0)
        .ring_total_bytes(64 << 10)
        .spill_total_bytes(8 << 10);
    let session = session.start().unwrap();
    let log = session.log();
    call(&log, 0, 0);
    session.flush().unwrap();
    if !mount.fail() {
        eprintln!("skipped, the kernel has no trigger_fs_error");
        return;
    }
    let text = "z".repeat(3000);
    let mut pushed = 0;
    while alarm(&log, 0, pushed, &text) == Outcome::Kept {
        pushed += 1;
        call(&log, 0, pushed);
    }
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    assert!(report.always_lost > 0);
    assert_few(&report.faults);
}

#[test]
fn a_reserve_that_a_crash_left_behind_confuses_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).conversion(Conversion::Later);
    let session = session.start().unwrap();
    call(&session.log(), 0, 0);
    let report = session.close().unwrap();
    let segments: PathBuf = report.segments.clone().unwrap();
    let say = || {
        let outputs = ["sessions", "inspect", "convert", "verify"]
            .iter()
            .map(|command| {
                let output = stormlog(&[command], temp.path());
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                (output.status.code(), said)
            });
        outputs.collect::<Vec<_>>()
    };
    assert!(!segments.join("reserve").exists(), "removed at close");
    say();
    let without = say();
    std::fs::write(segments.join("reserve"), vec![0; 4 << 20]).unwrap();
    assert_eq!(say(), without);
    assert!(
        without.iter().all(|(code, _)| *code == Some(0)),
        "{without:?}"
    );
}
