//! An agent with rules, and what they make of connections.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use testbed::Cgroup;

use super::{Agent, Beeline, pair, write_unnoticed};

/// An instance with rules of its own, and the agent that put them in force.
pub struct Bed {
    pub beeline: Beeline,
    dir: TempDir,
    pub agent: Option<Agent>,
    /// In front of all rules.
    head: String,
}

impl Bed {
    pub fn new(cgroup: &Cgroup, rules: &str) -> Self {
        Self::with(cgroup, String::new(), rules)
    }

    /// With settings in front of the rules, which stay when these change.
    pub fn with(cgroup: &Cgroup, head: String, rules: &str) -> Self {
        let (beeline, dir) = (Beeline::new(cgroup), TempDir::new().unwrap());
        let mut bed = Self {
            beeline,
            dir,
            agent: None,
            head,
        };
        bed.write(rules);
        bed.start();
        bed
    }

    pub fn start(&mut self) {
        let dir = self.dir.path().to_str().unwrap();
        self.agent = Some(self.beeline.agent_with(&["--config", dir]));
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    pub fn write(&self, rules: &str) {
        fs::write(self.file(), self.head.clone() + rules).unwrap();
    }

    pub fn reload(&self, rules: &str) -> Value {
        write_unnoticed(&self.file(), &(self.head.clone() + rules));
        let out = self.beeline.json(&["reload", "--json"]);
        assert_eq!(out["outcome"], "in_force", "{out}");
        out
    }

    pub fn reasons(&self) -> Value {
        self.beeline.status()["work"]["reasons"].clone()
    }

    pub fn count(&self, reason: &str) -> u64 {
        self.reasons()[reason].as_u64().unwrap_or(0)
    }

    pub fn redirected(&self) -> Value {
        self.beeline.status()["work"]["redirected_bytes"].clone()
    }

    /// These connections were enrolled, and are on the kernel path because of rules.
    pub fn all_excluded(&self, count: usize) {
        let conns = self.beeline.json(&["conns", "--json"]);
        let conns = conns.as_array().unwrap();
        assert_eq!(conns.len(), count);
        for end in conns
            .iter()
            .flat_map(|conn| [&conn["client"], &conn["server"]])
        {
            assert_eq!(
                (&end["path"], &end["reason"]),
                (&"kernel".into(), &"excluded".into())
            );
        }
    }

    /// Makes a connection, and returns why it is on the kernel path.
    pub fn why(&self) -> Option<String> {
        let before = self.reasons();
        let ends = pair();
        let after = self.reasons();
        drop(ends);
        let after = after.as_object().unwrap().iter();
        let mut more = after.filter(|(reason, count)| before[reason] != **count);
        more.next().map(|(reason, _)| reason.clone())
    }
}

pub fn excluded() -> Option<String> {
    Some("excluded".into())
}

/// The path from the root of cgroup2.
pub fn path(cgroup: &Cgroup) -> String {
    let mount = testbed::cgroup2_mount().unwrap();
    let path = cgroup.path().strip_prefix(mount).unwrap();
    format!("/{}", path.display())
}

pub fn kernel(local: &str, remote: &str) -> String {
    format!("[[rule]]\npath = \"kernel\"\nlocal = {{ {local} }}\nremote = {{ {remote} }}\n")
}

/// A connection whose ends block, as std makes them.
pub fn blocking(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

pub fn unblock(pair: &(TcpStream, TcpStream)) {
    pair.0.set_nonblocking(true).unwrap();
    pair.1.set_nonblocking(true).unwrap();
}
