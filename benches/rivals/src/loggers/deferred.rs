//! Young loggers that copy the arguments and leave the formatting of text to a thread: ticklog,
//! inqjet, insomnilog.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use inqjet::{ColorMode, InqJetBuilder, InqJetGuard, LevelFilter};
use insomnilog::{BackendOptions, ContinuousFileSink, LogLevel, PatternFormatter, log_info};
use ticklog::FileSink;

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::Record;

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::of::<Ticklog>(
            "ticklog",
            Some("ticklog"),
            "text",
            "FileSink, Backpressure::Block: callers spin until there is room",
        ),
        Entry::of::<Inqjet>(
            "inqjet",
            Some("inqjet"),
            "text",
            "a BufWriter; buffer of 1 MiB, Backoff: callers spin, then yield until there is room",
        ),
        Entry::of::<Insomnilog>(
            "insomnilog",
            Some("insomnilog"),
            "text",
            "ContinuousFileSink with the defaults: a queue of 128 KiB for each thread; what does \
             not fit is dropped",
        ),
    ]
}

/// The macros of ticklog look for these two by name; `configure!` makes them for the root module
/// only.
macro_rules! __ticklog_max_level {
    () => {
        ticklog::Level::Info
    };
}
macro_rules! __ticklog_backpressure {
    () => {
        ticklog::Backpressure::Block
    };
}

struct Ticklog(ticklog::Guard);

struct TicklogCall;

impl Logger for Ticklog {
    type Producer = TicklogCall;

    fn start(dir: &Path) -> Result<Self> {
        let guard = ticklog::configure! {
            sink: FileSink::new(dir.join("lines.log"))?,
            backpressure: ticklog::Backpressure::Block,
        };
        Ok(Self(guard.map_err(|error| anyhow!("{error}"))?))
    }

    fn producer(&self) -> TicklogCall {
        TicklogCall
    }

    fn finish(self) -> Result<()> {
        drop(self.0);
        Ok(())
    }
}

impl Producer for TicklogCall {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *record;
        ticklog::info!(
            "{} id={} port={} value={} ok={}",
            operation,
            id,
            port,
            value,
            ok
        );
    }
}

struct Inqjet(InqJetGuard);

struct InqjetCall;

impl Logger for Inqjet {
    type Producer = InqjetCall;

    fn start(dir: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(dir.join("lines.log"))?);
        let builder = InqJetBuilder::default()
            .with_writer(file)
            .with_log_level(LevelFilter::Info)
            .with_color_mode(ColorMode::Never)
            .with_buffer_size(1 << 20);
        Ok(Self(builder.build()?))
    }

    fn producer(&self) -> InqjetCall {
        InqjetCall
    }

    fn finish(self) -> Result<()> {
        drop(self.0);
        Ok(())
    }
}

impl Producer for InqjetCall {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *record;
        inqjet::info!(
            "{} id={} port={} value={} ok={}",
            operation,
            id,
            port,
            value,
            ok
        );
    }
}

struct Insomnilog {
    logger: Arc<insomnilog::Logger>,
}

struct InsomnilogCall(Arc<insomnilog::Logger>);

impl Logger for Insomnilog {
    type Producer = InsomnilogCall;

    fn start(dir: &Path) -> Result<Self> {
        let guard = insomnilog::start(BackendOptions::default());
        // Shut down in `finish`.
        std::mem::forget(guard.map_err(|error| anyhow!("{error}"))?);
        let path = dir.join("lines.log");
        let sink = ContinuousFileSink::try_new(PatternFormatter::default(), LogLevel::Trace, path)?;
        let logger = insomnilog::create_logger("app", vec![Arc::new(sink)], LogLevel::Info);
        Ok(Self {
            logger: logger.map_err(|error| anyhow!("{error}"))?,
        })
    }

    fn producer(&self) -> InsomnilogCall {
        InsomnilogCall(Arc::clone(&self.logger))
    }

    fn finish(self) -> Result<()> {
        insomnilog::shutdown();
        Ok(())
    }
}

impl Producer for InsomnilogCall {
    #[inline(always)]
    fn log(&mut self, record: &Record) {
        let Record {
            operation,
            id,
            port,
            value,
            ok,
        } = *record;
        log_info!(
            self.0,
            "{} id={} port={} value={} ok={}",
            operation,
            id,
            port,
            value,
            ok
        );
    }
}
