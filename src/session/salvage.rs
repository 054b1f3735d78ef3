//! When a session starts: sessions of dead processes in the same log directory get their rings
//! and spill into segments, in the background. Their JSON Lines are made by `stormlog convert`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::dirs;
use crate::recover::{RecoverOptions, State, recover_session, session_ids};
use crate::segment::figures::RINGS_NAME;
use crate::segment::files::SESSIONS_DIR;
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
    ids.retain(|id| id != own && has_rings(log_dir, id));
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

fn has_rings(log_dir: &Path, id: &str) -> bool {
    let dir = log_dir.join(SESSIONS_DIR).join(id);
    let names = [RINGS_NAME, REFERENCE_NAME];
    names
        .iter()
        .any(|name| dir.join(name).symlink_metadata().is_ok())
}

fn salvage(log_dir: &Path, ids: &[String]) {
    let begin = Instant::now();
    for id in ids {
        let options = RecoverOptions {
            time_max: Some(TIME_MAX.saturating_sub(begin.elapsed())),
            ..RecoverOptions::default()
        };
        match recover_session(log_dir, id, options) {
            Ok(report) if report.state == State::Recovered => say(&format!(
                "session {id}, whose process died, is complete: {} records came from its rings, {} \
                 from the spill; stormlog convert makes JSON Lines of it",
                report.from_rings, report.from_spill
            )),
            Ok(_) => {}
            Err(error) => say(&format!("session {id} was not recovered: {error}")),
        }
    }
}
