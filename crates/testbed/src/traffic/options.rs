//! Sockets with options that std does not know.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{PEER, STALL, prepare};
use crate::error::{Result, Tried};

/// Connections waiting for accept(2).
const BACKLOG: i32 = 1024;

/// Options of a socket to be made.
#[derive(Debug, Clone, Default)]
pub struct SocketOptions {
    mptcp: bool,
    only_v6: Option<bool>,
    reuse_address: bool,
    reuse_port: bool,
    fast_open: bool,
    mark: Option<u32>,
    bind: Option<SocketAddr>,
    receive_buffer: Option<usize>,
    send_buffer: Option<usize>,
}

impl SocketOptions {
    /// None: as std makes sockets, listeners with SO_REUSEADDR.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Multipath TCP (`IPPROTO_MPTCP`).
    #[must_use]
    pub fn mptcp(mut self) -> Self {
        self.mptcp = true;
        self
    }

    /// Whether an IPv6 socket leaves IPv4 alone (`IPV6_V6ONLY`); with false it serves mapped addresses, too.
    #[must_use]
    pub fn only_v6(mut self, only: bool) -> Self {
        self.only_v6 = Some(only);
        self
    }

    /// The own address may be one of an earlier connection (`SO_REUSEADDR`); listeners have it anyway.
    #[must_use]
    pub fn reuse_address(mut self) -> Self {
        self.reuse_address = true;
        self
    }

    /// Several listeners on one port (`SO_REUSEPORT`).
    #[must_use]
    pub fn reuse_port(mut self) -> Self {
        self.reuse_port = true;
        self
    }

    /// TCP Fast Open: the first write goes with the SYN (`TCP_FASTOPEN_CONNECT`). Listeners need
    /// [`NetNs::fast_open`](crate::NetNs::fast_open).
    #[must_use]
    pub fn fast_open(mut self) -> Self {
        self.fast_open = true;
        self
    }

    /// A firewall mark (`SO_MARK`).
    #[must_use]
    pub fn mark(mut self, mark: u32) -> Self {
        self.mark = Some(mark);
        self
    }

    /// The own address of a client.
    #[must_use]
    pub fn bind(mut self, addr: impl Into<SocketAddr>) -> Self {
        self.bind = Some(addr.into());
        self
    }

    /// Size of the receive buffer in bytes (`SO_RCVBUF`; the kernel doubles it).
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Size of the send buffer in bytes (`SO_SNDBUF`; the kernel doubles it).
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// Listens on `addr`; returns the listener and the address with its port.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) when an option or the address is refused.
    pub fn listen(&self, addr: impl Into<SocketAddr>) -> Result<(TcpListener, SocketAddr)> {
        let addr = addr.into();
        self.listener(addr)
            .tried("is it an address of this namespace?", || {
                format!("listen on {addr} with {self:?}")
            })
    }

    /// Connects to `addr` within [`STALL`].
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) when an option is refused, or the connection is refused or not answered.
    pub fn connect(&self, addr: impl Into<SocketAddr>) -> Result<TcpStream> {
        self.connect_deadline(addr, STALL)
    }

    /// Connects to `addr` within `deadline`.
    ///
    /// # Errors
    /// As [`SocketOptions::connect`].
    pub fn connect_deadline(
        &self,
        addr: impl Into<SocketAddr>,
        deadline: Duration,
    ) -> Result<TcpStream> {
        let addr = addr.into();
        self.client(addr, deadline)
            .tried(PEER, || format!("connect to {addr} with {self:?}"))
    }

    fn listener(&self, addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let sock = self.socket(addr)?;
        sock.set_reuse_address(true)?;
        // It bounds accept(2), too.
        sock.set_read_timeout(Some(STALL))?;
        sock.bind(&addr.into())?;
        sock.listen(BACKLOG)?;
        sock.set_nonblocking(true)?;
        let listener = TcpListener::from(sock);
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    }

    pub(super) fn client(&self, addr: SocketAddr, deadline: Duration) -> io::Result<TcpStream> {
        let sock = self.socket(addr)?;
        if let Some(own) = self.bind {
            sock.bind(&own.into())?;
        }
        if self.fast_open {
            setsockopt(&sock, sockopt::TcpFastOpenConnect, &true)?;
            // Returns at once; the SYN goes out with the first write.
            sock.connect(&addr.into())?;
        } else {
            connect(&sock, addr, deadline)?;
        }
        prepare(sock.into())
    }

    fn socket(&self, addr: SocketAddr) -> io::Result<Socket> {
        let protocol = if self.mptcp {
            Protocol::MPTCP
        } else {
            Protocol::TCP
        };
        let sock = Socket::new(Domain::for_address(addr), Type::STREAM, Some(protocol))?;
        if let Some(only) = self.only_v6 {
            sock.set_only_v6(only)?;
        }
        if let Some(mark) = self.mark {
            sock.set_mark(mark)?;
        }
        if let Some(bytes) = self.receive_buffer {
            sock.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer {
            sock.set_send_buffer_size(bytes)?;
        }
        sock.set_reuse_address(self.reuse_address)?;
        sock.set_reuse_port(self.reuse_port)?;
        Ok(sock)
    }
}

/// connect(2) on a socket that does not block from the beginning to the end, unlike std's.
///
/// # Errors
/// As connect(2), and `TimedOut` after `deadline`.
pub fn connect(sock: &Socket, addr: SocketAddr, deadline: Duration) -> io::Result<()> {
    sock.set_nonblocking(true)?;
    match sock.connect(&addr.into()) {
        Err(err) if err.raw_os_error() == Some(libc::EINPROGRESS) => {}
        done => return done,
    }
    let timeout = PollTimeout::try_from(deadline).unwrap_or(PollTimeout::MAX);
    match poll(
        &mut [PollFd::new(sock.as_fd(), PollFlags::POLLOUT)],
        timeout,
    )? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => sock.take_error()?.map_or(Ok(()), Err),
    }
}
