//! Makes the calls of a program on the socket of one end.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use super::options;
use super::outcome::{Outcome, Seen, first_wrong, pattern};
use super::program::{Call, SendBy};
use super::recv::{self, error_queue};
use super::send::{self, from};
use super::sys::{self, sys};
use super::wait;

/// The descriptors of one end; all its threads use them.
pub struct End {
    /// Whose bytes it sends; the peer's are of the other seed.
    pub seed: u64,
    pub sock: AtomicI32,
    pub listener: AtomicI32,
    edge: AtomicI32,
    level: AtomicI32,
    /// What calls that do not copy have sent.
    lent: Mutex<Vec<Vec<u8>>>,
}

const ALL_EVENTS: i16 =
    libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP;

impl End {
    /// Without a socket.
    pub fn new(seed: u64) -> Self {
        let none = || AtomicI32::new(-1);
        Self {
            seed,
            sock: none(),
            listener: none(),
            edge: none(),
            level: none(),
            lent: Mutex::default(),
        }
    }

    fn fd(&self) -> RawFd {
        self.sock.load(Ordering::Relaxed)
    }

    /// Uses this socket from now on.
    pub fn adopt(&self, sock: RawFd) {
        self.sock.store(sock, Ordering::Relaxed);
    }

    /// Closes everything but the listener, without leaving a socket in TIME_WAIT.
    pub fn reset(&self) {
        for place in [&self.edge, &self.level] {
            close(place.swap(-1, Ordering::Relaxed));
        }
        let sock = self.sock.swap(-1, Ordering::Relaxed);
        if sock >= 0 {
            sys::linger(sock, 0);
            close(sock);
        }
        self.lent.lock().expect("not poisoned").clear();
    }

    /// What can be seen without changing anything.
    pub fn see(&self) -> Seen {
        let fd = self.fd();
        Seen {
            poll: if fd < 0 { 0 } else { sys::poll(fd, ALL_EVENTS) },
            unread: sys::ask(fd, libc::FIONREAD),
            state: sys::state(fd),
        }
    }

    /// Makes a call; what it sends starts at that place of the stream.
    pub fn call(&self, call: &Call, at: u64) -> Outcome {
        let fd = self.fd();
        match call {
            Call::Send { by, len, flags } => {
                let mut bytes = vec![0; *len];
                pattern(self.seed, at, &mut bytes);
                let outcome = send::send(fd, *by, &bytes, *flags);
                if flags & libc::MSG_ZEROCOPY != 0 || *by == SendBy::Vmsplice {
                    // The reader gets what is in these pages when it reads.
                    self.lent.lock().expect("not poisoned").push(bytes);
                }
                outcome
            }
            Call::Recv { by, len, flags } => recv::recv(fd, *by, *len, *flags),
            Call::Shutdown(how) => Outcome::from(sys!(libc::shutdown(fd, *how))),
            Call::Close | Call::Abort => {
                if *call == Call::Abort {
                    sys::linger(fd, 0);
                }
                close(self.sock.swap(-1, Ordering::Relaxed))
            }
            Call::Set(opt, value) => options::set(fd, *opt, *value),
            Call::Get(opt) => options::get(fd, *opt),
            Call::Epoll { edge } => self.epoll(*edge),
            Call::Wait(by) => wait::wait(fd, *by),
            Call::Outq => unsent(fd),
            Call::Disconnect => {
                // SAFETY: all zero is a valid address of no family.
                let none: libc::sockaddr_in = unsafe { std::mem::zeroed() };
                let len = size_of_val(&none) as libc::socklen_t;
                Outcome::from(sys!(libc::connect(fd, (&raw const none).cast(), len)))
            }
            Call::Dup => self.go_on_with(sys!(libc::dup(fd))),
            Call::Pass => self.go_on_with(passed(fd)),
            Call::ErrQueue => error_queue(fd),
            Call::Child(call) => self.in_child(call, at),
            Call::Signal { .. } | Call::Stop | Call::Pump { .. } | Call::Flood { .. } => {
                unreachable!("made by whoever runs the program")
            }
        }
    }

    fn go_on_with(&self, fd: RawFd) -> Outcome {
        if fd < 0 {
            return Outcome::errno();
        }
        close(self.sock.swap(fd, Ordering::Relaxed));
        Outcome::of(0)
    }

    /// The events of an epoll set that was made at the first such call.
    fn epoll(&self, edge: bool) -> Outcome {
        let place = if edge { &self.edge } else { &self.level };
        if place.load(Ordering::Relaxed) < 0 {
            let made = sys!(libc::epoll_create1(0));
            let how = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI;
            let how = how | if edge { libc::EPOLLET } else { 0 };
            let mut event = libc::epoll_event {
                events: how as u32,
                u64: 0,
            };
            sys!(libc::epoll_ctl(
                made,
                libc::EPOLL_CTL_ADD,
                self.fd(),
                &raw mut event
            ));
            place.store(made, Ordering::Relaxed);
        }
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let ret = sys!(libc::epoll_wait(
            place.load(Ordering::Relaxed),
            &raw mut event,
            1,
            0
        ));
        let mut outcome = Outcome::from(ret);
        let events = event.events;
        outcome.more.push(events.into());
        outcome
    }

    /// The child shares the socket, and is gone when this returns.
    fn in_child(&self, call: &Call, at: u64) -> Outcome {
        let (out, into) = sys::pipe();
        let child = sys!(libc::fork());
        if child == 0 {
            let outcome = self.call(call, at);
            sys::write(&into, &serde_json::to_vec(&outcome).expect("numbers"));
            sys!(libc::_exit(0));
        }
        drop(into);
        let told = sys::read(&out, 4096);
        if told.is_empty() {
            sys!(libc::kill(child, libc::SIGKILL));
        }
        while sys!(libc::waitpid(child, ptr::null_mut(), 0)) < 0 {}
        serde_json::from_slice(&told).unwrap_or(Outcome::of(i64::from(-libc::EINTR)))
    }

    /// Sends `len` bytes in pieces, waiting as long as it takes. The outcome is how many, and the
    /// error that ended it.
    pub fn send_all(&self, len: usize, piece: usize, at: u64) -> Outcome {
        let (mut done, mut bytes) = (0, vec![0; piece]);
        while done < len {
            let bytes = &mut bytes[..piece.min(len - done)];
            pattern(self.seed, at + done as u64, bytes);
            let sent = from(sys!(libc::send(
                self.fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0
            )));
            match sent.ret {
                n if n > 0 => done += n as usize,
                _ if sent.error() == libc::EAGAIN => {
                    sys::poll_for(self.fd(), libc::POLLOUT, -1);
                }
                error => {
                    return Outcome {
                        ret: done as i64,
                        more: vec![error],
                        hash: 0,
                    };
                }
            }
        }
        Outcome::of(done as i64)
    }

    /// Reads `len` bytes, which begin at that place of the peer's stream. The outcome is how many,
    /// where the first wrong one is, and the end or error that came before.
    pub fn recv_all(&self, len: usize, piece: usize, at: u64) -> Outcome {
        let (mut done, mut bytes) = (0, vec![0_u8; piece]);
        let mut outcome = Outcome::default();
        while done < len {
            let want = piece.min(len - done);
            let got = from(sys!(libc::recv(
                self.fd(),
                bytes.as_mut_ptr().cast(),
                want,
                0
            )));
            match got.ret {
                n if n > 0 => {
                    let wrong = first_wrong(3 - self.seed, at + done as u64, &bytes[..n as usize]);
                    if wrong != 0 {
                        outcome.more.extend([1, wrong]);
                        break;
                    }
                    done += n as usize;
                }
                _ if got.error() == libc::EAGAIN => {
                    sys::poll_for(self.fd(), libc::POLLIN, -1);
                }
                end => {
                    outcome.more.push(end);
                    break;
                }
            }
        }
        outcome.ret = done as i64;
        outcome
    }

    /// Sends until there is no room; never sleeps. The outcome is how many, and the errno.
    pub fn fill(&self, piece: usize, at: u64) -> Outcome {
        let (mut done, mut bytes) = (0_u64, vec![0; piece]);
        loop {
            pattern(self.seed, at + done, &mut bytes);
            let how = libc::MSG_DONTWAIT;
            let sent = from(sys!(libc::send(
                self.fd(),
                bytes.as_ptr().cast(),
                piece,
                how
            )));
            if sent.ret <= 0 || done > FLOOD {
                return Outcome {
                    ret: done as i64,
                    more: vec![sent.ret.min(0)],
                    hash: 0,
                };
            }
            done += sent.ret as u64;
        }
    }
}

/// Nobody takes that much without a reader.
const FLOOD: u64 = 64 << 20;

fn close(fd: RawFd) -> Outcome {
    Outcome::from(sys!(libc::close(fd)))
}

/// Longer than a peer may delay its acknowledgement (`TCP_DELACK_MAX`, include/net/tcp.h).
const LONGEST_DELAY: Duration = Duration::from_millis(300);

/// `SIOCOUTQ`, when it is 0 or after longer than the peer may delay its acknowledgement.
fn unsent(fd: RawFd) -> Outcome {
    let end = Instant::now() + LONGEST_DELAY;
    loop {
        let unsent = sys::ask(fd, libc::TIOCOUTQ);
        if unsent <= 0 || Instant::now() > end {
            return Outcome::of(unsent);
        }
        sys!(libc::poll(ptr::null_mut(), 0, 1));
    }
}

/// The same socket after a journey through a Unix socket.
fn passed(fd: RawFd) -> RawFd {
    let (a, b) = sys::packets();
    let mut control = [0_u64; 4];
    let mut byte = [0_u8];
    let mut piece = [libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    }];
    let mut message = send::message(&mut piece);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = sys!(libc::CMSG_SPACE(4)) as usize;
    // SAFETY: there is room for one header and a descriptor.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
    }
    if sys!(libc::sendmsg(a.as_raw_fd(), &raw const message, 0)) < 0 {
        return -1;
    }
    sys!(libc::recvmsg(b.as_raw_fd(), &raw mut message, 0));
    // SAFETY: what arrived is what was sent.
    unsafe {
        libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&raw const message))
            .cast::<i32>()
            .read_unaligned()
    }
}
