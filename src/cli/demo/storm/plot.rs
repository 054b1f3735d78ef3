//! The storm as a picture (SVG) and as a table (CSV): pressure, fill and time of calls.

use std::fmt::Write;
use std::time::Duration;

use super::latency::WINDOW;
use super::run::{Plan, Run};
use super::sampler::Sample;
use super::traffic::CATEGORIES;
use crate::cli::svg::{COLOURS, GREY, LEFT, Panel, RIGHT, Svg};

const HEIGHT: f64 = 640.0;

/// Quantiles of calls that are drawn.
const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];

/// Where a time stands.
fn x(at: Duration, end: Duration) -> f64 {
    LEFT + (RIGHT - LEFT) * at.as_secs_f64() / end.as_secs_f64().max(1e-9)
}

/// The times of windows with their quantiles, as far as there were calls.
fn windows(run: &Run, quantile: f64) -> Vec<(Duration, f64)> {
    let count = run.windows.len() as u32;
    let ends = (0..count).take_while(|index| WINDOW * *index < run.marks.end);
    let points = ends.filter_map(|index| {
        let nanos = run.windows.quantile(index as usize, quantile)?;
        Some((WINDOW * index + WINDOW / 2, nanos))
    });
    points.collect()
}

/// The table: one row per look, with the quantiles of the calls of its window.
pub fn csv(run: &Run) -> String {
    let mut out = String::from("seconds,phase");
    for category in CATEGORIES {
        let _infallible = write!(out, ",pressure_{category}");
    }
    out.push_str(",ring_fill,anonymous_kib,push_ns_p50,push_ns_p99,push_ns_p999\n");
    for sample in &run.samples {
        let window = (sample.at.as_nanos() / WINDOW.as_nanos()) as usize;
        let _infallible = write!(out, "{:.4},{}", sample.at.as_secs_f64(), phase(run, sample));
        for k in sample.pressure {
            let _infallible = write!(out, ",{k}");
        }
        let _infallible = write!(out, ",{:.4},{}", sample.fill, sample.anonymous_kib);
        for (quantile, _) in QUANTILES {
            out.push(',');
            if let Some(nanos) = run.windows.quantile(window, quantile) {
                let _infallible = write!(out, "{nanos:.0}");
            }
        }
        out.push('\n');
    }
    out
}

fn phase(run: &Run, sample: &Sample) -> &'static str {
    let marks = &run.marks;
    if sample.at < marks.before {
        "warm"
    } else if sample.at < marks.storm {
        "before"
    } else if sample.at < marks.after {
        "storm"
    } else {
        "after"
    }
}

/// The picture.
pub fn svg(run: &Run, plan: &Plan, overload: f64) -> String {
    let end = run.marks.end;
    let title = format!(
        "A storm of {} threads, {overload:.0} times what the writer takes",
        plan.threads
    );
    let description = "Three panels over one axis of seconds: the sampling pressure of each \
                       category, the fill of the fullest ring, and quantiles of the time that a \
                       push took.";
    let mut svg = Svg::new(HEIGHT, &title, description);
    let [pressure, fill, calls] = panels(run);
    storm(&mut svg, run);
    for panel in [&pressure, &fill, &calls] {
        svg.panel(panel);
    }
    seconds(&mut svg, &calls, end);
    for (index, category) in CATEGORIES.iter().enumerate() {
        // The one with the fewest records is drawn last, above the others.
        let points = run.samples.iter().map(|sample| {
            let k = f64::from(sample.pressure[index]);
            (x(sample.at, end), pressure.y(k))
        });
        let steps = with_corners(points);
        svg.line(COLOURS[index], &steps);
        let always = if *category == "stress" {
            ": never sampled"
        } else {
            ""
        };
        svg.legend(
            &pressure,
            index,
            COLOURS[index],
            &format!("{category}{always}"),
        );
    }
    let points = run
        .samples
        .iter()
        .map(|s| (x(s.at, end), fill.y(s.fill * 100.0)));
    svg.line(COLOURS[1], &points.collect::<Vec<_>>());
    for (index, (quantile, name)) in QUANTILES.iter().enumerate() {
        let points = windows(run, *quantile).into_iter();
        let points = points.map(|(at, nanos)| (x(at, end), calls.y(nanos.log10())));
        svg.line(COLOURS[index], &points.collect::<Vec<_>>());
        svg.legend(&calls, index, COLOURS[index], name);
    }
    svg.finish()
}

fn panels(run: &Run) -> [Panel; 3] {
    let most = run.samples.iter().flat_map(|sample| sample.pressure).max();
    let high = f64::from(most.unwrap_or(0).max(4));
    let steps = (0..=most.unwrap_or(0).max(4)).filter(|k| k % 2 == 0);
    let slowest = windows(run, 0.999).iter().map(|w| w.1).fold(1e3, f64::max);
    let decades = slowest.log10().ceil() as i32;
    let nanos = |decade: i32| crate::cli::human::nanos(10_u64.pow(decade.unsigned_abs()));
    let short = |text: String| text.replace(".0 ", " ").replace(".00 ", " ");
    [
        Panel {
            top: 70.0,
            bottom: 210.0,
            title: "pressure k: 1 in 2^k records is kept",
            low: 0.0,
            high,
            marks: steps.map(|k| (f64::from(k), k.to_string())).collect(),
        },
        Panel {
            top: 250.0,
            bottom: 360.0,
            title: "fill of the fullest ring, %",
            low: 0.0,
            high: 100.0,
            marks: [0, 25, 50, 75, 100]
                .map(|percent| (f64::from(percent), percent.to_string()))
                .to_vec(),
        },
        Panel {
            top: 400.0,
            bottom: 590.0,
            title: "time of a push (clock included), windows of 20 ms",
            low: 1.0,
            high: f64::from(decades),
            marks: (1..=decades)
                .map(|decade| (f64::from(decade), short(nanos(decade))))
                .collect(),
        },
    ]
}

/// The time of the storm behind all panels.
fn storm(svg: &mut Svg, run: &Run) {
    let (from, to) = (
        x(run.marks.storm, run.marks.end),
        x(run.marks.after, run.marks.end),
    );
    svg.element(format_args!(
        "<rect x=\"{from:.1}\" y=\"40\" width=\"{:.1}\" height=\"550\" fill=\"{GREY}\" \
         fill-opacity=\"0.12\"/>",
        to - from
    ));
    svg.text(f64::midpoint(from, to), 54.0, "middle", "storm");
}

fn seconds(svg: &mut Svg, panel: &Panel, end: Duration) {
    for second in 0..=end.as_secs() {
        let at = x(Duration::from_secs(second), end);
        svg.text(at, panel.bottom + 18.0, "middle", &second.to_string());
    }
    svg.text(
        f64::midpoint(LEFT, RIGHT),
        panel.bottom + 38.0,
        "middle",
        "time since the start, s",
    );
}

/// A line that keeps a value until the next one is known.
fn with_corners(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for (x, y) in points {
        if let Some(&(_, before)) = steps.last()
            && (before - y).abs() > 1e-9
        {
            steps.push((x, before));
        }
        steps.push((x, y));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::storm::run::tests::small_run;
    use crate::cli::svg::tests::parse;

    #[test]
    fn the_picture_is_well_formed() {
        let (run, plan) = small_run();
        let names = parse(&svg(&run, &plan, 12.0));
        let count = |name: &str| names.iter().filter(|found| *found == name).count();
        assert_eq!(
            (names[0].as_str(), count("title"), count("desc")),
            ("svg", 1, 1)
        );
        assert!(count("path") > 10 && count("text") > 10);
    }

    #[test]
    fn the_table_has_as_many_columns_as_its_head() {
        let (run, _) = small_run();
        let text = csv(&run);
        let columns: Vec<_> = text.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [11; 4]);
        assert!(
            text.lines()
                .nth(2)
                .unwrap()
                .starts_with("0.0300,storm,5,2,0,0,0.5000,")
        );
    }

    #[test]
    fn a_value_stays_until_the_next_one() {
        let steps = with_corners([(0.0, 1.0), (1.0, 2.0)].into_iter());
        assert_eq!(steps, [(0.0, 1.0), (1.0, 1.0), (1.0, 2.0)]);
    }
}
