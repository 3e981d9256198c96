//! The charts of a report: what each draws, wherever it is shown.

use maud::Markup;

use super::cells::Cell;
use super::metric::{Metric, Sample};
use super::plot::{self, Line};
use super::report::{CellReport, Report};
use crate::cli::output;

/// A chart needs at least so many positions.
const POINTS: usize = 3;

/// The classes of lines, and what they are.
pub(super) const LEGEND: [(&str, &str); 3] = [
    ("kernel", "kernel path"),
    ("beeline", "Beeline"),
    ("unix", "Unix socket"),
];

/// What a chart has along its x axis.
#[derive(Clone, Copy)]
enum Axis {
    Size,
    Connections,
    Services,
}

impl Axis {
    fn of(self, cell: &Cell) -> usize {
        match self {
            Self::Size => cell.size,
            Self::Connections => cell.connections,
            Self::Services => cell.services.into(),
        }
    }

    /// The cell with this dimension left out.
    fn others(self, cell: &Cell) -> Cell {
        let mut cell = *cell;
        match self {
            Self::Size => cell.size = 0,
            Self::Connections => cell.connections = 0,
            Self::Services => cell.services = 0,
        }
        cell
    }

    fn label(self, cell: &Cell) -> String {
        match self {
            Self::Size => output::size(cell.size),
            Self::Connections | Self::Services => self.of(cell).to_string(),
        }
    }

    /// What the chart is about.
    fn title(self, cell: &Cell) -> String {
        let Cell {
            topology,
            services,
            size,
            connections,
            placement,
            ..
        } = cell;
        let (load, size) = (cell.load_name(), output::size(*size));
        let place = format!("{}, {} core", topology.name(), placement.name());
        match self {
            Self::Size => {
                format!("{load} over sizes: {place}, {services} services, {connections} conn.")
            }
            Self::Connections => {
                format!("{load} {size} over connections: {place}, {services} services")
            }
            Self::Services => format!("{load} {size} over services: {place}, {connections} conn."),
        }
    }
}

/// Values over sizes, connections or services.
pub(super) struct Chart {
    pub(super) title: String,
    metric: Metric,
    labels: Vec<String>,
    lines: [Line; 3],
}

impl Chart {
    fn of(axis: Axis, group: &[&CellReport]) -> Self {
        let metric = group[0].metric;
        let line = |class, of: fn(&CellReport) -> &Sample| Line {
            class,
            values: group
                .iter()
                .map(|cell| of(cell).get(&metric).copied())
                .collect(),
        };
        Self {
            title: axis.title(&group[0].cell),
            metric,
            labels: group.iter().map(|cell| axis.label(&cell.cell)).collect(),
            lines: [
                line("kernel", |cell| &cell.kernel),
                line("unix", |cell| &cell.unix),
                line("beeline", |cell| &cell.beeline),
            ],
        }
    }

    /// An element of a page.
    pub(super) fn markup(&self) -> Markup {
        plot::chart(&self.title, self.metric, &self.labels, &self.lines)
    }

    /// What is in it, for a larger picture.
    pub(super) fn drawing(&self) -> Markup {
        plot::drawing(self.metric, &self.labels, &self.lines)
    }
}

/// All charts for which there are positions enough.
pub(super) fn all(report: &Report) -> Vec<Chart> {
    let axes = [Axis::Size, Axis::Connections, Axis::Services];
    axes.into_iter()
        .flat_map(|axis| over(axis, report))
        .collect()
}

/// Those over sizes where the first cell was measured.
pub(super) fn over_sizes_of_the_first(report: &Report) -> Vec<Chart> {
    let cells = report.cells.iter().take(1);
    let beds = cells.flat_map(|first| {
        groups(Axis::Size, report)
            .into_iter()
            .filter(|group| group[0].cell.shares_bed(&first.cell))
    });
    beds.map(|group| Chart::of(Axis::Size, &group)).collect()
}

fn over(axis: Axis, report: &Report) -> Vec<Chart> {
    let groups = groups(axis, report).into_iter();
    groups.map(|group| Chart::of(axis, &group)).collect()
}

/// Cells that differ along the axis alone.
fn groups(axis: Axis, report: &Report) -> Vec<Vec<&CellReport>> {
    let (mut seen, mut groups): (Vec<Cell>, Vec<_>) = (Vec::new(), Vec::new());
    for first in &report.cells {
        let others = axis.others(&first.cell);
        if seen.contains(&others) {
            continue;
        }
        seen.push(others);
        let cells = report.cells.iter().filter(|cell| cell.error.is_none());
        let mut group: Vec<_> = cells
            .filter(|cell| axis.others(&cell.cell) == others)
            .collect();
        group.sort_by_key(|cell| axis.of(&cell.cell));
        if group.len() >= POINTS {
            groups.push(group);
        }
    }
    groups
}
