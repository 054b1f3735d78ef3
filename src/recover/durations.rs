//! The durations of a dead process: its cells lie in the ring storage, and become the records that
//! it would have written when it closed the session.

use std::collections::HashMap;

use super::storage::Leftover;
use crate::durations::Durations;
use crate::error::Error;
use crate::record::{HEADER_BYTES, align_record, whole};
use crate::ring::read_aggregates;
use crate::segment::records::RecordRef;
use crate::segment::registry::Registry;
use crate::segment::source::Source;
use crate::writer::OperationEnd;

/// Category and record type of the records about durations.
const CATEGORY: &str = "session";
const RECORD: &str = "OperationEnd";
/// Bodies that are remembered: a session writes fewer.
const WRITTEN_MAX: usize = 1024;

/// Bodies of the records that the process has written already, and how often.
#[derive(Debug, Default)]
pub(super) struct Written(HashMap<Vec<u8>, u32>);

impl Written {
    /// Notes a record, when it is about durations.
    pub(super) fn note(&mut self, registry: &Registry, record: &RecordRef<'_>, bytes: &[u8]) {
        let schema = registry.schema(record.header.schema);
        let schema = schema.filter(|schema| schema.name == RECORD);
        let category = schema.and_then(|schema| registry.category(schema.category));
        if category != Some(CATEGORY) || self.0.len() >= WRITTEN_MAX {
            return;
        }
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default().to_vec();
        let count = self.0.entry(body).or_default();
        *count = count.saturating_add(1);
    }

    /// Whether a record of this body was written; then it was one time less.
    fn take(&mut self, mut body: Vec<u8>) -> bool {
        let length = align_record(HEADER_BYTES.saturating_add(body.len()));
        body.resize(length.saturating_sub(HEADER_BYTES), 0);
        match self.0.get_mut(&body) {
            Some(count) if *count > 0 => {
                *count = count.saturating_sub(1);
                true
            }
            _ => false,
        }
    }
}

/// The durations that the process did not write, and the JSON of their buckets.
pub(super) fn missing<S: Source + ?Sized>(
    leftover: &Leftover<'_, S>,
    registry: &Registry,
    written: &mut Written,
) -> Result<Vec<(Durations, String)>, Error> {
    let area = leftover.aggregates()?;
    let mut all: Vec<Durations> = read_aggregates(&area)
        .into_iter()
        .map(|(key, histogram)| {
            let key = key.unwrap_or(0);
            let operation = key as u32;
            let schema = registry.schema((key >> 32) as u16);
            let category = schema.and_then(|schema| registry.category(schema.category));
            let name = registry.symbol(operation);
            Durations {
                category: category.map(str::to_owned),
                record: schema.map(|schema| schema.name.clone()),
                operation: name.map(str::to_owned),
                // Also one whose records were all left out, so that nobody registered its name.
                other: key == 0 || (operation != 0 && name.is_none()),
                histogram,
            }
        })
        .collect();
    all.sort_by(|a, b| a.name().cmp(&b.name()));
    let with_buckets = all.into_iter().map(|one| {
        let buckets = OperationEnd::buckets(&one);
        (one, buckets)
    });
    let is_missing = |(one, buckets): &(Durations, String)| {
        !written.take(whole::body(&OperationEnd::of(one, buckets)))
    };
    Ok(with_buckets.filter(is_missing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durations::Histogram;
    use crate::record::{Record, SchemaIds};
    use crate::segment::entry::Entry;

    /// The record about one duration of `operation`.
    fn body(operation: &str, ns: u64) -> Vec<u8> {
        let mut histogram = Histogram::default();
        histogram.observe(ns);
        let one = Durations {
            category: Some("requests".to_owned()),
            record: Some("Request".to_owned()),
            operation: Some(operation.to_owned()),
            other: false,
            histogram,
        };
        whole::body(&OperationEnd::of(&one, &OperationEnd::buckets(&one)))
    }

    fn registry(category: &str, ids: SchemaIds) -> Registry {
        let def = OperationEnd::default().schema();
        let mut registry = Registry::default();
        for entry in [
            Entry::Category(ids.category, category),
            Entry::schema(ids, def),
        ] {
            let mut bytes = Vec::new();
            entry.append(&mut bytes);
            registry.add_block(&bytes);
        }
        assert_eq!(registry.rejected, 0);
        registry
    }

    /// Killed in the middle of writing them: those that are there are not written again.
    #[test]
    fn a_record_that_was_written_is_not_missing() {
        let ids = SchemaIds {
            schema: 3,
            category: 20,
        };
        for (category, known) in [(CATEGORY, true), ("requests", false)] {
            let registry = registry(category, ids);
            let mut written = Written::default();
            // Of each length that padding makes.
            for operation in ["a", "ab", "abc", "abcd"] {
                let (bytes, _) = whole::record(ids.schema, 5, &body(operation, 700));
                let record = RecordRef::at(&bytes, 0).unwrap();
                written.note(&registry, &record, &bytes);
                assert!(!written.take(body(operation, 701)));
                assert_eq!(written.take(body(operation, 700)), known);
                assert!(!written.take(body(operation, 700)), "once");
            }
        }
    }
}
