//! Two pods on a node, and a way between them.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use serde::Serialize;
use testbed::traffic::listen;
use testbed::traffic::proxy::{self, Proxy, Upstream};
use testbed::{NetNs, Node, Pod};

use super::host::{Cores, pin};
use super::traffic::{Ends, Way};

/// The server's port, also as the sidecars' rules know it.
pub(in crate::cli) const APP: u16 = 8080;
/// A second one, for programs that need two.
pub(in crate::cli) const SECOND: u16 = 8081;
/// Where the sidecars listen, as Istio's do.
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
/// The service's address, in a network of its own.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

/// A way from the client's pod to the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Topology {
    /// Two pods on a bridge with NAT, as Docker's
    Bridge,
    /// Two pods with a route each and policies in between, as Calico's
    Routed,
    /// Two pods on a bridge; the client calls a service address (DNAT)
    Service,
    /// Two pods on a bridge with a sidecar proxy each (REDIRECT)
    Sidecar,
    /// Both ends in one pod, over 127.0.0.1
    Loopback,
}

impl Topology {
    /// As in JSON and on the command line.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Routed => "routed",
            Self::Service => "service",
            Self::Sidecar => "sidecar",
            Self::Loopback => "loopback",
        }
    }

    /// TCP connections in a row from client to server.
    pub(in crate::cli) fn hops(self) -> u64 {
        match self {
            // Client to its sidecar, sidecar to sidecar, sidecar to server.
            Self::Sidecar => 3,
            Self::Bridge | Self::Routed | Self::Service | Self::Loopback => 1,
        }
    }
}

/// What is measured on. Dropping it removes all of it, in the order of the fields.
pub(in crate::cli) struct Bed {
    _sidecars: Vec<Proxy>,
    client: Pod,
    server: Pod,
    /// Last, as the pods are plugged into it.
    _node: Node,
    cores: Cores,
    topology: Topology,
}

impl Bed {
    /// Makes the node with the rules of `services` services, and two pods. The service that is
    /// called is the last that the rules look at, and there even if there are no others.
    pub(in crate::cli) fn new(topology: Topology, cores: Cores, services: u16) -> Result<Self> {
        let node = Node::new()?;
        let pod = |name| match topology {
            Topology::Routed => node.routed_pod(name),
            _ => node.pod(name),
        };
        let (client, server) = (pod("client")?, pod("server")?);
        for pod in [&client, &server] {
            quick_ports(pod)?;
        }
        if services > 0 {
            node.kube_rules(usize::from(services) - 1)?;
        }
        if services > 0 || topology == Topology::Service {
            for port in [APP, SECOND] {
                node.service((VIP, port), (server.ip(), port))?;
            }
        }
        let mut sidecars = Vec::new();
        if topology == Topology::Sidecar {
            sidecars.push(sidecar(&client, cores.client, OUTBOUND)?);
            sidecars.push(sidecar(&server, cores.server, INBOUND)?);
            for port in [APP, SECOND] {
                client.redirect_outbound(port, OUTBOUND)?;
                server.redirect_inbound(port, INBOUND)?;
            }
        }
        Ok(Self {
            _sidecars: sidecars,
            client,
            server,
            _node: node,
            cores,
            topology,
        })
    }

    /// Where the client has to connect to.
    pub(in crate::cli) fn to(&self) -> SocketAddr {
        match self.topology {
            Topology::Service => (VIP, APP).into(),
            _ => self.listen(),
        }
    }

    /// Where the server has to listen.
    pub(in crate::cli) fn listen(&self) -> SocketAddr {
        match self.topology {
            Topology::Loopback => (Ipv4Addr::LOCALHOST, APP).into(),
            _ => (self.server.ip(), APP).into(),
        }
    }

    /// The namespace of the client.
    pub(in crate::cli) fn client(&self) -> &NetNs {
        match self.topology {
            Topology::Loopback => &self.server,
            _ => &self.client,
        }
    }

    /// The namespace of the server.
    pub(in crate::cli) fn server(&self) -> &NetNs {
        &self.server
    }

    /// The cores of the two ends.
    pub(in crate::cli) fn cores(&self) -> Cores {
        self.cores
    }

    /// Client and server of a turn over TCP.
    pub(in crate::cli) fn ends(&self) -> Ends {
        self.ends_by(Way::Tcp {
            listen: self.listen(),
            to: self.to(),
        })
    }

    /// Client and server of a turn, where they are here, but reaching each other in another way.
    pub(in crate::cli) fn ends_by(&self, way: Way) -> Ends {
        Ends {
            client: self.client().clone(),
            server: self.server().clone(),
            cores: self.cores,
            way,
        }
    }
}

/// Lets a client make connection after connection: their ports are used again a second after they
/// were closed, not a minute (tcp_tw_reuse in Documentation/networking/ip-sysctl.rst, 6.18).
fn quick_ports(pod: &Pod) -> Result<()> {
    pod.sysctl("net.ipv4.tcp_tw_reuse", 1)?;
    Ok(pod.sysctl("net.ipv4.ip_local_port_range", "16000 60999")?)
}

/// Starts a proxy in a pod; all its threads run on the pod's core.
fn sidecar(pod: &Pod, core: usize, port: u16) -> Result<Proxy> {
    pod.run(|| {
        pin(core)?;
        let (listener, _) = listen((Ipv4Addr::UNSPECIFIED, port))?;
        Ok(proxy::run(listener, Upstream::Original)?)
    })?
}
