//! emit with its rolling files.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::Record;

/// More than any run takes.
const FLUSH_MAX: Duration = Duration::from_secs(60);

pub fn entries() -> Vec<Entry> {
    vec![Entry::of::<Emit>(
        "emit",
        Some("emit_file"),
        "JSON Lines",
        "emit_file with the defaults; when 10,000 events wait, all of them are dropped",
    )]
}

/// Flushes what was set up.
struct Emit(Box<dyn Fn() -> bool>);

struct Event;

impl Logger for Emit {
    type Producer = Event;

    fn start(dir: &Path) -> Result<Self> {
        let files = emit_file::set(dir.join("lines.jsonl"))
            .max_files(1000)
            .spawn();
        let setup = emit::setup().emit_to(files).init();
        Ok(Self(Box::new(move || setup.blocking_flush(FLUSH_MAX))))
    }

    fn producer(&self) -> Event {
        Event
    }

    fn finish(self) -> Result<()> {
        ensure!((self.0)(), "not flushed after {FLUSH_MAX:?}");
        Ok(())
    }
}

impl Producer for Event {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *record;
        emit::info!("{operation} of {id}", operation, id, port, value, ok);
    }
}
