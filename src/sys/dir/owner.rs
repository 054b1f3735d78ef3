//! Whose directories and files may be written, and to whom new ones belong.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::Dir;
use crate::error::{Error, IoContext};

/// Who a file belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    user: Uid,
    group: Gid,
}

impl Dir {
    /// Refuses a directory that another user owns or can write to.
    ///
    /// # Errors
    /// [`Error::Insecure`].
    pub fn check_private(&self) -> Result<(), Error> {
        self.check_owned_by(rustix::process::geteuid().as_raw())
    }

    /// The same, but root may change what others own.
    ///
    /// # Errors
    /// [`Error::Insecure`].
    pub fn check_private_or_root(&self) -> Result<(), Error> {
        let user = rustix::process::geteuid();
        let owner = self.stat()?.st_uid;
        self.check_owned_by(if user.is_root() { owner } else { user.as_raw() })
    }

    /// Refuses a directory that anybody but `user` owns or can write to.
    ///
    /// # Errors
    /// [`Error::Insecure`].
    pub fn check_owned_by(&self, user: u32) -> Result<(), Error> {
        let stat = self.stat()?;
        let open = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
        if open || stat.st_uid != user {
            return Err(Error::Insecure {
                path: self.path.clone(),
            });
        }
        Ok(())
    }

    /// The id of the user who owns the directory.
    ///
    /// # Errors
    /// What fstat says.
    pub fn owner(&self) -> Result<u32, Error> {
        self.stat().map(|stat| stat.st_uid)
    }

    /// Creates the file `name` (0600), as [`create_file`](Self::create_file) does, and gives it to
    /// `owner` when the caller is root.
    ///
    /// # Errors
    /// As [`create_file`](Self::create_file), and what fchown says.
    pub fn create_file_of(&self, name: &str, owner: Owner) -> Result<File, Error> {
        let file = self.create_file(name)?;
        if rustix::process::geteuid().is_root() {
            let given = rustix::fs::fchown(&file, Some(owner.user), Some(owner.group));
            given.io_context("cannot give away", self.path_of(name))?;
        }
        Ok(file)
    }

    /// Who owns the directory.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn ownership(&self) -> Result<Owner, Error> {
        let stat = self.stat()?;
        Ok(Owner {
            user: Uid::from_raw(stat.st_uid),
            group: Gid::from_raw(stat.st_gid),
        })
    }

    /// Opens the regular file `name` for reading and writing.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file); [`Error::Insecure`] when the file has another owner than
    /// the directory, or another name.
    pub fn open_file_to_change(&self, name: &str) -> Result<File, Error> {
        self.open_file_of_user(name, self.stat()?.st_uid)
    }

    /// The same for a file that [`create_file_of`](Self::create_file_of) has made for `owner`,
    /// whoever owns the directory.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file); [`Error::Insecure`] when that has not made it, or it has
    /// another name.
    pub fn open_file_of(&self, name: &str, owner: Owner) -> Result<File, Error> {
        let user = rustix::process::geteuid();
        let user = if user.is_root() { owner.user } else { user };
        self.open_file_of_user(name, user.as_raw())
    }

    fn open_file_of_user(&self, name: &str, user: u32) -> Result<File, Error> {
        let file = self.open_regular(name, OFlags::RDWR)?;
        let metadata = file.metadata();
        let metadata = metadata.io_context("cannot read file", self.path_of(name))?;
        // Root must not be led to a file of somebody else by a hard link.
        if metadata.nlink() != 1 || metadata.uid() != user {
            return Err(Error::Insecure {
                path: self.path_of(name),
            });
        }
        Ok(file)
    }
}
