//! What is left of a session when the machine is lost: images of its files in which pages that no
//! sync covered are new, old or missing, in any mixture, recovered and converted.
//!
//! A session is recorded and copied at several moments (generations), the first of them right after
//! a `sync_now()`; with `durability = interval` some of them after the setting has brought all to
//! the disk, which the kernel is asked about (no page of a segment is dirty). An image begins
//! with a generation that was on the disk. It takes each page of 4 KiB that differs between that
//! one and later ones from any of them, the length of each file too, and leaves out files that no
//! sync of the directory covered. The boot of its headers is another one, as after a restart. Of
//! every image must hold:
//!
//! - each line is a record that was pushed, whole, and none is there twice;
//! - the records of a thread come in their order, and up to the first gap they are a prefix; what
//!   follows a gap is there only if a fault names the damage;
//! - what was pushed before the sync is there in full.
//!
//! `STORMLOG_ROUNDS` is the number of images, `STORMLOG_SEED` the seed of the first.

#![expect(unsafe_code, reason = "asks the kernel what is not on the disk")]

#[path = "support/recording.rs"]
mod recording;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormlog::convert::{ConvertOptions, convert_session};
use stormlog::record::Text;
use stormlog::recover::{RecoverOptions, State, recover_session};
use stormlog::segment::files::SessionFiles;
use stormlog::segment::layout::{
    BLOCKS_OFFSET, FILE_HEADER_BYTES, FILE_MAGIC, FileHeader, HEADER_COPY_OFFSET, HINT_OFFSET,
};
use stormlog::{Conversion, Durability, Log, Outcome, RingStorage, Session};

stormlog::record! {
    struct Numbered in "requests" keep Sampled {
        thread: u32,
        n: u32,
        text: Text,
    }
}

const PAGE: usize = 4096;
const THREADS: u32 = 2;

/// Numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// The text of a record, which no other record has.
fn text(thread: u32, n: u32) -> String {
    let mut random = Random(u64::from(thread) << 32 | u64::from(n));
    let words = 1 + random.below(12);
    let mut text = String::new();
    for _ in 0..words {
        text += &random.next().to_string();
    }
    text
}

type Files = BTreeMap<String, Vec<u8>>;

/// The files of a session directory now, as those of another boot.
fn copy(dir: &Path) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        // It may have been renamed since.
        if let Ok(mut bytes) = std::fs::read(entry.path()) {
            for at in [0, HEADER_COPY_OFFSET] {
                other_boot(&mut bytes, at);
            }
            files.insert(name, bytes);
        }
    }
    files
}

fn other_boot(bytes: &mut [u8], at: usize) {
    let Some(place) = bytes.get_mut(at..at + FILE_HEADER_BYTES) else {
        return;
    };
    let header: FileHeader = bytemuck::pod_read_unaligned(place);
    if header.magic == FILE_MAGIC {
        let header = FileHeader {
            boot_id: [0xB0; 16],
            ..header
        };
        place.copy_from_slice(bytemuck::bytes_of(&header.with_crc()));
    }
}

/// A session, copied again and again.
struct Recorded {
    id: String,
    /// The first one is that of the sync.
    generations: Vec<Files>,
    /// Those that were on the disk, and how many records of each thread had been pushed before.
    covered: Vec<(usize, u32)>,
    pushed: u32,
}

/// Who brings the session to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syncs {
    /// One `sync_now()`.
    Once,
    /// Nobody but the setting.
    Interval(Duration),
}

/// Pages of a file that are not on the disk yet; `None` where the kernel cannot tell.
fn dirty_pages(file: &File) -> Option<u64> {
    // cachestat(2), since Linux 6.5.
    const CACHESTAT: libc::c_long = 451;
    let range = [0_u64; 2];
    // Pages in memory, dirty, being written, evicted, evicted lately.
    let mut found = [0_u64; 5];
    // SAFETY: a range and a result of the layouts that the call has; length 0 is the whole file.
    let done = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            range.as_ptr(),
            found.as_mut_ptr(),
            0,
        )
    };
    (done == 0).then(|| found[1] + found[2])
}

/// Waits, with a writer that rests, until the setting has brought everything to the disk.
fn wait_for_syncs(session: &Session, dir: &Path) {
    // The round that runs now may have begun too early.
    let enough = session.sync_rounds() + 2;
    let deadline = Instant::now() + Duration::from_secs(60);
    while session.sync_rounds() < enough {
        assert!(Instant::now() < deadline, "nobody syncs");
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut looked_at = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let file = File::open(entry.path()).unwrap();
        // One that is made ready for later is nobody's.
        if name.strip_suffix(".seg").is_some() && holds_blocks(&file) {
            match dirty_pages(&file) {
                Some(dirty) => assert_eq!(dirty, 0, "{name} is not on the disk"),
                None => println!("not checked: the kernel has no cachestat"),
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 0);
}

/// Whether a segment has a block: its hint is behind the header.
fn holds_blocks(file: &File) -> bool {
    let mut hint = [0; 8];
    let read = file.read_exact_at(&mut hint, HINT_OFFSET as u64);
    read.is_ok() && u64::from_le_bytes(hint) > BLOCKS_OFFSET as u64
}

fn push_all(logs: &[Log], numbers: std::ops::Range<u32>) {
    std::thread::scope(|scope| {
        for (thread, log) in (0..).zip(logs) {
            let numbers = numbers.clone();
            scope.spawn(move || {
                for n in numbers {
                    let text = text(thread, n);
                    let record = Numbered {
                        thread,
                        n,
                        text: &text,
                    };
                    // A full ring drops, which is counted; here it is tried again.
                    while log.push(&record) != Outcome::Kept {
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
}

fn record(storage: RingStorage, durability: Durability, syncs: Syncs) -> Recorded {
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder()
        .dir(temp.path())
        .ring_storage(storage)
        .durability(durability)
        .conversion(Conversion::Later)
        .ring_total_bytes(1 << 20)
        .record_bytes_max(4096)
        .large_total_bytes(1 << 20)
        .segment_bytes(4 << 20)
        .sampling(false)
        .start()
        .unwrap();
    let dir = session.segment_dir().unwrap().to_owned();
    let logs: Vec<Log> = (0..THREADS).map(|_| session.log()).collect();
    let covered = 4_000;
    push_all(&logs, 0..covered);
    if syncs == Syncs::Once {
        session.sync_now().unwrap();
    } else {
        session.flush().unwrap();
    }
    session.pause_writer();
    if syncs != Syncs::Once {
        wait_for_syncs(&session, &dir);
    }
    let mut generations = vec![copy(&dir)];
    session.resume_writer();
    let mut pushed = covered;
    let mut covered = vec![(0, pushed)];
    // Enough for two rolls, in steps that end somewhere in a block.
    for step in [13, 1, 900, 60, 6_000, 77, 12_000, 50, 8_000, 80] {
        // Few enough for a ring: they are in rings only, at positions that have had other records.
        let in_rings = step < 100;
        if in_rings {
            session.flush().unwrap();
            session.pause_writer();
        }
        push_all(&logs, pushed..pushed + step);
        pushed += step;
        let is_covered = syncs != Syncs::Once && !in_rings;
        if is_covered {
            session.flush().unwrap();
        }
        session.pause_writer();
        if is_covered {
            wait_for_syncs(&session, &dir);
            covered.push((generations.len(), pushed));
        }
        generations.push(copy(&dir));
        session.resume_writer();
    }
    // Not paused: a copy in the middle of things.
    std::thread::scope(|scope| {
        scope.spawn(|| push_all(&logs, pushed..pushed + 3_000));
        generations.push(copy(&dir));
    });
    pushed += 3_000;
    let id = session.id().to_owned();
    let segments = generations.iter().flat_map(|files| files.keys());
    let rolled = segments.filter(|name| *name == "000003.seg").count();
    assert!(rolled > 0, "the session has rolled twice");
    let report = session.close().unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    Recorded {
        id,
        generations,
        covered,
        pushed,
    }
}

/// Bytes of a page in one generation; behind the end of a file there are zeros.
fn page(bytes: &[u8], at: usize) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let end = bytes.len().min(at + PAGE);
    if at < end {
        page[..end - at].copy_from_slice(&bytes[at..end]);
    }
    page
}

/// One state that the disk may have, and how many records of each thread it must have.
fn image(recorded: &Recorded, random: &mut Random) -> (Files, u32) {
    let (first, covered) = recorded.covered[random.below(recorded.covered.len())];
    let generations = &recorded.generations[first..];
    // The crash came somewhere between the sync and the last copy.
    let seen = &generations[..=random.below(generations.len())];
    // How often a page is older than it could be: seldom, or mostly.
    let old = [0, 1, 50, 95][random.below(4)];
    let mut image = Files::new();
    let names: std::collections::BTreeSet<&String> =
        seen.iter().flat_map(|files| files.keys()).collect();
    for name in names {
        let versions: Vec<&Vec<u8>> = seen.iter().filter_map(|files| files.get(name)).collect();
        let synced = seen[0].contains_key(name);
        if !synced && random.below(100) < old {
            continue;
        }
        let newest = versions[versions.len() - 1];
        let length = match random.below(4) {
            0 if old > 0 => versions[random.below(versions.len())].len(),
            _ => newest.len(),
        };
        let mut bytes = newest.clone();
        bytes.resize(length, 0);
        for at in (0..length).step_by(PAGE) {
            if random.below(100) >= old {
                continue;
            }
            // A file that the sync did not know has pages that were never written.
            let pick = random.below(versions.len() + usize::from(!synced));
            let page = versions
                .get(pick)
                .map_or([0; PAGE], |bytes| page(bytes, at));
            let end = length.min(at + PAGE);
            bytes[at..end].copy_from_slice(&page[..end - at]);
        }
        image.insert(name.clone(), bytes);
    }
    (image, covered)
}

fn write(image: &Files, root: &Path, id: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let dir = root.join(".stormlog").join(id);
    std::fs::create_dir_all(&dir).unwrap();
    for dir in [dir.as_path(), dir.parent().unwrap()] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).unwrap();
    }
    for (name, bytes) in image {
        std::fs::write(dir.join(name), bytes).unwrap();
    }
    dir
}

/// What an image gave.
struct Outcomes {
    records: usize,
    gaps: usize,
}

fn check(recorded: &Recorded, image: &Files, covered: u32) -> Outcomes {
    let temp = tempfile::tempdir().unwrap();
    let dir = write(image, temp.path(), &recorded.id);
    let options = RecoverOptions::default();
    let report = recover_session(temp.path(), &recorded.id, options).unwrap();
    assert_eq!(report.state, State::Recovered);
    assert_eq!(
        (report.from_rings, report.from_spill),
        (0, 0),
        "rings of another boot"
    );
    let files = SessionFiles::find(&dir).unwrap().remove(0);
    let converted = convert_session(&files, temp.path(), ConvertOptions::default()).unwrap();
    let path = temp.path().join(format!("{}_requests.jsonl", recorded.id));
    let lines = std::fs::read_to_string(path).unwrap();
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for line in lines.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let number = |name: &str| u32::try_from(line[name].as_u64().unwrap()).unwrap();
        let (thread, n) = (number("thread"), number("n"));
        assert!(thread < THREADS && n < recorded.pushed, "invented: {line}");
        assert_eq!(line["text"], text(thread, n), "torn");
        found.entry(thread).or_default().push(n);
    }
    let mut gaps = 0;
    for thread in 0..THREADS {
        let numbers = found.remove(&thread).unwrap_or_default();
        assert!(
            numbers.is_sorted_by(|a, b| a < b),
            "thread {thread}: out of order, or twice"
        );
        let prefix = (0..).zip(&numbers).take_while(|(at, n)| at == *n).count();
        assert!(
            prefix >= covered as usize,
            "thread {thread}: {prefix} of the synced ones"
        );
        gaps += usize::from(prefix < numbers.len());
    }
    let faults = [report.faults, converted.faults].concat();
    assert!(gaps == 0 || !faults.is_empty(), "a gap that nothing names");
    Outcomes {
        records: lines.lines().count(),
        gaps,
    }
}

fn rounds() -> (u64, u64) {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seed = number("STORMLOG_SEED").unwrap_or(1);
    (seed, number("STORMLOG_ROUNDS").unwrap_or(30))
}

fn torture(storage: RingStorage, syncs: Syncs) {
    let (seed, rounds) = rounds();
    let durability = match syncs {
        Syncs::Once => Durability::Off,
        Syncs::Interval(every) => Durability::Interval(every),
    };
    let recorded = record(storage, durability, syncs);
    let (mut gaps, mut least, mut most) = (0, usize::MAX, 0);
    for seed in seed..seed + rounds {
        let (image, covered) = image(&recorded, &mut Random(seed));
        let result = std::panic::catch_unwind(|| check(&recorded, &image, covered));
        let Ok(outcomes) = result else {
            panic!("seed {seed} {storage:?} {syncs:?}: see above");
        };
        gaps += usize::from(outcomes.gaps > 0);
        least = least.min(outcomes.records);
        most = most.max(outcomes.records);
    }
    println!(
        "{storage:?}, {syncs:?}: {rounds} images, {gaps} with a gap, {least} to {most} of {}",
        recorded.pushed * THREADS
    );
    assert!(rounds < 20 || gaps > 0, "no image was as bad as it can be");
    assert!(rounds < 20 || most > least, "all images are alike");
}

#[test]
fn what_was_synced_survives_and_nothing_is_invented() {
    torture(RingStorage::Anonymous, Syncs::Once);
}

/// The file `rings` is in the images too, with pages of any moment: it must not be used.
#[test]
fn rings_on_a_disk_invent_nothing() {
    torture(RingStorage::SessionDir, Syncs::Once);
}

/// Nobody asks for a sync: the setting does it, again and again.
#[test]
fn what_an_interval_has_synced_survives() {
    let every = Duration::from_millis(20);
    torture(RingStorage::Anonymous, Syncs::Interval(every));
}
