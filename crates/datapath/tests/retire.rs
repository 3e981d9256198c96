//! Invariant 1: connections go back to plain TCP while their traffic goes on, one or all of them,
//! and the others stay as they are.

mod common;

use std::fs;
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::late_page::{LatePage, PAGE, send_until_asleep};
use common::{
    Bed, Dropping, GRACE, Result, SOON, exchange, fill, fill_up, one_way, poll, seed, set_option,
    talk,
};
use datapath::abi::{EndRecord, Handshake, Reason};
use datapath::drain::{self, HeldBy, Outcome};
use datapath::socket::Options;
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, SocketOptions, stream};
use testbed::{Cgroup, Node, Pod, kernel_test, wait_for};

/// Bytes that one round of [`Busy`] moves each way.
const ROUND: u64 = 200_000;

fn soon() -> Instant {
    Instant::now() + SOON
}

/// Two pods that have connections.
struct Pods {
    // The links go with the pods.
    _pods: (Node, Pod, Pod),
    pairs: Vec<(TcpStream, TcpStream)>,
}

impl Pods {
    /// Of one port of the client's, which connect(2) may choose for several servers.
    fn connect(count: usize) -> Result<Self> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let from = SocketOptions::new()
            .reuse_address()
            .bind((client.ip(), 4000));
        let mut pairs = Vec::new();
        for _ in 0..count {
            let (listener, addr) = web.listen((web.ip(), 0))?;
            let a = client.run(|| from.connect(addr))??;
            pairs.push((a, traffic::accept(&listener)?));
        }
        Ok(Self {
            _pods: (node, web, client),
            pairs,
        })
    }
}

/// Streams with hashes both ways on every connection, until told to stop.
fn busily<T>(pairs: &[(TcpStream, TcpStream)], body: impl FnOnce() -> Result<T>) -> Result<T> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let streams: Vec<_> = pairs
            .iter()
            .map(|(a, b)| {
                let stop = &stop;
                scope.spawn(move || -> Result {
                    let (there, back) = (seed(), seed());
                    let run = |from, to, seed| endless(from, to, seed, stop);
                    thread::scope(|scope| {
                        let there = scope.spawn(move || run(a, b, there));
                        run(b, a, back)?;
                        there.join().expect("a stream panicked")
                    })
                })
            })
            .collect();
        let done = body();
        stop.store(true, Ordering::Relaxed);
        for stream in streams {
            stream.join().expect("a connection panicked")?;
        }
        done
    })
}

/// One direction: pieces of random sizes, each read before the next but one is sent.
fn endless(from: &TcpStream, to: &TcpStream, seed: u64, stop: &AtomicBool) -> Result {
    let (mut pattern, mut check) = (Pattern::new(seed), Pattern::new(seed));
    let mut buf = vec![0; 60_000];
    for round in 1usize.. {
        let piece = &mut buf[..1 + round * 7919 % 60_000];
        pattern.fill(piece);
        traffic::write_all(from, piece)?;
        let mut got = vec![0; piece.len()];
        traffic::read_all(to, &mut got)?;
        assert_eq!(check.differs(&got), None, "the first wrong byte");
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

fn key_of(bed: &Bed, sock: &TcpStream) -> Result<Handshake> {
    Ok(bed.ends_of(sock)?.first().ok_or("not enrolled")?.end.own)
}

/// Both sockets are plain TCP and know why. A thread that is inside a call of one keeps its psock
/// until it comes out.
fn expect_plain(bed: &Bed, sock: &TcpStream) -> Result {
    let are_plain = || {
        bed.ends_of(sock)
            .is_ok_and(|ends| ends.len() == 2 && ends.iter().all(|end| end.has_psock == 0))
    };
    wait_for("plain TCP", SOON, are_plain)
        .map_err(|error| format!("{error}: {:?}", bed.ends_of(sock)))?;
    for end in bed.ends_of(sock)? {
        assert_eq!(u32::from(end.end.retiring), Reason::Retired as u32);
    }
    Ok(())
}

/// Retires the connection until this end of it, which nothing waits for, is plain TCP. The other has not read.
fn retire_sender(bed: &Bed, sock: &TcpStream) -> Result {
    let (key, port) = (key_of(bed, sock)?, sock.local_addr()?.port());
    let is_plain = |end: &EndRecord| end.endpoints.local_port == port && end.has_psock == 0;
    let mut patience = Duration::from_millis(50);
    let left = || {
        patience *= 2;
        let outcome = drain::retire(
            bed,
            &[key],
            Reason::Retired,
            Instant::now() + patience,
            |_| {},
        );
        assert!(matches!(outcome, Ok(Outcome::Held(_))), "{outcome:?}");
        bed.ends_of(sock)
            .is_ok_and(|ends| ends.iter().any(is_plain))
    };
    Ok(wait_for("a sender that is plain TCP", SOON, left)?)
}

/// From now on, reads sleep for as long as it takes.
fn block(sock: &TcpStream) -> Result {
    sock.set_nonblocking(false)?;
    Ok(sock.set_read_timeout(None)?)
}

/// A thread that reads five bytes.
fn reader(sock: &TcpStream) -> Result<JoinHandle<Result<[u8; 5]>>> {
    let mut sock = sock.try_clone()?;
    Ok(thread::spawn(move || {
        let mut got = [0; 5];
        sock.read_exact(&mut got)?;
        Ok(got)
    }))
}

/// Waits until a thread of this process sleeps in this function, for the lock of a socket.
fn wait_for_who_waits(function: &str) -> Result {
    let waits = |task: fs::DirEntry| {
        let of = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let stack = of("stack");
        // In this order: one that is about to sleep there may be in no queue yet.
        stack.contains("lock_sock") && stack.contains(function) && !of("stat").contains(") R ")
    };
    Ok(wait_for(&format!("{function} to wait"), SOON, || {
        fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.flatten().any(waits))
    })?)
}

fn released(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Done { released } => released,
        Outcome::Held(held) => panic!("held: {held:?}"),
    }
}

kernel_test! {
    fn one_of_many_under_load_leaves_the_others_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pods = Pods::connect(3)?;
        let one = &pods.pairs[1].0;
        let others = [&pods.pairs[0].0, &pods.pairs[2].0];
        busily(&pods.pairs, || {
            let moves = |sock: &TcpStream, from: u64| wait_for("redirected data", SOON, || {
                bed.redirected_of(sock).is_ok_and(|now| now > from + ROUND)
            });
            moves(one, 0)?;
            let key = key_of(&bed, one)?;
            assert_eq!(released(drain::retire(&bed, &[key], Reason::Retired, soon(), |_| {})?), 2);
            expect_plain(&bed, one)?;
            let then = bed.redirected_of(one)?;
            for other in others {
                moves(other, bed.redirected_of(other)?)?;
            }
            assert_eq!(bed.redirected_of(one)?, then, "redirected after it was retired");
            Ok(())
        })?;
        assert_eq!(bed.enrolled().len(), 4);
        assert_eq!(bed.totals()?.count(Reason::PeerGone), 0, "retired, says each direction that is told");
        // Over plain TCP, and to the end of the stream.
        exchange(one, &pods.pairs[1].1, ROUND)?;
        Ok(())
    }

    fn all_under_load_and_again_and_again(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        for _ in 0..5 {
            let pods = Pods::connect(4)?;
            busily(&pods.pairs, || {
                for (sock, _) in &pods.pairs {
                    wait_for("redirected data", SOON, || bed.redirected_of(sock).is_ok_and(|n| n > ROUND))?;
                }
                let all = bed.conns();
                assert_eq!(released(drain::retire(&bed, &all, Reason::Retired, soon(), |_| {})?), 8);
                for (sock, _) in &pods.pairs {
                    expect_plain(&bed, sock)?;
                }
                assert_eq!(released(drain::retire(&bed, &all, Reason::Retired, soon(), |_| {})?), 0);
                Ok(())
            })?;
            for (a, b) in &pods.pairs {
                exchange(a, b, ROUND)?;
            }
            // New connections are enrolled and redirected as before.
            let new = Pods::connect(1)?;
            exchange(&new.pairs[0].0, &new.pairs[0].1, ROUND)?;
            drop((new, pods));
            bed.emptied()?;
        }
        let totals = bed.totals()?;
        assert_eq!((totals.paired, totals.count(Reason::PeerGone)), (25, 0));
        Ok(())
    }

    fn what_was_redirected_is_read_first(cgroup: &Cgroup) -> Result {
        const FIRST: u64 = 300_000;
        const SECOND: u64 = 20_000;
        let bed = Bed::on(cgroup)?;
        let pods = Pods::connect(1)?;
        let (a, b) = &pods.pairs[0];
        let seed = seed();
        let mut pattern = Pattern::new(seed);
        stream::send_from(a, &mut pattern, FIRST, 7_000)?;
        // The sender's own socket is held as well: only its mark keeps it from redirecting more.
        let back = common::seed();
        stream::send(b, back, FIRST, 7_000)?;
        let key = key_of(&bed, a)?;
        let early = Instant::now() + Duration::from_millis(100);
        let Outcome::Held(held) = drain::retire(&bed, &[key], Reason::Retired, early, |_| {})? else {
            panic!("released with unread data");
        };
        assert!(held.iter().any(|held| held.by == HeldBy::Unread && u64::from(held.end.unread) == FIRST));
        // Behind it, over the kernel path.
        stream::send_from(a, &mut pattern, SECOND, 7_000)?;
        assert_eq!(bed.redirected_of(a)?, 2 * FIRST);
        thread::scope(|scope| -> Result {
            let retired = scope.spawn(|| drain::retire(&bed, &[key], Reason::Retired, soon(), |_| {}));
            stream::finish(a)?;
            let mut got = vec![0; usize::try_from(FIRST)?];
            traffic::read_all(a, &mut got)?;
            assert_eq!(Pattern::new(back).differs(&got), None, "the first wrong byte");
            assert_eq!(stream::receive(b, 1_000)?, stream::expected(seed, FIRST + SECOND));
            released(retired.join().expect("it panicked")?);
            Ok(())
        })?;
        expect_plain(&bed, a)?;
        one_way(b, a, common::seed(), ROUND, 5_000)
    }

    /// Who sleeps in a read of the psock would not see what comes to plain TCP.
    fn a_socket_whose_reader_sleeps_is_released_when_that_ends(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pods = Pods::connect(1)?;
        let (a, b) = &pods.pairs[0];
        // Both ends are redirected after that.
        talk(a, b)?;
        let key = key_of(&bed, a)?;
        block(b)?;
        let reader = reader(b)?;
        wait_for("a sleeping reader", SOON, || common::sleeping_readers() == 1)?;
        // Before that, threads of other tests may hold it, which send; the longer it is waited for, the fewer.
        let mut patience = Duration::from_millis(500);
        let held_by_reader = || {
            patience *= 2;
            match drain::retire(&bed, &[key], Reason::Retired, Instant::now() + patience, |_| {}) {
                Ok(Outcome::Held(held)) => held.iter().any(|held| held.by == HeldBy::Reader),
                other => panic!("released under a reader: {other:?}"),
            }
        };
        wait_for("every thread at rest", SOON, held_by_reader)?;
        traffic::write_all(a, b"hello")?;
        assert_eq!(&reader.join().expect("it panicked")?, b"hello");
        drain::retire(&bed, &[key], Reason::Retired, soon(), |_| {})?;
        expect_plain(&bed, a)
    }

    /// Nor does it leave by itself, with a packet of a call that is neither a read nor a write.
    fn a_socket_whose_reader_sleeps_does_not_leave(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let pods = Pods::connect(1)?;
        let (a, b) = &pods.pairs[0];
        // Sooner, it might have been accepted and not be through with fcntl.
        thread::sleep(GRACE);
        block(b)?;
        let reader = reader(b)?;
        wait_for("a sleeping reader", SOON, || common::sleeping_readers() == 1)?;
        set_option(b, libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
        traffic::write_all(b, b"later")?;
        set_option(b, libc::IPPROTO_TCP, libc::TCP_CORK, 0)?;
        traffic::read_all(a, &mut [0; 5])?;
        traffic::write_all(a, b"hello")?;
        assert_eq!(&reader.join().expect("it panicked")?, b"hello");
        Ok(())
    }

    /// Who waits for the lock to read is about to sleep, and is behind the release in line here.
    fn a_socket_that_a_reader_waits_for_is_not_released(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pods = Pods::connect(1)?;
        let (a, b) = &pods.pairs[0];
        let key = key_of(&bed, a)?;
        block(b)?;
        let mut page = LatePage::new();
        let locks = send_until_asleep(b.try_clone()?, page.bytes(), "userfault");
        thread::scope(|scope| -> Result {
            let retired = scope.spawn(|| drain::retire(&bed, &[key], Reason::Retired, soon(), |_| {}));
            wait_for_who_waits("bpf_iter_tcp")?;
            let reader = reader(b)?;
            wait_for_who_waits("tcp_bpf_recvmsg")?;
            page.come();
            locks.join().expect("it panicked");
            traffic::read_all(a, &mut [0; PAGE])?;
            wait_for("a sleeping reader", SOON, || reader.is_finished() || common::sleeping_readers() == 1)?;
            traffic::write_all(a, b"hello")?;
            assert_eq!(&reader.join().expect("it panicked")?, b"hello");
            released(retired.join().expect("it panicked")?);
            Ok(())
        })?;
        expect_plain(&bed, a)
    }

    /// What it sends may be on its way, or wait at a reader that has shut down and may go on reading.
    fn a_sender_that_left_does_not_give_up(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let mut pods = Pods::connect(2)?;
        for (a, b) in &pods.pairs {
            talk(a, b)?;
            let key = key_of(&bed, a)?;
            released(drain::retire(&bed, &[key], Reason::Retired, soon(), |_| {})?);
        }
        let ended = |a: &TcpStream| {
            wait_for("the end of the stream", SOON, || poll(a, libc::POLLRDHUP, Duration::ZERO) != 0)
        };
        let (mut a, b) = pods.pairs.remove(0);
        fill_up(&mut a, &mut Pattern::new(seed()))?;
        b.shutdown(Shutdown::Both)?;
        ended(&a)?;
        assert_eq!(SockRef::from(&a).tcp_user_timeout()?, None);
        let (mut a, b) = pods.pairs.remove(0);
        let lost = Dropping::arriving(&pods._pods.1, "meta l4proto tcp")?;
        fill(&mut a, &mut Pattern::new(seed()), 65_536)?;
        b.shutdown(Shutdown::Write)?;
        ended(&a)?;
        assert_eq!(SockRef::from(&a).tcp_user_timeout()?, None);
        lost.end()?;
        Ok(())
    }

    /// A direction that TCP's back-pressure holds is given back with the options that it had.
    fn a_sender_without_room_gets_its_options_back(cgroup: &Cgroup) -> Result {
        gets_its_options_back(
            cgroup,
            |a, pattern| {
                let filled = fill(a, pattern, 20_000)?;
                wait_for("back-pressure", SOON, || not_sent_low_water(a) == 1)?;
                Ok(filled)
            },
            |b, got| Ok(traffic::read_all(b, got)?),
        )
    }

    /// Likewise when it has much to send.
    fn a_sender_that_sent_much_gets_its_options_back(cgroup: &Cgroup) -> Result {
        gets_its_options_back(cgroup, fill_up, |b, got| {
            // So slowly that the first acknowledgement which the sender gets, out of the maps already, is not of all
            // that it has to send.
            for piece in got.chunks_mut(2000) {
                traffic::read_all(b, piece)?;
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        })
    }
}

/// A sender that is out of the maps before its reader reads what `fill` left there.
fn gets_its_options_back(
    cgroup: &Cgroup,
    fill: impl Fn(&mut TcpStream, &mut Pattern) -> Result<u64>,
    read: impl Fn(&TcpStream, &mut [u8]) -> Result,
) -> Result {
    let options = Options {
        queue_limit: 100_000,
        ..Options::default()
    };
    let bed = Bed::with(cgroup, options)?;
    let mut pods = Pods::connect(1)?;
    let (mut a, b) = pods.pairs.remove(0);
    let seed = seed();
    let filled = fill(&mut a, &mut Pattern::new(seed))?;
    assert_eq!(not_sent_low_water(&a), 1);
    let key = key_of(&bed, &a)?;
    retire_sender(&bed, &a)?;
    let mut got = vec![0; usize::try_from(filled)?];
    read(&b, &mut got)?;
    assert_eq!(
        Pattern::new(seed).differs(&got),
        None,
        "the first wrong byte"
    );
    released(drain::retire(
        &bed,
        &[key],
        Reason::Retired,
        soon(),
        |_| {},
    )?);
    expect_plain(&bed, &a)?;
    // Now: nobody would give it back after a detach.
    assert_eq!(not_sent_low_water(&a), 0);
    exchange(&a, &b, ROUND)?;
    assert_eq!(not_sent_low_water(&a), 0);
    Ok(())
}

/// The option that back-pressure changes.
fn not_sent_low_water(sock: &TcpStream) -> u32 {
    SockRef::from(sock)
        .tcp_notsent_lowat()
        .expect("Linux has it")
}
