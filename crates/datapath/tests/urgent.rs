//! Urgent data (`MSG_OOB`) is what it is on plain TCP, also on a connection that was redirected (invariant 2).

mod common;

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::late_page::{LatePage, read_until_asleep, send_until_asleep};
use common::{Bed, Connection, Result, SOON, poll, talk};
use datapath::abi::Reason;
use datapath::socket::Options;
use testbed::traffic::{pair, read_all, write_all};
use testbed::{Cgroup, Node, kernel_test, wait_for};

/// include/uapi/asm-generic/sockios.h
const SIOCATMARK: libc::Ioctl = 0x8905;

#[derive(Debug, Clone, Copy)]
enum By {
    Send,
    Sendmsg,
    Sendmmsg,
}

fn urge(sock: &TcpStream, by: By, bytes: &[u8]) -> io::Result<usize> {
    let (fd, flags) = (sock.as_raw_fd(), libc::MSG_OOB | libc::MSG_NOSIGNAL);
    let mut piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zero is a valid, empty message.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = &raw mut piece;
    message.msg_hdr.msg_iovlen = 1;
    // SAFETY: the bytes and the message live.
    let sent = unsafe {
        match by {
            By::Send => libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags),
            By::Sendmsg => libc::sendmsg(fd, &raw const message.msg_hdr, flags),
            By::Sendmmsg => match libc::sendmmsg(fd, &raw mut message, 1, flags) {
                1 => isize::try_from(message.msg_len).expect("short"),
                error => error as isize,
            },
        }
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn urgent_byte(sock: &TcpStream) -> io::Result<u8> {
    let mut byte = 0_u8;
    // SAFETY: one byte, which lives.
    let got = unsafe { libc::recv(sock.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_OOB) };
    match got {
        1 => Ok(byte),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `sockatmark(3)`.
fn is_at_mark(sock: &TcpStream) -> bool {
    let mut at: libc::c_int = 0;
    // SAFETY: the request writes one integer to a live place.
    let done = unsafe { libc::ioctl(sock.as_raw_fd(), SIOCATMARK, &raw mut at) };
    assert_eq!(done, 0);
    at == 1
}

/// The byte comes apart, where it stands in the stream, and the stream goes on without it.
fn comes_apart(from: &TcpStream, to: &TcpStream, by: By) -> Result {
    assert_eq!(urge(from, by, b"ab!")?, 3);
    wait_for("urgent data", SOON, || {
        poll(to, libc::POLLPRI, Duration::ZERO) != 0
    })?;
    assert_eq!(urgent_byte(to)?, b'!');
    write_all(from, b"cd")?;
    let mut got = [0; 2];
    read_all(to, &mut got)?;
    assert_eq!(&got, b"ab");
    wait_for("the mark", SOON, || is_at_mark(to))?;
    read_all(to, &mut got)?;
    assert_eq!(&got, b"cd");
    Ok(())
}

kernel_test! {
    fn first_urgent_data_comes_apart(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for by in [By::Send, By::Sendmsg, By::Sendmmsg] {
            let (a, b) = pair(&client, &web, web.ip())?;
            talk(&a, &b)?;
            assert!(bed.ends()?.iter().all(|end| end.end.redirected_bytes > 0));
            let context = |error| format!("{by:?}: {error}");
            comes_apart(&a, &b, by).map_err(context)?;
            comes_apart(&b, &a, by).map_err(context)?;
            comes_apart(&a, &b, by).map_err(context)?;
            drop((a, b));
            bed.emptied()?;
        }
        assert!(bed.totals()?.count(Reason::Urgent) >= 3);
        Ok(())
    }

    /// The receiver cannot leave under it: the segment comes when the call that sent it is over, as somebody
    /// has the receiver's socket meanwhile. So the byte is in the stream.
    fn message_between_verdict_and_queue_keeps_its_receiver(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        write_all(&a, b"request")?;
        let mut page = LatePage::new();
        let locks = read_until_asleep(b.try_clone()?, page.bytes(), 7);
        let caught = send_until_asleep(a.try_clone()?, &[7; 1000], "lock_sock");
        assert_eq!(urge(&a, By::Send, b"!")?, 1);
        page.come();
        for thread in [locks, caught] {
            thread.join().expect("it panicked");
        }
        let mut got = [0; 1001];
        read_all(&b, &mut got)?;
        assert_eq!(got.iter().filter(|byte| **byte == 7).count(), 1000);
        Ok(())
    }

    /// After accept(), for example; then it does not leave for blocking yet.
    fn reader_that_blocks_for_a_moment(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let both = Connection::new()?;
        both.b.set_nonblocking(false)?;
        comes_apart(&both.a, &both.b, By::Send)
    }

    /// It cannot leave before, and the segment comes while it is inside the call.
    fn sender_that_has_not_read_yet(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let web = node.pod("web")?;
        let (a, b) = pair(&web, &web, web.ip())?;
        talk(&a, &b)?;
        write_all(&b, b"unread")?;
        wait_for("the data", SOON, || common::unread(&a) == 6)?;
        assert!(bed.ends()?.iter().all(|end| end.end.redirected_bytes > 0));
        comes_apart(&a, &b, By::Send)?;
        let mut got = [0; 6];
        read_all(&a, &mut got)?;
        assert_eq!(&got, b"unread");
        Ok(())
    }

    /// Behind unread data it is in the stream. While neither socket can leave, what comes then does not try to be
    /// redirected (invariant 7).
    fn direction_behind_unread_data_keeps_its_reason(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        for (from, to) in [(&a, &b), (&b, &a)] {
            write_all(from, b"unread")?;
            wait_for("the data", SOON, || common::unread(to) == 6)?;
        }
        urge(&a, By::Send, b"!")?;
        wait_for("all of it", SOON, || common::unread(&b) == 7)?;
        write_all(&a, b"more")?;
        let totals = bed.totals()?;
        assert_eq!((totals.count(Reason::Urgent), totals.count(Reason::PeerGone)), (1, 0));
        let mut got = [0; 11];
        read_all(&b, &mut got)?;
        assert_eq!(&got, b"unread!more");
        Ok(())
    }

    /// What a sender writes when it had no room is shown to nobody before it leaves.
    fn urgent_data_after_a_full_buffer_comes_apart(cgroup: &Cgroup) -> Result {
        const ROUNDS: u64 = 10;
        let bed = Bed::with(cgroup, Options { queue_limit: 100_000, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let message = vec![7; 1 << 20];
        for _ in 0..ROUNDS {
            let (a, b) = pair(&client, &web, web.ip())?;
            talk(&a, &b)?;
            let mut sent = 0;
            while let Ok(some) = (&a).write(&message) {
                sent += some;
            }
            read_all(&b, &mut vec![0; sent])?;
            comes_apart(&a, &b, By::Send)?;
            drop((a, b));
            bed.emptied()?;
        }
        assert!(bed.totals()?.count(Reason::Urgent) < ROUNDS, "it saw all of them");
        Ok(())
    }

    fn over_loopback_as_well(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let web = node.pod("web")?;
        let (a, b) = pair(&web, &web, web.ip())?;
        talk(&a, &b)?;
        assert!(bed.ends()?.iter().all(|end| end.end.redirected_bytes > 0));
        comes_apart(&a, &b, By::Send)?;
        comes_apart(&b, &a, By::Send)
    }
}
