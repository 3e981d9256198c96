//! `beeline retire`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::Maps;
use datapath::abi::{Handshake, Reason};
use datapath::drain::{self, Held, Outcome};
use serde_json::json;

use super::output;
use super::release::{self, Bar};
use crate::instance::Instance;
use crate::observe::conns::{self, Connection, Name};

/// Move connections back to plain TCP for good while their traffic goes on, without losing a byte.
///
/// Others go on as they are, and so do connections made later. What was redirected to a reader has
/// to be read before its connection is plain TCP again; one that is not done when the time is over
/// goes on over the kernel path, and a later retire finishes it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Connections as `beeline conns` shows them: an ADDRESS of either end, which names every
    /// connection that has it, or the cookie of either socket (conns --json), which names one
    #[arg(value_name = "CONNECTION", required_unless_present = "all")]
    connections: Vec<Name>,

    /// Every connection that is enrolled now
    #[arg(long, conflicts_with = "connections")]
    all: bool,

    /// How long to wait for readers
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let deadline = Instant::now() + args.timeout;
    let maps = Maps::open(&instance.pins())?;
    let chosen = choose(&conns::list(instance, &maps)?, args)?;
    let bar = Bar::new("retiring");
    let outcome = drain::retire(&maps, &chosen, Reason::Retired, deadline, |progress| {
        bar.show(progress);
    });
    drop(bar);
    match outcome? {
        Outcome::Done { released } => done(args, chosen.len(), released),
        Outcome::Held(held) => held_up(instance, args, &held),
    }
}

fn choose(conns: &[Connection], args: &Args) -> Result<Vec<Handshake>> {
    let chosen = if args.all {
        conns.to_vec()
    } else {
        conns::named(conns, &args.connections)?
    };
    Ok(chosen.iter().map(|conn| conn.handshake).collect())
}

fn done(args: &Args, connections: usize, released: usize) -> Result<ExitCode> {
    if args.json {
        output::json(&json!({
            "retired": true, "connections": connections, "released_sockets": released, "held": []
        }))?;
    } else {
        output::line(&format!(
            "retired: {connections} connections, {released} sockets went back to plain TCP"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn held_up(instance: &Instance, args: &Args, held: &[Held]) -> Result<ExitCode> {
    if args.json {
        output::json(&json!({ "retired": false, "held": release::json(instance, held) }))?;
    } else {
        output::line(&format!(
            "not all retired: {} sockets hold it up. They go on working over the kernel path; run \
             `beeline retire` again when they have moved on.",
            held.len()
        ))?;
        release::list(instance, held)?;
    }
    Ok(ExitCode::FAILURE)
}
