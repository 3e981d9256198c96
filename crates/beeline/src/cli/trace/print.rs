//! One line an event.

use std::net::SocketAddr;

use anyhow::Result;
use serde::Serialize;

use crate::cli::output;
use crate::observe::event::Event;
use crate::observe::filter::Subject;
use crate::observe::route::Route;
use crate::workload::Workload;

/// What was not printed since the last line.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The agent dropped them.
    pub missed: u64,
    /// More than --rate allows.
    pub withheld: u64,
}

impl Counts {
    /// A line for each that is not zero.
    pub(super) fn lines(&self) -> Vec<String> {
        let missed = (self.missed > 0).then(|| format!("({} events missed)", self.missed));
        let withheld = (self.withheld > 0)
            .then(|| format!("({} events not shown because of --rate)", self.withheld));
        [missed, withheld].into_iter().flatten().collect()
    }

    pub(super) fn print(&self) -> Result<()> {
        self.lines().iter().try_for_each(|line| output::line(line))
    }
}

/// An event, and who is at its ends.
pub(super) struct Line {
    pub event: Event,
    /// The end's own first.
    pub workloads: Vec<Workload>,
}

/// The `--json` output.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    event: &'a Event,
    /// Only if --process asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<&'a Workload>,
    /// Events just before this one that --rate held back.
    withheld: u64,
}

impl Line {
    /// Who is at its ends is not known yet.
    pub(super) fn new(event: Event) -> Self {
        let workloads = Vec::new();
        Self { event, workloads }
    }

    pub(super) fn print(mut self, counts: Counts, json: bool) -> Result<()> {
        if !json {
            counts.print()?;
            return output::line(&self.describe());
        }
        self.event.dropped = counts.missed;
        output::line(&serde_json::to_string(&Json {
            event: &self.event,
            workload: self.workloads.first(),
            withheld: counts.withheld,
        })?)
    }

    fn describe(&self) -> String {
        let event = &self.event;
        let role = event.role.as_deref().unwrap_or("-");
        let detail = match (&event.reason, event.event.as_str()) {
            (Some(reason), _) => format!("  {reason}"),
            (None, "closed") => format!("  {} redirected", output::bytes(event.redirected_bytes)),
            _ => String::new(),
        };
        let workload = self.workloads.first();
        let workload = workload.map_or(String::new(), |own| format!("  {}", own.label()));
        format!(
            "{:>14.6}  {:<16}  {role:<6}  {} -> {}  netns {}{workload}{detail}",
            event.at_ns as f64 / 1e9,
            event.event,
            event.local,
            event.remote,
            event.netns,
        )
    }
}

impl Subject for Line {
    fn workloads(&self) -> Vec<&Workload> {
        self.workloads.iter().collect()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.event.local, self.event.remote]
    }

    fn reasons(&self) -> Vec<&str> {
        self.event.reason.as_deref().into_iter().collect()
    }

    fn route(&self) -> Option<Route> {
        None
    }

    fn event(&self) -> Option<&str> {
        Some(&self.event.event)
    }
}
