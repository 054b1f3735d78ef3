//! kvlog: binary key-value records through one buffer behind a mutex.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use kvlog::collector::LoggerGuard;
use kvlog::encoding::Value;

use super::Entry;
use crate::measure::{Logger, Producer};
use crate::record::{Matcher, Record};

pub fn entries() -> Vec<Entry> {
    let entry = Entry::of::<Kvlog>(
        "kvlog",
        Some("kvlog"),
        "binary",
        "init_file_logger; a buffer without bound",
    );
    vec![entry.factor(4).arrived(arrived)]
}

struct Kvlog(LoggerGuard);

struct Call;

impl Logger for Kvlog {
    type Producer = Call;

    fn start(dir: &Path) -> Result<Self> {
        let file = dir.join("log.kvlog");
        let file = file.to_str().context("the directory is no text")?;
        Ok(Self(kvlog::collector::init_file_logger(file)))
    }

    fn producer(&self) -> Call {
        Call
    }

    fn finish(self) -> Result<()> {
        drop(self.0);
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
        kvlog::info!("record", operation, id, port, value, ok);
    }
}

/// Its own decoder; each record is checked as a line.
fn arrived(dir: &Path) -> Result<u64> {
    let matcher = Matcher::new();
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let bytes = fs::read(entry?.path())?;
        let mut line = String::new();
        for record in kvlog::encoding::decode(&bytes) {
            let (_, _, _, fields) = record.map_err(|error| anyhow!("{error:?}"))?;
            line.clear();
            for field in fields {
                let (_, value) = field.map_err(|error| anyhow!("{error:?}"))?;
                match value {
                    Value::String(text) => write!(line, "{} ", text.escape_ascii())?,
                    Value::U32(value) => write!(line, "{value} ")?,
                    Value::I32(value) => write!(line, "{value} ")?,
                    Value::U64(value) => write!(line, "{value} ")?,
                    Value::I64(value) => write!(line, "{value} ")?,
                    Value::F64(value) => write!(line, "{value} ")?,
                    Value::F32(value) => write!(line, "{value} ")?,
                    Value::Bool(value) => write!(line, "{value} ")?,
                    _ => {}
                }
            }
            count += u64::from(matcher.is_record(line.as_bytes()));
        }
    }
    Ok(count)
}
