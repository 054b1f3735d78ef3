//! What a comparison says, as figures and as JSON; `text` has the same for people.

use serde_json::{Value as Json, json};

use super::data::{Data, Kind, Sample};
use super::judge::{Judgement, Question, Verdict};
use super::stats::{self, Interval};

/// The result with everything that is known about it.
pub struct Report<'a> {
    pub data: &'a Data,
    pub question: Question,
    pub judgement: &'a Judgement,
    /// Loggers that were measured elsewhere: name, and ns of a record.
    pub rivals: &'a [(String, f64)],
}

/// What a record costs a logger, and how many of them make up the limit.
pub struct Rate {
    pub name: String,
    pub cost_ns: Interval,
    /// Records per second of processor time that the program takes for its own work. A bound that
    /// is not known, because the cost may be nothing, is infinite.
    pub records: Interval,
    pub given: bool,
}

impl Report<'_> {
    /// The rate at which recording takes just the limit, by logger.
    pub fn rates(&self) -> Vec<Rate> {
        let measured = self.judgement.comparisons.iter().filter_map(|comparison| {
            let name = self.data.sides[comparison.side].clone();
            Some((name, comparison.cost_ns?, false))
        });
        let given = self.rivals.iter().map(|(name, cost)| {
            let (low, centre, high) = (*cost, *cost, *cost);
            (name.clone(), Interval { low, centre, high }, true)
        });
        // The less a record costs, the more of them there may be.
        let rate = |cost: f64| {
            if cost > 0.0 {
                self.question.limit * 1e9 / cost
            } else {
                f64::INFINITY
            }
        };
        let all = measured.chain(given).map(|(name, cost_ns, given)| Rate {
            name,
            cost_ns,
            records: Interval {
                low: rate(cost_ns.high),
                centre: rate(cost_ns.centre),
                high: rate(cost_ns.low),
            },
            given,
        });
        all.collect()
    }

    /// How many cores the program keeps busy without recording.
    pub fn busy(&self) -> f64 {
        let off = self.samples(0);
        let times = off.map(Sample::steady);
        let (cpu, wall) = times.fold((0.0, 0.0), |(cpu, wall), times| {
            (cpu + times.cpu_ns as f64, wall + times.wall_ns as f64)
        });
        if wall > 0.0 { cpu / wall } else { 0.0 }
    }

    pub fn samples(&self, side: usize) -> impl Iterator<Item = &Sample> {
        let all = self.data.blocks.iter().flatten();
        all.filter(move |sample| sample.side == side)
    }

    /// One JSON object with all pairs in it.
    pub fn json(&self) -> Json {
        let judgement = self.judgement;
        let comparisons: Vec<_> = judgement
            .comparisons
            .iter()
            .map(|comparison| {
                let effects: serde_json::Map<_, _> = comparison
                    .effects
                    .iter()
                    .map(|effect| {
                        let mut json = interval_json(effect.interval);
                        json["mean_of_all"] = finite(stats::mean(&effect.blocks).exp_m1());
                        json["lag_correlation"] = finite(stats::lag_correlation(&effect.blocks));
                        (effect.metric.key().to_owned(), json)
                    })
                    .collect();
                json!({
                    "side": self.data.sides[comparison.side],
                    "overhead": effects,
                    "cpu_ns_per_record": interval_json(comparison.cost_ns),
                })
            })
            .collect();
        let rates = self.rates().into_iter().map(|rate| {
            json!({
                "name": rate.name,
                "given": rate.given,
                "cpu_ns_per_record": interval_json(Some(rate.cost_ns)),
                "records_per_cpu_second": interval_json(Some(rate.records)),
            })
        });
        let sides = (0..self.data.sides.len()).map(|side| {
            let said = |of: fn(&Sample) -> u64| self.samples(side).map(of).sum::<u64>();
            json!({
                "name": self.data.sides[side],
                "units": said(|sample| sample.said.units),
                "records": said(|sample| sample.said.records),
                "written": said(|sample| sample.said.written),
                "latency_ns": self.latency(side),
            })
        });
        json!({
            "verdict": self.verdict_key(),
            "holds": match judgement.verdict {
                Verdict::Holds => Json::Bool(true),
                Verdict::Fails => Json::Bool(false),
                Verdict::Undecided => Json::Null,
            },
            "metric": self.question.metric.key(),
            "limit": self.question.limit,
            "half_width_wanted": self.question.half_width,
            "pairs": self.data.pairs(),
            "pairs_missing": judgement.missing,
            "pairs_missing_for_half_width": judgement.missing_for_width,
            "look": judgement.look,
            "confidence": 1.0 - judgement.error,
            "resamples": stats::RESAMPLES,
            "seed": self.question.seed,
            "cores_busy": self.busy(),
            "sides": sides.collect::<Vec<_>>(),
            "comparisons": comparisons,
            "rates": rates.collect::<Vec<_>>(),
            "data": self.data.to_json(),
        })
    }

    /// The median over all runs of each percentile.
    pub fn latency(&self, side: usize) -> Json {
        let all: Vec<_> = self
            .samples(side)
            .filter_map(|run| run.said.latency)
            .collect();
        let median = |index: usize| {
            let mut values: Vec<_> = all.iter().map(|times| times[index] as f64).collect();
            values.sort_unstable_by(f64::total_cmp);
            stats::quantile(&values, 0.5) as u64
        };
        if all.is_empty() {
            return Json::Null;
        }
        json!({ "p50": median(0), "p99": median(1), "p999": median(2) })
    }

    pub fn verdict_key(&self) -> &'static str {
        match (self.judgement.verdict, self.data.kind) {
            (Verdict::Undecided, _) => "undecided",
            (Verdict::Holds, Kind::Same) => "no effect",
            (Verdict::Fails, Kind::Same) => "effect",
            (Verdict::Holds, _) => "under",
            (Verdict::Fails, _) => "over",
        }
    }

    pub fn heading(&self) -> &'static str {
        match self.data.kind {
            Kind::Recording => "Overhead of recording",
            Kind::Same => "Nothing against nothing (A/A)",
            Kind::Burn(_) => "Overhead of a known burn",
        }
    }
}

/// JSON knows no infinity.
fn finite(value: f64) -> Json {
    if value.is_finite() {
        value.into()
    } else {
        Json::Null
    }
}

fn interval_json(interval: Option<Interval>) -> Json {
    match interval {
        Some(Interval { low, centre, high }) => {
            json!({ "low": finite(low), "centre": finite(centre), "high": finite(high) })
        }
        None => json!({}),
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::data::tests::synthetic;
    use super::super::judge::{self, Metric};
    use super::*;

    pub const QUESTION: Question = Question {
        metric: Metric::Cpu,
        limit: 0.01,
        half_width: 0.0025,
        seed: 1,
    };

    pub fn example(kind: Kind, effect: f64) -> (Data, Judgement) {
        let blocks = (0..20).map(|index| {
            let noise = if index % 2 == 0 { 0.999 } else { 1.001 };
            [1.0, (1.0 + effect) * noise]
        });
        let data = synthetic(kind, &blocks.collect::<Vec<_>>());
        let judgement = judge::judge(&data, &QUESTION);
        (data, judgement)
    }

    #[test]
    fn a_cost_that_may_be_nothing_bounds_nothing() {
        let (data, judgement) = example(Kind::Recording, 0.0);
        let report = Report {
            data: &data,
            question: QUESTION,
            judgement: &judgement,
            rivals: &[],
        };
        let rates = report.rates();
        assert!(rates[0].records.high.is_infinite() && rates[0].records.low > 0.0);
        let json = report.json();
        assert_eq!(
            json["rates"][0]["records_per_cpu_second"]["high"],
            Json::Null
        );
        assert_eq!(json["verdict"], "under");
        assert_eq!(Data::from_json(&json["data"]).unwrap(), data);
    }
}
