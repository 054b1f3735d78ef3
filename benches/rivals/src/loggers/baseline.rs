//! What anybody writes first: `serde_json` into a buffered file behind a mutex. And the floor of
//! every call that keeps its record with its time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use serde::Serialize;

use super::{BASELINE, Entry};
use crate::measure::{Logger, Producer};
use crate::os::counter;
use crate::record::Record;
use crate::task::Kind;

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::of::<JsonMutex<Bare>>(
            BASELINE,
            None,
            "JSON Lines",
            "serde_json of a struct into Mutex<BufWriter<File>>; the time as a number of ns",
        ),
        Entry::of::<JsonMutex<Full>>(
            "json-mutex-full-line",
            None,
            "JSON Lines",
            "the same with the line that Stormlog's conversion writes: session, RFC 3339 time, \
             elapsed seconds",
        ),
        Entry::of::<Floor>(
            "floor",
            None,
            "nothing",
            "no logger: a reading of the counter and a store of 64 bytes into a ring of 512 KiB",
        )
        .kinds(&[Kind::Calls, Kind::Cold])
        .arrived(|_| Ok(0)),
    ]
}

/// How a record becomes a line.
trait Line: Send + Sync + 'static {
    type Of<'a>: Serialize;

    fn new() -> Self;
    fn of<'a>(&'a self, record: &'a Record) -> Self::Of<'a>;
}

/// The record and a number.
struct Bare;

#[derive(Serialize)]
struct BareLine<'a> {
    timestamp_ns: u64,
    operation: &'a str,
    id: &'a str,
    port: u16,
    value: f64,
    ok: bool,
}

impl Line for Bare {
    type Of<'a> = BareLine<'a>;

    fn new() -> Self {
        Self
    }

    fn of<'a>(&'a self, record: &'a Record) -> BareLine<'a> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        BareLine {
            timestamp_ns: now.as_nanos() as u64,
            operation: record.operation,
            id: record.id,
            port: record.port,
            value: record.value,
            ok: record.ok,
        }
    }
}

/// What is in Stormlog's lines.
struct Full {
    session_id: String,
    start: Timestamp,
}

#[derive(Serialize)]
struct FullLine<'a> {
    session_id: &'a str,
    timestamp: Timestamp,
    elapsed_seconds: f64,
    operation: &'a str,
    id: &'a str,
    port: u16,
    value: f64,
    ok: bool,
}

impl Line for Full {
    type Of<'a> = FullLine<'a>;

    fn new() -> Self {
        let start = Timestamp::now();
        Self {
            session_id: start.strftime("%Y%m%d_%H%M%S").to_string(),
            start,
        }
    }

    fn of<'a>(&'a self, record: &'a Record) -> FullLine<'a> {
        let timestamp = Timestamp::now();
        FullLine {
            session_id: &self.session_id,
            timestamp,
            elapsed_seconds: timestamp.duration_since(self.start).as_secs_f64(),
            operation: record.operation,
            id: record.id,
            port: record.port,
            value: record.value,
            ok: record.ok,
        }
    }
}

struct JsonMutex<L>(Arc<Shared<L>>);

struct Shared<L> {
    line: L,
    file: Mutex<BufWriter<File>>,
}

struct JsonCall<L>(Arc<Shared<L>>);

impl<L: Line> Logger for JsonMutex<L> {
    type Producer = JsonCall<L>;

    fn start(dir: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(dir.join("lines.jsonl"))?);
        Ok(Self(Arc::new(Shared {
            line: L::new(),
            file: Mutex::new(file),
        })))
    }

    fn producer(&self) -> JsonCall<L> {
        JsonCall(Arc::clone(&self.0))
    }

    fn finish(self) -> Result<()> {
        let shared = Arc::into_inner(self.0).context("the file is still used")?;
        let mut file = shared
            .file
            .into_inner()
            .map_err(|_| anyhow!("a producer panicked"))?;
        Ok(file.flush()?)
    }
}

impl<L: Line> Producer for JsonCall<L> {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let line = self.0.line.of(record);
        let mut file = self.0.file.lock().expect("no producer panics");
        serde_json::to_writer(&mut *file, &line).expect("there is room on the disk");
        file.write_all(b"\n").expect("there is room on the disk");
    }
}

const FLOOR_SLOTS: usize = (512 << 10) / 64;

/// Keeps records where nobody reads them.
struct Floor;

struct FloorCall {
    slots: Vec<[u64; 8]>,
    next: usize,
}

impl Logger for Floor {
    type Producer = FloorCall;

    fn start(_dir: &Path) -> Result<Self> {
        Ok(Self)
    }

    fn producer(&self) -> FloorCall {
        FloorCall {
            slots: vec![[1; 8]; FLOOR_SLOTS],
            next: 0,
        }
    }

    fn finish(self) -> Result<()> {
        Ok(())
    }
}

impl Producer for FloorCall {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let value = record.value.to_bits();
        let slot = &mut self.slots[self.next % FLOOR_SLOTS];
        *slot = [counter(), value, value, value, value, value, value, value];
        std::hint::black_box(slot);
        self.next += 1;
    }
}
