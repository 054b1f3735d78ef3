//! The files that a replay reads, and the category that each one's name says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::record::{CATEGORIES_BUILTIN, CATEGORY_BYTES_MAX, Category, is_category_name};
use crate::segment::header::{SESSION_ID_BYTES, is_session_id};

/// One file to replay.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is; `-` is standard input.
    pub path: PathBuf,
    /// Category of all its lines.
    pub category: Category,
    /// Length in bytes, where it is known.
    pub bytes: Option<u64>,
}

impl Source {
    /// The file `path`; `category` overrides what its name says.
    ///
    /// # Errors
    /// When it cannot be opened for reading.
    pub fn new(path: &Path, category: Option<Category>) -> Result<Self> {
        let mut bytes = None;
        if path.as_os_str() != "-" {
            let metadata = fs::metadata(path).with_context(|| cannot_open(path))?;
            ensure!(!metadata.is_dir(), "{} is a directory", path.display());
            if metadata.is_file() {
                // Tried now, so that nothing starts that cannot end. A pipe can be opened once.
                fs::File::open(path).with_context(|| cannot_open(path))?;
                bytes = Some(metadata.len());
            }
        }
        Ok(Self {
            path: path.to_owned(),
            category: category.unwrap_or_else(|| of_name(path)),
            bytes,
        })
    }

    /// The path as messages name it.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn cannot_open(path: &Path) -> String {
    format!("cannot open {}", path.display())
}

fn of_name(path: &Path) -> Category {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Category::named(&category_name(&stem)).unwrap_or_else(Category::custom)
}

/// The category in a file name without its extension: what follows a session id; a built-in
/// category at its end; otherwise the whole name with `_` for what a category cannot have.
fn category_name(stem: &str) -> String {
    if let Some(rest) = after_session_id(stem) {
        return sanitised(rest);
    }
    let ends = |name: &&&str| {
        let before = stem.strip_suffix(**name);
        before.is_some_and(|before| before.is_empty() || before.ends_with('_'))
    };
    // The longest: `x_orchestrator_health` is not `health`.
    let built_in = CATEGORIES_BUILTIN.iter().filter(ends);
    match built_in.max_by_key(|name| name.len()) {
        Some(name) => (*name).to_owned(),
        None => sanitised(stem),
    }
}

fn after_session_id(stem: &str) -> Option<&str> {
    let (id, rest) = stem.split_at_checked(SESSION_ID_BYTES)?;
    rest.strip_prefix('_').filter(|_| is_session_id(id))
}

/// Empty when nothing of it can be in a category name.
fn sanitised(name: &str) -> String {
    if is_category_name(name) {
        return name.to_owned();
    }
    let valid = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '_',
    };
    let name: String = name.chars().map(valid).take(CATEGORY_BYTES_MAX).collect();
    name.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_say_the_category() {
        for (stem, category) in [
            ("20251018_144523_engine_selection", "engine_selection"),
            ("20251018_144523_my_own", "my_own"),
            ("20251018_144523_My own!", "my_own"),
            ("20251018_144523__a", "_a"),
            ("proxy_engine_selection", "engine_selection"),
            ("x_orchestrator_health", "orchestrator_health"),
            ("x_health", "health"),
            ("health", "health"),
            ("wealth", "wealth"),
            ("unhealth", "unhealth"),
            ("Access.log-7", "access_log_7"),
            ("2025101_1445234_vpn", "vpn"),
            ("20251018_144523", "20251018_144523"),
            ("\u{e4}\u{f6}", ""),
            ("-", ""),
            ("", ""),
        ] {
            assert_eq!(category_name(stem), category, "{stem}");
        }
        assert_eq!(category_name(&"a".repeat(99)).len(), CATEGORY_BYTES_MAX);
    }

    #[test]
    fn a_name_without_a_category_is_custom() {
        assert_eq!(of_name(Path::new("-")).name(), "custom");
        assert_eq!(of_name(Path::new("/tmp/---.jsonl")).name(), "custom");
        assert_eq!(
            of_name(Path::new("/tmp/20251018_144523_vpn.jsonl")).name(),
            "vpn"
        );
        assert_eq!(of_name(Path::new("dir/../../e.jsonl")).name(), "e");
    }

    #[test]
    fn files_that_cannot_be_read_are_refused_by_name() {
        let missing = Source::new(Path::new("/nowhere/a_vpn.jsonl"), None).unwrap_err();
        let text = format!("{missing:#}");
        assert!(
            text.starts_with("cannot open /nowhere/a_vpn.jsonl: "),
            "{text}"
        );
        let dir = std::env::temp_dir();
        let refused = Source::new(&dir, None).unwrap_err();
        assert!(refused.to_string().ends_with("is a directory"), "{refused}");
    }
}
