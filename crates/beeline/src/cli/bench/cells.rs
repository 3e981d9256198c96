//! What can be measured: a way between two ends, a load, and the set that is measured by default.

use clap::ValueEnum;
use serde::Serialize;

use super::tools::Tool;
use crate::cli::measure::bed::Topology;
use crate::cli::measure::traffic::Load;
use crate::cli::output;

/// Which cores the two ends run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Placement {
    /// Both ends on one core: what the software costs
    Same,
    /// Each end on a core of its own: waking the other core is part of it
    Separate,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Cell {
    pub(super) topology: Topology,
    /// Services in the node's rules.
    pub(super) services: u16,
    /// For a program, what its load is most like.
    pub(super) load: Load,
    /// The program that makes the load; `null` is ours.
    pub(super) tool: Option<Tool>,
    /// Bytes of a request, a write, or what the program calls its size.
    pub(super) size: usize,
    pub(super) connections: usize,
    pub(super) placement: Placement,
}

impl Placement {
    /// As in JSON and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Separate => "separate",
        }
    }
}

impl Cell {
    /// "bridge, 100 services, rr 64 B, 1 connection"
    pub(super) fn title(&self) -> String {
        let many = if self.connections == 1 { "" } else { "s" };
        let cores = match self.placement {
            Placement::Same => "",
            Placement::Separate => ", separate cores",
        };
        format!(
            "{}, {} services, {} {}, {} connection{many}{cores}",
            self.topology.name(),
            self.services,
            self.load_name(),
            output::size(self.size),
            self.connections,
        )
    }

    /// "rr", or "qperf rr"
    pub(super) fn load_name(&self) -> String {
        match self.tool {
            Some(tool) => format!("{} {}", tool.name(), self.load.name()),
            None => self.load.name().to_owned(),
        }
    }

    /// Whether the cost of histograms is measured as well: where messages are short and many, and nothing
    /// but Beeline differs from a Unix socket.
    pub(super) fn shows_observing(&self) -> bool {
        let ours = self.tool.is_none() && self.topology == Topology::Bridge;
        ours && self.load == Load::Rr && self.size <= 64 && self.connections == 1
    }

    /// Whether both are measured on the same pods.
    pub(super) fn shares_bed(&self, other: &Self) -> bool {
        let bed = |cell: &Self| (cell.topology, cell.services, cell.placement);
        bed(self) == bed(other)
    }
}

/// 1 B to 16 KiB in steps of four, and 64 KiB.
pub(super) const SIZES: [usize; 9] = [1, 4, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10];

/// What is measured unless something else is asked for: each dimension by itself around the middle,
/// which is one connection over a bridge with 100 services on one core.
pub(super) fn standard() -> Vec<Cell> {
    let mut set = Set::default();
    let mut middle = Set::at(Topology::Bridge, 100, Placement::Same);
    middle.ours(Load::Rr, &SIZES, &[1]);
    middle.ours(Load::Stream, &SIZES, &[1]);
    middle.ours(Load::Crr, &[1, 1 << 10, 16 << 10], &[1]);
    middle.ours(Load::Rr, &[64, 1 << 10], &[8, 64, 512]);
    middle.ours(Load::Stream, &[256, 16 << 10], &[8, 64, 512]);
    middle.ours(Load::Crr, &[64], &[8, 64, 512]);
    middle.tools();
    set.add(middle);
    for topology in [
        Topology::Routed,
        Topology::Service,
        Topology::Sidecar,
        Topology::Loopback,
    ] {
        let mut other = Set::at(topology, 100, Placement::Same);
        other.ours(Load::Rr, &[64, 1 << 10, 16 << 10], &[1]);
        other.ours(Load::Stream, &[256, 4 << 10, 16 << 10, 64 << 10], &[1]);
        other.ours(Load::Crr, &[64], &[1]);
        set.add(other);
    }
    for topology in [Topology::Bridge, Topology::Service] {
        for services in [0, 1000, 5000] {
            let mut rules = Set::at(topology, services, Placement::Same);
            rules.ours(Load::Rr, &[64, 16 << 10], &[1]);
            rules.ours(Load::Stream, &[16 << 10], &[1]);
            rules.ours(Load::Crr, &[64], &[1]);
            set.add(rules);
        }
    }
    let mut apart = Set::at(Topology::Bridge, 100, Placement::Separate);
    apart.ours(Load::Rr, &[64, 1 << 10, 16 << 10], &[1, 64]);
    apart.ours(Load::Stream, &[256, 4 << 10, 16 << 10, 64 << 10], &[1, 64]);
    apart.ours(Load::Crr, &[64], &[1, 64]);
    set.add(apart);
    set.cells
}

/// Cells on one bed, or several of them.
#[derive(Default)]
struct Set {
    cells: Vec<Cell>,
    at: Option<(Topology, u16, Placement)>,
}

impl Set {
    fn at(topology: Topology, services: u16, placement: Placement) -> Self {
        let at = Some((topology, services, placement));
        Self {
            at,
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.cells.extend(other.cells);
    }

    fn push(&mut self, load: Load, tool: Option<Tool>, size: usize, connections: usize) {
        if let Some((topology, services, placement)) = self.at {
            self.cells.push(Cell {
                topology,
                services,
                load,
                tool,
                size,
                connections,
                placement,
            });
        }
    }

    fn ours(&mut self, load: Load, sizes: &[usize], connections: &[usize]) {
        for connections in connections {
            for size in sizes {
                self.push(load, None, *size, *connections);
            }
        }
    }

    fn tools(&mut self) {
        for size in SIZES {
            self.push(Load::Rr, Some(Tool::Qperf), size, 1);
            self.push(Load::Stream, Some(Tool::Qperf), size, 1);
        }
        for tool in [Tool::Iperf3, Tool::Redis, Tool::Wrk, Tool::Pgbench] {
            for connections in [1, 8, 64] {
                self.push(tool.loads()[0], Some(tool), tool.size(), connections);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::scale;

    #[test]
    fn standard_set_makes_each_bed_once_and_measures_nothing_twice() {
        let cells = standard();
        let beds: Vec<_> = cells.chunk_by(Cell::shares_bed).map(|bed| bed[0]).collect();
        for (n, bed) in beds.iter().enumerate() {
            assert!(
                beds[..n].iter().all(|other| !other.shares_bed(bed)),
                "{bed:?}"
            );
        }
        for (n, cell) in cells.iter().enumerate() {
            assert!(!cells[..n].contains(cell), "{cell:?}");
        }
    }

    #[test]
    fn standard_set_takes_less_than_half_an_hour() {
        // Of a turn: warm-up, half a second, a tenth to set up. Programs take a second and start.
        let seconds = |cell: &Cell| {
            if cell.tool.is_some() {
                2.0 * 1.7
            } else {
                3.0 * 0.65
            }
        };
        let cells: f64 = standard().iter().map(|cell| 5.0 * seconds(cell)).sum();
        // Of a pair of turns: the agent starts, is watched and ends; 100,000 connections are set up and closed.
        let pair = |connections: usize| 4.0 + 2.0 * connections as f64 / 15_000.0;
        let scale: f64 = scale::STANDARD.into_iter().map(|n| 5.0 * pair(n)).sum();
        assert!(cells + scale < 1750.0, "{cells} s and {scale} s");
    }
}
