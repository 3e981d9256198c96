//! Two pods on a node, and a way between them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Result;
use testbed::traffic::listen;
use testbed::traffic::proxy::{self, Proxy, Upstream};
use testbed::{Node, Pod};

use super::host::{Cores, pin};

/// The server's port, also as the sidecars' rules know it.
const APP: u16 = 8080;
/// Where the sidecars listen, as Istio's do.
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
/// The service's address, in a network of its own.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

/// A way from the client's pod to the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Topology {
    /// Straight, over the node's bridge.
    Bridge,
    /// Over the bridge to a service address, with DNAT.
    Service,
    /// Over the bridge, through a sidecar in each pod, with REDIRECT.
    Sidecar,
}

impl Topology {
    /// TCP connections in a row from client to server.
    pub(in crate::cli) fn hops(self) -> u64 {
        match self {
            Self::Bridge | Self::Service => 1,
            // Client to its sidecar, sidecar to sidecar, sidecar to server.
            Self::Sidecar => 3,
        }
    }
}

/// What is measured on. Dropping it removes all of it, in the order of the fields.
pub(in crate::cli) struct Bed {
    _sidecars: Vec<Proxy>,
    pub(in crate::cli) client: Pod,
    pub(in crate::cli) server: Pod,
    /// Last, as the pods are plugged into it.
    _node: Node,
    pub(in crate::cli) cores: Cores,
    topology: Topology,
}

impl Bed {
    /// Makes the node with the rules of `services` services, the last of them ours, and two pods.
    pub(in crate::cli) fn new(topology: Topology, cores: Cores, services: u16) -> Result<Self> {
        let node = Node::new()?;
        let (client, server) = (node.pod("client")?, node.pod("server")?);
        node.kube_rules(usize::from(services.saturating_sub(1)))?;
        node.service((VIP, APP), (server.ip(), APP))?;
        let mut sidecars = Vec::new();
        if topology == Topology::Sidecar {
            sidecars.push(sidecar(&client, cores.client, OUTBOUND)?);
            sidecars.push(sidecar(&server, cores.server, INBOUND)?);
            client.redirect_outbound(APP, OUTBOUND)?;
            server.redirect_inbound(APP, INBOUND)?;
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
            Topology::Bridge | Topology::Sidecar => self.server_addr(),
            Topology::Service => (VIP, APP).into(),
        }
    }

    /// Where the server has to listen.
    pub(in crate::cli) fn server_addr(&self) -> SocketAddr {
        (self.server.ip(), APP).into()
    }

    /// The server's listening socket.
    pub(in crate::cli) fn listen(&self) -> Result<TcpListener> {
        let addr = self.server_addr();
        Ok(self.server.run(|| listen(addr))??.0)
    }
}

/// Starts a proxy in a pod; all its threads run on the pod's core.
fn sidecar(pod: &Pod, core: usize, port: u16) -> Result<Proxy> {
    pod.run(|| {
        pin(core)?;
        let (listener, _) = listen((Ipv4Addr::UNSPECIFIED, port))?;
        Ok(proxy::run(listener, Upstream::Original)?)
    })?
}
