//! What recording costs: a pool of threads, and a service that answers requests.
//!
//! `cargo bench --bench overhead` runs `stormlog bench overhead` for each workload;
//! `cargo bench --bench overhead -- http-500 --pairs 200` for one, with its options. The service
//! is this program again: `service` is the server (hyper, one thread), `client` its load, in a
//! process of its own. docs/BENCHMARKS.md has the method.

mod client;
#[path = "../support/cpu.rs"]
mod cpu;
mod service;

use std::process::{Command, ExitCode};

/// Workloads: name, and what `stormlog bench overhead` is told. `SERVICE` is this program.
const WORKLOADS: [(&str, &[&str]); 3] = [
    ("pool", &[]),
    // The documented rate of the services that record.
    ("http-500", &["SERVICE --rate 500 --records 1 --ms 3000"]),
    // 5,000 requests/s with ten records each.
    ("http-50000", &["SERVICE --rate 5000 --records 10 --ms 500"]),
];
/// What the run of `cargo test --benches` is satisfied with.
const SMOKE: [&str; 4] = ["--pairs", "2", "--limit", "1%"];

fn main() -> ExitCode {
    let mut words = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .peekable();
    match words.peek().map(String::as_str) {
        Some("service") => return service::main(words.skip(1)),
        Some("client") => return client::main(words.skip(1)),
        Some("--test") => {
            smoke();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let one = words.next_if(|word| WORKLOADS.iter().any(|(name, _)| name == word));
    let options: Vec<String> = words.collect();
    let mut worst = 0;
    for (name, workload) in WORKLOADS {
        if one.as_ref().is_some_and(|one| one != name) {
            continue;
        }
        println!("== {name}");
        let status = overhead(workload, &options)
            .status()
            .expect("stormlog can be run");
        worst = worst.max(status.code().unwrap_or(2));
        println!();
    }
    ExitCode::from(u8::try_from(worst).unwrap_or(2))
}

/// The command that compares a workload.
fn overhead(workload: &[&str], options: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.args(["bench", "overhead"]);
    if let [service] = workload {
        let program = std::env::current_exe().expect("this program has a path");
        let program = format!("'{}' service", program.display());
        let service = service.replace("SERVICE", &format!("exec {program}"));
        // The client is a child of the service: only the steady part is the service alone.
        command.args(["--command", &service, "--metric", "steady-cpu"]);
        if std::env::var_os("STORMLOG_CONVERSION").is_none() {
            command.env("STORMLOG_CONVERSION", "later");
        }
    }
    command.args(options);
    command
}

/// Each workload works, and what it records arrives; nothing is measured.
fn smoke() {
    for (name, workload) in WORKLOADS {
        let mut options: Vec<String> = SMOKE.map(str::to_owned).to_vec();
        options.extend(["--json", "-"].map(str::to_owned));
        let mut workload: Vec<String> = workload.iter().map(|word| (*word).to_owned()).collect();
        match workload.first_mut() {
            Some(service) => {
                let short = service.replace("--ms 3000", "--ms 100");
                *service = short.replace("--ms 500", "--ms 100");
            }
            None => options.extend(["--run-ms", "5"].map(str::to_owned)),
        }
        let workload: Vec<&str> = workload.iter().map(String::as_str).collect();
        let output = overhead(&workload, &options)
            .output()
            .expect("stormlog can be run");
        let errors = String::from_utf8_lossy(&output.stderr);
        // Two pairs decide nothing.
        assert_eq!(output.status.code(), Some(3), "{name}: {errors}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let sides = report["sides"].as_array().expect("sides");
        assert_eq!(sides[0]["records"], 0, "{name}: without recording");
        assert!(
            sides[1]["records"].as_u64() > Some(0),
            "{name}: with recording"
        );
        assert!(sides[0]["units"].as_u64() > Some(0), "{name}: it worked");
        println!("overhead/{name}: ok, checksum {}", sides[1]["units"]);
    }
}
