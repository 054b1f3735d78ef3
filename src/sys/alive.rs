//! The process lock that says that a session is alive: taken here, and asked about here.
//!
//! It is a POSIX record lock (fcntl) on the file `lock` of the session directory (FORMAT.md
//! section 1): the kernel drops it when the process ends, however it ends.
//!
//! Two traps of such locks are closed here and nowhere else. A process is never told of its own
//! locks, and it loses a lock by closing *any* descriptor of the file. So a process keeps a list
//! of the locks that it holds, answers from it, and does not open those files a second time.

use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, Stat, fcntl_lock, fstat};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::dir::Dir;
use super::fork;
use crate::error::{Error, IoContext};
use crate::record::StaticSlot;

/// File in the session directory that is locked.
pub(crate) const LOCK_NAME: &str = "lock";

/// Whether a session is being recorded, or being converted by the process that recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// A process holds the lock.
    Live {
        /// Its process id; `None` when it has none here, as in another pid namespace.
        pid: Option<u32>,
    },
    /// Nobody holds the lock, or there is none.
    Dead,
    /// It could not be asked. Who would write has to take the session for alive.
    Unknown,
}

impl Liveness {
    /// Whether the process of the session may still write; true when that is not known.
    pub fn may_live(self) -> bool {
        self != Self::Dead
    }
}

/// A lock that this process holds. Device and inode tell the file, whatever its path is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    device: u64,
    inode: u64,
}

impl Held {
    fn new(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// The list of one process. A forked child finds the lists of its ancestors, maybe locked by
/// threads that it does not have, and makes one of its own behind them.
struct Table {
    /// The process ([`fork::generation`]).
    process: u64,
    /// Locked from before a lock file is made or opened until it is in the list or closed again.
    held: Mutex<Vec<Held>>,
    next: StaticSlot<Table>,
}

static TABLES: StaticSlot<Table> = StaticSlot::new();

fn held() -> MutexGuard<'static, Vec<Held>> {
    let process = fork::generation();
    let new = || {
        // Never freed: one for each process of a line of forks, and one for each lost race.
        Box::leak(Box::new(Table {
            process,
            held: Mutex::default(),
            next: StaticSlot::new(),
        }))
    };
    let mut slot = &TABLES;
    loop {
        let table = slot.get().unwrap_or_else(|| slot.set(new()));
        if table.process == process {
            // The list is whole at any time, whoever panicked.
            return table.held.lock().unwrap_or_else(PoisonError::into_inner);
        }
        slot = &table.next;
    }
}

/// The lock of a session of this process. Dropping it says that the session has ended.
#[derive(Debug)]
pub(crate) struct SessionLock {
    /// The lock ends when it is closed.
    _file: File,
    key: Held,
    /// The process that has locked it ([`fork::generation`]).
    process: u64,
}

impl SessionLock {
    /// Makes the lock file in a new session directory and locks it.
    ///
    /// # Errors
    /// When it is there already or cannot be locked.
    pub(crate) fn take(dir: &Dir) -> Result<Self, Error> {
        let mut held = held();
        let path = dir.path_of(LOCK_NAME);
        let file = dir.create_file(LOCK_NAME)?;
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
            .io_context("cannot lock", &path)?;
        let key = Held::new(&fstat(&file).io_context("cannot read file", &path)?);
        held.push(key);
        Ok(Self {
            _file: file,
            key,
            process: fork::generation(),
        })
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        // A forked child does not hold the lock.
        if self.process == fork::generation() {
            // Before the file is closed: afterwards another file may get the inode.
            held().retain(|held| *held != self.key);
        }
    }
}

/// Whether the session with this directory is alive. It never changes the answer: a session of
/// this process is known without touching its lock.
///
/// A file system that does not share locks between machines shows sessions of other machines as
/// dead. To close a descriptor of the lock file *in the recording process* by other means (such as
/// copying the directory) drops its lock.
pub(crate) fn liveness(session_dir: &Dir) -> Liveness {
    let held = held();
    let stat = match session_dir.stat_of(LOCK_NAME) {
        Ok(Some(stat)) => stat,
        Ok(None) => return Liveness::Dead,
        Err(_) => return Liveness::Unknown,
    };
    if held.contains(&Held::new(&stat)) {
        let pid = Some(std::process::id());
        return Liveness::Live { pid };
    }
    let Ok(file) = session_dir.open_file(LOCK_NAME) else {
        return Liveness::Unknown;
    };
    // A read lock, because the file is open for reading only; a write lock is in its way.
    match fcntl_getlk(&file, &Flock::from(FlockType::ReadLock)) {
        Ok(None) => Liveness::Dead,
        Ok(Some(lock)) => Liveness::Live {
            pid: lock
                .pid
                .map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
        },
        Err(_) => Liveness::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_this_process_is_live_until_its_lock_is_dropped() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        assert_eq!(liveness(&dir), Liveness::Dead);
        let lock = SessionLock::take(&dir).unwrap();
        let pid = Some(std::process::id());
        for _ in 0..2 {
            assert_eq!(liveness(&dir), Liveness::Live { pid });
        }
        drop(lock);
        assert_eq!(liveness(&dir), Liveness::Dead);
    }

    #[test]
    fn what_is_no_lock_file_is_not_known() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join(LOCK_NAME)).unwrap();
        let found = liveness(&Dir::open(temp.path()).unwrap());
        assert_eq!(found, Liveness::Unknown);
        assert!(found.may_live());
    }
}
