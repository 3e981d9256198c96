//! Pods reach each other, also with equal addresses on two nodes.

use std::net::IpAddr;

use testbed::traffic::{SocketOptions, accept, connect, listen, rr, stream};
use testbed::{Node, Pod, Result, kernel_test};

/// Streams from one pod to another and checks what arrived.
fn stream_between(client: &Pod, server: &Pod, ip: IpAddr) -> Result<()> {
    let (listener, addr) = server.run(|| listen((ip, 0)))??;
    let received = server.spawn(move || stream::receive(&accept(&listener)?, 4096))?;
    let sent = client.run(|| {
        let sock = connect(addr)?;
        stream::send(&sock, 1, 1 << 20, 5000)
    })??;
    let received = received.join()??;
    assert_eq!((received.len, received.hash), (1 << 20, sent));
    assert_eq!(received, stream::expected(1, 1 << 20));
    Ok(())
}

kernel_test! {
    fn pods_stream_over_ipv4_and_ipv6() -> Result<()> {
        let node = Node::new()?;
        let (a, b) = (node.pod("a")?, node.pod("b")?);
        assert_eq!(b.ip().to_string(), "10.244.0.3");
        assert_eq!(b.ip6().to_string(), "fd00:10:244::3");
        stream_between(&a, &b, b.ip().into())?;
        stream_between(&a, &b, b.ip6().into())
    }

    fn routed_pods_stream_over_ipv4_and_ipv6() -> Result<()> {
        let node = Node::new()?;
        let (a, b) = (node.routed_pod("a")?, node.routed_pod("b")?);
        node.kube_rules(10)?;
        stream_between(&a, &b, b.ip().into())?;
        stream_between(&a, &b, b.ip6().into())?;
        // Through the node: to each other they are two hops away.
        let ports = testbed::link::names(&node)?;
        assert!(ports.contains(&a.port().to_owned()) && !ports.is_empty());
        assert!(node.counter("Ip", "ForwDatagrams")? > Some(0));
        Ok(())
    }

    fn node_reaches_pod(_: &testbed::Cgroup) -> Result<()> {
        let node = Node::new()?;
        let pod = node.pod("a")?;
        let (listener, addr) = pod.run(|| listen((pod.ip(), 0)))??;
        let server = pod.spawn(move || rr::serve(&accept(&listener)?, 100))?;
        let times = node.run(|| rr::client(&connect(addr)?, 100, 50))??;
        assert_eq!(times.len(), 50);
        assert_eq!(server.join()??, 50);
        Ok(())
    }

    fn equal_addresses_on_two_nodes_do_not_mix() -> Result<()> {
        let nodes = [Node::new()?, Node::new()?];
        let pods = nodes.iter().map(|node| Ok((node.pod("a")?, node.pod("b")?))).collect::<Result<Vec<_>>>()?;
        assert_eq!(pods[0].1.ip(), pods[1].1.ip());
        // Both at the same time, the same four-tuple twice.
        let mut ends = Vec::new();
        for (client, server) in &pods {
            let (listener, addr) = server.run(|| listen((server.ip(), 8080)))??;
            let served = server.spawn(move || stream::receive(&accept(&listener)?, 4096))?;
            let sock = client.run(|| SocketOptions::new().bind((client.ip(), 4000)).connect(addr))??;
            ends.push((sock, served));
        }
        for (seed, (sock, _)) in (0..).zip(&ends) {
            stream::send(sock, seed, 100_000, 1000)?;
        }
        for (seed, (sock, served)) in (0..).zip(ends) {
            drop(sock);
            assert_eq!(served.join()??, stream::expected(seed, 100_000));
        }
        Ok(())
    }

    fn taken_and_foreign_addresses_are_refused() -> Result<()> {
        let node = Node::new()?;
        let pod = node.pod("a")?;
        let taken = node.pod_with_addr("b", pod.ip()).unwrap_err().to_string();
        assert!(taken.starts_with("cannot make veth veth2"), "{taken}");
        let foreign = node.pod_with_addr("c", "10.9.9.9".parse().unwrap()).unwrap_err().to_string();
        assert!(foreign.contains("pods have addresses from 10.244.0.2"), "{foreign}");
        Ok(())
    }
}
