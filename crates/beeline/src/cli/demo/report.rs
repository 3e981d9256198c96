//! What the demo found, as `--json` prints it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Args;
use super::cells::{Cell, Scenario};
use super::rounds::ratio;
use crate::cli::measure::host::{self, Cores};
use crate::cli::measure::stats::{median, percentile, rounded};
use crate::cli::measure::switch::Share;
use crate::cli::measure::traffic::{Load, Measured};

/// The whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) kernel: String,
    pub(super) cpu: String,
    /// The client's and the server's; one when they share it.
    pub(super) cores: Vec<usize>,
    pub(super) services: u16,
    pub(super) rounds: u16,
    pub(super) duration_ms: f64,
    pub(super) cells: Vec<CellReport>,
}

/// One scenario, load and size.
#[derive(Debug, Serialize)]
pub(super) struct CellReport {
    pub(super) scenario: Scenario,
    pub(super) load: Load,
    pub(super) size: usize,
    pub(super) kernel: Path,
    pub(super) beeline: Path,
    /// Beeline to kernel: of p50 for rr, of gbps for stream. The median over the rounds.
    pub(super) ratio: f64,
    /// The smallest and the largest ratio of a round.
    pub(super) spread: [f64; 2],
    /// Redirected bytes to bytes sent over all hops, from 0 to 1.
    pub(super) redirected_share: f64,
    /// Bytes that were not redirected.
    pub(super) kernel_bytes: u64,
    /// Why, and how often.
    pub(super) reasons: BTreeMap<&'static str, u64>,
}

/// One path in one cell.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Path {
    /// Median of a round trip, or of a write.
    pub(super) p50_us: f64,
    /// Of a hundred, 99 were faster.
    pub(super) p99_us: f64,
    /// Payload in 10^9 bits per second.
    pub(super) gbps: f64,
}

impl Report {
    pub(super) fn new(args: &Args, cores: Cores, cells: Vec<CellReport>) -> Self {
        Self {
            kernel: host::kernel(),
            cpu: host::cpu(),
            cores: cores.list(),
            services: args.services,
            rounds: args.rounds,
            duration_ms: args.duration.as_secs_f64() * 1e3,
            cells,
        }
    }
}

impl CellReport {
    /// What was measured.
    pub(super) fn cell(&self) -> Cell {
        Cell {
            scenario: self.scenario,
            load: self.load,
            size: self.size,
        }
    }

    /// Sums up the rounds of a cell; there is at least one, and as many of one path as of the other.
    pub(super) fn new(cell: Cell, kernel: &[Path], beeline: &[Path], share: Share) -> Self {
        let pairs = kernel.iter().zip(beeline);
        let mut ratios: Vec<f64> = pairs.map(|(k, b)| ratio(cell.load, k, b)).collect();
        let middle = median(&mut ratios);
        Self {
            scenario: cell.scenario,
            load: cell.load,
            size: cell.size,
            kernel: Path::median(kernel),
            beeline: Path::median(beeline),
            ratio: rounded(middle),
            // The median has sorted them.
            spread: [rounded(ratios[0]), rounded(ratios[ratios.len() - 1])],
            redirected_share: share.fraction(),
            kernel_bytes: share.rest(),
            reasons: share.reasons,
        }
    }
}

impl Path {
    /// Of one turn.
    pub(super) fn of(measured: &Measured) -> Self {
        let at = |percent| percentile(&measured.times, percent) as f64 / 1e3;
        Self {
            p50_us: at(50),
            p99_us: at(99),
            gbps: measured.gbps,
        }
    }

    /// Of all turns, each number by itself.
    fn median(turns: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| {
            rounded(median(&mut turns.iter().map(value).collect::<Vec<_>>()))
        };
        Self {
            p50_us: of(|t| t.p50_us),
            p99_us: of(|t| t.p99_us),
            gbps: of(|t| t.gbps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_the_median_of_paired_rounds() {
        let path = |p50_us| Path {
            p50_us,
            p99_us: 2.0 * p50_us,
            gbps: 1.0,
        };
        let kernel = [path(10.0), path(20.0), path(40.0)];
        let beeline = [path(5.0), path(8.0), path(24.0)];
        let cell = Cell {
            scenario: Scenario::Pod,
            load: Load::Rr,
            size: 64,
        };
        let report = CellReport::new(cell, &kernel, &beeline, Share::default());
        assert_eq!((report.ratio, report.spread), (0.5, [0.4, 0.6]));
        assert_eq!((report.kernel.p50_us, report.beeline.p99_us), (20.0, 16.0));
    }
}
