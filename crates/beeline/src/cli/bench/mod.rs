//! `beeline bench`

mod cells;
mod charts;
mod html;
mod metric;
mod picture;
mod plot;
mod report;
mod rounds;
pub(super) mod scale;
mod select;
mod table;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::Cgroup;

use self::report::Report;
use self::rounds::Rounds;
use self::scale::Scale;
use self::select::Selection;
use super::measure::host::{self, Cores};
use super::measure::stop::Stop;
use super::measure::switch::Switch;
use super::measure::{ended, need_root, turn_length};
use super::output;

/// Measure where Beeline is faster on this host, and by how much, with and without it in turns.
///
/// Makes pods (network namespaces), the rules of a node and the loads that are asked for, and
/// removes them again, also when interrupted. The kernel path, Beeline and, where the load can use
/// one, a Unix socket as the limit take turns; ratios are taken round by round. Without any option
/// that chooses what is measured, the standard set is, which takes less than half an hour.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,

    /// The two cores to use: both ends on the first, or client and server on one each; the first
    /// two that this process may use by default
    #[arg(long, value_name = "A[,B]")]
    cores: Option<Cores>,

    /// How often each path has its turn; at least 4 are needed for a spread that means something
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Measured time of a turn, such as 250ms or 1s; a number alone is in milliseconds. Programs
    /// such as iperf3 run for whole seconds, and at least one
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = turn_length)]
    duration: Duration,

    /// Print one JSON object, raw samples included, in the place of the table
    #[arg(long)]
    json: bool,

    /// Also write the results into this directory: bench.json; bench.html, a page that needs nothing
    /// else; and bench.svg, its charts over sizes
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Measures, cleans up, prints.
///
/// # Errors
/// When something that is needed is missing or refused. Whatever was made is removed first.
pub(super) fn run(args: &Args) -> Result<ExitCode> {
    need_root("bench")?;
    if let Some(dir) = &args.output {
        // Before half an hour of measuring.
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let stop = Stop::on_signals()?;
    let report = match measured(args, &stop) {
        Err(error) => return ended(error),
        Ok(report) => report,
    };
    if let Some(dir) = &args.output {
        write(dir, &report)?;
    }
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&table::text(&report))?;
    }
    match report.failed() {
        (0, _) => Ok(ExitCode::SUCCESS),
        (failed, all) => {
            eprintln!("{failed} of {all} cells failed");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Everything that has to be cleaned up lives in here; each part removes itself when dropped.
fn measured(args: &Args, stop: &Stop) -> Result<Report> {
    host::raise_descriptors()?;
    let cores = args.cores.map_or_else(Cores::first_two, Ok)?;
    let plan = args.selection.plan(cores)?;
    // Declared first, so dropped last: this process leaves the cgroup when all else is gone.
    let cgroup = Cgroup::create("beeline-bench").context("cannot make a cgroup for the bench")?;
    cgroup.enter()?;
    let switch = Switch::new(&cgroup)?;
    let cells = Rounds::new(args, cores, switch, stop)?.all(&plan.cells)?;
    let scale = Scale::new(args, &cgroup, cores, stop)?.all(&plan.scale)?;
    Report::new(args, cores, plan, cells, scale)
}

fn write(dir: &Path, report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    let picture = picture::picture(report).map(|picture| ("bench.svg", picture));
    let files = [
        ("bench.html", html::page(report, &json)),
        ("bench.json", json),
    ];
    for (name, text) in files.into_iter().chain(picture) {
        let file = dir.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
