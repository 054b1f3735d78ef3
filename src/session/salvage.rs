//! When a session starts: sessions of dead processes in the same log directory get their rings
//! and spill into segments, in the background. Their JSON Lines are made by `stormlog convert`, but
//! for those of a session that appended lines while it recorded: half of them are there already.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::dirs;
use crate::convert::{ConvertOptions, convert_into, convert_over};
use crate::error::Error;
use crate::recover::{RecoverOptions, State, is_restarted, recover_session, session_ids};
use crate::segment::figures::RINGS_NAME;
use crate::segment::files::{LIVE_NAME, Liveness, SESSIONS_DIR, SessionFiles};
use crate::segment::shm::REFERENCE_NAME;
use crate::sys::dir::Dir;
use crate::sys::report::say;

/// The time that a start spends on it: what is left over is for the next one, or for
/// `stormlog recover`.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Begins it; `own` is the session that starts.
pub(super) fn begin(log_dir: &Path, root_dir: &Dir, own: &str) {
    let mut ids = match session_ids(log_dir) {
        Ok(ids) => ids,
        Err(error) => {
            return say(&format!(
                "sessions before this one were not recovered: {error}"
            ));
        }
    };
    ids.retain(|id| id != own && is_left(log_dir, id));
    let removals = dirs::removals(root_dir);
    if ids.is_empty() && removals.is_empty() {
        return;
    }
    let root_dir = root_dir.try_clone();
    let log_dir: PathBuf = log_dir.to_owned();
    // Nobody waits for it: killed at any point, it is done again by the next start.
    let spawned = std::thread::Builder::new()
        .name("stormlog-recover".to_owned())
        .spawn(move || {
            if let Err(error) = root_dir.and_then(|root| dirs::remove_rest(&root, &removals)) {
                say(&format!("a session was not removed: {error}"));
            }
            salvage(&log_dir, &ids);
        });
    if let Err(error) = spawned {
        say(&format!(
            "cannot start a thread that recovers sessions: {error}"
        ));
    }
}

/// Whether something is left that a start takes care of.
fn is_left(log_dir: &Path, id: &str) -> bool {
    let dir = log_dir.join(SESSIONS_DIR).join(id);
    has(&dir, &[RINGS_NAME, REFERENCE_NAME, LIVE_NAME])
}

fn has(dir: &Path, names: &[&str]) -> bool {
    let mut names = names.iter();
    names.any(|name| dir.join(name).symlink_metadata().is_ok())
}

fn salvage(log_dir: &Path, ids: &[String]) {
    let begin = Instant::now();
    for id in ids {
        let options = RecoverOptions {
            time_max: Some(TIME_MAX.saturating_sub(begin.elapsed())),
            ..RecoverOptions::default()
        };
        let report = match recover_session(log_dir, id, options) {
            Ok(report) => report,
            Err(error) => {
                say(&format!("session {id} was not recovered: {error}"));
                continue;
            }
        };
        let is_whole = matches!(report.state, State::Recovered | State::Complete);
        let dir = log_dir.join(SESSIONS_DIR).join(id);
        let lines = if is_whole && has(&dir, &[LIVE_NAME]) {
            match make_lines(&dir, begin + TIME_MAX) {
                Ok(true) => "its lines are whole too",
                Ok(false) => {
                    "it is damaged, so files with more lines than it gives stay; stormlog convert \
                     makes them of what it gives"
                }
                Err(error) => {
                    say(&format!("the lines of session {id} were not made: {error}"));
                    continue;
                }
            }
        } else {
            "stormlog convert makes JSON Lines of it"
        };
        if report.state == State::Recovered {
            say(&format!(
                "session {id}, whose process died, is complete: {} records came from its rings, {} \
                 from the spill; {lines}",
                report.from_rings, report.from_spill
            ));
        }
    }
}

/// Makes the lines of a session that is whole, unless another process does. Of one that is damaged
/// a file that has more lines than its segments stays (false): nobody has asked for its end. But
/// one that went through a crash of the machine may have anything in it.
fn make_lines(dir: &Path, deadline: Instant) -> Result<bool, Error> {
    let mut is_whole = true;
    for session in SessionFiles::find(dir)? {
        let guard = session.try_lock()?;
        if guard.is_none() || session.liveness() != Liveness::Dead {
            continue;
        }
        let options = ConvertOptions {
            deadline: Some(deadline),
            ..ConvertOptions::default()
        };
        let out = Dir::open(&session.log_dir)?;
        // After a restart of the machine nothing vouches for bytes that nobody has synced.
        let restarted = (session.segments.first()).is_some_and(|first| is_restarted(&first.header));
        let convert = if restarted {
            convert_into
        } else {
            convert_over
        };
        let report = convert(&session, &out, options)?;
        is_whole &= restarted || report.faults.is_empty();
        if report.sealed {
            session.forget_live(&out);
        }
    }
    Ok(is_whole)
}
