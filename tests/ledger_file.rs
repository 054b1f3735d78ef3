//! The ledger that other processes read while a session runs: FORMAT.md section 8.

#[path = "support/recording.rs"]
mod recording;

use std::path::Path;
use std::time::{Duration, Instant};

use stormlog::Outcome;
use stormlog::ledger::{Account, OFFERED, WRITTEN};
use stormlog::record::{Category, Extra};
use stormlog::segment::layout::{
    FILE_HEADER_BYTES, FILE_LEDGER, FileHeader, LEDGER_SLOT_BYTES, LEDGER_SLOT_OFFSET, LedgerEntry,
    LedgerSlotHeader,
};

/// The newest valid slot: its header and its accounts by name.
fn read(path: &Path) -> Option<(LedgerSlotHeader, Vec<(String, Account)>)> {
    let file = std::fs::read(path).unwrap();
    let header: FileHeader = bytemuck::pod_read_unaligned(&file[..FILE_HEADER_BYTES]);
    assert_eq!(header.file_kind, FILE_LEDGER);
    assert_eq!(header.crc, header.expected_crc());
    let slots = (0..2).filter_map(|index| {
        let slot = &file[LEDGER_SLOT_OFFSET + index * LEDGER_SLOT_BYTES..][..LEDGER_SLOT_BYTES];
        let head: LedgerSlotHeader = bytemuck::pod_read_unaligned(&slot[..32]);
        let end = 32 + head.count as usize * size_of::<LedgerEntry>();
        let valid = head.sequence > 0 && head.crc == crc32c::crc32c(&slot[16..end]);
        let entries = slot[32..end]
            .chunks_exact(size_of::<LedgerEntry>())
            .map(|bytes| {
                let entry: LedgerEntry = bytemuck::pod_read_unaligned(bytes);
                let name = &entry.name[..entry.name_bytes as usize];
                let name = String::from_utf8(name.to_vec()).unwrap();
                (
                    name,
                    Account {
                        counters: entry.counters,
                    },
                )
            });
        valid.then(|| (head, entries.collect()))
    });
    slots.max_by_key(|slot: &(LedgerSlotHeader, Vec<_>)| slot.0.sequence)
}

fn account(path: &Path, name: &str) -> Option<(u64, Account)> {
    let (head, accounts) = read(path)?;
    Some((
        head.state,
        accounts.into_iter().find(|account| account.0 == name)?.1,
    ))
}

#[test]
fn another_process_sees_the_ledger_of_a_running_session() {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .keep_segments(true)
        .start()
        .unwrap();
    let path = session.segment_dir().unwrap().join("ledger");
    let vpn = Category::named("vpn").unwrap();
    for _ in 0..10 {
        assert_eq!(
            session.log().event(vpn, &[Extra::new("a", 1)]),
            Outcome::Kept
        );
    }
    // Published each second; a slow machine may take longer, but not for ever.
    let deadline = Instant::now() + Duration::from_secs(30);
    let written = |path: &Path| account(path, "vpn").map(|vpn| vpn.1.written());
    while written(&path) != Some(10) {
        assert!(
            Instant::now() < deadline,
            "never published: {:?}",
            read(&path)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let (state, live) = account(&path, "vpn").unwrap();
    assert_eq!(
        (state, live.counters[OFFERED], live.counters[WRITTEN]),
        (1, 10, 10)
    );
    session.log().event(vpn, &[]);
    let report = session.close().unwrap();
    let (state, last) = account(&path, "vpn").unwrap();
    assert_eq!(state, 2);
    assert_eq!(last, report.ledger.categories["vpn"]);
    assert_eq!(account(&path, "session").unwrap().1.written(), 2);
}
