//! One small session with every kind of field, used by several tests.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::time::Duration;

use stormlog::record::{
    DurationMs, FLAG_CUT, Json, LongText, Name, Record, SchemaIds, ShortText, Symbol, Text,
};
use stormlog::segment::entry::Entry;

use super::support::{
    Head, START_TICKS, SegmentBuilder, TICKS, body, clock, extras, large_record, raw_entry,
    raw_record, record, text,
};

stormlog::record! {
    /// Every kind of field, none of them null.
    pub struct Kinds in "kinds" keep Sampled key short {
        symbol: Symbol,
        short: ShortText<64>,
        text: Text,
        long: LongText,
        u8_: u8,
        u16_: u16,
        u32_: u32,
        u64_: u64,
        i8_: i8,
        i16_: i16,
        i32_: i32,
        i64_: i64,
        f32_: f32,
        f64_: f64,
        bool_: bool,
        duration_ms: DurationMs<2>,
        go_ms: DurationMs<0>,
        ns_ms: DurationMs<6>,
    }
}

stormlog::record! {
    /// Every kind of field that can be null.
    pub struct Options in "kinds" keep Sampled {
        symbol: Option<Symbol>,
        short: Option<ShortText<64>>,
        text: Option<Text>,
        long: Option<LongText>,
        json: Option<Json>,
        u8_: Option<u8>,
        u64_: Option<u64>,
        i64_: Option<i64>,
        f32_: Option<f32>,
        f64_: Option<f64>,
        bool_: Option<bool>,
        duration_ms: Option<DurationMs<2>>,
    }
}

stormlog::record! {
    /// Names that collide with those of the line.
    pub struct Reserved in "names" keep Always {
        timestamp: u8,
        field_timestamp: u8,
        truncated: u8,
        sample_weight: u8,
        r#type: u8,
    }
}

stormlog::record! {
    /// The end of a session.
    pub struct SessionEnd in "session" keep Always {
        event: Symbol,
        ledger: Option<Json>,
    }
}

pub const KINDS: SchemaIds = SchemaIds {
    schema: 1,
    category: 20,
};
pub const OPTIONS: SchemaIds = SchemaIds {
    schema: 2,
    category: 20,
};
pub const RESERVED: SchemaIds = SchemaIds {
    schema: 3,
    category: 21,
};
pub const END: SchemaIds = SchemaIds {
    schema: 4,
    category: 0,
};

pub fn registry(segment: &mut SegmentBuilder) {
    segment.registry(&[
        Entry::Category(0, "session"),
        Entry::Category(20, "kinds"),
        Entry::Category(21, "names"),
        Entry::schema(KINDS, Kinds::default().schema()),
        Entry::schema(OPTIONS, Options::default().schema()),
        Entry::schema(RESERVED, Reserved::default().schema()),
        Entry::schema(END, SessionEnd::default().schema()),
        Entry::Symbol(7, "seven \"quoted\""),
        Entry::Producer(1, 4711, "main"),
        Entry::Producer(2, 4712, "worker"),
        clock(1),
    ]);
    segment.registry_bytes(&raw_entry(6, 16, 0, &2.5_f64.to_le_bytes()), 1);
}

pub fn at(schema: SchemaIds, second: f64) -> Head<'static> {
    Head {
        schema: schema.schema,
        ticks: START_TICKS + (second * TICKS as f64) as u64,
        ..Head::default()
    }
}

pub fn kinds() -> Kinds<'static> {
    Kinds {
        symbol: Name::Text("in\nline"),
        short: "0123456789ab",
        text: "\u{e4}\u{202e}\u{1f600}",
        long: "long",
        u8_: u8::MAX,
        u16_: u16::MAX,
        u32_: u32::MAX,
        u64_: u64::MAX,
        i8_: i8::MIN,
        i16_: i16::MIN,
        i32_: i32::MIN,
        i64_: i64::MIN,
        f32_: 0.1,
        f64_: 1.0,
        bool_: true,
        duration_ms: Duration::from_micros(264_125),
        go_ms: Duration::from_nanos(264_999_999),
        ns_ms: Duration::from_nanos(264_999_999),
    }
}

fn full_options() -> Options<'static> {
    Options {
        symbol: Some(Name::Text("")),
        short: Some(""),
        text: Some("t"),
        long: Some("l"),
        json: Some("{\"b\":1,\n \"a\":[\"\u{85}\"]}"),
        u8_: Some(0),
        u64_: Some(0),
        i64_: Some(-1),
        f32_: Some(f32::INFINITY),
        f64_: Some(1e300),
        bool_: Some(false),
        duration_ms: Some(Duration::ZERO),
    }
}

fn any_extras() -> Vec<u8> {
    extras(&[
        (b"null", 0, b""),
        (b"no", 1, b""),
        (b"yes", 2, b""),
        (b"i", 3, &(-5_i64).to_le_bytes()),
        (b"u", 4, &u64::MAX.to_le_bytes()),
        (b"f", 5, &f64::NAN.to_le_bytes()),
        (b"text", 6, &text(b"bad \xff utf-8")),
        (b"json", 7, &text(b"[1, 2]")),
        (b"not json", 7, &text(b"[1, 2")),
        (b"number", 8, &text(b"1.50")),
        (b"not number", 8, &text(b"1.5x")),
        (&7_u32.to_le_bytes(), 0x80, b""),
        (b"i", 1, b""),
        (b"i", 2, b""),
        (b"session_id", 0, b""),
        (b"truncated", 0, b""),
        (b"", 0, b""),
    ])
}

/// The lines that `first` and `second` become are in `tests/golden`.
pub fn session() -> [Vec<u8>; 2] {
    let mut first = SegmentBuilder::new(1, 0);
    registry(&mut first);
    let mut symbol = record(
        &kinds(),
        Head {
            weight: 3,
            ..at(KINDS, 0.25)
        },
    );
    // The symbol's slot is the first: id 7 instead of an inline text, which is taken out.
    let inline = symbol.split_off(16);
    let fixed = body(&Kinds::default(), &[]).len();
    symbol.extend_from_slice(&7_u32.to_le_bytes());
    symbol.extend_from_slice(&inline[4..fixed]);
    symbol.extend_from_slice(&inline[fixed + 7..]);
    let symbol = raw_record(
        symbol[16..]
            .split_at(symbol.len() - 16 - padding(&inline))
            .0,
        Head {
            weight: 3,
            ..at(KINDS, 0.25)
        },
    );
    first.data(
        1,
        &[
            (20, record(&kinds(), at(KINDS, 0.1))),
            (20, symbol),
            (20, record(&Options::default(), at(OPTIONS, 0.3))),
        ],
    );
    first.data(
        2,
        &[
            (
                20,
                record(
                    &full_options(),
                    Head {
                        weight: 16,
                        ..at(OPTIONS, 0.2)
                    },
                ),
            ),
            // A clock that steps back does not change the order of its thread.
            (20, record(&Options::default(), at(OPTIONS, 0.15))),
            (21, record(&Reserved::default(), at(RESERVED, 0.25))),
        ],
    );
    let mut second = SegmentBuilder::after(&first);
    second.sequence += 1;
    registry(&mut second);
    second.registry(&[clock(2)]);
    let extras = any_extras();
    let with_extras = Head {
        extras: &extras,
        ..at(OPTIONS, 1.5)
    };
    let cut = Head {
        flags: FLAG_CUT,
        ..at(RESERVED, 1.25)
    };
    let large = body(&kinds(), &extras);
    second.large(2, second.positions[&2], &large);
    let large = large_record(
        large.len(),
        Head {
            extras: &extras,
            ..at(KINDS, 1.75)
        },
    );
    second.data(2, &[(20, large)]);
    let ledger = "{\"kinds\":{\"offered\":7,\"written\":7},\"names\":{\"offered\":2,\"written\":2},\
                  \"session\":{\"offered\":1,\"written\":1}}";
    let end = SessionEnd {
        event: Name::Text("session_end"),
        ledger: Some(ledger),
    };
    second.data(
        1,
        &[
            (21, record(&Reserved::default(), cut)),
            (20, record(&Options::default(), with_extras)),
            (0, record(&end, at(END, 2.0))),
        ],
    );
    [first.seal(false), second.seal(true)]
}

/// A record whose line has this number, of category 21.
pub fn numbered(number: u8, second: f64) -> (u32, Vec<u8>) {
    let plain = Reserved {
        r#type: number,
        ..Reserved::default()
    };
    (21, record(&plain, at(RESERVED, second)))
}

/// The same with its body in a large block, which it returns first.
pub fn numbered_large(number: u8, second: f64) -> (Vec<u8>, (u32, Vec<u8>)) {
    let plain = Reserved {
        r#type: number,
        ..Reserved::default()
    };
    let body = body(&plain, &[]);
    let reference = large_record(body.len(), at(RESERVED, second));
    (body, (21, reference))
}

/// A segment in which producer 1 spilled records, two of them large, whose position a large record
/// of its ring shares, and in which a thread had no ring. Its lines are numbered 1 to 9.
pub fn spilled_session() -> Vec<u8> {
    let mut segment = SegmentBuilder::new(1, 0);
    registry(&mut segment);
    segment.data(1, &[numbered(1, 0.1)]);
    // Ticks that step back show that the order is that of the blocks.
    segment.spilled(1, &[numbered(2, 0.2), numbered(3, 0.15)]);
    for number in [4, 5] {
        let (body, reference) = numbered_large(number, 0.2);
        segment.large(1, segment.positions[&1], &body);
        segment.spilled(1, &[reference]);
    }
    let (body, reference) = numbered_large(6, 0.3);
    segment.large(1, segment.positions[&1], &body);
    segment.data(1, &[reference, numbered(7, 0.3)]);
    segment.spilled(u32::MAX, &[numbered(8, 0.4)]);
    segment.spilled(u32::MAX, &[numbered(9, 0.5)]);
    let ledger =
        "{\"names\":{\"offered\":9,\"written\":9},\"session\":{\"offered\":1,\"written\":1}}";
    let end = SessionEnd {
        event: Name::Text("session_end"),
        ledger: Some(ledger),
    };
    segment.data(2, &[(0, record(&end, at(END, 1.0)))]);
    segment.seal(true)
}

/// Zero bytes behind the body of a record that is `kinds()`.
fn padding(record_body: &[u8]) -> usize {
    record_body.len() - body(&kinds(), &[]).len()
}
