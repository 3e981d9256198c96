//! Times of arrival and departure, which only segments have: a socket that asks for them is plain
//! TCP from the next packet on (invariant 2; `options.rs` has the sockets that ask before).

mod common;

use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr;

use common::{Bed, Result, SOON, set_option, talk};
use testbed::traffic::{pair, read_all, write_all};
use testbed::{Cgroup, Node, Pod, kernel_test, wait_for};

/// include/uapi/linux/net_tstamp.h
const TX_SOFTWARE: u32 = 1 << 1;
const RX_SOFTWARE: u32 = 1 << 3;
const SOFTWARE: u32 = 1 << 4;
const TX_ACK: u32 = 1 << 9;

/// Level and type of a control message.
type Kind = (i32, i32);

const TIMESTAMP: Kind = (libc::SOL_SOCKET, libc::SCM_TIMESTAMP);
const TIMESTAMPING: Kind = (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING);

/// One `recvmsg`: the control messages that came with it.
fn told(sock: &TcpStream, flags: i32) -> io::Result<Vec<Kind>> {
    let (mut byte, mut control) = ([0_u8], [0_u64; 64]);
    let mut piece = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: all zero is a valid, empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control);
    // SAFETY: the message and all it points to live.
    let got = unsafe { libc::recvmsg(sock.as_raw_fd(), &raw mut message, flags) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut kinds = Vec::new();
    // SAFETY: the kernel wrote the headers into `control`, and says how much it wrote.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            kinds.push(((*header).cmsg_level, (*header).cmsg_type));
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(kinds)
}

/// A byte whose `sendmsg` asks for a time of its own.
fn send_asking(sock: &TcpStream, what: u32) -> io::Result<()> {
    let (mut byte, mut control) = ([0_u8], [0_u64; 4]);
    let mut piece = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: all zero is a valid, empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: there is room for one header and an integer.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SO_TIMESTAMPING;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), what);
        libc::sendmsg(sock.as_raw_fd(), &raw const message, 0)
    };
    if sent == 1 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set(sock: &TcpStream, name: i32, value: u32) -> io::Result<()> {
    set_option(sock, libc::SOL_SOCKET, name, value.cast_signed())
}

/// A connection on which data was redirected.
struct Stage {
    _bed: Bed,
    _pods: (Node, [Pod; 2]),
    a: TcpStream,
    b: TcpStream,
}

impl Stage {
    fn new(cgroup: &Cgroup) -> Result<Self> {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        assert_eq!(bed.enrolled().len(), 2);
        Ok(Self {
            _bed: bed,
            _pods: (node, [web, client]),
            a,
            b,
        })
    }

    /// Waits until a byte arrives with its time; each is answered, for a stream of them would leave
    /// anyway. The kernel begins to note times a moment after the first socket of the host asked for
    /// them (`netstamp_work`, net/core/dev.c).
    fn arrives_with(&self, kind: Kind) -> Result {
        let arrived = || -> Result<bool> {
            write_all(&self.a, b"?")?;
            let mut kinds = Vec::new();
            let come = || match told(&self.b, libc::MSG_DONTWAIT) {
                Ok(told) => {
                    kinds = told;
                    true
                }
                Err(_) => false,
            };
            wait_for("the byte", SOON, come)?;
            write_all(&self.b, b"!")?;
            read_all(&self.a, &mut [0])?;
            Ok(kinds == [kind])
        };
        Ok(wait_for("a time of arrival", SOON, || {
            arrived().is_ok_and(|has| has)
        })?)
    }

    /// Waits until the error queue of the sender has a time.
    fn departed(&self) -> Result {
        let departed =
            || told(&self.a, libc::MSG_ERRQUEUE).is_ok_and(|kinds| kinds.contains(&TIMESTAMPING));
        Ok(wait_for("a time of departure", SOON, departed)?)
    }
}

kernel_test! {
    fn times_of_arrival_are_told(cgroup: &Cgroup) -> Result {
        for (name, value, kind) in [
            (libc::SO_TIMESTAMP, 1, TIMESTAMP),
            (libc::SO_TIMESTAMPING, RX_SOFTWARE | SOFTWARE, TIMESTAMPING),
        ] {
            let stage = Stage::new(cgroup)?;
            set(&stage.b, name, value)?;
            stage.arrives_with(kind)?;
        }
        Ok(())
    }

    fn times_of_departure_and_acknowledgement_are_told(cgroup: &Cgroup) -> Result {
        for what in [TX_SOFTWARE, TX_ACK] {
            let stage = Stage::new(cgroup)?;
            set(&stage.a, libc::SO_TIMESTAMPING, what | SOFTWARE)?;
            write_all(&stage.a, b"?")?;
            stage.departed()?;
        }
        Ok(())
    }

    /// `tcp_bpf_sendmsg` reads no control messages, so the socket has to be plain TCP by then.
    fn times_that_a_single_send_asks_for_are_told_when_the_socket_has_left(cgroup: &Cgroup) -> Result {
        let stage = Stage::new(cgroup)?;
        set(&stage.a, libc::SO_TIMESTAMPING, SOFTWARE)?;
        for _ in 0..2 {
            talk(&stage.a, &stage.b)?;
        }
        send_asking(&stage.a, TX_SOFTWARE)?;
        stage.departed()
    }
}
