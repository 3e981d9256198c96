//! Calls that do not find, or do not change, what is redirected: differences that docs/semantics.md
//! lists, and that no option of the socket tells beforehand.

mod common;

use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr;
use std::thread;
use std::time::Duration;

use common::{Connection, Result, SOON, on_both_paths, poll, unread};
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use testbed::traffic::{read_all, write_all};
use testbed::{Cgroup, kernel_test, wait_for};

/// include/uapi/linux/tcp.h
const TCP_ZEROCOPY_RECEIVE: i32 = 35;

/// struct tcp_zerocopy_receive, its first fields.
#[repr(C)]
#[derive(Default)]
struct ZerocopyReceive {
    address: u64,
    length: u32,
    recv_skip_hint: u32,
}

/// Bytes that `TCP_ZEROCOPY_RECEIVE` maps, or says to read.
fn zerocopy_finds(sock: &TcpStream) -> Result<u32> {
    const ROOM: usize = 1 << 16;
    let (fd, mut ask) = (sock.as_raw_fd(), ZerocopyReceive::default());
    let mut len = size_of_val(&ask) as libc::socklen_t;
    // SAFETY: a new mapping, which nothing else knows; the other pointers are to live values.
    let done = unsafe {
        let at = libc::mmap(
            ptr::null_mut(),
            ROOM,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd,
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        (ask.address, ask.length) = (at as u64, u32::try_from(ROOM)?);
        let to = (&raw mut ask).cast();
        let done = libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            TCP_ZEROCOPY_RECEIVE,
            to,
            &raw mut len,
        );
        libc::munmap(at, ROOM);
        done
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    Ok(ask.length + ask.recv_skip_hint)
}

/// `sendmsg` of a byte with a control message of no known type.
fn send_with_nonsense(sock: &TcpStream) -> Option<i32> {
    const NO_TYPE: i32 = 999;
    let (mut byte, mut control) = ([0_u8], [0_u64; 4]);
    let mut piece = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: all zero is a valid, empty message; there is room for one header and an integer.
    let sent = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = NO_TYPE;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::sendmsg(sock.as_raw_fd(), &raw const message, 0)
    };
    (sent < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

/// Result and flags of a request. A thread that has had a ring is not enrolled any more, so each has a
/// thread of its own.
fn over_ring(request: &squeue::Entry) -> Result<(i32, u32)> {
    let run = || -> Result<(i32, u32)> {
        let mut ring = IoUring::new(1)?;
        // SAFETY: what the request points to outlives it: it is over when there is a completion.
        unsafe { ring.submission().push(request) }?;
        ring.submit_and_wait(1)?;
        let done = ring.completion().next().ok_or("a completion")?;
        Ok((done.result(), done.flags()))
    };
    thread::scope(|scope| scope.spawn(run).join()).expect("the ring's thread panicked")
}

/// What a call came to, or its errno below 0.
fn came_to(ret: isize) -> i64 {
    match ret {
        -1 => -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        ret => ret as i64,
    }
}

/// A page of memory, followed by one that may not be touched.
struct Edge(*mut libc::c_void, usize);

impl Edge {
    fn new() -> Result<Self> {
        let page = rustix::param::page_size();
        let (access, how) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping, and the second half of it.
        unsafe {
            let at = libc::mmap(ptr::null_mut(), 2 * page, access, how, -1, 0);
            if at == libc::MAP_FAILED
                || libc::mprotect(at.byte_add(page), page, libc::PROT_NONE) != 0
            {
                return Err(io::Error::last_os_error().into());
            }
            Ok(Self(at, page))
        }
    }

    /// So many bytes before the end of what may be touched.
    fn before(&self, bytes: usize) -> *mut libc::c_void {
        self.0.wrapping_byte_add(self.1 - bytes)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SAFETY: nobody has the mapping any more.
        unsafe { libc::munmap(self.0, 2 * self.1) };
    }
}

kernel_test! {
    /// It looks into TCP's receive queue (`tcp_zerocopy_receive`, net/ipv4/tcp.c).
    fn zerocopy_receive_does_not_find_redirected_data(cgroup: &Cgroup) -> Result {
        const SENT: usize = 12_288;
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, .. }| {
            write_all(&a, &[7; SENT])?;
            wait_for("the data", SOON, || unread(&b) == SENT)?;
            let found = zerocopy_finds(&b)?;
            assert_eq!(poll(&b, libc::POLLIN, Duration::ZERO), libc::POLLIN);
            Ok(found)
        })?;
        assert!(plain > 0);
        assert_eq!(redirected, 0);
        Ok(())
    }

    /// `tcp_bpf_sendmsg` (net/ipv4/tcp_bpf.c) does not read them.
    fn control_messages_of_sendmsg_are_not_read(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, client: _client, web: _web, .. }| {
            let error = send_with_nonsense(&a);
            if error.is_none() {
                read_all(&b, &mut [0])?;
            }
            Ok(error)
        })?;
        assert_eq!((plain, redirected), (Some(libc::EINVAL), None));
        Ok(())
    }

    /// A hint; a program without it asks again, and gets the data.
    fn io_uring_is_not_told_that_there_is_more(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, .. }| {
            write_all(&a, b"hello")?;
            wait_for("the data", SOON, || unread(&b) == 5)?;
            let mut byte = [0];
            let request = opcode::Recv::new(Fd(b.as_raw_fd()), byte.as_mut_ptr(), 1).build();
            let (result, flags) = over_ring(&request)?;
            assert_eq!((result, byte), (1, *b"h"));
            Ok(cqueue::sock_nonempty(flags))
        })?;
        assert_eq!((plain, redirected), (true, false));
        Ok(())
    }

    /// d/zero_copy has those who have a ring before.
    fn io_uring_does_not_send_without_a_copy_when_the_ring_came_later(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b: _b, .. }| {
            let bytes = b"hello";
            let request = opcode::SendZc::new(Fd(a.as_raw_fd()), bytes.as_ptr(), 5).build();
            Ok(over_ring(&request)?.0)
        })?;
        assert_eq!((plain, redirected), (5, -libc::EOPNOTSUPP));
        Ok(())
    }

    /// `tcp_bpf_sendmsg` forgets what went wrong, but not in Linux 6.12; nothing is sent on either path.
    fn send_from_memory_that_cannot_be_read_sends_nothing(cgroup: &Cgroup) -> Result {
        let edge = Edge::new()?;
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, client: _client, web: _web, .. }| {
            // SAFETY: the kernel checks what it reads.
            let sent = unsafe { libc::send(a.as_raw_fd(), edge.before(50), 100, 0) };
            let sent = came_to(sent);
            write_all(&a, b"x")?;
            let mut got = [0];
            read_all(&b, &mut got)?;
            assert_eq!(&got, b"x");
            Ok(sent)
        })?;
        let fault = -i64::from(libc::EFAULT);
        assert_eq!(plain, fault);
        assert!([0, fault].contains(&redirected), "{redirected}");
        Ok(())
    }

    /// All of a segment or nothing of it, but byte by byte of what is redirected; nothing is lost.
    fn recv_into_memory_that_ends_takes_what_fits(cgroup: &Cgroup) -> Result {
        let edge = Edge::new()?;
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, .. }| {
            write_all(&a, &[7; 100])?;
            wait_for("the data", SOON, || unread(&b) == 100)?;
            // SAFETY: the kernel checks what it writes.
            let got = unsafe { libc::recv(b.as_raw_fd(), edge.before(50), 100, 0) };
            let got = came_to(got);
            let mut rest = vec![0; 100 - usize::try_from(got).unwrap_or(0)];
            read_all(&b, &mut rest)?;
            assert!(rest.iter().all(|byte| *byte == 7));
            Ok(got)
        })?;
        assert_eq!((plain, redirected), (-i64::from(libc::EFAULT), 50));
        Ok(())
    }
}
