//! Duration aggregates are exact, whatever becomes of the records: the truth is kept by the tests
//! themselves.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use closed::lines_of;
use serde_json::Value as Json;
use stormlog::durations::{Durations, RELATIVE_ERROR};
use stormlog::ledger::DropReason;
use stormlog::record::{DurationMs, LongText, Name, ShortText, Symbol};
use stormlog::{CloseReport, Outcome, RingStorage, Session, SessionBuilder};

stormlog::record! {
    struct Call in "performance" keep Sampled {
        operation: Symbol,
        number: u64,
        duration_ms: DurationMs<2>,
    }
}

stormlog::record! {
    struct Keyed in "requests" keep Sampled key id {
        id: ShortText<32>,
        duration_ms: Option<DurationMs<2>>,
        later_ms: DurationMs<2>,
    }
}

stormlog::record! {
    struct Kept in "errors" keep Always {
        operation: Option<Symbol>,
        duration_ms: DurationMs<2>,
        text: LongText,
    }
}

stormlog::record! {
    struct Plain in "health" keep Sampled {
        component: Symbol,
    }
}

/// What was offered, by category and operation.
#[derive(Clone, Default)]
struct Truth(BTreeMap<(String, String), Vec<u64>>);

impl Truth {
    fn add(&mut self, category: &str, operation: &str, ns: u64) {
        let key = (category.to_owned(), operation.to_owned());
        self.0.entry(key).or_default().push(ns);
    }

    fn merge(&mut self, other: Self) {
        for (key, values) in other.0 {
            self.0.entry(key).or_default().extend(values);
        }
    }

    fn count(&self, category: &str) -> u64 {
        let of = self.0.iter().filter(|((name, _), _)| name == category);
        of.map(|(_, values)| values.len() as u64).sum()
    }

    /// Every operation is told exactly, quantiles within their error, and nothing else is told.
    fn assert_told(&self, told: &[Durations]) {
        let mut found = 0;
        for one in told {
            let operation = one.operation.clone().unwrap_or_default();
            let key = (one.category.clone().unwrap(), operation);
            let mut values = self.0[&key].clone();
            values.sort_unstable();
            let histogram = &one.histogram;
            assert_eq!(histogram.count(), values.len() as u64, "{key:?}");
            assert_eq!(histogram.sum_ns, values.iter().sum::<u64>(), "{key:?}");
            assert_eq!(histogram.max_ns, values[values.len() - 1], "{key:?}");
            for q in [0.5, 0.9, 0.99] {
                let rank = ((q * values.len() as f64).ceil() as usize).max(1);
                let truth = values[rank - 1] as f64;
                let told = histogram.quantile(q).unwrap().as_nanos() as f64;
                let bound = (truth * RELATIVE_ERROR + 1.0).max(256.0);
                assert!((told - truth).abs() <= bound, "{key:?} {q}: {told} {truth}");
            }
            found += 1;
        }
        assert_eq!(found, self.0.len());
    }
}

/// Durations of every magnitude, the same each time.
struct Random(u64);

impl Random {
    fn ns(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = mixed ^ mixed >> 32;
        mixed >> 25 >> (mixed % 36)
    }
}

fn builder(dir: &Path) -> SessionBuilder {
    recording::builder()
        .dir(dir)
        .always_wait_max(Duration::ZERO)
}

/// A number of a line, to the bit.
fn bits(number: &Json) -> u64 {
    number.as_f64().unwrap().to_bits()
}

/// Closes the session: what it told live is what its records tell.
fn close(session: Session) -> (CloseReport, Vec<Durations>) {
    let told = session.durations();
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact());
    let lines = lines_of(&report, "session");
    assert!(!lines.is_empty());
    let records: Vec<&Json> = lines.iter().filter(|l| l["event"] == "durations").collect();
    assert_eq!(records.len(), told.len());
    for (line, one) in records.iter().zip(&told) {
        assert_eq!(line["category"].as_str(), one.category.as_deref());
        assert_eq!(line["record"].as_str(), one.record.as_deref());
        assert_eq!(line["operation"].as_str(), one.operation.as_deref());
        assert_eq!(line["other"], one.other);
        let histogram = &one.histogram;
        assert_eq!(line["count"], histogram.count());
        let ms = |ns: u64| ns as f64 / 1e6;
        assert_eq!(bits(&line["sum_ms"]), ms(histogram.sum_ns).to_bits());
        assert_eq!(bits(&line["max_ms"]), ms(histogram.max_ns).to_bits());
        for (name, q) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
            let told = histogram.quantile(q).unwrap().as_nanos() as u64;
            assert_eq!(bits(&line[name]), ms(told).to_bits(), "{name}");
        }
        let pairs = line["buckets"].as_array().unwrap().iter();
        let pairs: Vec<_> = pairs
            .map(|p| (p[0].as_u64(), p[1].as_u64().unwrap()))
            .collect();
        assert_eq!(pairs, histogram.filled().collect::<Vec<_>>());
    }
    assert_eq!(lines.last().unwrap()["event"], "session_end");
    assert_eq!(
        report.ledger.categories["session"].written(),
        lines.len() as u64
    );
    (report, told)
}

fn call(ns: u64, operation: Name<'_>) -> Call<'_> {
    Call {
        operation,
        number: 0,
        duration_ms: Duration::from_nanos(ns),
    }
}

#[test]
fn threads_that_come_and_go_lose_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .ring_total_bytes(64 << 10)
        .start()
        .unwrap();
    let names = ["durations_a", "durations_b", "durations_c"];
    let symbols = names.map(|name| Symbol::intern(name).unwrap());
    let mut truth = Truth::default();
    // More threads than there are rings, one wave after the other: rings are used again.
    for wave in 0..6_u64 {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let log = session.log();
                std::thread::spawn(move || {
                    let (mut truth, mut random) = (Truth::default(), Random(wave * 10 + thread));
                    for number in 0..500 {
                        let (ns, which) = (random.ns(), number % names.len());
                        log.push(&call(ns, symbols[which].into()));
                        truth.add("performance", names[which], ns);
                    }
                    truth
                })
            })
            .collect();
        for thread in threads {
            truth.merge(thread.join().unwrap());
        }
        session.flush().unwrap();
    }
    let (report, told) = close(session);
    truth.assert_told(&told);
    let offered = report.ledger.categories["performance"].offered();
    assert_eq!(offered, truth.count("performance"));
}

#[test]
fn what_sampling_leaves_out_is_observed() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .sample_rate("performance", 0.01)
        .sample_rate("requests", 0.01);
    let session = session.start().unwrap();
    let log = session.log();
    let (mut truth, mut random) = (Truth::default(), Random(1));
    for number in 0..5000_u32 {
        let ns = random.ns();
        let outcome = if number % 2 == 0 {
            log.push(&call(ns, stormlog::symbol!("durations_a")))
        } else {
            log.push_lazy(|| call(ns, stormlog::symbol!("durations_a")))
        };
        assert!(matches!(outcome, Outcome::Kept | Outcome::SampledOut));
        truth.add("performance", "durations_a", ns);
        let id = number.to_string();
        let keyed = Keyed {
            id: &id,
            duration_ms: Some(Duration::from_nanos(ns)),
            later_ms: Duration::from_secs(1),
        };
        match log.key_hash(id.as_bytes()) {
            Some(key) if number % 2 == 0 => log.push_keyed(&keyed, key),
            _ => log.push(&keyed),
        };
        truth.add("requests", "", ns);
        // Null: nothing is observed.
        log.push(&Keyed::default());
    }
    let (report, told) = close(session);
    truth.assert_told(&told);
    for category in ["performance", "requests"] {
        assert!(report.ledger.categories[category].sampled_out() > 4000);
    }
}

#[test]
fn full_rings_pressure_and_the_spill_are_observed() {
    for sampling in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let session = builder(temp.path())
            .ring_total_bytes(64 << 10)
            .spill_total_bytes(8 * 512)
            .sampling(sampling);
        let session = session.start().unwrap();
        let log = session.log();
        session.pause_writer();
        let (mut truth, mut random) = (Truth::default(), Random(2));
        for _ in 0..400 {
            let ns = random.ns();
            log.push(&call(ns, stormlog::symbol!("durations_a")));
            truth.add("performance", "durations_a", ns);
        }
        let traceback = "x".repeat(40_000);
        for number in 0..200 {
            let ns = random.ns();
            log.push(&Kept {
                operation: None,
                duration_ms: Duration::from_nanos(ns),
                text: if number % 10 == 0 { &traceback } else { "" },
            });
            truth.add("errors", "", ns);
        }
        session.resume_writer();
        session.flush().unwrap();
        let (report, told) = close(session);
        truth.assert_told(&told);
        let account = report.ledger.categories["performance"];
        let left_out = if sampling {
            account.sampled_out()
        } else {
            account.dropped(DropReason::RingFull)
        };
        assert!(left_out > 0, "{account:?}");
        let account = report.ledger.categories["errors"];
        assert!(account.dropped(DropReason::AlwaysBudget) > 0);
        assert!(report.spilled > 0);
        assert_eq!(account.offered(), truth.count("errors"));
    }
}

#[test]
fn policies_drop_and_observe() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .rate_limit("performance", 0.001, 20)
        .on_change("requests")
        .start()
        .unwrap();
    let log = session.log();
    let (mut truth, mut random) = (Truth::default(), Random(3));
    for _ in 0..300 {
        let ns = random.ns();
        log.push(&call(ns, stormlog::symbol!("durations_a")));
        truth.add("performance", "durations_a", ns);
        log.push(&Keyed {
            id: "one",
            duration_ms: Some(Duration::from_nanos(ns)),
            later_ms: Duration::ZERO,
        });
        truth.add("requests", "", ns);
    }
    let (report, told) = close(session);
    truth.assert_told(&told);
    let dropped = |category: &str, reason| report.ledger.categories[category].dropped(reason);
    assert!(dropped("performance", DropReason::RateLimit) > 0);
    assert!(dropped("requests", DropReason::Repeat) > 0);
}

/// Symbols that no other test uses.
fn operations(count: usize) -> Vec<Symbol> {
    let names = (0..count).map(|number| format!("durations_many_{number}"));
    names.map(|name| Symbol::intern(&name).unwrap()).collect()
}

#[test]
fn operations_beyond_the_slots_are_counted_as_other() {
    const COUNT: usize = 2000;
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).start().unwrap();
    let log = session.log();
    let (mut random, mut sum) = (Random(4), 0);
    let mut first = Truth::default();
    for round in 0..2 {
        for (number, symbol) in operations(COUNT).into_iter().enumerate() {
            let ns = random.ns();
            log.push(&call(ns, symbol.into()));
            sum += ns;
            if number < 255 {
                first.add("performance", symbol.text(), ns);
            }
            if number == 254 && round == 0 {
                // Texts have one slot per record type.
                for text in ["text", "another"] {
                    log.push(&call(7, text.into()));
                    sum += 7;
                }
            }
        }
        session.flush().unwrap();
    }
    let (_, told) = close(session);
    let (others, named): (Vec<_>, Vec<_>) = told.into_iter().partition(|one| one.other);
    first.assert_told(&named);
    let texts = others.iter().find(|one| one.category.is_some()).unwrap();
    assert_eq!((texts.histogram.count(), texts.histogram.sum_ns), (2, 14));
    let rest = others.iter().find(|one| one.category.is_none()).unwrap();
    assert_eq!((&rest.operation, &rest.record), (&None, &None));
    assert_eq!(rest.histogram.count(), 2 * (COUNT as u64 - 255));
    assert_eq!(others.len(), 2);
    let all = named.iter().chain(&others).map(|one| one.histogram.sum_ns);
    assert_eq!(all.sum::<u64>(), sum);
}

#[test]
fn without_pages_and_without_rings_counts_stay_exact() {
    /// Of the smallest session; each could need 33 pages of 222.
    const RINGS: usize = 10;
    const THREADS: usize = RINGS + 2;
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .ring_total_bytes(64 << 10)
        .start()
        .unwrap();
    let symbols = operations(256);
    let barrier = Barrier::new(THREADS);
    let mut truth = Truth::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS as u64)
            .map(|thread| {
                let (log, symbols, barrier) = (session.log(), &symbols, &barrier);
                scope.spawn(move || {
                    let (mut truth, mut random) = (Truth::default(), Random(thread));
                    log.push(&call(0, symbols[0].into()));
                    truth.add("performance", symbols[0].text(), 0);
                    // All hold a ring that can.
                    barrier.wait();
                    for _ in 0..3 {
                        for symbol in symbols {
                            let ns = random.ns();
                            log.push(&call(ns, (*symbol).into()));
                            truth.add("performance", symbol.text(), ns);
                        }
                    }
                    truth
                })
            })
            .collect();
        for thread in threads {
            truth.merge(thread.join().unwrap());
        }
    });
    let (report, told) = close(session);
    truth.assert_told(&told);
    let account = report.ledger.categories["performance"];
    assert!(account.dropped(DropReason::NoRing) >= 2, "{account:?}");
    assert_eq!(account.offered(), truth.count("performance"));
}

#[test]
fn what_is_refused_or_has_no_duration_is_not_observed() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path())
        .categories_off(["performance"])
        .start()
        .unwrap();
    let log = session.log();
    let off = log.push(&call(1, stormlog::symbol!("durations_a")));
    assert_eq!(off, Outcome::Disabled);
    let component = stormlog::symbol!("durations_a");
    assert_eq!(log.push(&Plain { component }), Outcome::Kept);
    assert_eq!(session.durations(), []);
    let (_, told) = close(session);
    assert_eq!(told, []);
    let closed = log.push(&Kept::default());
    assert_eq!(closed, Outcome::Closed);
    assert_eq!(Session::disabled().durations(), []);
}

/// Whoever finds the rings of a killed process can name and add up all cells: FORMAT.md 7.2.
#[test]
fn the_ring_storage_tells_everything_to_who_finds_it() {
    let temp = tempfile::tempdir().unwrap();
    let session = builder(temp.path()).ring_storage(RingStorage::SessionDir);
    let session = session.start().unwrap();
    let symbols = operations(20);
    let (mut truth, mut random) = (Truth::default(), Random(5));
    for thread in 0..3 {
        let (log, symbols) = (session.log(), symbols.clone());
        let offered: Vec<(Symbol, u64)> = symbols[thread..]
            .iter()
            .map(|s| (*s, random.ns()))
            .collect();
        for (symbol, ns) in &offered {
            truth.add("performance", symbol.text(), *ns);
        }
        let push = move || {
            for (symbol, ns) in offered {
                assert_eq!(log.push(&call(ns, symbol.into())), Outcome::Kept);
            }
        };
        std::thread::spawn(push).join().unwrap();
    }
    let file = std::fs::read(session.segment_dir().unwrap().join("rings")).unwrap();
    let word = |offset: usize| u64::from_le_bytes(file[offset..offset + 8].try_into().unwrap());
    let half = |offset: usize| u32::from_le_bytes(file[offset..offset + 4].try_into().unwrap());
    let (area, bytes) = (word(344) as usize, word(352) as usize);
    let mut sums: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for page in 1..bytes / 4096 {
        let group = match page {
            1..34 => page - 1,
            _ => match half(area + 2048 + page * 4) & 0xFFFF {
                0 => continue,
                group => group as usize - 1,
            },
        };
        for cell in 0..8 {
            let start = area + page * 4096 + cell * 512;
            let count: u64 = (2..64).map(|index| word(start + index * 8)).sum();
            let sum = sums.entry(group * 8 + cell).or_default();
            *sum = (sum.0 + count, sum.1 + word(start));
        }
    }
    let mut found = BTreeMap::new();
    for (slot, sum) in sums.into_iter().filter(|(_, (count, _))| *count > 0) {
        let operation = word(area + slot * 8) as u32;
        let symbol = symbols.iter().find(|symbol| symbol.id() == operation);
        found.insert(symbol.unwrap().text().to_owned(), sum);
    }
    let (_, told) = close(session);
    truth.assert_told(&told);
    let truth = truth
        .0
        .into_iter()
        .map(|((_, operation), values)| (operation, (values.len() as u64, values.iter().sum())));
    assert_eq!(found, truth.collect());
}

/// A ring that samples by its own fill refuses records a little before it is full.
#[test]
fn records_that_a_pressed_ring_refuses_are_observed() {
    // Chance decides when a ring that keeps 1 in 32,768 is full: mostly within 100,000 records.
    const OFFERED_MAX: u64 = 10_000_000;
    let temp = tempfile::tempdir().unwrap();
    let builder = builder(temp.path()).ring_total_bytes(64 << 10);
    let session = builder.sampling(true).start().unwrap();
    let log = session.log();
    session.pause_writer();
    let (mut truth, mut random) = (Truth::default(), Random(11));
    let mut push = || {
        let ns = random.ns();
        truth.add("performance", "pressed", ns);
        log.push(&call(ns, stormlog::symbol!("pressed")))
    };
    let refused = Outcome::Dropped(DropReason::RingFull);
    let is_refused = (0..OFFERED_MAX).any(|_| push() == refused);
    for _ in 0..1000 {
        push();
    }
    truth.assert_told(&session.durations());
    session.close().unwrap();
    assert!(is_refused, "the test needs a ring that refuses");
}
