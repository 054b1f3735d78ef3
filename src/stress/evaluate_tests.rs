//! What values mean to rules, and what an event says.

use std::time::Duration;

use super::cell::{Cell, Change, Episodes};
use super::compile::Values;
use super::evaluate::{Evaluator, Rules};
use super::history::{Baseline, SAMPLES_MAX};
use super::rule::*;
use super::state::Reading;
use super::value::FieldValue;

type Fields<'a> = &'a [(&'a str, FieldValue<'a>)];

fn threshold(field: &str, limit: Limit) -> Condition {
    Condition::Threshold {
        fields: vec![field.to_owned()],
        limit,
        up_to: None,
        clear: None,
        below: Below::No,
    }
}

fn rule(condition: Condition) -> Rule {
    Rule::new("one", "calls", condition)
}

fn evaluator(rule: Rule) -> Evaluator {
    Evaluator::new(&RuleSet { rules: vec![rule] }).unwrap()
}

/// Names of the events of a record at `time`.
fn told(rules: &Evaluator, time: u64, fields: Fields<'_>) -> Vec<String> {
    let mut told = Vec::new();
    let fields = fields.iter().copied();
    rules.evaluate("calls", time, fields, |event| {
        told.push(event.event_type().to_owned());
    });
    told
}

/// Whether a record makes a fresh rule fire.
fn fires(rule: &Rule, fields: Fields<'_>) -> bool {
    !told(&evaluator(rule.clone()), 0, fields).is_empty()
}

/// The field of the only event of a record.
fn field_of(rules: &Evaluator, time: u64, fields: Fields<'_>, name: &str) -> Option<String> {
    let mut found = None;
    rules.evaluate("calls", time, fields.iter().copied(), |event| {
        event.fields(|field, value| {
            if field == name {
                found = Some(format!("{value:?}"));
            }
        });
    });
    found
}

/// A value that is there as a float, or as the digits that a line has of it, is the same.
#[test]
fn a_part_of_a_nanosecond_is_over_the_limit() {
    let slow = rule(threshold(
        "wait_ms",
        Limit::Time(Duration::from_millis(12_500)),
    ));
    for (text, over) in [
        ("12499.9999999", false),
        ("12500", false),
        ("12500.0", false),
        ("12500.0000001", true),
        ("12500.000001", true),
        ("1.25000000001e4", true),
        ("1e300", true),
    ] {
        let number: f64 = text.parse().unwrap();
        for value in [FieldValue::F64(number), FieldValue::Number(text)] {
            assert_eq!(fires(&slow, &[("wait_ms", value)]), over, "{value:?}");
        }
    }
    // What multiplication adds is not over the limit.
    for ms in 1..5_000_u64 {
        let at = rule(threshold("wait", Limit::Time(Duration::from_millis(ms))));
        let value = FieldValue::F64(ms as f64 / 1e3);
        assert!(!fires(&at, &[("wait", value)]), "{ms}");
    }
}

/// A text of a number that is none is no value: it neither begins an episode nor ends one.
#[test]
fn what_is_no_number_says_nothing() {
    let rules = evaluator(rule(threshold("level", Limit::Number(1.0))));
    let level = |value| [("level", value)];
    assert_eq!(told(&rules, 0, &level(FieldValue::U64(2))), ["one"]);
    for value in [
        FieldValue::Null,
        FieldValue::F64(f64::NAN),
        FieldValue::Number("NaN"),
        FieldValue::Text("0"),
        FieldValue::Bool(false),
    ] {
        assert!(told(&rules, 1, &level(value)).is_empty(), "{value:?}");
    }
    assert_eq!(told(&rules, 2, &level(FieldValue::I64(1))), ["one_cleared"]);
}

#[test]
fn of_two_fields_of_a_name_the_first_counts() {
    let high = rule(threshold("level", Limit::Number(1.0)));
    let (low, over) = (FieldValue::U64(1), FieldValue::U64(2));
    assert!(fires(&high, &[("level", over), ("level", low)]));
    assert!(!fires(&high, &[("level", low), ("level", over)]));
    assert!(!fires(
        &high,
        &[("level", FieldValue::Null), ("level", over)]
    ));
}

#[test]
fn each_value_of_a_key_has_a_state() {
    const LARGE: u64 = 1 << 53;
    let mut high = rule(threshold("level", Limit::Number(1.0)));
    high.key = Some("key".to_owned());
    let begins = |rules: &Evaluator, key| {
        let fields = [("level", FieldValue::U64(2)), ("key", key)];
        !told(rules, 0, &fields).is_empty()
    };
    let different = [
        FieldValue::Null,
        FieldValue::Bool(false),
        FieldValue::Bool(true),
        FieldValue::U64(LARGE - 1),
        FieldValue::U64(LARGE),
        FieldValue::U64(LARGE + 1),
        FieldValue::Number("36893488147419103233"),
        FieldValue::Number("36893488147419103234"),
        FieldValue::F64(0.5),
        FieldValue::F64(0.5_f64.next_up()),
        FieldValue::Text("0.5"),
        FieldValue::Text(""),
    ];
    let rules = evaluator(high.clone());
    for key in different {
        assert!(begins(&rules, key), "{key:?}");
    }
    for key in different {
        assert!(!begins(&rules, key), "{key:?}");
    }
    // One number, as a session has it and as a line has it.
    for (one, other) in [
        (
            FieldValue::U64(LARGE + 1),
            FieldValue::Number("9007199254740993"),
        ),
        (FieldValue::I64(-7), FieldValue::Number("-7")),
        (FieldValue::F64(7.0), FieldValue::U64(7)),
        (FieldValue::F64(0.1), FieldValue::Number("0.1")),
        (FieldValue::F64(-0.0), FieldValue::U64(0)),
        (FieldValue::F64(f64::NAN), FieldValue::Null),
    ] {
        let rules = evaluator(high.clone());
        assert!(begins(&rules, one) && !begins(&rules, other), "{one:?}");
    }
}

#[test]
fn a_history_of_nothing_makes_anything_unusual() {
    for nothing in [0.0, -0.0, -5.0] {
        let rules = evaluator(rule(Condition::Baseline {
            fields: vec!["level".to_owned()],
            quantile: 0.9,
            factor: 3.0,
            samples: 20,
            clear: None,
        }));
        for time in 0..20 {
            let fields = [("level", FieldValue::F64(nothing))];
            assert!(told(&rules, time, &fields).is_empty());
        }
        let fields = [("level", FieldValue::F64(0.5))];
        assert_eq!(told(&rules, 20, &fields), ["one"], "{nothing}");
    }
}

/// A history that forgets half of its values has still as many as a rule can ask for.
#[test]
fn a_baseline_that_judges_goes_on() {
    let baseline = Baseline {
        quantile: 0.5,
        factor: 2.0,
        clear: 2.0,
        samples: SAMPLES_MAX,
    };
    let cell = Cell::new(Baseline::WORDS, Episodes::none());
    // In most buckets, odd numbers of values in many.
    let value = |number: u64| {
        let quarter = (number / 60 % 4) as f64 / 4.0;
        2_f64.powi((number % 60) as i32 - 9) * (1.0 + quarter)
    };
    for number in 0..20_000 {
        let (_, (_, limit)) = cell
            .update(|words| {
                let judged = baseline.truth(words, Reading::Number(value(number)));
                (Change::New { active: false }, judged)
            })
            .unwrap();
        let judges = limit != Reading::None;
        assert_eq!(judges, number >= u64::from(SAMPLES_MAX), "{number}");
    }
}

/// A window remembers one record more than its limit: what there was beyond that is not known.
#[test]
fn a_rate_tells_no_worst_number() {
    let rules = evaluator(rule(Condition::Rate {
        counted: None,
        more_than: 2,
        span: Duration::from_nanos(10),
        clear: None,
    }));
    let empty: Fields<'_> = &[];
    assert_eq!(
        told(&rules, 0, empty).len() + told(&rules, 0, empty).len(),
        0
    );
    assert_eq!(field_of(&rules, 0, empty, "count").unwrap(), "U64(3)");
    (0..50).for_each(|_| assert!(told(&rules, 9, empty).is_empty()));
    let mut names = Vec::new();
    rules.evaluate("calls", 1000, [], |event| {
        assert_eq!(event.event_type(), "one_cleared");
        event.fields(|name, _| names.push(name.to_owned()));
    });
    assert_eq!(names, ["episode_seconds", "records", "rule_seq"]);
}

/// As long as the session writes it.
#[test]
fn a_long_description_is_cut() {
    let mut high = rule(threshold("level", Limit::Number(1.0)));
    "{text}{text}".clone_into(&mut high.description);
    let text = "\u{e4}".repeat(300);
    for (before, cut) in [("", 512), ("x", 511)] {
        high.description = format!("{before}{{text}}{{level}}");
        let fields = [
            ("level", FieldValue::U64(2)),
            ("text", FieldValue::Text(&text)),
        ];
        let mut said = String::new();
        evaluator(high.clone()).evaluate("calls", 0, fields, |event| {
            said = event.description().to_string();
        });
        assert_eq!(said.len(), cut);
        assert!(said.ends_with('\u{e4}'));
    }
}

/// So many changes of a state are in the middle while `inside` runs.
fn in_the_middle(cell: &Cell, depth: u32, inside: &mut dyn FnMut()) {
    if depth == 0 {
        return inside();
    }
    cell.update(|_| {
        in_the_middle(cell, depth - 1, inside);
        (Change::Same, ())
    })
    .unwrap();
}

/// The look that finds no copy ends, is counted, and changes nothing: the next record fires, once.
#[test]
fn a_look_that_is_given_up_is_counted() {
    let set = RuleSet {
        rules: vec![rule(threshold("level", Limit::Number(1.0)))],
    };
    let rules = Rules::new(&set).unwrap();
    let category = rules.category("calls").unwrap();
    let mut values = Values::new();
    values.put(category, "level", FieldValue::U64(2));
    let fired = || rules.evaluate(category, &values, 0).iter().count();
    in_the_middle(&rules.compiled[0].cell, 31, &mut || assert_eq!(fired(), 0));
    assert_eq!(rules.skipped(), 1);
    assert_eq!((fired(), fired()), (1, 0));
    assert_eq!(rules.skipped(), 1);
}

/// The session ends with an episode that nothing has ended.
#[test]
fn episodes_that_go_on_are_known() {
    let rules = evaluator(rule(threshold("level", Limit::Number(1.0))));
    assert_eq!(rules.open().count(), 0);
    told(&rules, 0, &[("level", FieldValue::U64(2))]);
    assert_eq!(rules.open().collect::<Vec<_>>(), ["one"]);
    told(&rules, 0, &[("level", FieldValue::U64(1))]);
    assert_eq!(rules.open().count(), 0);
}
