//! The rings of a dead session: finding them, what their producers counted, removing them.

use std::fs::File;

use super::Recovery;
use super::books::is_restarted;
use super::storage::Leftover;
use crate::convert::rfc3339;
use crate::error::Error;
use crate::ledger::Account;
use crate::recover::RecoverReport;
use crate::segment::figures::RINGS_NAME;
use crate::segment::files::{SegmentFile, SessionFiles};
use crate::segment::ledger_file::LEDGER_NAME;
use crate::segment::prepare::{RESCUE_NAME, RESERVE_NAME};
use crate::segment::published::Published;
use crate::segment::shm::{REFERENCE_NAME, RingsAt};

impl Recovery<'_> {
    /// The rings of this session, if they can be had.
    pub(super) fn leftover(
        &self,
        files: &SessionFiles,
        report: &mut RecoverReport,
    ) -> Result<Option<Leftover<'_, File>>, Error> {
        let RingsAt::File(file, path, _) = &self.rings else {
            return Ok(None);
        };
        // Its pages came to the disk in any order, and records in rings have no checksum: an old
        // record in the place of a lost one could not be told from it.
        let restarted = |segment: &SegmentFile| is_restarted(&segment.header);
        if files.segments.first().is_some_and(restarted) {
            return Ok(None);
        }
        let found = match Leftover::open(file, path) {
            Err(error @ Error::Corrupt { .. }) => {
                report.faults.push(error.to_string());
                return Ok(None);
            }
            other => other?,
        };
        if found.rings.nonce != files.nonce {
            let path = path.display();
            let fault = format!("{path} is of another session: left out");
            report.faults.push(fault);
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Removes rings that were read, and what else the session has no use for.
    pub(super) fn remove_rings(&self) -> Result<(), Error> {
        for name in [RINGS_NAME, RESERVE_NAME, RESCUE_NAME] {
            if self.dir.exists(name)? {
                self.dir.remove_file(name)?;
                fail_point!("recover.removed");
            }
        }
        if let RingsAt::File(_, _, Some(shm)) = &self.rings {
            shm.remove()?;
            fail_point!("recover.shm_removed");
            self.dir.remove_file(REFERENCE_NAME)?;
        }
        Ok(())
    }

    /// What the producers have counted, by category id, and what is not known of it.
    pub(super) fn counted(
        &self,
        leftover: Option<&Leftover<'_, File>>,
        restarted: bool,
    ) -> (Vec<(u8, Account)>, Option<String>) {
        if let Some(leftover) = leftover {
            let accounts = leftover.rings.accounts.iter().enumerate();
            let accounts = accounts.map(|(id, account)| (id as u8, *account));
            return (accounts.collect(), None);
        }
        let path = self.dir.path_of(LEDGER_NAME);
        let published = self.dir.open_file_if_there(LEDGER_NAME).ok().flatten();
        let published = published.and_then(|file| Published::read(&file, &path).ok());
        let published = published.filter(|published| published.sequence > 0);
        let why = match &self.rings {
            RingsAt::Nowhere => "its rings were in the memory of its process",
            RingsAt::File(..) if restarted => {
                "the machine was restarted, and rings are not synced to the disk"
            }
            RingsAt::File(..) => "its rings cannot be used",
            RingsAt::Gone(why) => why,
        };
        let lost = format!("{why}: what was in them is lost");
        let Some(published) = published else {
            let fault = format!("{lost}, and how much that was is not known");
            return (Vec::new(), Some(fault));
        };
        let at = rfc3339(published.published_utc_ns);
        let fault = format!("{lost}; the ledger knows what was offered up to {at}");
        let accounts = published.categories.iter();
        let accounts =
            accounts.filter_map(|(id, _, account)| Some((u8::try_from(*id).ok()?, *account)));
        (accounts.collect(), Some(fault))
    }
}
