//! Where the rings of a new session come to lie: the setting, and what `auto` makes of it.

use crate::config::{RingStorage, Settings};
use crate::error::{Error, IoContext};
use crate::ring::{Backend, Storage, StorageSizes};
use crate::segment::figures::RINGS_NAME;
use crate::segment::layout::{FILE_RINGS, FileHeader};
use crate::segment::shm::{REFERENCE_NAME, ShmDir};
use crate::sys::alive::SessionLock;
use crate::sys::dir::Dir;
use crate::sys::report::say;
use crate::sys::reserve::keeps_reserved;

/// `auto` takes a file only where so many times its bytes are free: segments come first.
const FREE_FACTOR: u64 = 4;

/// Where the rings of a session are.
#[derive(Debug)]
pub(super) struct Rings {
    /// For `session_start`: the storage, and why it is not the first choice.
    pub(super) text: String,
    /// They stay as long as the segments do.
    pub(super) in_session_dir: bool,
    /// The lock says that they are in use, as long as it lives.
    shm: Option<(ShmDir, SessionLock)>,
}

impl Rings {
    fn new(storage: RingStorage, why: &str) -> Self {
        Self {
            text: format!("{}{why}", storage.name()),
            in_session_dir: storage == RingStorage::SessionDir,
            shm: None,
        }
    }

    /// Removes the file with the rings, of which nobody needs anything any more.
    pub(super) fn remove(&self, session_dir: &Dir) -> Result<(), Error> {
        if self.in_session_dir {
            session_dir.remove_file(RINGS_NAME)?;
        }
        if let Some((shm, _)) = &self.shm {
            shm.remove()?;
            session_dir.remove_file(REFERENCE_NAME)?;
        }
        Ok(())
    }
}

/// Makes the ring storage.
pub(super) fn make(
    dir: &Dir,
    settings: &Settings,
    header: &FileHeader,
) -> Result<(Storage, Rings), Error> {
    let maker = Maker {
        dir,
        header: FileHeader {
            file_kind: FILE_RINGS,
            ..*header
        },
        sizes: StorageSizes {
            ring_total_bytes: settings.ring_total_bytes,
            large_total_bytes: settings.large_total_bytes,
            spill_total_bytes: settings.spill_total_bytes,
        },
        guard: settings.sigbus_guard,
    };
    match settings.ring_storage {
        RingStorage::Auto => maker.auto(),
        RingStorage::SessionDir => maker.in_session_dir(),
        RingStorage::Shm => maker.in_shm(""),
        RingStorage::Anonymous => maker.in_memory(""),
    }
}

struct Maker<'a> {
    dir: &'a Dir,
    header: FileHeader,
    sizes: StorageSizes,
    /// Mappings are guarded against SIGBUS.
    guard: bool,
}

impl Maker<'_> {
    /// The first that can be had. What is not the first choice is told.
    fn auto(&self) -> Result<(Storage, Rings), Error> {
        let refused = match self.refusal() {
            Some(why) => why,
            None => match self.in_session_dir() {
                Ok(made) => return Ok(made),
                Err(error) => error.to_string(),
            },
        };
        let why = format!(": session_dir is not possible: {refused}");
        let made = match self.in_shm(&why) {
            Ok(made) => Ok(made),
            Err(error) => self.in_memory(&format!("{why}; nor shm: {error}")),
        }?;
        say(&format!("rings are in {}", made.1.text));
        Ok(made)
    }

    /// Why the session directory should not hold the rings.
    fn refusal(&self) -> Option<String> {
        match self.dir.file_system() {
            Ok(kind) if keeps_reserved(kind) => {}
            Ok(kind) => {
                return Some(format!(
                    "its file system (statfs type {kind:#x}) is not known to keep space that was \
                     reserved"
                ));
            }
            Err(error) => return Some(error.to_string()),
        }
        let needed = FREE_FACTOR * Storage::bytes(self.sizes) as u64;
        match self.dir.space() {
            Ok((free, total)) if total > 0 && free < needed => Some(format!(
                "only {free} bytes are free, less than {FREE_FACTOR} times what rings take"
            )),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    fn in_session_dir(&self) -> Result<(Storage, Rings), Error> {
        let storage = self.in_file(self.dir)?;
        let why = self.without_guard(&storage);
        Ok((storage, Rings::new(RingStorage::SessionDir, why)))
    }

    fn in_shm(&self, why: &str) -> Result<(Storage, Rings), Error> {
        let (shm, lock) = ShmDir::create(self.dir, &self.header)?;
        let made = self.in_file(shm.dir());
        let mut rings = Rings::new(RingStorage::Shm, why);
        rings.shm = Some((shm, lock));
        match made {
            Ok(storage) => {
                rings.text.push_str(self.without_guard(&storage));
                Ok((storage, rings))
            }
            Err(error) => {
                if let Err(second) = rings.remove(self.dir) {
                    say(&second.to_string());
                }
                Err(error)
            }
        }
    }

    /// What is to be said of a mapping that should be guarded and is not.
    fn without_guard(&self, storage: &Storage) -> &'static str {
        if self.guard && !storage.is_guarded() {
            ": without the guard, which has no place left"
        } else {
            ""
        }
    }

    fn in_memory(&self, why: &str) -> Result<(Storage, Rings), Error> {
        let storage = Storage::new(&Backend::Anonymous, &self.header, self.sizes)
            .io_context("cannot map rings for session", self.dir.path())?;
        Ok((storage, Rings::new(RingStorage::Anonymous, why)))
    }

    /// In a new file `rings`; on an error there is none.
    fn in_file(&self, dir: &Dir) -> Result<Storage, Error> {
        let file = dir.create_file(RINGS_NAME)?;
        let (file, guard) = (&file, self.guard);
        let made = Storage::new(&Backend::File { file, guard }, &self.header, self.sizes)
            .io_context("cannot make rings", dir.path_of(RINGS_NAME));
        if made.is_err() {
            // The first error is the one to report; a file that stays is empty.
            drop(dir.remove_file(RINGS_NAME));
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn maker(dir: &Dir, ring_total_bytes: usize) -> Maker<'_> {
        Maker {
            dir,
            header: FileHeader {
                nonce: crate::sys::process::Identity::read().nonce,
                ..FileHeader::zeroed()
            },
            sizes: StorageSizes {
                ring_total_bytes,
                large_total_bytes: 2 << 20,
                spill_total_bytes: 64 << 10,
            },
            guard: false,
        }
    }

    #[test]
    fn auto_takes_what_can_be_had_and_says_why() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let maker = maker(&dir, 64 << 10);
        let (storage, rings) = maker.auto().unwrap();
        assert_eq!(rings.text, "session_dir");
        drop(storage);
        // The file is there already: nothing can be made in its place.
        let (_storage, rings) = maker.auto().unwrap();
        assert!(rings.text.starts_with("shm: session_dir is not possible: "));
        assert!(rings.text.contains("File exists"), "{}", rings.text);
        rings.remove(&dir).unwrap();
        assert!(!dir.exists(REFERENCE_NAME).unwrap());
        dir.create_file(REFERENCE_NAME).unwrap();
        let (_storage, rings) = maker.auto().unwrap();
        assert!(rings.text.starts_with("anonymous: session_dir is not "));
        assert!(rings.text.contains("; nor shm: "), "{}", rings.text);
    }

    #[test]
    fn auto_leaves_a_nearly_full_disk_to_the_segments() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        assert_eq!(maker(&dir, 64 << 10).refusal(), None);
        let why = maker(&dir, 1 << 60).refusal().unwrap();
        assert!(why.contains("bytes are free"), "{why}");
    }

    #[test]
    fn auto_keeps_away_from_file_systems_that_may_take_space_for_a_rewrite() {
        let dir = Dir::open(std::path::Path::new("/proc")).unwrap();
        let why = maker(&dir, 64 << 10).refusal().unwrap();
        assert!(why.contains("statfs type 0x9fa0"), "{why}");
    }
}
