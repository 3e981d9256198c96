//! `beeline run`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::output;
use crate::agent::{Agent, Started};
use crate::config::Config;
use crate::instance::Instance;

/// Load the datapath, or take over the one that is loaded, and serve until stopped.
///
/// SIGTERM and SIGINT stop the agent and leave the datapath working; `beeline detach` takes it off.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration [default: /etc/beeline/beeline.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Cover the processes of this cgroup2 directory instead of the whole host
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let mut config = Config::load(args.config.as_deref())?;
    if let Some(cgroup) = &args.cgroup {
        config.cgroup = Some(cgroup.clone());
    }
    let agent = Agent::start(instance, &config)?;
    tell(instance, agent.started())?;
    agent.serve()?;
    output::line("stopped; the datapath goes on (take it off: beeline detach)")?;
    Ok(ExitCode::SUCCESS)
}

fn tell(instance: &Instance, started: &Started) -> Result<()> {
    if started.mounted_bpffs {
        output::line(&format!("mounted a bpffs at {}", datapath::pins::BPFFS))?;
    }
    match started.taken_over {
        Some(sockets) => output::line(&format!(
            "took over the datapath under {} with {sockets} enrolled sockets",
            instance.pins().dir().display()
        ))?,
        None => output::line(&format!(
            "loaded the datapath, pinned under {}",
            instance.pins().dir().display()
        ))?,
    }
    for line in output::self_test(&started.self_test) {
        output::line(&line)?;
    }
    output::line(&format!(
        "socket path on {}: up to {} connections, up to {} unread at one reader",
        started.cgroup.display(),
        started.options.connections,
        output::bytes(started.options.queue_limit.into()),
    ))?;
    if let Some(addr) = started.http {
        output::line(&format!("metrics at http://{addr}/metrics"))?;
    }
    output::line("serving; stop with Ctrl-C, see `beeline status`")
}
