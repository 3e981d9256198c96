//! What is known of one end of a connection.

use std::net::{IpAddr, SocketAddr};

use super::Prefix;
use crate::abi::{Dimension, EndRecord, Endpoints, Program, RuleAnswer};

/// `AF_INET6` of `linux/socket.h`.
const AF_INET6: u16 = 10;

/// What rules may ask of one end of a connection, as far as it is known. Of an end that accepts,
/// program, cgroup and user are those of its listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The program that connected or listens.
    pub program: Option<Program>,
    /// Id of the cgroup that the socket was made in.
    pub cgroup: Option<u64>,
    /// Owner of the socket.
    pub uid: Option<u32>,
    /// Own address, as this end sees it.
    pub local_ip: Option<IpAddr>,
    /// The peer's, as this end sees it.
    pub remote_ip: Option<IpAddr>,
    /// Own port.
    pub local_port: Option<u16>,
    /// The peer's, as this end sees it.
    pub remote_port: Option<u16>,
}

impl Known {
    /// All of an enrolled socket.
    #[must_use]
    pub fn of(record: &EndRecord) -> Self {
        let (local, remote) = record.endpoints.addrs();
        Self {
            program: Some(record.end.program),
            cgroup: Some(record.cgroup_id),
            uid: Some(record.uid),
            local_ip: Some(local.ip()),
            remote_ip: Some(remote.ip()),
            local_port: Some(local.port()),
            remote_port: Some(remote.port()),
        }
    }
}

impl Endpoints {
    /// Local and remote address; an IPv4-mapped one as the IPv4 address that it is.
    #[must_use]
    pub fn addrs(&self) -> (SocketAddr, SocketAddr) {
        let ip = |words: [u32; 4]| {
            if self.family != AF_INET6 {
                return IpAddr::from(words[0].to_ne_bytes());
            }
            let mut bytes = [0; 16];
            for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
                to.copy_from_slice(&word.to_ne_bytes());
            }
            IpAddr::from(bytes).to_canonical()
        };
        (
            SocketAddr::new(ip(self.local_ip), self.local_port),
            SocketAddr::new(ip(self.remote_ip), self.remote_port),
        )
    }

    /// Whether these are its ports, in either order, as either end of a connection without NAT has them. One alone does not tell:
    /// connections to different servers may have one port of the client's in common.
    #[must_use]
    pub fn have_ports(&self, ports: [u16; 2]) -> bool {
        let (local, remote) = (self.local_port, self.remote_port);
        ports == [local, remote] || ports == [remote, local]
    }
}

/// Answers in the dimensions of numbers and addresses.
pub(super) fn ranges(local: &Known, remote: &Known) -> [(Dimension, Option<Prefix>); 6] {
    let address = |ip: Option<IpAddr>| {
        let whole = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        ip.map(|ip| Prefix::network(ip, whole(ip)))
    };
    let port = |port: Option<u16>| port.map(|port| Prefix::ports(port..=port)[0]);
    [
        (Dimension::LocalUser, local.uid.map(Prefix::user)),
        (Dimension::RemoteUser, remote.uid.map(Prefix::user)),
        (Dimension::LocalPort, port(local.local_port)),
        (Dimension::RemotePort, port(local.remote_port)),
        (Dimension::LocalAddress, address(local.local_ip)),
        (Dimension::RemoteAddress, address(local.remote_ip)),
    ]
}

/// Those of programs and workloads, in the order in which BPF tells that they are not in the tables.
pub(super) fn exact(local: &Known, remote: &Known) -> [(Dimension, Option<RuleAnswer>); 4] {
    let program = |dimension, end: &Known| {
        let answer = end.program.map(|one| RuleAnswer::program(dimension, one));
        (dimension, answer)
    };
    let cgroup = |dimension, end: &Known| {
        let answer = end.cgroup.map(|id| RuleAnswer::cgroup(dimension, id));
        (dimension, answer)
    };
    [
        program(Dimension::LocalProgram, local),
        program(Dimension::RemoteProgram, remote),
        cgroup(Dimension::LocalWorkload, local),
        cgroup(Dimension::RemoteWorkload, remote),
    ]
}
