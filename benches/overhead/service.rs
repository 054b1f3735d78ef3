//! The server: answers each request with a list of engines, and records what a proxy records.

use std::convert::Infallible;
use std::hint::black_box;
use std::io;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use stormlog::record::catalog::proxy;
use stormlog::{Log, Outcome, Session, symbol};
use tokio::net::TcpListener;

use crate::cpu::process_cpu;

/// Engines in an answer: about as much work as a request of the orchestrator is.
const ENGINES: u32 = 50;
/// Asked for by the client around what is measured.
pub const BEGIN: &str = "/begin";
pub const END: &str = "/end";

/// Wall clock and processor time of this process.
type Mark = (Instant, Duration);

struct Server {
    session: Session,
    log: Log,
    records: u32,
    /// When the client asked for begin and end.
    marks: Mutex<Vec<Mark>>,
}

fn mark() -> Mark {
    let cpu = process_cpu();
    (Instant::now(), cpu)
}

impl Server {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let begin = Instant::now();
        let path = request.uri().path();
        if path == BEGIN || path == END {
            self.session.flush().expect("the writer runs");
            self.marks.lock().expect("nobody panics").push(mark());
            return Response::new(Full::default());
        }
        let number: u32 = path
            .rsplit('/')
            .next()
            .and_then(|it| it.parse().ok())
            .unwrap_or(0);
        let body = engines(number);
        self.record(path, number, begin);
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::OK;
        response
    }

    /// What the proxy records: the request, then selections of engines and events of streams. The
    /// ledger of the session counts what became of it.
    fn record(&self, path: &str, number: u32, begin: Instant) {
        const ID: &str = "0123456789abcdef0123456789abcdef01234567";
        const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for index in 0..self.records {
            let _counted: Outcome = match index % 3 {
                0 => self.log.push(&proxy::Request {
                    method: symbol!("GET"),
                    path,
                    duration_ms: begin.elapsed(),
                    status_code: 200,
                    ace_id: ID,
                }),
                1 => self.log.push(&proxy::EngineSelection {
                    operation: symbol!("select_best_engine"),
                    selected_host: symbol!("gluetun"),
                    selected_port: 19_000 + (number % 1_000) as i32,
                    container_id: CONTAINER,
                    duration_ms: begin.elapsed(),
                    error: "",
                }),
                _ => self.log.push(&proxy::StreamEvent {
                    event_type: symbol!("stream_started"),
                    stream_id: ID,
                    engine_id: CONTAINER,
                    duration_ms: begin.elapsed(),
                }),
            };
        }
    }
}

/// The work of a request: a list of engines as JSON.
fn engines(number: u32) -> Vec<u8> {
    let engine = |index: u32| {
        let id = (number ^ index).wrapping_mul(0x9e37_79b9);
        json!({
            "container_id": format!("{id:064x}"),
            "container_name": format!("acestream-{index}"),
            "host": "gluetun",
            "port": 19_000 + index,
            "healthy": !id.is_multiple_of(7),
            "load": f64::from(id) / 4_294_967_296.0,
        })
    };
    let list: Vec<Json> = (0..ENGINES).map(engine).collect();
    black_box(Json::Array(list).to_string()).into_bytes()
}

async fn serve(listener: TcpListener, server: Arc<Server>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a TCP connection");
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let response = server.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A connection that the client closes in the middle is the client's affair: it counts.
        tokio::spawn(async move { drop(connection.await) });
    }
}

/// `service --rate N --records N --ms N`.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<String> = words.collect();
    let option = |name: &str| -> u64 {
        let at = words.iter().position(|word| word == name).expect(name);
        words[at + 1].parse().expect(name)
    };
    let (rate, ms) = (option("--rate"), option("--ms"));
    let per_request = option("--records");
    let burn_ppm = std::env::var("BENCH_BURN_PPM").map_or(0, |ppm| ppm.parse().expect("a number"));
    let planned = (rate * ms).div_ceil(1_000);
    // More work is more requests in the same time.
    let more = (planned * burn_ppm).div_ceil(1_000_000);
    let session = Session::from_env().expect("a session");
    let server = Arc::new(Server {
        log: session.log(),
        session,
        records: per_request as u32,
        marks: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let runtime = runtime.expect("a runtime");
    let found = runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its number").port();
        tokio::spawn(serve(listener, Arc::clone(&server)));
        let load = tokio::task::spawn_blocking(move || client(port, planned + more, ms));
        load.await.expect("the client runs")
    });
    drop(runtime);
    let found: Json = found.expect("the client says what it saw");
    let marks = std::mem::take(&mut *server.marks.lock().expect("nobody panics"));
    let [(begin, cpu_begin), (end, cpu_end)] = marks[..] else {
        panic!("the client asks for begin and end");
    };
    let server = Arc::into_inner(server).expect("the runtime has ended");
    let closed = server.session.close().expect("the session ends");
    let counts = closed
        .ledger
        .categories
        .iter()
        .filter(|(name, _)| *name != "session");
    let (records, written) = counts.fold((0, 0), |(records, written), (_, account)| {
        (records + account.offered(), written + account.written())
    });
    let line = json!({"bench": {
        // The planned requests, so that more of them are more time for each.
        "units": planned,
        "records": records,
        "written": written,
        "burned": more,
        "window": {
            "wall_ns": (end - begin).as_nanos() as u64,
            "cpu_ns": cpu_end.saturating_sub(cpu_begin).as_nanos() as u64,
            "records": if records > 0 { (planned + more) * per_request } else { 0 },
        },
        "latency_ns": found,
    }});
    println!("{line}");
    ExitCode::SUCCESS
}

/// Runs the load and returns what it printed.
fn client(port: u16, requests: u64, ms: u64) -> io::Result<Json> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("client")
        .args([port.to_string(), requests.to_string(), ms.to_string()]);
    let output = command.stderr(Stdio::inherit()).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}
