//! What belongs together: the files of one session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::cli::places::places;
use crate::cli::replay::Source;
use crate::cli::sessions::split_name;
use crate::error::Error;
use crate::record::Category;
use crate::segment::files::SessionFiles;

/// The files of one session: its segments, or lines.
#[derive(Debug)]
pub struct Group {
    /// Session id, or the name of a file that has none.
    pub name: String,
    pub files: Files,
    /// Why its segments cannot be read.
    pub fault: Option<String>,
}

/// What there is of a session.
#[derive(Debug)]
pub enum Files {
    /// Segments: exact.
    Segments(SessionFiles),
    /// Lines.
    Lines(Vec<Source>),
}

/// The sessions at the paths, in their order.
///
/// # Errors
/// When a path cannot be read, or there is nothing.
pub fn groups(paths: &[PathBuf], category: Option<Category>) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    // Of files that were named, those with one session id belong together.
    let mut named: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    for path in paths {
        if is_lines(path) {
            let source = Source::new(path, category)?;
            let id = path.file_name().and_then(|name| name.to_str());
            let id = id.and_then(split_name).map(|(id, _)| id.to_owned());
            let name = id.unwrap_or_else(|| source.name());
            named.entry(name).or_default().push(source);
        } else {
            groups.extend(recorded(path, category)?);
        }
    }
    groups.extend(named.into_iter().map(|(name, lines)| Group {
        name,
        files: Files::Lines(lines),
        fault: None,
    }));
    if groups.is_empty() {
        bail!("there is no session, and no file of lines");
    }
    Ok(groups)
}

/// Whether it is a file that is no segment, or standard input.
fn is_lines(path: &Path) -> bool {
    let segment = path.extension().is_some_and(|end| end == "seg");
    path.as_os_str() == "-" || (!segment && !path.is_dir() && path.exists())
}

/// The sessions of a directory, or of a segment.
fn recorded(path: &Path, category: Option<Category>) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for place in places(path)? {
        let (found, fault) = match place.session_dir.as_deref().map(SessionFiles::find) {
            Some(Ok(found)) => (found, None),
            None | Some(Err(Error::NoSession { .. })) => (Vec::new(), None),
            Some(Err(error)) => (Vec::new(), Some(error.to_string())),
        };
        if !found.is_empty() {
            groups.extend(found.into_iter().map(|files| Group {
                name: place.id.clone(),
                files: Files::Segments(files),
                fault: None,
            }));
            continue;
        }
        let lines = place.lines.values();
        let lines = lines.map(|path| Source::new(path, category));
        let lines = lines.collect::<Result<Vec<_>>>()?;
        if !lines.is_empty() || fault.is_some() {
            groups.push(Group {
                name: place.id.clone(),
                files: Files::Lines(lines),
                fault,
            });
        }
    }
    Ok(groups)
}
