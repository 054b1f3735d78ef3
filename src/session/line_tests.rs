//! The estimate of the bytes of lines, which the disk bound hangs on, against the lines.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Session;
use crate::producer::Log;
use crate::record::catalog::{orchestrator, proxy};
use crate::record::{Category, Extra, LongText, Name, ShortText, Symbol, Value};

crate::record! {
    /// Record A of the benchmarks.
    struct RecordA in "line_test_a" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}
crate::record! {
    struct Long in "line_test_long" keep Sampled {
        text: LongText,
    }
}

fn symbol(text: &str) -> Name<'static> {
    Symbol::intern(text).unwrap().into()
}

type Push = Box<dyn Fn(&Log, u64)>;

/// Estimated bytes of lines per byte that they really have.
fn estimate(push: impl Fn(&Log, u64)) -> f64 {
    const RECORDS: u64 = 1000;
    let temp = tempfile::tempdir().unwrap();
    let session = Session::builder().dir(temp.path()).start().unwrap();
    session.flush().unwrap();
    let lines = || {
        let core = &session.live.as_ref().unwrap().core;
        core.space.lines.load(Relaxed)
    };
    let before = lines();
    for number in 0..RECORDS {
        push(&session.log(), number);
        if number % 64 == 0 {
            session.flush().unwrap();
        }
    }
    session.flush().unwrap();
    let estimated = lines() - before;
    let report = session.close().unwrap();
    let files = report
        .files
        .iter()
        .filter(|file| file.category != "session");
    let bytes: u64 = files.map(|file| file.path.metadata().unwrap().len()).sum();
    let accounts = report.ledger.categories.iter();
    let ours = accounts.filter(|(category, _)| *category != "session");
    assert_eq!(
        ours.map(|(_, account)| account.written()).sum::<u64>(),
        RECORDS
    );
    estimated as f64 / bytes as f64
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn estimate_of_lines_is_an_upper_one_and_not_more_than_twice() {
    let traceback =
        "Traceback (most recent call last):\n  File \"x.py\", line 7, in run\n".repeat(20);
    let open = Category::named("line_test_open").unwrap();
    let kinds: [(&str, Push); 12] = [
        (
            "record A",
            Box::new(|log, number| {
                log.push(&RecordA {
                    operation: symbol("bench_operation"),
                    id: "0123456789ab",
                    port: number as u16,
                    value: number as f64 / 7.0,
                    ok: true,
                });
            }),
        ),
        (
            "autoscaler",
            Box::new(|log, number| {
                log.push(&orchestrator::Autoscaler {
                    operation: symbol("scale_up"),
                    current_replicas: number as i64,
                    target_replicas: Some(number as i64 + 1),
                });
            }),
        ),
        (
            "health",
            Box::new(|log, number| {
                log.push(&orchestrator::Health {
                    component: symbol("engine"),
                    container_id: Some("3f9a0c7b12de"),
                    status: symbol("healthy"),
                    duration_ms: Some(Duration::from_nanos(number * 12_345)),
                    error: None,
                });
            }),
        ),
        (
            "provisioning",
            Box::new(|log, number| {
                log.push(&orchestrator::Provisioning {
                    operation: symbol("start_container"),
                    container_id: Some("3f9a0c7b12de"),
                    duration_ms: Some(Duration::from_nanos(number * 12_345)),
                    success: false,
                    error: Some("No such image: registry/engine:latest"),
                });
            }),
        ),
        (
            "failure",
            Box::new(move |log, _| {
                log.push(&orchestrator::Failure {
                    component: symbol("monitor"),
                    operation: None,
                    error_type: symbol("ValueError"),
                    error_message: "not enough values to unpack",
                    traceback: Some(&traceback),
                });
            }),
        ),
        (
            "request",
            Box::new(|log, number| {
                log.push(&proxy::Request {
                    method: symbol("GET"),
                    path: "/ace/getstream",
                    duration_ms: Duration::from_millis(number),
                    status_code: 200,
                    ace_id: "dd1e67078381739d14beca697356ab76d49d1a2d",
                });
            }),
        ),
        (
            "orchestrator health",
            Box::new(|log, number| {
                log.push(&proxy::OrchestratorHealth {
                    status: symbol("healthy"),
                    can_provision: true,
                    recovery_eta_seconds: 0,
                    vpn_connected: true,
                    capacity_total: 50,
                    capacity_used: (number % 50) as i64,
                    capacity_available: 50,
                    ..Default::default()
                });
            }),
        ),
        (
            "stream",
            Box::new(|log, number| {
                log.push(&proxy::StreamEvent {
                    event_type: symbol("stream_started"),
                    stream_id: "dd1e67078381739d14beca697356ab76d49d1a2d",
                    engine_id: "engine-17",
                    duration_ms: Duration::from_millis(number),
                });
            }),
        ),
        (
            "open, one",
            Box::new(move |log, number| {
                log.event(open, &[Extra::new("number", number)]);
            }),
        ),
        (
            "open, many",
            Box::new(move |log, number| {
                let extra = |key, value| Extra { key, value };
                log.event(
                    open,
                    &[
                        extra(symbol("number_of_streams"), Value::U64(number)),
                        extra(symbol("success"), Value::Bool(true)),
                        extra(symbol("is_forwarded"), Value::Bool(false)),
                        extra(symbol("last_error"), Value::Null),
                        extra(symbol("mean_duration"), Value::F64(number as f64 / 7.0)),
                        extra(symbol("container"), Value::Text("3f9a0c7b12de")),
                    ],
                );
            }),
        ),
        (
            "open, long text",
            Box::new(move |log, number| {
                let text = "{\"a\": [1, 2, 3], \"b\": \"c\"} ".repeat(40);
                log.event(open, &[Extra::new("n", number), Extra::new("text", &*text)]);
            }),
        ),
        (
            "long text",
            Box::new(|log, number| {
                let text = "a long text of words and so on ".repeat(1 + number as usize % 60);
                log.push(&Long { text: &text });
            }),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, push) in kinds {
        let ratio = estimate(push);
        eprintln!("{name}: {ratio:.2}");
        if !(1.0..=2.0).contains(&ratio) {
            wrong.push(format!("{name}: {ratio:.2}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
