//! Sockets with options that redirected data would not heed are plain TCP (invariant 2).

mod common;

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use common::{Bed, Result, SOON, set_option, talk};
use datapath::abi::Reason;
use testbed::traffic::{accept, options, pair, read_all, write_all};
use testbed::{Cgroup, Node, kernel_test, wait_for};

/// include/uapi/linux/tcp.h
const TCP_INQ: i32 = 36;

const OPTIONS: [(&str, i32, i32, i32); 4] = [
    ("SO_ZEROCOPY", libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1),
    ("SO_RCVLOWAT", libc::SOL_SOCKET, libc::SO_RCVLOWAT, 2),
    ("SO_PEEK_OFF", libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0),
    ("TCP_INQ", libc::IPPROTO_TCP, TCP_INQ, 1),
];

/// Whether poll says that there is something to read.
fn is_readable(sock: &TcpStream) -> bool {
    let (fd, events, revents) = (sock.as_raw_fd(), libc::POLLIN, 0);
    let mut poll = libc::pollfd {
        fd,
        events,
        revents,
    };
    // SAFETY: one element, which lives.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

kernel_test! {
    fn socket_that_has_one_before_it_connects_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        for (name, level, option, value) in OPTIONS {
            let a = client.run(|| -> Result<TcpStream> {
                let sock = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
                set_option(&sock, level, option, value)?;
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
        for (name, level, option, value) in OPTIONS {
            let (a, b) = pair(&client, &web, web.ip())?;
            talk(&a, &b)?;
            let before: u64 = bed.ends()?.iter().map(|end| end.end.redirected_bytes).sum();
            set_option(&b, level, option, value)?;
            // The acknowledgement of the first message is the packet with which it leaves.
            talk(&a, &b)?;
            talk(&a, &b)?;
            let ends = bed.ends()?;
            assert_eq!(ends.iter().map(|end| end.end.redirected_bytes).sum::<u64>(), before, "{name}");
            let left = || bed.ends().is_ok_and(|ends| ends.iter().any(|end| !end.end.is_client() && end.has_psock == 0));
            wait_for(name, SOON, left)?;
            drop((a, b));
            bed.emptied()?;
        }
        Ok(())
    }

    fn low_water_mark_is_heeded(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        set_option(&b, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10)?;
        write_all(&a, b"hello")?;
        wait_for("the data", SOON, || common::unsent(&a) == 0)?;
        assert!(!is_readable(&b));
        write_all(&a, b"hello")?;
        wait_for("ten bytes", SOON, || is_readable(&b))?;
        let mut got = [0; 10];
        read_all(&b, &mut got)?;
        assert_eq!(&got, b"hellohello");
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
