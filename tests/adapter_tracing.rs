//! The layer against the real `tracing`: what becomes a record, of which category and types.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::fmt;

use closed::{Lines, close_clean, names};
use serde_json::json;
use stormlog::adapters::tracing::RecordLayer;
use stormlog::context::Context;
use stormlog::record::Category;
use tracing::{debug, error, info, info_span, trace, warn};
use tracing_subscriber::layer::SubscriberExt;

/// What a session has of what `run` does.
fn lines_of(run: impl FnOnce()) -> Lines {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let layer =
        RecordLayer::new(&session.log()).category("adapter::vpn", Category::named("vpn").unwrap());
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, run);
    close_clean(session)
}

struct Shown;

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("debug")
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("display")
    }
}

#[test]
fn fields_keep_their_types() {
    let lines = lines_of(|| {
        let error: &(dyn std::error::Error + 'static) = &std::fmt::Error;
        info!(
            a = -1_i64,
            b = u64::MAX,
            c = 1.5,
            d = true,
            e = "text",
            f = ?Shown,
            g = %Shown,
            h = i128::MIN,
            i = error,
            dotted.name = 7_u8,
            missing = tracing::field::Empty,
            "a {} message",
            "formatted"
        );
    });
    let line = &lines["custom"][0];
    assert_eq!(
        names(line).len(),
        13,
        "level, target, message and the ten fields that have values: {line}"
    );
    for (name, value) in [
        ("level", json!("INFO")),
        ("target", json!("adapter_tracing")),
        ("message", json!("a formatted message")),
        ("a", json!(-1)),
        ("b", json!(u64::MAX)),
        ("c", json!(1.5)),
        ("d", json!(true)),
        ("e", json!("text")),
        ("f", json!("debug")),
        ("g", json!("display")),
        ("i", json!(std::fmt::Error.to_string())),
        ("dotted.name", json!(7)),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert_eq!(line["h"].as_f64(), Some(i128::MIN as f64), "as a number");
}

#[test]
fn targets_and_levels_choose_the_category() {
    let lines = lines_of(|| {
        trace!("1");
        debug!(target: "adapter::vpn::check", "2");
        warn!(target: "sqlx::query", elapsed_secs = 0.25, db.statement = "select 1", "3");
        debug!(target: "tower_http::trace::on_response", latency = %"12 ms", status = 200, "4");
        error!(target: "sqlx::query", "5");
        error!("6");
    });
    let told = |category: &str| -> Vec<(String, String)> {
        let text = |line: &serde_json::Value, name| line[name].as_str().unwrap().to_owned();
        let of = lines[category].iter();
        of.map(|line| (text(line, "level"), text(line, "message")))
            .collect()
    };
    let pair = |level: &str, message: &str| (level.to_owned(), message.to_owned());
    assert_eq!(told("custom"), [pair("TRACE", "1")]);
    assert_eq!(told("vpn"), [pair("DEBUG", "2")]);
    assert_eq!(told("database"), [pair("WARN", "3")]);
    assert_eq!(told("requests"), [pair("DEBUG", "4")]);
    assert_eq!(told("errors"), [pair("ERROR", "5"), pair("ERROR", "6")]);
    assert_eq!(lines["database"][0]["duration_ms"], 250.0);
    assert_eq!(lines["database"][0]["db.statement"], "select 1");
    assert_eq!(lines["requests"][0]["duration_ms"], 12.0);
    assert_eq!(lines["errors"][0]["target"], "sqlx::query");
}

#[test]
fn spans_have_begin_and_end_and_tie_their_events() {
    let lines = lines_of(|| {
        let outer = info_span!("outer", port = 1, late = tracing::field::Empty);
        let _entered = outer.enter();
        info!("inside");
        info_span!("inner").in_scope(|| info!("deep"));
        outer.record("late", "value");
        outer.record("late", "newer");
    });
    let lines = &lines["custom"];
    let of = |name: &str| {
        let is_it =
            |line: &&serde_json::Value| line["operation"] == name || line["message"] == name;
        lines
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    let (begin, end) = (of("outer_begin"), of("outer_end"));
    assert_eq!(begin["operation_id"], end["operation_id"]);
    assert!(begin["parent_operation_id"].is_null() && begin["duration_ms"].is_null());
    assert_eq!((&begin["port"], &end["late"]), (&json!(1), &json!("newer")));
    assert!(end["duration_ms"].as_f64().unwrap() >= 0.0);
    assert_eq!(of("inside")["operation_id"], begin["operation_id"]);
    let inner = of("inner_begin");
    assert_eq!(inner["parent_operation_id"], begin["operation_id"]);
    assert_eq!(
        of("inner_end")["parent_operation_id"],
        begin["operation_id"]
    );
    assert_eq!(of("deep")["operation_id"], inner["operation_id"]);
    assert_eq!(lines.len(), 6);
}

#[test]
fn operations_belong_to_the_span_that_is_entered() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let subscriber = tracing_subscriber::registry().with(RecordLayer::new(&log));
    tracing::subscriber::with_default(subscriber, || {
        let span = info_span!("span");
        span.in_scope(|| {
            let operation = log.performance().start("step");
            info_span!("within").in_scope(|| ());
            operation.success(&[]);
        });
        log.performance().start("after").success(&[]);
    });
    let lines = close_clean(session);
    let span = &lines["custom"][0];
    let steps = &lines["performance"];
    assert_eq!(steps[0]["parent_operation_id"], span["operation_id"]);
    assert!(steps[2]["parent_operation_id"].is_null());
    // The tracing span that has a parent of its own kind belongs to that.
    assert_eq!(
        lines["custom"][1]["parent_operation_id"],
        span["operation_id"]
    );
}

#[test]
fn events_carry_the_context() {
    let lines = lines_of(|| {
        let _scope = Context::new().request_id("r1").enter();
        info!("here");
        error!("there");
    });
    assert_eq!(lines["custom"][0]["request_id"], "r1");
    assert_eq!(lines["errors"][0]["request_id"], "r1");
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}

/// Logs while it is being logged: `tracing` itself delivers that to nobody.
struct Logs;

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!(inner = true, "from within");
        f.write_str("logged")
    }
}

#[test]
fn hostile_values_are_harmless() {
    let lines = lines_of(|| {
        let long = "\u{202e}\"\n".repeat(100_000);
        info!(session_id = "forged", timestamp = 1, level = "mine", "a");
        info!(long, panics = ?Panics, logs = ?Logs, "b");
        let span = info_span!("c", logs = ?Logs, late = tracing::field::Empty);
        span.record("late", tracing::field::debug(Logs));
        info!(
            uri = "/a?token=x", http.url = "http://u:p@h/?k=v", headers = ?["cookie: x"],
            authorization = "Bearer abcdefghijklmnop", "d"
        );
    });
    let of = |message: &str| {
        let found = lines["custom"]
            .iter()
            .find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no {message}"))
    };
    let forged = of("a");
    assert_ne!(forged["session_id"], "forged");
    assert_eq!(forged["field_session_id"], "forged");
    assert_eq!(
        (&forged["level"], &forged["field_level"]),
        (&json!("INFO"), &json!("mine"))
    );
    let line = of("b");
    assert_eq!(line["panics"], "[panicked]");
    assert_eq!(line["logs"], "logged");
    assert!(line["long"].as_str().unwrap().len() < 9000);
    let secrets = of("d");
    assert_eq!(secrets["uri"], "/a?[redacted]");
    assert_eq!(secrets["http.url"], "http://u:[redacted]@h/?[redacted]");
    assert_eq!(secrets["headers"], "[redacted]");
    assert_eq!(secrets["authorization"], "[redacted]");
}

/// The end of a span inside of another one has the most fields of all.
#[test]
fn the_end_of_a_span_tells_of_fields_that_are_left_out() {
    use tracing::field::Empty;
    let lines = lines_of(|| {
        let _outer = info_span!("outer").entered();
        let span = info_span!(
            "inner",
            f0 = Empty,
            f1 = Empty,
            f2 = Empty,
            f3 = Empty,
            f4 = Empty,
            f5 = Empty,
            f6 = Empty,
            f7 = Empty,
            f8 = Empty,
            f9 = Empty,
            f10 = Empty,
            f11 = Empty,
            f12 = Empty,
            f13 = Empty,
            f14 = Empty,
            f15 = Empty,
            f16 = Empty,
            f17 = Empty,
            f18 = Empty,
            f19 = Empty,
            f20 = Empty,
            f21 = Empty,
            f22 = Empty,
            f23 = Empty,
            f24 = Empty,
            f25 = Empty,
            f26 = Empty,
            f27 = Empty,
            f28 = Empty,
            f29 = Empty,
            f30 = Empty,
            f31 = Empty,
            f32 = Empty,
            f33 = Empty,
            f34 = Empty,
            f35 = Empty,
            f36 = Empty,
            f37 = Empty,
            f38 = Empty,
            f39 = Empty,
        );
        for number in 0..40 {
            span.record(&*format!("f{number}"), number);
        }
    });
    let end = lines["custom"]
        .iter()
        .find(|line| line["operation"] == "inner_end");
    let end = end.unwrap();
    assert_eq!((&end["f31"], &end["f32"]), (&json!(31), &json!(null)));
    assert_eq!(end["fields_left_out"], 8, "{end}");
}

#[test]
fn nothing_is_recorded_after_the_session() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let layer = RecordLayer::new(&session.log());
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let custom = Category::custom();
        session.set_category_on(custom, false);
        let off = info_span!("off");
        info!("off");
        session.set_category_on(custom, true);
        drop(off);
        let span = info_span!("running");
        let lines = close_clean(session);
        assert_eq!(lines["custom"].len(), 1);
        assert_eq!(lines["custom"][0]["operation"], "running_begin");
        drop(span);
        info!("after");
    });
}
