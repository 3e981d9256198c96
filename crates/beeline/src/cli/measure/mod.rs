//! What measures have in common: pods and the ways between them, traffic, turns with and without
//! Beeline, and what is made of the numbers. `beeline demo` and `beeline bench` are built of it.

pub(in crate::cli) mod bed;
pub(in crate::cli) mod cpu;
pub(in crate::cli) mod host;
pub(in crate::cli) mod stats;
pub(in crate::cli) mod stop;
pub(in crate::cli) mod switch;
pub(in crate::cli) mod traffic;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use self::stop::{INTERRUPTED, Interrupted};

/// Time for the window and the caches before anything is measured.
pub(in crate::cli) const WARM_UP: Duration = Duration::from_millis(50);

/// A turn's length on the command line: a duration with a unit, or milliseconds.
pub(in crate::cli) fn turn_length(text: &str) -> Result<Duration, String> {
    let millis = text.parse().map(Duration::from_millis);
    let length = millis
        .or_else(|_| humantime::parse_duration(text))
        .map_err(|e| e.to_string())?;
    let fits = (Duration::from_millis(10)..=Duration::from_secs(60)).contains(&length);
    fits.then_some(length)
        .ok_or_else(|| "a turn takes from 10ms to 60s".into())
}

/// Fails with what to do when `command` was not called by root.
pub(in crate::cli) fn need_root(command: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "`beeline {command}` loads BPF programs and makes network namespaces; run it as root: \
         sudo beeline {command}"
    );
    Ok(())
}

/// Says so when a measurement was interrupted; passes every other error on.
pub(in crate::cli) fn ended(error: anyhow::Error) -> Result<ExitCode> {
    if error.is::<Interrupted>() {
        eprintln!("{error}");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Err(error)
}

/// Adds how to get what is missing.
pub(in crate::cli) fn explain(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(testbed::Error::NoProgram { program }) if program == "nft" => anyhow::anyhow!(
            "the rules are written with nft, which is not on the PATH; install the package nftables"
        ),
        _ => error,
    }
}

/// Drawn between turns only: drawing takes time on the cores that are measured. Not drawn at all
/// when standard error is no terminal.
pub(in crate::cli) fn progress_bar(turns: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} turns, {eta} left  {msg}")
        .expect("the template is well-formed");
    ProgressBar::new(turns).with_style(style)
}
