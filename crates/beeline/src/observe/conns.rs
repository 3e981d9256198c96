//! The enrolled connections: both ends of each, with what runs there.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use datapath::abi::{self, EndRecord, Handshake, Reason, Tally, TxPath};
use datapath::hist::Histograms;
use datapath::{Maps, Result, socket};
use serde::Serialize;

use super::picture::Camera;
use crate::instance::Instance;
use crate::workload::{Workload, Workloads};

/// What names a connection to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// The address of either end, or of the peer as either end sees it. Several may have it.
    Address(SocketAddr),
    /// The cookie of either socket.
    Cookie(u64),
}

/// Histograms, by the cookies of the sockets that have them.
pub(super) type Tallies = HashMap<u64, Box<Tally>>;

/// Why a string names no connection.
#[derive(Debug, thiserror::Error)]
#[error("it needs an address with port, as 10.244.0.2:8080 or [fd00::1]:80, or a socket's cookie")]
pub struct BadName;

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> std::result::Result<Self, BadName> {
        let cookie = || text.parse().map(Self::Cookie);
        let address = || text.parse().map(Self::Address);
        cookie().or_else(|_| address()).map_err(|_| BadName)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "with the address {address}"),
            Self::Cookie(cookie) => write!(f, "with the socket cookie {cookie}"),
        }
    }
}

/// That no connection has a name.
#[derive(Debug, thiserror::Error)]
#[error("no connection {0} is enrolled: `beeline conns` shows those that are")]
pub struct Unknown(Name);

/// One connection. An end that is closed already is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// The client's view.
    #[serde(skip)]
    pub handshake: Handshake,
    /// Who connected.
    pub client: Option<End>,
    /// Who accepted.
    pub server: Option<End>,
    /// Since the older end was enrolled.
    pub age_seconds: f64,
}

impl Connection {
    /// Whether it is one of those with this name.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        self.ends().any(|end| match name {
            Name::Address(address) => end.local == address || end.remote == address,
            Name::Cookie(cookie) => end.cookie == cookie,
        })
    }

    /// Gives each end its histograms, by its cookie.
    pub(super) fn take_tallies(&mut self, tallies: &mut Tallies) {
        for end in self.client.iter_mut().chain(&mut self.server) {
            end.tally = tallies.remove(&end.cookie);
        }
    }

    /// The ends that are not closed, the client's first.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        self.client.iter().chain(&self.server)
    }
}

impl End {
    /// All that it sent while it was enrolled.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.redirected_bytes + self.kernel_bytes
    }

    /// What it sent, by size; empty if that was not asked for.
    #[must_use]
    pub fn histograms(&self) -> Histograms {
        self.tally
            .as_deref()
            .map(Histograms::from)
            .unwrap_or_default()
    }
}

/// One end of a connection; path and bytes are those of what it sends.
#[derive(Debug, Clone, Serialize)]
pub struct End {
    /// Its own address.
    pub local: SocketAddr,
    /// The peer's address as it sees it; NAT makes it differ from the peer's own.
    pub remote: SocketAddr,
    /// Who holds the socket, as far as known.
    pub workload: Workload,
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Owner's user id.
    pub uid: u32,
    /// The kernel's name of the socket.
    pub cookie: u64,
    /// `start`, `socket` or `kernel`.
    pub path: &'static str,
    /// Why it is not redirected; absent if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Sent past the stack.
    pub redirected_bytes: u64,
    /// Messages sent past the stack.
    pub redirected_messages: u64,
    /// Sent through the stack, while it was enrolled.
    pub kernel_bytes: u64,
    /// Redirected to it and not read yet.
    pub unread_bytes: u32,
    /// TCP's smoothed round-trip time, of the kernel path, in microseconds; 0 if it has none.
    pub smoothed_rtt_us: u32,
    /// Histograms of what it sent, if they were asked for.
    #[serde(skip)]
    pub tally: Option<Box<Tally>>,
}

/// Lists the enrolled connections, oldest first.
///
/// # Errors
/// When the kernel refuses the iterator.
pub fn list(instance: &Instance, maps: &Maps) -> Result<Vec<Connection>> {
    Ok(Camera::new(instance, maps)?.look(maps)?.conns)
}

/// Those that have one of the names, in the order of the names.
///
/// # Errors
/// A name that none has.
pub fn named(
    conns: &[Connection],
    names: &[Name],
) -> std::result::Result<Vec<Connection>, Unknown> {
    let mut chosen = Vec::new();
    for name in names {
        let before = chosen.len();
        chosen.extend(conns.iter().filter(|conn| conn.has(*name)).cloned());
        if chosen.len() == before {
            return Err(Unknown(*name));
        }
    }
    Ok(chosen)
}

/// The connections of those ends that are not closed, oldest first.
#[must_use]
pub fn of(ends: &[EndRecord], workloads: &Workloads) -> Vec<Connection> {
    // One that is plain TCP again is shown if it knows why.
    let says_why = |end: &abi::End| end.retiring != 0 || end.tx_reason != 0;
    let shown = |one: &&EndRecord| one.has_psock != 0 || says_why(&one.end);
    let live = ends.iter().filter(|one| !one.end.is_closed());
    let live: Vec<&EndRecord> = live.filter(shown).collect();
    pair(&live, workloads, socket::monotonic_ns())
}

fn pair(ends: &[&EndRecord], workloads: &Workloads, now_ns: u64) -> Vec<Connection> {
    let mut by_client: HashMap<Handshake, (Option<&EndRecord>, Option<&EndRecord>)> =
        HashMap::with_capacity(ends.len());
    for record in ends.iter().copied() {
        let end = &record.end;
        if end.is_client() {
            by_client.entry(end.own).or_default().0 = Some(record);
        } else {
            by_client.entry(end.own.mirror()).or_default().1 = Some(record);
        }
    }
    let enrolled = |one: Option<&EndRecord>| one.map_or(u64::MAX, |one| one.end.enrolled_ns);
    let mut pairs: Vec<_> = by_client.into_iter().collect();
    pairs.sort_by_key(|(_, (client, server))| enrolled(*client).min(enrolled(*server)));
    pairs
        .into_iter()
        .map(|(handshake, (client, server))| {
            let since = enrolled(client).min(enrolled(server));
            Connection {
                handshake,
                client: client.map(|end| view(end, workloads)),
                server: server.map(|end| view(end, workloads)),
                age_seconds: now_ns.saturating_sub(since) as f64 / 1e9,
            }
        })
        .collect()
}

fn view(record: &EndRecord, workloads: &Workloads) -> End {
    let (local, remote) = record.endpoints.addrs();
    let (path, reason) = match record.end.retiring {
        0 => (record.end.tx.into(), record.end.tx_reason),
        retiring => (TxPath::Kernel as u32, retiring),
    };
    let (path, reason) = (TxPath::from_raw(path), Reason::from_raw(reason.into()));
    End {
        local,
        remote,
        workload: workloads.of(record.inode, record.cgroup_id),
        netns: record.netns,
        uid: record.uid,
        cookie: record.cookie,
        path: path.map_or("unknown", TxPath::name),
        reason: reason
            .filter(|reason| *reason != Reason::None)
            .map(Reason::name),
        redirected_bytes: record.end.redirected_bytes,
        redirected_messages: record.end.redirected_msgs,
        kernel_bytes: record.end.kernel_bytes,
        unread_bytes: record.unread,
        smoothed_rtt_us: record.srtt_us,
        tally: None,
    }
}
