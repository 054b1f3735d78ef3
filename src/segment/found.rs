//! Looks for segments and puts those of a session together.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, IoContext};
use crate::segment::files::{Origin, REMOVED_EXTENSION, SESSIONS_DIR, SegmentFile, SessionFiles};
use crate::segment::header::SegmentHeader;
use crate::segment::headless;
use crate::segment::reader::SegmentReader;
use crate::segment::source::SegmentSource;
use crate::sys::dir::Dir;

/// Extension of segments.
const SEGMENT_EXTENSION: &str = ".seg";

/// Session id and nonce.
type Key = (String, [u8; 16]);

#[derive(Default)]
pub(super) struct Found {
    pub(super) sessions: BTreeMap<Key, SessionFiles>,
    /// Segments found, also those that were known already.
    pub(super) taken: u64,
    /// Of directories in which no segment can be read.
    pub(super) unreadable: Vec<Error>,
    /// Take segments without a readable header, too.
    pub(super) headless: bool,
}

impl Found {
    pub(super) fn add_path(&mut self, path: &Path) -> Result<(), Error> {
        let path = std::fs::canonicalize(path).io_context("cannot find", path)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        if !path.is_dir() {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name else {
                let source = io::Error::other("the name is not UTF-8");
                return Err(source).io_context("cannot open", &path);
            };
            let dir = Arc::new(Dir::open(parent)?);
            let origin = Origin::File(dir, name.to_owned());
            return self.add(origin, path.clone(), log_dir_of(parent));
        }
        let dir = Dir::open(&path)?;
        if dir.names()?.iter().any(|name| is_segment_name(name)) {
            return self.add_session_dir(dir, log_dir_of(&path));
        }
        if path.file_name().is_some_and(|name| name == SESSIONS_DIR) {
            return self.add_sessions(&dir, parent);
        }
        if dir.exists(SESSIONS_DIR)? {
            return self.add_sessions(&dir.open_dir(SESSIONS_DIR)?, &path);
        }
        Ok(())
    }

    fn add_sessions(&mut self, sessions: &Dir, log_dir: &Path) -> Result<(), Error> {
        for name in sessions.dir_names()? {
            // Its results have their names; what is left of it is a part.
            if name.ends_with(REMOVED_EXTENSION) {
                continue;
            }
            self.add_session_dir(sessions.open_dir(&name)?, log_dir)?;
        }
        Ok(())
    }

    pub(super) fn add_session_dir(&mut self, dir: Dir, log_dir: &Path) -> Result<(), Error> {
        let dir = Arc::new(dir);
        let mut errors = Vec::new();
        let mut owner = None;
        for name in dir.names()? {
            if !is_segment_name(&name) {
                continue;
            }
            let path = dir.path_of(&name);
            match self.add_one(Origin::File(dir.clone(), name.clone()), path, log_dir) {
                Ok(key) => owner = Some(key),
                Err(error) => errors.push((name, error)),
            }
        }
        let mut errors = self.adopt(&dir, errors, log_dir, &mut owner);
        match owner.and_then(|key| self.sessions.get_mut(&key)) {
            Some(session) => session.faults.extend(errors.iter().map(Error::to_string)),
            None => self.unreadable.append(&mut errors),
        }
        Ok(())
    }

    /// Takes those of these segments whose headers another file tells; returns what is wrong with
    /// the others.
    fn adopt(
        &mut self,
        dir: &Arc<Dir>,
        unread: Vec<(String, Error)>,
        log_dir: &Path,
        owner: &mut Option<Key>,
    ) -> Vec<Error> {
        let mut errors = Vec::new();
        for (name, error) in unread {
            let other = owner.as_ref().and_then(|key| self.sessions.get(key));
            let other = other.and_then(|session| Some(session.segments.first()?.header));
            let is_damage = matches!(error, Error::Corrupt { .. });
            let header = (self.headless && is_damage)
                .then(|| headless::borrowed(dir, &name, other.as_ref()))
                .flatten();
            let Some(header) = header else {
                errors.push(error);
                continue;
            };
            let path = dir.path_of(&name);
            let origin = Origin::File(dir.clone(), name);
            let fault = format!("{error}; read with what another file of the session tells");
            let key = self.insert(&header, origin, path.clone(), log_dir);
            if let Some(session) = self.sessions.get_mut(&key) {
                session.faults.push(fault);
                let mut segments = session.segments.iter_mut();
                if let Some(added) = segments.find(|segment| segment.path == path) {
                    added.headless = Some(header);
                }
            }
            *owner = Some(key);
        }
        errors
    }

    pub(super) fn add(
        &mut self,
        origin: Origin,
        path: PathBuf,
        log_dir: &Path,
    ) -> Result<(), Error> {
        self.add_one(origin, path, log_dir).map(|_| ())
    }

    fn add_one(&mut self, origin: Origin, path: PathBuf, log_dir: &Path) -> Result<Key, Error> {
        let source = match &origin {
            Origin::File(dir, name) => SegmentSource::File(Arc::new(dir.open_file(name)?)),
            Origin::Memory(bytes) => SegmentSource::Memory(bytes.clone()),
        };
        let reader = SegmentReader::open(source, &path)?;
        Ok(self.insert(reader.header(), origin, path, log_dir))
    }

    fn insert(
        &mut self,
        header: &SegmentHeader,
        origin: Origin,
        path: PathBuf,
        log_dir: &Path,
    ) -> Key {
        let key = (header.session_id.clone(), header.file.nonce);
        self.taken = self.taken.saturating_add(1);
        let session = self.sessions.entry(key.clone());
        let session = session.or_insert_with(|| SessionFiles {
            session_id: header.session_id.clone(),
            nonce: header.file.nonce,
            segments: Vec::new(),
            log_dir: log_dir.to_owned(),
            faults: Vec::new(),
        });
        let number = header.file.segment;
        let same = session.segments.iter().find(|s| s.number() == number);
        if let Some(same) = same {
            if same.path != path {
                let (other, path) = (same.path.display(), path.display());
                let fault = format!("{path} is segment {number} as {other} is: left out");
                session.faults.push(fault);
            }
            return key;
        }
        if header.copy_damaged {
            let path = path.display();
            let fault = format!("{path}: one of the two copies of the header is damaged");
            session.faults.push(fault);
        }
        session.segments.push(SegmentFile {
            header: header.file,
            path,
            origin,
            headless: None,
        });
        key
    }

    pub(super) fn finish(self) -> Vec<SessionFiles> {
        let mut sessions: Vec<_> = self.sessions.into_values().collect();
        for session in &mut sessions {
            session.segments.sort_by_key(SegmentFile::number);
        }
        sessions
    }
}

/// The log directory of a directory with segments: what holds its `.stormlog`, else itself.
fn log_dir_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent.file_name().is_some_and(|name| name == SESSIONS_DIR) => {
            parent.parent().unwrap_or(dir)
        }
        _ => dir,
    }
}

fn is_segment_name(name: &str) -> bool {
    name.len() > SEGMENT_EXTENSION.len() && name.ends_with(SEGMENT_EXTENSION)
}
