//! What the pairs say: effects with their intervals, the verdict, and what is missing for one.

use super::data::{Data, Kind, Sample, Times};
use super::stats::{self, Interval};

/// All verdicts on one set of pairs together are wrong with at most this probability.
pub const ERROR: f64 = 0.05;
/// Blocks that an estimate of what is missing does not go beyond.
const BLOCKS_MAX: f64 = 1e6;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Metric {
    /// Processor time of the whole process.
    Cpu,
    /// Wall time of the whole process.
    Wall,
    /// Processor time of the steady part of the run, if the command tells it.
    SteadyCpu,
    /// Wall time of the steady part.
    SteadyWall,
}

impl Metric {
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Wall, Self::SteadyCpu, Self::SteadyWall];

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU, whole process",
            Self::Wall => "wall, whole process",
            Self::SteadyCpu => "CPU, steady part",
            Self::SteadyWall => "wall, steady part",
        }
    }

    pub fn key(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Wall => "wall",
            Self::SteadyCpu => "steady_cpu",
            Self::SteadyWall => "steady_wall",
        }
    }

    /// The time of a run, ns, for each unit of work if the command counts them. The number of
    /// units is the same in all runs unless a service could not keep up.
    fn of(self, sample: &Sample) -> Option<f64> {
        let times: Times = match self {
            Self::Cpu | Self::Wall => sample.process,
            Self::SteadyCpu | Self::SteadyWall => sample.said.window?.times,
        };
        let nanos = match self {
            Self::Cpu | Self::SteadyCpu => times.cpu_ns,
            Self::Wall | Self::SteadyWall => times.wall_ns,
        };
        Some(nanos as f64 / sample.said.units.max(1) as f64)
    }
}

/// One metric of one side against the first side.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub metric: Metric,
    /// The logarithm of the ratio, of each block.
    pub blocks: Vec<f64>,
    /// The relative difference: 0.01 is 1 % more. `None` with too few blocks.
    pub interval: Option<Interval>,
}

/// What one side is, against the first.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub side: usize,
    pub effects: Vec<Effect>,
    /// Processor time that each record costs, ns, whoever spends it: threads and writer.
    pub cost_ns: Option<Interval>,
}

impl Comparison {
    pub fn effect(&self, metric: Metric) -> Option<&Effect> {
        self.effects.iter().find(|effect| effect.metric == metric)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval is below the limit; of two equal sides: it is narrow and has 0 in it.
    Holds,
    /// The whole interval is above the limit; of two equal sides: 0 is not in it.
    Fails,
    Undecided,
}

/// What the data says.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub look: u64,
    /// Probability with which an interval of this look misses the truth.
    pub error: f64,
    pub comparisons: Vec<Comparison>,
    pub verdict: Verdict,
    /// How many more pairs a verdict needs by estimate; `None` if that cannot be told.
    pub missing: Option<u64>,
    /// How many more pairs an interval of the wanted width needs; 0 when it has it.
    pub missing_for_width: Option<u64>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub metric: Metric,
    /// The relative difference that is the limit.
    pub limit: f64,
    /// The wanted half of the width of the interval.
    pub half_width: f64,
    pub seed: u64,
}

/// The two runs of a side in a block.
fn of_side(block: &[Sample], side: usize) -> impl Iterator<Item = &Sample> {
    block.iter().filter(move |sample| sample.side == side)
}

fn sum<'a>(samples: impl Iterator<Item = &'a Sample>, of: impl Fn(&Sample) -> f64) -> f64 {
    samples.map(of).sum()
}

/// The mean of the two logarithms of a side in a block.
fn log_of(block: &[Sample], side: usize, metric: Metric) -> Option<f64> {
    let logs = of_side(block, side).map(|sample| Some(metric.of(sample)?.ln()));
    let logs: Option<Vec<f64>> = logs.collect();
    logs.map(|logs| stats::mean(&logs))
}

fn effect(data: &Data, side: usize, metric: Metric, error: f64, seed: u64) -> Option<Effect> {
    let ratio =
        |block: &Vec<Sample>| Some(log_of(block, side, metric)? - log_of(block, 0, metric)?);
    let blocks: Option<Vec<f64>> = data.blocks.iter().map(ratio).collect();
    let blocks = blocks?;
    let interval = stats::bootstrap(&blocks, error, stats::RESAMPLES, seed);
    Some(Effect {
        metric,
        interval: interval.map(|interval| interval.map(f64::exp_m1)),
        blocks,
    })
}

/// Processor time for each record of the side that the first side does not take: of the steady
/// part if it is known, because start and end of a session do not grow with the records.
fn cost(data: &Data, side: usize, error: f64, seed: u64) -> Option<Interval> {
    let cpu = |sample: &Sample| sample.steady().cpu_ns as f64;
    let cost = |block: &Vec<Sample>| {
        let records = sum(of_side(block, side), |sample| {
            sample.steady_records() as f64
        });
        let more = sum(of_side(block, side), cpu) - sum(of_side(block, 0), cpu);
        (records > 0.0).then(|| more / records)
    };
    let costs: Option<Vec<f64>> = data.blocks.iter().map(cost).collect();
    stats::bootstrap(&costs?, error, stats::RESAMPLES, seed)
}

/// Judges the data.
pub fn judge(data: &Data, question: &Question) -> Judgement {
    let (look, _) = data.look();
    let error = stats::error_of_look(ERROR, look);
    let compare = |side: usize| Comparison {
        side,
        effects: Metric::ALL
            .iter()
            .filter_map(|metric| effect(data, side, *metric, error, question.seed))
            .collect(),
        cost_ns: cost(data, side, error, question.seed),
    };
    let comparisons: Vec<_> = (1..data.sides.len()).map(compare).collect();
    let judged = comparisons
        .first()
        .and_then(|first| first.effect(question.metric))
        .filter(|effect| !effect.blocks.is_empty());
    let interval = judged.and_then(|effect| effect.interval);
    let verdict = interval.map_or(Verdict::Undecided, |interval| {
        verdict(data.kind, &interval, question)
    });
    let more = |gap: f64| blocks_missing(judged?, gap, look);
    let limit = match data.kind {
        Kind::Same => None,
        Kind::Recording | Kind::Burn(_) => judged
            .map(|effect| (stats::trimmed_mean(&effect.blocks) - question.limit.ln_1p()).abs()),
    };
    let missing_for_width = match interval {
        Some(interval) if interval.half_width() <= question.half_width => Some(0),
        _ => more(question.half_width),
    };
    Judgement {
        look,
        error,
        verdict,
        missing: match (verdict, data.kind) {
            (Verdict::Undecided, Kind::Same) => missing_for_width,
            (Verdict::Undecided, _) => limit.and_then(more),
            _ => Some(0),
        },
        missing_for_width,
        comparisons,
    }
}

fn verdict(kind: Kind, interval: &Interval, question: &Question) -> Verdict {
    match kind {
        Kind::Same if !interval.contains(0.0) => Verdict::Fails,
        Kind::Same if interval.half_width() <= question.half_width => Verdict::Holds,
        Kind::Same => Verdict::Undecided,
        _ if interval.high < question.limit => Verdict::Holds,
        _ if interval.low > question.limit => Verdict::Fails,
        _ => Verdict::Undecided,
    }
}

/// Pairs that are missing until the interval of the next look is this wide on each side.
fn blocks_missing(effect: &Effect, half_width: f64, look: u64) -> Option<u64> {
    let count = effect.blocks.len();
    if count < stats::VALUES_MIN {
        return Some(2 * (stats::VALUES_MIN - count) as u64);
    }
    let error = stats::error_of_look(ERROR, look + 1);
    let wanted = stats::values_for(half_width, stats::deviation(&effect.blocks), error);
    (wanted <= BLOCKS_MAX).then(|| 2 * (wanted as u64).saturating_sub(count as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::super::data::tests::synthetic;
    use super::*;

    const QUESTION: Question = Question {
        metric: Metric::Cpu,
        limit: 0.01,
        half_width: 0.0025,
        seed: 1,
    };

    /// `count` blocks with this effect, and noise that adds up to nothing.
    fn data(kind: Kind, count: usize, effect: f64, noise: f64) -> Data {
        let blocks = (0..count).map(|index| {
            let sign = if index % 2 == 0 { 1.0 } else { -1.0 };
            // A drift of the machine that both sides see.
            let drift = 1.0 + index as f64 * 0.01;
            [drift, drift * (1.0 + effect) * (sign * noise).exp()]
        });
        synthetic(kind, &blocks.collect::<Vec<_>>())
    }

    fn verdict_of(kind: Kind, count: usize, effect: f64, noise: f64) -> (Verdict, Option<u64>) {
        let judged = judge(&data(kind, count, effect, noise), &QUESTION);
        (judged.verdict, judged.missing)
    }

    #[test]
    fn a_verdict_needs_the_whole_interval() {
        let recording = Kind::Recording;
        assert_eq!(
            verdict_of(recording, 40, 0.005, 0.005),
            (Verdict::Holds, Some(0))
        );
        assert_eq!(
            verdict_of(recording, 40, 0.02, 0.005),
            (Verdict::Fails, Some(0))
        );
        let (verdict, missing) = verdict_of(recording, 40, 0.005, 0.05);
        assert_eq!(verdict, Verdict::Undecided);
        // (2.64 * 0.0506 / 0.6 / 0.00496)^2 = 2,013 blocks, of which 40 are there.
        assert!(
            missing.is_some_and(|pairs| (3_800..4_100).contains(&pairs)),
            "{missing:?}"
        );
        assert_eq!(
            verdict_of(Kind::Burn(20_000), 40, 0.02, 0.005).0,
            Verdict::Fails
        );
    }

    #[test]
    fn an_effect_at_the_limit_has_no_estimate() {
        let (verdict, missing) = verdict_of(Kind::Recording, 40, 0.01, 0.02);
        assert_eq!((verdict, missing), (Verdict::Undecided, None));
    }

    #[test]
    fn few_blocks_have_no_verdict() {
        let judged = judge(&data(Kind::Recording, 3, 0.0, 0.001), &QUESTION);
        assert_eq!(
            (judged.verdict, judged.missing),
            (Verdict::Undecided, Some(10))
        );
        assert_eq!(judged.comparisons[0].cost_ns, None);
    }

    #[test]
    fn equal_sides_have_no_effect() {
        let same = Kind::Same;
        assert_eq!(verdict_of(same, 40, 0.0, 0.002), (Verdict::Holds, Some(0)));
        assert_eq!(verdict_of(same, 40, 0.004, 0.002).0, Verdict::Fails);
        let (verdict, missing) = verdict_of(same, 40, 0.0, 0.05);
        assert_eq!(verdict, Verdict::Undecided);
        assert!(missing.is_some_and(|pairs| pairs > 1_000), "{missing:?}");
    }

    #[test]
    fn every_look_costs_width() {
        let mut data = data(Kind::Recording, 40, 0.005, 0.01);
        let first = judge(&data, &QUESTION);
        data.looks = vec![10, 20, 30];
        let fourth = judge(&data, &QUESTION);
        assert_eq!((first.look, fourth.look), (1, 4));
        let width = |judged: &Judgement| {
            let effect = judged.comparisons[0].effect(Metric::Cpu);
            effect.unwrap().interval.unwrap().half_width()
        };
        assert!(width(&fourth) > 1.2 * width(&first));
    }

    #[test]
    fn a_record_costs_what_its_side_takes_more() {
        let judged = judge(&data(Kind::Recording, 20, 0.05, 0.001), &QUESTION);
        let cost = judged.comparisons[0].cost_ns.unwrap();
        // 5 % of 0.8 s at the begin, with the drift 9.5 % more in the middle; 800,000 records.
        assert!((cost.centre - 54.8).abs() < 1.0, "{cost:?}");
        assert!(cost.low < cost.centre && cost.centre < cost.high);
        let steady = judged.comparisons[0].effect(Metric::SteadyWall).unwrap();
        assert!((steady.interval.unwrap().centre - 0.05).abs() < 0.001);
    }
}
