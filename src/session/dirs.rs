//! The directories of a session: claiming an id, removing what is no longer needed.

use std::io;
use std::sync::Arc;

use crate::convert::rfc3339;
use crate::error::{Error, IoContext};
use crate::segment::figures::RINGS_NAME;
use crate::segment::files::{LIVE_NAME, REMOVED_EXTENSION};
use crate::segment::header::is_session_id;
use crate::segment::ledger_file::LEDGER_NAME;
use crate::segment::prepare::{RESCUE_NAME, RESERVE_NAME, is_segment_name};
use crate::segment::shm::REFERENCE_NAME;
use crate::sys::alive::{LOCK_NAME, Liveness, liveness};
use crate::sys::clock::utc_ns;
use crate::sys::dir::Dir;

/// Directory in the log directory that holds the session directories.
pub(crate) const ROOT_NAME: &str = ".stormlog";
/// Seconds that are tried for a free id.
const ID_TRIES: u64 = 3600;

/// The directories of a new session.
pub(super) struct Claimed {
    pub(super) id: String,
    pub(super) log_dir: Arc<Dir>,
    pub(super) root_dir: Dir,
    pub(super) session_dir: Arc<Dir>,
}

/// Claims the next free session id in the log directory, by making its directory: exclusive, so
/// that two processes that start in the same second get two ids.
pub(super) fn claim(log_dir: Dir) -> Result<Claimed, Error> {
    let root_dir = log_dir.open_or_create_dir(ROOT_NAME)?;
    root_dir.check_private()?;
    let now = utc_ns() / 1_000_000_000;
    for second in now..now + ID_TRIES {
        let id = session_id(second);
        if has_results(&log_dir, &id)? {
            continue;
        }
        match root_dir.create_dir(&id) {
            // A session of the same id may have ended between the two looks.
            Ok(_) if has_results(&log_dir, &id)? => root_dir.remove_dir(&id)?,
            Ok(session_dir) => {
                return Ok(Claimed {
                    id,
                    log_dir: Arc::new(log_dir),
                    root_dir,
                    session_dir: Arc::new(session_dir),
                });
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    let source = io::Error::other("every id of the next hour is taken");
    Err(source).io_context("cannot name a session in", log_dir.path())
}

/// Whether there are JSON Lines of a session of this id.
fn has_results(log_dir: &Dir, id: &str) -> Result<bool, Error> {
    let prefix = format!("{id}_");
    Ok(log_dir
        .names()?
        .iter()
        .any(|name| name.starts_with(&prefix)))
}

/// `YYYYMMDD_HHMMSS` of a moment.
fn session_id(utc_seconds: u64) -> String {
    let text = rfc3339(utc_seconds.saturating_mul(1_000_000_000));
    let digits: String = text.chars().take(19).filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(8.min(digits.len()));
    format!("{date}_{time}")
}

/// Removes the directory of a session and what we put into it. Anything else in it stays, and so
/// does the directory then.
///
/// It gets another name first: killed at any point, this never leaves a part of the segments that
/// could be taken for the session.
pub(super) fn remove(root_dir: &Dir, session_dir: &Dir, id: &str) -> Result<(), Error> {
    let removed = format!("{id}{REMOVED_EXTENSION}");
    root_dir.rename(id, &removed)?;
    if let Err(error) = root_dir.sync() {
        // Its segments stay, and where they are expected.
        root_dir.rename(&removed, id)?;
        return Err(error);
    }
    fail_point!("remove.renamed");
    clear(root_dir, session_dir, &removed)
}

/// Directories of removals that did not end.
pub(super) fn removals(root_dir: &Dir) -> Vec<String> {
    let mut names = root_dir.dir_names().unwrap_or_default();
    let id = |name: &String| {
        name.strip_suffix(REMOVED_EXTENSION)
            .is_some_and(is_session_id)
    };
    names.retain(id);
    names
}

/// Ends removals whose processes were killed.
pub(super) fn remove_rest(root_dir: &Dir, removals: &[String]) -> Result<(), Error> {
    for name in removals {
        let dir = match root_dir.open_dir(name) {
            Err(error) if error.is_missing() => continue,
            other => other?,
        };
        if liveness(&dir) != Liveness::Dead {
            continue;
        }
        match clear(root_dir, &dir, name) {
            // Somebody else's file is in it, which its own removal has told.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => other?,
        }
    }
    Ok(())
}

fn clear(root_dir: &Dir, dir: &Dir, name: &str) -> Result<(), Error> {
    // Another process may end the same removal.
    let gone = |removed: Result<(), Error>| match removed {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    };
    let ours = [
        RINGS_NAME,
        REFERENCE_NAME,
        RESERVE_NAME,
        RESCUE_NAME,
        LEDGER_NAME,
        LIVE_NAME,
    ];
    let names = dir.names()?;
    for name in &names {
        if is_segment_name(name) || ours.contains(&name.as_str()) {
            gone(dir.remove_file(name))?;
            fail_point!("remove.file");
        }
    }
    // Last: as long as it is locked nobody else removes anything.
    if names.iter().any(|name| name == LOCK_NAME) {
        gone(dir.remove_file(LOCK_NAME))?;
    }
    fail_point!("remove.lock");
    gone(root_dir.remove_dir(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_the_utc_second() {
        assert_eq!(session_id(0), "19700101_000000");
        assert_eq!(session_id(1_763_722_272), "20251121_105112");
    }

    #[test]
    fn every_claim_gets_an_id_of_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let claim = || claim(Dir::open_log_dir(temp.path()).unwrap()).unwrap().id;
        let (a, b) = (claim(), claim());
        assert_ne!(a, b);
        // A session that left only its results blocks its id too.
        let dir = Dir::open_log_dir(temp.path()).unwrap();
        dir.open_dir(ROOT_NAME).unwrap().remove_dir(&b).unwrap();
        dir.create_file(&format!("{b}_vpn.jsonl")).unwrap();
        assert_ne!(claim(), b);
    }
}
