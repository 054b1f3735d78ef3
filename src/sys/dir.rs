//! Directories that we write into, held open by descriptor.
//!
//! Every name is one component relative to an open directory and is never followed when it is a
//! symbolic link, so no name can lead out of the directory and nobody can redirect a write by
//! replacing a parent while we run. Files are 0600, directories that we create 0700.

mod owner;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};

use super::fork;
use crate::error::{Error, IoContext};

pub use owner::Owner;

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: Mode = Mode::RWXU;
const DIR_FLAGS: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// An open directory and the path it was opened by (for messages only).
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// The process ([`fork::generation`]) that has locked it; 0 = not locked.
    locked_by: AtomicU64,
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.locked_by.load(Relaxed) == fork::generation() {
            // A child that was forked meanwhile has the same lock: closing the descriptor would
            // leave it locked for as long as that child lives.
            if rustix::fs::flock(&self.fd, FlockOperation::Unlock).is_err() {
                // Then it does.
            }
        }
    }
}

impl Dir {
    /// Opens an existing directory that the user named. Symbolic links in `path` are followed,
    /// because the user may keep logs behind one.
    ///
    /// # Errors
    /// When `path` does not exist, is not a directory or cannot be read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .io_context("cannot open directory", path)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            locked_by: AtomicU64::new(0),
        })
    }

    /// Opens the log directory at `path` for writing, creating it and its parents (0700) where
    /// they are missing.
    ///
    /// # Errors
    /// As [`open`](Self::open); also [`Error::Insecure`] when other users can write to it and it
    /// is not sticky.
    pub fn open_log_dir(path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        let missing = path.symlink_metadata().is_err();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .io_context("cannot create log directory", path)?;
        let dir = Self::open(path)?;
        dir.check_kept_from_others()?;
        if missing && dir.stat()?.st_uid == rustix::process::geteuid().as_raw() {
            set_mode(&dir.fd, DIR_MODE, path)?;
        }
        Ok(dir)
    }

    /// Refuses a directory in which other users could replace what is ours.
    ///
    /// # Errors
    /// [`Error::Insecure`] when they can write to it and it is not sticky.
    pub fn check_kept_from_others(&self) -> Result<(), Error> {
        let mode = Mode::from_raw_mode(self.stat()?.st_mode);
        if mode.intersects(Mode::WGRP | Mode::WOTH) && !mode.contains(Mode::SVTX) {
            return Err(Error::Insecure {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    /// A second handle to the same directory, wherever its name leads now.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let fd = self
            .fd
            .try_clone()
            .io_context("cannot open again", &self.path)?;
        Ok(Self {
            fd,
            path: self.path.clone(),
            locked_by: AtomicU64::new(0),
        })
    }

    /// The inode: the same wherever the directory is moved to in its file system.
    ///
    /// # Errors
    /// What fstat says.
    pub fn inode(&self) -> Result<u64, Error> {
        self.stat().map(|stat| stat.st_ino)
    }

    /// What kind of file system it lies in: the magic number of statfs(2).
    ///
    /// # Errors
    /// What fstatfs says.
    pub fn file_system(&self) -> Result<u32, Error> {
        let stat = rustix::fs::fstatfs(&self.fd)
            .io_context("cannot read the file system of", &self.path)?;
        // 32 bits, in a field whose type depends on the architecture.
        Ok(stat.f_type as u32)
    }

    /// The path for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry, for messages and reports.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn stat(&self) -> Result<Stat, Error> {
        rustix::fs::fstat(&self.fd).io_context("cannot read the mode of", &self.path)
    }

    /// Opens the directory `name` in this one; creates it (0700) when it is missing.
    ///
    /// # Errors
    /// When it cannot be made or opened, or `name` is something else.
    pub fn open_or_create_dir(&self, name: &str) -> Result<Self, Error> {
        match self.create_dir(name) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                self.open_dir(name)
            }
            other => other,
        }
    }

    /// Makes the directory `name` (0700) and opens it.
    ///
    /// # Errors
    /// `AlreadyExists` when there is anything of that name; what mkdir says otherwise.
    pub fn create_dir(&self, name: &str) -> Result<Self, Error> {
        let c_name = self.component(name)?;
        rustix::fs::mkdirat(&self.fd, &c_name, DIR_MODE)
            .io_context("cannot create directory", self.path_of(name))?;
        let dir = self.open_dir(name)?;
        set_mode(&dir.fd, DIR_MODE, &dir.path)?;
        Ok(dir)
    }

    /// Opens the directory `name` in this one.
    ///
    /// # Errors
    /// When it is missing, a symbolic link, or not a directory.
    pub fn open_dir(&self, name: &str) -> Result<Self, Error> {
        let fd = rustix::fs::openat(&self.fd, self.component(name)?, DIR_FLAGS, Mode::empty())
            .io_context("cannot open directory", self.path_of(name))?;
        Ok(Self {
            fd,
            path: self.path_of(name),
            locked_by: AtomicU64::new(0),
        })
    }

    /// Creates the file `name` (0600) for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` when there is anything of that name.
    pub fn create_file(&self, name: &str) -> Result<File, Error> {
        let flags = FILE_FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = rustix::fs::openat(&self.fd, self.component(name)?, flags, FILE_MODE)
            .io_context("cannot create file", self.path_of(name))?;
        set_mode(&fd, FILE_MODE, &self.path_of(name))?;
        Ok(File::from(fd))
    }

    /// Opens the regular file `name` for reading.
    ///
    /// # Errors
    /// When it is missing, a symbolic link, or not a regular file.
    pub fn open_file(&self, name: &str) -> Result<File, Error> {
        self.open_regular(name, OFlags::RDONLY)
    }

    /// The same; `None` when there is nothing of that name.
    ///
    /// # Errors
    /// When it is a symbolic link, or not a regular file.
    pub fn open_file_if_there(&self, name: &str) -> Result<Option<File>, Error> {
        match self.open_file(name) {
            Err(error) if error.is_missing() => Ok(None),
            other => other.map(Some),
        }
    }

    fn open_regular(&self, name: &str, access: OFlags) -> Result<File, Error> {
        // NONBLOCK: a fifo of that name must not hang us.
        let flags = FILE_FLAGS | access | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.fd, self.component(name)?, flags, Mode::empty())
            .map(File::from)
            .io_context("cannot open file", self.path_of(name))?;
        let metadata = file
            .metadata()
            .io_context("cannot read file", self.path_of(name))?;
        if !metadata.is_file() {
            let source = io::Error::other("not a regular file");
            return Err(source).io_context("cannot open file", self.path_of(name));
        }
        Ok(file)
    }

    /// Whether anything of that name exists.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn exists(&self, name: &str) -> Result<bool, Error> {
        self.stat_of(name).map(|stat| stat.is_some())
    }

    /// What `name` is, `None` when it is missing. A symbolic link is not followed.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn stat_of(&self, name: &str) -> Result<Option<Stat>, Error> {
        match rustix::fs::statat(&self.fd, self.component(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error).io_context("cannot look up", self.path_of(name)),
        }
    }

    /// Renames `from` to `to`, replacing it.
    ///
    /// # Errors
    /// What rename says.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let (from, c_to) = (self.component(from)?, self.component(to)?);
        rustix::fs::renameat(&self.fd, from, &self.fd, c_to)
            .io_context("cannot rename to", self.path_of(to))
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// What unlink says.
    pub fn remove_file(&self, name: &str) -> Result<(), Error> {
        rustix::fs::unlinkat(&self.fd, self.component(name)?, AtFlags::empty())
            .io_context("cannot remove", self.path_of(name))
    }

    /// Removes the empty directory `name`.
    ///
    /// # Errors
    /// What rmdir says.
    pub fn remove_dir(&self, name: &str) -> Result<(), Error> {
        rustix::fs::unlinkat(&self.fd, self.component(name)?, AtFlags::REMOVEDIR)
            .io_context("cannot remove directory", self.path_of(name))
    }

    /// Names of the entries that are UTF-8, without `.` and `..`, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        self.list(|_| true)
    }

    /// Names of the subdirectories, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn dir_names(&self) -> Result<Vec<String>, Error> {
        self.list(|kind| matches!(kind, FileType::Directory | FileType::Unknown))
    }

    fn list(&self, keep: impl Fn(FileType) -> bool) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let entries =
            rustix::fs::Dir::read_from(&self.fd).io_context("cannot list directory", &self.path)?;
        for entry in entries {
            let entry = entry.io_context("cannot list directory", &self.path)?;
            let name = entry
                .file_name()
                .to_str()
                .ok()
                .filter(|name| ![".", ".."].contains(name));
            if let Some(name) = name.filter(|_| keep(entry.file_type())) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Locks the directory (flock) for converting the session in it, until `self` is dropped;
    /// false while another descriptor has it locked.
    ///
    /// # Errors
    /// Where the file system cannot lock directories.
    pub fn try_lock(&self) -> rustix::io::Result<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Relaxed: read when nobody else has it any more.
                self.locked_by.store(fork::generation(), Relaxed);
                Ok(true)
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bytes that this user may still take of the file system, and its size.
    ///
    /// # Errors
    /// What fstatvfs says.
    pub fn space(&self) -> Result<(u64, u64), Error> {
        let stat = rustix::fs::fstatvfs(&self.fd)
            .io_context("cannot read the free space of", &self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok((bytes(stat.f_bavail), bytes(stat.f_blocks)))
    }

    /// Waits until the entries of the directory are on the disk.
    ///
    /// # Errors
    /// What fsync says.
    pub fn sync(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.fd).io_context("cannot sync directory", &self.path)
    }

    /// `name` as a C string, refused unless it is exactly one path component.
    fn component(&self, name: &str) -> Result<CString, Error> {
        let valid = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        let c_name = CString::new(name).ok().filter(|_| valid);
        c_name
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name"))
            .io_context("refused", self.path.join(name.replace(['/', '\0'], "?")))
    }
}

/// Sets the mode of what was just made: the umask may have taken rights from the owner.
fn set_mode(fd: &impl AsFd, mode: Mode, path: &Path) -> Result<(), Error> {
    rustix::fs::fchmod(fd, mode).io_context("cannot set the mode of", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
            assert!(dir.create_file(name).is_err(), "{name:?}");
            assert!(dir.create_dir(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        std::fs::write(temp.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("secret", temp.path().join("link")).unwrap();
        assert!(dir.open_file("link").is_err());
        assert!(dir.create_file("link").is_err());
        assert!(dir.open_file("secret").is_ok());
    }

    #[test]
    fn what_is_no_file_of_ours_is_not_opened() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        // The socket stands for all devices; a fifo without a writer would hang.
        let _socket = std::os::unix::net::UnixListener::bind(dir.path_of("socket")).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(&dir.fd, "fifo", FileType::Fifo, mode, 0).unwrap();
        for name in ["socket", "fifo", "."] {
            assert!(dir.open_file(name).is_err(), "{name}");
            assert!(dir.open_file_to_change(name).is_err(), "{name}");
            assert!(dir.create_file(name).is_err(), "{name}");
        }
        drop(dir.create_file("once").unwrap());
        assert!(dir.open_file_to_change("once").is_ok());
        std::fs::hard_link(dir.path_of("once"), dir.path_of("twice")).unwrap();
        assert!(dir.open_file("once").is_ok());
        assert!(dir.open_file_to_change("once").is_err());
    }

    #[test]
    fn files_and_directories_are_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_log_dir(&temp.path().join("a/b")).unwrap();
        let sub = dir.create_dir("sub").unwrap();
        let file = sub.create_file("file").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(mode(sub.path()), 0o700);
        assert_eq!(mode(&temp.path().join("a")), 0o700);
    }

    #[test]
    fn a_log_directory_that_others_can_write_is_refused_unless_sticky() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("shared");
        std::fs::create_dir(&path).unwrap();
        let set = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        set(0o777);
        assert!(matches!(
            Dir::open_log_dir(&path),
            Err(Error::Insecure { .. })
        ));
        set(0o1777);
        assert!(Dir::open_log_dir(&path).is_ok());
        set(0o755);
        assert!(Dir::open_log_dir(&path).is_ok());
    }
}
