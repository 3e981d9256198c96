//! `beeline doctor`: what this kernel and host can do, path by path.
//!
//! [`facts`] finds out, [`rules`] judges, [`print`] shows. Nothing is changed on the host.

mod facts;
mod print;
mod report;
mod rules;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;

use facts::Facts;
use print::Style;

/// Say what this kernel and host can do, and what to do about what is missing.
///
/// Tries what the socket path needs rather than trusting a version number. Exits with 0 only if the
/// socket path can run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

/// Prints the report. The exit status is success only if the socket path can run.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let report = rules::judge(&Facts::gather());
    let text = if args.json {
        serde_json::to_string_pretty(&report).context("cannot write the report as JSON")? + "\n"
    } else {
        let no_color = std::env::var_os("NO_COLOR");
        let style = Style::of(io::stdout().is_terminal(), no_color.as_deref());
        print::human(&report, style)
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("cannot print the report")?,
    }
    Ok(if report.can_run() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
