//! Stress rules as a program meets them: what fires and what does not, in a session and afterwards
//! over its segments and lines, and over lines of the old loggers.
#![cfg(feature = "cli")]

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/tool.rs"]
mod tool;

use std::path::Path;
use std::time::Duration;

use closed::lines_of;
use serde_json::Value as Json;
use stormlog::record::catalog::{orchestrator, proxy};
use stormlog::record::{DurationMs, Extra, Name, Symbol};
use stormlog::{Conversion, Log, SessionBuilder, symbol};

const NS: Duration = Duration::from_nanos(1);

/// Records with `record`, and returns the lines of category `stress`.
fn events_of(builder: SessionBuilder, record: impl FnOnce(&Log)) -> Vec<Json> {
    let temp = tempfile::tempdir().unwrap();
    // A deadline of a test, not of the engine.
    let deadline = Duration::from_secs(60);
    let session = builder
        .close_deadline(deadline)
        .dir(temp.path())
        .start()
        .unwrap();
    record(&session.log());
    let report = session.close().unwrap();
    assert!(
        report.ledger.is_exact() && report.faults.is_empty(),
        "{report:?}"
    );
    if let Some(stress) = report.ledger.categories.get("stress") {
        assert_eq!(stress.offered(), stress.written());
    }
    lines_of(&report, "stress")
}

fn ruled() -> SessionBuilder {
    recording::builder().sampling(false).stress_rules(true)
}

fn types(events: &[Json]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["event_type"].as_str().unwrap())
        .collect()
}

fn start(log: &Log, operation: Name<'_>, duration_ms: Option<Duration>) {
    log.push(&orchestrator::Provisioning {
        operation,
        container_id: Some("4f6c0a"),
        duration_ms,
        success: true,
        error: None,
    });
}

fn request(log: &Log, duration_ms: Duration, extras: &[Extra<'_>]) {
    let record = proxy::Request {
        method: symbol!("GET"),
        path: "/ace/getstream",
        duration_ms,
        status_code: 200,
        ace_id: "{id: 0123}",
    };
    log.push_with(&record, extras);
}

#[test]
fn a_limit_is_not_over_the_limit_and_a_nanosecond_more_is() {
    let events = events_of(ruled(), |log| {
        let container = symbol!("start_container_success");
        let acestream = symbol!("start_acestream_success");
        for (operation, seconds) in [(container, 12.5), (acestream, 17.5)] {
            let limit = Duration::from_secs_f64(seconds);
            start(log, symbol!("start_container_begin"), None);
            start(log, operation, Some(limit));
            start(log, operation, Some(limit + NS));
            // Still the same episode.
            start(log, operation, Some(limit * 2));
            start(log, operation, Some(limit));
            start(log, operation, Some(NS));
        }
        for ns in [0, 1, 2, 0, 0] {
            request(log, Duration::from_secs(5) + NS * ns, &[]);
        }
        for ns in [0, 1, 2, 0, 0] {
            log.push(&proxy::EngineSelection {
                operation: symbol!("select_best_engine"),
                selected_host: symbol!("gluetun"),
                selected_port: 19_000,
                container_id: "4f6c0a",
                duration_ms: Duration::from_secs(2) + NS * ns,
                error: "",
            });
        }
    });
    let expected = [
        "slow_provisioning",
        "slow_acestream_provisioning",
        "slow_request",
        "slow_engine_selection",
    ];
    let cleared = expected.map(|name| format!("{name}_cleared"));
    let pairs = expected.iter().zip(&cleared);
    let both: Vec<&str> = pairs
        .flat_map(|(begin, end)| [*begin, end.as_str()])
        .collect();
    assert_eq!(types(&events), both);
    assert_eq!(events[0]["severity"], "warning");
    assert_eq!(events[0]["container_id"], "4f6c0a");
    assert_eq!(events[0]["duration"], 12.500_000_001);
    assert_eq!(events[0]["rule_seq"], 1);
    assert_eq!(events[1]["severity"], "info");
    assert_eq!(events[1]["records"], 2);
    assert_eq!(events[1]["worst"], 25.0);
    assert!(events[1]["episode_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(events[4]["path"], "/ace/getstream");
}

#[test]
fn the_time_to_the_first_byte_counts_where_it_is_known() {
    let events = events_of(ruled(), |log| {
        let hour = Duration::from_secs(3600);
        request(log, hour, &[Extra::new("ttfb_ms", 5_000.0)]);
        request(log, hour, &[Extra::new("ttfb_ms", 5_000.000_001)]);
        request(log, NS, &[Extra::new("ttfb_ms", 5_000.5)]);
        // Not known: the whole duration.
        request(log, hour, &[Extra::new("ttfb_ms", None::<f64>)]);
        request(log, hour, &[Extra::new("ttfb_ms", 4_999)]);
    });
    assert_eq!(types(&events), ["slow_request", "slow_request_cleared"]);
    assert_eq!(events[1]["records"], 3);
}

fn vpn(log: &Log, status: Name<'_>, name: &str) {
    let check = orchestrator::VpnCheck {
        operation: symbol!("health_check"),
        status,
        duration_ms: None,
    };
    log.push_with(&check, &[Extra::new("container_name", name)]);
}

#[test]
fn states_fire_when_they_change_each_for_itself() {
    let events = events_of(ruled(), |log| {
        let states = [
            "unhealthy",
            "healthy",
            "starting",
            "unhealthy",
            "not_running",
        ];
        for state in states {
            vpn(log, state.into(), "gluetun");
        }
        vpn(log, "healthy".into(), "gluetun-2");
        vpn(log, "unhealthy".into(), "gluetun-2");
        vpn(log, "starting".into(), "gluetun");
        vpn(log, "healthy".into(), "gluetun");
        // A transition tells the state before, where no check did.
        let change = orchestrator::VpnChange {
            operation: symbol!("transition"),
            status: symbol!("unhealthy"),
            duration_ms: None,
        };
        let extras = [
            Extra::new("old_status", "healthy"),
            Extra::new("new_status", "unhealthy"),
            Extra::new("container_name", "gluetun-3"),
        ];
        log.push_with(&change, &extras);
        let other = orchestrator::VpnChange {
            operation: symbol!("restart_engines"),
            status: symbol!("error"),
            duration_ms: None,
        };
        log.push(&other);
    });
    let names: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["event_type"].as_str().unwrap(),
                &event["container_name"],
            )
        })
        .collect();
    let (lost, back) = ("vpn_disconnection", "vpn_disconnection_cleared");
    let (one, two, three) = ("gluetun".into(), "gluetun-2".into(), "gluetun-3".into());
    assert_eq!(
        names,
        [(lost, &one), (lost, &two), (back, &one), (lost, &three)]
    );
    assert_eq!(events[0]["severity"], "critical");
}

#[test]
fn a_circuit_breaker_opens_once_and_opens_again_after_each_attempt() {
    let breaker = |log: &Log, state: Name<'_>, reason: Option<&str>| {
        let record = orchestrator::CircuitBreaker {
            operation_type: symbol!("unknown"),
            state,
            failure_count: 5,
        };
        log.push_with(&record, &[Extra::new("reason", reason)]);
    };
    let failed = Some("recovery_failed");
    let events = events_of(ruled(), |log| {
        for (state, reason) in [
            ("open", None),
            ("open", None),
            ("open", failed),
            ("closed", None),
            ("open", None),
            ("half_open", None),
            ("open", None),
            ("closed", None),
        ] {
            breaker(log, state.into(), reason);
        }
    });
    let (opened, reopened) = ("circuit_breaker_opened", "circuit_breaker_reopened");
    let end = |name: &str| format!("{name}_cleared");
    assert_eq!(
        types(&events),
        [
            opened,
            reopened,
            &end(opened),
            &end(reopened),
            opened,
            reopened,
            &end(opened),
            &end(reopened),
        ]
    );
}

fn provisioning(log: &Log, error: &str) {
    log.push(&proxy::Provisioning {
        operation: if error.is_empty() {
            symbol!("provision_success")
        } else {
            symbol!("provision_attempt_failed")
        },
        duration_ms: Duration::from_millis(12),
        success: error.is_empty(),
        error,
        retry_count: 3,
    });
}

#[test]
fn ratios_matches_and_rates_fire_by_their_definitions() {
    let events = events_of(ruled(), |log| {
        for unhealthy in [3, 4, 5, 3] {
            let cycle = orchestrator::Health {
                component: symbol!("health_monitor_cycle"),
                status: symbol!("completed"),
                ..Default::default()
            };
            let extras = [
                Extra::new("total_engines", 10),
                Extra::new("healthy", 10 - unhealthy),
                Extra::new("unhealthy", unhealthy),
            ];
            log.push_with(&cycle, &extras);
        }
        for status in ["healthy", "degraded", "degraded", "healthy"] {
            log.push(&proxy::OrchestratorHealth {
                status: status.into(),
                blocked_reason: "no VPN",
                ..Default::default()
            });
        }
        provisioning(log, "503: the circuit breaker is open");
        provisioning(log, "code circuit_breaker");
        for _ in 0..4 {
            provisioning(log, "no slot");
        }
    });
    assert_eq!(
        types(&events),
        [
            "high_unhealthy_engines",
            "high_unhealthy_engines_cleared",
            "orchestrator_degraded",
            "orchestrator_degraded_cleared",
            "provisioning_circuit_breaker",
            "provisioning_circuit_breaker_cleared",
            "high_provisioning_failure_rate",
        ]
    );
    assert_eq!(
        (&events[0]["unhealthy_count"], &events[0]["total"]),
        (&4.into(), &10.into())
    );
    assert_eq!(events[2]["blocked_reason"], "no VPN");
    assert_eq!(
        (&events[4]["attempt"], &events[4]["severity"]),
        (&3.into(), &"critical".into())
    );
    assert_eq!(
        (&events[6]["count"], &events[6]["window"]),
        (&6.into(), &"1m".into())
    );
    let slow = events_of(ruled(), |log| {
        for _ in 0..12 {
            request(log, Duration::from_secs(6), &[]);
        }
    });
    assert_eq!(types(&slow), ["slow_request", "high_slow_request_rate"]);
    assert_eq!(
        (&slow[1]["count"], &slow[1]["window"]),
        (&11.into(), &"1m".into())
    );
}

stormlog::record! {
    struct Query in "database" keep Sampled { operation: Symbol, duration_ms: DurationMs<2> }
}
stormlog::record! {
    struct Usage in "performance" keep Sampled { cpu_percent: f64, memory_percent: Option<f32> }
}

#[test]
fn web_applications_have_rules_of_their_own() {
    let builder = ruled().stress_on(["slow_get_request", "slow_static_request"]);
    let events = events_of(builder, |log| {
        for ms in [100, 101, 500, 501, 1000, 1001, 10] {
            let duration_ms = Duration::from_millis(ms);
            log.push(&Query {
                operation: symbol!("select"),
                duration_ms,
            });
        }
        for (cpu_percent, memory_percent) in [
            (80.0, Some(70.0)),
            (80.1, None),
            (75.0, Some(70.5)),
            (70.0, Some(65.5)),
            (70.0, Some(65.0)),
        ] {
            log.push(&Usage {
                cpu_percent,
                memory_percent,
            });
        }
        request(log, Duration::from_millis(501), &[]);
    });
    let end = |name: &str| format!("{name}_cleared");
    let (moderate, detailed) = ("slow_query_moderate", "slow_query_detailed");
    assert_eq!(
        types(&events),
        [
            moderate,
            detailed,
            &end(moderate),
            "slow_query",
            &end(detailed),
            &end("slow_query"),
            "high_cpu",
            "high_memory",
            &end("high_cpu"),
            &end("high_memory"),
            "slow_get_request",
        ]
    );
}

#[test]
fn without_rules_nothing_is_told() {
    let minute = Duration::from_secs(60);
    let quiet = |builder| {
        events_of(builder, |log| {
            (0..20).for_each(|_| request(log, minute, &[]));
        })
    };
    assert!(quiet(recording::builder().sampling(false)).is_empty());
    let off = ["slow_request", "high_slow_request_rate"];
    assert!(quiet(ruled().stress_off(off)).is_empty());
}

const EACH: &str = "\
[[rule]]
name = \"slow_request\"
episode = \"record\"
cooldown = \"0s\"
details = [\"worker=status_code\"]

[[rule]]
name = \"high_slow_request_rate\"
on = false
";

/// Threads push far more than their rings take: most is sampled out or dropped, and every slow
/// record is told.
#[test]
fn under_a_storm_every_slow_record_is_told() {
    const THREADS: i32 = 4;
    const EACH_SLOW: u64 = 200;
    let temp = tempfile::tempdir().unwrap();
    let rules = temp.path().join("rules.toml");
    std::fs::write(&rules, EACH).unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .ring_total_bytes(64 << 10)
        .always_wait_max(Duration::from_millis(100))
        .conversion(Conversion::Later)
        .stress_rules(true)
        .stress_rules_file(&rules)
        .start()
        .unwrap();
    std::thread::scope(|scope| {
        for worker in 0..THREADS {
            let log = session.log();
            scope.spawn(move || {
                for number in 0..EACH_SLOW * 100 {
                    let slow = number % 100 == 99;
                    let record = proxy::Request {
                        method: symbol!("GET"),
                        path: "/ace/getstream",
                        duration_ms: Duration::from_secs(if slow { 9 } else { 1 }),
                        status_code: worker,
                        ace_id: if number % 2 == 0 { "" } else { "{id: 0123}" },
                    };
                    match number % 3 {
                        0 => log.push(&record),
                        1 => log.push_lazy(|| record),
                        _ => log.push_with(&record, &[Extra::new("number", number)]),
                    };
                }
            });
        }
    });
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let requests = report.ledger.categories["requests"];
    let missing = requests.sampled_out() + requests.dropped_total();
    assert!(missing > requests.offered() / 100, "no storm: {requests:?}");
    // The session tells of its own pressure in the same category.
    let dir = report.segments.unwrap();
    let found = stormlog::segment::files::SessionFiles::find(&dir).unwrap();
    let mut told = [0_u64; THREADS as usize];
    let options = stormlog::convert::ConvertOptions::default();
    let faults = stormlog::convert::visit_records(&found[0], options, &mut |record| {
        if record.category != "stress" {
            return;
        }
        let mut worker = None;
        record
            .fields(&mut |name, value| {
                use stormlog::segment::records::ValueRef;
                if let (b"worker", ValueRef::I64(number)) = (name, value) {
                    worker = Some(number);
                }
            })
            .unwrap();
        if let Some(worker) = worker {
            told[worker as usize] += 1;
        }
    });
    assert!(faults.unwrap().is_empty());
    // A machine that stands still for a tenth of a second loses some, and counts them.
    let lost = report.ledger.categories["stress"].dropped_total();
    let sum: u64 = told.iter().sum();
    assert_eq!(sum + lost, EACH_SLOW * THREADS as u64, "{told:?}");
}

/// What is the same afterwards.
fn comparable(event: &Json) -> Json {
    let mut event = event.clone();
    let object = event.as_object_mut().unwrap();
    for name in [
        "session_id",
        "timestamp",
        "elapsed_seconds",
        "episode_seconds",
    ] {
        object.remove(name);
    }
    if event["event_type"].as_str().unwrap().ends_with("_cleared") {
        event["description"] = Json::Null;
    }
    event
}

fn stress_tool(dir: &Path, words: &[&str]) -> (Vec<Json>, String) {
    let output = tool::run(dir, words);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (events.collect(), errors)
}

#[test]
fn offline_tells_what_the_session_told() {
    let temp = tempfile::tempdir().unwrap();
    let session = ruled()
        .dir(temp.path())
        .keep_segments(true)
        .start()
        .unwrap();
    let log = session.log();
    let container = symbol!("start_container_success");
    for round in 0..40_u32 {
        let seconds = Duration::from_millis(u64::from(round) * 731 % 30_000);
        start(&log, container, Some(seconds));
        // Whole milliseconds: lines of the proxy have no digits behind them.
        let third = Duration::from_millis(seconds.as_millis() as u64 / 3);
        request(&log, third, &[Extra::new("request", round)]);
        vpn(
            &log,
            if round % 7 < 4 {
                "healthy"
            } else {
                "unhealthy"
            }
            .into(),
            "gluetun",
        );
        provisioning(
            &log,
            if round % 3 == 0 {
                "circuit_breaker"
            } else {
                ""
            },
        );
    }
    // Only segments have it to the nanosecond.
    let limit = Duration::from_millis(12_500);
    start(&log, container, Some(limit / 2));
    start(&log, container, Some(limit + NS));
    let report = session.close().unwrap();
    assert!(
        report.ledger.is_exact() && report.faults.is_empty(),
        "{report:?}"
    );
    let online = lines_of(&report, "stress");
    let online: Vec<Json> = online.iter().map(comparable).collect();
    assert!(online.len() > 30, "{online:?}");
    let (events, summary) = stress_tool(temp.path(), &["stress", "."]);
    let offline: Vec<Json> = events.iter().map(comparable).collect();
    assert_eq!(offline, online);
    assert!(events[0]["elapsed_seconds"].is_number());
    assert!(
        summary.contains(" in 162 records of 1 session: "),
        "{summary}"
    );
    // Lines have two digits of a millisecond: the last one is not over the limit in them.
    let files = ["provisioning", "requests", "vpn"];
    let files = files.map(|category| {
        let found = report
            .files
            .iter()
            .find(|file| file.category == category)
            .unwrap();
        found.path.to_str().unwrap()
    });
    let words = [&["stress"][..], &files].concat();
    let (events, _) = stress_tool(temp.path(), &words);
    let mut of_lines: Vec<Json> = events.iter().map(comparable).collect();
    let last = online
        .iter()
        .rposition(|event| event["event_type"] == "slow_provisioning");
    let mut expected = online;
    expected.remove(last.unwrap());
    // Events of one moment can stand in another order.
    for list in [&mut of_lines, &mut expected] {
        list.sort_by_key(ToString::to_string);
    }
    assert_eq!(of_lines, expected);
}

#[test]
fn lines_of_the_old_loggers_are_looked_at() {
    let temp = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).unwrap();
    let python = |ms: &str, operation: &str, at: u32| {
        format!(
            "{{\"session_id\": \"20251018_144523\", \"timestamp\": \
             \"2025-10-18T14:45:{at}.123456+00:00\", \"elapsed_seconds\": 0.1, \"operation\": \
             \"{operation}\", \"container_id\": null, \"duration_ms\": {ms}, \"success\": true}}\n"
        )
    };
    write(
        "20251018_144523_provisioning.jsonl",
        &[
            python("null", "start_container_begin", 23),
            python("12500.0", "start_container_success", 24),
            python("12500.01", "start_container_success", 25),
            python("264.04", "start_container_success", 36),
        ]
        .concat(),
    );
    let go = |ms: u64, at: u32| {
        format!(
            "{{\"ace_id\":\"{{id: 00ff}}\",\"duration_ms\":{ms},\"elapsed_seconds\":1.5,\
             \"method\":\"GET\",\"path\":\"/ace/getstream\",\"session_id\":\"20251018_164523\",\
             \"status_code\":200,\"timestamp\":\"2025-10-18T16:45:{at}.1234567Z\"}}\n"
        )
    };
    write(
        "20251018_164523_requests.jsonl",
        &[
            go(5000, 23),
            go(71_000, 24),
            go(447, 25),
            "{\"no\":1}\n".to_owned(),
        ]
        .concat(),
    );
    let output = tool::run(temp.path(), &["stress", "."]);
    let errors = String::from_utf8(output.stderr).unwrap();
    // The line without a time is named.
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("requests.jsonl:4: it has no timestamp"),
        "{errors}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Json> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        types(&events),
        [
            "slow_provisioning",
            "slow_provisioning_cleared",
            "slow_request",
            "slow_request_cleared"
        ]
    );
    assert_eq!(events[0]["duration"], 12.500_01);
    assert_eq!(events[0]["timestamp"], "2025-10-18T14:45:25.123456000Z");
    assert_eq!(events[1]["episode_seconds"], 11.0);
    assert_eq!(events[2]["session_id"], "20251018_164523");
    assert_eq!(events[2]["ace_id"], "{id: 00ff}");
    let words = [
        "stress",
        "--startup-timeout",
        "0.5",
        "--off",
        "slow_request",
        ".",
    ];
    let output = tool::run(temp.path(), &words);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("\"slow_provisioning\""), "{text}");
}

#[test]
fn what_is_wrong_with_rules_is_told_with_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let rules = temp.path().join("rules.toml");
    std::fs::write(
        &rules,
        "[[rule]]\nname = \"slow_query\"\nsevrity = \"info\"\n",
    )
    .unwrap();
    let builder = ruled().dir(temp.path()).stress_rules_file(&rules);
    let error = builder.start().unwrap_err().to_string();
    let place = format!("stress_rules={}: line 3: sevrity: ", rules.display());
    assert!(error.starts_with(&place), "{error}");
    std::fs::write(temp.path().join("20251018_144523_vpn.jsonl"), "").unwrap();
    let output = tool::run(temp.path(), &["stress", "--rules", "rules.toml", "."]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("rules.toml: line 3: sevrity: "), "{errors}");
    let unknown = recording::builder().stress_rules(true).stress_off(["slow"]);
    let error = unknown.dir(temp.path()).start().unwrap_err().to_string();
    assert!(
        error.starts_with("stress_off=slow: there is no such rule"),
        "{error}"
    );
}
