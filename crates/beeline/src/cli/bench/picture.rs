//! The results as one picture, for a README.

use maud::{Markup, PreEscaped, html};

use super::charts::{self, Chart, LEGEND};
use super::plot::{self, HEIGHT, WIDTH};
use super::report::Report;

const STYLE: &str = include_str!("plot.css");

/// Room for a line of text.
const LINE: f64 = 26.0;
const MARGIN: f64 = 12.0;
/// From one entry of the legend to the next.
const ENTRY: f64 = 150.0;

/// An SVG file of the charts over sizes where the first cell was measured; `None` without any.
pub(super) fn picture(report: &Report) -> Option<String> {
    let charts = charts::over_sizes_of_the_first(report);
    if charts.is_empty() {
        return None;
    }
    let step = HEIGHT + LINE;
    let height = step * charts.len() as f64 + 2.0 * LINE + MARGIN;
    let host = format!("Linux {}, {}, {}", report.kernel, report.cpu, report.time);
    let markup = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}")) width=(WIDTH) height=(height)
            font-family="system-ui, sans-serif" {
            style { (PreEscaped(STYLE)) }
            rect.back width="100%" height="100%" {}
            (legend())
            @for (at, chart) in charts.iter().enumerate() { (placed(chart, LINE + step * at as f64)) }
            text.label x=(MARGIN) y=(height - MARGIN) { (host) }
        }
    };
    Some(markup.into_string())
}

fn legend() -> Markup {
    html! {
        @for (at, (class, name)) in LEGEND.into_iter().enumerate() {
            g transform=(format!("translate({} {})", MARGIN + ENTRY * at as f64, MARGIN)) {
                (plot::line_of(class))
                text.label x="38" y="11" { (name) }
            }
        }
    }
}

fn placed(chart: &Chart, top: f64) -> Markup {
    html! {
        text.label x=(MARGIN) y=(top + LINE - MARGIN / 2.0) { (chart.title) }
        g transform=(format!("translate(0 {})", top + LINE)) { (chart.drawing()) }
    }
}
