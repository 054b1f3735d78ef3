//! The fuzz targets on stable: every file of `fuzz/corpus`, and random mutations of them.
//!
//! The seed of the mutations is printed; `STORMLOG_SEED=n` repeats a run, `STORMLOG_ROUNDS=n`
//! makes it longer. `STORMLOG_BLESS=1` writes the seed files of the record target anew.

#[path = "../fuzz/bodies.rs"]
mod bodies;
#[path = "support/session.rs"]
mod session;
mod support;

use std::path::PathBuf;

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
    replay("segment", bodies::segment, 1500);
}

#[test]
fn record_target() {
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        write_seeds();
    }
    replay("record", bodies::record_payload, 3000);
}

#[test]
fn jsonl_target() {
    replay("jsonl", bodies::jsonl, 3000);
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
