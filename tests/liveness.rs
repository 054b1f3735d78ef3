//! Who is alive and who may recover: other pid namespaces, forked children, many starts at once,
//! other users. What needs root is left out without it, and says so.
#![expect(unsafe_code, reason = "forks")]

#[path = "support/recording.rs"]
mod recording;

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::recover::{RecoverOptions, State, recover_session};
use stormlog::segment::files::{Liveness, SessionFiles};
use stormlog::{Conversion, Outcome, RingStorage, SessionBuilder};

stormlog::record! {
    struct Counted in "requests" keep Sampled {
        n: u32,
    }
}

const CHILD: &str = "STORMLOG_LIVENESS_CHILD";
const PATIENCE: Duration = Duration::from_secs(60);
/// A user that owns nothing.
const NOBODY: u32 = 65_534;

/// Waits until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn builder(dir: &Path) -> SessionBuilder {
    recording::builder()
        .dir(dir)
        .ring_storage(RingStorage::SessionDir)
        .ring_total_bytes(1 << 20)
        .conversion(Conversion::Later)
        .sampling(false)
}

/// Tells something under a name, whole or not at all.
fn tell(dir: &Path, name: &str, what: &str) {
    std::fs::write(dir.join("telling"), what).unwrap();
    std::fs::rename(dir.join("telling"), dir.join(name)).unwrap();
}

/// The child process: does what the environment says.
#[test]
fn child() {
    let Ok(role) = std::env::var(CHILD) else {
        return;
    };
    let dir = std::env::current_dir().unwrap();
    match role.as_str() {
        "record" | "fork" => {
            let session = builder(&dir).start().unwrap();
            session.pause_writer();
            for n in 0..3 {
                assert_eq!(session.log().push(&Counted { n }), Outcome::Kept);
            }
            let other = if role == "fork" { forked() } else { 0 };
            tell(&dir, "ready", &format!("{} {other}", session.id()));
            loop {
                std::thread::park();
            }
        }
        "start" => {
            let session = builder(&dir).start().unwrap();
            until("the test goes on", || {
                dir.join("end").exists().then_some(())
            });
            session.close().unwrap();
        }
        id => {
            let report = recover_session(&dir, id, RecoverOptions::default());
            let state =
                report.map_or_else(|error| error.to_string(), |r| r.state.name().to_owned());
            eprintln!("state: {state}");
        }
    }
}

/// A child of this process that lives until it is killed. Returns its process id.
fn forked() -> i32 {
    // SAFETY: the child calls nothing but `pause`, which is safe in a signal handler.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        loop {
            // SAFETY: it only waits.
            let _interrupted = unsafe { libc::pause() };
        }
    }
    assert!(pid > 0);
    pid
}

/// Whether a process is there; `end` kills it.
fn is_there(pid: i32, end: bool) -> bool {
    let signal = if end { libc::SIGKILL } else { 0 };
    // SAFETY: it changes nothing here; `pid` is a child of a child of this process.
    unsafe { libc::kill(pid, signal) == 0 }
}

struct Running(Child);

impl Running {
    /// A child in a role; `wrap` is what runs it.
    fn start(dir: &Path, role: &str, wrap: &[&str], user: Option<u32>, errors: &str) -> Self {
        let exe = std::env::current_exe().unwrap();
        let mut words = wrap.iter().map(PathBuf::from).chain([exe]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, role)
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::from(File::create(dir.join(errors)).unwrap()));
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Self(command.spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A process that has recorded three records; its session id, and the process it has forked.
fn recording(dir: &Path, role: &str, wrap: &[&str], user: Option<u32>) -> (Running, String, i32) {
    let child = Running::start(dir, role, wrap, user, "errors");
    let said = until("the child did not start", || {
        std::fs::read_to_string(dir.join("ready")).ok()
    });
    std::fs::remove_file(dir.join("ready")).unwrap();
    let (id, other) = said.split_once(' ').unwrap();
    (child, id.to_owned(), other.parse().unwrap())
}

fn state_of(dir: &Path, id: &str) -> State {
    recover_session(dir, id, RecoverOptions::default())
        .unwrap()
        .state
}

fn files(dir: &Path, id: &str) -> SessionFiles {
    let mut all = SessionFiles::find(&dir.join(".stormlog").join(id)).unwrap();
    all.remove(0)
}

/// Converts a recovered session: all three records are there. Returns why it ended.
fn check(dir: &Path, id: &str) -> String {
    let report = convert_session(&files(dir, id), dir, ConvertOptions::default()).unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    let lines = |category: &str| {
        std::fs::read_to_string(dir.join(format!("{id}_{category}.jsonl"))).unwrap()
    };
    assert_eq!(lines("requests").lines().count(), 3);
    let end: Json = serde_json::from_str(lines("session").lines().last().unwrap()).unwrap();
    assert_eq!(end["recovered"], true);
    end["reason"].as_str().unwrap().to_owned()
}

fn is_root() -> bool {
    // SAFETY: it only asks.
    unsafe { libc::geteuid() == 0 }
}

const NAMESPACE: [&str; 5] = [
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child=KILL",
];

fn has_namespaces() -> bool {
    let mut command = Command::new(NAMESPACE[0]);
    let made = command.args(&NAMESPACE[1..]).arg("true").output();
    let why = match made {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    println!(
        "left out: no pid namespace can be made here: {}",
        why.trim()
    );
    false
}

#[test]
fn a_session_is_alive_across_pid_namespaces() {
    if !has_namespaces() {
        return;
    }
    // Its process lives in a namespace in which it is process 1; asked from outside.
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (mut child, id, _) = recording(dir, "record", &NAMESPACE, None);
    assert_eq!(state_of(dir, &id), State::Live);
    child.kill();
    until("the lock is not dropped", || {
        (state_of(dir, &id) != State::Live).then_some(())
    });
    assert_eq!(state_of(dir, &id), State::Complete);
    assert_eq!(check(dir, &id), "process_died_in_other_pid_namespace");

    // Asked from a namespace in which it has no process id.
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (mut child, id, _) = recording(dir, "record", &["env"], None);
    let ask = || {
        let mut asking = Running::start(dir, &id, &NAMESPACE, None, "asking");
        assert!(asking.0.wait().unwrap().success());
        std::fs::read_to_string(dir.join("asking")).unwrap()
    };
    assert!(ask().contains("state: live"));
    child.kill();
    assert!(ask().contains("state: recovered"));
    assert_eq!(check(dir, &id), "process_died_in_other_pid_namespace");
}

/// The lock belongs to the process that took it, not to what it has forked.
#[test]
fn a_forked_child_does_not_keep_a_session_alive() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (mut child, id, forked) = recording(dir, "fork", &["env"], None);
    assert_eq!(state_of(dir, &id), State::Live);
    child.kill();
    assert!(is_there(forked, false), "the forked child lives");
    assert_eq!(files(dir, &id).liveness(), Liveness::Dead);
    assert_eq!(state_of(dir, &id), State::Recovered);
    assert!(is_there(forked, true), "the forked child lives");
    assert_eq!(check(dir, &id), "process_died");
}

#[test]
fn eight_starts_at_once_salvage_a_session_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (mut child, id, _) = recording(dir, "record", &["env"], None);
    child.kill();
    let name = |index: usize| format!("errors{index}");
    let mut all: Vec<Running> = (0..8)
        .map(|index| Running::start(dir, "start", &["env"], None, &name(index)))
        .collect();
    let told = || {
        let texts = (0..8).map(|index| std::fs::read_to_string(dir.join(name(index))).unwrap());
        let lines: Vec<String> = texts
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        lines
    };
    let complete = || {
        let told = told();
        let complete = |line: &&String| {
            line.contains(&format!(
                "session {id}, whose process died, is complete: 3 records"
            ))
        };
        told.iter().filter(complete).count()
    };
    until("nobody recovers it", || (complete() > 0).then_some(()));
    tell(dir, "end", "");
    for one in &mut all {
        assert!(one.0.wait().unwrap().success());
    }
    assert_eq!(complete(), 1, "{:?}", told());
    assert_eq!(state_of(dir, &id), State::Complete);
    check(dir, &id);
}

/// It comes later when somebody else works on the dead session: after the start has returned.
#[test]
fn a_start_does_not_wait_for_its_predecessors() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let (mut child, id, _) = recording(dir, "record", &["env"], None);
    child.kill();
    let guard = files(dir, &id).try_lock().unwrap().unwrap();
    let session = builder(dir).start().unwrap();
    let rings = dir.join(".stormlog").join(&id).join("rings");
    assert!(rings.exists());
    drop(guard);
    until("it was not recovered", || (!rings.exists()).then_some(()));
    session.close().unwrap();
    check(dir, &id);
}

/// What root makes of the session of another user belongs to that user.
#[test]
fn root_recovers_the_session_of_another_user() {
    if !is_root() {
        println!("left out: it needs root");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    let able = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "nothing"])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir(dir)
        .output();
    if !able.is_ok_and(|output| output.status.success()) {
        println!("left out: another user cannot run this test");
        return;
    }
    let (mut child, id, _) = recording(dir, "record", &["env"], Some(NOBODY));
    child.kill();
    // Not so a third user.
    let mut third = Running::start(dir, &id, &["env"], Some(NOBODY - 1), "third");
    assert!(third.0.wait().unwrap().success());
    let said = std::fs::read_to_string(dir.join("third")).unwrap();
    assert!(said.contains("Permission denied"), "{said}");

    let session = dir.join(".stormlog").join(&id);
    assert_eq!(state_of(dir, &id), State::Recovered);
    check(dir, &id);
    let mut checked = 0;
    for place in [dir, &session] {
        for entry in std::fs::read_dir(place).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if ["errors", "third"].contains(&name.as_str()) {
                continue;
            }
            let owner = entry.metadata().unwrap();
            assert_eq!((owner.uid(), owner.gid()), (NOBODY, NOBODY), "{name}");
            checked += usize::from(place == session || Path::new(&name).extension().is_some());
        }
    }
    assert!(checked >= 4, "{checked} files");
}
