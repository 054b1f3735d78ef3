//! Children: forked ones, and this test binary again as a process of its own.
#![allow(dead_code, reason = "each test uses a part of it")]
#![expect(unsafe_code, reason = "forks, signals, memory that processes share")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::segment::files::SessionFiles;

/// Longer than anything takes that is not stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Which part of a test the process is to play.
pub const ROLE: &str = "STORMLOG_TEST_ROLE";

/// Forks; the child calls `child` and ends with its code at once, 101 after a panic.
pub fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child uses what a forked child may use here, and ends below.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "cannot fork");
    if pid == 0 {
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
        exit_now(code);
    }
    pid
}

/// Ends the process without running anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Waits for a forked child. One that hangs is killed, and told apart by that.
pub fn wait(pid: i32) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut status = 0;
        // SAFETY: waits for our own child; `status` is ours.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        assert!(waited >= 0, "no such child");
        if waited == pid {
            return ExitStatus::from_raw(status);
        }
        if Instant::now() > deadline {
            send(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a signal to a process that we have started.
pub fn send(pid: i32, signal: i32) {
    // SAFETY: no memory is involved.
    let sent = unsafe { libc::kill(pid, signal) };
    assert_eq!(sent, 0);
}

/// SIGINT ends this process again: a shell starts what runs in the background with SIGINT ignored.
pub fn take_interrupts() {
    // SAFETY: no memory is involved; the default action is no function of ours.
    let before = unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    assert_ne!(before, libc::SIG_ERR);
}

/// Leaves the session of the terminal.
pub fn setsid() {
    // SAFETY: no memory is involved.
    unsafe { libc::setsid() };
}

/// This test binary again, as `role`, in the directory `dir`. Its test `child` does the rest.
pub fn spawn(role: &str, dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture"])
        .env(ROLE, role)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for it, and returns what it has written to standard output and standard error.
pub fn end(child: Child) -> (ExitStatus, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status, text(&output.stdout), text(&output.stderr))
}

/// Waits until `is_so`; panics when that takes too long.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Holds up everybody who wants to convert the session with this directory, until it is dropped.
pub fn lock_dir(path: &Path) -> File {
    let dir = File::open(path).unwrap();
    // SAFETY: no memory is involved.
    let locked = unsafe { libc::flock(dir.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    assert_eq!(locked, 0, "somebody converts it");
    dir
}

/// From now on the kernel refuses membarrier to every thread of the process. False when it has no
/// filters of system calls.
pub fn refuse_membarrier() -> bool {
    let step = |code: u32, k: u32, jt| libc::sock_filter {
        code: code as u16,
        jt,
        jf: 0,
        k,
    };
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut filter = [
        step(load, 0, 0),
        step(equal, libc::SYS_membarrier as u32, 1),
        step(answer, libc::SECCOMP_RET_ALLOW, 0),
        step(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes no pointer.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: reads its arguments only, which live until it returns.
    let filtered = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    promised == 0 && filtered == 0
}

/// What a signal does in this process now.
pub fn handler(signal: i32) -> libc::sighandler_t {
    // SAFETY: all zeros is a whole action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: writes one action.
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    assert_eq!(read, 0);
    action.sa_sigaction
}

/// Sets what a signal does: `SIG_DFL` or `SIG_IGN`.
pub fn set_handler(signal: i32, handler: libc::sighandler_t) {
    // SAFETY: no function of ours is called.
    unsafe { libc::signal(signal, handler) };
}

/// Numbers that processes share: the file `page` of a directory.
pub struct Page(MmapMut);

const WORDS: usize = 64;

impl Page {
    pub fn open(dir: &Path) -> Self {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(dir.join("page")).unwrap();
        file.set_len((WORDS * 8) as u64).unwrap();
        // SAFETY: only our processes map the file, and nobody cuts it while they do.
        Self(unsafe { MmapMut::map_mut(&file) }.unwrap())
    }

    #[expect(clippy::cast_ptr_alignment, reason = "a mapping is page-aligned")]
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS);
        let words = self.0.as_ptr().cast_mut().cast::<AtomicU64>();
        // SAFETY: inside the mapping by the assertion.
        let word = unsafe { words.add(index) };
        // SAFETY: page-aligned, and never accessed but as atomics.
        unsafe { &*word }
    }
}

/// Converts what is left in a log directory.
pub fn convert_rest(dir: &Path) {
    let (sessions, faults) = SessionFiles::find_all(&[dir]).unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    for files in sessions {
        convert_session(&files, dir, ConvertOptions::default()).unwrap();
    }
}

/// All lines of a category, session after session.
pub fn lines(dir: &Path, category: &str) -> Vec<serde_json::Value> {
    let end = format!("_{category}.jsonl");
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(&end));
    paths.sort();
    let texts = paths
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    texts
        .collect::<String>()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The directories of sessions that are not converted.
pub fn sessions_left(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.join(".stormlog")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_dir()).collect()
}
