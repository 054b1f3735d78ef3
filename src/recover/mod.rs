//! Recovery of sessions whose process died: what was left in rings and spill becomes one more
//! segment, with a last record and a seal.
//!
//! ```text
//!  segments --covered--> positions, counts, registry
//!  rings    --storage--> entries, undrained bytes, slots, chunks
//!                drain: blocks of what is missing -> recover.tmp -> sync
//!                seal the segment that was being written -> sync
//!                rename recover.tmp to the next segment -> sync -> remove rings
//! ```
//!
//! Only the rename makes it so: killed before, the next recovery does the same again; killed
//! after, it finds a session that is complete. A session that may be alive is never touched.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used
    )
)]

#[allow(
    clippy::arithmetic_side_effects,
    reason = "what the macro `record!` makes"
)]
mod books;
mod covered;
mod drain;
mod durations;
mod output;
mod report;
mod rings;
mod storage;

pub use report::{RecoverOptions, RecoverReport, State};

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, IoContext};
use crate::segment::files::{Liveness, SESSIONS_DIR, SessionFiles};
use crate::segment::header::is_session_id;
use crate::segment::layout::{FileHeader, HINT_OFFSET};
use crate::segment::prepare::{is_segment_name, segment_name};
use crate::segment::shm::RingsAt;
use crate::segment::source::Source;
use crate::sys::alive::liveness;
use crate::sys::dir::Dir;

use books::End;
pub(crate) use books::is_restarted;
use covered::Covered;
use drain::{Drain, Drained};
use output::{NewSegment, TEMPORARY_NAME, seal_tail};
use storage::Leftover;

/// How long, and in which steps, the end of another recovery is waited for.
const TURN_WAIT: Duration = Duration::from_secs(10);
const TURN_PAUSE: Duration = Duration::from_millis(5);
/// Faults that a report keeps.
const FAULTS_MAX: usize = 100;

/// When a recovery gives up.
struct Limit {
    deadline: Option<Instant>,
    time_max: Duration,
}

impl Limit {
    fn new(time_max: Option<Duration>) -> Self {
        let deadline = time_max.and_then(|time| Instant::now().checked_add(time));
        Self {
            deadline,
            time_max: time_max.unwrap_or_default(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self
            .deadline
            .is_none_or(|deadline| Instant::now() < deadline)
        {
            return Ok(());
        }
        Err(Error::TimedOut {
            what: "the recovery of a session",
            limit_ms: u64::try_from(self.time_max.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// The ids of the sessions in a log directory that have a session directory, sorted.
///
/// # Errors
/// [`Error::Io`].
pub fn session_ids(log_dir: &Path) -> Result<Vec<String>, Error> {
    let dir = Dir::open(log_dir)?;
    if !dir.exists(SESSIONS_DIR)? {
        return Ok(Vec::new());
    }
    let mut ids = dir.open_dir(SESSIONS_DIR)?.dir_names()?;
    ids.retain(|id| is_session_id(id));
    Ok(ids)
}

/// Recovers one session of a log directory, when its process is dead and it is not complete.
/// Afterwards it can be converted like any other.
///
/// # Errors
/// [`Error::Io`], [`Error::TimedOut`]: the session is as it was, and it can be tried again;
/// [`Error::Insecure`] when another user can write to the session, or owns it and the caller is not
/// root: what root writes belongs to the owner.
pub fn recover_session(
    log_dir: &Path,
    session_id: &str,
    options: RecoverOptions,
) -> Result<RecoverReport, Error> {
    let limit = Limit::new(options.time_max);
    let report = |state| Ok(RecoverReport::new(session_id, state));
    let sessions = Dir::open(log_dir)?.open_dir(SESSIONS_DIR)?;
    let dir = sessions.open_dir(session_id)?;
    if liveness(&dir).may_live() {
        return report(State::Live);
    }
    if !options.dry_run {
        dir.check_private_or_root()?;
    }
    // A descriptor of its own: closing it ends the lock.
    let turn = sessions.open_dir(session_id)?;
    let deadline = [Instant::now().checked_add(TURN_WAIT), limit.deadline];
    let deadline = deadline.into_iter().flatten().min();
    while !turn.try_lock().io_context("cannot lock", dir.path())? {
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return report(State::Busy);
        }
        std::thread::sleep(TURN_PAUSE);
    }
    // Again: what was true before we had the lock may not be true any more.
    if liveness(&dir) != Liveness::Dead {
        return report(State::Live);
    }
    Recovery::new(&dir, log_dir, session_id)?.run(options, &limit)
}

/// One session of which nobody else writes anything now.
struct Recovery<'a> {
    dir: &'a Dir,
    log_dir: &'a Path,
    id: &'a str,
    rings: RingsAt,
}

impl<'a> Recovery<'a> {
    fn new(dir: &'a Dir, log_dir: &'a Path, id: &'a str) -> Result<Self, Error> {
        Ok(Self {
            dir,
            log_dir,
            id,
            rings: RingsAt::find(dir, true)?,
        })
    }

    fn run(self, options: RecoverOptions, limit: &Limit) -> Result<RecoverReport, Error> {
        let names = self.dir.names()?;
        if !names.iter().any(|name| is_segment_name(name)) {
            // The first segment is ready before the first push.
            return Ok(RecoverReport::new(self.id, State::Empty));
        }
        let files = match SessionFiles::in_dir(self.dir.try_clone()?, self.log_dir) {
            // Its process died before the first segment was ready.
            Err(_) if !self.has_blocks(&names)? => {
                return Ok(RecoverReport::new(self.id, State::Empty));
            }
            other => other?,
        };
        let mut report = RecoverReport::new(self.id, State::Recovered);
        let mut leftover = self.leftover(&files, &mut report)?;
        let covered = Covered::read(&files, leftover.as_mut(), limit)?;
        if covered.complete {
            report.state = State::Complete;
            // Killed between its last seal and their removal, unless something in them could not
            // be read.
            if !options.dry_run
                && let (Some(header), false) = (&covered.header, covered.damaged)
                && self.can_be_read_in_full(&files, header)?
            {
                self.remove_rings()?;
            }
            return Ok(report);
        }
        let Some(header) = covered.header else {
            return Ok(RecoverReport::new(self.id, State::Empty));
        };
        self.write(options, report, leftover, covered, &header)
    }

    /// Whether there are rings, and all of them can be read. A recovery that has found damage
    /// leaves them, and whoever looks again finds the same damage.
    fn can_be_read_in_full(
        &self,
        files: &SessionFiles,
        header: &FileHeader,
    ) -> Result<bool, Error> {
        let mut report = RecoverReport::new(self.id, State::Complete);
        let Some(mut leftover) = self.leftover(files, &mut report)? else {
            return Ok(false);
        };
        if !leftover.rings.faults.is_empty() {
            return Ok(false);
        }
        let mut covered = Covered::default();
        let mut out = NewSegment::new(None, header, 1, 0)?;
        let mut drain = Drain {
            leftover: &mut leftover,
            covered: &mut covered,
            out: &mut out,
            drained: Drained::default(),
        };
        drain.run()?;
        Ok(!covered.damaged)
    }

    fn write(
        &self,
        options: RecoverOptions,
        mut report: RecoverReport,
        mut leftover: Option<Leftover<'_, File>>,
        mut covered: Covered,
        header: &FileHeader,
    ) -> Result<RecoverReport, Error> {
        let number = self.free_number(covered.next_number)?;
        covered.damaged |= !report.faults.is_empty();
        let in_segments = covered.by_schema.clone();
        let into = (!options.dry_run).then_some(self.dir);
        let mut out = NewSegment::new(into, header, number, covered.next_sequence)?;
        let mut drained = Drained::default();
        if let Some(leftover) = &mut leftover {
            let mut drain = Drain {
                leftover,
                covered: &mut covered,
                out: &mut out,
                drained,
            };
            drain.run()?;
            drained = drain.drained;
        }
        let mut written = in_segments.clone();
        for (schema, count) in &out.by_schema {
            let sum = written.entry(*schema).or_default();
            *sum = sum.saturating_add(*count);
        }
        let (counted, unknown) = self.counted(leftover.as_ref(), is_restarted(header));
        covered
            .faults
            .extend(leftover.iter().flat_map(|found| found.rings.faults.clone()));
        let durations = match &leftover {
            Some(found) => durations::missing(found, &covered.registry, &mut covered.durations)?,
            None => Vec::new(),
        };
        let mut ledger = books::ledger(counted, &written, &covered);
        books::write_durations(&durations, &mut covered, &mut out)?;
        books::count_end(&mut ledger, (durations.len() as u64).saturating_add(1));
        let end = End {
            reason: books::reason(
                header,
                leftover.as_ref().map(|left| left.rings.geometry.phase),
            ),
            ledger: &ledger,
            from_rings: drained.from_rings,
            from_spill: drained.from_spill,
            fault: unknown.as_deref(),
        };
        books::write_end(&end, &mut covered, &mut out)?;
        out.finish(&covered.registry)?;
        report.rings_found = leftover.is_some();
        (report.from_rings, report.from_spill) = (drained.from_rings, drained.from_spill);
        report.in_segments = in_segments.values().fold(0, |a, b| a.saturating_add(*b));
        report.ledger = ledger;
        report.faults.append(&mut covered.faults);
        report.faults.extend(unknown);
        report.faults.truncate(FAULTS_MAX);
        if !options.dry_run {
            self.publish(&covered, header, number, &report)?;
        }
        report.segment = Some(self.dir.path_of(&segment_name(number)));
        Ok(report)
    }

    /// Makes the new segment a part of the session. It is on the disk already.
    fn publish(
        &self,
        covered: &Covered,
        header: &FileHeader,
        number: u64,
        report: &RecoverReport,
    ) -> Result<(), Error> {
        if let Some(tail) = &covered.tail {
            seal_tail(self.dir, header, tail, &covered.registry)?;
        }
        // Prepared ahead and never used: nothing may follow the last segment.
        let ahead = number.saturating_add(1);
        if self.is_unused(ahead)? == Some(true) {
            self.dir.remove_file(&segment_name(ahead))?;
            fail_point!("recover.unused_removed");
        }
        fail_point!("recover.renamed");
        self.dir.rename(TEMPORARY_NAME, &segment_name(number))?;
        fail_point!("recover.named");
        self.dir.sync()?;
        // All that was in them is in the segment now; what could not be read is kept.
        fail_point!("recover.published");
        if report.rings_found && !covered.damaged && report.faults.is_empty() {
            self.remove_rings()?;
        }
        Ok(())
    }

    /// The number of the new segment. A segment that was prepared and never used gives its number
    /// away; one that holds anything does not.
    fn free_number(&self, next: u64) -> Result<u64, Error> {
        if self.is_unused(next)? != Some(false) {
            return Ok(next);
        }
        let numbers = self.dir.names()?.into_iter().filter_map(|name| {
            let number: u64 = name.strip_suffix(".seg")?.parse().ok()?;
            number.checked_add(1)
        });
        Ok(numbers.fold(next, u64::max))
    }

    /// Whether a block was ever published in a segment.
    fn has_blocks(&self, names: &[String]) -> Result<bool, Error> {
        let numbers = names
            .iter()
            .filter_map(|name| name.strip_suffix(".seg")?.parse().ok());
        for number in numbers {
            if self.is_unused(number)? == Some(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether no block was ever published in a segment; `None` when there is no such file.
    fn is_unused(&self, number: u64) -> Result<Option<bool>, Error> {
        let name = segment_name(number);
        let Some(file) = self.dir.open_file_if_there(&name)? else {
            return Ok(None);
        };
        let mut hint = [0; 8];
        Source::read_at(&file, HINT_OFFSET as u64, &mut hint)
            .io_context("cannot read", self.dir.path_of(&name))?;
        Ok(Some(hint == [0; 8]))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::DirBuilderExt;

    use super::*;
    use crate::segment::layout::BLOCKS_OFFSET;

    /// A segment whose header cannot be read: with a block it is a fault, without one it is what a
    /// process leaves that dies before its session has begun.
    #[test]
    fn a_session_with_a_prepared_segment_alone_is_empty() {
        let temp = tempfile::tempdir().unwrap();
        let id = "20260101_000000";
        let session = temp.path().join(SESSIONS_DIR).join(id);
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&session)
            .unwrap();
        let recover = || recover_session(temp.path(), id, RecoverOptions::default());
        assert_eq!(recover().unwrap().state, State::Empty, "without a segment");
        let mut bytes = vec![0; 1 << 16];
        let prepared = session.join(segment_name(1));
        std::fs::write(&prepared, &bytes).unwrap();
        assert_eq!(recover().unwrap().state, State::Empty);
        bytes[HINT_OFFSET..][..8].copy_from_slice(&(BLOCKS_OFFSET as u64).to_le_bytes());
        std::fs::write(&prepared, &bytes).unwrap();
        let error = recover().expect_err("something was there");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let left = std::fs::read_dir(&session).unwrap().count();
        assert_eq!(left, 1, "nothing was made, nothing removed");
    }
}
