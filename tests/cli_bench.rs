//! `stormlog bench overhead` as a user runs it. Nothing here depends on how long anything takes:
//! verdicts are on pairs that were made up.
#![cfg(feature = "cli")]

#[path = "support/tool.rs"]
mod tool;

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tool::{json, run};

/// Some work, so that a script has a processor time.
const WORK: &str = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done";

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
}

/// Pairs in which one side takes this much more, with some noise that adds up to nothing.
fn pairs(dir: &Path, kind: &Json, blocks: u64, more: f64, noise: f64) -> String {
    let blocks = (0..blocks).map(|index| {
        let noise = if index % 2 == 0 { noise } else { -noise };
        let cpu = |side: u64| match side {
            0 => 1e9,
            _ => 1e9 * (1.0 + more) * (1.0 + noise),
        };
        let run = |side: u64| {
            json!({
                "side": side, "wall_ns": 500_000_000, "cpu_ns": cpu(side) as u64,
                "records": side * 1_000_000, "written": side * 1_000_000,
            })
        };
        Json::from([0, 1, 1, 0].map(run).to_vec())
    });
    let data = json!({
        "form": "stormlog-overhead-1",
        "workload": "made up",
        "kind": kind,
        "sides": ["off", "on"],
        "settings": {},
        "looks": [],
        "blocks": blocks.collect::<Vec<_>>(),
    });
    fs::write(dir.join("pairs.json"), data.to_string()).unwrap();
    "pairs.json".to_owned()
}

fn from(dir: &Path, words: &[&str]) -> Output {
    let mut all = vec!["bench", "overhead", "--from", "pairs.json"];
    all.extend(words);
    run(dir, &all)
}

#[test]
fn the_exit_code_is_the_verdict() {
    let dir = TempDir::new().unwrap();
    let burn = json!({ "burn_ppm": 20_000 });
    let (recording, same) = (json!("recording"), json!("same"));
    for (kind, more, noise, code, verdict) in [
        (&recording, 0.005, 0.004, 0, "under 1.00 %."),
        (&recording, 0.020, 0.004, 1, "over 1.00 %."),
        (&recording, 0.005, 0.050, 3, "undecided: about "),
        (&burn, 0.020, 0.004, 1, "over 1.00 %."),
        (&burn, 0.005, 0.004, 0, "under 1.00 %."),
        (&same, 0.000, 0.002, 0, "no effect"),
        (&same, 0.010, 0.002, 1, "an effect where there is none"),
        (&same, 0.000, 0.050, 3, "undecided: about "),
    ] {
        pairs(dir.path(), kind, 40, more, noise);
        let output = from(dir.path(), &[]);
        assert_code(&output, code);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(verdict), "{verdict}: {text}");
    }
}

#[test]
fn a_limit_of_the_users_own_counts() {
    let dir = TempDir::new().unwrap();
    pairs(dir.path(), &json!("recording"), 40, 0.02, 0.004);
    assert_code(&from(dir.path(), &["--limit", "3%"]), 0);
    assert_code(&from(dir.path(), &["--limit", "0.1%"]), 1);
    // The pairs say nothing of a steady part.
    assert_code(&from(dir.path(), &["--metric", "steady-cpu"]), 2);
}

#[test]
fn report_and_picture_are_files() {
    let dir = TempDir::new().unwrap();
    pairs(dir.path(), &json!("recording"), 40, 0.02, 0.004);
    let words = [
        "--json",
        "report.json",
        "--svg",
        "plot.svg",
        "--rival",
        "other=1000",
    ];
    assert_code(&from(dir.path(), &words), 1);
    let text = fs::read(dir.path().join("report.json")).unwrap();
    let report: Json = serde_json::from_slice(&text).unwrap();
    assert_eq!(report["verdict"], "over");
    assert_eq!(report["pairs"], 80);
    assert_eq!(report["confidence"], 0.975);
    let overhead = &report["comparisons"][0]["overhead"]["cpu"];
    let mean = overhead["centre"].as_f64().unwrap();
    assert!((mean - 0.02).abs() < 1e-4, "{overhead}");
    assert_eq!(report["rates"][1]["name"], "other");
    let rate = report["rates"][1]["records_per_cpu_second"]["centre"]
        .as_f64()
        .unwrap();
    assert!((rate - 10_000.0).abs() < 1e-6, "{rate}");
    assert!(
        fs::read_to_string(dir.path().join("plot.svg"))
            .unwrap()
            .contains("<circle")
    );
    // The raw pairs are in the report.
    fs::write(dir.path().join("pairs.json"), report["data"].to_string()).unwrap();
    let again = json(&from(dir.path(), &["--json", "-", "--rival", "other=1000"]));
    assert_eq!(
        again, report,
        "the same pairs and the same seed are the same report"
    );
}

#[test]
fn pairs_that_cannot_be_read_are_refused() {
    let dir = TempDir::new().unwrap();
    assert_code(&from(dir.path(), &[]), 2);
    for bad in ["", "{}", "{\"form\":\"stormlog-overhead-1\"}"] {
        fs::write(dir.path().join("pairs.json"), bad).unwrap();
        assert_code(&from(dir.path(), &[]), 2);
    }
}

#[test]
fn the_pool_runs_with_every_recorder_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let words = [
        "bench",
        "overhead",
        "--pairs",
        "2",
        "--run-ms",
        "5",
        "--threads",
        "2",
        "--rate",
        "20000",
        "--dir",
        ".",
        "--json",
        "-",
    ];
    let output = run(dir.path(), &words);
    // Two pairs decide nothing.
    assert_code(&output, 3);
    let report = json(&output);
    let sides: Vec<_> = report["sides"].as_array().unwrap().iter().collect();
    let names: Vec<_> = sides
        .iter()
        .map(|side| side["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["off", "stormlog", "serde_json, locked"]);
    for (side, records) in sides.into_iter().zip([0, 400, 400]) {
        assert_eq!(
            (&side["units"], &side["records"]),
            (&json!(400), &json!(records))
        );
        assert_eq!(side["written"], records, "{side}");
    }
    for run in report["data"]["blocks"][0].as_array().unwrap() {
        // The first quarter of its 100 units comes before the steady part of a thread.
        let steady = if run["side"] == 0 { 0 } else { 150 };
        assert_eq!(run["window"]["records"], steady, "{run}");
    }
    assert_eq!(report["pairs_missing"], 14);
    assert_eq!(report["holds"], Json::Null);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_burn_of_the_pool_is_counted_in_steps() {
    let dir = TempDir::new().unwrap();
    let words = [
        "bench",
        "overhead",
        "--pairs",
        "2",
        "--run-ms",
        "5",
        "--threads",
        "1",
        "--rate",
        "20000",
        "--dir",
        ".",
        "--json",
        "-",
        "--inject",
        "2%",
    ];
    let report = json(&run(dir.path(), &words));
    let runs = report["data"]["blocks"][0].as_array().unwrap();
    let steps = report["data"]["settings"]["steps"].as_u64().unwrap();
    for run in runs {
        let burned = run["burned"].as_u64().unwrap_or(0);
        let wanted = if run["side"] == 0 {
            0
        } else {
            100 * steps / 50
        };
        assert_eq!(burned, wanted, "{run}");
        assert_eq!(run["records"], Json::Null, "nothing is recorded");
    }
}

#[test]
fn pairs_are_collected_over_several_runs() {
    let dir = TempDir::new().unwrap();
    let words = |more: &[&'static str]| {
        let mut all = vec![
            "bench",
            "overhead",
            "--run-ms",
            "2",
            "--threads",
            "1",
            "--no-baseline",
        ];
        all.extend(["--dir", ".", "--append", "pairs.json"]);
        all.extend(more);
        run(dir.path(), &all)
    };
    let stored = || -> Json {
        let text = fs::read(dir.path().join("pairs.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    assert_code(&words(&["--pairs", "2", "--collect"]), 0);
    assert_eq!(stored()["looks"], json!([]));
    assert_code(&words(&["--pairs", "3"]), 3);
    assert_eq!(stored()["blocks"].as_array().unwrap().len(), 3);
    assert_eq!(stored()["looks"], json!([3]));
    // The same again is no new look; with more pairs it is.
    assert_code(&words(&["--pairs", "0"]), 3);
    assert_eq!(stored()["looks"], json!([3]));
    assert_code(&words(&["--pairs", "2"]), 3);
    assert_eq!(stored()["looks"], json!([3, 4]));
    // Pairs of something else are not mixed with these.
    assert_code(&words(&["--pairs", "2", "--rate", "5"]), 2);
    assert_eq!(stored()["blocks"].as_array().unwrap().len(), 4);
}

#[test]
fn a_command_of_the_users_own_is_compared() {
    let dir = TempDir::new().unwrap();
    let overhead = |command: &str, more: &[&str]| {
        let mut all = vec![
            "bench",
            "overhead",
            "--pairs",
            "2",
            "--dir",
            ".",
            "--command",
            command,
        ];
        all.extend(more);
        run(dir.path(), &all)
    };
    let honours = format!("{WORK}; [ $DEBUG_MODE = false ] || echo x > $DEBUG_LOG_DIR/x");
    assert_code(&overhead(&honours, &[]), 3);
    let ignores = overhead(WORK, &[]);
    assert_code(&ignores, 2);
    let errors = String::from_utf8_lossy(&ignores.stderr).into_owned();
    assert!(
        errors.contains("does it honour DEBUG_MODE=true?"),
        "{errors}"
    );
    assert_code(&overhead(WORK, &["--aa"]), 3);
    let burns = overhead(WORK, &["--inject", "2%"]);
    assert_code(&burns, 2);
    let errors = String::from_utf8_lossy(&burns.stderr).into_owned();
    assert!(errors.contains("BENCH_BURN_PPM"), "{errors}");
    let fails = overhead("echo oh no >&2; exit 3", &[]);
    assert_code(&fails, 2);
    assert!(String::from_utf8_lossy(&fails.stderr).contains("oh no"));
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let dir = TempDir::new().unwrap();
    for words in [
        &["--aa", "--inject", "2%"][..],
        &["--command", "x", "--rate", "5"],
        &["--collect"],
        &["--from", "x", "--append", "y"],
        &["--limit", "0"],
        &["--rival", "x"],
    ] {
        let all: Vec<_> = ["bench", "overhead"].iter().chain(words).copied().collect();
        assert_code(&run(dir.path(), &all), 2);
    }
}
