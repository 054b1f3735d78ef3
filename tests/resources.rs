//! The resource sampler: what it records, that it ends with its session, and that it is off unless
//! it is asked for.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::time::{Duration, Instant};

use closed::close_clean;
use stormlog::{Conversion, Session};

fn has_thread() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    // The kernel keeps 15 characters.
    names.flatten().any(|name| name.trim() == "stormlog-resour")
}

/// One test: it counts the threads of the process.
#[test]
fn resources_are_sampled_until_the_session_is_closed() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    assert!(!has_thread(), "off by default");
    assert!(!close_clean(session).contains_key("performance"));

    let interval = Duration::from_millis(100);
    let builder = recording::builder()
        .dir(temp.path())
        .resource_interval(interval);
    let session = builder.start().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let written = |session: &Session| {
        let ledger = session.stats();
        ledger
            .categories
            .get("performance")
            .map_or(0, stormlog::ledger::Account::offered)
    };
    while written(&session) < 3 {
        assert!(Instant::now() < deadline, "no sample came");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(has_thread());
    let lines = close_clean(session);
    assert!(!has_thread());
    let samples = &lines["performance"];
    for sample in samples {
        assert_eq!(sample["operation"], "resources");
        assert!(sample["rss_bytes"].as_u64().unwrap() > 1 << 20, "{sample}");
        assert!(sample["threads"].as_u64().unwrap() >= 4, "{sample}");
        assert!(sample["open_files"].as_u64().unwrap() >= 3, "{sample}");
        assert!(sample["disk_free_bytes"].is_u64(), "{sample}");
        assert!(sample["cpu_percent"].as_f64().unwrap() >= 0.0, "{sample}");
        let fields = sample.as_object().unwrap().values();
        assert!(
            fields.into_iter().all(|value| !value.is_null()),
            "left out, not null: {sample}"
        );
    }
    assert_eq!(lines["session"][0]["settings"]["resource_interval_s"], 0.1);

    // A long pause does not hold up the close, or the drop.
    for drops in [false, true] {
        let builder = recording::builder()
            .dir(temp.path())
            .conversion(Conversion::Later)
            .resource_interval(Duration::from_secs(3600));
        let session = builder.start().unwrap();
        // It gives itself its name.
        while !has_thread() {
            assert!(Instant::now() < deadline, "no thread");
            std::thread::yield_now();
        }
        let begin = Instant::now();
        if drops {
            drop(session);
        } else {
            session.close().unwrap();
        }
        assert!(!has_thread());
        assert!(begin.elapsed() < Duration::from_secs(600));
    }

    for wrong in [Duration::from_millis(1), Duration::from_secs(3601)] {
        let error = recording::builder()
            .dir(temp.path())
            .resource_interval(wrong)
            .start();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("resource_interval"), "{error}");
    }
}
