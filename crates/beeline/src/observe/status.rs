//! Whether the datapath is on, and what it did.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use datapath::abi::{EndRecord, Handshake, Mode, Reason, Totals};
use datapath::cost::{self, Cost};
use datapath::ends::Ends;
use datapath::{Maps, Result, Size, attach, probe, socket};
use serde::Serialize;

use super::gain::Gain;
use crate::control::{self, AgentInfo};
use crate::instance::Instance;
use crate::selftest::Report;
use crate::workload::Workloads;

/// The state of an instance.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// New connections are enrolled.
    pub on: bool,
    /// Its name.
    pub instance: String,
    /// `on`, `off` or `detaching`; absent when nothing is loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    /// The cgroup it is attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// When it was attached first, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Who looks after it; nobody needs to.
    pub agent: Option<AgentInfo>,
    /// What the agent that started last found out about this kernel before it attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_test: Option<Report>,
    /// What it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// What that costs; present if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<Costs>,
}

/// What the datapath takes of the host.
#[derive(Debug, Clone, Serialize)]
pub struct Costs {
    /// How long its programs were watched.
    pub watched_seconds: f64,
    /// Those that look after connections; after an upgrade, also earlier ones that still do.
    pub programs: Vec<Program>,
    /// Its maps.
    pub maps: Vec<Map>,
}

/// A BPF program.
#[derive(Debug, Clone, Serialize)]
pub struct Program {
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// Instructions that the verifier looked at, on all paths through it.
    pub verified_instructions: u32,
    /// Machine code.
    pub code_bytes: usize,
    /// How often it ran while it was watched.
    pub runs: u64,
    /// How long a run took, on average; absent without runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_ns: Option<u64>,
}

/// A BPF map.
#[derive(Debug, Clone, Serialize)]
pub struct Map {
    /// Its name.
    pub name: &'static str,
    /// Elements in it; absent where counting takes too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// The most that it takes; 0 for storage of sockets.
    pub limit: u32,
    /// What the kernel accounts for it.
    pub memory_bytes: u64,
}

/// How long programs are watched.
const WATCHED: Duration = Duration::from_secs(1);

impl Status {
    /// Adds what it costs, for which the programs are watched for a second; nothing when nothing is loaded.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn with_costs(mut self, instance: &Instance) -> Result<Self> {
        if self.work.is_some() {
            let maps = Maps::open(&instance.pins())?;
            self.costs = Some(costs(&maps)?);
        }
        Ok(self)
    }
}

fn costs(maps: &Maps) -> Result<Costs> {
    let program = |cost: Cost| Program {
        name: cost.name,
        verified_instructions: cost.verified,
        code_bytes: cost.code,
        runs: cost.runs,
        run_ns: u64::try_from(cost.took.as_nanos())
            .ok()
            .and_then(|all| all.checked_div(cost.runs)),
    };
    let map = |size: Size| Map {
        name: size.name,
        entries: size.entries,
        limit: size.limit,
        memory_bytes: size.memory,
    };
    Ok(Costs {
        watched_seconds: WATCHED.as_secs_f64(),
        programs: cost::watch(maps, WATCHED)?
            .into_iter()
            .map(program)
            .collect(),
        maps: maps.sizes()?.into_iter().map(map).collect(),
    })
}

/// What a datapath did since it was attached.
#[derive(Debug, Clone, Serialize)]
pub struct Work {
    /// Connections that are enrolled now.
    pub connections: u64,
    /// Connections that ever were.
    pub connections_ever: u64,
    /// Connections that can be enrolled at once.
    pub connections_max: u64,
    /// Sockets in the map now.
    pub sockets: u64,
    /// Sent past the stack.
    pub redirected_bytes: u64,
    /// Messages sent past the stack.
    pub redirected_messages: u64,
    /// Sent through the stack by enrolled sockets.
    pub kernel_bytes: u64,
    /// What redirecting was worth.
    pub gain: Gain,
    /// Bytes that may wait unread at one reader before its sender has to wait.
    pub queue_limit_bytes: u64,
    /// TCP memory in use on the host above which nothing more is redirected, in bytes.
    pub memory_limit_bytes: u64,
    /// TCP memory in use on the host, by everybody, in bytes; absent where the kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_memory_bytes: Option<u64>,
    /// Trace events that found no room.
    pub lost_events: u64,
    /// How often something was left on, or moved to, the kernel path; only reasons that occurred.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Reads the state of an instance; works without an agent.
///
/// # Errors
/// When pins exist but cannot be read, for want of root or because of another layout.
pub fn read(instance: &Instance) -> Result<Status> {
    let maps = match Maps::open(&instance.pins()) {
        Err(datapath::Error::NotLoaded { .. }) => return Ok(off(instance)),
        other => other?,
    };
    let mode = maps.mode()?;
    let cgroup = attach::attached_cgroup(&instance.pins())?;
    // Sums first: an end that closes in between is missing for once, not counted twice.
    let (totals, mut live) = (maps.totals()?, Live::default());
    Ends::load(&maps)?.each(&maps, |end| live.add(end))?;
    let since = boot_instant(maps.settings()?.attached_ns);
    Ok(Status {
        on: is_on(instance, &maps)?,
        instance: instance.to_string(),
        mode: Some(mode.name()),
        cgroup: cgroup.map(cgroup_name),
        since: Some(humantime::format_rfc3339_seconds(since).to_string()),
        agent: control::agent(instance),
        self_test: Report::kept(instance),
        costs: None,
        work: Some(work(&maps, &totals, &live)?),
    })
}

/// Whether new connections are enrolled.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn is_on(instance: &Instance, maps: &Maps) -> Result<bool> {
    let attached = attach::attached_cgroup(&instance.pins())?.is_some();
    Ok(maps.mode()? == Mode::On && attached)
}

fn off(instance: &Instance) -> Status {
    Status {
        on: false,
        instance: instance.to_string(),
        mode: None,
        cgroup: None,
        since: None,
        agent: control::agent(instance),
        // Of a start that was refused.
        self_test: Report::kept(instance),
        work: None,
        costs: None,
    }
}

/// The sums of the sockets that exist.
#[derive(Debug, Default)]
pub struct Live {
    /// Enrolled connections, by the client's view.
    connections: HashSet<Handshake>,
    sockets: u64,
    redirected_bytes: u64,
    redirected_messages: u64,
    kernel_bytes: u64,
}

impl Live {
    /// Adds a socket that is or was enrolled.
    pub fn add(&mut self, record: &EndRecord) {
        let end = &record.end;
        if record.has_psock != 0 {
            let client = if end.is_client() {
                end.own
            } else {
                end.own.mirror()
            };
            self.connections.insert(client);
            self.sockets += 1;
        }
        // Of one that is closed they are in the totals.
        if !end.is_closed() {
            self.redirected_bytes += end.redirected_bytes;
            self.redirected_messages += end.redirected_msgs;
            self.kernel_bytes += end.kernel_bytes;
        }
    }
}

/// What a datapath did, by the sums of closed connections and of all sockets that exist.
///
/// # Errors
/// When the kernel refuses a look-up.
pub fn work(maps: &Maps, totals: &Totals, live: &Live) -> Result<Work> {
    let settings = maps.settings()?;
    let page = rustix::param::page_size() as u64;
    let occurred = Reason::ALL.iter().filter(|reason| **reason != Reason::None);
    let redirected_messages = totals.closed_redirected_msgs + live.redirected_messages;
    Ok(Work {
        connections: live.connections.len() as u64,
        connections_ever: totals.paired,
        connections_max: u64::from(maps.capacity()?) / 2,
        sockets: live.sockets,
        redirected_bytes: totals.closed_redirected_bytes + live.redirected_bytes,
        redirected_messages,
        kernel_bytes: totals.closed_kernel_bytes + live.kernel_bytes,
        gain: Gain::of(redirected_messages),
        queue_limit_bytes: settings.queue_limit.into(),
        memory_limit_bytes: settings.memory_limit.saturating_mul(page),
        tcp_memory_bytes: probe::tcp_memory_used()?.map(|pages| pages * page),
        lost_events: totals.lost_events,
        reasons: occurred
            .map(|reason| (reason.name(), totals.count(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect(),
    })
}

fn boot_instant(ns_since_boot: u64) -> SystemTime {
    let ago = socket::boot_time_ns().saturating_sub(ns_since_boot);
    SystemTime::now() - Duration::from_nanos(ago)
}

fn cgroup_name(id: u64) -> String {
    let root = testbed::cgroup2_mount().ok();
    let root = root.filter(|root| fs::metadata(root).is_ok_and(|dir| dir.ino() == id));
    match root {
        Some(root) => root.display().to_string(),
        None => Workloads::cgroups()
            .remove(&id)
            .unwrap_or_else(|| format!("id {id}")),
    }
}
