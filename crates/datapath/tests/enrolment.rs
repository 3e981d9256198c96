//! Which connections are enrolled, and that every byte of them is redirected and arrives.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::thread;

use common::part::{MESSAGE, Part, Player};
use common::{
    Bed, LARGE, Result, SOON, exchange, exchange_in, expect_bytes, expect_connections,
    expect_reasons, one_way, seed, talk,
};
use datapath::abi::{EndRecord, Reason};
use libbpf_rs::{MapCore, MapFlags};
use testbed::traffic::{SocketOptions, accept, pair, read_all, rr, stream, write_all};
use testbed::{Cgroup, NetNs, Node, kernel_test, wait_for};

/// One connection between namespaces, a stream each way at once.
fn redirected(bed: &Bed, client: &NetNs, server: &NetNs, ip: impl Into<IpAddr>) -> Result {
    // So that a reader may fall behind as far as the scheduler likes.
    for ns in [client, server] {
        ns.sysctl("net.ipv4.tcp_rmem", format!("4096 131072 {}", 1 << 30))?;
    }
    let (a, b) = pair(client, server, ip)?;
    let bytes = exchange(&a, &b, LARGE)?;
    drop((a, b));
    bed.all_redirected(1, bytes)
}

/// A listener on all addresses of both families, reached by IPv4 through a socket of the family
/// that `target` has.
fn mapped(bed: &Bed, target: impl Fn(Ipv4Addr) -> IpAddr) -> Result {
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    let both = SocketOptions::new().only_v6(false);
    let (listener, addr) = web.run(|| both.listen((Ipv6Addr::UNSPECIFIED, 0)))??;
    let a = client.connect((target(web.ip()), addr.port()))?;
    let b = accept(&listener)?;
    let of_v4 = b.peer_addr()?.ip() == client.ip().to_ipv6_mapped();
    assert!(of_v4, "{:?}", b.peer_addr());
    let bytes = exchange(&a, &b, LARGE)?;
    drop((a, b));
    bed.all_redirected(1, bytes)
}

kernel_test! {
    /// Who connected is remembered until the socket is established.
    fn nothing_is_kept_of_who_connected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (listener, addr) = testbed::traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let a = testbed::traffic::connect(addr)?;
        let _b = testbed::traffic::accept(&listener)?;
        assert_eq!(bed.enrolled().len(), 2);
        let kept = bed.get("callers").lookup(&a.as_raw_fd().to_ne_bytes(), MapFlags::ANY)?;
        assert_eq!(kept, None);
        Ok(())
    }

    fn pod_to_pod_is_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        redirected(&bed, &client, &web, web.ip())
    }

    fn pod_to_pod_over_ipv6_is_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        redirected(&bed, &client, &web, web.ip6())
    }

    fn node_to_pod_is_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let web = node.pod("web")?;
        redirected(&bed, &node, &web, web.ip())
    }

    fn ipv4_client_of_an_ipv6_listener_is_redirected(cgroup: &Cgroup) -> Result {
        mapped(&Bed::on(cgroup)?, |ip| ip.into())
    }

    fn ipv6_client_of_a_mapped_address_is_redirected(cgroup: &Cgroup) -> Result {
        mapped(&Bed::on(cgroup)?, |ip| ip.to_ipv6_mapped().into())
    }

    fn two_threads_of_a_pod_over_loopback_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pod = NetNs::new("pod")?;
        redirected(&bed, &pod, &pod, Ipv4Addr::LOCALHOST)
    }

    fn two_threads_of_a_pod_over_ipv6_loopback_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pod = NetNs::new("pod")?;
        redirected(&bed, &pod, &pod, Ipv6Addr::LOCALHOST)
    }

    fn two_processes_of_a_pod_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pod = NetNs::new("pod")?;
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Player::start(&pod, None, Part::Serve(any))?;
        let sock = pod.connect(server.told("listens on")?.parse::<SocketAddr>()?)?;
        bed.wait_paired(1)?;
        rr::client(&sock, MESSAGE, 100)?;
        drop(sock);
        server.ended()?;
        bed.all_redirected(1, 2 * 100 * MESSAGE as u64)
    }

    fn every_size_of_write_and_read_arrives(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let mut sent = 0;
        // From single bytes to more than one sk_msg can hold.
        let cases = [(1, 3_000), (7, 50_000), (1460, 2 << 20), (65_536, LARGE), (3 << 20, LARGE)];
        for (piece, bytes) in cases {
            let (a, b) = pair(&client, &web, web.ip())?;
            // Else TCP gathers small writes, so that their connection leaves.
            a.set_nodelay(true)?;
            b.set_nodelay(true)?;
            sent += exchange_in(&a, &b, bytes, piece)?;
        }
        bed.all_redirected(5, sent)
    }

    fn non_blocking_sockets_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        a.set_nonblocking(true)?;
        b.set_nonblocking(true)?;
        let bytes = exchange(&a, &b, LARGE)?;
        drop((a, b));
        bed.all_redirected(1, bytes)
    }

    /// As after accept() and before fcntl(), while something is sent already.
    fn server_that_blocks_for_a_moment_stays_enrolled(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        // On a busy host the moment may be longer than what a socket is granted.
        for _ in 0..100 {
            let a = client.connect(addr)?;
            let b = accept(&listener)?;
            b.set_nonblocking(false)?;
            talk(&a, &b)?;
            talk(&a, &b)?;
            b.set_nonblocking(true)?;
            let ends = bed.ends()?;
            assert!(ends.iter().all(|end| end.end.redirected_bytes == 0));
            if ends.iter().all(|end| end.has_psock == 1) {
                let redirected = |end: &EndRecord| end.end.redirected_bytes > 0;
                wait_for("both directions to return to the redirect", SOON, || {
                    talk(&a, &b).is_ok() && bed.ends().is_ok_and(|ends| ends.iter().all(redirected))
                })?;
                return Ok(());
            }
            drop((a, b));
            bed.emptied()?;
        }
        panic!("each left");
    }

    /// Invariant 7, of a direction that asks with each message whether it may return.
    fn direction_is_counted_once_for_all_its_messages(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        b.set_nonblocking(false)?;
        for _ in 0..10 {
            write_all(&a, b"hello")?;
            read_all(&b, &mut [0; 5])?;
        }
        assert_eq!(bed.totals()?.count(Reason::Blocking), 1);
        Ok(())
    }

    fn two_hundred_connections_at_once_do_not_mix(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let mut pairs = Vec::new();
        for _ in 0..200 {
            pairs.push((client.connect(addr)?, accept(&listener)?));
        }
        assert_eq!((bed.enrolled().len(), bed.conns().len()), (400, 200));
        let sent = thread::scope(|scope| {
            let work: Vec<_> = pairs
                .chunks(25)
                .map(|some| scope.spawn(|| -> Result<u64> {
                    // All of a chunk are begun before the first is read.
                    let seeds: Vec<_> = some.iter().map(|_| (seed(), seed())).collect();
                    for ((a, b), (up, down)) in some.iter().zip(&seeds) {
                        stream::send(a, *up, 30_000, 4_000)?;
                        stream::send(b, *down, 40_000, 5_000)?;
                    }
                    for ((a, b), (up, down)) in some.iter().zip(&seeds) {
                        stream::finish(a)?;
                        stream::finish(b)?;
                        assert_eq!(stream::receive(b, 3_000)?, stream::expected(*up, 30_000));
                        assert_eq!(stream::receive(a, 3_000)?, stream::expected(*down, 40_000));
                    }
                    Ok(70_000 * some.len() as u64)
                }))
                .collect();
            work.into_iter().map(|w| w.join().expect("a peer panicked")).sum::<Result<u64>>()
        })?;
        drop(pairs);
        bed.all_redirected(200, sent)
    }

    fn server_speaks_first(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let greeter = web.spawn(move || -> Result {
            let sock = accept(&listener)?;
            testbed::traffic::write_all(&sock, b"220 ready\r\n")?;
            rr::serve(&sock, 10)?;
            Ok(())
        })?;
        let sock = client.connect(addr)?;
        let mut greeting = [0; 11];
        read_all(&sock, &mut greeting)?;
        assert_eq!(&greeting, b"220 ready\r\n");
        rr::client(&sock, 10, 3)?;
        drop(sock);
        greeter.join()??;
        bed.all_redirected(1, 11 + 60)
    }

    fn data_goes_on_after_the_other_direction_ended(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for (up, down) in [(LARGE, LARGE), (1, LARGE), (LARGE, 1), (0, LARGE)] {
            let (a, b) = pair(&client, &web, web.ip())?;
            one_way(&a, &b, seed(), up, 50_000)?;
            one_way(&b, &a, seed(), down, 50_000)?;
        }
        let totals = bed.emptied()?;
        expect_connections(&totals, 4);
        expect_reasons(&totals, &[]);
        expect_bytes(&totals, 5 * LARGE + 2);
        Ok(())
    }

    /// The client's ACK may still be on its way when connect(2) returns; then the first bytes find
    /// no peer, and their direction stays on the kernel path. Nothing else may put it there.
    fn client_that_speaks_at_once_loses_nothing(cgroup: &Cgroup) -> Result {
        const COUNT: u64 = 2000;
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let server = web.spawn(move || -> Result {
            for _ in 0..COUNT {
                rr::serve(&accept(&listener)?, 100)?;
            }
            Ok(())
        })?;
        client.run(|| -> Result {
            for _ in 0..COUNT {
                let sock = testbed::traffic::connect(addr)?;
                testbed::traffic::write_all(&sock, &[7; 100])?;
                let mut answer = [0; 100];
                read_all(&sock, &mut answer)?;
                assert_eq!(answer, [7; 100]);
            }
            Ok(())
        })??;
        server.join()??;
        let totals = bed.emptied()?;
        let late = totals.count(Reason::PeerLate);
        println!("{late} of {COUNT} clients were faster than their ACK");
        expect_connections(&totals, COUNT);
        expect_reasons(&totals, &[(Reason::PeerLate, late)]);
        expect_bytes(&totals, 200 * COUNT);
        assert_eq!(totals.closed_kernel_bytes, 100 * late);
        Ok(())
    }
}
