//! redis-benchmark: GET of values of the cell's size.

use std::path::Path;

use anyhow::{Context, Result};
use testbed::process::NsCommand;

use super::{Job, Told};
use crate::cli::bench::metric::{Metric, Sample};

/// Requests for each second of a turn; it cannot be told to run for a time.
const REQUESTS: u64 = 20_000;
const SOCKET: &str = "redis.sock";

pub(super) fn server(job: &Job<'_>, dir: &Path) -> NsCommand {
    let socket = dir.join(SOCKET).display().to_string();
    job.server("redis-server").args([
        "--port",
        &job.port(),
        "--bind",
        "0.0.0.0",
        "--unixsocket",
        &socket,
        "--protected-mode",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
    ])
}

pub(super) fn client(job: &Job<'_>, dir: &Path) -> NsCommand {
    let client = job.client("redis-benchmark");
    let client = if job.over_unix {
        client.args(["-s", &dir.join(SOCKET).display().to_string()])
    } else {
        client.args(["-h", &job.to().ip().to_string(), "-p", &job.port()])
    };
    client.args([
        "-c",
        &job.cell.connections.to_string(),
        "-n",
        &requests(job).to_string(),
        "-d",
        &job.cell.size.to_string(),
        "-t",
        "get",
        "--csv",
    ])
}

fn requests(job: &Job<'_>) -> u64 {
    REQUESTS * job.seconds()
}

pub(super) fn read(text: &str, job: &Job<'_>) -> Result<Told> {
    Ok(Told {
        sample: sample(text)?,
        bytes: None,
        requests: Some(requests(job) as f64),
    })
}

/// A line of names, and a line of values in the same order.
fn sample(text: &str) -> Result<Sample> {
    let mut lines = text.lines().map(|line| line.split(','));
    let names = lines.next().context("no header")?;
    let values = lines.next().context("no values")?;
    let unquoted = |text: &str| text.trim_matches('"').to_owned();
    let pairs: Vec<_> = names.map(unquoted).zip(values.map(unquoted)).collect();
    let number = |name: &str| {
        let pair = pairs.iter().find(|(other, _)| other == name);
        let value = pair.and_then(|(_, value)| value.parse::<f64>().ok());
        value.with_context(|| format!("no {name}"))
    };
    Ok(Sample::from([
        (Metric::PerSecond, number("rps")?),
        (Metric::P50Us, number("p50_latency_ms")? * 1e3),
        (Metric::P99Us, number("p99_latency_ms")? * 1e3),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let text = "\"test\",\"rps\",\"p50_latency_ms\",\"p99_latency_ms\"\n\
                    \"GET\",\"50505.05\",\"0.023\",\"0.031\"\n";
        let sample = sample(text).unwrap();
        assert_eq!(sample[&Metric::PerSecond], 50505.05);
        assert_eq!(
            (sample[&Metric::P50Us], sample[&Metric::P99Us]),
            (23.0, 31.0)
        );
        assert!(super::sample("\"test\",\"rps\"\n\"GET\",\"1\"\n").is_err());
    }
}
