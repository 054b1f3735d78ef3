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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Account, OFFERED};
    use crate::segment::published::Published;

    fn header() -> FileHeader {
        FileHeader {
            magic: crate::segment::layout::FILE_MAGIC,
            version_major: crate::segment::layout::VERSION_MAJOR,
            header_bytes: crate::segment::layout::FILE_HEADER_BYTES as u32,
            session: *b"20261121_101112\0",
            ..bytemuck::Zeroable::zeroed()
        }
    }

    fn ledger(offered: u64) -> Ledger {
        let account = |offered| {
            let mut account = Account::default();
            account.counters[OFFERED] = offered;
            account
        };
        let categories = [("requests", offered), ("vpn", 7 * offered)];
        Ledger {
            categories: categories
                .map(|(name, offered)| (name.to_owned(), account(offered)))
                .into(),
        }
    }

    #[test]
    fn the_newest_publication_is_read_and_the_one_before_when_it_is_damaged() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut file = LedgerFile::create(&dir, &header()).unwrap();
        let path = dir.path_of(LEDGER_NAME);
        let read = || Published::read(&File::open(&path).unwrap(), &path).unwrap();
        let nothing = read();
        assert_eq!((nothing.sequence, nothing.closed), (0, false));
        for sequence in 1..=5 {
            let state = if sequence == 5 { CLOSED } else { RECORDING };
            file.publish(ledger(sequence), state).unwrap();
            let newest = read();
            assert_eq!(newest.sequence, sequence);
            assert_eq!(newest.closed, sequence == 5);
            assert_eq!(newest.ledger(), ledger(sequence));
            let sound = std::fs::read(&path).unwrap();
            let mut damaged = sound.clone();
            let slot = LEDGER_SLOT_OFFSET + (sequence % 2) as usize * LEDGER_SLOT_BYTES;
            damaged[slot + size_of::<LedgerSlotHeader>()] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            if sequence > 1 {
                let before = read();
                assert_eq!((before.sequence, before.closed), (sequence - 1, false));
                assert_eq!(before.ledger(), ledger(sequence - 1));
            }
            std::fs::write(&path, sound).unwrap();
        }
    }

    #[test]
    fn an_unchanged_ledger_is_not_published_again_at_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let mut file = LedgerFile::create(&dir, &header()).unwrap();
        let path = dir.path_of(LEDGER_NAME);
        let mut published = |every, offered| {
            file.publish_if_due(every, || ledger(offered)).unwrap();
            let found = Published::read(&File::open(&path).unwrap(), &path).unwrap();
            (found.sequence, found.ledger() == ledger(offered))
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(published(hour, 1), (1, true), "the first at once");
        assert_eq!(published(hour, 2), (1, false), "it is not due");
        assert_eq!(published(Duration::ZERO, 2), (2, true));
        assert_eq!(published(Duration::ZERO, 3), (3, true));
    }
}
