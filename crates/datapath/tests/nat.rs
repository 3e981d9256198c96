//! Address translation between the two ends: the handshake's numbers pass it, so the ends are
//! paired all the same (invariant 4).

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use common::{Bed, LARGE, Result, exchange};
use testbed::node::{GATEWAY, GATEWAY6};
use testbed::traffic::accept;
use testbed::traffic::proxy::{self, Proxy, Upstream};
use testbed::{Cgroup, Masquerade, NetNs, Node, Pod, kernel_test};

const APP: u16 = 8080;
const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;
const CROWD: usize = 100;

fn vip(v6: bool) -> SocketAddr {
    let text = if v6 {
        "[fd00:10:97::1]:80"
    } else {
        "10.97.0.1:80"
    };
    text.parse().expect("an address")
}

fn ip(pod: &Pod, v6: bool) -> IpAddr {
    if v6 {
        pod.ip6().into()
    } else {
        pod.ip().into()
    }
}

fn any(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// A sidecar on all addresses of a pod.
fn sidecar(pod: &Pod, v6: bool, port: u16) -> Result<Proxy> {
    let (listener, _) = pod.listen((any(v6), port))?;
    Ok(pod.run(|| proxy::run(listener, Upstream::Original))??)
}

/// A connection to `to` that ends at `at` in the server: streams both ways, each of which crosses
/// `hops` connections. Returns the client's address as the server saw it.
fn through(
    bed: &Bed,
    client: &NetNs,
    server: &NetNs,
    (to, at): (SocketAddr, SocketAddr),
    hops: u64,
) -> Result<IpAddr> {
    let (listener, _) = server.listen(at)?;
    let a = client.connect(to)?;
    let b = accept(&listener)?;
    let before = bed.totals()?.closed / 2;
    bed.wait_paired(before + hops)?;
    let peer = b.peer_addr()?.ip();
    exchange(&a, &b, LARGE / 4)?;
    Ok(peer)
}

/// One call of a service, after which both its ends were redirected.
fn service(cgroup: &Cgroup, v6: bool, masquerade: Masquerade) -> Result {
    let bed = Bed::on(cgroup)?;
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    node.kube_rules(CROWD)?;
    let (vip, at) = (vip(v6), SocketAddr::new(ip(&web, v6), APP));
    let service = node.service_with(vip, at, masquerade)?;
    let seen = through(&bed, &client, &web, (vip, at), 1)?;
    let expected = match (masquerade, v6) {
        (Masquerade::AsNeeded, _) => ip(&client, v6),
        (Masquerade::Always, true) => GATEWAY6.into(),
        (Masquerade::Always, false) => GATEWAY.into(),
    };
    assert_eq!((seen, service.connections()?), (expected, 1));
    bed.all_redirected(1, LARGE / 2)
}

kernel_test! {
    fn outbound_sidecar_is_redirected_on_both_hops(cgroup: &Cgroup) -> Result {
        for v6 in [false, true] {
            let bed = Bed::on(cgroup)?;
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let proxy = sidecar(&client, v6, OUTBOUND)?;
            client.redirect_outbound(APP, OUTBOUND)?;
            let at = (ip(&web, v6), APP).into();
            through(&bed, &client, &web, (at, at), 2)?;
            assert_eq!(proxy.accepted(), 1);
            bed.all_redirected(2, 2 * LARGE / 2)?;
        }
        Ok(())
    }

    fn inbound_sidecar_is_redirected_on_both_hops(cgroup: &Cgroup) -> Result {
        for v6 in [false, true] {
            let bed = Bed::on(cgroup)?;
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let proxy = sidecar(&web, v6, INBOUND)?;
            web.redirect_inbound(APP, INBOUND)?;
            let at = (ip(&web, v6), APP).into();
            through(&bed, &client, &web, (at, at), 2)?;
            assert_eq!(proxy.accepted(), 1);
            bed.all_redirected(2, 2 * LARGE / 2)?;
        }
        Ok(())
    }

    fn sidecars_of_both_pods_are_redirected_on_all_three_hops(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let outbound = sidecar(&client, false, OUTBOUND)?;
        let inbound = sidecar(&web, false, INBOUND)?;
        client.redirect_outbound(APP, OUTBOUND)?;
        web.redirect_inbound(APP, INBOUND)?;
        let at = (web.ip(), APP).into();
        through(&bed, &client, &web, (at, at), 3)?;
        assert_eq!((outbound.accepted(), inbound.accepted()), (1, 1));
        bed.all_redirected(3, 3 * LARGE / 2)
    }

    fn service_behind_a_hundred_rules_is_redirected(cgroup: &Cgroup) -> Result {
        service(cgroup, false, Masquerade::AsNeeded)
    }

    fn service_over_ipv6_is_redirected(cgroup: &Cgroup) -> Result {
        service(cgroup, true, Masquerade::AsNeeded)
    }

    fn masqueraded_client_is_redirected(cgroup: &Cgroup) -> Result {
        service(cgroup, false, Masquerade::Always)
    }

    fn masqueraded_client_over_ipv6_is_redirected(cgroup: &Cgroup) -> Result {
        service(cgroup, true, Masquerade::Always)
    }

    fn pod_that_reaches_itself_through_its_service_is_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let web = node.pod("web")?;
        node.kube_rules(CROWD)?;
        let at = SocketAddr::from((web.ip(), APP));
        node.service(vip(false), at)?;
        let seen = through(&bed, &web, &web, (vip(false), at), 1)?;
        assert_eq!(seen, IpAddr::from(GATEWAY));
        bed.all_redirected(1, LARGE / 2)
    }

    /// DNAT and masquerade on the node, then REDIRECT in the server's pod: one connection whose
    /// ends share no address and no port.
    fn two_translations_in_two_namespaces_are_passed(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        node.kube_rules(CROWD)?;
        node.service_with(vip(false), (web.ip(), APP), Masquerade::Always)?;
        web.redirect_inbound(APP, INBOUND)?;
        let at = (web.ip(), INBOUND).into();
        let seen = through(&bed, &client, &web, (vip(false), at), 1)?;
        assert_eq!(seen, IpAddr::from(GATEWAY));
        bed.all_redirected(1, LARGE / 2)
    }

    /// App, sidecar, service, sidecar, app: everything that a mesh does at once.
    fn sidecars_and_a_service_between_them_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        node.kube_rules(CROWD)?;
        node.service_with(vip(false), (web.ip(), APP), Masquerade::Always)?;
        let outbound = sidecar(&client, false, OUTBOUND)?;
        let inbound = sidecar(&web, false, INBOUND)?;
        client.redirect_outbound(80, OUTBOUND)?;
        web.redirect_inbound(APP, INBOUND)?;
        let at = (web.ip(), APP).into();
        through(&bed, &client, &web, (vip(false), at), 3)?;
        assert_eq!((outbound.accepted(), inbound.accepted()), (1, 1));
        bed.all_redirected(3, 3 * LARGE / 2)
    }
}
