//! Conversion of the standard record (operation symbol, 12-byte id, u16, f64, bool), against a
//! template written by hand for it. One thread, segments and lines in memory.
//!
//! `line/plan` is the whole conversion: both passes, checksums, merge of two producers, decoding.
//! `line/template` knows the layout at compile time, has the records in one piece and in order,
//! and writes the same bytes; both are checked to be equal before anything is measured.
//! `line/plan_no_redact` is `line/plan` without the look for secrets; `redact/*` is that look
//! alone.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stormlog::Error;
use stormlog::convert::{ConvertOptions, LineSink, convert_lines};
use stormlog::record::{Record, SchemaIds, ShortText, Symbol};
use stormlog::redact::{Redactor, Rules};
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use support::{Head, START_TICKS, START_UTC_NS, SegmentBuilder, record};

stormlog::record! {
    /// The standard record.
    struct Standard in "bench" keep Sampled key id {
        operation: Symbol,
        id: ShortText<12>,
        port: u16,
        value: f64,
        ok: bool,
    }
}

const IDS: SchemaIds = SchemaIds {
    schema: 1,
    category: 20,
};
const OPERATIONS: [&str; 4] = [
    "start_container_begin",
    "start_container_success",
    "allocate_port",
    "health_check",
];
/// Ticks between two records: 1 us.
const STEP: u64 = 1000;

/// The segment, and the records of both producers in the order of their lines.
fn input(count: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let symbols = [
        stormlog::symbol!("start_container_begin"),
        stormlog::symbol!("start_container_success"),
        stormlog::symbol!("allocate_port"),
        stormlog::symbol!("health_check"),
    ];
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry(&[
        Entry::Category(20, "bench"),
        Entry::schema(IDS, Standard::default().schema()),
    ]);
    for (symbol, text) in symbols.iter().zip(OPERATIONS) {
        let stormlog::record::Name::Symbol(symbol) = symbol else {
            panic!("no symbol");
        };
        segment.registry(&[Entry::Symbol(symbol.id(), text)]);
    }
    let mut all = Vec::new();
    for index in 0..count {
        let mix = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = format!("{:012x}", mix >> 16);
        let standard = Standard {
            operation: symbols[(mix >> 60) as usize % 4],
            id: &id,
            port: mix as u16,
            value: (mix >> 40) as f64 / 1000.0,
            ok: mix & 1 == 0,
        };
        let head = Head {
            schema: 1,
            ticks: START_TICKS + index * STEP,
            ..Head::default()
        };
        all.push(record(&standard, head));
    }
    // Producers take turns of 16 records; a block holds up to 64 KiB of one of them.
    for part in all.chunks(2 * 1400 / 32 * 32) {
        for ring in 0..2 {
            let turns = part.chunks(16).skip(ring).step_by(2).flatten();
            let records: Vec<_> = turns.map(|bytes| (20, bytes.clone())).collect();
            segment.data(ring as u32 + 1, &records);
        }
    }
    (segment.seal(true), all)
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

/// The same lines, written by hand for this one record type.
fn template(records: &[Vec<u8>], symbols: &BTreeMap<u32, &str>, out: &mut Vec<u8>) {
    let mut second = u64::MAX;
    let mut date = String::new();
    for record in records {
        let ticks = u64::from_le_bytes(*record[8..].first_chunk().unwrap());
        let elapsed = ticks - START_TICKS;
        let utc = START_UTC_NS + elapsed;
        if utc / 1_000_000_000 != second {
            second = utc / 1_000_000_000;
            stormlog::convert::rfc3339(utc)[..20].clone_into(&mut date);
        }
        let (fixed, text) = record[16..].split_at(16);
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
        out.extend_from_slice(symbols[&operation].as_bytes());
        out.extend_from_slice(b"\",\"id\":\"");
        let id = &text[..usize::from(fixed[4])];
        assert!(id.iter().all(u8::is_ascii_alphanumeric));
        out.extend_from_slice(id);
        out.extend_from_slice(b"\",\"port\":");
        let port = u16::from_le_bytes(*fixed[5..].first_chunk().unwrap());
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        out.extend_from_slice(b",\"value\":");
        let value = f64::from_le_bytes(*fixed[7..].first_chunk().unwrap());
        out.extend_from_slice(zmij::Buffer::new().format(value).as_bytes());
        out.extend_from_slice(b",\"ok\":");
        out.extend_from_slice(if fixed[15] == 0 { b"false" } else { b"true" });
        out.extend_from_slice(b"}\n");
    }
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

fn lines(criterion: &mut Criterion) {
    let smoke = std::env::args().any(|arg| arg == "--test") || cfg!(debug_assertions);
    let count = if smoke { 3_000 } else { 200_000 };
    let (segment, records) = input(count);
    let mut symbols = BTreeMap::new();
    for name in [
        stormlog::symbol!("start_container_begin"),
        stormlog::symbol!("start_container_success"),
        stormlog::symbol!("allocate_port"),
        stormlog::symbol!("health_check"),
    ] {
        if let stormlog::record::Name::Symbol(symbol) = name {
            symbols.insert(symbol.id(), symbol.text());
        }
    }
    let session = SessionFiles::from_memory([("bench.seg".into(), segment)])
        .unwrap()
        .remove(0);
    let mut by_plan = BTreeMap::new();
    convert_lines(&session, &mut by_plan, ConvertOptions::default()).unwrap();
    let mut by_hand = Vec::new();
    template(&records, &symbols, &mut by_hand);
    assert!(by_plan["bench"] == by_hand, "both write the same lines");
    println!(
        "{count} records, {} bytes of lines, crc {:08x}",
        by_hand.len(),
        crc32c::crc32c(&by_hand)
    );

    let mut group = criterion.benchmark_group("line");
    group.throughput(Throughput::Elements(count));
    group.bench_function("plan", |bencher| {
        bencher.iter(|| {
            let mut sink = Count::default();
            convert_lines(&session, &mut sink, ConvertOptions::default()).unwrap();
            sink.0
        });
    });
    group.bench_function("plan_no_redact", |bencher| {
        bencher.iter(|| {
            let mut sink = Count::default();
            let redact = Some(Rules {
                on: false,
                ..Rules::default()
            });
            let options = ConvertOptions {
                redact,
                ..ConvertOptions::default()
            };
            convert_lines(&session, &mut sink, options).unwrap();
            sink.0
        });
    });
    let mut out = Vec::with_capacity(by_hand.len());
    group.bench_function("template", |bencher| {
        bencher.iter(|| {
            for part in records.chunks(600) {
                out.clear();
                template(part, &symbols, &mut out);
                black_box(&out);
            }
        });
    });
    group.finish();
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

criterion_group!(benches, lines, texts);
criterion_main!(benches);
