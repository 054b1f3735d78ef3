//! Steady traffic of the proxy: polls of the orchestrator, and clients that zap through channels.

use std::time::Duration;

use super::ending::{Ending, fetch_failed, handler_exit, start_failed};
use super::episodes;
use super::event::{Extras, Payload, Side, severity};
use super::model::{CYCLE, ENGINES, Generator, millis, seconds};
use super::orchestrator::micros;
use crate::cli::random::Quantiles;
use crate::record::Name;
use crate::symbol;

/// Time between two requests, s: bursts of zapping with pauses between them.
const GAP: &Quantiles = &[
    (0.0, 0.05),
    (0.5, 0.5),
    (0.75, 3.6),
    (0.9, 8.0),
    (0.99, 30.0),
    (1.0, 45.0),
];
/// Time to choose an engine, ms.
const SELECTION: &Quantiles = &[(0.0, 5.0), (0.5, 48.0), (0.9, 100.0), (1.0, 249.0)];
/// Time for the engine to start a stream, ms.
const STREAM_START: &Quantiles = &[(0.0, 1.0), (0.5, 12.0), (0.9, 36.0), (1.0, 69.0)];
/// Time until the client leaves, s. The second pair makes 88 % of the requests slow.
const PLAYBACK: &Quantiles = &[
    (0.0, 0.447),
    (0.12, 5.0),
    (0.5, 26.0),
    (0.9, 71.0),
    (0.95, 169.0),
    (1.0, 257.0),
];
/// Time to provide an engine, ms.
const PROVISION: &Quantiles = &[(0.0, 220.0), (0.5, 300.0), (1.0, 440.0)];
/// A request that took longer than this is slow.
pub const SLOW_REQUEST: Duration = seconds(5);
/// Streams that an engine can carry.
const STREAMS_PER_ENGINE: i64 = 2;
/// Requests at once.
const REQUESTS_MAX: usize = 32;
/// Share of the requests that join a stream that is running.
const JOINS: f64 = 0.46;
/// Calls for another engine that work, per cycle.
const PROVISIONS: usize = 7;
/// Streams whose end is never logged, in a cycle with episodes.
pub const STREAMS_UNENDED: usize = 5;

/// Path of every request.
const PATH: &str = "/ace/getstream";

/// A content as the proxy names it.
fn ace_id(content: &str) -> String {
    format!("{{id: {content}}}")
}

/// One client at one stream.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its goroutine.
    pub lane: u32,
    began: Duration,
    stream: Stream,
    /// Whether the stream began with this client, so that it ends with it.
    owner: bool,
}

#[derive(Clone, Debug)]
struct Stream {
    /// The content, 40 hexadecimal digits.
    content: String,
    /// The playback, 32 hexadecimal digits.
    playback: String,
    /// Index of the engine.
    engine: usize,
    /// When its first client leaves.
    until: Duration,
}

impl Stream {
    fn id(&self) -> String {
        format!("{}|{}", self.content, self.playback)
    }
}

impl Generator {
    /// All steady events of the proxy.
    pub fn proxy(&mut self) {
        self.polls();
        self.zapping();
        for _ in 0..PROVISIONS {
            let at = self.random.seconds(12.0, 590.0);
            let duration = self.random.millis(PROVISION);
            if !(self.episodes && episodes::blocks_starts(at)) {
                let lane = self.lane();
                let operation = symbol!("provision_success");
                self.provisioning(lane, at + duration, operation, duration, "", 0);
            }
        }
    }

    fn polls(&mut self) {
        let lane = self.lane();
        for number in 0..20 {
            let at = seconds(12) + seconds(30) * number + self.random.seconds(0.0, 0.02);
            let blocked = episodes::blocked(at).filter(|_| self.episodes);
            let (total, _) = episodes::pool(number);
            let total = STREAMS_PER_ENGINE * if self.episodes { total } else { ENGINES as i64 };
            let mut used = self.random.below(total as usize) as i64;
            if self.episodes && episodes::OVERFULL_POLLS.contains(&number) {
                used = total + 2;
            }
            let (code, reason, eta) = blocked.unwrap_or((symbol!(""), "", 0));
            let payload = Payload::ProxyPoll {
                status: if blocked.is_some() {
                    symbol!("degraded")
                } else {
                    symbol!("healthy")
                },
                can_provision: blocked.is_none(),
                blocked_reason: reason.to_owned(),
                blocked_reason_code: code,
                recovery_eta_seconds: eta,
                vpn_connected: !(self.episodes && episodes::vpn_loss(at).is_some()),
                capacity_total: total,
                capacity_used: used,
                capacity_available: (total - used).max(0),
            };
            self.emit(Side::Proxy, lane, at, payload, Vec::new());
            if blocked.is_some() {
                let extras = vec![
                    (symbol!("blocked_reason"), reason.into()),
                    (symbol!("engine_count"), (total / STREAMS_PER_ENGINE).into()),
                ];
                let event = symbol!("orchestrator_degraded");
                let description = "The orchestrator is degraded".to_owned();
                self.proxy_stress(lane, at + micros(60), event, false, description, extras);
            }
        }
    }

    fn zapping(&mut self) {
        let contents: Vec<_> = (0..57).map(|_| self.random.hex(40)).collect();
        let mut running: Vec<Stream> = Vec::new();
        let mut leaving: Vec<Duration> = Vec::new();
        let mut unended = 0;
        let mut at = millis(12_500);
        while at < CYCLE {
            running.retain(|stream| stream.until > at);
            leaving.retain(|until| *until > at);
            if leaving.len() < REQUESTS_MAX {
                let playback = Duration::from_secs_f64(self.random.draw(PLAYBACK));
                let join = !running.is_empty() && self.random.chance(JOINS);
                let stream = if join {
                    let index = self.random.below(running.len());
                    running[index].clone()
                } else {
                    let index = self.random.below(contents.len());
                    self.stream(contents[index].clone(), at + playback)
                };
                let client = self.client(at, stream, !join);
                let ending = self.ending();
                let keep_quiet =
                    self.episodes && !join && unended < STREAMS_UNENDED && at > CYCLE / 4;
                unended += usize::from(keep_quiet);
                self.leave(&client, playback, ending, keep_quiet);
                leaving.push(at + playback);
                if !join {
                    running.push(client.stream);
                }
            }
            at += Duration::from_secs_f64(self.random.draw(GAP));
        }
    }

    fn ending(&mut self) -> Ending {
        match self.random.below(100) {
            0..40 => fetch_failed(),
            40..75 => handler_exit(),
            _ => start_failed(),
        }
    }

    fn stream(&mut self, content: String, until: Duration) -> Stream {
        Stream {
            content,
            playback: self.random.hex(32),
            engine: self.random.below(self.engines.len()),
            until,
        }
    }

    /// A client that starts a stream of new content at `at`, and stays until `until`.
    pub fn new_client(&mut self, at: Duration, until: Duration) -> Client {
        let content = self.random.hex(40);
        let stream = self.stream(content, until);
        self.client(at, stream, true)
    }

    /// The lines at the beginning of a request.
    fn client(&mut self, at: Duration, stream: Stream, owner: bool) -> Client {
        let lane = self.lane();
        let engine = self.engines[stream.engine].clone();
        let selection = self.random.millis(SELECTION);
        let start = self.random.millis(STREAM_START);
        let payload = Payload::ProxySelection {
            operation: symbol!("select_best_engine"),
            selected_host: symbol!("gluetun"),
            selected_port: i32::from(engine.port),
            container_id: engine.container_id.clone(),
            duration_ms: selection,
            error: String::new(),
        };
        self.emit(Side::Proxy, lane, at + selection, payload, Vec::new());
        let payload = Payload::ProxyStream {
            event_type: symbol!("stream_started"),
            stream_id: stream.id(),
            engine_id: engine.container_id,
            duration_ms: start,
        };
        let extras = vec![
            (symbol!("host"), "gluetun".into()),
            (symbol!("port"), i64::from(engine.port).into()),
            (symbol!("key_type"), "content_id".into()),
            (symbol!("key"), stream.content.clone().into()),
            (symbol!("playback_id"), stream.playback.clone().into()),
        ];
        self.emit(Side::Proxy, lane, at + selection + start, payload, extras);
        Client {
            lane,
            began: at,
            stream,
            owner,
        }
    }

    /// The lines at the end of a request; with `keep_quiet` the stream's end is not logged.
    pub fn leave(&mut self, client: &Client, after: Duration, ending: Ending, keep_quiet: bool) {
        let mut at = client.began + after;
        for (payload, extras) in self.end_lines(client, after, ending) {
            let is_end = matches!(payload, Payload::ProxyStream { .. });
            if !(keep_quiet && is_end) {
                self.emit(Side::Proxy, client.lane, at, payload, extras);
            }
            at += micros(30 + self.random.below(400) as u64);
        }
    }

    /// What is logged when the client leaves `after` its request, in order.
    pub fn end_lines(
        &mut self,
        client: &Client,
        after: Duration,
        ending: Ending,
    ) -> Vec<(Payload, Extras)> {
        let ace_id = ace_id(&client.stream.content);
        let mut lines = Vec::new();
        if client.owner {
            let ended = Payload::ProxyStream {
                event_type: symbol!("stream_ended"),
                stream_id: client.stream.id(),
                engine_id: String::new(),
                duration_ms: Duration::ZERO,
            };
            let reason = (symbol!("reason"), ending.reason.text().into());
            lines.push((ended, vec![reason]));
        }
        let request = Payload::ProxyRequest {
            method: symbol!("GET"),
            path: PATH.to_owned(),
            duration_ms: after,
            status_code: ending.status,
            ace_id: ace_id.clone(),
        };
        lines.push((request, Vec::new()));
        if after > SLOW_REQUEST {
            let slow = Payload::ProxyStress {
                event_type: symbol!("slow_request"),
                severity: symbol!("warning"),
                description: format!("Request took {:.2}s", after.as_secs_f64()),
            };
            let extras = vec![
                (symbol!("path"), PATH.into()),
                (symbol!("ace_id"), ace_id.clone().into()),
                (symbol!("duration"), after.as_secs_f64().into()),
            ];
            lines.push((slow, extras));
        }
        if client.owner {
            lines.push((self.disconnect(client, after, ending, ace_id), Vec::new()));
        }
        lines
    }

    fn disconnect(
        &mut self,
        client: &Client,
        after: Duration,
        ending: Ending,
        ace_id: String,
    ) -> Payload {
        let engine = &self.engines[client.stream.engine];
        // About 4 Mbit/s while it ran.
        let bytes = match ending.status {
            200 => (after.as_secs_f64() * self.random.between(4e5, 6e5)) as i64,
            _ => 0,
        };
        Payload::ProxyDisconnect {
            stream_id: client.stream.id(),
            ace_id,
            reason: ending.code,
            error: ending.error.to_owned(),
            bytes_copied: bytes,
            duration_ms: after,
            detailed_reason: ending.detail.to_owned(),
            engine_host: symbol!("gluetun"),
            engine_port: i32::from(engine.port),
            container_id: engine.container_id.clone(),
        }
    }

    /// A request for which there is no engine.
    pub fn refused_request(&mut self, at: Duration, error: &str) {
        let lane = self.lane();
        let selection = self.random.millis(SELECTION);
        let payload = Payload::ProxySelection {
            operation: symbol!("select_best_engine"),
            selected_host: symbol!(""),
            selected_port: 0,
            container_id: String::new(),
            duration_ms: selection,
            error: error.to_owned(),
        };
        self.emit(Side::Proxy, lane, at + selection, payload, Vec::new());
        let after = selection + self.random.seconds(0.45, 0.6);
        let payload = Payload::ProxyRequest {
            method: symbol!("GET"),
            path: PATH.to_owned(),
            duration_ms: after,
            status_code: 503,
            ace_id: ace_id(&self.random.hex(40)),
        };
        self.emit(Side::Proxy, lane, at + after, payload, Vec::new());
    }

    /// A line about asking the orchestrator for an engine.
    pub fn provisioning(
        &mut self,
        lane: u32,
        at: Duration,
        operation: Name<'static>,
        duration_ms: Duration,
        error: &str,
        retry_count: i32,
    ) {
        let payload = Payload::ProxyProvisioning {
            operation,
            duration_ms,
            success: error.is_empty(),
            error: error.to_owned(),
            retry_count,
        };
        self.emit(Side::Proxy, lane, at, payload, Vec::new());
    }

    /// A stress line of the proxy.
    pub fn proxy_stress(
        &mut self,
        lane: u32,
        at: Duration,
        event_type: Name<'static>,
        critical: bool,
        description: String,
        extras: Extras,
    ) {
        let payload = Payload::ProxyStress {
            event_type,
            severity: severity(critical),
            description,
        };
        self.emit(Side::Proxy, lane, at, payload, extras);
    }
}
