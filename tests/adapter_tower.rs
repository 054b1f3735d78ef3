//! The middleware around real services of axum and tower, in memory and over a real connection.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::{Request, Response, StatusCode};
use axum::routing::get;
use closed::close_clean;
use http_body_util::BodyExt;
use serde_json::{Value as Json, json};
use stormlog::Session;
use stormlog::adapters::tower::{RequestId, RequestLayer};
use stormlog::context::Context;
use stormlog::record::{Category, Extra};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_service::Service;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A body in pieces, with a pause of one poll before each.
struct Pieces {
    left: Vec<Result<&'static str, std::io::Error>>,
    ready: bool,
}

impl Pieces {
    fn body(pieces: Vec<Result<&'static str, std::io::Error>>) -> Body {
        let left = pieces.into_iter().rev().collect();
        Body::new(Self { left, ready: false })
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        self.ready = !self.ready;
        if self.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = self.left.pop();
        Poll::Ready(piece.map(|piece| piece.map(|text| http_body::Frame::data(text.into()))))
    }
}

fn app(session: &Session, layer: RequestLayer) -> Router {
    let log = session.log();
    let nested = move |Extension(id): Extension<RequestId>| async move {
        log.event(
            Category::named("streams").unwrap(),
            &[Extra::new("id", id.as_str())],
        );
        tokio::task::yield_now().await;
        log.event(
            Category::named("streams").unwrap(),
            &[Extra::new("after", true)],
        );
        id.as_str().to_owned()
    };
    let pieces = || async { Pieces::body(vec![Ok("abc"), Ok("de")]) };
    let broken = || async { Pieces::body(vec![Ok("abc"), Err(std::io::Error::other("torn"))]) };
    let forever = || async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    };
    Router::new()
        .route("/nested/{name}", get(nested))
        .route("/pieces", get(pieces))
        .route("/broken", get(broken))
        .route("/forever", get(forever))
        .route("/none", get(|| async { StatusCode::NO_CONTENT }))
        .layer(layer)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
}

async fn ask(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().call(request).await.unwrap()
}

fn to(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

fn request_of<'a>(lines: &'a [Json], path: &str) -> &'a Json {
    let found = lines.iter().find(|line| line["path"] == path);
    found.unwrap_or_else(|| panic!("no request to {path}"))
}

#[test]
fn a_request_is_recorded_with_ids_that_its_records_carry() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let layer = RequestLayer::new(&session.log()).headers(true);
    let app = app(&session, layer);
    run(async {
        let request = Request::builder()
            .uri("/nested/a?token=hunter2")
            .header("x-request-id", "client-1")
            .header("traceparent", TRACE)
            .header("authorization", "Bearer abcdefghijklmnop")
            .header("cookie", "sid=1")
            .header("accept", "*/*")
            .extension(SocketAddr::from(([10, 0, 0, 7], 4711)))
            .body(Body::empty())
            .unwrap();
        let response = ask(&app, request).await;
        assert_eq!(response.headers()["x-request-id"], "client-1");
        assert_eq!(text(response).await, "client-1");
        assert_eq!(Context::current().request(), "", "only while it is polled");
        // A header that cannot be passed on, and no trace.
        let request = Request::builder()
            .uri("/nested/b")
            .header("x-request-id", "not an id")
            .header("traceparent", TRACE.to_uppercase())
            .body(Body::empty())
            .unwrap();
        let response = ask(&app, request).await;
        let id = response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(id.len(), 16);
        assert_eq!(text(response).await, id);
    });
    let lines = close_clean(session);
    let requests = &lines["requests"];
    let first = request_of(requests, "/nested/a");
    for (name, value) in [
        ("method", json!("GET")),
        ("status_code", json!(200)),
        ("bytes", json!(8)),
        ("outcome", json!("completed")),
        ("error", Json::Null),
        ("client", json!("10.0.0.7:4711")),
        ("request_id", json!("client-1")),
        ("version", json!("1.1")),
        ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    let (ttfb, whole) = (&first["ttfb_ms"], &first["duration_ms"]);
    assert!(ttfb.as_f64().unwrap() <= whole.as_f64().unwrap(), "{first}");
    let headers = &first["request_headers"];
    assert_eq!(headers["authorization"], "[redacted]");
    assert_eq!(
        (&headers["cookie"], &headers["accept"]),
        (&json!("[redacted]"), &json!("*/*"))
    );
    assert!(!first.to_string().contains("hunter2"));
    let streams = &lines["streams"];
    assert_eq!(streams.len(), 4);
    for line in &streams[..2] {
        assert_eq!(line["request_id"], "client-1");
        assert_eq!(line["trace_id"], first["trace_id"]);
        assert_eq!(line["span_id"], first["span_id"]);
        assert_eq!(line["parent_span_id"], "00f067aa0ba902b7");
    }
    let second = request_of(requests, "/nested/b");
    assert_eq!(streams[2]["request_id"], second["request_id"]);
    assert_ne!(second["trace_id"], first["trace_id"]);
    assert!(streams[2]["parent_span_id"].is_null());
}

#[test]
fn the_end_of_a_response_is_the_end_of_its_body() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let app = app(&session, RequestLayer::new(&session.log()));
    run(async {
        let count = || {
            session
                .stats()
                .categories
                .get("requests")
                .map_or(0, stormlog::ledger::Account::offered)
        };
        let response = ask(&app, to("/pieces")).await;
        assert_eq!(count(), 0, "the body has not been sent");
        assert_eq!(text(response).await, "abcde");
        assert_eq!(count(), 1);
        let broken = ask(&app, to("/broken")).await;
        assert!(broken.into_body().collect().await.is_err());
        // The client goes in the middle of the body, and before there is one.
        let mut gone = ask(&app, to("/pieces")).await.into_body();
        let frame = gone.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "abc");
        drop(gone);
        let never = ask(&app, to("/forever"));
        let out = tokio::time::timeout(Duration::from_millis(20), never).await;
        assert!(out.is_err());
        assert_eq!(
            ask(&app, to("/none")).await.status(),
            StatusCode::NO_CONTENT
        );
        let missing = ask(&app, to("/missing")).await;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        drop(missing);
    });
    let lines = close_clean(session);
    let requests = &lines["requests"];
    let told: Vec<_> = requests
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (
                text("path"),
                text("outcome"),
                line["bytes"].as_u64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("/pieces", "completed", 5),
        ("/broken", "failed", 3),
        ("/pieces", "aborted", 3),
        ("/forever", "aborted", 0),
        ("/none", "completed", 0),
        ("/missing", "completed", 0),
    ];
    let expected = expected.map(|(path, end, bytes)| (path.to_owned(), end.to_owned(), bytes));
    assert_eq!(told, expected);
    assert!(
        requests[1]["error"].as_str().unwrap().contains("torn"),
        "{}",
        requests[1]
    );
    assert!(requests[3]["status_code"].is_null() && requests[3]["ttfb_ms"].is_null());
    assert_eq!(requests[5]["status_code"], 404);
}

/// Over a connection, where the server and not the test decides how bodies are polled.
#[test]
fn a_server_has_its_requests_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let layer = RequestLayer::new(&session.log()).client(|extensions| {
        let info = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>();
        info.map(|info| info.0)
    });
    let app = app(&session, layer);
    let client = run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let requests = [
            ("GET", "/nested/x"),
            ("HEAD", "/pieces"),
            ("GET", "/pieces"),
            ("GET", "/none"),
        ];
        for (method, path) in requests {
            let close = if path == "/none" {
                "connection: close\r\n"
            } else {
                ""
            };
            let head = format!("{method} {path} HTTP/1.1\r\nhost: h\r\n{close}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.matches("HTTP/1.1 20").count(), 4, "{answer}");
        stream.local_addr().unwrap().to_string()
    });
    let lines = close_clean(session);
    let requests = &lines["requests"];
    let outcomes: Vec<_> = requests.iter().map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, ["completed"; 4], "{requests:?}");
    assert!(
        requests
            .iter()
            .all(|line| line["client"] == client.as_str())
    );
    assert_eq!(request_of(requests, "/nested/x")["bytes"], 16);
    assert_eq!(requests[1]["method"], "HEAD");
    assert_eq!(requests[2]["bytes"], 5);
}

/// Fails with this error.
#[derive(Clone)]
struct Fails<E>(E);

impl<E: Clone> Service<Request<Body>> for Fails<E> {
    type Response = Response<Body>;
    type Error = E;
    type Future = std::future::Ready<Result<Response<Body>, E>>;
    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Err(self.0.clone()))
    }
}

/// A service that fails, and a request with everything odd about it.
#[test]
fn odd_requests_and_errors_are_recorded() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let layer = RequestLayer::new(&session.log());
    let mut service = tower_layer::Layer::layer(&layer, Fails("x".repeat(5000)));
    let request = Request::builder()
        .method("M!'*+")
        .uri(format!("/{}", "p".repeat(5000)))
        .body(Body::empty())
        .unwrap();
    let failed = run(service.call(request));
    assert!(failed.is_err());
    session.set_on(false);
    assert!(run(service.call(to("/off"))).is_err());
    let lines = close_clean(session);
    let [line] = &lines["requests"][..] else {
        panic!("{lines:?}")
    };
    assert_eq!(line["method"], "M!'*+");
    assert_eq!(line["path"].as_str().unwrap().len(), 2048);
    assert_eq!(
        (&line["outcome"], &line["status_code"]),
        (&json!("failed"), &Json::Null)
    );
    assert_eq!(line["error"], "x".repeat(512));
    assert_eq!(line["truncated"], true);
}

/// Half of a password does not look like one: the line must know that the error was cut.
#[test]
fn a_secret_at_the_end_of_an_error_is_not_told() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let layer = RequestLayer::new(&session.log());
    let error = format!(
        "{} postgres://app:{}@db/",
        "y".repeat(480),
        "hunter2".repeat(9)
    );
    let mut service = tower_layer::Layer::layer(&layer, Fails(error));
    assert!(run(service.call(to("/"))).is_err());
    let lines = close_clean(session);
    let error = lines["requests"][0]["error"].as_str().unwrap();
    assert!(error.ends_with(" postgres://app:[redacted]"), "{error}");
}

/// Nobody but the middleware asks for its text.
#[test]
fn an_error_that_panics_does_not_reach_the_service() {
    #[derive(Clone)]
    struct Panics;
    impl std::fmt::Display for Panics {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            std::panic::resume_unwind(Box::new("on purpose"))
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let layer = RequestLayer::new(&session.log());
    let mut service = tower_layer::Layer::layer(&layer, Fails(Panics));
    assert!(run(service.call(to("/"))).is_err());
    let lines = close_clean(session);
    let line = &lines["requests"][0];
    assert_eq!(
        (&line["outcome"], &line["error"]),
        (&json!("failed"), &json!("[panicked]"))
    );
}

/// The line of a request has its own ids, also where a scope around the server has others, which
/// it used to have instead.
#[test]
fn a_request_has_its_own_ids_in_the_scope_of_another() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let app = app(&session, RequestLayer::new(&session.log()));
    let outer = Context::new()
        .trace(stormlog::context::TraceParent::random())
        .request_id("outer")
        .field("service", "sample");
    let request = Request::builder()
        .uri("/pieces")
        .header("x-request-id", "inner")
        .header("traceparent", TRACE)
        .body(Body::empty())
        .unwrap();
    run(outer.in_task(async { text(ask(&app, request).await).await }));
    let lines = close_clean(session);
    let line = &lines["requests"][0];
    assert_eq!(line["request_id"], "inner");
    assert_eq!(line["trace_id"], TRACE[3..35]);
    assert_eq!(line["parent_span_id"], TRACE[36..52]);
    assert_eq!(line["service"], "sample");
    let twice = |name: &String| name.starts_with("field_");
    assert!(!line.as_object().unwrap().keys().any(twice), "{line}");
}

/// What stress rules tell of a request can be found by its ids.
#[test]
fn what_a_rule_tells_of_a_request_has_its_ids() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .stress_rules(true)
        .stress_on(["slow_static_request"])
        .start()
        .unwrap();
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(110)).await;
    };
    let app = Router::new()
        .route("/static/slow", get(slow))
        .layer(RequestLayer::new(&session.log()));
    let request = Request::builder()
        .uri("/static/slow")
        .header("x-request-id", "slow-1")
        .header("traceparent", TRACE)
        .body(Body::empty())
        .unwrap();
    run(async { text(ask(&app, request).await).await });
    let lines = close_clean(session);
    let stress = &lines["stress"][0];
    assert_eq!(stress["event_type"], "slow_static_request");
    assert_eq!(stress["request_id"], "slow-1");
    assert_eq!(stress["trace_id"], TRACE[3..35]);
}

/// A handler, or a body, that is dropped because the client has gone still belongs to its request.
#[test]
fn what_is_dropped_with_a_request_has_its_ids() {
    struct Drops(stormlog::Log);
    impl Drop for Drops {
        fn drop(&mut self) {
            let id = Context::current();
            self.0.event(
                Category::named("streams").unwrap(),
                &[Extra::new("id", id.request())],
            );
        }
    }
    impl http_body::Body for Drops {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut TaskContext<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            Poll::Pending
        }
    }
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let drops = move || Drops(log.clone());
    let (in_handler, in_body) = (drops.clone(), drops);
    let app = Router::new()
        .route(
            "/handler",
            get(|| async move {
                let _drops = in_handler();
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }),
        )
        .route("/body", get(|| async move { Body::new(in_body()) }))
        .layer(RequestLayer::new(&session.log()));
    let to = |path: &str| {
        let request = Request::builder()
            .uri(path)
            .header("x-request-id", &path[1..]);
        request.body(Body::empty()).unwrap()
    };
    run(async {
        let never = ask(&app, to("/handler"));
        let out = tokio::time::timeout(Duration::from_millis(20), never).await;
        assert!(out.is_err());
        drop(ask(&app, to("/body")).await);
    });
    let lines = close_clean(session);
    let ids: Vec<_> = lines["streams"].iter().map(|line| &line["id"]).collect();
    assert_eq!(ids, ["handler", "body"]);
}

/// More than one is none, says the specification of the header.
#[test]
fn two_headers_of_a_trace_begin_a_new_one() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let app = app(&session, RequestLayer::new(&session.log()));
    let request = Request::builder()
        .uri("/none")
        .header("traceparent", TRACE)
        .header("traceparent", TRACE.replace("4b", "5b"))
        .body(Body::empty())
        .unwrap();
    run(async { drop(ask(&app, request).await) });
    let lines = close_clean(session);
    let line = &lines["requests"][0];
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
    assert_ne!(line["trace_id"], TRACE[3..35]);
    assert!(line["parent_span_id"].is_null());
}
