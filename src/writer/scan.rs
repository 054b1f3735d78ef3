//! Walking over drained records: counting them per category, the independent half of the ledger,
//! and finding where a block has to end.

use crate::record::{
    CATEGORIES_MAX, FLAG_LARGE, HEADER_BYTES, LARGE_RECORD_BYTES, LargeReference, RECORD_ALIGN,
    RecordHeader, SCHEMA_PADDING, SCHEMAS_MAX, SchemaDef, schema,
};
use crate::segment::layout::DATA_BYTES_MAX;

/// What a run of ring bytes holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Bytes of records from the start of the run: the payload of the block.
    pub(crate) payload: usize,
    /// Bytes of the run that the block covers, with padding at the end.
    pub(crate) covered: usize,
    pub(crate) records: u32,
    pub(crate) min_ticks: u64,
    pub(crate) max_ticks: u64,
    /// The first record, if its body lies in chunks.
    pub(crate) large: Option<LargeReference>,
    /// The bytes behind `covered` are not records: the ring was overwritten by somebody.
    pub(crate) damaged: bool,
}

/// Counts records per category while it scans.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// Category of each schema id; `NONE` = not looked up yet.
    categories: Box<[u16]>,
    counts: [u32; CATEGORIES_MAX],
    /// Categories with a count are below this.
    counts_end: usize,
}

const NONE: u16 = u16::MAX;

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            categories: vec![NONE; SCHEMAS_MAX].into(),
            counts: [0; CATEGORIES_MAX],
            counts_end: 0,
        }
    }

    /// Scans a run up to the end of one block: at most [`DATA_BYTES_MAX`] bytes of records, and a
    /// large record only as the first one.
    pub(crate) fn scan(&mut self, run: &[u8]) -> Scan {
        let mut scan = Scan {
            min_ticks: u64::MAX,
            ..Scan::default()
        };
        let mut at = 0;
        while let Some(word) = run.get(at..at + RECORD_ALIGN) {
            let bytes = usize::from(u16::from_le_bytes([word[0], word[1]])) * RECORD_ALIGN;
            let id = u16::from_le_bytes([word[2], word[3]]);
            if id == SCHEMA_PADDING && bytes > 0 && bytes <= run.len() - at {
                at += bytes;
                scan.covered = at;
                continue;
            }
            let category = self.category(id);
            if bytes < HEADER_BYTES || bytes > run.len() - at || category == NONE {
                scan.damaged = true;
                break;
            }
            if at + bytes > DATA_BYTES_MAX {
                break;
            }
            let header: RecordHeader = bytemuck::pod_read_unaligned(&run[at..at + HEADER_BYTES]);
            if header.flags & FLAG_LARGE != 0 {
                if at > 0 {
                    break;
                }
                if bytes != LARGE_RECORD_BYTES {
                    scan.damaged = true;
                    break;
                }
                let reference = &run[HEADER_BYTES..LARGE_RECORD_BYTES];
                scan.large = Some(bytemuck::pod_read_unaligned(reference));
            }
            self.counts[usize::from(category)] += 1;
            self.counts_end = self.counts_end.max(usize::from(category) + 1);
            scan.records += 1;
            scan.min_ticks = scan.min_ticks.min(header.ticks());
            scan.max_ticks = scan.max_ticks.max(header.ticks());
            at += bytes;
            scan.payload = at;
            scan.covered = at;
        }
        if scan.records == 0 {
            scan.min_ticks = 0;
        }
        scan
    }

    /// Calls `visit` with the records per category since the last call.
    pub(crate) fn take_counts(&mut self, mut visit: impl FnMut(u8, u64)) {
        for (category, count) in self.counts[..self.counts_end].iter_mut().enumerate() {
            if *count > 0 {
                visit(category as u8, u64::from(std::mem::take(count)));
            }
        }
        self.counts_end = 0;
    }

    #[inline]
    fn category(&mut self, id: u16) -> u16 {
        match self.categories.get(usize::from(id)) {
            Some(&NONE) => self.look_up(id),
            Some(category) => *category,
            None => NONE,
        }
    }

    #[cold]
    fn look_up(&mut self, id: u16) -> u16 {
        let Some(ids) = schema(id).and_then(SchemaDef::ids) else {
            return NONE;
        };
        self.categories[usize::from(id)] = u16::from(ids.category);
        u16::from(ids.category)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Category;

    fn record(bytes: usize, flags: u8, ticks: u64) -> Vec<u8> {
        let schema = Category::custom().schema().ids().unwrap().schema;
        let header = RecordHeader::new(bytes, schema, flags, 0, ticks);
        let mut record = bytemuck::bytes_of(&header).to_vec();
        record.resize(bytes, 0);
        record
    }

    fn padding(bytes: usize) -> Vec<u8> {
        let mut padding = vec![0; bytes];
        padding[0] = (bytes / 4) as u8;
        padding
    }

    #[test]
    fn counts_records_and_leaves_padding_out_of_the_payload() {
        let run = [record(20, 0, 7), record(16, 0, 5), padding(12)].concat();
        let mut scanner = Scanner::new();
        let scan = scanner.scan(&run);
        assert_eq!((scan.payload, scan.covered, scan.records), (36, 48, 2));
        assert_eq!(
            (scan.min_ticks, scan.max_ticks, scan.damaged),
            (5, 7, false)
        );
        let mut counts = Vec::new();
        scanner.take_counts(|category, count| counts.push((category, count)));
        assert_eq!(counts, [(crate::record::CATEGORY_CUSTOM, 2)]);
        scanner.take_counts(|_, _| panic!("counts were taken"));
    }

    #[test]
    fn block_ends_before_the_limit_and_before_a_large_record() {
        let mut scanner = Scanner::new();
        let run: Vec<u8> = (0..3).flat_map(|_| record(32_000, 0, 1)).collect();
        assert_eq!(scanner.scan(&run).covered, 64_000);
        let run = [record(16, 0, 1), record(LARGE_RECORD_BYTES, FLAG_LARGE, 2)].concat();
        assert_eq!(scanner.scan(&run).covered, 16);
        let scan = scanner.scan(&run[16..]);
        assert_eq!(
            (scan.covered, scan.large),
            (24, Some(LargeReference::default()))
        );
    }

    #[test]
    fn bytes_that_are_no_records_stop_the_scan() {
        let mut scanner = Scanner::new();
        for bad in [vec![0; 16], vec![0xff; 16], padding(20)[..16].to_vec()] {
            let run = [record(16, 0, 1), bad].concat();
            let scan = scanner.scan(&run);
            assert!(scan.damaged);
            assert_eq!(scan.covered, 16);
        }
    }
}
