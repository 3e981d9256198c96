//! The self-test: before Beeline attaches to anyone, it tries itself on connections of its own, with
//! the real programs, in a network namespace and a cgroup that exist for nothing else.
//!
//! It runs in a process of its own, which has one thread, so that its sockets are like those of the
//! simplest program; and which can be killed if a call hangs. Nothing is pinned: the kernel removes
//! programs, maps and namespace with the process. An empty cgroup may stay when it is killed; the
//! next one removes it.

mod meaning;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use datapath::hist::Kept;
use datapath::probe::{self, Refusal};
use datapath::selftest::{self, Check, Failure};
use datapath::socket::{Options, SocketPath};
use serde::{Deserialize, Serialize};
use testbed::{Cgroup, NetNs};

use crate::instance::Instance;

pub use meaning::Consequence;

/// The hidden command that [`run`] starts.
pub const COMMAND: &str = "self-test";

/// Prefix of the cgroup.
const CGROUP: &str = "beeline-selftest";

/// What a self-test found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How long it took, loading included.
    pub milliseconds: u64,
    /// How many checks ran.
    pub checks: usize,
    /// Those that failed.
    pub failures: Vec<Failed>,
}

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The name of the check.
    pub check: String,
    /// What happened instead.
    pub found: String,
    /// What it changes.
    pub consequence: Consequence,
    /// What that means for people.
    pub meaning: String,
}

impl Report {
    fn new(findings: &[selftest::Finding], milliseconds: u64) -> Self {
        let failed = |check: Check, failure: &Failure| Failed {
            check: check.name().into(),
            found: failure.to_string(),
            consequence: meaning::consequence(check, failure),
            meaning: meaning::meaning(check, failure).into(),
        };
        Self {
            milliseconds,
            checks: findings.len(),
            failures: findings
                .iter()
                .filter_map(|f| f.failure.as_ref().map(|failure| failed(f.check, failure)))
                .collect(),
        }
    }

    /// The kernel did not take the programs, so there was nothing to check.
    fn not_loaded(refusal: &Refusal, begin: Instant) -> Self {
        let load = Failed {
            check: "load".into(),
            found: refusal.to_string(),
            consequence: Consequence::Stops,
            meaning: "nothing could be redirected".into(),
        };
        Self {
            milliseconds: milliseconds_since(begin),
            checks: 1,
            failures: vec![load],
        }
    }

    /// The first failure that forbids the socket path.
    #[must_use]
    pub fn obstacle(&self) -> Option<&Failed> {
        let stops = |failed: &&Failed| failed.consequence == Consequence::Stops;
        self.failures.iter().find(stops)
    }

    /// Keeps the report for `beeline status`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, instance: &Instance) -> Result<()> {
        let path = instance.self_test_file();
        let text = serde_json::to_vec(self).context("cannot write the self-test as JSON")?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the agent that started last had found; `None` when there is nothing to read.
    #[must_use]
    pub fn kept(instance: &Instance) -> Option<Self> {
        let text = fs::read(instance.self_test_file()).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// Runs the self-test in a process of its own.
///
/// # Errors
/// When it cannot be run at all; what it finds is no error.
pub fn run() -> Result<Report> {
    let ns = NetNs::new("self-test").context("the self-test needs a network namespace")?;
    // Also when the file was replaced by that of another version.
    let own = format!("/proc/{}/exe", std::process::id());
    let output = ns
        .command(&own)
        .arg(COMMAND)
        .output()
        .context("cannot run the self-test")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ");
        bail!(
            "the self-test could not be run, so nothing was attached: {said}; see `beeline doctor`"
        );
    }
    serde_json::from_slice(&output.stdout).context("the self-test said something else than JSON")
}

/// What the process of the self-test does, in a namespace made for it.
///
/// # Errors
/// When it cannot be run at all.
pub fn here() -> Result<Report> {
    let begin = Instant::now();
    let cgroup = Cgroup::create(CGROUP)?;
    cgroup.enter()?;
    let mut path = match probe::asked(|| SocketPath::load(options()))? {
        Ok(path) => path,
        Err(refusal) => return Ok(Report::not_loaded(&refusal, begin)),
    };
    path.attach(cgroup.path())?;
    let findings = selftest::run(&path)?;
    Ok(Report::new(&findings, milliseconds_since(begin)))
}

fn milliseconds_since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Small, so that a queue is full soon; and what others use of the host's memory does not matter.
fn options() -> Options {
    Options {
        connections: 64,
        queue_limit: 256 << 10,
        memory_limit: u64::MAX,
        histograms: Kept::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(check: Check, failure: Failure) -> Report {
        let finding = |failing| selftest::Finding {
            check: failing,
            failure: (failing == check).then(|| failure.clone()),
        };
        Report::new(&Check::ALL.map(finding), 1)
    }

    fn call(check: Check) -> Report {
        report(check, Failure::Call("it did not".into()))
    }

    #[test]
    fn wrong_data_stops_the_path_wherever_it_shows() {
        for check in Check::ALL {
            let report = report(check, Failure::Data("byte 7".into()));
            assert_eq!(report.obstacle().expect("an obstacle").check, check.name());
        }
    }

    #[test]
    fn what_every_program_relies_on_stops_the_path() {
        for check in [
            Check::Redirect,
            Check::Order,
            Check::OneQueue,
            Check::BackPressure,
            Check::ShutDown,
            Check::Close,
            Check::Retire,
            Check::FionreadRedirected,
            Check::FionreadKernelPath,
        ] {
            assert!(call(check).obstacle().is_some(), "{}", check.name());
        }
    }

    #[test]
    fn what_single_programs_notice_is_a_limit() {
        for check in [Check::WayBack, Check::Splice] {
            let report = call(check);
            assert_eq!(report.failures[0].consequence, Consequence::Limits);
            assert!(!report.failures[0].meaning.is_empty());
            assert_eq!(report.obstacle(), None);
        }
    }
}
