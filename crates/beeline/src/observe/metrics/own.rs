//! What the agent itself uses, and how full its maps are.

use anyhow::Result;
use datapath::abi::ABI;
use datapath::{Maps, Size};
use procfs::WithCurrentSystemInfo;
use procfs::process::Process;

use super::page::Page;

pub(super) fn agent(page: &mut Page) -> Result<()> {
    let labels = vec![
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("map_layout", ABI.to_string()),
    ];
    let help = "Which agent answers, and the layout of its maps; always 1.";
    page.gauges("beeline_build_info", help, [(labels, 1.0)]);
    let own = Process::myself()?;
    let stat = own.stat()?;
    let ticks = (stat.utime + stat.stime) as f64;
    page.counter(
        "process_cpu_seconds_total",
        "Processor time of the agent.",
        ticks / procfs::ticks_per_second() as f64,
    );
    page.gauge(
        "process_resident_memory_bytes",
        "Resident memory of the agent.",
        stat.rss_bytes().get() as f64,
    );
    page.gauge(
        "process_open_fds",
        "File descriptors that the agent holds.",
        own.fd_count()? as f64,
    );
    Ok(())
}

pub(super) fn maps(page: &mut Page, maps: &Maps) -> Result<()> {
    let sizes = maps.sizes()?;
    let labels = |size: &Size| vec![("map", size.name.to_owned())];
    let counted = || sizes.iter().filter_map(|size| Some((size, size.entries?)));
    page.gauges(
        "beeline_map_entries",
        "Elements of a map, but for those of connections and sockets.",
        counted().map(|(size, entries)| (labels(size), entries as f64)),
    );
    page.gauges(
        "beeline_map_entries_limit",
        "Elements that such a map can have.",
        counted().map(|(size, _)| (labels(size), f64::from(size.limit))),
    );
    page.gauges(
        "beeline_map_memory_bytes",
        "Memory that the kernel charges for a map.",
        sizes.iter().map(|size| (labels(size), size.memory as f64)),
    );
    Ok(())
}
