//! What a comparison prints for people.

use std::io::{self, Write};

use super::data::{Kind, Sample};
use super::report::{Rate, Report};
use super::stats;
use crate::cli::human::{self, Table};

impl Report<'_> {
    /// For people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let (data, judgement) = (self.data, self.judgement);
        writeln!(
            out,
            "{}: {}\n{} in {}, look {}: intervals of {:.2} %, bootstrap of the \
             blocks, seed {}\n",
            self.heading(),
            human::plain(&data.workload),
            human::counted(data.pairs(), "pair"),
            human::counted(data.blocks.len() as u64, "block"),
            judgement.look,
            (1.0 - judgement.error) * 100.0,
            self.question.seed,
        )?;
        self.write_effects(out)?;
        self.write_sides(out)?;
        if data.kind == Kind::Recording {
            self.write_rates(out)?;
        }
        self.write_verdict(out)
    }

    fn write_effects(&self, out: &mut impl Write) -> io::Result<()> {
        let heads = [
            "side",
            "what",
            ">more than off",
            ">interval",
            ">+-",
            ">mean of all",
            ">follows itself",
        ];
        let mut table = Table::new(&heads);
        for comparison in &self.judgement.comparisons {
            for effect in &comparison.effects {
                let of = |statistic: fn(&[f64]) -> f64| match effect.blocks.len() {
                    0 => "-".to_owned(),
                    _ => percent(statistic(&effect.blocks).exp_m1()),
                };
                let (interval, width) = match effect.interval {
                    Some(found) => (
                        format!("{} .. {}", percent(found.low), percent(found.high)),
                        percent(found.half_width()),
                    ),
                    None => ("-".to_owned(), "-".to_owned()),
                };
                table.row([
                    self.data.sides[comparison.side].clone(),
                    effect.metric.name().to_owned(),
                    of(stats::trimmed_mean),
                    interval,
                    width.trim_start_matches('+').to_owned(),
                    of(stats::mean),
                    match effect.blocks.len() {
                        0..stats::VALUES_MIN => "-".to_owned(),
                        _ => format!("{:+.2}", stats::lag_correlation(&effect.blocks)),
                    },
                ]);
            }
        }
        writeln!(out, "{table}\n")
    }

    fn write_sides(&self, out: &mut impl Write) -> io::Result<()> {
        for side in 0..self.data.sides.len() {
            let sum = |of: fn(&Sample) -> u64| self.samples(side).map(of).sum::<u64>();
            let (records, written) = (sum(|s| s.said.records), sum(|s| s.said.written));
            let name = human::plain(&self.data.sides[side]);
            if records > 0 {
                let less = if written == records {
                    ""
                } else {
                    "; the others cost less"
                };
                writeln!(
                    out,
                    "  {name}: {} of {} records were written{less}",
                    human::count(written),
                    human::count(records)
                )?;
            }
            if let (Some(p50), Some(p99), Some(p999)) = {
                let latency = self.latency(side);
                let time = |name: &str| latency[name].as_u64().map(human::nanos);
                (time("p50"), time("p99"), time("p999"))
            } {
                writeln!(
                    out,
                    "  {name}: a unit takes p50 {p50}, p99 {p99}, p99.9 {p999}"
                )?;
            }
        }
        Ok(())
    }

    fn write_rates(&self, out: &mut impl Write) -> io::Result<()> {
        let rates = self.rates();
        if rates.is_empty() {
            return Ok(());
        }
        let limit = percent(self.question.limit);
        let limit = limit.trim_start_matches('+');
        let heads = [
            "logger",
            ">CPU of a record, ns",
            ">interval",
            ">records/s",
            ">interval",
        ];
        let mut table = Table::new(&heads);
        for Rate {
            name,
            cost_ns,
            records,
            given,
        } in rates
        {
            let both = |low: String, high: String| {
                if given {
                    "given".to_owned()
                } else {
                    format!("{low} .. {high}")
                }
            };
            table.row([
                name,
                format!("{:.1}", cost_ns.centre),
                both(
                    format!("{:.1}", cost_ns.low),
                    format!("{:.1}", cost_ns.high),
                ),
                rate_text(records.centre),
                both(rate_text(records.low), rate_text(records.high)),
            ]);
        }
        writeln!(
            out,
            "\nHighest rate at which recording takes {limit} of the processor time, for each core \
             that the program\nkeeps busy (this one: {:.2}); the cost of a record is that at the \
             rate of this run:\n\n{table}",
            self.busy()
        )
    }

    fn write_verdict(&self, out: &mut impl Write) -> io::Result<()> {
        let metric = self.question.metric.name();
        let limit = percent(self.question.limit);
        let limit = limit.trim_start_matches('+');
        let text = match self.verdict_key() {
            "no effect" => "no effect, as it must be".to_owned(),
            "effect" => {
                "an effect where there is none: harness or machine favour a side".to_owned()
            }
            "under" => format!("under {limit}"),
            "over" => format!("over {limit}"),
            _ => match self.judgement.missing {
                Some(missing) => format!("undecided: about {} more pairs", human::count(missing)),
                None => "undecided: too close to the limit for any number of pairs".to_owned(),
            },
        };
        writeln!(out, "\nVerdict ({metric}): {text}.")?;
        match self.judgement.missing_for_width {
            Some(0) | None => Ok(()),
            Some(missing) => {
                let width = percent(self.question.half_width);
                let (width, missing) = (width.trim_start_matches('+'), human::count(missing));
                writeln!(
                    out,
                    "An interval of +-{width} takes about {missing} more pairs."
                )
            }
        }
    }
}

/// `0.0123` as `+1.23 %`.
pub fn percent(part: f64) -> String {
    format!("{:+.2} %", part * 100.0)
}

fn rate_text(rate: f64) -> String {
    if rate.is_finite() {
        human::count(rate.round() as u64)
    } else {
        "no bound".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{QUESTION, example};
    use super::*;

    fn text(kind: Kind, effect: f64) -> String {
        let (data, judgement) = example(kind, effect);
        let report = Report {
            data: &data,
            question: QUESTION,
            judgement: &judgement,
            rivals: &[("other".to_owned(), 1_000.0)],
        };
        let mut out = Vec::new();
        report.write_text(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_text_has_verdict_rates_and_records() {
        let over = text(Kind::Recording, 0.05);
        assert!(
            over.contains("Verdict (CPU, whole process): over 1.00 %."),
            "{over}"
        );
        assert!(
            over.contains("40,000,000 of 40,000,000 records were written"),
            "{over}"
        );
        // 5 % of 0.8 s for 800,000 records is 50 ns: 200,000 of them in a second are 1 %.
        assert!(
            over.contains(" 50.0 ") && over.contains(" 200,000 "),
            "{over}"
        );
        assert!(
            over.contains("other") && over.contains(" 10,000 "),
            "{over}"
        );
        assert!(text(Kind::Recording, 0.005).contains(": under 1.00 %."));
        assert!(text(Kind::Same, 0.0).contains(": no effect"));
        assert!(text(Kind::Same, 0.05).contains("an effect where there is none"));
        let undecided = text(Kind::Recording, 0.0102);
        assert!(undecided.contains("undecided: about "), "{undecided}");
    }
}
