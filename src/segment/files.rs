//! Finding the segments of sessions: in a log directory, a session directory, or one by one.
//!
//! Segments belong together when their headers carry the same nonce. Files are opened by name in
//! an open directory, never through a symbolic link, and closed again: a session may have more
//! segments than the process may have open files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, IoContext};
use crate::segment::found::Found;
use crate::segment::header::SegmentHeader;
use crate::segment::layout::FileHeader;
use crate::segment::reader::SegmentReader;
use crate::segment::source::SegmentSource;
use crate::sys::alive::liveness;
use crate::sys::dir::{Dir, Owner};

pub use crate::segment::shm::{LeftRings, left_in_shm};
pub use crate::sys::alive::Liveness;

/// The directory of session directories in a log directory.
pub const SESSIONS_DIR: &str = ".stormlog";
/// File in a session directory: lines of the session were appended while it was recorded, and
/// nobody has compared them with the segments since.
pub(crate) const LIVE_NAME: &str = "live";
/// Extension of the directory of a session that is being removed.
pub(crate) const REMOVED_EXTENSION: &str = ".removed";
/// One segment of a session.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// Its header.
    pub header: FileHeader,
    /// Where it is, for messages.
    pub path: PathBuf,
    pub(super) origin: Origin,
    /// Its own header cannot be read: `header` is what another file says that it was.
    pub(super) headless: Option<SegmentHeader>,
}

#[derive(Clone, Debug)]
pub(super) enum Origin {
    File(Arc<Dir>, String),
    Memory(Arc<[u8]>),
}

impl SegmentFile {
    /// Number of the segment, from 1.
    pub fn number(&self) -> u64 {
        self.header.segment
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(&self) -> Result<SegmentSource, Error> {
        match &self.origin {
            Origin::File(dir, name) => Ok(SegmentSource::File(Arc::new(dir.open_file(name)?))),
            Origin::Memory(bytes) => Ok(SegmentSource::Memory(bytes.clone())),
        }
    }

    /// Opens it for going through its blocks.
    ///
    /// # Errors
    /// As [`SegmentReader::open`]; also when it is another segment than it was.
    pub fn reader(&self) -> Result<SegmentReader<SegmentSource>, Error> {
        if let Some(header) = &self.headless {
            return SegmentReader::with_header(self.open()?, &self.path, header.clone());
        }
        let reader = SegmentReader::open(self.open()?, &self.path)?;
        let file = &reader.header().file;
        if (file.nonce, file.segment) == (self.header.nonce, self.header.segment) {
            return Ok(reader);
        }
        Err(Error::Corrupt {
            path: self.path.clone(),
            offset: 0,
            what: "the file was replaced while it was read".to_owned(),
        })
    }
}

/// The segments of one session.
#[derive(Clone, Debug)]
pub struct SessionFiles {
    /// Session id, `YYYYMMDD_HHMMSS`.
    pub session_id: String,
    /// Identity of the session.
    pub nonce: [u8; 16],
    /// By number; never empty.
    pub segments: Vec<SegmentFile>,
    /// The directory that results belong into.
    pub log_dir: PathBuf,
    /// What is wrong with the files, as sentences.
    pub faults: Vec<String>,
}

impl SessionFiles {
    /// Finds the sessions at `path`: a log directory (all sessions in it), a session directory,
    /// or a segment. Sorted by session id. Files that should be segments and cannot be read are
    /// faults of the session in whose directory they lie.
    ///
    /// # Errors
    /// [`Error::NoSession`] when there is no segment; what reading says when no candidate can be
    /// read; [`Error::Io`].
    pub fn find(path: &Path) -> Result<Vec<Self>, Error> {
        Self::find_all(&[path]).map(|(sessions, _)| sessions)
    }

    /// [`find`](Self::find) for several paths; segments of one session are put together. Also
    /// returns what is wrong with session directories in which no segment can be read.
    ///
    /// # Errors
    /// As [`find`](Self::find), for each path.
    pub fn find_all(paths: &[impl AsRef<Path>]) -> Result<(Vec<Self>, Vec<Error>), Error> {
        Self::find_with(Found::default(), paths)
    }

    /// [`find_all`](Self::find_all), with segments whose headers are damaged, where a session
    /// directory has another file that tells what stood there.
    ///
    /// # Errors
    /// As [`find`](Self::find), for each path.
    pub fn find_headless(paths: &[impl AsRef<Path>]) -> Result<(Vec<Self>, Vec<Error>), Error> {
        let found = Found {
            headless: true,
            ..Found::default()
        };
        Self::find_with(found, paths)
    }

    fn find_with(
        mut found: Found,
        paths: &[impl AsRef<Path>],
    ) -> Result<(Vec<Self>, Vec<Error>), Error> {
        for path in paths {
            let before = found.taken;
            found.add_path(path.as_ref())?;
            if found.taken == before {
                return Err(found.unreadable.pop().unwrap_or(Error::NoSession {
                    path: path.as_ref().to_owned(),
                    remedy: "name a log directory, a session directory or a segment",
                }));
            }
        }
        let unreadable = std::mem::take(&mut found.unreadable);
        Ok((found.finish(), unreadable))
    }

    /// The session of segments in the open directory `dir`; the directory of the results is
    /// `log_dir`.
    ///
    /// # Errors
    /// As [`find`](Self::find); [`Error::NoSession`] when the directory holds segments of more
    /// than one session.
    #[allow(
        dead_code,
        reason = "for a session that converts itself when it is closed"
    )]
    pub(crate) fn in_dir(dir: Dir, log_dir: &Path) -> Result<Self, Error> {
        let path = dir.path().to_owned();
        let mut found = Found::default();
        found.add_session_dir(dir, log_dir)?;
        let error = found.unreadable.pop();
        let mut sessions = found.finish();
        match (sessions.pop(), sessions.is_empty()) {
            (Some(session), true) => Ok(session),
            _ => Err(error.unwrap_or(Error::NoSession {
                path,
                remedy: "there are segments of no session or of several",
            })),
        }
    }

    /// Sessions of segments in memory, for tests and tools: name (for messages) and bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the header of a segment cannot be read.
    pub fn from_memory(
        files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>,
    ) -> Result<Vec<Self>, Error> {
        let mut found = Found::default();
        for (path, bytes) in files {
            found.add(Origin::Memory(bytes.into()), path, Path::new("."))?;
        }
        Ok(found.finish())
    }

    /// Whether the process that records the session is alive. Segments in memory, and copies
    /// without the file `lock`, are of dead sessions.
    pub fn liveness(&self) -> Liveness {
        self.dirs()
            .values()
            .map(|dir| liveness(dir))
            .reduce(|a, b| match (a, b) {
                (Liveness::Dead, other) => other,
                (Liveness::Unknown, live @ Liveness::Live { .. }) => live,
                _ => a,
            })
            .unwrap_or(Liveness::Dead)
    }

    /// Keeps other processes from converting the session, its own included, which waits then;
    /// `None` while another one does. Who converts a session that may be alive takes the guard
    /// first and looks for its segments again: otherwise a part of the session could replace the
    /// whole, which its process wrote meanwhile.
    ///
    /// # Errors
    /// Where the file system cannot lock directories.
    pub fn try_lock(&self) -> Result<Option<ConversionGuard>, Error> {
        let mut guard = ConversionGuard(Vec::new());
        for path in self.dirs().into_keys() {
            let dir = Dir::open(path)?;
            if !dir.try_lock().io_context("cannot lock", path)? {
                return Ok(None);
            }
            guard.0.push(dir);
        }
        Ok(Some(guard))
    }

    /// Who owns the directory of its segments; `None` for segments in memory.
    pub(crate) fn owner(&self) -> Option<Result<Owner, Error>> {
        self.dirs().values().next().map(|dir| dir.ownership())
    }

    /// The lines of the session are in `out`: if that is where they were appended while it was
    /// recorded, nobody has to make them any more. Not for a session that may be alive.
    pub(crate) fn forget_live(&self, out: &Dir) {
        let log_dir = Dir::open(&self.log_dir).and_then(|dir| dir.inode()).ok();
        if log_dir.is_none() || log_dir != out.inode().ok() {
            return;
        }
        let dead = |dir: &&&Dir| liveness(dir) == Liveness::Dead;
        for dir in self.dirs().values().filter(dead) {
            // Mostly there is none. One that stays costs a conversion that is not needed.
            drop(dir.remove_file(LIVE_NAME));
        }
    }

    /// The directories that hold segments.
    fn dirs(&self) -> BTreeMap<&Path, &Dir> {
        let mut dirs = BTreeMap::new();
        for segment in &self.segments {
            if let Origin::File(dir, _) = &segment.origin {
                dirs.insert(dir.path(), dir.as_ref());
            }
        }
        dirs
    }

    /// Numbers of segments that are missing before the last one, as `first..=last`.
    pub fn missing(&self) -> Vec<std::ops::RangeInclusive<u64>> {
        let mut expected = 1_u64;
        let mut missing = Vec::new();
        for segment in &self.segments {
            if segment.number() > expected {
                missing.push(expected..=segment.number().saturating_sub(1));
            }
            expected = segment.number().saturating_add(1);
        }
        missing
    }
}

/// The right to convert a session, until it is dropped.
#[must_use]
#[derive(Debug)]
pub struct ConversionGuard(Vec<Dir>);

/// Whether the session with this directory (`LOG_DIR/.stormlog/{session}`) is alive.
pub fn is_live(session_dir: &Path) -> Liveness {
    Dir::open(session_dir).map_or(Liveness::Unknown, |dir| liveness(&dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{ConvertOptions, convert_into};
    use crate::sys::alive::SessionLock;

    const SEGMENTS: [&[u8]; 2] = [
        include_bytes!("../../tests/golden/v1_0/000001.seg"),
        include_bytes!("../../tests/golden/v1_0/000002.seg"),
    ];

    #[test]
    fn a_session_converts_itself_through_open_directories() {
        let temp = tempfile::tempdir().unwrap();
        let log_dir = Dir::open(temp.path()).unwrap();
        let session_dir = log_dir.create_dir("20261121_101112").unwrap();
        for (name, bytes) in ["000001.seg", "000002.seg"].iter().zip(SEGMENTS) {
            std::fs::write(session_dir.path_of(name), bytes).unwrap();
        }
        std::os::unix::fs::symlink("000001.seg", session_dir.path_of("000003.seg")).unwrap();
        let files = SessionFiles::in_dir(session_dir, temp.path()).unwrap();
        assert_eq!(files.segments.len(), 2);
        assert_eq!(files.faults.len(), 1, "the symbolic link is not followed");
        let report = convert_into(&files, &log_dir, ConvertOptions::default()).unwrap();
        assert_eq!(report.lines, 10);
        assert_eq!(report.faults, files.faults);
        assert!(report.files.iter().all(|file| file.path.exists()));
    }

    /// A log directory with one session.
    fn recorded() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join(SESSIONS_DIR).join("20261121_101112");
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in ["000001.seg", "000002.seg"].iter().zip(SEGMENTS) {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        (temp, dir)
    }

    #[test]
    fn the_mark_of_appended_lines_goes_when_they_are_made_again_in_their_place() {
        let (temp, dir) = recorded();
        let mark = dir.join(LIVE_NAME);
        std::fs::write(&mark, "").unwrap();
        let files = SessionFiles::find(temp.path()).unwrap().remove(0);
        files.forget_live(&Dir::open(&dir).unwrap());
        assert!(mark.exists(), "they were made elsewhere");
        let out = Dir::open(temp.path()).unwrap();
        let lock = SessionLock::take(&Dir::open(&dir).unwrap()).unwrap();
        files.forget_live(&out);
        assert!(mark.exists(), "the session may append more");
        drop(lock);
        files.forget_live(&out);
        assert!(!mark.exists());
    }

    #[test]
    fn a_segment_with_damaged_headers_is_taken_only_when_asked_for() {
        let (temp, dir) = recorded();
        let mut damaged = SEGMENTS[1].to_vec();
        damaged[..4096].fill(0);
        std::fs::write(dir.join("000002.seg"), damaged).unwrap();
        std::os::unix::fs::symlink("000002.seg", dir.join("000003.seg")).unwrap();
        let numbers = |(sessions, unreadable): (Vec<SessionFiles>, Vec<Error>)| {
            assert!(unreadable.is_empty(), "{unreadable:?}");
            let session = &sessions[0];
            assert_eq!(session.faults.len(), 2, "{:?}", session.faults);
            let numbers = session.segments.iter().map(SegmentFile::number);
            numbers.collect::<Vec<_>>()
        };
        let path = [temp.path()];
        assert_eq!(numbers(SessionFiles::find_all(&path).unwrap()), [1]);
        assert_eq!(numbers(SessionFiles::find_headless(&path).unwrap()), [1, 2]);
    }

    #[test]
    fn a_directory_of_two_sessions_or_none_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Dir::open(temp.path()).unwrap();
        assert!(SessionFiles::in_dir(open(), temp.path()).is_err());
        let mut header: FileHeader = bytemuck::pod_read_unaligned(&SEGMENTS[0][..256]);
        header.nonce = [7; 16];
        let mut other = SEGMENTS[0].to_vec();
        other[..256].copy_from_slice(bytemuck::bytes_of(&header.with_crc()));
        std::fs::write(temp.path().join("000001.seg"), SEGMENTS[0]).unwrap();
        assert!(SessionFiles::in_dir(open(), temp.path()).is_ok());
        std::fs::write(temp.path().join("000002.seg"), other).unwrap();
        assert!(SessionFiles::in_dir(open(), temp.path()).is_err());
    }
}
