//! What a conversion found.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::ledger::{Account, DROP_REASONS, INTERRUPTED, Ledger, OFFERED, SAMPLED_OUT, WRITTEN};
use crate::segment::clock::Time;
use crate::session::ConvertedFile;

/// Faults of one kind that are named one by one; the rest is counted.
const FAULTS_MAX: usize = 100;

/// What could not be read of the segments of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Bytes between whole blocks, and from the first damage on where it was not passed.
    pub bytes: u64,
    /// Blocks without seals; `None` where a damaged segment has no seal that counts them.
    pub blocks: Option<u64>,
    /// Records in data blocks; `None` as for blocks.
    pub records: Option<u64>,
}

impl Default for LeftOut {
    fn default() -> Self {
        Self {
            bytes: 0,
            blocks: Some(0),
            records: Some(0),
        }
    }
}

/// What a conversion wrote, and what is not as it should be.
#[derive(Clone, Debug, Default)]
pub struct ConvertReport {
    /// Session id.
    pub session_id: String,
    /// Files written, by category; for a conversion to a [`LineSink`](super::LineSink) the path
    /// is the name that the file would have.
    pub files: Vec<ConvertedFile>,
    /// Recounted from the blocks: `written` is lines, `dropped{damaged}` unreadable records of a
    /// known category. The other counters are 0.
    pub counted: Ledger,
    /// By category: how many offered records the lines stand for, the sum of their
    /// `sample_weight`. Dropped records are not in it. docs/SAMPLING.md tells how exact it is.
    pub estimated: BTreeMap<String, f64>,
    /// The ledger that the session closed with, from its `session_end`.
    pub ledger: Option<Ledger>,
    /// What is not as it should be, as sentences; empty when all is well.
    pub faults: Vec<String>,
    /// What could not be read.
    pub left_out: LeftOut,
    /// Lines written.
    pub lines: u64,
    /// Secrets that were replaced in them.
    pub redacted: u64,
    /// Unreadable records whose category is not known.
    pub damaged_unknown: u64,
    /// Valid blocks without seals.
    pub blocks: u64,
    /// Records found in data blocks.
    pub records: u64,
    /// Bytes of all segments.
    pub segment_bytes: u64,
    /// Whether the session was closed: its last segment carries the last seal.
    pub sealed: bool,
    /// UTC of the start of the session, ns since 1970.
    pub started_utc_ns: u64,
    /// Time of the first and of the last record.
    pub span: Option<(Time, Time)>,
}

impl ConvertReport {
    /// Compares the ledger of the session with what was counted.
    pub(super) fn compare(&mut self) {
        let damaged = self.counted.total().dropped_total() + self.damaged_unknown;
        if damaged > 0 {
            self.faults.push(format!("{damaged} records are damaged"));
        }
        let Some(ledger) = &self.ledger else {
            let fault = "there is no readable session_end: the final counts are not known";
            return self.faults.push(fault.to_owned());
        };
        let mut names: Vec<&String> = ledger.categories.keys().collect();
        names.extend(self.counted.categories.keys());
        names.sort_unstable();
        names.dedup();
        for name in names {
            let account =
                |ledger: &Ledger| ledger.categories.get(name).copied().unwrap_or_default();
            let (said, counted) = (account(ledger), account(&self.counted));
            let found = counted.written() + counted.dropped_total();
            // `session_end` itself is written after its ledger was made.
            let tolerated = name == "session" && said.written() + 1 == found;
            if said.written() != found && !tolerated {
                self.faults.push(format!(
                    "{name}: session_end counts {} records written, {found} were found",
                    said.written()
                ));
            }
            if !said.is_exact() {
                self.faults.push(format!(
                    "{name}: the counts of session_end do not add up to the offered records"
                ));
            }
        }
    }
}

/// A ledger from the object that [`Ledger::to_json`] makes. Counters that are missing are 0;
/// `None` when it is no such object.
pub fn parse_ledger(json: &Json) -> Option<Ledger> {
    let mut ledger = Ledger::default();
    for (name, counts) in json.as_object()? {
        let counts = counts.as_object()?;
        let count = |name: &str| counts.get(name).and_then(Json::as_u64).unwrap_or(0);
        let mut account = Account::default();
        account.counters[OFFERED] = count("offered");
        account.counters[WRITTEN] = count("written");
        account.counters[SAMPLED_OUT] = count("sampled_out");
        account.counters[INTERRUPTED] = count("interrupted");
        let dropped = counts.get("dropped").and_then(Json::as_object);
        for reason in DROP_REASONS {
            let count = dropped.and_then(|dropped| dropped.get(reason.name()));
            account.counters[reason.counter()] = count.and_then(Json::as_u64).unwrap_or(0);
        }
        ledger.categories.insert(name.clone(), account);
    }
    Some(ledger)
}

/// The ledger in a line of the category `session`, if it is that of `session_end`.
pub(super) fn ledger_of_line(line: &[u8]) -> Option<Ledger> {
    const MARK: &[u8] = b"\"session_end\"";
    if !line.windows(MARK.len()).any(|window| window == MARK) {
        return None;
    }
    let json: Json = serde_json::from_slice(line).ok()?;
    (json.get("event")?.as_str()? == "session_end").then_some(())?;
    parse_ledger(json.get("ledger")?)
}

/// Sentences, not without bound.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub sentences: Vec<String>,
    more: u64,
}

impl Faults {
    pub(super) fn add(&mut self, sentence: String) {
        if self.sentences.len() < FAULTS_MAX {
            self.sentences.push(sentence);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.sentences
                .push(format!("and {} more faults", self.more));
        }
        self.sentences
    }
}
