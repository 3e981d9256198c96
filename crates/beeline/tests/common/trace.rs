//! A running `beeline trace`.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testbed::wait_for;

use super::{Beeline, SOON};

/// It reads events when this is made.
pub struct Trace {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Trace {
    pub fn follow(beeline: &Beeline, args: &[&str]) -> Self {
        let mut child = beeline
            .command(&[&["trace"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let maps = beeline.maps();
        wait_for("tracing", SOON, || maps.settings().unwrap().tracing == 1).unwrap();
        Self { child, lines }
    }

    /// The next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// The same, as with `--json`.
    pub fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// What it says when it is interrupted.
    pub fn interrupt(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let errors = self.child.stderr.take().unwrap();
        assert!(self.child.wait().unwrap().success());
        io::read_to_string(errors).unwrap()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
