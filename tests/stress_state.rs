//! What rules remember, and for how long: states of keys, histories, episodes that were not told.

use std::time::Duration;

use stormlog::stress::{Below, Condition, Episode, Evaluator, FieldValue, Limit, Pattern};
use stormlog::stress::{Rule, RuleSet};

/// States of keys that there are at a time.
const KEYS: u64 = 16;

fn evaluator(condition: Condition, more: impl FnOnce(&mut Rule)) -> Evaluator {
    let mut rule = Rule::new("one", "calls", condition);
    rule.cooldown = Duration::ZERO;
    more(&mut rule);
    Evaluator::new(&RuleSet { rules: vec![rule] }).unwrap()
}

fn high() -> Condition {
    Condition::Threshold {
        fields: vec!["level".to_owned()],
        limit: Limit::Number(1.0),
        up_to: None,
        clear: None,
        below: Below::No,
    }
}

/// Events of a record: whether each is an end, and its field `suppressed`.
fn told(rules: &Evaluator, time: u64, fields: &[(&str, FieldValue<'_>)]) -> Vec<(bool, u64)> {
    let mut told = Vec::new();
    rules.evaluate("calls", time, fields.iter().copied(), |event| {
        let mut suppressed = 0;
        event.fields(|name, value| {
            if let ("suppressed", FieldValue::U64(number)) = (name, value) {
                suppressed = number;
            }
        });
        told.push((event.is_end(), suppressed));
    });
    told
}

const BEGIN: (bool, u64) = (false, 0);
const END: (bool, u64) = (true, 0);

/// A key that comes when all have an episode waits; it does not take the place of one.
#[test]
fn an_episode_is_never_forgotten_for_another_key() {
    let rules = evaluator(high(), |rule| rule.key = Some("key".to_owned()));
    let look = |key, level| {
        let fields = [
            ("key", FieldValue::U64(key)),
            ("level", FieldValue::U64(level)),
        ];
        told(&rules, key, &fields)
    };
    for key in 0..KEYS {
        assert_eq!(look(key, 2), [BEGIN], "{key}");
    }
    assert_eq!(look(KEYS, 2), []);
    assert_eq!(look(5, 1), [END]);
    assert_eq!(look(KEYS, 2), [BEGIN]);
    for key in (0..=KEYS).filter(|key| *key != 5) {
        assert_eq!(look(key, 2), [], "{key}");
        assert_eq!(look(key, 1), [END], "{key}");
    }
    assert_eq!(rules.open().count(), 0);
}

/// Of states without an episode the one that changed longest ago makes room.
#[test]
fn the_oldest_state_makes_room() {
    let states = |text| vec![Pattern::new(text)];
    let edge = Condition::Edge {
        fields: vec!["state".to_owned()],
        previous: None,
        from: states("up"),
        to: states("down"),
        clear: Vec::new(),
        from_unknown: false,
        or: Vec::new(),
    };
    let rules = evaluator(edge, |rule| rule.key = Some("key".to_owned()));
    let look = |time, key, state| {
        let fields = [
            ("key", FieldValue::U64(key)),
            ("state", FieldValue::Text(state)),
        ];
        told(&rules, time, &fields)
    };
    for key in 0..=KEYS {
        assert_eq!(look(key + 1, key, "up"), [], "{key}");
    }
    for key in 1..=KEYS {
        assert_eq!(look(100, key, "down"), [BEGIN], "{key}");
    }
    // All have an episode now, and what this one was is not known any more.
    assert_eq!(look(101, 0, "down"), []);
}

/// Half of a history is forgotten, so that what is usual can change.
#[test]
fn a_history_forgets() {
    let baseline = Condition::Baseline {
        fields: vec!["level".to_owned()],
        quantile: 0.5,
        factor: 3.0,
        samples: 20,
        clear: None,
    };
    let rules = evaluator(baseline, |_| {});
    let look = |level| told(&rules, 0, &[("level", FieldValue::F64(level))]);
    for _ in 0..8192 {
        assert_eq!(look(1.0), []);
    }
    assert_eq!(look(100.0), [BEGIN]);
    let usual = (1..20_000).find(|_| look(100.0) == [END]).unwrap();
    // As many as are left of the others, which is half of them.
    assert!((4_000..4_200).contains(&usual), "{usual}");
}

#[test]
fn the_next_event_has_the_number_of_those_that_were_not_told() {
    let rules = evaluator(high(), |rule| {
        rule.episode = Episode::Record;
        (rule.cooldown, rule.burst) = (Duration::from_nanos(10), 1);
    });
    let events = [0, 1, 9, 10, 20].map(|time| told(&rules, time, &[("level", FieldValue::U64(2))]));
    let [first, second, third, fourth, fifth] = events;
    assert_eq!((first, second, third), (vec![BEGIN], vec![], vec![]));
    assert_eq!((fourth, fifth), (vec![(false, 2)], vec![BEGIN]));
}
