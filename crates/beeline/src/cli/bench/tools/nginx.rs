//! wrk, one thread, against nginx, one process, which serves a file of the cell's size.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use testbed::process::NsCommand;

use super::{Job, Told, number_after};
use crate::cli::bench::metric::{Metric, Sample};

pub(super) fn server(job: &Job<'_>, dir: &Path) -> Result<NsCommand> {
    let (file, conf) = (dir.join("page"), dir.join("nginx.conf"));
    fs::write(&file, vec![b'x'; job.cell.size])?;
    fs::write(&conf, configuration(dir, &job.port()))?;
    let dir = dir.display().to_string();
    Ok(job
        .server("nginx")
        .args(["-p", &dir, "-c", &conf.display().to_string()]))
}

/// Without a master process, so that there is one process to end.
fn configuration(dir: &Path, port: &str) -> String {
    format!(
        "master_process off; daemon off; pid {dir}/nginx.pid; error_log stderr crit;
        events {{ worker_connections 8192; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000000;
            client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
            uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
            server {{ listen {port}; root {dir}; }}
        }}\n",
        dir = dir.display()
    )
}

pub(super) fn client(job: &Job<'_>) -> NsCommand {
    job.client("wrk").args([
        "-t",
        "1",
        "-c",
        &job.cell.connections.to_string(),
        "-d",
        &format!("{}s", job.seconds()),
        "--latency",
        &format!("http://{}/page", job.to()),
    ])
}

pub(super) fn read(text: &str) -> Result<Told> {
    let failed = ["Non-2xx", "Socket errors"];
    ensure!(
        !failed.iter().any(|word| text.contains(word)),
        "requests failed"
    );
    let per_second = number_after(text, "Requests/sec")
        .context("no Requests/sec")?
        .0;
    let requests = text
        .lines()
        .find_map(|line| line.split_once(" requests in"));
    let requests = requests.and_then(|(number, _)| number.trim().parse().ok());
    Ok(Told {
        sample: Sample::from([
            (Metric::PerSecond, per_second),
            (Metric::P50Us, micros(text, "50%")?),
            (Metric::P99Us, micros(text, "99%")?),
        ]),
        bytes: None,
        requests: Some(requests.context("no number of requests")?),
    })
}

fn micros(text: &str, label: &str) -> Result<f64> {
    let (_, distribution) = text
        .split_once("Latency Distribution")
        .context("no latencies")?;
    let (number, unit) =
        number_after(distribution, label).with_context(|| format!("no {label}"))?;
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        other => bail!("unknown unit {other}"),
    };
    Ok(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 1s test @ http://10.244.0.3:8080/page
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   200.50us   99.00us   5.00ms   99.00%
    Req/Sec    40.00k     1.00k   41.00k    90.00%
  Latency Distribution
     50%  190.00us
     75%  210.00us
     90%  250.00us
     99%    1.20ms
  40404 requests in 1.00s, 48.00MB read
Requests/sec:  40400.50
Transfer/sec:     48.00MB
";

    #[test]
    fn distribution_and_rate_are_read() {
        let told = read(TEXT).unwrap();
        assert_eq!(told.sample[&Metric::PerSecond], 40400.5);
        assert_eq!(told.sample[&Metric::P50Us], 190.0);
        assert_eq!(told.sample[&Metric::P99Us], 1200.0);
        assert_eq!(told.requests, Some(40404.0));
    }

    #[test]
    fn failed_requests_are_no_result() {
        let failed = format!("{TEXT}  Non-2xx or 3xx responses: 1\n");
        assert!(read(&failed).is_err());
    }
}
