//! `beeline run`

use std::process::ExitCode;

use anyhow::Result;
use tracing::{error, info, warn};

use super::output;
use crate::agent::log::{self, Format, Level};
use crate::agent::{Agent, Started};
use crate::config::Sources;
use crate::instance::Instance;

/// Load the datapath, or take over the one that is loaded, and serve until stopped.
///
/// SIGTERM and SIGINT stop the agent and leave the datapath working; `beeline detach` takes it off.
/// SIGHUP, and a change of the configuration's files, do what `beeline reload` does.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,

    /// How the log looks
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "human")]
    log: Format,

    /// What is logged
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    log_level: Level,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    log::begin(args.log, args.log_level);
    match (serve(instance, args), args.log) {
        (Err(error), Format::Json) => {
            error!("{}", super::causes(&error));
            Ok(ExitCode::FAILURE)
        }
        (result, _) => result.map(|()| ExitCode::SUCCESS),
    }
}

fn serve(instance: &Instance, args: &Args) -> Result<()> {
    let agent = Agent::start(instance, &args.sources)?;
    match args.log {
        Format::Human => tell(instance, agent.started())?,
        Format::Json => log_start(instance, agent.started()),
    }
    agent.serve()?;
    let stopped = "stopped; the datapath goes on (take it off: beeline detach)";
    match args.log {
        Format::Human => output::line(stopped)?,
        Format::Json => info!("{stopped}"),
    }
    Ok(())
}

/// What [`tell`] says, for machines.
fn log_start(instance: &Instance, started: &Started) {
    for failed in &started.self_test.failures {
        warn!(check = %failed.check, found = %failed.found, "self-test: {}", failed.meaning);
    }
    info!(
        %instance,
        cgroup = %started.cgroup.display(),
        pins = %instance.pins().dir().display(),
        mounted_bpffs = started.mounted_bpffs,
        taken_over_sockets = started.taken_over,
        connections = started.options.connections,
        queue_limit_bytes = started.options.queue_limit,
        self_test_checks = started.self_test.checks,
        self_test_milliseconds = started.self_test.milliseconds,
        metrics = started.http.map(|addr| format!("http://{addr}/metrics")),
        page = started.page(),
        "serving"
    );
}

/// To the user who typed the command: no log, so neither time nor level.
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
    if let Some(page) = started.page() {
        output::line(&format!("page at {page}"))?;
    }
    output::line("serving; stop with Ctrl-C, see `beeline status`")
}
