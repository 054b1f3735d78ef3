//! What the configuration and the load leave out, and that the numbers stay true.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use closed::{close_with_report, lines_of};
use stormlog::ledger::{Account, DropReason};
use stormlog::record::{Category, DurationMs, Extra, KeepClass, ShortText, Symbol};
use stormlog::{CloseReport, Outcome, Session};

stormlog::record! {
    struct Request in "sampling_requests" keep Sampled key id {
        operation: Symbol,
        id: ShortText<32>,
        duration_ms: DurationMs<2>,
    }
}

stormlog::record! {
    struct Tick in "sampling_ticks" keep Sampled {
        number: u32,
    }
}

stormlog::record! {
    struct State in "sampling_states" keep Sampled key engine {
        engine: ShortText,
        healthy: bool,
        duration_ms: DurationMs<2>,
    }
}

stormlog::record! {
    struct Alarm in "sampling_alarms" keep Always {
        number: u32,
    }
}

/// Closes the session, without faults and with an exact ledger that equals the lines.
fn close(session: Session) -> CloseReport {
    close_with_report(session).0
}

fn account(report: &CloseReport, category: &str) -> Account {
    report.ledger.categories[category]
}

/// Outcomes as the caller saw them, counted.
#[derive(Default)]
struct Seen(BTreeMap<String, u64>);

impl Seen {
    fn add(&mut self, outcome: Outcome) {
        *self.0.entry(format!("{outcome:?}")).or_default() += 1;
    }

    fn assert_equal(&self, account: &Account, reason: DropReason) {
        let count = |outcome| self.0.get(&format!("{outcome:?}")).copied().unwrap_or(0);
        assert_eq!(account.written(), count(Outcome::Kept));
        assert_eq!(account.sampled_out(), count(Outcome::SampledOut));
        assert_eq!(account.dropped(reason), count(Outcome::Dropped(reason)));
        assert_eq!(account.offered(), self.0.values().sum::<u64>());
    }
}

#[test]
fn a_fixed_rate_keeps_its_part_by_key() {
    let mut kept_keys = Vec::new();
    for salt in [0, 0, 1] {
        let temp = tempfile::tempdir().unwrap();
        let session = recording::builder()
            .dir(temp.path())
            .sample_rate("sampling_requests", 0.1)
            .sampling_salt(salt)
            .start()
            .unwrap();
        let log = session.log();
        let mut seen = Seen::default();
        for number in 0..4000 {
            let id = format!("request-{number}");
            for operation in [stormlog::symbol!("begin"), stormlog::symbol!("end")] {
                seen.add(log.push(&Request {
                    operation,
                    id: &id,
                    duration_ms: Duration::from_millis(number),
                }));
            }
            if number % 500 == 0 {
                session.flush().unwrap();
            }
        }
        let report = close(session);
        let account = account(&report, "sampling_requests");
        seen.assert_equal(&account, DropReason::RingFull);
        // 400 keys expected, 5 standard deviations of 19.
        assert!((610..990).contains(&account.written()), "{account:?}");
        let mut keys: BTreeMap<String, u32> = BTreeMap::new();
        for line in lines_of(&report, "sampling_requests") {
            assert_eq!(line["sample_weight"], 10.0);
            *keys.entry(line["id"].to_string()).or_default() += 1;
        }
        assert!(
            keys.values().all(|count| *count == 2),
            "a key is kept whole"
        );
        kept_keys.push(keys.into_keys().collect::<BTreeSet<_>>());
    }
    assert_eq!(kept_keys[0], kept_keys[1], "equal salts keep equal keys");
    assert_ne!(kept_keys[0], kept_keys[2]);
}

#[test]
fn a_fixed_rate_keeps_its_part_without_keys() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .sample_rate("sampling_ticks", 0.25)
        .sample_rate("sampling_alarms", 0.25)
        .start()
        .unwrap();
    let log = session.log();
    let mut seen = Seen::default();
    for number in 0..8000 {
        seen.add(log.push(&Tick { number }));
        if number % 80 == 0 {
            assert_eq!(log.push(&Alarm { number }), Outcome::Kept);
        }
        if number % 1000 == 0 {
            session.flush().unwrap();
        }
    }
    let report = close(session);
    let ticks = account(&report, "sampling_ticks");
    seen.assert_equal(&ticks, DropReason::RingFull);
    // 2000 expected, 5 standard deviations of 39.
    assert!((1805..2195).contains(&ticks.written()), "{ticks:?}");
    let weights = lines_of(&report, "sampling_ticks");
    assert!(weights.iter().all(|line| line["sample_weight"] == 4));
    assert_eq!(account(&report, "sampling_alarms").written(), 100);
    let alarms = lines_of(&report, "sampling_alarms");
    assert!(alarms.iter().all(|line| line["sample_weight"].is_null()));
}

#[test]
fn a_rate_limit_drops_what_is_over_it_and_counts() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .rate_limit("sampling_ticks", 0.001, 20)
        .start()
        .unwrap();
    let log = session.log();
    let mut seen = Seen::default();
    for number in 0..500 {
        seen.add(log.push(&Tick { number }));
    }
    let report = close(session);
    let ticks = account(&report, "sampling_ticks");
    seen.assert_equal(&ticks, DropReason::RateLimit);
    assert_eq!(
        (ticks.written(), ticks.dropped(DropReason::RateLimit)),
        (20, 480)
    );
}

#[test]
fn repeated_states_are_told_once_with_their_number() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .on_change("sampling_states")
        .on_change("sampling_open")
        .start()
        .unwrap();
    let log = session.log();
    let mut seen = Seen::default();
    let mut push = |engine, healthy, ms| {
        let duration_ms = Duration::from_millis(ms);
        seen.add(log.push(&State {
            engine,
            healthy,
            duration_ms,
        }));
    };
    for ms in 0..5 {
        push("e1", true, ms);
        push("e2", true, ms);
    }
    push("e1", false, 7);
    push("e1", true, 8);
    push("e1", true, 9);
    let open = Category::named("sampling_open").unwrap();
    for status in ["up", "up", "up", "down", "up"] {
        log.event(open, &[Extra::new("status", status)]);
    }
    let report = close(session);
    let states = account(&report, "sampling_states");
    seen.assert_equal(&states, DropReason::Repeat);
    assert_eq!(
        (states.written(), states.dropped(DropReason::Repeat)),
        (4, 9)
    );
    let told: Vec<_> = lines_of(&report, "sampling_states")
        .iter()
        .map(|line| (line["engine"].to_string(), line["repeats"].as_u64()))
        .collect();
    let e1 = || "\"e1\"".to_owned();
    let expected = [
        (e1(), None),
        ("\"e2\"".to_owned(), None),
        (e1(), Some(4)),
        (e1(), None),
    ];
    assert_eq!(told, expected);
    let open: Vec<_> = lines_of(&report, "sampling_open")
        .iter()
        .map(|line| (line["status"].to_string(), line["repeats"].as_u64()))
        .collect();
    let [up, down] = ["\"up\"", "\"down\""].map(str::to_owned);
    assert_eq!(open, [(up.clone(), None), (down, Some(2)), (up, None)]);
}

#[test]
fn the_keep_class_of_a_category_can_be_changed() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .keep("sampling_ticks", KeepClass::Always)
        .keep("sampling_alarms", KeepClass::Sampled)
        .sample_rate("sampling_ticks", 0.01)
        .sample_rate("sampling_alarms", 0.01)
        .start()
        .unwrap();
    let log = session.log();
    for number in 0..300 {
        assert_eq!(log.push(&Tick { number }), Outcome::Kept);
        log.push(&Alarm { number });
    }
    let report = close(session);
    assert_eq!(account(&report, "sampling_ticks").written(), 300);
    assert!(account(&report, "sampling_alarms").written() < 30);
    let refused = recording::builder()
        .dir(temp.path())
        .keep("stress", KeepClass::Sampled)
        .start();
    assert!(refused.is_err());
}
