//! What a closed session left behind.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use stormlog::{CloseReport, Session};

/// Lines of each category.
pub type Lines = BTreeMap<String, Vec<Json>>;

/// Closes without faults; the ledger is exact, equals the lines of the files, and is in the last
/// line of the session.
pub fn close_clean(session: Session) -> Lines {
    close_with_report(session).1
}

/// The same, with the report.
pub fn close_with_report(session: Session) -> (CloseReport, Lines) {
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let lines = lines(&report);
    for (category, account) in &report.ledger.categories {
        let count = lines.get(category).map_or(0, Vec::len) as u64;
        assert_eq!(account.written(), count, "{category}");
    }
    let end = lines["session"].last().unwrap();
    assert_eq!(end["event"], "session_end");
    assert_eq!(end["ledger"], report.ledger.to_json());
    (report, lines)
}

/// Lines of each file that the close wrote.
pub fn lines(report: &CloseReport) -> Lines {
    let files = report.files.iter();
    files
        .map(|file| (file.category.clone(), read(&file.path)))
        .collect()
}

/// Lines of one file that the close wrote; none where there is no such file.
pub fn lines_of(report: &CloseReport, category: &str) -> Vec<Json> {
    let file = report.files.iter().find(|file| file.category == category);
    file.map_or_else(Vec::new, |file| read(&file.path))
}

fn read(path: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Fields that every line has.
pub const EVERY_LINE: [&str; 3] = ["session_id", "timestamp", "elapsed_seconds"];

/// Names of the fields of a line but for those that every line has, sorted.
pub fn names(line: &Json) -> Vec<&str> {
    let fields = line.as_object().unwrap().keys().map(String::as_str);
    fields.filter(|name| !EVERY_LINE.contains(name)).collect()
}
