//! The results as one page that needs nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::cells::{Cell, Placement};
use super::charts;
use super::metric::Metric;
use super::plot;
use super::report::{CellReport, Report};
use super::scale;
use super::table::{head, observing, ratio, remark, value};
use crate::cli::output::{self, percent};

const STYLE: &str = concat!(include_str!("plot.css"), include_str!("page.css"));

/// The page; `json` is put into it, so that the raw samples travel along.
pub(super) fn page(report: &Report, json: &str) -> String {
    // "</" would end the element; JSON knows the same string with an escape.
    let data = json.replace("</", "<\\/");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Beeline bench" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { "Beeline bench" }
                    @for line in head(report).lines() { p { (line) } }
                    p {
                        "Ratios are taken round by round: each round measures the kernel path, then Beeline. Shown are "
                        "the median and, as the bar or in parentheses, the quartiles. A cell whose quartiles are too far "
                        "apart has no median."
                    }
                    (overviews(report))
                    (charts(report))
                    @if !report.cells.is_empty() { (cells(report)) }
                    @if !report.scale.is_empty() { (many(report)) }
                    (remarks(report))
                    (environment(report))
                }
                script type="application/json" id="results" { (PreEscaped(data)) }
            }
        }
    }
    .into_string()
}

fn overviews(report: &Report) -> Markup {
    let groups = report.cells.chunk_by(|a, b| a.cell.shares_bed(&b.cell));
    let range = plot::range(&report.cells);
    html! {
        @if !report.cells.is_empty() { h2 { "Gain" } }
        @for group in groups {
            figure {
                figcaption { (bed(&group[0].cell)) }
                (plot::overview(group, range))
            }
        }
    }
}

/// "bridge, 100 services, same core"
fn bed(cell: &Cell) -> String {
    let cores = match cell.placement {
        Placement::Same => "same core",
        Placement::Separate => "separate cores",
    };
    format!(
        "{}, {} services, {cores}",
        cell.topology.name(),
        cell.services
    )
}

fn charts(report: &Report) -> Markup {
    let charts = charts::all(report);
    html! {
        @if !charts.is_empty() {
            h2 { "Values" }
            (legend(&charts::LEGEND))
        }
        @for chart in charts { figure { figcaption { (chart.title) } (chart.markup()) } }
    }
}

fn legend(lines: &[(&'static str, &str)]) -> Markup {
    html! {
        p.legend { @for (class, name) in lines { span { (plot::key(class)) " " (name) } " " } }
    }
}

fn cells(report: &Report) -> Markup {
    let columns = [
        "Topology",
        "Services",
        "Load",
        "Size",
        "Conns",
        "Cores",
        "Kernel path",
        "Beeline",
        "Unix",
        "Ratio",
        "p99 ratio",
        "CPU, kernel",
        "CPU, Beeline",
        "CPU ratio",
        "Redirected",
    ];
    html! {
        h2 { "All cells" }
        div.scroll {
            table {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { @for cell in &report.cells { (row(cell)) } }
            }
        }
        @if report.cells.iter().any(|cell| observing(cell).is_some()) {
            h2 { "What observing costs" }
            ul { @for line in report.cells.iter().filter_map(observing) { li { (line) } } }
        }
    }
}

fn many(report: &Report) -> Markup {
    html! {
        h2 { "Many connections" }
        (legend(&[("kernel", "kernel path"), ("beeline", "Beeline")]))
        (scale::charts(&report.scale))
        (scale::rows(&report.scale))
    }
}

fn remarks(report: &Report) -> Markup {
    html! {
        h2 { "Remarks" }
        ul {
            @for line in report.cells.iter().filter_map(remark) { li { (line) } }
            @for line in &report.left_out { li { "left out: " (line) } }
        }
    }
}

fn row(report: &CellReport) -> Markup {
    let cell = &report.cell;
    let cpu = Metric::cpu_of(cell);
    let told = |metric| ratio(report.ratios.get(&metric).copied());
    html! {
        tr {
            td { (cell.topology.name()) }
            td.number { (cell.services) }
            td { (cell.load_name()) }
            td.number { (output::size(cell.size)) }
            td.number { (cell.connections) }
            td { (cell.placement.name()) }
            td.number { (value(&report.kernel, report.metric)) }
            td.number { (value(&report.beeline, report.metric)) }
            td.number { (value(&report.unix, report.metric)) }
            td.number { @if report.error.is_some() { "failed" } @else { (told(report.metric)) } }
            td.number { (told(Metric::P99Us)) }
            td.number { (value(&report.kernel, cpu)) }
            td.number { (value(&report.beeline, cpu)) }
            td.number { (told(cpu)) }
            td.number { @if let Some(share) = report.redirected_share { (percent(share)) } @else { "-" } }
        }
    }
}

fn environment(report: &Report) -> Markup {
    let cores: Vec<_> = report.cores.iter().map(usize::to_string).collect();
    html! {
        h2 { "Host and settings" }
        dl {
            dt { "Measured" } dd { (report.time) }
            dt { "Beeline" } dd { (report.version) }
            dt { "Kernel" } dd { (report.kernel) }
            dt { "Processor" } dd { (report.cpu) ", " (report.online) " cores online; used: " (cores.join(", ")) }
            dt { "Memory" } dd { (output::bytes(report.memory_bytes)) }
            dt { "Rounds" } dd { (report.rounds) " of " (report.duration_ms) " ms" }
            @for (name, version) in &report.tools { dt { (name) } dd { (version) } }
            @for (name, value) in &report.sysctls { dt { (name) } dd { (value) } }
        }
        p { "Every turn's numbers are in this page's source, as JSON in the element with the id “results”." }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_fetches_nothing_and_knows_both_schemes() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        assert!(STYLE.contains("prefers-color-scheme: dark"));
    }
}
