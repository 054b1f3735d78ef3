//! spdlog-rs: the Rust logger of that name, and the C++ one as a mark from outside.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use spdlog::formatter::JsonFormatter;
use spdlog::sink::{AsyncPoolSink, FileSink};
use spdlog::{ThreadPool, prelude::*};

use super::{Entry, Program, lines};
use crate::measure::{self, Producer};
use crate::record::Record;
use crate::task::Kind;

pub fn entries() -> Vec<Entry> {
    vec![
        measured(),
        Entry {
            name: "spdlog-c++",
            package: Some("libspdlog-dev"),
            format: "text",
            how: "asynchronous file sink with the defaults: 8,192 records, callers wait for room",
            factor: 1,
            kinds: &Kind::ALL,
            program: Program::Cpp,
            arrived: lines,
        },
    ]
}

fn measured() -> Entry {
    Entry::of::<Spdlog>(
        "spdlog-rs",
        Some("spdlog-rs"),
        "JSON Lines",
        "AsyncPoolSink over FileSink, JsonFormatter, key-values; overflow policy Block",
    )
}

struct Spdlog {
    logger: Arc<Logger>,
    pool: Arc<ThreadPool>,
}

struct Call(Arc<Logger>);

impl measure::Logger for Spdlog {
    type Producer = Call;

    fn start(dir: &Path) -> Result<Self> {
        let file = FileSink::builder()
            .path(dir.join("lines.jsonl"))
            .formatter(JsonFormatter::new())
            .build_arc()?;
        let pool = ThreadPool::builder().build_arc()?;
        let sink = AsyncPoolSink::builder()
            .sink(file)
            .thread_pool(Arc::clone(&pool))
            .build_arc()?;
        let logger = Logger::builder().sink(sink).build_arc()?;
        Ok(Self { logger, pool })
    }

    fn producer(&self) -> Call {
        Call(Arc::clone(&self.logger))
    }

    fn finish(self) -> Result<()> {
        self.logger.flush();
        drop(self.logger);
        // Waits for its threads.
        drop(self.pool);
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
        info!(logger: self.0, "record", kv: { operation, id, port, value, ok });
    }
}
