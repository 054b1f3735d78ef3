//! What the tools take of memory on files that want much of it: at most 64 MiB and twice the
//! files. Measured from outside, as the largest resident set of a child. `STORMLOG_MEMORY_MIB=64`
//! makes each of the files so long. `whole_sessions` is the long form for sessions of gigabytes.
#![cfg(feature = "cli")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use stormlog::record::{LongText, Record, SchemaIds};
use stormlog::segment::entry::Entry;
use stormlog::segment::layout::{BLOCK_DATA, BLOCK_LARGE, BlockHeader};
use support::{
    Head, SESSION, START_TICKS, SegmentBuilder, body, large_record, raw_entry, raw_record, record,
};

stormlog::record! {
    /// A number and a text.
    struct Whole in "whole" keep Sampled {
        number: u64,
        text: LongText,
    }
}

/// MiB of each input, about.
const INPUT_MIB: usize = 4;
/// What a tool may take beside twice its input.
const MEMORY_BYTES: u64 = 64 << 20;

/// Where [`measure`] finds what it is to run.
const WORDS: &str = "STORMLOG_MEMORY_WORDS";

/// Runs the tool; returns the bytes of its largest resident set. A process is told to have been as
/// large as the one that started it, which is why the tests do not start it themselves.
fn peak(words: &[&str], dir: &Path) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["measure", "--exact", "--nocapture"]);
    command.env(WORDS, words.join("\n")).current_dir(dir);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words:?}: {text}");
    let peak = text.lines().find_map(|line| line.split_once("peak "));
    peak.unwrap().1.parse().unwrap()
}

/// Run by [`peak`], in a small process of its own.
#[test]
fn measure() {
    let Ok(words) = std::env::var(WORDS) else {
        return;
    };
    let words: Vec<&str> = words.lines().collect();
    println!("\npeak {}", child_peak(&words, Path::new(".")));
}

fn child_peak(words: &[&str], dir: &Path) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.args(words).current_dir(dir);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let pid = child.unwrap().id() as libc::pid_t;
    let mut status = 0;
    #[expect(unsafe_code, reason = "plain data of the C library")]
    // SAFETY: all zeros are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    #[expect(
        unsafe_code,
        reason = "the standard library does not tell what a child has used"
    )]
    // SAFETY: waits for our own child, once; both places are ours.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid);
    assert!(libc::WIFEXITED(status), "{words:?} was killed: {status}");
    assert!(libc::WEXITSTATUS(status) <= 2, "{words:?}: {status}");
    usage.ru_maxrss as u64 * 1024
}

/// Runs every tool on a session of one segment.
#[track_caller]
fn check(what: &str, segment: &[u8]) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join(".stormlog").join(SESSION);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("000001.seg"), segment).unwrap();
    let input = segment.len() as u64;
    for words in [
        &["convert", "."][..],
        &["convert", ".", "--salvage"],
        &["inspect", "."],
        &["verify", "."],
        &["recover", "."],
    ] {
        let lines = std::fs::read_dir(temp.path()).unwrap();
        let lines: u64 = lines
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        // The lines are read too, one at a time.
        let input = input + if words[0] == "verify" { lines } else { 0 };
        let (peak, bound) = (peak(words, temp.path()), MEMORY_BYTES + 2 * input);
        println!("{what}: {words:?}: {} of {} MiB", peak >> 20, bound >> 20);
        assert!(
            peak <= bound,
            "{what}: {words:?} took {peak} for {input} bytes"
        );
    }
}

fn filled(mut fill: impl FnMut(&mut SegmentBuilder, u32)) -> Vec<u8> {
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry_bytes(&raw_entry(1, 20, 0, b"\x05\0kinds"), 1);
    let mib = std::env::var("STORMLOG_MEMORY_MIB").ok();
    let mib = mib.and_then(|mib| mib.parse().ok()).unwrap_or(INPUT_MIB);
    let mut number = 0;
    while segment.offset() < mib << 20 {
        number += 1;
        fill(&mut segment, number);
    }
    segment.seal(true)
}

/// Every block is of another producer, with one record of a schema that nobody knows.
#[test]
fn producers() {
    let bare = raw_record(
        &[],
        Head {
            schema: 1,
            ..Head::default()
        },
    );
    check(
        "producers",
        &filled(|segment, number| segment.data(number, &[(20, bare.clone())])),
    );
}

/// Large blocks without a body and without a record, and every second block is missing.
#[test]
fn large_blocks() {
    let large = |number: u32| BlockHeader {
        kind: BLOCK_LARGE,
        ring: number,
        records: 1,
        ..BlockHeader::default()
    };
    check(
        "large",
        &filled(|segment, number| segment.block(large(number), &[])),
    );
    check(
        "large with gaps",
        &filled(|segment, number| {
            segment.block(large(number), &[]);
            segment.sequence += 1;
        }),
    );
    let empty = |number: u32| BlockHeader {
        kind: BLOCK_DATA,
        ring: number,
        ..BlockHeader::default()
    };
    check(
        "empty",
        &filled(|segment, number| segment.block(empty(number), &[])),
    );
}

/// Entries of the registry that a reader keeps.
#[test]
fn registry_entries() {
    for kind in [3, 4, 5] {
        check(
            &format!("entries of kind {kind}"),
            &filled(|segment, number| {
                let entries: Vec<u8> = (0..1000)
                    .flat_map(|index| {
                        let id = number * 1000 + index;
                        let name = match kind {
                            3 => 3_u16.to_le_bytes().into_iter().chain(*b"sym").collect(),
                            4 => [u64::from(id); 3]
                                .iter()
                                .flat_map(|v| v.to_le_bytes())
                                .collect(),
                            _ => vec![0; 10],
                        };
                        raw_entry(kind, 0, id, &name)
                    })
                    .collect();
                segment.registry_bytes(&entries, 1000);
            }),
        );
    }
}

/// Short records of a schema with 255 long names, each character of which is six in JSON: 8,192 of
/// them, what a conversion takes at once, are lines of three gigabytes.
#[test]
fn long_lines_of_short_records() {
    let mut payload = 20_u16.to_le_bytes().to_vec();
    payload.extend([0, 250, 250, 0, 255, 255, 0]);
    for offset in 0..250_u16 {
        payload.extend([1, 0, 0, 250]);
        payload.extend(offset.to_le_bytes());
        payload.extend(0_u32.to_le_bytes());
        payload.extend(vec![1; 247]);
        payload.extend(format!("{offset:03}").bytes());
    }
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry_bytes(&raw_entry(1, 20, 0, b"\x05\0kinds"), 1);
    segment.registry_bytes(&raw_entry(2, 1, 0, &payload), 1);
    let short = raw_record(
        &[0; 250],
        Head {
            schema: 1,
            ..Head::default()
        },
    );
    for _ in 0..10 {
        segment.data(1, &vec![(20, short.clone()); 100]);
    }
    check("long lines", &segment.seal(true));
}

/// One text of 16 MiB of control characters: each becomes six bytes of the line.
#[test]
fn one_long_text() {
    let mut segment = SegmentBuilder::new(1, 0);
    let ids = SchemaIds {
        schema: 1,
        category: 20,
    };
    segment.registry(&[
        Entry::Category(20, "whole"),
        Entry::schema(ids, Whole::default().schema()),
    ]);
    let text = "\u{1}".repeat(16 << 20);
    let whole = Whole {
        number: 1,
        text: &text,
    };
    let body = body(&whole, &[]);
    segment.large(1, 0, &body);
    let head = Head {
        schema: 1,
        ..Head::default()
    };
    segment.data(1, &[(20, large_record(body.len(), head))]);
    check("one long text", &segment.seal(true));
}

/// A session of `STORMLOG_MEMORY_GIB` of segments and 600 producers, whose records take turns, and
/// its conversion with 1 and with 2 threads. Needs about three times as much of the disk, in the
/// directory for temporary files, and so is done only where the variable is set.
#[test]
fn whole_sessions() {
    const RINGS: u64 = 600;
    let gib = std::env::var("STORMLOG_MEMORY_GIB").ok();
    let Some(gib) = gib.and_then(|gib| gib.parse::<u64>().ok()) else {
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join(".stormlog").join(SESSION);
    std::fs::create_dir_all(&dir).unwrap();
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry(&[
        Entry::Category(20, "whole"),
        Entry::schema(
            SchemaIds {
                schema: 1,
                category: 20,
            },
            Whole::default().schema(),
        ),
    ]);
    let text = "a-text-as-long-as-a-message-of-a-service-often-is/".repeat(5);
    let (mut written, mut count, mut number) = (0, 0_u64, 1);
    while written < gib << 30 {
        let mut rings = vec![Vec::new(); RINGS as usize];
        // 30 records of each ring, about 8 KiB: what the small rings hold.
        for _ in 0..30 * RINGS {
            let whole = Whole {
                number: count,
                text: &text,
            };
            let head = Head {
                schema: 1,
                ticks: START_TICKS + count * 100,
                ..Head::default()
            };
            rings[(count % RINGS) as usize].push((20, record(&whole, head)));
            count += 1;
        }
        for (ring, records) in (1..).zip(&rings) {
            segment.data(ring, records);
        }
        if segment.offset() > 64 << 20 {
            let bytes = segment.seal(written + segment.offset() as u64 >= gib << 30);
            written += bytes.len() as u64;
            std::fs::write(dir.join(format!("{number:06}.seg")), bytes).unwrap();
            number += 1;
            segment = SegmentBuilder::after(&segment);
        }
    }
    for threads in ["1", "2"] {
        let start = std::time::Instant::now();
        let peak = peak(&["convert", ".", "--threads", threads], temp.path());
        let seconds = start.elapsed().as_secs_f64();
        let path = temp.path().join(format!("{SESSION}_whole.jsonl"));
        let lines = std::fs::metadata(&path).unwrap().len();
        println!(
            "{written} bytes of segments, {count} records, {lines} bytes of lines, {threads} \
             threads: peak {:.1} MiB, {seconds:.1} s",
            peak as f64 / f64::from(1 << 20)
        );
        assert!(peak <= MEMORY_BYTES, "{threads} threads took {peak}");
        std::fs::remove_file(path).unwrap();
    }
}
