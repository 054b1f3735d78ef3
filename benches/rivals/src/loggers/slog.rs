//! slog with its JSON lines, through slog-async.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Result;
use slog::Drain;
use slog_async::{AsyncGuard, OverflowStrategy};

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::Record;

/// The default of 128 records would have callers wait for each one in the end.
const QUEUE_RECORDS: usize = 100_000;

pub fn entries() -> Vec<Entry> {
    vec![Entry::of::<Slog>(
        "slog",
        Some("slog-async"),
        "JSON Lines",
        "slog-json into a BufWriter; chan_size 100,000, OverflowStrategy::Block",
    )]
}

struct Slog {
    logger: slog::Logger,
    guard: AsyncGuard,
}

struct Call(slog::Logger);

impl Logger for Slog {
    type Producer = Call;

    fn start(dir: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(dir.join("lines.jsonl"))?);
        let (drain, guard) = slog_async::Async::new(slog_json::Json::default(file).fuse())
            .chan_size(QUEUE_RECORDS)
            .overflow_strategy(OverflowStrategy::Block)
            .build_with_guard();
        Ok(Self {
            logger: slog::Logger::root(drain.fuse(), slog::o!()),
            guard,
        })
    }

    fn producer(&self) -> Call {
        Call(self.logger.clone())
    }

    fn finish(self) -> Result<()> {
        drop(self.logger);
        drop(self.guard);
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
        slog::info!(self.0, "record";
            "operation" => operation, "id" => id, "port" => port, "value" => value, "ok" => ok);
    }
}
