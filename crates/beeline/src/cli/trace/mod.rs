//! `beeline trace`

mod follow;
mod names;
mod pace;
mod pcap;
mod print;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use datapath::abi::CAPTURE_MAX;

use self::follow::Next;
use self::names::Names;
use self::pace::Pace;
use self::print::{Counts, Line};
use super::filter;
use crate::instance::Instance;
use crate::observe::event::Event;
use crate::observe::filter::Filter;

/// After so long without an event, what was not shown is told.
const QUIET: Duration = Duration::from_secs(1);

/// Print what happens to connections, as it happens, until interrupted.
///
/// One line an event: established (left on the kernel path, and why), enrolled, paired,
/// redirect_started, kernel_path, closed. Needs a running agent.
///
/// Who holds a socket is looked up only if --process asks for it, and can be told of enrolled
/// connections while they live; of how many events it could not be told is said at the end.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    /// Print at most so many events a second, and count the others
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Instead of printing events, write what connections send to a file (- for stdout) that tcpdump
    /// and Wireshark read: the data as it was sent, on either path, with TCP headers made for it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "rate", "event", "reason"])]
    pcap: Option<PathBuf>,

    /// Write at most so many bytes of each message
    #[arg(long, value_name = "BYTES", requires = "pcap", default_value_t = CAPTURE_MAX,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(CAPTURE_MAX)))]
    snap: u32,

    #[command(flatten)]
    filter: filter::EventFilter,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.pcap {
        pcap::run(instance, path, args.snap, args.filter.filter())?;
        return Ok(ExitCode::SUCCESS);
    }
    let next = follow::start(instance)?;
    let mut printer = Printer::new(instance, args)?;
    loop {
        match next.wait(QUIET)? {
            Next::Event(event) => printer.take(*event)?,
            Next::Quiet => printer.quiet()?,
            Next::Interrupted => break,
            Next::AgentStopped => {
                eprintln!("the agent stopped");
                break;
            }
        }
    }
    printer.end();
    Ok(ExitCode::SUCCESS)
}

/// Chooses what is printed, and keeps count of the rest.
struct Printer {
    /// What can be said without names.
    plain: Filter,
    filter: Filter,
    names: Option<Names>,
    pace: Pace,
    counts: Counts,
    nameless: u64,
    json: bool,
}

impl Printer {
    fn new(instance: &Instance, args: &Args) -> Result<Self> {
        let filter = args.filter.filter();
        let names = filter.asks_for_workloads();
        Ok(Self {
            plain: filter.without_workloads(),
            filter,
            names: names.then(|| Names::open(instance)).transpose()?,
            pace: Pace::new(args.rate),
            counts: Counts::default(),
            nameless: 0,
            json: args.json,
        })
    }

    fn take(&mut self, event: Event) -> Result<()> {
        self.counts.missed += event.dropped;
        let mut line = Line::new(event);
        if !self.plain.shows(&line) || !self.has_name(&mut line)? {
            return Ok(());
        }
        if !self.pace.admits(line.event.at_ns) {
            self.counts.withheld += 1;
            return Ok(());
        }
        line.print(std::mem::take(&mut self.counts), self.json)
    }

    /// Whether it is of the workloads that are asked for; finds them.
    fn has_name(&mut self, line: &mut Line) -> Result<bool> {
        let Some(names) = &mut self.names else {
            return Ok(true);
        };
        line.workloads = names.of(&line.event)?;
        self.nameless += u64::from(line.workloads.is_empty());
        Ok(self.filter.shows(line))
    }

    /// In JSON, the next event tells.
    fn quiet(&mut self) -> Result<()> {
        if self.json {
            return Ok(());
        }
        std::mem::take(&mut self.counts).print()
    }

    fn end(&self) {
        for count in self.counts.lines() {
            eprintln!("{count}");
        }
        if self.nameless > 0 {
            eprintln!(
                "({} events not shown: whose they are could not be told)",
                self.nameless
            );
        }
    }
}
