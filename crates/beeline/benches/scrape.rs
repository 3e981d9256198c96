//! How long it takes to tell all metrics of a host with many connections.
//!
//! `cargo bench -p beeline --bench scrape`, as root. The figures are told in this process, without the
//! way over HTTP, ten times with no connections and with 10,000.

use std::time::Instant;

use anyhow::{Result, ensure};
use beeline::instance::Instance;
use beeline::observe::metrics::Exporter;
use datapath::socket::{Options, SocketPath};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testbed::Cgroup;
use testbed::traffic;

const CONNECTIONS: usize = 10_000;
const SCRAPES: usize = 10;

fn main() -> Result<()> {
    let connections = connections()?;
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
            for _ in 0..connections {
                let client = traffic::connect(addr)?;
                let server = traffic::accept(&listener)?;
                traffic::write_all(&client, b"hello")?;
                pairs.push((client, server));
            }
            scrapes(&exporter, connections)
        });
    path.detach();
    pins.remove()?;
    measured
}

/// As many as this process may have, with two descriptors each.
fn connections() -> Result<usize> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit)?;
    let room = maximum.map_or(CONNECTIONS, |most| most.saturating_sub(500) as usize / 2);
    Ok(room.min(CONNECTIONS))
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
