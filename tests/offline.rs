//! What a tool uses that reads files of others, hostile ones among them, has no `unsafe` and no
//! mappings, whatever `tests/tidy.rs` allows elsewhere.

use std::path::{Path, PathBuf};

/// Of `sys` the readers open directories and ask for locks.
const OFFLINE: [&str; 7] = [
    "src/segment",
    "src/convert",
    "src/recover",
    "src/cli",
    "src/ledger.rs",
    "src/sys/dir.rs",
    "src/sys/alive.rs",
];

/// Runs a command of the user's and asks the kernel what it has used: no file of others.
const NO_READER: &str = "src/cli/bench/overhead/child.rs";

fn sources(path: PathBuf, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sources(entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path);
    }
}

#[test]
fn what_reads_files_of_others_is_safe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for start in OFFLINE {
        let mut found = Vec::new();
        sources(root.join(start), &mut found);
        assert!(!found.is_empty(), "{start}: there is no such source");
        found.retain(|path| !path.ends_with(NO_READER));
        for path in found {
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in (1..).zip(text.lines()) {
                let code = line.split("//").next().unwrap_or_default();
                let is_name = |c: char| c.is_alphanumeric() || c == '_';
                for word in code.split(|c| !is_name(c)) {
                    // A mapping of a file that somebody else cuts kills the reader.
                    if ["unsafe", "Mmap", "MmapMut", "memmap2", "mmap"].contains(&word) {
                        faults.push(format!("{}:{number}: {word}", path.display()));
                    }
                }
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}
