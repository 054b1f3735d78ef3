//! Starting the thread that brings segments to the disk (`durability`).

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::dirs;
use super::start::spawn;
use crate::config::{Durability, Settings};
use crate::core::Core;
use crate::error::Error;
use crate::writer::{SegmentEvent, SessionDisk, Syncer};

/// Starts the thread that syncs, if there is to be one. The directories above the session have
/// their new names on the disk then.
#[expect(clippy::type_complexity, reason = "both ends of one channel")]
pub(super) fn start_syncer(
    claimed: &dirs::Claimed,
    settings: &Settings,
    core: &Arc<Core>,
) -> Result<
    (
        Option<Sender<SegmentEvent>>,
        Option<JoinHandle<Vec<String>>>,
    ),
    Error,
> {
    let every = match settings.durability {
        Durability::Off => return Ok((None, None)),
        Durability::Interval(every) => Some(every),
        Durability::Segment => None,
    };
    claimed.root_dir.sync()?;
    claimed.log_dir.sync()?;
    let dir = Arc::clone(&claimed.session_dir);
    let (syncs, events) = channel();
    let disk = SessionDisk::new(Arc::clone(&dir), Arc::clone(core));
    let syncer = Syncer::new(disk, every, events);
    let thread = spawn("stormlog-sync", dir.path(), move || syncer.run())?;
    Ok((Some(syncs), Some(thread)))
}
