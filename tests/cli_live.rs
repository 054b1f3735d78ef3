//! A session that another process records while commands look at it.
#![cfg(feature = "cli")]

#[path = "support/tool.rs"]
mod tool;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::segment::files::{Liveness, SessionFiles, is_live};
use tool::{json, run, stormlog};

/// A replay that goes on as long as its standard input is open.
struct Recording {
    child: Child,
    dir: PathBuf,
    id: String,
}

impl Recording {
    fn start(dir: &Path) -> Self {
        let words = [
            "replay",
            "--dir",
            ".",
            "--category",
            "custom",
            "--json",
            "-",
        ];
        let mut child = stormlog(dir, &words)
            .args(["--speed", "original"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"{\"n\":1}\n")
            .unwrap();
        let mut recording = Self {
            child,
            dir: dir.to_owned(),
            id: String::new(),
        };
        recording.wait_until(|found| found["categories"]["custom"].as_u64() >= Some(1));
        recording
    }

    /// Sends another line and the end.
    fn end(&mut self) {
        let mut input = self.child.stdin.take().unwrap();
        input.write_all(b"{\"n\":2}\n").unwrap();
    }

    /// Lists until the session is as expected.
    fn wait_until(&mut self, expected: impl Fn(&Json) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let output = run(&self.dir, &["sessions", ".", "--json"]);
            if output.status.code() == Some(0) && !output.stdout.is_empty() {
                let found = json(&output);
                if expected(&found) {
                    self.id = found["session_id"].as_str().unwrap().into();
                    return;
                }
            }
            assert!(Instant::now() < end, "{output:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn session_dir(&self) -> PathBuf {
        self.dir.join(".stormlog").join(&self.id)
    }

    fn state(&self) -> Json {
        json(&run(&self.dir, &["sessions", ".", "--json"]))["state"].clone()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn a_session_of_another_process_is_live_until_it_ends() {
    let temp = tempfile::tempdir().unwrap();
    let mut recording = Recording::start(temp.path());
    let process = recording.child.id();
    let pid = Some(process);
    assert_eq!(is_live(&recording.session_dir()), Liveness::Live { pid });
    assert_eq!(recording.state(), "live");

    let output = run(temp.path(), &["convert", ".", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    let expected = format!(
        "session {} is still being recorded by process {process}",
        recording.id
    );
    assert!(said.contains(&expected), "{said}");
    let part = json(&output);
    assert_eq!(part["sealed"], false);
    assert_eq!(part["counted"]["custom"]["written"], 1);

    // Asking did not take its lock away; and its own results replace the part.
    assert_eq!(recording.state(), "live");
    recording.end();
    let mut report = String::new();
    let mut output = recording.child.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut output, &mut report).unwrap();
    assert!(recording.child.wait().unwrap().success(), "{report}");
    let report: Json = serde_json::from_str(&report).unwrap();
    assert_eq!(report["ledger"]["custom"]["written"], 2);
    assert_eq!(recording.state(), "converted");
    let path = temp.path().join(format!("{}_custom.jsonl", recording.id));
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
}

#[test]
fn a_killed_session_is_open_and_can_be_converted() {
    let temp = tempfile::tempdir().unwrap();
    let mut recording = Recording::start(temp.path());
    recording.child.kill().unwrap();
    recording.child.wait().unwrap();
    assert_eq!(is_live(&recording.session_dir()), Liveness::Dead);
    assert_eq!(recording.state(), "open");
    let output = run(temp.path(), &["convert", ".", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!said.contains("still"), "{said}");
    assert_eq!(json(&output)["counted"]["custom"]["written"], 1);
}

#[test]
fn a_session_waits_for_the_conversion_of_another_process() {
    let temp = tempfile::tempdir().unwrap();
    let mut recording = Recording::start(temp.path());
    let files = SessionFiles::find(temp.path()).unwrap().remove(0);
    let guard = files.try_lock().unwrap().unwrap();
    assert!(files.try_lock().unwrap().is_none());
    let output = run(temp.path(), &["convert", ".", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let fault = "another process is converting it: not converted";
    assert_eq!(json(&output)["faults"], serde_json::json!([fault]));
    recording.end();
    std::thread::sleep(Duration::from_millis(200));
    let name = format!("{}_custom.jsonl", recording.id);
    assert!(!temp.path().join(&name).exists());
    assert_eq!(recording.state(), "live", "it has ended but not converted");
    drop(guard);
    assert!(recording.child.wait().unwrap().success());
    let text = std::fs::read_to_string(temp.path().join(name)).unwrap();
    assert_eq!(text.lines().count(), 2);
}
