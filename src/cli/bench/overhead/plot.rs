//! A comparison as a picture: every block with the interval, and the rate at the limit.

use super::judge::Metric;
use super::report::{Rate, Report};
use super::text::percent;
use crate::cli::svg::{COLOURS, LEFT, Panel, RIGHT, Svg};

const HEIGHT: f64 = 520.0;
/// Where the rates begin, and the height of each.
const RATES_TOP: f64 = 380.0;
const RATE_HEIGHT: f64 = 22.0;
/// Rates that have room.
const RATES_MAX: usize = 6;
/// Where the bars of rates begin.
const BARS: f64 = 250.0;
const BARS_END: f64 = 700.0;

/// The picture.
pub fn svg(report: &Report<'_>) -> String {
    let title = format!("{}: {}", report.heading(), report.data.workload);
    let mut svg = Svg::new(
        HEIGHT,
        &title,
        "Above, the relative difference in each block of runs, with the interval of their mean and \
         the limit. Below, for each logger the highest rate of records at the limit.",
    );
    blocks(&mut svg, report);
    rates(&mut svg, &report.rates());
    svg.finish()
}

/// The difference in each block, of every side.
fn blocks(svg: &mut Svg, report: &Report<'_>) {
    let metric: Metric = report.question.metric;
    let comparisons = &report.judgement.comparisons;
    let effects: Vec<_> = comparisons
        .iter()
        .filter_map(|comparison| Some((comparison.side, comparison.effect(metric)?)))
        .collect();
    let all = effects.iter().flat_map(|(_, effect)| &effect.blocks);
    let all: Vec<f64> = all.map(|log| log.exp_m1()).collect();
    let limit = report.question.limit;
    let low = all.iter().copied().fold(-limit, f64::min);
    let high = all.iter().copied().fold(2.0 * limit, f64::max);
    let panel = Panel {
        top: 70.0,
        bottom: 320.0,
        title: metric.name(),
        low,
        high,
        marks: [low, 0.0, high].map(|value| (value, short(value))).to_vec(),
    };
    svg.panel(&panel);
    let y = panel.y(limit);
    svg.element(format_args!(
        "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#dc2626\" stroke-dasharray=\"6 4\"/>"
    ));
    svg.text(RIGHT, y - 4.0, "end", &format!("limit {}", percent(limit)));
    for (side, effect) in effects {
        let colour = COLOURS[(side - 1) % COLOURS.len()];
        let name = &report.data.sides[side];
        let shown = effect.interval.map(|found| {
            let (top, bottom) = (panel.y(found.high), panel.y(found.low));
            svg.element(format_args!(
                "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"{colour}\" fill-opacity=\"0.3\"/>",
                RIGHT - LEFT,
                bottom - top
            ));
            format!("{name} {} .. {}", percent(found.low), percent(found.high))
        });
        let step = (RIGHT - LEFT) / effect.blocks.len().max(1) as f64;
        for (index, log) in effect.blocks.iter().enumerate() {
            let x = LEFT + (index as f64 + 0.5) * step;
            let y = panel.y(log.exp_m1());
            svg.element(format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{colour}\"/>"
            ));
        }
        let at = LEFT + 200.0 + 330.0 * (side as f64 - 1.0);
        let legend = shown.unwrap_or_else(|| name.clone());
        svg.element(format_args!(
            "<circle cx=\"{at}\" cy=\"58\" r=\"5\" fill=\"{colour}\"/>"
        ));
        svg.text(at + 12.0, 62.0, "start", &legend);
    }
    let pairs = format!(
        "{} blocks of two pairs, in the order of time",
        report.data.blocks.len()
    );
    svg.text(f64::midpoint(LEFT, RIGHT), 338.0, "middle", &pairs);
}

/// A bar for each logger, over a logarithmic axis.
fn rates(svg: &mut Svg, rates: &[Rate]) {
    let rates = &rates[..rates.len().min(RATES_MAX)];
    let Some(most) = rates
        .iter()
        .map(|rate| rate.records.centre)
        .reduce(f64::max)
    else {
        return;
    };
    svg.text(
        LEFT,
        RATES_TOP - 12.0,
        "start",
        "records/s at the limit, for each busy core (logarithmic)",
    );
    let finite = if most.is_finite() { most } else { 1e9 };
    // Three decades and what is in them of the largest.
    let low = finite.log10() - 3.0;
    let width = |rate: f64| {
        let part = (rate.log10() - low) / 3.0;
        part.clamp(0.01, 1.0) * (BARS_END - BARS)
    };
    for (index, rate) in rates.iter().enumerate() {
        let y = RATES_TOP + RATE_HEIGHT * index as f64;
        let colour = COLOURS[index % COLOURS.len()];
        svg.text(BARS - 8.0, y + 13.0, "end", &rate.name);
        svg.element(format_args!(
            "<rect x=\"{BARS}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>",
            width(rate.records.centre)
        ));
        let shown = if rate.records.centre.is_finite() {
            let count = crate::cli::human::count(rate.records.centre as u64);
            format!("{count} ({:.1} ns)", rate.cost_ns.centre)
        } else {
            "no bound".to_owned()
        };
        let at = BARS + width(rate.records.centre) + 8.0;
        svg.text(at, y + 13.0, "start", &shown);
    }
}

fn short(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::data::{Kind, tests::synthetic};
    use super::super::judge;
    use super::super::report::tests::{QUESTION, example};
    use super::*;
    use crate::cli::svg::tests::parse;

    #[test]
    fn the_picture_has_a_dot_for_each_block_and_a_bar_for_each_logger() {
        let (data, judgement) = example(Kind::Recording, 0.05);
        let rivals = [("a < b".to_owned(), 500.0)];
        let report = Report {
            data: &data,
            question: QUESTION,
            judgement: &judgement,
            rivals: &rivals,
        };
        let names = parse(&svg(&report));
        let count = |name: &str| names.iter().filter(|found| *found == name).count();
        // One dot per block and one of the legend; two bars and the band of the interval.
        assert_eq!((count("circle"), count("rect")), (21, 3));
    }

    #[test]
    fn a_picture_of_nothing_is_well_formed() {
        for blocks in [&[][..], &[[1.0, 1.0]; 3][..]] {
            let data = synthetic(Kind::Same, blocks);
            let judgement = judge::judge(&data, &QUESTION);
            let report = Report {
                data: &data,
                question: QUESTION,
                judgement: &judgement,
                rivals: &[],
            };
            assert_eq!(parse(&svg(&report))[0], "svg");
        }
    }
}
