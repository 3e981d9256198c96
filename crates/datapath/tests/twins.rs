//! Two connections with the same addresses, ports and initial sequence numbers, in two nodes.
//!
//! The kernel computes a sequence number from the addresses, a secret of the whole host, and a
//! clock of 64 ns (secure_tcp_seq, net/core/secure_seq.c, 6.18), so two connections between equal
//! addresses that begin at the same instant have equal handshakes. Here the second one is forged:
//! the client's number through TCP_REPAIR, the server's through a TIME_WAIT socket, from whose last
//! number the kernel derives the next (tcp_timewait_state_process, net/ipv4/tcp_minisocks.c).

mod common;

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;

use common::{
    Bed, Dropping, PLAIN_ACKS, Result, SOON, exchange, expect_connections, expect_reasons,
    set_option,
};
use datapath::abi::{Handshake, Mode, Reason};
use datapath::adopt::Adopter;
use datapath::earlier::Earlier;
use socket2::{Domain, Socket, Type};
use testbed::isolate::TEST_CGROUP;
use testbed::traffic::{STALL, SocketOptions, accept, options, read_all, write_all};
use testbed::{Cgroup, NetNs, Node, Pod, kernel_test, wait_for};

const CLIENT_PORT: u16 = 4000;
const PORT: u16 = 8080;
const BYTES: u64 = 1 << 20;

/// include/uapi/linux/tcp.h
const REPAIR_ON: i32 = 1;
const REPAIR_OFF: i32 = 0;
const REPAIR_OFF_SILENTLY: i32 = -1;
const RECV_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;
/// What a server's number is ahead of the last one of the TIME_WAIT socket before it.
const AFTER_TIME_WAIT: u32 = 65_535 + 2;

/// A node's pods; both nodes have the same addresses.
struct Side {
    _node: Node,
    client: Pod,
    web: Pod,
}

impl Side {
    fn new() -> Result<Self> {
        let node = Node::new()?;
        let (client, web) = (node.pod("client")?, node.pod("web")?);
        Ok(Self {
            _node: node,
            client,
            web,
        })
    }

    fn client_addr(&self) -> SocketAddr {
        (self.client.ip(), CLIENT_PORT).into()
    }

    fn web_addr(&self) -> SocketAddr {
        (self.web.ip(), PORT).into()
    }

    fn listen(&self) -> Result<TcpListener> {
        Ok(self.web.listen(self.web_addr())?.0)
    }

    /// Keeps the last segment of handshakes from the server, which asks for it again within a
    /// second or two of the end.
    fn hold(&self) -> Result<Dropping<'_>> {
        Dropping::arriving(&self.web, PLAIN_ACKS)
    }

    /// An ordinary connection; the server may not know of it yet.
    fn connect(&self) -> Result<TcpStream> {
        let own = SocketOptions::new().bind(self.client_addr());
        Ok(self.client.run(|| own.connect(self.web_addr()))??)
    }

    /// A listener whose next handshake will have the server's number of the twin.
    fn listen_as(&self, twin: Handshake) -> Result<TcpListener> {
        let (client_isn, server_isn) = (twin.snd_nxt - 1, twin.rcv_nxt - 1);
        let server = server_isn.wrapping_sub(AFTER_TIME_WAIT + 1);
        self.leave_time_wait(server, client_isn.wrapping_sub(100_000))?;
        self.listen()
    }

    /// A client with the number of the twin.
    fn connect_as(&self, twin: Handshake) -> Result<TcpStream> {
        let isn = (SEND_QUEUE, twin.snd_nxt - 1);
        let sock = self.client.run(|| -> Result<Socket> {
            let sock = repaired(self.client_addr(), &[isn])?;
            set_option(
                &sock,
                libc::IPPROTO_TCP,
                libc::TCP_REPAIR,
                REPAIR_OFF_SILENTLY,
            )?;
            options::connect(&sock, self.web_addr(), STALL)?;
            Ok(sock)
        })??;
        Ok(sock.into())
    }

    /// Leaves the server a TIME_WAIT socket whose numbers were these before the end.
    fn leave_time_wait(&self, server: u32, client: u32) -> Result {
        let (at_web, at_client) = (self.web_addr(), self.client_addr());
        let restore = |own, peer: SocketAddr, sends, receives| -> Result<Socket> {
            let sock = repaired(own, &[(RECV_QUEUE, receives), (SEND_QUEUE, sends)])?;
            sock.connect(&peer.into())?;
            set_option(
                &sock,
                libc::IPPROTO_TCP,
                libc::TCP_REPAIR,
                REPAIR_OFF_SILENTLY,
            )?;
            Ok(sock)
        };
        let b = self
            .web
            .run(|| restore(at_web, at_client, server, client))??;
        let a = self
            .client
            .run(|| restore(at_client, at_web, client, server))??;
        for sock in [&a, &b] {
            // Leaving the repair mode again asks the peer for its window.
            set_option(sock, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_ON)?;
            set_option(sock, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_OFF)?;
            // The repair mode took it away.
            sock.set_reuse_address(true)?;
        }
        drop(b);
        wait_for("the server's FIN", SOON, || states(&self.client) == ["08"])?;
        drop(a);
        let over = || states(&self.client).is_empty() && states(&self.web) == ["06"];
        wait_for("a TIME_WAIT at the server", SOON, over).map_err(|error| {
            let (client, web) = (states(&self.client), states(&self.web));
            format!("{error}: client {client:?}, server {web:?}").into()
        })
    }
}

/// A socket in repair mode, bound, with these sequence numbers.
fn repaired(own: SocketAddr, numbers: &[(i32, u32)]) -> Result<Socket> {
    let sock = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
    sock.set_reuse_address(true)?;
    sock.bind(&own.into())?;
    set_option(&sock, libc::IPPROTO_TCP, libc::TCP_REPAIR, REPAIR_ON)?;
    for (queue, number) in numbers {
        set_option(&sock, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, *queue)?;
        set_option(
            &sock,
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            number.cast_signed(),
        )?;
    }
    Ok(sock)
}

/// The TCP states of the sockets in a namespace, in hexadecimal (include/net/tcp_states.h).
fn states(ns: &NetNs) -> Vec<String> {
    let text = ns.run(|| fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default());
    let text = text.unwrap_or_default();
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned))
        .collect()
}

/// The only connection there is, by its client's view.
fn only(bed: &Bed) -> Result<Handshake> {
    let conns = bed.conns();
    assert_eq!(conns.len(), 1);
    Ok(conns[0])
}

/// A connection that is over, whose sockets are there, and the client's view of it.
fn over(bed: &Bed, side: &Side) -> Result<(TcpStream, TcpStream, Handshake)> {
    let listener = side.listen()?;
    let a = side.connect()?;
    let b = accept(&listener)?;
    let was = only(bed)?;
    exchange(&a, &b, BYTES)?;
    wait_for("the end of the first", SOON, || bed.conns().is_empty())?;
    Ok((a, b, was))
}

/// Neither got what was meant for the other.
fn keep_apart(bed: &Bed, pairs: &[(&TcpStream, &TcpStream)]) -> Result {
    for (a, b) in pairs {
        exchange(a, b, BYTES)?;
    }
    // Two sockets were restored, and nobody knows those.
    let totals = bed.totals()?;
    assert!(totals.count(Reason::PeerElsewhere) >= 2);
    assert!(totals.count(Reason::Collision) >= 1);
    Ok(())
}

/// Both are in their handshake at once; `first` is the side whose server learns of its end first.
fn twins_in_their_handshake(cgroup: &Cgroup, first: usize) -> Result {
    let bed = Bed::on(cgroup)?;
    let sides = [Side::new()?, Side::new()?];
    let real = sides[0].listen()?;
    let held = sides[0].hold()?;
    let a = sides[0].connect()?;
    let twin = only(&bed)?;
    let forged = sides[1].listen_as(twin)?;
    let mut held = [Some(held), Some(sides[1].hold()?)];
    let c = sides[1].connect_as(twin)?;
    let listeners = [real, forged];
    let mut served = Vec::new();
    for side in [first, 1 - first] {
        held[side].take().ok_or("held")?.end()?;
        served.push((side, accept(&listeners[side])?));
    }
    served.sort_by_key(|(side, _)| *side);
    let (b, d) = (&served[0].1, &served[1].1);
    keep_apart(&bed, &[(&a, b), (&c, d)])?;
    drop((a, c, served));
    bed.emptied()?;
    Ok(())
}

kernel_test! {
    fn twin_of_an_open_connection_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let sides = [Side::new()?, Side::new()?];
        let real = sides[0].listen()?;
        let a = sides[0].connect()?;
        let b = accept(&real)?;
        let twin = only(&bed)?;
        let (forged, c) = (sides[1].listen_as(twin)?, sides[1].connect_as(twin)?);
        let d = accept(&forged)?;
        keep_apart(&bed, &[(&a, &b), (&c, &d)])?;
        drop((a, b, c, d));
        let totals = bed.emptied()?;
        expect_connections(&totals, 1);
        expect_reasons(&totals, &[(Reason::PeerElsewhere, 2), (Reason::Collision, 1)]);
        assert_eq!((totals.closed_redirected_bytes, totals.closed_kernel_bytes), (2 * BYTES, 0));
        Ok(())
    }

    /// Its sockets may keep their places in the map until they are closed, though nobody uses them.
    fn twin_of_a_connection_that_is_over_leaves_no_record(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let sides = [Side::new()?, Side::new()?];
        let (a, b, twin) = over(&bed, &sides[0])?;
        let (forged, c) = (sides[1].listen_as(twin)?, sides[1].connect_as(twin)?);
        let d = accept(&forged)?;
        keep_apart(&bed, &[(&c, &d)])?;
        drop((a, b, c, d));
        assert_eq!(bed.emptied()?.paired, 1);
        Ok(())
    }

    /// The twin's server finds the other's client waiting for its server, or so it seems.
    fn twin_whose_client_is_elsewhere_takes_no_place(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let sides = [Side::new()?, Side::new()?];
        let real = sides[0].listen()?;
        let a = sides[0].connect()?;
        let b = accept(&real)?;
        let twin = only(&bed)?;
        let forged = sides[1].listen_as(twin)?;
        // A socket belongs to the cgroup that its maker was in.
        let elsewhere = Cgroup::create(TEST_CGROUP)?;
        elsewhere.enter()?;
        let c = sides[1].connect_as(twin);
        cgroup.enter()?;
        let (c, d) = (c?, accept(&forged)?);
        // Those of the first; the other end took nothing.
        assert_eq!(bed.ends()?.len(), 2);
        keep_apart(&bed, &[(&a, &b), (&c, &d)])?;
        drop((a, b, c, d));
        let totals = bed.emptied()?;
        expect_connections(&totals, 1);
        expect_reasons(&totals, &[(Reason::PeerElsewhere, 2), (Reason::Collision, 1)]);
        assert_eq!((totals.closed_redirected_bytes, totals.closed_kernel_bytes), (2 * BYTES, 0));
        Ok(())
    }

    /// The twin's server finds a client that waits, and an offer: those of the other.
    fn twin_whose_client_is_elsewhere_is_not_mispaired(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let sides = [Side::new()?, Side::new()?];
        let real = sides[0].listen()?;
        let held = sides[0].hold()?;
        let a = sides[0].connect()?;
        let twin = only(&bed)?;
        let forged = sides[1].listen_as(twin)?;
        let elsewhere = Cgroup::create(TEST_CGROUP)?;
        elsewhere.enter()?;
        let c = sides[1].connect_as(twin);
        cgroup.enter()?;
        let (c, d) = (c?, accept(&forged)?);
        held.end()?;
        let b = accept(&real)?;
        for (a, b) in [(&a, &b), (&c, &d)] {
            exchange(a, b, BYTES)?;
        }
        drop((a, b, c, d));
        let totals = bed.emptied()?;
        assert_eq!((totals.enrolled, totals.paired), (1, 0));
        assert_eq!(totals.closed_redirected_bytes, 0);
        Ok(())
    }

    /// Nor if of each only one end could be enrolled, and these two were a pair by their numbers.
    fn twins_from_before_are_left_alone(cgroup: &Cgroup) -> Result {
        let sides = [Side::new()?, Side::new()?];
        let real = sides[0].listen()?;
        let a = sides[0].connect()?;
        let b = accept(&real)?;
        let bed = Bed::on(cgroup)?;
        let earlier = Earlier::load(&bed)?;
        let id = fs::metadata(cgroup.path())?.ino();
        let find = || -> Result<Vec<_>> {
            let found = earlier.facts(&earlier.find()?)?;
            let own = found.into_iter().filter(|both| both.client.cgroup_id == id);
            Ok(own.collect())
        };
        let twin = find()?[0].client.end.own;
        bed.set_mode(Mode::Off)?;
        let (forged, c) = (sides[1].listen_as(twin)?, sides[1].connect_as(twin)?);
        let d = accept(&forged)?;
        assert!(find()?.is_empty());
        for sock in [&a, &d] {
            sock.set_nonblocking(false)?;
        }
        assert!(find()?.is_empty());
        for sock in [&c, &d] {
            sock.shutdown(Shutdown::Both)?;
        }
        drop((c, d));
        a.set_nonblocking(true)?;
        assert_eq!(find()?.len(), 1);
        exchange(&a, &b, BYTES)
            .map(drop)
    }

    /// Beeline was off when its SYN came.
    fn twin_without_an_offer_takes_no_record(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let sides = [Side::new()?, Side::new()?];
        let real = sides[0].listen()?;
        let a = sides[0].connect()?;
        let b = accept(&real)?;
        let twin = only(&bed)?;
        let forged = sides[1].listen_as(twin)?;
        let held = sides[1].hold()?;
        bed.set_mode(Mode::Off)?;
        let c = sides[1].connect_as(twin)?;
        bed.set_mode(Mode::On)?;
        held.end()?;
        let d = accept(&forged)?;
        assert_eq!(only(&bed)?, twin);
        for (a, b) in [(&a, &b), (&c, &d)] {
            exchange(a, b, BYTES)?;
        }
        Ok(())
    }

    /// The first waits to be adopted when the second has its handshake.
    fn twin_of_a_connection_that_waits_is_not_mispaired(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let sides = [Side::new()?, Side::new()?];
        let real = sides[0].listen()?;
        // Their listeners block, and no socket does that is accepted.
        real.set_nonblocking(false)?;
        let a = sides[0].connect()?;
        let b = accept(&real)?;
        let twin = bed.waiting()[0];
        let forged = sides[1].listen_as(twin)?;
        forged.set_nonblocking(false)?;
        let c = sides[1].connect_as(twin)?;
        let d = accept(&forged)?;
        // Another one in the namespaces of the twin is looked at with it.
        let (other, addr) = sides[1].web.listen((sides[1].web.ip(), 0))?;
        other.set_nonblocking(false)?;
        let e = sides[1].client.connect(addr)?;
        let f = accept(&other)?;
        // What it has not read keeps the first one from being adopted before the twin is looked at.
        write_all(&b, b"hello")?;
        wait_for("the data", SOON, || a.peek(&mut [0]).is_ok())?;
        adopter.look()?;
        read_all(&a, &mut [0; 5])?;
        // A look passes it by while a packet of it is on its way.
        wait_for("its adoption", SOON, || adopter.look().is_ok() && bed.enrolled().len() == 4)?;
        let first = (a, b);
        bed.exchange_redirected(&first, BYTES)?;
        for (a, b) in [(&c, &d), (&e, &f)] {
            exchange(a, b, BYTES)?;
        }
        drop((first, c, d, e, f));
        bed.emptied()?;
        Ok(())
    }

    fn twin_that_closes_does_not_end_the_wait_of_the_first(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let sides = [Side::new()?, Side::new()?];
        let real = sides[0].listen()?;
        real.set_nonblocking(false)?;
        let first = (sides[0].connect()?, accept(&real)?);
        let twin = bed.waiting()[0];
        let forged = sides[1].listen_as(twin)?;
        forged.set_nonblocking(false)?;
        let (c, d) = (sides[1].connect_as(twin)?, accept(&forged)?);
        exchange(&c, &d, BYTES)?;
        drop((c, d));
        let over = |ns| states(ns).iter().all(|state| ["06", "0A"].contains(&state.as_str()));
        wait_for("the twin's end", SOON, || over(&sides[1].client) && over(&sides[1].web))?;
        wait_for("the adoption of the first", SOON, || {
            adopter.look().is_ok() && bed.enrolled().len() == 2
        })?;
        bed.exchange_redirected(&first, BYTES)
    }

    /// The socket of the first that is still there has no use for its place, but keeps it until it is closed.
    fn twin_of_a_server_that_is_not_closed_leaves_no_record(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let sides = [Side::new()?, Side::new()?];
        let (a, b, twin) = over(&bed, &sides[0])?;
        drop(a);
        wait_for("the place of its client", SOON, || bed.enrolled().len() == 1)?;
        let (forged, c) = (sides[1].listen_as(twin)?, sides[1].connect_as(twin)?);
        let d = accept(&forged)?;
        assert!(bed.conns().is_empty(), "the client has no server");
        keep_apart(&bed, &[(&c, &d)])?;
        drop((b, c, d));
        assert_eq!(bed.emptied()?.paired, 1);
        Ok(())
    }

    fn twins_in_their_handshake_are_not_mispaired(cgroup: &Cgroup) -> Result {
        twins_in_their_handshake(cgroup, 0)
    }

    fn twins_in_their_handshake_are_not_mispaired_in_the_other_order(cgroup: &Cgroup) -> Result {
        twins_in_their_handshake(cgroup, 1)
    }
}
