//! Records of the session about durations, one per operation, written when it ends.

use std::time::{Duration, Instant};

use super::own::OwnRecord;
use super::{LAST_WAIT, Writer};
use crate::durations::{BUCKETS, Durations};
use crate::record::{CATEGORY_BYTES_MAX, DurationMs, Json, ShortText, Text};
use crate::ring::SLOT_OTHER;
use crate::segment::layout::block_bytes;

crate::record! {
    /// Durations of one operation: of all records that were offered.
    pub(crate) struct OperationEnd in "session" keep Always {
        /// `durations`.
        event: ShortText,
        /// Category of the records; null where they are of several.
        category: Option<ShortText>,
        /// Name of the record type; null where there are several.
        record: Option<ShortText>,
        /// The operation; null without one.
        operation: Option<Text<1024>>,
        /// Several operations: texts that are no symbols, or more than there are slots for.
        other: bool,
        /// How many durations were offered.
        count: u64,
        /// Their sum.
        sum_ms: DurationMs<6>,
        /// The longest.
        max_ms: DurationMs<6>,
        /// Half of them are not longer, to 20 %.
        p50_ms: DurationMs<6>,
        /// 90 % of them are not longer, to 20 %.
        p90_ms: DurationMs<6>,
        /// 99 % of them are not longer, to 20 %.
        p99_ms: DurationMs<6>,
        /// Pairs of an upper bound in ns (null: none) and how many lie below it and not below
        /// the bound before.
        buckets: Option<Json>,
    }
}

/// What a record takes in a segment beside its body, at most: block header, record header and
/// padding.
const OVERHEAD_BYTES: usize = block_bytes(32);
/// The longest record in a segment: slots, `durations`, names, and buckets of a bound, a number
/// and four more characters each.
const RECORD_BYTES_MAX: usize =
    OVERHEAD_BYTES + 64 + 9 + CATEGORY_BYTES_MAX + 254 + 1024 + 2 + BUCKETS * (12 + 20 + 4);
/// What all of them take, at most, with room for looking whether the last one fits.
pub(super) const DURATIONS_BYTES_MAX: usize = (SLOT_OTHER + 2) * RECORD_BYTES_MAX;

impl Writer {
    /// Writes one record per operation. Waits for a segment that holds them all, as the last drain
    /// does.
    pub(super) fn write_durations(&mut self) {
        let all = self.core.durations();
        let buckets: Vec<String> = all.iter().map(OperationEnd::buckets).collect();
        let records = || {
            all.iter()
                .zip(&buckets)
                .map(|(one, json)| OperationEnd::of(one, json))
        };
        let bytes = records().map(|record| OVERHEAD_BYTES + record.body().len());
        let room = bytes.clone().sum::<usize>() + bytes.max().unwrap_or(0);
        debug_assert!(room <= DURATIONS_BYTES_MAX, "{room}");
        let deadline = Instant::now() + LAST_WAIT;
        while room > 0 && !self.segments.ensure(room) {
            if self.segments.trouble.is_some() || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        records().for_each(|record| self.write_own(&record));
    }
}

impl<'a> OperationEnd<'a> {
    /// The record about these durations; `buckets` is what [`buckets`](Self::buckets) says.
    pub(crate) fn of(durations: &'a Durations, buckets: &'a str) -> Self {
        let histogram = &durations.histogram;
        let quantile = |q| histogram.quantile(q).unwrap_or_default();
        Self {
            event: "durations",
            category: durations.category.as_deref(),
            record: durations.record.as_deref(),
            operation: durations.operation.as_deref(),
            other: durations.other,
            count: histogram.count(),
            sum_ms: Duration::from_nanos(histogram.sum_ns),
            max_ms: Duration::from_nanos(histogram.max_ns),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            buckets: Some(buckets),
        }
    }
}

impl OperationEnd<'_> {
    /// The filled buckets, as JSON.
    pub(crate) fn buckets(durations: &Durations) -> String {
        let pairs = durations.histogram.filled().map(|(end, count)| {
            let end = end.map_or_else(|| "null".to_owned(), |end| end.to_string());
            format!("[{end},{count}]")
        });
        let pairs: Vec<String> = pairs.collect();
        format!("[{}]", pairs.join(","))
    }
}
