//! What the tools take of memory on files that want much of it: at most 64 MiB and twice the
//! files. Measured from outside, as the largest resident set of a child. `STORMLOG_MEMORY_MIB=64`
//! makes each of the files so long.
#![cfg(feature = "cli")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use stormlog::segment::layout::{BLOCK_DATA, BLOCK_LARGE, BlockHeader};
use support::{Head, SESSION, SegmentBuilder, raw_entry, raw_record};

/// MiB of each input, about.
const INPUT_MIB: usize = 4;
/// What a tool may take beside twice its input.
const MEMORY_BYTES: u64 = 64 << 20;

/// Runs the tool; returns the bytes of its largest resident set.
fn peak(words: &[&str], dir: &Path) -> u64 {
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
