//! Pictures as SVG: panels with one axis each, lines and legends.
//!
//! A picture has no background and middle grey texts, so that it can be read on a light and on a
//! dark page.

use std::fmt::{Arguments, Write};

const WIDTH: f64 = 960.0;
/// Left and right end of all panels.
pub const LEFT: f64 = 70.0;
pub const RIGHT: f64 = 940.0;
/// Colours of lines: told apart by people who see fewer colours too, on light and on dark.
pub const COLOURS: [&str; 4] = ["#d97706", "#3b82f6", "#16a37a", "#c026d3"];
pub const GREY: &str = "#808890";

/// The part of the picture for one quantity.
pub struct Panel {
    pub top: f64,
    pub bottom: f64,
    pub title: &'static str,
    /// Values at the bottom and at the top.
    pub low: f64,
    pub high: f64,
    /// Values with a line and a text.
    pub marks: Vec<(f64, String)>,
}

impl Panel {
    /// Where a value stands; beyond the ends, at the end.
    pub fn y(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        self.bottom - part.clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}

/// Writes elements one by one.
pub struct Svg(String);

impl Svg {
    /// A picture with a heading. The description is for who cannot see it.
    pub fn new(height: f64, title: &str, description: &str) -> Self {
        let (title, description) = (escaped(title), escaped(description));
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\" aria-labelledby=\"title desc\" font-family=\"sans-serif\" \
             font-size=\"13\" fill=\"{GREY}\">\n\
             <title id=\"title\">{title}</title>\n\
             <desc id=\"desc\">{description}</desc>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"17\">{title}</text>\n"
        ))
    }

    pub fn element(&mut self, element: Arguments<'_>) {
        let _infallible = writeln!(self.0, "{element}");
    }

    pub fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = escaped(text);
        self.element(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    pub fn panel(&mut self, panel: &Panel) {
        self.text(LEFT, panel.top - 8.0, "start", panel.title);
        for (value, text) in &panel.marks {
            let y = panel.y(*value);
            self.element(format_args!(
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{GREY}\" stroke-opacity=\"0.35\"/>"
            ));
            self.text(LEFT - 6.0, y + 4.0, "end", text);
        }
    }

    pub fn line(&mut self, colour: &str, points: &[(f64, f64)]) {
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

    pub fn legend(&mut self, panel: &Panel, index: usize, colour: &str, text: &str) {
        let left = LEFT + 400.0 + 110.0 * index as f64;
        let y = panel.top - 12.0;
        self.element(format_args!(
            "<path d=\"M{left} {y}h18\" stroke=\"{colour}\" stroke-width=\"3\"/>"
        ));
        self.text(left + 24.0, y + 4.0, "start", text);
    }

    pub fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
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

/// `text` as the content of an element.
fn escaped(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    escaped.replace('>', "&gt;")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Checks that elements nest, that attributes are quoted and texts escaped: what an XML
    /// parser wants of such a document. Returns the names of all elements.
    pub fn parse(xml: &str) -> Vec<String> {
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
    fn texts_are_escaped() {
        parse(&Svg::new(10.0, "a < b & c > d", "e & f").finish());
        assert_eq!(escaped("<&>"), "&lt;&amp;&gt;");
    }

    #[test]
    fn points_that_change_nothing_are_left_out() {
        let points = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 2.0)];
        assert_eq!(thinned(&points), [(0.0, 1.0), (2.0, 1.0), (3.0, 2.0)]);
    }
}
