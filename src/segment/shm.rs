//! Rings in `/dev/shm`: where they lie, and the reference to them in the session directory.
//! FORMAT.md section 7.4 is normative.
//!
//! ```text
//!   session directory/rings.shm                 a file header: nonce and boot of the session
//!   /dev/shm/stormlog-UID/NONCE-INODE/rings     the rings; INODE is that of the session directory
//!   /dev/shm/stormlog-UID/NONCE-INODE/lock      held by the process that records
//! ```
//!
//! A reference holds no path. What it leads to follows from its nonce and from the directory it
//! lies in, so a copied or forged one leads nowhere: never to the rings of another directory.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext};
use crate::segment::figures::RINGS_NAME;
use crate::segment::files::SESSIONS_DIR;
use crate::segment::header::parse_header;
use crate::segment::layout::{FILE_HEADER_BYTES, FILE_REFERENCE, FileHeader};
use crate::sys::alive::{LOCK_NAME, SessionLock, liveness};
use crate::sys::dir::Dir;
use crate::sys::process::boot_id;

/// The reference in the session directory.
pub(crate) const REFERENCE_NAME: &str = "rings.shm";
/// A file system in memory that every Linux system has.
const SHM: &str = "/dev/shm";

/// The directory of one session in `/dev/shm`.
#[derive(Debug)]
pub(crate) struct ShmDir {
    /// That of the user.
    parent: Dir,
    name: String,
    dir: Dir,
}

impl ShmDir {
    /// Makes the directory for the rings of a new session, and the reference in `session_dir`.
    /// Other processes see by the lock that it is in use.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Insecure`] when the directory of this user in `/dev/shm` is
    /// somebody else's. Nothing is left then.
    pub(crate) fn create(
        session_dir: &Dir,
        header: &FileHeader,
    ) -> Result<(Self, SessionLock), Error> {
        let reference = FileHeader {
            file_kind: FILE_REFERENCE,
            file_bytes: FILE_HEADER_BYTES as u64,
            ..*header
        }
        .with_crc();
        // First: killed in between, it leads nowhere; the other way round the rings would stay.
        let mut file = session_dir.create_file(REFERENCE_NAME)?;
        file.write_all(bytemuck::bytes_of(&reference))
            .io_context("cannot write", session_dir.path_of(REFERENCE_NAME))?;
        let made = Self::create_dir(session_dir, &header.nonce);
        if made.is_err() {
            // The first error is the one to report; a reference that stays leads nowhere.
            drop(session_dir.remove_file(REFERENCE_NAME));
        }
        made
    }

    fn create_dir(session_dir: &Dir, nonce: &[u8; 16]) -> Result<(Self, SessionLock), Error> {
        let shm = Dir::open(Path::new(SHM))?;
        shm.check_kept_from_others()?;
        let user = rustix::process::geteuid().as_raw();
        let parent = shm.open_or_create_dir(&user_name(user))?;
        parent.check_private()?;
        let name = session_name(nonce, session_dir)?;
        let dir = parent.create_dir(&name)?;
        let lock = SessionLock::take(&dir);
        let made = Self { parent, name, dir };
        match lock {
            Ok(lock) => Ok((made, lock)),
            Err(error) => {
                // The first error is the one to report.
                drop(made.remove());
                Err(error)
            }
        }
    }

    /// Where the rings are made, or lie.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Removes the rings and their directory. The memory comes back when nobody has them mapped.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn remove(&self) -> Result<(), Error> {
        for name in [RINGS_NAME, LOCK_NAME] {
            if self.dir.exists(name)? {
                self.dir.remove_file(name)?;
            }
        }
        self.parent.remove_dir(&self.name)
    }

    /// Opens the directory that a reference in `session_dir` leads to; `None` when it is not
    /// there.
    fn find(session_dir: &Dir, nonce: &[u8; 16]) -> Result<Option<Self>, Error> {
        let user = session_dir.owner()?;
        let name = session_name(nonce, session_dir)?;
        let found = Dir::open(Path::new(SHM)).and_then(|shm| {
            let parent = shm.open_dir(&user_name(user))?;
            parent.check_owned_by(user)?;
            let dir = parent.open_dir(&name)?;
            dir.check_owned_by(user)?;
            Ok((parent, dir))
        });
        match found {
            Ok((parent, dir)) => Ok(Some(Self { parent, name, dir })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where the rings of a session are.
#[derive(Debug)]
pub(crate) enum RingsAt {
    /// There is no file: they were in the memory of the process, or are not needed any more.
    Nowhere,
    /// In this file, which may be damaged or another session's. With the directory in `/dev/shm`
    /// when it lies there.
    File(File, PathBuf, Option<ShmDir>),
    /// They were in `/dev/shm` and cannot be had; why, as a sentence.
    Gone(String),
}

impl RingsAt {
    /// Finds the rings of the session in `session_dir`. With `dead` they must not be in use.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn find(session_dir: &Dir, dead: bool) -> Result<Self, Error> {
        if let Some(file) = session_dir.open_file_if_there(RINGS_NAME)? {
            let path = session_dir.path_of(RINGS_NAME);
            return Ok(Self::File(file, path, None));
        }
        let Some(reference) = session_dir.open_file_if_there(REFERENCE_NAME)? else {
            return Ok(Self::Nowhere);
        };
        let header = match read_reference(&reference) {
            Ok(header) => header,
            Err(what) => {
                let path = session_dir.path_of(REFERENCE_NAME);
                return Ok(Self::Gone(format!("{}: {what}", path.display())));
            }
        };
        if boot_id().is_some_and(|boot| header.boot_id != [0; 16] && header.boot_id != boot) {
            return Ok(gone("the machine was restarted, or this is another one"));
        }
        let shm = match ShmDir::find(session_dir, &header.nonce) {
            Ok(Some(shm)) => shm,
            Ok(None) => {
                return Ok(gone(
                    "they are not there any more: the container was restarted, or somebody has \
                     removed them, or the session directory was copied",
                ));
            }
            Err(error) => return Ok(gone(&error.to_string())),
        };
        if dead && liveness(&shm.dir).may_live() {
            return Ok(gone("a process may still be using them"));
        }
        match shm.dir.open_file_if_there(RINGS_NAME)? {
            Some(file) if is_of(&file, session_dir.owner()?) => {
                let path = shm.dir.path_of(RINGS_NAME);
                Ok(Self::File(file, path, Some(shm)))
            }
            Some(_) => Ok(gone("what is there belongs to somebody else")),
            None => Ok(gone("the file is not there any more")),
        }
    }
}

/// Rings in `/dev/shm` whose process has died: memory that is taken until they are recovered or
/// removed, or the machine is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftRings {
    /// The directory of the session in `/dev/shm`.
    pub path: PathBuf,
    /// Bytes of memory that they take now.
    pub bytes: u64,
    /// The session that they belong to, if it is in the log directory.
    pub session_id: Option<String>,
}

/// What dead sessions of the owner of a log directory have left in `/dev/shm`, also those of other
/// log directories. Of what cannot be told nothing is said.
pub fn left_in_shm(log_dir: &Path) -> Vec<LeftRings> {
    let sessions = Dir::open(&log_dir.join(SESSIONS_DIR)).ok();
    let owner = sessions.as_ref().and_then(|dir| dir.owner().ok());
    let user = owner.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let parent = Dir::open(Path::new(SHM)).and_then(|shm| {
        let parent = shm.open_dir(&user_name(user))?;
        parent.check_owned_by(user)?;
        Ok(parent)
    });
    let Ok(parent) = parent else {
        return Vec::new();
    };
    let mut known = std::collections::BTreeMap::new();
    for (id, dir) in sessions.iter().flat_map(session_dirs) {
        if let Ok(RingsAt::File(_, path, Some(_))) = RingsAt::find(&dir, false) {
            known.insert(path, id);
        }
    }
    let names = parent.dir_names().unwrap_or_default();
    let left = names.into_iter().filter_map(|name| {
        let dir = parent.open_dir(&name).ok()?;
        let stat = dir.stat_of(RINGS_NAME).ok()??;
        // One that is just being made has no lock yet.
        let dead = dir.exists(LOCK_NAME).ok()? && !liveness(&dir).may_live();
        dead.then(|| LeftRings {
            session_id: known.get(&dir.path_of(RINGS_NAME)).cloned(),
            path: dir.path().to_owned(),
            bytes: u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512),
        })
    });
    left.collect()
}

fn session_dirs(sessions: &Dir) -> Vec<(String, Dir)> {
    let names = sessions.dir_names().unwrap_or_default().into_iter();
    let opened = names.filter_map(|name| sessions.open_dir(&name).ok().map(|dir| (name, dir)));
    opened.collect()
}

fn gone(why: &str) -> RingsAt {
    RingsAt::Gone(format!("its rings were in {SHM}: {why}"))
}

fn read_reference(file: &File) -> Result<FileHeader, String> {
    let mut bytes = [0; FILE_HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|error| error.to_string())?;
    Ok(parse_header(&bytes, FILE_REFERENCE)?.file)
}

/// A second name of the file could be anybody's way to it.
fn is_of(file: &File, user: u32) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.uid() == user && metadata.nlink() == 1)
}

fn user_name(user: u32) -> String {
    format!("stormlog-{user}")
}

fn session_name(nonce: &[u8; 16], session_dir: &Dir) -> Result<String, Error> {
    let number = u128::from_be_bytes(*nonce);
    Ok(format!("{number:032x}-{:x}", session_dir.inode()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn header(nonce: u8) -> FileHeader {
        FileHeader {
            magic: crate::segment::layout::FILE_MAGIC,
            version_major: crate::segment::layout::VERSION_MAJOR,
            header_bytes: FILE_HEADER_BYTES as u32,
            nonce: [nonce; 16],
            session: *b"20261121_101112\0",
            boot_id: boot_id().unwrap_or_default(),
            ..FileHeader::zeroed()
        }
    }

    fn why(at: &RingsAt) -> &str {
        match at {
            RingsAt::Gone(why) => why,
            other => panic!("{other:?}"),
        }
    }

    /// A directory, its rings in `/dev/shm` with `bytes` in them, and the lock.
    fn made(dir: &Dir, nonce: u8) -> (ShmDir, SessionLock) {
        let (shm, lock) = ShmDir::create(dir, &header(nonce)).unwrap();
        let mut file = shm.dir().create_file(RINGS_NAME).unwrap();
        file.write_all(&[nonce; 8]).unwrap();
        (shm, lock)
    }

    #[test]
    fn rings_are_found_by_the_directory_that_they_were_made_for_and_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let log = Dir::open(temp.path()).unwrap();
        let dir = log.create_dir("session").unwrap();
        let (shm, lock) = made(&dir, 0xA1);
        let found = RingsAt::find(&dir, false).unwrap();
        let RingsAt::File(file, path, Some(_)) = found else {
            panic!("{found:?}");
        };
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [0xA1; 8]);
        assert!(path.starts_with(SHM));
        // Whoever would recover them must wait for the end of the process.
        assert!(why(&RingsAt::find(&dir, true).unwrap()).contains("still be using"));
        drop(lock);
        assert!(matches!(
            RingsAt::find(&dir, true).unwrap(),
            RingsAt::File(_, _, Some(_))
        ));
        // The same reference in another directory: a copy, or a forged one.
        let other = log.create_dir("other").unwrap();
        let reference = temp.path().join("session").join(REFERENCE_NAME);
        std::fs::copy(&reference, temp.path().join("other").join(REFERENCE_NAME)).unwrap();
        assert!(why(&RingsAt::find(&other, true).unwrap()).contains("was copied"));
        shm.remove().unwrap();
        assert!(why(&RingsAt::find(&dir, true).unwrap()).contains("not there any more"));
    }

    /// Somebody is told to remove them by hand.
    #[test]
    fn only_rings_that_nobody_uses_are_said_to_be_left() {
        let temp = tempfile::tempdir().unwrap();
        let id = "20261121_101112";
        let session = temp.path().join(SESSIONS_DIR).join(id);
        std::fs::create_dir_all(&session).unwrap();
        let dir = Dir::open(&session).unwrap();
        let (shm, lock) = made(&dir, 0xA4);
        let of_user = Path::new(SHM).join(format!("stormlog-{}", dir.owner().unwrap()));
        let name = format!("{}-{:x}", "a4".repeat(16), dir.inode().unwrap());
        let path = of_user.join(name);
        let left = || {
            let left = left_in_shm(temp.path()).into_iter();
            left.filter(|rings| rings.path == path).collect::<Vec<_>>()
        };
        assert_eq!(left(), [], "in use");
        drop(lock);
        let found = left();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].session_id.as_deref(), Some(id));
        assert!(found[0].bytes > 0);
        std::fs::remove_file(path.join(LOCK_NAME)).unwrap();
        assert_eq!(left(), [], "just being made");
        shm.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_was_put_in_the_place_of_rings_is_not_read() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let (shm, lock) = made(&dir, 0xA2);
        drop(lock);
        let rings = shm.dir().path_of(RINGS_NAME);
        let secret = temp.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        std::fs::remove_file(&rings).unwrap();
        std::os::unix::fs::symlink(&secret, &rings).unwrap();
        assert!(RingsAt::find(&dir, true).is_err());
        std::fs::remove_file(&rings).unwrap();
        std::fs::write(&rings, "y").unwrap();
        let second = shm.dir().path_of("second");
        std::fs::hard_link(&rings, &second).unwrap();
        assert!(why(&RingsAt::find(&dir, true).unwrap()).contains("somebody else"));
        std::fs::remove_file(second).unwrap();
        assert!(matches!(
            RingsAt::find(&dir, true).unwrap(),
            RingsAt::File(..)
        ));
        shm.remove().unwrap();
        assert!(secret.exists());
    }

    #[test]
    fn a_reference_of_another_boot_or_damaged_leads_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let (shm, lock) = made(&dir, 0xA3);
        drop(lock);
        let path = temp.path().join(REFERENCE_NAME);
        let sound = std::fs::read(&path).unwrap();
        let other = FileHeader {
            file_kind: FILE_REFERENCE,
            boot_id: [7; 16],
            ..header(0xA3)
        };
        std::fs::write(&path, bytemuck::bytes_of(&other.with_crc())).unwrap();
        assert!(why(&RingsAt::find(&dir, true).unwrap()).contains("restarted"));
        for length in [0, 17, FILE_HEADER_BYTES - 1] {
            std::fs::write(&path, &sound[..length]).unwrap();
            assert!(why(&RingsAt::find(&dir, true).unwrap()).contains(REFERENCE_NAME));
        }
        for byte in 0..FILE_HEADER_BYTES {
            let mut bytes = sound.clone();
            bytes[byte] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(why(&RingsAt::find(&dir, true).unwrap()).contains(REFERENCE_NAME));
        }
        shm.remove().unwrap();
    }
}
