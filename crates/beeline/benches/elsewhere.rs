//! What the attached datapath costs a connection whose peer is not covered (invariant 3).
//!
//! `cargo bench -p beeline --bench elsewhere`, as root. Round trips of 64 bytes to a server whose
//! socket was made outside of the covered cgroup, in turns with and without the attachment; every
//! turn has a connection of its own. Prints the paired ratios of p50 and of the time to connect.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use common::{pin, report};
use datapath::abi::Reason;
use datapath::socket::{Options, SocketPath};
use testbed::traffic::{self, rr};
use testbed::{Cgroup, Node, Outside, Pod};

const PAIRS: usize = 31;
const ROUND_TRIPS: usize = 20_000;
const CONNECTS: usize = 400;
const SIZE: usize = 64;

struct Turn {
    p50_us: f64,
    connect_us: f64,
}

fn main() -> Result<()> {
    let node = Node::new()?;
    let (pod, outside) = (node.pod("client")?, Outside::new(&node)?);
    // Before this process enters the cgroup: its accepted sockets stay outside with it.
    let (listener, addr) = outside.listen((outside.ip(), 0))?;
    thread::spawn(move || serve(&listener));
    let cgroup = Cgroup::create("beeline-bench")?;
    cgroup.enter()?;
    let mut path = SocketPath::load(Options::default())?;
    turn(&pod, addr)?;
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let without = turn(&pod, addr)?;
        path.attach(cgroup.path())?;
        let with = turn(&pod, addr)?;
        path.detach();
        pairs.push((with, without));
    }
    let left = path.maps().totals()?.count(Reason::PeerElsewhere);
    ensure!(
        left as usize == PAIRS * (CONNECTS + 1),
        "{left} connections were left alone"
    );
    println!("{PAIRS} pairs, {ROUND_TRIPS} round trips of {SIZE} B and {CONNECTS} connects each");
    report(
        "round trip p50",
        pairs.iter().map(|(a, b)| (a.p50_us, b.p50_us)),
    );
    report(
        "connect + close",
        pairs.iter().map(|(a, b)| (a.connect_us, b.connect_us)),
    );
    Ok(())
}

fn serve(listener: &TcpListener) {
    pin(0);
    while let Ok(sock) = traffic::accept(listener) {
        // The client hangs up when its turn is over.
        let _ = rr::serve(&sock, SIZE);
    }
}

fn turn(pod: &Pod, addr: SocketAddr) -> Result<Turn> {
    pod.run(|| -> Result<Turn> {
        pin(0);
        let sock = traffic::connect(addr)?;
        sock.set_nodelay(true)?;
        let mut times = rr::client(&sock, SIZE, ROUND_TRIPS)?;
        drop(sock);
        times.sort();
        let start = Instant::now();
        for _ in 0..CONNECTS {
            drop(traffic::connect(addr)?);
        }
        Ok(Turn {
            p50_us: times[times.len() / 2].as_secs_f64() * 1e6,
            connect_us: start.elapsed().as_secs_f64() * 1e6 / CONNECTS as f64,
        })
    })?
}
