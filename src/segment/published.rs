//! Reading the ledger file of a session, also while the session writes it. FORMAT.md section 8 is
//! normative.

use std::path::Path;

use crate::error::{Error, IoContext};
use crate::ledger::{Account, Ledger};
use crate::record::is_category_name;
use crate::segment::header::parse_header;
use crate::segment::layout::{
    FILE_HEADER_BYTES, FILE_LEDGER, LEDGER_ENTRIES_MAX, LEDGER_FILE_BYTES, LEDGER_SLOT_BYTES,
    LEDGER_SLOT_OFFSET, LedgerEntry, LedgerSlotHeader,
};
use crate::segment::ledger_file::CLOSED;
use crate::segment::source::Source;

/// Looks at a file in which no slot is valid: one of them may just be written.
const TRIES: usize = 3;
/// Offset of what the CRC of a slot covers.
const CRC_FROM: usize = 16;

/// What a session has published of its ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Session id, `YYYYMMDD_HHMMSS`.
    pub session_id: String,
    /// Identity of the session.
    pub nonce: [u8; 16],
    /// Number of the publication, from 1; 0 when nothing was published yet.
    pub sequence: u64,
    /// When, ns since 1970.
    pub published_utc_ns: u64,
    /// Whether the session was closed: these are its final counts.
    pub closed: bool,
    /// Category id, name and counts, as they stand in the file.
    pub categories: Vec<(u32, String, Account)>,
}

impl Published {
    /// Reads the newest valid slot. `path` is for messages only.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is no ledger file, or no slot of it is valid; [`Error::Io`].
    pub fn read(source: &(impl Source + ?Sized), path: &Path) -> Result<Self, Error> {
        let corrupt = |offset: usize, what: String| Error::Corrupt {
            path: path.to_owned(),
            offset: offset as u64,
            what,
        };
        let mut bytes = vec![0; LEDGER_FILE_BYTES];
        for _ in 0..TRIES {
            let count = source
                .read_at(0, &mut bytes)
                .io_context("cannot read", path)?;
            let bytes = bytes.get(..count).unwrap_or_default();
            let head = bytes.get(..FILE_HEADER_BYTES).unwrap_or_default();
            let header = parse_header(head, FILE_LEDGER).map_err(|what| corrupt(0, what))?;
            let slots = || bytes.get(LEDGER_SLOT_OFFSET..).unwrap_or_default();
            if count == LEDGER_FILE_BYTES && slots().iter().all(|byte| *byte == 0) {
                return Ok(Self {
                    session_id: header.session_id,
                    nonce: header.file.nonce,
                    ..Self::default()
                });
            }
            let slots = slots().chunks_exact(LEDGER_SLOT_BYTES);
            let newest = slots.filter_map(slot).max_by_key(|slot| slot.sequence);
            if let Some(newest) = newest {
                return Ok(Self {
                    session_id: header.session_id,
                    nonce: header.file.nonce,
                    ..newest
                });
            }
        }
        let what = "neither of the two copies of the ledger is valid";
        Err(corrupt(LEDGER_SLOT_OFFSET, what.to_owned()))
    }

    /// The counts by name.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for (_, name, account) in &self.categories {
            let sum = ledger.categories.entry(name.clone()).or_default();
            sum.add(account);
        }
        ledger
    }
}

/// A slot whose CRC and whose entries are valid.
fn slot(bytes: &[u8]) -> Option<Published> {
    let (head, rest) = bytes.split_at_checked(size_of::<LedgerSlotHeader>())?;
    let head: LedgerSlotHeader = bytemuck::try_pod_read_unaligned(head).ok()?;
    let count = head.count as usize;
    if count > LEDGER_ENTRIES_MAX || head.sequence == 0 {
        return None;
    }
    let entries = rest.get(..count.checked_mul(size_of::<LedgerEntry>())?)?;
    let end = size_of::<LedgerSlotHeader>().checked_add(entries.len())?;
    if crc32c::crc32c(bytes.get(CRC_FROM..end)?) != head.crc {
        return None;
    }
    let entries = entries.chunks_exact(size_of::<LedgerEntry>());
    Some(Published {
        sequence: head.sequence,
        published_utc_ns: head.published_utc_ns,
        closed: head.state == CLOSED,
        categories: entries.map(entry).collect::<Option<_>>()?,
        ..Published::default()
    })
}

fn entry(bytes: &[u8]) -> Option<(u32, String, Account)> {
    let entry: LedgerEntry = bytemuck::try_pod_read_unaligned(bytes).ok()?;
    let name = std::str::from_utf8(entry.name.get(..entry.name_bytes as usize)?).ok()?;
    let counters = entry.counters;
    is_category_name(name).then(|| (entry.category, name.to_owned(), Account { counters }))
}
