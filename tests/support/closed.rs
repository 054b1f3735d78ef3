//! What a closed session left behind.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use stormlog::{CloseReport, Session};

/// Lines of each category.
pub type Lines = BTreeMap<String, Vec<Json>>;

/// Closes without faults; the ledger is exact and equals the lines of the files.
pub fn close_clean(session: Session) -> Lines {
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let lines = lines(&report);
    for (category, account) in &report.ledger.categories {
        let count = lines.get(category).map_or(0, Vec::len) as u64;
        assert_eq!(account.written(), count, "{category}");
    }
    lines
}

/// Lines of each file that the close wrote.
pub fn lines(report: &CloseReport) -> Lines {
    let read = |path: &Path| -> Vec<Json> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    report
        .files
        .iter()
        .map(|file| (file.category.clone(), read(&file.path)))
        .collect()
}

/// Names of the fields of a line but for the three that every line has, sorted.
pub fn names(line: &Json) -> Vec<&str> {
    let every = ["elapsed_seconds", "session_id", "timestamp"];
    let fields = line.as_object().unwrap().keys().map(String::as_str);
    fields.filter(|name| !every.contains(name)).collect()
}
