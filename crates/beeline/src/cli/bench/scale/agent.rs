//! The real agent, as users run it, over the benchmark's cgroup.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use datapath::Maps;
use datapath::drain;
use datapath::pins::BPFFS;
use testbed::process::is_alive;
use testbed::{ChildGuard, NetNs, wait_for};

use super::own_executable;
use crate::control;
use crate::instance::Instance;

/// Of the names of its instances; the process id of the benchmark follows.
const PREFIX: &str = "beeline-bench-";
/// How long it may take to start or to be taken off; it takes a hundredth of that.
const SOON: Duration = Duration::from_secs(60);
/// How long an idle agent is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// An agent that serves; dropped, it is ended, and its datapath taken off.
pub(super) struct Agent {
    instance: Instance,
    child: Option<ChildGuard>,
}

impl Agent {
    /// Starts one that covers `cgroup` and may enrol so many connections; what it reads and writes is put
    /// into `dir`.
    pub(super) fn start(cgroup: &Path, connections: usize, dir: &Path) -> Result<Self> {
        sweep();
        let instance: Instance = format!("{PREFIX}{}", std::process::id()).parse()?;
        let (config, log) = (dir.join("agent.toml"), dir.join("agent.log"));
        fs::write(&config, configuration(connections)?)?;
        let (config, errors) = (config.display().to_string(), File::create(&log)?);
        let (name, cgroup) = (instance.to_string(), cgroup.display().to_string());
        let command = NetNs::current()?.command(&own_executable());
        let command = command
            .args(["--instance", &name, "run", "--cgroup", &cgroup, "--config"])
            .arg(config)
            .with(|command| {
                command.stdout(Stdio::null()).stderr(errors);
            });
        let mut agent = Self {
            child: Some(command.spawn()?),
            instance,
        };
        wait_for("the agent to serve", SOON, || {
            agent.has_ended() || control::agent(&agent.instance).is_some()
        })?;
        if agent.has_ended() {
            bail!("the agent ended: {}", fs::read_to_string(log)?.trim());
        }
        Ok(agent)
    }

    fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_none_or(|child| child.child().try_wait().is_ok_and(|ended| ended.is_some()))
    }

    /// The maps of its datapath.
    pub(super) fn maps(&self) -> Result<Maps> {
        Ok(Maps::open(&self.instance.pins())?)
    }

    /// Bytes of its memory that are resident.
    pub(super) fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(self.proc("status")?)?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.context("no VmRSS in its status")? * 1024)
    }

    /// The share of a core that it takes while nothing happens, in percent.
    pub(super) fn idle_percent(&self) -> Result<f64> {
        let (before, start) = (self.processor_time()?, Instant::now());
        std::thread::sleep(WATCHED);
        let used = self.processor_time()?.saturating_sub(before);
        Ok(used.as_secs_f64() / start.elapsed().as_secs_f64() * 1e2)
    }

    /// Of all its threads, of which none ends while it is idle.
    fn processor_time(&self) -> Result<Duration> {
        let threads = fs::read_dir(self.proc("task")?)?.flatten();
        let nanos = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Ok(Duration::from_nanos(nanos.sum()))
    }

    /// How long a command of this instance takes, from its start to its end; what it prints is lost.
    pub(super) fn time(&self, command: &str) -> Result<Duration> {
        let start = Instant::now();
        let status = std::process::Command::new(own_executable())
            .args(["--instance", &self.instance.to_string(), command])
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "beeline {command}: {status}");
        Ok(start.elapsed())
    }

    fn proc(&self, file: &str) -> Result<String> {
        let child = self.child.as_ref().context("it runs")?;
        Ok(format!("/proc/{}/{file}", child.pid()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child = None;
        // What stays when this fails, the next benchmark takes away.
        let _ = drain::detach(&self.instance.pins(), Instant::now() + SOON, |_| {});
        let _ = fs::remove_dir_all(self.instance.runtime_dir());
    }
}

/// What our own processes do is known: they do not splice.
fn configuration(connections: usize) -> Result<String> {
    let own = std::env::current_exe()?;
    Ok(format!(
        "[socket]\nconnections = {connections}\nnever_splices = [{:?}]\n\
         [http]\nlisten = \"127.0.0.1:0\"\n",
        own.display().to_string()
    ))
}

/// Takes away what benchmarks left that were killed.
fn sweep() {
    for entry in fs::read_dir(BPFFS).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| !is_alive(pid))
            && let Ok(instance) = name.parse::<Instance>()
        {
            let _ = instance.pins().remove();
            let _ = fs::remove_dir_all(instance.runtime_dir());
        }
    }
}
