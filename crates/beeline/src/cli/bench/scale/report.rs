//! What was measured with many connections, as `--json` prints it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::bench::metric::{self, Metric, Ratio, Sample};

/// The numbers of all turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) kernel: Vec<Sample>,
    pub(super) beeline: Vec<Sample>,
    /// What the kernel charges for the maps of the datapath while all connections are enrolled.
    pub(super) map_bytes: u64,
    /// Connections that they have room for.
    pub(super) room: u64,
}

/// The numbers of every turn.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli::bench) struct Samples {
    kernel: Vec<Sample>,
    beeline: Vec<Sample>,
}

/// So many connections.
#[derive(Debug, Serialize)]
pub(in crate::cli::bench) struct ScaleReport {
    pub(in crate::cli::bench) connections: usize,
    /// Medians over the rounds.
    pub(super) kernel: Sample,
    pub(super) beeline: Sample,
    /// Beeline to kernel path, paired by round.
    pub(super) ratios: BTreeMap<Metric, Ratio>,
    /// Bytes of kernel memory that a connection takes with Beeline and not without, paired by round.
    pub(super) extra_bytes: Option<Ratio>,
    /// What the kernel charges for the maps of the datapath while all connections are enrolled.
    pub(super) map_bytes: u64,
    /// Connections that they have room for (`socket.connections`).
    pub(super) room: u64,
    samples: Samples,
    /// Why there are no numbers.
    pub(in crate::cli::bench) error: Option<String>,
}

impl ScaleReport {
    /// Sums up the rounds.
    pub(super) fn new(connections: usize, turns: Turns) -> Self {
        let Turns {
            kernel,
            beeline,
            map_bytes,
            room,
        } = turns;
        Self {
            connections,
            kernel: metric::medians(&kernel),
            beeline: metric::medians(&beeline),
            ratios: metric::ratios(&kernel, &beeline),
            extra_bytes: metric::differences(Metric::ConnectionBytes, &kernel, &beeline),
            map_bytes,
            room,
            samples: Samples { kernel, beeline },
            error: None,
        }
    }

    /// Without numbers.
    pub(super) fn failed(connections: usize, error: &anyhow::Error) -> Self {
        Self {
            error: Some(format!("{error:#}")),
            ..Self::new(connections, Turns::default())
        }
    }
}
