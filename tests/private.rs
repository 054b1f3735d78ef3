//! Who can read and redirect what a session writes: modes, links, and what others have planted.
//! docs/SECURITY.md section 2 is the list of promises.
#![cfg(feature = "cli")]

#[path = "support/recording.rs"]
mod recording;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;
use stormlog::record::{Category, Extra, Value};
use stormlog::{CloseReport, Error, Outcome, RingStorage, Session};

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Everything below a directory.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// Runs the command through a shell with this umask.
fn under_umask(umask: &str, args: &str, dir: &Path) -> Output {
    let tool = cargo_bin!("stormlog").display();
    let script = format!("umask {umask}; exec '{tool}' {args}");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .current_dir(dir)
        .output()
        .unwrap()
}

fn session(dir: &Path) -> Session {
    let builder = recording::builder().dir(dir).sampling(false);
    builder.keep_segments(true).start().unwrap()
}

fn record(session: Session, text: &str) -> CloseReport {
    let named = Category::named("vpn").unwrap();
    assert_eq!(
        session.log().event(named, &[Extra::new("text", text)]),
        Outcome::Kept
    );
    session.close().unwrap()
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    for umask in ["0000", "0777", "0022"] {
        let temp = tempfile::tempdir().unwrap();
        let line = "{\"session_id\":\"x\",\"timestamp\":\"2026-11-21T10:11:12Z\",\
                    \"elapsed_seconds\":1,\"a\":1}\n";
        std::fs::write(temp.path().join("20261121_101112_vpn.jsonl"), line).unwrap();
        let args = "replay --keep-segments --dir logs 20261121_101112_vpn.jsonl";
        let output = under_umask(umask, args, temp.path());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{umask}: {stderr}");
        let logs = temp.path().join("logs");
        assert_eq!(mode(&logs), 0o700, "{umask}");
        let found = tree(&logs);
        assert!(found.len() >= 5, "{found:?}");
        for path in found {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{umask}: {}", path.display());
        }
        if umask == "0777" {
            continue;
        }
        // The same of a conversion into a directory that it makes.
        let output = under_umask(umask, "convert logs --out again/deep", temp.path());
        assert!(output.status.success(), "{umask}");
        for path in tree(&temp.path().join("again")) {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{umask}: {}", path.display());
        }
    }
}

#[test]
fn files_of_a_session_that_runs_are_private_too() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let builder = recording::builder()
        .dir(&dir)
        .ring_storage(RingStorage::SessionDir);
    let session = builder.start().unwrap();
    session.flush().unwrap();
    let found = tree(&dir);
    for name in ["rings", "ledger", "lock", "000001.seg"] {
        assert!(
            found.iter().any(|path| path.ends_with(name)),
            "{name}: {found:?}"
        );
    }
    for path in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    session.close().unwrap();
}

#[test]
fn a_log_directory_keeps_its_mode_or_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    for (before, accepted) in [
        (0o755, true),
        (0o750, true),
        (0o1777, true),
        (0o777, false),
        (0o770, false),
        (0o757, false),
    ] {
        let dir = temp.path().join(format!("{before:o}"));
        std::fs::create_dir(&dir).unwrap();
        set_mode(&dir, before);
        let started = recording::builder().dir(&dir).start();
        assert_eq!(started.is_ok(), accepted, "{before:o}");
        match started {
            Ok(session) => drop(session.close().unwrap()),
            Err(error) => {
                assert!(matches!(error, Error::Insecure { .. }), "{error}");
                assert_eq!(tree(&dir), Vec::<PathBuf>::new());
            }
        }
        assert_eq!(mode(&dir), before);
    }
}

#[test]
fn a_link_in_the_place_of_the_session_directories_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, elsewhere) = (temp.path().join("logs"), temp.path().join("elsewhere"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, dir.join(".stormlog")).unwrap();
    assert!(recording::builder().dir(&dir).start().is_err());
    assert_eq!(tree(&elsewhere), Vec::<PathBuf>::new());
    // And one that belongs to somebody else, where the test can make one.
    std::fs::remove_file(dir.join(".stormlog")).unwrap();
    std::fs::create_dir(dir.join(".stormlog")).unwrap();
    if std::os::unix::fs::chown(dir.join(".stormlog"), Some(12_345), None).is_ok() {
        let refused = recording::builder().dir(&dir).start();
        assert!(matches!(refused, Err(Error::Insecure { .. })));
    }
}

/// Plants `kind` under the names that a conversion will use, and converts.
#[test]
fn what_others_planted_under_our_names_is_replaced_and_not_followed() {
    for kind in ["link", "hard link", "fifo", "dangling"] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("logs");
        let victim = temp.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        let session = session(&dir);
        let id = session.id().to_owned();
        session.flush().unwrap();
        let names = [format!("{id}_vpn.jsonl"), format!(".{id}_vpn.jsonl.tmp")];
        for name in &names {
            let path = dir.join(name);
            match kind {
                "link" => symlink(&victim, path).unwrap(),
                "hard link" => std::fs::hard_link(&victim, path).unwrap(),
                "dangling" => symlink(temp.path().join("new"), path).unwrap(),
                _ => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            }
        }
        let report = record(session, "some text");
        assert_eq!(report.faults, Vec::<String>::new(), "{kind}");
        assert_eq!(
            std::fs::read_to_string(&victim).unwrap(),
            "precious",
            "{kind}"
        );
        assert!(!temp.path().join("new").exists(), "{kind}");
        let lines = dir.join(&names[0]);
        let metadata = lines.symlink_metadata().unwrap();
        assert!(metadata.is_file() && metadata.nlink() == 1, "{kind}");
        assert_eq!(mode(&lines), 0o600, "{kind}");
        assert!(
            std::fs::read_to_string(&lines)
                .unwrap()
                .contains("some text"),
            "{kind}"
        );
        assert!(!dir.join(&names[1]).exists(), "{kind}");
    }
}

/// A directory under a name that a conversion needs cannot be replaced: it is a fault, and nothing
/// is lost.
#[test]
fn a_directory_under_our_name_is_a_fault() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let session = session(&dir);
    let planted = dir.join(format!("{}_vpn.jsonl", session.id()));
    session.flush().unwrap();
    std::fs::create_dir(&planted).unwrap();
    let report = record(session, "some text");
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    assert!(report.segments.unwrap().is_dir());
    let names = tree(&dir);
    assert!(
        !names
            .iter()
            .any(|path| path.to_string_lossy().ends_with(".tmp")),
        "{names:?}"
    );
}

/// The file of the category `vpn`.
fn vpn_lines(report: &CloseReport) -> &Path {
    let mut files = report.files.iter();
    let vpn = files.find(|file| file.category == "vpn");
    &vpn.unwrap().path
}

/// The reading commands follow no link and do not wait for the other end of a fifo.
#[test]
fn reading_commands_do_not_follow_what_was_planted() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let report = record(session(&dir), "some text");
    let lines = vpn_lines(&report);
    std::fs::remove_file(lines).unwrap();
    let victim = temp.path().join("victim");
    std::fs::write(&victim, "precious word\n").unwrap();
    for fifo in [false, true] {
        if fifo {
            assert!(
                Command::new("mkfifo")
                    .arg(lines)
                    .status()
                    .unwrap()
                    .success()
            );
            assert!(lines.symlink_metadata().unwrap().file_type().is_fifo());
        } else {
            symlink(&victim, lines).unwrap();
        }
        for command in ["verify", "sessions", "stats", "inspect"] {
            let mut run = Command::new("timeout");
            let run = run
                .arg("60")
                .arg(cargo_bin!("stormlog"))
                .arg(command)
                .arg(&dir);
            let output = run.output().unwrap();
            assert!(
                output.status.code().is_some_and(|code| code <= 2),
                "{command}: hangs"
            );
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains("precious"), "{command}: {text}");
        }
        std::fs::remove_file(lines).unwrap();
    }
}

/// Names come from callers and from segments; they become parts of file names.
#[test]
fn no_name_leads_out_of_the_log_directory() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let session = session(&dir);
    let long = "a".repeat(65);
    for name in [
        "x/../../e",
        "../e",
        "..",
        ".",
        "",
        "/etc/e",
        "a\0b",
        "a b",
        "E",
        long.as_str(),
    ] {
        assert!(Category::named(name).is_none(), "{name:?}");
    }
    record(session, "some text");
    let found: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
    assert_eq!(found.len(), 1, "{found:?}");
}

/// One record is one line, whatever is in its texts, keys and JSON.
#[test]
fn no_text_begins_a_line_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let session = session(temp.path());
    let forged = "x\n{\"session_id\":\"forged\"}\r\n\u{2028}\u{85}\u{1b}[2J\u{202e}";
    let json = "{\"a\":\n1,\"b\":\"\u{2028}\u{202e}\"}";
    let extras = [
        Extra::new("text", forged),
        Extra::new(forged, 1_u64),
        Extra::new("json", Value::Json(json)),
    ];
    let outcome = session.log().event(Category::custom(), &extras);
    assert_eq!(outcome, Outcome::Kept);
    let report = session.close().unwrap();
    let custom = report
        .files
        .iter()
        .find(|file| file.category == "custom")
        .unwrap();
    let text = std::fs::read_to_string(&custom.path).unwrap();
    assert_eq!(text.matches('\n').count(), 1, "{text:?}");
    assert!(
        text.chars()
            .all(|c| c == '\n' || !stormlog::convert::is_escaped(c)),
        "{text:?}"
    );
}

/// Root converts what a user recorded: modes and contents as ever, links are not followed.
#[test]
fn root_converts_what_another_user_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("logs");
    let report = record(session(&dir), "password=hunter2");
    let lines = vpn_lines(&report);
    for path in tree(&dir).into_iter().chain([dir.clone()]) {
        if std::os::unix::fs::chown(&path, Some(12_345), Some(12_345)).is_err() {
            return eprintln!("skipped: only root can give files away");
        }
    }
    std::fs::remove_file(lines).unwrap();
    let victim = temp.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, lines).unwrap();
    let output = under_umask("0022", "convert logs", temp.path());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    let metadata = lines.symlink_metadata().unwrap();
    assert!(metadata.is_file());
    assert_eq!((mode(lines), metadata.uid()), (0o600, 12_345));
    let text = std::fs::read_to_string(lines).unwrap();
    assert!(
        text.contains("password=[redacted]") && !text.contains("hunter2"),
        "{text}"
    );
}
