//! Latency against rate, as a picture (SVG): one line for each percentile of each thing measured, both axes logarithmic.

use std::fmt::Write as _;

use crate::sample::Sample;

/// The picture, and the part of it that the lines are drawn in.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 430.0;
const COLOURS: [&str; 8] = [
    "#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#3d3d3d", "#17a2b8", "#a0522d",
];

/// A percentile by its name.
type Percentile = (&'static str, fn(&Sample) -> u64);
const PERCENTILES: [Percentile; 2] = [("p50", |sample| sample.p50_us), ("p99", |sample| sample.p99_us)];

/// Draws every sample that has calls. The rate is that of the calls that succeeded.
#[must_use]
pub fn svg(samples: &[Sample]) -> String {
    let drawn: Vec<&Sample> = samples
        .iter()
        .filter(|it| it.calls > 0 && it.per_second > 0.0)
        .collect();
    let across = Axis::over(drawn.iter().map(|it| it.per_second), LEFT, RIGHT);
    let up = Axis::over(
        drawn.iter().flat_map(|it| PERCENTILES.map(|(_, of)| of(it) as f64)),
        BOTTOM,
        TOP,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (value, at) in across.lines() {
        let _written = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{BOTTOM}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
            BOTTOM + 16.0
        );
    }
    for (value, at) in up.lines() {
        let _written = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let _written = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">calls per second</text>\
         <text x=\"16\" y=\"{}\" transform=\"rotate(-90 16 {})\" text-anchor=\"middle\">latency, µs</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 36.0,
        (TOP + BOTTOM) / 2.0,
        (TOP + BOTTOM) / 2.0
    );
    let mut names: Vec<&str> = Vec::new();
    for sample in &drawn {
        if !names.contains(&sample.what.as_str()) {
            names.push(&sample.what);
        }
    }
    let series = names
        .iter()
        .flat_map(|name| PERCENTILES.map(|percentile| (*name, percentile)));
    for (n, (name, (percentile, of))) in series.enumerate() {
        let colour = COLOURS[n / PERCENTILES.len() % COLOURS.len()];
        let dashes = if n % PERCENTILES.len() == 0 {
            ""
        } else {
            " stroke-dasharray=\"5 3\""
        };
        let mut points: Vec<(f64, f64)> = drawn
            .iter()
            .filter(|sample| sample.what == name)
            .map(|sample| (across.at(sample.per_second), up.at(of(sample) as f64)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _written = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dashes}/>",
            line.join(" ")
        );
        for (x, y) in points {
            let _written = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.4\" fill=\"{colour}\"/>");
        }
        let y = TOP + 8.0 + n as f64 * 18.0;
        let _written = writeln!(
            out,
            "<line x1=\"{}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"1.6\"{dashes}/>\
             <text x=\"{}\" y=\"{}\">{} {percentile}</text>",
            RIGHT + 14.0,
            RIGHT + 40.0,
            RIGHT + 46.0,
            y + 4.0,
            escaped(name)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A logarithmic axis between two places of the picture.
struct Axis {
    low: i32,
    high: i32,
    from: f64,
    to: f64,
}

impl Axis {
    /// One that holds all values, between whole powers of ten.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value.log10()), high.max(value.log10()));
        }
        let low = if low.is_finite() { low.floor() as i32 } else { 0 };
        let high = if high.is_finite() { high.ceil() as i32 } else { 1 };
        Self {
            low,
            high: high.max(low + 1),
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.max(f64::MIN_POSITIVE).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// The powers of ten, and where they are.
    fn lines(&self) -> Vec<(String, f64)> {
        (self.low..=self.high)
            .map(|power| 10_f64.powi(power))
            .map(|value| (format!("{value}"), self.at(value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_logarithmic_and_holds_its_values() {
        let axis = Axis::over([20.0, 5_000.0].into_iter(), 0.0, 300.0);
        assert_eq!((axis.low, axis.high), (1, 4));
        assert!((axis.at(100.0) - 100.0).abs() < 1e-9);
        assert!((axis.at(0.0) - 0.0).abs() < 1e-9);
        assert_eq!(axis.lines().len(), 4);
    }

    #[test]
    fn a_picture_of_nothing_is_a_picture() {
        let picture = svg(&[]);
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }

    #[test]
    fn names_cannot_break_the_picture() {
        assert_eq!(escaped("a<b>&c"), "a&lt;b&gt;&amp;c");
    }
}
