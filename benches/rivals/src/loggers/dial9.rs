//! dial9: self-describing binary segments.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use dial9::core::{Encodable, ThreadLocalEncoder, clock_monotonic_ns};
use dial9::format::types::FieldValueRef;
use dial9::format::{Decoder, InternedString, TraceEvent};
use dial9::{Dial9Handle, DiskBuffer, Recorder};

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::{Matcher, Record};

pub fn entries() -> Vec<Entry> {
    let entry = Entry::of::<Dial9>(
        "dial9",
        Some("dial9"),
        "binary segment",
        "one file without rotation; the operation interned, the id as text; when 1,024 batches \
         wait, the oldest is dropped",
    );
    vec![entry.factor(10).arrived(arrived)]
}

#[derive(TraceEvent)]
struct Wire<'a> {
    #[traceevent(timestamp)]
    timestamp_ns: u64,
    operation: InternedString,
    id: &'a str,
    port: u16,
    value: f64,
    ok: bool,
}

struct Event<'a> {
    timestamp_ns: u64,
    record: &'a Record,
}

impl Encodable for Event<'_> {
    #[inline(always)]
    fn encode(&self, encoder: &mut ThreadLocalEncoder<'_>) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *self.record;
        let operation = encoder.intern_string(operation);
        encoder.encode(&Wire {
            timestamp_ns: self.timestamp_ns,
            operation,
            id,
            port,
            value,
            ok,
        });
    }
}

struct Dial9(Recorder);

struct Handle(Dial9Handle);

impl Logger for Dial9 {
    type Producer = Handle;

    fn start(dir: &Path) -> Result<Self> {
        let writer = DiskBuffer::single_file(dir.join("trace.bin"))?;
        Ok(Self(dial9::recorder(writer).build()))
    }

    fn producer(&self) -> Handle {
        Handle(self.0.handle().clone())
    }

    fn finish(self) -> Result<()> {
        self.0.graceful_shutdown(Duration::from_secs(60));
        Ok(())
    }
}

impl Producer for Handle {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        self.0.record_event(Event {
            timestamp_ns: clock_monotonic_ns(),
            record,
        });
    }
}

/// Its own decoder; each event is checked as a line.
fn arrived(dir: &Path) -> Result<u64> {
    let matcher = Matcher::new();
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let bytes = fs::read(entry?.path())?;
        let mut decoder = Decoder::new(&bytes).context("not a trace")?;
        let mut line = String::new();
        let events = decoder.for_each_event(|event| {
            if event.name == "Wire" {
                use std::fmt::Write;
                line.clear();
                for field in event.fields {
                    let written = match field {
                        FieldValueRef::PooledString(id) => {
                            write!(line, "{} ", event.string_pool.get(*id).unwrap_or_default())
                        }
                        FieldValueRef::String(text) => write!(line, "{text} "),
                        FieldValueRef::F64(value) => write!(line, "{value} "),
                        FieldValueRef::Varint(value) => write!(line, "{value} "),
                        FieldValueRef::Bool(value) => write!(line, "{value} "),
                        other => write!(line, "{other:?} "),
                    };
                    written.expect("a string takes everything");
                }
                count += u64::from(matcher.is_record(line.as_bytes()));
            }
        });
        events.map_err(|error| anyhow!("{error}"))?;
    }
    Ok(count)
}
