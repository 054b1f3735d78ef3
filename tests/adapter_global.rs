//! The layer in the subscriber of the whole process, where `tracing` does not keep events from
//! events.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::fmt;

use closed::close_clean;
use stormlog::adapters::tracing::RecordLayer;
use tracing::{info, info_span};
use tracing_subscriber::layer::SubscriberExt;

/// Logs while it is being logged.
struct Logs(&'static str);

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        info!("from within {}", self.0);
        f.write_str("logged")
    }
}

/// One test: the subscriber is the process's, and a scoped one in another thread would change what
/// `tracing` does.
#[test]
fn events_from_within_values_are_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let subscriber = tracing_subscriber::registry().with(RecordLayer::new(&session.log()));
    tracing::subscriber::set_global_default(subscriber).unwrap();
    info!(value = ?Logs("an event"), "outer");
    let span = info_span!("span", value = ?Logs("a span"), late = tracing::field::Empty);
    let entered = span.enter();
    span.record("late", tracing::field::debug(Logs("a field")));
    drop(entered);
    drop(span);
    let lines = close_clean(session);
    let told: Vec<_> = lines["custom"]
        .iter()
        .map(|line| {
            let name = line["message"].as_str().or(line["operation"].as_str());
            name.unwrap()
        })
        .collect();
    let expected = [
        "from within an event",
        "outer",
        "from within a span",
        "span_begin",
        "from within a field",
        "span_end",
    ];
    assert_eq!(told, expected);
    assert_eq!(lines["custom"][1]["value"], "logged");
    assert_eq!(lines["custom"][5]["late"], "logged");
}
