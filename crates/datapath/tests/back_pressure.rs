//! The way to the kernel path and back when a reader is behind (invariants 1, 2, 5).

mod common;

use std::io::{IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::late_page::{LatePage, PAGE, call_until_asleep, read_until_asleep};
use common::{Bed, Dropping, LARGE, PLAIN_ACKS, Result, SOON, read_exactly, seed, tcp_info};
use datapath::abi::{Mode, Reason};
use datapath::socket::Options;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{accept, pair, read_all, stream, write_all};
use testbed::{Cgroup, Node, Pod, kernel_test, wait_for};

const LIMIT: u32 = 1 << 20;

/// Bytes under way over the kernel path while the reader is behind; bpf/lib/flight.h.
const FLIGHT: u32 = 64 << 10;

/// What a full-sized segment carries over `lo`, whose MTU is 65,536, with timestamps.
const LOOPBACK_SEGMENT: u32 = 65_483;

/// include/uapi/linux/tcp.h
const TCP_NOTSENT_LOWAT: i32 = 25;

fn bed(cgroup: &Cgroup) -> Result<Bed> {
    let queue_limit = LIMIT;
    Bed::with(
        cgroup,
        Options {
            queue_limit,
            ..Options::default()
        },
    )
}

/// A connection between two pods, and what is sent on it and expected from it.
struct Stream {
    bed: Bed,
    _pods: (Node, [Pod; 2]),
    a: TcpStream,
    b: TcpStream,
    to_b: Pattern,
    at_b: Pattern,
}

impl Stream {
    fn open(cgroup: &Cgroup) -> Result<Self> {
        let bed = bed(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        let seed = seed();
        Ok(Self {
            bed,
            _pods: (node, [web, client]),
            a,
            b,
            to_b: Pattern::new(seed),
            at_b: Pattern::new(seed),
        })
    }
}

/// Writes 4 KiB at a time until the socket refuses more.
fn fill(sock: &mut TcpStream, pattern: &mut Pattern) -> Result<u64> {
    common::fill(sock, pattern, 4096)
}

/// What the client's end has sent: past the stack, and through it.
fn sent(bed: &Bed) -> Result<(u64, u64)> {
    let ends = bed.ends()?;
    let client = ends
        .iter()
        .find(|end| end.end.is_client())
        .ok_or("no client")?;
    Ok((client.end.redirected_bytes, client.end.kernel_bytes))
}

/// The reader's program answers over the kernel path, thirty times and until TCP knows: not what comes later than a delayed
/// acknowledgement would.
fn answers(a: &TcpStream, b: &TcpStream) -> Result {
    let exchange = || -> Result {
        testbed::traffic::write_all(a, b"question")?;
        testbed::traffic::read_all(b, &mut [0; 8])?;
        testbed::traffic::write_all(b, b"answer")?;
        Ok(testbed::traffic::read_all(a, &mut [0; 6])?)
    };
    a.set_nonblocking(false)?;
    for _ in 1..30 {
        exchange()?;
    }
    Ok(wait_for("a reader that answers", SOON, || {
        exchange().expect("it talks");
        common::option(b, libc::IPPROTO_TCP, libc::TCP_QUICKACK) == 0
    })?)
}

/// What the kernel path gets once the queue is full begins with a whole message, or with the second one's.
fn takes_whole_messages(
    cgroup: &Cgroup,
    prepare: impl Fn(&TcpStream, &TcpStream) -> Result,
    flags: i32,
) -> Result {
    const PIECE: usize = 4096;
    let bed = bed(cgroup)?;
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    let (a, b) = pair(&client, &web, web.ip())?;
    prepare(&a, &b)?;
    a.set_nonblocking(true)?;
    let seed = seed();
    let (mut to_b, mut piece) = (Pattern::new(seed), [0; PIECE]);
    let before = sent(&bed)?.1;
    let mut written = 0;
    while sent(&bed)?.1 < before + PIECE as u64 {
        to_b.fill(&mut piece);
        // SAFETY: the pointer and the length are those of the array.
        let n = unsafe { libc::send(a.as_raw_fd(), piece.as_ptr().cast(), PIECE, flags) };
        assert_eq!(n, PIECE as isize, "after {written} bytes");
        written += PIECE as u64;
    }
    let beyond = sent(&bed)?.1 - before - PIECE as u64;
    assert!(
        beyond <= u64::from(flags == libc::MSG_MORE),
        "{beyond} bytes more"
    );
    read_exactly(&b, &mut Pattern::new(seed), written)
}

fn low_water(sock: &TcpStream) -> i32 {
    common::option(sock, libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT)
}

/// In segments, and the size of these.
fn congestion_window(sock: &TcpStream) -> (u32, u32) {
    let info = tcp_info(sock);
    (info.tcpi_snd_cwnd, info.tcpi_snd_mss)
}

/// The congestion window when much went over the kernel path, while it is not for want of room.
fn after_detaching(
    bed: &Bed,
    (a, b): (TcpStream, TcpStream),
    mut to_b: Pattern,
    mut at_b: Pattern,
) -> Result<(u32, u32)> {
    bed.set_mode(Mode::Detaching)?;
    let sender = thread::spawn(move || -> Result<TcpStream> {
        stream::send_from(&a, &mut to_b, LARGE, 65_536)?;
        Ok(a)
    });
    read_exactly(&b, &mut at_b, LARGE)?;
    Ok(congestion_window(
        &sender.join().expect("the sender panicked")?,
    ))
}

kernel_test! {
    fn direction_comes_back_when_the_reader_has_caught_up(cgroup: &Cgroup) -> Result {
        let Stream { bed, _pods, mut a, b, mut to_b, mut at_b } = Stream::open(cgroup)?;
        for round in 1..=5 {
            let times = bed.totals()?.count(Reason::QueueFull);
            let filled = fill(&mut a, &mut to_b)?;
            assert!(bed.totals()?.count(Reason::QueueFull) > times, "round {round}");
            read_exactly(&b, &mut at_b, filled)?;
            let before = sent(&bed)?;
            stream::send_from(&a, &mut to_b, 10_000, 1000)?;
            let after = sent(&bed)?;
            assert_eq!((after.0 - before.0, after.1), (10_000, before.1), "round {round}");
            read_exactly(&b, &mut at_b, 10_000)?;
        }
        Ok(())
    }

    /// One byte is under way, another waits for its acknowledgement, and TCP takes no more.
    fn last_bytes_of_two_messages_make_the_sender_wait(cgroup: &Cgroup) -> Result {
        let Stream { bed, _pods, mut a, b, mut to_b, mut at_b } = Stream::open(cgroup)?;
        let mut written = 0;
        for round in 1..=20 {
            let filled = fill(&mut a, &mut to_b)?;
            assert!(filled > u64::from(LIMIT), "round {round}");
            read_exactly(&b, &mut at_b, filled)?;
            wait_for("the acknowledgement", SOON, || low_water(&a) == 0)?;
            written += filled;
        }
        let (redirected, kernel) = sent(&bed)?;
        assert_eq!(redirected + kernel, written, "each message has a verdict");
        assert!(kernel < 4096, "{kernel} bytes over the kernel path");
        Ok(())
    }

    /// The program is told that it wrote less than it wanted, and writes the rest as plain TCP.
    fn last_byte_of_a_socket_that_left_meanwhile_is_not_written(cgroup: &Cgroup) -> Result {
        const EXCESS: usize = LIMIT as usize + (64 << 10);
        let Stream { bed, _pods, a, b, .. } = Stream::open(cgroup)?;
        write_all(&a, &vec![7; EXCESS])?;
        let mut page = LatePage::new();
        let locks = read_until_asleep(b.try_clone()?, page.bytes(), PAGE);
        let (tell, told) = mpsc::channel();
        let mut sender = a.try_clone()?;
        let cut = call_until_asleep(move || tell.send(sender.write(&[7; 1000])).unwrap(), "lock_sock");
        common::set_option(&a, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)?;
        write_all(&a, b"plain")?;
        assert_eq!(bed.enrolled().len(), 1, "it has left");
        page.come();
        for thread in [locks, cut] {
            thread.join().expect("it panicked");
        }
        assert_eq!(told.recv()??, 999);
        let mut got = vec![0; EXCESS - PAGE + 999 + 5];
        read_all(&b, &mut got)?;
        assert_eq!(got.iter().filter(|byte| **byte == 7).count(), got.len() - 5);
        Ok(())
    }

    /// The reader has read all when it comes to it, so that it is redirected as well.
    fn last_byte_that_is_redirected_is_not_the_start_of_the_next_message(cgroup: &Cgroup) -> Result {
        const EXCESS: usize = LIMIT as usize + (64 << 10);
        let Stream { bed, _pods, a, b, .. } = Stream::open(cgroup)?;
        write_all(&a, &vec![7; EXCESS])?;
        let mut page = LatePage::new();
        let (first, mut reader) = (page.bytes(), b.try_clone()?);
        let all = move || {
            let mut rest = vec![0; EXCESS - PAGE];
            let got = reader.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(&mut rest)]);
            assert_eq!(got.expect("all waits"), EXCESS);
        };
        let locks = call_until_asleep(all, "userfault");
        let mut sender = a.try_clone()?;
        let write = move || assert_eq!(sender.write(&[7; 1000]).expect("it is written"), 1000);
        let cut = call_until_asleep(write, "lock_sock");
        page.come();
        for thread in [locks, cut] {
            thread.join().expect("it panicked");
        }
        let before = sent(&bed)?;
        for _ in 0..4 {
            write_all(&a, &[7; 500])?;
        }
        let after = sent(&bed)?;
        assert_eq!((after.0 - before.0, after.1 - before.1), (2000, 0));
        Ok(read_all(&b, &mut [0; 3000])?)
    }

    /// It would not leave, and nothing would tell the sender to go on but a timer.
    fn last_byte_alone_is_not_sent_when_corked(cgroup: &Cgroup) -> Result {
        takes_whole_messages(cgroup, |a, _| Ok(common::set_option(a, libc::IPPROTO_TCP, libc::TCP_CORK, 1)?), 0)
    }

    /// One byte tells whether it leaves.
    fn last_byte_of_a_message_with_more_to_come_does_not_leave(cgroup: &Cgroup) -> Result {
        takes_whole_messages(cgroup, |_, _| Ok(()), libc::MSG_MORE)
    }

    /// A reader that answers acknowledges late (net/ipv4/tcp_output.c, tcp_event_data_sent).
    fn last_byte_alone_is_not_sent_to_a_reader_that_answers(cgroup: &Cgroup) -> Result {
        takes_whole_messages(cgroup, answers, 0)
    }

    /// Each acknowledgement lets one more message in.
    fn reader_that_acknowledges_without_reading_costs_a_bounded_amount(cgroup: &Cgroup) -> Result {
        const PIECE: usize = 64 << 10;
        let bed = bed(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for nodelay in [false, true] {
            let (mut a, b) = pair(&client, &web, web.ip())?;
            a.set_nodelay(nodelay)?;
            let seed = seed();
            let (mut to_b, mut filled) = (Pattern::new(seed), 0);
            // The kernel acknowledges within 40 ms what nobody reads.
            for _ in 0..20 {
                filled += common::fill(&mut a, &mut to_b, PIECE)?;
                thread::sleep(Duration::from_millis(50));
            }
            let unread = sent(&bed)?.0;
            let most = u64::from(LIMIT + LIMIT / 8) + PIECE as u64;
            assert!(unread <= most, "{unread} bytes redirected");
            read_exactly(&b, &mut Pattern::new(seed), filled)?;
            drop((a, b));
            bed.emptied()?;
        }
        Ok(())
    }

    /// It comes back behind what is unread, but not while that is most of the limit. A message of one
    /// byte cannot be taken apart.
    fn direction_comes_back_at_half_the_limit(cgroup: &Cgroup) -> Result {
        let Stream { bed, _pods, mut a, b, mut to_b, mut at_b } = Stream::open(cgroup)?;
        let half = u64::from(LIMIT / 2);
        let filled = fill(&mut a, &mut to_b)?;
        read_exactly(&b, &mut at_b, filled - half - 1)?;
        let arrived = || common::unsent(&a) == 0;
        wait_for("all to arrive", SOON, arrived)?;
        let before = sent(&bed)?;
        stream::send_from(&a, &mut to_b, 1, 1)?;
        assert_eq!(sent(&bed)?, (before.0, before.1 + 1), "more than half");
        wait_for("all to arrive", SOON, arrived)?;
        read_exactly(&b, &mut at_b, 2)?;
        stream::send_from(&a, &mut to_b, 1, 1)?;
        assert_eq!(sent(&bed)?, (before.0 + 1, before.1 + 1), "half");
        read_exactly(&b, &mut at_b, half + 1)
    }

    /// Until a socket is accepted, what arrives stays in TCP's own queue; behind it nothing may be
    /// redirected.
    fn direction_does_not_come_back_before_what_arrived_is_in_the_queue(cgroup: &Cgroup) -> Result {
        let bed = bed(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let a = client.connect(addr)?;
        bed.wait_paired(1)?;
        let seed = seed();
        let (mut to_b, mut at_b) = (Pattern::new(seed), Pattern::new(seed));
        a.set_nonblocking(false)?;
        stream::send_from(&a, &mut to_b, 1000, 1000)?;
        assert_eq!(sent(&bed)?, (0, 1000), "a socket that blocks is not redirected");
        wait_for("all to arrive", SOON, || common::unsent(&a) == 0)?;
        a.set_nonblocking(true)?;
        stream::send_from(&a, &mut to_b, 1000, 1000)?;
        assert_eq!(sent(&bed)?, (0, 2000));
        read_exactly(&accept(&listener)?, &mut at_b, 2000)
    }

    /// Nor before bytes that did not even arrive.
    fn direction_does_not_come_back_before_the_last_byte_is_acknowledged(cgroup: &Cgroup) -> Result {
        let bed = bed(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        let seed = seed();
        let (mut to_b, mut at_b) = (Pattern::new(seed), Pattern::new(seed));
        let lost = Dropping::arriving(&web, PLAIN_ACKS)?;
        while bed.totals()?.count(Reason::QueueFull) == 0 {
            stream::send_from(&a, &mut to_b, 4096, 4096)?;
        }
        let before = sent(&bed)?;
        read_exactly(&b, &mut at_b, before.0)?;
        stream::send_from(&a, &mut to_b, 1000, 1000)?;
        assert_eq!(sent(&bed)?, (before.0, before.1 + 1000));
        lost.end()?;
        read_exactly(&b, &mut at_b, before.1 + 1000)?;
        Ok(())
    }

    fn sender_waits_between_messages_only_while_the_reader_is_behind(cgroup: &Cgroup) -> Result {
        let Stream { bed: _bed, _pods, mut a, b, mut to_b, mut at_b } = Stream::open(cgroup)?;
        assert_eq!(low_water(&a), 0);
        let filled = fill(&mut a, &mut to_b)?;
        assert_eq!(low_water(&a), 1);
        read_exactly(&b, &mut at_b, filled)?;
        wait_for("the kernel's default", SOON, || low_water(&a) == 0)?;
        Ok(())
    }

    fn sender_that_no_reader_keeps_waiting_is_not_held(cgroup: &Cgroup) -> Result {
        let Stream { bed: _bed, _pods, a, b: _b, mut to_b, .. } = Stream::open(cgroup)?;
        // Nothing is acknowledged.
        let _lost = Dropping::arriving(&_pods.1[1], PLAIN_ACKS)?;
        a.set_nonblocking(false)?;
        stream::send_from(&a, &mut to_b, 1000, 1000)?;
        assert_eq!(low_water(&a), 0);
        Ok(())
    }

    /// What is under way has to be read before the direction can return.
    fn little_is_under_way_only_while_the_reader_is_behind(cgroup: &Cgroup) -> Result {
        let Stream { bed, _pods, mut a, b, mut to_b, mut at_b } = Stream::open(cgroup)?;
        for _ in 0..3 {
            let filled = fill(&mut a, &mut to_b)?;
            read_exactly(&b, &mut at_b, filled)?;
            let (segments, size) = congestion_window(&a);
            assert!(segments * size <= FLIGHT, "{segments} segments of {size} bytes");
        }
        let (segments, size) = after_detaching(&bed, (a, b), to_b, at_b)?;
        assert!(segments * size > FLIGHT, "{segments} segments of {size} bytes");
        Ok(())
    }

    /// Where segments are large, the kernel's ten are a megabyte.
    fn little_is_under_way_from_the_start(cgroup: &Cgroup) -> Result {
        let _bed = bed(cgroup)?;
        let pod = Node::new()?.pod("pod")?;
        let (a, b) = pair(&pod, &pod, std::net::Ipv4Addr::LOCALHOST)?;
        assert_eq!((congestion_window(&a).0, congestion_window(&b).0), (2, 2));
        Ok(())
    }

    /// Of a single one the reader's kernel would tell late; here a segment is as large as all that may be under way.
    fn two_segments_are_under_way_however_large(cgroup: &Cgroup) -> Result {
        let _bed = bed(cgroup)?;
        let pod = Node::new()?.pod("pod")?;
        // BBR's window is four at least.
        pod.sysctl("net.ipv4.tcp_congestion_control", "reno")?;
        let (mut a, b) = pair(&pod, &pod, std::net::Ipv4Addr::LOCALHOST)?;
        answers(&a, &b)?;
        // So that TCP takes much, for which its window counts.
        common::set_option(&a, libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1 << 20)?;
        a.set_nonblocking(true)?;
        let seed = seed();
        let (mut to_b, mut at_b) = (Pattern::new(seed), Pattern::new(seed));
        for _ in 0..3 {
            let filled = common::fill(&mut a, &mut to_b, 65_536)?;
            let segments = congestion_window(&a).0;
            assert!(segments >= 2, "{segments}");
            read_exactly(&b, &mut at_b, filled)?;
        }
        assert_eq!(congestion_window(&a).1, LOOPBACK_SEGMENT);
        Ok(())
    }

    fn small_segments_start_as_the_kernel_has_it(cgroup: &Cgroup) -> Result {
        const TCP_INIT_CWND: u32 = 10;
        let Stream { _pods, a, b, .. } = Stream::open(cgroup)?;
        assert_eq!((congestion_window(&a).0, congestion_window(&b).0), (TCP_INIT_CWND, TCP_INIT_CWND));
        Ok(())
    }

    fn congestion_window_that_a_route_limits_stays_so(cgroup: &Cgroup) -> Result {
        const LOCKED: u32 = 30;
        let bed = bed(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let route = format!("route=$(ip route get {}); ip route replace ${{route%% src*}} cwnd lock {LOCKED}", web.ip());
        client.command("sh").args(["-c", &route]).run()?;
        // The kernel looks at it when it has connected there before (net/ipv4/tcp_metrics.c).
        drop(pair(&client, &web, web.ip())?);
        bed.emptied()?;
        let (mut a, b) = pair(&client, &web, web.ip())?;
        let seed = seed();
        let (mut to_b, mut at_b) = (Pattern::new(seed), Pattern::new(seed));
        let filled = fill(&mut a, &mut to_b)?;
        read_exactly(&b, &mut at_b, filled)?;
        assert_eq!(after_detaching(&bed, (a, b), to_b, at_b)?.0, LOCKED);
        Ok(())
    }

    /// It may connect again, and poll asks the mark even before.
    fn low_water_mark_goes_with_the_connection(cgroup: &Cgroup) -> Result {
        let _bed = bed(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (mut a, _b) = pair(&client, &web, web.ip())?;
        fill(&mut a, &mut Pattern::new(1))?;
        wait_for("the first acknowledgement", common::SOON, || low_water(&a) == 1)?;
        common::disconnect(&a)?;
        assert_eq!(low_water(&a), 0);
        Ok(())
    }

    fn low_water_mark_of_the_program_itself_stays(cgroup: &Cgroup) -> Result {
        let _bed = bed(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        // The second one is what Beeline would set.
        for mark in [5000, 1] {
            let (mut a, b) = pair(&client, &web, web.ip())?;
            common::set_option(&a, libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT, mark)?;
            let filled = fill(&mut a, &mut Pattern::new(1))?;
            assert_eq!(low_water(&a), mark);
            read_exactly(&b, &mut Pattern::new(1), filled)?;
            wait_for("all to arrive", SOON, || common::unsent(&a) == 0)?;
            assert_eq!(low_water(&a), mark);
        }
        Ok(())
    }
}
