//! Where the files of sessions are: segments in `.stormlog/{session}`, lines in the log directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::OFlags;

use super::sessions::split_name;
use crate::segment::files::{SESSIONS_DIR, SessionFiles};
use crate::segment::header::is_session_id;

/// The files of one session.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Session id.
    pub id: String,
    /// The directory of segments, ledger and rings, while there is one.
    pub session_dir: Option<PathBuf>,
    /// Where the lines are, or belong.
    pub log_dir: PathBuf,
    /// Files with lines, by category.
    pub lines: BTreeMap<String, PathBuf>,
}

impl Place {
    /// The file of a category, whether it is there or not.
    pub fn line_file(&self, category: &str) -> PathBuf {
        self.log_dir.join(format!("{}_{category}.jsonl", self.id))
    }
}

/// The sessions at `path`, by id: a log directory (all sessions in it), a session directory, a
/// segment, or a file with lines.
///
/// # Errors
/// When `path` cannot be read, or is a file of no session.
pub fn places(path: &Path) -> anyhow::Result<Vec<Place>> {
    let shown = path.display();
    let path = std::fs::canonicalize(path).with_context(|| format!("cannot find {shown}"))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    if !path.is_dir() {
        return match split_name(name) {
            Some((id, _)) => one(parent, id, None),
            None => session_dir(parent, &path),
        };
    }
    if name == SESSIONS_DIR {
        return all(parent);
    }
    let lies_in_sessions = parent.file_name().is_some_and(|name| name == SESSIONS_DIR);
    if (lies_in_sessions && is_session_id(name)) || holds_segments(&path)? {
        return session_dir(&path, &path);
    }
    all(&path)
}

/// Opens a file of lines, which somebody else may have put there: no link is followed, and nothing
/// but a file is opened.
pub(super) fn open_lines(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    let file = options
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Whether the files of a session lie here, as in a copy of its directory.
fn holds_segments(dir: &Path) -> anyhow::Result<bool> {
    let shown = || format!("cannot list {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(shown)? {
        let name = entry.with_context(shown)?.file_name();
        let name = Path::new(&name);
        if name == Path::new("ledger") || name.extension().is_some_and(|end| end == "seg") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The session whose files lie in `dir`; `path` is what was asked for.
fn session_dir(dir: &Path, path: &Path) -> anyhow::Result<Vec<Place>> {
    let parent = dir.parent().unwrap_or(Path::new("/"));
    let name = dir.file_name().and_then(|name| name.to_str());
    if parent.file_name().is_some_and(|name| name == SESSIONS_DIR)
        && let Some(id) = name.filter(|name| is_session_id(name))
        && let Some(log_dir) = parent.parent()
    {
        return one(log_dir, id, Some(dir));
    }
    let found = SessionFiles::find(path)?;
    match found.as_slice() {
        [files] => one(dir, &files.session_id, Some(dir)),
        _ => bail!("{} holds segments of several sessions", dir.display()),
    }
}

fn one(log_dir: &Path, id: &str, session_dir: Option<&Path>) -> anyhow::Result<Vec<Place>> {
    let mut found = find(log_dir, Some(id))?;
    let mut place = found.remove(id).unwrap_or_default();
    id.clone_into(&mut place.id);
    log_dir.clone_into(&mut place.log_dir);
    if let Some(dir) = session_dir {
        place.session_dir = Some(dir.to_owned());
    }
    Ok(vec![place])
}

fn all(log_dir: &Path) -> anyhow::Result<Vec<Place>> {
    Ok(find(log_dir, None)?.into_values().collect())
}

/// Lines and session directories of a log directory; `only` those of one session.
fn find(log_dir: &Path, only: Option<&str>) -> anyhow::Result<BTreeMap<String, Place>> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let wanted = |id: &str| only.is_none_or(|only| only == id);
    let new = |id: &str| Place {
        id: id.to_owned(),
        log_dir: log_dir.to_owned(),
        ..Place::default()
    };
    for (path, name) in entries(log_dir)?.unwrap_or_default() {
        if let Some((id, category)) = split_name(&name).filter(|(id, _)| wanted(id))
            && path.symlink_metadata().is_ok_and(|found| found.is_file())
        {
            let place = places.entry(id.to_owned()).or_insert_with(|| new(id));
            place.lines.insert(category.to_owned(), path);
        }
    }
    for (path, id) in entries(&log_dir.join(SESSIONS_DIR))?.unwrap_or_default() {
        let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if is_dir && is_session_id(&id) && wanted(&id) {
            let place = places.entry(id.clone()).or_insert_with(|| new(&id));
            place.session_dir = Some(path);
        }
    }
    Ok(places)
}

/// Paths and names of the entries of a directory; `None` when there is none.
fn entries(dir: &Path) -> anyhow::Result<Option<Vec<(PathBuf, String)>>> {
    let shown = || format!("cannot list {}", dir.display());
    let listed = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(shown)?,
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry.with_context(shown)?;
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((entry.path(), name));
        }
    }
    Ok(Some(entries))
}
