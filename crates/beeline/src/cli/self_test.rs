//! `beeline self-test`, which `run` and `doctor` start for themselves.

use std::process::ExitCode;

use anyhow::Result;

use super::output;
use crate::selftest;

pub(super) fn run() -> Result<ExitCode> {
    output::json(&selftest::here()?)?;
    Ok(ExitCode::SUCCESS)
}
