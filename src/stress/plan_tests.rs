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
