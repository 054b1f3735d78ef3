//! The stress episodes of a cycle, E1 to E6.
//!
//! | | seconds | what |
//! |---|---|---|
//! | E5 | 16 to 60 | Docker stalls: slow starts, then five failures in a row |
//! | E4 | 62 to 422 | circuit breaker: open, open again at 242, closed |
//! | E2 | 120 and 180 | 4 of 7 and 5 of 10 engines are unhealthy |
//! | E1 | 350 | mass disconnect |
//! | E3 | 440 to 485 | VPN loss |
//! | E6 | 520 and 540 | the forwarded port changes |

use std::time::Duration;

use super::ending::handler_exit;
use super::event::{Owned, Payload, Side};
use super::model::{Generator, millis, seconds};
use super::orchestrator::{Kind, SLOW_ACESTREAM, SLOW_CONTAINER, micros};
use crate::record::Name;
use crate::symbol;

/// E1: when clients leave.
pub const DISCONNECT_AT: Duration = seconds(350);
/// E1: how many.
pub const DISCONNECT_CLIENTS: usize = 20;
/// E3: VPN lost from here ..
pub const VPN_LOST_AT: Duration = seconds(440);
/// E3: .. to here.
pub const VPN_BACK_AT: Duration = seconds(485);
/// E3: starts that never end.
pub const STARTS_UNENDED: u32 = 6;
/// E4: the breaker opens after the fifth failure ..
const BREAKER_OPEN_AT: Duration = seconds(62);
/// E4: .. a probe fails (180 s later, as for a replacement) ..
const BREAKER_REOPEN_AT: Duration = seconds(242);
/// E4: .. and another one works.
const BREAKER_CLOSED_AT: Duration = seconds(422);
/// Polls that report more streams than there are places: a truth to be found.
pub const OVERFULL_POLLS: [u32; 2] = [8, 9];

/// E2: engines and unhealthy ones among them at health cycle `number` (every 30 s).
pub const fn pool(number: u32) -> (i64, i64) {
    match number {
        2 => (14, 0),
        3 => (14, 1),
        4 => (7, 4),
        5 => (7, 2),
        6 => (10, 5),
        7 => (10, 1),
        _ => (10, 0),
    }
}

/// How long the VPN has been lost at `at`, if it is.
pub fn vpn_loss(at: Duration) -> Option<Duration> {
    let lost = VPN_LOST_AT..VPN_BACK_AT;
    lost.contains(&at).then(|| at.saturating_sub(VPN_LOST_AT))
}

/// Why the orchestrator cannot start engines at `at`: code, sentence, seconds until it can.
pub fn blocked(at: Duration) -> Option<(Name<'static>, &'static str, i64)> {
    if vpn_loss(at).is_some() {
        let reason = "The VPN is disconnected";
        Some((symbol!("vpn_disconnected"), reason, 60))
    } else if (BREAKER_OPEN_AT..BREAKER_CLOSED_AT).contains(&at) {
        let reason = "The circuit breaker is open after repeated failures";
        Some((symbol!("circuit_breaker"), reason, 180))
    } else {
        None
    }
}

/// Whether steady starts of engines do not happen at `at`: nothing can be started, or a start
/// would disturb the five failures in a row.
pub fn blocks_starts(at: Duration) -> bool {
    (seconds(14)..BREAKER_CLOSED_AT + seconds(3)).contains(&at)
        || (VPN_LOST_AT.saturating_sub(seconds(2))..VPN_BACK_AT + seconds(8)).contains(&at)
}

impl Generator {
    /// Adds all episodes; E2 lies in the health cycles, parts of E3 and E4 in checks and polls.
    pub fn episodes(&mut self) {
        self.mass_disconnect();
        self.vpn_lost();
        self.circuit_breaker();
        self.docker_stall();
        self.port_changes();
    }

    /// E1: clients leave within 0.8 s; their lines come from as many goroutines and interleave.
    fn mass_disconnect(&mut self) {
        let mut turns = Vec::new();
        let mut lines = Vec::new();
        for client in 0..DISCONNECT_CLIENTS {
            let after = self.random.seconds(8.0, 120.0);
            let began = DISCONNECT_AT.saturating_sub(after);
            let joined = self.new_client(began, DISCONNECT_AT);
            let ends = self.end_lines(&joined, after, handler_exit());
            turns.extend(ends.iter().map(|_| client));
            lines.push((joined.lane, ends.into_iter()));
        }
        self.random.shuffle(&mut turns);
        let mut at = DISCONNECT_AT;
        for client in turns {
            let (lane, ends) = &mut lines[client];
            if let Some((payload, extras)) = ends.next() {
                self.emit(Side::Proxy, *lane, at, payload, extras);
            }
            at += Duration::from_secs_f64(self.random.between(26e-6, 0.01));
        }
    }

    /// E3: one edge, starts without an end, 503 at the proxy, and the way back.
    fn vpn_lost(&mut self) {
        let lane = self.lane();
        self.vpn_check(lane, VPN_LOST_AT);
        let (healthy, unhealthy) = (symbol!("healthy"), symbol!("unhealthy"));
        self.vpn_transition(lane, VPN_LOST_AT + micros(400), healthy, unhealthy);
        let event = symbol!("vpn_disconnection");
        let description = "The VPN went from healthy to unhealthy".to_owned();
        let extras = vec![
            (symbol!("old_status"), "healthy".into()),
            (symbol!("new_status"), "unhealthy".into()),
        ];
        let at = VPN_LOST_AT + micros(650);
        self.stress(lane, at, event, true, description, extras);
        for number in 0..STARTS_UNENDED {
            let at = VPN_LOST_AT + seconds(1) + millis(5_300) * number;
            self.start_begin(Kind::Acestream, at);
        }
        self.proxy_without_vpn();

        self.vpn_check(lane, VPN_BACK_AT);
        self.vpn_transition(lane, VPN_BACK_AT + micros(400), unhealthy, healthy);
        let reason = (symbol!("reason"), Owned::from("the VPN is healthy again"));
        let (operation, status) = (symbol!("restart_engines"), symbol!("triggered"));
        let at = VPN_BACK_AT + micros(900);
        self.vpn_change(lane, at, operation, status, vec![reason]);
        for number in 0..5 {
            let at = VPN_BACK_AT + seconds(1) * (number + 1);
            let duration = self.random.seconds(0.2, 0.4);
            self.start(Kind::Acestream, at, duration, None);
        }
    }

    fn proxy_without_vpn(&mut self) {
        let error = "orchestrator answered 503: vpn_disconnected";
        let lane = self.lane();
        for (retry, after) in [(0, 4), (1, 12), (2, 28)] {
            let at = VPN_LOST_AT + seconds(after);
            let duration = self.random.seconds(0.004, 0.02);
            let operation = symbol!("provision_attempt_failed");
            self.provisioning(lane, at, operation, duration, error, retry);
        }
        let at = VPN_LOST_AT + seconds(28) + micros(80);
        let operation = symbol!("provision_failed");
        self.provisioning(lane, at, operation, seconds(24), error, 3);
        for after in [6, 15] {
            let at = VPN_LOST_AT + seconds(after);
            self.refused_request(at, "no engine: vpn_disconnected");
        }
    }

    /// E4: open, open again after a probe that fails, closed after one that works.
    fn circuit_breaker(&mut self) {
        let lane = self.lane();
        let threshold = vec![(symbol!("threshold"), 5.into())];
        let extras = vec![
            (symbol!("failure_count"), 5.into()),
            (symbol!("threshold"), 5.into()),
        ];
        self.breaker(lane, BREAKER_OPEN_AT, symbol!("open"), 5, threshold);
        let description = "Starting engines is suspended after 5 failures in a row".to_owned();
        let event = symbol!("circuit_breaker_opened");
        let at = BREAKER_OPEN_AT + micros(200);
        self.stress(lane, at, event, true, description, extras);

        let began = BREAKER_REOPEN_AT.saturating_sub(seconds(6));
        let error = Some(self.timeout_error());
        let end = self.start(Kind::Acestream, began, millis(5_999), error);
        let reason = vec![(symbol!("reason"), "recovery_failed".into())];
        self.breaker(lane, end + millis(1), symbol!("open"), 6, reason.clone());
        let event = symbol!("circuit_breaker_reopened");
        let description = "The probe after the pause failed".to_owned();
        self.stress(lane, end + micros(1_200), event, true, description, reason);

        let began = BREAKER_CLOSED_AT.saturating_sub(millis(300));
        self.start(Kind::Acestream, began, millis(299), None);
        self.breaker(lane, BREAKER_CLOSED_AT, symbol!("closed"), 0, Vec::new());
        self.proxy_with_open_breaker();
    }

    /// Attempts of the proxy with a pause of 30, 60 and 120 s between them.
    fn proxy_with_open_breaker(&mut self) {
        let lane = self.lane();
        let error = "orchestrator answered 503: the circuit breaker is open";
        for (retry, after) in [(0, 4), (1, 34), (2, 94), (3, 214)] {
            let at = BREAKER_OPEN_AT + seconds(after);
            let duration = self.random.seconds(0.004, 0.02);
            let operation = symbol!("provision_attempt_failed");
            self.provisioning(lane, at, operation, duration, error, retry);
            let extras = vec![
                (symbol!("attempt"), i64::from(retry + 1).into()),
                (symbol!("error"), error.into()),
            ];
            let event = symbol!("provisioning_circuit_breaker");
            let description = "Provisioning met an open circuit breaker".to_owned();
            self.proxy_stress(lane, at + micros(50), event, true, description, extras);
        }
        let at = BREAKER_OPEN_AT + seconds(214) + micros(120);
        let operation = symbol!("provision_failed_permanent");
        self.provisioning(lane, at, operation, seconds(210), error, 4);
    }

    /// E5: Docker answers late or not at all. What takes exactly as long as the threshold is not
    /// slow; then five failures in a row, which open the breaker.
    fn docker_stall(&mut self) {
        for (at, kind, duration) in [
            (16_000, Kind::Container, SLOW_CONTAINER),
            (17_000, Kind::Container, SLOW_CONTAINER + millis(1_430)),
            (20_000, Kind::Acestream, SLOW_ACESTREAM),
            (21_000, Kind::Acestream, SLOW_ACESTREAM + millis(4_870)),
        ] {
            self.start(kind, millis(at), duration, None);
        }
        for (number, duration) in [30_000, 27_400, 21_800, 11_900, 5_200]
            .into_iter()
            .enumerate()
        {
            let error = if number % 2 == 0 {
                self.timeout_error()
            } else {
                self.conflict_error()
            };
            // They end at 52, 54 .. 60 s, after the last slow success.
            let end = millis(52_000 + 2_000 * number as u64);
            let duration = millis(duration);
            self.start(
                Kind::Acestream,
                end.saturating_sub(duration),
                duration,
                Some(error),
            );
        }
    }

    /// 85 to 90 characters.
    fn timeout_error(&mut self) -> String {
        let socket = 1 + self.random.below(9);
        format!(
            "UnixSocketPool(host='localhost', port=None, id={socket}): Read timed out after 30 s \
             (docker)"
        )
    }

    /// About 320 characters, among them the 64 digits of a container.
    fn conflict_error(&mut self) -> String {
        let name = format!("acestream-{}", 10 + self.random.below(90));
        let container = self.random.hex(64);
        format!(
            "409 Client Error for http+docker://localhost/v1.45/containers/create?name={name}: \
             Conflict (\"The name \\\"/{name}\\\" is taken by the container \\\"{container}\\\". \
             Remove that container, or rename it, before a new one of the same name can be \
             created; nothing changed.\")"
        )
    }

    /// E6: the forwarded port changes; once the engine follows, once it does not.
    fn port_changes(&mut self) {
        let lane = self.lane();
        let (old, new, last) = (
            40_000 + self.random.below(9_000) as i64,
            50_000 + self.random.below(9_000) as i64,
            60_000 + self.random.below(5_000) as i64,
        );
        let unknown = symbol!("unknown");
        let engine: Owned = self.random.hex(12).into();
        for (at, old, new, works) in [(520, old, new, true), (540, new, last, false)] {
            let at = seconds(at);
            let ports = vec![
                (symbol!("old_port"), old.into()),
                (symbol!("new_port"), new.into()),
                (symbol!("engine_id"), engine.clone()),
            ];
            let detected = symbol!("port_change_detected");
            self.vpn_change(lane, at, detected, unknown, ports.clone());
            let after = at + self.random.seconds(1.2, 2.5);
            if works {
                let handled = symbol!("port_change_handled");
                self.vpn_change(lane, after, handled, unknown, ports);
            } else {
                let error = "the engine did not stop within 10 seconds".into();
                let extras = [ports, vec![(symbol!("error"), error)]].concat();
                let failed = symbol!("port_change_error");
                self.vpn_change(lane, after, failed, unknown, extras);
            }
        }
    }

    fn vpn_transition(&mut self, lane: u32, at: Duration, old: Name<'static>, new: Name<'static>) {
        let extras = vec![
            (symbol!("old_status"), old.text().into()),
            (symbol!("new_status"), new.text().into()),
        ];
        self.vpn_change(lane, at, symbol!("transition"), new, extras);
    }

    fn vpn_change(
        &mut self,
        lane: u32,
        at: Duration,
        operation: Name<'static>,
        status: Name<'static>,
        extras: super::event::Extras,
    ) {
        let payload = Payload::VpnChange {
            operation,
            status,
            duration_ms: None,
        };
        self.emit(Side::Orchestrator, lane, at, payload, extras);
    }

    fn breaker(
        &mut self,
        lane: u32,
        at: Duration,
        state: Name<'static>,
        failure_count: i64,
        extras: super::event::Extras,
    ) {
        let payload = Payload::CircuitBreaker {
            operation_type: symbol!("unknown"),
            state,
            failure_count,
        };
        self.emit(Side::Orchestrator, lane, at, payload, extras);
    }
}
