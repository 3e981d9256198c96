//! The numbers of a turn, and what two paths' turns say about each other.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cells::Cell;
use super::tools::Tool;
use crate::cli::measure::stats::{four_digits, median, percentile, quartiles};
use crate::cli::measure::traffic::{Load, Measured};

/// When the middle half of the ratios spans more than this part of their median, the median is not
/// told: another run would give another.
pub(super) const WIDEST: f64 = 0.2;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    /// Median time of a request or write, in microseconds.
    P50Us,
    /// Of a hundred, 99 were faster.
    P99Us,
    /// The mean, where a program tells only that.
    MeanUs,
    /// Payload in 10^9 bits per second.
    Gbps,
    /// Requests, writes or transactions.
    PerSecond,
    /// Processor seconds for 10^9 bytes of payload.
    CpuSPerGb,
    /// Processor seconds for 10^6 requests.
    CpuSPerMillion,
    /// Connections set up, one after the other.
    ConnectsPerSecond,
    /// Processor time for setting one up, in microseconds.
    ConnectCpuUs,
    /// Kernel memory of one that is open, both ends.
    ConnectionBytes,
    /// Resident memory of the agent.
    AgentBytes,
    /// Of a core, by the agent while nothing happens.
    AgentCpuPercent,
    /// `beeline status`, from its start to its end.
    StatusMs,
    /// `beeline conns`, likewise.
    ConnsMs,
}

/// The numbers of one turn; a program may not tell all of them.
pub(super) type Sample = BTreeMap<Metric, f64>;

/// One metric of Beeline to that of the kernel path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Ratio {
    /// The median over the rounds; `null` when the spread is too wide.
    pub(super) median: Option<f64>,
    /// The quartiles.
    pub(super) spread: [f64; 2],
}

impl Metric {
    /// As in JSON.
    #[cfg(test)]
    pub(super) const ALL: [Self; 14] = [
        Self::P50Us,
        Self::P99Us,
        Self::MeanUs,
        Self::Gbps,
        Self::PerSecond,
        Self::CpuSPerGb,
        Self::CpuSPerMillion,
        Self::ConnectsPerSecond,
        Self::ConnectCpuUs,
        Self::ConnectionBytes,
        Self::AgentBytes,
        Self::AgentCpuPercent,
        Self::StatusMs,
        Self::ConnsMs,
    ];

    /// For people.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::P50Us | Self::P99Us | Self::MeanUs | Self::ConnectCpuUs => "us",
            Self::Gbps => "Gb/s",
            Self::PerSecond | Self::ConnectsPerSecond => "/s",
            Self::ConnectionBytes | Self::AgentBytes => "B",
            Self::AgentCpuPercent => "%",
            Self::StatusMs | Self::ConnsMs => "ms",
            Self::CpuSPerGb => "s/GB",
            Self::CpuSPerMillion => "s/M",
        }
    }

    /// For people, as the title of an axis.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::P50Us => "p50, us",
            Self::P99Us => "p99, us",
            Self::MeanUs => "mean, us",
            Self::Gbps => "throughput, Gb/s",
            Self::PerSecond => "requests per second",
            Self::CpuSPerGb => "CPU seconds per GB",
            Self::CpuSPerMillion => "CPU seconds per million",
            Self::ConnectsPerSecond => "connections set up per second",
            Self::ConnectCpuUs => "CPU us to set a connection up",
            Self::ConnectionBytes => "kernel memory of a connection, bytes",
            Self::AgentBytes => "resident memory of the agent, bytes",
            Self::AgentCpuPercent => "idle agent, percent of a core",
            Self::StatusMs => "beeline status, ms",
            Self::ConnsMs => "beeline conns, ms",
        }
    }

    /// Whether less is better.
    pub(super) fn is_cost(self) -> bool {
        !matches!(self, Self::Gbps | Self::PerSecond | Self::ConnectsPerSecond)
    }

    /// What a cell is about first.
    pub(super) fn of(cell: &Cell) -> Self {
        match (cell.tool, cell.load) {
            (_, Load::Stream) => Self::Gbps,
            (None, _) => Self::P50Us,
            (Some(Tool::Qperf), _) => Self::MeanUs,
            (Some(_), _) => Self::PerSecond,
        }
    }

    /// What its processor time is told by.
    pub(super) fn cpu_of(cell: &Cell) -> Self {
        match cell.load {
            Load::Stream => Self::CpuSPerGb,
            Load::Rr | Load::Crr => Self::CpuSPerMillion,
        }
    }
}

/// The numbers of a turn of our own loads.
pub(super) fn sample(load: Load, measured: &Measured) -> Sample {
    let at = |percent| percentile(&measured.times, percent) as f64 / 1e3;
    let mut sample = Sample::from([
        (Metric::P50Us, four_digits(at(50))),
        (Metric::P99Us, four_digits(at(99))),
        (Metric::Gbps, four_digits(measured.gbps)),
        (Metric::PerSecond, four_digits(measured.per_second)),
        // Nanoseconds for a byte are seconds for 10^9.
        (Metric::CpuSPerGb, four_digits(measured.cpu_ns_per_byte)),
    ]);
    if load != Load::Stream {
        let seconds = four_digits(measured.cpu_ns_per_request / 1e3);
        sample.insert(Metric::CpuSPerMillion, seconds);
    }
    sample
}

/// The medians of all turns, each number by itself; of those that every turn has.
pub(super) fn medians(turns: &[Sample]) -> Sample {
    let Some((first, rest)) = turns.split_first() else {
        return Sample::new();
    };
    let common = first
        .keys()
        .filter(|metric| rest.iter().all(|turn| turn.contains_key(metric)));
    common
        .map(|metric| {
            let mut values: Vec<f64> = turns.iter().map(|turn| turn[metric]).collect();
            (*metric, four_digits(median(&mut values)))
        })
        .collect()
}

/// Compares turns that were measured in pairs.
pub(super) fn ratios(kernel: &[Sample], beeline: &[Sample]) -> BTreeMap<Metric, Ratio> {
    let common = medians(kernel);
    let pairs = || kernel.iter().zip(beeline);
    common
        .keys()
        .filter_map(|metric| {
            let ratio = |(k, b): (&Sample, &Sample)| Some(b.get(metric)? / k.get(metric)?);
            let ratios: Vec<f64> = pairs().map(ratio).collect::<Option<_>>()?;
            // Nothing divided by nothing, as in a turn too short for the clock.
            let usable = ratios.iter().all(|ratio| ratio.is_finite());
            usable.then(|| (*metric, Ratio::new(ratios)))
        })
        .collect()
}

/// By how much one number is more with Beeline than without, in turns that were measured in pairs; `None`
/// where there are none.
pub(super) fn differences(metric: Metric, kernel: &[Sample], beeline: &[Sample]) -> Option<Ratio> {
    let difference = |(k, b): (&Sample, &Sample)| Some(b.get(&metric)? - k.get(&metric)?);
    let all: Vec<f64> = kernel.iter().zip(beeline).filter_map(difference).collect();
    (!all.is_empty()).then(|| Ratio::new(all))
}

impl Ratio {
    fn new(mut ratios: Vec<f64>) -> Self {
        let middle = median(&mut ratios);
        let [low, high] = quartiles(&ratios);
        let told = (high - low <= WIDEST * middle).then(|| four_digits(middle));
        Self {
            median: told,
            spread: [four_digits(low), four_digits(high)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(values: &[f64]) -> Vec<Sample> {
        let turn = |value: &f64| Sample::from([(Metric::P50Us, *value)]);
        values.iter().map(turn).collect()
    }

    #[test]
    fn ratio_is_the_median_of_pairs_with_its_quartiles() {
        let kernel = turns(&[10.0, 20.0, 40.0, 10.0, 10.0]);
        let beeline = turns(&[5.0, 10.0, 20.0, 5.2, 4.8]);
        let ratio = ratios(&kernel, &beeline)[&Metric::P50Us];
        assert_eq!((ratio.median, ratio.spread), (Some(0.5), [0.5, 0.5]));
    }

    #[test]
    fn wide_spread_has_no_median() {
        let ratio = |values| ratios(&turns(&[10.0; 5]), &turns(values))[&Metric::P50Us];
        assert_eq!(ratio(&[10.0, 11.0, 9.0, 10.9, 9.1]).median, Some(1.0));
        let wide = ratio(&[10.0, 13.0, 7.0, 12.0, 8.0]);
        assert_eq!((wide.median, wide.spread), (None, [0.8, 1.2]));
    }

    #[test]
    fn difference_is_the_median_of_pairs() {
        let (kernel, beeline) = (turns(&[10.0, 20.0]), turns(&[15.0, 25.0]));
        let more = differences(Metric::P50Us, &kernel, &beeline).unwrap();
        assert_eq!((more.median, more.spread), (Some(5.0), [5.0, 5.0]));
        assert!(differences(Metric::Gbps, &kernel, &beeline).is_none());
    }

    #[test]
    fn number_that_not_every_turn_has_is_not_compared() {
        let mut kernel = turns(&[1.0, 1.0]);
        kernel[0].insert(Metric::Gbps, 1.0);
        assert_eq!(medians(&kernel).len(), 1);
        let nothing = turns(&[0.0, 0.0]);
        assert!(ratios(&nothing, &nothing).is_empty());
        assert!(ratios(&kernel, &[Sample::new(), Sample::new()]).is_empty());
    }

    #[test]
    fn names_in_json_are_those_of_the_units() {
        let names = Metric::ALL.map(|metric| serde_json::to_value(metric).unwrap());
        let expected = [
            "p50_us",
            "p99_us",
            "mean_us",
            "gbps",
            "per_second",
            "cpu_s_per_gb",
            "cpu_s_per_million",
            "connects_per_second",
            "connect_cpu_us",
            "connection_bytes",
            "agent_bytes",
            "agent_cpu_percent",
            "status_ms",
            "conns_ms",
        ];
        assert_eq!(names, expected);
    }
}
