//! The figures of an instance in the Prometheus text format.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>. Every label has a bounded set of values, so the
//! number of series does not grow with the number of connections.

mod own;
mod page;

use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use datapath::Maps;
use datapath::abi::{Hist, Reason, Totals, TxPath};
use datapath::ends::Tallied;
use datapath::hist::{self as tally, Histograms, Snapshot};

use self::page::{Labels, Marks, Page};
use super::hist::{self, Between, Unit};
use super::status::{self, Live, Work};
use crate::control;
use crate::instance::Instance;

/// The content type of what [`Exporter::render`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Tells the figures of an instance again and again.
pub struct Exporter {
    instance: Instance,
    /// One scrape at a time.
    kept: Mutex<Kept>,
}

/// From one scrape to the next.
#[derive(Default)]
struct Kept {
    ends: Option<Tallied>,
    marks: Marks,
}

impl Exporter {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        let kept = Mutex::default();
        Self { instance, kept }
    }

    /// Reads the maps of the instance and writes every metric.
    ///
    /// # Errors
    /// When the datapath cannot be read.
    pub fn render(&self) -> Result<String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = Page::new(kept.marks.clone());
        own::agent(&mut page)?;
        match Maps::open(&self.instance.pins()) {
            Err(datapath::Error::NotLoaded { .. }) => on(&mut page, false),
            Err(error) => return Err(error.into()),
            Ok(maps) => self.datapath(&mut page, &mut kept, &maps)?,
        }
        let (text, marks) = page.finish()?;
        kept.marks = marks;
        Ok(text)
    }

    fn datapath(&self, page: &mut Page, kept: &mut Kept, maps: &Maps) -> Result<()> {
        if kept.ends.is_none() {
            kept.ends = Some(Tallied::load(maps)?);
        }
        on(page, status::is_on(&self.instance, maps)?);
        // Sums first: an end that closes in between is missing for once, not counted twice.
        let (totals, mut snapshot) = (maps.totals()?, Snapshot::of_closed(maps)?);
        let (mut live, mut tallies) = (Live::default(), tally::Live::default());
        if let Some(ends) = &kept.ends {
            ends.each(maps, |one| {
                live.add(&one.record);
                tallies.add(one);
            })?;
        }
        snapshot.add_live(maps, &tallies)?;
        work(page, &status::work(maps, &totals, &live)?);
        reasons(page, &totals);
        histograms(page, &snapshot.host().histograms);
        pairs(
            page,
            &hist::between(&snapshot, &control::names(&self.instance)),
        );
        own::maps(page, maps)
    }
}

fn on(page: &mut Page, on: bool) {
    let help = "1 while new connections are enrolled.";
    page.gauge("beeline_on", help, f64::from(u8::from(on)));
}

fn work(page: &mut Page, work: &Work) {
    for (name, help, value) in [
        (
            "beeline_connections",
            "Connections with both ends enrolled.",
            work.connections,
        ),
        (
            "beeline_connections_limit",
            "Connections that can be enrolled at once.",
            work.connections_max,
        ),
        (
            "beeline_sockets",
            "Sockets in the map; two for a connection.",
            work.sockets,
        ),
    ] {
        page.gauge(name, help, value as f64);
    }
    for (name, help, value) in [
        (
            "beeline_enrolled_connections_total",
            "Connections whose both ends were enrolled.",
            work.connections_ever,
        ),
        (
            "beeline_redirected_bytes_total",
            "Bytes that were sent past the network stack.",
            work.redirected_bytes,
        ),
        (
            "beeline_redirected_messages_total",
            "Messages that were sent past the network stack.",
            work.redirected_messages,
        ),
        (
            "beeline_kernel_path_bytes_total",
            "Bytes that enrolled sockets sent through the network stack.",
            work.kernel_bytes,
        ),
        (
            "beeline_lost_events_total",
            "Trace events that found no room.",
            work.lost_events,
        ),
    ] {
        page.counter(name, help, value as f64);
    }
}

fn reasons(page: &mut Page, totals: &Totals) {
    let reasons = Reason::ALL.iter().filter(|reason| **reason != Reason::None);
    page.counters(
        "beeline_kernel_path_total",
        "Connections left on, and directions moved to, the kernel path.",
        reasons.map(|reason| {
            let labels = vec![("reason", reason.name().to_owned())];
            (labels, totals.count(*reason) as f64)
        }),
    );
}

/// Message sizes of either path, by the path's name.
const SIZES: [(Hist, TxPath); 2] = [
    (Hist::Redirected, TxPath::Redirect),
    (Hist::KernelPath, TxPath::Kernel),
];

fn histograms(page: &mut Page, host: &Histograms) {
    page.histograms(
        "beeline_message_size_bytes",
        "Sizes of the messages of enrolled sockets.",
        Unit::Bytes,
        SIZES
            .iter()
            .map(|(kind, path)| (on_path(*path), &host[*kind])),
    );
    for (kind, name, help) in [
        (
            Hist::Queue,
            "beeline_queue_depth_bytes",
            "What waited unread at the reader when a message was redirected to it.",
        ),
        (
            Hist::Read,
            "beeline_send_to_read_duration_seconds",
            "From sending a redirected message to reading it, if all was read before the next was sent.",
        ),
        (
            Hist::Rtt,
            "beeline_smoothed_rtt_seconds",
            "Smoothed round-trip times of enrolled sockets on the kernel path.",
        ),
        (
            Hist::Handshake,
            "beeline_handshake_duration_seconds",
            "From the SYN-ACK to the established connection at the server, of enrolled connections.",
        ),
        (
            Hist::Lifetime,
            "beeline_connection_lifetime_seconds",
            "From enrolment to close, of connections that are closed.",
        ),
    ] {
        page.histograms(name, help, Unit::of(kind), [(Labels::new(), &host[kind])]);
    }
}

fn on_path(path: TxPath) -> Labels {
    vec![("path", path.name().to_owned())]
}

/// By the names of their workloads.
fn pairs(page: &mut Page, pairs: &[Between]) {
    let labels = |pair: &Between| {
        vec![
            ("client", pair.client.clone()),
            ("server", pair.server.clone()),
        ]
    };
    page.gauges(
        "beeline_pair_connections",
        "Live connections between two workloads.",
        pairs
            .iter()
            .map(|pair| (labels(pair), pair.sums.connections as f64)),
    );
    let paths = || {
        pairs
            .iter()
            .flat_map(|pair| SIZES.map(|(kind, path)| (pair, kind, path)))
    };
    let series = |(pair, kind, path): (&Between, Hist, TxPath)| {
        let mut labels = labels(pair);
        labels.extend(on_path(path));
        (labels, pair.sums.histograms[kind].clone())
    };
    page.counters(
        "beeline_pair_sent_bytes_total",
        "Bytes that enrolled sockets of two workloads sent to each other.",
        paths()
            .map(series)
            .map(|(labels, sizes)| (labels, sizes.sum as f64)),
    );
    page.counters(
        "beeline_pair_messages_total",
        "Messages that enrolled sockets of two workloads sent to each other.",
        paths()
            .map(series)
            .map(|(labels, sizes)| (labels, sizes.count() as f64)),
    );
}
