//! `beeline config`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::output;
use crate::config::{self, Sources};

/// Show or check the configuration. Needs no root and no agent.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print every setting, its value, and the file and line or flag that it comes from
    ///
    /// The output is a configuration itself. It is what `beeline run` with the same flags would
    /// use; an agent that runs may have read something else.
    Show {
        #[command(flatten)]
        sources: Sources,

        /// Print JSON, with defaults and what it takes to change each setting
        #[arg(long)]
        json: bool,
    },
    /// Look for mistakes. Exits with 1 if there are any
    Check {
        /// Files, each alone, or directories such as /etc/beeline
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Print a configuration that explains every setting
    Example,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    match &args.action {
        Action::Show { sources, json } => show(sources, *json),
        Action::Check { paths } => check(paths),
        Action::Example => {
            output::line(config::example().trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show(sources: &Sources, json: bool) -> Result<ExitCode> {
    let (files, config) = (sources.files()?, sources.load()?);
    if json {
        output::json(&json!({ "files": files, "settings": config.describe() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if files.is_empty() {
        output::line("# no file was found")?;
    }
    for file in files {
        output::line(&format!("# read: {}", file.display()))?;
    }
    output::line(config::toml(&config).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn check(paths: &[PathBuf]) -> Result<ExitCode> {
    let mut all_good = ExitCode::SUCCESS;
    for path in paths {
        match Sources::of(path).load() {
            Ok(_) => output::line(&format!("{}: no mistakes", path.display()))?,
            Err(error) => {
                eprintln!("error: {error}");
                all_good = ExitCode::FAILURE;
            }
        }
    }
    Ok(all_good)
}
