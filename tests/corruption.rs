//! Damaged segments: every byte flipped, every length cut, blocks swapped, random bytes. The
//! result is an error or some of the lines of the whole session, in their order, and a fault that
//! says so; never another line, never a panic.

#[path = "support/session.rs"]
mod session;
mod support;

use std::collections::BTreeMap;

use session::{numbered, registry, session, spilled_session};
use stormlog::convert::ConvertReport;
use stormlog::record::{LongText, Record, SchemaIds};
use stormlog::segment::entry::Entry;
use stormlog::segment::files::SessionFiles;
use stormlog::segment::layout::BLOCKS_OFFSET;
use support::{Head, START_TICKS, SegmentBuilder, record, repair};

type Lines = BTreeMap<String, Vec<u8>>;

/// Converts what can be read; `None` when nothing can.
fn convert(segments: &[Vec<u8>]) -> Option<(Lines, ConvertReport)> {
    let named = (1..).zip(segments.iter().cloned());
    let mut found = Vec::new();
    for (number, bytes) in named {
        found.push((format!("{number}.seg").into(), bytes));
    }
    let sessions = SessionFiles::from_memory(found).ok()?;
    let mut lines = Lines::new();
    // A damaged nonce with a repaired checksum would be a session of its own.
    let mut reports = Vec::new();
    for session in &sessions {
        let (more, report) = support::convert_by_threads(session, false).ok()?;
        for (category, text) in more {
            lines.entry(category).or_default().extend(text);
        }
        reports.push(report);
    }
    Some((lines, reports.remove(0)))
}

/// Whether the lines of `part` are some of those of `whole`, in their order.
fn is_part(part: &[u8], whole: &[u8]) -> bool {
    let mut whole = whole.split(|byte| *byte == b'\n');
    let mut part = part.split(|byte| *byte == b'\n');
    part.all(|line| whole.by_ref().any(|other| other == line))
}

#[track_caller]
fn assert_part(damaged: &[Vec<u8>], whole: &Lines, what: &str) -> Option<usize> {
    let (lines, report) = convert(damaged)?;
    for (category, text) in &lines {
        let expected = whole
            .get(category)
            .unwrap_or_else(|| panic!("{what}: made up {category}"));
        assert!(
            is_part(text, expected),
            "{what}: {}",
            String::from_utf8_lossy(text)
        );
    }
    assert!(
        lines == *whole || !report.faults.is_empty(),
        "{what}: lost without a word"
    );
    let lines = lines.values();
    Some(
        lines
            .map(|text| text.split(|byte| *byte == b'\n').count() - 1)
            .sum(),
    )
}

#[test]
fn every_flipped_bit_costs_lines_at_most() {
    let segments = session();
    let (whole, _) = convert(&segments).unwrap();
    for segment in 0..2 {
        for offset in 0..segments[segment].len() {
            // All bits of the header, two of each byte of its copy, the hint and the blocks, and
            // the space between, which has no meaning, in runs of 64 bytes.
            let (bits, run) = match offset {
                0..256 => (0..8, 1),
                2048..2304 | 4096..4104 | BLOCKS_OFFSET.. => (0..2, 1),
                4104 => (0..1, 56),
                _ if offset % 64 == 0 => (0..1, 64),
                _ => continue,
            };
            for bit in bits {
                let mut damaged = segments.clone();
                for byte in &mut damaged[segment][offset..offset + run] {
                    *byte ^= 1 << ((offset + 3 * bit) % 8);
                }
                let what = format!("segment {segment} byte {offset} bit {bit}");
                let readable = assert_part(&damaged, &whole, &what).is_some();
                assert!(readable, "{what}: the rest of the session can be read");
            }
        }
    }
}

/// The numbers of the lines of `names`.
fn lines_numbered(lines: &Lines) -> Vec<u64> {
    let text = String::from_utf8(lines.get("names").cloned().unwrap_or_default()).unwrap();
    let number = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["type"].as_u64().unwrap()
    };
    text.lines().map(number).collect()
}

#[test]
fn spilled_records_stand_where_their_ring_was() {
    let (lines, report) = convert(&[spilled_session()]).unwrap();
    assert_eq!(report.faults, Vec::<String>::new());
    assert_eq!(lines_numbered(&lines), (1..=9).collect::<Vec<u64>>());
}

#[test]
fn every_flipped_bit_and_truncation_of_spilled_blocks_costs_lines_at_most() {
    let segment = spilled_session();
    let (whole, _) = convert(std::slice::from_ref(&segment)).unwrap();
    for offset in BLOCKS_OFFSET..segment.len() {
        for bit in [0, 3, 4, 7] {
            let mut damaged = segment.clone();
            damaged[offset] ^= 1 << bit;
            assert_part(&[damaged], &whole, &format!("byte {offset} bit {bit}"));
        }
        let what = format!("cut to {offset}");
        assert_part(&[segment[..offset].to_vec()], &whole, &what);
    }
}

#[test]
fn the_flag_of_spilled_records_must_agree_with_their_block() {
    let flagged = |number| {
        let (category, mut bytes) = numbered(number, 0.2);
        bytes[4] |= stormlog::record::FLAG_SPILLED;
        (category, bytes)
    };
    let plain = |number| numbered(number, 0.2);
    // Outside of a block for them, and in one without the flag.
    let mut first = SegmentBuilder::new(1, 0);
    registry(&mut first);
    first.data(1, &[plain(1), flagged(2)]);
    let mut second = SegmentBuilder::new(1, 0);
    registry(&mut second);
    second.spilled(1, &[plain(1), flagged(2)]);
    let mut second = second.seal(true);
    let flag = second.iter().rposition(|byte| *byte == 0x10).unwrap();
    second[flag] = 0;
    repair(&mut second);
    for segment in [first.seal(true), second] {
        let (lines, report) = convert(&[segment]).unwrap();
        assert_eq!(lines_numbered(&lines), Vec::<u64>::new());
        let said = |fault: &String| fault.contains("mixes spilled records with others: 2 records");
        assert!(report.faults.iter().any(said), "{:?}", report.faults);
        assert_eq!(report.damaged_unknown, 2);
    }
}

#[test]
fn every_truncation_leaves_the_lines_before_it() {
    let segments = session();
    let (whole, _) = convert(&segments).unwrap();
    for segment in 0..2 {
        let mut most = 0;
        for length in 0..segments[segment].len() {
            let mut damaged = segments.clone();
            damaged[segment].truncate(length);
            let alone = assert_part(
                &damaged[segment..=segment],
                &whole,
                &format!("alone {length}"),
            )
            .unwrap_or(0);
            assert!(alone >= most, "a longer prefix has at least as many lines");
            most = alone;
            if length >= BLOCKS_OFFSET || length % 64 == 0 {
                let what = format!("segment {segment} cut to {length}");
                assert_part(&damaged, &whole, &what);
            }
        }
        assert!(most > 0);
    }
}

#[test]
fn damage_is_reported_with_what_is_lost() {
    let [mut first, second] = session();
    // The last byte of the payload of the last data block, in front of the seal.
    let seal = first
        .windows(4)
        .rposition(|bytes| bytes == b"SBLK")
        .unwrap();
    first[seal - 8] ^= 1;
    let (_, report) = convert(&[first, second]).unwrap();
    let faults = report.faults.join("; ");
    assert!(
        faults.contains("the checksum of the block does not match; 3 records behind it are lost"),
        "{faults}"
    );
    assert!(faults.contains("at byte "), "{faults}");
}

#[test]
fn swapped_and_repeated_blocks_are_not_taken() {
    let segments = session();
    let (whole, _) = convert(&segments).unwrap();
    let bytes = &segments[0];
    let mut starts: Vec<usize> = (BLOCKS_OFFSET..bytes.len())
        .step_by(8)
        .filter(|at| bytes[*at..].starts_with(b"SBLK"))
        .collect();
    starts.push(bytes.len());
    let blocks: Vec<&[u8]> = starts
        .windows(2)
        .map(|pair| &bytes[pair[0]..pair[1]])
        .collect();
    for a in 0..blocks.len() {
        for b in 0..blocks.len() {
            let mut order = blocks.clone();
            order[a] = blocks[b];
            let damaged = [&bytes[..BLOCKS_OFFSET], &order.concat()].concat();
            assert_part(
                &[damaged, segments[1].clone()],
                &whole,
                &format!("{b} at {a}"),
            );
        }
    }
}

/// Random damage behind repaired checksums reaches everything; lines may differ then, but each is
/// still one JSON object, and nothing panics.
#[test]
fn damage_behind_valid_checksums_never_panics() {
    let mut seed = 0x5eed_u64;
    println!("seed {seed}");
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let segments = session();
    for _ in 0..4000 {
        let mut damaged = segments.clone();
        for _ in 0..=random() % 4 {
            let bytes = &mut damaged[(random() % 2) as usize];
            let offset = BLOCKS_OFFSET + random() as usize % (bytes.len() - BLOCKS_OFFSET);
            match random() % 3 {
                0 => bytes[offset] ^= 1 << (random() % 8),
                1 => bytes[offset] = random() as u8,
                _ => bytes[offset] = [0, 0xff, 0x7f, 0x80][(random() % 4) as usize],
            }
        }
        for bytes in &mut damaged {
            repair(bytes);
        }
        let Some((lines, _)) = convert(&damaged) else {
            continue;
        };
        for line in lines
            .values()
            .flat_map(|text| text.split(|byte| *byte == b'\n'))
        {
            if !line.is_empty() {
                let json: Result<serde_json::Value, _> = serde_json::from_slice(line);
                let json = json
                    .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(line)));
                assert!(json.is_object());
            }
        }
    }
}

stormlog::record! {
    /// A number and a text.
    struct Long in "long" keep Sampled {
        number: u64,
        text: LongText,
    }
}

/// Segments of several parts and batches: where threads read ahead of damage, that does not count.
#[test]
fn damage_in_long_segments_is_the_same_for_any_number_of_threads() {
    let ids = SchemaIds {
        schema: 1,
        category: 20,
    };
    let text = "text".repeat(250);
    let mut number = 0;
    let mut segments = Vec::new();
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry(&[
        Entry::Category(20, "long"),
        Entry::schema(ids, Long::default().schema()),
    ]);
    for _ in 0..3 {
        while segment.offset() < 3 << 20 {
            for ring in 1..=3 {
                let records = (0..20).map(|index| {
                    let long = Long {
                        number: number + index,
                        text: &text,
                    };
                    let head = Head {
                        schema: 1,
                        // The records of the three producers take turns.
                        ticks: START_TICKS + 3 * (number / 3 + index) + u64::from(ring),
                        ..Head::default()
                    };
                    (20, record(&long, head))
                });
                segment.data(ring, &records.collect::<Vec<_>>());
                number += 20;
            }
        }
        segments.push(segment.seal(segments.len() == 2));
        segment = SegmentBuilder::after(&segment);
    }
    let (whole, report) = convert(&segments).unwrap();
    assert_eq!(report.lines, number);
    for part in 0..12 {
        let mut damaged = segments.clone();
        let place = BLOCKS_OFFSET + part * ((3 << 20) / 12) + 77;
        damaged[1][place] ^= 1;
        let (lines, report) = convert(&damaged).unwrap();
        assert!(report.lines < number && !report.faults.is_empty(), "{part}");
        assert!(is_part(&lines["long"], &whole["long"]), "{part}");
    }
    // A valid block of another place, at the end of the first part and in the middle of one.
    for place in [1 << 20, (1 << 20) + (1 << 19)] {
        let mut damaged = segments.clone();
        let blocks = &damaged[1][BLOCKS_OFFSET..];
        let length = blocks
            .windows(4)
            .skip(1)
            .position(|bytes| bytes == b"SBLK")
            .unwrap()
            + 1;
        let block = blocks[..length].to_vec();
        let place = BLOCKS_OFFSET + place / length * length;
        damaged[1][place..place + length].copy_from_slice(&block);
        let (lines, report) = convert(&damaged).unwrap();
        assert!(report.lines < number && !report.faults.is_empty());
        assert!(is_part(&lines["long"], &whole["long"]));
    }
}
