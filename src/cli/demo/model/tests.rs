//! The generated traffic against the figures that were measured.

use std::collections::BTreeMap;

use super::super::episodes::{
    DISCONNECT_AT, DISCONNECT_CLIENTS, STARTS_UNENDED, VPN_BACK_AT, VPN_LOST_AT,
};
use super::super::event::{EXTRAS_MAX, Owned};
use super::super::orchestrator::{SLOW_ACESTREAM, SLOW_CONTAINER};
use super::super::proxy::{SLOW_REQUEST, STREAMS_UNENDED};
use super::*;

const SEED: u64 = 42;

/// Share of each category in the lines of one side, over some cycles.
fn mix(side: Side, episodes: bool) -> BTreeMap<&'static str, f64> {
    let mut counts = BTreeMap::new();
    let mut all = 0.0;
    for index in 0..20 {
        for event in cycle(SEED, index, episodes) {
            let category = event.payload.category();
            // Newer than the run that was measured.
            if event.side == side && category != "disconnects" {
                *counts.entry(category).or_insert(0.0) += 1.0;
                all += 1.0;
            }
        }
    }
    for count in counts.values_mut() {
        *count /= all;
    }
    counts
}

fn assert_share(mix: &BTreeMap<&'static str, f64>, category: &str, share: f64, tolerance: f64) {
    let found = mix.get(category).copied().unwrap_or(0.0);
    assert!(
        (found - share).abs() <= tolerance,
        "{category}: {found} of {mix:?}"
    );
}

/// The operation of a provisioning event of the orchestrator.
fn operation(event: &Event) -> &'static str {
    match &event.payload {
        Payload::Provisioning { operation, .. } => operation.text(),
        _ => "",
    }
}

/// The type of a stress event.
fn stress(event: &Event) -> &'static str {
    match &event.payload {
        Payload::Stress { event_type, .. } | Payload::ProxyStress { event_type, .. } => {
            event_type.text()
        }
        _ => "",
    }
}

fn extra<'e>(event: &'e Event, name: &str) -> &'e Owned {
    let found = event.extras.iter().find(|(key, _)| key.text() == name);
    &found.unwrap_or_else(|| panic!("no {name} in {event:?}")).1
}

#[test]
fn a_seed_gives_the_same_traffic_for_ever() {
    assert_eq!(cycle(1, 0, true), cycle(1, 0, true));
    assert_ne!(cycle(1, 0, true), cycle(2, 0, true));
    assert_ne!(cycle(1, 0, true), cycle(1, 1, true));
    let day = traffic(1, CYCLE * 3, usize::MAX);
    assert_eq!(day, traffic(1, CYCLE * 3, usize::MAX));
    assert!(day.is_sorted_by_key(|event| event.at));
    assert_eq!(traffic(1, CYCLE * 3, 100), day[..100]);
    assert!(
        traffic(1, seconds(60), usize::MAX)
            .iter()
            .all(|event| event.at < seconds(60))
    );
}

#[test]
fn steady_mix_is_that_of_a_real_run() {
    let orchestrator = mix(Side::Orchestrator, false);
    assert_share(&orchestrator, "vpn", 0.69, 0.03);
    assert_share(&orchestrator, "provisioning", 0.23, 0.03);
    assert_share(&orchestrator, "health", 0.07, 0.01);
    let proxy = mix(Side::Proxy, false);
    assert_share(&proxy, "streams", 0.35, 0.02);
    assert_share(&proxy, "engine_selection", 0.22, 0.02);
    assert_share(&proxy, "requests", 0.21, 0.02);
    assert_share(&proxy, "stress", 0.18, 0.02);
    assert_share(&proxy, "orchestrator_health", 0.023, 0.006);
    assert_share(&proxy, "provisioning", 0.008, 0.004);
}

#[test]
fn episodes_leave_the_proxy_mix_and_raise_stress() {
    let proxy = mix(Side::Proxy, true);
    assert_share(&proxy, "streams", 0.35, 0.03);
    assert_share(&proxy, "stress", 0.19, 0.03);
    let orchestrator = mix(Side::Orchestrator, true);
    assert!(orchestrator["stress"] > 0.01, "{orchestrator:?}");
    assert!(
        orchestrator.contains_key("circuit_breaker"),
        "{orchestrator:?}"
    );
}

#[test]
fn a_cycle_has_some_hundred_records_of_each_side() {
    for index in 0..10 {
        let events = cycle(SEED, index, true);
        let proxy = events
            .iter()
            .filter(|event| event.side == Side::Proxy)
            .count();
        let orchestrator = events.len() - proxy;
        assert!((250..400).contains(&orchestrator), "{orchestrator}");
        assert!((700..1_700).contains(&proxy), "{proxy}");
    }
}

#[test]
fn streams_end_in_the_measured_ways() {
    let mut reasons = BTreeMap::new();
    let mut all = 0.0;
    for event in (0..20).flat_map(|index| cycle(SEED, index, false)) {
        if let Some((_, Owned::Text(reason))) = event.extras.first()
            && matches!(event.payload, Payload::ProxyStream { .. })
            && event.extras.len() == 1
        {
            *reasons.entry(reason.clone()).or_insert(0.0) += 1.0;
            all += 1.0;
        }
    }
    for (reason, share) in [
        ("fetch_stream_failed", 0.40),
        ("handler_exit", 0.35),
        ("start_stream_failed", 0.25),
    ] {
        let found: f64 = reasons[reason] / all;
        assert!((found - share).abs() < 0.04, "{reason}: {found}");
    }
}

#[test]
fn most_requests_are_slow_and_every_slow_one_is_stress() {
    let (mut requests, mut slow, mut stressed) = (0, 0, 0);
    for event in (0..20).flat_map(|index| cycle(SEED, index, false)) {
        if let Payload::ProxyRequest { duration_ms, .. } = event.payload {
            assert!(duration_ms >= millis(447) && duration_ms <= seconds(257));
            requests += 1;
            slow += usize::from(duration_ms > SLOW_REQUEST);
        }
        stressed += usize::from(stress(&event) == "slow_request");
    }
    // A run that ends between the two lines may miss one of them.
    assert!(slow.abs_diff(stressed) <= 20, "{slow} and {stressed}");
    let share = f64::from(slow as u32) / f64::from(requests);
    assert!((share - 0.88).abs() < 0.04, "{share}");
}

#[test]
fn clients_leave_at_once_and_their_lines_interleave() {
    let events = cycle(SEED, 0, true);
    let window = DISCONNECT_AT..DISCONNECT_AT + millis(800);
    let mut lines: BTreeMap<u32, Vec<&Payload>> = BTreeMap::new();
    let mut order = Vec::new();
    for event in events.iter().filter(|event| window.contains(&event.at)) {
        if event.side == Side::Proxy {
            lines.entry(event.lane).or_default().push(&event.payload);
            order.push(event.lane);
        }
    }
    let whole = lines.values().filter(|lines| {
        matches!(
            lines[..],
            [
                Payload::ProxyStream { .. },
                Payload::ProxyRequest { .. },
                Payload::ProxyStress { .. },
                Payload::ProxyDisconnect { .. },
            ]
        )
    });
    assert!(whole.count() >= DISCONNECT_CLIENTS);
    order.dedup();
    assert!(order.len() > 2 * DISCONNECT_CLIENTS, "{order:?}");
}

#[test]
fn two_health_cycles_have_too_many_unhealthy_engines() {
    let events = cycle(SEED, 0, true);
    let found: Vec<_> = events
        .iter()
        .filter(|event| stress(event) == "high_unhealthy_engines")
        .map(|event| {
            (
                event.at.as_secs(),
                extra(event, "unhealthy_count"),
                extra(event, "total"),
            )
        })
        .collect();
    let int = Owned::Int;
    assert_eq!(found, [(120, &int(4), &int(7)), (180, &int(5), &int(10))]);
}

#[test]
fn vpn_loss_is_one_edge_and_starts_without_end() {
    let events = cycle(SEED, 0, true);
    let count = |operation: &str| {
        let changes = events.iter().filter(|event| match &event.payload {
            Payload::VpnChange {
                operation: found, ..
            } => found.text() == operation,
            _ => false,
        });
        changes.count()
    };
    assert_eq!((count("transition"), count("restart_engines")), (2, 1));
    let edges = events
        .iter()
        .filter(|event| stress(event) == "vpn_disconnection");
    assert_eq!(edges.count(), 1);
    let (mut unhealthy, mut down) = (0, 0);
    for event in &events {
        if let Payload::VpnCheck { status, .. } = &event.payload {
            let lost = (VPN_LOST_AT..VPN_BACK_AT).contains(&event.at);
            let bad = ["unhealthy", "not_running"].contains(&status.text());
            assert_eq!(lost, bad, "{event:?}");
            unhealthy += usize::from(status.text() == "unhealthy");
            down += usize::from(status.text() == "not_running");
        }
    }
    assert!(unhealthy >= 5 && down >= 9, "{unhealthy} {down}");
    let of = |name: &str| {
        events
            .iter()
            .filter(|event| operation(event) == name)
            .count()
    };
    let begun = of("start_acestream_begin");
    let ended = of("start_acestream_success") + of("start_acestream_failed");
    assert_eq!(begun - ended, STARTS_UNENDED as usize);
    assert_eq!(of("start_container_begin"), of("start_container_success"));
    let unavailable = events.iter().filter(|event| {
        matches!(
            event.payload,
            Payload::ProxyRequest {
                status_code: 503,
                ..
            }
        )
    });
    assert_eq!(unavailable.count(), 2);
}

#[test]
fn five_failures_in_a_row_open_the_breaker() {
    let events = cycle(SEED, 0, true);
    let mut in_a_row = 0;
    let mut states = Vec::new();
    for event in &events {
        match operation(event) {
            "start_acestream_failed" => in_a_row += 1,
            "start_acestream_success" | "start_container_success" => in_a_row = 0,
            _ => {}
        }
        if let Payload::CircuitBreaker {
            state,
            failure_count,
            ..
        } = &event.payload
        {
            assert_eq!(in_a_row, *failure_count, "{event:?}");
            states.push((state.text(), *failure_count));
        }
    }
    assert_eq!(states, [("open", 5), ("open", 6), ("closed", 0)]);
    let of = |name: &str| events.iter().filter(|event| stress(event) == name).count();
    assert_eq!(of("circuit_breaker_opened"), 1);
    assert_eq!(of("circuit_breaker_reopened"), 1);
    assert_eq!(of("provisioning_circuit_breaker"), 4);
    assert!(of("orchestrator_degraded") >= 12);
}

#[test]
fn what_takes_exactly_the_threshold_is_not_slow() {
    for index in 0..5 {
        let events = cycle(SEED, index, true);
        let mut exact = Vec::new();
        for event in &events {
            let Payload::Provisioning {
                operation,
                duration_ms: Some(duration),
                success: true,
                ..
            } = &event.payload
            else {
                continue;
            };
            let (threshold, name) = match operation.text() {
                "start_container_success" => (SLOW_CONTAINER, "slow_provisioning"),
                _ => (SLOW_ACESTREAM, "slow_acestream_provisioning"),
            };
            let followed = events
                .iter()
                .any(|e| e.lane == event.lane && stress(e) == name);
            assert_eq!(followed, *duration > threshold, "{event:?}");
            if *duration == threshold {
                exact.push(duration.as_secs_f64());
            }
        }
        exact.sort_by(f64::total_cmp);
        assert_eq!(exact, [12.5, 17.5]);
        for name in ["slow_provisioning", "slow_acestream_provisioning"] {
            assert_eq!(
                events.iter().filter(|event| stress(event) == name).count(),
                1
            );
        }
    }
}

#[test]
fn forwarded_port_changes_are_handled_or_not() {
    let events = cycle(SEED, 0, true);
    let changes: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.payload {
            Payload::VpnChange { operation, .. } if operation.text().starts_with("port_") => {
                let Owned::Text(engine) = extra(event, "engine_id") else {
                    panic!("{event:?}")
                };
                assert_eq!(engine.len(), 12);
                assert_ne!(extra(event, "old_port"), extra(event, "new_port"));
                Some(operation.text())
            }
            _ => None,
        })
        .collect();
    let expected = ["detected", "handled", "detected", "error"];
    assert_eq!(changes, expected.map(|what| format!("port_change_{what}")));
}

#[test]
fn hidden_truths_are_planted() {
    let events = cycle(SEED, 0, true);
    let overfull = events.iter().filter(|event| {
        matches!(event.payload, Payload::ProxyPoll { capacity_total, capacity_used, .. }
            if capacity_used > capacity_total)
    });
    assert_eq!(overfull.count(), 2);
    let mut started = std::collections::BTreeSet::new();
    let mut ended = std::collections::BTreeSet::new();
    let mut requests = 0;
    for event in &events {
        if let Payload::ProxyStream {
            event_type,
            stream_id,
            engine_id,
            ..
        } = &event.payload
        {
            let is_end = event_type.text() == "stream_ended";
            assert_eq!(is_end, engine_id.is_empty());
            if is_end {
                assert!(ended.insert(stream_id), "{stream_id} ended twice");
            } else {
                started.insert(stream_id);
            }
        }
        requests += usize::from(matches!(event.payload, Payload::ProxyRequest { .. }));
    }
    assert!(ended.is_subset(&started));
    assert!(started.len() - ended.len() >= STREAMS_UNENDED);
    assert!(requests > 100);
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_stream_id(text: &str) -> bool {
    text.split_once('|')
        .is_some_and(|(a, b)| is_hex(a, 40) && is_hex(b, 32))
}

fn is_ace_id(text: &str) -> bool {
    let id = text
        .strip_prefix("{id: ")
        .and_then(|rest| rest.strip_suffix('}'));
    id.is_some_and(|id| is_hex(id, 40)) && text.len() == 46
}

/// Checks the sizes of the extra fields.
fn assert_extras(event: &Event) {
    assert!(event.extras.len() <= EXTRAS_MAX);
    for (key, owned) in &event.extras {
        match (key.text(), owned) {
            ("container_name", Owned::Text(name)) => {
                assert!(
                    name == "gluetun" || (11..=13).contains(&name.len()),
                    "{name}"
                );
            }
            ("image", Owned::Text(image)) => assert!((25..=60).contains(&image.len())),
            ("labels", Owned::Json(json)) => {
                assert!(
                    serde_json::from_str::<serde_json::Value>(json)
                        .unwrap()
                        .is_object()
                );
            }
            ("host_http_port", Owned::Int(port)) => assert!((19_000..20_000).contains(port)),
            ("key", Owned::Text(key)) => assert!(is_hex(key, 40)),
            ("playback_id", Owned::Text(id)) => assert!(is_hex(id, 32)),
            ("container_id", Owned::Text(id)) => assert!(is_hex(id, 64)),
            ("ace_id", Owned::Text(id)) => assert!(is_ace_id(id)),
            _ => {}
        }
    }
}

#[test]
fn fields_have_the_sizes_of_real_ones() {
    let (mut timeouts, mut conflicts) = (0, 0);
    for event in (0..5).flat_map(|index| cycle(SEED, index, true)) {
        assert_extras(&event);
        match &event.payload {
            Payload::Provisioning {
                container_id,
                error,
                ..
            } => {
                assert!(container_id.as_ref().is_none_or(|id| is_hex(id, 64)));
                if let Some(error) = error {
                    timeouts += usize::from((85..=90).contains(&error.len()));
                    conflicts += usize::from((310..=330).contains(&error.len()));
                }
            }
            Payload::ProxySelection {
                container_id,
                selected_port,
                duration_ms,
                error,
                ..
            } => {
                assert!(is_hex(container_id, 64) || !error.is_empty());
                assert!((19_000..20_000).contains(selected_port) || !error.is_empty());
                assert!((5..=249).contains(&duration_ms.as_millis()));
            }
            Payload::ProxyStream {
                stream_id,
                engine_id,
                ..
            } => {
                assert!(is_stream_id(stream_id));
                assert!(engine_id.is_empty() || is_hex(engine_id, 64));
            }
            Payload::ProxyRequest { ace_id, .. } => assert!(is_ace_id(ace_id)),
            Payload::ProxyDisconnect {
                stream_id,
                ace_id,
                error,
                detailed_reason,
                ..
            } => {
                assert!(is_stream_id(stream_id) && is_ace_id(ace_id));
                assert!(error.len() <= 150);
                assert!((20..=80).contains(&detailed_reason.len()));
            }
            _ => {}
        }
    }
    // Per cycle: three of the stall and the failed probe; two of the stall.
    assert_eq!((timeouts, conflicts), (5 * 4, 5 * 2));
}
