//! A service of axum that records itself, and drives itself with requests: `cargo run --example
//! service [DIR]`. Offline: it listens on a loopback port and is its own client.
//!
//! It shows all adapters at work: the middleware records requests, `tower_http` and an imitation
//! of `sqlx` come through `tracing`, a library speaks through `log`, operations have begin and end,
//! the session samples resources, and its rules tell of what is slow: the file of `stress` is
//! theirs alone. `docs/ADAPTERS.md` describes the fields of its files, `docs/DEBUG_MODE.md` the
//! rules.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::routing::get;
use stormlog::adapters::log::Recorder;
use stormlog::adapters::tower::RequestLayer;
use stormlog::adapters::tracing::RecordLayer;
use stormlog::record::Extra;
use stormlog::{CloseReport, Log, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_http::trace::TraceLayer;
use tracing_subscriber::layer::SubscriberExt;

/// How long a statement of the slow page takes. Three of them are more than the 500 ms of the rule
/// `slow_get_request`; each is more than the 100 ms of `slow_query_moderate`.
const SLOW: Duration = Duration::from_millis(180);
/// What the client asks for, in turn.
const PATHS: [&str; 5] = [
    "/health",
    "/engines?token=hunter2",
    "/slow",
    "/fail",
    "/stream",
];
/// How often it asks for all of them.
const ROUNDS: usize = 3;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or("./debug_logs".into(), PathBuf::from);
    let report = run(&dir)?;
    println!(
        "session {}, {:.1} s",
        report.session_id,
        report.duration.as_secs_f64()
    );
    for file in &report.files {
        println!("{:>5} lines  {}", file.lines, file.path.display());
    }
    for fault in &report.faults {
        println!("fault: {fault}");
    }
    Ok(())
}

/// The whole life of the service.
///
/// # Errors
/// When a session cannot be started in `dir`, or there is no loopback.
pub fn run(dir: &Path) -> Result<CloseReport, Error> {
    let session = Session::builder()
        .dir(dir)
        .resource_interval(Duration::from_millis(200))
        .stress_rules(true)
        // Off by default, because a proxy that streams has requests without an end.
        .stress_on(["slow_get_request"])
        .start()?;
    let log = session.log();
    let panics = stormlog::panics::record(&log);
    // Refused where somebody else has installed a backend: then that one has its records.
    if Recorder::new(&log).install(log::LevelFilter::Info).is_err() {
        println!("another backend of `log` is installed");
    }
    let subscriber = tracing_subscriber::registry().with(RecordLayer::new(&log));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tracing::subscriber::with_default(subscriber, || runtime.block_on(serve(&log)))?;
    // Connections end with the runtime, and what runs in them is recorded as aborted.
    drop(runtime);
    drop(panics);
    Ok(session.close()?)
}

/// Starts the server and asks it for everything.
async fn serve(log: &Log) -> Result<(), Error> {
    let starting = log.performance().start("start_service");
    let requests = RequestLayer::new(log).headers(true).client(|extensions| {
        let info = extensions.get::<ConnectInfo<SocketAddr>>();
        info.map(|info| info.0)
    });
    let app = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/engines", get(engines))
        .route("/slow", get(slow))
        .route("/fail", get(fail))
        .route("/stream", get(|| async { "x".repeat(100_000) }))
        .layer(TraceLayer::new_for_http())
        // The outermost: what is inside carries its ids.
        .layer(requests)
        .with_state(log.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(async move { axum::serve(listener, service).await });
    starting.success(&[Extra::new("port", address.port())]);
    for round in 0..ROUNDS {
        for path in PATHS {
            ask(address, path, round).await?;
        }
    }
    server.abort();
    Ok(())
}

/// One request, with ids of its own; of a stream only the beginning is read.
async fn ask(address: SocketAddr, path: &str, round: usize) -> Result<(), Error> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         x-request-id: client-{round}\r\nauthorization: Bearer not-for-the-files\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let mut bytes = stream.read(&mut answer).await?;
    while bytes > 0 && path != "/stream" {
        bytes = stream.read(&mut answer).await?;
    }
    Ok(())
}

/// What the handlers share with the tables of a database: how long a statement takes.
async fn query(statement: &str, takes: Duration) {
    let begin = Instant::now();
    tokio::time::sleep(takes).await;
    let elapsed = begin.elapsed();
    // As sqlx writes it.
    tracing::info!(
        target: "sqlx::query",
        summary = &statement[..statement.len().min(20)],
        db.statement = statement,
        rows_affected = 0_u64,
        rows_returned = 3_u64,
        elapsed = ?elapsed,
        elapsed_secs = elapsed.as_secs_f64(),
    );
}

async fn engines() -> &'static str {
    query(
        "SELECT id, host FROM engines WHERE healthy",
        Duration::from_millis(3),
    )
    .await;
    log::info!(engines = 3; "engines listed");
    "[1,2,3]"
}

async fn slow(State(log): State<Log>) -> &'static str {
    // Free to be polled anywhere, and not the parent of what other tasks of this thread begin.
    let step = log.performance().start("load_everything").detach();
    for _ in 0..3 {
        query("SELECT * FROM streams", SLOW).await;
    }
    step.success(&[]);
    "at last"
}

async fn fail(State(log): State<Log>) -> (StatusCode, &'static str) {
    let mut provisioning = log.provisioning().start("start_acestream");
    provisioning.set_subject("4f6c0a");
    provisioning.fail("no engine is free", &[]);
    tracing::error!(engine = "4f6c0a", "cannot start an engine");
    (StatusCode::INTERNAL_SERVER_ERROR, "no engine")
}
