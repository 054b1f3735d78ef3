//! `convert --salvage`, against an oracle: the session is built here, so it is known in which block
//! each record stands and what it needs. Whatever is damaged, the lines are exactly those of the
//! records whose blocks are whole and whose schema, symbol and body can be read: nothing beyond
//! the damage is lost, nothing is made up, and the rest is counted.
//!
//! `STORMLOG_SWEEP=1` flips every bit of every byte (without it two bits of each byte that has a
//! meaning), and does so in a segment of 1 MiB too: 8.4 million flips.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stormlog::convert::ConvertReport;
use stormlog::record::{Name, Record, SchemaIds, Symbol, Text};
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use stormlog::segment::layout::{
    BLOCK_HEADER_BYTES, BLOCK_MAGIC, BLOCKS_OFFSET, BlockHeader, HINT_OFFSET,
};
use stormlog::segment::reader::{End, SegmentReader};
use stormlog::segment::source::Source;
use support::{Head, START_TICKS, SegmentBuilder, body, large_record, raw_record, record};

stormlog::record! {
    struct Numbered in "numbers" keep Always { number: u32, text: Text }
}

stormlog::record! {
    struct Named in "names" keep Sampled { name: Symbol, number: u32 }
}

const NUMBERED: SchemaIds = SchemaIds {
    schema: 1,
    category: 20,
};
const NAMED: SchemaIds = SchemaIds {
    schema: 2,
    category: 21,
};

/// What a block gives, and what its records need.
#[derive(Clone, Debug)]
enum Content {
    /// Schemas and categories; the symbol with this id if it is not 0.
    Registry { schemas: bool, symbol: u32 },
    /// The body of this record.
    Large(u32),
    /// Numbers of records: plain, large, and those that need a symbol.
    Data(Vec<u32>, Vec<u32>, Vec<(u32, u32)>),
}

/// A segment that knows what is in it.
struct Known {
    builder: SegmentBuilder,
    blocks: Vec<(Range<usize>, Content)>,
    number: u32,
    bytes: Vec<u8>,
}

fn head(ids: SchemaIds, number: u32) -> Head<'static> {
    Head {
        schema: ids.schema,
        ticks: START_TICKS + u64::from(number) * 1000,
        ..Head::default()
    }
}

impl Known {
    fn new(builder: SegmentBuilder, number: u32) -> Self {
        Self {
            builder,
            blocks: Vec::new(),
            number,
            bytes: Vec::new(),
        }
    }

    /// Notes the block that `make` adds: its header and payload, without the zeros behind them.
    fn add(&mut self, content: Content, make: impl FnOnce(&mut SegmentBuilder)) {
        let start = self.builder.offset();
        make(&mut self.builder);
        let file = self.builder.finish();
        let length = u32::from_le_bytes(*file[start + 8..].first_chunk().unwrap());
        let end = start + BLOCK_HEADER_BYTES + length as usize;
        self.blocks.push((start..end, content));
    }

    fn registry(&mut self) {
        let content = Content::Registry {
            schemas: true,
            symbol: 0,
        };
        self.add(content, |segment| {
            segment.registry(&[
                Entry::Category(20, "numbers"),
                Entry::Category(21, "names"),
                Entry::schema(NUMBERED, Numbered::default().schema()),
                Entry::schema(NAMED, Named::default().schema()),
            ]);
        });
    }

    fn symbol(&mut self, symbol: u32) {
        let content = Content::Registry {
            schemas: false,
            symbol,
        };
        let text = format!("symbol {symbol}");
        self.add(content, |segment| {
            segment.registry(&[Entry::Symbol(symbol, &text)]);
        });
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn plain(&mut self, text: &str) -> (u32, (u32, Vec<u8>)) {
        let number = self.next();
        let plain = Numbered { number, text };
        (number, (20, record(&plain, head(NUMBERED, number))))
    }

    fn data(&mut self, ring: u32, count: usize, text: &str) {
        let made: Vec<_> = (0..count).map(|_| self.plain(text)).collect();
        let (numbers, records): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let content = Content::Data(numbers, Vec::new(), Vec::new());
        self.add(content, |segment| segment.data(ring, &records));
    }

    fn spilled(&mut self, ring: u32, count: usize) {
        let made: Vec<_> = (0..count).map(|_| self.plain("spilled")).collect();
        let (numbers, records): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let content = Content::Data(numbers, Vec::new(), Vec::new());
        self.add(content, |segment| segment.spilled(ring, &records));
    }

    fn named(&mut self, ring: u32, symbol: u32) {
        let number = self.next();
        let named = Named {
            name: Name::Text(""),
            number,
        };
        let mut body = body(&named, &[]);
        body[..4].copy_from_slice(&symbol.to_le_bytes());
        let record = raw_record(&body, head(NAMED, number));
        let content = Content::Data(Vec::new(), Vec::new(), vec![(number, symbol)]);
        self.add(content, |segment| segment.data(ring, &[(21, record)]));
    }

    /// LARGE records of one data block, their bodies before it; spilled ones each have their own.
    fn large(&mut self, ring: u32, count: u32, spilled: bool) {
        let mut records = Vec::new();
        let mut numbers = Vec::new();
        for _ in 0..count {
            let number = self.next();
            let text = format!("{number} ").repeat(9);
            let body = body(
                &Numbered {
                    number,
                    text: &text,
                },
                &[],
            );
            let reference = large_record(body.len(), head(NUMBERED, number));
            let before: usize = records
                .iter()
                .map(|(_, bytes): &(_, Vec<u8>)| bytes.len())
                .sum();
            let position = self.builder.positions.get(&ring).copied().unwrap_or(0);
            let ticks = head(NUMBERED, number).ticks;
            self.add(Content::Large(number), |segment| {
                segment.large_at(ring, position + before as u64, ticks, &body);
            });
            records.push((20, reference));
            numbers.push(number);
        }
        let content = Content::Data(Vec::new(), numbers, Vec::new());
        self.add(content, |segment| {
            if spilled {
                segment.spilled(ring, &records);
            } else {
                segment.data(ring, &records);
            }
        });
    }

    fn seal(&mut self, last: bool) {
        let start = self.builder.offset();
        self.bytes = self.builder.seal(last);
        let length = u32::from_le_bytes(*self.bytes[start + 8..].first_chunk().unwrap());
        let end = start + BLOCK_HEADER_BYTES + length as usize;
        let none = Content::Data(Vec::new(), Vec::new(), Vec::new());
        self.blocks.push((start..end, none));
    }
}

/// Two segments with every kind of block.
fn session() -> [Known; 2] {
    let mut first = Known::new(SegmentBuilder::new(1, 0), 0);
    first.registry();
    first.data(1, 3, "one");
    first.data(2, 2, "two");
    first.symbol(5);
    first.named(1, 5);
    first.large(1, 2, false);
    first.data(2, 1, "");
    // Spilled large records share their position with each other and with one of the ring.
    first.large(2, 1, true);
    first.large(2, 1, true);
    first.spilled(2, 2);
    first.large(2, 1, false);
    first.data(1, 2, "three");
    first.seal(false);
    let mut builder = SegmentBuilder::after(&first.builder);
    // The seal took one.
    builder.sequence = first.builder.sequence;
    let mut second = Known::new(builder, first.number);
    second.registry();
    second.symbol(6);
    second.named(2, 6);
    second.data(1, 3, "four");
    second.seal(true);
    [first, second]
}

type Lines = BTreeMap<u32, String>;

/// The lines by number; `None` when no segment can be read.
fn salvage(segments: Vec<Vec<u8>>) -> Option<(Lines, ConvertReport)> {
    let named = segments.into_iter().map(|bytes| ("x.seg".into(), bytes));
    let mut sessions = SessionFiles::from_memory(named).ok()?;
    assert_eq!(sessions.len(), 1);
    let (lines, report) = support::convert_by_threads(&sessions.remove(0), true).unwrap();
    let mut by_number = Lines::new();
    for line in lines
        .values()
        .flat_map(|text| text.split(|byte| *byte == b'\n'))
    {
        if !line.is_empty() {
            let json: serde_json::Value = serde_json::from_slice(line).unwrap();
            let number = json["number"].as_u64().unwrap() as u32;
            let text = String::from_utf8(line.to_vec()).unwrap();
            assert_eq!(by_number.insert(number, text), None, "{number} twice");
        }
    }
    Some((by_number, report))
}

/// The numbers that must be there, and how many records there are in whole data blocks.
fn expected(
    session: &[&Known],
    lost: &dyn Fn(usize, &Range<usize>) -> bool,
) -> (BTreeSet<u32>, u64) {
    let whole: Vec<&Content> = (0..)
        .zip(session)
        .flat_map(|(index, known)| known.blocks.iter().map(move |block| (index, block)))
        .filter(|(index, (range, _))| !lost(*index, range))
        .map(|(_, (_, content))| content)
        .collect();
    let mut schemas_known = false;
    let (mut symbols, mut bodies) = (BTreeSet::new(), BTreeSet::new());
    for content in &whole {
        match content {
            Content::Registry { schemas, symbol } => {
                schemas_known |= schemas;
                symbols.insert(*symbol);
            }
            Content::Large(number) => drop(bodies.insert(*number)),
            Content::Data(..) => {}
        }
    }
    let (mut numbers, mut records) = (BTreeSet::new(), 0);
    for content in whole {
        if let Content::Data(plain, large, named) = content {
            records += (plain.len() + large.len() + named.len()) as u64;
            if schemas_known {
                numbers.extend(plain);
                numbers.extend(large.iter().filter(|number| bodies.contains(number)));
                let named = named.iter().filter(|(_, symbol)| symbols.contains(symbol));
                numbers.extend(named.map(|(number, _)| number));
            }
        }
    }
    (numbers, records)
}

#[track_caller]
fn check(
    whole: &Lines,
    (lines, report): &(Lines, ConvertReport),
    (numbers, records): &(BTreeSet<u32>, u64),
    what: &str,
) {
    let found: BTreeSet<u32> = lines.keys().copied().collect();
    assert_eq!(found, *numbers, "{what}: {:?}", report.faults);
    for (number, line) in lines {
        assert_eq!(Some(line), whole.get(number), "{what}: another line");
    }
    assert_eq!(report.records, *records, "{what}");
    let damaged = report.counted.total().dropped_total() + report.damaged_unknown;
    assert_eq!(report.lines + damaged, *records, "{what}: counted");
}

fn is_long() -> bool {
    std::env::var_os("STORMLOG_SWEEP").is_some()
}

#[test]
fn a_flipped_bit_costs_the_block_that_it_is_in() {
    let [first, second] = session();
    let (whole, report) = salvage(vec![first.bytes.clone(), second.bytes.clone()]).unwrap();
    assert_eq!(whole.len() as u32, second.number);
    assert_eq!(report.left_out.bytes, 0);
    for (index, known) in [&first, &second].into_iter().enumerate() {
        for offset in 0..known.bytes.len() {
            let bits: &[u32] = match offset {
                _ if is_long() => &[0, 1, 2, 3, 4, 5, 6, 7],
                0..256 | 2048..2304 | 4096..4104 | BLOCKS_OFFSET.. => {
                    &[offset as u32 % 8, (offset as u32 * 3 + 5) % 8][..]
                }
                _ if offset % 64 == 0 => &[0],
                _ => continue,
            };
            for bit in bits {
                let mut session = [first.bytes.clone(), second.bytes.clone()];
                session[index][offset] ^= 1 << bit;
                let what = format!("segment {index} byte {offset} bit {bit}");
                let lost = |of: usize, range: &Range<usize>| of == index && range.contains(&offset);
                let alone = salvage(vec![session[index].clone()]).unwrap();
                let of_alone = expected(&[known], &|_, range| lost(index, range));
                check(&whole, &alone, &of_alone, &what);
                let both = salvage(session.to_vec()).unwrap();
                let of_both = expected(&[&first, &second], &lost);
                check(&whole, &both, &of_both, &what);
                // Detected, or inert.
                let hit = known
                    .blocks
                    .iter()
                    .any(|(range, _)| range.contains(&offset));
                let said = both.1.faults.len() > report.faults.len();
                assert!(said || !hit, "{what}: {:?}", both.1.faults);
                assert_eq!(both.1.left_out.bytes > 0, hit, "{what}");
            }
        }
    }
}

#[test]
fn a_truncation_costs_what_is_cut_off() {
    let [first, second] = session();
    let (whole, _) = salvage(vec![first.bytes.clone(), second.bytes.clone()]).unwrap();
    for length in 0..first.bytes.len() {
        let cut = first.bytes[..length].to_vec();
        let lost = |of: usize, range: &Range<usize>| of == 0 && range.end > length;
        let what = format!("cut to {length}");
        match salvage(vec![cut.clone()]) {
            Some(found) => check(&whole, &found, &expected(&[&first], &lost), &what),
            None => assert!(length < 256, "{what}: the header is there"),
        }
        if let Some(found) = salvage(vec![second.bytes.clone(), cut]).filter(|_| length >= 256) {
            let of_both = expected(&[&first, &second], &lost);
            check(&whole, &found, &of_both, &what);
        }
    }
}

/// Runs of damage over several blocks, at random.
#[test]
fn damage_over_several_blocks_costs_those_blocks() {
    let [first, second] = session();
    let (whole, _) = salvage(vec![first.bytes.clone(), second.bytes.clone()]).unwrap();
    let mut seed = 0x5a1f_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as usize % below
    };
    for _ in 0..if is_long() { 100_000 } else { 1500 } {
        let mut bytes = first.bytes.clone();
        let mut hits = Vec::new();
        for _ in 0..=random(3) {
            let start = BLOCKS_OFFSET + random(bytes.len() - BLOCKS_OFFSET);
            let end = (start + 1 + random(600)).min(bytes.len());
            bytes[start..end].iter_mut().for_each(|byte| *byte = !*byte);
            hits.push(start..end);
        }
        let lost = |of: usize, range: &Range<usize>| {
            let byte_differs = |at: usize| bytes[at] != first.bytes[at];
            of == 0 && range.clone().any(byte_differs)
        };
        let found = salvage(vec![bytes.clone(), second.bytes.clone()]).unwrap();
        let of_both = expected(&[&first, &second], &lost);
        check(&whole, &found, &of_both, &format!("{hits:?}"));
    }
}

/// Of each kind of loss the report says how much it is.
#[test]
fn what_is_left_out_is_counted() {
    let [first, second] = session();
    let whole = vec![first.bytes.clone(), second.bytes.clone()];
    // The second block, three records; and the registry of the first segment beside it.
    let range = first.blocks[1].0.clone();
    let mut damaged = whole.clone();
    damaged[0][range.start + 70] ^= 1;
    let (_, report) = salvage(damaged.clone()).unwrap();
    assert_eq!(
        report.left_out.bytes,
        range.len().next_multiple_of(8) as u64
    );
    assert_eq!(
        (report.left_out.blocks, report.left_out.records),
        (Some(1), Some(3))
    );
    let faults = report.faults.join("; ");
    assert!(faults.contains("1 blocks are missing"), "{faults}");
    // Without its seal a segment does not tell how much it had.
    let seal = first.blocks.last().unwrap().0.start;
    damaged[0][seal + 70] ^= 1;
    let (_, report) = salvage(damaged).unwrap();
    assert_eq!(
        (report.left_out.blocks, report.left_out.records),
        (None, None)
    );
    // Alone, the first segment cannot do without its registry: nothing is made up.
    let mut damaged = first.bytes.clone();
    damaged[first.blocks[0].0.start + 70] ^= 1;
    let (lines, report) = salvage(vec![damaged]).unwrap();
    assert!(lines.is_empty());
    assert_eq!(report.damaged_unknown, u64::from(first.number));
}

/// Counts what is read of bytes in memory, with one bit flipped.
struct Counting<'a> {
    bytes: &'a [u8],
    flip: Option<(usize, u8)>,
    read: &'a AtomicU64,
}

impl Source for Counting<'_> {
    fn read_at(&self, offset: u64, place: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read_at(offset, place)?;
        self.read.fetch_add(count as u64, Relaxed);
        if let Some((at, mask)) = self.flip
            && let Some(at) = at.checked_sub(offset as usize).filter(|at| *at < count)
        {
            place[at] ^= mask;
        }
        Ok(count)
    }

    fn byte_count(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }
}

/// The blocks of a salvage, its end, and whether anything was skipped.
fn blocks(source: Counting<'_>) -> (Vec<(u64, u32)>, End, u64) {
    let reader = SegmentReader::open(source, Path::new("x.seg")).unwrap();
    let mut reader = reader.salvaging();
    let mut found = Vec::new();
    while let Some(block) = reader.next_block().unwrap() {
        found.push((block.offset, block.header.crc));
    }
    (found, reader.end().unwrap().clone(), reader.skipped_bytes())
}

/// Every place pretends to be a block of 16 MiB. What is read must grow with the file, not with
/// what it says of itself, and the true blocks between must be found.
#[test]
fn false_headers_cost_no_more_than_their_place() {
    let mut file = Vec::new();
    for round in [1_usize, 4] {
        let mut segment = SegmentBuilder::new(1, 0);
        segment.registry(&[Entry::Category(20, "numbers")]);
        let mut places = vec![(segment.offset(), 0)];
        places.clear();
        let mut bytes = segment.finish();
        let lie = BlockHeader {
            magic: BLOCK_MAGIC,
            payload_bytes: 400_000,
            kind: 3,
            sequence: u64::from(u32::MAX),
            ..BlockHeader::default()
        };
        for number in 0..200 * round as u64 {
            for _ in 0..64 {
                bytes.extend_from_slice(stormlog::bytemuck::bytes_of(&lie));
            }
            let mut header = BlockHeader {
                magic: BLOCK_MAGIC,
                kind: 2,
                sequence: number + 1,
                ..BlockHeader::default()
            };
            header.crc = header.expected_crc(&segment.header.nonce, 1, &[]);
            places.push((bytes.len(), header.crc));
            bytes.extend_from_slice(stormlog::bytemuck::bytes_of(&header));
        }
        let read = AtomicU64::new(0);
        let source = Counting {
            bytes: &bytes,
            flip: None,
            read: &read,
        };
        let (found, _, _) = blocks(source);
        assert_eq!(found.len(), places.len() + 1);
        let (read, length) = (read.load(Relaxed), bytes.len() as u64);
        println!("read {read} of {length} bytes");
        // Two places of at most 4 KiB for each header of 64 bytes, and the file a few times.
        assert!(read < length * 2 * 4096 / 64 + 4 * length + (1 << 20));
        file = bytes;
    }
    drop(file);
}

/// Blocks so long that their checksums are made from prefixes of the file.
#[test]
fn damage_beside_long_blocks_costs_only_what_it_hits() {
    let mut segment = SegmentBuilder::new(1, 0);
    let mut starts = Vec::new();
    for (number, bytes) in [70_000, 65_540, 4, 300_001, 131_072]
        .into_iter()
        .enumerate()
    {
        starts.push(segment.offset());
        let body: Vec<u8> = (0..bytes).map(|at| (at * 31 + number) as u8).collect();
        segment.large(1, number as u64, &body);
    }
    let bytes = segment.seal(true);
    let read = AtomicU64::new(0);
    let salvaged = |flip| {
        let (found, end, skipped) = blocks(Counting {
            bytes: &bytes,
            flip,
            read: &read,
        });
        assert!(matches!(end, End::Sealed(_)), "{end:?}");
        (found, skipped)
    };
    let (whole, skipped) = salvaged(None);
    assert_eq!(skipped, 0);
    assert!(whole.iter().map(|(at, _)| *at as usize).eq(starts.clone()));
    for (hit, start) in starts.iter().enumerate() {
        for at in [start + 4, start + BLOCK_HEADER_BYTES + 3] {
            let mut rest = whole.clone();
            rest.remove(hit);
            let (found, skipped) = salvaged(Some((at, 1)));
            assert_eq!(found, rest, "block {hit}");
            assert!(skipped > 0);
        }
    }
}

/// Calls `each` with every place, on as many threads as there are cores.
fn on_all_cores(places: impl Iterator<Item = usize> + Send, each: impl Fn(usize) + Sync) {
    let places = Mutex::new(places);
    let next = || places.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| std::iter::from_fn(next).for_each(&each));
        }
    });
}

/// 1 MiB: every bit of it, and every length; in the short form some of them.
#[test]
fn every_bit_of_a_segment_of_1_mib() {
    let mut known = Known::new(SegmentBuilder::new(1, 0), 0);
    known.registry();
    let mut ring = 0;
    while known.builder.offset() < (1 << 20) - 40_000 {
        ring = ring % 3 + 1;
        known.data(
            ring,
            100 * ring as usize,
            "some text that makes the record longer",
        );
        if ring == 2 {
            known.large(ring, 1, false);
            known.spilled(ring, 1);
        }
    }
    known.seal(true);
    let bytes = &known.bytes;
    let read = AtomicU64::new(0);
    let source = |length: usize, flip| Counting {
        bytes: &bytes[..length],
        flip,
        read: &read,
    };
    let (whole, sealed, _) = blocks(source(bytes.len(), None));
    assert_eq!(whole.len() + 1, known.blocks.len());
    println!("{} bytes, {} blocks", bytes.len(), whole.len());
    let step = if is_long() { 1 } else { 8191 };
    let cut = |length: usize| {
        let (found, _, _) = blocks(source(length, None));
        let left = known.blocks.iter().filter(|(range, _)| range.end <= length);
        assert_eq!(found, whole[..left.count()], "cut to {length}");
    };
    on_all_cores((HINT_OFFSET..bytes.len()).step_by(step), cut);
    let flip = |offset: usize| {
        let hit = known
            .blocks
            .iter()
            .position(|(range, _)| range.contains(&offset));
        let mut expected = whole.clone();
        if let Some(hit) = hit.filter(|hit| *hit < expected.len()) {
            expected.remove(hit);
        }
        for bit in 0..8 {
            let (found, end, skipped) = blocks(source(bytes.len(), Some((offset, 1 << bit))));
            assert_eq!(found, expected, "byte {offset} bit {bit}");
            let seal_hit = hit == Some(whole.len());
            assert_eq!(end == sealed, !seal_hit, "byte {offset} bit {bit}: {end:?}");
            assert_eq!(skipped > 0, hit.is_some(), "byte {offset} bit {bit}");
        }
        if is_long() && offset.is_multiple_of(1 << 16) {
            println!("{offset} of {}", bytes.len());
        }
    };
    on_all_cores((0..bytes.len()).step_by(step), flip);
    // The lines too, at some of them.
    let (lines, _) = salvage(vec![bytes.clone()]).unwrap();
    for offset in (0..bytes.len()).step_by(997 * step.min(100)) {
        let mut damaged = bytes.clone();
        damaged[offset] ^= 1 << (offset % 8);
        let found = salvage(vec![damaged]).unwrap();
        let lost = |_: usize, range: &Range<usize>| range.contains(&offset);
        check(
            &lines,
            &found,
            &self::expected(&[&known], &lost),
            &format!("byte {offset}"),
        );
    }
}
