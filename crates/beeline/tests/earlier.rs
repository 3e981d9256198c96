//! Connections from before the agent are adopted, unless they are to be left alone.

mod common;

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::{Beeline, SOON, pair};
use serde_json::Value;
use tempfile::TempDir;
use testbed::{Cgroup, kernel_test, traffic, wait_for};

/// Requests and answers of `size` bytes, each read before the next.
fn talk((a, b): &(TcpStream, TcpStream), size: usize) {
    let (sent, mut got) = (vec![7; size], vec![0; size]);
    for (from, to) in [(a, b), (b, a)] {
        traffic::write_all(from, &sent).unwrap();
        traffic::read_all(to, &mut got).unwrap();
        assert_eq!(got, sent);
    }
}

fn work(beeline: &Beeline, what: &str) -> u64 {
    beeline.status()["work"][what].as_u64().expect("a number")
}

fn adopted(beeline: &Beeline, pairs: &[(TcpStream, TcpStream)]) {
    let all = || work(beeline, "connections") == pairs.len() as u64;
    wait_for("the connections to be adopted", SOON, all).unwrap();
    // The client's end comes first, and what is sent before both are there takes the kernel path.
    wait_for("the redirect", SOON, || {
        let before = work(beeline, "redirected_bytes");
        pairs.iter().for_each(|pair| talk(pair, 10_000));
        work(beeline, "redirected_bytes") - before == 20_000 * pairs.len() as u64
    })
    .unwrap();
}

kernel_test! {
    fn connections_from_before_the_agent_are_adopted(cgroup: &Cgroup) {
        let pairs = [pair(), pair(), pair()];
        talk(&pairs[1], 100_000);
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        adopted(&beeline, &pairs);
        let conns = beeline.json(&["conns", "--json"]);
        let ports = |conn: &Value| conn["client"]["local"].as_str().map(str::to_owned);
        let mut listed: Vec<_> = conns.as_array().unwrap().iter().map(ports).collect();
        let own = |(a, _): &(TcpStream, TcpStream)| Some(a.local_addr().unwrap().to_string());
        let mut clients: Vec<_> = pairs.iter().map(own).collect();
        listed.sort();
        clients.sort();
        assert_eq!(listed, clients);
    }

    fn they_are_left_alone_where_that_is_asked_for(cgroup: &Cgroup) {
        let pairs = [pair()];
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent_with(&["--adopt=off"]);
        // Longer than from one look to the next at the begin.
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(work(&beeline, "connections"), 0);
        assert!(agent.terminate());
        let _agent = beeline.agent();
        adopted(&beeline, &pairs);
    }

    fn rules_say_which(cgroup: &Cgroup) {
        let dir = TempDir::new().unwrap();
        let (left, taken) = (pair(), pair());
        let port = left.1.local_addr().unwrap().port();
        let rule = format!("[[rule]]\npath = \"kernel\"\nlocal = {{ port = {port} }}\n");
        fs::write(dir.path().join("config.toml"), rule).unwrap();
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent_with(&["--config", dir.path().to_str().unwrap()]);
        adopted(&beeline, &[taken]);
        talk(&left, 1000);
        assert_eq!(work(&beeline, "connections"), 0);
    }
}
