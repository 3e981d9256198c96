//! What the agent says, and in which form.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Stdio};

use common::{Beeline, SOON, pair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testbed::{Cgroup, kernel_test, wait_for};

/// An agent, and its log.
struct Logged {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Logged {
    fn start(beeline: &Beeline, args: &[&str]) -> Self {
        let mut child = beeline
            .command(&[&["run", "--cgroup", &beeline.cgroup], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Up to a line with that message.
    fn until(&mut self, message: &str) -> Vec<Value> {
        let mut lines = vec![self.next()];
        while lines.last().unwrap()["message"] != message {
            lines.push(self.next());
        }
        lines
    }

    /// Stops it, and returns what else it says: on stdout, in the log.
    fn stop(&mut self) -> (String, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let (mut out, mut log) = (String::new(), String::new());
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        self.log.read_to_string(&mut log).unwrap();
        self.child.wait().unwrap();
        (out, log)
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that is gone when this returns.
fn connection(beeline: &Beeline) {
    let ever = || beeline.status()["work"]["connections_ever"].as_u64();
    let before = ever();
    drop(pair());
    wait_for("the connection", SOON, || ever() > before).unwrap();
}

kernel_test! {
    fn in_json_every_line_is_an_object_and_none_is_of_a_connection(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let mut agent = Logged::start(&beeline, &["--log", "json"]);
        let start = agent.until("serving").pop().unwrap();
        assert_eq!(start["level"], "INFO");
        assert_eq!(start["cgroup"], beeline.cgroup);
        assert_eq!(start["instance"], beeline.instance);
        assert!(start["timestamp"].is_string() && start["connections"].is_u64(), "{start}");
        wait_for("the agent", SOON, || beeline.status()["agent"].is_object()).unwrap();
        connection(&beeline);
        let (out, log) = agent.stop();
        assert_eq!(out, "");
        let log: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(log.len(), 1, "{log:?}");
        assert!(log[0]["message"].as_str().unwrap().contains("stopped"));
    }

    fn at_debug_it_says_what_it_is_asked(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let mut agent = Logged::start(&beeline, &["--log", "json", "--log-level", "debug"]);
        agent.until("serving");
        wait_for("the agent", SOON, || beeline.status()["agent"].is_object()).unwrap();
        let asked = agent.next();
        assert_eq!((&asked["level"], &asked["request"]), (&"DEBUG".into(), &"Some(Info)".into()));
    }

    fn in_json_the_reason_why_it_cannot_start_is_json_too(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let mut agent = Logged::start(&beeline, &["--log", "json", "--config", "/nonexistent.toml"]);
        let error = agent.next();
        assert_eq!(error["level"], "ERROR");
        assert!(error["message"].as_str().unwrap().contains("/nonexistent.toml"), "{error}");
        assert!(!agent.child.wait().unwrap().success());
    }

    fn for_people_the_start_is_on_stdout_and_warnings_are_in_the_log(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        // Taken, so that there are no metrics at the default address.
        let _taken = std::net::TcpListener::bind("127.0.0.1:9474");
        let mut agent = Logged::start(&beeline, &[]);
        let mut warning = String::new();
        agent.log.read_line(&mut warning).unwrap();
        assert!(warning.contains(" WARN no metrics and no page: cannot serve HTTP on 127.0.0.1:9474"), "{warning}");
        wait_for("the agent", SOON, || beeline.status()["agent"].is_object()).unwrap();
        connection(&beeline);
        let (out, log) = agent.stop();
        assert!(out.starts_with("loaded the datapath") && out.contains("\nserving;"), "{out}");
        assert!(out.ends_with("(take it off: beeline detach)\n"), "{out}");
        assert_eq!(log, "");
    }
}
