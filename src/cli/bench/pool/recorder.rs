//! Where the pool's records go: into a session, or, for comparison, into the simplest logger.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_core::ser::{Serialize, SerializeMap, Serializer};

use crate::record::{ShortText, Symbol};
use crate::{Log, Outcome, Session};

crate::record! {
    /// What a unit of work tells.
    struct Unit in "bench" keep Sampled {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

/// The values of a record; both recorders take the same.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    pub id: &'a str,
    pub port: u16,
    pub value: f64,
    pub ok: bool,
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub offered: u64,
    pub written: u64,
}

/// Takes records from any thread.
pub trait Recorder: Send + Sync {
    /// One record.
    fn record(&self, values: Values<'_>);
    /// Waits until what was recorded has left the process, as far as it does so by itself.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&self) -> Result<()>;
    /// Ends the recording.
    ///
    /// # Errors
    /// When something could not be written.
    fn close(self) -> Result<Counts>;
}

/// A session with its settings from the environment: without `DEBUG_MODE` it records nothing.
pub struct Stormlog {
    session: Session,
    log: Log,
}

impl Stormlog {
    pub fn start() -> Result<Self> {
        let session = Session::from_env()?;
        let log = session.log();
        Ok(Self { session, log })
    }
}

impl Recorder for Stormlog {
    #[inline]
    fn record(&self, values: Values<'_>) {
        // The ledger of the session counts what became of it.
        let _counted: Outcome = self.log.push(&Unit {
            operation: crate::symbol!("bench_operation"),
            id: values.id,
            port: values.port,
            value: values.value,
            ok: values.ok,
        });
    }

    fn flush(&self) -> Result<()> {
        self.session.flush().context("the session cannot flush")
    }

    fn close(self) -> Result<Counts> {
        let report = self.session.close()?;
        let account = report.ledger.categories.get("bench");
        let account = account.copied().unwrap_or_default();
        Ok(Counts {
            offered: account.offered(),
            written: account.written(),
        })
    }
}

/// `serde_json` into a buffered file behind a lock.
pub struct LockedJson {
    out: Mutex<BufWriter<File>>,
    path: PathBuf,
    written: AtomicU64,
}

/// The line of the locked logger. Its time is a number, which costs less than a text would.
struct Line<'a> {
    at: Duration,
    values: Values<'a>,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("timestamp", &self.at.as_secs_f64())?;
        map.serialize_entry("operation", "bench_operation")?;
        map.serialize_entry("id", self.values.id)?;
        map.serialize_entry("port", &self.values.port)?;
        map.serialize_entry("value", &self.values.value)?;
        map.serialize_entry("ok", &self.values.ok)?;
        map.end()
    }
}

impl LockedJson {
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join("bench.jsonl");
        let what = || format!("cannot write {}", path.display());
        std::fs::create_dir_all(dir).with_context(what)?;
        let file = File::create(&path).with_context(what)?;
        Ok(Self {
            out: Mutex::new(BufWriter::new(file)),
            path,
            written: AtomicU64::new(0),
        })
    }
}

impl Recorder for LockedJson {
    fn record(&self, values: Values<'_>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let at = now.unwrap_or_default();
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let line = serde_json::to_writer(&mut *out, &Line { at, values });
        if line.is_ok() && out.write_all(b"\n").is_ok() {
            // Under the lock, so that a load and a store will do.
            self.written.store(self.written.load(Relaxed) + 1, Relaxed);
        }
    }

    fn flush(&self) -> Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = out.flush();
        flushed.with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn close(self) -> Result<Counts> {
        self.flush()?;
        let written = self.written.into_inner();
        Ok(Counts {
            offered: written,
            written,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locked_logger_writes_lines_of_json() {
        let dir = tempfile::tempdir().unwrap();
        let logger = LockedJson::create(dir.path()).unwrap();
        let path = logger.path.clone();
        for port in 0..3 {
            logger.record(Values {
                id: "0123456789ab",
                port,
                value: 1.5,
                ok: true,
            });
        }
        let wanted = Counts {
            offered: 3,
            written: 3,
        };
        assert_eq!(logger.close().unwrap(), wanted);
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .map(|line| -> serde_json::Value { serde_json::from_str(line).unwrap() });
        let ports: Vec<_> = lines.map(|line| line["port"].as_u64().unwrap()).collect();
        assert_eq!(ports, [0, 1, 2]);
    }
}
