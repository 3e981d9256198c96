//! What is measured: ways between two pods, kinds of load, sizes.

use serde::Serialize;

use crate::cli::measure::bed::Topology;
use crate::cli::measure::traffic::Load;
use crate::cli::output;

/// A way from the client's pod to the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Scenario {
    /// Straight, over the bridge.
    Pod,
    /// Through a service address, with DNAT.
    Service,
    /// Through a sidecar in each pod, with REDIRECT.
    Sidecar,
}

impl Scenario {
    /// What it is made of.
    pub(super) fn topology(self) -> Topology {
        match self {
            Self::Pod => Topology::Bridge,
            Self::Service => Topology::Service,
            Self::Sidecar => Topology::Sidecar,
        }
    }

    /// For people.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Pod => "pod to pod",
            Self::Service => "service",
            Self::Sidecar => "sidecars",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) scenario: Scenario,
    pub(super) load: Load,
    /// Bytes of a request, or of a write.
    pub(super) size: usize,
}

impl Cell {
    /// "pod to pod, rr 64 B"
    pub(super) fn title(self) -> String {
        let (scenario, load) = (self.scenario.title(), self.load.name());
        format!("{scenario}, {load} {}", output::size(self.size))
    }
}

/// All cells in the order in which they are measured.
pub(super) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for scenario in [Scenario::Pod, Scenario::Service, Scenario::Sidecar] {
        let loads = [
            (Load::Rr, 64),
            (Load::Rr, 16 << 10),
            (Load::Stream, 16 << 10),
        ];
        let large = (scenario == Scenario::Pod).then_some((Load::Stream, 64 << 10));
        for (load, size) in loads.into_iter().chain(large) {
            cells.push(Cell {
                scenario,
                load,
                size,
            });
        }
    }
    cells
}
