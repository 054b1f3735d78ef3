//! The live ledger: a small file that other processes read while the session runs. FORMAT.md
//! section 8 is normative.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Error, IoContext};
use crate::ledger::Ledger;
use crate::record::category_id;
use crate::segment::layout::{
    FILE_LEDGER, FileHeader, LEDGER_ENTRIES_MAX, LEDGER_FILE_BYTES, LEDGER_SLOT_BYTES,
    LEDGER_SLOT_OFFSET, LedgerEntry, LedgerSlotHeader,
};
use crate::sys::clock::utc_ns;
use crate::sys::dir::Dir;
use crate::sys::reserve::reserve;

/// Name of the file in the session directory.
pub(crate) const LEDGER_NAME: &str = "ledger";
/// `state` while the session records.
pub(crate) const RECORDING: u64 = 1;
/// `state` after close.
pub(crate) const CLOSED: u64 = 2;
/// An unchanged ledger is published again after this, so that its age stays small.
const REFRESH: Duration = Duration::from_secs(10);

/// Writes the file.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    file: File,
    path: PathBuf,
    sequence: u64,
    /// When and what was published last.
    last: Option<(Instant, Ledger)>,
}

impl LedgerFile {
    pub(crate) fn create(dir: &Dir, header: &FileHeader) -> Result<Self, Error> {
        let file = dir.create_file(LEDGER_NAME)?;
        let path = dir.path_of(LEDGER_NAME);
        reserve(&file, LEDGER_FILE_BYTES as u64).io_context("cannot reserve", &path)?;
        let header = FileHeader {
            file_kind: FILE_LEDGER,
            file_bytes: LEDGER_FILE_BYTES as u64,
            ..*header
        }
        .with_crc();
        file.write_all_at(bytemuck::bytes_of(&header), 0)
            .io_context("cannot write", &path)?;
        Ok(Self {
            file,
            path,
            sequence: 0,
            last: None,
        })
    }

    /// Publishes at most once per `every`, and only when something changed or time has passed.
    pub(crate) fn publish_if_due(
        &mut self,
        every: Duration,
        ledger: impl FnOnce() -> Ledger,
    ) -> Result<(), Error> {
        let age = self.last.as_ref().map(|last| last.0.elapsed());
        if age.is_some_and(|age| age < every) {
            return Ok(());
        }
        let ledger = ledger();
        let unchanged = self.last.as_ref().is_some_and(|last| last.1 == ledger);
        if unchanged && age.is_some_and(|age| age < REFRESH) {
            return Ok(());
        }
        self.publish(ledger, RECORDING)
    }

    /// Publishes now.
    pub(crate) fn publish(&mut self, ledger: Ledger, state: u64) -> Result<(), Error> {
        self.sequence += 1;
        let entries: Vec<LedgerEntry> = ledger
            .categories
            .iter()
            .take(LEDGER_ENTRIES_MAX)
            .map(entry)
            .collect();
        let mut slot = LedgerSlotHeader {
            sequence: self.sequence,
            crc: 0,
            count: entries.len() as u32,
            published_utc_ns: utc_ns(),
            state,
        };
        let body = [
            &bytemuck::bytes_of(&slot)[16..],
            bytemuck::cast_slice(&entries),
        ]
        .concat();
        slot.crc = crc32c::crc32c(&body);
        let bytes = [&bytemuck::bytes_of(&slot)[..16], &body].concat();
        let index = self.sequence % 2;
        let offset = LEDGER_SLOT_OFFSET as u64 + index * LEDGER_SLOT_BYTES as u64;
        self.file
            .write_all_at(&bytes, offset)
            .io_context("cannot write", &self.path)?;
        fail_point!("ledger.published");
        self.last = Some((Instant::now(), ledger));
        Ok(())
    }
}

fn entry((name, account): (&String, &crate::ledger::Account)) -> LedgerEntry {
    let mut padded = [0; 64];
    let bytes = name.len().min(padded.len());
    padded[..bytes].copy_from_slice(&name.as_bytes()[..bytes]);
    LedgerEntry {
        category: category_id(name).map_or(u32::MAX, u32::from),
        name_bytes: bytes as u32,
        name: padded,
        counters: account.counters,
    }
}
