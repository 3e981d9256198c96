//! Ctrl-C: stop and clean up; again: stop at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Signals that come within this time of the first are the same request: timeout(1) sends two, and
/// a terminal that closes may.
const SAME: Duration = Duration::from_millis(500);

/// What a shell expects of a program that ended because of Ctrl-C.
pub(in crate::cli) const INTERRUPTED: u8 = 130;

/// A measurement was stopped by a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; everything that was made for it is removed")]
pub(in crate::cli) struct Interrupted;

/// Whether to stop; copies share the answer.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens to SIGINT, SIGTERM and SIGHUP. Another one, later, ends the process at once: the
    /// kernel removes all but an empty cgroup then, and the next run removes that.
    pub(in crate::cli) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        let flag = stop.clone();
        let mut first = None;
        let handler = move || {
            flag.0.store(true, Ordering::Relaxed);
            if first.get_or_insert_with(Instant::now).elapsed() > SAME {
                std::process::exit(i32::from(INTERRUPTED));
            }
        };
        ctrlc::set_handler(handler).context("cannot listen to signals")?;
        Ok(stop)
    }

    /// Whether a signal has come.
    pub(in crate::cli) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails when a signal has come.
    pub(in crate::cli) fn check(&self) -> Result<(), Interrupted> {
        if self.requested() {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }
}
