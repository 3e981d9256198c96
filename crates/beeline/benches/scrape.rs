//! How long it takes to tell all metrics of a host with many connections.
//!
//! `cargo bench -p beeline --bench scrape`, as root. The figures are told in this process, without the
//! way over HTTP, ten times with no connections and with 10,000.

use std::time::Instant;

use anyhow::{Result, ensure};
use beeline::instance::Instance;
use beeline::observe::metrics::Exporter;
use datapath::socket::{Options, SocketPath};
use rustix::process::{Resource, Rlimit, setrlimit};
use testbed::Cgroup;
use testbed::traffic;

const CONNECTIONS: usize = 10_000;
const SCRAPES: usize = 10;

fn main() -> Result<()> {
    let descriptors = Some(2 * CONNECTIONS as u64 + 1000);
    let limit = Rlimit {
        current: descriptors,
        maximum: descriptors,
    };
    setrlimit(Resource::Nofile, limit)?;
    let cgroup = Cgroup::create("beeline-bench")?;
    cgroup.enter()?;
    let instance: Instance = format!("bench-{}", std::process::id()).parse()?;
    let pins = instance.pins();
    let mut path = SocketPath::load_pinned(Options::default(), &pins)?;
    let measured = path
        .attach(cgroup.path())
        .map_err(Into::into)
        .and_then(|()| {
            let exporter = Exporter::new(instance);
            scrapes(&exporter, 0)?;
            let (listener, addr) = traffic::listen(([127, 0, 0, 1], 0))?;
            let mut pairs = Vec::new();
            for _ in 0..CONNECTIONS {
                let client = traffic::connect(addr)?;
                let server = traffic::accept(&listener)?;
                traffic::write_all(&client, b"hello")?;
                pairs.push((client, server));
            }
            scrapes(&exporter, CONNECTIONS)
        });
    path.detach();
    pins.remove()?;
    measured
}

fn scrapes(exporter: &Exporter, connections: usize) -> Result<()> {
    let mut times = Vec::new();
    let mut series = 0;
    for _ in 0..SCRAPES {
        let start = Instant::now();
        let text = exporter.render()?;
        times.push(start.elapsed());
        series = text.lines().filter(|line| !line.starts_with('#')).count();
        ensure!(
            text.contains(&format!("beeline_connections {connections}\n")),
            "{text}"
        );
    }
    times.sort();
    println!(
        "{connections} connections: {series} series, {:.1?} in the median, {:.1?} at most",
        times[SCRAPES / 2],
        times[SCRAPES - 1]
    );
    Ok(())
}
