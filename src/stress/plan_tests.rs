//! Plans against the evaluation that they spare.

use std::time::Duration;

use super::online::Online;
use super::rule::*;
use crate::record::{DurationMs, Extra, Record, WHOLE};

crate::record! {
    struct Kinds in "plan_tests" keep Sampled {
        a: u8,
        b: Option<u16>,
        c: i32,
        d: Option<i64>,
        e: f32,
        f: Option<f64>,
        g: bool,
        h_ms: DurationMs<2>,
        i_ms: Option<DurationMs<0>>,
        j: u64,
    }
}

fn rule(condition: Condition) -> Rule {
    Rule::new("one", "plan_tests", condition)
}

fn threshold(field: &str, limit: Limit, below: Below) -> Rule {
    rule(Condition::Threshold {
        fields: vec![field.to_owned()],
        limit,
        up_to: None,
        clear: None,
        below,
    })
}

fn online(rule: Rule) -> Online {
    let set = RuleSet { rules: vec![rule] };
    let online = Online::new(&set, 0, 1_000_000_000).unwrap();
    let schema = Kinds::default().schema();
    online.prepare(schema.ids().unwrap().schema, schema);
    online
}

fn may_fire(online: &Online, record: &Kinds<'_>, extras: &[Extra<'_>]) -> bool {
    let fixed = record.fixed(WHOLE);
    let schema = record.schema().ids().unwrap().schema;
    let may = online.may_fire(schema, bytemuck::bytes_of(&fixed), !extras.is_empty());
    let ns = record.observed().map_or(0, |observed| observed.ns);
    if let Some(timed) = online.may_fire_timed(schema, ns, !extras.is_empty()) {
        assert_eq!(timed, may);
    }
    may
}

fn records() -> impl Iterator<Item = Kinds<'static>> {
    (0..40_u64).map(|n| Kinds {
        a: n as u8,
        b: (n % 3 > 0).then_some(n as u16),
        c: 20 - n as i32,
        d: (n % 4 > 0).then_some(n as i64),
        e: n as f32,
        f: (n % 5 > 0).then_some(n as f64 - 0.5),
        g: n % 2 == 0,
        h_ms: Duration::from_nanos(n),
        i_ms: (n % 3 > 0).then_some(Duration::from_nanos(n)),
        j: n,
    })
}

#[test]
fn a_plan_says_what_the_evaluation_would() {
    let mut rules = Vec::new();
    for below in [Below::No, Below::Yes] {
        let number = Limit::Number(17.0);
        let fields = ["a", "b", "c", "d", "e", "f", "j"];
        rules.extend(fields.map(|field| threshold(field, number, below)));
        let time = Limit::Time(Duration::from_nanos(17));
        rules.extend(["h_ms", "i_ms"].map(|field| threshold(field, time, below)));
    }
    for wanted in ["true", "false"] {
        let any = vec![Test::new("g", &[wanted])];
        rules.push(rule(Condition::Match { any }));
    }
    let (mut fired, mut quiet) = (0, 0);
    for rule in rules {
        for record in records() {
            let online = online(rule.clone());
            let says = may_fire(&online, &record, &[]);
            let looked = online.look(&record, [&[], &[]], 1).unwrap();
            assert_eq!(says, !looked.is_quiet(), "{rule:?}: {record:?}");
            if says {
                fired += 1;
                // The episode can end now: every record is looked at.
                assert!(records().all(|other| may_fire(&online, &other, &[])));
            } else {
                quiet += 1;
            }
        }
    }
    assert!(fired > 200 && quiet > 200, "{fired} {quiet}");
}

crate::record! {
    /// Shorter than what is read at once.
    struct Short in "plan_tests" keep Sampled {
        a: Option<u16>,
        b: i8,
    }
}

#[test]
fn limits_at_the_edges_of_each_kind() {
    let floats = [
        0.0,
        -0.0,
        1e-60,
        -1e-60,
        0.1,
        1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ];
    let floats = floats
        .into_iter()
        .chain([f64::from(0.1_f32), f64::from(f32::MAX)]);
    let integers = [
        255.0,
        256.0,
        -1.0,
        65_535.0,
        2_147_483_647.0,
        -2_147_483_648.0,
        17.5,
    ];
    let great = [
        9_007_199_254_740_992.0,
        9_007_199_254_740_993.0,
        1.8e19,
        -9.2e18,
    ];
    let limits: Vec<f64> = floats.chain(integers).chain(great).collect();
    let (mut compared, mut fired) = (0, 0);
    for limit in limits.iter().filter(|limit| limit.is_finite()) {
        for field in ["a", "b", "c", "d", "e", "f", "j"] {
            for below in [Below::No, Below::Yes] {
                let rule = threshold(field, Limit::Number(*limit), below);
                for value in &limits {
                    let record = Kinds {
                        a: *value as u8,
                        b: Some(*value as u16),
                        c: *value as i32,
                        d: Some(*value as i64),
                        e: *value as f32,
                        f: Some(*value),
                        j: *value as u64,
                        ..Kinds::default()
                    };
                    let online = online(rule.clone());
                    let says = may_fire(&online, &record, &[]);
                    let looked = online.look(&record, [&[], &[]], 1).unwrap();
                    compared += 1;
                    fired += usize::from(!looked.is_quiet());
                    // Not more than needed, unless the limit is where numbers are rounded, or no
                    // value is below it.
                    let is_float = matches!(field, "e" | "f");
                    let least = field == "j" && below == Below::Yes && *limit <= 0.0;
                    let exact = is_float || (limit.abs() < 9e15 && !least);
                    let wanted = !looked.is_quiet();
                    let fits = says == wanted || (says && !exact);
                    assert!(fits, "{field} {below:?} {limit}: {value} {says}");
                }
            }
        }
    }
    assert!(fired > 500 && fired < compared, "{fired} of {compared}");
}

fn short_may_fire(online: &Online, record: Short) -> bool {
    let schema = record.schema();
    let id = schema.ids().unwrap().schema;
    online.prepare(id, schema);
    online.may_fire(id, bytemuck::bytes_of(&record.fixed(WHOLE)), false)
}

#[test]
fn a_field_that_cannot_fire_ends_an_episode() {
    let online = online(threshold("b", Limit::Number(300.0), Below::No));
    let (long, short) = (
        |b| Kinds {
            b,
            ..Kinds::default()
        },
        Short { a: None, b: 100 },
    );
    assert!(!may_fire(&online, &long(Some(300)), &[]));
    assert!(!short_may_fire(&online, short));
    let high = long(Some(301));
    assert!(!online.look(&high, [&[], &[]], 1).unwrap().is_quiet());
    assert!(short_may_fire(&online, short));
}

#[test]
fn a_short_fixed_part_and_the_last_slot_are_compared() {
    let quiet = Short { a: None, b: -3 };
    let (by_a, by_b) = (
        Short {
            a: Some(7),
            ..quiet
        },
        Short { b: -2, ..quiet },
    );
    for (field, above, value) in [("a", 6.0, by_a), ("b", -3.0, by_b)] {
        let online = online(threshold(field, Limit::Number(above), Below::No));
        assert!(!short_may_fire(&online, quiet), "{field}");
        assert!(short_may_fire(&online, value), "{field}");
    }
}

/// A match can test one field more than once.
#[test]
fn every_test_of_a_field_is_compared() {
    let any = vec![Test::new("g", &["true"]), Test::new("g", &["false"])];
    let both = rule(Condition::Match { any });
    for record in records() {
        let online = online(both.clone());
        let says = may_fire(&online, &record, &[]);
        let looked = online.look(&record, [&[], &[]], 1).unwrap();
        assert_eq!((says, looked.is_quiet()), (true, false), "{record:?}");
    }
}

#[test]
fn what_cannot_be_compared_is_evaluated() {
    let record = Kinds::default();
    let extra = [Extra::new("x", 1)];
    let said = |rule: Rule| {
        let online = online(rule);
        let schema = record.schema().ids().unwrap().schema;
        assert!(online.concerns(schema));
        (
            may_fire(&online, &record, &[]),
            may_fire(&online, &record, &extra),
        )
    };
    // A field that only an extra field can be.
    assert_eq!(
        said(threshold("x", Limit::Number(1e9), Below::No)),
        (false, true)
    );
    // A number as a duration.
    let time = Limit::Time(Duration::from_secs(1));
    assert_eq!(said(threshold("a", time, Below::No)), (true, true));
    let not = Condition::Match {
        any: vec![Test::new("g", &["true"]).negated()],
    };
    assert_eq!(said(rule(not)), (true, true));
    let rate = Condition::Rate {
        counted: None,
        more_than: 200,
        span: Duration::from_secs(1),
        clear: None,
    };
    assert_eq!(said(rule(rate)), (true, true));
    let baseline = Condition::Baseline {
        fields: vec!["h_ms".to_owned()],
        quantile: 0.5,
        factor: 2.0,
        samples: 9,
        clear: None,
    };
    assert_eq!(said(rule(baseline)), (true, true));
    // Nothing of the rule can be in the record, and no rule looks at the category.
    let other = Rule {
        category: "plan_tests_other".to_owned(),
        ..threshold("a", Limit::Number(1.0), Below::No)
    };
    let online = online(other);
    assert!(!online.concerns(record.schema().ids().unwrap().schema));
}
