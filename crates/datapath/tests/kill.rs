//! Ends that go without a word: killed, reset, refused. The other end notices as by plain TCP, and
//! no record stays.

mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::part::{Part, Player};
use common::{
    Bed, Connection, Dropping, PLAIN_ACKS, Result, SOON, disconnect, expect_connections, seed, talk,
};
use datapath::abi::{EndRecord, Mode, Reason};
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{accept, pair, read, read_all, write_all};
use testbed::{Cgroup, Node, kernel_test, wait_for};

/// How a stream ended: at its end or with an error.
type End = std::result::Result<(), ErrorKind>;

/// Reads what there is of the stream of `seed`, at most `most` bytes.
fn read_some(sock: &TcpStream, pattern: &mut Pattern, most: u64) -> Result<End> {
    let mut buf = vec![0; 30_000];
    while pattern.offset() < most {
        match read(sock, &mut buf) {
            Ok(0) => return Ok(Ok(())),
            Ok(n) => assert_eq!(pattern.differs(&buf[..n]), None),
            Err(error) => return Ok(Err(error.kind())),
        }
    }
    Ok(Ok(()))
}

/// What a case does with or without Beeline: `None` is plain TCP.
fn both_ways<T: PartialEq + std::fmt::Debug>(
    cgroup: &Cgroup,
    connections: u64,
    case: impl Fn(Option<&Bed>) -> Result<T>,
) -> Result {
    let plain = case(None)?;
    let bed = Bed::on(cgroup)?;
    let ours = case(Some(&bed))?;
    assert_eq!(ours, plain, "with Beeline, and by plain TCP");
    expect_connections(&bed.emptied()?, connections);
    Ok(())
}

fn write_for_ever(sock: &TcpStream) -> io::Error {
    loop {
        if let Err(error) = write_all(sock, &[1; 50_000]) {
            return error;
        }
    }
}

/// An error of the connection; not that a test waits no longer.
fn expect_broken(error: &io::Error) {
    let errno = error.raw_os_error();
    let broken = [libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT];
    assert!(
        errno.is_some_and(|errno| broken.contains(&errno)),
        "{error}"
    );
}

/// A client without room, when its end has become plain TCP or its server's has, and the other one has not.
fn filled_up_when_one_has_left(bed: &Bed, of_client: bool) -> Result<Connection> {
    let mut both = Connection::new()?;
    let own = if of_client { &both.a } else { &both.b };
    common::set_option(own, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)?;
    common::fill_up(&mut both.a, &mut Pattern::new(seed()))?;
    let ends = bed.ends()?;
    let has_left = |end: &EndRecord| end.has_psock == 0;
    assert!(
        ends.iter()
            .all(|end| has_left(end) == (end.end.is_client() == of_client)),
        "{ends:?}"
    );
    Ok(both)
}

kernel_test! {
    fn killed_sender_leaves_a_prefix_and_an_end(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (listener, addr) = web.listen((web.ip(), 0))?;
            let seed = seed();
            let sender = Player::start(&client, None, Part::Flood(addr, seed))?;
            let sock = accept(&listener)?;
            let mut pattern = Pattern::new(seed);
            read_some(&sock, &mut pattern, 5 << 20)?.expect("still open");
            drop(sender);
            let end = read_some(&sock, &mut pattern, u64::MAX)?;
            assert!(pattern.offset() > 5 << 20);
            Ok(end)
        })
    }

    /// A blocking writer whose reader dies: it must not sleep on, nor succeed.
    fn killed_reader_fails_the_writer(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (listener, addr) = web.listen((web.ip(), 0))?;
            let mut reader = Player::start(&client, None, Part::Idle(addr))?;
            reader.told("connected")?;
            let sock = accept(&listener)?;
            let progress = sock.try_clone()?;
            let writer = thread::spawn(move || write_for_ever(&sock));
            // Long enough to be blocked or about to: the send buffer is not empty any more.
            wait_for("a full kernel path", SOON, || common::unsent(&progress) > 0)?;
            drop(reader);
            expect_broken(&writer.join().expect("the writer panicked"));
            Ok(())
        })
    }

    /// What it waits for is a window that nobody will open.
    fn sender_without_room_fails_when_its_reader_is_closed(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (mut a, b) = pair(&client, &web, web.ip())?;
            common::fill_up(&mut a, &mut Pattern::new(seed()))?;
            // It may be long until it asks the next time, and is answered.
            let _unanswered = Dropping::arriving(&client, PLAIN_ACKS)?;
            drop(b);
            expect_broken(&write_for_ever(&a));
            Ok(())
        })
    }

    /// What it sends is put into the psock queue of a reader that has not left.
    fn sender_that_is_plain_tcp_fails_when_its_reader_is_closed(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let both = filled_up_when_one_has_left(&bed, true)?;
        let _unanswered = Dropping::arriving(&both.client, PLAIN_ACKS)?;
        drop(both.b);
        expect_broken(&write_for_ever(&both.a));
        Ok(())
    }

    fn sender_without_room_that_is_closed_is_over_when_its_reader_is_closed(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (mut a, b) = pair(&client, &web, web.ip())?;
        common::fill_up(&mut a, &mut Pattern::new(seed()))?;
        drop(a);
        drop(b);
        bed.emptied()?;
        Ok(())
    }

    /// Nothing tells of the close: the sender finds out when it asks for room the next time.
    fn sender_without_room_fails_when_its_reader_shut_down_before_it_is_closed(cgroup: &Cgroup) -> Result {
        for how in [Shutdown::Write, Shutdown::Both] {
            both_ways(cgroup, 1, |_| {
                let node = Node::new()?;
                let (web, client) = (node.pod("web")?, node.pod("client")?);
                let (mut a, b) = pair(&client, &web, web.ip())?;
                common::fill_up(&mut a, &mut Pattern::new(seed()))?;
                b.shutdown(how)?;
                wait_for("the end of the stream", SOON, || common::poll(&a, libc::POLLRDHUP, Duration::ZERO) != 0)?;
                drop(b);
                expect_broken(&write_for_ever(&a));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn sender_does_not_give_up_on_a_reader_that_has_only_shut_down(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (mut a, b) = pair(&client, &web, web.ip())?;
            common::fill_up(&mut a, &mut Pattern::new(seed()))?;
            b.shutdown(Shutdown::Both)?;
            // Longer than who has given up waits; bpf/lib/dead_reader.h.
            thread::sleep(Duration::from_millis(1500));
            assert_eq!(a.take_error()?.map(|error| error.kind()), None);
            drop(b);
            expect_broken(&write_for_ever(&a));
            Ok(())
        })
    }

    /// What waits there is in TCP's queue.
    fn sender_does_not_give_up_on_a_reader_that_left_and_has_shut_down(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let both = filled_up_when_one_has_left(&bed, false)?;
        both.b.shutdown(Shutdown::Both)?;
        wait_for("the end of the stream", SOON, || common::poll(&both.a, libc::POLLRDHUP, Duration::ZERO) != 0)?;
        assert_eq!(SockRef::from(&both.a).tcp_user_timeout()?, None);
        Ok(())
    }

    fn sender_with_room_does_not_give_up(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (a, b) = pair(&client, &web, web.ip())?;
            talk(&a, &b)?;
            drop(b);
            assert_eq!(read(&a, &mut [0])?, 0);
            assert_eq!(SockRef::from(&a).tcp_user_timeout()?, None);
            Ok(())
        })
    }

    fn killed_process_with_many_connections_leaves_no_record(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        // Room for all: what is on the kernel path when the reader closes keeps its sender for a minute.
        web.sysctl("net.ipv4.tcp_rmem", "4096 131072 1073741824")?;
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let players = (0..10)
            .map(|n| Player::start(&client, None, Part::Flood(addr, n)))
            .collect::<Result<Vec<_>>>()?;
        let socks = (0..10).map(|_| accept(&listener)).collect::<Result<Vec<_>, _>>()?;
        for sock in &socks {
            let mut some = [0; 100_000];
            read_all(sock, &mut some)?;
        }
        drop(players);
        // These still hold data that nobody has read.
        drop(socks);
        expect_connections(&bed.emptied()?, 10);
        Ok(())
    }

    /// A blocking read of an enrolled socket would return EAGAIN whenever it is woken without data,
    /// also when an error is there to be told (`tcp_bpf_recvmsg`, net/ipv4/tcp_bpf.c, 6.18).
    fn reset_wakes_a_sleeping_reader(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 0, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let listener = web.run(|| TcpListener::bind((web.ip(), 0)))??;
            let addr = listener.local_addr()?;
            let a = client.run(|| TcpStream::connect(addr))??;
            let mut b = listener.accept()?.0;
            write_all(&a, b"hello")?;
            b.read_exact(&mut [0; 5])?;
            let reader = web.spawn(move || b.read(&mut [0; 5]).map_err(|error| error.kind()))?;
            wait_for("a sleeping reader", SOON, || common::sleeping_readers() == 1)?;
            SockRef::from(&a).set_linger(Some(Duration::ZERO))?;
            drop(a);
            Ok(reader.join()?)
        })
    }

    fn end_of_stream_wakes_a_sleeping_reader(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (a, mut b) = pair(&client, &web, web.ip())?;
            write_all(&a, b"hello")?;
            read_all(&b, &mut [0; 5])?;
            b.set_nonblocking(false)?;
            b.set_read_timeout(None)?;
            let reader = web.spawn(move || b.read(&mut [0; 5]).map_err(|error| error.kind()))?;
            wait_for("a sleeping reader", SOON, || common::sleeping_readers() == 1)?;
            drop(a);
            Ok(reader.join()?)
        })
    }

    fn reset_with_unread_data_gives_a_prefix_and_then_the_error(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (a, b) = pair(&client, &web, web.ip())?;
            let seed = seed();
            let mut data = vec![0; 40_000];
            Pattern::new(seed).fill(&mut data);
            write_all(&a, &data)?;
            wait_for("the data", SOON, || b.peek(&mut [0; 1]).is_ok())?;
            SockRef::from(&a).set_linger(Some(Duration::ZERO))?;
            drop(a);
            wait_for("the reset", SOON, || b.peer_addr().is_err())?;
            let mut pattern = Pattern::new(seed);
            let end = read_some(&b, &mut pattern, u64::MAX)?;
            let after = read_some(&b, &mut pattern, u64::MAX)?;
            let write = (&b).write(b"x").map_err(|error| error.kind());
            // By plain TCP the reset overtakes what was not sent yet, so less may arrive.
            assert!(pattern.offset() > 0);
            Ok((end, after, write))
        })
    }

    /// Both directions were redirected before; the closed end must not be looked for any more.
    fn writes_to_a_redirected_peer_that_closed_fail(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |bed| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (a, b) = pair(&client, &web, web.ip())?;
            write_all(&a, b"ping")?;
            read_all(&b, &mut [0; 4])?;
            write_all(&b, b"pong")?;
            read_all(&a, &mut [0; 4])?;
            drop(a);
            let mut results = Vec::new();
            results.push((&b).read(&mut [0; 1]).map_err(|error| error.kind()));
            // Out of the map, which happens before the end of stream can be read.
            results.push((&b).write(b"x").map_err(|error| error.kind()));
            wait_for("the reset", SOON, || b.peer_addr().is_err())?;
            results.push((&b).write(b"x").map_err(|error| error.kind()));
            if let Some(bed) = bed {
                // What a closed socket looks like is there as long as its memory is.
                let totals = bed.totals()?;
                let seen = totals.count(Reason::PeerGone) + totals.count(Reason::ShutDown);
                assert_eq!(seen, 1, "{totals:?}");
            }
            Ok(results)
        })
    }

    /// A socket may be disconnected and connected again; nothing of its first life may be left.
    fn socket_that_connects_again_reads_nothing_old(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 2, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (listener, addr) = web.listen((web.ip(), 0))?;
            let a = client.connect(addr)?;
            let first = accept(&listener)?;
            write_all(&first, b"old")?;
            wait_for("the data", SOON, || a.peek(&mut [0; 1]).is_ok())?;
            disconnect(&a)?;
            // In progress: it does not block.
            let _ = SockRef::from(&a).connect(&addr.into());
            let second = accept(&listener)?;
            write_all(&second, b"new")?;
            let mut got = [0; 3];
            read_all(&a, &mut got)?;
            Ok(got)
        })
    }

    /// As what it was, though it has another connection, whose end is not that of the first.
    fn socket_that_connects_again_is_not_listed(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let a = client.connect(addr)?;
        let first = accept(&listener)?;
        disconnect(&a)?;
        drop(first);
        bed.emptied()?;
        bed.set_mode(Mode::Off)?;
        let _ = SockRef::from(&a).connect(&addr.into());
        let _second = accept(&listener)?;
        wait_for("the end of the record", SOON, || bed.ends().is_ok_and(|ends| ends.is_empty()))?;
        disconnect(&a)?;
        let totals = bed.totals()?;
        assert_eq!((totals.enrolled, totals.closed), (2, 2));
        Ok(())
    }

    /// The peer does not know yet.
    fn nothing_is_redirected_to_a_disconnected_socket(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        let before = bed.redirected()?;
        let _lost = Dropping::arriving(&client, "tcp flags rst")?;
        disconnect(&b)?;
        write_all(&a, b"hello")?;
        assert_eq!((bed.redirected()?, bed.totals()?.count(Reason::PeerGone)), (before, 1));
        Ok(())
    }

    fn writes_after_the_peer_closed_fail(cgroup: &Cgroup) -> Result {
        both_ways(cgroup, 1, |_| {
            let node = Node::new()?;
            let (web, client) = (node.pod("web")?, node.pod("client")?);
            let (a, b) = pair(&client, &web, web.ip())?;
            drop(a);
            let mut results = Vec::new();
            results.push((&b).read(&mut [0; 1]).map_err(|error| error.kind()));
            // The first one is taken, and answered with a reset.
            results.push((&b).write(b"x").map_err(|error| error.kind()));
            wait_for("the reset", SOON, || b.peer_addr().is_err())?;
            results.push((&b).write(b"x").map_err(|error| error.kind()));
            Ok(results)
        })
    }
}
