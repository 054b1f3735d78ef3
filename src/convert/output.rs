//! Where lines go: files that appear complete or not at all, or memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, IoContext};
use crate::sys::dir::{Dir, Owner};
use crate::sys::reserve::check_length;

/// Takes lines.
pub trait LineSink {
    /// Appends to the lines of `category`, `[a-z0-9_]{1,64}`: whole lines, or a piece of one that
    /// is longer than some 100 KiB.
    ///
    /// # Errors
    /// When they cannot be kept; the conversion ends.
    fn write(&mut self, category: &str, lines: &[u8]) -> Result<(), Error>;

    /// Takes the place of the next `bytes` bytes of a category, which the caller writes while
    /// others go on. `None`: this sink takes lines one after the other.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn place(&mut self, _category: &str, _bytes: u64) -> Result<Option<LinePlace>, Error> {
        Ok(None)
    }
}

/// The place of lines in a file.
#[derive(Debug)]
pub struct LinePlace {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
}

impl LinePlace {
    /// Writes as many bytes as were asked for.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(self, lines: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all_at(lines, self.offset);
        written.io_context("cannot write", self.path)?;
        fail_point!("convert.written");
        Ok(())
    }
}

/// Lines by category, in memory.
impl LineSink for BTreeMap<String, Vec<u8>> {
    fn write(&mut self, category: &str, lines: &[u8]) -> Result<(), Error> {
        match self.get_mut(category) {
            Some(text) => text.extend_from_slice(lines),
            None => drop(self.insert(category.to_owned(), lines.to_owned())),
        }
        Ok(())
    }
}

/// Files under temporary names. Dropped before [`finish`](Self::finish), they are removed.
pub(crate) struct OutputFiles<'a> {
    dir: &'a Dir,
    session_id: &'a str,
    /// Of the session.
    owner: Owner,
    files: BTreeMap<String, OutputFile>,
}

struct OutputFile {
    file: Arc<File>,
    bytes: u64,
}

/// A file that has its final name.
pub(crate) struct FinishedFile {
    pub category: String,
    pub name: String,
    pub bytes: u64,
}

impl<'a> OutputFiles<'a> {
    /// Files `{session}_{category}.jsonl` in `dir`, which belong to `owner` if root makes them.
    pub(crate) fn new(dir: &'a Dir, session_id: &'a str, owner: Owner) -> Self {
        Self {
            dir,
            session_id,
            owner,
            files: BTreeMap::new(),
        }
    }

    /// Gives all files their names, replacing what has them.
    pub(crate) fn finish(mut self, sync: bool) -> Result<Vec<FinishedFile>, Error> {
        if sync {
            for (category, file) in &self.files {
                let path = self.dir.path_of(&temporary_name(self.session_id, category));
                file.file.sync_data().io_context("cannot sync", path)?;
            }
        }
        let mut finished = Vec::new();
        fail_point!("convert.synced");
        while let Some((category, file)) = self.files.pop_first() {
            let name = file_name(self.session_id, &category);
            let temporary = temporary_name(self.session_id, &category);
            if let Err(error) = self.dir.rename(&temporary, &name) {
                // Back into the list of what the drop removes.
                self.files.insert(category, file);
                return Err(error);
            }
            finished.push(FinishedFile {
                category,
                name,
                bytes: file.bytes,
            });
            fail_point!("convert.named");
        }
        if sync {
            self.dir.sync()?;
        }
        fail_point!("convert.complete");
        Ok(finished)
    }

    /// Bytes of the file of a category so far.
    pub(super) fn bytes_of(&self, category: &str) -> u64 {
        self.files.get(category).map_or(0, |file| file.bytes)
    }

    /// Gives up the file of a category.
    pub(super) fn discard(&mut self, category: &str) -> Result<(), Error> {
        match self.files.remove(category) {
            Some(_) => self
                .dir
                .remove_file(&temporary_name(self.session_id, category)),
            None => Ok(()),
        }
    }

    fn create(&self, category: &str) -> Result<OutputFile, Error> {
        let name = temporary_name(self.session_id, category);
        if self.dir.exists(&name)? {
            self.dir.remove_file(&name)?;
        }
        let file = self.dir.create_file_of(&name, self.owner)?;
        fail_point!("convert.created");
        Ok(OutputFile {
            file: Arc::new(file),
            bytes: 0,
        })
    }
}

impl LineSink for OutputFiles<'_> {
    fn write(&mut self, category: &str, lines: &[u8]) -> Result<(), Error> {
        match self.place(category, lines.len() as u64)? {
            Some(place) => place.write(lines),
            None => Ok(()),
        }
    }

    fn place(&mut self, category: &str, bytes: u64) -> Result<Option<LinePlace>, Error> {
        if !self.files.contains_key(category) {
            let file = self.create(category)?;
            self.files.insert(category.to_owned(), file);
        }
        let Some(output) = self.files.get_mut(category) else {
            return Ok(None);
        };
        let path = self.dir.path_of(&temporary_name(self.session_id, category));
        let offset = output.bytes;
        output.bytes = offset.saturating_add(bytes);
        check_length(output.bytes).io_context("cannot write", &path)?;
        Ok(Some(LinePlace {
            file: Arc::clone(&output.file),
            path,
            offset,
        }))
    }
}

impl Drop for OutputFiles<'_> {
    fn drop(&mut self) {
        for category in self.files.keys() {
            // What cannot be removed is replaced by the next conversion; the error that led here
            // is the one to report.
            drop(
                self.dir
                    .remove_file(&temporary_name(self.session_id, category)),
            );
        }
    }
}

/// The name of the file of a category.
pub(super) fn file_name(session_id: &str, category: &str) -> String {
    format!("{session_id}_{category}.jsonl")
}

fn temporary_name(session_id: &str, category: &str) -> String {
    format!(".{session_id}_{category}.jsonl.tmp")
}
