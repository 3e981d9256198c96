//! Plots as inline SVG. Colours come from the page's style sheet, so they follow its scheme.

use maud::{Markup, html};

use super::metric::Metric;
use super::report::CellReport;
use super::table;
use crate::cli::output::digits;

/// Size of a chart, in the units of its view box, and the room for its axes.
pub(super) const WIDTH: f64 = 640.0;
pub(super) const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Of the overview: a line of it, and where its scale begins.
const ROW: f64 = 20.0;
const LABELS: f64 = 270.0;

/// A line of a chart: the class of its colour and shape, and a value at each position, if any.
pub(super) struct Line {
    pub(super) class: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// Logarithmic, from a length to a length.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        let part = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Values for labels: 1, 2 and 5 of each decade, or the powers of ten of a long scale.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high / self.low > 500.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|decade| steps.iter().map(move |s| s * 10_f64.powi(decade)));
        all.filter(|tick| (self.low..=self.high).contains(tick))
            .collect()
    }
}

/// Values over sizes, connections or services.
pub(super) fn chart(title: &str, metric: Metric, labels: &[String], lines: &[Line]) -> Markup {
    let text = format!(
        "{title}: {}; the numbers are in the table below",
        metric.title()
    );
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(text) {
            (drawing(metric, labels, lines))
        }
    }
}

/// What is in a chart.
pub(super) fn drawing(metric: Metric, labels: &[String], lines: &[Line]) -> Markup {
    let values = || {
        let all = lines.iter().flat_map(|line| line.values.iter().flatten());
        all.copied().filter(|value| *value > 0.0)
    };
    let low = values().fold(f64::INFINITY, f64::min);
    let high = values().fold(0.0, f64::max);
    let y = Scale {
        low: low / 1.3,
        high: high * 1.3,
        from: HEIGHT - BOTTOM,
        to: TOP,
    };
    let step = (WIDTH - LEFT - RIGHT) / labels.len() as f64;
    let x = |n: usize| LEFT + step * (n as f64 + 0.5);
    html! {
        @for tick in y.ticks() {
            line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(n(y.at(tick))) y2=(n(y.at(tick))) {}
            text.label x=(LEFT - 6.0) y=(n(y.at(tick) + 4.0)) text-anchor="end" { (short(tick)) }
        }
        @for (position, label) in labels.iter().enumerate() {
            text.label x=(n(x(position))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (label) }
        }
        text.label x=(LEFT - 56.0) y=(HEIGHT - 6.0) { (metric.title()) }
        @for line in lines { (drawn(line, metric, &x, &y)) }
    }
}

fn drawn(line: &Line, metric: Metric, x: &impl Fn(usize) -> f64, y: &Scale) -> Markup {
    let values = || {
        let all = line.values.iter().enumerate();
        all.filter_map(|(at, value)| value.filter(|v| *v > 0.0).map(|v| (x(at), y.at(v), v)))
    };
    let points: Vec<_> = values().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
    html! {
        g class=(line.class) {
            polyline points=(points.join(" ")) {}
            @for (x, y, value) in values() {
                (mark(line.class, x, y, &format!("{}: {} {}", line.class, digits(value), metric.unit())))
            }
        }
    }
}

/// A shape of its own for each class, for those who cannot tell the colours.
fn mark(class: &str, x: f64, y: f64, text: &str) -> Markup {
    let path = match class {
        "kernel" => format!("M{:.1} {:.1}h8v8h-8z", x - 4.0, y - 4.0),
        "unix" => format!("M{:.1} {:.1}l5 9h-10z", x, y - 5.0),
        _ => format!(
            "M{:.1} {y:.1}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
            x - 4.5
        ),
    };
    html! { path.mark d=(path) { title { (text) } } }
}

/// The legend's picture of a class.
pub(super) fn key(class: &'static str) -> Markup {
    html! {
        svg.key viewBox="0 0 30 14" width="30" height="14" aria-hidden="true" { (line_of(class)) }
    }
}

/// A piece of a line of a class, 30 units wide and 14 high.
pub(super) fn line_of(class: &'static str) -> Markup {
    html! {
        g class=(class) {
            polyline points="0,7 30,7" {}
            (mark(class, 15.0, 7.0, class))
        }
    }
}

/// The least and the most times better that an overview of these cells has to show. All overviews
/// of a page have the same, so that they can be compared.
pub(super) fn range(cells: &[CellReport]) -> (f64, f64) {
    let gains = cells.iter().filter_map(gains).flatten();
    gains.fold((0.9, 1.5), |(low, high): (f64, f64), gain| {
        (low.min(gain / 1.1), high.max(gain * 1.1))
    })
}

/// How many times better each cell is, with its quartiles.
pub(super) fn overview(cells: &[CellReport], (low, high): (f64, f64)) -> Markup {
    let height = ROW * cells.len() as f64 + BOTTOM;
    let scale = Scale {
        low,
        high,
        from: LABELS,
        to: WIDTH - RIGHT,
    };
    let one = n(scale.at(1.0));
    let bottom = height - BOTTOM + 6.0;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img"
            aria-label="How many times better than the kernel path; the numbers are in the table below" {
            @for tick in scale.ticks() {
                line.grid x1=(n(scale.at(tick))) x2=(n(scale.at(tick))) y1="0" y2=(bottom) {}
                text.label x=(n(scale.at(tick))) y=(bottom + 16.0) text-anchor="middle" { (short(tick)) "x" }
            }
            line.one x1=(one) x2=(one) y1="0" y2=(bottom) {}
            text.label x=(LABELS) y=(height - 4.0) { "times better than the kernel path" }
            @for (row, cell) in cells.iter().enumerate() { (gain_row(cell, ROW * (row as f64 + 0.5), &scale)) }
        }
    }
}

fn gain_row(report: &CellReport, y: f64, scale: &Scale) -> Markup {
    let title = format!("{}: {}", report.cell.title(), table::ratio(report.ratio()));
    let label = format!(
        "{} {}, {} conn.",
        report.cell.load_name(),
        crate::cli::output::size(report.cell.size),
        report.cell.connections
    );
    let class = if report.gain().is_some() {
        "beeline"
    } else {
        "wide"
    };
    html! {
        g class=(class) {
            title { (title) }
            text.label x="4" y=(y + 4.0) { (label) }
            @match gains(report) {
                None => text.label x=(LABELS) y=(y + 4.0) { "failed" },
                Some([low, high]) => {
                    line x1=(n(scale.at(low))) x2=(n(scale.at(high))) y1=(y) y2=(y) {}
                    @if let Some(gain) = report.gain() { (mark(class, scale.at(gain), y, &title)) }
                },
            }
        }
    }
}

/// The quartiles, as times better, the worse one first.
fn gains(report: &CellReport) -> Option<[f64; 2]> {
    let [low, high] = report.ratio()?.spread;
    let gains = if report.metric.is_cost() {
        [1.0 / high, 1.0 / low]
    } else {
        [low, high]
    };
    gains.iter().all(|gain| gain.is_finite()).then_some(gains)
}

/// A length with one decimal.
fn n(length: f64) -> String {
    format!("{length:.1}")
}

/// A tick's label.
fn short(value: f64) -> String {
    match value {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_is_logarithmic_and_bounded() {
        let scale = Scale {
            low: 1.0,
            high: 100.0,
            from: 0.0,
            to: 200.0,
        };
        assert_eq!(
            [1.0, 10.0, 100.0, 1e9].map(|v| scale.at(v)),
            [0.0, 100.0, 200.0, 200.0]
        );
        assert_eq!(scale.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!([0.5, 1.0, 2000.0, 5e6].map(short), ["0.5", "1", "2k", "5M"]);
        assert_eq!(short(0.1 + 0.2), "0.3");
    }
}
