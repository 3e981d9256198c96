//! Rounds: the kernel path, Beeline and a Unix socket take turns in each cell.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use tempfile::TempDir;

use super::Args;
use super::cells::{Cell, Placement};
use super::metric::{self, Sample};
use super::report::{CellReport, Samples};
use super::tools::{Job, Tools};
use crate::cli::measure::bed::Bed;
use crate::cli::measure::host::Cores;
use crate::cli::measure::stop::{Interrupted, Stop};
use crate::cli::measure::switch::{Share, Switch};
use crate::cli::measure::traffic::{Turn, Way};
use crate::cli::measure::{WARM_UP, explain, progress_bar};

/// Everything that a measurement needs.
pub(super) struct Rounds<'a> {
    rounds: u16,
    duration: Duration,
    cores: Cores,
    switch: Switch,
    stop: &'a Stop,
    bar: ProgressBar,
    tools: Tools,
    /// For Unix sockets and what programs write; removed at the end.
    dir: TempDir,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Kernel,
    Beeline,
    /// Beeline without histograms.
    Unobserved,
    Unix,
}

impl Variant {
    /// All that a cell has, in their order.
    fn of(cell: &Cell) -> &'static [Self] {
        if cell.shows_observing() {
            &[Self::Kernel, Self::Beeline, Self::Unobserved, Self::Unix]
        } else if cell.tool.is_none_or(|tool| tool.knows_unix()) {
            &[Self::Kernel, Self::Beeline, Self::Unix]
        } else {
            &[Self::Kernel, Self::Beeline]
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Kernel => "kernel path",
            Self::Beeline => "Beeline",
            Self::Unobserved => "Beeline without histograms",
            Self::Unix => "Unix socket",
        }
    }
}

impl<'a> Rounds<'a> {
    pub(super) fn new(args: &Args, cores: Cores, switch: Switch, stop: &'a Stop) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("beeline-bench")
            .tempdir()
            .context("cannot make a temporary directory")?;
        Ok(Self {
            rounds: args.rounds,
            duration: args.duration,
            cores,
            switch,
            stop,
            bar: ProgressBar::hidden(),
            tools: Tools::new(dir.path())?,
            dir,
        })
    }

    /// Measures all cells. One that fails is reported as such and the others go on.
    pub(super) fn all(&mut self, cells: &[Cell]) -> Result<Vec<CellReport>> {
        let turns = cells.iter().map(|cell| Variant::of(cell).len() as u64);
        self.bar = progress_bar(turns.sum::<u64>() * u64::from(self.rounds));
        let mut reports = Vec::new();
        for group in cells.chunk_by(Cell::shares_bed) {
            self.stop.check()?;
            let Cell {
                topology, services, ..
            } = group[0];
            self.bar.set_message(format!("making {}", topology.name()));
            let cores = self.placed(group[0].placement);
            let bed = Bed::new(topology, cores, services).map_err(explain)?;
            for cell in group {
                reports.push(self.reported(cell, &bed)?);
            }
        }
        self.bar.finish_and_clear();
        Ok(reports)
    }

    fn placed(&self, placement: Placement) -> Cores {
        match placement {
            Placement::Same => self.cores.only_first(),
            Placement::Separate => self.cores,
        }
    }

    fn reported(&mut self, cell: &Cell, bed: &Bed) -> Result<CellReport> {
        let end = self.bar.position() + Variant::of(cell).len() as u64 * u64::from(self.rounds);
        let mut share = Share::default();
        match self.cell(cell, bed, &mut share) {
            Ok(samples) => Ok(CellReport::new(*cell, samples, &share)),
            Err(error) if error.is::<Interrupted>() => Err(error),
            Err(error) => {
                self.bar.set_position(end);
                Ok(CellReport::failed(*cell, &error))
            }
        }
    }

    fn cell(&mut self, cell: &Cell, bed: &Bed, share: &mut Share) -> Result<Samples> {
        self.stop.check()?;
        if let Some(tool) = cell.tool {
            self.bar.set_message(format!("preparing {}", tool.name()));
            self.tools.prepare(tool, bed)?;
        }
        let mut samples = Samples::default();
        for _ in 0..self.rounds {
            for variant in Variant::of(cell) {
                let title = format!("{}, {}", cell.title(), variant.title());
                self.bar.set_message(title.clone());
                let sample = self.turn(cell, bed, *variant, share);
                // A turn that was cut short says nothing, be it an error or a number.
                self.stop.check()?;
                let sample = sample.with_context(|| variant.title())?;
                match variant {
                    Variant::Kernel => samples.kernel.push(sample),
                    Variant::Beeline => samples.beeline.push(sample),
                    Variant::Unobserved => samples.unobserved.push(sample),
                    Variant::Unix => samples.unix.push(sample),
                }
                self.bar.inc(1);
            }
        }
        Ok(samples)
    }

    fn turn(
        &mut self,
        cell: &Cell,
        bed: &Bed,
        variant: Variant,
        share: &mut Share,
    ) -> Result<Sample> {
        let unix = (variant == Variant::Unix).then(|| self.socket());
        let work = Work {
            cell,
            bed,
            tools: &self.tools,
            unix,
            cpu: self.switch.cpu(),
            duration: self.duration,
            stop: self.stop,
        };
        let hops = cell.topology.hops();
        let run = || work.run();
        let (sample, _) = match variant {
            Variant::Beeline => self.switch.on(share, run, |(_, sent)| sent * hops)?,
            Variant::Unobserved => self.switch.on_unobserved(run)?,
            Variant::Kernel | Variant::Unix => run()?,
        };
        Ok(sample)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

/// One turn of a cell, on whatever path.
struct Work<'a> {
    cell: &'a Cell,
    bed: &'a Bed,
    tools: &'a Tools,
    /// In the place of TCP.
    unix: Option<PathBuf>,
    cpu: crate::cli::measure::cpu::Cpu,
    duration: Duration,
    stop: &'a Stop,
}

impl Work<'_> {
    /// Its numbers, and how many bytes were sent, where that is known.
    fn run(self) -> Result<(Sample, u64)> {
        if let Some(tool) = self.cell.tool {
            let job = Job {
                cell: *self.cell,
                bed: self.bed,
                over_unix: self.unix.is_some(),
                duration: self.duration,
                cpu: self.cpu,
            };
            return Ok((self.tools.turn(tool, &job)?, 0));
        }
        let Cell {
            load,
            size,
            connections,
            ..
        } = *self.cell;
        let turn = Turn {
            load,
            size,
            connections,
            warm_up: WARM_UP.min(self.duration),
            measured: self.duration,
            cpu: self.cpu,
            stop: self.stop.clone(),
        };
        let ends = match self.unix {
            Some(path) => self.bed.ends_by(Way::Unix(path)),
            None => self.bed.ends(),
        };
        let measured = turn.run(&ends)?;
        Ok((metric::sample(load, &measured), measured.sent))
    }
}
