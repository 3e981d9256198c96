//! All the ways to wait for something to read.

use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use super::outcome::Outcome;
use super::program::WaitBy;
use super::sys::{own, sys};

/// Sleeps until the socket is readable; what else the call tells are its events.
pub fn wait(fd: RawFd, by: WaitBy) -> Outcome {
    match by {
        WaitBy::Poll | WaitBy::Ppoll => polled(fd, by == WaitBy::Ppoll),
        WaitBy::Select | WaitBy::Pselect => selected(fd, by == WaitBy::Pselect),
        WaitBy::Epoll => Epoll::of(fd, 0).wait(-1),
        WaitBy::EpollEdge => Epoll::of(fd, libc::EPOLLET).wait(-1),
        WaitBy::EpollExclusive => Epoll::of(fd, libc::EPOLLEXCLUSIVE).wait(-1),
        WaitBy::EpollOneshot => once(fd),
    }
}

/// `POLLIN` and `POLLRDHUP`: an end that nobody reads shows as well.
fn polled(fd: RawFd, signals: bool) -> Outcome {
    let mut one = libc::pollfd {
        fd,
        events: libc::POLLIN | libc::POLLRDHUP,
        revents: 0,
    };
    let none = ptr::null();
    let ret = if signals {
        sys!(libc::ppoll(&raw mut one, 1, none, ptr::null()))
    } else {
        sys!(libc::poll(&raw mut one, 1, -1))
    };
    with(Outcome::from(ret), one.revents.into())
}

fn selected(fd: RawFd, signals: bool) -> Outcome {
    // SAFETY: all zero is an empty set.
    let mut set: libc::fd_set = unsafe { mem::zeroed() };
    let (none, no_set) = (ptr::null_mut(), ptr::null_mut());
    if fd < 0 {
        return Outcome::of(i64::from(-libc::EBADF));
    }
    sys!(libc::FD_SET(fd, &raw mut set));
    let ret = if signals {
        let (time, mask) = (ptr::null(), ptr::null());
        sys!(libc::pselect(
            fd + 1,
            &raw mut set,
            no_set,
            no_set,
            time,
            mask
        ))
    } else {
        sys!(libc::select(fd + 1, &raw mut set, no_set, no_set, none))
    };
    with(
        Outcome::from(ret),
        sys!(libc::FD_ISSET(fd, &raw const set)).into(),
    )
}

fn with(mut outcome: Outcome, told: i64) -> Outcome {
    if outcome.ret > 0 {
        outcome.more.push(told);
    }
    outcome
}

/// An epoll set with one socket.
struct Epoll {
    set: OwnedFd,
    /// What adding the socket came to.
    added: Outcome,
}

impl Epoll {
    fn of(fd: RawFd, flags: i32) -> Self {
        let set = own(sys!(libc::epoll_create1(0)));
        let mut it = Self {
            set,
            added: Outcome::default(),
        };
        it.added = it.control(libc::EPOLL_CTL_ADD, fd, flags);
        it
    }

    fn control(&self, how: i32, fd: RawFd, flags: i32) -> Outcome {
        // EPOLLEXCLUSIVE goes with no others.
        let hangup = if flags == libc::EPOLLEXCLUSIVE {
            0
        } else {
            libc::EPOLLRDHUP
        };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | hangup | flags) as u32,
            u64: 0,
        };
        Outcome::from(sys!(libc::epoll_ctl(
            self.set.as_raw_fd(),
            how,
            fd,
            &raw mut event
        )))
    }

    fn wait(&self, millis: i32) -> Outcome {
        if self.added.ret < 0 {
            return self.added.clone();
        }
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let ret = sys!(libc::epoll_wait(
            self.set.as_raw_fd(),
            &raw mut event,
            1,
            millis
        ));
        let events = event.events;
        with(Outcome::from(ret), events.into())
    }
}

fn once(fd: RawFd) -> Outcome {
    let epoll = Epoll::of(fd, libc::EPOLLONESHOT);
    let mut outcome = epoll.wait(-1);
    if outcome.ret > 0 {
        outcome.more.push(epoll.wait(0).ret);
        epoll.control(libc::EPOLL_CTL_MOD, fd, libc::EPOLLONESHOT);
        outcome.more.extend(epoll.wait(0).more);
    }
    outcome
}
