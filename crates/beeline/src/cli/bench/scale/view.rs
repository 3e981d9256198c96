//! Many connections, for people: a table on the terminal, plots and a table on the page.

use comfy_table::{CellAlignment, LineStyle, Table, presets};
use maud::{Markup, html};

use super::ScaleReport;
use crate::cli::bench::metric::{Metric, Ratio};
use crate::cli::bench::plot::{self, Line};
use crate::cli::bench::table::{ratio, value};
use crate::cli::output;

const HEADER: [&str; 12] = [
    "Conns",
    "Kernel",
    "Beeline",
    "Set-up",
    "CPU",
    "Round trip",
    "Memory",
    "Maps",
    "Agent",
    "Idle",
    "status",
    "conns",
];

/// What each plot shows over the number of connections.
const PLOTS: [Metric; 7] = [
    Metric::ConnectsPerSecond,
    Metric::ConnectCpuUs,
    Metric::P50Us,
    Metric::ConnectionBytes,
    Metric::AgentBytes,
    Metric::StatusMs,
    Metric::ConnsMs,
];

/// For the terminal, with what the columns mean.
pub(in crate::cli::bench) fn table(reports: &[ScaleReport]) -> String {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_header(HEADER);
    for report in reports {
        table.add_row(row(report));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec!["many connections held open:".to_owned(), table.to_string()];
    lines.extend(legend().map(Into::into));
    lines.extend(reports.iter().filter_map(failure));
    lines.join("\n")
}

fn legend() -> [&'static str; 3] {
    [
        "Kernel, Beeline: connections set up per second. Set-up, CPU, Round trip: Beeline to the kernel path, of that rate, \
         of processor time for a connection, of p50 beside all others.",
        "Memory: of the kernel, for a connection beyond plain TCP. Maps: what the kernel charges for those of the datapath.",
        "Agent: its resident memory. Idle: its share of a core. status, conns: until these commands end.",
    ]
}

fn failure(report: &ScaleReport) -> Option<String> {
    let error = report.error.as_ref()?;
    Some(format!(
        "{} connections: failed: {error}",
        report.connections
    ))
}

fn row(report: &ScaleReport) -> [String; HEADER.len()] {
    let told = |metric| ratio(report.ratios.get(&metric).copied());
    let beeline = |metric| value(&report.beeline, metric);
    let failed = report.error.is_some();
    [
        report.connections.to_string(),
        if failed {
            "failed".into()
        } else {
            value(&report.kernel, Metric::ConnectsPerSecond)
        },
        beeline(Metric::ConnectsPerSecond),
        told(Metric::ConnectsPerSecond),
        told(Metric::ConnectCpuUs),
        told(Metric::P50Us),
        extra(report.extra_bytes),
        output::bytes(report.map_bytes),
        beeline(Metric::AgentBytes),
        beeline(Metric::AgentCpuPercent),
        beeline(Metric::StatusMs),
        beeline(Metric::ConnsMs),
    ]
}

/// Bytes with their quartiles, which may be below zero.
fn extra(bytes: Option<Ratio>) -> String {
    match bytes {
        None => "-".into(),
        Some(Ratio {
            median: Some(median),
            ..
        }) => format!("{median:.0} B"),
        Some(_) => "too wide".into(),
    }
}

/// For the page.
pub(in crate::cli::bench) fn rows(reports: &[ScaleReport]) -> Markup {
    html! {
        div.scroll {
            table {
                thead { tr { @for column in HEADER { th scope="col" { (column) } } } }
                tbody {
                    @for report in reports {
                        tr { @for cell in row(report) { td.number { (cell) } } }
                    }
                }
            }
        }
        ul {
            @for line in legend() { li { (line) } }
            @for line in reports.iter().filter_map(failure) { li { (line) } }
        }
    }
}

/// Plots over the number of connections, for the page.
pub(in crate::cli::bench) fn charts(reports: &[ScaleReport]) -> Markup {
    let told: Vec<_> = reports.iter().filter(|one| one.error.is_none()).collect();
    let labels: Vec<_> = told.iter().map(|one| one.connections.to_string()).collect();
    let lines = |metric| {
        let kernel = told.iter().map(|one| one.kernel.get(&metric).copied());
        let beeline = told.iter().map(|one| one.beeline.get(&metric).copied());
        [
            Line {
                class: "kernel",
                values: kernel.collect(),
            },
            Line {
                class: "beeline",
                values: beeline.collect(),
            },
        ]
    };
    html! {
        @for metric in PLOTS {
            figure {
                figcaption { "many connections: " (metric.title()) }
                (plot::chart("many connections", metric, &labels, &lines(metric)))
            }
        }
    }
}
