//! Services and policies on a node, as kube-proxy in iptables mode and a policy agent would write them.
//!
//! Two nftables tables per IP family: `kube-bulk` holds the crowd, many services that nobody calls and a policy per
//! pod, made by [`Node::kube_rules`]; `kube` holds the services that tests call. `kube` hooks in after `kube-bulk`,
//! so a service is always found last, after the whole crowd was asked.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::node::{Node, PODS, PODS6};

/// The mark of packets to be masqueraded, the same bit as Kubernetes uses.
const MASQUERADE: &str = "0x4000";

/// What a node remembers for its rules.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    services: u32,
    pods: Vec<(Ipv4Addr, Ipv6Addr)>,
}

/// Which calls of a service come to its backend with the node's address instead of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// Those that would not find back: from outside of the pod network, and from the backend itself (hairpin). What
    /// Kubernetes does.
    AsNeeded,
    /// All.
    Always,
}

/// A service made by [`Node::service`]; it stays until its node goes.
#[derive(Debug)]
pub struct Service {
    ns: NetNs,
    family: &'static str,
    chain: String,
    addr: SocketAddr,
}

impl Service {
    /// Its virtual address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were sent to the backend so far, by the counter of its DNAT rule.
    ///
    /// # Errors
    /// When `nft` cannot be run.
    pub fn connections(&self) -> Result<u64> {
        let list = format!("list chain {} kube {}", self.family, self.chain);
        let text = self.ns.nft(&list)?;
        let counter = text
            .split_once("counter packets ")
            .and_then(|(_, rest)| rest.split(' ').next());
        Ok(counter
            .and_then(|number| number.parse().ok())
            .unwrap_or_default())
    }
}

impl NetNs {
    /// Applies a script for nft(8) as one transaction; returns what it prints.
    ///
    /// # Errors
    /// [`Error::NoProgram`] without nft, [`Error::Program`] when it refuses the script.
    pub fn nft(&self, script: &str) -> Result<String> {
        self.command("nft").args(["-f", "-"]).input(script).run()
    }
}

impl Node {
    /// Writes rules of a realistic size, for IPv4 and IPv6: `services` services in one list that each new connection
    /// walks, and in `forward` a policy chain for each pod made so far, which each packet walks. Called again, it
    /// replaces them.
    ///
    /// # Errors
    /// When `nft` cannot be run or refuses them.
    pub fn kube_rules(&self, services: usize) -> Result<()> {
        let pods = lock(&self.rules).pods.clone();
        let v4 = pods.iter().map(|pod| pod.0.into()).collect::<Vec<_>>();
        let v6 = pods.iter().map(|pod| pod.1.into()).collect::<Vec<_>>();
        self.nft(&(bulk("ip", services, &v4) + &bulk("ip6", services, &v6)))?;
        Ok(())
    }

    /// Makes `vip` a service, TCP and UDP, with one backend, masqueraded as needed. Both of one IP family.
    ///
    /// # Errors
    /// [`Error::Address`] when the families differ, else when `nft` cannot be run.
    pub fn service(
        &self,
        vip: impl Into<SocketAddr>,
        backend: impl Into<SocketAddr>,
    ) -> Result<Service> {
        self.service_with(vip, backend, Masquerade::AsNeeded)
    }

    /// As [`Node::service`], choosing what is masqueraded.
    ///
    /// # Errors
    /// As [`Node::service`].
    pub fn service_with(
        &self,
        vip: impl Into<SocketAddr>,
        backend: impl Into<SocketAddr>,
        masquerade: Masquerade,
    ) -> Result<Service> {
        let (addr, backend) = (vip.into(), backend.into());
        if addr.is_ipv4() != backend.is_ipv4() {
            return Err(Error::Address {
                addr: backend.to_string(),
                node: self.name().to_owned(),
                why: "a service and its backend must be of one IP family",
            });
        }
        let chain = {
            let mut rules = lock(&self.rules);
            rules.services += 1;
            format!("service-{}", rules.services)
        };
        let family = family(addr.ip());
        self.nft(&(base(family) + &service_rules(family, &chain, addr, backend, masquerade)))?;
        Ok(Service {
            ns: self.ns().clone(),
            family,
            chain,
            addr,
        })
    }

    /// Notes a pod for the policies of [`Node::kube_rules`].
    pub(crate) fn note_pod(&self, ip: Ipv4Addr, ip6: Ipv6Addr) {
        lock(&self.rules).pods.push((ip, ip6));
    }
}

fn lock(rules: &Mutex<Rules>) -> std::sync::MutexGuard<'_, Rules> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ip" } else { "ip6" }
}

/// The network of the pods, in nft's words.
fn pod_net(family: &str) -> String {
    match family {
        "ip" => format!("{}/{}", PODS.0, PODS.1),
        _ => format!("{}/{}", PODS6.0, PODS6.1),
    }
}

/// The chains of table `kube`; applied again, nothing changes.
fn base(family: &str) -> String {
    format!(
        "table {family} kube {{
            chain mark-masquerade {{ }}
            chain services {{ }}
            chain prerouting {{ type nat hook prerouting priority -100; }}
            chain output {{ type nat hook output priority -100; }}
            chain postrouting {{ type nat hook postrouting priority 100; }}
        }}
        flush chain {family} kube mark-masquerade
        flush chain {family} kube prerouting
        flush chain {family} kube output
        flush chain {family} kube postrouting
        table {family} kube {{
            chain mark-masquerade {{ meta mark set meta mark | {MASQUERADE}; }}
            chain prerouting {{ jump services; }}
            chain output {{ jump services; }}
            chain postrouting {{
                meta mark & {MASQUERADE} != {MASQUERADE} return
                meta mark set meta mark ^ {MASQUERADE}
                masquerade fully-random
            }}
        }}\n"
    )
}

fn service_rules(
    family: &str,
    chain: &str,
    vip: SocketAddr,
    backend: SocketAddr,
    masquerade: Masquerade,
) -> String {
    let (vip_ip, vip_port, backend_ip) = (vip.ip(), vip.port(), backend.ip());
    let strangers = match masquerade {
        Masquerade::AsNeeded => format!("{family} saddr != {} ", pod_net(family)),
        Masquerade::Always => String::new(),
    };
    format!(
        "table {family} kube {{
            chain {chain} {{
                {strangers}jump mark-masquerade
                {family} saddr {backend_ip} jump mark-masquerade
                meta l4proto {{ tcp, udp }} counter dnat to {backend}
            }}
            chain services {{
                {family} daddr {vip_ip} tcp dport {vip_port} jump {chain}
                {family} daddr {vip_ip} udp dport {vip_port} jump {chain}
            }}
        }}\n"
    )
}

/// Table `kube-bulk`: a crowd of services, and the policies.
fn bulk(family: &str, services: usize, pods: &[IpAddr]) -> String {
    let (mut chains, mut list, mut dispatch) = (String::new(), String::new(), String::new());
    for n in 0..services {
        let (vip, endpoint) = crowd(family, n);
        // Writing to a String cannot fail.
        let _ = write!(
            chains,
            "chain ep-{n} {{ {family} saddr {endpoint} meta mark set meta mark | {MASQUERADE}; \
             meta l4proto tcp dnat to {}; }}\n\
             chain svc-{n} {{ {family} saddr != {} meta mark set meta mark | {MASQUERADE}; jump ep-{n}; }}\n",
            SocketAddr::new(endpoint, 8080),
            pod_net(family)
        );
        let _ = writeln!(list, "{family} daddr {vip} tcp dport 80 jump svc-{n}");
    }
    for (n, pod) in pods.iter().enumerate() {
        let _ = writeln!(
            chains,
            "chain policy-{n} {{ ct state established,related return; \
             meta l4proto {{ tcp, udp, icmp, ipv6-icmp }} return; counter drop; }}"
        );
        let _ = writeln!(dispatch, "{family} saddr {pod} jump policy-{n}");
        let _ = writeln!(dispatch, "{family} daddr {pod} jump policy-{n}");
    }
    // The first two lines make it a replacement: a table must be there to be deleted.
    format!(
        "table {family} kube-bulk {{ }}\ndelete table {family} kube-bulk\ntable {family} kube-bulk {{\n{chains}
        chain services {{\n{list}}}
        chain dispatch {{\n{dispatch}}}
        chain prerouting {{ type nat hook prerouting priority -101; jump services; }}
        chain output {{ type nat hook output priority -101; jump services; }}
        chain forward {{
            type filter hook forward priority 0;
            ct state invalid drop
            jump dispatch
            ct state established,related accept
        }}
        }}\n"
    )
}

/// The address of the nth service of the crowd, and that of its endpoint, which does not exist.
fn crowd(family: &str, n: usize) -> (IpAddr, IpAddr) {
    let [.., high, low] = n.to_be_bytes();
    let host = u16::from_be_bytes([high, low]);
    match family {
        "ip" => (
            Ipv4Addr::new(10, 96, high, low).into(),
            Ipv4Addr::new(10, 245, high, low).into(),
        ),
        _ => {
            let in_net = |net| Ipv6Addr::new(0xfd00, 0x10, net, 0, 0, 0, 0, host).into();
            (in_net(0x96), in_net(0x245))
        }
    }
}
