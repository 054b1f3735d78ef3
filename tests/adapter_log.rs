//! The backend against the real `log`.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use closed::{close_clean, names};
use log::kv::{Error, Key, Source, Value, VisitSource};
use log::{Level, LevelFilter, Log as _, Record};
use serde_json::json;
use stormlog::adapters::log::Recorder;
use stormlog::record::Category;

/// A source that fails in the middle.
struct Fails;

impl Source for Fails {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        visitor.visit_pair(Key::from("first"), Value::from(1))?;
        Err(Error::msg("on purpose"))
    }
}

/// One test: a process has one backend.
#[test]
fn records_keep_levels_targets_and_pairs() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let vpn = Category::named("vpn").unwrap();
    let recorder = Recorder::new(&session.log()).category("adapter::vpn", vpn);
    let own = recorder.clone();
    recorder.install(LevelFilter::Debug).unwrap();
    assert!(
        own.clone().install(LevelFilter::Trace).is_err(),
        "there is one already"
    );
    assert_eq!(log::max_level(), LevelFilter::Debug);

    let long = "x".repeat(20_000);
    log::info!(
        a = -1, b = u64::MAX, c = 1.5, d = true, e = "text", f:? = (1, 2), g = i128::MAX, n = (),
        session_id = "forged", uri = "/a?b=c", long = long.as_str(), password = "hunter2";
        "engine {}", "started"
    );
    log::trace!("not at this level");
    log::warn!(target: "adapter::vpn::check", "vpn");
    log::error!(target: "adapter::vpn", code = 7; "failed");
    own.log(
        &Record::builder()
            .args(format_args!("by hand"))
            .level(Level::Info)
            .target("t")
            .key_values(&Fails)
            .build(),
    );
    let lines = close_clean(session);
    let line = &lines["custom"][0];
    for (name, value) in [
        ("level", json!("INFO")),
        ("target", json!("adapter_log")),
        ("message", json!("engine started")),
        ("a", json!(-1)),
        ("b", json!(u64::MAX)),
        ("c", json!(1.5)),
        ("d", json!(true)),
        ("e", json!("text")),
        ("f", json!("(1, 2)")),
        ("field_session_id", json!("forged")),
        ("uri", json!("/a?[redacted]")),
        ("password", json!("[redacted]")),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert_eq!(line["g"].as_f64(), Some(i128::MAX as f64), "as a number");
    assert!(line["line"].is_u64() && line["module"].is_null());
    assert!(line["long"].as_str().unwrap().len() < 9000);
    assert_eq!(lines["vpn"][0]["message"], "vpn");
    assert_eq!(lines["vpn"][0]["module"], "adapter_log");
    assert_eq!(lines["errors"][0]["code"], 7);
    let by_hand = &lines["custom"][1];
    assert_eq!(names(by_hand), ["first", "level", "message", "target"]);
    // The session is closed.
    assert!(!own.enabled(&log::Metadata::builder().target("t").build()));
    log::info!("after");
    log::logger().flush();
}
