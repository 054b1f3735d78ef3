//! fastrace: a tracer, not a logger. A record is a span of its own with five properties, which a
//! reporter of ours writes as a line, because fastrace has none for files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use fastrace::Span;
use fastrace::collector::{Config, Reporter, SpanContext, SpanRecord};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::Record;

pub fn entries() -> Vec<Entry> {
    vec![Entry::of::<Fastrace>(
        "fastrace",
        Some("fastrace"),
        "JSON Lines",
        "a root span per record, its values as properties; a reporter of this bench writes lines \
         with serde_json",
    )]
}

struct Lines(BufWriter<File>);

/// A span as one object.
struct Line(SpanRecord);

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp_ns", &self.0.begin_time_unix_ns)?;
        map.serialize_entry("operation", &self.0.name)?;
        for (name, value) in &self.0.properties {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Reporter for Lines {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        for span in spans {
            serde_json::to_writer(&mut self.0, &Line(span)).expect("there is room on the disk");
            self.0.write_all(b"\n").expect("there is room on the disk");
        }
        self.0.flush().expect("there is room on the disk");
    }
}

struct Fastrace;

struct Call;

impl Logger for Fastrace {
    type Producer = Call;

    fn start(dir: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(dir.join("lines.jsonl"))?);
        fastrace::set_reporter(Lines(file), Config::default());
        Ok(Self)
    }

    fn producer(&self) -> Call {
        Call
    }

    fn finish(self) -> Result<()> {
        fastrace::flush();
        Ok(())
    }
}

impl Producer for Call {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *record;
        let span = Span::root(operation, SpanContext::random());
        drop(span.with_properties(|| {
            [
                ("id", id.to_owned()),
                ("port", port.to_string()),
                ("value", value.to_string()),
                ("ok", ok.to_string()),
            ]
        }));
    }
}
