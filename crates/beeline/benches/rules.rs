//! What many rules cost a new connection.
//!
//! `cargo bench -p beeline --bench rules`, as root. Connections over loopback, both ends enrolled, in
//! turns with one rule, and with 1,000 rules that ask for everything, one of which matches, among 10,000
//! workloads. Prints the paired ratio of the processor time to connect and close, and how long it takes to put
//! the many rules in force.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use beeline::config::Sources;
use beeline::policy::Policy;
use beeline::workload::Containers;
use datapath::abi::Program;
use datapath::programs::Programs;
use datapath::rules::{Tables, prepare};
use datapath::socket::{Options, SocketPath};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tempfile::NamedTempFile;
use testbed::{Cgroup, traffic};

const PAIRS: usize = 31;
const CONNECTS: usize = 1000;
const RULES: usize = 1000;
const WORKLOADS: usize = 10_000;

/// The last rule matches, whoever connects.
const ONE: &str = "[[rule]]\npath = \"socket\"\nlocal = { uid = 0, cidr = \"127.0.0.0/8\" }\n";

fn main() -> Result<()> {
    let cgroup = Cgroup::create("beeline-bench")?;
    cgroup.enter()?;
    let mut cores = CpuSet::new();
    cores.set(0);
    sched_setaffinity(None, &cores)?;
    let mut path = SocketPath::load(Options::default())?;
    path.attach(cgroup.path())?;
    let programs = Programs::load(path.maps(), |_| true)?.running()?;
    let own = (cgroup.path().metadata()?.ino(), "/own".to_owned());
    let one = tables(ONE, HashMap::from([own.clone()]), &programs)?;
    let others = (0..WORKLOADS).map(|n| {
        (
            (1 << 40) + n as u64,
            format!("/apps/tenant-{}/app-{n}", n % 50),
        )
    });
    let begin = Instant::now();
    let many = tables(&rules(), others.chain([own]).collect(), &programs)?;
    let compiled = begin.elapsed();
    put(&path, &many)?;
    println!(
        "{RULES} rules, {WORKLOADS} workloads: compiled in {compiled:.1?}, in force after {:.1?}",
        begin.elapsed()
    );
    let mut ratios = Vec::new();
    for _ in 0..PAIRS {
        put(&path, &one)?;
        let with_one = turn()?;
        put(&path, &many)?;
        ratios.push(turn()? / with_one);
    }
    let paired = path.maps().totals()?.paired;
    ensure!(
        paired as usize == 2 * PAIRS * CONNECTS,
        "{paired} connections were enrolled"
    );
    ratios.sort_by(f64::total_cmp);
    let at = |part: usize| ratios[(PAIRS - 1) * part / 4];
    println!(
        "connect + close, {RULES} rules / one rule: median {:.4}, quartiles {:.4} to {:.4}",
        at(2),
        at(1),
        at(3)
    );
    Ok(())
}

/// Each asks for a cgroup, a unit, an executable, a network or a port that nobody here has, at one end or
/// the other.
fn rules() -> String {
    let mut text = String::new();
    for n in 0..RULES - 1 {
        let end = ["local", "remote"][n % 2];
        let ask = match n / 2 % 5 {
            0 => format!("cgroup = \"/apps/tenant-{}/*\"", n % 50),
            1 => format!("unit = \"service-{n}.service\""),
            2 => format!("executable = \"/opt/app-{n}/bin/*\""),
            3 => format!("cidr = \"10.{}.{}.0/24\"", n / 256, n % 256),
            _ => format!("port = \"{n}-{}\"", n + 20),
        };
        writeln!(text, "[[rule]]\npath = \"kernel\"\n{end} = {{ {ask} }}")
            .expect("a string takes it");
    }
    text + ONE
}

fn tables(
    rules: &str,
    cgroups: HashMap<u64, String>,
    programs: &[(Program, PathBuf)],
) -> Result<Tables> {
    let file = NamedTempFile::new()?;
    fs::write(&file, rules)?;
    Ok(Policy::of(&Sources::of(file.path()).load()?).tables(
        &cgroups,
        &Containers::default(),
        programs,
    ))
}

fn put(path: &SocketPath, tables: &Tables) -> Result<()> {
    prepare(path.maps(), tables)?.put_in_force(path.maps(), |_| {})?;
    Ok(())
}

/// Seconds of processor time: over loopback all of the work is done by the thread that connects.
fn turn() -> Result<f64> {
    let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
    let begin = processor_time();
    for _ in 0..CONNECTS {
        let client = traffic::connect(addr)?;
        drop((traffic::accept(&listener)?, client));
    }
    Ok(processor_time() - begin)
}

fn processor_time() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
