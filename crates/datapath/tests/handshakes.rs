//! Handshakes that are not the usual three segments: enrolled or left alone, and always right.

mod common;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use common::{
    Bed, Dropping, LARGE, Result, SOON, exchange, expect_bytes, expect_connections, expect_reasons,
    in_progress, set_option,
};
use datapath::abi::Reason;
use socket2::{Domain, SockRef, Socket, Type};
use testbed::traffic::{STALL, SocketOptions, accept, pair, read_all};
use testbed::{Cgroup, NetNs, Node, kernel_test, wait_for};

const PORT: u16 = 8080;
/// Bytes each way of a connection.
const BYTES: u64 = LARGE / 4;

/// A socket that is connecting from `own` to `to`, without waiting for the answer.
fn connecting(own: SocketAddr, to: SocketAddr) -> Result<Socket> {
    let sock = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    sock.bind(&own.into())?;
    sock.set_nonblocking(true)?;
    sock.connect(&to.into()).or_else(in_progress)?;
    Ok(sock)
}

/// Waits until the handshake is over.
fn connected(sock: Socket) -> Result<TcpStream> {
    wait_for("a connection", SOON, || sock.peer_addr().is_ok())?;
    sock.set_read_timeout(Some(STALL))?;
    sock.set_write_timeout(Some(STALL))?;
    Ok(sock.into())
}

fn listener_with(addr: SocketAddr, backlog: i32) -> Result<TcpListener> {
    let sock = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    sock.set_reuse_address(true)?;
    sock.bind(&addr.into())?;
    sock.listen(backlog)?;
    sock.set_nonblocking(true)?;
    Ok(sock.into())
}

/// Connections by SYN cookie: their request sockets have no listener, so the kernel runs no program
/// for them (`sk_to_full_sk`, include/net/inet_sock.h, 6.18) and there is no offer.
fn cookies(cgroup: &Cgroup, v6: bool) -> Result {
    let bed = Bed::on(cgroup)?;
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    web.syncookies(true)?;
    let ip: IpAddr = if v6 {
        web.ip6().into()
    } else {
        web.ip().into()
    };
    let (listener, addr) = web.listen((ip, PORT))?;
    for _ in 0..20 {
        let a = client.connect(addr)?;
        exchange(&a, &accept(&listener)?, BYTES / 10)?;
    }
    assert_eq!(web.counter("TcpExt", "SyncookiesRecv")?, Some(20));
    bed.none_enrolled(&[(Reason::PeerElsewhere, 20), (Reason::NoRecord, 20)])
}

/// Multipath TCP on some sockets; returns the sums.
fn multipath(
    bed: &Bed,
    client: SocketOptions,
    server: SocketOptions,
) -> Result<datapath::abi::Totals> {
    let node = Node::new()?;
    let (web, pod) = (node.pod("web")?, node.pod("client")?);
    let (listener, addr) = web.run(|| server.listen((web.ip(), PORT)))??;
    let a = pod.run(|| client.connect(addr))??;
    let b = accept(&listener)?;
    exchange(&a, &b, BYTES)?;
    drop((a, b));
    bed.emptied()
}

kernel_test! {
    fn syn_cookies_are_left_alone(cgroup: &Cgroup) -> Result {
        cookies(cgroup, false)
    }

    fn syn_cookies_over_ipv6_are_left_alone(cgroup: &Cgroup) -> Result {
        cookies(cgroup, true)
    }

    /// The first connection fetches the cookie, the next ones carry data in the SYN.
    fn fast_open_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for pod in [&web, &client] {
            pod.sysctl("net.ipv4.tcp_fastopen", 3)?;
        }
        let (listener, addr) = web.listen((web.ip(), PORT))?;
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
        for round in 0..3u8 {
            let open = SocketOptions::new().fast_open();
            let a = client.run(|| open.connect(addr))??;
            // Goes with the SYN, from the second round on.
            testbed::traffic::write_all(&a, &[round; 700])?;
            let b = accept(&listener)?;
            let mut got = [0; 700];
            read_all(&b, &mut got)?;
            assert_eq!(got, [round; 700]);
            exchange(&a, &b, BYTES)?;
        }
        assert_eq!(web.counter("TcpExt", "TCPFastOpenPassive")?, Some(2));
        let totals = bed.emptied()?;
        // The first one had its handshake before its data, but waited for it; of the others each end counts.
        expect_connections(&totals, 0);
        expect_reasons(&totals, &[(Reason::FastOpen, 4), (Reason::Blocking, 1)]);
        Ok(())
    }

    fn socket_connected_to_itself_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pod = NetNs::new("pod")?;
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
        let sock = connected(pod.run(|| connecting(own, own))??)?;
        assert_eq!(sock.local_addr()?, sock.peer_addr()?);
        testbed::traffic::write_all(&sock, b"to myself")?;
        let mut got = [0; 9];
        read_all(&sock, &mut got)?;
        assert_eq!(&got, b"to myself");
        drop(sock);
        bed.none_enrolled(&[(Reason::NoRecord, 1)])
    }

    /// Neither end is a server, so nobody offers; both SYNs are dropped once, so that both ends
    /// have sent theirs when the other's arrives.
    fn simultaneous_open_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (one, two) = (node.pod("one")?, node.pod("two")?);
        let (at_one, at_two) = ((one.ip(), 4000).into(), (two.ip(), 4000).into());
        let drops = [Dropping::arriving(&one, "tcp flags syn")?, Dropping::arriving(&two, "tcp flags syn")?];
        let a = one.run(|| connecting(at_one, at_two))??;
        let b = two.run(|| connecting(at_two, at_one))??;
        for drops in drops {
            drops.end()?;
        }
        let (a, b) = (connected(a)?, connected(b)?);
        exchange(&a, &b, BYTES)?;
        drop((a, b));
        // As each end goes on from the other's SYN or from the answer to its own.
        let elsewhere = bed.totals()?.count(Reason::PeerElsewhere);
        bed.none_enrolled(&[(Reason::PeerElsewhere, elsewhere), (Reason::NoRecord, 2 - elsewhere)])
    }

    /// Two instances on one cgroup, of which each would enrol it.
    fn socket_that_another_sockmap_has_is_left_alone(cgroup: &Cgroup) -> Result {
        let beds = [Bed::on(cgroup)?, Bed::on(cgroup)?];
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        let has = |bed: &&Bed| !bed.enrolled().is_empty();
        let (owners, others): (Vec<_>, Vec<_>) = beds.iter().partition(has);
        assert_eq!((owners.len(), others.len()), (1, 1));
        assert!(others[0].conns().is_empty() && others[0].ends()?.is_empty());
        let sent = exchange(&a, &b, 100_000)?;
        drop((a, b));
        owners[0].all_redirected(1, sent)?;
        others[0].none_enrolled(&[(Reason::ForeignSockmap, 1)])
    }

    fn multipath_tcp_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let mptcp = SocketOptions::new().mptcp();
        let totals = multipath(&bed, mptcp.clone(), mptcp)?;
        expect_connections(&totals, 0);
        assert!(totals.count(Reason::Mptcp) >= 1);
        expect_reasons(&totals, &[(Reason::Mptcp, totals.count(Reason::Mptcp))]);
        Ok(())
    }

    fn multipath_client_of_a_plain_listener_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let totals = multipath(&bed, SocketOptions::new().mptcp(), SocketOptions::new())?;
        expect_connections(&totals, 0);
        expect_reasons(&totals, &[(Reason::Mptcp, 1)]);
        Ok(())
    }

    fn plain_client_of_a_multipath_listener_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let totals = multipath(&bed, SocketOptions::new(), SocketOptions::new().mptcp())?;
        expect_connections(&totals, 0);
        expect_reasons(&totals, &[(Reason::Mptcp, 1)]);
        Ok(())
    }

    /// The listener wants data before the last segment of the handshake counts, so the client's
    /// first bytes find no peer; what comes after them does.
    fn deferred_accept_costs_the_first_bytes(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), PORT))?;
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 10)?;
        let a = client.connect(addr)?;
        testbed::traffic::write_all(&a, b"hello")?;
        let b = accept(&listener)?;
        let mut got = [0; 5];
        read_all(&b, &mut got)?;
        assert_eq!(&got, b"hello");
        // A direction does not return while somebody has the reader's lock, so nobody reads now.
        testbed::traffic::write_all(&a, b"again")?;
        read_all(&b, &mut got)?;
        assert_eq!(&got, b"again");
        exchange(&a, &b, BYTES)?;
        drop((a, b));
        let totals = bed.emptied()?;
        expect_connections(&totals, 1);
        expect_reasons(&totals, &[(Reason::PeerLate, 1)]);
        assert_eq!(
            (totals.closed_redirected_bytes, totals.closed_kernel_bytes),
            (2 * BYTES + 5, 5)
        );
        Ok(())
    }

    fn listeners_that_share_a_port_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let shared = SocketOptions::new().reuse_port();
        let (one, addr) = web.run(|| shared.listen((web.ip(), PORT)))??;
        let (two, _) = web.run(|| shared.listen((web.ip(), PORT)))??;
        for listener in [&one, &two] {
            listener.set_nonblocking(true)?;
        }
        let mut served = [0, 0];
        for _ in 0..40 {
            let a = client.connect(addr)?;
            let mut b = None;
            wait_for("either listener", SOON, || {
                for (listener, served) in [&one, &two].into_iter().zip(&mut served) {
                    if let Ok((sock, _)) = listener.accept() {
                        *served += 1;
                        sock.set_nonblocking(true).expect("a socket has the flag");
                        b = Some(sock);
                    }
                }
                b.is_some()
            })?;
            exchange(&a, &b.ok_or("accepted")?, 50_000)?;
        }
        assert!(served.iter().all(|count| *count > 0), "{served:?}");
        bed.all_redirected(40, 40 * 100_000)
    }

    /// More handshakes end than the queue takes: clients are established and send, the server
    /// forgets their last segment and learns it again from what follows.
    fn overflow_of_the_accept_queue_loses_nothing(cgroup: &Cgroup) -> Result {
        const CLIENTS: usize = 6;
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let addr = (web.ip(), PORT).into();
        let listener = web.run(|| listener_with(addr, 100))??;
        let drops = Dropping::arriving(&web, common::PLAIN_ACKS)?;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let sock = client.connect(addr)?;
            // No server yet, so this direction starts on the kernel path.
            testbed::traffic::write_all(&sock, &[number as u8; 1000])?;
            clients.push(sock);
        }
        assert_eq!((bed.conns().len(), bed.totals()?.paired), (CLIENTS, 0));
        // Now it takes two, and the rest must try again.
        SockRef::from(&listener).listen(1)?;
        drops.end()?;
        wait_for("an overflow", SOON, || {
            let overflows = web.counter("TcpExt", "ListenOverflows");
            overflows.is_ok_and(|count| count > Some(0))
        })?;
        let mut seen = [false; CLIENTS];
        let mut served = Vec::new();
        for _ in 0..CLIENTS {
            let b = accept(&listener)?;
            let mut got = [0; 1000];
            read_all(&b, &mut got)?;
            assert!(got.iter().all(|byte| *byte == got[0]));
            seen[usize::from(got[0])] = true;
            testbed::traffic::write_all(&b, &got)?;
            served.push(b);
        }
        assert_eq!(seen, [true; CLIENTS]);
        for (number, mut sock) in clients.into_iter().enumerate() {
            let mut got = [0; 1000];
            read_all(&sock, &mut got)?;
            assert_eq!(got, [number as u8; 1000]);
            sock.flush()?;
        }
        drop(served);
        let totals = bed.emptied()?;
        expect_connections(&totals, CLIENTS as u64);
        expect_reasons(&totals, &[(Reason::PeerLate, CLIENTS as u64)]);
        assert_eq!(
            (totals.closed_redirected_bytes, totals.closed_kernel_bytes),
            (1000 * CLIENTS as u64, 1000 * CLIENTS as u64)
        );
        Ok(())
    }

    fn listener_with_a_backlog_of_one_serves_all(cgroup: &Cgroup) -> Result {
        const CLIENTS: u64 = 30;
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let addr = (web.ip(), PORT).into();
        let listener = web.run(|| listener_with(addr, 1))??;
        let server = web.spawn(move || -> Result {
            for _ in 0..CLIENTS {
                let sock = testbed::traffic::accept(&listener)?;
                let mut got = [0; 100];
                testbed::traffic::read_all(&sock, &mut got)?;
                testbed::traffic::write_all(&sock, &got)?;
            }
            Ok(())
        })?;
        let clients: Vec<_> = (0..3).map(|_| client.spawn(move || -> Result {
            for number in 0..CLIENTS / 3 {
                let sock = testbed::traffic::connect(addr)?;
                testbed::traffic::write_all(&sock, &[number as u8; 100])?;
                let mut got = [0; 100];
                read_all(&sock, &mut got)?;
                assert_eq!(got, [number as u8; 100]);
            }
            Ok(())
        })).collect::<Result<_, _>>()?;
        for peer in clients {
            peer.join()??;
        }
        server.join()??;
        let totals = bed.emptied()?;
        // While the queue is full the kernel answers with SYN cookies.
        let cookies = totals.count(Reason::NoRecord);
        expect_connections(&totals, CLIENTS - cookies);
        expect_reasons(
            &totals,
            &[
                (Reason::PeerLate, totals.count(Reason::PeerLate)),
                (Reason::NoRecord, cookies),
                (Reason::PeerElsewhere, cookies),
            ],
        );
        expect_bytes(&totals, (CLIENTS - cookies) * 200);
        Ok(())
    }

    fn refused_connection_leaves_no_record(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for _ in 0..20 {
            let refused = client.connect((web.ip(), PORT)).unwrap_err();
            let kind = refused.io().map(std::io::Error::kind);
            assert_eq!(kind, Some(std::io::ErrorKind::ConnectionRefused));
        }
        bed.none_enrolled(&[])
    }

    /// The server's answers get lost: its offers stay until they are too old or make room.
    fn connections_that_time_out_leave_offers_that_expire(cgroup: &Cgroup) -> Result {
        const CLIENTS: u16 = 50;
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (_listener, addr) = web.listen((web.ip(), PORT))?;
        let drops = Dropping::arriving(&client, "tcp flags syn")?;
        let clients = (0..CLIENTS)
            .map(|n| client.run(|| connecting((client.ip(), 4000 + n).into(), addr))?)
            .collect::<Result<Vec<_>>>()?;
        let offered = || bed.offers().len() == usize::from(CLIENTS);
        wait_for("the offers", SOON, offered)?;
        drop(clients);
        drops.end()?;
        assert_eq!(bed.offers().len(), usize::from(CLIENTS));
        bed.expire_offers(Duration::from_secs(3600))?;
        assert_eq!(bed.offers().len(), usize::from(CLIENTS));
        bed.expire_offers(Duration::ZERO)?;
        bed.none_enrolled(&[])
    }
}
