//! Stream sockets, TCP or Unix, as the loads need them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use testbed::traffic::SocketOptions;

use super::{Load, STALL, Way};

/// A connected socket. It has O_NONBLOCK, as those that Beeline redirects; a call that cannot go on
/// waits in poll(2) for [`STALL`] at most, until told otherwise.
#[derive(Debug)]
pub(super) struct Sock {
    fd: OwnedFd,
    waits: bool,
}

/// Who waits for connections.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn bind(way: &Way) -> Result<Self> {
        let listener = match way {
            Way::Tcp { listen, .. } => {
                let (listener, _) = SocketOptions::new().listen(*listen)?;
                Self::Tcp(listener)
            }
            Way::Unix(path) => {
                // Of the turn before.
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path)
                    .with_context(|| format!("cannot listen on {}", path.display()))?;
                listener.set_nonblocking(true)?;
                Self::Unix(listener)
            }
        };
        Ok(listener)
    }

    /// As accept(2) on a listener that does not block.
    pub(super) fn accept(&self, load: Load) -> io::Result<Sock> {
        match self {
            Self::Tcp(listener) => Sock::tcp(listener.accept()?.0, load),
            Self::Unix(listener) => Sock::bounded(listener.accept()?.0),
        }
    }

    /// Waits until somebody connects.
    pub(super) fn wait(&self) -> io::Result<()> {
        wait(self.as_fd(), PollFlags::IN)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Sock {
    /// Connects to where the way leads.
    pub(super) fn connect(way: &Way, load: Load) -> io::Result<Self> {
        match way {
            Way::Tcp { to, .. } => {
                let sock = SocketOptions::new().connect(*to);
                Self::tcp(sock.map_err(io::Error::other)?, load)
            }
            Way::Unix(path) => Self::bounded(UnixStream::connect(path)?),
        }
    }

    /// Requests shall not wait for more to send. A stream leaves that to the kernel, as programs that
    /// stream do: on the kernel path, small writes go out together then.
    fn tcp(sock: TcpStream, load: Load) -> io::Result<Self> {
        set_tcp_nodelay(&sock, load != Load::Stream)?;
        Self::bounded(sock)
    }

    fn bounded(sock: impl Into<OwnedFd>) -> io::Result<Self> {
        let fd = sock.into();
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { fd, waits: true })
    }

    /// Whether calls wait where they would return `WouldBlock`.
    pub(super) fn set_waits(&mut self, yes: bool) {
        self.waits = yes;
    }

    /// Waits until there is something to read, or the end of the stream.
    pub(super) fn wait_readable(&self) -> io::Result<()> {
        wait(self.fd.as_fd(), PollFlags::IN)
    }

    /// Repeats a call when it can go on.
    fn patiently(
        &self,
        events: PollFlags,
        mut call: impl FnMut(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match call(&self.fd) {
                Err(Errno::AGAIN) if self.waits => wait(self.fd.as_fd(), events)?,
                done => return Ok(done?),
            }
        }
    }
}

/// Waits for [`STALL`] at most.
fn wait(fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    let stall = Timespec::try_from(STALL).map_err(io::Error::other)?;
    match poll(&mut [PollFd::from_borrowed_fd(fd, events)], Some(&stall)) {
        Ok(0) => Err(ErrorKind::WouldBlock.into()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for Sock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Read for &Sock {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::IN, |fd| rustix::io::read(fd, &mut *buf))
    }
}

impl Write for &Sock {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::OUT, |fd| rustix::io::write(fd, buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
