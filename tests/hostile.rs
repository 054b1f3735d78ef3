//! What must not happen when processes fork, callers break their promises, or the disk is gone.

#[path = "support/acting.rs"]
mod acting;
#[path = "support/recording.rs"]
mod recording;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use acting::Acting;
use stormlog::ledger::DropReason;
use stormlog::record::{Category, Extra, KeepClass, Record, SchemaDef, Sink, Symbol};
use stormlog::{Error, Log, Outcome, RingStorage};

stormlog::record! {
    struct Counted in "performance" keep Sampled { number: u32 }
}

/// Runs `child` in a forked process, which then ends with the code that it returns: through
/// `exit`, with thread-local destructors, when `tidy`. Returns that code.
fn in_child(tidy: bool, child: impl FnOnce() -> i32) -> i32 {
    #[expect(unsafe_code, reason = "the standard library cannot fork")]
    // SAFETY: the child uses what a forked child may use here (its own thread, memory, pushes
    // that are refused) and ends in this function.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
        let end = if tidy { libc::exit } else { libc::_exit };
        #[expect(
            unsafe_code,
            reason = "ends the child without running the parent's code"
        )]
        // SAFETY: ends the process.
        unsafe {
            end(code)
        }
    }
    let mut status = 0;
    #[expect(
        unsafe_code,
        reason = "the standard library waits only for what it has started"
    )]
    // SAFETY: waits for our own child; `status` is ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    libc::WEXITSTATUS(status)
}

fn push(log: &Log, number: u32) -> Outcome {
    log.push(&Counted { number })
}

#[test]
fn a_forked_child_cannot_write_into_its_parents_session() {
    for storage in [RingStorage::Anonymous, RingStorage::SessionDir] {
        let temp = tempfile::tempdir().unwrap();
        let session = recording::builder()
            .dir(temp.path())
            .ring_storage(storage)
            .start()
            .unwrap();
        let log = session.log();
        assert_eq!(push(&log, 0), Outcome::Kept);
        let code = in_child(false, || {
            let mut code = i32::from(push(&log, 1) != Outcome::Disabled);
            session.set_on(true);
            session.set_category_on(Category::named("performance").unwrap(), true);
            code |= i32::from(push(&log, 2) != Outcome::Disabled) << 1;
            code |= i32::from(log.is_on(Category::named("performance").unwrap())) << 2;
            code |= i32::from(!matches!(session.flush(), Err(Error::Forked))) << 3;
            code
        });
        assert_eq!(code, 0);
        assert_eq!(push(&log, 3), Outcome::Kept);
        let report = session.close().unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        assert_eq!(report.ledger.categories["performance"].written(), 2);
    }
}

/// A child that ended in order once gave its parent's ring away, which the next thread of the
/// parent then shared with its owner.
#[test]
fn a_forked_child_that_exits_leaves_the_rings_alone() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder()
        .dir(temp.path())
        .ring_storage(RingStorage::SessionDir);
    let session = builder.start().unwrap();
    let log = session.log();
    assert_eq!(push(&log, 0), Outcome::Kept);
    assert_eq!(in_child(true, || 7), 7);
    session.flush().unwrap();
    std::thread::scope(|scope| {
        let log = session.log();
        let other = scope.spawn(move || (0..1000).all(|n| push(&log, n) == Outcome::Kept));
        assert!((0..1000).all(|number| push(&session.log(), number) == Outcome::Kept));
        assert!(other.join().unwrap());
    });
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!(report.ledger.categories["performance"].written(), 2001);
}

#[test]
fn a_forked_child_may_drop_the_session() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let mut session = Some(session);
    let code = in_child(false, || {
        drop(session.take());
        5
    });
    assert_eq!(code, 5);
    let report = session.unwrap().close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
}

/// What a record of the caller's own making does wrong.
#[derive(Clone, Copy)]
enum Lie {
    Panic,
    EarlyPanic,
    Long(usize),
    Short,
}

#[derive(Clone, Copy)]
struct Liar(Lie);

static LIAR: SchemaDef = SchemaDef::new("Liar", "performance", KeepClass::Sampled, &[], 0, None);

impl Record for Liar {
    type Fixed = ();
    fn schema(&self) -> &'static SchemaDef {
        &LIAR
    }
    fn keep(&self) -> KeepClass {
        KeepClass::Sampled
    }
    fn fixed(&self, _cap: usize) {}
    fn variable_bytes(&self, _cap: usize) -> usize {
        match self.0 {
            Lie::EarlyPanic => panic!("a caller's own panic"),
            Lie::Panic | Lie::Short => 100,
            Lie::Long(bytes) => bytes,
        }
    }
    fn write_variable(&self, _cap: usize, out: &mut impl Sink) {
        match self.0 {
            Lie::Panic | Lie::EarlyPanic => panic!("a caller's own panic"),
            Lie::Long(_) => {}
            Lie::Short => out.put(&[0xee; 1000]),
        }
    }
    fn is_cut(&self, _cap: usize) -> bool {
        false
    }
    fn all_symbols(&self, _check: impl FnMut(Symbol) -> bool) -> bool {
        true
    }
    fn key_bytes(&self) -> &[u8] {
        &[]
    }
    fn visit<'s>(&'s self, _visit: &mut dyn FnMut(Extra<'s>)) {}
}

#[test]
fn records_that_lie_about_themselves_spoil_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let too_long = Outcome::Dropped(DropReason::LargeBudget);
    for round in 0..100 {
        assert_eq!(push(&log, round), Outcome::Kept);
        for bytes in [usize::MAX, usize::MAX - 3, 6 << 20, 2_000_000] {
            assert_eq!(log.push(&Liar(Lie::Long(bytes))), too_long, "{bytes}");
        }
        assert_eq!(log.push(&Liar(Lie::Short)), Outcome::Kept);
        for lie in [Lie::Panic, Lie::EarlyPanic] {
            let ended = catch_unwind(AssertUnwindSafe(|| log.push(&Liar(lie))));
            assert!(ended.is_err());
        }
    }
    // The budget of large records is whole again.
    let text = "x".repeat(900_000);
    let extras = [Extra::new("text", text.as_str())];
    assert_eq!(log.event(Category::custom(), &extras), Outcome::Kept);
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let account = report.ledger.categories["performance"];
    assert_eq!(account.offered(), 800);
    assert_eq!(account.written(), 200);
    assert_eq!(account.dropped(DropReason::LargeBudget), 400);
    assert_eq!(account.interrupted(), 200);
}

/// The first records of a type, of which one comes in between: the other was once written under a
/// schema that there is not, and lost.
#[test]
fn first_records_of_a_type_that_overtake_each_other_are_all_there() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let (mut pushes, mut asked) = (0, 1_u32);
    loop {
        let schema = SchemaDef::new("Overtaken", "requests", KeepClass::Sampled, &[], 0, None);
        let schema: &'static SchemaDef = Box::leak(Box::new(schema));
        let left = Cell::new(asked);
        // As another thread can, at the n-th time that the schema is asked for.
        let overtake = || {
            let now = left.replace(left.get().saturating_sub(1));
            if now == 1 {
                assert_eq!(log.push(&Acting::first(schema, || {})), Outcome::Kept);
            }
        };
        let record = Acting::when_asked(schema, overtake);
        assert_eq!(log.push(&record), Outcome::Kept, "at call {asked}");
        pushes += 1;
        if left.get() > 0 {
            break;
        }
        pushes += 1;
        asked += 1;
    }
    assert!(asked > 2, "the schema was asked for {asked} times");
    let report = session.close().unwrap();
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let written = |category: &str| report.ledger.categories[category].written();
    assert_eq!(written("requests"), pushes, "{:?}", report.ledger);
    let session = report.ledger.categories["session"];
    assert_eq!(session.offered(), session.written(), "{:?}", report.ledger);
}

#[test]
fn handles_of_ended_sessions_do_not_cost_a_thread_its_rings() {
    let temp = tempfile::tempdir().unwrap();
    let mut kept = Vec::new();
    for number in 0..40 {
        let session = recording::builder().dir(temp.path()).start().unwrap();
        kept.push(session.log());
        for _ in 0..2000 {
            assert_eq!(push(&session.log(), number), Outcome::Kept);
        }
        let report = session.close().unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
    }
    assert!(kept.iter().all(|log| push(log, 0) == Outcome::Closed));
}

#[test]
fn debug_output_is_short() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let text = format!("{:?} {session:?}", session.log());
    assert!(text.len() < 4000, "{} bytes", text.len());
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join(".stormlog");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).unwrap();
    let started = recording::builder().dir(temp.path()).start();
    assert!(
        matches!(started, Err(Error::Insecure { .. })),
        "{started:?}"
    );
}

/// The session directory vanishes while the session runs: the caller notices nothing, the close
/// says what it could not do.
#[test]
fn a_removed_directory_ends_in_faults_not_in_panics() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .segment_bytes(4 << 20)
        .start()
        .unwrap();
    let log = session.log();
    std::fs::remove_dir_all(temp.path().join(".stormlog")).unwrap();
    let pushes = 400_000;
    for number in 0..pushes {
        let outcome = push(&log, number);
        assert!(
            matches!(
                outcome,
                Outcome::Kept | Outcome::SampledOut | Outcome::Dropped(_)
            ),
            "{outcome:?}"
        );
    }
    let report = session.close().unwrap();
    assert!(!report.faults.is_empty());
    assert!(report.ledger.is_exact(), "{:?}", report.ledger);
    let account = report.ledger.categories["performance"];
    assert_eq!(account.offered(), u64::from(pushes));
}

#[test]
fn a_sync_is_answered_and_repeated_ones_too() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .segment_bytes(4 << 20)
        .start()
        .unwrap();
    let log = session.log();
    for round in 0..30 {
        for number in 0..4000 {
            assert_eq!(push(&log, number), Outcome::Kept, "round {round}");
        }
        session.sync_now().unwrap();
    }
    let report = session.close().unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
}
