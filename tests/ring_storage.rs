//! Where rings lie, from outside: `/dev/shm` with its reference, what is removed and when, what a
//! person is told when rings cannot be had any more.
#![cfg(feature = "cli")]

#[path = "support/recording.rs"]
mod recording;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::{Conversion, Outcome, RingStorage, SessionBuilder};

stormlog::record! {
    struct Counted in "requests" keep Sampled {
        n: u32,
    }
}

const CHILD: &str = "RING_STORAGE_CHILD";
const RECORDS: u32 = 10;

fn builder(dir: &Path, storage: RingStorage) -> SessionBuilder {
    let builder = recording::builder().dir(dir).ring_storage(storage);
    let builder = builder
        .ring_total_bytes(256 << 10)
        .large_total_bytes(2 << 20);
    builder.sampling(false)
}

/// The process of `Recording`: the second half of its records stays in the ring.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let session = builder(Path::new("."), RingStorage::Shm).start().unwrap();
    let log = session.log();
    for n in 0..RECORDS {
        if n == RECORDS / 2 {
            session.flush().unwrap();
            session.pause_writer();
        }
        assert_eq!(log.push(&Counted { n }), Outcome::Kept);
    }
    std::fs::write("ready.tmp", session.id()).unwrap();
    std::fs::rename("ready.tmp", "ready").unwrap();
    loop {
        std::thread::park();
    }
}

struct Recording {
    child: Child,
    session_dir: PathBuf,
}

impl Recording {
    fn start(dir: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut recording = Self {
            child,
            session_dir: PathBuf::new(),
        };
        let end = Instant::now() + Duration::from_secs(60);
        while !dir.join("ready").exists() {
            assert!(Instant::now() < end, "the child did not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        let id = std::fs::read_to_string(dir.join("ready")).unwrap();
        std::fs::remove_file(dir.join("ready")).unwrap();
        recording.session_dir = dir.join(".stormlog").join(id);
        recording
    }

    /// Kills it; where it was.
    fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.session_dir.clone()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn run(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.env_remove("DEBUG_LOG_DIR").env_remove("DEBUG_MODE");
    command.current_dir(dir).args(words).output().unwrap()
}

fn json(output: &Output) -> Json {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
}

/// The directory in `/dev/shm` of the session with this directory: the one that ends with its
/// inode, and lies in that of this user.
fn shm_dir(session_dir: &Path) -> PathBuf {
    let metadata = std::fs::metadata(session_dir).unwrap();
    let parent = format!("/dev/shm/stormlog-{}", metadata.uid());
    let end = format!("-{:x}", metadata.ino());
    let entries = std::fs::read_dir(&parent).unwrap().flatten();
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(&end));
    found.next().expect("a directory in /dev/shm").path()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn numbers(dir: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let path = entries.map(|entry| entry.path());
    let mut path = path.filter(|path| path.to_string_lossy().ends_with("_requests.jsonl"));
    let text = std::fs::read_to_string(path.next().expect("lines")).unwrap();
    let number = |line: &str| {
        serde_json::from_str::<Json>(line).unwrap()["n"]
            .as_u64()
            .unwrap()
    };
    text.lines().map(number).collect()
}

#[test]
fn rings_in_shm_survive_a_kill_and_go_with_the_recovery() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let recording = Recording::start(dir);
    let shm = shm_dir(&recording.session_dir);
    assert_eq!((mode(shm.parent().unwrap()), mode(&shm)), (0o700, 0o700));
    assert_eq!(mode(&shm.join("rings")), 0o600);
    let live = json(&run(dir, &["stats", ".", "--json"]));
    assert_eq!(live["sources"]["offered"], "rings");
    assert_eq!(live["rings"]["active"], 1);
    assert_eq!(
        json(&run(dir, &["recover", ".", "--json"]))["state"],
        "live"
    );
    assert!(shm.exists());

    let session_dir = recording.kill();
    let dry = json(&run(dir, &["recover", ".", "--json", "--dry-run"]));
    assert_eq!(dry["from_rings"], RECORDS / 2);
    assert!(shm.exists());
    let report = json(&run(dir, &["recover", ".", "--json"]));
    assert_eq!(report["state"], "recovered");
    assert_eq!(report["from_rings"], RECORDS / 2);
    assert_eq!(report["faults"], serde_json::json!([]));
    assert_eq!(numbers(dir), (0..u64::from(RECORDS)).collect::<Vec<_>>());
    assert!(!shm.exists());
    assert!(!session_dir.join("rings.shm").exists());
    assert_eq!(run(dir, &["verify", "."]).status.code(), Some(0));
}

#[test]
fn the_next_session_takes_them_too() {
    let temp = tempfile::tempdir().unwrap();
    let dead = Recording::start(temp.path()).kill();
    let shm = shm_dir(&dead);
    let session = builder(temp.path(), RingStorage::Anonymous)
        .start()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while shm.exists() || dead.join("rings.shm").exists() {
        assert!(Instant::now() < end, "they were not taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    session.close().unwrap();
}

/// As after a restart of the container, which gives it a new, empty `/dev/shm`.
#[test]
fn rings_that_are_gone_are_said_to_be_gone() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let dead = Recording::start(dir).kill();
    std::fs::remove_dir_all(shm_dir(&dead)).unwrap();
    let output = run(dir, &["recover", ".", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["state"], "recovered");
    assert_eq!(report["rings"], false);
    let faults = report["faults"].to_string();
    assert!(faults.contains("the container was restarted"), "{faults}");
    assert!(faults.contains("is lost"), "{faults}");
    assert_eq!(
        numbers(dir),
        (0..u64::from(RECORDS / 2)).collect::<Vec<_>>()
    );
}

/// Rings in `/dev/shm` of a process that was killed take memory until somebody does something:
/// whoever asks is told where they are, how large, and what to do.
#[test]
fn rings_that_were_left_in_shm_are_named_with_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let recording = Recording::start(temp.path());
    let shm = shm_dir(&recording.session_dir);
    let path = shm.to_str().unwrap();
    let said = |dir: &Path, command: &str| {
        let output = run(dir, &[command, "."]);
        String::from_utf8(output.stdout).unwrap()
    };
    let line = |text: &str| text.lines().find(|it| it.contains(path)).map(str::to_owned);
    assert_eq!(line(&said(temp.path(), "sessions")), None, "it lives");
    let dead = recording.kill();
    let id = dead.file_name().unwrap().to_str().unwrap();
    let told = line(&said(temp.path(), "sessions")).unwrap();
    assert!(told.starts_with(id), "{told}");
    assert!(
        told.contains("stormlog recover .") && told.contains("MiB"),
        "{told}"
    );
    let bytes = json(&run(temp.path(), &["sessions", ".", "--json"]))["shm_bytes"].as_u64();
    assert!(bytes.unwrap() > 1 << 20, "{bytes:?}");
    // Nobody knows from another log directory whether they are still wanted.
    for command in ["sessions", "recover"] {
        let told = line(&said(other.path(), command)).unwrap();
        assert!(
            told.contains("is not in .") && told.contains("rm -r"),
            "{told}"
        );
    }
    let told = said(temp.path(), "recover");
    assert_eq!(line(&told), None, "{told}");
    assert!(!shm.exists());
    assert_eq!(line(&said(temp.path(), "sessions")), None);
}

/// Another directory of the same user refers to the rings of a dead session: they are neither
/// read for it nor removed, and the session that they belong to gets them.
#[test]
fn a_forged_reference_takes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (honest, forged) = (temp.path().join("honest"), temp.path().join("forged"));
    std::fs::create_dir(&honest).unwrap();
    let dead = Recording::start(&honest).kill();
    let shm = shm_dir(&dead);
    let copy = forged.join(".stormlog").join(dead.file_name().unwrap());
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(&dead).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let report = json(&run(&forged, &["recover", ".", "--json"]));
    assert_eq!(report["state"], "recovered");
    assert_eq!(
        (&report["rings"], &report["from_rings"]),
        (&false.into(), &0.into())
    );
    assert!(shm.join("rings").exists());
    let report = json(&run(&honest, &["recover", ".", "--json"]));
    assert_eq!(report["from_rings"], RECORDS / 2);
}

#[test]
fn a_close_leaves_no_rings_behind_and_says_where_they_were() {
    for (storage, name) in [
        (RingStorage::Auto, "session_dir"),
        (RingStorage::SessionDir, "session_dir"),
        (RingStorage::Shm, "shm"),
        (RingStorage::Anonymous, "anonymous"),
    ] {
        for conversion in [Conversion::Wait, Conversion::Later] {
            let temp = tempfile::tempdir().unwrap();
            let builder = builder(temp.path(), storage).conversion(conversion);
            let session = builder.start().unwrap();
            let segments = session.segment_dir().unwrap().to_owned();
            let shm = (storage == RingStorage::Shm).then(|| shm_dir(&segments));
            assert_eq!(segments.join("rings").exists(), name == "session_dir");
            assert_eq!(session.log().push(&Counted { n: 1 }), Outcome::Kept);
            let report = session.close().unwrap();
            assert_eq!(report.rings, name);
            assert!(report.faults.is_empty(), "{:?}", report.faults);
            assert!(shm.is_none_or(|shm| !shm.exists()));
            for left in ["rings", "rings.shm"] {
                assert!(!segments.join(left).exists(), "{storage:?} {conversion:?}");
            }
            if conversion == Conversion::Wait {
                let path = temp
                    .path()
                    .join(format!("{}_session.jsonl", report.session_id));
                let text = std::fs::read_to_string(path).unwrap();
                let first: Json = serde_json::from_str(text.lines().next().unwrap()).unwrap();
                assert_eq!(first["rings"], name);
            }
        }
    }
}
