//! A session that appends lines while it records, and has nothing to append: the thread for that
//! sleeps. In a process of its own, because threads are told apart by their names.

#[path = "support/recording.rs"]
mod recording;

use std::time::{Duration, Instant};

use stormlog::record::Category;

/// How often the thread of this name has gone to sleep.
fn sleeps(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let mut found = tasks.filter_map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        status
            .starts_with(&format!("Name:\t{name}\n"))
            .then_some(status)
    });
    let status = found.next().expect("there is such a thread");
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.unwrap().trim().parse().unwrap()
}

#[test]
fn a_session_without_records_does_not_wake_the_thread_that_appends() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .live(true)
        .start()
        .unwrap();
    let vpn = Category::named("vpn").unwrap();
    session.log().event(vpn, &[]);
    let path = temp.path().join(format!("{}_vpn.jsonl", session.id()));
    let end = Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(Instant::now() < end, "the line does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The last clock point comes within a second.
    std::thread::sleep(Duration::from_millis(2500));
    let before = sleeps("stormlog-live");
    std::thread::sleep(Duration::from_secs(3));
    let after = sleeps("stormlog-live");
    assert!(after - before <= 1, "{} wakes in 3 s", after - before);
    session.close().unwrap();
}
