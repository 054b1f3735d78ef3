//! Evaluating rules allocates nothing on the thread that pushes, also when they fire.

#[path = "support/peak.rs"]
mod peak;
#[path = "support/recording.rs"]
mod recording;

use std::time::Duration;

use stormlog::record::Extra;
use stormlog::record::catalog::{orchestrator, proxy};
use stormlog::{Conversion, Log, Outcome, symbol};

/// Every kind of rule looks at one of these, and most of them fire and end.
fn push(log: &Log, round: u64) {
    let worse = round % 2 == 1;
    let seconds = Duration::from_secs(if worse { 20 } else { 1 });
    let outcomes = [
        log.push_with(
            &proxy::Request {
                method: symbol!("GET"),
                path: "/ace/getstream",
                duration_ms: seconds,
                status_code: 200,
                ace_id: "{id: 0123}",
            },
            &[Extra::new("ttfb_ms", seconds.as_millis() as u64)],
        ),
        log.push(&orchestrator::Provisioning {
            operation: symbol!("start_container_success"),
            container_id: Some("4f6c0a"),
            duration_ms: Some(seconds),
            success: !worse,
            error: Some("the circuit breaker is open"),
        }),
        log.push_with(
            &orchestrator::VpnCheck {
                operation: symbol!("health_check"),
                status: if worse {
                    symbol!("unhealthy")
                } else {
                    symbol!("healthy")
                },
                duration_ms: None,
            },
            &[Extra::new("container_name", "gluetun")],
        ),
    ];
    assert_eq!(outcomes, [Outcome::Kept; 3]);
}

#[test]
fn rules_that_fire_allocate_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .conversion(Conversion::Later)
        .sampling(false)
        .stress_rules(true)
        .start()
        .unwrap();
    let log = session.log();
    // Ring, schemas and symbols are taken once.
    (0..4).for_each(|round| push(&log, round));
    session.flush().unwrap();
    let (bytes, _) = peak::of(|| (4..44).for_each(|round| push(&log, round)));
    assert_eq!(bytes, 0);
    let report = session.close().unwrap();
    assert!(
        report.ledger.is_exact() && report.faults.is_empty(),
        "{report:?}"
    );
    let stress = report.ledger.categories["stress"];
    assert!(stress.written() > 100, "{stress:?}");
}
