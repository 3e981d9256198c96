//! What many connections cost: setting them up, a round trip beside them, their memory, and the agent.
//!
//! They are held over a bridge with 100 services, both ends on one core. The kernel path and Beeline, here
//! the real agent, have their turns.

mod agent;
mod crowd;
pub(in crate::cli) mod hold;
mod limits;
mod report;
mod view;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use tempfile::TempDir;
use testbed::Cgroup;

use self::agent::Agent;
use self::crowd::Crowd;
pub(super) use self::limits::obstacle;
pub(super) use self::report::ScaleReport;
use self::report::Turns;
pub(super) use self::view::{charts, rows, table};
use super::Args;
use super::metric::{self, Metric, Sample};
use crate::cli::measure::bed::{Bed, Topology};
use crate::cli::measure::cpu::Cpu;
use crate::cli::measure::host::Cores;
use crate::cli::measure::stats::four_digits;
use crate::cli::measure::stop::{Interrupted, Stop};
use crate::cli::measure::traffic::{Load, Turn};
use crate::cli::measure::{WARM_UP, explain, progress_bar};

/// What the standard set measures.
pub(super) const STANDARD: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
/// Rules of the node, as in the middle of the standard set.
const SERVICES: u16 = 100;
/// Fewer connections are set up again and again, as a few say nothing about a rate.
const ENOUGH: usize = 2_000;
/// Bytes of the round trips.
const SIZE: usize = 64;
/// The agent has room for so many at least, as by default.
const ROOM: usize = 65_536;
/// When the kernel has given back the memory of the turn before: less changes in so long.
const STILL: (u64, Duration) = (64 << 10, Duration::from_millis(50));
/// How long that is waited for.
const SETTLE: Duration = Duration::from_secs(3);

/// The path of our own file, also when another version has replaced it.
fn own_executable() -> String {
    format!("/proc/{}/exe", std::process::id())
}

/// Measures with so many connections at a time.
pub(super) struct Scale<'a> {
    args: &'a Args,
    cgroup: &'a Cgroup,
    cores: Cores,
    stop: &'a Stop,
    bar: ProgressBar,
    dir: TempDir,
}

impl<'a> Scale<'a> {
    pub(super) fn new(
        args: &'a Args,
        cgroup: &'a Cgroup,
        cores: Cores,
        stop: &'a Stop,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("beeline-bench")
            .tempdir()
            .context("cannot make a temporary directory")?;
        Ok(Self {
            args,
            cgroup,
            cores: cores.only_first(),
            stop,
            bar: ProgressBar::hidden(),
            dir,
        })
    }

    /// Measures all numbers of connections. One that fails is reported as such and the others go on.
    pub(super) fn all(&mut self, numbers: &[usize]) -> Result<Vec<ScaleReport>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let rounds = u64::from(self.args.rounds);
        self.bar = progress_bar(2 * rounds * numbers.len() as u64);
        let bed = Bed::new(Topology::Bridge, self.cores, SERVICES).map_err(explain)?;
        let mut reports = Vec::new();
        for (n, connections) in (1..).zip(numbers) {
            reports.push(match self.rounds(*connections, &bed) {
                Ok(turns) => ScaleReport::new(*connections, turns),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => ScaleReport::failed(*connections, &error),
            });
            self.bar.set_position(2 * rounds * n);
        }
        self.bar.finish_and_clear();
        Ok(reports)
    }

    fn rounds(&self, connections: usize, bed: &Bed) -> Result<Turns> {
        let mut turns = Turns::default();
        for _ in 0..self.args.rounds {
            for beeline in [false, true] {
                self.stop.check()?;
                let variant = if beeline { "Beeline" } else { "kernel path" };
                let title = format!("{connections} connections, {variant}");
                self.bar.set_message(title);
                let sample = self.turn(connections, bed, beeline, &mut turns);
                // A turn that was cut short says nothing, be it an error or a number.
                self.stop.check()?;
                let sample = sample.context(variant)?;
                if beeline {
                    turns.beeline.push(sample);
                } else {
                    turns.kernel.push(sample);
                }
                self.bar.inc(1);
            }
        }
        Ok(turns)
    }

    fn turn(
        &self,
        connections: usize,
        bed: &Bed,
        beeline: bool,
        turns: &mut Turns,
    ) -> Result<Sample> {
        // The connection of the round trips is one more.
        let room = (connections + 1).max(ROOM);
        let start = || Agent::start(self.cgroup.path(), room, self.dir.path());
        // Dropped after the connections.
        let agent = beeline.then(start).transpose()?;
        let mut crowd = Crowd::new(bed, connections, limits::each())?;
        let before = settled();
        let mut sample = self.set_up(&mut crowd, connections)?;
        let grown = settled().saturating_sub(before) as f64 / connections as f64;
        sample.insert(Metric::ConnectionBytes, four_digits(grown));
        self.round_trips(bed, &mut sample)?;
        if let Some(agent) = &agent {
            look_at(agent, connections, &mut sample, turns)?;
        }
        crowd.close()?;
        Ok(sample)
    }

    /// Sets the connections up; the last are open then.
    fn set_up(&self, crowd: &mut Crowd, connections: usize) -> Result<Sample> {
        let meter = Cpu::of(self.cgroup.path());
        let (mut count, mut took, mut cpu) = (0, Duration::ZERO, Duration::ZERO);
        loop {
            self.stop.check()?;
            let before = meter.used()?;
            took += crowd.open()?;
            cpu += meter.used()?.saturating_sub(before);
            count += connections;
            if count >= ENOUGH {
                break;
            }
            crowd.close()?;
        }
        let (count, seconds) = (count as f64, took.as_secs_f64().max(1e-9));
        Ok(Sample::from([
            (Metric::ConnectsPerSecond, four_digits(count / seconds)),
            (
                Metric::ConnectCpuUs,
                four_digits(cpu.as_secs_f64() * 1e6 / count),
            ),
        ]))
    }

    /// Round trips on one more connection, while the others are open.
    fn round_trips(&self, bed: &Bed, sample: &mut Sample) -> Result<()> {
        let turn = Turn {
            load: Load::Rr,
            size: SIZE,
            connections: 1,
            warm_up: WARM_UP.min(self.args.duration),
            measured: self.args.duration,
            cpu: Cpu::of(self.cgroup.path()),
            stop: self.stop.clone(),
        };
        let told = metric::sample(Load::Rr, &turn.run(&bed.ends())?);
        let kept = [Metric::P50Us, Metric::P99Us, Metric::CpuSPerMillion];
        sample.extend(told.into_iter().filter(|(metric, _)| kept.contains(metric)));
        Ok(())
    }
}

/// What the agent takes, and how soon its commands answer.
fn look_at(
    agent: &Agent,
    connections: usize,
    sample: &mut Sample,
    turns: &mut Turns,
) -> Result<()> {
    let totals = agent.maps()?.totals()?;
    let enrolled = (totals.enrolled - totals.closed) / 2;
    ensure!(
        enrolled >= connections as u64,
        "only {enrolled} connections are enrolled"
    );
    sample.insert(Metric::AgentCpuPercent, four_digits(agent.idle_percent()?));
    for (metric, command) in [(Metric::StatusMs, "status"), (Metric::ConnsMs, "conns")] {
        let millis = agent.time(command)?.as_secs_f64() * 1e3;
        sample.insert(metric, four_digits(millis));
    }
    sample.insert(Metric::AgentBytes, agent.resident()? as f64);
    turns.map_bytes = agent.maps()?.sizes()?.iter().map(|map| map.memory).sum();
    turns.room = u64::from(agent.maps()?.capacity()?) / 2;
    Ok(())
}

/// The kernel's memory, once it does not change any more.
fn settled() -> u64 {
    let (start, (least, pause)) = (Instant::now(), STILL);
    let mut last = limits::kernel_memory();
    loop {
        std::thread::sleep(pause);
        let now = limits::kernel_memory();
        if now.abs_diff(last) < least || start.elapsed() > SETTLE {
            return now;
        }
        last = now;
    }
}
