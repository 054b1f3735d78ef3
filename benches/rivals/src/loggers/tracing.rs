//! tracing with its JSON lines, through the non-blocking writer of tracing-appender.

use std::path::Path;

use anyhow::{Result, anyhow};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::Record;

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::of::<Tracing<false>>(
            "tracing",
            Some("tracing-appender"),
            "JSON Lines",
            "tracing-subscriber's JSON; non-blocking writer, lossy(false): callers wait for room",
        ),
        Entry::of::<Tracing<true>>(
            "tracing-lossy",
            Some("tracing-appender"),
            "JSON Lines",
            "the same, lossy(true), the default: what does not fit is dropped",
        ),
    ]
}

struct Tracing<const LOSSY: bool> {
    guard: WorkerGuard,
}

struct Event;

impl<const LOSSY: bool> Logger for Tracing<LOSSY> {
    type Producer = Event;

    fn start(dir: &Path) -> Result<Self> {
        let file = tracing_appender::rolling::never(dir, "lines.jsonl");
        let (writer, guard) = NonBlockingBuilder::default().lossy(LOSSY).finish(file);
        let subscriber = tracing_subscriber::fmt().json().with_writer(writer);
        subscriber.try_init().map_err(|error| anyhow!(error))?;
        Ok(Self { guard })
    }

    fn producer(&self) -> Event {
        Event
    }

    fn finish(self) -> Result<()> {
        drop(self.guard);
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
        tracing::info!(operation, id, port, value, ok);
    }
}
