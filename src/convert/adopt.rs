//! Files that may have their lines already, because these were appended while the session was
//! recorded: they are compared with what a conversion makes, and stay when they are equal.

use std::collections::BTreeMap;
use std::fs::File;

use super::live::copy_pieces;
use super::output::{FinishedFile, LineSink, OutputFiles, file_name};
use crate::error::{Error, IoContext};
use crate::segment::source::Source;
use crate::sys::dir::{Dir, Owner};
use crate::sys::file::FileId;

/// Bytes that are compared at once.
const COMPARE_BYTES: usize = 64 << 10;

/// Takes the lines of a session. A file that has other lines than these is replaced as a whole,
/// when all files are complete.
pub(crate) struct AdoptedFiles<'a> {
    dir: &'a Dir,
    session_id: &'a str,
    owner: Owner,
    /// Those that are written again.
    output: OutputFiles<'a>,
    /// By category; `None` = it is written again.
    files: BTreeMap<String, Option<Existing>>,
    place: Vec<u8>,
}

/// A file that has the lines of its category so far.
struct Existing {
    file: File,
    id: Option<FileId>,
    bytes: u64,
}

impl<'a> AdoptedFiles<'a> {
    /// As [`OutputFiles::new`].
    pub(crate) fn new(dir: &'a Dir, session_id: &'a str, owner: Owner) -> Self {
        Self {
            dir,
            session_id,
            owner,
            output: OutputFiles::new(dir, session_id, owner),
            files: BTreeMap::new(),
            place: vec![0; COMPARE_BYTES],
        }
    }

    /// Gives the files that were written again their names, and returns all files. `damaged`: not
    /// all of the session could be read, so a file that has more stays as it is.
    pub(crate) fn finish(mut self, sync: bool, damaged: bool) -> Result<Vec<FinishedFile>, Error> {
        let mut finished = Vec::new();
        for (category, existing) in std::mem::take(&mut self.files) {
            let name = file_name(self.session_id, &category);
            let stat = self.dir.stat_of(&name)?;
            let has_more = |bytes| {
                let stat = stat.as_ref().filter(|_| damaged);
                stat.is_some_and(|stat| stat.st_size as u64 > bytes)
            };
            let Some(existing) = existing else {
                if has_more(self.output.bytes_of(&category)) {
                    self.output.discard(&category)?;
                }
                continue;
            };
            let is_named = |stat| existing.id == Some(FileId::in_stat(stat));
            if !stat.as_ref().is_some_and(is_named) {
                // It has lost its name.
                self.write_again(&category, &existing)?;
                continue;
            }
            if !has_more(existing.bytes) {
                let cut = existing.file.set_len(existing.bytes);
                cut.io_context("cannot cut", self.dir.path_of(&name))?;
            }
            if sync {
                let synced = existing.file.sync_data();
                synced.io_context("cannot sync", self.dir.path_of(&name))?;
            }
            finished.push(FinishedFile {
                category,
                name,
                bytes: existing.bytes,
            });
        }
        finished.extend(self.output.finish(sync)?);
        Ok(finished)
    }

    fn open(&self, category: &str) -> Option<Existing> {
        let name = file_name(self.session_id, category);
        // What cannot be used is replaced.
        let file = self.dir.open_file_of(&name, self.owner).ok()?;
        Some(Existing {
            id: FileId::of(&file),
            file,
            bytes: 0,
        })
    }

    /// Copies the lines that were equal.
    fn write_again(&mut self, category: &str, existing: &Existing) -> Result<(), Error> {
        let path = self.dir.path_of(&file_name(self.session_id, category));
        copy_pieces(&existing.file, existing.bytes, |piece| {
            self.output.write(category, piece)
        })
        .io_context("cannot read", path)?
    }
}

impl Existing {
    /// Whether these lines come next in the file; `place` is for what is read.
    fn has(&mut self, lines: &[u8], place: &mut [u8]) -> bool {
        let mut at = self.bytes;
        for piece in lines.chunks(place.len().max(1)) {
            let found = place.get_mut(..piece.len()).unwrap_or_default();
            // What cannot be read is written again.
            let count = Source::read_at(&self.file, at, found).unwrap_or(0);
            if count != piece.len() || *found != *piece {
                return false;
            }
            at += piece.len() as u64;
        }
        self.bytes = at;
        true
    }
}

impl LineSink for AdoptedFiles<'_> {
    fn write(&mut self, category: &str, lines: &[u8]) -> Result<(), Error> {
        if !self.files.contains_key(category) {
            let existing = self.open(category);
            self.files.insert(category.to_owned(), existing);
        }
        if let Some(known) = self.files.get_mut(category)
            && let Some(existing) = known
        {
            if existing.has(lines, &mut self.place) {
                return Ok(());
            }
            if let Some(existing) = known.take() {
                self.write_again(category, &existing)?;
            }
        }
        self.output.write(category, lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "20261121_101112";

    fn finish(dir: &Dir, lines: &[(&str, &str)]) -> Vec<(String, u64)> {
        let mut files = AdoptedFiles::new(dir, ID, dir.ownership().unwrap());
        for (category, lines) in lines {
            files.write(category, lines.as_bytes()).unwrap();
        }
        let finished = files.finish(true, false).unwrap();
        let all = finished.into_iter().map(|file| (file.category, file.bytes));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    }

    #[test]
    fn a_file_with_its_lines_stays_and_any_other_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let path = |category: &str| temp.path().join(file_name(ID, category));
        let before = [
            ("same", "a\nb\n"),
            ("longer", "a\nb\nc\n"),
            ("shorter", "a\n"),
            ("other", "a\nx\nb\n"),
        ];
        for (category, text) in before {
            std::fs::write(path(category), text).unwrap();
        }
        std::os::unix::fs::symlink(path("same"), path("link")).unwrap();
        let id = |category: &str| FileId::of(&File::open(path(category)).unwrap());
        let ids = before.map(|(category, _)| id(category));
        let categories = ["same", "longer", "shorter", "other", "link", "new"];
        let lines: Vec<_> = ["a\n", "b\n"]
            .iter()
            .flat_map(|line| categories.map(|category| (category, *line)))
            .collect();
        let found = finish(&dir, &lines);
        assert_eq!(found.len(), categories.len());
        for category in categories {
            assert_eq!(std::fs::read_to_string(path(category)).unwrap(), "a\nb\n");
            assert!(found.contains(&(category.to_owned(), 4)), "{category}");
            assert!(path(category).symlink_metadata().unwrap().is_file());
        }
        let kept = before.map(|(category, _)| id(category));
        let kept: Vec<bool> = ids.iter().zip(&kept).map(|(a, b)| a == b).collect();
        assert_eq!(kept, [true, true, false, false]);
        assert_eq!(dir.names().unwrap().len(), categories.len(), "no temporary");
    }

    /// A log directory that another user owns, such as a volume of a container whose process is
    /// root, or a sticky one: the files are those of the session all the same.
    #[test]
    fn a_file_in_the_directory_of_another_user_stays() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let owner = dir.ownership().unwrap();
        let path = temp.path().join(file_name(ID, "vpn"));
        std::fs::write(&path, "a\nb\n").unwrap();
        let theirs = temp.path().join(file_name(ID, "theirs"));
        std::fs::write(&theirs, "a\n").unwrap();
        std::os::unix::fs::chown(temp.path(), Some(12345), None).unwrap();
        std::os::unix::fs::chown(&theirs, Some(12345), None).unwrap();
        let id = |path| FileId::of(&File::open(path).unwrap());
        let before = [&path, &theirs].map(id);
        let mut files = AdoptedFiles::new(&dir, ID, owner);
        files.write("vpn", b"a\nb\n").unwrap();
        files.write("theirs", b"a\n").unwrap();
        assert_eq!(files.finish(true, false).unwrap().len(), 2);
        assert_eq!(id(&path), before[0], "it stays");
        assert_ne!(id(&theirs), before[1], "not a file of the session");
    }

    #[test]
    fn of_a_damaged_session_a_file_with_more_lines_stays() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let path = |category: &str| temp.path().join(file_name(ID, category));
        let before = [
            ("longer", "a\nb\nc\n"),
            ("other", "a\nx\nb\n"),
            ("shorter", "b\n"),
        ];
        for (category, text) in before {
            std::fs::write(path(category), text).unwrap();
        }
        let mut files = AdoptedFiles::new(&dir, ID, dir.ownership().unwrap());
        for (category, _) in before {
            files.write(category, b"a\nb\n").unwrap();
        }
        files.finish(true, true).unwrap();
        let after = before.map(|(category, _)| std::fs::read_to_string(path(category)).unwrap());
        assert_eq!(after, ["a\nb\nc\n", "a\nx\nb\n", "a\nb\n"]);
        assert_eq!(dir.names().unwrap().len(), before.len(), "no temporary");
    }

    #[test]
    fn a_file_that_lost_its_name_is_written_again() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let path = temp.path().join(file_name(ID, "vpn"));
        std::fs::write(&path, "a\nb\n").unwrap();
        let mut files = AdoptedFiles::new(&dir, ID, dir.ownership().unwrap());
        files.write("vpn", b"a\n").unwrap();
        std::fs::rename(&path, temp.path().join("elsewhere")).unwrap();
        files.write("vpn", b"b\n").unwrap();
        assert_eq!(files.finish(false, false).unwrap().len(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
    }
}
