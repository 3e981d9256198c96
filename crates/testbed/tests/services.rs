//! Services: DNAT, hairpin and masquerade, behind rules of a realistic size.

use std::net::{IpAddr, SocketAddr};

use testbed::node::{GATEWAY, GATEWAY6, OUTSIDE};
use testbed::traffic::{accept, connect, listen, rr};
use testbed::{Masquerade, NetNs, Node, Outside, Pod, Result, Service, kernel_test};

const SIZE: usize = 100;
const COUNT: usize = 20;

fn vip() -> SocketAddr {
    "10.97.0.1:80".parse().unwrap()
}

fn vip6() -> SocketAddr {
    "[fd00:10:97::1]:80".parse().unwrap()
}

/// Calls the service from a namespace; returns the client's address as the server saw it.
fn call(
    client: &NetNs,
    server: &Pod,
    ip: impl Into<IpAddr>,
    port: u16,
    vip: SocketAddr,
) -> Result<IpAddr> {
    let ip = ip.into();
    let (listener, _) = server.run(|| listen((ip, port)))??;
    let served = server.spawn(move || {
        let sock = accept(&listener)?;
        let peer = sock.peer_addr().unwrap().ip();
        rr::serve(&sock, SIZE).map(|served| (peer, served))
    })?;
    client.run(|| rr::client(&connect(vip)?, SIZE, COUNT))??;
    let (peer, served) = served.join()??;
    assert_eq!(served, COUNT as u64);
    Ok(peer)
}

fn service(node: &Node, vip: SocketAddr, backend: &Pod) -> Result<Service> {
    let ip = if vip.is_ipv4() {
        IpAddr::from(backend.ip())
    } else {
        backend.ip6().into()
    };
    node.service(vip, (ip, 8080))
}

kernel_test! {
    fn service_behind_a_thousand_others_is_found_by_dnat() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        node.kube_rules(1000)?;
        let (v4, v6) = (service(&node, vip(), &web)?, service(&node, vip6(), &web)?);
        assert_eq!(call(&client, &web, web.ip(), 8080, vip())?, IpAddr::from(client.ip()));
        assert_eq!(call(&client, &web, web.ip6(), 8080, vip6())?, IpAddr::from(client.ip6()));
        assert_eq!((v4.connections()?, v6.connections()?), (1, 1));
        let conntrack = node.conntrack()?;
        let known = conntrack.lines().any(|line| line.contains("dst=10.97.0.1 ") && line.contains("src=10.244.0.2 "));
        assert!(known, "{conntrack}");
        Ok(())
    }

    fn rules_of_the_crowd_can_be_replaced() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let service = service(&node, vip(), &web)?;
        node.kube_rules(10)?;
        node.kube_rules(5)?;
        call(&client, &web, web.ip(), 8080, vip())?;
        assert_eq!(service.connections()?, 1);
        assert!(!node.nft("list table ip kube-bulk")?.contains("svc-5"));
        Ok(())
    }

    fn pod_reaches_itself_through_its_service() -> Result<()> {
        let node = Node::new()?;
        let web = node.pod("web")?;
        node.kube_rules(10)?;
        service(&node, vip(), &web)?;
        service(&node, vip6(), &web)?;
        assert_eq!(call(&web, &web, web.ip(), 8080, vip())?, IpAddr::from(GATEWAY));
        assert_eq!(call(&web, &web, web.ip6(), 8080, vip6())?, IpAddr::from(GATEWAY6));
        Ok(())
    }

    fn masqueraded_client_has_the_address_of_the_bridge() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        node.service_with(vip(), (web.ip(), 8080), Masquerade::Always)?;
        node.service_with(vip6(), (web.ip6(), 8080), Masquerade::Always)?;
        assert_eq!(call(&client, &web, web.ip(), 8080, vip())?, IpAddr::from(GATEWAY));
        assert_eq!(call(&client, &web, web.ip6(), 8080, vip6())?, IpAddr::from(GATEWAY6));
        Ok(())
    }

    fn node_and_outside_reach_a_service() -> Result<()> {
        let node = Node::new()?;
        let web = node.pod("web")?;
        let outside = Outside::new(&node)?;
        node.kube_rules(10)?;
        service(&node, vip(), &web)?;
        assert_eq!(call(&node, &web, web.ip(), 8080, vip())?, IpAddr::from(GATEWAY));
        assert_eq!(call(&outside, &web, web.ip(), 8080, vip())?, IpAddr::from(GATEWAY));
        Ok(())
    }

    fn pods_and_outside_are_routed_without_nat() -> Result<()> {
        let node = Node::new()?;
        let web = node.pod("web")?;
        let outside = Outside::new(&node)?;
        let direct = SocketAddr::from((web.ip(), 8080));
        assert_eq!(call(&outside, &web, web.ip(), 8080, direct)?, IpAddr::from(OUTSIDE));
        let direct = SocketAddr::from((web.ip6(), 8081));
        assert_eq!(call(&outside, &web, web.ip6(), 8081, direct)?, IpAddr::from(outside.ip6()));
        Ok(())
    }
}
