//! `beeline demo`

mod cells;
mod report;
mod rounds;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::Cgroup;

use self::report::Report;
use self::rounds::Rounds;
use super::measure::host::Cores;
use super::measure::stop::Stop;
use super::measure::switch::Switch;
use super::measure::{ended, need_root, turn_length};
use super::output;

/// Measure the gain between pods that are made for it, and clean up.
///
/// Makes two pods (network namespaces on a bridge), the nftables rules of a Kubernetes node, a
/// service address with DNAT, and a sidecar proxy in each pod. Runs request/response and stream
/// between the pods over the kernel path and with Beeline, in turns, over new connections each
/// time. Changes nothing on the host that outlives it, also when interrupted.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object in the place of the table
    ///
    /// Every cell has p50_us, p99_us and gbps of both paths. For rr these are the round trip and
    /// the payload of both directions, for stream the time of one write and what was received.
    #[arg(long)]
    json: bool,

    /// Cores of the client's and of the server's pod; one for both by default, because waking an
    /// idle core takes longer than the software between two sockets and hides its cost
    #[arg(long, value_name = "A[,B]")]
    cores: Option<Cores>,

    /// Services on the node; the one that is called is the last that the rules look at
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    services: u16,

    /// How often each path has its turn; ratios are taken per round, and their median is shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Measured time of a turn, such as 250ms or 1s; a number alone is in milliseconds
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = turn_length)]
    duration: Duration,
}

/// Measures, cleans up, prints.
///
/// # Errors
/// When something that the demo needs is missing or refused. Whatever was made is removed first.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    need_root("demo")?;
    let stop = Stop::on_signals()?;
    match measured(args, &stop) {
        Err(error) => ended(error),
        Ok(report) => {
            if args.json {
                output::json(&report)?;
            } else {
                output::line(&table::text(&report))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Everything that has to be cleaned up lives in here; each part removes itself when dropped.
fn measured(args: &Args, stop: &Stop) -> Result<Report> {
    let cores = args.cores.map_or_else(Cores::first, Ok)?;
    // Declared first, so dropped last: this process leaves the cgroup when all else is gone.
    let cgroup = Cgroup::create("beeline-demo").context("cannot make a cgroup for the demo")?;
    cgroup.enter()?;
    let switch = Switch::new(&cgroup)?;
    let cells = Rounds::new(args, cores, switch, stop).all()?;
    Ok(Report::new(args, cores, cells))
}
