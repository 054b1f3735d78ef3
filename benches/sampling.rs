//! What sampling costs: nothing while there is no pressure, and little for a record that is left
//! out; what counting its duration adds to a push; and how soon sampling begins when the drain
//! stands still.
//!
//! `cargo bench --bench sampling -- --instructions` runs itself under callgrind instead and prints
//! how many instructions each kind of push takes.
//!
//! `cargo bench --bench sampling`. Pairs of batches, subject and reference in turn, so that what
//! the machine does meanwhile meets both; of the differences the median, with an interval that a
//! bootstrap gives. First it checks that the subjects do what they are measured for, at last that
//! the ledger has every push.

#[path = "sampling/reaction.rs"]
mod reaction;
#[path = "support/stats.rs"]
mod stats;

use std::hint::black_box;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, compiler_fence};
use std::time::{Duration, Instant};

use stats::{bootstrap, median};
use stormlog::ledger::DropReason;
use stormlog::record::{
    Category, DurationMs, Extra, KeepClass, Record, SchemaDef, ShortText, Sink, Symbol,
};
use stormlog::sampling::KeyHash;
use stormlog::{Conversion, Log, Outcome, Session};

/// Record A of `hot_path` in its own category.
macro_rules! record_a {
    ($name:ident, $category:literal) => {
        stormlog::record! {
            struct $name in $category keep Sampled {
                operation: Symbol,
                id: ShortText<12>,
                port: u16,
                value: f64,
                ok: bool,
            }
        }

        impl $name<'static> {
            #[inline(always)]
            fn new(number: u64) -> Self {
                Self {
                    operation: stormlog::symbol!("bench_operation"),
                    id: black_box("0123456789ab"),
                    port: number as u16,
                    value: number as f64,
                    ok: true,
                }
            }
        }
    };
}

record_a!(Plain, "bench_plain");
record_a!(Half, "bench_half");
record_a!(Left, "bench_left");
record_a!(Rate, "bench_rate");
record_a!(Limit, "bench_limit");
record_a!(Change, "bench_change");

stormlog::record! {
    /// A record with a text key.
    struct Keyed in "bench_keyed" keep Sampled key id {
        operation: Symbol,
        id: ShortText<64>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

impl<'a> Keyed<'a> {
    #[inline(always)]
    fn new(id: &'a str, number: u64) -> Self {
        Self {
            operation: stormlog::symbol!("bench_operation"),
            id,
            port: number as u16,
            value: number as f64,
            ok: true,
        }
    }
}

stormlog::record! {
    /// Record A with a duration.
    struct Timed in "bench_timed" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        duration_ms: DurationMs<2>,
        ok: bool,
    }
}

impl Timed<'static> {
    #[inline(always)]
    fn new(number: u64) -> Self {
        Self {
            operation: stormlog::symbol!("bench_operation"),
            id: black_box("0123456789ab"),
            port: number as u16,
            duration_ms: Duration::from_nanos(number * 1000),
            ok: true,
        }
    }
}

/// The same record, whose duration nobody counts: what is left is the cost of counting it.
#[derive(Clone, Copy)]
struct Uncounted<R>(R);

impl<R: Record> Record for Uncounted<R> {
    type Fixed = R::Fixed;
    const KEYED: bool = R::KEYED;

    #[inline(always)]
    fn schema(&self) -> &'static SchemaDef {
        self.0.schema()
    }
    #[inline(always)]
    fn keep(&self) -> KeepClass {
        self.0.keep()
    }
    #[inline(always)]
    fn fixed(&self, cap: usize) -> R::Fixed {
        self.0.fixed(cap)
    }
    #[inline(always)]
    fn variable_bytes(&self, cap: usize) -> usize {
        self.0.variable_bytes(cap)
    }
    #[inline(always)]
    fn write_variable(&self, cap: usize, out: &mut impl Sink) {
        self.0.write_variable(cap, out);
    }
    #[inline(always)]
    fn is_cut(&self, cap: usize) -> bool {
        self.0.is_cut(cap)
    }
    #[inline(always)]
    fn all_symbols(&self, check: impl FnMut(Symbol) -> bool) -> bool {
        self.0.all_symbols(check)
    }
    #[inline(always)]
    fn key_bytes(&self) -> &[u8] {
        self.0.key_bytes()
    }
    fn visit<'s>(&'s self, visit: &mut dyn FnMut(Extra<'s>)) {
        self.0.visit(visit);
    }
}

/// Records per batch that stay: well below what a ring takes without sampling for itself.
const BATCH_KEPT: u64 = 3000;
/// Pushes per batch that leave nothing behind.
const BATCH_LEFT_OUT: u64 = 50_000;
/// The highest pressure: 1 record in 32,768 is kept.
const K_MAX: u8 = 15;

fn category(name: &str) -> Category {
    Category::named(name).expect("a valid name")
}

fn start(name: &str, sampling: bool) -> Session {
    let dir = std::env::temp_dir().join(format!("stormlog-{name}-{}", std::process::id()));
    Session::builder()
        .keep_free_bytes(0)
        .dir(dir)
        .conversion(Conversion::Later)
        .segment_bytes(4 << 20)
        .sampling(sampling)
        .sample_rate("bench_rate", 1e-4)
        .rate_limit("bench_limit", 1e-3, 1)
        .on_change("bench_change")
        .start()
        .expect("the temporary directory can be written")
}

/// A session with some categories under pressure.
fn session(name: &str, sampling: bool) -> Session {
    let session = start(name, sampling);
    for (name, k) in [
        ("bench_left", K_MAX),
        ("bench_keyed", K_MAX),
        ("bench_half", 1),
    ] {
        session.set_pressure(category(name), k);
    }
    session
}

fn remove(session: Session) {
    let dir = session.dir().map(std::path::Path::to_owned);
    session.close().expect("the writer ran");
    if let Some(dir) = dir {
        std::fs::remove_dir_all(dir).expect("the bench's own directory");
    }
}

/// What no implementation can do without: a flag that says that the thread is inside, a look at
/// the wishes of others, a counter down to the next record that is kept, and two counts.
#[repr(align(64))]
#[derive(Default)]
struct Floor {
    gate: AtomicU8,
    busy: AtomicU32,
    mode: AtomicU32,
    gap: AtomicU8,
    offered: AtomicU64,
    sampled_out: AtomicU64,
}

impl Floor {
    #[inline(always)]
    fn leave_out(&self) -> bool {
        if self.gate.load(Relaxed) != 0 || self.busy.load(Relaxed) != 0 {
            return false;
        }
        self.busy.store(1, Relaxed);
        compiler_fence(SeqCst);
        if self.mode.load(Relaxed) != 0 {
            return false;
        }
        let gap = self.gap.load(Relaxed).wrapping_sub(1);
        self.gap.store(gap, Relaxed);
        for counter in [&self.offered, &self.sampled_out] {
            counter.store(counter.load(Relaxed) + 1, Relaxed);
        }
        self.busy.store(0, Release);
        true
    }
}

/// A key that is left out at the highest pressure, as nearly all are.
struct Key {
    text: String,
    hash: KeyHash,
}

impl Key {
    fn left_out(log: &Log) -> Self {
        let keys = (0..).map(|number| {
            let text = format!("{number:064}");
            let hash = log.key_hash(text.as_bytes()).expect("a key");
            Self { text, hash }
        });
        let is_left_out = |key: &Key| {
            log.push(&Keyed::new(&key.text, 0));
            log.push_keyed(&Keyed::new(&key.text, 0), key.hash) == Outcome::SampledOut
        };
        keys.take(100)
            .find(is_left_out)
            .expect("1 key in 32,768 is kept")
    }
}

/// One side of a comparison: a batch of so many calls.
type Side<'a> = Box<dyn FnMut(u64) + 'a>;

struct Row<'a> {
    name: &'static str,
    batch: u64,
    subject: Side<'a>,
    reference: Side<'a>,
    against: &'static str,
    /// ns per call that the subject may cost more than the reference.
    bar: Option<f64>,
}

/// ns per call of both sides, by pair.
fn measure(row: &mut Row<'_>, pairs: usize, sessions: &[&Session]) -> Vec<(f64, f64)> {
    let batch = row.batch;
    let time = |side: &mut Side<'_>| {
        for session in sessions {
            session.flush().expect("the writer runs");
        }
        let start = Instant::now();
        side(batch);
        start.elapsed().as_nanos() as f64 / batch as f64
    };
    // Warm.
    time(&mut row.subject);
    time(&mut row.reference);
    let pair = |number| {
        if number % 2 == 0 {
            let subject = time(&mut row.subject);
            (subject, time(&mut row.reference))
        } else {
            let reference = time(&mut row.reference);
            (time(&mut row.subject), reference)
        }
    };
    (0..pairs).map(pair).collect()
}

fn report(row: &Row<'_>, pairs: &[(f64, f64)]) {
    let mut subject: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
    let mut reference: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
    let mut cost: Vec<f64> = pairs.iter().map(|pair| pair.0 - pair.1).collect();
    let (low, high) = bootstrap(&cost);
    let (subject, reference) = (median(&mut subject), median(&mut reference));
    let cost = median(&mut cost);
    let verdict = row.bar.map_or(String::new(), |bar| {
        let verdict = match () {
            () if high <= bar => "within",
            () if low > bar => "OVER",
            () => "not decided:",
        };
        format!(", {verdict} {bar} ns")
    });
    println!(
        "{:<22} {subject:7.2} ns, {:<11} {reference:6.2} ns, cost {cost:6.2} ns [{low:.2}, \
         {high:.2}]{verdict}",
        row.name, row.against
    );
}

fn calls<'a>(mut call: impl FnMut(u64) -> Outcome + 'a) -> Side<'a> {
    Box::new(move |count| {
        for number in 0..count {
            black_box(call(black_box(number)));
        }
    })
}

/// Every subject does what it is measured for, and every push is counted.
fn check(log: &Log, session: &Session, key: &Key) {
    const PUSHES: u64 = 20_000;
    let before = session.stats();
    let mut kept = [0_u64; 5];
    for number in 0..PUSHES {
        if number % BATCH_KEPT == 0 {
            session.flush().expect("the writer runs");
        }
        let outcomes = [
            log.push(&Left::new(number)),
            log.push_lazy(|| Left::new(number)),
            log.push(&Half::new(number)),
            log.push(&Plain::new(number)),
            log.push(&Rate::new(number)),
        ];
        for (count, outcome) in kept.iter_mut().zip(outcomes) {
            assert!(matches!(outcome, Outcome::Kept | Outcome::SampledOut));
            *count += u64::from(outcome == Outcome::Kept);
        }
        let keyed = [
            log.push_keyed(&Keyed::new(&key.text, number), key.hash),
            log.push(&Keyed::new(&key.text, number)),
        ];
        assert_eq!(keyed, [Outcome::SampledOut; 2]);
    }
    assert!(kept[0] + kept[1] < 20, "1 in 32,768: {kept:?}");
    assert!(kept[2].abs_diff(PUSHES / 2) < 500, "1 in 2: {kept:?}");
    assert_eq!(kept[3], PUSHES, "no pressure");
    assert!(kept[4] < 20, "1 in 10,000: {kept:?}");
    let ledger = session.stats().since(&before);
    let [left, keyed, half] =
        ["bench_left", "bench_keyed", "bench_half"].map(|name| ledger.categories[name]);
    assert_eq!(left.offered(), 2 * PUSHES);
    assert_eq!(left.sampled_out(), 2 * PUSHES - kept[0] - kept[1]);
    assert_eq!(
        (keyed.offered(), keyed.sampled_out()),
        (2 * PUSHES, 2 * PUSHES)
    );
    assert_eq!(half.sampled_out(), PUSHES - kept[2]);
    for number in 0..3 {
        let limit = log.push(&Limit::new(number));
        let change = log.push(&Change::new(7));
        if number > 0 {
            assert_eq!(limit, Outcome::Dropped(DropReason::RateLimit));
            assert_eq!(change, Outcome::Dropped(DropReason::Repeat));
        }
    }
}

fn costs(pairs: usize, part: u64) {
    let (on, off) = (session("sampling", true), session("sampling-off", false));
    let (log, log_off, disabled) = (on.log(), off.log(), Log::disabled());
    let key = Key::left_out(&log);
    check(&log, &on, &key);
    let floor = Floor::default();
    let (log, off_log, key, floor) = (&log, &log_off, &key, &floor);
    let empty = || -> Side<'_> { calls(|_| Outcome::SampledOut) };
    let by_floor = || -> Side<'_> {
        calls(|_| {
            black_box(floor).leave_out();
            Outcome::SampledOut
        })
    };
    let plain = |log| -> Side<'_> { calls(move |number| push_plain(log, number)) };
    let against_empty = |name, bar, subject| Row {
        name,
        batch: BATCH_LEFT_OUT / part,
        subject,
        reference: empty(),
        against: "empty loop",
        bar,
    };
    let kept = |name, bar, subject, against, reference| Row {
        name,
        batch: BATCH_KEPT / part,
        subject,
        reference,
        against,
        bar,
    };
    let left_out = || -> Side<'_> { calls(|number| left_out_push(log, number)) };
    let timed = calls(|number| push_timed(log, number));
    let uncounted = calls(|number| push_uncounted(log, number));
    let mut rows = [
        kept("k = 0", Some(0.5), plain(log), "off", plain(off_log)),
        kept(
            "k = 0, both off",
            None,
            plain(off_log),
            "off",
            plain(off_log),
        ),
        kept(
            "k = 1",
            None,
            calls(|number| log.push(&Half::new(number))),
            "k = 0",
            plain(log),
        ),
        against_empty("left out: push", Some(1.5), left_out()),
        kept("duration", Some(3.0), timed, "uncounted", uncounted),
        against_empty(
            "left out: push_lazy",
            Some(1.5),
            calls(|number| left_out_lazy(log, number)),
        ),
        against_empty(
            "left out: push_keyed",
            Some(1.5),
            calls(|number| left_out_keyed(log, key, number)),
        ),
        against_empty(
            "left out: 64-byte key",
            Some(8.0),
            calls(|number| left_out_text(log, key, number)),
        ),
        against_empty("floor of left out", None, by_floor()),
        Row {
            against: "floor",
            reference: by_floor(),
            ..against_empty("left out: push", None, left_out())
        },
        against_empty(
            "fixed rate",
            None,
            calls(|number| log.push(&Rate::new(number))),
        ),
        against_empty(
            "rate limit",
            None,
            calls(|number| log.push(&Limit::new(number))),
        ),
        against_empty(
            "on change, a repeat",
            None,
            calls(|_| log.push(&Change::new(7))),
        ),
        against_empty(
            "disabled",
            None,
            calls(|number| push_plain(&disabled, number)),
        ),
    ];
    for row in &mut rows {
        let found = measure(row, pairs, &[&on, &off]);
        report(row, &found);
    }
    drop(rows);
    end(on);
    end(off);
}

/// Every push is in the ledger, and none was lost.
fn end(session: Session) {
    session.flush().expect("the writer runs");
    let ledger = session.stats();
    assert!(ledger.is_exact(), "{ledger:?}");
    let lost = ledger.total().dropped(DropReason::RingFull);
    assert_eq!(lost, 0, "the writer kept up");
    remove(session);
}

#[inline(always)]
fn push_plain(log: &Log, number: u64) -> Outcome {
    log.push(&Plain::new(number))
}

#[inline(always)]
fn push_timed(log: &Log, number: u64) -> Outcome {
    log.push(&Timed::new(number))
}

#[inline(always)]
fn push_uncounted(log: &Log, number: u64) -> Outcome {
    log.push(&Uncounted(Timed::new(number)))
}

#[inline(always)]
fn left_out_push(log: &Log, number: u64) -> Outcome {
    log.push(&Left::new(number))
}

#[inline(always)]
fn left_out_lazy(log: &Log, number: u64) -> Outcome {
    log.push_lazy(|| Left::new(number))
}

#[inline(always)]
fn left_out_keyed(log: &Log, key: &Key, number: u64) -> Outcome {
    log.push_keyed(&Keyed::new(&key.text, number), key.hash)
}

#[inline(always)]
fn left_out_text(log: &Log, key: &Key, number: u64) -> Outcome {
    log.push(&Keyed::new(&key.text, number))
}

const PROBES: [&str; 7] = [
    "probe_plain",
    "probe_timed",
    "probe_uncounted",
    "probe_push",
    "probe_lazy",
    "probe_keyed",
    "probe_text",
];

/// What callgrind counts: not inlined, and nothing around it.
mod probe {
    use super::{Key, Log, Outcome};

    #[inline(never)]
    pub fn probe_plain(log: &Log, number: u64) -> Outcome {
        super::push_plain(log, number)
    }

    #[inline(never)]
    pub fn probe_timed(log: &Log, number: u64) -> Outcome {
        super::push_timed(log, number)
    }

    #[inline(never)]
    pub fn probe_uncounted(log: &Log, number: u64) -> Outcome {
        super::push_uncounted(log, number)
    }

    #[inline(never)]
    pub fn probe_push(log: &Log, number: u64) -> Outcome {
        super::left_out_push(log, number)
    }

    #[inline(never)]
    pub fn probe_lazy(log: &Log, number: u64) -> Outcome {
        super::left_out_lazy(log, number)
    }

    #[inline(never)]
    pub fn probe_keyed(log: &Log, key: &Key, number: u64) -> Outcome {
        super::left_out_keyed(log, key, number)
    }

    #[inline(never)]
    pub fn probe_text(log: &Log, key: &Key, number: u64) -> Outcome {
        super::left_out_text(log, key, number)
    }
}

/// Pushes `count` records of each kind, without a clock. `BENCH_SAMPLING=off`: the plain ones in a
/// session without sampling.
fn probe(count: u64) {
    let sampling = std::env::var("BENCH_SAMPLING").is_err();
    let session = session("sampling-probe", sampling);
    let log = session.log();
    let key = Key::left_out(&log);
    for number in 0..count {
        if number % 1000 == 0 {
            session.flush().expect("the writer runs");
        }
        assert_eq!(probe::probe_plain(&log, number), Outcome::Kept);
        assert_eq!(probe::probe_timed(&log, number), Outcome::Kept);
        assert_eq!(probe::probe_uncounted(&log, number), Outcome::Kept);
        probe::probe_push(&log, number);
        probe::probe_lazy(&log, number);
        probe::probe_keyed(&log, &key, number);
        probe::probe_text(&log, &key, number);
    }
    remove(session);
}

/// Instructions of a call of the probe, as callgrind counts them: a run with more calls, less one
/// with fewer.
fn instructions(probe: &str) -> f64 {
    let counted = |calls: u64| {
        let this = std::env::current_exe().expect("this program has a path");
        let output = std::process::Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(format!("--toggle-collect=*{probe}*"))
            .arg(this)
            .env("BENCH_PUSHES", calls.to_string())
            .output()
            .expect("valgrind is installed");
        let told = String::from_utf8_lossy(&output.stderr);
        let count = told
            .lines()
            .find_map(|line| line.split_once("Collected : "));
        let (_, count) = count.expect("callgrind says what it has counted");
        count.trim().parse::<u64>().expect("a number")
    };
    // Now and then callgrind loses its place when another thread gets the processor: two spans that
    // differ are not believed.
    let spans = || {
        let counts = [1000, 2000, 3000].map(counted);
        let [first, second] = [counts[1].abs_diff(counts[0]), counts[2].abs_diff(counts[1])];
        (first.abs_diff(second) < first / 20).then_some((first + second) as f64 / 2000.0)
    };
    let found = (0..5).find_map(|_| spans());
    found.expect("one of five tries gives the same twice")
}

fn main() {
    if let Ok(count) = std::env::var("BENCH_PUSHES") {
        return probe(count.parse().expect("a number of pushes"));
    }
    if std::env::args().any(|arg| arg == "--instructions") {
        for probe in PROBES {
            println!("{probe:<16} {:7.1} instructions", instructions(probe));
        }
        return;
    }
    let smoke = std::env::args().any(|arg| arg == "--test") || cfg!(debug_assertions);
    let (pairs, part, rounds) = if smoke { (2, 10, 1) } else { (60, 1, 20) };
    costs(pairs, part);
    reaction::reactions(rounds);
}
