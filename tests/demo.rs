//! `stormlog demo` through the real engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::{Map, Value as Json};
use tempfile::TempDir;

fn stormlog(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.env_remove("DEBUG_LOG_DIR").env_remove("DEBUG_MODE");
    command.arg("demo").arg("--dir").arg(dir);
    command
}

fn run(command: &mut Command) -> Json {
    let output = command.arg("--json").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All lines of one side, by category, as they stand.
fn lines(session: &Json) -> BTreeMap<String, Vec<Map<String, Json>>> {
    let files = session["files"].as_array().unwrap();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file["path"].as_str().unwrap()).unwrap();
            let lines: Vec<_> = text
                .lines()
                .map(|line| serde_json::from_str::<Map<_, _>>(line).unwrap())
                .collect();
            assert_eq!(file["lines"], lines.len());
            (file["category"].as_str().unwrap().to_owned(), lines)
        })
        .collect()
}

/// What a seed decides of the lines: everything but session and time, in any order.
fn content(session: &Json) -> BTreeMap<String, Vec<String>> {
    let mut all = lines(session);
    all.remove("session");
    let content = all.into_iter().map(|(category, lines)| {
        let mut texts: Vec<_> = lines
            .into_iter()
            .map(|mut line| {
                for name in ["session_id", "timestamp", "elapsed_seconds"] {
                    assert!(line.remove(name).is_some(), "{category}: no {name}");
                }
                Json::Object(line).to_string()
            })
            .collect();
        texts.sort_unstable();
        (category, texts)
    });
    content.collect()
}

#[test]
fn two_sessions_with_exact_ledgers() {
    let dir = TempDir::new().unwrap();
    let report = run(&mut stormlog(&dir.path().join("logs")));
    let sessions = report["sessions"].as_array().unwrap();
    assert_ne!(sessions[0]["session_id"], sessions[1]["session_id"]);
    let mut records = 0;
    for session in sessions {
        assert_eq!(session["faults"], Json::Array(Vec::new()));
        assert_eq!(session["segments"], Json::Null);
        let lines = lines(session);
        for (category, account) in session["ledger"].as_object().unwrap() {
            assert_eq!(
                account["offered"], account["written"],
                "{category}: {account}"
            );
            let found = lines.get(category).map_or(0, Vec::len);
            assert_eq!(account["written"], found, "{category}");
            if category != "session" {
                records += found;
            }
        }
        for line in lines.values().flatten() {
            assert_eq!(line["session_id"], session["session_id"]);
        }
    }
    assert_eq!(report["push_ns"]["count"], records);
    assert_eq!(report["refused"], 0);
    let names = |side: usize| {
        let ledger = sessions[side]["ledger"].as_object().unwrap();
        ledger.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        names(0),
        [
            "circuit_breaker",
            "health",
            "provisioning",
            "session",
            "stress",
            "vpn"
        ]
    );
    assert_eq!(
        names(1),
        [
            "disconnects",
            "engine_selection",
            "orchestrator_health",
            "provisioning",
            "requests",
            "session",
            "streams",
            "stress"
        ]
    );
}

#[test]
fn a_seed_gives_the_same_records() {
    let dir = TempDir::new().unwrap();
    let seeded = |seed: &str, name: &str| {
        let mut command = stormlog(&dir.path().join(name));
        let report = run(command.args(["--seed", seed, "--duration", "120"]));
        let sessions = report["sessions"].as_array().unwrap();
        [content(&sessions[0]), content(&sessions[1])]
    };
    let first = seeded("5", "a");
    assert_eq!(first, seeded("5", "b"));
    assert_ne!(first, seeded("6", "c"));
}

#[test]
fn durations_have_the_digits_of_their_side() {
    let dir = TempDir::new().unwrap();
    let report = run(&mut stormlog(&dir.path().join("logs")));
    let sessions = report["sessions"].as_array().unwrap();
    let slow = |line: &&Map<String, Json>| line["event_type"] == "slow_acestream_provisioning";
    let orchestrator = lines(&sessions[0]);
    let stress: Vec<_> = orchestrator["stress"].iter().filter(slow).collect();
    assert_eq!(stress.len(), 1);
    assert_eq!(stress[0]["severity"], "warning");
    for line in &orchestrator["vpn"] {
        let duration = &line["duration_ms"];
        if let Some(ms) = duration.as_f64() {
            let cents = ms * 100.0;
            assert!((cents - cents.round()).abs() < 1e-6, "{duration}");
        }
    }
    for line in &lines(&sessions[1])["requests"] {
        assert!(line["duration_ms"].is_u64(), "{line:?}");
    }
}

#[test]
fn numbers_of_records_and_segments_are_as_asked() {
    let dir = TempDir::new().unwrap();
    let mut command = stormlog(&dir.path().join("logs"));
    let report = run(command.args(["--records", "3000", "--rate", "30000", "--keep-segments"]));
    let mut offered = 0;
    for session in report["sessions"].as_array().unwrap() {
        assert!(Path::new(session["segments"].as_str().unwrap()).is_dir());
        for (category, account) in session["ledger"].as_object().unwrap() {
            if category != "session" {
                offered += account["offered"].as_u64().unwrap();
            }
        }
    }
    assert_eq!(offered, 3_000);
}

/// Three sizes of rings. The smallest one, of 65 threads, loses records without waiting even in a
/// debug build.
#[test]
fn full_speed_loses_nothing() {
    for (threads, records) in [("1", "60000"), ("9", "60000"), ("65", "100000")] {
        let dir = TempDir::new().unwrap();
        let mut command = stormlog(&dir.path().join("logs"));
        let report = run(command.args(["--threads", threads, "--records", records]));
        assert_eq!(report["push_ns"]["count"].to_string(), records);
        for session in report["sessions"].as_array().unwrap() {
            assert!(session["wakes"].is_u64());
            for account in session["ledger"].as_object().unwrap().values() {
                assert_eq!(account["offered"], account["written"], "{account}");
            }
        }
    }
}

/// The three commands, run by a shell as they are printed.
#[test]
fn what_to_try_next_works() {
    let dir = TempDir::new().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_stormlog")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", bin.display());
    for (name, options, last) in [
        ("it's a", &["--duration", "60"][..], "stormlog replay "),
        (
            "b",
            &["--records", "9", "--keep-segments"],
            "stormlog inspect ",
        ),
    ] {
        let output = stormlog(&dir.path().join(name))
            .args(options)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Syscalls made by pushes: "), "{text}");
        let commands: Vec<_> = text.split_once("Try next\n").unwrap().1.lines().collect();
        assert!(
            commands[1].trim().starts_with("stormlog sessions "),
            "{text}"
        );
        assert!(commands[2].trim().starts_with(last), "{text}");
        for command in commands {
            let mut shell = std::process::Command::new("sh");
            let output = shell
                .args(["-c", command])
                .env("PATH", &path)
                .output()
                .unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command}: {errors}");
            assert!(!output.stdout.is_empty(), "{command}");
        }
    }
}

#[test]
fn what_it_prints_names_real_files() {
    let dir = TempDir::new().unwrap();
    let output = stormlog(&dir.path().join("logs"))
        .args(["--duration", "130"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.matches("every record is accounted for").count(),
        2,
        "{text}"
    );
    assert!(text.contains("\nPush: p50 "), "{text}");
    let commands = text.split_once("Try next\n").unwrap().1;
    assert_eq!(commands.lines().count(), 3);
    let paths = commands.split_whitespace().map(Path::new);
    for path in paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl")) {
        assert!(path.is_file(), "{}: {text}", path.display());
    }
}

/// The equations of a storm. How long calls took is not for a test to judge: a proof that fails
/// for that reason alone is as good.
#[test]
fn a_storm_loses_no_planted_event_and_accounts_for_all() {
    let dir = TempDir::new().unwrap();
    let (plot, samples) = (dir.path().join("storm.svg"), dir.path().join("storm.csv"));
    let output = stormlog(&dir.path().join("logs"))
        .args([
            "--storm",
            "--duration",
            "1",
            "--drain-kib",
            "2048",
            "--json",
        ])
        .args(["--seed", "3", "--threads", "6", "--stress-rate", "600"])
        .arg("--plot")
        .arg(&plot)
        .arg("--samples")
        .arg(&samples)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Json = serde_json::from_slice(&output.stdout).expect(&errors);
    let failed = report["failed"].as_array().unwrap();
    let timed = ["latency", "fair_share", "overload"];
    let wrong = failed
        .iter()
        .filter(|failure| !timed.contains(&failure["bar"].as_str().unwrap()));
    assert_eq!(wrong.count(), 0, "{failed:?}");
    let code = i32::from(!failed.is_empty());
    assert_eq!(output.status.code(), Some(code), "{failed:?}");
    assert_eq!(report["holds"], failed.is_empty());

    let number = |json: &Json| json.as_u64().unwrap_or_else(|| panic!("{json}"));
    let stress = &report["stress"];
    assert!(number(&stress["offered"]) > 600);
    assert_eq!(stress["offered"], stress["written"]);
    assert_eq!(number(&stress["missing"]) + number(&stress["twice"]), 0);
    for category in ["performance", "requests", "vpn", "stress"] {
        let (account, found) = (&report["ledger"][category], &report["categories"][category]);
        let dropped: u64 = account["dropped"]
            .as_object()
            .unwrap()
            .values()
            .map(number)
            .sum();
        let parts = number(&account["written"]) + number(&account["sampled_out"]) + dropped;
        assert_eq!(number(&account["offered"]), parts, "{category}: {account}");
        assert_eq!(account["written"], found["lines"], "{category}");
        assert_eq!(account["sampled_out"], found["truth"]["sampled_out"]);
        let own = if category == "stress" { 2 } else { 0 };
        assert_eq!(
            number(&account["offered"]),
            number(&found["truth"]["offered"]) + own
        );
        let [low, total, high] = ["low", "estimate", "high"].map(|n| found[n].as_f64().unwrap());
        assert!(low <= total && total <= high, "{found}");
    }
    assert!(number(&report["ledger"]["performance"]["sampled_out"]) > 0);
    assert_eq!(report["episodes"].as_array().unwrap().len(), 1);
    assert!(report["episodes"][0]["duration_ms"].as_f64().unwrap() > 0.0);

    let plot = fs::read_to_string(plot).unwrap();
    assert!(plot.starts_with("<svg ") && plot.trim_end().ends_with("</svg>"));
    let table = fs::read_to_string(samples).unwrap();
    let columns = |line: &str| line.split(',').count();
    let head = columns(table.lines().next().unwrap());
    assert!(table.lines().count() > 100);
    assert!(table.lines().all(|line| columns(line) == head));
    assert!(table.lines().any(|line| line.contains(",storm,")));
}
