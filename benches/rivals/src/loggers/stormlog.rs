//! Stormlog: segments, and their conversion to JSON Lines afterwards.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::record::ShortText;
use stormlog::record::Symbol;
use stormlog::segment::files::SessionFiles;
use stormlog::{Conversion, Log, Outcome, Session};

use super::{Entry, STORMLOG, lines};
use crate::measure::{Logger, Producer};
use crate::record::{OPERATION, Record};
use crate::task::Kind;

/// As the lines: bursts fit into the ring, so nothing is lost there in either way.
const FILE_KINDS: [Kind; 2] = [Kind::File1, Kind::File2];
/// How long a producer sleeps that has time to wait for room: less than the writer needs for the
/// ring.
const RETRY: Duration = Duration::from_micros(50);

stormlog::record! {
    /// Record A.
    struct RecordA in "rivals" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

pub fn entries() -> Vec<Entry> {
    let format = "binary segments";
    vec![
        Entry::of::<Stormlog<true>>(
            STORMLOG,
            Some("stormlog"),
            format,
            "sampling off; a producer that finds its ring full sleeps 50 us and tries again",
        )
        .factor(10)
        .arrived(arrived),
        Entry::of::<Stormlog<false>>(
            "stormlog-never-waits",
            Some("stormlog"),
            format,
            "default settings: under pressure records are sampled, or dropped, and counted",
        )
        .factor(10)
        .kinds(&FILE_KINDS)
        .arrived(arrived),
    ]
}

/// `WAITS`: producers wait for room. No push of Stormlog does, so they try again.
struct Stormlog<const WAITS: bool> {
    session: Arc<Session>,
}

struct Push<const WAITS: bool> {
    log: Log,
}

impl<const WAITS: bool> Logger for Stormlog<WAITS> {
    type Producer = Push<WAITS>;

    fn start(dir: &Path) -> Result<Self> {
        let builder = Session::builder()
            .dir(dir)
            .keep_free_bytes(0)
            .conversion(Conversion::Later)
            .sampling(!WAITS);
        Ok(Self {
            session: Arc::new(builder.start()?),
        })
    }

    fn producer(&self) -> Push<WAITS> {
        Push {
            log: self.session.log(),
        }
    }

    fn finish(self) -> Result<()> {
        let session = Arc::into_inner(self.session).context("the session is still used")?;
        let report = session.close()?;
        ensure!(report.ledger.is_exact(), "the ledger does not add up");
        ensure!(report.faults.is_empty(), "{:?}", report.faults);
        Ok(())
    }

    fn after(dir: &Path) -> Result<Option<u64>> {
        convert(dir).map(Some)
    }
}

impl<const WAITS: bool> Producer for Push<WAITS> {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        debug_assert_eq!(record.operation, OPERATION);
        let record = RecordA {
            operation: stormlog::symbol!("start_container"),
            id: record.id,
            port: record.port,
            value: record.value,
            ok: record.ok,
        };
        let outcome = self.log.push(&record);
        if WAITS && outcome != Outcome::Kept {
            try_again(&self.log, &record);
        }
    }
}

#[cold]
#[inline(never)]
fn try_again(log: &Log, record: &RecordA) {
    loop {
        std::thread::sleep(RETRY);
        match log.push(record) {
            Outcome::Kept => return,
            Outcome::Dropped(_) => {}
            other => panic!("{other:?} of a session that records everything"),
        }
    }
}

/// Segments to lines; returns the length of the files.
fn convert(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for files in SessionFiles::find(dir)? {
        let report = convert_session(&files, dir, ConvertOptions::default())?;
        ensure!(report.faults.is_empty(), "{:?}", report.faults);
        bytes += report.files.iter().map(|file| file.bytes).sum::<u64>();
    }
    Ok(bytes)
}

/// Counts lines; where nothing was converted yet, that is done now.
fn arrived(dir: &Path) -> Result<u64> {
    let is_lines = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "jsonl")
    };
    let mut entries = fs::read_dir(dir)?;
    if !entries.any(|entry| entry.is_ok_and(|entry| is_lines(&entry.path()))) {
        convert(dir)?;
    }
    lines(dir)
}
