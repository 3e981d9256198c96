//! What was measured, as `--json` prints it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::Result;
use serde::Serialize;

use super::Args;
use super::cells::Cell;
use super::metric::{self, Metric, Ratio, Sample};
use super::scale::ScaleReport;
use super::select::Plan;
use super::tools::Tool;
use crate::cli::measure::host::{self, Cores};
use crate::cli::measure::stats::four_digits;
use crate::cli::measure::switch::Share;

/// Raised when a field changes its meaning.
const FORMAT: u32 = 1;

/// The whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) format: u32,
    /// Beeline's version.
    pub(super) version: &'static str,
    /// When the run ended, RFC 3339.
    pub(super) time: String,
    pub(super) kernel: String,
    pub(super) cpu: String,
    /// How many cores the host has online.
    pub(super) online: usize,
    /// The cores that were used: for one end each, or the first for both.
    pub(super) cores: Vec<usize>,
    pub(super) memory_bytes: u64,
    /// Sysctls that TCP's speed depends on.
    pub(super) sysctls: BTreeMap<&'static str, String>,
    /// Programs that made loads, with the versions they tell.
    pub(super) tools: BTreeMap<&'static str, String>,
    pub(super) rounds: u16,
    pub(super) duration_ms: f64,
    /// What of the standard set was not measured, and why.
    pub(super) left_out: Vec<String>,
    pub(super) cells: Vec<CellReport>,
    /// Many connections held open.
    pub(super) scale: Vec<ScaleReport>,
}

/// The numbers of every turn.
#[derive(Debug, Default, Serialize)]
pub(super) struct Samples {
    pub(super) kernel: Vec<Sample>,
    pub(super) beeline: Vec<Sample>,
    /// Beeline without histograms; empty where that is not measured.
    pub(super) unobserved: Vec<Sample>,
    /// Empty where the load cannot use a Unix socket.
    pub(super) unix: Vec<Sample>,
}

/// One cell.
#[derive(Debug, Serialize)]
pub(super) struct CellReport {
    #[serde(flatten)]
    pub(super) cell: Cell,
    /// The metric that the table shows.
    pub(super) metric: Metric,
    /// Medians over the rounds.
    pub(super) kernel: Sample,
    pub(super) beeline: Sample,
    pub(super) unix: Sample,
    /// Beeline to kernel path, paired by round.
    pub(super) ratios: BTreeMap<Metric, Ratio>,
    /// Beeline to Beeline without histograms, paired by round; empty where that is not measured.
    pub(super) observing: BTreeMap<Metric, Ratio>,
    /// Redirected bytes to all bytes sent over all hops, from 0 to 1; of a program, to those that
    /// its enrolled sockets sent. `null` when nothing was.
    pub(super) redirected_share: Option<f64>,
    /// Why something was not redirected, and how often.
    pub(super) reasons: BTreeMap<&'static str, u64>,
    pub(super) samples: Samples,
    /// Why there are no numbers.
    pub(super) error: Option<String>,
}

impl Report {
    pub(super) fn new(
        args: &Args,
        cores: Cores,
        plan: Plan,
        cells: Vec<CellReport>,
        scale: Vec<ScaleReport>,
    ) -> Result<Self> {
        let used = |tool: &Tool| plan.cells.iter().any(|cell| cell.tool == Some(*tool));
        let tools = Tool::ALL.into_iter().filter(used);
        Ok(Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            kernel: host::kernel(),
            cpu: host::cpu(),
            online: host::online()?,
            cores: cores.list(),
            memory_bytes: host::memory(),
            sysctls: host::sysctls(),
            tools: tools.map(|tool| (tool.name(), tool.version())).collect(),
            rounds: args.rounds,
            duration_ms: args.duration.as_secs_f64() * 1e3,
            left_out: plan.left_out,
            cells,
            scale,
        })
    }
}

impl Report {
    /// How many measurements have no numbers, and of how many.
    pub(super) fn failed(&self) -> (usize, usize) {
        let cells = self.cells.iter().map(|cell| cell.error.is_some());
        let scale = self.scale.iter().map(|scale| scale.error.is_some());
        let all: Vec<bool> = cells.chain(scale).collect();
        (all.iter().filter(|failed| **failed).count(), all.len())
    }
}

impl CellReport {
    /// Sums up the rounds of a cell.
    pub(super) fn new(cell: Cell, samples: Samples, share: &Share) -> Self {
        let redirected = if cell.tool.is_some() {
            share.of_enrolled()
        } else {
            Some(share.fraction())
        };
        Self {
            cell,
            metric: Metric::of(&cell),
            kernel: metric::medians(&samples.kernel),
            beeline: metric::medians(&samples.beeline),
            unix: metric::medians(&samples.unix),
            ratios: metric::ratios(&samples.kernel, &samples.beeline),
            observing: metric::ratios(&samples.unobserved, &samples.beeline),
            redirected_share: redirected,
            reasons: share.reasons.clone(),
            samples,
            error: None,
        }
    }

    /// A cell without numbers.
    pub(super) fn failed(cell: Cell, error: &anyhow::Error) -> Self {
        let empty = Self::new(cell, Samples::default(), &Share::default());
        Self {
            redirected_share: None,
            error: Some(format!("{error:#}")),
            ..empty
        }
    }

    /// Of the metric that the table shows.
    pub(super) fn ratio(&self) -> Option<Ratio> {
        self.ratios.get(&self.metric).copied()
    }

    /// How many times better Beeline is by its median, whatever the metric; nothing when the spread
    /// is too wide.
    pub(super) fn gain(&self) -> Option<f64> {
        let median = self.ratio()?.median?;
        let gain = if self.metric.is_cost() {
            1.0 / median
        } else {
            median
        };
        gain.is_finite().then(|| four_digits(gain))
    }
}
