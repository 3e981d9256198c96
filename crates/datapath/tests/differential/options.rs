//! Socket options as programs name them.

use std::os::fd::RawFd;

use super::outcome::Outcome;
use super::program::Opt;
use super::sys::{self, sys};

/// Level and name of an option that `setsockopt` takes as an integer.
fn name(opt: Opt) -> (i32, i32) {
    match opt {
        Opt::RcvLowat => (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
        Opt::NoDelay => (libc::SOL_TCP, libc::TCP_NODELAY),
        Opt::Cork => (libc::SOL_TCP, libc::TCP_CORK),
        Opt::UserTimeout => (libc::SOL_TCP, libc::TCP_USER_TIMEOUT),
        Opt::KeepAlive => (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        Opt::ZeroCopy => (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
        Opt::Inq => (libc::SOL_TCP, libc::TCP_INQ),
        Opt::PeekOff => (libc::SOL_SOCKET, libc::SO_PEEK_OFF),
        Opt::Timestamp => (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
        Opt::Linger => (libc::SOL_SOCKET, libc::SO_LINGER),
        Opt::SndBuf => (libc::SOL_SOCKET, libc::SO_SNDBUF),
        Opt::RcvBuf => (libc::SOL_SOCKET, libc::SO_RCVBUF),
        Opt::BusyPoll => (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
        Opt::Mark => (libc::SOL_SOCKET, libc::SO_MARK),
        Opt::Priority => (libc::SOL_SOCKET, libc::SO_PRIORITY),
        Opt::RcvTimeo => (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
        Opt::SndTimeo => (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
        Opt::Error | Opt::NonBlock => (libc::SOL_SOCKET, libc::SO_ERROR),
    }
}

/// Sets it.
pub fn set(fd: RawFd, opt: Opt, value: i32) -> Outcome {
    match opt {
        Opt::RcvTimeo | Opt::SndTimeo => sys::set_time(fd, name(opt).1, value),
        Opt::NonBlock => sys::non_blocking(fd, value != 0),
        Opt::Linger => sys::linger(fd, value),
        _ => sys::set(fd, name(opt).0, name(opt).1, value),
    }
}

/// Its value.
pub fn get(fd: RawFd, opt: Opt) -> Outcome {
    match opt {
        Opt::NonBlock => {
            let flags = sys!(libc::fcntl(fd, libc::F_GETFL));
            Outcome::from(if flags < 0 {
                flags
            } else {
                flags & libc::O_NONBLOCK
            })
        }
        _ => sys::get(fd, name(opt).0, name(opt).1),
    }
}
