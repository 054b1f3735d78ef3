//! What a push costs: records against the floor (one raw counter read and one 64-byte store into
//! successive slots of a ring of the same capacity), in the same run.
//!
//! `cargo bench --bench hot_path`. All subjects take turns, round after round; ratios are of one
//! round, with an interval that a bootstrap gives. The writer runs and drains between the parts of
//! a round, outside of the time: no record may be dropped. Per subject: the mean of bursts of 50
//! calls and their quantiles, single calls, and single calls after a walk over 4 MiB of other
//! memory; the two looks at the counter around a single call are taken off.

#[path = "support/counter.rs"]
mod counter;
#[path = "support/record_a.rs"]
mod record_a;
#[path = "support/stats.rs"]
mod stats;

use std::hint::black_box;
use std::time::{Duration, Instant};

use counter::{counter, fenced_counter};
use record_a::{push_a, record_a};
use stats::{bootstrap, median, quantile};
use stormlog::record::{Category, DurationMs, Extra, ShortText, Symbol};
use stormlog::{Conversion, Log, Outcome, Session, SessionBuilder};

stormlog::record! {
    /// Record A with a duration in a category with two threshold rules on it.
    struct Ruled in "bench_ruled" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        duration_ms: DurationMs<2>,
        ok: bool,
    }
}

stormlog::record! {
    /// Record A in a category with two threshold rules on numbers.
    struct RuledNumbers in "bench_numbers" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

/// Two threshold rules for each, which do not fire.
const RULES: &str = "
[[rule]]
name = \"bench_slow\"
category = \"bench_ruled\"
threshold = { field = \"duration_ms\", above = \"1h\" }

[[rule]]
name = \"bench_very_slow\"
category = \"bench_ruled\"
threshold = { field = \"duration_ms\", above = \"2h\" }

[[rule]]
name = \"bench_value\"
category = \"bench_numbers\"
threshold = { field = \"value\", above = 1e15 }

[[rule]]
name = \"bench_port\"
category = \"bench_numbers\"
threshold = { field = \"port\", above = 65535 }
";

stormlog::record! {
    /// Record A in a category that is switched off.
    struct RecordOff in "bench_off" keep Sampled {
        operation: Symbol,
        port: u16,
    }
}

stormlog::record! {
    /// Fixed fields only.
    struct Fixed in "bench" keep Sampled {
        operation: Symbol,
        port: u16,
        value: f64,
        ok: bool,
    }
}

stormlog::record! {
    /// Record A with a duration, which is aggregated per operation.
    struct Timed in "bench" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        duration_ms: DurationMs<2>,
        ok: bool,
    }
}

stormlog::record! {
    /// Record A, a name of 12 bytes, the text of the operation and of the session.
    struct RecordB in "bench" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
        name: ShortText<12>,
        operation_text: ShortText<24>,
        session: ShortText<16>,
    }
}

/// Memory of the rings of a session, of which the first ring has a 32nd part: by default 512 KiB,
/// which L2 caches hold, and in the wide session 4 MiB, which they do not.
const HOT_TOTAL_BYTES: usize = 16 << 20;
const WIDE_TOTAL_BYTES: usize = 128 << 20;
/// Pushes between two looks of the clock where the mean of a burst is asked for.
const BURST: u64 = 50;
/// Bursts of a round.
const BURSTS: u64 = 60;
/// Calls of a round that are timed one by one.
const SINGLES: u64 = 3000;
/// Calls of a round that record nothing.
const ROW: u64 = 50_000;
/// Where the loop stands that calls nothing.
const EMPTY: usize = 10;
/// Calls of a round before which the caches hold something else.
const COLD: u64 = 25;
/// What is walked over before a cold call: four times the L2 cache of the machines this ran on.
const WALK_BYTES: usize = 4 << 20;

/// The floor: 64 bytes with the counter in front into the next slot.
struct Floor {
    slots: Vec<[u64; 8]>,
    next: usize,
}

impl Floor {
    fn new(ring_bytes: usize) -> Self {
        Self {
            slots: vec![[0; 8]; ring_bytes / 64],
            next: 0,
        }
    }

    #[inline(always)]
    fn push(&mut self, value: u64) {
        let index = self.next & (self.slots.len() - 1);
        self.slots[index] = [counter(), value, value, value, value, value, value, value];
        self.next += 1;
        black_box(&self.slots[index]);
    }
}

fn start(name: &str, ring_total_bytes: usize) -> Session {
    builder(name, ring_total_bytes)
        .start()
        .expect("the temporary directory can be written")
}

fn builder(name: &str, ring_total_bytes: usize) -> SessionBuilder {
    let dir = format!("stormlog-{name}-{}", std::process::id());
    Session::builder()
        .keep_free_bytes(0)
        .dir(std::env::temp_dir().join(dir))
        .conversion(Conversion::Later)
        .sampling(false)
        .ring_total_bytes(ring_total_bytes)
}

/// A session with the built-in stress rules and two on category `bench_ruled`.
fn start_ruled(name: &str) -> Session {
    let file = format!("stormlog-{name}-{}.toml", std::process::id());
    let file = std::env::temp_dir().join(file);
    std::fs::write(&file, RULES).expect("the temporary directory can be written");
    let builder = builder(name, HOT_TOTAL_BYTES).stress_rules(true);
    let session = builder.stress_rules_file(&file).start();
    std::fs::remove_file(&file).expect("the bench's own file");
    session.expect("the temporary directory can be written")
}

#[inline(always)]
fn push_b(log: &Log, number: u64) -> Outcome {
    log.push(&RecordB {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        value: number as f64,
        ok: true,
        name: black_box("engine-00042"),
        operation_text: black_box("start_acestream_engine"),
        session: black_box("20251018_144523"),
    })
}

#[inline(always)]
fn push_fixed(log: &Log, number: u64) -> Outcome {
    log.push(&Fixed {
        operation: stormlog::symbol!("bench_operation"),
        port: number as u16,
        value: number as f64,
        ok: true,
    })
}

#[inline(always)]
fn push_timed(log: &Log, number: u64) -> Outcome {
    log.push(&Timed {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        duration_ms: Duration::from_nanos(number * 1000),
        ok: true,
    })
}

#[inline(always)]
fn push_ruled(log: &Log, number: u64) -> Outcome {
    log.push(&Ruled {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        duration_ms: Duration::from_nanos(number * 1000),
        ok: true,
    })
}

#[inline(always)]
fn push_ruled_numbers(log: &Log, number: u64) -> Outcome {
    log.push(&RuledNumbers {
        operation: stormlog::symbol!("bench_operation"),
        id: black_box("0123456789ab"),
        port: number as u16,
        value: number as f64,
        ok: true,
    })
}

#[inline(always)]
fn push_open(log: &Log, open: Category, number: u64) -> Outcome {
    let extras = [
        Extra::new("number", number),
        Extra::new("value", number as f64),
        Extra::new("status", "healthy"),
        Extra::new("ok", true),
    ];
    log.event(open, &extras)
}

#[inline(always)]
fn lazy_a(log: &Log, number: u64) -> Outcome {
    log.push_lazy(|| record_a(number))
}

#[inline(always)]
fn push_off(log: &Log, number: u64) -> Outcome {
    log.push_lazy(|| RecordOff {
        operation: stormlog::symbol!("bench_operation"),
        port: number as u16,
    })
}

/// One kind of call, inlined into what measures it, as into a program.
trait Call {
    fn call(&mut self, number: u64);
}

macro_rules! call {
    ($name:ident, $type:ty, |$it:ident, $number:ident| $call:expr) => {
        struct $name<'a>(&'a mut $type);

        impl Call for $name<'_> {
            #[inline(always)]
            fn call(&mut self, $number: u64) {
                let $it = &mut *self.0;
                $call;
            }
        }
    };
}

call!(PushFloor, Floor, |floor, number| floor.push(number));
call!(PushFixed, Log, |log, number| kept(push_fixed(log, number)));
call!(PushA, Log, |log, number| kept(push_a(log, number)));
call!(PushTimed, Log, |log, number| kept(push_timed(log, number)));
call!(PushRuled, Log, |log, number| kept(push_ruled(log, number)));
call!(PushRuledNumbers, Log, |log, number| kept(
    push_ruled_numbers(log, number)
));
call!(PushB, Log, |log, number| kept(push_b(log, number)));
call!(PushOpen, (Log, Category), |it, number| kept(push_open(
    &it.0, it.1, number
)));
call!(Empty, (), |_it, number| _ = black_box(number));
call!(PushDisabled, Log, |log, number| _ =
    black_box(lazy_a(log, number)));
call!(PushOff, Log, |log, number| _ =
    black_box(push_off(log, number)));

#[inline(always)]
fn kept(outcome: Outcome) {
    assert_eq!(outcome, Outcome::Kept, "nothing was cheaper than a push");
}

/// What is measured of a call.
trait Subject {
    /// Counter ticks per call in one burst after the other.
    fn bursts(&mut self, bursts: u64, into: &mut Vec<f64>);
    /// Counter ticks of single calls.
    fn singles(&mut self, calls: u64, before: &mut dyn FnMut(), into: &mut Vec<f64>);
    /// Counter ticks per call in one long row of calls: where a tick is many calls long.
    fn row(&mut self, calls: u64) -> f64;
}

impl<C: Call> Subject for C {
    #[inline(never)]
    fn bursts(&mut self, bursts: u64, into: &mut Vec<f64>) {
        let mut last = counter();
        for burst in 0..bursts {
            for number in 0..black_box(BURST) {
                self.call(burst + number);
            }
            let now = counter();
            into.push((now - last) as f64 / BURST as f64);
            last = now;
        }
    }

    #[inline(never)]
    fn singles(&mut self, calls: u64, before: &mut dyn FnMut(), into: &mut Vec<f64>) {
        for number in 0..calls {
            before();
            let start = fenced_counter();
            self.call(number);
            into.push((fenced_counter() - start) as f64);
        }
    }

    #[inline(never)]
    fn row(&mut self, calls: u64) -> f64 {
        let start = fenced_counter();
        for number in 0..black_box(calls) {
            self.call(number);
        }
        (fenced_counter() - start) as f64 / calls as f64
    }
}

/// What all rounds of a subject gave, in ns per call.
#[derive(Default)]
struct Row {
    name: &'static str,
    /// Of the row, by index, with which it is compared.
    floor: usize,
    /// Mean of each round.
    means: Vec<f64>,
    bursts: Vec<f64>,
    singles: Vec<f64>,
    cold: Vec<f64>,
    /// Of calls that do nothing.
    rows: Vec<f64>,
}

/// Ticks of a round: bursts, single calls, cold ones, and calls in a row.
type Seen = ([Vec<f64>; 3], Option<f64>);

impl Row {
    fn measure(&self, subject: &mut dyn Subject, drained: &impl Fn(), walk: &mut Walk) -> Seen {
        let [mut bursts, mut singles, mut cold] = [const { Vec::new() }; 3];
        drained();
        subject.bursts(BURSTS, &mut bursts);
        drained();
        subject.singles(SINGLES, &mut || (), &mut singles);
        drained();
        subject.singles(COLD, &mut || walk.walk(), &mut cold);
        let row = (self.floor == EMPTY).then(|| subject.row(ROW));
        ([bursts, singles, cold], row)
    }

    /// A tick takes `ns`, two looks at the counter `empty` ticks.
    fn add(&mut self, ([bursts, singles, cold], row): Seen, ns: f64, empty: f64) {
        self.means
            .push(bursts.iter().sum::<f64>() / bursts.len() as f64 * ns);
        self.bursts.extend(bursts.iter().map(|it| it * ns));
        let alone = |it: &f64| (it - empty).max(0.0) * ns;
        self.singles.extend(singles.iter().map(alone));
        self.cold.extend(cold.iter().map(alone));
        self.rows.extend(row.map(|it| it * ns));
    }
}

/// Something else than the logger, of which the caches are full afterwards.
struct Walk(Vec<u64>);

impl Walk {
    fn new() -> Self {
        Self(vec![1; WALK_BYTES / 8])
    }

    fn walk(&mut self) {
        for word in self.0.iter_mut().step_by(8) {
            *word = word.wrapping_add(1);
        }
        black_box(&self.0);
    }
}

/// Length of a tick, and ticks that two looks at the counter take.
fn ticks() -> (f64, f64) {
    let (start, ticks) = (Instant::now(), counter());
    while start.elapsed() < Duration::from_millis(50) {}
    let ns = start.elapsed().as_nanos() as f64 / (counter() - ticks) as f64;
    let mut empty = Vec::new();
    Empty(&mut ()).singles(10_000, &mut || (), &mut empty);
    (ns, median(&mut empty))
}

fn hot_path(rounds: u64) {
    let hot = start("hot", HOT_TOTAL_BYTES);
    let wide = start("wide", WIDE_TOTAL_BYTES);
    let ruled = start_ruled("ruled");
    let (log, wide_log, ruled_log) = (hot.log(), wide.log(), ruled.log());
    let off_category = Category::named("bench_off").expect("a valid name");
    let open = Category::named("bench_open").expect("a valid name");
    assert_eq!(push_a(&log, 1), Outcome::Kept, "the subject works");
    assert_eq!(push_a(&wide_log, 1), Outcome::Kept, "the subject works");
    assert_eq!(push_a(&ruled_log, 1), Outcome::Kept, "the subject works");
    assert_eq!(
        push_ruled(&ruled_log, 1),
        Outcome::Kept,
        "the subject works"
    );
    hot.set_category_on(off_category, false);
    assert_eq!(push_off(&log, 1), Outcome::Disabled, "it is off");
    let rings = [HOT_TOTAL_BYTES / 32, WIDE_TOTAL_BYTES / 32];
    let mut floors = rings.map(Floor::new);
    let [floor, wide_floor] = &mut floors;
    let mut logs = [(); 5].map(|()| log.clone());
    let mut wide_logs = [(); 3].map(|()| wide_log.clone());
    let mut ruled_logs = [(); 3].map(|()| ruled_log.clone());
    let [fixed, a, timed, b, off_log] = &mut logs;
    let [other_rules, two_rules, two_numbers] = &mut ruled_logs;
    let [wide_fixed, wide_a, wide_b] = &mut wide_logs;
    let (mut open, mut off, mut nothing) = ((log.clone(), open), Log::disabled(), ());
    let mut subjects: Vec<(&str, usize, Box<dyn Subject + '_>)> = vec![
        ("floor", 0, Box::new(PushFloor(floor))),
        ("fixed fields", 0, Box::new(PushFixed(fixed))),
        ("record A", 0, Box::new(PushA(a))),
        ("record A, duration", 0, Box::new(PushTimed(timed))),
        ("record B", 0, Box::new(PushB(b))),
        ("4 extra fields", 0, Box::new(PushOpen(&mut open))),
        ("floor, wide ring", 6, Box::new(PushFloor(wide_floor))),
        ("fixed fields, wide", 6, Box::new(PushFixed(wide_fixed))),
        ("record A, wide", 6, Box::new(PushA(wide_a))),
        ("record B, wide", 6, Box::new(PushB(wide_b))),
        ("empty", EMPTY, Box::new(Empty(&mut nothing))),
        ("disabled", EMPTY, Box::new(PushDisabled(&mut off))),
        ("disabled category", EMPTY, Box::new(PushOff(off_log))),
        // Beside record A, and record A with a duration.
        ("A, rules on others", 2, Box::new(PushA(other_rules))),
        ("duration, two rules", 3, Box::new(PushRuled(two_rules))),
        ("A, two rules", 2, Box::new(PushRuledNumbers(two_numbers))),
    ];
    let mut rows: Vec<Row> = subjects
        .iter()
        .map(|(name, floor, _)| Row {
            name,
            floor: *floor,
            ..Row::default()
        })
        .collect();
    let (ns, empty) = ticks();
    let mut walk = Walk::new();
    let drained = || {
        for session in [&hot, &wide, &ruled] {
            session.flush().expect("the writer runs");
        }
    };
    for round in 0..=rounds {
        for (row, (_, _, subject)) in rows.iter_mut().zip(&mut subjects) {
            let seen = row.measure(&mut **subject, &drained, &mut walk);
            // The first round warms.
            if round > 0 {
                row.add(seen, ns, empty);
            }
        }
    }
    drop(subjects);
    println!(
        "rings of {} and {} KiB, {rounds} rounds, ns per call",
        rings[0] >> 10,
        rings[1] >> 10
    );
    println!(
        "{:19} {:>6} {:>20} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "", "mean", "of floor", "burst50", "99", "one 50", "99", "99.9", "cold50", "99"
    );
    let means: Vec<Vec<f64>> = rows.iter().map(|row| row.means.clone()).collect();
    for row in &mut rows {
        print_row(row, &means[row.floor]);
    }
    for row in rows[EMPTY + 1..].iter().filter(|row| row.floor == EMPTY) {
        print_more(row, &rows[EMPTY]);
    }
    for session in [hot, wide, ruled] {
        finish(session);
    }
}

fn print_row(row: &mut Row, floor: &[f64]) {
    let pairs = row.means.iter().zip(floor);
    let mut ratios: Vec<f64> = pairs.map(|(mean, floor)| mean / floor).collect();
    let (low, high) = bootstrap(&ratios);
    let of_floor = format!("{:.2} [{low:.2}, {high:.2}]", median(&mut ratios));
    for values in [&mut row.bursts, &mut row.singles, &mut row.cold] {
        values.sort_by(f64::total_cmp);
    }
    println!(
        "{:19} {:6.2} {of_floor:>20} {:7.1} {:7.1} {:7.0} {:7.0} {:7.0} {:7.0} {:7.0}",
        row.name,
        median(&mut row.means),
        quantile(&row.bursts, 0.5),
        quantile(&row.bursts, 0.99),
        quantile(&row.singles, 0.5),
        quantile(&row.singles, 0.99),
        quantile(&row.singles, 0.999),
        quantile(&row.cold, 0.5),
        quantile(&row.cold, 0.99),
    );
}

/// What a call that records nothing takes more than none.
fn print_more(row: &Row, empty: &Row) {
    let pairs = row.rows.iter().zip(&empty.rows);
    let mut more: Vec<f64> = pairs.map(|(call, none)| call - none).collect();
    let (low, high) = bootstrap(&more);
    println!(
        "{}: {:.2} [{low:.2}, {high:.2}] ns more than no call, of {} pairs of {ROW} calls",
        row.name,
        median(&mut more),
        more.len()
    );
}

/// Closes the session, and checks that its ledger has every push.
fn finish(session: Session) {
    let segments = session.segment_dir().map(std::path::Path::to_owned);
    let report = session.close().expect("the writer ran");
    let account = report.ledger.total();
    println!(
        "{} records, {} wakes, {:.2} bytes per record",
        account.written(),
        report.wakes,
        report.segment_bytes as f64 / account.written() as f64
    );
    let missing = account.dropped_total() + account.sampled_out();
    assert_eq!(missing, 0, "nothing was cheaper than a push");
    if let Some(dir) = segments {
        std::fs::remove_dir_all(dir).expect("the bench's own directory");
    }
}

/// What callgrind counts: one function per kind of record, not inlined, and nothing around it.
#[inline(never)]
fn probe_a(log: &Log, number: u64) -> Outcome {
    push_a(log, number)
}

#[inline(never)]
fn probe_fixed(log: &Log, number: u64) -> Outcome {
    push_fixed(log, number)
}

#[inline(never)]
fn probe_timed(log: &Log, number: u64) -> Outcome {
    push_timed(log, number)
}

#[inline(never)]
fn probe_ruled(log: &Log, number: u64) -> Outcome {
    push_ruled(log, number)
}

#[inline(never)]
fn probe_numbers(log: &Log, number: u64) -> Outcome {
    push_ruled_numbers(log, number)
}

#[inline(never)]
fn probe_b(log: &Log, number: u64) -> Outcome {
    push_b(log, number)
}

#[inline(never)]
fn probe_disabled(log: &Log, number: u64) -> Outcome {
    lazy_a(log, number)
}

#[inline(never)]
fn probe_off(log: &Log, number: u64) -> Outcome {
    push_off(log, number)
}

#[inline(never)]
fn probe_open(log: &Log, open: Category, number: u64) -> Outcome {
    push_open(log, open, number)
}

/// Pushes `count` records of each kind, without a clock.
fn probe(count: u64) {
    let session = start("probe", HOT_TOTAL_BYTES);
    let ruled = start_ruled("probe-ruled");
    let (log, ruled_log) = (session.log(), ruled.log());
    let open = Category::named("bench_open").expect("a valid name");
    let off_category = Category::named("bench_off").expect("a valid name");
    session.set_category_on(off_category, false);
    let disabled = Log::disabled();
    for number in 0..count {
        let outcomes = [
            probe_a(&log, number),
            probe_fixed(&log, number),
            probe_timed(&log, number),
            probe_b(&log, number),
            probe_open(&log, open, number),
            probe_ruled(&ruled_log, number),
            probe_numbers(&ruled_log, number),
        ];
        assert_eq!(outcomes, [Outcome::Kept; 7], "the writer keeps up");
        let nothing = [probe_disabled(&disabled, number), probe_off(&log, number)];
        assert_eq!(nothing, [Outcome::Disabled; 2], "they are off");
        if number % 400 == 0 {
            session.flush().expect("the writer runs");
            ruled.flush().expect("the writer runs");
        }
    }
    finish(session);
    finish(ruled);
}

fn main() {
    if let Ok(count) = std::env::var("BENCH_PUSHES") {
        return probe(count.parse().expect("a number of records"));
    }
    let quick = std::env::args().any(|argument| argument == "--test");
    hot_path(if quick { 2 } else { 60 });
}
