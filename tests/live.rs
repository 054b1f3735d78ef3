//! Lines that are appended while the session records: they are there soon and in order, late ones
//! are counted, and what is there after the close is what a conversion of the same segments makes,
//! byte for byte, whatever others did to the files meanwhile.

#[path = "support/acting.rs"]
mod acting;
#[path = "support/live_files.rs"]
mod live_files;
#[path = "support/mount.rs"]
mod mount;
#[path = "support/process.rs"]
mod process;
#[path = "support/recording.rs"]
mod recording;
#[cfg(feature = "cli")]
#[path = "support/tool.rs"]
mod tool;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use acting::Acting;
use live_files::{check, converted, file, files, numbers, text};
use mount::{Kind, Mount};
use process::{PATIENCE, wait_until};
use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::record::{
    Category, DurationMs, Extra, KeepClass, LongText, SchemaDef, ShortText, Symbol,
};
use stormlog::recover::{RecoverOptions, State, recover_session};
use stormlog::segment::files::SessionFiles;
use stormlog::{Conversion, Error, Log, Outcome, RingStorage, Session, SessionBuilder, symbol};

stormlog::record! {
    struct Call in "calls" keep Sampled key id {
        operation: Symbol,
        id: ShortText<40>,
        number: u64,
        duration_ms: DurationMs<2>,
        text: LongText,
    }
}

fn builder(dir: &Path) -> SessionBuilder {
    recording::builder()
        .dir(dir)
        .live(true)
        .sampling(false)
        .close_deadline(PATIENCE)
        .ring_storage(RingStorage::Anonymous)
}

fn call(log: &Log, id: &str, number: u64, text: &str) -> Outcome {
    log.push(&Call {
        operation: symbol!("scale_up"),
        id,
        number,
        duration_ms: Duration::from_nanos(number * 977),
        text,
    })
}

#[test]
fn lines_appear_in_order_while_the_session_records() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).keep_segments(true).start().unwrap();
    let path = file(temp.path(), session.id(), "calls");
    let log = session.log();
    let mut ids = Vec::new();
    for round in 1..=5 {
        for number in 1..=100 {
            assert_eq!(call(&log, "a", round * 100 + number, ""), Outcome::Kept);
        }
        wait_until("the lines", || {
            text(&path).lines().count() as u64 == round * 100
        });
        ids.push(path.metadata().unwrap().ino());
    }
    let before = text(&path);
    let expected: Vec<u64> = (1..=5)
        .flat_map(|r| (1..=100).map(move |n| r * 100 + n))
        .collect();
    assert_eq!(numbers(&before), expected);
    let report = session.close().unwrap();
    assert_eq!(report.late, 0);
    check(temp.path(), &report);
    assert_eq!(text(&path), before);
    ids.push(path.metadata().unwrap().ino());
    ids.dedup();
    assert_eq!(
        ids.len(),
        1,
        "it is one file from the first line to the end"
    );
}

/// Several threads, segments, categories, long records, sampling and secrets. Files that nobody
/// writes again at the close show that the lines were right when they were appended.
#[test]
fn what_is_there_after_the_close_is_what_a_conversion_makes() {
    for conversion in [Conversion::Later, Conversion::Wait] {
        let temp = tempfile::tempdir().unwrap();
        let session = builder(temp.path())
            .conversion(conversion)
            .keep_segments(true)
            .segment_bytes(4 << 20)
            .redact_names(["engine_pin"])
            .redact_patterns([r"corp-\d+"])
            .sample_rate("requests", 0.5)
            .start()
            .unwrap();
        let path = file(temp.path(), session.id(), "calls");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let log = session.log();
                scope.spawn(move || push_of_all_kinds(&log, thread));
            }
            wait_until("lines", || text(&path).lines().count() > 100);
        });
        let report = session.close().unwrap();
        let ledger = &report.ledger;
        assert!(ledger.is_exact() && ledger.categories["requests"].sampled_out() > 0);
        let segments = std::fs::read_dir(report.segments.as_ref().unwrap()).unwrap();
        assert!(segments.count() > 2, "segments were rolled");
        let lines = text(&path);
        assert!(lines.contains("\"text\":\"password=[redacted] [redacted] Bearer [redacted]\""));
        if conversion == Conversion::Wait || report.late == 0 {
            check(temp.path(), &report);
            continue;
        }
        println!("{} lines were late", report.late);
        let sorted = |files: BTreeMap<String, String>| {
            let lines = files.into_values().map(|text| {
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            });
            lines.collect::<Vec<_>>()
        };
        assert!(sorted(files(temp.path())) == sorted(converted(&report)));
    }
}

fn push_of_all_kinds(log: &Log, thread: u64) {
    let padding = "x".repeat(300_000);
    for number in 0..3_000 {
        let text = match number % 500 {
            7 => &padding[..40_000 + 1000 * thread as usize],
            // Longer than a line is kept in memory.
            8 if thread == 1 => padding.as_str(),
            9 => "password=hunter2 corp-4711 Bearer abcdefghijklmnopqrstuvwxyz0123",
            _ => "none \"quoted\" \u{7}",
        };
        let mut tries = 0;
        while call(log, &format!("{thread}"), number, text) != Outcome::Kept {
            tries += 1;
            assert!(tries < 10_000, "there is no room for {number}");
            std::thread::sleep(Duration::from_millis(1));
        }
        if number % 100 == 0 {
            // New categories, symbols and keys while it runs.
            let name = format!("key_{thread}_{number}");
            let extras = [
                Extra::new("engine_pin", "1234"),
                Extra::new(name.as_str(), number),
                Extra::new("number", f64::NAN),
            ];
            let own = category(&format!("own_{thread}_{}", number / 1000));
            assert_eq!(log.event(own, &extras), Outcome::Kept);
            std::thread::sleep(Duration::from_millis(5));
        }
        log.event(category("requests"), &[Extra::new("number", number)]);
    }
}

fn category(name: &str) -> Category {
    Category::named(name).unwrap()
}

static ACTING: SchemaDef = SchemaDef::new("Acting", "calls", KeepClass::Sampled, &[], 0, None);

#[test]
fn a_late_line_is_appended_counted_and_put_in_its_place_at_the_close() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).keep_segments(true).start().unwrap();
    let path = file(temp.path(), session.id(), "calls");
    let other = file(temp.path(), session.id(), "vpn");
    let log = session.log();
    std::thread::scope(|scope| {
        // Its time is that of before the others, and it is committed when their lines are there.
        let late = scope.spawn(|| {
            let log = session.log();
            assert_eq!(log.push(&Acting::first(&ACTING, || {})), Outcome::Kept);
            let wait = || wait_until("the lines of others", || numbers(&text(&path)).len() == 2);
            log.push(&Acting::first(&ACTING, wait))
        });
        wait_until("the first line", || !text(&path).is_empty());
        std::thread::sleep(Duration::from_millis(20));
        for number in [1, 2] {
            assert_eq!(call(&log, "a", number, ""), Outcome::Kept);
        }
        log.event(category("vpn"), &[]);
        assert_eq!(late.join().unwrap(), Outcome::Kept);
    });
    wait_until("the late line", || text(&path).lines().count() == 4);
    wait_until("the other line", || text(&other).lines().count() == 1);
    let before = text(&path);
    let lines: Vec<&str> = before.lines().collect();
    assert!(
        !lines[0].contains("number") && lines[2].contains("\"number\":2"),
        "{lines:?}"
    );
    assert!(!lines[3].contains("number"), "it came last: {lines:?}");
    let ids = [&path, &other].map(|path| path.metadata().unwrap().ino());
    let report = session.close().unwrap();
    assert_eq!(report.late, 1);
    check(temp.path(), &report);
    let after = text(&path);
    let after: Vec<&str> = after.lines().collect();
    assert_eq!(after, [lines[0], lines[3], lines[1], lines[2]]);
    let kept = [&path, &other].map(|path| path.metadata().unwrap().ino());
    assert_ne!(kept[0], ids[0], "written anew");
    assert_eq!(kept[1], ids[1], "its lines were in order");
}

/// A record that is committed some milliseconds after one with a later time, which is in a segment
/// by then, is in its place: lines wait for it. Not each time, where others have the processor.
#[test]
fn a_record_within_the_window_is_in_its_place() {
    const ROUNDS: u64 = 10;
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).keep_segments(true).start().unwrap();
    let log = session.log();
    log.push(&Acting::first(&ACTING, || {}));
    for number in 0..ROUNDS {
        let begun = std::sync::Barrier::new(2);
        let is_there = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let log = session.log();
                log.push(&Acting::first(&ACTING, || {
                    begun.wait();
                    is_there.wait();
                    std::thread::sleep(Duration::from_millis(5));
                }))
            });
            begun.wait();
            assert_eq!(call(&log, "a", number, ""), Outcome::Kept);
            session.flush().unwrap();
            is_there.wait();
        });
    }
    let report = session.close().unwrap();
    assert!(report.late < ROUNDS, "no line has waited");
    check(temp.path(), &report);
}

#[test]
fn with_line_sync_a_push_returns_after_its_line_is_in_the_file() {
    let temp = tempfile::tempdir().unwrap();
    let alone = recording::builder()
        .dir(temp.path())
        .line_sync(true)
        .start();
    assert!(matches!(alone, Err(Error::Setting { .. })));
    let session = builder(temp.path())
        .line_sync(true)
        .keep_segments(true)
        .start()
        .unwrap();
    let path = file(temp.path(), session.id(), "calls");
    std::thread::scope(|scope| {
        for thread in ["a", "b"] {
            let (log, path) = (session.log(), &path);
            scope.spawn(move || {
                for number in 0..20 {
                    assert_eq!(call(&log, thread, number, ""), Outcome::Kept);
                    let (id, number) = (
                        format!("\"id\":\"{thread}\""),
                        format!("\"number\":{number},"),
                    );
                    let lines = text(path);
                    let mut own = lines.lines().filter(|line| line.contains(&id));
                    assert!(own.next_back().is_some_and(|line| line.contains(&number)));
                }
            });
        }
    });
    // A category under pressure takes another way, and so does an open record.
    let vpn = file(temp.path(), session.id(), "vpn");
    let log = session.log();
    session.set_pressure(category("vpn"), 2);
    let kept = (0..40).filter(|_| log.event(category("vpn"), &[]) == Outcome::Kept);
    for (before, _) in kept.enumerate() {
        assert!(text(&vpn).lines().count() > before);
    }
    // Nobody waits for a session that is over.
    let report = session.close().unwrap();
    assert_eq!(call(&log, "a", 0, ""), Outcome::Closed);
    check(temp.path(), &report);
}

/// Pushes numbers, and waits until the last of them is in the file.
fn push_and_wait(session: &Session, path: &Path, numbers_of: std::ops::Range<u64>) {
    let log = session.log();
    let last = numbers_of.end - 1;
    for number in numbers_of {
        assert_eq!(call(&log, "a", number, ""), Outcome::Kept);
    }
    wait_until("the lines", || {
        numbers(whole_lines(&text(path))).last() == Some(&last)
    });
}

/// Without a line that is just being written.
fn whole_lines(text: &str) -> &str {
    text.rsplit_once('\n').map_or("", |(lines, _)| lines)
}

#[test]
fn a_file_that_others_move_cut_or_remove_is_made_again_and_whole_at_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).keep_segments(true).start().unwrap();
    let path = file(temp.path(), session.id(), "calls");
    push_and_wait(&session, &path, 0..10);
    // Rotated: the old file keeps its lines, the new one has those that follow.
    let rotated = temp.path().join("rotated");
    std::fs::rename(&path, &rotated).unwrap();
    push_and_wait(&session, &path, 10..20);
    assert_eq!(numbers(&text(&rotated)), (0..10).collect::<Vec<_>>());
    assert_eq!(numbers(&text(&path)), (10..20).collect::<Vec<_>>());
    std::fs::remove_file(&path).unwrap();
    push_and_wait(&session, &path, 20..30);
    assert_eq!(numbers(&text(&path)), (20..30).collect::<Vec<_>>());
    // Cut within a line: nothing of that line stays.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(777)
        .unwrap();
    push_and_wait(&session, &path, 30..40);
    assert_eq!(numbers(&text(&path)), (30..40).collect::<Vec<_>>());
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    push_and_wait(&session, &path, 40..50);
    // What others have appended goes.
    let mut appended = File::options().append(true).open(&path).unwrap();
    appended.write_all(&b"not ours".repeat(10_000)).unwrap();
    push_and_wait(&session, &path, 50..60);
    assert_eq!(numbers(&text(&path)), (40..60).collect::<Vec<_>>());
    // Another file under the name, and one that leads elsewhere.
    std::fs::write(temp.path().join("other"), "theirs").unwrap();
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(temp.path().join("other"), &path).unwrap();
    push_and_wait(&session, &path, 60..70);
    assert_eq!(text(&temp.path().join("other")), "theirs");
    let report = session.close().unwrap();
    assert_eq!(report.late, 0);
    check(temp.path(), &report);
    assert_eq!(numbers(&text(&path)), (0..70).collect::<Vec<_>>());
}

/// The lines of a segment that somebody removes are in the file already, and stay there.
#[test]
fn lines_whose_segment_is_lost_stay() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).segment_bytes(4 << 20).start().unwrap();
    let path = file(temp.path(), session.id(), "calls");
    let segments = session.segment_dir().unwrap().to_owned();
    push_and_wait(&session, &path, 0..10);
    let (log, padding) = (session.log(), "x".repeat(20_000));
    let mut last = 9;
    wait_until("the third segment", || {
        // A slow writer may have left no room.
        last += u64::from(call(&log, "a", last + 1, &padding) == Outcome::Kept);
        segments.join("000003.seg").exists()
    });
    push_and_wait(&session, &path, last + 1..last + 10);
    last += 9;
    std::fs::remove_file(segments.join("000001.seg")).unwrap();
    let report = session.close().unwrap();
    assert!(!report.faults.is_empty());
    assert_eq!(numbers(&text(&path)), (0..=last).collect::<Vec<_>>());
}

#[test]
fn a_directory_that_is_moved_has_its_files_where_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let (logs, moved) = (temp.path().join("logs"), temp.path().join("moved"));
    let session = builder(&logs).start().unwrap();
    let name = file(Path::new(""), session.id(), "calls");
    push_and_wait(&session, &logs.join(&name), 0..10);
    std::fs::rename(&logs, &moved).unwrap();
    push_and_wait(&session, &moved.join(&name), 10..20);
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!(
        numbers(&text(&moved.join(&name))),
        (0..20).collect::<Vec<_>>()
    );
    assert!(!logs.exists());
}

#[test]
fn a_full_disk_leaves_no_part_of_a_line_and_nothing_is_lost() {
    let Some(mount) = Mount::new(Kind::Tmpfs) else {
        return;
    };
    let dir = mount.path().join("logs");
    let session = builder(&dir)
        .keep("calls", KeepClass::Always)
        .keep_segments(true)
        .start()
        .unwrap();
    let path = file(&dir, session.id(), "calls");
    push_and_wait(&session, &path, 0..10);
    let filler = mount.fill();
    let log = session.log();
    for number in 10..3_000 {
        assert_eq!(call(&log, "a", number, ""), Outcome::Kept);
    }
    session.flush().unwrap();
    // More lines than what is left of a page.
    let some = numbers(whole_lines(&text(&path))).len();
    assert!(some < 3_000, "the disk is not full");
    drop(filler);
    wait_until("the lines", || {
        numbers(whole_lines(&text(&path))) == (0..3_000).collect::<Vec<_>>()
    });
    let mut report = session.close().unwrap();
    // Only where a look at the disk came in between.
    let bound = |fault: &String| fault.contains("keep_free_bytes");
    report.faults.retain(|fault| !bound(fault));
    check(&dir, &report);
    assert_eq!(numbers(&text(&path)), (0..3_000).collect::<Vec<_>>());
}

#[test]
fn a_forked_child_appends_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .keep_segments(true)
        .line_sync(true)
        .start()
        .unwrap();
    let path = file(temp.path(), session.id(), "calls");
    let log = session.log();
    assert_eq!(call(&log, "a", 1, ""), Outcome::Kept);
    let before = text(&path);
    let pid = process::fork(|| i32::from(call(&log, "child", 2, "") != Outcome::Disabled));
    assert_eq!(process::wait(pid).code(), Some(0));
    assert_eq!(text(&path), before);
    assert_eq!(call(&log, "a", 3, ""), Outcome::Kept);
    assert_eq!(numbers(&text(&path)), [1, 3]);
    let report = session.close().unwrap();
    check(temp.path(), &report);
}

#[test]
fn without_a_conversion_the_files_have_all_lines_too() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .conversion(Conversion::Later)
        .start()
        .unwrap();
    let path = file(temp.path(), session.id(), "calls");
    let log = session.log();
    for number in 0..1_000 {
        assert_eq!(call(&log, "a", number, ""), Outcome::Kept);
    }
    let report = session.close().unwrap();
    assert!(report.files.is_empty());
    check(temp.path(), &report);
    assert_eq!(numbers(&text(&path)).len(), 1_000);
    assert!(!report.segments.unwrap().join("live").exists());
}

#[test]
fn a_conversion_in_the_background_ends_with_the_same_files() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .conversion(Conversion::Background)
        .keep_segments(true)
        .start()
        .unwrap();
    let path = file(temp.path(), session.id(), "calls");
    push_and_wait(&session, &path, 0..10);
    std::fs::rename(&path, temp.path().join("rotated")).unwrap();
    let report = session.close().unwrap();
    let mark = report.segments.clone().unwrap().join("live");
    wait_until("the conversion", || !mark.exists());
    check(temp.path(), &report);
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    std::fs::set_permissions(to, from.metadata().unwrap().permissions()).unwrap();
}

/// What a process leaves that dies while it appends, and the next session in the same directory.
#[test]
fn the_next_session_completes_the_files_of_one_that_died() {
    for storage in [RingStorage::SessionDir, RingStorage::Anonymous] {
        let temp = tempfile::tempdir().unwrap();
        let (logs, copy) = (temp.path().join("logs"), temp.path().join("copy"));
        let session = builder(&logs).ring_storage(storage).start().unwrap();
        let id = session.id().to_owned();
        let path = file(&copy, &id, "calls");
        push_and_wait(&session, &file(&logs, &id, "calls"), 0..100);
        session.pause_writer();
        let log = session.log();
        for number in 100..110 {
            assert_eq!(call(&log, "a", number, ""), Outcome::Kept);
        }
        copy_all(&logs, &copy);
        session.resume_writer();
        session.close().unwrap();
        let whole = text(&path);
        std::fs::write(&path, &whole[..whole.len() - 50]).unwrap();
        let dir = copy.join(".stormlog").join(&id);
        assert!(dir.join("live").exists());
        let next = builder(&copy).start().unwrap();
        wait_until("the lines", || !dir.join("live").exists());
        next.close().unwrap();
        let all = match storage {
            RingStorage::SessionDir => 110,
            _ => 100,
        };
        assert_eq!(numbers(&text(&path)), (0..all).collect::<Vec<_>>());
        let again = recover_session(&copy, &id, RecoverOptions::default()).unwrap();
        assert_eq!(again.state, State::Complete);
        let (found, sessions) = (files(&copy), SessionFiles::find(&dir).unwrap());
        let out = tempfile::tempdir().unwrap();
        convert_session(&sessions[0], out.path(), ConvertOptions::default()).unwrap();
        for (name, text) in files(out.path()) {
            assert!(found[&name] == text, "{name}");
        }
    }
}

/// Of a session that died, and of whose segments one is lost, lines stand in the file alone: the
/// next session, which nobody has asked to, does not take them away.
#[test]
fn the_next_session_leaves_lines_whose_segment_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let (logs, copy) = (temp.path().join("logs"), temp.path().join("copy"));
    let session = builder(&logs).segment_bytes(4 << 20).start().unwrap();
    let id = session.id().to_owned();
    let path = file(&logs, &id, "calls");
    let segments = session.segment_dir().unwrap().to_owned();
    push_and_wait(&session, &path, 0..10);
    let (log, padding) = (session.log(), "x".repeat(20_000));
    let mut last = 9;
    wait_until("the third segment", || {
        last += u64::from(call(&log, "a", last + 1, &padding) == Outcome::Kept);
        segments.join("000003.seg").exists()
    });
    push_and_wait(&session, &path, last + 1..last + 10);
    last += 9;
    session.pause_writer();
    copy_all(&logs, &copy);
    session.resume_writer();
    session.close().unwrap();
    let dir = copy.join(".stormlog").join(&id);
    std::fs::remove_file(dir.join("000001.seg")).unwrap();
    let next = builder(&copy).start().unwrap();
    wait_until("the lines", || !dir.join("live").exists());
    next.close().unwrap();
    let found = numbers(&text(&file(&copy, &id, "calls")));
    assert_eq!(found, (0..=last).collect::<Vec<_>>());
}

/// What cannot be opened or removed like a file does no more harm than that lines wait.
#[test]
fn a_fifo_or_a_directory_in_the_place_of_a_file_holds_nobody_up() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .keep_segments(true)
        .line_sync(true)
        .start()
        .unwrap();
    let path = file(temp.path(), session.id(), "calls");
    let log = session.log();
    assert_eq!(call(&log, "a", 0, ""), Outcome::Kept);
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    assert_eq!(call(&log, "a", 1, ""), Outcome::Kept);
    assert!(path.symlink_metadata().unwrap().is_file());
    assert_eq!(numbers(&text(&path)), [1]);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir_all(path.join("theirs")).unwrap();
    // More of them than could each wait for as long as a call does.
    let calls = std::thread::spawn(move || {
        for number in 2..10 {
            assert_eq!(call(&log, "a", number, ""), Outcome::Kept);
        }
    });
    wait_until("calls that wait for nothing", || calls.is_finished());
    calls.join().unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    wait_until("the lines", || {
        numbers(whole_lines(&text(&path))) == [2, 3, 4, 5, 6, 7, 8, 9]
    });
    let report = session.close().unwrap();
    check(temp.path(), &report);
    assert_eq!(numbers(&text(&path)), (0..10).collect::<Vec<_>>());
}

#[cfg(feature = "cli")]
#[test]
fn the_commands_know_files_that_are_appended_to() {
    let temp = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = tool::stormlog(temp.path(), words);
        let output = command.arg(temp.path()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let what = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told, what)
    };
    let session = builder(temp.path()).keep_segments(true).start().unwrap();
    let path = file(temp.path(), session.id(), "calls");
    push_and_wait(&session, &path, 0..10);
    let (code, told, what) = run(&["sessions", "--json"]);
    assert_eq!(code, Some(0), "{what}");
    let found: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&found["state"], &found["categories"]["calls"]),
        (&"live".into(), &10.into())
    );
    let (code, told, what) = run(&["stats", "--json"]);
    assert_eq!(code, Some(0), "{told}{what}");
    let (code, told, what) = run(&["verify", "--json"]);
    assert_eq!(code, Some(0), "{told}{what}");
    // The part that another process makes meanwhile goes when the session ends.
    let (code, ..) = run(&["convert"]);
    assert_eq!(code, Some(1), "it is being recorded");
    push_and_wait(&session, &path, 10..20);
    let report = session.close().unwrap();
    check(temp.path(), &report);
    let before = files(temp.path());
    for words in [&["verify"][..], &["convert"], &["recover"], &["verify"]] {
        let (code, told, what) = run(words);
        assert_eq!(code, Some(0), "{words:?}: {told}{what}");
        assert!(files(temp.path()) == before, "{words:?}");
    }
}
