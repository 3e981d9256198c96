//! Traffic peers: what clients, servers and sidecars do with TCP sockets.
//!
//! No call hangs for ever: whoever makes no progress for [`STALL`] fails. All work on blocking and on non-blocking
//! sockets. Those made here do not block, as those of most servers and proxies do not.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{SocketFlags, accept_with};
use socket2::SockRef;

use crate::error::{Result, Tried};
use crate::netns::NetNs;

pub mod options;
pub mod pattern;
pub mod proxy;
pub mod rr;
pub mod stream;

pub use options::SocketOptions;

/// How long a peer waits for progress before it gives up.
pub const STALL: Duration = Duration::from_secs(20);

const PEER: &str = "is the peer alive, do the host's rules let it through?";

/// Listens on an address, port 0 for any; returns the listener and the address with its port.
///
/// # Errors
/// [`Error::Os`](crate::Error::Os) when the address cannot be bound.
pub fn listen(addr: impl Into<SocketAddr>) -> Result<(TcpListener, SocketAddr)> {
    let addr = addr.into();
    TcpListener::bind(addr)
        .and_then(|listener| {
            // It bounds accept(2), too.
            SockRef::from(&listener).set_read_timeout(Some(STALL))?;
            listener.set_nonblocking(true)?;
            let addr = listener.local_addr()?;
            Ok((listener, addr))
        })
        .tried("is it an address of this namespace?", || {
            format!("listen on {addr}")
        })
}

/// Accepts one connection within [`STALL`].
///
/// # Errors
/// [`Error::Os`](crate::Error::Os) when none comes.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let accepted = patiently(listener, PollFlags::POLLIN, || accept_now(listener));
    let prepared = accepted.and_then(|sock| bounded(&sock).map(|()| sock));
    prepared.tried(PEER, || format!("accept on {:?}", listener.local_addr()))
}

/// As accept(2), and the socket has never blocked, unlike one that std accepts.
///
/// # Errors
/// As accept(2).
pub fn accept_now(listener: &TcpListener) -> io::Result<TcpStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(accept_with(listener, flags)?.into())
}

/// Connects within [`STALL`].
///
/// # Errors
/// [`Error::Os`](crate::Error::Os) when it is refused or not answered.
pub fn connect(addr: impl Into<SocketAddr>) -> Result<TcpStream> {
    connect_deadline(addr, STALL)
}

/// Connects within `deadline`.
///
/// # Errors
/// [`Error::Os`](crate::Error::Os) when it is refused or not answered.
pub fn connect_deadline(addr: impl Into<SocketAddr>, deadline: Duration) -> Result<TcpStream> {
    let addr = addr.into();
    let until = Instant::now() + deadline;
    let connected = loop {
        match SocketOptions::new().client(addr, deadline) {
            // Nobody answered ARP: on a busy machine the answers of a new link may come too late.
            Err(error) if error.kind() == ErrorKind::HostUnreachable && Instant::now() < until => {}
            other => break other,
        }
    };
    connected.tried(PEER, || format!("connect to {addr}"))
}

/// What every socket made here is: non-blocking, and bounded for whoever makes it block.
pub(crate) fn prepare(sock: TcpStream) -> io::Result<TcpStream> {
    bounded(&sock)?;
    sock.set_nonblocking(true)?;
    Ok(sock)
}

/// Gives a socket that has no timeouts those of [`STALL`], for sockets that were not made here.
///
/// # Errors
/// When it is not a socket that can have timeouts.
pub fn bounded(sock: &TcpStream) -> io::Result<()> {
    if sock.read_timeout()?.is_none() {
        sock.set_read_timeout(Some(STALL))?;
    }
    if sock.write_timeout()?.is_none() {
        sock.set_write_timeout(Some(STALL))?;
    }
    Ok(())
}

/// A connection from one namespace to another's address `ip`: the client's end and the server's end.
///
/// # Errors
/// [`Error::Os`](crate::Error::Os) when it cannot be made.
pub fn pair(
    client: &NetNs,
    server: &NetNs,
    ip: impl Into<IpAddr>,
) -> Result<(TcpStream, TcpStream)> {
    let (listener, addr) = server.listen((ip.into(), 0))?;
    let client = client.connect(addr)?;
    Ok((client, accept(&listener)?))
}

impl NetNs {
    /// As [`listen`], in this namespace. The listener belongs to it, whoever uses it.
    ///
    /// # Errors
    /// As [`listen`].
    pub fn listen(&self, addr: impl Into<SocketAddr>) -> Result<(TcpListener, SocketAddr)> {
        let addr = addr.into();
        self.run(|| listen(addr))?
    }

    /// As [`connect`], from this namespace. The connection belongs to it, whoever uses it.
    ///
    /// # Errors
    /// As [`connect`].
    pub fn connect(&self, addr: impl Into<SocketAddr>) -> Result<TcpStream> {
        let addr = addr.into();
        self.run(|| connect(addr))?
    }
}

/// Reads what is there, at most `buf`; 0 at the end of the stream.
///
/// A blocking socket that was not made here needs [`bounded`] first, as for the other functions on bytes.
///
/// # Errors
/// As read(2), and `TimedOut` when nothing came for [`STALL`].
pub fn read(mut sock: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    patiently(sock, PollFlags::POLLIN, || sock.read(buf))
}

/// Reads all of `buf`.
///
/// # Errors
/// As [`read`], and `UnexpectedEof` when the stream ended before.
pub fn read_all(sock: &TcpStream, buf: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match read(sock, &mut buf[done..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// Writes all of `buf`.
///
/// # Errors
/// As write(2), and `TimedOut` when nothing could be written for [`STALL`].
pub fn write_all(mut sock: &TcpStream, buf: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        done += patiently(sock, PollFlags::POLLOUT, || sock.write(&buf[done..]))?;
    }
    Ok(())
}

/// Repeats a call until it does something else than to say "not now"; `TimedOut` after [`STALL`].
fn patiently<T>(
    fd: impl AsFd,
    events: PollFlags,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let deadline = Instant::now() + STALL;
    loop {
        match call() {
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            // From a non-blocking socket at once, from a blocking one when its own timeout is over.
            Err(err) if err.kind() == ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ErrorKind::TimedOut.into());
                }
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                poll(&mut [PollFd::new(fd.as_fd(), events)], timeout)?;
            }
            done => return done,
        }
    }
}

/// "10.0.0.1:80 -> 10.0.0.2:4000" for errors.
fn ends(sock: &TcpStream) -> String {
    let text = |addr: io::Result<SocketAddr>| {
        addr.map_or_else(|_| "?".to_owned(), |addr| addr.to_string())
    };
    format!("{} -> {}", text(sock.local_addr()), text(sock.peer_addr()))
}
