//! The metrics are what the test itself did, and in the form that Prometheus wants.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Agent, Beeline, SOON, pair, text};
use serde_json::Value;
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

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/grafana/beeline.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The queries of all panels, and of the variables at the top.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let texts = targets
        .map(|target| &target["expr"])
        .chain(variables.map(|one| &one["query"]["query"]));
    texts
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// The words of a query that name metrics: ours, and those that every process has.
fn metrics_of(query: &str) -> Vec<&str> {
    let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words
        .filter(|word| {
            ["beeline_", "process_"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
        })
        .collect()
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

    fn histograms_are_of_what_was_sent(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let (client, server) = pair();
        stream::send(&client, 1, 7_000, 700).unwrap();
        stream::send(&server, 1, 64, 64).unwrap();
        let seen = values(&scrape(&url));
        let sizes = |le: &str| seen[&format!("beeline_message_size_bytes_bucket{{path=\"socket\",le=\"{le}\"}}")];
        assert_eq!(["32", "64", "512", "1024", "+Inf"].map(sizes), [0, 1, 1, 11, 11]);
        assert_eq!(seen["beeline_message_size_bytes_sum{path=\"socket\"}"], 7_064);
        assert_eq!(seen["beeline_message_size_bytes_count{path=\"kernel\"}"], 0);
        let depths = |le: &str| seen[&format!("beeline_queue_depth_bytes_bucket{{le=\"{le}\"}}")];
        assert_eq!(["0", "1024", "2048", "4096", "8192"].map(depths), [2, 3, 4, 7, 11]);
        assert_eq!(seen["beeline_handshake_duration_seconds_count"], 1);
        assert_eq!(seen["beeline_connection_lifetime_seconds_count"], 0);
        drop((client, server));
        let closed = || values(&scrape(&url))["beeline_connection_lifetime_seconds_count"] == 1;
        wait_for("the end of one", SOON, closed).unwrap();
        assert_eq!(values(&scrape(&url))["beeline_message_size_bytes_sum{path=\"socket\"}"], 7_064);
    }

    fn pairs_of_workloads_have_series_of_their_own(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let (web, app) = (cgroup.child("web").unwrap(), cgroup.child("app").unwrap());
        web.enter().unwrap();
        let (listener, addr) = traffic::listen(([127, 0, 0, 1], 0)).unwrap();
        app.enter().unwrap();
        let client = traffic::connect(addr).unwrap();
        let _server = traffic::accept(&listener).unwrap();
        cgroup.enter().unwrap();
        stream::send(&client, 1, 7_000, 700).unwrap();
        let seen = values(&scrape(&url));
        let root = cgroup.path().file_name().unwrap().to_str().unwrap();
        let between = format!("client=\"/{root}/app\",server=\"/{root}/web\"");
        assert_eq!(seen[&format!("beeline_pair_connections{{{between}}}")], 1);
        assert_eq!(seen[&format!("beeline_pair_sent_bytes_total{{{between},path=\"socket\"}}")], 7_000);
        assert_eq!(seen[&format!("beeline_pair_messages_total{{{between},path=\"socket\"}}")], 10);
        assert_eq!(seen[&format!("beeline_pair_messages_total{{{between},path=\"kernel\"}}")], 0);
        assert_eq!(seen["beeline_pair_connections{client=\"other\",server=\"other\"}"], 0);
        assert_eq!(seen["beeline_map_entries{map=\"pairs\"}"], 1);
        assert!(seen["beeline_map_memory_bytes{map=\"hists\"}"] > 0);
    }

    fn dashboard_asks_for_metrics_that_exist(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let seen = values(&scrape(&url));
        let names: HashSet<&str> = seen.keys().map(|series| series.split('{').next().unwrap()).collect();
        let asked = queries(&dashboard());
        assert!(asked.len() >= 20, "{asked:?}");
        for query in &asked {
            let metrics = metrics_of(query);
            assert!(!metrics.is_empty(), "{query}");
            for metric in metrics {
                assert!(names.contains(metric), "{metric} of {query}");
            }
        }
    }

    fn more_connections_make_no_more_series(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        // Its workloads have series.
        let _first = pair();
        let before = values(&scrape(&url)).len();
        let pairs: Vec<_> = (0..20).map(|_| pair()).collect();
        let seen = values(&scrape(&url));
        assert_eq!(seen["beeline_connections"], 21);
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
