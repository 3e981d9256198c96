//! What histograms cost the connections that they are of.
//!
//! `cargo bench -p beeline --bench observing`, as root. In turns with and without histograms: round
//! trips of 64 bytes on one redirected connection, and connections that are made and closed. Prints
//! the paired ratios, and the time of a run of each program.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use common::{pin, report};
use datapath::abi::Hist;
use datapath::hist::{Kept, Snapshot};
use datapath::socket::{Options, SocketPath};
use testbed::traffic::{self, rr};
use testbed::{Cgroup, Node, Pod};

const PAIRS: usize = 101;
const ROUND_TRIPS: usize = 5_000;
const CONNECTS: usize = 100;
const SIZE: usize = 64;

/// Counts runs of programs, and what they take, while it is 1.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

struct Turn {
    round_trip_us: f64,
    connect_us: f64,
}

struct Bench {
    path: SocketPath,
    client: Pod,
    addr: SocketAddr,
    sock: TcpStream,
}

fn main() -> Result<()> {
    let cgroup = Cgroup::create("beeline-bench")?;
    cgroup.enter()?;
    let node = Node::new()?;
    let (client, web) = (node.pod("client")?, node.pod("web")?);
    // Each connection leaves its port in TIME_WAIT, and there are more than the usual 28,000 in a minute.
    client.sysctl("net.ipv4.ip_local_port_range", "10000 65000")?;
    let mut path = SocketPath::load(Options::default())?;
    path.attach(cgroup.path())?;
    let (listener, addr) = web.listen((web.ip(), 0))?;
    thread::spawn(move || serve(&listener));
    let sock = client.connect(addr)?;
    let bench = Bench {
        path,
        client,
        addr,
        sock,
    };
    bench.turn(true)?;
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let without = bench.turn(false)?;
        pairs.push((bench.turn(true)?, without));
    }
    println!("{PAIRS} pairs, {ROUND_TRIPS} round trips of {SIZE} B and {CONNECTS} connects each");
    report(
        "round trip",
        pairs
            .iter()
            .map(|(a, b)| (a.round_trip_us, b.round_trip_us)),
    );
    report(
        "connect + close",
        pairs.iter().map(|(a, b)| (a.connect_us, b.connect_us)),
    );
    bench.check()?;
    bench.programs()
}

fn serve(listener: &TcpListener) {
    pin(0);
    while let Ok(sock) = traffic::accept(listener) {
        thread::spawn(move || {
            pin(0);
            // The client hangs up when its turn is over.
            let _ = rr::serve(&sock, SIZE);
        });
    }
}

impl Bench {
    fn turn(&self, with: bool) -> Result<Turn> {
        let kept = if with {
            Kept::default()
        } else {
            Kept::from_bits(0)
        };
        self.path
            .maps()
            .change(|settings| settings.histograms = kept.bits())?;
        self.client.run(|| -> Result<Turn> {
            pin(0);
            let mut times = rr::client(&self.sock, SIZE, ROUND_TRIPS)?;
            times.sort();
            let start = Instant::now();
            for _ in 0..CONNECTS {
                drop(traffic::connect(self.addr)?);
            }
            Ok(Turn {
                round_trip_us: times[times.len() / 2].as_secs_f64() * 1e6,
                connect_us: start.elapsed().as_secs_f64() * 1e6 / CONNECTS as f64,
            })
        })?
    }

    /// Everything was redirected, and counted in the turns that were to be.
    fn check(&self) -> Result<()> {
        let maps = self.path.maps();
        let seen = Snapshot::look(maps, &datapath::ends::Tallied::load(maps)?)?;
        let counted = seen.host().histograms[Hist::Redirected].count();
        let sent = (2 * ROUND_TRIPS * (PAIRS + 1)) as u64;
        ensure!(counted == sent, "{counted} messages were counted of {sent}");
        Ok(())
    }

    /// Prints the least time that a run of each program takes in a turn, with and without histograms:
    /// whatever else the host does only adds to it.
    fn programs(&self) -> Result<()> {
        let before = fs::read_to_string(STATS).context(STATS)?;
        fs::write(STATS, "1").context(STATS)?;
        let measured = self.fastest();
        fs::write(STATS, before).context(STATS)?;
        for ((program, with), time) in measured? {
            let with = if with { "with" } else { "without" };
            println!("{program} {with} histograms: {time:.0} ns a run");
        }
        Ok(())
    }

    fn fastest(&self) -> Result<BTreeMap<(String, bool), f64>> {
        let mut fastest = BTreeMap::new();
        for turn in 0..PAIRS {
            let (with, start) = (turn % 2 == 1, runs());
            self.turn(with)?;
            for (program, (count, time)) in runs() {
                let (count_before, time_before) = start[&program];
                if count > count_before {
                    let each = (time - time_before) as f64 / (count - count_before) as f64;
                    let least = fastest.entry((program.1, with)).or_insert(each);
                    *least = each.min(*least);
                }
            }
        }
        Ok(fastest)
    }
}

/// Runs and nanoseconds of the programs that this process has loaded, by id and name.
fn runs() -> BTreeMap<(u32, String), (u64, u64)> {
    let own: Vec<u32> = fs::read_dir("/proc/self/fdinfo")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("prog_id:"))?;
            line.trim().parse().ok()
        })
        .collect();
    let programs = libbpf_rs::query::ProgInfoIter::default();
    let ours = programs.filter(|program| own.contains(&program.id));
    ours.map(|program| {
        let name = program.name.to_string_lossy().into_owned();
        ((program.id, name), (program.run_cnt, program.run_time_ns))
    })
    .collect()
}
