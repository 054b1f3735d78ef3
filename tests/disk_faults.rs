//! Trouble with files that is no lack of bytes: no inode left, a disk that fails under the file
//! system, permissions that are taken away, a limit on the length of files. As root.
//!
//! What changes the whole process runs in a child: this program again, with a role.

#[path = "support/mount.rs"]
mod mount;
#[path = "support/recording.rs"]
mod recording;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mount::{Kind, Mount};
use stormlog::ledger::DropReason;
use stormlog::record::LongText;
use stormlog::{CloseReport, Log, Outcome, RingStorage, SegmentSink, Session, SessionBuilder};

stormlog::record! {
    struct Call in "calls" keep Sampled { number: u64, text: LongText }
}

stormlog::record! {
    struct Alarm in "stress" keep Always { number: u64 }
}

/// Names what a child is to do.
const ROLE: &str = "DISK_FAULTS_TEST_ROLE";
/// A user who is nobody.
const NOBODY: u32 = 65534;

fn builder(dir: &Path) -> SessionBuilder {
    recording::builder().dir(dir).sampling(false)
}

fn call(log: &Log, number: u64) -> Outcome {
    let text = "f".repeat(1000);
    log.push(&Call {
        number,
        text: &text,
    })
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
    }
}

/// Pushes until nothing is taken any more, then alarms, which all are; lets `relieve` end the
/// trouble and sees recording go on, without a loss of what must be kept.
fn outage(session: Session, relieve: impl FnOnce()) -> CloseReport {
    let log = session.log();
    wait_until("trouble", || call(&log, 0) != Outcome::Kept);
    for number in 0..200 {
        assert_eq!(log.push(&Alarm { number }), Outcome::Kept);
    }
    relieve();
    wait_until("relief", || call(&log, 1) == Outcome::Kept);
    wait_until("a flush", || session.flush().is_ok());
    for number in 200..300 {
        assert_eq!(log.push(&Alarm { number }), Outcome::Kept);
    }
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    assert_eq!(report.always_lost, 0, "{report:?}");
    let stress = report.files.iter().find(|file| file.category == "stress");
    assert_eq!(stress.map(|file| file.lines), Some(300), "{report:?}");
    assert_eq!(report.segments, None, "{report:?}");
    // The trouble, and perhaps how much was shed: once each.
    assert!(report.faults.len() < 4, "{:?}", report.faults);
    report
}

#[test]
fn no_inode_is_left() {
    for sink in [SegmentSink::Mapped, SegmentSink::Pwrite] {
        let Some(mount) = Mount::with_files(64) else {
            return;
        };
        let dir = mount.path().join("logs");
        let session = builder(&dir).segment_sink(sink).start().unwrap();
        let fill = |number: u32| std::fs::write(mount.path().join(format!("f{number}")), "");
        let files = (0..10_000)
            .take_while(|number| fill(*number).is_ok())
            .count();
        assert!(files > 10);
        outage(session, || {
            for number in 0..files {
                std::fs::remove_file(mount.path().join(format!("f{number}"))).unwrap();
            }
        });
    }
}

/// There is space, and it is not for us.
#[test]
fn a_quota_that_is_reached() {
    let Some(mount) = Mount::with_quota(40 << 20) else {
        return;
    };
    let dir = mount.path().join("logs");
    // A mapping would end the process: btrfs takes new space for what was reserved.
    let session = builder(&dir)
        .segment_sink(SegmentSink::Pwrite)
        .ring_storage(RingStorage::Anonymous);
    let session = session.start().unwrap();
    let filler = mount.fill();
    let refused = std::fs::File::create(mount.path().join("more")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EDQUOT), "{refused}");
    let log = session.log();
    wait_until("shedding", || {
        call(&log, 0) == Outcome::Dropped(DropReason::Disk)
    });
    let report = outage(session, || {
        drop(filler);
        mount.wait_for_space();
    });
    let named = |fault: &String| fault.contains("quota");
    assert!(report.faults.iter().any(named), "{:?}", report.faults);
}

/// A store into a page of the rings that nobody has touched yet asks the file system. Where that
/// refuses it (ext4 may have said yes to its neighbours before), the page goes on in memory.
#[test]
fn rings_on_a_file_system_that_turns_read_only_lose_nothing() {
    let Some(mount) = Mount::new(Kind::Ext4) else {
        return;
    };
    let session = builder(&mount.path().join("logs"))
        .segment_sink(SegmentSink::Pwrite)
        .ring_storage(RingStorage::SessionDir)
        .ring_total_bytes(1 << 20)
        .sigbus_guard(true)
        .start()
        .unwrap();
    let log = session.log();
    for number in 0..100 {
        assert_eq!(call(&log, number), Outcome::Kept);
        assert_eq!(log.push(&Alarm { number }), Outcome::Kept);
        session.flush().unwrap();
    }
    mount.settle();
    if !mount.fail() {
        eprintln!("skipped, the kernel has no trigger_fs_error");
        return;
    }
    for number in 100..110 {
        assert_eq!(call(&log, number), Outcome::Kept);
        assert_eq!(log.push(&Alarm { number }), Outcome::Kept);
    }
    // In chunks, of which nobody has touched a page yet: the file system has to know about each.
    let text = "g".repeat(60_000);
    let outcome = log.push(&Call {
        number: 110,
        text: &text,
    });
    assert_eq!(outcome, Outcome::Kept);
    assert_eq!(log.push(&Alarm { number: 110 }), Outcome::Kept);
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact(), "{report:?}");
    for category in ["calls", "stress"] {
        let account = report.ledger.categories[category];
        assert_eq!(account.offered(), 111, "no count is lost: {report:?}");
        let lost = account.dropped(DropReason::Disk);
        assert_eq!((account.written(), lost), (100, 11), "{report:?}");
    }
    let told = |fault: &&String| fault.contains("of the file of the rings cannot be written");
    assert!(report.faults.iter().filter(told).count() <= 1, "{report:?}");
}

/// The image of the file system lies in a smaller one: the disk takes what its size promises
/// until that is full, and then fails. Whoever syncs hears of it, and nobody else.
#[test]
fn a_disk_that_fails_under_the_file_system() {
    for sink in [SegmentSink::Mapped, SegmentSink::Pwrite] {
        let Some(outer) = Mount::new(Kind::Tmpfs) else {
            return;
        };
        let temp = tempfile::tempdir_in(outer.path()).unwrap();
        let Some(inner) = Mount::in_dir(temp, Kind::Ext4) else {
            return;
        };
        let dir = inner.path().join("logs");
        // The file system may turn read-only, which is a fault for a mapped page.
        let session = builder(&dir).segment_sink(sink).sigbus_guard(true);
        let session = session.start().unwrap();
        let log = session.log();
        assert_eq!(call(&log, 0), Outcome::Kept);
        session.sync_now().unwrap();
        let filler = outer.fill();
        let mut number = 1;
        wait_until("a sync that fails", || {
            for _ in 0..500 {
                call(&log, number);
                number += 1;
            }
            assert_eq!(log.push(&Alarm { number }), Outcome::Kept);
            session.sync_now().is_err()
        });
        drop(filler);
        let report = session.close().unwrap();
        assert!(report.ledger.is_exact(), "{report:?}");
        assert!(!report.faults.is_empty());
    }
}

/// A page that was written back is not writable any more: the next store asks the file system.
#[test]
fn a_file_system_that_turns_read_only_under_synced_pages() {
    for sink in [SegmentSink::Mapped, SegmentSink::Pwrite] {
        let Some(mount) = Mount::new(Kind::Ext4) else {
            return;
        };
        let dir = mount.path().join("logs");
        let session = builder(&dir).segment_sink(sink).sigbus_guard(true);
        let session = session.start().unwrap();
        let log = session.log();
        for number in 0..100 {
            assert_eq!(call(&log, number), Outcome::Kept);
        }
        session.sync_now().unwrap();
        if !mount.fail() {
            eprintln!("skipped, the kernel has no trigger_fs_error");
            return;
        }
        let mut number = 0;
        wait_until("loss", || {
            number += 1;
            log.push(&Alarm { number }) != Outcome::Kept
        });
        let report = session.close().unwrap();
        assert!(report.ledger.is_exact(), "{report:?}");
        assert!(report.always_lost > 0);
        assert!(report.faults.len() < 12, "{:?}", report.faults);
    }
}

fn child(role: &str, dir: &Path) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "role", "--nocapture", "--test-threads=1"])
        .env(ROLE, format!("{role}:{}", dir.display()));
    child
}

/// Not a test of its own: what the children do.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let (role, dir) = role.split_once(':').unwrap();
    let dir = PathBuf::from(dir);
    let session = builder(&dir).start().unwrap();
    let own = dir.join(".stormlog").join(session.id());
    let set = |mode| std::fs::set_permissions(&own, PermissionsExt::from_mode(mode)).unwrap();
    match role {
        "permission" => {
            call(&session.log(), 0);
            session.flush().unwrap();
            set(0o500);
            outage(session, || set(0o700));
        }
        "limit" => {
            let log = session.log();
            let kept = (0..60_000)
                .filter(|number| {
                    if number % 100 == 0 {
                        session.flush().unwrap();
                    }
                    call(&log, *number) == Outcome::Kept
                })
                .count();
            let report = session.close().unwrap();
            assert!(report.ledger.is_exact());
            assert_eq!(report.ledger.categories["calls"].written(), kept as u64);
            assert_eq!(kept, 60_000, "segments within the limit: {report:?}");
            assert!(report.segments.is_some(), "the lines of calls are too long");
            let fault = |fault: &String| fault.contains("File too large");
            assert!(report.faults.iter().any(fault), "{report:?}");
        }
        other => panic!("no role {other}"),
    }
}

#[test]
fn permissions_that_are_taken_away_and_given_back() {
    let temp = tempfile::tempdir().unwrap();
    if std::os::unix::fs::chown(temp.path(), Some(NOBODY), Some(NOBODY)).is_err() {
        eprintln!("skipped, only root can be somebody else");
        return;
    }
    let mut child = child("permission", temp.path());
    match child.uid(NOBODY).gid(NOBODY).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => eprintln!("skipped, nobody cannot run this program: {error}"),
    }
}

/// A segment or a file of lines over the limit would end the process by SIGXFSZ.
#[test]
fn a_limit_on_the_length_of_files() {
    let temp = tempfile::tempdir().unwrap();
    let limited = format!("ulimit -f {}; exec \"$@\"", (6 << 20) / 1024);
    let child = child("limit", temp.path());
    let output = Command::new("bash")
        .args(["-c", &limited, "bash"])
        .arg(child.get_program())
        .args(child.get_args())
        .env(ROLE, format!("limit:{}", temp.path().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
