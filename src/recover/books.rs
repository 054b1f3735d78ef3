//! The ledger of a recovered session, and its last record.

use std::collections::BTreeMap;
use std::time::Duration;

use super::covered::Covered;
use super::output::NewSegment;
use crate::durations::Durations;
use crate::error::Error;
use crate::ledger::{Account, DropReason, INTERRUPTED, Ledger, OFFERED, WRITTEN};
use crate::record::{
    CATEGORY_SESSION, DurationMs, Json, Record, SCHEMAS_MAX, SchemaIds, ShortText, Text,
    align_record, category_name, whole,
};
use crate::segment::entry::Entry;
use crate::segment::layout::{BLOCK_DATA, BLOCK_LARGE, FileHeader, PHASE_CLOSING};
use crate::segment::writer::BlockInfo;
use crate::sys::process::{Identity, boot_id};
use crate::writer::OperationEnd;

crate::record! {
    /// Last record of a session whose process died.
    pub(super) struct SessionRecovered in "session" keep Always {
        /// `session_end`.
        event: ShortText,
        /// Why the session ended, as far as that is known.
        reason: ShortText,
        /// True: the process did not write this itself.
        recovered: bool,
        /// From the start to the last record.
        duration_ms: DurationMs<2>,
        /// Records that were only in rings.
        from_rings: u64,
        /// Records that were only in the spill.
        from_spill: u64,
        /// The ledger, this record included.
        ledger: Option<Json>,
        /// What is not known, as a sentence; null when nothing is missing.
        fault: Option<Text>,
    }
}

/// The counts of a dead session by category.
///
/// `counted`: what its producers counted, by category id; `damaged`: something in its files cannot
/// be read, so what is missing may have been written.
pub(super) fn ledger(
    counted: impl IntoIterator<Item = (u8, Account)>,
    written: &BTreeMap<u16, u64>,
    covered: &Covered,
) -> Ledger {
    let mut accounts: BTreeMap<u8, Account> = BTreeMap::new();
    for (id, account) in counted {
        accounts.entry(id).or_default().add(&account);
    }
    for account in accounts.values_mut() {
        if let Some(count) = account.counters.get_mut(WRITTEN) {
            *count = 0;
        }
    }
    for (schema, records) in written {
        if let Some(schema) = covered.registry.schema(*schema) {
            let account = accounts.entry(schema.category).or_default();
            add(account, WRITTEN, *records);
        }
    }
    let mut ledger = Ledger::default();
    for (id, mut account) in accounts {
        settle(&mut account, covered.damaged);
        if account == Account::default() {
            continue;
        }
        let name = covered.registry.category(id).or_else(|| category_name(id));
        let sum = ledger.categories.entry(name.unwrap_or("?").to_owned());
        sum.or_default().add(&account);
    }
    ledger
}

fn add(account: &mut Account, counter: usize, count: u64) {
    if let Some(counter) = account.counters.get_mut(counter) {
        *counter = counter.saturating_add(count);
    }
}

/// Makes an account add up.
fn settle(account: &mut Account, damaged: bool) {
    // The writer counts what it sheds before it frees the bytes. Killed in between, the record is
    // still in its ring, and saved.
    let disk = DropReason::Disk.counter();
    let known = account.written().saturating_add(account.sampled_out());
    let known = known
        .saturating_add(account.dropped_total())
        .saturating_add(account.interrupted());
    let excess = known.saturating_sub(account.offered());
    if let Some(counter) = account.counters.get_mut(disk) {
        *counter = counter.saturating_sub(excess);
    }
    account.settle();
    let missing = account.pending();
    let counter = if damaged {
        DropReason::Damaged.counter()
    } else {
        INTERRUPTED
    };
    add(account, counter, missing);
}

/// Adds the last records of the session, `records` of them; the very last one tells the ledger and
/// counts itself.
pub(super) fn count_end(ledger: &mut Ledger, records: u64) {
    let session = ledger.categories.entry("session".to_owned()).or_default();
    add(session, OFFERED, records);
    add(session, WRITTEN, records);
}

/// Whether the machine is not the same boot any more, as far as that is known.
pub(crate) fn is_restarted(header: &FileHeader) -> bool {
    boot_id().is_some_and(|boot| header.boot_id != [0; 16] && header.boot_id != boot)
}

/// Why the session ended, as far as its files tell. `phase`: that of its ring storage.
pub(super) fn reason(header: &FileHeader, phase: Option<u64>) -> &'static str {
    let here = Identity::read();
    let differs = |there: u64, here: u64| there != 0 && here != 0 && there != here;
    if is_restarted(header) {
        "machine_restarted"
    } else if phase == Some(PHASE_CLOSING) {
        "process_died_closing"
    } else if differs(header.pid_namespace, here.pid_namespace) {
        "process_died_in_other_pid_namespace"
    } else {
        "process_died"
    }
}

/// What the last record says.
pub(super) struct End<'a> {
    pub(super) reason: &'a str,
    pub(super) ledger: &'a Ledger,
    pub(super) from_rings: u64,
    pub(super) from_spill: u64,
    pub(super) fault: Option<&'a str>,
}

/// Writes the records about durations that the process did not write.
pub(super) fn write_durations(
    durations: &[(Durations, String)],
    covered: &mut Covered,
    out: &mut NewSegment,
) -> Result<(), Error> {
    let mut ids = None;
    for (one, buckets) in durations {
        let record = OperationEnd::of(one, buckets);
        if ids.is_none() {
            ids = register(&record, covered, out)?;
        }
        let Some(ids) = ids else {
            return no_room("durations", covered);
        };
        write(&record, ids, covered, out)?;
    }
    Ok(())
}

/// Writes the record that ends the session, with its schema under an id that is free.
pub(super) fn write_end(
    end: &End<'_>,
    covered: &mut Covered,
    out: &mut NewSegment,
) -> Result<(), Error> {
    let json = end.ledger.to_json().to_string();
    let start = out.header.start_ticks;
    let ticks = covered.max_ticks.max(start);
    let rate = u128::from(out.header.ticks_per_second.max(1));
    let ns = u128::from(ticks.saturating_sub(start)).saturating_mul(1_000_000_000);
    let ns = u64::try_from(ns.checked_div(rate).unwrap_or(0)).unwrap_or(u64::MAX);
    let record = SessionRecovered {
        event: "session_end",
        reason: end.reason,
        recovered: true,
        duration_ms: Duration::from_nanos(ns),
        from_rings: end.from_rings,
        from_spill: end.from_spill,
        ledger: Some(&json),
        fault: end.fault,
    };
    match register(&record, covered, out)? {
        Some(ids) => write(&record, ids, covered, out),
        None => no_room("session_end", covered),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the end of a function that can fail"
)]
fn no_room(what: &str, covered: &mut Covered) -> Result<(), Error> {
    let fault = format!("the registry has no room for the schema of {what}");
    covered.faults.push(fault);
    Ok(())
}

/// Writes a record of the session itself: of ring 0.
fn write(
    record: &impl Record,
    ids: SchemaIds,
    covered: &mut Covered,
    out: &mut NewSegment,
) -> Result<(), Error> {
    let ticks = covered.max_ticks.max(out.header.start_ticks);
    let mut body = whole::body(record);
    let (payload, large) = whole::record(ids.schema, ticks, &body);
    let position = covered.rings.get(&0).copied().unwrap_or(0);
    let next_pos = position.saturating_add(payload.len() as u64);
    covered.rings.insert(0, next_pos);
    let info = BlockInfo {
        records: 1,
        first_pos: position,
        next_pos: position,
        min_ticks: ticks,
        max_ticks: ticks,
        ..BlockInfo::default()
    };
    if large.is_some() {
        body.resize(align_record(body.len()), 0);
        let kind = BLOCK_LARGE;
        out.block(BlockInfo { kind, ..info }, &body)?;
    }
    let kind = BLOCK_DATA;
    out.block(
        BlockInfo {
            kind,
            next_pos,
            ..info
        },
        &payload,
    )?;
    out.count(ids.schema);
    Ok(())
}

/// Gives the record a schema id in the session; `None` when there is none left.
fn register(
    record: &impl Record,
    covered: &mut Covered,
    out: &mut NewSegment,
) -> Result<Option<SchemaIds>, Error> {
    let registry = &mut covered.registry;
    let named = registry.categories().find(|(_, name)| *name == "session");
    let category = named.map_or(CATEGORY_SESSION, |(id, _)| id);
    let free = (1..SCHEMAS_MAX as u16).rev();
    let Some(schema) = free.into_iter().find(|id| registry.schema(*id).is_none()) else {
        return Ok(None);
    };
    let ids = SchemaIds { schema, category };
    let def = record.schema();
    let entries = [
        Entry::Category(category, "session"),
        Entry::schema(ids, def),
    ];
    for entry in entries {
        let mut bytes = Vec::new();
        entry.append(&mut bytes);
        let before = registry.rejected;
        registry.add_block(&bytes);
        if registry.rejected != before {
            return Ok(None);
        }
        out.entry(&bytes)?;
    }
    Ok(Some(ids))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::SAMPLED_OUT;

    const SCHEMA: u16 = 7;
    const DISK: usize = DropReason::Disk.counter();
    const DAMAGED: usize = DropReason::Damaged.counter();

    fn account(counts: &[(usize, u64)]) -> Account {
        let mut account = Account::default();
        for (counter, count) in counts {
            account.counters[*counter] = *count;
        }
        account
    }

    /// The account of a dead session of one category.
    fn account_of(counted: &[(usize, u64)], written: u64, damaged: bool) -> Account {
        let mut covered = Covered {
            damaged,
            ..Covered::default()
        };
        let ids = SchemaIds {
            schema: SCHEMA,
            category: CATEGORY_SESSION,
        };
        let def = SessionRecovered::default().schema();
        let entries = [
            Entry::Category(ids.category, "session"),
            Entry::schema(ids, def),
        ];
        for entry in entries {
            let mut bytes = Vec::new();
            entry.append(&mut bytes);
            covered.registry.add_block(&bytes);
        }
        assert_eq!(covered.registry.rejected, 0);
        let counted = [(CATEGORY_SESSION, account(counted))];
        let written = BTreeMap::from([(SCHEMA, written)]);
        let ledger = ledger(counted, &written, &covered);
        assert!(ledger.is_exact(), "{ledger:?}");
        assert_eq!(ledger.categories.len(), 1);
        ledger.categories["session"]
    }

    #[test]
    fn what_is_missing_was_interrupted_or_damaged() {
        // What its process counted as written is no proof that it is there.
        let counted = [(OFFERED, 10), (SAMPLED_OUT, 1), (DISK, 2), (WRITTEN, 9)];
        for (damaged, counter) in [(false, INTERRUPTED), (true, DAMAGED)] {
            let expected = [
                (OFFERED, 10),
                (SAMPLED_OUT, 1),
                (DISK, 2),
                (WRITTEN, 4),
                (counter, 3),
            ];
            assert_eq!(account_of(&counted, 4, damaged), account(&expected));
        }
    }

    /// Its process was killed after it had counted them and before it freed their bytes.
    #[test]
    fn shed_records_that_were_saved_are_not_counted_twice() {
        for (shed, left) in [(3, 2), (1, 0)] {
            let counted = [(OFFERED, 9 + left), (DISK, shed)];
            let expected = [(OFFERED, 9 + left), (DISK, left), (WRITTEN, 9)];
            assert_eq!(account_of(&counted, 9, false), account(&expected));
        }
    }

    /// The ledger of rings that are lost is a little old.
    #[test]
    fn what_was_written_was_offered() {
        let expected = [(OFFERED, 9), (SAMPLED_OUT, 2), (WRITTEN, 7)];
        let counted = [(OFFERED, 4), (SAMPLED_OUT, 2)];
        assert_eq!(account_of(&counted, 7, false), account(&expected));
    }
}
