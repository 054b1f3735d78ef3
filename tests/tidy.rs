//! Rules for the sources that no compiler checks. A violation is reported as `file:line: what`.
//!
//! Exceptions are lists in this file, each with its reason; an exception that is no longer needed
//! is a violation too.

#[path = "tidy/tables.rs"]
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tables::{CLI_FORBIDDEN, LAYERS, LONG_FILES, LONG_LINES, LONG_SOURCES, UNSAFE_FILES};

/// Columns of a line.
const COLUMNS_MAX: usize = 100;
/// Lines of a file with its tests.
const LINES_MAX: usize = 700;
/// Lines of a file of `src` before its tests.
const PLAIN_LINES_MAX: usize = 400;

struct Source {
    /// Path from the root of the package, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line))
    }

    /// Lines with comments and the insides of strings blanked out, so that words in them do not
    /// count. Knows no raw strings over several lines, which the sources do not use.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.lines().map(|(number, line)| (number, code_of(line)))
    }

    /// Line of `mod tests {`, the last item of a file that has one.
    fn tests_from(&self) -> usize {
        let found = self
            .lines()
            .find(|(_, line)| ["mod tests {", "mod models {"].contains(line));
        found.map_or(usize::MAX, |(number, _)| number)
    }

    fn in_src(&self) -> bool {
        self.path.starts_with("src/")
    }
}

fn code_of(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            '"' => {
                in_string = !in_string;
                out.push('"');
            }
            '\'' if !in_string && chars.peek() == Some(&'"') => {
                chars.next();
            }
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if in_string => {}
            c => out.push(c),
        }
    }
    out
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for dir in ["src", "tests", "benches", "examples", "fuzz"] {
        walk(&root().join(dir), &mut sources);
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

fn walk(dir: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" {
            walk(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).unwrap();
            sources.push(Source {
                path: relative.to_string_lossy().replace('\\', "/"),
                text: std::fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

fn check(violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{} violations:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

/// Exceptions that name a file that does not need them.
fn unused<'a>(exceptions: impl Iterator<Item = &'a str>, used: &[&str]) -> Vec<String> {
    exceptions
        .filter(|path| !used.contains(path))
        .map(|path| format!("{path}: the exception in tests/tidy.rs is not needed"))
        .collect()
}

#[test]
fn sources_are_ascii() {
    let mut violations = Vec::new();
    for source in sources() {
        for (number, line) in source.lines().filter(|(_, line)| !line.is_ascii()) {
            let bad = line.chars().find(|c| !c.is_ascii()).unwrap_or_default();
            violations.push(format!("{}:{number}: not ASCII: {bad:?}", source.path));
        }
    }
    check(&violations);
}

#[test]
fn lines_have_100_columns_and_no_trailing_space() {
    let mut violations = Vec::new();
    for source in sources() {
        let allowed = LONG_LINES.iter().find(|(path, ..)| *path == source.path);
        let allowed = allowed.map_or(0, |(_, count, _)| *count);
        let long = |line: &str| line.chars().count() > COLUMNS_MAX;
        let found: Vec<_> = source.lines().filter(|(_, line)| long(line)).collect();
        if found.len() != allowed {
            violations.push(format!(
                "{}: {} long lines, {allowed} are listed in tests/tidy.rs",
                source.path,
                found.len()
            ));
            for (number, line) in found {
                let columns = line.chars().count();
                violations.push(format!("{}:{number}: {columns} columns", source.path));
            }
        }
        for (number, line) in source
            .lines()
            .filter(|(_, line)| line.ends_with([' ', '\t']))
        {
            violations.push(format!(
                "{}:{number}: space at the end: {line:?}",
                source.path
            ));
        }
    }
    check(&violations);
}

#[test]
fn files_are_short() {
    let mut violations = Vec::new();
    let (mut long_files, mut long_sources) = (Vec::new(), Vec::new());
    let all = sources();
    for source in &all {
        let path = source.path.as_str();
        let lines = source.lines().count();
        if lines > LINES_MAX {
            long_files.push(path);
            if !LONG_FILES.iter().any(|(file, _)| *file == path) {
                violations.push(format!("{path}:{LINES_MAX}: {lines} lines"));
            }
        }
        let plain = lines.min(source.tests_from() - 1);
        let is_tests = path.ends_with("tests.rs");
        if source.in_src() && !is_tests && plain > PLAIN_LINES_MAX {
            long_sources.push(path);
            if !LONG_SOURCES.iter().any(|(file, _)| *file == path) {
                let what = format!("{plain} lines before the tests");
                violations.push(format!("{path}:{PLAIN_LINES_MAX}: {what}"));
            }
        }
    }
    violations.extend(unused(LONG_FILES.iter().map(|e| e.0), &long_files));
    violations.extend(unused(LONG_SOURCES.iter().map(|e| e.0), &long_sources));
    check(&violations);
}

#[test]
fn unsafe_lives_in_listed_files_and_each_block_has_its_proof() {
    let mut violations = Vec::new();
    let all = sources();
    let mut used = Vec::new();
    for source in &all {
        let path = source.path.as_str();
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, code) in source.code() {
            if !has_word(&code, "unsafe") {
                continue;
            }
            used.push(path);
            if !UNSAFE_FILES.iter().any(|(file, _)| *file == path) {
                violations.push(format!("{path}:{number}: this file may not use unsafe"));
            }
            let opens = code.contains("unsafe {") || code.contains("unsafe impl");
            // Models run under loom only, where the memory is the model's own.
            if source.in_src() && opens && !is_model(&lines, number) && !has_proof(&lines, number) {
                violations.push(format!("{path}:{number}: no // SAFETY: before it"));
            }
        }
    }
    violations.extend(unused(UNSAFE_FILES.iter().map(|e| e.0), &used));
    check(&violations);
}

/// Whether `word` stands in `code` by itself.
fn has_word(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_name) && !code[at + word.len()..].starts_with(is_name)
    })
}

/// Whether the comment that starts with `// SAFETY:` ends right before the statement in which the
/// block on line `number` stands: at most a few lines of that statement, and attributes, between.
fn has_proof(lines: &[&str], number: usize) -> bool {
    const STATEMENT_LINES: usize = 8;
    let mut between = 0;
    for line in lines[..number - 1].iter().rev() {
        let line = line.trim();
        if line.starts_with("// SAFETY:") {
            return true;
        }
        if line.starts_with("//") || line.starts_with("#[") {
            continue;
        }
        // Another statement or block ends here, so the comment above it is not ours.
        between += 1;
        if line.ends_with([';', '}']) || line.is_empty() || between > STATEMENT_LINES {
            return false;
        }
    }
    false
}

/// Whether the line belongs to a module that is compiled for loom only.
fn is_model(lines: &[&str], number: usize) -> bool {
    let module = lines[..number].iter().rposition(|line| {
        line.starts_with("mod ") || line.starts_with("pub mod ") || line.starts_with("impl")
    });
    module.is_some_and(|at| {
        at > 0 && lines[at - 1].contains("loom)") && !lines[at - 1].contains("not(loom)")
    })
}

#[test]
fn nothing_unfinished_is_left() {
    // Split, so that this file does not find itself.
    let words = [
        concat!("todo", "!"),
        concat!("dbg", "!"),
        concat!("unimplemented", "!"),
        concat!("#[", "ignore"),
        concat!("allow(", "unsafe_code"),
    ];
    let comments = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
    ];
    let mut violations = Vec::new();
    for source in sources() {
        for (number, code) in source.code() {
            for word in words.iter().filter(|word| code.contains(**word)) {
                violations.push(format!("{}:{number}: {word}", source.path));
            }
        }
        for (number, line) in source.lines() {
            for word in comments.iter().filter(|word| has_word(line, word)) {
                violations.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    check(&violations);
}

/// See `tests/support/recording.rs`. Two files are about the defaults or about full disks.
#[test]
fn sessions_of_tests_do_not_depend_on_the_disk_of_the_machine() {
    let own = [
        "tests/disk.rs",
        "tests/docs.rs",
        "tests/support/recording.rs",
    ];
    let builder = concat!("Session::", "builder()");
    let mut violations = Vec::new();
    for source in sources() {
        let exempt = !source.path.starts_with("tests/") || own.contains(&source.path.as_str());
        for (number, _) in source
            .code()
            .filter(|(_, code)| !exempt && code.contains(builder))
        {
            let path = &source.path;
            violations.push(format!("{path}:{number}: use `recording::builder()`"));
        }
    }
    check(&violations);
}

#[test]
fn imports_go_down_the_layers() {
    let layers: BTreeMap<_, _> = LAYERS.into_iter().collect();
    let mut violations = Vec::new();
    for source in sources().into_iter().filter(Source::in_src) {
        let rest = source.path.trim_start_matches("src/");
        let module = rest.split(['/', '.']).next().unwrap_or_default();
        if ["lib", "main"].contains(&module) {
            continue;
        }
        let Some(allowed) = layers.get(module) else {
            violations.push(format!(
                "{}:1: {module} is not in the layer table",
                source.path
            ));
            continue;
        };
        if source.path.ends_with("_tests.rs") || rest.contains("/models") {
            continue;
        }
        let tests_from = source.tests_from();
        // A test may reach up: it checks how the layers work together.
        for (number, import) in imports(&source) {
            if number >= tests_from {
                continue;
            }
            let first = import.split("::").next().unwrap_or_default();
            let fits = ["error", "record", "Error", module].contains(&first)
                || allowed.iter().any(|path| import.starts_with(path));
            let forbidden =
                module == "cli" && CLI_FORBIDDEN.iter().any(|path| import.starts_with(path));
            if !fits || forbidden {
                violations.push(format!(
                    "{}:{number}: {module} may not use crate::{import}",
                    source.path
                ));
            }
        }
    }
    check(&violations);
}

/// Every path after `crate::`, with the line of its start; braces are taken apart one level deep.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code: Vec<(usize, String)> = source.code().collect();
    let mut imports = Vec::new();
    for (index, (number, line)) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            // `$crate::` stands in macros for other crates.
            if line[..at].ends_with(['$', '_']) {
                continue;
            }
            let path = &line[at + "crate::".len()..];
            let Some(open) = path.find('{').filter(|open| is_path(&path[..*open])) else {
                imports.push((*number, first_path(path)));
                continue;
            };
            let (prefix, mut list) = (&path[..open], path[open + 1..].to_owned());
            for (_, more) in &code[index + 1..] {
                if list.contains('}') {
                    break;
                }
                list.push_str(more.trim());
            }
            let list = list.split('}').next().unwrap_or_default().to_owned();
            for name in list
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
            {
                imports.push((*number, format!("{prefix}{}", first_path(name))));
            }
        }
    }
    imports
}

fn is_path(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_alphanumeric() || c == '_' || c == ':')
}

fn first_path(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
        .collect()
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert!(has_word("let x = unsafe { y }", "unsafe"));
    assert!(!has_word("unsafe_code", "unsafe"));
    assert_eq!(code_of("a(\"unsafe\\\"x\"); // unsafe"), "a(\"\"); ");
    assert!(has_proof(
        &["// SAFETY: inside.", "let x = unsafe { y };"],
        2
    ));
    let far = ["// SAFETY: inside.", "let x = 1;", "let y = unsafe { z };"];
    assert!(!has_proof(&far, 3));
    assert!(!has_proof(&["let y = unsafe { z };"], 1));
    let source = Source {
        path: "src/x.rs".to_owned(),
        text:
            "use crate::a::{b, c::D};\nuse crate::{\n    e,\n    f::G,\n};\nlet x = crate::h::i();"
                .to_owned(),
    };
    let found: Vec<_> = imports(&source);
    let names: Vec<_> = found
        .iter()
        .map(|(line, name)| (*line, name.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            (1, "a::b"),
            (1, "a::c::D"),
            (2, "e"),
            (2, "f::G"),
            (6, "h::i")
        ]
    );
}
