//! Every named point of the engine at which a process can be killed (`fail_point!` in `src`): a
//! child kills itself there, and what it leaves is recovered, converted and checked as in
//! `tests/crash.rs`. Points inside recovery, conversion and removal are followed by a second run.
//!
//! `cargo test --features failpoints --test fail_points`; `STORMLOG_ROUNDS` sets how often each
//! point is tried, each time at another pass, `STORMLOG_SEED` the first seed.

#[path = "support/crash.rs"]
mod crash;
#[path = "support/recording.rs"]
mod recording;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crash::{Ending, Page, Plan, Random, Running, SIGKILL, Told};
use stormlog::convert::parse_ledger;
use stormlog::ledger::Ledger;
use stormlog::recover::{State, recover_session, session_ids};

/// What the child does when it comes to the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// It starts a session.
    Starting,
    /// It records short records into small rings.
    Recording,
    /// It records long records, and rolls segments.
    Rolling,
    /// Its threads end, and others take their rings.
    Ending,
    /// It has more threads than rings.
    Crowded,
    /// Sampling, and the disk bound.
    Storm,
    /// It closes the session, which is converted and removed.
    Closing,
    /// It appends lines while it records.
    Live,
    /// It recovers a session.
    Recovering,
    /// It converts a session that was recovered.
    Converting,
}

use When::{
    Closing, Converting, Crowded, Ending as EndingThreads, Live, Recording, Recovering, Rolling,
    Starting, Storm,
};

/// Name, when, and how many passes every run of that kind has at least.
const POINTS: &[(&str, When, u64)] = &[
    ("start.locked", Starting, 1),
    ("start.rings", Starting, 1),
    ("start.segment", Starting, 1),
    ("registry.filled", Starting, 6),
    ("registry.stored", Starting, 6),
    ("push.quick_offered", Recording, 500),
    ("push.quick_counted", Recording, 500),
    ("push.offered", Recording, 50),
    ("push.encoded", Recording, 500),
    ("push.committed", Recording, 500),
    ("ring.padded", Recording, 20),
    ("aggregate.page", Recording, 4),
    ("overflow.entered", Recording, 20),
    ("overflow.dropped", Recording, 20),
    ("spill.taken", Recording, 20),
    ("spill.encoded", Recording, 20),
    ("spill.numbered", Recording, 20),
    ("spill.stored", Recording, 20),
    ("spill.committed", Recording, 20),
    ("spill.emptied", Recording, 10),
    ("drain.collected", Recording, 100),
    ("drain.written", Recording, 50),
    ("drain.freed", Recording, 50),
    ("drain.spilled", Recording, 5),
    ("drain.spill_freed", Recording, 5),
    ("block.payload", Recording, 50),
    ("block.header", Recording, 50),
    ("block.hint", Recording, 50),
    ("block.written", Recording, 50),
    ("block.published", Recording, 20),
    ("ledger.published", Recording, 1),
    ("reserve.created", Recording, 1),
    ("large.taken", Rolling, 10),
    ("large.filled", Rolling, 10),
    ("large.committed", Rolling, 10),
    ("drain.large", Rolling, 10),
    ("prepare.created", Rolling, 3),
    ("prepare.mapped", Rolling, 3),
    ("prepare.present", Rolling, 3),
    ("prepare.header", Rolling, 3),
    ("prepare.ready", Rolling, 3),
    ("seal.written", Rolling, 2),
    ("seal.before_cut", Rolling, 2),
    ("roll.sealed", Rolling, 2),
    ("roll.opened", Rolling, 3),
    ("roll.used", Rolling, 3),
    ("roll.registry", Rolling, 4),
    ("ring.numbered", EndingThreads, 10),
    ("ring.taken", EndingThreads, 10),
    ("ring.given_up", EndingThreads, 10),
    ("ring.recycled", EndingThreads, 5),
    ("noring.offered", Crowded, 20),
    ("noring.dropped", Crowded, 10),
    // When the disk is full, what is pushed and what is left are records that must be kept: there
    // may be one pass.
    ("sample.offered", Storm, 1),
    ("sample.quick_offered", Storm, 1),
    ("drain.shed", Storm, 1),
    ("reserve.headed", Storm, 1),
    ("reserve.renamed", Storm, 1),
    ("close.begun", Closing, 1),
    ("close.quiet", Closing, 1),
    ("close.drained", Closing, 1),
    ("close.durations", Closing, 1),
    ("close.ended", Closing, 1),
    ("close.alone", Closing, 1),
    ("close.sealed", Closing, 1),
    ("close.published", Closing, 1),
    ("remove.renamed", Closing, 1),
    ("remove.file", Closing, 2),
    ("remove.lock", Closing, 1),
    ("live.created", Live, 2),
    ("live.written", Live, 10),
    ("convert.created", Converting, 3),
    ("convert.written", Converting, 3),
    ("convert.synced", Converting, 1),
    ("convert.named", Converting, 3),
    ("convert.complete", Converting, 1),
    ("recover.created", Recovering, 1),
    ("recover.block", Recovering, 4),
    ("recover.written", Recovering, 1),
    ("recover.synced", Recovering, 1),
    ("recover.hint", Recovering, 1),
    ("recover.sealed", Recovering, 1),
    ("recover.tail_cut", Recovering, 1),
    ("recover.unused_removed", Recovering, 1),
    ("recover.renamed", Recovering, 1),
    ("recover.named", Recovering, 1),
    ("recover.published", Recovering, 1),
    ("recover.removed", Recovering, 1),
    ("recover.shm_removed", Recovering, 1),
];

/// Records that are kept before a child is killed from outside: some of each kind.
const LEAST: u64 = 200;

/// The child process.
#[test]
fn child() {
    crash::child();
}

/// Names of the points below a directory.
fn names_in(dir: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names_in(&path, names);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let found = text.split("fail_point!(\"").skip(1);
        names.extend(found.map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
}

#[test]
fn every_point_of_the_sources_is_tried() {
    let mut names = Vec::new();
    names_in(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut names,
    );
    let unique: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(unique.len(), names.len(), "two points have one name");
    let tried: BTreeSet<&str> = POINTS.iter().map(|point| point.0).collect();
    assert_eq!(tried.len(), POINTS.len(), "a point is listed twice");
    assert_eq!(unique, tried);
    assert!(tried.len() >= 25);
}

fn plan_of(when: When, seed: u64) -> Plan {
    let plan = Plan {
        seed,
        threads: 4,
        tiny: false,
        long: false,
        rests: false,
        storm: false,
        shm: false,
        short_lived: false,
        // Files that are there are replaced.
        live: matches!(when, Live | Converting),
        ending: Ending::Killed,
        delay: Duration::from_micros(Random(seed).below(30_000)),
    };
    match when {
        Starting | Recording | Live => Plan { tiny: true, ..plan },
        Rolling | Converting => Plan { long: true, ..plan },
        // Between two segments there would be none to seal.
        Recovering => Plan {
            rests: true,
            ..plan
        },
        EndingThreads => Plan {
            short_lived: true,
            ..plan
        },
        Crowded => Plan {
            tiny: true,
            threads: 16,
            ..plan
        },
        Storm => Plan {
            storm: true,
            long: true,
            ..plan
        },
        Closing => Plan {
            ending: Ending::Closes(500),
            ..plan
        },
    }
}

/// Waits until a child has killed itself at the point.
fn dies(mut child: Running, dir: &Path, what: &str) {
    let status = child.end();
    let said = std::fs::read_to_string(dir.join("stderr")).unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{what}: {status}: {said}");
}

/// Recovers and converts what a process left that was killed while it recorded, and checks it.
fn check_rest(plan: Plan, dir: &Path, page: &Page, what: &str) {
    let ids = session_ids(dir).unwrap();
    let Some(id) = ids.first() else {
        return check_removed(plan, dir, page, what);
    };
    let looked = recover_session(
        dir,
        id,
        stormlog::recover::RecoverOptions {
            dry_run: true,
            ..Default::default()
        },
    );
    let looked = looked.unwrap();
    let report = crash::recover(dir, id);
    assert_eq!(looked.state, report.state, "{what}");
    assert_eq!(looked.ledger, report.ledger, "{what}");
    assert_eq!(report.faults, Vec::<String>::new(), "{what}");
    if report.state == State::Empty {
        let returned = page.all(plan, Told::Begun);
        assert_eq!(returned, 0, "{what}: there were pushes");
        return;
    }
    let ledger = crash::convert(dir, id);
    if report.state == State::Recovered {
        assert_eq!(ledger, report.ledger, "{what}");
    }
    crash::check_all(plan, dir, id, page, &ledger);
    if report.state == State::Recovered {
        let closing = matches!(plan.ending, Ending::Closes(_));
        let reason = if closing {
            "process_died_closing"
        } else {
            "process_died"
        };
        let lines = std::fs::read_to_string(dir.join(format!("{id}_session.jsonl"))).unwrap();
        let end: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(end["reason"], reason, "{what}");
    }
}

/// The process was killed while it removed a session whose lines are complete.
fn check_removed(plan: Plan, dir: &Path, page: &Page, what: &str) {
    let files = std::fs::read_dir(dir).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let session = names.filter_map(|name| Some(name.strip_suffix("_session.jsonl")?.to_owned()));
    let ids: Vec<String> = session.collect();
    let [id] = ids.as_slice() else {
        panic!("{what}: {ids:?}");
    };
    let found = crash::check_lines(plan, dir, id, page);
    let lines = std::fs::read_to_string(dir.join(format!("{id}_session.jsonl"))).unwrap();
    let ledger = lines.lines().rev().find_map(ledger_of).unwrap();
    crash::check_ledger(plan, &ledger, page, found);
    crash::check_durations(plan, dir, id, page);
    // The next session takes the rest away.
    let next = recording::builder().dir(dir).start().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    let sessions = dir.join(".stormlog");
    let rest = || {
        let mut names = std::fs::read_dir(&sessions).unwrap();
        names.any(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains(".removed")
        })
    };
    while rest() {
        assert!(Instant::now() < limit, "{what}: it is not removed");
        std::thread::sleep(Duration::from_millis(2));
    }
    next.close().unwrap();
}

fn ledger_of(line: &str) -> Option<Ledger> {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let ledger = line.get("ledger").filter(|ledger| !ledger.is_null())?;
    parse_ledger(ledger)
}

fn round(name: &str, when: When, passes: u64, seed: u64) {
    // The plan takes the sink from the seed.
    let seed = match name {
        "block.payload" | "block.header" | "block.hint" => seed * 2,
        "block.written" | "block.published" => seed * 2 + 1,
        _ => seed,
    };
    let pass = 1 + Random(seed ^ passes).below(passes);
    let point = format!("{name}:{pass}");
    let unused = name == "recover.unused_removed";
    let shm = name == "recover.shm_removed";
    if shm && !crash::has_shm() {
        println!("{name}: left out: there is no /dev/shm");
        return;
    }
    let plan = Plan {
        shm,
        ..plan_of(if unused { Rolling } else { when }, seed)
    };
    let what = format!("{point}, seed {seed}");
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    match when {
        Recovering => {
            let page = if unused {
                unused_segment(plan, dir)
            } else {
                crash::crash(plan, dir, LEAST)
            };
            let id = crash::only_session(dir);
            let role = format!("recover {id}");
            dies(Running::start(dir, &role, Some(&point)), dir, &what);
            let report = crash::recover(dir, &id);
            assert_eq!(report.faults, Vec::<String>::new(), "{what}");
            let ledger = crash::convert(dir, &id);
            crash::check_all(plan, dir, &id, &page, &ledger);
        }
        Converting => {
            let page = crash::crash(plan, dir, LEAST);
            let id = crash::only_session(dir);
            crash::recover(dir, &id);
            let role = format!("convert {id}");
            dies(Running::start(dir, &role, Some(&point)), dir, &what);
            let ledger = crash::convert(dir, &id);
            crash::check_all(plan, dir, &id, &page, &ledger);
        }
        _ => {
            let (child, page) = crash::start(plan, dir, Some(&point));
            dies(child, dir, &what);
            assert!(!page.is_closed(), "{what}");
            check_rest(plan, dir, &page, &what);
        }
    }
}

/// Two segments that were prepared and never used: the writer died before its first block in one
/// of them, and the helper had made the next one ready.
fn unused_segment(plan: Plan, dir: &Path) -> Page {
    let (child, page) = crash::start(plan, dir, Some("roll.used:2"));
    dies(child, dir, "roll.used:2");
    let session = dir.join(".stormlog").join(crash::only_session(dir));
    std::fs::copy(session.join("000002.seg"), session.join("000003.seg")).unwrap();
    page
}

#[test]
fn killed_at_any_point_nothing_is_lost() {
    let rounds = crash::number_of("STORMLOG_ROUNDS", 1);
    let first = crash::number_of("STORMLOG_SEED", 0);
    let begin = Instant::now();
    let mut failed = Vec::new();
    for seed in first..first + rounds {
        for (name, when, passes) in POINTS {
            // All of them are tried.
            let tried = std::panic::catch_unwind(|| round(name, *when, *passes, seed));
            if tried.is_err() {
                failed.push(format!("{name}, seed {seed}"));
            }
        }
    }
    println!(
        "{} points, {rounds} times each from seed {first}: {} s",
        POINTS.len(),
        begin.elapsed().as_secs()
    );
    assert!(failed.is_empty(), "{failed:#?}");
}
