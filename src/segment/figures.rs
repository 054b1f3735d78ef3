//! The ledger of a session as another process sees it: from its files, at any time.
//!
//! ```text
//!   ledger   every count, as of at most a second ago (10 s when nothing changes)
//!   rings    the producers' counts, as of now; only where rings live in a file
//! ```
//!
//! Counts only grow, so of two sources the larger count is the newer one. What is offered and
//! has no end yet is `pending`, never less than 0.

use std::fs::File;
use std::path::Path;

use crate::error::Error;
use crate::ledger::{Account, Ledger};
use crate::segment::ledger_file::LEDGER_NAME;
use crate::segment::published::Published;
use crate::segment::registry::Registry;
use crate::segment::rings::Rings;
use crate::segment::shm::RingsAt;
use crate::sys::clock::utc_ns;
use crate::sys::dir::Dir;

/// Name of the file with the rings.
pub(crate) const RINGS_NAME: &str = "rings";
/// Counts whose category has no name.
const NAMELESS: &str = "?";

/// The counts of one session, and where they come from.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The counts of both sources together.
    pub ledger: Ledger,
    /// What the session has published; `None` when it has published nothing.
    pub published: Option<Published>,
    /// The producers' side; `None` when rings live in memory.
    pub rings: Option<Rings>,
    /// What is wrong with the files, as sentences.
    pub faults: Vec<String>,
}

impl Figures {
    /// Reads the files `ledger` and `rings` of a session directory. A file that is damaged is a
    /// fault, one that is missing is not.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory or a file cannot be read.
    pub fn read(session_dir: &Path) -> Result<Self, Error> {
        let dir = Dir::open(session_dir)?;
        let mut figures = Self::default();
        if let Some(file) = dir.open_file_if_there(LEDGER_NAME)? {
            let published = Published::read(&file, &dir.path_of(LEDGER_NAME));
            let published = figures.sound(published)?;
            figures.published = published.filter(|published| published.sequence > 0);
        }
        let closed = figures.is_final();
        if !closed {
            // After the ledger: what is written was offered before.
            if let RingsAt::File(file, path, _) = RingsAt::find(&dir, false)? {
                figures.add_rings(&file, &path)?;
            }
        }
        if figures.rings.is_none() {
            let published = figures.published.as_ref();
            figures.ledger = published.map(Published::ledger).unwrap_or_default();
            if !closed {
                figures.ledger.settle();
            }
        }
        Ok(figures)
    }

    /// Whether these are the final counts of a closed session.
    pub fn is_final(&self) -> bool {
        self.published
            .as_ref()
            .is_some_and(|published| published.closed)
    }

    /// How old the counts of the file `ledger` are, in nanoseconds.
    pub fn age_ns(&self) -> Option<u64> {
        let published = self.published.as_ref()?;
        Some(utc_ns().saturating_sub(published.published_utc_ns))
    }

    /// What was read; a damaged file becomes a fault.
    fn sound<T>(&mut self, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Err(error @ Error::Corrupt { .. }) => {
                self.faults.push(error.to_string());
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Reads the rings and puts the counts of both files together.
    fn add_rings(&mut self, file: &File, path: &Path) -> Result<(), Error> {
        let Some(rings) = self.sound(Rings::read(file, path))? else {
            return Ok(());
        };
        self.faults.extend(rings.faults.iter().cloned());
        let foreign = |published: &Published| published.nonce != rings.nonce;
        if self.published.as_ref().is_some_and(foreign) {
            let path = path.display();
            self.faults
                .push(format!("{path} is of another session: left out"));
            return Ok(());
        }
        let published: &[_] = match &self.published {
            Some(published) => &published.categories,
            None => &[],
        };
        let named = |id: usize| published.iter().any(|entry| entry.0 as usize == id);
        let counts = rings.accounts.iter().enumerate();
        let mut counts = counts.filter(|(_, account)| **account != Account::default());
        let all_named = counts.clone().all(|(id, _)| named(id));
        let registry = if all_named {
            Registry::default()
        } else {
            rings.registry(file, path)?
        };
        self.ledger = combine(published, &mut counts, &registry);
        self.rings = Some(rings);
        Ok(())
    }
}

/// Counts of the producers by category id, and what was published, by name.
fn combine(
    published: &[(u32, String, Account)],
    counts: &mut dyn Iterator<Item = (usize, &Account)>,
    registry: &Registry,
) -> Ledger {
    let mut by_id: Vec<(usize, &str, Account)> = Vec::new();
    for (id, name, account) in published {
        by_id.push((*id as usize, name, *account));
    }
    for (id, account) in counts {
        if let Some((_, _, known)) = by_id.iter_mut().find(|entry| entry.0 == id) {
            known.merge_newer(account);
        } else {
            let name = u8::try_from(id).ok().and_then(|id| registry.category(id));
            by_id.push((id, name.unwrap_or(NAMELESS), *account));
        }
    }
    let mut ledger = Ledger::default();
    for (_, name, account) in by_id {
        let sum = ledger.categories.entry(name.to_owned()).or_default();
        sum.add(&account);
    }
    ledger.settle();
    ledger
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_not_taken_for_a_missing_one() {
        for name in [LEDGER_NAME, RINGS_NAME] {
            let temp = tempfile::tempdir().unwrap();
            let figures = Figures::read(temp.path()).unwrap();
            assert!(figures.published.is_none() && figures.rings.is_none());
            std::os::unix::fs::symlink("elsewhere", temp.path().join(name)).unwrap();
            let error = Figures::read(temp.path()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
