//! Programs that people run, as loads.

mod iperf3;
mod nginx;
mod postgres;
mod qperf;
mod redis;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use testbed::process::{NsCommand, find};
use testbed::{ChildGuard, NetNs, wait_for};

use super::cells::Cell;
use super::metric::{Metric, Sample};
use crate::cli::measure::bed::Bed;
use crate::cli::measure::cpu::Cpu;
use crate::cli::measure::host::pin;
use crate::cli::measure::traffic::Load;

/// How long a server may take to start, and to end when asked to.
const SOON: Duration = Duration::from_secs(20);

/// A program, or a client and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Tool {
    /// qperf's tcp_lat and tcp_bw
    Qperf,
    /// iperf3, one way
    Iperf3,
    /// redis-benchmark, GET, against redis-server
    Redis,
    /// wrk against nginx
    Wrk,
    /// pgbench, select only, against PostgreSQL
    Pgbench,
}

/// What the programs need on disk.
#[derive(Debug)]
pub(super) struct Tools {
    dir: PathBuf,
    postgres_is_ready: bool,
}

/// One turn of a program.
pub(super) struct Job<'a> {
    pub(super) cell: Cell,
    pub(super) bed: &'a Bed,
    pub(super) over_unix: bool,
    pub(super) duration: Duration,
    pub(super) cpu: Cpu,
}

/// What a client printed, read.
struct Told {
    sample: Sample,
    /// Payload in bytes and requests of the whole run, as far as the program tells.
    bytes: Option<f64>,
    requests: Option<f64>,
}

impl Tool {
    pub(super) const ALL: [Self; 5] = [
        Self::Qperf,
        Self::Iperf3,
        Self::Redis,
        Self::Wrk,
        Self::Pgbench,
    ];

    /// As in JSON and on the command line.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Qperf => "qperf",
            Self::Iperf3 => "iperf3",
            Self::Redis => "redis",
            Self::Wrk => "wrk",
            Self::Pgbench => "pgbench",
        }
    }

    /// What it can do; the first is what it is for.
    pub(in crate::cli) fn loads(self) -> &'static [Load] {
        match self {
            Self::Qperf => &[Load::Rr, Load::Stream],
            Self::Iperf3 => &[Load::Stream],
            Self::Redis | Self::Wrk | Self::Pgbench => &[Load::Rr],
        }
    }

    /// The size it is used with by itself: of its messages, values or pages, in bytes.
    pub(in crate::cli) fn size(self) -> usize {
        match self {
            // Its own default.
            Self::Iperf3 => 128 << 10,
            Self::Qperf | Self::Redis => 64,
            Self::Wrk => 1 << 10,
            // About one row of pgbench_accounts; not a choice.
            Self::Pgbench => 100,
        }
    }

    /// The nearest that it can do: qperf has one connection, and pgbench's rows have their size.
    pub(in crate::cli) fn able(self, size: usize, connections: usize) -> (usize, usize) {
        match self {
            Self::Qperf => (size, 1),
            Self::Pgbench => (self.size(), connections),
            Self::Iperf3 | Self::Redis | Self::Wrk => (size, connections),
        }
    }

    /// Whether client and server can talk over a Unix socket.
    pub(in crate::cli) fn knows_unix(self) -> bool {
        matches!(self, Self::Redis | Self::Pgbench)
    }

    /// Programs and their packages in Debian.
    fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Qperf => &[("qperf", "qperf")],
            Self::Iperf3 => &[("iperf3", "iperf3")],
            Self::Redis => &[
                ("redis-benchmark", "redis-tools"),
                ("redis-server", "redis-server"),
            ],
            Self::Wrk => &[("wrk", "wrk"), ("nginx", "nginx-light")],
            Self::Pgbench => postgres::PROGRAMS,
        }
    }

    /// A program that it needs and that is not installed, and the package that has it.
    pub(in crate::cli) fn missing(self) -> Option<(&'static str, &'static str)> {
        let gone = |(program, _): &&(&'static str, &'static str)| locate(program).is_none();
        self.programs().iter().find(gone).copied()
    }

    /// The first line that it prints of its version.
    pub(super) fn version(self) -> String {
        let (program, _) = self.programs()[0];
        // wrk knows no other, and goes on to complain.
        let flag = if self == Self::Wrk { "-v" } else { "--version" };
        let output = locate(program).and_then(|path| Command::new(path).arg(flag).output().ok());
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().next().unwrap_or("unknown").trim().to_owned()
    }
}

/// Where a program is. Debian keeps PostgreSQL's out of the PATH, one directory a version.
fn locate(program: &str) -> Option<PathBuf> {
    find(program).or_else(|| postgres::find(program))
}

impl Tools {
    /// Uses `dir`, which others may look into: some servers give up being root.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            dir: dir.to_owned(),
            postgres_is_ready: false,
        })
    }

    /// Makes what the program needs before its first turn.
    pub(super) fn prepare(&mut self, tool: Tool, bed: &Bed) -> Result<()> {
        if tool == Tool::Pgbench && !self.postgres_is_ready {
            postgres::prepare(&self.dir, bed)?;
            self.postgres_is_ready = true;
        }
        Ok(())
    }

    /// Starts the server, runs the client, ends the server.
    pub(super) fn turn(&self, tool: Tool, job: &Job<'_>) -> Result<Sample> {
        let server = match tool {
            Tool::Qperf => qperf::server(job),
            Tool::Iperf3 => iperf3::server(job),
            Tool::Redis => redis::server(job, &self.dir),
            Tool::Wrk => nginx::server(job, &self.dir)?,
            Tool::Pgbench => postgres::server(job, &self.dir)?,
        };
        let server = Server::start(tool, server, job)?;
        if tool == Tool::Pgbench {
            postgres::wait(job, &self.dir)?;
        }
        let client = match tool {
            Tool::Qperf => qperf::client(job),
            Tool::Iperf3 => iperf3::client(job),
            Tool::Redis => redis::client(job, &self.dir),
            Tool::Wrk => nginx::client(job),
            Tool::Pgbench => postgres::client(job, &self.dir)?,
        };
        let before = job.cpu.used()?;
        let text = on_core(job.bed.client(), job.bed.cores().client, || client.run())?;
        let cpu = job.cpu.used()?.saturating_sub(before);
        server.stop()?;
        let told = match tool {
            Tool::Qperf => qperf::read(&text, job.cell.load),
            Tool::Iperf3 => iperf3::read(&text),
            Tool::Redis => redis::read(&text, job),
            Tool::Wrk => nginx::read(&text),
            Tool::Pgbench => postgres::read(&text),
        };
        let told = told.with_context(|| format!("{} printed: {text}", tool.name()))?;
        Ok(told.with_cpu(cpu))
    }
}

impl Told {
    fn with_cpu(mut self, cpu: Duration) -> Sample {
        let seconds = cpu.as_secs_f64();
        if let Some(bytes) = self.bytes {
            self.sample.insert(Metric::CpuSPerGb, seconds / bytes * 1e9);
        }
        if let Some(requests) = self.requests {
            self.sample
                .insert(Metric::CpuSPerMillion, seconds / requests * 1e6);
        }
        self.sample
    }
}

impl Job<'_> {
    /// Whole seconds, as most programs count.
    fn seconds(&self) -> u64 {
        self.duration.as_secs().clamp(1, 20)
    }

    fn to(&self) -> SocketAddr {
        self.bed.to()
    }

    fn port(&self) -> String {
        self.bed.listen().port().to_string()
    }

    fn client(&self, program: &str) -> NsCommand {
        self.bed.client().command(program)
    }

    fn server(&self, program: &str) -> NsCommand {
        self.bed.server().command(program)
    }
}

/// Runs `start` in a namespace and on a core; programs that it starts stay there.
pub(super) fn on_core<T: Send>(
    ns: &NetNs,
    core: usize,
    start: impl FnOnce() -> testbed::Result<T> + Send,
) -> Result<T> {
    ns.run(|| {
        pin(core)?;
        Ok(start()?)
    })?
}

/// A server that somebody can connect to.
struct Server {
    child: ChildGuard,
}

impl Server {
    fn start(tool: Tool, command: NsCommand, job: &Job<'_>) -> Result<Self> {
        let quiet = command.with(|command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        });
        let ns = job.bed.server();
        let mut child = on_core(ns, job.bed.cores().server, || quiet.spawn())?;
        let port = job.bed.listen().port();
        // A connection to find out would be counted.
        let listens = || {
            let over = child.child().try_wait().is_ok_and(|ended| ended.is_some());
            over || ns.listens(port).unwrap_or(false)
        };
        wait_for(
            &format!("the start of the server of {}", tool.name()),
            SOON,
            listens,
        )?;
        ensure!(
            ns.listens(port)?,
            "the server of {} ended instead of listening on port {port}",
            tool.name()
        );
        Ok(Self { child })
    }

    /// Asks it to end and waits; it is killed only when it does not.
    fn stop(mut self) -> Result<()> {
        stop(&mut self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is killed next.
        let _ = stop(&mut self.child);
    }
}

/// Ends a program as Ctrl-C does, which all of them take as the wish to clean up and go.
fn stop(child: &mut ChildGuard) -> Result<()> {
    if child.child().try_wait()?.is_none() {
        let pid = Pid::from_raw(child.pid().cast_signed()).context("a process has a number")?;
        kill_process(pid, Signal::INT)?;
        child.wait(SOON)?;
    }
    Ok(())
}

/// The number after `label`, which may be followed by a unit.
fn number_after<'a>(text: &'a str, label: &str) -> Option<(f64, &'a str)> {
    let rest = text.split_once(label)?.1;
    let rest = rest.trim_start_matches([' ', '=', ':', '\t']);
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
        .unwrap_or(rest.len());
    let number = rest[..end].replace(',', "").parse().ok()?;
    let unit = rest[end..].split_whitespace().next().unwrap_or("");
    Some((number, unit))
}
