//! What the lines of a session whose process died have to hold.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value as Json;
use stormlog::ledger::{DropReason, Ledger};
use stormlog::recover::State;

use super::{Ending, Page, Plan, Told, check_of, duration_ns, recover};

/// What is in a file; nothing where there is none.
fn read(path: &Path) -> Vec<u8> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        bytes => bytes.unwrap(),
    }
}

/// Numbers by thread, in the order of each file, after a check of each line.
fn read_lines(plan: Plan, dir: &Path, id: &str) -> BTreeMap<(u32, &'static str), Vec<u64>> {
    let mut numbers: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for category in ["requests", "errors"] {
        let path = dir.join(format!("{id}_{category}.jsonl"));
        for line in String::from_utf8(read(&path)).unwrap().lines() {
            let line: Json = serde_json::from_str(line).unwrap();
            let thread = line["thread"].as_u64().unwrap() as u32;
            let number = line["number"].as_u64().unwrap();
            let text = plan.text(thread, number);
            assert_eq!(line["text"], text, "{plan:?}: torn");
            let check = check_of(thread, number, &text);
            assert_eq!(line["check"].as_u64(), Some(check), "{plan:?}: torn");
            let fits = category == "errors" || !plan.is_kept(thread, number);
            assert!(fits, "{plan:?}: in the wrong file");
            numbers.entry((thread, category)).or_default().push(number);
        }
    }
    numbers
}

/// Looks at what a killed process has appended while it recorded: at most the end of the last line
/// of each file is missing. Returns the lines.
pub fn check_live_lines(plan: Plan, dir: &Path, id: &str) -> u64 {
    let mut count = 0;
    for category in ["requests", "errors", "session"] {
        let path = dir.join(format!("{id}_{category}.jsonl"));
        let text = read(&path);
        assert!(plan.live || text.is_empty(), "{plan:?}: {category}");
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            let line: Result<Json, _> = serde_json::from_slice(line);
            assert!(line.is_ok(), "{plan:?}: {category}: {line:?}");
            count += 1;
        }
    }
    count
}

/// What the lines hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    pub records: u64,
    /// Normal records that were told of and are not there: only in a storm, and all counted.
    pub shed: u64,
}

/// Every record that was told of, once; in order; at most one more per thread.
pub fn check_lines(plan: Plan, dir: &Path, id: &str, page: &Page) -> Found {
    let numbers = read_lines(plan, dir, id);
    let mut found = Found::default();
    for thread in 0..plan.threads {
        let mut all: BTreeMap<u64, &str> = BTreeMap::new();
        for ((_, category), numbers) in numbers.iter().filter(|((of, _), _)| *of == thread as u32) {
            let ordered = numbers.is_sorted_by(|a, b| a < b);
            assert!(
                ordered,
                "{plan:?}: thread {thread}: {category}: {numbers:?}"
            );
            for number in numbers {
                let twice = all.insert(*number, category);
                assert_eq!(twice, None, "{plan:?}: thread {thread}: {number} twice");
            }
        }
        found.records += all.len() as u64;
        let told = page.told(thread, Told::Kept);
        let last = all.keys().next_back().copied().unwrap_or(0);
        assert!(
            last <= told + 1,
            "{plan:?}: thread {thread}: {told} were told of, {last} found"
        );
        for number in (1..=told).filter(|number| !all.contains_key(number)) {
            // A normal record that was in its ring when the disk was full was shed.
            let may_be_shed = plan.storm && !plan.is_kept(thread as u32, number);
            assert!(
                may_be_shed,
                "{plan:?}: thread {thread}: {number} of {told} is lost"
            );
            found.shed += 1;
        }
    }
    found
}

pub fn check_ledger(plan: Plan, ledger: &Ledger, page: &Page, found: Found) {
    assert!(ledger.is_exact(), "{plan:?}: {ledger:?}");
    let threads = plan.threads as u64;
    // Each thread and the writer may have died within one record, and so may the one that panics.
    let interrupted = ledger.total().interrupted();
    let alive = threads + 1 + u64::from(plan.ending == Ending::Panics);
    assert!(interrupted <= alive, "{plan:?}: {ledger:?}");
    let of = |name: &str| ledger.categories.get(name).copied().unwrap_or_default();
    let (normal, kept) = (of("requests"), of("errors"));
    assert_eq!(
        normal.written() + kept.written(),
        found.records,
        "{plan:?}: {ledger:?}"
    );
    let fits = |told: u64, counted: u64| (told..=told + threads).contains(&counted);
    let told = page.all(plan, Told::Dropped) + found.shed;
    let dropped = normal.dropped_total() + kept.dropped_total();
    assert!(
        fits(told, dropped),
        "{plan:?}: {told} drops were told of: {ledger:?}"
    );
    let told = page.all(plan, Told::SampledOut);
    let sampled_out = normal.sampled_out() + kept.sampled_out();
    assert!(
        fits(told, sampled_out),
        "{plan:?}: {told} were told to be sampled out: {ledger:?}"
    );
    assert_eq!(
        normal.dropped(DropReason::Damaged),
        0,
        "{plan:?}: {ledger:?}"
    );
    if !plan.storm {
        assert_eq!(normal.dropped(DropReason::Disk), 0, "{plan:?}: {ledger:?}");
    }
}

/// What the lines of the session say of the durations of each thread: that of all pushes that
/// returned, and maybe of the one that did not.
pub fn check_durations(plan: Plan, dir: &Path, id: &str, page: &Page) {
    let text = std::fs::read_to_string(dir.join(format!("{id}_session.jsonl"))).unwrap();
    let lines = text
        .lines()
        .map(|line| -> Json { serde_json::from_str(line).unwrap() });
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for line in lines.filter(|line| line["event"] == "durations") {
        assert_eq!(line["other"], false, "{line}");
        let ns = |name: &str| {
            let ms = line[name].as_f64().unwrap();
            (ms * 1e6).round() as u64
        };
        let operation = line["operation"].as_str().unwrap().to_owned();
        let sum = sums.entry(operation).or_default();
        sum.0 += line["count"].as_u64().unwrap();
        sum.1 += ns("sum_ms");
        sum.2 = sum.2.max(ns("max_ms"));
        let pairs = line["buckets"].as_array().unwrap().iter();
        let count: u64 = pairs.map(|pair| pair[1].as_u64().unwrap()).sum();
        assert_eq!(line["count"].as_u64(), Some(count), "{line}");
    }
    for thread in 0..plan.threads {
        let returned = [Told::Kept, Told::Dropped, Told::SampledOut];
        let returned: u64 = returned.iter().map(|told| page.told(thread, *told)).sum();
        let operation = format!("operation_{thread}");
        let (count, sum, max) = sums.remove(&operation).unwrap_or_default();
        // The n-th push is the n-th that returned.
        let of = |pushes: u64| {
            let all = (1..=pushes).map(|push| duration_ns(thread, push));
            all.fold((0, 0), |(sum, max): (u64, u64), ns| (sum + ns, max.max(ns)))
        };
        let (least, most) = (of(returned), of(returned + 1));
        let what = || {
            format!("{plan:?}: thread {thread}: {returned} pushes returned: {count}, {sum}, {max}")
        };
        assert!([returned, returned + 1].contains(&count), "{}", what());
        // A float of milliseconds is exact to the nanosecond only below 2^53 of them.
        let near = |a: u64, b: u64| a.abs_diff(b) <= 1 + b / (1 << 50);
        assert!(
            near(sum, least.0) || near(sum, most.0),
            "{}: {least:?}, {most:?}",
            what()
        );
        assert!(
            near(max, least.1) || near(max, most.1),
            "{}: {least:?}, {most:?}",
            what()
        );
    }
    assert!(sums.is_empty(), "{plan:?}: {sums:?}");
}

/// Checks all that a session that was recovered and converted must hold.
pub fn check_all(plan: Plan, dir: &Path, id: &str, page: &Page, ledger: &Ledger) -> Found {
    let found = check_lines(plan, dir, id, page);
    check_ledger(plan, ledger, page, found);
    check_durations(plan, dir, id, page);
    assert_eq!(recover(dir, id).state, State::Complete, "{plan:?}");
    let sessions = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = sessions
        .filter(|name| name.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{plan:?}: {left:?}");
    found
}
