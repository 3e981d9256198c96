//! What was measured, for people at a terminal.

use comfy_table::{CellAlignment, LineStyle, Table, presets};

use super::metric::{Metric, Ratio, Sample, WIDEST};
use super::report::{CellReport, Report};
use super::scale;
use crate::cli::output::{self, digits, percent};

const HEADER: [&str; 10] = [
    "Topology", "Svc", "Load", "Size", "Conns", "Kernel", "Beeline", "Unix", "Ratio", "CPU",
];
/// With fewer rounds the quartiles say nothing.
const ENOUGH: u16 = 4;
/// The columns from Size on are numbers.
const FIRST_NUMBER: usize = 3;

/// Where, what, and what it means.
pub(super) fn text(report: &Report) -> String {
    let mut lines = vec![head(report)];
    let placed = |a: &CellReport, b: &CellReport| a.cell.placement == b.cell.placement;
    if !report.scale.is_empty() {
        lines.push(scale::table(&report.scale));
    }
    for cells in report.cells.chunk_by(placed) {
        lines.push(format!(
            "{} core{}:",
            cells[0].cell.placement.name(),
            ending(cells)
        ));
        lines.push(table(cells));
    }
    if !report.cells.is_empty() {
        lines.extend(legend());
    }
    lines.extend(report.cells.iter().filter_map(observing));
    lines.extend(report.cells.iter().filter_map(remark));
    lines.extend(report.left_out.iter().map(|why| format!("left out: {why}")));
    lines.join("\n")
}

fn ending(cells: &[CellReport]) -> &'static str {
    match cells[0].cell.placement {
        super::cells::Placement::Same => "",
        super::cells::Placement::Separate => "s",
    }
}

fn table(cells: &[CellReport]) -> String {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_header(HEADER);
    for cell in cells {
        table.add_row(row(cell));
    }
    for column in table.column_iter_mut().skip(FIRST_NUMBER) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// What was measured on.
pub(super) fn head(report: &Report) -> String {
    let Report {
        version,
        kernel,
        cpu,
        online,
        rounds,
        duration_ms,
        ..
    } = report;
    let many = if *rounds == 1 { "" } else { "s" };
    let mut text = format!(
        "Beeline {version}, Linux {kernel}, {cpu}, {online} cores online\n\
         {rounds} round{many} of {duration_ms} ms: kernel path, Beeline, Unix socket in turns"
    );
    if *rounds < ENOUGH {
        text.push_str("\nToo few rounds to know the spread: these ratios may be chance.");
    }
    text
}

fn row(report: &CellReport) -> [String; HEADER.len()] {
    let cell = &report.cell;
    [
        cell.topology.name().into(),
        cell.services.to_string(),
        cell.load_name(),
        output::size(cell.size),
        cell.connections.to_string(),
        value(&report.kernel, report.metric),
        value(&report.beeline, report.metric),
        value(&report.unix, report.metric),
        match report.error {
            Some(_) => "failed".into(),
            None => ratio(report.ratio()),
        },
        short(report.ratios.get(&Metric::cpu_of(cell)).copied()),
    ]
}

/// A number with its unit; a dash where there is none.
pub(super) fn value(sample: &Sample, metric: Metric) -> String {
    match (sample.get(&metric), metric) {
        (None, _) => "-".into(),
        (Some(value), Metric::Gbps) if *value < 0.1 => format!("{} Mb/s", digits(value * 1e3)),
        (Some(value), Metric::AgentBytes) => output::bytes(*value as u64),
        (Some(value), Metric::PerSecond | Metric::ConnectsPerSecond) => {
            format!("{value:.0}{}", metric.unit())
        }
        (Some(value), _) => format!("{} {}", digits(*value), metric.unit()),
    }
}

/// A ratio with its spread, or that the spread is too wide.
pub(super) fn ratio(ratio: Option<Ratio>) -> String {
    match ratio {
        None => "-".into(),
        Some(Ratio {
            median: Some(median),
            spread: [low, high],
        }) => format!("{median:.2}x ({low:.2}..{high:.2})"),
        Some(Ratio { spread, .. }) => {
            format!("too wide ({:.2}..{:.2})", spread[0], spread[1])
        }
    }
}

/// As [`ratio`], without the spread.
fn short(ratio: Option<Ratio>) -> String {
    match ratio {
        None => "-".into(),
        Some(Ratio { median: None, .. }) => "too wide".into(),
        Some(Ratio {
            median: Some(median),
            ..
        }) => format!("{median:.2}x"),
    }
}

fn legend() -> [String; 4] {
    [
        "rr, crr: p50 of a request; qperf rr: mean one way; stream: throughput; programs: per second.".into(),
        "Ratio: Beeline to the kernel path, round by round: the median (quartiles). Less is better for times.".into(),
        "CPU: the same ratio of processor seconds, per byte for streams, per request for others.".into(),
        format!("too wide: the middle half of the rounds spans more than {:.0} % of the median; measure longer or on a quieter host.", WIDEST * 100.0),
    ]
}

/// What histograms cost, where it was measured.
pub(super) fn observing(report: &CellReport) -> Option<String> {
    let told = report.observing.get(&report.metric).copied()?;
    Some(format!(
        "{}: with histograms {} of without",
        report.cell.title(),
        ratio(Some(told))
    ))
}

/// Why a cell has no numbers, or why not every byte of it was redirected.
pub(super) fn remark(report: &CellReport) -> Option<String> {
    let title = report.cell.title();
    if let Some(error) = &report.error {
        return Some(format!("{title}: failed: {error}"));
    }
    let share = match report.redirected_share {
        Some(share) if share >= 1.0 && report.reasons.is_empty() => return None,
        Some(share) => format!("{} redirected", percent(share)),
        None => "nothing was enrolled".into(),
    };
    let counts = report.reasons.iter();
    let counts: Vec<_> = counts
        .map(|(name, count)| format!("{count}x {name}"))
        .collect();
    let why = match &counts[..] {
        [] => "no reason was counted".to_owned(),
        counts => counts.join(", "),
    };
    Some(format!("{title}: {share}: {why}"))
}
