//! The files that lines are appended to while a session records. They have their final names, so
//! that readers can follow them; others may move, cut or remove them at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::buffer::LineBuffer;
use super::super::lines::in_pieces;
use super::super::output::file_name;
use crate::error::{Error, IoContext};
use crate::sys::dir::{Dir, Owner};
use crate::sys::file::FileId;
use crate::sys::reserve::check_length;

/// Bytes that are copied at once.
const COPY_BYTES: usize = 64 << 10;

/// The files of one session, by category.
pub(super) struct LiveFiles {
    dir: Arc<Dir>,
    /// Where it is made again: the process may go to another directory, and so would a path that
    /// is relative.
    path: PathBuf,
    session_id: String,
    owner: Owner,
    files: BTreeMap<String, LiveFile>,
    /// Categories whose files are not what a conversion would make.
    again: BTreeSet<String>,
}

struct LiveFile {
    file: File,
    id: FileId,
    /// Its whole lines.
    bytes: u64,
}

impl LiveFiles {
    /// Files `{session}_{category}.jsonl` in `dir`, which belong to `owner` if root makes them.
    pub(super) fn new(dir: Arc<Dir>, session_id: &str, owner: Owner) -> Self {
        let path = std::path::absolute(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
        Self {
            dir,
            path,
            session_id: session_id.to_owned(),
            owner,
            files: BTreeMap::new(),
            again: BTreeSet::new(),
        }
    }

    /// Appends whole lines: all of them, or none.
    pub(super) fn append(&mut self, category: &str, lines: &LineBuffer) -> Result<(), Error> {
        let name = file_name(&self.session_id, category);
        self.look(category, &name)?;
        let path = self.dir.path_of(&name);
        let Some(LiveFile { file, bytes, .. }) = self.files.get_mut(category) else {
            return Ok(());
        };
        let mut end = *bytes;
        let written = in_pieces(lines, |piece| {
            let at = end;
            end += piece.len() as u64;
            check_length(end)?;
            file.write_all_at(piece, at)?;
            fail_point!("live.written");
            io::Result::Ok(())
        });
        if written.is_err() {
            // No part of a line stays. Where that fails too, the next look finds it.
            drop(file.set_len(*bytes));
        } else {
            *bytes = end;
        }
        written.io_context("cannot append to", path)
    }

    /// The file of this category has lines that are not in their order, or not all of its lines.
    pub(super) fn is_to_be_written_again(&mut self, category: &str) {
        if !self.again.contains(category) {
            self.again.insert(category.to_owned());
        }
    }

    /// Bytes of all files, and of those that are to be written again.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let all = self.files.values().map(|file| file.bytes).sum();
        let again = self.again.iter().filter_map(|name| self.files.get(name));
        (all, again.map(|file| file.bytes).sum())
    }

    /// Sees to it that the name leads to our file, and that the file is as long as we left it.
    fn look(&mut self, category: &str, name: &str) -> Result<(), Error> {
        let stat = self.dir.stat_of(name)?;
        let known = self.files.get_mut(category);
        let was_known = known.is_some();
        if let (Some(known), Some(stat)) = (known, &stat)
            && known.id == FileId::in_stat(stat)
        {
            let bytes = stat.st_size as u64;
            if bytes < known.bytes {
                // Somebody has cut it, maybe within a line: it begins anew.
                known.bytes = 0;
                self.is_to_be_written_again(category);
            }
            let known = self.files.get(category);
            return match known.filter(|known| known.bytes != bytes) {
                Some(known) => {
                    let cut = known.file.set_len(known.bytes);
                    cut.io_context("cannot cut", self.dir.path_of(name))
                }
                None => Ok(()),
            };
        }
        if was_known || stat.is_some() {
            self.is_to_be_written_again(category);
        }
        if stat.is_some() {
            // Nobody else has a file of this name.
            self.dir.remove_file(name)?;
        }
        match self.create(name) {
            Err(error) if error.is_missing() => {
                self.move_to_new_dir()?;
                if self.files.contains_key(category) {
                    return Ok(());
                }
                let file = self.create(name)?;
                self.files.insert(category.to_owned(), file);
            }
            other => {
                self.files.insert(category.to_owned(), other?);
            }
        }
        Ok(())
    }

    fn create(&self, name: &str) -> Result<LiveFile, Error> {
        let file = self.dir.create_file_of(name, self.owner)?;
        fail_point!("live.created");
        let id = FileId::of(&file);
        let id = id.ok_or_else(|| io::Error::other("it cannot be told from others"));
        Ok(LiveFile {
            file,
            id: id.io_context("cannot use", self.dir.path_of(name))?,
            bytes: 0,
        })
    }

    /// The log directory was removed: makes it again, with what the files had: they are still open.
    /// All of it, or nothing changes: what they have is nowhere else.
    fn move_to_new_dir(&mut self) -> Result<(), Error> {
        let new = Arc::new(Dir::open_log_dir(&self.path)?);
        let bytes = self.files.values().map(|file| file.bytes).sum::<u64>();
        if new
            .space()
            .is_ok_and(|(free, total)| total > 0 && free < bytes)
        {
            // Copying until it is full, again and again, would help nobody.
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(full).io_context("cannot copy lines to", &self.path);
        }
        let old = std::mem::replace(&mut self.dir, new);
        let mut moved = BTreeMap::new();
        for (category, file) in &self.files {
            match self.copy(category, file) {
                Ok(copy) => drop(moved.insert(category.clone(), copy)),
                Err(error) => {
                    for category in moved.keys().chain([category]) {
                        // What stays is replaced by the next try.
                        drop(self.dir.remove_file(&file_name(&self.session_id, category)));
                    }
                    self.dir = old;
                    return Err(error);
                }
            }
        }
        self.files = moved;
        Ok(())
    }

    /// A file with the lines of an old one, in the place of whatever has its name.
    fn copy(&self, category: &str, old: &LiveFile) -> Result<LiveFile, Error> {
        let name = file_name(&self.session_id, category);
        if self.dir.exists(&name)? {
            self.dir.remove_file(&name)?;
        }
        let mut new = self.create(&name)?;
        let copied = copy_pieces(&old.file, old.bytes, |piece| {
            new.file.write_all_at(piece, new.bytes)?;
            new.bytes += piece.len() as u64;
            io::Result::Ok(())
        });
        copied
            .and_then(|copied| copied)
            .io_context("cannot copy to", self.dir.path_of(&name))?;
        Ok(new)
    }
}

/// Hands out the first `bytes` bytes of a file in pieces, until one is refused.
pub(in crate::convert) fn copy_pieces<E>(
    file: &File,
    bytes: u64,
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let mut place = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < bytes {
        let count = (bytes - at).min(COPY_BYTES as u64);
        let piece = place.get_mut(..count as usize).unwrap_or_default();
        file.read_exact_at(piece, at)?;
        if let Err(refused) = put(piece) {
            return Ok(Err(refused));
        }
        at += count;
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "20261121_101112";

    fn lines(text: &str) -> LineBuffer {
        let mut lines = LineBuffer::with_long_texts();
        lines.put(text.as_bytes());
        lines
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again_with_all_lines() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("logs");
        let dir = Arc::new(Dir::open_log_dir(&path).unwrap());
        let owner = dir.ownership().unwrap();
        let mut files = LiveFiles::new(dir, ID, owner);
        for category in ["a", "b"] {
            files.append(category, &lines("1\n")).unwrap();
        }
        std::fs::remove_dir_all(&path).unwrap();
        for category in ["b", "c"] {
            files.append(category, &lines("2\n")).unwrap();
        }
        let read = |category| std::fs::read_to_string(path.join(file_name(ID, category))).unwrap();
        assert_eq!(["a", "b", "c"].map(read), ["1\n", "1\n2\n", "2\n"]);
    }

    /// A directory that was removed, and cannot be made again as a whole: what is in the files that
    /// have lost their names is nowhere else.
    #[test]
    fn a_directory_that_cannot_be_made_again_at_once_loses_no_line() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("logs");
        let dir = Arc::new(Dir::open_log_dir(&path).unwrap());
        let owner = dir.ownership().unwrap();
        let mut files = LiveFiles::new(dir, ID, owner);
        for category in ["a", "b", "c"] {
            files.append(category, &lines("1\n")).unwrap();
        }
        std::fs::remove_dir_all(&path).unwrap();
        // One that cannot be read.
        let nothing = File::options().write(true).open("/dev/null").unwrap();
        let file = std::mem::replace(&mut files.files.get_mut("b").unwrap().file, nothing);
        for category in ["b", "a", "c"] {
            assert!(files.append(category, &lines("2\n")).is_err());
        }
        files.files.get_mut("b").unwrap().file = file;
        // Somebody else has made it meanwhile, with a file in it.
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(file_name(ID, "c")), "theirs").unwrap();
        for category in ["b", "a", "c"] {
            files.append(category, &lines("2\n")).unwrap();
        }
        let read = |category| std::fs::read_to_string(path.join(file_name(ID, category))).unwrap();
        assert_eq!(["a", "b", "c"].map(read), ["1\n2\n"; 3]);
    }

    #[test]
    fn what_cannot_be_appended_leaves_no_part_of_a_line() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Arc::new(Dir::open(temp.path()).unwrap());
        let owner = dir.ownership().unwrap();
        let mut files = LiveFiles::new(dir, ID, owner);
        files.append("a", &lines("1\n")).unwrap();
        let path = temp.path().join(file_name(ID, "a"));
        // A descriptor that takes nothing.
        let reading = File::open(&path).unwrap();
        let file = std::mem::replace(&mut files.files.get_mut("a").unwrap().file, reading);
        assert!(files.append("a", &lines("2\n")).is_err());
        // As after a write that was cut short, where cutting failed too.
        std::fs::write(&path, "1\n2").unwrap();
        files.files.get_mut("a").unwrap().file = file;
        files.append("a", &lines("2\n3\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n3\n");
        assert_eq!(files.sizes(), (6, 0));
    }
}
