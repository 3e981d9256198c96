//! What is measured: ways between two pods, kinds of load, sizes.

use serde::Serialize;

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
    /// TCP connections in a row from client to server.
    pub(super) fn hops(self) -> u64 {
        match self {
            Self::Pod | Self::Service => 1,
            // Client to its sidecar, sidecar to sidecar, sidecar to server.
            Self::Sidecar => 3,
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

/// What client and server do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Load {
    /// One request at a time, answered with itself.
    Rr,
    /// The client writes all the time, the server reads.
    Stream,
}

impl Load {
    /// As in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Stream => "stream",
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
        format!("{scenario}, {load} {}", size(self.size))
    }
}

/// A size for people, exact for those that the demo uses.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        _ => format!("{} KiB", bytes / 1024),
    }
}

/// All cells in the order in which they are measured. Sidecars come last: once their rules are
/// there, the pods have NAT of their own, which costs the other scenarios.
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
