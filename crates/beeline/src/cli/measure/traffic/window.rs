//! When a client measures: after the warm-up, for the length of the turn.

use std::io;
use std::time::{Duration, Instant};

use super::{Side, Turn};
use crate::cli::measure::cpu::Cpu;
use crate::cli::measure::stop::Stop;

/// The client's clock, and its account.
pub(super) struct Window {
    begin: Instant,
    warm_up: Duration,
    measured: Duration,
    /// Start of the measured time, and the processor time that had been used until then.
    since: Option<(Instant, Duration)>,
    cpu: Cpu,
    stop: Stop,
    pub(super) side: Side,
}

impl Window {
    pub(super) fn new(turn: &Turn) -> Self {
        Self {
            begin: Instant::now(),
            warm_up: turn.warm_up,
            measured: turn.measured,
            since: None,
            cpu: turn.cpu.clone(),
            stop: turn.stop.clone(),
            side: Side::default(),
        }
    }

    /// Begins anew, before the first request: making the connections was no warm-up.
    pub(super) fn start(&mut self) {
        self.begin = Instant::now();
    }

    /// Notes a request or write of `bytes` that was started at `started` and is done now. Returns
    /// whether to go on; at least one is measured, however busy the machine is.
    ///
    /// # Errors
    /// When the processor time cannot be read.
    pub(super) fn done(&mut self, started: Instant, bytes: u64) -> io::Result<bool> {
        let now = Instant::now();
        match self.since {
            None if now - self.begin >= self.warm_up => {
                // Growing it would be measured: 1 us is less than any of it takes.
                let most = usize::try_from(self.measured.as_micros()).unwrap_or(0);
                self.side.times.reserve(most);
                let used = self.cpu.used()?;
                self.since = Some((Instant::now(), used));
            }
            None => {}
            Some((since, used)) => {
                let took = (now - started).as_nanos();
                self.side
                    .times
                    .push(u64::try_from(took).unwrap_or(u64::MAX));
                self.side.counted += bytes;
                if now - since >= self.measured || self.stop.requested() {
                    self.side.cpu = self.cpu.used()?.saturating_sub(used);
                    self.side.elapsed = now - since;
                    return Ok(false);
                }
            }
        }
        Ok(self.since.is_some() || !self.stop.requested())
    }
}
