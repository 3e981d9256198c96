//! `MSG_ZEROCOPY` on a connection that was enrolled before `SO_ZEROCOPY` was set: each send has one
//! completion, as plain TCP counts them (invariant 2).

mod common;

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr;
use std::thread;

use common::{Bed, Result, SOON, set_option, talk};
use datapath::abi::Reason;
use io_uring::squeue::Flags;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use socket2::{Domain, SockAddr, Socket, Type};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, accept, pair, read_all, write_all};
use testbed::wait::wait_until;
use testbed::{Cgroup, Node, kernel_test};

/// `SO_EE_ORIGIN_ZEROCOPY`, include/uapi/linux/errqueue.h
const ZEROCOPY: u8 = 5;

/// From one byte to what no `struct sk_msg` holds: 17 elements of 32 KiB.
const SIZES: [usize; 5] = [1, 5000, 30_000, 300_000, 2_000_000];

/// How many bytes the socket took.
fn lend(sock: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes live until their completion, or the test fails.
    let sent = unsafe { libc::send(sock.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// The next completion: the numbers of the first and the last send that it is about.
fn completion(sock: &TcpStream) -> Option<(u32, u32)> {
    let mut control = [0_u64; 16];
    // SAFETY: all zero is a valid, empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the message and its control buffer live.
    if unsafe { libc::recvmsg(sock.as_raw_fd(), &raw mut message, flags) } < 0 {
        return None;
    }
    // SAFETY: what the kernel puts into a TCP socket's error queue is this structure.
    let told: libc::sock_extended_err = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        ptr::read_unaligned(libc::CMSG_DATA(header).cast())
    };
    assert_eq!((told.ee_origin, told.ee_errno), (ZEROCOPY, 0));
    Some((told.ee_info, told.ee_data))
}

/// Sends and reads the stream in sends of that size, and waits for the completion of each.
fn sends_complete(from: &TcpStream, to: &mut TcpStream, size: usize) -> Result {
    let (mut lent, mut got) = (vec![0; size], vec![0; size]);
    let (mut sent, mut read) = (Pattern::new(7), Pattern::new(7));
    for number in 0..4 {
        let begun = sent.offset();
        sent.clone().fill(&mut lent);
        let taken = lend(from, &lent)?;
        sent.fill(&mut vec![0; taken]);
        while read.offset() < begun + taken as u64 {
            match to.read(&mut got) {
                Ok(n) => assert_eq!(read.differs(&got[..n]), None, "the first wrong byte"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let told = wait_until("a completion", SOON, || completion(from))?;
        assert_eq!(told, (number, number), "sends that are complete");
    }
    assert_eq!(completion(from), None);
    Ok(())
}

/// `unread`: something waits at the sender's own end, so that it cannot leave the maps.
fn with_late_option(cgroup: &Cgroup, sizes: &[usize], unread: bool) -> Result {
    let bed = Bed::on(cgroup)?;
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    for size in sizes.iter().copied() {
        let (a, mut b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        if unread {
            write_all(&b, b"unread")?;
        }
        set_option(&a, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
        sends_complete(&a, &mut b, size).map_err(|error| format!("{size} bytes: {error}"))?;
        drop((a, b));
        bed.emptied()?;
    }
    Ok(())
}

kernel_test! {
    fn each_send_completes_once(cgroup: &Cgroup) -> Result {
        with_late_option(cgroup, &SIZES, false)
    }

    /// Of sends that TCP's buffer takes at once.
    fn each_send_completes_once_on_a_socket_that_cannot_leave(cgroup: &Cgroup) -> Result {
        with_late_option(cgroup, &SIZES[..3], true)
    }
}

/// `IORING_OP_SEND_ZC`: what it came to.
fn send_over(ring: &mut IoUring, sock: &TcpStream, bytes: &'static [u8]) -> Result<i32> {
    let (fd, len) = (Fd(sock.as_raw_fd()), u32::try_from(bytes.len())?);
    let request = opcode::SendZc::new(fd, bytes.as_ptr(), len).build();
    // SAFETY: the bytes are static.
    unsafe { ring.submission().push(&request) }?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().ok_or("no completion")?;
    Ok(done.result())
}

kernel_test! {
    /// Whoever connects or listens with a ring at hand may send so, which the kernel refuses to sockets that were
    /// in a sockmap.
    fn io_uring_sends_without_a_copy(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        client.run(|| -> Result {
            let mut ring = IoUring::new(8)?;
            let a = traffic::connect(addr)?;
            let b = accept(&listener)?;
            talk(&a, &b)?;
            assert_eq!(send_over(&mut ring, &a, b"hello")?, 5);
            let mut got = [0; 5];
            read_all(&b, &mut got)?;
            assert_eq!(&got, b"hello");
            Ok(())
        })??;
        bed.none_enrolled(&[(Reason::IoUring, 1)])
    }

    /// In a process of its own, as the first thread of this one runs no test.
    fn ring_of_the_first_thread_counts(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        client.run(|| {
            // SAFETY: the child only makes a ring and a thread that connects, and ends.
            match unsafe { libc::fork() } {
                0 => {
                    let ring = IoUring::new(8);
                    let connected = thread::spawn(move || traffic::connect(addr).is_ok()).join();
                    let well = ring.is_ok() && matches!(connected, Ok(true));
                    // SAFETY: nothing of this process is to run on.
                    unsafe { libc::_exit(i32::from(!well)) }
                }
                child => {
                    let (mut status, how) = (0, 0);
                    // SAFETY: the status is a live integer.
                    let ended = unsafe { libc::waitpid(child, &raw mut status, how) };
                    assert_eq!((ended, status), (child, 0), "the child");
                }
            }
        })?;
        drop(accept(&listener)?);
        bed.none_enrolled(&[(Reason::IoUring, 1)])
    }

    /// Then a worker of the ring connects, not the thread that has the ring.
    fn worker_of_a_ring_connects(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let a = client.run(|| -> Result<_> {
            let mut ring = IoUring::new(8)?;
            let (a, addr) = (Socket::new(Domain::IPV4, Type::STREAM, None)?, SockAddr::from(addr));
            let request = opcode::Connect::new(Fd(a.as_raw_fd()), addr.as_ptr().cast(), addr.len());
            // SAFETY: the address lives until the request is done.
            unsafe { ring.submission().push(&request.build().flags(Flags::ASYNC)) }?;
            ring.submit_and_wait(1)?;
            assert_eq!(ring.completion().next().ok_or("no completion")?.result(), 0);
            Ok(TcpStream::from(a))
        })??;
        a.set_nonblocking(true)?;
        talk(&a, &accept(&listener)?)?;
        drop(a);
        bed.none_enrolled(&[(Reason::IoUring, 1)])
    }

    fn listener_with_a_ring_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (_ring, listener, addr) = web.run(|| -> Result<_> {
            let ring = IoUring::new(8)?;
            let (listener, addr) = traffic::listen((web.ip(), 0))?;
            Ok((ring, listener, addr))
        })??;
        let a = client.connect(addr)?;
        talk(&a, &accept(&listener)?)?;
        drop(a);
        bed.none_enrolled(&[(Reason::IoUring, 1)])
    }
}
