//! Stress rules in a session: what sampling leaves out does not escape them, and the ledger knows
//! what they tell.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Session;
use crate::convert::{ConvertOptions, visit_records};
use crate::record::catalog::proxy::Request;
use crate::record::{Category, DurationMs, Extra, Record, ShortText};
use crate::segment::files::SessionFiles;
use crate::{Conversion, Outcome, symbol};

crate::record! {
    struct Plain in "requests" keep Sampled { number: u64, duration_ms: DurationMs<2> }
}
crate::record! {
    struct Numbered in "requests" keep Sampled { number: u64, ttfb_ms: DurationMs<2> }
}
crate::record! {
    struct Keyed in "requests" keep Sampled key id { id: ShortText, duration_ms: DurationMs<2> }
}

const FAST: Duration = Duration::from_millis(400);
const SLOW: Duration = Duration::from_nanos(5_000_000_001);

fn session(dir: &std::path::Path) -> Session {
    Session::builder()
        .dir(dir)
        .keep_free_bytes(0)
        .conversion(Conversion::Later)
        // Two for each episode, and nothing for the rate.
        .stress_rules(true)
        .stress_off(["high_slow_request_rate"])
        .start()
        .unwrap()
}

fn press(session: &Session, category: &str, k: u8) {
    let id = Category::named(category).unwrap().schema().ids().unwrap();
    let core = &session.live.as_ref().unwrap().core;
    core.set_pressures([(id.category, k)].into_iter());
}

/// A thread that has registered a type opens its gate last: the record of another thread may come
/// in between.
#[test]
fn a_record_that_comes_before_its_gate_is_open_meets_the_rules() {
    let temp = tempfile::tempdir().unwrap();
    let session = session(temp.path());
    let push = |duration_ms| {
        session.log().push(&Plain {
            number: 0,
            duration_ms,
        })
    };
    assert_eq!(push(FAST), Outcome::Kept);
    let ids = Plain::default().schema().ids().unwrap();
    let core = &session.live.as_ref().unwrap().core;
    core.gates.gate(ids.schema).store(0, Relaxed);
    assert_eq!(push(SLOW), Outcome::Kept);
    let report = session.close().unwrap();
    assert_eq!(report.ledger.categories["stress"].written(), 1);
}

/// Each way of pushing, at each pressure: the rule sees every record, the record that fires is
/// kept with weight 1, and the ledger adds up.
#[test]
fn no_rule_misses_what_sampling_leaves_out() {
    // The bucket of the rule has 60 at once.
    const EPISODES: u64 = 8;
    for k in [0, 4, 15] {
        for way in 0..5 {
            let temp = tempfile::tempdir().unwrap();
            let session = session(temp.path());
            let log = session.log();
            let push = |number: u64, duration_ms: Duration| match way {
                0 => log.push(&Plain {
                    number,
                    duration_ms,
                }),
                1 => log.push_lazy(|| Plain {
                    number,
                    duration_ms,
                }),
                2 => log.push_lazy(|| Numbered {
                    number,
                    ttfb_ms: duration_ms,
                }),
                3 => {
                    let id = format!("{number}");
                    let key = log.key_hash(id.as_bytes()).unwrap();
                    log.push_keyed(
                        &Keyed {
                            id: &id,
                            duration_ms,
                        },
                        key,
                    )
                }
                _ => {
                    let requests = Category::named("requests").unwrap();
                    let ms = duration_ms.as_nanos() as f64 / 1e6;
                    log.event(requests, &[Extra::new("duration_ms", ms)])
                }
            };
            // The first of its type, before there is a pressure: it is the slow path.
            assert_eq!(push(0, SLOW), Outcome::Kept);
            press(&session, "requests", k);
            let mut left_out = 0;
            for number in 1..=2 * EPISODES * 50 {
                // Each episode has fifty records, and the pause after it.
                let slow = number / 50 % 2 == 1;
                let outcome = push(number, if slow { SLOW } else { FAST });
                left_out += u64::from(outcome == Outcome::SampledOut);
            }
            let files = session.segment_dir().unwrap().to_owned();
            let report = session.close().unwrap();
            assert!(
                report.ledger.is_exact() && report.faults.is_empty(),
                "{report:?}"
            );
            let requests = report.ledger.categories["requests"];
            assert_eq!(requests.sampled_out(), left_out, "{k} {way}");
            assert!(k == 0 || left_out > 200, "nothing was left out: {k} {way}");
            let stress = report.ledger.categories["stress"];
            // The first push, and each fifty slow ones; and as many ends, but the first one's is
            // that of the record after it.
            let episodes = 1 + EPISODES;
            assert_eq!(stress.offered(), 2 * episodes, "{k} {way}");
            assert_eq!(stress.written(), stress.offered());
            let found = SessionFiles::find(&files).unwrap();
            let mut types = Vec::new();
            let faults = visit_records(&found[0], ConvertOptions::default(), &mut |record| {
                if record.category == "stress" {
                    record
                        .fields(&mut |name, value| {
                            if name == b"event_type" {
                                types.push(format!("{value:?}"));
                            }
                        })
                        .unwrap();
                }
            });
            assert!(faults.unwrap().is_empty());
            let begins = types.iter().filter(|text| !text.is_empty()).count() as u64;
            assert_eq!(begins, 2 * episodes);
            let differ = types.chunks_exact(2).all(|pair| pair[0] != pair[1]);
            assert!(differ, "begins and ends take turns: {types:?}");
        }
    }
}

/// A record without a rule on its category takes the way it took before.
#[test]
fn other_categories_have_the_gates_of_a_session_without_rules() {
    let temp = tempfile::tempdir().unwrap();
    let session = session(temp.path());
    let core = &session.live.as_ref().unwrap().core;
    let gate_of = |name: &str| {
        let category = Category::named(name).unwrap();
        session.log().event(category, &[Extra::new("a", 1_u8)]);
        let ids = category.schema().ids().unwrap();
        core.gates
            .gate(ids.schema)
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(gate_of("streams"), crate::gates::GATE_ON);
    assert_eq!(gate_of("autoscaler"), crate::gates::GATE_ON);
    assert!(crate::gates::is_ruled(gate_of("vpn")));
    assert!(session.close().unwrap().ledger.is_exact());
}

/// Fixed rates, limits and log on change come after the rules.
#[test]
fn policies_do_not_hide_a_record_from_the_rules() {
    let temp = tempfile::tempdir().unwrap();
    let session = Session::builder()
        .dir(temp.path())
        .keep_free_bytes(0)
        .conversion(Conversion::Later)
        .stress_rules(true)
        .stress_off(["high_slow_request_rate"])
        .sample_rate("requests", 0.001)
        .rate_limit("requests", 1.0, 1)
        .on_change("requests")
        .start()
        .unwrap();
    let log = session.log();
    for _ in 0..20 {
        for duration_ms in [FAST, FAST, SLOW, SLOW] {
            let request = Request {
                method: symbol!("GET"),
                path: "/ace/getstream",
                duration_ms,
                status_code: 200,
                ace_id: "",
            };
            // The first of two slow ones fires, and the first of two fast ones ends it.
            log.push(&request);
        }
    }
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let stress = report.ledger.categories["stress"];
    assert_eq!((stress.offered(), stress.written()), (39, 39));
    assert!(report.ledger.categories["requests"].written() >= 39);
}

/// Begin and end of an operation come by another way, and one decision of sampling is for both.
#[test]
fn operations_that_sampling_leaves_out_are_looked_at() {
    let temp = tempfile::tempdir().unwrap();
    let session = Session::builder()
        .dir(temp.path())
        .keep_free_bytes(0)
        .conversion(Conversion::Later)
        .stress_rules(true)
        .startup_timeout(Duration::from_nanos(1))
        .start()
        .unwrap();
    let log = session.log();
    log.provisioning().start("start_thing").success(&[]);
    press(&session, "provisioning", 15);
    for _ in 0..10 {
        log.provisioning()
            .start("start_container")
            .fail("no image", &[]);
    }
    let report = session.close().unwrap();
    assert!(
        report.ledger.is_exact() && report.faults.is_empty(),
        "{report:?}"
    );
    let provisioning = report.ledger.categories["provisioning"];
    assert!(provisioning.sampled_out() > 10, "{provisioning:?}");
    // The end that began `slow_provisioning`, and the sixth failure.
    assert!(provisioning.written() >= 4, "{provisioning:?}");
    let stress = report.ledger.categories["stress"];
    assert_eq!((stress.offered(), stress.written()), (2, 2));
}
