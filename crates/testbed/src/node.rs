//! Nodes and pods: a host with a bridge, and what is plugged into it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::link;
use crate::nat::Rules;
use crate::netns::NetNs;

/// The bridge of every node.
pub const BRIDGE: &str = "br0";
/// Every node's own address on its bridge, in a /16: the pods' gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The network of the pods, with the length of its prefix.
pub const PODS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
/// The same for IPv6.
pub const PODS6: (Ipv6Addr, u8) = (pod_ip6(0), 64);
/// The same as [`GATEWAY`] for IPv6, in a /64.
pub const GATEWAY6: Ipv6Addr = pod_ip6(1);
/// The stand-in for another machine, and the node's address towards it, in a /24.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The node's address towards [`OUTSIDE`].
pub const UPLINK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same for IPv6, in a /64.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// The node's address towards [`OUTSIDE6`].
pub const UPLINK6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The node as routed pods see it; every one of their links has these addresses, as Calico's have the first.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const NEXT_HOP6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The interface of pods and of [`Outside`].
const ETH0: &str = "eth0";

/// The node's interface towards [`Outside`].
const UPLINK_NAME: &str = "uplink";

/// Makes the names of nodes in errors and of their threads differ.
static NODES: AtomicU32 = AtomicU32::new(0);

const fn pod_ip6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, host)
}

/// A host in a network namespace of its own, with a bridge, forwarding, and nothing else.
///
/// Every node has the same addresses, so pods of two nodes may have equal ones. It derefs to its namespace.
#[derive(Debug)]
pub struct Node {
    ns: NetNs,
    next_host: AtomicU16,
    pub(crate) rules: Mutex<Rules>,
}

impl Node {
    /// Makes the host: bridge [`BRIDGE`] with [`GATEWAY`] and [`GATEWAY6`], forwarding on, bridged packets shown to
    /// netfilter as Kubernetes wants it.
    ///
    /// # Errors
    /// When a namespace or link cannot be made; needs root.
    pub fn new() -> Result<Self> {
        let name = format!("node{}", NODES.fetch_add(1, Ordering::Relaxed));
        let ns = NetNs::new(&name)?;
        ns.sysctl("net.ipv4.ip_forward", 1)?;
        ns.sysctl("net.ipv6.conf.all.forwarding", 1)?;
        bridge_netfilter(&ns)?;
        without_dad(&ns)?;
        link::bridge(&ns, BRIDGE)?;
        link::address(&ns, BRIDGE, GATEWAY.into(), 16)?;
        link::address(&ns, BRIDGE, GATEWAY6.into(), 64)?;
        Ok(Self {
            ns,
            next_host: AtomicU16::new(2),
            rules: Mutex::default(),
        })
    }

    /// Its namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Makes a pod with the next free address: 10.244.0.2 and fd00:10:244::2 are the first.
    ///
    /// # Errors
    /// When a namespace or link cannot be made.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let [high, low] = self.next_host.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.pod_with_addr(name, Ipv4Addr::new(10, 244, high, low))
    }

    /// Makes a pod that is not on the bridge: the node has a route to its address, and it reaches all others, pods
    /// included, through the node. Addresses are taken in turn with [`Node::pod`].
    ///
    /// # Errors
    /// When a namespace, link or route cannot be made.
    pub fn routed_pod(&self, name: &str) -> Result<Pod> {
        let host = self.next_host.fetch_add(1, Ordering::Relaxed);
        let [high, low] = host.to_be_bytes();
        let ip = Ipv4Addr::new(10, 244, high, low);
        Pod::route(self, name, ip, pod_ip6(host), format!("cali{host}"))
    }

    /// Makes a pod with an address of one's choice in 10.244.0.0/16; its IPv6 address ends in the same 16 bits.
    ///
    /// # Errors
    /// [`Error::Address`] when the address is not of the node's network, [`Error::Netlink`] when another pod has it, and
    /// as [`Node::pod`].
    pub fn pod_with_addr(&self, name: &str, ip: Ipv4Addr) -> Result<Pod> {
        let [a, b, high, low] = ip.octets();
        let host = u16::from_be_bytes([high, low]);
        if [a, b] != [10, 244] || matches!(host, 0 | 1 | u16::MAX) {
            return Err(Error::Address {
                addr: ip.to_string(),
                node: self.ns.name().to_owned(),
                why: "pods have addresses from 10.244.0.2 to 10.244.255.254",
            });
        }
        Pod::plug(self, name, ip, pod_ip6(host), format!("veth{host}"))
    }
}

impl Deref for Node {
    type Target = NetNs;

    fn deref(&self) -> &NetNs {
        &self.ns
    }
}

/// Shows bridged packets to iptables and nftables, where the kernel has br_netfilter.
fn bridge_netfilter(ns: &NetNs) -> Result<()> {
    for key in [
        "net.bridge.bridge-nf-call-iptables",
        "net.bridge.bridge-nf-call-ip6tables",
    ] {
        if Path::new(&format!("/proc/sys/{}", key.replace('.', "/"))).exists() {
            ns.sysctl(key, 1)?;
        }
    }
    Ok(())
}

/// Makes the link-local addresses of links made later usable at once, as our own are.
fn without_dad(ns: &NetNs) -> Result<()> {
    ns.sysctl("net.ipv6.conf.default.accept_dad", 0)?;
    ns.sysctl("net.ipv6.conf.all.accept_dad", 0)
}

/// A namespace with `eth0` on a node's bridge, or routed, and default routes through the node. It derefs to its namespace.
#[derive(Debug)]
pub struct Pod {
    ns: NetNs,
    node: NetNs,
    port: String,
    ip: Ipv4Addr,
    ip6: Ipv6Addr,
}

impl Pod {
    fn plug(node: &Node, name: &str, ip: Ipv4Addr, ip6: Ipv6Addr, port: String) -> Result<Self> {
        let ns = NetNs::new(name)?;
        without_dad(&ns)?;
        link::veth((node, &port), (&ns, ETH0))?;
        link::enslave(node, &port, BRIDGE)?;
        link::up(node, &port)?;
        addresses(&ns, ETH0, (ip, 16), (ip6, 64))?;
        link::default_route(&ns, GATEWAY.into())?;
        link::default_route(&ns, GATEWAY6.into())?;
        node.note_pod(ip, ip6);
        Ok(Self::new(ns, node, port, ip, ip6))
    }

    fn route(node: &Node, name: &str, ip: Ipv4Addr, ip6: Ipv6Addr, port: String) -> Result<Self> {
        let ns = NetNs::new(name)?;
        without_dad(&ns)?;
        link::veth((node, &port), (&ns, ETH0))?;
        link::address(node, &port, NEXT_HOP.into(), 32)?;
        link::address(node, &port, NEXT_HOP6.into(), 64)?;
        link::up(node, &port)?;
        addresses(&ns, ETH0, (ip, 32), (ip6, 128))?;
        for (own, all, gateway) in [
            (
                IpAddr::from(ip),
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                IpAddr::from(NEXT_HOP),
            ),
            (ip6.into(), Ipv6Addr::UNSPECIFIED.into(), NEXT_HOP6.into()),
        ] {
            let own_prefix = if own.is_ipv4() { 32 } else { 128 };
            link::route_by_link(node, own, own_prefix, &port, None)?;
            link::route_by_link(&ns, all, 0, ETH0, Some(gateway))?;
        }
        node.note_pod(ip, ip6);
        Ok(Self::new(ns, node, port, ip, ip6))
    }

    fn new(ns: NetNs, node: &Node, port: String, ip: Ipv4Addr, ip6: Ipv6Addr) -> Self {
        Self {
            ns,
            node: node.ns.clone(),
            port,
            ip,
            ip6,
        }
    }

    /// Its namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ip6(&self) -> Ipv6Addr {
        self.ip6
    }

    /// The node's end of its veth pair.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The namespace of its node.
    #[must_use]
    pub fn node(&self) -> &NetNs {
        &self.node
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The namespace may live on in a socket or a thread, and takes its time to go: the port shall be gone, and
        // the address free, now. It fails only when the port was removed already.
        let _ = link::remove(&self.node, &self.port);
    }
}

impl Deref for Pod {
    type Target = NetNs;

    fn deref(&self) -> &NetNs {
        &self.ns
    }
}

/// A stand-in for another machine: a namespace joined to a node's by a routed veth. It derefs to its namespace.
#[derive(Debug)]
pub struct Outside {
    ns: NetNs,
    node: NetNs,
}

impl Outside {
    /// Makes it, with [`OUTSIDE`] and [`OUTSIDE6`], the node having [`UPLINK`] and [`UPLINK6`] on a link `uplink`.
    /// Each is the other's default route. One per node.
    ///
    /// # Errors
    /// When a namespace or link cannot be made, or the node has one already.
    pub fn new(node: &Node) -> Result<Self> {
        let ns = NetNs::new("outside")?;
        without_dad(&ns)?;
        link::veth((node, UPLINK_NAME), (&ns, ETH0))?;
        addresses(node, UPLINK_NAME, (UPLINK, 24), (UPLINK6, 64))?;
        addresses(&ns, ETH0, (OUTSIDE, 24), (OUTSIDE6, 64))?;
        for (ns, gateway) in [(&ns, IpAddr::from(UPLINK)), (node, OUTSIDE.into())] {
            link::default_route(ns, gateway)?;
        }
        for (ns, gateway) in [(&ns, IpAddr::from(UPLINK6)), (node, OUTSIDE6.into())] {
            link::default_route(ns, gateway)?;
        }
        let node = node.ns.clone();
        Ok(Self { ns, node })
    }

    /// Its namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Its IPv4 address, [`OUTSIDE`].
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        OUTSIDE
    }

    /// Its IPv6 address, [`OUTSIDE6`].
    #[must_use]
    pub fn ip6(&self) -> Ipv6Addr {
        OUTSIDE6
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // As with pods: gone now, not when the kernel has the time.
        let _ = link::remove(&self.node, UPLINK_NAME);
    }
}

impl Deref for Outside {
    type Target = NetNs;

    fn deref(&self) -> &NetNs {
        &self.ns
    }
}

/// Gives a link its addresses and brings it up.
fn addresses(ns: &NetNs, link: &str, v4: (Ipv4Addr, u8), v6: (Ipv6Addr, u8)) -> Result<()> {
    link::address(ns, link, v4.0.into(), v4.1)?;
    link::address(ns, link, v6.0.into(), v6.1)?;
    link::up(ns, link)
}
