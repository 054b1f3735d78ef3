//! Backends of the facade `log`. Those that take text get text; logforth and log4rs get key-values.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use flexi_logger::{FileSpec, LoggerHandle, WriteMode};
use ftlog::appender::FileAppender;
use log::LevelFilter;
use logforth::append::asynchronous::AsyncBuilder;
use logforth::append::file::FileBuilder;
use logforth::bridge::log::LogBridge;
use logforth::layout::JsonLayout;

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::Record;

/// Records that a bounded queue holds, where it has to be chosen.
const QUEUE_RECORDS: usize = 100_000;

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::of::<FastLog>(
            "fast_log",
            Some("fast_log"),
            "text",
            "chan_len 100,000, as its documents show: callers wait for room",
        ),
        Entry::of::<Ftlog>(
            "ftlog",
            Some("ftlog"),
            "text",
            "bounded(100,000, block_when_full)",
        ),
        Entry::of::<Flexi>(
            "flexi_logger",
            Some("flexi_logger"),
            "text",
            "WriteMode::Async, detailed_format; a queue without bound",
        ),
        Entry::of::<Log4rs>(
            "log4rs",
            Some("log4rs"),
            "JSON Lines",
            "FileAppender with its JSON encoder and key-values: the caller writes, and flushes \
             each record",
        ),
        Entry::of::<Logforth>(
            "logforth",
            Some("logforth"),
            "JSON Lines",
            "Async over File, JsonLayout, key-values; 100,000 lines, overflow_block",
        ),
    ]
}

/// Logs text.
struct Text;

impl Producer for Text {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *record;
        log::info!("{operation} id={id} port={port} value={value} ok={ok}");
    }
}

/// Logs key-values.
struct KeyValues;

impl Producer for KeyValues {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *record;
        log::info!(operation = operation, id = id, port = port, value = value, ok = ok; "record");
    }
}

struct FastLog;

impl Logger for FastLog {
    type Producer = Text;

    fn start(dir: &Path) -> Result<Self> {
        let file = dir.join("lines.log");
        let config = fast_log::Config::new()
            .file(file.to_str().context("the directory is no text")?)
            .chan_len(Some(QUEUE_RECORDS));
        fast_log::init(config).map_err(|error| anyhow!("{error}"))?;
        Ok(Self)
    }

    fn producer(&self) -> Text {
        Text
    }

    fn finish(self) -> Result<()> {
        log::logger().flush();
        Ok(())
    }
}

struct Ftlog(ftlog::LoggerGuard);

impl Logger for Ftlog {
    type Producer = Text;

    fn start(dir: &Path) -> Result<Self> {
        let file = FileAppender::builder().path(dir.join("lines.log")).build();
        let builder = ftlog::Builder::new()
            .max_log_level(LevelFilter::Info)
            .bounded(QUEUE_RECORDS, true)
            .root(file);
        Ok(Self(
            builder.try_init().map_err(|error| anyhow!("{error}"))?,
        ))
    }

    fn producer(&self) -> Text {
        Text
    }

    fn finish(self) -> Result<()> {
        drop(self.0);
        Ok(())
    }
}

struct Flexi(LoggerHandle);

impl Logger for Flexi {
    type Producer = Text;

    fn start(dir: &Path) -> Result<Self> {
        let logger = flexi_logger::Logger::try_with_str("info")?
            .log_to_file(FileSpec::default().directory(dir))
            .format(flexi_logger::detailed_format)
            .write_mode(WriteMode::Async);
        Ok(Self(logger.start()?))
    }

    fn producer(&self) -> Text {
        Text
    }

    fn finish(self) -> Result<()> {
        self.0.shutdown();
        Ok(())
    }
}

struct Log4rs;

impl Logger for Log4rs {
    type Producer = KeyValues;

    fn start(dir: &Path) -> Result<Self> {
        use log4rs::append::file::FileAppender;
        use log4rs::config::{Appender, Config, Root};
        use log4rs::encode::json::JsonEncoder;

        let file = FileAppender::builder()
            .encoder(Box::new(JsonEncoder::new()))
            .build(dir.join("lines.jsonl"))?;
        let config = Config::builder()
            .appender(Appender::builder().build("file", Box::new(file)))
            .build(Root::builder().appender("file").build(LevelFilter::Info))?;
        log4rs::init_config(config)?;
        Ok(Self)
    }

    fn producer(&self) -> KeyValues {
        KeyValues
    }

    fn finish(self) -> Result<()> {
        log::logger().flush();
        Ok(())
    }
}

struct Logforth;

impl Logger for Logforth {
    type Producer = KeyValues;

    fn start(dir: &Path) -> Result<Self> {
        let file = FileBuilder::new(dir, "lines").layout(JsonLayout::default());
        let file = file.build().map_err(|error| anyhow!("{error}"))?;
        let append = AsyncBuilder::new("logforth")
            .buffered_lines_limit(Some(QUEUE_RECORDS))
            .overflow_block()
            .append(file)
            .build();
        let logger = logforth::core::builder()
            .dispatch(|dispatch| dispatch.append(append))
            .build();
        log::set_boxed_logger(Box::new(LogBridge::new(logger)))?;
        log::set_max_level(LevelFilter::Info);
        Ok(Self)
    }

    fn producer(&self) -> KeyValues {
        KeyValues
    }

    fn finish(self) -> Result<()> {
        log::logger().flush();
        Ok(())
    }
}
