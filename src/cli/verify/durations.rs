//! The durations that a session tells of at its end: each line against itself, against the ledger,
//! and, where every record was written, against the records in the segments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value as Json;

use crate::durations::{BUCKETS, Histogram};
use crate::error::Error;
use crate::ledger::{Account, Ledger};
use crate::record::{FLAG_LARGE, FieldKind};
use crate::segment::files::SessionFiles;
use crate::segment::layout::BLOCK_DATA;
use crate::segment::records::{Body, RecordRef, Records, ValueRef};
use crate::segment::registry::{Registry, Schema};

/// Sentences about the lines of one session.
const FAULTS_MAX: usize = 8;

/// Category, record type and operation.
type Key = (String, String, Option<String>);

/// Number, sum and longest in ns.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    total_ns: u64,
    longest_ns: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

/// What the lines tell.
#[derive(Clone, Debug, Default)]
pub struct Told {
    sums: BTreeMap<Key, Sum>,
    by_category: BTreeMap<String, u64>,
    total: u64,
    /// Lines that contradict themselves, as sentences.
    pub faults: Vec<String>,
}

impl Told {
    /// Takes a line with the event `durations`.
    pub fn line(&mut self, line: &Json) {
        let text = |name: &str| line.get(name).and_then(Json::as_str).map(str::to_owned);
        let (category, record, operation) = (text("category"), text("record"), text("operation"));
        let name = operation.as_deref().or(record.as_deref());
        let name = name.unwrap_or("several operations").to_owned();
        let count = line.get("count").and_then(Json::as_u64).unwrap_or(0);
        self.total = self.total.saturating_add(count);
        if let Some(category) = &category {
            let sum = self.by_category.entry(category.clone()).or_default();
            *sum = sum.saturating_add(count);
        }
        if let Err(what) = check_line(line, count)
            && self.faults.len() < FAULTS_MAX
        {
            self.faults.push(format!(
                "the durations of {name} contradict themselves: {what}"
            ));
        }
        let other = line.get("other").and_then(Json::as_bool) != Some(false);
        if let (Some(category), Some(record), false) = (category, record, other) {
            let sum = Sum {
                count,
                total_ns: nanos(line, "sum_ms").unwrap_or(u64::MAX),
                longest_ns: nanos(line, "max_ms").unwrap_or(u64::MAX),
            };
            let key = (category, record, operation);
            self.sums.entry(key).or_default().add(sum);
        }
    }

    /// What does not fit the ledger or the records, as sentences.
    pub fn check(&self, ledger: &Ledger, found: Option<(&Found, &Registry)>) -> Vec<String> {
        let mut faults = self.faults.clone();
        let account = |name: &str| ledger.categories.get(name).copied().unwrap_or_default();
        for (category, count) in &self.by_category {
            let offered = account(category).offered();
            if *count > offered {
                faults.push(format!(
                    "{count} durations of {category} are told, and {offered} records were offered"
                ));
            }
        }
        let offered = ledger.total().offered();
        if self.total > offered {
            let total = self.total;
            faults.push(format!(
                "{total} durations are told, and {offered} records were offered"
            ));
        }
        let Some((found, registry)) = found else {
            return faults;
        };
        let counted = found.named(&self.sums, registry);
        for (key, told) in &self.sums {
            let (category, record, operation) = key;
            let Some(counted) = counted.get(key) else {
                continue;
            };
            let agrees = counted.count == told.count
                && is_close(counted.total_ns, told.total_ns)
                && is_close(counted.longest_ns, told.longest_ns);
            if is_whole(&account(category)) && !agrees && faults.len() < FAULTS_MAX {
                let name = operation.as_deref().unwrap_or(record);
                faults.push(format!(
                    "the durations of {name} are {} of {} ns in all and {} ns at most, the records \
                     in the segments have {} of {} ns and {} ns",
                    told.count,
                    told.total_ns,
                    told.longest_ns,
                    counted.count,
                    counted.total_ns,
                    counted.longest_ns
                ));
            }
        }
        faults
    }
}

/// Whether every record of a category was written.
fn is_whole(account: &Account) -> bool {
    account.written() == account.offered()
}

/// A number of milliseconds with up to 6 decimals, in ns. Numbers of over 2^53 ns are rounded.
fn nanos(line: &Json, name: &str) -> Option<u64> {
    let ms = line.get(name)?.as_f64()?;
    (ms >= 0.0).then_some((ms * 1e6).round() as u64)
}

/// Whether two times are equal but for what a float cannot hold.
fn is_close(a: u64, b: u64) -> bool {
    a.abs_diff(b) as f64 <= 1.0 + a.max(b) as f64 * 1e-12
}

/// Whether the figures of a line fit each other.
fn check_line(line: &Json, count: u64) -> Result<(), String> {
    let histogram = buckets(line)?;
    let in_buckets: u128 = histogram.buckets.iter().map(|n| u128::from(*n)).sum();
    if in_buckets != u128::from(count) {
        return Err(format!("count is {count}, the buckets hold {in_buckets}"));
    }
    // What no number can hold is null.
    let (Some(sum), Some(max)) = (nanos(line, "sum_ms"), nanos(line, "max_ms")) else {
        return Ok(());
    };
    if count == 0 {
        return Ok(());
    }
    let most = u128::from(max) * u128::from(count);
    let slack = 1 + (most >> 40);
    if u128::from(sum) > most + slack || u128::from(sum) + slack < u128::from(max) {
        return Err(format!("{count} of at most {max} ns are {sum} ns in all"));
    }
    let mut of_longest = Histogram::default();
    of_longest.observe(max);
    let last = |histogram: &Histogram| histogram.buckets.iter().rposition(|n| *n > 0);
    if last(&of_longest) != last(&histogram) {
        return Err(format!("the longest, {max} ns, is not in the last bucket"));
    }
    let histogram = Histogram {
        sum_ns: sum,
        max_ns: max,
        ..histogram
    };
    for (name, part) in [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99)] {
        let expected = histogram.quantile(part).map_or(0, |d| d.as_nanos() as u64);
        let said = nanos(line, name);
        if !said.is_some_and(|said| is_close(said, expected)) {
            let expected = Duration::from_nanos(expected);
            return Err(format!("{name} is not the {expected:?} of its buckets"));
        }
    }
    Ok(())
}

/// The field `buckets`.
fn buckets(line: &Json) -> Result<Histogram, String> {
    let one_of_each = Histogram {
        buckets: [1; BUCKETS],
        ..Histogram::default()
    };
    let ends: Vec<Option<u64>> = one_of_each.filled().map(|(end, _)| end).collect();
    let mut histogram = Histogram::default();
    let pairs = line.get("buckets").and_then(Json::as_array);
    let mut from = 0;
    for pair in pairs.ok_or("there are no buckets")? {
        let end = pair.get(0).map(Json::as_u64);
        let count = pair.get(1).and_then(Json::as_u64);
        let index = end.and_then(|end| ends.iter().position(|other| *other == end));
        let (Some(index), Some(count)) = (index.filter(|index| *index >= from), count) else {
            return Err(format!("{pair} is no bucket, or not in order"));
        };
        from = index + 1;
        if let Some(bucket) = histogram.buckets.get_mut(index) {
            *bucket = count;
        }
    }
    Ok(histogram)
}

/// What the records in the segments have. By ids: names would take more memory than records.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By schema and symbol.
    sums: BTreeMap<(u16, Option<u32>), Sum>,
    /// Schemas of which some records are not counted here: their bodies are elsewhere, or cannot
    /// be read.
    partial: BTreeSet<u16>,
}

impl Found {
    /// Goes through the records of a session.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read(files: &SessionFiles, registry: &Registry) -> Result<Self, Error> {
        let mut found = Self::default();
        for file in &files.segments {
            let mut reader = match file.reader() {
                Err(Error::Corrupt { .. }) => continue,
                other => other?,
            };
            while let Some(block) = reader.next_block()? {
                if block.header.kind == BLOCK_DATA {
                    Records::new(block.payload).for_each(|record| found.record(registry, &record));
                }
            }
        }
        Ok(found)
    }

    fn record(&mut self, registry: &Registry, record: &RecordRef<'_>) {
        let Some(schema) = registry.schema(record.header.schema) else {
            return;
        };
        let mut kinds = schema.fields.iter().map(|field| field.field_type.kind);
        if !kinds.any(FieldKind::is_duration) {
            return;
        }
        let is_large = record.header.flags & FLAG_LARGE != 0;
        match timed(schema, record).filter(|_| !is_large) {
            Some(Timed::Symbol(symbol, ns)) => {
                let sum = Sum {
                    count: 1,
                    total_ns: ns,
                    longest_ns: ns,
                };
                self.sums.entry((schema.id, symbol)).or_default().add(sum);
            }
            // Texts that are no symbols count together, in a line of their own.
            Some(Timed::None | Timed::Text) => {}
            None => drop(self.partial.insert(schema.id)),
        }
    }

    /// The sums of these keys; those of which not every record is counted here are missing.
    fn named(&self, told: &BTreeMap<Key, Sum>, registry: &Registry) -> BTreeMap<Key, Sum> {
        let mut named: BTreeMap<Key, Sum> = BTreeMap::new();
        let name = |schema: u16| {
            let schema = registry.schema(schema)?;
            Some((registry.category(schema.category)?, schema.name.as_str()))
        };
        let partial: BTreeSet<_> = self.partial.iter().filter_map(|id| name(*id)).collect();
        let whole = |key: &&Key| !partial.contains(&(key.0.as_str(), key.1.as_str()));
        named.extend(
            told.keys()
                .filter(whole)
                .map(|key| (key.clone(), Sum::default())),
        );
        for ((schema, symbol), sum) in &self.sums {
            let operation = symbol.and_then(|id| registry.symbol(id)).map(str::to_owned);
            let key = name(*schema);
            let key = key.map(|(category, name)| (category.to_owned(), name.to_owned(), operation));
            if let Some(entry) = key.and_then(|key| named.get_mut(&key)) {
                entry.add(*sum);
            }
        }
        named
    }
}

/// What the aggregates count of a record: its first duration, under its first symbol.
enum Timed {
    None,
    /// The operation is a text.
    Text,
    /// Operation and ns.
    Symbol(Option<u32>, u64),
}

/// `None` when the record cannot be read.
fn timed(schema: &Schema, record: &RecordRef<'_>) -> Option<Timed> {
    let mut body = Body::new(record.body, schema.fixed_bytes).ok()?;
    let (mut operation, mut duration) = (None, None);
    for field in &schema.fields {
        let kind = field.field_type.kind;
        let value = body.value(field.field_type).ok()?;
        if kind.is_symbol() {
            operation.get_or_insert(value);
        } else if kind.is_duration() {
            duration.get_or_insert(value);
        }
    }
    Some(match (operation, duration) {
        (_, None | Some(ValueRef::Null)) => Timed::None,
        (Some(ValueRef::Text(_)), _) => Timed::Text,
        (Some(ValueRef::Symbol(id)), Some(ValueRef::Duration(ns, _))) => {
            Timed::Symbol(Some(id), ns)
        }
        (_, Some(ValueRef::Duration(ns, _))) => Timed::Symbol(None, ns),
        _ => Timed::None,
    })
}
