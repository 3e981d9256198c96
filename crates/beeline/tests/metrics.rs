//! The metrics are what the test itself did, and in the form that Prometheus wants.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use common::{Agent, Beeline, SOON, pair, text};
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

/// An agent that serves metrics at a free port, and their address.
fn serving(beeline: &Beeline) -> (Agent, String) {
    let agent = beeline.agent_at("127.0.0.1:0");
    let url = agent
        .said
        .lines()
        .find_map(|line| line.strip_prefix("metrics at "));
    let url = url.unwrap_or_else(|| panic!("{}", agent.said)).to_owned();
    (agent, url)
}

/// Scrapes as an uncovered process does; else the scrape itself would be counted.
fn scrape(url: &str) -> String {
    let elsewhere = Cgroup::create("scrape").unwrap();
    let join = "echo $$ >$0/cgroup.procs && exec curl -sSf --max-time 20 $1";
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", join]).arg(elsewhere.path()).arg(url);
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Series and their values.
fn values(page: &str) -> HashMap<String, u64> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse::<f64>().unwrap() as u64)
    };
    samples.map(pair).collect()
}

kernel_test! {
    fn metrics_count_what_was_sent(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        for _ in 0..3 {
            let (client, server) = pair();
            stream::send(&client, 1, 7_000, 700).unwrap();
            drop(server);
        }
        let (client, _server) = pair();
        stream::send(&client, 1, 9_000, 900).unwrap();
        let closed = || values(&scrape(&url))["beeline_connections"] == 1;
        wait_for("the closed ones", SOON, closed).unwrap();
        let seen = values(&scrape(&url));
        assert_eq!(seen["beeline_on"], 1);
        assert_eq!(seen["beeline_enrolled_connections_total"], 4);
        assert_eq!(seen["beeline_sockets"], 2);
        assert_eq!(seen["beeline_redirected_bytes_total"], 3 * 7_000 + 9_000);
        assert_eq!(seen["beeline_redirected_messages_total"], 40);
        assert_eq!(seen["beeline_kernel_path_bytes_total"], 0);
        assert_eq!(seen["beeline_kernel_path_total{reason=\"mptcp\"}"], 0);
        assert!(seen["process_resident_memory_bytes"] > 0);
    }

    fn more_connections_make_no_more_series(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let before = values(&scrape(&url)).len();
        let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
        let seen = values(&scrape(&url));
        assert_eq!(seen["beeline_connections"], 20);
        assert_eq!(seen.len(), before);
        drop(pairs);
    }

    fn promtool_finds_nothing_to_complain_about(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let mut promtool = Command::new("promtool");
        let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut child = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(scrape(&url).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && text(&output).is_empty(), "{}", text(&output));
    }

    fn an_address_that_was_chosen_and_is_taken_is_an_error(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_taken, addr) = traffic::listen(([127, 0, 0, 1], 0)).unwrap();
        let config = std::env::temp_dir().join(format!("{}.toml", beeline.instance));
        fs::write(&config, format!("[http]\nlisten = \"{addr}\"")).unwrap();
        let said = beeline.fails(&["run", "--cgroup", &beeline.cgroup, "--config", config.to_str().unwrap()]);
        fs::remove_file(config).unwrap();
        assert!(said.contains(&addr.to_string()) && said.contains("listen"), "{said}");
        assert!(!beeline.pins().dir().exists());
    }
}
