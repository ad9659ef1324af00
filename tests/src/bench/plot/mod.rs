//! Plots as SVG: curves over a number of rules or CIDRs, and bars. Each has a title, axes with units, and a caption.

mod scale;

use std::fmt::Write as _;

use self::scale::Scale;
use super::stats::Figure;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 80.0;
/// Told apart also by those who see red and green alike.
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000",
];

/// A picture.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// Name of the file, without its ending.
    pub(super) name: String,
    pub(super) title: String,
    pub(super) x: String,
    /// With the unit.
    pub(super) y: String,
    pub(super) kind: Kind,
    pub(super) series: Vec<Series>,
}

/// What the places on the x axis are.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Numbers; both axes logarithmic.
    Curves,
    /// Names, one for each point; bars from zero.
    Bars(Vec<String>),
}

/// One variant.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    pub(super) name: String,
    /// Place on the x axis (the index of the name, for bars), and what was measured there.
    pub(super) points: Vec<(f64, Figure)>,
}

impl Plot {
    /// The picture; `caption` says where and when.
    pub(super) fn svg(&self, caption: &str) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let highest = points().map(|(_, figure)| figure.median + figure.spread);
        let lowest = points().map(|(_, figure)| figure.median);
        let top = highest.fold(0.0, f64::max);
        let (x, y) = match &self.kind {
            Kind::Curves => (
                Scale::logarithmic(points().map(|(x, _)| *x), LEFT, WIDTH - RIGHT),
                Scale::logarithmic(lowest.chain([top]), HEIGHT - BOTTOM, TOP),
            ),
            Kind::Bars(names) => (
                Scale::linear(names.len() as f64, LEFT, WIDTH - RIGHT),
                Scale::linear(top * 1.05, HEIGHT - BOTTOM, TOP),
            ),
        };
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut out, WIDTH / 2.0, 24.0, "middle", 16, &self.title);
        text(
            &mut out,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 36.0,
            "middle",
            12,
            &self.x,
        );
        text(&mut out, LEFT, TOP - 10.0, "middle", 12, &self.y);
        text(&mut out, LEFT, HEIGHT - 10.0, "start", 10, caption);
        self.axes(&mut out, &x, &y);
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            match self.kind {
                Kind::Curves => curve(&mut out, series, colour, &x, &y),
                Kind::Bars(_) => self.bars(&mut out, i, colour, &x, &y),
            }
            let at = TOP + 10.0 + i as f64 * 20.0;
            let _ok = writeln!(
                out,
                "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
                WIDTH - RIGHT + 16.0,
                at - 10.0
            );
            text(&mut out, WIDTH - RIGHT + 34.0, at, "start", 12, &series.name);
        }
        out.push_str("</svg>\n");
        out
    }

    fn axes(&self, out: &mut String, x: &Scale, y: &Scale) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ok = writeln!(
                out,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"
            );
            text(out, LEFT - 6.0, at + 4.0, "end", 12, &scale::label(tick));
        }
        match &self.kind {
            Kind::Curves => {
                for tick in x.ticks() {
                    text(
                        out,
                        x.place(tick),
                        bottom + 18.0,
                        "middle",
                        12,
                        &scale::label(tick),
                    );
                }
            }
            Kind::Bars(names) => {
                for (i, name) in names.iter().enumerate() {
                    text(out, x.place(i as f64 + 0.5), bottom + 18.0, "middle", 11, name);
                }
            }
        }
        let _ok = writeln!(
            out,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>"
        );
    }

    fn bars(&self, out: &mut String, i: usize, colour: &str, x: &Scale, y: &Scale) {
        let width = 0.8 / self.series.len().max(1) as f64;
        let points = self.series.get(i).map_or(&[][..], |series| &series.points);
        for (place, figure) in points {
            let left = x.place(place + 0.1 + width * i as f64);
            let right = x.place(place + 0.1 + width * (i as f64 + 1.0));
            let (top, bottom) = (y.place(figure.median), y.place(0.0));
            let _ok = writeln!(
                out,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                right - left,
                bottom - top
            );
            spread(out, f64::midpoint(left, right), figure, y, "black");
        }
    }
}

fn curve(out: &mut String, series: &Series, colour: &str, x: &Scale, y: &Scale) {
    let places: Vec<String> = series
        .points
        .iter()
        .map(|(at, figure)| format!("{:.1},{:.1}", x.place(*at), y.place(figure.median)))
        .collect();
    let _ok = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        places.join(" ")
    );
    for (at, figure) in &series.points {
        let (cx, cy) = (x.place(*at), y.place(figure.median));
        let _ok = writeln!(
            out,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
        spread(out, cx, figure, y, colour);
    }
}

fn spread(out: &mut String, x: f64, figure: &Figure, y: &Scale, colour: &str) {
    let (high, low) = (
        y.place(figure.median + figure.spread),
        y.place((figure.median - figure.spread).max(0.0)),
    );
    let _ok = writeln!(
        out,
        "<line x1=\"{x:.1}\" y1=\"{high:.1}\" x2=\"{x:.1}\" y2=\"{low:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, size: u32, what: &str) {
    let escaped = what
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ok = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{escaped}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(kind: Kind) -> Plot {
        let figure = |median| Figure {
            median,
            spread: median / 10.0,
            runs: 3,
        };
        let series = |name: &str, factor| Series {
            name: name.to_owned(),
            points: vec![
                (0.0_f64.max(factor), figure(30.0)),
                (1.0 + factor, figure(3000.0)),
            ],
        };
        Plot {
            name: "test".into(),
            title: "Cost <of> rules".into(),
            x: "rules".into(),
            y: "ns".into(),
            kind,
            series: vec![series("ours", 1.0), series("a & b", 2.0)],
        }
    }

    /// The numbers that an attribute has, in order.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let key = format!(" {attribute}=\"");
        svg.match_indices(&key)
            .filter_map(|(at, key)| svg.get(at + key.len()..)?.split('"').next()?.parse::<f64>().ok())
            .collect()
    }

    #[test]
    fn pictures_say_what_they_show() {
        for kind in [
            Kind::Curves,
            Kind::Bars(["p", "q", "r", "s"].map(str::to_owned).into()),
        ] {
            let svg = plot(kind).svg("kernel 6, today");
            assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
            for text in [
                "Cost &lt;of&gt; rules",
                ">rules<",
                ">ns<",
                ">ours<",
                ">a &amp; b<",
                "kernel 6, today",
            ] {
                assert!(svg.contains(text), "{text} in {svg}");
            }
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn more_is_higher_and_everything_is_inside() {
        let svg = plot(Kind::Curves).svg("");
        let heights = numbers(&svg, "cy");
        assert_eq!(heights.len(), 4);
        assert!(heights[1] < heights[0], "{heights:?}");
        for y in heights {
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{y}");
        }
        for x in numbers(&svg, "cx") {
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x}");
        }
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let empty = Plot {
            series: Vec::new(),
            ..plot(Kind::Curves)
        };
        assert!(!empty.svg("").contains("NaN"));
    }
}
