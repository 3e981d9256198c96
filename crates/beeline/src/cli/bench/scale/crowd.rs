//! Many connections between two pods, and the processes that hold them.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testbed::{ChildGuard, NetNs};

use super::hold::{COMMAND, Order, Side};
use super::own_executable;
use crate::cli::bench::tools::on_core;
use crate::cli::measure::bed::Bed;

/// The first server's port; each next one has the next.
const FIRST_PORT: u16 = 20_000;

/// All connections.
pub(super) struct Crowd {
    pairs: Vec<Pair>,
}

/// Client and server of some of them.
struct Pair {
    client: Holder,
    server: Holder,
    connections: usize,
}

impl Crowd {
    /// Starts the processes for so many connections, each with `each` of them at most.
    pub(super) fn new(bed: &Bed, connections: usize, each: usize) -> Result<Self> {
        let count = |first: usize| each.min(connections - first);
        let pairs = (0..connections)
            .step_by(each)
            .enumerate()
            .map(|(n, first)| {
                let port = FIRST_PORT + u16::try_from(n)?;
                let addr = SocketAddr::new(bed.listen().ip(), port);
                // The server listens when it has been started.
                let cores = bed.cores();
                Ok(Pair {
                    server: Holder::start(bed.server(), cores.server, Side::Server, addr)?,
                    client: Holder::start(bed.client(), cores.client, Side::Client, addr)?,
                    connections: count(first),
                })
            });
        let pairs = pairs.collect::<Result<_>>()?;
        Ok(Self { pairs })
    }

    /// Sets all connections up, one after the other, and returns how long that took.
    pub(super) fn open(&mut self) -> Result<Duration> {
        let mut took = Duration::ZERO;
        for pair in &mut self.pairs {
            let order = Order::Open(pair.connections);
            pair.server.tell(order)?;
            pair.client.tell(order)?;
            // Whichever fails tells why; the other then waits in vain.
            let (began, _) = pair.client.answer()?;
            let (_, ended) = pair.server.answer()?;
            took += Duration::from_nanos(ended.saturating_sub(began));
        }
        Ok(took)
    }

    /// Closes all connections.
    pub(super) fn close(&mut self) -> Result<()> {
        for pair in &mut self.pairs {
            for end in [&mut pair.client, &mut pair.server] {
                end.tell(Order::Close)?;
                end.answer()?;
            }
        }
        Ok(())
    }
}

/// A process that holds one side of connections; it is killed when this is dropped.
struct Holder {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    side: Side,
    _child: ChildGuard,
}

impl Holder {
    fn start(ns: &NetNs, core: usize, side: Side, addr: SocketAddr) -> Result<Self> {
        let command = ns
            .command(&own_executable())
            .args([COMMAND, side.name(), &addr.to_string()])
            .with(|command| {
                command.stdout(Stdio::piped()).stderr(Stdio::null());
            })
            .talking();
        let mut child = on_core(ns, core, || command.spawn())?;
        let pipes = child.child();
        let orders = pipes.stdin.take().context("its input is a pipe")?;
        let answers = pipes.stdout.take().context("its output is a pipe")?;
        let mut holder = Self {
            orders,
            answers: BufReader::new(answers),
            side,
            _child: child,
        };
        let said = holder.line()?;
        ensure!(said == "ready", "the {} says: {said}", side.name());
        Ok(holder)
    }

    fn tell(&mut self, order: Order) -> Result<()> {
        let side = self.side.name();
        writeln!(self.orders, "{order}").with_context(|| format!("the {side} has ended"))
    }

    /// When it began and ended what it was told last, in nanoseconds of the monotonic clock.
    fn answer(&mut self) -> Result<(u64, u64)> {
        let said = self.line()?;
        let times = said.split_once(' ').and_then(|(began, ended)| {
            let times = (began.parse().ok()?, ended.parse().ok()?);
            Some(times)
        });
        times.with_context(|| format!("the {} says: {said}", self.side.name()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the {} has ended", self.side.name());
        }
        Ok(line.trim_end().to_owned())
    }
}
