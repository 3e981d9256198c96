//! Segments that begin with what came before, as when a sender sends two of its own again as one: nobody reads that
//! twice. Here all takes the kernel path, at sockets that are enrolled.

mod common;

use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::segment::Forger;
use common::stage::{Stage, unblock};
use common::{
    Bed, Dropping, LARGE, PLAIN_ACKS, Result, SOON, read_exactly, seed, set_option, tcp_info,
    unread, unsent,
};
use datapath::abi::{Mode, Reason};
use datapath::adopt::Adopter;
use datapath::drain;
use libbpf_rs::{MapCore, MapFlags};
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, pair, stream};
use testbed::{Cgroup, NetNs, Node, kernel_test, wait_for};

/// Of IPv4, and of TCP with time stamps.
const HEADERS: usize = 20 + 32;

/// Of enum in include/net/tcp_states.h.
const FIN_WAIT2: u8 = 5;

/// Segments to one end of a connection that get lost, in nft's words.
fn to(end: &TcpStream, which: &str) -> Result<String> {
    Ok(format!("tcp dport {} {which}", end.local_addr()?.port()))
}

/// The first piece arrives, but not its acknowledgement; the second gets lost. TCP sends both again as one.
fn sent_again_as_one(
    ns: [&NetNs; 2],
    (a, b): &(TcpStream, TcpStream),
    sizes: [usize; 2],
) -> Result {
    set_option(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    let second = format!("meta length {}", sizes[1] + HEADERS);
    let _lost = [
        Dropping::arriving(ns[0], &to(a, "")?)?,
        Dropping::arriving(ns[1], &to(b, &second)?)?,
    ];
    let seed = seed();
    let mut pattern = Pattern::new(seed);
    for size in sizes {
        stream::send_from(a, &mut pattern, size as u64, size)?;
    }
    read_exactly(b, &mut Pattern::new(seed), pattern.offset())
}

/// A piece arrives, but not its acknowledgement; the end of the stream gets lost. TCP sends both again as one.
fn sent_again_with_its_end(stage: &Stage, (a, b): &(TcpStream, TcpStream)) -> Result {
    const LEN: u64 = 1000;
    let alone = format!("meta length {HEADERS}");
    let lost = [
        Dropping::arriving(&stage.client, &to(a, "")?)?,
        Dropping::arriving(&stage.web, &to(b, &alone)?)?,
    ];
    let seed = seed();
    stream::send(a, seed, LEN, LEN as usize)?;
    a.shutdown(Shutdown::Write)?;
    read_exactly(b, &mut Pattern::new(seed), LEN)?;
    assert_eq!(traffic::read(b, &mut [0; 1])?, 0);
    lost.into_iter().try_for_each(Dropping::end)
}

/// The stream of `sock` has, and its peer has said that it knows.
fn has_ended(sock: &TcpStream, peer: &TcpStream) -> Result {
    assert_eq!(traffic::read(peer, &mut [0; 1])?, 0);
    let known = || tcp_info(sock).tcpi_state == FIN_WAIT2;
    Ok(wait_for("the acknowledgement", SOON, known)?)
}

/// A connection between two pods that does not redirect any more.
fn kernel_path(cgroup: &Cgroup) -> Result<(Bed, Stage, (TcpStream, TcpStream))> {
    let (bed, stage) = (Bed::on(cgroup)?, Stage::new()?);
    let both = stage.pair()?;
    bed.set_mode(Mode::Detaching)?;
    Ok((bed, stage, both))
}

kernel_test! {
    fn two_segments_that_come_again_as_one(cgroup: &Cgroup) -> Result {
        let (_bed, stage, both) = kernel_path(cgroup)?;
        sent_again_as_one([&stage.client, &stage.web], &both, [1000, 400])
    }

    /// More than is cut off at once, MAX_CUT in bpf/lib/overlap.h.
    fn two_large_segments_that_come_again_as_one(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pod = Node::new()?.pod("pod")?;
        let both = pair(&pod, &pod, Ipv4Addr::LOCALHOST)?;
        bed.set_mode(Mode::Detaching)?;
        sent_again_as_one([&pod, &pod], &both, [14_000, 13_000])
    }

    fn end_of_the_stream_that_comes_with_all_of_it(cgroup: &Cgroup) -> Result {
        let (bed, stage, both) = kernel_path(cgroup)?;
        sent_again_with_its_end(&stage, &both)?;
        drop(both);
        bed.emptied()?;
        Ok(())
    }

    /// The socket is closed before its last segment is in the queue.
    fn end_of_both_streams_that_comes_with_all_of_one(cgroup: &Cgroup) -> Result {
        let (bed, stage, both) = kernel_path(cgroup)?;
        both.1.shutdown(Shutdown::Write)?;
        has_ended(&both.1, &both.0)?;
        sent_again_with_its_end(&stage, &both)?;
        drop(both);
        bed.emptied()?;
        Ok(())
    }

    fn segments_out_of_order_that_overlap(cgroup: &Cgroup) -> Result {
        let (bed, stage, (a, b)) = kernel_path(cgroup)?;
        let ends = bed.ends()?;
        let own = ends.iter().find(|end| end.end.is_client()).ok_or("no client")?.end.own;
        let _unheard = Dropping::arriving(&stage.client, &to(&a, "")?)?;
        let forger = Forger::of(&stage.client, &a)?;
        let seed = seed();
        let mut all = [0; 900];
        Pattern::new(seed).fill(&mut all);
        // The last one holds what nobody has seen but the byte before it.
        for part in [200..400, 300..500, 450..700, 0..250, 699..900] {
            let seq = own.snd_nxt.wrapping_add(u32::try_from(part.start)?);
            forger.send(seq, own.rcv_nxt, &all[part])?;
        }
        wait_for("all of it", SOON, || unread(&b) >= all.len())?;
        assert_eq!(unread(&b), all.len());
        read_exactly(&b, &mut Pattern::new(seed), all.len() as u64)
    }

    /// What came before it was enrolled counts, too.
    fn first_segment_after_the_adoption(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let both = stage.blocking_pair()?;
        let (a, b) = &both;
        set_option(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        let _unheard = Dropping::arriving(&stage.client, &to(a, "")?)?;
        traffic::write_all(a, b"old")?;
        let mut got = [0; 3];
        traffic::read_all(b, &mut got)?;
        let lost = Dropping::arriving(&stage.web, PLAIN_ACKS)?;
        traffic::write_all(a, b"new")?;
        unblock(&both)?;
        adopter.look()?;
        assert_eq!((bed.enrolled().len(), bed.expected()), (2, 2));
        lost.end()?;
        traffic::read_all(b, &mut got)?;
        assert_eq!(&got, b"new");
        Ok(())
    }

    /// Whatever TCP does about segments that get lost.
    fn stream_of_which_segments_get_lost(cgroup: &Cgroup) -> Result {
        let (_bed, stage, (a, b)) = kernel_path(cgroup)?;
        let _lost = [
            Dropping::arriving(&stage.client, &to(&a, "numgen random mod 20 == 0")?)?,
            Dropping::arriving(&stage.web, &to(&b, "numgen random mod 40 == 0")?)?,
        ];
        let seed = seed();
        let sender = thread::spawn(move || stream::send(&a, seed, LARGE / 4, 3000));
        read_exactly(&b, &mut Pattern::new(seed), LARGE / 4)?;
        sender.join().expect("the sender panicked")?;
        Ok(())
    }

    /// For what its connection carries, or because it was asked to.
    fn nothing_is_expected_of_a_socket_that_has_left(cgroup: &Cgroup) -> Result {
        let (bed, stage) = (Bed::on(cgroup)?, Stage::new()?);
        let [(a, b), (_c, _d)] = [stage.pair()?, stage.pair()?];
        assert_eq!(bed.expected(), 4);
        set_option(&b, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 2)?;
        let left = || -> Result<usize> {
            traffic::write_all(&a, b"hello")?;
            traffic::read_all(&b, &mut [0; 5])?;
            Ok(bed.expected())
        };
        wait_for("the reader to leave", SOON, || left().is_ok_and(|left| left == 3))?;
        drain::retire(&bed, &bed.conns(), Reason::Retired, Instant::now() + SOON, |_| {})?;
        assert_eq!((bed.enrolled().len(), bed.expected()), (0, 0));
        Ok(())
    }

    fn nothing_is_expected_when_both_streams_have_ended(cgroup: &Cgroup) -> Result {
        let (bed, _stage, (a, b)) = kernel_path(cgroup)?;
        assert_eq!(bed.expected(), 2);
        for end in [&a, &b] {
            end.shutdown(Shutdown::Write)?;
        }
        Ok(wait_for("the ends", SOON, || bed.expected() == 0)?)
    }

    fn nothing_is_expected_of_a_socket_that_was_reset(cgroup: &Cgroup) -> Result {
        let (bed, _stage, (a, b)) = kernel_path(cgroup)?;
        b.shutdown(Shutdown::Write)?;
        has_ended(&b, &a)?;
        SockRef::from(&a).set_linger(Some(Duration::ZERO))?;
        drop(a);
        Ok(wait_for("the reset", SOON, || bed.expected() == 0)?)
    }

    /// The end of the other stream comes with the acknowledgement of its own.
    fn nothing_is_expected_of_a_socket_that_nobody_has(cgroup: &Cgroup) -> Result {
        let (bed, stage, (a, b)) = kernel_path(cgroup)?;
        let _lost = Dropping::arriving(&stage.client, &to(&a, PLAIN_ACKS)?)?;
        drop(a);
        assert_eq!(traffic::read(&b, &mut [0; 1])?, 0);
        drop(b);
        bed.emptied()?;
        assert_eq!(bed.expected(), 0);
        Ok(())
    }

    /// When its socket is closed, nobody has looked at it yet.
    fn what_came_before_a_reset_is_read_by_who_accepts_later(cgroup: &Cgroup) -> Result {
        let (bed, stage) = (Bed::on(cgroup)?, Stage::new()?);
        let (listener, addr) = stage.web.listen((stage.web.ip(), 0))?;
        let a = stage.client.connect(addr)?;
        wait_for("the server's end", SOON, || bed.expected() == 2)?;
        bed.set_mode(Mode::Detaching)?;
        traffic::write_all(&a, b"hello")?;
        a.shutdown(Shutdown::Write)?;
        wait_for("it to be acknowledged", SOON, || unsent(&a) == 0)?;
        SockRef::from(&a).set_linger(Some(Duration::ZERO))?;
        drop(a);
        wait_for("the reset", SOON, || bed.expected() == 0)?;
        let mut got = [0; 5];
        traffic::read_all(&traffic::accept(&listener)?, &mut got)?;
        assert_eq!(&got, b"hello");
        Ok(())
    }

    /// As when the kernel had no memory to cut off what came before.
    fn nothing_more_comes_behind_what_could_not_be_cut_off(cgroup: &Cgroup) -> Result {
        let (bed, _stage, (a, b)) = kernel_path(cgroup)?;
        let expected = bed.get("expected");
        for cookie in expected.keys() {
            let next = expected.lookup(&cookie, MapFlags::ANY)?.ok_or("it is gone")?;
            let lost = [&next[..12], &1_u32.to_ne_bytes()].concat();
            expected.update(&cookie, &lost, MapFlags::EXIST)?;
        }
        traffic::write_all(&a, b"hello")?;
        wait_for("it to be acknowledged", SOON, || unsent(&a) == 0)?;
        assert_eq!(unread(&b), 0);
        Ok(())
    }
}
