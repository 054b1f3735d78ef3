//! The context of a scope: what records carry, where it is in force, and what it leaves alone.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, Waker};

use closed::close_clean;
use serde_json::{Value as Json, json};
use stormlog::context::{Context, OWN_FIELDS_MAX, TEXT_BYTES_MAX, TraceParent};
use stormlog::ledger::DropReason;
use stormlog::record::{Category, Extra, KeepClass, LongText, Name, ShortText, Symbol};
use stormlog::{Log, Outcome, RingStorage};

stormlog::record! {
    struct Numbered in "performance" keep Sampled { number: u64 }
}

stormlog::record! {
    struct Kept in "errors" keep Always { number: u64, text: LongText }
}

stormlog::record! {
    struct Keyed in "requests" keep Sampled key id { id: ShortText, request_id: Option<ShortText> }
}

stormlog::record! {
    struct Stated in "vpn" keep Sampled { status: Symbol }
}

const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn push(log: &Log, number: u64) {
    assert_eq!(log.push(&Numbered { number }), Outcome::Kept);
}

fn request(id: &str) -> Context {
    Context::new().request_id(id)
}

/// The values of a field in all lines.
fn values(lines: &[Json], name: &str) -> Vec<Json> {
    lines.iter().map(|line| line[name].clone()).collect()
}

#[test]
fn records_of_a_scope_carry_every_field_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    push(&log, 0);
    let parent = TraceParent::parse(HEADER).unwrap();
    let context = request("8f14e45f")
        .continue_trace(parent)
        .thread()
        .process()
        .field("user", "ana");
    let own = context.traceparent().unwrap();
    let tid = std::thread::Builder::new()
        .name("a worker".to_owned())
        .spawn(move || {
            let scope = context.enter();
            push(&log, 1);
            log.push_with(&Numbered { number: 2 }, &[Extra::new("last", true)]);
            drop(scope);
            push(&log, 3);
            rustix::thread::gettid().as_raw_nonzero().get()
        })
        .unwrap()
        .join()
        .unwrap();
    let lines = close_clean(session);
    let lines = &lines["performance"];
    assert_eq!(lines.len(), 4);
    for (line, last) in [(&lines[1], None), (&lines[2], Some(true))] {
        let mut expected = json!({
            "session_id": line["session_id"], "timestamp": line["timestamp"],
            "elapsed_seconds": line["elapsed_seconds"], "number": line["number"],
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "span_id": own.span_id.to_string(),
            "parent_span_id": "00f067aa0ba902b7",
            "request_id": "8f14e45f",
            "thread_id": tid,
            "thread_name": "a worker",
            "process_id": std::process::id(),
            "user": "ana",
        });
        if let Some(last) = last {
            expected["last"] = json!(last);
        }
        assert_eq!(*line, expected);
    }
    assert_ne!(own.span_id, parent.span_id);
    for line in [&lines[0], &lines[3]] {
        assert_eq!(line.as_object().unwrap().len(), 4, "{line}");
    }
}

#[test]
fn an_inner_scope_inherits_what_it_does_not_set() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let outer = request("outer").field("user", "ana").field("plan", "free");
    let _outer = outer.enter();
    {
        let inner = request("inner").field("user", "bob").process();
        let _inner = inner.enter();
        assert_eq!(Context::current().request(), "inner");
        push(&log, 0);
        {
            let _empty = Context::new().enter();
            push(&log, 1);
        }
    }
    assert_eq!(Context::current().request(), "outer");
    push(&log, 2);
    let lines = close_clean(session);
    let lines = &lines["performance"];
    assert_eq!(values(lines, "request_id"), ["inner", "inner", "outer"]);
    assert_eq!(values(lines, "user"), ["bob", "bob", "ana"]);
    assert_eq!(values(lines, "plan"), ["free"; 3]);
    assert!(lines[1]["process_id"].is_u64() && lines[2]["process_id"].is_null());
}

/// Dropping guards in the wrong order leaves nothing in force that should not be.
#[test]
fn an_outer_guard_ends_the_inner_ones() {
    let outer = request("outer").enter();
    let inner = request("inner").enter();
    drop(outer);
    assert_eq!(Context::current().request(), "");
    drop(inner);
    assert_eq!(Context::current().request(), "");
}

/// Two tasks of one thread that keep guards while they wait: when the inner guard of the first pair
/// is dropped, others are in force, as deep as it was. It used to put its outer one back, which had
/// ended, so that records told of a request that was over.
#[test]
fn a_guard_that_has_ended_changes_nothing() {
    let over = request("over").enter();
    let late = request("late").enter();
    drop(over);
    let outer = request("outer").enter();
    let inner = Context::new().field("user", "u").enter();
    drop(late);
    assert_eq!(Context::current().request(), "outer");
    drop(inner);
    assert_eq!(Context::current().request(), "outer");
    drop(outer);
    assert_eq!(Context::current().request(), "");
}

#[test]
fn a_context_is_bounded_whatever_it_is_given() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let text = "\u{e4}".repeat(1000);
    let mut context = request(&text)
        .thread()
        .process()
        .trace(TraceParent::random());
    for name in ["a", "b", "c", "d", "e", "f"] {
        context = context.field(name, &text);
    }
    context = context.field("a", "\"\n\u{202e}");
    let scope = context.enter();
    push(&log, 0);
    drop(scope);
    let lines = close_clean(session);
    let line = &lines["performance"][0];
    let request = line["request_id"].as_str().unwrap();
    assert_eq!(request, "\u{e4}".repeat(TEXT_BYTES_MAX / 2));
    assert_eq!(line["a"], "\"\n\u{202e}");
    assert_eq!(line["d"], request);
    assert_eq!(line["truncated"], true);
    assert_eq!(OWN_FIELDS_MAX, 4);
    assert!(line["e"].is_null() && line["f"].is_null());
}

#[test]
fn half_a_secret_in_a_context_is_not_told() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    // Without the end of the address nothing says that this is a password.
    let url = format!("postgres://service:{}@db", "hunter2-".repeat(9));
    for context in [Context::new().field("target", &url), request(&url)] {
        let _scope = context.enter();
        push(&log, 0);
    }
    push(&log, 1);
    let lines = &close_clean(session)["performance"];
    assert!(
        !lines.iter().any(|line| line.to_string().contains("hunter")),
        "{lines:#?}"
    );
    assert_eq!(
        values(lines, "truncated"),
        [Json::from(true), true.into(), Json::Null]
    );
}

/// The context wins the name over an extra field, so that it cannot be forged by one; a field of
/// the record's own keeps it.
#[test]
fn equal_names_are_told_apart() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let scope = request("true").enter();
    log.push_with(
        &Numbered { number: 0 },
        &[Extra::new("request_id", "forged")],
    );
    let record = Keyed {
        id: "1",
        request_id: Some("own"),
    };
    log.push(&record);
    drop(scope);
    let lines = close_clean(session);
    let line = &lines["performance"][0];
    assert_eq!(line["request_id"], "true");
    assert_eq!(line["field_request_id"], "forged");
    let line = &lines["requests"][0];
    assert_eq!(line["request_id"], "own");
    assert_eq!(line["field_request_id"], "true");
}

/// Each thread has its own, and each session of a thread gets it.
#[test]
fn a_context_belongs_to_its_thread() {
    let temp = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let dir = temp.path().join(name);
        recording::builder().dir(dir).start().unwrap()
    };
    let sessions = ["a", "b"].map(start);
    let logs = sessions.each_ref().map(stormlog::Session::log);
    for log in &logs {
        push(log, 0);
    }
    let scope = request("one").enter();
    std::thread::scope(|threads| {
        threads.spawn(|| logs.iter().for_each(|log| push(log, 1)));
    });
    for log in &logs {
        push(log, 2);
    }
    drop(scope);
    for log in &logs {
        push(log, 3);
    }
    for session in sessions {
        let lines = close_clean(session);
        let ids = values(&lines["performance"], "request_id");
        assert_eq!(ids, [Json::Null, Json::Null, json!("one"), Json::Null]);
    }
}

/// A thread whose first push is inside of the scope, and one that ends inside of it.
#[test]
fn rings_are_taken_and_given_up_inside_of_a_scope() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    for number in 0..50 {
        let log = session.log();
        let thread = std::thread::spawn(move || {
            if number % 2 == 0 {
                push(&log, number);
            }
            let scope = request("all of it").enter();
            push(&log, number);
            // The scope outlives the thread.
            std::mem::forget(scope);
        });
        thread.join().unwrap();
    }
    let log = session.log();
    push(&log, 100);
    let lines = close_clean(session);
    let ids = values(&lines["performance"], "request_id");
    assert_eq!(ids.iter().filter(|id| id.is_string()).count(), 50);
    assert_eq!(ids.iter().filter(|id| id.is_null()).count(), 26);
}

thread_local! {
    static AT_END: AtEnd = const { AtEnd(Cell::new(None)) };
}

/// Calls this when the thread-local is destroyed.
struct AtEnd(Cell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(last) = self.0.take() {
            last();
        }
    }
}

/// The guard lives on while the thread-locals go: the ring that it has hidden is given up then, and
/// must not come back when the guard is dropped.
#[test]
fn a_guard_in_a_thread_local_does_not_bring_the_ring_back() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    for _ in 0..20 {
        let log = session.log();
        let thread = std::thread::spawn(move || {
            // Before the ring: destroyed after it.
            AT_END.with(|_| ());
            push(&log, 0);
            let scope = request("to the end").enter();
            let last = move || {
                drop(scope);
                push(&log, 1);
            };
            AT_END.with(|at_end| at_end.0.set(Some(Box::new(last))));
        });
        thread.join().unwrap();
        let log = session.log();
        let thread = std::thread::spawn(move || push(&log, 2));
        thread.join().unwrap();
    }
    let lines = close_clean(session);
    assert_eq!(lines["performance"].len(), 60);
    assert!(
        values(&lines["performance"], "request_id")
            .iter()
            .all(Json::is_null)
    );
}

/// Every way that a record can take: spilled, long, sampled, limited, under a full registry.
#[test]
fn the_context_goes_every_way_that_records_go() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .keep("vpn", KeepClass::Sampled)
        .on_change("vpn")
        .record_bytes_max(64 << 10)
        .start()
        .unwrap();
    let log = session.log();
    let vpn = |status| log.push(&Stated { status });
    let healthy = stormlog::symbol!("healthy");
    {
        let _scope = request("first").enter();
        assert_eq!(vpn(healthy), Outcome::Kept);
    }
    // Another request is not another state.
    let _scope = request("second").enter();
    assert_eq!(vpn(healthy), Outcome::Dropped(DropReason::Repeat));
    assert_eq!(vpn(stormlog::symbol!("unhealthy")), Outcome::Kept);
    let text = "x".repeat(200 << 10);
    for number in [1_u64, 100 << 10, 200 << 10] {
        let text = &text[..number as usize];
        assert_eq!(log.push(&Kept { number, text }), Outcome::Kept);
    }
    let many: Vec<_> = (0..500).map(|n| (format!("key-{n}"), n)).collect();
    let extras: Vec<_> = many.iter().map(|(k, n)| Extra::new(&**k, *n)).collect();
    assert_eq!(log.event(Category::custom(), &extras), Outcome::Kept);
    let lines = close_clean(session);
    assert_eq!(values(&lines["vpn"], "request_id"), ["first", "second"]);
    assert_eq!(lines["vpn"][1]["repeats"], 1);
    assert_eq!(values(&lines["errors"], "request_id"), ["second"; 3]);
    assert_eq!(lines["errors"][2]["truncated"], true);
    assert_eq!(lines["custom"][0]["request_id"], "second");
    assert_eq!(lines["custom"][0]["key-499"], 499);
}

/// Without room for names in the registry the record describes itself, and its context too.
#[test]
fn a_full_registry_keeps_the_context() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .ring_storage(RingStorage::Anonymous)
        .sampling(false)
        .start()
        .unwrap();
    let log = session.log();
    // Symbols until nothing more fits, not even a short one: 2 MiB of registry.
    for (bytes, count) in [(1000, 3000), (100, 50), (1, 50)] {
        for number in 0..count {
            let name = format!("{number}-{}", "s".repeat(bytes));
            let status = Name::Symbol(Symbol::intern(&name).unwrap());
            log.push(&Stated { status });
        }
    }
    // Their rings have room again, however late the writer was.
    session.flush().unwrap();
    let scope = request("described").field("own", "x").enter();
    stormlog::record! {
        struct Late in "performance" keep Sampled { late: u64 }
    }
    assert_eq!(log.push(&Late { late: 7 }), Outcome::Kept);
    assert_eq!(
        log.event(Category::custom(), &[Extra::new("a", 1_u8)]),
        Outcome::Kept
    );
    drop(scope);
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    let lines = closed::lines(&report);
    let found = |name: &str| {
        let line = lines["custom"].iter().find(|line| line[name].is_u64());
        line.unwrap_or_else(|| panic!("no line with {name}"))
            .clone()
    };
    for (line, category) in [
        (found("late"), json!("performance")),
        (found("a"), json!("custom")),
    ] {
        assert_eq!(line["request_id"], "described", "{line}");
        assert_eq!(line["own"], "x", "{line}");
        assert_eq!(line["category"], category, "{line}");
        assert!(line["field_request_id"].is_null(), "once: {line}");
    }
}

/// Hands itself to another thread after each poll.
struct Hops(u64);

impl Future for Hops {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<()> {
        self.0 -= 1;
        if self.0 == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Pushes when it is dropped.
struct OnDrop(Log);

impl Drop for OnDrop {
    fn drop(&mut self) {
        push(&self.0, 99);
    }
}

#[test]
fn a_task_takes_its_context_from_thread_to_thread() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let task = |name: &'static str| {
        let log = session.log();
        let on_drop = OnDrop(session.log());
        let task = async move {
            let _on_drop = on_drop;
            for number in 0..5 {
                push(&log, number);
                Hops(2).await;
            }
        };
        request(name).in_task(task)
    };
    let mut tasks = ["a", "b"].map(|name| Box::pin(task(name)));
    // Both in turn, each time on another thread.
    loop {
        let done = std::thread::scope(|threads| {
            let poll = || {
                let mut cx = TaskContext::from_waker(Waker::noop());
                let polls = tasks.each_mut().map(|task| task.as_mut().poll(&mut cx));
                assert_eq!(Context::current().request(), "", "only inside of the poll");
                polls == [Poll::Ready(()); 2]
            };
            threads.spawn(poll).join().unwrap()
        });
        if done {
            break;
        }
    }
    drop(tasks);
    // One that is never polled to its end.
    drop(Box::pin(task("c")));
    let lines = close_clean(session);
    let lines = &lines["performance"];
    for name in ["a", "b"] {
        let own = lines.iter().filter(|line| line["request_id"] == name);
        assert_eq!(own.count(), 6, "{name}");
    }
    assert!(lines.iter().all(|line| line["request_id"].is_string()));
    assert_eq!(lines.last().unwrap()["request_id"], "c");
}
