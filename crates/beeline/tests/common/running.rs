//! A measurement under way, and what it has in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use libbpf_rs::Program;
use rustix::process::{Pid, Signal, kill_process};
use testbed::{cgroup2_mount, wait::wait_until, wait_for};

pub const BINARY: &str = env!("CARGO_BIN_EXE_beeline");
/// Also on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// Of all that a first Ctrl-C may interrupt.
const STOPS: Duration = Duration::from_secs(20);

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("beeline runs")
}

/// A measurement that has begun.
pub struct Running {
    pub child: Child,
    programs: BTreeSet<u32>,
    pub cgroup: PathBuf,
}

impl Running {
    /// Starts it and waits until it has attached a datapath; `prefix` is that of its cgroup's name.
    pub fn start(command: &mut Command, prefix: &str) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = child.id();
        let begun = wait_until("the measurement to attach", SOON, || {
            let programs = programs_of(pid);
            let cgroup = cgroup_of(prefix, pid)?;
            (attached(pid) && !programs.is_empty()).then_some((programs, cgroup))
        });
        if begun.is_err() {
            // It is reaped with the test's process group.
            let _ = child.kill();
        }
        let (programs, cgroup) = begun?;
        Ok(Self {
            child,
            programs,
            cgroup,
        })
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a pid")?;
        Ok(kill_process(pid, signal)?)
    }

    pub fn wait(&mut self) -> Result<ExitStatus> {
        let child = &mut self.child;
        Ok(wait_until("the end of the measurement", STOPS, || {
            child.try_wait().transpose()
        })??)
    }

    pub fn programs_are_gone(&self) -> Result<()> {
        Ok(wait_for("the end of the programs", SOON, || {
            self.programs
                .iter()
                .all(|id| Program::fd_from_id(*id).is_err())
        })?)
    }

    /// The processes in its cgroup.
    pub fn members(&self) -> BTreeSet<u32> {
        let text = fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }
}

/// The values of a field such as `prog_id` in what /proc says of a process's descriptors.
fn fdinfo(pid: u32, field: &str) -> BTreeSet<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let value = |text: String| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line?.trim().parse().ok()
    };
    texts.filter_map(value).collect()
}

fn programs_of(pid: u32) -> BTreeSet<u32> {
    fdinfo(pid, "prog_id")
}

fn attached(pid: u32) -> bool {
    !fdinfo(pid, "link_id").is_empty()
}

/// The measurement's cgroup, once it has one.
fn cgroup_of(prefix: &str, pid: u32) -> Option<PathBuf> {
    let prefix = format!("{prefix}-{pid}-");
    let mut entries = fs::read_dir(cgroup2_mount().ok()?).ok()?.flatten();
    entries
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
}
