//! The figures of an instance in the Prometheus text format.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>. Every label has a bounded set of values, so the
//! number of series does not grow with the number of connections.

use anyhow::{Context, Result};
use datapath::Maps;
use datapath::abi::Reason;
use procfs::WithCurrentSystemInfo;
use procfs::process::Process;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::status::{self, Work};
use crate::instance::Instance;

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Reads the maps of an instance and writes every metric.
///
/// # Errors
/// When the datapath is not loaded or cannot be read.
pub fn render(instance: &Instance) -> Result<String> {
    let page = Page(Registry::new());
    page.agent()?;
    let state = status::read(instance)?;
    page.gauge(
        "beeline_on",
        "1 while new connections are enrolled.",
        state.on.into(),
    )?;
    if let Some(work) = &state.work {
        page.work(work)?;
        page.reasons(&Maps::open(&instance.pins())?)?;
    }
    let text = TextEncoder::new().encode_to_string(&page.0.gather());
    text.context("cannot write the metrics")
}

/// What was collected so far.
struct Page(Registry);

impl Page {
    fn agent(&self) -> Result<()> {
        let name = "beeline_build_info";
        let build = IntGaugeVec::new(
            Opts::new(name, "Which agent answers; always 1."),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        self.add(build)?;
        let own = Process::myself()?;
        let resident = own.stat()?.rss_bytes().get();
        self.gauge(
            "process_resident_memory_bytes",
            "Resident memory of the agent.",
            resident,
        )?;
        self.gauge(
            "process_open_fds",
            "File descriptors that the agent holds.",
            own.fd_count()? as u64,
        )
    }

    fn work(&self, work: &Work) -> Result<()> {
        let gauge = |name, help, value| self.gauge(name, help, value);
        gauge(
            "beeline_connections",
            "Connections with both ends enrolled.",
            work.connections,
        )?;
        gauge(
            "beeline_connections_limit",
            "Connections that can be enrolled at once.",
            work.connections_max,
        )?;
        gauge(
            "beeline_sockets",
            "Sockets in the map; two for a connection.",
            work.sockets,
        )?;
        let counter = |name, help, value| self.counter(name, help, value);
        counter(
            "beeline_enrolled_connections_total",
            "Connections whose both ends were enrolled.",
            work.connections_ever,
        )?;
        counter(
            "beeline_redirected_bytes_total",
            "Bytes that were sent past the network stack.",
            work.redirected_bytes,
        )?;
        counter(
            "beeline_redirected_messages_total",
            "Messages that were sent past the network stack.",
            work.redirected_messages,
        )?;
        counter(
            "beeline_kernel_path_bytes_total",
            "Bytes that enrolled sockets sent through the network stack.",
            work.kernel_bytes,
        )?;
        counter(
            "beeline_lost_events_total",
            "Trace events that found no room.",
            work.lost_events,
        )
    }

    fn reasons(&self, maps: &Maps) -> Result<()> {
        let help = "Connections left on, and directions moved to, the kernel path.";
        let vec = IntCounterVec::new(Opts::new("beeline_kernel_path_total", help), &["reason"])?;
        let totals = maps.totals()?;
        for reason in Reason::ALL.iter().filter(|r| **r != Reason::None) {
            vec.with_label_values(&[reason.name()])
                .inc_by(totals.count(*reason));
        }
        self.add(vec)
    }

    fn counter(&self, name: &str, help: &str, value: u64) -> Result<()> {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.add(counter)
    }

    fn gauge(&self, name: &str, help: &str, value: u64) -> Result<()> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.add(gauge)
    }

    fn add(&self, metric: impl Collector + 'static) -> Result<()> {
        Ok(self.0.register(Box::new(metric))?)
    }
}
