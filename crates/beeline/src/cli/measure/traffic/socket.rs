//! Stream sockets, TCP or Unix, as the loads need them.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout, set_tcp_nodelay};
use testbed::traffic::SocketOptions;

use super::{Load, STALL, Way};

/// A connected socket; blocking, each call within [`STALL`], until told otherwise.
#[derive(Debug)]
pub(super) struct Sock(OwnedFd);

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
                listener.set_nonblocking(false)?;
                Self::Tcp(listener)
            }
            Way::Unix(path) => {
                // Of the turn before.
                let _ = std::fs::remove_file(path);
                let listener = UnixListener::bind(path)
                    .with_context(|| format!("cannot listen on {}", path.display()))?;
                Self::Unix(listener)
            }
        };
        // It bounds accept(2), too.
        set_socket_timeout(&listener, Timeout::Recv, Some(STALL))?;
        Ok(listener)
    }

    /// As accept(2).
    pub(super) fn accept(&self, load: Load) -> io::Result<Sock> {
        match self {
            Self::Tcp(listener) => Sock::tcp(listener.accept()?.0, load),
            Self::Unix(listener) => Sock::bounded(listener.accept()?.0),
        }
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
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
            Way::Tcp { to, .. } => Self::tcp(TcpStream::connect_timeout(to, STALL)?, load),
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
        set_socket_timeout(&fd, Timeout::Recv, Some(STALL))?;
        set_socket_timeout(&fd, Timeout::Send, Some(STALL))?;
        Ok(Self(fd))
    }

    /// Whether calls return `WouldBlock` where they would wait.
    pub(super) fn set_nonblocking(&self, yes: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, yes)?)
    }
}

impl AsFd for Sock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Sock {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buf)?)
    }
}

impl Write for &Sock {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, buf)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
