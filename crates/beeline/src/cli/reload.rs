//! `beeline reload`

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{ask, output};
use crate::control::{Changed, Reloaded, Request};
use crate::instance::Instance;

/// Have the running agent read its configuration again, and put it in force.
///
/// All of it or nothing: where one setting is wrong or cannot change while the agent runs, the old
/// ones stay in force. `beeline config show` says what each takes. The agent does the same by itself
/// on SIGHUP, and soon after the files have changed; what became of that is in its log.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let outcome = ask::agent(instance, Request::Reload)?.context(
        "the agent does not know how to reload: it is of an earlier version, restart it",
    )?;
    if args.json {
        output::json(&outcome)?;
    }
    match outcome {
        Reloaded::InForce { .. } if args.json => Ok(ExitCode::SUCCESS),
        Reloaded::InForce { changed, excluded } => tell(&changed, excluded),
        Reloaded::Refused { .. } if args.json => Ok(ExitCode::FAILURE),
        Reloaded::Refused { why } => {
            eprintln!("error: not reloaded, the old settings stay in force: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn tell(changed: &[Changed], excluded: usize) -> Result<ExitCode> {
    if changed.is_empty() {
        output::line("reloaded; nothing differs from before")?;
    }
    for setting in changed {
        output::line(&format!("reloaded: {setting}"))?;
    }
    if excluded > 0 {
        output::line(&format!(
            "{excluded} connections went back to plain TCP, as the rules exclude them now"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
