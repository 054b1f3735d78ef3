//! Steady traffic of the orchestrator: VPN checks, health cycles, containers.

use std::time::Duration;

use super::episodes;
use super::event::{Extras, Owned, Payload, Side, severity};
use super::model::{CYCLE, ENGINES, Generator, millis, seconds};
use crate::cli::random::Quantiles;
use crate::record::Name;
use crate::symbol;

/// Duration of a VPN check, ms.
const VPN_CHECK: &Quantiles = &[
    (0.0, 9.2),
    (0.5, 10.7),
    (0.9, 15.7),
    (0.99, 23.3),
    (1.0, 30.7),
];
/// Duration of a health cycle, ms.
const HEALTH_CYCLE: &Quantiles = &[(0.0, 66.0), (0.5, 111.0), (0.9, 175.0), (1.0, 245.0)];
/// Duration of starting an engine, ms.
const START: &Quantiles = &[(0.0, 168.0), (0.5, 264.0), (0.9, 329.0), (1.0, 526.0)];
/// More than this makes the start of a container slow: half the start-up timeout of 25 s.
pub const SLOW_CONTAINER: Duration = millis(12_500);
/// More than this makes the start of an engine slow: 0.7 of the timeout.
pub const SLOW_ACESTREAM: Duration = millis(17_500);
/// A larger share of unhealthy engines than this is stress.
const UNHEALTHY_SHARE_MAX: f64 = 0.3;
/// Engines that are started one by one after the first ten.
const LATER_STARTS: usize = 20;

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any container, by the general interface.
    Container,
    /// An engine.
    Acestream,
}

impl Generator {
    /// All steady events of the orchestrator.
    pub fn orchestrator(&mut self) {
        for index in 0..ENGINES {
            let at = millis(200) + millis(1_100) * index as u32;
            let duration = self.random.millis(START);
            self.start(Kind::Acestream, at, duration, None);
        }
        self.later_starts();
        self.vpn_checks();
        self.health_cycles();
    }

    /// The autoscaler and the proxy ask for an engine now and then.
    fn later_starts(&mut self) {
        for _ in 0..LATER_STARTS {
            let at = self.random.seconds(15.0, 595.0);
            let duration = self.random.millis(START);
            if !(self.episodes && episodes::blocks_starts(at)) {
                self.start(Kind::Acestream, at, duration, None);
            }
        }
    }

    fn vpn_checks(&mut self) {
        let lane = self.lane();
        let mut at = millis(400);
        while at < CYCLE {
            self.vpn_check(lane, at);
            // Starting ten engines blocks the event loop once.
            let pause = if at < seconds(1) { 14.6 } else { 3.0 };
            at += self.random.seconds(pause - 0.02, pause + 0.02);
        }
    }

    /// One check; its status is that of the time.
    pub fn vpn_check(&mut self, lane: u32, at: Duration) {
        let duration_ms = Some(self.random.millis(VPN_CHECK));
        let odd = self.random.chance(0.004);
        let container = (symbol!("container_name"), "gluetun".into());
        let health = |text: &str| (symbol!("health_status"), Owned::from(text));
        let (status, extras) = match episodes::vpn_loss(at).filter(|_| self.episodes) {
            Some(lost) if lost < seconds(15) => {
                (symbol!("unhealthy"), vec![container, health("unhealthy")])
            }
            Some(_) => {
                let exited = (symbol!("container_status"), "exited".into());
                (symbol!("not_running"), vec![container, exited])
            }
            None if odd => (symbol!("healthy_no_healthcheck"), vec![container]),
            None => (symbol!("healthy"), vec![container, health("healthy")]),
        };
        let operation = symbol!("health_check");
        let payload = Payload::VpnCheck {
            operation,
            status,
            duration_ms,
        };
        self.emit(Side::Orchestrator, lane, at, payload, extras);
    }

    fn health_cycles(&mut self) {
        let lane = self.lane();
        for number in 1..20 {
            let duration = self.random.millis(HEALTH_CYCLE);
            let at = seconds(30) * number + duration;
            let (total, unhealthy) = if self.episodes {
                episodes::pool(number)
            } else {
                (ENGINES as i64, i64::from(self.random.chance(0.1)))
            };
            let payload = Payload::Health {
                component: symbol!("health_monitor_cycle"),
                container_id: None,
                status: symbol!("completed"),
                duration_ms: Some(duration),
                error: None,
            };
            let extras = vec![
                (symbol!("total_engines"), total.into()),
                (symbol!("healthy"), (total - unhealthy).into()),
                (symbol!("unhealthy"), unhealthy.into()),
            ];
            self.emit(Side::Orchestrator, lane, at, payload, extras);
            if unhealthy as f64 > UNHEALTHY_SHARE_MAX * total as f64 {
                let extras = vec![
                    (symbol!("unhealthy_count"), unhealthy.into()),
                    (symbol!("total"), total.into()),
                ];
                let description = format!("{unhealthy} of {total} engines are unhealthy");
                let event = symbol!("high_unhealthy_engines");
                self.stress(lane, at + micros(150), event, false, description, extras);
            }
        }
    }

    /// A begin line, and `duration` later its success or, with `error`, its failure; a slow
    /// success is stress. Returns the time of the end.
    pub fn start(
        &mut self,
        kind: Kind,
        at: Duration,
        duration: Duration,
        error: Option<String>,
    ) -> Duration {
        let lane = self.start_begin(kind, at);
        let end = at + duration;
        if let Some(error) = error {
            let operation = match kind {
                Kind::Container => symbol!("start_container_failed"),
                Kind::Acestream => symbol!("start_acestream_failed"),
            };
            let payload = Payload::Provisioning {
                operation,
                container_id: None,
                duration_ms: Some(duration),
                success: false,
                error: Some(error),
            };
            self.emit(Side::Orchestrator, lane, end, payload, Vec::new());
        } else {
            self.start_success(kind, lane, end, duration);
        }
        end
    }

    /// A begin line alone: what remains of a start that fails before there is a container.
    pub fn start_begin(&mut self, kind: Kind, at: Duration) -> u32 {
        let lane = self.lane();
        let labels = match self.random.below(4) {
            0 => format!(
                "{{\"tier\":\"t{}\",\"zone\":\"demo\"}}",
                self.random.below(9)
            ),
            _ => "{}".to_owned(),
        };
        let labels = (symbol!("labels"), Owned::Json(labels));
        let (operation, extras) = match kind {
            Kind::Container => {
                let image = format!("registry.invalid/media/probe:{}", self.random.hex(12));
                let extras = vec![
                    (symbol!("container_name"), self.container_name().into()),
                    (symbol!("image"), image.into()),
                    labels,
                ];
                (symbol!("start_container_begin"), extras)
            }
            Kind::Acestream => {
                let custom = self.random.chance(0.2);
                let extras = vec![labels, (symbol!("has_custom_env"), custom.into())];
                (symbol!("start_acestream_begin"), extras)
            }
        };
        let payload = Payload::Provisioning {
            operation,
            container_id: None,
            duration_ms: None,
            success: true,
            error: None,
        };
        self.emit(Side::Orchestrator, lane, at, payload, extras);
        lane
    }

    fn start_success(&mut self, kind: Kind, lane: u32, end: Duration, duration: Duration) {
        let container_id = self.random.hex(64);
        let mut extras = vec![(symbol!("container_name"), self.container_name().into())];
        let (operation, slow) = match kind {
            Kind::Container => (
                symbol!("start_container_success"),
                duration > SLOW_CONTAINER,
            ),
            Kind::Acestream => (
                symbol!("start_acestream_success"),
                duration > SLOW_ACESTREAM,
            ),
        };
        if kind == Kind::Acestream {
            let port = 19_000 + self.random.below(1_000) as i64;
            extras.push((symbol!("host_http_port"), port.into()));
        }
        let payload = Payload::Provisioning {
            operation,
            container_id: Some(container_id.clone()),
            duration_ms: Some(duration),
            success: true,
            error: None,
        };
        self.emit(Side::Orchestrator, lane, end, payload, extras);
        if slow {
            let event = match kind {
                Kind::Container => symbol!("slow_provisioning"),
                Kind::Acestream => symbol!("slow_acestream_provisioning"),
            };
            let description = format!("Start took {:.2}s", duration.as_secs_f64());
            let extras = vec![
                (symbol!("container_id"), container_id.into()),
                (symbol!("duration"), duration.as_secs_f64().into()),
            ];
            self.stress(lane, end + micros(90), event, false, description, extras);
        }
    }

    /// A stress line of the orchestrator.
    pub fn stress(
        &mut self,
        lane: u32,
        at: Duration,
        event_type: Name<'static>,
        critical: bool,
        description: String,
        extras: Extras,
    ) {
        let payload = Payload::Stress {
            event_type,
            severity: severity(critical),
            description,
        };
        self.emit(Side::Orchestrator, lane, at, payload, extras);
    }

    /// A name of 11 to 13 characters.
    fn container_name(&mut self) -> String {
        format!("acestream-{}", 1 + self.random.below(120))
    }
}

/// Microseconds as a duration.
pub const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}
