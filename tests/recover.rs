//! Recovery at its edges: who may be touched, several at once, interrupted, rings in memory, files
//! that say anything.
#![cfg(feature = "cli")]

#[path = "support/recording.rs"]
mod recording;
#[path = "support/tool.rs"]
mod tool;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::ledger::DropReason;
use stormlog::record::{DurationMs, LARGE_RECORD_BYTES, LongText, Symbol};
use stormlog::recover::{RecoverOptions, State, recover_session, session_ids};
use stormlog::segment::files::SessionFiles;
use stormlog::segment::header::is_session_id;
use stormlog::segment::layout::{BLOCK_DATA, BLOCK_LARGE};
use stormlog::{Outcome, RingStorage, Session};
use tool::{json, run};

stormlog::record! {
    struct Counted in "requests" keep Sampled {
        n: u32,
    }
}

stormlog::record! {
    struct Kept in "errors" keep Always {
        n: u32,
    }
}

stormlog::record! {
    struct Long in "texts" keep Always {
        text: LongText,
    }
}

stormlog::record! {
    struct Timed in "performance" keep Always {
        operation: Symbol,
        duration_ms: DurationMs<2>,
    }
}

const CHILD: &str = "STORMLOG_RECOVER_CHILD";

/// So many records: only those that fill the ring and the spill.
const SPILLED: u32 = 1_000_000;

/// So many records: two that do not fit into a ring.
const LARGE: u32 = 1_000_001;

/// Bytes of the text of each of them.
const LONG: usize = 100_000;

/// So many records: three that tell durations.
const TIMED: u32 = 1_000_002;

/// More threads than the rings of the smallest ring storage.
const CROWD: u32 = 14;
/// So many records: two before a flush and two after it, in each thread of a crowd.
const CROWDED: u32 = 4 * CROWD;

fn crowd(session: &Session) {
    let steps = Arc::new(Barrier::new(CROWD as usize + 1));
    for thread in 0..CROWD {
        let (log, steps) = (session.log(), Arc::clone(&steps));
        std::thread::spawn(move || {
            for n in 0..4 {
                if n == 2 {
                    steps.wait();
                    steps.wait();
                }
                assert_eq!(log.push(&Kept { n: 4 * thread + n }), Outcome::Kept);
            }
            steps.wait();
            // Keeps its ring, if it has one.
            loop {
                std::thread::park();
            }
        });
    }
    steps.wait();
    session.flush().unwrap();
    session.pause_writer();
    steps.wait();
    steps.wait();
}

/// The process of `Recording`: its second half of the records stays in the ring.
#[test]
fn child() {
    let Ok(what) = std::env::var(CHILD) else {
        return;
    };
    let (rings, records) = what.split_once(' ').unwrap();
    let records: u32 = records.parse().unwrap();
    let rings = match rings {
        "anonymous" => RingStorage::Anonymous,
        _ => RingStorage::SessionDir,
    };
    let builder = recording::builder().dir(".").ring_storage(rings);
    // A short file: it is copied often.
    let total = if records == CROWDED {
        64 << 10
    } else {
        1 << 20
    };
    let builder = builder.ring_total_bytes(total).large_total_bytes(2 << 20);
    let session = builder.sampling(false).start().unwrap();
    let log = session.log();
    if records == SPILLED {
        // More than the ring holds; all of it is in segments in the end.
        session.pause_writer();
        let kept = |n: &u32| log.push(&Kept { n: *n }) == Outcome::Kept;
        assert!((0..SPILLED).take_while(kept).count() > 8);
        session.resume_writer();
        session.flush().unwrap();
    }
    let counted = match records {
        SPILLED | CROWDED | LARGE | TIMED => 0,
        records => records,
    };
    if records == LARGE {
        session.pause_writer();
        for letter in ["a", "b"] {
            let text = letter.repeat(LONG);
            assert_eq!(log.push(&Long { text: &text }), Outcome::Kept);
        }
    }
    if records == CROWDED {
        crowd(&session);
    }
    if records == TIMED {
        let operation = stormlog::symbol!("recover_timed");
        for duration_ms in [5, 7, 3].map(Duration::from_millis) {
            log.push(&Timed {
                operation,
                duration_ms,
            });
        }
    }
    for n in 0..counted {
        if n == records / 2 {
            session.flush().unwrap();
            session.pause_writer();
        }
        assert_eq!(log.push(&Counted { n }), Outcome::Kept);
    }
    let ready = std::env::current_dir().unwrap().join("ready");
    std::fs::write(ready, session.id()).unwrap();
    loop {
        std::thread::park();
    }
}

/// A process that has recorded `records` records and waits.
struct Recording {
    child: Child,
    id: String,
}

impl Recording {
    fn start(dir: &Path, rings: &str, records: u32) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{rings} {records}"))
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut recording = Self {
            child,
            id: String::new(),
        };
        let end = Instant::now() + Duration::from_secs(60);
        while !is_session_id(&recording.id) {
            assert!(Instant::now() < end, "the child did not start");
            std::thread::sleep(Duration::from_millis(2));
            recording.id = std::fs::read_to_string(dir.join("ready")).unwrap_or_default();
        }
        std::fs::remove_file(dir.join("ready")).unwrap();
        recording
    }

    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.id.clone()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn session_dir(dir: &Path, id: &str) -> PathBuf {
    dir.join(".stormlog").join(id)
}

/// Names and contents of a session directory.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn request_lines(dir: &Path, id: &str) -> usize {
    let path = dir.join(format!("{id}_requests.jsonl"));
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn a_live_session_is_not_touched_and_a_dead_one_is_completed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let recording = Recording::start(dir, "session_dir", 3);
    let output = run(dir, &["recover", ".", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["state"], "live");

    let id = recording.kill();
    let before = contents(&session_dir(dir, &id));
    let output = run(dir, &["convert", "."]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("stormlog recover"), "{said}");
    let output = run(dir, &["recover", ".", "--dry-run", "--json"]);
    let looked = json(&output);
    assert_eq!(
        (&looked["state"], &looked["dry_run"]),
        (&"recovered".into(), &true.into())
    );
    assert!(
        before == contents(&session_dir(dir, &id)),
        "a look changes nothing"
    );

    let output = run(dir, &["recover", ".", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(report["ledger"], looked["ledger"]);
    assert_eq!(report["ledger"]["requests"]["written"], 3);
    assert_eq!(report["from_rings"], 2);
    assert_eq!(request_lines(dir, &id), 3);
    let session = std::fs::read_to_string(dir.join(format!("{id}_session.jsonl"))).unwrap();
    let end: Json = serde_json::from_str(session.lines().last().unwrap()).unwrap();
    assert_eq!(end["event"], "session_end");
    assert_eq!(end["recovered"], true);
    assert_eq!(end["reason"], "process_died");
    assert!(!session_dir(dir, &id).join("rings").exists());
    assert_eq!(run(dir, &["verify", "."]).status.code(), Some(0));

    let after = contents(&session_dir(dir, &id));
    let again = json(&run(dir, &["recover", ".", "--json"]));
    assert_eq!(again["state"], "complete");
    assert!(after == contents(&session_dir(dir, &id)));
    let missing = run(dir, &["recover", ".", "--session", "20000101_000000"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn rings_in_memory_are_said_to_be_lost() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "anonymous", 2).kill();
    let output = run(dir, &["recover", ".", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(
        (&report["state"], &report["rings"]),
        (&"recovered".into(), &false.into())
    );
    let faults = report["faults"].to_string();
    assert!(
        faults.contains("were in the memory of its process"),
        "{faults}"
    );
    assert_eq!(request_lines(dir, &id), 1, "half of them were in the ring");
    assert_eq!(run(dir, &["verify", "."]).status.code(), Some(0));
}

#[test]
fn eight_at_once_recover_a_session_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 5).kill();
    let states: Vec<State> = std::thread::scope(|scope| {
        let recover = || {
            recover_session(dir, &id, RecoverOptions::default())
                .unwrap()
                .state
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(recover)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let count = |state| states.iter().filter(|found| **found == state).count();
    assert_eq!(
        (count(State::Recovered), count(State::Complete)),
        (1, 7),
        "{states:?}"
    );
    assert_eq!(run(dir, &["convert", "."]).status.code(), Some(0));
    assert_eq!(request_lines(dir, &id), 5);
}

#[test]
fn the_next_session_salvages_the_rings_of_a_dead_one() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 3).kill();
    let live = Recording::start(dir, "session_dir", 0);
    let session = recording::builder().dir(dir).start().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while session_dir(dir, &id).join("rings").exists() {
        assert!(Instant::now() < end, "it was not recovered");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(session.close().unwrap().faults, Vec::<String>::new());
    assert!(
        session_dir(dir, &live.id).join("rings").exists(),
        "it is alive"
    );
    let done = recover_session(dir, &id, RecoverOptions::default()).unwrap();
    assert_eq!(done.state, State::Complete);
    assert!(
        !dir.join(format!("{id}_requests.jsonl")).exists(),
        "lines come later"
    );
    assert_eq!(
        run(dir, &["convert", &format!(".stormlog/{id}")])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(request_lines(dir, &id), 3);
}

fn copy_dir(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(to).unwrap();
    for (name, bytes) in contents(from) {
        std::fs::write(to.join(name), bytes).unwrap();
    }
}

/// What a recovery leaves when it is killed: after each of its steps, and in the middle of them.
#[test]
fn an_interrupted_recovery_is_done_again() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 5).kill();
    let dead = contents(&session_dir(dir, &id));
    let expected = recover_session(dir, &id, RecoverOptions::default()).unwrap();
    assert_eq!(expected.faults, Vec::<String>::new());
    let done = contents(&session_dir(dir, &id));
    let find = |name: &str| done.iter().find(|file| file.0 == name).unwrap().1.clone();
    let (sealed, new) = (find("000001.seg"), find("000002.seg"));
    let tail = dead.iter().find(|file| file.0 == "000001.seg").unwrap();
    let end = sealed.len();
    let torn = |seal: usize| {
        let mut torn = tail.1.clone();
        torn[end - seal..end - seal / 2].copy_from_slice(&sealed[end - seal..end - seal / 2]);
        torn
    };
    let cases = [
        vec![("recover.tmp", new[..new.len() / 2].to_vec())],
        vec![("recover.tmp", new.clone()), ("000001.seg", torn(104))],
        vec![("recover.tmp", new.clone()), ("000001.seg", torn(40))],
        vec![("recover.tmp", new.clone()), ("000001.seg", sealed.clone())],
    ];
    for case in cases {
        let temp = tempfile::tempdir().unwrap();
        let into = session_dir(temp.path(), &id);
        copy_dir(&session_dir(dir, &id), &into);
        for (name, _) in contents(&into) {
            std::fs::remove_file(into.join(name)).unwrap();
        }
        let files = dead
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.clone()));
        for (name, bytes) in files.chain(case) {
            std::fs::write(into.join(name), bytes).unwrap();
        }
        let again = recover_session(temp.path(), &id, RecoverOptions::default()).unwrap();
        assert_eq!(
            (&again.ledger, &again.faults),
            (&expected.ledger, &expected.faults)
        );
        assert!(contents(&into) == done, "the same files");
    }
}

/// Killed between the block and what frees the ring or the slot: both have the record.
#[test]
fn what_is_in_a_block_already_is_not_taken_again() {
    for records in [6, SPILLED] {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let id = Recording::start(dir, "session_dir", records).kill();
        let path = session_dir(dir, &id).join("rings");
        let mut rings = std::fs::read(&path).unwrap();
        let first = long(&rings, 304) as usize;
        let [capacity, written] = [8, 64].map(|at| long(&rings, first + at));
        assert_eq!(rings[first..first + 4], *b"SRNG");
        rings[first + 128..first + 136].fill(0);
        assert!(written <= capacity, "the ring has turned");
        let spill = long(&rings, 320) as usize;
        let mut slots = 0;
        for slot in (spill..spill + long(&rings, 328) as usize).step_by(512) {
            if rings[slot + 28] > 0 {
                slots += 1;
                let commit = long(&rings, slot + 8) + 1;
                rings[slot..slot + 8].copy_from_slice(&commit.to_le_bytes());
            }
        }
        assert_eq!(slots > 0, records == SPILLED);
        std::fs::write(&path, rings).unwrap();
        let report = recover_session(dir, &id, RecoverOptions::default()).unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        let left = if records == SPILLED { 0 } else { 3 };
        assert_eq!((report.from_rings, report.from_spill), (left, 0));
        assert_eq!(run(dir, &["convert", "."]).status.code(), Some(0));
    }
}

/// Slots of a length that this version does not know: what is in them was not read, so the file
/// stays, also when somebody looks again. It was removed then.
#[test]
fn rings_that_could_not_be_read_in_full_stay() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 4).kill();
    let path = session_dir(dir, &id).join("rings");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[336..344].copy_from_slice(&1024_u64.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    for state in [State::Recovered, State::Complete] {
        let report = recover_session(dir, &id, RecoverOptions::default()).unwrap();
        assert_eq!(report.state, state);
        let said = report.faults.iter().any(|fault| fault.contains("slots"));
        assert_eq!(said, state == State::Recovered, "{:?}", report.faults);
        assert!(path.exists());
    }
}

/// The same with a record in a ring that cannot be one.
#[test]
fn rings_with_damaged_records_stay() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 6).kill();
    let path = session_dir(dir, &id).join("rings");
    let mut rings = std::fs::read(&path).unwrap();
    let first = long(&rings, 304) as usize;
    assert_eq!(rings[first..first + 4], *b"SRNG");
    // The first record that the writer had not taken: another schema, which nobody has.
    let record = first + 2304 + long(&rings, first + 128) as usize;
    rings[record + 2..record + 4].fill(0xee);
    std::fs::write(&path, rings).unwrap();
    for state in [State::Recovered, State::Complete, State::Complete] {
        let report = recover_session(dir, &id, RecoverOptions::default()).unwrap();
        assert_eq!(report.state, state);
        let said = report.faults.iter().any(|fault| fault.contains("61166"));
        assert_eq!(said, state == State::Recovered, "{:?}", report.faults);
        assert!(path.exists());
    }
}

/// Positions of a ring that no process can have left: nothing is taken from it, that is said, and
/// it stays.
#[test]
fn rings_with_impossible_positions_are_left_out() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 6).kill();
    let dead = std::fs::read(session_dir(dir, &id).join("rings")).unwrap();
    let first = long(&dead, 304) as usize;
    let [capacity, ids, end, start] = [8, 16, 64, 128].map(|at| long(&dead, first + at));
    let cases = [
        (128, end + 4),
        (128, start + 2),
        (64, start + capacity + 4),
        (16, ids >> 32 << 32),
        (16, ids | u64::from(u32::MAX)),
    ];
    for (offset, value) in cases {
        let temp = tempfile::tempdir().unwrap();
        let into = session_dir(temp.path(), &id);
        copy_dir(&session_dir(dir, &id), &into);
        let mut rings = dead.clone();
        rings[first + offset..][..8].copy_from_slice(&value.to_le_bytes());
        std::fs::write(into.join("rings"), rings).unwrap();
        let report = recover_session(temp.path(), &id, RecoverOptions::default()).unwrap();
        let said = |fault: &String| fault.contains("cannot be right: left out");
        assert!(report.faults.iter().any(said), "{offset}: {report:?}");
        assert_eq!((report.state, report.from_rings), (State::Recovered, 0));
        let requests = report.ledger.categories["requests"];
        assert_eq!((requests.offered(), requests.written()), (6, 3));
        assert_eq!(requests.dropped(DropReason::Damaged), 3);
        assert!(into.join("rings").exists());
    }
}

#[test]
fn rings_that_cannot_be_used_are_said_to_be() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 2).kill();
    let path = session_dir(dir, &id).join("rings");
    let mut rings = std::fs::read(&path).unwrap();
    rings[..256].fill(0);
    std::fs::write(&path, rings).unwrap();
    let report = recover_session(dir, &id, RecoverOptions::default()).unwrap();
    let why = report.faults.last().unwrap();
    assert!(why.starts_with("its rings cannot be used: "), "{why}");
}

/// The process would have told them when it closed the session.
#[test]
fn durations_of_a_killed_process_are_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", TIMED).kill();
    let report = recover_session(dir, &id, RecoverOptions::default()).unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!(run(dir, &["convert", "."]).status.code(), Some(0));
    let text = std::fs::read_to_string(dir.join(format!("{id}_session.jsonl"))).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let is_told = |line: &Json| line["event"] == "durations";
    let told: Vec<Json> = lines.filter(is_told).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let fields = ["record", "operation", "count", "sum_ms", "max_ms"];
    let fields = fields.map(|name| told[0][name].to_string());
    let expected = ["\"Timed\"", "\"recover_timed\"", "3", "15.0", "7.0"];
    assert_eq!(fields, expected);
}

/// Records of threads without a ring, some in a segment and some in the spill only.
#[test]
fn records_of_threads_without_a_ring_are_there_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", CROWDED).kill();
    let report = recover_session(dir, &id, RecoverOptions::default()).unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    let left = (report.from_rings, report.from_spill);
    assert_eq!(left.0 + left.1, u64::from(2 * CROWD), "{left:?}");
    assert!(left.1 >= u64::from(2 * (CROWD - 10)), "{left:?}");
    assert!(report.ledger.is_exact());
    // The position of a block is the number of their records before it.
    let (mut before, mut in_segments) = (0, 0);
    for segment in &SessionFiles::find(&session_dir(dir, &id)).unwrap()[0].segments {
        in_segments = before;
        let mut reader = segment.reader().unwrap();
        while let Some(block) = reader.next_block().unwrap() {
            if block.header.kind == BLOCK_DATA && block.header.ring == u32::MAX {
                assert_eq!(block.header.first_pos, before);
                before += u64::from(block.header.records);
            }
        }
    }
    assert!(0 < in_segments && in_segments < before);
    assert_eq!(
        report.ledger.categories["errors"].written(),
        u64::from(CROWDED)
    );
    assert_eq!(run(dir, &["convert", "."]).status.code(), Some(0));
    let text = std::fs::read_to_string(dir.join(format!("{id}_errors.jsonl"))).unwrap();
    let number = |line| serde_json::from_str::<Json>(line).unwrap()["n"].as_u64();
    let mut found: Vec<_> = text.lines().map(number).collect();
    found.sort_unstable();
    assert_eq!(found, (0..u64::from(CROWDED)).map(Some).collect::<Vec<_>>());
}

/// A record that is larger than a ring takes: its block is as its writer would have written it.
#[test]
fn blocks_of_large_records_tell_their_times() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", LARGE).kill();
    let report = recover_session(dir, &id, RecoverOptions::default()).unwrap();
    assert_eq!((report.from_rings, report.faults), (2, Vec::new()));
    let files = SessionFiles::find(&session_dir(dir, &id)).unwrap();
    let (mut large, mut data) = (Vec::new(), Vec::new());
    for segment in &files[0].segments {
        let mut reader = segment.reader().unwrap();
        while let Some(block) = reader.next_block().unwrap() {
            let ticks = (block.header.min_ticks, block.header.max_ticks);
            if block.header.kind == BLOCK_LARGE {
                large.push(ticks);
            } else if block.header.kind == BLOCK_DATA && block.payload.len() == LARGE_RECORD_BYTES {
                data.push(ticks);
            }
        }
    }
    // The reference follows its body in a block of its own.
    assert_eq!(large.len(), 2);
    assert!(large.iter().all(|(first, last)| first == last), "{large:?}");
    assert!(
        large.iter().all(|ticks| data.contains(ticks)),
        "{large:?} {data:?}"
    );
    assert_eq!(run(dir, &["convert", "."]).status.code(), Some(0));
    let text = std::fs::read_to_string(dir.join(format!("{id}_texts.jsonl"))).unwrap();
    let said = |line| serde_json::from_str::<Json>(line).unwrap()["text"].clone();
    let expected = ["a", "b"].map(|letter| Json::from(letter.repeat(LONG)));
    assert_eq!(text.lines().map(said).collect::<Vec<_>>(), expected);
}

/// Any bytes in the ring storage: an error, or a session that can be converted and has at least
/// what its segments had.
#[test]
fn a_hostile_ring_storage_costs_only_itself() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let id = Recording::start(dir, "session_dir", 4).kill();
    let dead = contents(&session_dir(dir, &id));
    let rings = &dead.iter().find(|file| file.0 == "rings").unwrap().1;
    // Where anything stands, most of the file being zero.
    let used: Vec<usize> = (0..rings.len())
        .step_by(8)
        .filter(|at| rings[*at..][..8] != [0; 8])
        .collect();
    let interesting = prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(1), Just(0x80)];
    let change = (any::<prop::sample::Index>(), 0..16_usize, interesting);
    let changes = prop::collection::vec(change, 1..6);
    let cut = prop::option::weighted(0.1, any::<prop::sample::Index>());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let hostile = |(changes, cut): (
        Vec<(prop::sample::Index, usize, u8)>,
        Option<prop::sample::Index>,
    )| {
        let mut bytes = rings.clone();
        for (place, beside, value) in changes {
            let at = used[place.index(used.len())] + beside;
            bytes[at] = value;
        }
        // The header says whose rings they are: without it nothing is read.
        let header = &mut bytes[..256];
        header[20..24].fill(0);
        let crc = crc32c::crc32c(header);
        header[20..24].copy_from_slice(&crc.to_le_bytes());
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let temp = tempfile::tempdir().unwrap();
        let into = session_dir(temp.path(), &id);
        copy_dir(&session_dir(dir, &id), &into);
        std::fs::write(into.join("rings"), bytes).unwrap();
        let report = recover_session(temp.path(), &id, RecoverOptions::default()).unwrap();
        assert_eq!(report.state, State::Recovered);
        assert!(report.ledger.is_exact(), "{:?}", report.ledger);
        let files = SessionFiles::find(&into).unwrap();
        let report = convert_session(&files[0], temp.path(), ConvertOptions::default()).unwrap();
        assert!(report.sealed);
        let mut text = String::new();
        let path = temp.path().join(format!("{id}_requests.jsonl"));
        std::fs::File::open(path)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        // What was in segments; flips in the bytes of a ring cannot be told from records.
        for number in 0..2 {
            let field = format!("\"n\":{number}}}");
            assert!(text.lines().any(|line| line.ends_with(&field)), "{text}");
        }
        assert!(text.lines().count() <= 4, "{text}");
        Ok(())
    };
    runner.run(&(changes, cut), hostile).unwrap();
    assert_eq!(session_ids(dir).unwrap(), [id]);
}
