//! Only what is proven local is touched, and nothing is paired by its addresses (invariants 3, 4).

mod common;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::part::{MESSAGE, Part, Player};
use common::{Bed, Result};
use datapath::abi::Reason;
use socket2::SockRef;
use testbed::isolate::TEST_CGROUP;
use testbed::traffic::{SocketOptions, accept, rr, stream};
use testbed::{Cgroup, Node, Outside, kernel_test};

/// Connections of the test that reuses ports; both nodes have half of them.
const REUSING: u64 = 100_000;
/// The ports that all its clients share.
const PORTS: std::ops::Range<u16> = 40_000..40_008;
const HELLO: u16 = 10;

/// Connects with a port of one's own, which earlier connections had already.
fn connect_from(own: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let sock = SocketOptions::new().reuse_address().bind(own).connect(to)?;
    // No TIME_WAIT: the port is free for the next connection at once.
    SockRef::from(&sock).set_linger(Some(Duration::ZERO))?;
    Ok(sock)
}

/// Each connection sends its own number, gets it back, and goes.
fn reuse_ports(client: IpAddr, addr: SocketAddr, numbers: std::ops::Range<u64>) -> Result {
    for (number, port) in numbers.zip(PORTS.cycle()) {
        let sock = connect_from((client, port).into(), addr)?;
        let mut question = [0; HELLO as usize];
        question[..8].copy_from_slice(&number.to_le_bytes());
        // The server speaks first, so both ends are enrolled.
        let mut greeting = [0; 1];
        testbed::traffic::read_all(&sock, &mut greeting)?;
        testbed::traffic::write_all(&sock, &question)?;
        let mut answer = [0; HELLO as usize];
        testbed::traffic::read_all(&sock, &mut answer)?;
        assert_eq!(
            (greeting, answer),
            ([b'!'], question),
            "connection {number}"
        );
    }
    Ok(())
}

fn answer_all(listener: &TcpListener, count: u64) -> Result {
    for _ in 0..count {
        let sock = testbed::traffic::accept(listener)?;
        testbed::traffic::write_all(&sock, b"!")?;
        let mut question = [0; HELLO as usize];
        testbed::traffic::read_all(&sock, &mut question)?;
        testbed::traffic::write_all(&sock, &question)?;
        // The client ends it, as a SYN that meets FIN_WAIT2 is answered with a reset, by plain TCP too.
        let _ = testbed::traffic::read(&sock, &mut question);
    }
    Ok(())
}

/// A namespace beyond the node, and a cgroup that Beeline is not attached to.
fn beyond(node: &Node) -> Result<(Outside, Cgroup)> {
    Ok((Outside::new(node)?, Cgroup::create(TEST_CGROUP)?))
}

/// There is nothing of Beeline at any socket.
fn untouched(bed: &Bed) -> Result {
    assert!(bed.enrolled().is_empty() && bed.conns().is_empty());
    assert!(bed.ends()?.is_empty());
    Ok(())
}

fn served_outside(cgroup: &Cgroup, ip: impl Fn(&Outside) -> IpAddr) -> Result {
    let bed = Bed::on(cgroup)?;
    let node = Node::new()?;
    let client = node.pod("client")?;
    let (outside, other) = beyond(&node)?;
    let at = (ip(&outside), 0).into();
    let mut server = Player::start(&outside, Some(&other), Part::Serve(at))?;
    let addr: SocketAddr = server.told("listens on")?.parse()?;
    let sock = client.connect(addr)?;
    bed.wait_reason(Reason::PeerElsewhere, 1)?;
    rr::client(&sock, MESSAGE, 50)?;
    untouched(&bed)?;
    drop(sock);
    server.ended()?;
    bed.none_enrolled(&[(Reason::PeerElsewhere, 1)])
}

kernel_test! {
    fn equal_addresses_in_two_nodes_do_not_mispair(cgroup: &Cgroup) -> Result {
        const PAIRS: u16 = 20;
        const BYTES: u64 = 100_000;
        let bed = Bed::on(cgroup)?;
        let nodes = [Node::new()?, Node::new()?];
        let mut ends = Vec::new();
        let mut pods = Vec::new();
        for node in &nodes {
            let (client, web) = (node.pod("client")?, node.pod("web")?);
            let (listener, addr) = web.listen((web.ip(), 8080))?;
            pods.push((client, web, listener, addr));
        }
        assert_eq!(pods[0].1.ip(), pods[1].1.ip());
        // The same four-tuple twice, always at once.
        for port in (0..PAIRS).map(|n| 4000 + n) {
            for (client, _, listener, addr) in &pods {
                let own = SocketOptions::new().bind((client.ip(), port));
                let a = client.run(|| own.connect(*addr))??;
                ends.push((a, accept(listener)?));
            }
        }
        for pair in ends.chunks(2) {
            assert_eq!(pair[0].0.local_addr()?, pair[1].0.local_addr()?);
            assert_eq!(pair[0].0.peer_addr()?, pair[1].0.peer_addr()?);
        }
        for (seed, (a, b)) in (0..).step_by(2).zip(&ends) {
            stream::send(a, seed, BYTES, 3000)?;
            stream::send(b, seed + 1, BYTES, 3000)?;
        }
        for (seed, (a, b)) in (0..).step_by(2).zip(&ends) {
            stream::finish(a)?;
            stream::finish(b)?;
            assert_eq!(stream::receive(b, 4096)?, stream::expected(seed, BYTES));
            assert_eq!(stream::receive(a, 4096)?, stream::expected(seed + 1, BYTES));
        }
        drop(ends);
        bed.all_redirected(2 * u64::from(PAIRS), 4 * u64::from(PAIRS) * BYTES)
    }

    fn reused_ports_never_meet_an_old_connection(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let nodes = [Node::new()?, Node::new()?];
        let mut servers = Vec::new();
        let mut clients = Vec::new();
        let mut pods = Vec::new();
        for (node, half) in nodes.iter().zip([0..REUSING / 2, REUSING / 2..REUSING]) {
            // The nodes' addresses differ, as equal ones may yield equal sequence numbers.
            let other = node.pod_with_addr("web", format!("10.244.{}.9", pods.len()).parse()?)?;
            let (client, web) = (node.pod("client")?, other);
            let (listener, addr) = web.listen((web.ip(), 8080))?;
            servers.push(web.spawn(move || answer_all(&listener, REUSING / 2))?);
            let own = client.ip().into();
            clients.push(client.spawn(move || reuse_ports(own, addr, half))?);
            pods.push((client, web));
        }
        for peer in clients.into_iter().chain(servers) {
            peer.join_within(Duration::from_secs(100))??;
        }
        bed.all_redirected(REUSING, REUSING * (1 + 2 * u64::from(HELLO)))
    }

    fn server_beyond_the_node_is_left_alone(cgroup: &Cgroup) -> Result {
        served_outside(cgroup, |outside| outside.ip().into())
    }

    fn server_beyond_the_node_over_ipv6_is_left_alone(cgroup: &Cgroup) -> Result {
        served_outside(cgroup, |outside| outside.ip6().into())
    }

    fn client_beyond_the_node_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let web = node.pod("web")?;
        let (outside, other) = beyond(&node)?;
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let client = Player::start(&outside, Some(&other), Part::Call(addr, 50))?;
        let sock = accept(&listener)?;
        bed.wait_reason(Reason::PeerElsewhere, 1)?;
        untouched(&bed)?;
        assert_eq!(rr::serve(&sock, MESSAGE)?, 50);
        drop(sock);
        client.ended()?;
        bed.none_enrolled(&[(Reason::PeerElsewhere, 1)])
    }
}
