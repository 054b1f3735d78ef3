//! The files of lines of sessions with `live`, in tests.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use stormlog::CloseReport;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::segment::files::SessionFiles;

/// The file of a category of the only session in `dir`, while it records too.
pub fn file(dir: &Path, session: &str, category: &str) -> PathBuf {
    dir.join(format!("{session}_{category}.jsonl"))
}

/// What is in a file; nothing in one that is not there yet.
pub fn text(path: &Path) -> String {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.unwrap(),
    }
}

pub fn numbers(text: &str) -> Vec<u64> {
    let lines = text.lines().map(|line| -> Json {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    lines.filter_map(|line| line["number"].as_u64()).collect()
}

/// All files of lines in a directory, by name.
pub fn files(dir: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let is_one = |name: &str| {
        let extension = Path::new(name).extension().unwrap_or_default();
        extension == "jsonl" || extension == "tmp"
    };
    names
        .filter(|name| is_one(name))
        .map(|name| (name.clone(), text(&dir.join(name))))
        .collect()
}

/// What a conversion of the segments, which were kept, makes.
pub fn converted(report: &CloseReport) -> BTreeMap<String, String> {
    let out = tempfile::tempdir().unwrap();
    let segments = report.segments.as_ref().expect("they are kept");
    let sessions = SessionFiles::find(segments).unwrap();
    let made = convert_session(&sessions[0], out.path(), ConvertOptions::default()).unwrap();
    assert_eq!(made.faults, Vec::<String>::new());
    files(out.path())
}

/// The files after the close are those of a conversion.
#[track_caller]
pub fn check(dir: &Path, report: &CloseReport) {
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.ledger.is_exact());
    let (found, expected) = (files(dir), converted(report));
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, text) in &expected {
        let found = &found[name];
        let equal = text.lines().zip(found.lines()).take_while(|(a, b)| a == b);
        let equal = equal.count();
        assert!(
            text == found,
            "{name}: from line {equal} on:\n{:?}\n{:?}",
            text.lines().nth(equal),
            found.lines().nth(equal)
        );
    }
}
