//! Connections over the loopback address.

use std::os::fd::RawFd;
use std::ptr;

use super::outcome::Outcome;
use super::sys::{self, sys};
use crate::common::SOON;

/// A listener on a free port of the loopback address; the outcome is the port.
pub fn listen() -> (RawFd, Outcome) {
    let fd = sys!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0));
    let mut addr = address(0);
    let mut len = size_of_val(&addr) as libc::socklen_t;
    sys!(libc::bind(fd, (&raw const addr).cast(), len));
    sys!(libc::listen(fd, 8));
    sys!(libc::getsockname(fd, (&raw mut addr).cast(), &raw mut len));
    (fd, Outcome::of(u16::from_be(addr.sin_port).into()))
}

/// A connection to that port.
pub fn connect(port: u16, non_blocking: bool) -> RawFd {
    let fd = sys!(libc::socket(
        libc::AF_INET,
        libc::SOCK_STREAM | flag(non_blocking),
        0
    ));
    let addr = address(port);
    let len = size_of_val(&addr) as libc::socklen_t;
    let done = sys!(libc::connect(fd, (&raw const addr).cast(), len));
    let outcome = Outcome::errno();
    assert!(
        done == 0 || outcome.error() == libc::EINPROGRESS,
        "connect: {outcome}"
    );
    assert_eq!(
        sys::poll_for(fd, libc::POLLOUT, SOON.as_millis() as i32) & libc::POLLOUT,
        libc::POLLOUT
    );
    fd
}

/// The connection that came.
pub fn accept(listener: RawFd, non_blocking: bool) -> RawFd {
    sys::poll_for(listener, libc::POLLIN, SOON.as_millis() as i32);
    sys!(libc::accept4(
        listener,
        ptr::null_mut(),
        ptr::null_mut(),
        flag(non_blocking)
    ))
}

fn flag(non_blocking: bool) -> i32 {
    if non_blocking { libc::SOCK_NONBLOCK } else { 0 }
}

fn address(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    }
}
