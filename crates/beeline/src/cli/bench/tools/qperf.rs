//! qperf: `tcp_lat` is the mean of half a round trip, `tcp_bw` the throughput.

use anyhow::{Context, Result, bail};
use testbed::process::NsCommand;

use super::{Job, Told, number_after};
use crate::cli::bench::metric::{Metric, Sample};
use crate::cli::measure::bed::SECOND;
use crate::cli::measure::traffic::Load;

pub(super) fn server(job: &Job<'_>) -> NsCommand {
    job.server("qperf").args(["-lp", &job.port()])
}

/// As `qperf HOST -oo msg_size:1:64K:*4 -vu tcp_lat` for one of the sizes, with ports that the
/// rules know.
pub(super) fn client(job: &Job<'_>) -> NsCommand {
    let test = match job.cell.load {
        Load::Stream => "tcp_bw",
        Load::Rr | Load::Crr => "tcp_lat",
    };
    job.client("qperf").args([
        &job.to().ip().to_string(),
        "-lp",
        &job.port(),
        "-ip",
        &SECOND.to_string(),
        "-t",
        &job.seconds().to_string(),
        "-oo",
        &format!("msg_size:{}", job.cell.size),
        "-vu",
        "--use_bits_per_sec",
        "--precision",
        "5",
        test,
    ])
}

pub(super) fn read(text: &str, load: Load) -> Result<Told> {
    let (metric, label) = match load {
        Load::Stream => (Metric::Gbps, "bw"),
        Load::Rr | Load::Crr => (Metric::MeanUs, "latency"),
    };
    // After the name of the test, which has the label in it.
    let (_, text) = text.split_once('\n').context("no result")?;
    let (number, unit) = number_after(text, label).with_context(|| format!("no {label}"))?;
    let scale = match unit {
        "ns" | "Mb/sec" => 1e-3,
        "us" | "Gb/sec" => 1.0,
        "ms" | "Tb/sec" => 1e3,
        "Kb/sec" => 1e-6,
        "sec" => 1e6,
        other => bail!("unknown unit {other}"),
    };
    Ok(Told {
        sample: Sample::from([(metric, number * scale)]),
        bytes: None,
        requests: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_converted() {
        let lat = "tcp_lat:\n    latency   =  13.9 us\n    msg_size  =  16 KiB (16,384)\n";
        let bw = "tcp_bw:\n    bw        =  3.49033 Mb/sec\n    msg_size  =  1 bytes\n";
        assert_eq!(read(lat, Load::Rr).unwrap().sample[&Metric::MeanUs], 13.9);
        let gbps = read(bw, Load::Stream).unwrap().sample[&Metric::Gbps];
        assert!((gbps - 0.003_490_33).abs() < 1e-9, "{gbps}");
        assert!(read("tcp_lat:\n", Load::Rr).is_err());
    }
}
