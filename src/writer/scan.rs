//! Walking over drained records: counting them per category, the independent half of the ledger,
//! and finding where a block has to end.

use crate::record::{
    CATEGORIES_MAX, FLAG_EXTRA, FLAG_LARGE, FieldKind, HEADER_BYTES, KeepClass, LARGE_RECORD_BYTES,
    LargeReference, RECORD_ALIGN, RecordHeader, SCHEMA_PADDING, SCHEMAS_MAX, SchemaDef, SchemaIds,
    schema,
};
use crate::segment::layout::DATA_BYTES_MAX;
use crate::sys::prefetch;

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

/// Says the keep class of a schema in this session.
type KeepOf = Box<dyn Fn(SchemaIds, &SchemaDef) -> KeepClass + Send>;

/// Counts records per category while it scans.
pub(crate) struct Scanner {
    keep_of: KeepOf,
    /// Category of each schema id, and [`SAMPLED`]; `NONE` = not looked up yet.
    categories: Box<[u16]>,
    counts: [u32; CATEGORIES_MAX],
    /// Categories with a count are below this.
    counts_end: usize,
    /// Whole part of the weight of each weight id.
    weights: [u64; 256],
    /// Bytes of `Sampled` records times their weight, per category.
    demand: Box<[u64; CATEGORIES_MAX]>,
    /// Records times their weight, per category: offered ones that those drained stand for.
    stands_for: Box<[u64; CATEGORIES_MAX]>,
    /// By schema: about how much longer than the texts of its record a line is.
    line_bytes: Box<[u16]>,
    /// Bytes of the records that were written.
    written: Sizes,
    /// And of those that were scanned since.
    scanned: Sizes,
}

/// Bytes of records, and about those of their lines; both of `Always` records too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) recorded: u64,
    pub(crate) lines: u64,
    pub(crate) always_recorded: u64,
    pub(crate) always_lines: u64,
    /// Number of them.
    pub(crate) always_records: u64,
}

/// What records have in common that are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kind {
    schema: u16,
    flags: u8,
    weight: u8,
}

/// Records of one kind that follow each other.
#[derive(Clone, Copy, Debug, Default)]
struct Same {
    kind: Kind,
    /// As in `Scanner::categories`.
    entry: u16,
    records: u64,
    /// Of the whole records, with what lies in chunks.
    bytes: u64,
}

impl Kind {
    #[inline(always)]
    fn of(header: &RecordHeader) -> Self {
        Self {
            schema: header.schema,
            flags: header.flags,
            weight: header.weight,
        }
    }
}

impl Same {
    fn new(header: &RecordHeader, entry: u16) -> Self {
        Self {
            kind: Kind::of(header),
            entry,
            ..Self::default()
        }
    }

    /// Each of these has a block of its own.
    fn is_large(&self) -> bool {
        self.kind.flags & FLAG_LARGE != 0
    }

    #[inline(always)]
    fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
    }

    /// About how many bytes the lines have, rather more than less: a quarter more for escapes in
    /// texts, and what turns extra fields of few bytes into words. `line_bytes` is what a line of
    /// this schema has beyond its record.
    fn lines(&self, line_bytes: u16) -> u64 {
        const WEIGHT: u64 = 24;
        const EXTRAS_MAX: u64 = 512;
        let flag = |set: bool, bytes: u64| if set { bytes } else { 0 };
        let weight = flag(self.kind.weight > 0, WEIGHT);
        let extras = self.bytes.min(EXTRAS_MAX * self.records) / 2;
        let extras = flag(self.kind.flags & FLAG_EXTRA != 0, extras);
        let each = u64::from(line_bytes) + weight;
        self.bytes + self.bytes / 4 + each * self.records + extras
    }
}

impl Scan {
    /// A record that ends at `end`.
    #[inline(always)]
    fn add(&mut self, end: usize, ticks: u64) {
        self.min_ticks = self.min_ticks.min(ticks);
        self.max_ticks = self.max_ticks.max(ticks);
        self.payload = end;
        self.covered = end;
    }
}

/// How far ahead a scan asks for bytes, which another core has written: so far that they are there
/// when it comes to them.
const PREFETCH_BYTES: usize = 1024;

const NONE: u16 = u16::MAX;
/// Set in an entry of `categories` whose records may be sampled.
const SAMPLED: u16 = 1 << 8;

// Not derived: a closure has no `Debug`, and the tables would be pages.
impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner").finish_non_exhaustive()
    }
}

impl Scanner {
    /// `rates` is the rate table.
    pub(crate) fn new(keep_of: KeepOf, rates: impl Iterator<Item = (u8, f64)>) -> Self {
        let mut weights = std::array::from_fn(|id| if id < 16 { 1 << id } else { 1 });
        for (id, weight) in rates {
            weights[usize::from(id)] = weight as u64;
        }
        Self {
            keep_of,
            categories: vec![NONE; SCHEMAS_MAX].into(),
            counts: [0; CATEGORIES_MAX],
            counts_end: 0,
            weights,
            demand: Box::new([0; CATEGORIES_MAX]),
            stands_for: Box::new([0; CATEGORIES_MAX]),
            line_bytes: vec![0; SCHEMAS_MAX].into(),
            written: Sizes::default(),
            scanned: Sizes::default(),
        }
    }

    /// Scans a run up to the end of one block: at most [`DATA_BYTES_MAX`] bytes of records, and a
    /// large record only as the first one.
    pub(crate) fn scan(&mut self, run: &[u8]) -> Scan {
        let mut scan = Scan {
            min_ticks: u64::MAX,
            ..Scan::default()
        };
        let most = run.len().min(DATA_BYTES_MAX);
        let mut at = 0;
        while let Some(word) = run.get(at..at + RECORD_ALIGN) {
            let bytes = usize::from(u16::from_le_bytes([word[0], word[1]])) * RECORD_ALIGN;
            let id = u16::from_le_bytes([word[2], word[3]]);
            if id == SCHEMA_PADDING && bytes > 0 && bytes <= run.len() - at {
                at += bytes;
                scan.covered = at;
                continue;
            }
            let entry = self.category(id);
            if bytes < HEADER_BYTES || bytes > run.len() - at || entry == NONE {
                scan.damaged = true;
                break;
            }
            if at + bytes > DATA_BYTES_MAX {
                break;
            }
            let header: RecordHeader = bytemuck::pod_read_unaligned(&run[at..at + HEADER_BYTES]);
            let mut whole = bytes;
            if header.flags & FLAG_LARGE != 0 {
                if at > 0 {
                    break;
                }
                if bytes != LARGE_RECORD_BYTES {
                    scan.damaged = true;
                    break;
                }
                let reference = &run[HEADER_BYTES..LARGE_RECORD_BYTES];
                let reference: LargeReference = bytemuck::pod_read_unaligned(reference);
                whole += reference.body_bytes as usize;
                scan.large = Some(reference);
            }
            let mut same = Same::new(&header, entry);
            same.add(whole);
            at += bytes;
            scan.add(at, header.ticks());
            // Most records are as the one before: all that counts them is in registers.
            while let Some(head) = run.get(at..at + HEADER_BYTES) {
                let header: RecordHeader = bytemuck::pod_read_unaligned(head);
                let bytes = header.record_bytes();
                let is_whole = (HEADER_BYTES..=most - at).contains(&bytes);
                if Kind::of(&header) != same.kind || !is_whole || same.is_large() {
                    break;
                }
                prefetch::read(run, at + PREFETCH_BYTES);
                same.add(bytes);
                at += bytes;
                scan.add(at, header.ticks());
            }
            scan.records += same.records as u32;
            self.count(&same);
        }
        if scan.records == 0 {
            scan.min_ticks = 0;
        }
        scan
    }

    /// Counts records of one kind.
    fn count(&mut self, same: &Same) {
        let category = usize::from(same.entry & 0xff);
        let lines = same.lines(self.line_bytes[usize::from(same.kind.schema)]);
        let weight = self.weights[usize::from(same.kind.weight)];
        self.stands_for[category] += same.records * weight;
        if same.entry & SAMPLED != 0 {
            self.demand[category] += same.bytes * weight;
        } else {
            self.scanned.always_recorded += same.bytes;
            self.scanned.always_lines += lines;
            self.scanned.always_records += same.records;
        }
        self.scanned.recorded += same.bytes;
        self.scanned.lines += lines;
        self.counts[category] += same.records as u32;
        self.counts_end = self.counts_end.max(category + 1);
    }

    /// The records at the start of a run that are all `Always`, or all not: their bytes, and which.
    /// Padding goes with what is before it. Nothing is counted. Bytes that are no record end it;
    /// at the start they are taken for `Always`, so that [`scan`](Self::scan) finds them.
    pub(crate) fn same_class(&mut self, run: &[u8]) -> (usize, KeepClass) {
        let mut at = 0;
        let mut class = None;
        while let Some(word) = run.get(at..at + RECORD_ALIGN) {
            let bytes = usize::from(u16::from_le_bytes([word[0], word[1]])) * RECORD_ALIGN;
            let id = u16::from_le_bytes([word[2], word[3]]);
            if bytes == 0 || bytes > run.len() - at {
                break;
            }
            if id != SCHEMA_PADDING {
                let this = match self.category(id) {
                    NONE => break,
                    entry if entry & SAMPLED != 0 => KeepClass::Sampled,
                    _ => KeepClass::Always,
                };
                if *class.get_or_insert(this) != this {
                    break;
                }
            }
            at += bytes;
        }
        match (at, class) {
            (0, _) => (run.len(), KeepClass::Always),
            (at, class) => (at, class.unwrap_or(KeepClass::Always)),
        }
    }

    /// What was scanned since the last call was written: calls `visit` with the records per
    /// category. Returns its sizes.
    pub(crate) fn take_counts(&mut self, visit: impl FnMut(u8, u64)) -> Sizes {
        let scanned = std::mem::take(&mut self.scanned);
        self.written.recorded += scanned.recorded;
        self.written.lines += scanned.lines;
        self.written.always_recorded += scanned.always_recorded;
        self.written.always_lines += scanned.always_lines;
        self.written.always_records += scanned.always_records;
        self.visit_counts(visit);
        scanned
    }

    /// The same for what was not written and will not become lines.
    pub(crate) fn take_unwritten(&mut self, visit: impl FnMut(u8, u64)) {
        self.scanned = Sizes::default();
        self.visit_counts(visit);
    }

    fn visit_counts(&mut self, mut visit: impl FnMut(u8, u64)) {
        for (category, count) in self.counts[..self.counts_end].iter_mut().enumerate() {
            if *count > 0 {
                visit(category as u8, u64::from(std::mem::take(count)));
            }
        }
        self.counts_end = 0;
    }

    /// Bytes of all that was written.
    pub(crate) fn written(&self) -> Sizes {
        self.written
    }

    /// Bytes of `Sampled` records since [`reset_demand`](Self::reset_demand), times their weight,
    /// per category.
    pub(crate) fn demand(&self) -> &[u64; CATEGORIES_MAX] {
        &self.demand
    }

    /// How many offered records stand behind this demand, per category.
    pub(crate) fn stands_for(&self) -> &[u64; CATEGORIES_MAX] {
        &self.stands_for
    }

    /// Begins to sum up the demand anew.
    pub(crate) fn reset_demand(&mut self) {
        self.stands_for.fill(0);
        self.demand.fill(0);
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
        let Some((def, ids)) = schema(id).and_then(|def| Some((def, def.ids()?))) else {
            return NONE;
        };
        let entry = match (self.keep_of)(ids, def) {
            KeepClass::Always => u16::from(ids.category),
            KeepClass::Sampled => u16::from(ids.category) | SAMPLED,
        };
        self.categories[usize::from(id)] = entry;
        self.line_bytes[usize::from(id)] = line_bytes(def);
        entry
    }
}

/// About how many bytes a line has beyond those of its record: the three common fields, names and
/// numbers as text. Texts are as long in the record, and what is fixed in it counts twice.
fn line_bytes(def: &SchemaDef) -> u16 {
    const COMMON: usize = 110;
    let fields = def.fields.iter().map(|field| {
        let value = match field.field_type.kind {
            FieldKind::F32 | FieldKind::F64 | FieldKind::DurationMs => 8,
            FieldKind::Symbol => 20,
            _ => 4,
        };
        field.name.len() + 4 + value
    });
    // Names of extra fields are symbols in the record.
    let extras = if def.is_open() { 30 } else { 0 };
    (COMMON + extras + fields.sum::<usize>()).min(usize::from(u16::MAX)) as u16
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

    fn scanner() -> Scanner {
        Scanner::new(Box::new(|_, def| def.keep), [(16, 10.0)].into_iter())
    }

    fn padding(bytes: usize) -> Vec<u8> {
        let mut padding = vec![0; bytes];
        padding[0] = (bytes / 4) as u8;
        padding
    }

    #[test]
    fn counts_records_and_leaves_padding_out_of_the_payload() {
        let run = [record(20, 0, 7), record(16, 0, 5), padding(12)].concat();
        let mut scanner = scanner();
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
    fn records_of_one_class_are_taken_together() {
        let always = crate::record::Category::named("scan_always").unwrap();
        let always = always.schema().ids().unwrap().schema.to_le_bytes();
        let mut kept = record(16, 0, 1);
        kept[2..4].copy_from_slice(&always);
        let keep_of = |_: SchemaIds, def: &SchemaDef| match def.category {
            "scan_always" => KeepClass::Always,
            _ => KeepClass::Sampled,
        };
        let mut scanner = Scanner::new(Box::new(keep_of), std::iter::empty());
        let run = [
            record(20, 0, 1),
            padding(8),
            record(16, 0, 1),
            kept.clone(),
            kept,
        ]
        .concat();
        assert_eq!(scanner.same_class(&run), (44, KeepClass::Sampled));
        assert_eq!(scanner.same_class(&run[44..]), (32, KeepClass::Always));
        let bad = [record(16, 0, 1), vec![0xff; 16]].concat();
        assert_eq!(scanner.same_class(&bad), (16, KeepClass::Sampled));
        assert_eq!(scanner.same_class(&bad[16..]), (16, KeepClass::Always));
    }

    #[test]
    fn demand_is_bytes_times_weight() {
        let mut weighted = record(20, 0, 1);
        weighted[5] = 3;
        let mut rated = record(16, 0, 1);
        rated[5] = 16;
        let mut scanner = scanner();
        scanner.scan(&[record(16, 0, 1), weighted, rated].concat());
        let category = usize::from(crate::record::CATEGORY_CUSTOM);
        assert_eq!(scanner.demand()[category], 16 + 20 * 8 + 16 * 10);
        assert_eq!(scanner.stands_for()[category], 1 + 8 + 10);
        scanner.reset_demand();
        assert_eq!(scanner.demand()[category], 0);
    }

    #[test]
    fn only_what_was_written_will_be_lines() {
        let mut scanner = scanner();
        scanner.scan(&[record(20, 0, 1), record(16, 0, 1)].concat());
        scanner.take_unwritten(|_, count| assert_eq!(count, 2));
        assert_eq!(scanner.written(), Sizes::default());
        scanner.scan(&record(20, 0, 1));
        assert_eq!(scanner.written(), Sizes::default(), "not yet");
        scanner.take_counts(|_, count| assert_eq!(count, 1));
        let written = scanner.written();
        assert_eq!((written.recorded, written.always_recorded), (20, 0));
        assert!(written.lines > 100, "{}", written.lines);
        assert_eq!((written.always_lines, written.always_records), (0, 0));

        let mut always = Scanner::new(Box::new(|_, _| KeepClass::Always), std::iter::empty());
        always.scan(&record(20, 0, 1));
        always.take_counts(|_, count| assert_eq!(count, 1));
        let kept = always.written();
        assert_eq!((kept.recorded, kept.lines), (20, written.lines));
        assert_eq!((kept.always_recorded, kept.always_lines), (20, kept.lines));
        assert_eq!(kept.always_records, 1);
    }

    #[test]
    fn block_ends_before_the_limit_and_before_a_large_record() {
        let mut scanner = scanner();
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
        let mut scanner = scanner();
        for bad in [vec![0; 16], vec![0xff; 16], padding(20)[..16].to_vec()] {
            let run = [record(16, 0, 1), bad].concat();
            let scan = scanner.scan(&run);
            assert!(scan.damaged);
            assert_eq!(scan.covered, 16);
        }
    }
}
