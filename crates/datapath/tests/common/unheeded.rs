//! Options that redirected data would not heed (has_option, bpf/lib/sock.h).

use std::io;
use std::os::fd::BorrowedFd;

use socket2::{SockFilter, SockRef};

use super::set_option;

/// include/uapi/linux/tcp.h
const TCP_INQ: i32 = 36;

/// include/uapi/linux/net_tstamp.h: SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE
const TELL_ARRIVALS: i32 = 1 << 3 | 1 << 4;

/// Sets one on a socket, or on a listener.
pub type Set = fn(BorrowedFd<'_>) -> io::Result<()>;

/// All of them, by their names.
pub const OPTIONS: [(&str, Set); 8] = [
    ("SO_ZEROCOPY", zero_copy),
    ("SO_RCVLOWAT", |sock| of_socket(sock, libc::SO_RCVLOWAT, 2)),
    ("SO_PEEK_OFF", peek_off),
    ("TCP_INQ", inq),
    ("SO_TIMESTAMP", timestamp),
    ("SO_TIMESTAMPING", timestamping),
    ("SO_MAX_PACING_RATE", |sock| {
        of_socket(sock, libc::SO_MAX_PACING_RATE, 1 << 30)
    }),
    ("SO_ATTACH_FILTER", |sock| filter(sock, ALL)),
];

/// How much of a segment a filter lets through.
pub const ALL: u32 = u32::MAX;
pub const NOTHING: u32 = 0;

pub fn of_socket(sock: BorrowedFd<'_>, name: i32, value: i32) -> io::Result<()> {
    set_option(sock, libc::SOL_SOCKET, name, value)
}

pub fn zero_copy(sock: BorrowedFd<'_>) -> io::Result<()> {
    of_socket(sock, libc::SO_ZEROCOPY, 1)
}

pub fn peek_off(sock: BorrowedFd<'_>) -> io::Result<()> {
    of_socket(sock, libc::SO_PEEK_OFF, 0)
}

pub fn inq(sock: BorrowedFd<'_>) -> io::Result<()> {
    set_option(sock, libc::IPPROTO_TCP, TCP_INQ, 1)
}

pub fn timestamp(sock: BorrowedFd<'_>) -> io::Result<()> {
    of_socket(sock, libc::SO_TIMESTAMP, 1)
}

pub fn timestamping(sock: BorrowedFd<'_>) -> io::Result<()> {
    of_socket(sock, libc::SO_TIMESTAMPING, TELL_ARRIVALS)
}

/// A classic filter of one instruction.
pub fn filter(sock: BorrowedFd<'_>, verdict: u32) -> io::Result<()> {
    let code = (libc::BPF_RET | libc::BPF_K) as u16;
    SockRef::from(&sock).attach_filter(&[SockFilter::new(code, 0, 0, verdict)])
}
