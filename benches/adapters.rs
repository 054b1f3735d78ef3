//! What the adapters cost beside a push of their own records: `cargo bench --bench adapters`.
//!
//! All subjects take turns, round after round, each with a burst of calls; the writer drains
//! between bursts, outside of the time. Ratios are of one round, against the bare push.

#[path = "support/record_a.rs"]
mod record_a;
#[path = "support/stats.rs"]
mod stats;

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use axum::http::{Request, Response};
use record_a::push_a;
use stats::{bootstrap, median};
use stormlog::adapters::log::Recorder;
use stormlog::adapters::tower::RequestLayer;
use stormlog::adapters::tracing::RecordLayer;
use stormlog::context::{Context, TraceParent};
use stormlog::record::{Category, Extra};
use stormlog::{Conversion, Log, Session};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Dispatch;
use tracing_subscriber::layer::SubscriberExt;

/// Calls between two looks at the clock: what they record fits into a ring.
const BURST: u64 = 200;

/// A service that answers at once.
#[derive(Clone)]
struct Answers;

impl Service<Request<String>> for Answers {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;
    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<String>) -> Self::Future {
        std::future::ready(Ok(Response::new(String::new())))
    }
}

/// Asks a service that is always ready, and drops its answer.
fn ask<S: Service<Request<String>, Error = Infallible>>(service: &mut S) {
    let request = Request::builder()
        .uri("/ace/getstream?id=4f6c0a")
        .body(String::new())
        .expect("a valid request");
    let future = pin!(service.call(request));
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(future.poll(&mut cx).is_ready());
}

struct Subject<'a> {
    name: &'static str,
    burst: Box<dyn FnMut() + 'a>,
    ns: Vec<f64>,
    ratios: Vec<f64>,
}

fn subject<'a>(name: &'static str, mut call: impl FnMut(u64) + 'a) -> Subject<'a> {
    Subject {
        name,
        burst: Box::new(move || (0..BURST).for_each(&mut call)),
        ns: Vec::new(),
        ratios: Vec::new(),
    }
}

/// A subject whose events go to this subscriber.
fn traced<'a>(name: &'static str, to: &'a Dispatch, call: fn(u64)) -> Subject<'a> {
    Subject {
        burst: Box::new(move || {
            tracing::dispatcher::with_default(to, || (0..BURST).for_each(call));
        }),
        ..subject(name, |_| ())
    }
}

fn subjects<'a>(log: &'a Log, dispatch: &'a Dispatch, nobody: &'a Dispatch) -> Vec<Subject<'a>> {
    let open = Category::named("bench_open").expect("a valid name");
    let context = Context::new()
        .request_id("8f14e45f")
        .trace(TraceParent::random());
    let mut bare = Answers;
    let mut layered = RequestLayer::new(log).layer(Answers);
    let recorder = Recorder::new(log);
    let event: fn(u64) = |number| tracing::info!(number, ok = true, "engine started");
    let span: fn(u64) = |number| drop(tracing::info_span!("step", number).entered());
    vec![
        subject("push of record A", |number| {
            push_a(log, number);
        }),
        subject("open record, 5 extra fields", move |number| {
            let extras = [
                Extra::new("level", "INFO"),
                Extra::new("target", "adapters"),
                Extra::new("number", number),
                Extra::new("ok", true),
                Extra::new("message", "engine started"),
            ];
            log.event(open, &extras);
        }),
        subject("context entered and left", move |_| drop(context.enter())),
        subject("record A in a context, with entering", move |number| {
            let _scope = context.enter();
            push_a(log, number);
        }),
        subject("operation, begin and end", |_| {
            log.performance().start("bench_step").success(&[]);
        }),
        traced("tracing event, no layer", nobody, event),
        traced("tracing event", dispatch, event),
        traced("tracing span entered, no layer", nobody, span),
        traced("tracing span entered, begin and end", dispatch, span),
        subject("log record, 2 pairs", move |number| {
            let pairs = [
                ("number", log::kv::Value::from(number)),
                ("ok", true.into()),
            ];
            log::Log::log(
                &recorder,
                &log::Record::builder()
                    .args(format_args!("engine started"))
                    .level(log::Level::Info)
                    .target("adapters")
                    .key_values(&pairs)
                    .build(),
            );
        }),
        subject("request, no layer", move |_| ask(&mut bare)),
        subject("request", move |_| ask(&mut layered)),
    ]
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let rounds = if quick { 3 } else { 300 };
    let dir = std::env::temp_dir().join(format!("stormlog-adapters-{}", std::process::id()));
    let session = Session::builder()
        .keep_free_bytes(0)
        .dir(&dir)
        .conversion(Conversion::Later)
        .sampling(false)
        .start()
        .expect("the temporary directory can be written");
    let log = session.log();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(RecordLayer::new(&log)));
    let nobody = Dispatch::new(tracing_subscriber::registry());
    let mut subjects = subjects(&log, &dispatch, &nobody);
    for round in 0..rounds {
        let mut first = 0.0;
        for subject in &mut subjects {
            let begin = Instant::now();
            (subject.burst)();
            let ns = begin.elapsed().as_nanos() as f64 / BURST as f64;
            session.flush().expect("the writer runs");
            if first == 0.0 {
                first = ns;
            }
            // The first round is the first use of everything.
            if round > 0 {
                subject.ns.push(ns);
                subject.ratios.push(ns / first);
            }
        }
    }
    println!("| subject | ns per call | of the bare push |\n|---|---|---|");
    for subject in &mut subjects {
        let (low, high) = bootstrap(&subject.ratios);
        let (ns, ratio) = (median(&mut subject.ns), median(&mut subject.ratios));
        println!(
            "| {} | {ns:.0} | {ratio:.1} [{low:.1}, {high:.1}] |",
            subject.name
        );
    }
    drop(subjects);
    let report = session.close().expect("the writer runs");
    assert!(
        report.ledger.is_exact() && report.faults.is_empty(),
        "{:?}",
        report.faults
    );
    // Each call that records does so once, an operation or span twice; none was dropped.
    let written = |category: &str| report.ledger.categories[category].written();
    let calls = rounds * BURST;
    assert_eq!(written("bench"), 2 * calls);
    assert_eq!(written("bench_open"), calls);
    assert_eq!(written("performance"), 2 * calls);
    assert_eq!(written("custom"), 4 * calls);
    assert_eq!(written("requests"), calls);
    std::fs::remove_dir_all(dir).expect("it is there");
}
