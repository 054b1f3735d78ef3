//! Operations: their two records, what ties them together, and those without an end.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};

use closed::{EVERY_LINE, close_clean, names};
use serde_json::{Value as Json, json};
use stormlog::context::Context;
use stormlog::record::{Category, DurationMs, Extra, Symbol};
use stormlog::span::{SpanEvent, SpanKind};

stormlog::record! {
    struct Step in "health" keep Sampled {
        component: Symbol,
        duration_ms: Option<DurationMs<6>>,
    }
}

/// A kind of this test's own.
enum Steps {}

impl SpanKind for Steps {
    type Record<'a> = Step<'a>;

    fn record(event: SpanEvent<'_>) -> Step<'_> {
        Step {
            component: event.operation,
            duration_ms: event.duration,
        }
    }
}

/// A line without what every line has.
fn bare(line: &Json) -> Json {
    let mut line = line.clone();
    for name in EVERY_LINE {
        line.as_object_mut().unwrap().remove(name);
    }
    line
}

fn field(line: &Json, name: &str) -> u64 {
    line[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name}: {line}"))
}

#[test]
fn an_operation_has_the_lines_of_the_old_loggers_and_an_id() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let fields = [Extra::new("has_custom_env", true)];
    let mut operation = log.provisioning().start_with("start_acestream", &fields);
    let id = operation.id();
    operation.set_subject("4f6c0a");
    operation.success(&[Extra::new("host_http_port", 6878_u16)]);
    let operation = log.provisioning().start("start_container");
    let failed = operation.id();
    operation.fail(std::fmt::Error, &[Extra::new("status", "exited")]);
    drop(log.performance().start("step"));
    let lines = close_clean(session);
    let provisioning = &lines["provisioning"];
    assert_eq!(
        bare(&provisioning[0]),
        json!({
            "operation": "start_acestream_begin", "container_id": null, "duration_ms": null,
            "success": true, "error": null, "operation_id": id, "has_custom_env": true,
        })
    );
    let duration = provisioning[1]["duration_ms"].as_f64().unwrap();
    assert_eq!(
        bare(&provisioning[1]),
        json!({
            "operation": "start_acestream_success", "container_id": "4f6c0a",
            "duration_ms": duration, "success": true, "error": null, "operation_id": id,
            "host_http_port": 6878,
        })
    );
    assert_eq!(bare(&provisioning[2])["operation"], "start_container_begin");
    let duration = &provisioning[3]["duration_ms"];
    assert_eq!(
        bare(&provisioning[3]),
        json!({
            "operation": "start_container_failed", "container_id": null, "duration_ms": duration,
            "success": false, "error": std::fmt::Error.to_string(), "operation_id": failed,
            "status": "exited",
        })
    );
    let step = &lines["performance"][1];
    assert_eq!(step["operation"], "step_abandoned");
    assert_eq!(
        (&step["success"], &step["error"]),
        (&json!(false), &json!("dropped"))
    );
    assert_eq!(step["category"], "performance");
}

/// The time of the end is the time of the begin and the duration: the same reading of the clock.
#[test]
fn end_time_and_duration_come_from_one_reading() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    for _ in 0..100 {
        let operation = log.operations::<Steps>().start("step");
        std::thread::yield_now();
        operation.success(&[]);
    }
    let durations = session.durations();
    let counted = durations
        .iter()
        .find(|one| one.operation.as_deref() == Some("step_success"));
    assert_eq!(counted.unwrap().histogram.count(), 100);
    let lines = close_clean(session);
    for pair in lines["health"].chunks(2) {
        let seconds = |line: &Json| line["elapsed_seconds"].as_f64().unwrap();
        let span = (seconds(&pair[1]) - seconds(&pair[0])) * 1e3;
        let duration = pair[1]["duration_ms"].as_f64().unwrap();
        // Both ends are rounded to ns; the map of time is bent by a few ppm.
        let error = (span - duration).abs();
        assert!(error < 5e-6 + 0.002 * span, "{span} ms, {duration} ms");
        assert!(duration > 0.0);
    }
}

#[test]
fn nested_operations_carry_the_id_of_the_outer_one() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let steps = log.operations::<Steps>();
    let outer = steps.start("outer");
    let inner = steps.start("inner");
    let deep = steps.start("deep");
    let (outer_id, inner_id) = (outer.id(), inner.id());
    // Not in the order in which they began.
    inner.success(&[]);
    let beside = steps.start("beside");
    let deep_id = deep.id();
    deep.success(&[]);
    let next = steps.start("next");
    next.success(&[]);
    beside.success(&[]);
    outer.success(&[]);
    steps.start("alone").success(&[]);
    // Deeper than any program: parents stay known, none is wrong.
    let many: Vec<_> = (0..40).map(|_| steps.start("many")).collect();
    let ids: BTreeSet<u64> = many.iter().map(stormlog::span::Span::id).collect();
    drop(many);
    steps.start("after").success(&[]);
    let lines = close_clean(session);
    let parents: BTreeMap<String, Option<u64>> = lines["health"]
        .iter()
        .filter(|line| !line["component"].as_str().unwrap().contains("many"))
        .map(|line| {
            let name = line["component"].as_str().unwrap().to_owned();
            (name, line["parent_operation_id"].as_u64())
        })
        .collect();
    for end in ["begin", "success"] {
        let parent = |name: &str| parents[&format!("{name}_{end}")];
        assert_eq!(parent("outer"), None);
        assert_eq!(parent("inner"), Some(outer_id));
        assert_eq!(parent("deep"), Some(inner_id));
        assert_eq!(parent("beside"), Some(deep_id));
        assert_eq!(parent("next"), parent("next"));
        assert_eq!(parent("alone"), None);
        assert_eq!(parent("after"), None);
    }
    for line in lines["health"]
        .iter()
        .filter(|line| line["component"] == "many_begin")
    {
        let parent = line["parent_operation_id"].as_u64();
        assert!(parent.is_none_or(|id| ids.contains(&id)), "{line}");
    }
}

/// What the lines of a killed program can say: this one is killed by not being run any further.
#[test]
fn a_begin_without_an_end_can_be_found() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    log.provisioning().start("whole").success(&[]);
    let lost = log.provisioning().start("lost");
    let lost_id = lost.id();
    std::mem::forget(lost);
    let lines = close_clean(session);
    let ids = |begins: bool| -> BTreeSet<u64> {
        let is_begin = |line: &&Json| {
            let operation = line["operation"].as_str().unwrap();
            operation.ends_with("_begin") == begins
        };
        let lines = lines["provisioning"].iter().filter(is_begin);
        lines.map(|line| field(line, "operation_id")).collect()
    };
    let open: Vec<u64> = ids(true).difference(&ids(false)).copied().collect();
    assert_eq!(open, [lost_id]);
}

#[test]
fn what_a_panic_drops_is_abandoned() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _operation = log.provisioning().start("start_container");
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    log.provisioning().start("start_acestream").success(&[]);
    let lines = close_clean(session);
    let lines = &lines["provisioning"];
    assert_eq!(lines[1]["operation"], "start_container_abandoned");
    assert_eq!(
        (&lines[1]["success"], &lines[1]["error"]),
        (&json!(false), &json!("panic"))
    );
    assert_eq!(lines[0]["operation_id"], lines[1]["operation_id"]);
    assert!(
        lines[2]["parent_operation_id"].is_null(),
        "it does not run any more"
    );
}

/// An error that panics or is endless must not hurt; a long name stays within its bounds.
#[test]
fn errors_and_names_are_bounded() {
    struct Endless;
    impl std::fmt::Display for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            loop {
                f.write_str("more ")?;
            }
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let name: &'static str = String::leak("n".repeat(300));
    let mut operation = log.provisioning().start(name);
    operation.set_subject(&"5".repeat(100));
    operation.fail(Endless, &[]);
    let lines = close_clean(session);
    let line = &lines["provisioning"][1];
    assert_eq!(line["operation"], format!("{}_failed", &name[..100]));
    assert_eq!(line["container_id"], "5".repeat(64));
    let error = line["error"].as_str().unwrap();
    assert!(
        error.starts_with("more more ") && error.len() <= 512,
        "{}",
        error.len()
    );
}

#[test]
fn what_is_off_when_it_begins_has_no_end() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let category = Category::named("provisioning").unwrap();
    for _ in 0..2 {
        session.set_category_on(category, false);
        let operation = log.provisioning().start("hidden");
        assert_eq!(operation.id(), 0);
        session.set_category_on(category, true);
        operation.success(&[]);
    }
    let operation = log.provisioning().start("seen");
    session.set_category_on(category, false);
    drop(operation);
    let nothing = stormlog::Log::disabled();
    drop(nothing.provisioning().start("nothing"));
    let late = session.log();
    let lines = close_clean(session);
    assert_eq!(lines["provisioning"].len(), 1);
    assert_eq!(lines["provisioning"][0]["operation"], "seen_begin");
    assert_eq!(late.provisioning().start("late").id(), 0);
}

#[test]
fn a_detached_operation_goes_to_other_threads() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let outer = log.performance().start("outer");
    let outer_id = outer.id();
    let detached = log.performance().start("task").detach();
    let id = detached.id();
    let steps = session.log();
    let task = detached.context().in_task(async move {
        steps.performance().start("in the task").success(&[]);
        detached.success(&[]);
    });
    log.performance().start("beside").success(&[]);
    std::thread::spawn(move || {
        let mut task = pin!(task);
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert_eq!(task.as_mut().poll(&mut cx), Poll::Ready(()));
    })
    .join()
    .unwrap();
    outer.success(&[]);
    let lines = close_clean(session);
    let parent = |name: &str| {
        let name = format!("{name}_success");
        let line = lines["performance"]
            .iter()
            .find(|line| line["operation"] == name.as_str());
        line.unwrap()["parent_operation_id"].as_u64()
    };
    assert_eq!(parent("in the task"), Some(id));
    assert_eq!(parent("task"), Some(outer_id));
    assert_eq!(parent("beside"), Some(outer_id));
}

/// Both records carry the context of the scope, behind the ids of the operation.
#[test]
fn operations_carry_the_context() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let scope = Context::new().request_id("r1").enter();
    log.operations::<Steps>()
        .start("step")
        .success(&[Extra::new("last", 1_u8)]);
    drop(scope);
    let lines = close_clean(session);
    let [begin, end] = &lines["health"][..] else {
        panic!("{lines:?}")
    };
    for line in [begin, end] {
        assert_eq!(line["request_id"], "r1");
        let all = names(line);
        assert!(all.contains(&"operation_id"), "{all:?}");
    }
    assert_eq!(end["last"], 1);
}

/// Under a fixed rate, as under pressure, both records of an operation stay, or none, with equal
/// weights; the ledger counts both.
#[test]
fn begin_and_end_are_sampled_together() {
    const COUNT: u64 = 2000;
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .sample_rate("health", 0.25)
        .sampling(false)
        .start()
        .unwrap();
    let log = session.log();
    for number in 0..COUNT {
        let operation = log.operations::<Steps>().start("step");
        operation.success(&[]);
        if number % 200 == 0 {
            session.flush().unwrap();
        }
    }
    let offered = session.stats().categories["health"];
    assert_eq!(offered.offered(), 2 * COUNT);
    let lines = close_clean(session);
    let mut weights: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for line in &lines["health"] {
        let of = weights.entry(field(line, "operation_id")).or_default();
        of.push(line["sample_weight"].as_f64().unwrap());
    }
    assert!((300..700).contains(&weights.len()), "{}", weights.len());
    assert!(weights.values().all(|weights| *weights == [4.0, 4.0]));
}
