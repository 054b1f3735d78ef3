//! The fuzz targets on stable: every file of `fuzz/corpus`, and random mutations of them.
//!
//! The seed of the mutations is printed; `STORMLOG_SEED=n` repeats a run, `STORMLOG_ROUNDS=n`
//! makes it longer. `STORMLOG_BLESS=1` writes the seed files of the targets segment, record,
//! registry, figures and recover anew.
#![cfg(feature = "cli")]

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "support/peak.rs"]
mod peak;
#[path = "support/session.rs"]
mod session;
mod support;

use std::path::PathBuf;

use bodies::Recovered;
use stormlog::segment::layout::{FILE_LEDGER, FILE_RINGS};
use stormlog::segment::published::Published;
use stormlog::segment::rings::Rings;

/// What a body may take beside twice its input.
const MEMORY_BYTES: usize = 64 << 20;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    let mut dirs = vec![root.join("fuzz/corpus").join(target)];
    if target == "segment" {
        dirs.push(root.join("tests/golden/v1_0"));
    }
    for dir in dirs {
        let entries = std::fs::read_dir(&dir).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    /// `bytes` with a few changes; in the segment header and behind, most of a segment is zero.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(6) {
            let at = self
                .below(bytes.len() + 1)
                .min(bytes.len().saturating_sub(1));
            match self.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => bytes.truncate(at),
                4 => bytes.insert(at, self.below(256) as u8),
                5 if !other.is_empty() => {
                    let start = self.below(other.len());
                    let end = (start + self.below(64)).min(other.len());
                    bytes.splice(at..at, other[start..end].iter().copied());
                }
                _ if !bytes.is_empty() => {
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].fill(0xff);
                }
                _ => bytes.push(b'"'),
            }
        }
    }
}

fn replay(target: &str, body: fn(&[u8]), rounds: u64) {
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{target} has no seeds");
    let body = |bytes: &[u8]| {
        let (peak, took) = peak::of(|| body(bytes));
        let bound = MEMORY_BYTES + 2 * bytes.len();
        assert!(
            peak <= bound,
            "{target}: {peak} bytes of memory for {} bytes",
            bytes.len()
        );
        // So much that no machine is that slow: a hang, or time that grows with what a file says.
        assert!(
            took.as_secs() < 60,
            "{target}: {took:?} for {} bytes",
            bytes.len()
        );
    };
    for bytes in &corpus {
        body(bytes);
    }
    body(&[]);
    let seed = variable("STORMLOG_SEED", u64::from(std::process::id()) << 20 | 1);
    println!("{target}: STORMLOG_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..variable("STORMLOG_ROUNDS", rounds) {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        let other = &corpus[random.below(corpus.len())];
        random.mutate(&mut bytes, other);
        body(&bytes);
    }
}

#[test]
fn segment_target() {
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        write_blocks();
    }
    replay("segment", bodies::segment, 1500);
}

/// The blocks of the golden session.
fn write_blocks() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/segment");
    for (number, segment) in session::session().iter().enumerate() {
        std::fs::write(dir.join(format!("blocks-{number}")), &segment[8192..]).unwrap();
    }
}

#[test]
fn record_target() {
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        write_seeds();
    }
    replay("record", bodies::record_payload, 3000);
}

#[test]
fn registry_target() {
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        write_entries();
    }
    replay("registry", bodies::registry, 1500);
}

/// The registry blocks of the golden session.
fn write_entries() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/registry");
    std::fs::create_dir_all(&dir).unwrap();
    for (number, segment) in session::session().iter().enumerate() {
        let starts = (8192..segment.len()).step_by(8);
        for start in starts.filter(|at| segment[*at..].starts_with(b"SBLK")) {
            let length = u32::from_le_bytes(*segment[start + 8..].first_chunk().unwrap());
            if segment[start + 12] == 2 {
                let payload = &segment[start + 64..][..length as usize];
                std::fs::write(dir.join(format!("{number}-{start}")), payload).unwrap();
            }
        }
    }
}

#[test]
fn config_target() {
    replay("config", bodies::config, 3000);
}

#[test]
fn rules_target() {
    replay("rules", bodies::rules, 1500);
}

#[test]
fn replay_target() {
    replay("replay", bodies::replay, 1500);
}

#[test]
fn jsonl_target() {
    replay("jsonl", bodies::jsonl, 3000);
}

#[test]
fn figures_target() {
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        write_figures();
    }
    replay("figures", bodies::figures, 1500);
}

#[test]
fn recover_target() {
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        write_leftovers();
    }
    replay("recover", bodies::recover, 150);
}

#[test]
fn the_seed_of_recover_is_saved() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recover");
    let seed = |name: &str| bodies::recovered(&std::fs::read(dir.join(name)).unwrap());
    assert_eq!(
        seed("rings"),
        Recovered {
            from_rings: 6,
            from_spill: 3,
            own: 1
        }
    );
    // Beside the end of the session, the durations of one operation.
    assert_eq!(
        seed("durations"),
        Recovered {
            from_rings: 6,
            from_spill: 3,
            own: 2
        }
    );
}

/// A ring with two records, one with padding, three slots of the spill.
fn write_leftovers() {
    let piece = |at: usize, bytes: &[u8]| {
        let length = bytes.len() as u16;
        [&(at as u32).to_le_bytes()[..], &length.to_le_bytes(), bytes].concat()
    };
    let words =
        |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let (large, rings, spill) = (49_152, 65_536, 79_872);
    let parts = [
        36_864, 2, 40_960, 1024, large, 16_384, rings, 13_312, spill, 4096, 512,
    ];
    let record = |number: u8| session::numbered(number, f64::from(number) / 10.0).1;
    let data = [
        record(1),
        record(2),
        vec![2, 0, 0, 0, 0, 0, 0, 0],
        record(3),
    ]
    .concat();
    let ring = |index: u32| {
        let mut head = [0x474E_5253, index, 4096, 0, index + 77, 1]
            .map(u32::to_le_bytes)
            .concat();
        head.resize(64, 0);
        head.extend((data.len() as u64).to_le_bytes());
        head.resize(2304, 0);
        [head, data.clone()].concat()
    };
    let slot = |sequence: u64, position: u64, ring: u32| {
        let mut record = record(sequence as u8 + 4);
        record[4] |= 0x10;
        let ids = [ring, record.len() as u32].map(u32::to_le_bytes).concat();
        [words(&[sequence + 1, sequence, position]), ids, record].concat()
    };
    let first = record(1).len() as u64;
    let slots = [slot(0, first, 77), slot(1, 0, u32::MAX), slot(2, first, 77)];
    let mut pieces = vec![piece(256, &words(&parts)), piece(rings as usize, &ring(0))];
    pieces.push(piece(rings as usize + 2304 + 4096, &ring(1)));
    for (index, slot) in slots.iter().enumerate() {
        pieces.push(piece(spill as usize + index * 512, slot));
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recover");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("rings"), pieces.concat()).unwrap();
    // The same, and a table of one key with a page of cells, where chunks were.
    let cell = words(&[3_000_000, 2_000_000, 0, 2]);
    pieces.push(piece(344, &words(&[large, 8192])));
    pieces.push(piece(large as usize, &words(&[1])));
    pieces.push(piece(large as usize + 4096, &cell));
    std::fs::write(dir.join("durations"), pieces.concat()).unwrap();
}

/// Seeds of which nothing is read would leave the target without work.
#[test]
fn the_seeds_of_figures_are_read() {
    let path = PathBuf::from("seed");
    let [ledger, rings] = <[Vec<u8>; 2]>::try_from(corpus("figures")).unwrap();
    let ledger = bodies::pieces(&ledger, FILE_LEDGER);
    let published = Published::read(&*ledger, &path).unwrap();
    assert_eq!(published.sequence, 2);
    let kinds = published.ledger().categories["kinds"];
    assert_eq!((kinds.offered(), kinds.pending()), (9, 1));
    let bytes = bodies::pieces(&rings, FILE_RINGS);
    let rings = Rings::read(&*bytes, &path).unwrap();
    assert_eq!(
        (rings.used, rings.active, rings.waiting_bytes),
        (2, 2, 1024)
    );
    // Shared and those of two rings for the first category; `kinds` is in a page of a ring.
    assert_eq!(rings.accounts[0].offered(), 27);
    assert_eq!(rings.accounts[20].offered(), 9);
    let registry = rings.registry(&*bytes, &path).unwrap();
    assert_eq!(registry.category(20), Some("kinds"));
}

/// A ledger file and a ring storage, as pieces.
fn write_figures() {
    let piece = |at: usize, bytes: &[u8]| {
        let length = bytes.len() as u16;
        [&(at as u32).to_le_bytes()[..], &length.to_le_bytes(), bytes].concat()
    };
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/figures");
    std::fs::create_dir_all(&dir).unwrap();
    let mut entry = [
        [20_u32, 5].map(u32::to_le_bytes).concat(),
        b"kinds".to_vec(),
    ]
    .concat();
    entry.resize(72, 0);
    let counters: Vec<u8> = words(&[9, 1, 5, 1, 0, 0, 1]);
    let slot = |sequence: u64| {
        let head: Vec<u8> = words(&[sequence, 1 << 32, 1 << 60, 1]);
        [head, entry.clone(), counters.clone()].concat()
    };
    let ledger = [piece(4096, &slot(1)), piece(45_056, &slot(2))].concat();
    std::fs::write(dir.join("ledger"), ledger).unwrap();
    // Shared counters, two counter pages, 1 KiB of registry, two rings of 4 KiB.
    let (pages, registry, rings) = (36_864, 40_960, 45_056);
    let parts: Vec<u8> = words(&[pages, 2, registry, 1024, rings, 0, rings, 16_384]);
    let ring = |index: u32, page: u32| {
        let magic = 0x474E_5253;
        let mut head = [magic, index, 4096, 0, index + 1, 1]
            .map(u32::to_le_bytes)
            .concat();
        head.resize(64, 0);
        head.extend(600_u64.to_le_bytes());
        head.resize(128, 0);
        head.extend(88_u64.to_le_bytes());
        head.resize(196, 0);
        head.extend(page.to_le_bytes());
        head.resize(256, 0);
        [head, counters.clone()].concat()
    };
    let category = support::raw_entry(1, 20, 0, b"\x05\0kinds");
    let second = rings as usize + 2304 + 4096;
    let storage = [
        piece(256, &parts),
        piece(4096, &counters),
        piece(pages as usize + 512, &counters),
        piece(registry as usize, &category),
        piece(rings as usize, &ring(0, 1)),
        piece(second, &ring(1, 2)),
    ];
    std::fs::write(dir.join("rings"), storage.concat()).unwrap();
}

/// Data blocks of the golden session, each behind a byte that chooses a schema.
fn write_seeds() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/record");
    for (number, segment) in session::session().iter().enumerate() {
        let starts = (8192..segment.len()).step_by(8);
        for start in starts.filter(|at| segment[*at..].starts_with(b"SBLK")) {
            let length = u32::from_le_bytes(*segment[start + 8..].first_chunk().unwrap());
            let kind = segment[start + 12];
            if kind == 1 || kind == 3 {
                let payload = &segment[start + 64..][..length as usize];
                let bytes = [&[start as u8], payload].concat();
                std::fs::write(dir.join(format!("{number}-{start}")), bytes).unwrap();
            }
        }
    }
}
