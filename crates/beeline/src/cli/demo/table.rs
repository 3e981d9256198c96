//! What the demo found, for people.

use comfy_table::{CellAlignment, LineStyle, Table, presets};

use super::report::{CellReport, Path, Report};
use crate::cli::measure::traffic::Load;
use crate::cli::output::{self, digits, percent};

const HEADER: [&str; 7] = [
    "Scenario",
    "Load",
    "Size",
    "Kernel path",
    "Beeline",
    "Ratio (spread)",
    "Redirected",
];
/// The columns from Size on are numbers.
const FIRST_NUMBER: usize = 2;

/// Where, what, and what it means.
pub(super) fn text(report: &Report) -> String {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_header(HEADER);
    for cell in &report.cells {
        table.add_row(row(cell));
    }
    for column in table.column_iter_mut().skip(FIRST_NUMBER) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec![head(report), table.to_string()];
    lines.extend(legend().map(String::from));
    lines.extend(report.cells.iter().filter_map(not_redirected));
    lines.push(cores(&report.cores));
    lines.join("\n")
}

fn head(report: &Report) -> String {
    let Report {
        kernel,
        cpu,
        services,
        rounds,
        duration_ms,
        ..
    } = report;
    let cores = match report.cores[..] {
        [client, server] => format!("cores {client} and {server}"),
        _ => format!("core {}", report.cores[0]),
    };
    format!(
        "Linux {kernel}, {cpu}, {cores}, {services} services\n\
         {rounds} rounds: {duration_ms} ms over the kernel path, then {duration_ms} ms with Beeline"
    )
}

fn row(cell: &CellReport) -> [String; HEADER.len()] {
    let [least, most] = cell.spread;
    [
        cell.scenario.title().into(),
        cell.load.name().into(),
        output::size(cell.size),
        path(cell.load, &cell.kernel),
        path(cell.load, &cell.beeline),
        format!("{:.2}x ({least:.2}..{most:.2})", cell.ratio),
        percent(cell.redirected_share),
    ]
}

fn path(load: Load, path: &Path) -> String {
    match load {
        Load::Rr | Load::Crr => format!("{} / {} us", digits(path.p50_us), digits(path.p99_us)),
        Load::Stream => format!("{:.1} Gb/s", path.gbps),
    }
}

fn legend() -> [&'static str; 3] {
    [
        "rr: round trip p50 / p99; ratio: p50 with Beeline to p50 of the kernel path, less is better.",
        "stream: throughput; ratio: with Beeline to the kernel path, more is better.",
        "Ratios are taken round by round: the median, and the smallest and largest in parentheses.",
    ]
}

/// Says why not every byte of a cell was redirected.
fn not_redirected(cell: &CellReport) -> Option<String> {
    if cell.redirected_share == 1.0 {
        return None;
    }
    let counts = cell
        .reasons
        .iter()
        .map(|(name, count)| format!("{count}x {name}"));
    let why = match &counts.collect::<Vec<_>>()[..] {
        [] => "no reason was counted".to_owned(),
        counts => counts.join(", "),
    };
    Some(format!(
        "{}: {} over the kernel path: {why}",
        cell.cell().title(),
        output::bytes(cell.kernel_bytes)
    ))
}

fn cores(cores: &[usize]) -> String {
    match cores {
        [client, server] => format!(
            "the client's pod has core {client}, the server's has core {server}: times include waking an idle core"
        ),
        _ => format!(
            "both ends share core {}; use --cores 0,1 to separate them (waking an idle core hides the gain)",
            cores[0]
        ),
    }
}
