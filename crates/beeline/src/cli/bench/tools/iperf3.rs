//! iperf3: one way, from client to server.

use anyhow::{Context, Result};
use testbed::process::NsCommand;

use super::{Job, Told};
use crate::cli::bench::metric::{Metric, Sample};

pub(super) fn server(job: &Job<'_>) -> NsCommand {
    job.server("iperf3").args(["-s", "-1", "-p", &job.port()])
}

pub(super) fn client(job: &Job<'_>) -> NsCommand {
    job.client("iperf3").args([
        "-J",
        "-c",
        &job.to().ip().to_string(),
        "-p",
        &job.port(),
        "-t",
        &job.seconds().to_string(),
        "-l",
        &job.cell.size.to_string(),
        "-P",
        &job.cell.connections.to_string(),
    ])
}

pub(super) fn read(text: &str) -> Result<Told> {
    let report: serde_json::Value = serde_json::from_str(text)?;
    let sum = &report["end"]["sum_received"];
    let bits = sum["bits_per_second"].as_f64().context("no throughput")?;
    Ok(Told {
        sample: Sample::from([(Metric::Gbps, bits / 1e9)]),
        bytes: Some(sum["bytes"].as_f64().context("no bytes")?),
        requests: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_counts() {
        let text = r#"{"end":{"sum_sent":{"bits_per_second":9e9,"bytes":1},
            "sum_received":{"bits_per_second":8e9,"bytes":1000000000}}}"#;
        let told = read(text).unwrap();
        assert_eq!(told.sample[&Metric::Gbps], 8.0);
        let sample = told.with_cpu(std::time::Duration::from_secs(2));
        assert_eq!(sample[&Metric::CpuSPerGb], 2.0);
        assert!(read(r#"{"error":"unable to connect"}"#).is_err());
    }
}
