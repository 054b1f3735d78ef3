//! The load: requests at fixed times, whether the server has answered or not (an open loop), over
//! a few connections. The time of a request begins when it was due, so that one that has to wait
//! for its connection is not taken for a quick one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

use crate::service::{BEGIN, END};

const CONNECTIONS: u64 = 4;
/// Requests before those that are measured: one for so many of these.
const WARM_PART: u64 = 3;

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks for `path` and reads the answer to its end.
    fn get(&mut self, path: &str) -> io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(format!("the answer is {line:?}")));
        }
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            if line.trim_end().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
        }
        io::copy(&mut self.0.by_ref().take(length), &mut io::sink())?;
        Ok(())
    }

    /// Every [`CONNECTIONS`]th request from `first` on, at its time.
    fn load(&mut self, first: u64, count: u64, pause: Duration) -> io::Result<Histogram<u64>> {
        let mut times =
            Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?;
        let begin = Instant::now();
        for number in (first..count).step_by(CONNECTIONS as usize) {
            let due = begin + Duration::from_nanos(pause.as_nanos() as u64 * number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.get(&format!("/ace/getstream/{number}"))?;
            times.saturating_record(due.elapsed().as_nanos() as u64);
        }
        Ok(times)
    }
}

/// So many requests, evenly over the time, from all connections.
fn load(
    connections: &mut [Connection],
    count: u64,
    length: Duration,
) -> io::Result<Histogram<u64>> {
    let pause = length / u32::try_from(count).map_err(io::Error::other)?;
    thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .zip(0..)
            .map(|(connection, first)| scope.spawn(move || connection.load(first, count, pause)))
            .collect();
        let mut all = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(io::Error::other)?;
        for thread in threads {
            let times = thread.join().expect("a connection does not panic")?;
            all.add(times).map_err(io::Error::other)?;
        }
        Ok(all)
    })
}

fn run(port: u16, count: u64, length: Duration) -> io::Result<Histogram<u64>> {
    let connections: io::Result<Vec<_>> =
        (0..CONNECTIONS).map(|_| Connection::open(port)).collect();
    let mut connections = connections?;
    let warm = count.div_ceil(WARM_PART);
    load(&mut connections, warm, length / WARM_PART as u32)?;
    connections[0].get(BEGIN)?;
    let times = load(&mut connections, count, length)?;
    connections[0].get(END)?;
    Ok(times)
}

/// `client PORT REQUESTS MS`.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    let [port, count, ms] = numbers[..] else {
        panic!("client PORT REQUESTS MS");
    };
    let port = u16::try_from(port).expect("a port");
    let times = run(port, count, Duration::from_millis(ms)).expect("the server answers");
    assert_eq!(times.len(), count, "every request was answered");
    let quantile = |share: f64| times.value_at_quantile(share);
    let line = json!({ "p50": quantile(0.5), "p99": quantile(0.99), "p999": quantile(0.999) });
    println!("{line}");
    ExitCode::SUCCESS
}
