//! Rounds: the kernel path and Beeline take turns, and each round is a comparison of its own.

use anyhow::{Context, Result};
use indicatif::ProgressBar;

use super::Args;
use super::cells::{self, Cell};
use super::report::{CellReport, Path};
use crate::cli::measure::bed::Bed;
use crate::cli::measure::host::Cores;
use crate::cli::measure::stop::Stop;
use crate::cli::measure::switch::{Share, Switch};
use crate::cli::measure::traffic::{Ends, Load, Measured, Turn};
use crate::cli::measure::{WARM_UP, explain, progress_bar};

/// Everything that a measurement needs.
pub(super) struct Rounds<'a> {
    args: &'a Args,
    cores: Cores,
    switch: Switch,
    stop: &'a Stop,
    bar: ProgressBar,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(args: &'a Args, cores: Cores, switch: Switch, stop: &'a Stop) -> Self {
        Self {
            args,
            cores,
            switch,
            stop,
            bar: ProgressBar::hidden(),
        }
    }

    /// Measures all cells.
    pub(super) fn all(&mut self) -> Result<Vec<CellReport>> {
        let cells = cells::all();
        let turns = cells.len() as u64 * u64::from(self.args.rounds) * 2;
        self.bar = progress_bar(turns);
        let mut reports = Vec::new();
        for scenario in cells.chunk_by(|a, b| a.scenario == b.scenario) {
            self.stop.check()?;
            let topology = scenario[0].scenario.topology();
            let bed = Bed::new(topology, self.cores, self.args.services).map_err(explain)?;
            for cell in scenario {
                reports.push(self.cell(*cell, &bed.ends())?);
            }
        }
        self.bar.finish_and_clear();
        Ok(reports)
    }

    fn cell(&mut self, cell: Cell, ends: &Ends) -> Result<CellReport> {
        self.stop.check()?;
        let (mut kernel, mut beeline) = (Vec::new(), Vec::new());
        let mut share = Share::default();
        for _ in 0..self.args.rounds {
            let traffic = |rounds: &mut Self| rounds.traffic(cell).run(ends);
            kernel.push(self.turn(cell, "kernel path", traffic)?);
            let redirected = |rounds: &mut Self| {
                let turn = rounds.traffic(cell);
                let sent = |done: &Measured| done.sent * cell.scenario.topology().hops();
                rounds.switch.on(&mut share, || turn.run(ends), sent)
            };
            beeline.push(self.turn(cell, "Beeline", redirected)?);
        }
        Ok(CellReport::new(cell, &kernel, &beeline, share))
    }

    /// One turn, with what goes around it.
    fn turn(
        &mut self,
        cell: Cell,
        path: &str,
        run: impl FnOnce(&mut Self) -> Result<Measured>,
    ) -> Result<Path> {
        self.bar.set_message(format!("{}, {path}", cell.title()));
        let measured = run(self);
        // A turn that was cut short says nothing, be it an error or a number.
        self.stop.check()?;
        let measured = measured.with_context(|| format!("{}, {path}", cell.title()))?;
        self.bar.inc(1);
        Ok(Path::of(&measured))
    }

    fn traffic(&self, cell: Cell) -> Turn {
        Turn {
            load: cell.load,
            size: cell.size,
            connections: 1,
            warm_up: WARM_UP.min(self.args.duration),
            measured: self.args.duration,
            cpu: self.switch.cpu(),
            stop: self.stop.clone(),
        }
    }
}

/// Better for one load is less, for the other it is more.
pub(super) fn ratio(load: Load, kernel: &Path, beeline: &Path) -> f64 {
    match load {
        Load::Rr | Load::Crr => beeline.p50_us / kernel.p50_us,
        Load::Stream => beeline.gbps / kernel.gbps,
    }
}
