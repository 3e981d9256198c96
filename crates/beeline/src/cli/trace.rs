//! `beeline trace`

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};

use super::output;
use crate::control::{self, Request};
use crate::instance::Instance;
use crate::observe::event::Event;

/// Print what happens to connections, as it happens, until interrupted.
///
/// One line an event: established (left on the kernel path, and why), enrolled, paired,
/// redirect_started, kernel_path, closed. Needs a running agent.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let mut events = match control::ask(instance, Request::Trace) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(anyhow!(
                "tracing needs the agent, and none runs: start it with `beeline run`"
            ));
        }
        other => other.with_context(|| {
            format!(
                "cannot ask the agent at {} (only root may)",
                instance.control_socket().display()
            )
        })?,
    };
    while let Some(event) = control::receive::<Event>(&mut events).context("the agent hung up")? {
        output::line(&if args.json {
            serde_json::to_string(&event)?
        } else {
            describe(&event)
        })?;
    }
    eprintln!("the agent stopped");
    Ok(ExitCode::SUCCESS)
}

fn describe(event: &Event) -> String {
    let missed = match event.dropped {
        0 => String::new(),
        missed => format!("({missed} events missed)\n"),
    };
    let role = event.role.as_deref().unwrap_or("-");
    let detail = match (&event.reason, event.event.as_str()) {
        (Some(reason), _) => format!("  {reason}"),
        (None, "closed") => format!("  {} redirected", output::bytes(event.redirected_bytes)),
        _ => String::new(),
    };
    format!(
        "{missed}{:>14.6}  {:<16}  {role:<6}  {} -> {}  netns {}{detail}",
        event.at_ns as f64 / 1e9,
        event.event,
        event.local,
        event.remote,
        event.netns,
    )
}
