//! The whole conversion against a template written by hand for its record, in one run.
//!
//! ```sh
//! cargo bench --bench convert                 # the table, and texts against the rules for secrets
//! cargo bench --bench convert -- table        # the table only
//! BENCH_DISK=/data cargo bench --bench convert -- table   # "disk" is there
//! BENCH_ONE=A,1,memory,1,10 target/release/deps/convert-*  # one row, 10 times, for tools
//! ```
//!
//! The conversion goes through both passes: checksums, merge of two producers in turns of 16
//! records, decoding, the look for secrets, lines into files (or counted, where the sink is
//! "memory"). The template knows the layout at compile time, has the records in memory, in one
//! piece and in order, looks for nothing, and writes the same bytes with itoa and zmij, in pieces
//! of the same length, to a file in the same place. Both are checked to be equal before anything is
//! measured. Rows take turns; each ratio is of two neighbours in time, and its median is printed.

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/stats.rs"]
mod stats;
#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cpu::process_cpu;
use criterion::{Criterion, Throughput};
use stats::median;
use stormlog::Error;
use stormlog::convert::{ConvertOptions, LineSink, convert_lines, convert_session};
use stormlog::record::{Name, Record, SchemaIds, ShortText, Symbol, Text};
use stormlog::redact::{Redactor, Rules};
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use support::{Head, SESSION, START_TICKS, START_UTC_NS, SegmentBuilder, record};

stormlog::record! {
    /// Record A.
    struct RecordA in "bench" keep Sampled key id {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

stormlog::record! {
    /// Record B.
    struct RecordB in "bench" keep Sampled key id {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
        name: ShortText<12>,
        step: Text<64>,
        session: ShortText<15>,
    }
}

const OPERATIONS: [&str; 4] = [
    "start_container_begin",
    "start_container_success",
    "allocate_port",
    "health_check",
];
/// Ticks between two records: 1 us.
const STEP: u64 = 1000;
/// Lines are written in pieces of this length, about.
const WRITE_BYTES: usize = 400_000;
/// Bytes of a segment, about.
const SEGMENT_BYTES: usize = 16 << 20;

/// A session in memory, and its records in the order of their lines.
struct Input {
    b: bool,
    categories: usize,
    segments: Vec<Vec<u8>>,
    records: Vec<Vec<u8>>,
    symbols: BTreeMap<u32, &'static str>,
}

fn symbols() -> [Name<'static>; 4] {
    [
        stormlog::symbol!("start_container_begin"),
        stormlog::symbol!("start_container_success"),
        stormlog::symbol!("allocate_port"),
        stormlog::symbol!("health_check"),
    ]
}

impl Input {
    fn new(b: bool, categories: usize, count: u64) -> Self {
        let symbols = symbols();
        let records: Vec<_> = (0..count)
            .map(|index| one(b, categories, &symbols, index))
            .collect();
        let mut texts: BTreeMap<u32, &'static str> = BTreeMap::new();
        for (symbol, text) in symbols.iter().zip(OPERATIONS) {
            if let Name::Symbol(symbol) = symbol {
                texts.insert(symbol.id(), text);
            }
        }
        let mut segments = Vec::new();
        let mut segment = SegmentBuilder::new(1, 0);
        let schema = if b {
            RecordB::default().schema()
        } else {
            RecordA::default().schema()
        };
        for number in 1..=categories {
            let name = category(number);
            let ids = SchemaIds {
                schema: number as u16,
                category: 20 + number as u8,
            };
            segment.registry(&[
                Entry::Category(ids.category, &name),
                Entry::schema(ids, schema),
            ]);
        }
        for (id, text) in &texts {
            segment.registry(&[Entry::Symbol(*id, text)]);
        }
        // Producers take turns of 16 records; a block holds up to 64 KiB of one of them.
        let per_block = 65_536 / records[0].len() / 16 * 16;
        for part in records.chunks(2 * per_block) {
            if segment.offset() >= SEGMENT_BYTES {
                segments.push(segment.seal(false));
                segment = SegmentBuilder::after(&segment);
            }
            for ring in 0..2 {
                let turns = part.chunks(16).skip(ring).step_by(2).flatten();
                let records: Vec<_> = turns
                    .map(|bytes| (20 + u32::from(bytes[2]), bytes.clone()))
                    .collect();
                segment.data(ring as u32 + 1, &records);
            }
        }
        segments.push(segment.seal(true));
        Self {
            b,
            categories,
            segments,
            records,
            symbols: texts,
        }
    }

    /// As files in a directory.
    fn write(&self, dir: &Path) -> SessionFiles {
        let dir = dir.join(".stormlog").join(SESSION);
        std::fs::create_dir_all(&dir).unwrap();
        for (index, segment) in self.segments.iter().enumerate() {
            std::fs::write(dir.join(format!("{:06}.seg", index + 1)), segment).unwrap();
        }
        SessionFiles::find(&dir).unwrap().remove(0)
    }

    fn in_memory(&self) -> SessionFiles {
        let segments = self.segments.iter().enumerate();
        let segments =
            segments.map(|(index, bytes)| (PathBuf::from(format!("{index}.seg")), bytes.clone()));
        SessionFiles::from_memory(segments).unwrap().remove(0)
    }
}

fn category(number: usize) -> String {
    format!("bench{number}")
}

fn one(b: bool, categories: usize, symbols: &[Name<'static>; 4], index: u64) -> Vec<u8> {
    let mix = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = format!("{:012x}", mix >> 16);
    let head = Head {
        schema: (mix >> 33) as u16 % categories as u16 + 1,
        ticks: START_TICKS + index * STEP,
        ..Head::default()
    };
    let (operation, port) = (symbols[(mix >> 60) as usize % 4], mix as u16);
    let (value, ok) = ((mix >> 40) as f64 / 1000.0, mix & 1 == 0);
    if b {
        let name = format!("engine-{:05}", mix >> 48 & 0xffff);
        let record_b = RecordB {
            operation,
            id: &id,
            port,
            value,
            ok,
            name: &name,
            step: OPERATIONS[(mix >> 58) as usize % 4],
            session: SESSION,
        };
        record(&record_b, head)
    } else {
        let record_a = RecordA {
            operation,
            id: &id,
            port,
            value,
            ok,
        };
        record(&record_a, head)
    }
}

/// Counts bytes and keeps none.
#[derive(Default)]
struct Count(u64);

impl LineSink for Count {
    fn write(&mut self, _category: &str, lines: &[u8]) -> Result<(), Error> {
        self.0 += black_box(lines).len() as u64;
        Ok(())
    }
}

/// The lines of the records, written by hand for these two types; `write` gets those of each
/// category in pieces.
fn template(input: &Input, write: &mut impl FnMut(usize, &[u8])) {
    let mut second = u64::MAX;
    let mut date = String::new();
    let mut outs: Vec<Vec<u8>> = (0..input.categories)
        .map(|_| Vec::with_capacity(WRITE_BYTES + 4096))
        .collect();
    for record in &input.records {
        let category = usize::from(record[2]) - 1;
        let out = &mut outs[category];
        let ticks = u64::from_le_bytes(*record[8..].first_chunk().unwrap());
        let elapsed = ticks - START_TICKS;
        let utc = START_UTC_NS + elapsed;
        if utc / 1_000_000_000 != second {
            second = utc / 1_000_000_000;
            stormlog::convert::rfc3339(utc)[..20].clone_into(&mut date);
        }
        let (fixed, text) = record[16..].split_at(if input.b { 20 } else { 16 });
        out.extend_from_slice(b"{\"session_id\":\"20261121_101112\",\"timestamp\":\"");
        out.extend_from_slice(date.as_bytes());
        nine(out, utc % 1_000_000_000);
        out.extend_from_slice(b"Z\",\"elapsed_seconds\":");
        out.extend_from_slice(
            itoa::Buffer::new()
                .format(elapsed / 1_000_000_000)
                .as_bytes(),
        );
        out.push(b'.');
        nine(out, elapsed % 1_000_000_000);
        out.extend_from_slice(b",\"operation\":\"");
        let operation = u32::from_le_bytes(*fixed.first_chunk().unwrap());
        out.extend_from_slice(input.symbols[&operation].as_bytes());
        out.extend_from_slice(b"\",\"id\":\"");
        let (id, text) = text.split_at(usize::from(fixed[4]));
        put_plain(out, id);
        out.extend_from_slice(b"\",\"port\":");
        let port = u16::from_le_bytes(*fixed[5..].first_chunk().unwrap());
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        out.extend_from_slice(b",\"value\":");
        let value = f64::from_le_bytes(*fixed[7..].first_chunk().unwrap());
        out.extend_from_slice(zmij::Buffer::new().format(value).as_bytes());
        out.extend_from_slice(b",\"ok\":");
        out.extend_from_slice(if fixed[15] == 0 { b"false" } else { b"true" });
        if input.b {
            let step = u16::from_le_bytes([fixed[17], fixed[18]]);
            let (name, text) = text.split_at(usize::from(fixed[16]));
            let (step, text) = text.split_at(usize::from(step));
            let (session, _) = text.split_at(usize::from(fixed[19]));
            out.extend_from_slice(b",\"name\":\"");
            put_plain(out, name);
            out.extend_from_slice(b"\",\"step\":\"");
            put_plain(out, step);
            out.extend_from_slice(b"\",\"session\":\"");
            put_plain(out, session);
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
        if out.len() >= WRITE_BYTES {
            write(category, out);
            out.clear();
        }
    }
    for (category, out) in outs.iter().enumerate() {
        write(category, out);
    }
}

/// A text of which it is known that nothing in it has to be escaped.
fn put_plain(out: &mut Vec<u8>, text: &[u8]) {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    assert!(text.iter().all(plain));
    out.extend_from_slice(text);
}

fn nine(out: &mut Vec<u8>, value: u64) {
    const PAIRS: [[u8; 2]; 100] = {
        let mut pairs = [[0; 2]; 100];
        let mut value = 0;
        while value < 100 {
            pairs[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
            value += 1;
        }
        pairs
    };
    let value = value as u32;
    let pair = |value: u32| PAIRS[(value % 100) as usize];
    let mut digits = [b'0' + (value / 100_000_000) as u8; 9];
    digits[1..3].copy_from_slice(&pair(value / 1_000_000));
    digits[3..5].copy_from_slice(&pair(value / 10_000));
    digits[5..7].copy_from_slice(&pair(value / 100));
    digits[7..9].copy_from_slice(&pair(value));
    out.extend_from_slice(&digits);
}

/// Where lines go to.
enum Place {
    Memory,
    /// A directory with the segments.
    Dir(tempfile::TempDir),
}

/// What is compared: one record type, number of categories and place.
struct Case {
    name: String,
    input: Input,
    session: SessionFiles,
    place: Place,
}

impl Case {
    /// `None` for a place that is not there.
    fn new(b: bool, categories: usize, place: &str, count: u64) -> Option<Self> {
        let input = Input::new(b, categories, count);
        let disk = std::env::var_os("BENCH_DISK").map_or_else(std::env::temp_dir, PathBuf::from);
        let place_name = place;
        let (place, session) = if place == "memory" {
            (Place::Memory, input.in_memory())
        } else {
            let shm = Path::new("/dev/shm");
            let dir = if place == "shm" { shm } else { &disk };
            let dir = tempfile::tempdir_in(dir).ok()?;
            let session = input.write(dir.path());
            (Place::Dir(dir), session)
        };
        let record = if b { "B" } else { "A" };
        Some(Self {
            name: format!("record {record}, {categories} categories, {place_name}"),
            input,
            session,
            place,
        })
    }

    /// The whole conversion.
    fn convert(&self, threads: usize, redact: bool) {
        let options = ConvertOptions {
            threads,
            redact: (!redact).then(|| Rules {
                on: false,
                ..Rules::default()
            }),
            ..ConvertOptions::default()
        };
        let lines = match &self.place {
            Place::Memory => {
                let mut sink = Count::default();
                convert_lines(&self.session, &mut sink, options)
                    .unwrap()
                    .lines
            }
            Place::Dir(dir) => {
                convert_session(&self.session, dir.path(), options)
                    .unwrap()
                    .lines
            }
        };
        assert_eq!(lines, self.input.records.len() as u64);
    }

    /// The lines by hand.
    fn by_hand(&self) {
        match &self.place {
            Place::Memory => template(&self.input, &mut |_, lines| {
                black_box(lines);
            }),
            Place::Dir(dir) => {
                let path = |index: usize| dir.path().join(format!("by_hand_{index}"));
                let mut files: Vec<_> = (0..self.input.categories)
                    .map(|index| File::create(path(index)).unwrap())
                    .collect();
                template(&self.input, &mut |index, lines| {
                    files[index].write_all(lines).unwrap();
                });
            }
        }
    }

    /// Both write the same bytes, with any number of threads.
    fn check(&self) {
        let mut by_hand = BTreeMap::new();
        template(&self.input, &mut |index, lines| {
            by_hand.write(&category(index + 1), lines).unwrap();
        });
        by_hand.retain(|_, lines| !lines.is_empty());
        for threads in [1, 2, 3] {
            let mut converted = BTreeMap::new();
            let options = ConvertOptions {
                threads,
                ..ConvertOptions::default()
            };
            convert_lines(&self.session, &mut converted, options).unwrap();
            assert!(converted == by_hand, "{}: {threads} threads", self.name);
        }
        let bytes: usize = by_hand.values().map(Vec::len).sum();
        let crc = by_hand
            .values()
            .fold(0, |crc, lines| crc32c::crc32c_append(crc, lines));
        let (count, name) = (self.input.records.len(), &self.name);
        println!("{name}: {count} records, {bytes} bytes of lines, crc {crc:08x}");
    }
}

/// Wall and CPU time of the whole process.
fn timed(work: impl FnOnce()) -> [f64; 2] {
    let cpu = || process_cpu().as_secs_f64();
    let (wall_start, cpu_start) = (Instant::now(), cpu());
    work();
    [wall_start.elapsed().as_secs_f64(), cpu() - cpu_start]
}

fn table(smoke: bool) {
    let (count, rounds) = if smoke { (3_000, 1) } else { (400_000, 15) };
    println!(
        "\n| case | template ns/line | threads | M lines/s | CPU ns/line | wall / template | \
         1 thread / this |\n|---|---|---|---|---|---|---|"
    );
    for (b, categories, place) in [
        (false, 1, "memory"),
        (false, 1, "shm"),
        (false, 1, "disk"),
        (false, 8, "memory"),
        (false, 8, "shm"),
        (true, 1, "memory"),
        (true, 1, "shm"),
        (true, 8, "shm"),
    ] {
        let Some(case) = Case::new(b, categories, place, count) else {
            println!("| {place}: cannot be used here | | | | | | |");
            continue;
        };
        if place == "memory" {
            case.check();
        }
        // By hand; 1 thread; 2 threads; 1 thread without the look for secrets.
        let mut times = [const { Vec::new() }; 4];
        for round in 0..=rounds {
            let all = [
                timed(|| case.by_hand()),
                timed(|| case.convert(1, true)),
                timed(|| case.convert(2, true)),
                timed(|| case.convert(1, false)),
            ];
            // The first round warms up.
            if round > 0 || smoke {
                times
                    .iter_mut()
                    .zip(all)
                    .for_each(|(times, time)| times.push(time));
            }
        }
        let lines = count as f64;
        let ns = |of: usize, what: usize| {
            let of = times[of].iter().map(|time| time[what] / lines * 1e9);
            median(&mut of.collect::<Vec<_>>())
        };
        let ratio = |of: usize, to: usize| {
            let pairs = times[of].iter().zip(&times[to]);
            let ratios = pairs.map(|(one, other)| one[0] / other[0]);
            median(&mut ratios.collect::<Vec<_>>())
        };
        for (of, what) in [(1, "1"), (2, "2"), (3, "1, no redaction")] {
            println!(
                "| {} | {:.1} | {what} | {:.2} | {:.1} | {:.2} | {:.2} |",
                case.name,
                ns(0, 0),
                1e3 / ns(of, 0),
                ns(of, 1),
                ratio(of, 0),
                ratio(1, of),
            );
        }
    }
}

/// One row again and again: `record,categories,place,threads,times`; no threads are the template.
fn one_row(row: &str) {
    let parts: Vec<&str> = row.split(',').collect();
    let number = |index: usize| parts[index].parse::<usize>().unwrap();
    let case = Case::new(parts[0] == "B", number(1), parts[2], 100_000).expect("the place exists");
    for _ in 0..number(4) {
        match number(3) {
            0 => case.by_hand(),
            threads => case.convert(threads, true),
        }
    }
}

/// One text against the rules for secrets.
fn texts(criterion: &mut Criterion) {
    let redactor = Redactor::built_in();
    let error = "cannot reach engine acestream-12 at http://10.0.0.7:19000/webui/api/service: \
                 Connection refused (os error 111), attempt 3 of 5, next try in 2.5 s";
    let mut group = criterion.benchmark_group("redact");
    for (name, text) in [
        (
            "id",
            "4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c0a4f6c",
        ),
        ("error", error),
        (
            "secret",
            "GET /ace/getstream?id=4f6c0a4f6c0a&token=hunter2&pid=7 HTTP/1.1",
        ),
    ] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| redactor.clean(black_box(text)));
        });
    }
    group.finish();
}

fn main() {
    if let Ok(row) = std::env::var("BENCH_ONE") {
        return one_row(&row);
    }
    let smoke = std::env::args().any(|arg| arg == "--test") || cfg!(debug_assertions);
    let only_table = std::env::args().any(|arg| arg == "table");
    table(smoke);
    if !only_table {
        let mut criterion = Criterion::default().configure_from_args();
        texts(&mut criterion);
        criterion.final_summary();
    }
}
