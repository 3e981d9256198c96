//! Signals that sockets send are those of plain TCP (invariant 2): SIGIO and SIGPIPE.

mod common;

use std::io::{self, ErrorKind};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{Connection, Result, SOON, fill_up, poll, same_on_both_paths, seed};
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{read_all, write_all};
use testbed::{Cgroup, kernel_test, wait_for};

/// include/uapi/asm-generic/fcntl.h, siginfo.h
const F_SETSIG: i32 = 10;
const F_SETOWN_EX: i32 = 15;
const F_OWNER_TID: i32 = 0;
const POLL_IN: i32 = 1;
const POLL_OUT: i32 = 2;

/// Signals that this thread takes when it likes.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn new(signal: i32) -> Self {
        // SAFETY: the set is filled in before it is used.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    /// The next one, with its `si_code`.
    fn take(&self, patience: Duration) -> Option<i32> {
        // SAFETY: all pointers are to live values.
        unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            let time = libc::timespec {
                tv_sec: patience.as_secs().cast_signed(),
                tv_nsec: 0,
            };
            let taken = libc::sigtimedwait(&raw const self.0, &raw mut info, &raw const time);
            (taken > 0).then_some(info.si_code)
        }
    }

    /// The first one of what comes next.
    fn next(&self) -> Option<i32> {
        let next = self.take(SOON);
        while self.take(Duration::ZERO).is_some() {}
        next
    }
}

/// `O_ASYNC`: the socket tells this thread.
fn tells_by(sock: &TcpStream, signal: i32) -> Result {
    // struct f_owner_ex, include/uapi/asm-generic/fcntl.h
    let (fd, owner) = (sock.as_raw_fd(), [F_OWNER_TID, own_tid()]);
    // SAFETY: the pointer is to a live structure of two integers.
    let set = unsafe {
        libc::fcntl(fd, F_SETOWN_EX, owner.as_ptr()) == 0
            && libc::fcntl(fd, F_SETSIG, signal) == 0
            && libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC) == 0
    };
    if set {
        Ok(())
    } else {
        Err(io::Error::last_os_error().into())
    }
}

fn own_tid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// What a send comes to, and whether it raised SIGPIPE.
fn sends(sock: &TcpStream, flags: i32, pipe: &Blocked) -> (Option<ErrorKind>, bool) {
    let sent = SockRef::from(sock).send_with_flags(b"x", flags);
    (
        sent.err().map(|error| error.kind()),
        pipe.take(Duration::ZERO).is_some(),
    )
}

kernel_test! {
    fn reader_is_told_of_data_and_of_its_end(cgroup: &Cgroup) -> Result {
        let signal = libc::SIGRTMIN() + 4;
        let codes = same_on_both_paths(cgroup, |Connection { a, b, client: _client, web: _web, .. }| {
            let told = Blocked::new(signal);
            tells_by(&b, signal)?;
            let mut codes = Vec::new();
            for _ in 0..3 {
                write_all(&a, b"x")?;
                codes.push(told.next());
                read_all(&b, &mut [0])?;
            }
            a.shutdown(Shutdown::Write)?;
            codes.push(told.next());
            Ok(codes)
        })?;
        assert_eq!(codes, [Some(POLL_IN); 4]);
        Ok(())
    }

    fn sender_is_told_when_there_is_room(cgroup: &Cgroup) -> Result {
        let signal = libc::SIGRTMIN() + 4;
        let code = same_on_both_paths(cgroup, |Connection { mut a, b, .. }| {
            let told = Blocked::new(signal);
            tells_by(&a, signal)?;
            let seed = seed();
            let filled = fill_up(&mut a, &mut Pattern::new(seed))?;
            while told.take(Duration::ZERO).is_some() {}
            let mut got = vec![0; usize::try_from(filled)?];
            read_all(&b, &mut got)?;
            assert_eq!(Pattern::new(seed).differs(&got), None);
            Ok(told.next())
        })?;
        assert_eq!(code, Some(POLL_OUT));
        Ok(())
    }

    fn sigpipe_is_raised_as_often_and_not_when_unwanted(cgroup: &Cgroup) -> Result {
        for flags in [0, libc::MSG_NOSIGNAL] {
            let outcomes = same_on_both_paths(cgroup, |Connection { a, b, .. }| {
                let pipe = Blocked::new(libc::SIGPIPE);
                b.shutdown(Shutdown::Write)?;
                let own = sends(&b, flags, &pipe);
                drop(b);
                // The first one is answered with a reset.
                let first = sends(&a, flags, &pipe);
                wait_for("the reset", SOON, || poll(&a, 0, Duration::ZERO) & libc::POLLERR != 0)?;
                Ok([own, first, sends(&a, flags, &pipe), sends(&a, flags, &pipe)])
            })?;
            let raised = flags == 0;
            let broken = (Some(ErrorKind::BrokenPipe), raised);
            assert_eq!(outcomes, [broken, (None, false), broken, broken]);
        }
        Ok(())
    }
}
