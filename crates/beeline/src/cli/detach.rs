//! `beeline detach`

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::Maps;
use datapath::drain::{self, Held, Outcome};
use serde_json::json;

use super::output;
use super::release::{self, Bar};
use crate::agent::Lock;
use crate::control;
use crate::instance::Instance;

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
    let bar = Bar::new("detaching");
    let outcome = drain::detach(&instance.pins(), deadline, |progress| bar.show(progress));
    drop(bar);
    match outcome? {
        Outcome::Done { released } => {
            // Empty but for the lock that this process holds.
            let _ = fs::remove_dir_all(instance.runtime_dir());
            done(args, released)
        }
        Outcome::Held(held) => held_up(instance, args, &held),
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

fn held_up(instance: &Instance, args: &Args, held: &[Held]) -> Result<ExitCode> {
    if args.json {
        output::json(&json!({ "detached": false, "held": release::json(instance, held) }))?;
    } else {
        output::line(&format!(
            "not detached: {} sockets hold it up. They go on working over the kernel path; run \
             `beeline detach` again when they have moved on.",
            held.len()
        ))?;
        release::list(instance, held)?;
    }
    Ok(ExitCode::FAILURE)
}
