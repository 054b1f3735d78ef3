//! The sample service leaves the files that docs/ADAPTERS.md describes.

#[path = "support/closed.rs"]
mod closed;
#[path = "../examples/service.rs"]
#[allow(dead_code, reason = "its `main` is not called")]
mod service;

use std::collections::BTreeSet;

use closed::lines;
use serde_json::Value as Json;

/// One test: the backend of `log` and the hook for panics are the process's.
#[test]
fn the_sample_service_leaves_files_that_fit_together() {
    let temp = tempfile::tempdir().unwrap();
    let report = service::run(temp.path()).unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert!(report.ledger.is_exact());
    let lines = lines(&report);
    let of = |category: &str| {
        let lines = lines
            .get(category)
            .unwrap_or_else(|| panic!("no file of {category}"));
        assert!(!lines.is_empty(), "{category}");
        lines
    };
    // Those of the middleware, beside the events of tower_http.
    let is_request = |line: &&Json| line["outcome"].is_string();
    let requests: Vec<&Json> = of("requests").iter().filter(is_request).collect();
    assert_eq!(requests.len(), 15);
    let status = |path: &str| -> BTreeSet<u64> {
        let of_path = requests.iter().filter(|line| line["path"] == path);
        of_path
            .filter_map(|line| line["status_code"].as_u64())
            .collect()
    };
    assert_eq!(status("/health"), BTreeSet::from([200]));
    assert_eq!(status("/engines"), BTreeSet::from([200]));
    assert_eq!(status("/fail"), BTreeSet::from([500]));
    for line in &requests {
        assert!(
            line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
        assert_eq!(line["request_headers"]["authorization"], "[redacted]");
    }
    let tower_http = of("requests")
        .iter()
        .find(|line| line["target"] != Json::Null);
    assert_eq!(tower_http.unwrap()["request_id"], "client-0");
    // Everything that a request caused has its ids.
    for (category, name, value) in [
        ("database", "target", "sqlx::query"),
        ("stress", "event_type", "slow_get_request"),
        ("stress", "event_type", "slow_query_moderate"),
        ("stress", "event_type", "slow_function_moderate"),
        ("errors", "message", "cannot start an engine"),
        ("custom", "message", "engines listed"),
        ("provisioning", "operation", "start_acestream_failed"),
        ("performance", "operation", "load_everything_success"),
    ] {
        let found = of(category).iter().find(|line| line[name] == value);
        let line = found.unwrap_or_else(|| panic!("no {value} in {category}"));
        assert!(
            line["request_id"].as_str().unwrap().starts_with("client-"),
            "{line}"
        );
        assert_eq!(
            line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736",
            "{line}"
        );
        assert!(line["span_id"].is_string(), "{line}");
    }
    // Rules write every line of it, and number them.
    let is_of_a_rule = |line: &Json| line["rule_seq"].is_u64();
    assert!(of("stress").iter().all(is_of_a_rule), "{lines:?}");
    assert!(
        of("database")
            .iter()
            .all(|line| line["duration_ms"].as_f64().unwrap() > 0.0)
    );
    let resources = of("performance")
        .iter()
        .filter(|line| line["operation"] == "resources");
    assert!(resources.count() > 0);
    let text = format!("{lines:?}");
    assert!(!text.contains("hunter2") && !text.contains("not-for-the-files"));
}
