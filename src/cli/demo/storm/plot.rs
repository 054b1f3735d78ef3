//! The storm as a picture (SVG) and as a table (CSV): pressure, fill and time of calls.
//!
//! The picture has no background and middle grey texts, so that it can be read on a light and on
//! a dark page.

use std::fmt::Write;
use std::time::Duration;

use super::latency::WINDOW;
use super::run::{Plan, Run};
use super::sampler::Sample;
use super::traffic::CATEGORIES;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 640.0;
/// Left and right end of all panels.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 940.0;
/// Colours of lines: told apart by people who see fewer colours too, on light and on dark.
const COLOURS: [&str; 4] = ["#d97706", "#3b82f6", "#16a37a", "#c026d3"];
const GREY: &str = "#808890";
/// Quantiles of calls that are drawn.
const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")];

/// The part of the picture for one quantity.
struct Panel {
    top: f64,
    bottom: f64,
    title: &'static str,
    /// Values at the bottom and at the top.
    low: f64,
    high: f64,
    /// Values with a line and a text.
    marks: Vec<(f64, String)>,
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        self.bottom - part.clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}

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
    let mut svg = Svg::new(&title);
    let [pressure, fill, calls] = panels(run);
    svg.storm(run, &title);
    for panel in [&pressure, &fill, &calls] {
        svg.panel(panel);
    }
    svg.seconds(&calls, end);
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

/// Drops points in the middle of three on one level: they change nothing.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let same = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let mut thin: Vec<(f64, f64)> = Vec::new();
    for &(x, y) in points {
        if let [.., (_, a), (_, b)] = thin[..]
            && same(a, y)
            && same(b, y)
        {
            thin.pop();
        }
        thin.push((x, y));
    }
    thin
}

/// Writes elements one by one.
struct Svg(String);

impl Svg {
    fn new(title: &str) -> Self {
        let title = escaped(title);
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-labelledby=\"title desc\" font-family=\"sans-serif\" \
             font-size=\"13\" fill=\"{GREY}\">\n\
             <title id=\"title\">{title}</title>\n\
             <desc id=\"desc\">Three panels over one axis of seconds: the sampling pressure of \
             each category, the fill of the fullest ring, and quantiles of the time that a push \
             took.</desc>\n"
        ))
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        let _infallible = writeln!(self.0, "{element}");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escaped(text);
        self.element(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// The heading, and the time of the storm behind all panels.
    fn storm(&mut self, run: &Run, title: &str) {
        let title = escaped(title);
        self.element(format_args!(
            "<text x=\"{LEFT}\" y=\"24\" font-size=\"17\">{title}</text>"
        ));
        let (from, to) = (
            x(run.marks.storm, run.marks.end),
            x(run.marks.after, run.marks.end),
        );
        self.element(format_args!(
            "<rect x=\"{from:.1}\" y=\"40\" width=\"{:.1}\" height=\"550\" fill=\"{GREY}\" \
             fill-opacity=\"0.12\"/>",
            to - from
        ));
        self.text(f64::midpoint(from, to), 54.0, "middle", "storm");
    }

    fn panel(&mut self, panel: &Panel) {
        self.text(LEFT, panel.top - 8.0, "start", panel.title);
        for (value, text) in &panel.marks {
            let y = panel.y(*value);
            self.element(format_args!(
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{GREY}\" stroke-opacity=\"0.35\"/>"
            ));
            self.text(LEFT - 6.0, y + 4.0, "end", text);
        }
    }

    fn seconds(&mut self, panel: &Panel, end: Duration) {
        for second in 0..=end.as_secs() {
            let at = x(Duration::from_secs(second), end);
            self.text(at, panel.bottom + 18.0, "middle", &second.to_string());
        }
        self.text(
            f64::midpoint(LEFT, RIGHT),
            panel.bottom + 38.0,
            "middle",
            "time since the start, s",
        );
    }

    fn line(&mut self, colour: &str, points: &[(f64, f64)]) {
        let mut path = String::new();
        for (index, (x, y)) in thinned(points).iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            let _infallible = write!(path, "{letter}{x:.1} {y:.1}");
        }
        self.element(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" \
             stroke-linejoin=\"round\"/>"
        ));
    }

    fn legend(&mut self, panel: &Panel, index: usize, colour: &str, text: &str) {
        let left = LEFT + 400.0 + 110.0 * index as f64;
        let y = panel.top - 12.0;
        self.element(format_args!(
            "<path d=\"M{left} {y}h18\" stroke=\"{colour}\" stroke-width=\"3\"/>"
        ));
        self.text(left + 24.0, y + 4.0, "start", text);
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// `text` as the content of an element.
fn escaped(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    escaped.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::storm::run::tests::small_run;

    /// Checks that elements nest, that attributes are quoted and texts escaped: what an XML
    /// parser wants of such a document. Returns the names of all elements.
    fn parse(xml: &str) -> Vec<String> {
        let (mut open, mut names): (Vec<String>, _) = (Vec::new(), Vec::new());
        let mut rest = xml.trim_end();
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            assert!(!text.contains('>'), "{text}");
            for entity in text.split('&').skip(1) {
                let known = ["amp;", "lt;", "gt;"];
                assert!(known.iter().any(|name| entity.starts_with(name)), "{text}");
            }
            let (tag, after) = rest[at + 1..].split_once('>').expect("a tag that ends");
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split([' ', '/']).next().unwrap().to_owned();
            let mut attributes = tag.trim_end_matches('/')[name.len()..].split('"');
            while let Some(key) = attributes
                .next()
                .map(str::trim)
                .filter(|key| !key.is_empty())
            {
                assert!(key.ends_with('='), "{tag}");
                let value = attributes.next().expect("a value");
                assert!(!value.contains("NaN") && !value.contains("inf"), "{tag}");
            }
            names.push(name.clone());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?} are open");
        names
    }

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
    fn texts_are_escaped() {
        parse(&Svg::new("a < b & c > d").finish());
        assert_eq!(escaped("<&>"), "&lt;&amp;&gt;");
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
    fn points_that_change_nothing_are_left_out() {
        let points = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 2.0)];
        assert_eq!(thinned(&points), [(0.0, 1.0), (2.0, 1.0), (3.0, 2.0)]);
        let steps = with_corners([(0.0, 1.0), (1.0, 2.0)].into_iter());
        assert_eq!(steps, [(0.0, 1.0), (1.0, 1.0), (1.0, 2.0)]);
    }
}
