//! Rules against a naive model, which follows their definitions in `rule` and nothing else: random
//! sequences, one thread and several. `STORMLOG_SEED` repeats a run, `STORMLOG_ROUNDS` makes it
//! longer.

use std::collections::HashMap;
use std::time::Duration;

use super::compile::Values;
use super::evaluate::{Rules, Step};
use super::rule::*;
use super::state::{Reading, Told};
use super::value::FieldValue;

/// Sequences of one run.
const SEQUENCES: u64 = 10_000;
/// Records of a sequence.
const RECORDS: u64 = 60;

struct Random(u64);

impl Random {
    fn new(salt: u64) -> Self {
        let variable = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let seed = variable("STORMLOG_SEED").unwrap_or(u64::from(std::process::id()));
        println!("STORMLOG_SEED={seed}");
        Self((seed ^ salt) * 2 + 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A record: every field that a rule of the tests looks at.
#[derive(Clone, Copy, Debug)]
struct Event {
    time: u64,
    operation: &'static str,
    duration: Option<u64>,
    ttfb: Option<u64>,
    level: Option<f64>,
    part: u64,
    whole: u64,
    state: &'static str,
    old: Option<&'static str>,
    key: &'static str,
    success: bool,
}

const STATES: [&str; 5] = ["up", "down", "half", "broken", "odd"];

impl Event {
    fn random(random: &mut Random, time: u64) -> Self {
        let some = |random: &mut Random, value| (random.below(5) > 0).then_some(value);
        let duration = 95 + random.below(11);
        let ttfb = 95 + random.below(11);
        let level = (60 + random.below(20)) as f64 / 2.0;
        Self {
            time,
            operation: random.of(&["start", "start", "start", "stop"]),
            duration: some(random, duration),
            ttfb: (random.below(4) == 0).then_some(ttfb),
            level: (random.below(5) > 0).then_some(level),
            part: random.below(6),
            whole: random.below(11),
            state: random.of(&STATES),
            old: (random.below(4) == 0).then(|| random.of(&STATES)),
            key: random.of(&["a", "b", "c"]),
            success: random.below(2) == 0,
        }
    }

    fn evaluate(&self, rules: &Rules, seen: impl FnMut(u16, Step)) {
        let category = rules.category("calls").unwrap();
        let mut values = Values::new();
        let duration = |value: Option<u64>| value.map_or(FieldValue::Null, FieldValue::Duration);
        let mut put = |name, value| values.put(category, name, value);
        put("operation", FieldValue::Text(self.operation));
        put("duration_ms", duration(self.duration));
        put("ttfb_ms", duration(self.ttfb));
        put(
            "level",
            self.level.map_or(FieldValue::Null, FieldValue::F64),
        );
        put("part", FieldValue::U64(self.part));
        put("whole", FieldValue::U64(self.whole));
        put("state", FieldValue::Text(self.state));
        put("old", self.old.map_or(FieldValue::Null, FieldValue::Text));
        put("key", FieldValue::Text(self.key));
        put("success", FieldValue::Bool(self.success));
        rules.trace(category, &values, self.time, seen);
    }
}

/// The kinds of rules, with what the naive model needs of each.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Slow {
        limit: u64,
        clear: u64,
        up_to: u64,
        record: bool,
    },
    Low {
        limit: f64,
        clear: f64,
    },
    Failed,
    Part {
        limit: f64,
        clear: f64,
    },
    State {
        unknown: bool,
    },
    Many {
        limit: u64,
        clear: u64,
        span: u64,
        slow: u64,
    },
    Unusual {
        quantile: f64,
        factor: f64,
        clear: f64,
        samples: usize,
    },
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    kind: Kind,
    keyed: bool,
    /// Only records of `start`.
    only: bool,
    cooldown: u64,
    burst: u64,
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::new(text)).collect()
}

impl Setup {
    fn random(random: &mut Random) -> Self {
        let limit = 98 + random.below(4);
        let kind = match random.below(7) {
            0 => Kind::Slow {
                limit,
                clear: limit - random.below(3),
                up_to: limit + 2 + random.below(9),
                record: random.below(3) == 0,
            },
            1 => Kind::Low {
                limit: 33.0,
                clear: 33.0 + random.below(3) as f64,
            },
            2 => Kind::Failed,
            3 => Kind::Part {
                limit: 0.3,
                clear: random.of(&[0.3, 0.2]),
            },
            4 => Kind::State {
                unknown: random.below(2) == 0,
            },
            5 => Kind::Many {
                limit: 1 + random.below(5),
                clear: random.below(2),
                span: 20 + random.below(40),
                slow: limit,
            },
            _ => Kind::Unusual {
                quantile: random.of(&[0.5, 0.9]),
                factor: random.of(&[0.9, 1.0]),
                clear: 0.85,
                samples: 1 + random.below(20) as usize,
            },
        };
        let single = matches!(
            kind,
            Kind::Many { .. } | Kind::Unusual { .. } | Kind::Slow { record: true, .. }
        );
        let keyed = !single && random.below(2) == 0;
        Self {
            kind,
            keyed,
            only: random.below(2) == 0,
            cooldown: if keyed { 0 } else { random.of(&[0, 0, 7, 40]) },
            burst: 1 + random.below(3),
        }
    }

    fn rule(&self, name: &str) -> Rule {
        let time = |ns| Limit::Time(Duration::from_nanos(ns));
        let slow = |limit, clear, up_to| Condition::Threshold {
            fields: names(&["ttfb_ms", "duration_ms"]),
            limit: time(limit),
            up_to,
            clear: Some(time(clear)),
            below: Below::No,
        };
        let condition = match self.kind {
            Kind::Slow {
                limit,
                clear,
                up_to,
                ..
            } => slow(limit, clear, Some(time(up_to))),
            Kind::Low { limit, clear } => Condition::Threshold {
                fields: names(&["level"]),
                limit: Limit::Number(limit),
                up_to: None,
                clear: Some(Limit::Number(clear)),
                below: Below::Yes,
            },
            Kind::Failed => Condition::Match {
                any: vec![Test::new("success", &["false"])],
            },
            Kind::Part { limit, clear } => Condition::Ratio {
                part: "part".to_owned(),
                whole: names(&["missing", "whole"]),
                limit,
                clear: Some(clear),
            },
            Kind::State { unknown } => Condition::Edge {
                fields: names(&["state"]),
                previous: Some("old".to_owned()),
                from: patterns(&["up", "half"]),
                to: patterns(&["down", "broken"]),
                clear: patterns(&["up"]),
                from_unknown: unknown,
                or: Vec::new(),
            },
            Kind::Many {
                limit,
                clear,
                span,
                slow: over,
            } => Condition::Rate {
                counted: Some(Box::new(slow(over, over, None))),
                more_than: limit as u32,
                span: Duration::from_nanos(span),
                clear: Some(clear as u32),
            },
            Kind::Unusual {
                quantile,
                factor,
                clear,
                samples,
            } => Condition::Baseline {
                fields: names(&["duration_ms"]),
                quantile,
                factor,
                samples: samples as u32,
                clear: Some(clear),
            },
        };
        let mut rule = Rule::new(name, "calls", condition);
        rule.key = self.keyed.then(|| "key".to_owned());
        if self.only {
            rule.tests.push(Test::new("operation", &["start"]));
        }
        if let Kind::Slow { record: true, .. } = self.kind {
            rule.episode = Episode::Record;
        }
        rule.cooldown = Duration::from_nanos(self.cooldown);
        rule.burst = self.burst as u32;
        rule
    }
}

enum Truth {
    Stress(Reading),
    Between,
    Calm,
    Silent,
}

#[derive(Clone, Copy)]
struct Running {
    since: u64,
    records: u64,
    worst: Reading,
    told: bool,
}

/// The naive model of one rule.
struct Model {
    setup: Setup,
    running: HashMap<&'static str, Running>,
    last: HashMap<&'static str, &'static str>,
    marks: Vec<u64>,
    history: Vec<u64>,
    /// ns of budget, and when it was counted.
    budget: (u64, u64),
    untold: u64,
}

/// The upper end of the part of an octave that a value lies in.
fn upper(value: u64) -> f64 {
    let mut octave = 1.0;
    while octave * 2.0 <= value as f64 {
        octave *= 2.0;
    }
    let quarters = (1..=4).map(|quarter| octave * (1.0 + f64::from(quarter) / 4.0));
    quarters
        .into_iter()
        .find(|end| (value as f64) < *end)
        .unwrap()
}

impl Model {
    fn new(setup: Setup) -> Self {
        Self {
            setup,
            running: HashMap::new(),
            last: HashMap::new(),
            marks: Vec::new(),
            history: Vec::new(),
            budget: (setup.burst * setup.cooldown, 0),
            untold: 0,
        }
    }

    fn truth(&mut self, event: &Event, key: &'static str) -> Truth {
        let judge = |stress, calm, value| match (stress, calm) {
            (true, _) => Truth::Stress(value),
            (_, true) => Truth::Calm,
            _ => Truth::Between,
        };
        let slow = event.ttfb.or(event.duration);
        match self.setup.kind {
            Kind::Slow {
                limit,
                clear,
                up_to,
                ..
            } => match slow {
                None => Truth::Silent,
                Some(ns) => {
                    let inside = ns > limit && ns <= up_to;
                    judge(inside, ns <= clear || ns > up_to, Reading::Time(ns))
                }
            },
            Kind::Low { limit, clear } => match event.level {
                None => Truth::Silent,
                Some(level) => judge(level < limit, level >= clear, Reading::Number(level)),
            },
            Kind::Failed => judge(!event.success, event.success, Reading::None),
            Kind::Part { limit, clear } => {
                let part = event.part as f64 / event.whole as f64;
                let some = event.whole > 0;
                let calm = !some || part <= clear;
                judge(some && part > limit, calm, Reading::Number(part))
            }
            Kind::State { unknown } => {
                let from = |state| ["up", "half"].contains(&state);
                let to = |state| ["down", "broken"].contains(&state);
                let before = self.last.get(key).copied();
                if from(event.state) || to(event.state) {
                    self.last.insert(key, event.state);
                }
                let entered = event.old.is_some_and(from)
                    || before.map_or(unknown, from)
                    || self.running.contains_key(key);
                if event.state == "odd" {
                    Truth::Silent
                } else {
                    judge(
                        to(event.state) && entered,
                        event.state == "up",
                        Reading::None,
                    )
                }
            }
            Kind::Many {
                limit,
                clear,
                span,
                slow: over,
            } => {
                if slow.is_some_and(|ns| ns > over) {
                    self.marks.push(event.time);
                }
                let inside = |mark: &&u64| **mark + span > event.time;
                let count = self.marks.iter().filter(inside).count() as u64;
                let told = Reading::Number((limit + 1) as f64);
                judge(count > limit, count <= clear, told)
            }
            Kind::Unusual {
                quantile,
                factor,
                clear,
                samples,
            } => {
                let Some(ns) = event.duration else {
                    return Truth::Silent;
                };
                let mut sorted = self.history.clone();
                sorted.sort_unstable();
                self.history.push(ns);
                if sorted.len() < samples {
                    return Truth::Between;
                }
                let rank = (sorted.len() as f64 * quantile).ceil() as usize;
                let usual = upper(sorted[rank.max(1) - 1]);
                let value = ns as f64;
                judge(
                    value > usual * factor,
                    value <= usual * clear,
                    Reading::Time(ns),
                )
            }
        }
    }

    /// Tokens flow in with time, up to a burst.
    fn may_tell(&mut self, now: u64) -> bool {
        let Setup {
            cooldown, burst, ..
        } = self.setup;
        let (tokens, counted) = self.budget;
        let tokens = (tokens + (now - counted)).min(burst * cooldown);
        let good = tokens >= cooldown;
        self.budget = (if good { tokens - cooldown } else { tokens }, now);
        good
    }

    fn look(&mut self, event: &Event) -> Option<Told> {
        if self.setup.only && event.operation != "start" {
            return None;
        }
        let key = if self.setup.keyed { event.key } else { "" };
        let now = event.time;
        let truth = self.truth(event, key);
        if let (Kind::Slow { record: true, .. }, Truth::Stress(value)) = (self.setup.kind, &truth) {
            if !self.may_tell(now) {
                self.untold += 1;
                return None;
            }
            let suppressed = std::mem::take(&mut self.untold);
            return Some(Told::Begin {
                value: *value,
                suppressed,
            });
        }
        match truth {
            Truth::Stress(value) => {
                let old = self.running.get(key).copied();
                let mut one = old.unwrap_or(Running {
                    since: now,
                    records: 0,
                    worst: value,
                    told: false,
                });
                one.records += 1;
                let low = matches!(self.setup.kind, Kind::Low { .. });
                one.worst = match (one.worst, value) {
                    (Reading::Time(a), Reading::Time(b)) => Reading::Time(a.max(b)),
                    (Reading::Number(a), Reading::Number(b)) => {
                        Reading::Number(if low { a.min(b) } else { a.max(b) })
                    }
                    (worst, _) => worst,
                };
                let mut told = None;
                if !one.told && self.may_tell(now) {
                    one.told = true;
                    let others = self.untold - u64::from(old.is_some());
                    self.untold = 0;
                    told = Some(Told::Begin {
                        value,
                        suppressed: others,
                    });
                } else if old.is_none() {
                    self.untold += 1;
                }
                self.running.insert(key, one);
                told
            }
            Truth::Calm => {
                let ended = self.running.remove(key).filter(|one| one.told)?;
                let worst = match ended.worst {
                    Reading::None => 0,
                    Reading::Time(ns) => ns,
                    Reading::Number(number) => number.to_bits(),
                };
                Some(Told::End {
                    duration: now - ended.since,
                    records: ended.records,
                    worst,
                })
            }
            Truth::Between | Truth::Silent => None,
        }
    }
}

fn rules(setups: &[Setup]) -> Rules {
    let rules = setups.iter().enumerate();
    let rules = rules.map(|(index, setup)| setup.rule(&format!("rule_{index}")));
    Rules::new(&RuleSet {
        rules: rules.collect(),
    })
    .unwrap()
}

#[test]
fn ten_thousand_random_sequences_agree_with_the_model() {
    let mut random = Random::new(1);
    let rounds = std::env::var("STORMLOG_ROUNDS").ok();
    let rounds = rounds
        .and_then(|text| text.parse().ok())
        .unwrap_or(SEQUENCES);
    let mut told = [0_u64; 3];
    for sequence in 0..rounds {
        let setup = Setup::random(&mut random);
        let (rules, mut model) = (rules(&[setup]), Model::new(setup));
        let mut time = 0;
        for number in 0..RECORDS {
            time += random.below(12);
            let event = Event::random(&mut random, time);
            let expected = model.look(&event);
            let mut found = None;
            event.evaluate(&rules, |_, step| found = step.told);
            assert_eq!(found, expected, "{sequence}/{number}: {setup:?}: {event:?}");
            told[match found {
                None => 0,
                Some(Told::Begin { .. }) => 1,
                Some(Told::End { .. }) => 2,
            }] += 1;
        }
        assert_eq!(rules.skipped(), 0);
    }
    // Sequences in which nothing happens would prove nothing.
    assert!(told[1] > rounds && told[2] > rounds / 2, "{told:?}");
}

/// Threads evaluate at the same time; the model follows in the order in which each state was
/// updated. A look that changes nothing stands behind the update whose number it has.
#[test]
fn threads_agree_with_the_model_in_the_order_of_updates() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let mut random = Random::new(2);
    let mut changed = 0;
    for _ in 0..8 {
        let setups: Vec<Setup> = (0..7)
            .map(|_| Setup {
                cooldown: 0,
                ..Setup::random(&mut random)
            })
            .collect();
        let rules = rules(&setups);
        let seeds: Vec<u64> = (0..THREADS).map(|_| random.next() | 1).collect();
        let start = std::sync::Barrier::new(THREADS as usize);
        let steps: Vec<(u16, Step, Event)> = std::thread::scope(|scope| {
            let workers: Vec<_> = seeds
                .iter()
                .map(|seed| {
                    let (rules, start) = (&rules, &start);
                    scope.spawn(move || {
                        let mut random = Random(*seed);
                        let mut steps = Vec::new();
                        start.wait();
                        for _ in 0..EACH {
                            // One time for all: threads may come in any order.
                            let event = Event::random(&mut random, 1000);
                            event.evaluate(rules, |rule, step| steps.push((rule, step, event)));
                        }
                        steps
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        assert_eq!(rules.skipped(), 0);
        for (index, setup) in setups.iter().enumerate() {
            let mut steps: Vec<_> = steps
                .iter()
                .filter(|(rule, ..)| usize::from(*rule) == index)
                .collect();
            steps.sort_by_key(|(_, step, _)| (step.sequence, !step.changed));
            let numbers: Vec<u64> = steps
                .iter()
                .filter(|(_, step, _)| step.changed)
                .map(|(_, step, _)| step.sequence)
                .collect();
            assert!(
                numbers.iter().copied().eq(1..=numbers.len() as u64),
                "{setup:?}"
            );
            changed += numbers.len();
            let mut model = Model::new(*setup);
            for (_, step, event) in steps {
                assert_eq!(step.told, model.look(event), "{setup:?}: {event:?}");
            }
        }
    }
    assert!(changed > 1_000, "{changed}");
}

/// What fires for each record does not know an order; of episodes the number of records over the
/// limit does not.
#[test]
fn thresholds_agree_in_any_order() {
    let mut random = Random::new(3);
    for _ in 0..200 {
        let setup = |record| Setup {
            kind: Kind::Slow {
                limit: 100,
                clear: 100,
                up_to: u64::MAX >> 20,
                record,
            },
            keyed: false,
            only: false,
            cooldown: 0,
            burst: 1,
        };
        let mut events: Vec<Event> = (0..50).map(|at| Event::random(&mut random, at)).collect();
        // The last one ends every episode.
        let end = Event {
            duration: Some(1),
            ttfb: None,
            ..events[0]
        };
        let over = |event: &&Event| event.ttfb.or(event.duration).is_some_and(|ns| ns > 100);
        let expected = events.iter().filter(over).count() as u64;
        for _ in 0..4 {
            for place in (1..events.len()).rev() {
                events.swap(place, random.below(place as u64 + 1) as usize);
            }
            let rules = rules(&[setup(true), setup(false)]);
            let (mut single, mut spans) = (0, 0);
            for event in events.iter().chain([&end]) {
                event.evaluate(&rules, |rule, step| match step.told {
                    Some(Told::Begin { .. }) if rule == 0 => {
                        assert!(over(&event));
                        single += 1;
                    }
                    Some(Told::End { records, .. }) => spans += records,
                    _ => {}
                });
            }
            assert_eq!((single, spans), (expected, expected));
        }
    }
}
