//! Weights from segments to lines and sums, against golden files, and the queries of
//! docs/SAMPLING.md over them.
//!
//! `STORMLOG_BLESS=1 cargo test --test sampled` writes the golden files anew.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use stormlog::record::{DurationMs, Record, SchemaIds, ShortText};
use stormlog::sampling::{Estimate, Estimator, KeyHash};
use stormlog::segment::entry::{Entry, PressureCause, PressureChange};
use stormlog::segment::files::SessionFiles;
use stormlog::segment::registry::Registry;
use stormlog::segment::survey::Survey;
use support::{Head, SESSION, START_TICKS, SegmentBuilder, TICKS, convert, raw_entry, record};

stormlog::record! {
    struct Request in "requests" keep Sampled key id {
        id: ShortText<40>,
        duration_ms: DurationMs<2>,
    }
}

stormlog::record! {
    struct Probe in "health" keep Sampled {
        number: u32,
    }
}

const REQUEST: SchemaIds = SchemaIds {
    schema: 1,
    category: 20,
};
const PROBE: SchemaIds = SchemaIds {
    schema: 2,
    category: 21,
};
/// Of a rate of 0.4, and of one of 0.1.
const RATES: [(u8, f64); 2] = [(16, 2.5), (255, 10.0)];
/// Key, weight id and milliseconds of the requests; the pressure changes meanwhile.
const REQUESTS: [(&str, u8, u64); 9] = [
    ("4f6c0a", 0, 12),
    ("4f6c0a", 2, 5),
    ("9b21d7", 2, 3),
    ("4f6c0a", 3, 40),
    ("9b21d7", 3, 1),
    ("9b21d7", 3, 2),
    ("c0ffee", 16, 7),
    ("", 2, 9),
    ("c0ffee", 2, 30),
];
/// Weight ids of the probes, which have no key.
const PROBES: [u8; 6] = [0, 1, 15, 16, 255, 3];

fn pressure(second: u64, k: u8, cause: PressureCause) -> PressureChange {
    PressureChange {
        ticks: START_TICKS + second * TICKS,
        k,
        cause: cause as u8,
        ..PressureChange::default()
    }
}

fn entries() -> Vec<Entry<'static>> {
    let mut entries = vec![
        Entry::Category(20, "requests"),
        Entry::Category(21, "health"),
        Entry::schema(REQUEST, Request::default().schema()),
        Entry::schema(PROBE, Probe::default().schema()),
    ];
    entries.extend(RATES.map(|(id, weight)| Entry::Rate(id, weight)));
    entries.extend([
        Entry::Pressure(20, pressure(1, 2, PressureCause::RingFill)),
        Entry::Pressure(20, pressure(3, 3, PressureCause::DrainLag)),
        Entry::Pressure(21, pressure(3, 15, PressureCause::Disk)),
        Entry::Pressure(20, pressure(6, 0, PressureCause::Relief)),
    ]);
    entries
}

fn weighted(record_of: &impl Record, schema: SchemaIds, id: u8, second: u64) -> (u32, Vec<u8>) {
    let head = Head {
        schema: schema.schema,
        ticks: START_TICKS + second * TICKS,
        ..Head::default()
    };
    let mut bytes = record(record_of, head);
    bytes[5] = id;
    (schema.category.into(), bytes)
}

/// A session with every kind of weight, in one segment.
fn session() -> Vec<u8> {
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry(&entries());
    let requests = REQUESTS.iter().enumerate().map(|(at, (id, weight, ms))| {
        let duration_ms = Duration::from_millis(*ms);
        weighted(&Request { id, duration_ms }, REQUEST, *weight, at as u64)
    });
    segment.data(1, &requests.collect::<Vec<_>>());
    let probes = PROBES.iter().enumerate().map(|(number, weight)| {
        let number = number as u32;
        weighted(&Probe { number }, PROBE, *weight, number.into())
    });
    segment.data(2, &probes.collect::<Vec<_>>());
    segment.seal(true)
}

fn golden(name: &str) -> PathBuf {
    let path = format!("tests/golden/v1_0_sampled/{name}");
    [env!("CARGO_MANIFEST_DIR"), &path].iter().collect()
}

#[track_caller]
fn assert_golden(name: &str, found: &[u8]) {
    let path = golden(name);
    if std::env::var_os("STORMLOG_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let text = String::from_utf8_lossy(found);
    assert!(std::fs::read(&path).unwrap() == found, "{name}: {text}");
}

#[test]
fn the_bytes_of_weights_and_pressure_do_not_change() {
    assert_golden("000001.seg", &session());
}

#[test]
fn weights_become_sample_weight_and_a_sum() {
    let (lines, report) = convert(&[std::fs::read(golden("000001.seg")).unwrap()]);
    for (category, text) in &lines {
        assert_golden(&format!("{category}.jsonl"), text.as_bytes());
    }
    let weights = |category: &str| -> Vec<String> {
        let lines = lines[category].lines();
        let weight = |line: &str| {
            let (_, rest) = line.split_once("\"elapsed_seconds\":").unwrap();
            let second = rest.split(',').nth(1).unwrap();
            let weight = second.strip_prefix("\"sample_weight\":");
            weight.map_or(String::new(), |text| text.trim_end_matches('}').to_owned())
        };
        lines.map(weight).collect()
    };
    assert_eq!(weights("health"), ["", "2", "32768", "2.5", "10.0", "8"]);
    let requests = ["", "4", "4", "8", "8", "8", "2.5", "4", "4"];
    assert_eq!(weights("requests"), requests);
    // What was written, and what it stands for.
    let sums = [("health", 32_791.5), ("requests", 43.5)];
    let sums: BTreeMap<String, f64> = sums.map(|(name, sum)| (name.to_owned(), sum)).into();
    assert_eq!(report.estimated, sums);
    assert_eq!(report.counted.categories["requests"].written(), 9);
    let survey = survey(&session());
    assert_eq!(survey.estimated(), sums);
    assert_eq!(survey.by_category()["requests"], 9);
    let (start, first, last) = survey.span().unwrap();
    let elapsed = [start, first, last].map(|time| time.elapsed_ns);
    assert_eq!(elapsed, [0, 0, 8_000_000_000]);
}

fn survey(segment: &[u8]) -> Survey {
    let named = [(PathBuf::from("000001.seg"), segment.to_owned())];
    let sessions = SessionFiles::from_memory(named).unwrap();
    Survey::new(&sessions[0], false).unwrap()
}

#[test]
fn a_weight_that_nobody_declared_is_damage() {
    let mut segment = SegmentBuilder::new(1, 0);
    segment.registry(&entries());
    let probe = Probe { number: 1 };
    let probes = [17, 254, 16].map(|weight| weighted(&probe, PROBE, weight, 1));
    segment.data(1, &probes);
    let segment = segment.seal(true);
    let (lines, report) = convert(std::slice::from_ref(&segment));
    assert_eq!(lines["health"].lines().count(), 1);
    assert_eq!(report.counted.categories["health"].dropped_total(), 2);
    assert_eq!(report.estimated["health"].to_bits(), 2.5_f64.to_bits());
    assert!(
        report
            .faults
            .iter()
            .any(|f| f.contains("2 records are damaged"))
    );
    let faults = survey(&segment).faults;
    let fault = "2 records have a weight that the registry does not know";
    assert_eq!(faults, [fault]);
}

/// What a registry makes of the entries.
fn registry(entries: &[Vec<u8>]) -> Registry {
    let mut registry = Registry::default();
    assert_eq!(registry.add_block(&entries.concat()), entries.len() as u64);
    registry
}

fn raw(entry: Entry<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.append(&mut bytes);
    bytes
}

#[test]
fn rates_are_numbers_from_1_on_with_one_meaning() {
    for weight in [f64::NAN, f64::INFINITY, 0.999, 0.0, -2.0] {
        let registry = registry(&[raw(Entry::Rate(16, weight))]);
        assert_eq!(
            (registry.rejected, registry.weight(16)),
            (1, None),
            "{weight}"
        );
    }
    for id in [0, 15, 256, 4711] {
        let registry = registry(&[raw_entry(6, id, 0, &2.0_f64.to_le_bytes())]);
        assert_eq!(registry.rejected, 1, "{id}");
    }
    let found = registry(&[raw(Entry::Rate(16, 3.0)), raw_entry(6, 17, 0, &[0; 4])]);
    assert_eq!((found.rejected, found.weight(16)), (1, Some(3.0)));
    // Said twice is fine; said differently the first stays.
    let found = registry(&[3.0, 3.0, 4.0].map(|weight| raw(Entry::Rate(200, weight))));
    assert_eq!((found.rejected, found.weight(200)), (1, Some(3.0)));
    let lowest = registry(&[raw(Entry::Rate(255, 1.0))]);
    assert_eq!((lowest.rejected, lowest.weight(255)), (0, Some(1.0)));
}

#[test]
fn changes_of_pressure_are_bounded_and_counted_once() {
    let found = registry(&entries().into_iter().map(raw).collect::<Vec<_>>());
    let changes: Vec<_> = found
        .pressures()
        .map(|(id, p)| (id, p.k, p.cause))
        .collect();
    assert_eq!(changes, [(20, 2, 1), (20, 3, 2), (21, 15, 4), (20, 0, 5)]);
    assert_eq!(
        found.highest_pressures().collect::<Vec<_>>(),
        [(20, 3), (21, 15)]
    );

    let with = |change: &dyn Fn(&mut PressureChange)| {
        let mut pressure = pressure(1, 2, PressureCause::NoSegment);
        change(&mut pressure);
        raw(Entry::Pressure(3, pressure))
    };
    let too_high = registry(&[with(&|p| p.k = 16), with(&|p| p.k = 255)]);
    assert_eq!((too_high.rejected, too_high.pressures().count()), (2, 0));
    assert_eq!(too_high.highest_pressures().count(), 0);
    let short = registry(&[raw_entry(7, 3, 0, &[0; 8]), raw_entry(7, 256, 0, &[0; 16])]);
    assert_eq!(short.rejected, 2);
    // The same in two segments, bytes of no meaning, a cause of a later version.
    let again = registry(&[with(&|_| {}), with(&|p| p.zero = [7; 6])]);
    assert_eq!((again.rejected, again.pressures().count()), (0, 1));
    let later = registry(&[with(&|p| p.cause = 99)]);
    assert_eq!((later.rejected, later.pressures().count()), (0, 1));

    let many: Vec<_> = (0..70_000)
        .map(|ticks| with(&|p| p.ticks = ticks))
        .collect();
    let highest = with(&|p| (p.ticks, p.k) = (70_000, 15));
    let flood = registry(&[many, vec![highest]].concat());
    assert_eq!(flood.pressures().count(), 65_536);
    assert_eq!(flood.pressures_left_out, 70_001 - 65_536);
    assert_eq!(flood.highest_pressures().collect::<Vec<_>>(), [(3, 15)]);
    assert_eq!(flood.rejected, 0);
}

#[cfg(feature = "cli")]
#[test]
fn inspect_and_convert_tell_estimates_and_pressure() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("000001.seg"), session()).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("stormlog"));
        let output = command
            .args(args)
            .current_dir(temp.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["inspect", "000001.seg"]);
    for part in [
        "9 records, estimated 44\n",
        "6 records, estimated 32,792\n",
        "pressure of health: 1 change, highest 15 (weight 32768)\n",
        "pressure of requests: 3 changes, highest 3 (weight 8)\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json: Json = serde_json::from_str(&run(&["inspect", "000001.seg", "--json"])).unwrap();
    assert_eq!(json["estimated"]["requests"], 43.5);
    let pressure = serde_json::json!({"changes": 3, "highest_k": 3});
    assert_eq!(json["pressure"]["requests"], pressure);
    assert_eq!(json["pressure_left_out"], 0);
    std::fs::create_dir(temp.path().join("out")).unwrap();
    let json = run(&["convert", "000001.seg", "--out", "out", "--json"]);
    let json: Json = serde_json::from_str(&json).unwrap();
    assert_eq!(json["estimated"]["health"], 32_791.5);
    let text = run(&["convert", "000001.seg", "--out", "out"]);
    assert!(
        text.contains("estimated") && text.contains("32,792"),
        "{text}"
    );
}

/// The estimate of a golden file, of a number of each record.
fn estimate(category: &str, value: impl Fn(&Json) -> f64) -> Estimate {
    let text = std::fs::read_to_string(golden(&format!("{category}.jsonl"))).unwrap();
    let mut estimator = Estimator::new();
    for line in text.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let weight = line["sample_weight"].as_f64().unwrap_or(1.0);
        let key = line["id"].as_str().unwrap_or_default();
        let key = KeyHash::new(key.as_bytes(), 0);
        estimator.add(weight, key, value(&line)).unwrap();
    }
    estimator.estimate()
}

/// The code blocks of docs/SAMPLING.md in one language.
fn blocks(language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SAMPLING.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut parts = text.split("```");
    let fence = format!("{language}\n");
    let blocks = parts.by_ref().skip(1).step_by(2);
    blocks
        .filter_map(|part| part.strip_prefix(fence.as_str()).map(str::to_owned))
        .collect()
}

/// What a program prints; `None` where it is not installed.
fn output_of(program: &str, args: &[&str], dir: &Path) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(args).current_dir(dir).stderr(Stdio::inherit());
    match output.output() {
        Ok(output) => {
            assert!(output.status.success(), "{program} {args:?}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{program} is not installed: its queries are not tried");
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6 * b.abs().max(1.0)
}

/// The estimator and the queries agree, on clusters with several weights, and with keyless
/// records among them.
#[test]
fn the_queries_of_the_document_give_what_the_estimator_gives() {
    let count = estimate("requests", |_| 1.0);
    let sum = estimate("requests", |line| line["duration_ms"].as_f64().unwrap());
    assert_eq!(count.total.to_bits(), 43.5_f64.to_bits());
    // By hand: (4 + 8)^2 - (4 + 8 + 2 * 8); (4 + 2 * 8)^2 - (4 + 2 * 8 + 2 * 8 + 2 * 2 * 8);
    // (2.5 + 4)^2 - (2.5 + 4 + 2 * 4); 4 * 3.
    let variance = 116.0 + 332.0 + 27.75 + 12.0;
    assert!(close(count.variance, variance), "{count:?}");
    let temp = tempfile::tempdir().unwrap();
    let name = format!("{SESSION}_requests.jsonl");
    std::fs::copy(golden("requests.jsonl"), temp.path().join(&name)).unwrap();

    let (shell, sql) = (blocks("sh"), blocks("sql"));
    let jq: Vec<_> = shell
        .iter()
        .filter(|block| block.starts_with("jq "))
        .collect();
    assert_eq!((jq.len(), sql.len()), (2, 1));
    for (block, total) in jq.iter().zip([count.total, sum.total]) {
        if let Some(found) = output_of("jq", &["--version"], temp.path())
            .and_then(|_| output_of("sh", &["-c", block], temp.path()))
        {
            let found: f64 = found.trim().parse().unwrap();
            assert!(close(found, total), "{block}: {found}, not {total}");
        }
    }
    for (value, expected) in [("1", count), ("duration_ms", sum)] {
        let query = sql[0].replace("1 AS y", &format!("{value} AS y"));
        std::fs::write(temp.path().join("query.sql"), &query).unwrap();
        let args = [":memory:", ".read query.sql"];
        let Some(found) = output_of("sqlite3", &args, temp.path()) else {
            continue;
        };
        let numbers = found
            .trim()
            .split('|')
            .map(|number| number.parse().unwrap());
        let numbers: Vec<f64> = numbers.collect();
        let expected = [
            expected.total,
            expected.variance,
            expected.total - 1.96 * expected.variance.sqrt(),
            expected.total + 1.96 * expected.variance.sqrt(),
            expected.clusters as f64,
        ];
        assert_eq!(numbers.len(), expected.len(), "{found}");
        for (found, expected) in numbers.iter().zip(expected) {
            assert!(close(*found, expected), "{value}: {numbers:?} {expected}");
        }
    }
}
