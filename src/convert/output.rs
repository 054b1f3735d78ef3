//! Where lines go: files that appear complete or not at all, or memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;

use crate::error::{Error, IoContext};
use crate::sys::dir::{Dir, Owner};
use crate::sys::reserve::check_length;

/// Takes lines.
pub trait LineSink {
    /// Appends whole lines to those of `category`, `[a-z0-9_]{1,64}`.
    ///
    /// # Errors
    /// When they cannot be kept; the conversion ends.
    fn write(&mut self, category: &str, lines: &[u8]) -> Result<(), Error>;
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
    file: File,
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
            let name = format!("{}_{category}.jsonl", self.session_id);
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

    fn create(&self, category: &str) -> Result<OutputFile, Error> {
        let name = temporary_name(self.session_id, category);
        if self.dir.exists(&name)? {
            self.dir.remove_file(&name)?;
        }
        let file = self.dir.create_file_of(&name, self.owner)?;
        fail_point!("convert.created");
        Ok(OutputFile { file, bytes: 0 })
    }
}

impl LineSink for OutputFiles<'_> {
    fn write(&mut self, category: &str, lines: &[u8]) -> Result<(), Error> {
        if !self.files.contains_key(category) {
            let file = self.create(category)?;
            self.files.insert(category.to_owned(), file);
        }
        if let Some(output) = self.files.get_mut(category) {
            let path = self.dir.path_of(&temporary_name(self.session_id, category));
            let bytes = output.bytes + lines.len() as u64;
            check_length(bytes)
                .and_then(|()| output.file.write_all(lines))
                .io_context("cannot write", path)?;
            output.bytes = bytes;
            fail_point!("convert.written");
        }
        Ok(())
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

fn temporary_name(session_id: &str, category: &str) -> String {
    format!(".{session_id}_{category}.jsonl.tmp")
}
