//! The estimator against the truth: many simulated storms, each with fresh keys and a fresh salt.
//!
//! The seeds are fixed, so a run always ends the same way. `STORMLOG_SAMPLING_RUNS=10000 cargo test
//! --release --test sampling` simulates more storms than the short form does.

use stormlog::sampling::{Estimate, Estimator, Gaps, KeyHash, Outside, Rate, Threshold, effective};

/// Storms of the short form.
const RUNS: u64 = 1_000;
/// Moments of a storm; the pressure is constant within one.
const MOMENTS: u64 = 48;

fn runs() -> u64 {
    let name = "STORMLOG_SAMPLING_RUNS";
    std::env::var(name).map_or(RUNS, |runs| runs.parse().expect(name))
}

/// Random numbers without a state: number `index` of run `run`.
fn random(run: u64, index: u64) -> u64 {
    KeyHash::new(&index.to_le_bytes(), run ^ 0x5eed)
        .unwrap()
        .r()
}

/// The pressure at a moment: up to a peak that differs between runs, down again, and a second
/// wave.
fn pressure(run: u64, moment: u64, peak: u64) -> u8 {
    let peak = 1 + run % (peak + 1);
    let at = moment % 32;
    let wave = if moment < 32 { peak } else { peak / 2 };
    let height = at.min(31 - at).saturating_sub(2) / 2;
    height.min(wave) as u8
}

/// What is compared with the truth: each has its own estimator.
#[derive(Clone, Default)]
struct Category {
    records: Estimator,
    /// The same records, each taken for a cluster of its own.
    apart: Estimator,
    durations: Estimator,
    truth: Truth,
}

#[derive(Clone, Copy, Default)]
struct Truth {
    offered: u64,
    duration_ms: f64,
    sampled_out: u64,
}

impl Category {
    fn offer(&mut self, choice: Rate, keeps: bool, key: Option<KeyHash>, duration_ms: f64) {
        self.truth.offered += 1;
        self.truth.duration_ms += duration_ms;
        if !keeps {
            self.truth.sampled_out += 1;
            return;
        }
        let weight = choice.threshold.weight();
        self.records.add(weight, key, 1.0).unwrap();
        self.apart.add(weight, None, 1.0).unwrap();
        self.durations.add(weight, key, duration_ms).unwrap();
    }
}

/// One storm: operations of several records with a key, and records without one.
fn storm(run: u64, keys: u64, peak: u64, rate: Option<Rate>) -> (Category, Category) {
    let (mut keyed, mut keyless) = (Category::default(), Category::default());
    let salt = random(run, 0);
    let mut gaps = Gaps::new(random(run, 1), 1);
    let choice = |moment| effective(pressure(run, moment, peak), rate);
    for number in 0..keys {
        let seed = random(run, 2 + number);
        let name = format!("{seed:012x}");
        let key = KeyHash::new(name.as_bytes(), salt);
        let begin = seed % MOMENTS;
        for record in 0..=seed / MOMENTS % 8 {
            let choice = choice((begin + record).min(MOMENTS - 1));
            let keeps = choice.threshold.keeps(key.unwrap().r());
            keyed.offer(choice, keeps, key, 1.0 + (seed >> 40) as f64 / 1e4);
        }
        for record in 0..4 {
            let choice = choice((begin + record * 11) % MOMENTS);
            let keeps = match choice.threshold.pressure() {
                Some(k) => gaps.keeps(k),
                None => gaps.keeps_at(choice.threshold),
            };
            keyless.offer(choice, keeps, None, 1.0 + (seed >> 40) as f64 / 1e4);
        }
    }
    (keyed, keyless)
}

/// Of many storms: ratios of estimate and truth, and how often the interval covered the truth.
#[derive(Default)]
struct Score {
    ratios: Vec<f64>,
    covered: u64,
    flagged: u64,
    clusters_min: u64,
}

impl Score {
    fn take(&mut self, estimate: &Estimate, truth: f64) {
        if self.ratios.is_empty() {
            self.clusters_min = estimate.clusters;
        }
        self.clusters_min = self.clusters_min.min(estimate.clusters);
        self.ratios.push(estimate.total / truth);
        let covers = estimate.low <= truth && truth <= estimate.high;
        self.covered += u64::from(covers);
        self.flagged += u64::from(estimate.too_few);
    }

    fn mean_and_error(&self) -> (f64, f64) {
        let count = self.ratios.len() as f64;
        let mean = self.ratios.iter().sum::<f64>() / count;
        let squares = self.ratios.iter().map(|ratio| (ratio - mean).powi(2));
        (mean, (squares.sum::<f64>() / (count - 1.0) / count).sqrt())
    }

    fn coverage(&self) -> f64 {
        self.covered as f64 / self.ratios.len() as f64
    }
}

/// Mean ratio of estimate and truth, and coverage of the interval, of one quantity.
#[track_caller]
fn assert_good(what: &str, score: &Score) {
    let (mean, error) = score.mean_and_error();
    let coverage = score.coverage();
    let clusters = score.clusters_min;
    println!(
        "{what}: ratio {mean:.5} +- {error:.5}, coverage {coverage:.4}, clusters {clusters}.."
    );
    assert!(
        (mean - 1.0).abs() < 3.0 * error,
        "{what}: {mean} +- {error}"
    );
    assert!((0.93..=0.97).contains(&coverage), "{what}: {coverage}");
    assert_eq!(score.flagged, 0, "{what}: {clusters} clusters");
}

/// Runs the storms and scores keyed records, their durations, keyless records, their durations,
/// and the keyed ones each taken for a cluster of its own.
fn scores(keys: u64, peak: u64, rate: Option<Rate>) -> [Score; 5] {
    let mut scores = <[Score; 5]>::default();
    for run in 0..runs() {
        let (keyed, keyless) = storm(run, keys, peak, rate);
        for (category, scores) in [&keyed, &keyless].into_iter().zip(scores.chunks_mut(2)) {
            let truth = category.truth;
            let estimate = category.records.estimate();
            assert_eq!(estimate.written + truth.sampled_out, truth.offered);
            scores[0].take(&estimate, truth.offered as f64);
            let durations = category.durations.estimate();
            assert_eq!(durations.clusters, estimate.clusters);
            scores[1].take(&durations, truth.duration_ms);
        }
        scores[4].take(&keyed.apart.estimate(), keyed.truth.offered as f64);
    }
    scores
}

fn assert_storms(keys: u64, peak: u64, rate: Option<Rate>) {
    let [keyed, durations, keyless, keyless_durations, apart] = scores(keys, peak, rate);
    assert_good("keyed", &keyed);
    assert_good("keyed, durations", &durations);
    assert_good("keyless", &keyless);
    assert_good("keyless, durations", &keyless_durations);
    // What would happen without clusters: the test above can fail.
    let coverage = apart.coverage();
    println!("keyed, taken for independent: coverage {coverage:.4}");
    assert!(coverage < 0.8, "{coverage}");
}

#[test]
fn storms_with_changing_pressure_are_estimated_without_bias() {
    assert_storms(3_000, 5, None);
}

#[test]
fn a_fixed_rate_beside_the_pressure_changes_nothing() {
    let rate = Rate {
        threshold: Threshold::of_rate(0.3).unwrap(),
        weight_id: 16,
    };
    assert_storms(3_000, 3, Some(rate));
}

/// Storms of which little was kept say so, whether or not their interval happens to cover.
#[test]
fn small_categories_are_flagged() {
    let (mut flagged, mut large) = (0, 0);
    for run in 0..runs() {
        let (keyed, keyless) = storm(run, 20 + run % 400, 4, None);
        for category in [keyed, keyless] {
            let estimate = category.records.estimate();
            assert_eq!(estimate.too_few, (1..100).contains(&estimate.clusters));
            flagged += u64::from(estimate.too_few);
            large += u64::from(!estimate.too_few);
        }
    }
    assert!(
        flagged > runs() / 4 && large > runs() / 4,
        "{flagged} {large}"
    );
}

/// What was dropped is beside the estimate: offered = estimate + dropped.
#[test]
fn drops_stand_beside_the_estimate() {
    let mut gaps = Gaps::new(9, 9);
    let mut estimator = Estimator::new();
    let mut outside = Outside::default();
    let offered = 100_000;
    for record in 0..offered {
        // A full ring comes before the decision of nobody: it takes kept records only.
        if !gaps.keeps(3) {
            outside.sampled_out += 1;
        } else if record % 10_000 < 1_000 {
            outside.dropped += 1;
        } else {
            estimator.add(8.0, None, 1.0).unwrap();
        }
    }
    estimator.set_outside(outside);
    let estimate = estimator.estimate();
    assert_eq!(estimate.outside, outside);
    let exact = estimate.written + outside.sampled_out + outside.dropped;
    assert_eq!(exact, offered);
    // Kept records that were dropped stood for others: the estimate is too small by those.
    let lost = outside.dropped as f64 * 8.0;
    assert!(estimate.high < offered as f64);
    assert!(estimate.low < offered as f64 - lost && offered as f64 - lost < estimate.high);
}
