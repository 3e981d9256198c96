//! Two pods on a node, and the ways between them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Result;
use testbed::traffic::listen;
use testbed::traffic::proxy::{self, Proxy, Upstream};
use testbed::{Node, Pod};

use super::cells::Scenario;
use super::host::{Cores, pin};

/// The server's port, also as the sidecars' rules know it.
const APP: u16 = 8080;
/// Where the sidecars listen, as Istio's do.
const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
/// The service's address, in a network of its own.
const VIP: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 97, 0, 1), 80);

/// What the demo measures on. Dropping it removes all of it, in the order of the fields.
pub(super) struct Bed {
    sidecars: Vec<Proxy>,
    pub(super) client: Pod,
    pub(super) server: Pod,
    /// Last, as the pods are plugged into it.
    _node: Node,
    pub(super) cores: Cores,
}

impl Bed {
    /// Makes the node with the rules of `services` services, the last of them ours, and two pods.
    pub(super) fn new(cores: Cores, services: u16) -> Result<Self> {
        let node = Node::new()?;
        let (client, server) = (node.pod("client")?, node.pod("server")?);
        node.kube_rules(usize::from(services) - 1)?;
        node.service(VIP, (server.ip(), APP))?;
        Ok(Self {
            sidecars: Vec::new(),
            client,
            server,
            _node: node,
            cores,
        })
    }

    /// Makes what only this scenario needs, and returns where the client has to connect to.
    pub(super) fn prepare(&mut self, scenario: Scenario) -> Result<SocketAddr> {
        if scenario == Scenario::Sidecar && self.sidecars.is_empty() {
            self.sidecars = vec![
                sidecar(&self.client, self.cores.client, OUTBOUND)?,
                sidecar(&self.server, self.cores.server, INBOUND)?,
            ];
            self.client.redirect_outbound(APP, OUTBOUND)?;
            self.server.redirect_inbound(APP, INBOUND)?;
        }
        Ok(match scenario {
            Scenario::Pod | Scenario::Sidecar => (self.server.ip(), APP).into(),
            Scenario::Service => VIP.into(),
        })
    }

    /// The server's listening socket.
    pub(super) fn listen(&self) -> Result<TcpListener> {
        let addr = (self.server.ip(), APP);
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
