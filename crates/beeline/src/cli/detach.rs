//! `beeline detach`

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::Maps;
use datapath::drain::{self, Held, HeldBy, Outcome, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::output;
use crate::agent::Lock;
use crate::control;
use crate::instance::Instance;
use crate::observe::conns::socket_addrs;
use crate::workload::Workloads;

/// How long a stopping agent may take to let go of the lock.
const AGENT_STOPS: Duration = Duration::from_secs(5);

/// Move every connection back to plain TCP and take the datapath off, without losing a byte.
///
/// Stops the agent first, if one runs. What was redirected to a reader has to be read before its
/// connection can be moved; connections that are not done when the time is over go on working, over
/// the kernel path, and a later detach finishes them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long to wait for readers
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    // Before the agent is stopped for nothing.
    Maps::open(&instance.pins())?;
    let deadline = Instant::now() + args.timeout;
    let _lock = stop_agent(instance)?;
    let bar = progress_bar();
    let outcome = drain::detach(&instance.pins(), deadline, |progress| show(&bar, progress));
    bar.finish_and_clear();
    match outcome? {
        Outcome::Done { released } => {
            // Empty but for the lock that this process holds.
            let _ = fs::remove_dir_all(instance.runtime_dir());
            done(args, released)
        }
        Outcome::Held(held) => held_up(args, &held),
    }
}

fn stop_agent(instance: &Instance) -> Result<Lock> {
    let deadline = Instant::now() + AGENT_STOPS;
    let _agent = control::stop(instance);
    loop {
        match Lock::take(instance) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("detaching {bar:40} {pos}/{len} sockets  {elapsed}")
        .expect("the template is well-formed");
    ProgressBar::new(0).with_style(style)
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.before as u64);
    bar.set_position(progress.before.saturating_sub(progress.left) as u64);
}

fn done(args: &Args, released: usize) -> Result<ExitCode> {
    if args.json {
        output::json(&json!({ "detached": true, "released_sockets": released, "held": [] }))?;
    } else {
        output::line(&format!(
            "detached: {released} sockets went back to plain TCP"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn held_up(args: &Args, held: &[Held]) -> Result<ExitCode> {
    let workloads = Workloads::find();
    if args.json {
        let held: Vec<_> = held
            .iter()
            .map(|held| held_json(held, &workloads))
            .collect();
        output::json(&json!({ "detached": false, "held": held }))?;
    } else {
        output::line(&format!(
            "not detached: {} sockets hold it up. They go on working over the kernel path; run \
             `beeline detach` again when they have moved on.",
            held.len()
        ))?;
        for held in held {
            output::line(&format!("  {}", describe(held, &workloads)))?;
        }
    }
    Ok(ExitCode::FAILURE)
}

fn describe(held: &Held, workloads: &Workloads) -> String {
    let (local, remote) = socket_addrs(&held.end.endpoints);
    let label = workloads.of(held.end.inode, held.end.cgroup_id).label();
    let why = match &held.by {
        HeldBy::Unread => format!("has not read {}", output::bytes(held.end.unread.into())),
        HeldBy::Sender(sender) => format!("{} is in the middle of a send", sender.task.display()),
    };
    format!("{label} {local} <- {remote}: {why}")
}

fn held_json(held: &Held, workloads: &Workloads) -> serde_json::Value {
    let (local, remote) = socket_addrs(&held.end.endpoints);
    let sender = match &held.by {
        HeldBy::Unread => None,
        HeldBy::Sender(sender) => Some(sender.task.display().to_string()),
    };
    json!({
        "local": local,
        "remote": remote,
        "workload": workloads.of(held.end.inode, held.end.cgroup_id),
        "unread_bytes": held.end.unread,
        "sender": sender,
    })
}
