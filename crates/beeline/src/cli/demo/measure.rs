//! Rounds: the kernel path and Beeline take turns, and each round is a comparison of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use datapath::abi::{Reason, Totals};
use datapath::socket::SocketPath;
use indicatif::{ProgressBar, ProgressStyle};

use super::Args;
use super::bed::Bed;
use super::cells::{self, Cell, Load};
use super::report::{CellReport, Path as PathReport};
use super::stop::Stop;
use super::traffic::{Measured, Turn};

/// Time for the window and the caches before anything is measured.
const WARM_UP: Duration = Duration::from_millis(50);
/// How long the counters of closed connections may take to arrive.
const SETTLE: Duration = Duration::from_secs(2);

/// Everything that a measurement needs.
pub(super) struct Bench<'a> {
    args: &'a Args,
    bed: Bed,
    path: SocketPath,
    cgroup: &'a Path,
    stop: &'a Stop,
    bar: ProgressBar,
}

/// What the datapath did in a turn.
#[derive(Default)]
struct Share {
    /// Bytes of which the demo knows that they were sent, over all hops.
    sent: u64,
    redirected: u64,
    reasons: BTreeMap<&'static str, u64>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        args: &'a Args,
        bed: Bed,
        path: SocketPath,
        cgroup: &'a Path,
        stop: &'a Stop,
    ) -> Self {
        Self {
            args,
            bed,
            path,
            cgroup,
            stop,
            bar: ProgressBar::hidden(),
        }
    }

    /// Measures all cells.
    pub(super) fn all(&mut self) -> Result<Vec<CellReport>> {
        let cells = cells::all();
        let turns = cells.len() as u64 * u64::from(self.args.rounds) * 2;
        self.bar = progress_bar(turns);
        let reports = cells.into_iter().map(|cell| self.cell(cell)).collect();
        self.bar.finish_and_clear();
        reports
    }

    fn cell(&mut self, cell: Cell) -> Result<CellReport> {
        self.stop.check()?;
        let to = self.bed.prepare(cell.scenario)?;
        let (mut kernel, mut beeline) = (Vec::new(), Vec::new());
        let mut share = Share::default();
        for _ in 0..self.args.rounds {
            kernel.push(self.turn(cell, "kernel path", |bench| bench.traffic(cell, to))?);
            let turn = |bench: &mut Self| bench.redirected(cell, to, &mut share);
            beeline.push(self.turn(cell, "Beeline", turn)?);
        }
        Ok(CellReport::new(
            cell,
            &kernel,
            &beeline,
            share.fraction(),
            share.reasons,
        ))
    }

    /// One turn, with what goes around it.
    fn turn(
        &mut self,
        cell: Cell,
        path: &str,
        run: impl FnOnce(&mut Self) -> Result<Measured>,
    ) -> Result<PathReport> {
        self.bar.set_message(format!("{}, {path}", cell.title()));
        let measured = run(self);
        // A turn that was cut short says nothing, be it an error or a number.
        self.stop.check()?;
        let measured = measured.with_context(|| format!("{}, {path}", cell.title()))?;
        self.bar.inc(1);
        Ok(PathReport::of(&measured))
    }

    /// A turn with Beeline attached. It is taken off again for the kernel's turn.
    fn redirected(&mut self, cell: Cell, to: SocketAddr, share: &mut Share) -> Result<Measured> {
        let before = self.path.maps().totals()?;
        self.path.attach(self.cgroup)?;
        let measured = self.traffic(cell, to);
        let after = self.settled(&before);
        self.path.detach();
        let (measured, after) = (measured?, after?);
        share.add(measured.sent * cell.scenario.hops(), &before, &after);
        Ok(measured)
    }

    fn traffic(&self, cell: Cell, to: SocketAddr) -> Result<Measured> {
        let turn = Turn {
            load: cell.load,
            size: cell.size,
            warm_up: WARM_UP.min(self.args.duration),
            measured: self.args.duration,
            stop: self.stop.clone(),
        };
        turn.run(&self.bed, to)
    }

    /// The totals once every socket that was enrolled is closed, which is when its bytes are added
    /// to them. Sockets that do not close in time are missing then, and the share shows it.
    fn settled(&self, before: &Totals) -> Result<Totals> {
        let mut now = self.path.maps().totals()?;
        let _ = testbed::wait_for("the end of the connections", SETTLE, || {
            if let Ok(totals) = self.path.maps().totals() {
                now = totals;
            }
            now.closed - before.closed >= now.enrolled - before.enrolled
        });
        Ok(now)
    }
}

impl Share {
    fn add(&mut self, sent: u64, before: &Totals, after: &Totals) {
        self.sent += sent;
        self.redirected += after.closed_redirected_bytes - before.closed_redirected_bytes;
        for reason in Reason::ALL {
            let count = after.count(*reason) - before.count(*reason);
            if count > 0 {
                *self.reasons.entry(reason.name()).or_default() += count;
            }
        }
    }

    fn fraction(&self) -> f64 {
        if self.sent == 0 {
            0.0
        } else {
            self.redirected as f64 / self.sent as f64
        }
    }
}

/// Drawn between turns only: drawing takes time on the cores that are measured. Not drawn at all
/// when standard error is no terminal.
fn progress_bar(turns: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} turns, {eta} left  {msg}")
        .expect("the template is well-formed");
    ProgressBar::new(turns).with_style(style)
}

/// Better for one load is less, for the other it is more.
pub(super) fn ratio(load: Load, kernel: &PathReport, beeline: &PathReport) -> f64 {
    match load {
        Load::Rr => beeline.p50_us / kernel.p50_us,
        Load::Stream => beeline.gbps / kernel.gbps,
    }
}
