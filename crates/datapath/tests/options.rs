//! Sockets with options that redirected data would not heed are plain TCP (invariant 2).

mod common;

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use common::unheeded::{NOTHING, OPTIONS, filter, of_socket};
use common::{
    Bed, Connection, Result, SOON, fill_up, on_both_paths, poll, seed, set_option, talk, tcp_info,
    unsent,
};
use datapath::abi::{EndRecord, Reason};
use datapath::socket::Options;
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{accept, options, pair, read_all, write_all};
use testbed::{Cgroup, Node, kernel_test, wait_for};

fn is_readable(sock: &TcpStream) -> bool {
    poll(sock, libc::POLLIN, Duration::ZERO) != 0
}

/// The client's end of its connection, or the server's.
fn end_of(bed: &Bed, client: &TcpStream, of_client: bool) -> Result<EndRecord> {
    let mut ends = bed.ends_of(client)?.into_iter();
    let own = ends.find(|end| end.end.is_client() == of_client);
    Ok(own.ok_or("it is not listed")?)
}

kernel_test! {
    /// Back-pressure had changed its low-water mark, for as long as it is enrolled.
    fn sender_that_leaves_without_room_gets_its_low_water_mark_back(cgroup: &Cgroup) -> Result {
        let queue_limit = 100_000;
        let bed = Bed::with(cgroup, Options { queue_limit, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (mut a, b) = pair(&client, &web, web.ip())?;
        let seed = seed();
        let filled = fill_up(&mut a, &mut Pattern::new(seed))?;
        let low_water = || SockRef::from(&a).tcp_notsent_lowat();
        assert_eq!(low_water()?, 1);
        of_socket(a.as_fd(), libc::SO_TIMESTAMP, 1)?;
        let mut got = vec![0; usize::try_from(filled)?];
        // So slowly that much is to be sent when it leaves.
        for piece in got.chunks_mut(2000) {
            read_all(&b, piece)?;
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(Pattern::new(seed).differs(&got), None, "the first wrong byte");
        assert_eq!(end_of(&bed, &a, true)?.has_psock, 0, "it is plain TCP");
        assert_eq!(low_water()?, 0);
        Ok(())
    }

    fn socket_that_has_one_before_it_connects_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        for (name, set) in OPTIONS {
            let a = client.run(|| -> Result<TcpStream> {
                let sock = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                set(sock.as_fd())?;
                options::connect(&sock, addr, SOON)?;
                Ok(sock.into())
            })??;
            let b = accept(&listener)?;
            talk(&a, &b).map_err(|error| format!("{name}: {error}"))?;
            assert_eq!(bed.enrolled().len(), 0, "{name}");
        }
        bed.none_enrolled(&[(Reason::Option, OPTIONS.len() as u64)])
    }

    fn socket_that_gets_one_later_leaves(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for (name, set) in OPTIONS {
            for of_client in [false, true] {
                let (a, b) = pair(&client, &web, web.ip())?;
                talk(&a, &b)?;
                let before = bed.redirected_of(&a)?;
                set(if of_client { a.as_fd() } else { b.as_fd() })?;
                talk(&a, &b)?;
                assert_eq!(bed.redirected_of(&a)?, before, "{name}");
                let own = end_of(&bed, &a, of_client)?;
                let why = Reason::from_raw(own.end.tx_reason.into());
                assert_eq!((own.has_psock, why), (0, Some(Reason::Option)), "{name}");
                drop((a, b));
                bed.emptied()?;
            }
        }
        Ok(())
    }

    fn sender_that_gets_one_leaves_with_what_it_sends(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let both = Connection::new()?;
        talk(&both.a, &both.b)?;
        // Nothing comes back.
        filter(both.b.as_fd(), NOTHING)?;
        of_socket(both.a.as_fd(), libc::SO_TIMESTAMP, 1)?;
        write_all(&both.a, b"hello")?;
        assert_eq!(end_of(&bed, &both.a, true)?.has_psock, 0);
        Ok(())
    }

    fn low_water_mark_is_heeded(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        // Another thread has sent, too.
        thread::scope(|scope| scope.spawn(|| write_all(&a, b"hello")).join().expect("it panicked"))?;
        read_all(&b, &mut [0; 5])?;
        set_option(&b, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10)?;
        write_all(&a, b"hello")?;
        wait_for("the data", SOON, || unsent(&a) == 0)?;
        assert!(!is_readable(&b));
        write_all(&a, b"hello")?;
        wait_for("ten bytes", SOON, || is_readable(&b))?;
        let mut got = [0; 10];
        read_all(&b, &mut got)?;
        assert_eq!(&got, b"hellohello");
        // Who does not wait may read less.
        write_all(&a, b"end")?;
        wait_for("what is below the mark", SOON, || common::unread(&b) == 3)?;
        assert!(!is_readable(&b));
        read_all(&b, &mut got[..3])?;
        assert_eq!(&got[..3], b"end");
        Ok(())
    }

    /// Also of a segment that is more than the mark, of which a part is read.
    fn low_water_mark_is_heeded_from_the_first_segment_on(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for client in [&web, &client] {
            for talked in [false, true] {
                for size in [600, 6000, 60_000] {
                    let (a, b) = pair(client, &web, web.ip())?;
                    if talked {
                        talk(&a, &b)?;
                    }
                    set_option(&b, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 500)?;
                    write_all(&a, &vec![1; size])?;
                    read_all(&b, &mut vec![0; size - 400])?;
                    assert!(!is_readable(&b), "{size}, {talked}");
                    let server = end_of(&bed, &a, false)?;
                    assert_eq!((server.has_psock, server.end.tx_reason), (0, Reason::Option as u8));
                    drop((a, b));
                    bed.emptied()?;
                }
            }
        }
        Ok(())
    }

    /// Headers are longer for a reader that is to leave for an option, and until it has left.
    fn segments_are_as_large_as_they_may_be(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for option in [true, false] {
            let (a, b) = pair(&client, &web, web.ip())?;
            talk(&a, &b)?;
            if option {
                set_option(&b, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 2)?;
                talk(&a, &b)?;
            } else {
                b.set_nonblocking(false)?;
            }
            let before = tcp_info(&a);
            let size = 10 * before.tcpi_snd_mss as usize;
            write_all(&a, &vec![1; size])?;
            read_all(&b, &mut vec![0; size])?;
            let segments = tcp_info(&a).tcpi_data_segs_out - before.tcpi_data_segs_out;
            assert_eq!(segments, 10, "with an option: {option}");
        }
        Ok(())
    }

    /// What it drops is sent again.
    fn filter_of_the_reader_sees_what_is_sent(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        filter(b.as_fd(), NOTHING)?;
        write_all(&a, b"hello")?;
        wait_for("the second copy", SOON, || tcp_info(&a).tcpi_total_retrans > 0)?;
        assert!(!is_readable(&b));
        SockRef::from(&b).detach_filter()?;
        let mut got = [0; 5];
        read_all(&b, &mut got)?;
        assert_eq!(&got, b"hello");
        Ok(())
    }

    /// Segments would be kept from what waits before them, or come before it.
    fn filter_of_a_reader_that_is_behind_does_not_see_what_is_sent_meanwhile(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, client: _client, web: _web, .. }| {
            write_all(&a, b"x")?;
            wait_for("the byte", SOON, || is_readable(&b))?;
            filter(b.as_fd(), NOTHING)?;
            write_all(&a, b"hello")?;
            let mut got = [0; 6];
            read_all(&b, &mut got[..1])?;
            let arrived = || is_readable(&b);
            wait_for("the rest, or its second copy", SOON, || arrived() || tcp_info(&a).tcpi_total_retrans > 0)?;
            let arrived = arrived();
            SockRef::from(&b).detach_filter()?;
            read_all(&b, &mut got[1..])?;
            assert_eq!(&got, b"xhello");
            Ok(arrived)
        })?;
        assert_eq!((plain, redirected), (false, true));
        Ok(())
    }

    /// TCP would keep back what is less than the mark, although more than that is there.
    fn low_water_mark_counts_what_waits_already(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        write_all(&a, b"hello")?;
        set_option(&b, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10)?;
        write_all(&a, b"hello")?;
        let mut got = [0; 10];
        read_all(&b, &mut got)?;
        assert_eq!(&got, b"hellohello");
        Ok(())
    }
}
