//! System calls as the programs under test make them: raw, so that nothing hides a result.

use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::outcome::Outcome;

/// A call whose every pointer is to a live value of the length it says.
macro_rules! sys {
    ($call:expr) => {{
        // SAFETY: every pointer passed is to a live value of the length passed with it.
        #[allow(unused_unsafe)]
        unsafe {
            $call
        }
    }};
}
pub(crate) use sys;

/// `setsockopt` of an integer.
pub fn set(fd: RawFd, level: i32, name: i32, value: i32) -> Outcome {
    let value: libc::c_int = value;
    let len = mem::size_of_val(&value) as libc::socklen_t;
    Outcome::from(sys!(libc::setsockopt(
        fd,
        level,
        name,
        (&raw const value).cast(),
        len
    )))
}

/// `setsockopt` of a time in milliseconds.
pub fn set_time(fd: RawFd, name: i32, millis: i32) -> Outcome {
    let time = libc::timeval {
        tv_sec: i64::from(millis) / 1000,
        tv_usec: i64::from(millis) % 1000 * 1000,
    };
    let len = mem::size_of_val(&time) as libc::socklen_t;
    Outcome::from(sys!(libc::setsockopt(
        fd,
        libc::SOL_SOCKET,
        name,
        (&raw const time).cast(),
        len
    )))
}

/// `SO_LINGER`, for so many seconds.
pub fn linger(fd: RawFd, seconds: i32) -> Outcome {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: seconds,
    };
    let len = mem::size_of_val(&linger) as libc::socklen_t;
    Outcome::from(sys!(libc::setsockopt(
        fd,
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        (&raw const linger).cast(),
        len
    )))
}

/// `getsockopt` of an integer; the value is the outcome.
pub fn get(fd: RawFd, level: i32, name: i32) -> Outcome {
    let mut value: libc::c_int = 0;
    let mut len = mem::size_of_val(&value) as libc::socklen_t;
    match sys!(libc::getsockopt(
        fd,
        level,
        name,
        (&raw mut value).cast(),
        &raw mut len
    )) {
        0 => Outcome::of(value.into()),
        _ => Outcome::errno(),
    }
}

/// An `ioctl` that tells an integer.
pub fn ask(fd: RawFd, request: libc::Ioctl) -> i64 {
    let mut value: libc::c_int = 0;
    match sys!(libc::ioctl(fd, request, &raw mut value)) {
        0 => value.into(),
        _ => Outcome::errno().ret,
    }
}

/// The TCP state.
pub fn state(fd: RawFd) -> i64 {
    let mut state = 0_u8;
    let mut len = 1;
    match sys!(libc::getsockopt(
        fd,
        libc::SOL_TCP,
        libc::TCP_INFO,
        (&raw mut state).cast(),
        &raw mut len
    )) {
        0 => state.into(),
        _ => Outcome::errno().ret,
    }
}

/// `poll` with no time to wait.
pub fn poll(fd: RawFd, events: i16) -> i16 {
    poll_for(fd, events, 0)
}

/// `poll`; 0 when the time is over.
pub fn poll_for(fd: RawFd, events: i16, millis: i32) -> i16 {
    let mut one = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    sys!(libc::poll(&raw mut one, 1, millis));
    one.revents
}

/// Sets or clears `O_NONBLOCK`.
pub fn non_blocking(fd: RawFd, on: bool) -> Outcome {
    let flags = sys!(libc::fcntl(fd, libc::F_GETFL));
    let flags = if on {
        flags | libc::O_NONBLOCK
    } else {
        flags & !libc::O_NONBLOCK
    };
    Outcome::from(sys!(libc::fcntl(fd, libc::F_SETFL, flags)))
}

/// A pipe large enough for any single call.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    assert_eq!(sys!(libc::pipe(fds.as_mut_ptr())), 0, "pipe");
    sys!(libc::fcntl(fds[1], libc::F_SETPIPE_SZ, 1 << 20));
    (own(fds[0]), own(fds[1]))
}

/// Two connected Unix sockets that keep messages apart.
pub fn packets() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    let made = sys!(libc::socketpair(
        libc::AF_UNIX,
        libc::SOCK_SEQPACKET,
        0,
        fds.as_mut_ptr()
    ));
    assert_eq!(made, 0, "socketpair");
    (own(fds[0]), own(fds[1]))
}

/// Takes a descriptor that a call just returned.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is new, and nobody else closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Reads into a new vector.
pub fn read(fd: &impl AsRawFd, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let got = sys!(libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), len));
    bytes.truncate(got.max(0) as usize);
    bytes
}

/// Writes all of it; pipes and control sockets take it.
pub fn write(fd: &impl AsRawFd, bytes: &[u8]) -> bool {
    sys!(libc::write(
        fd.as_raw_fd(),
        bytes.as_ptr().cast(),
        bytes.len()
    )) == bytes.len() as isize
}
