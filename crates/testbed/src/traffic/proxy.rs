//! A minimal sidecar: accepts, connects upstream, copies both ways with read(2), write(2) and poll(2).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::poll::{PollFd, PollFlags, poll};
use socket2::SockRef;

use super::accept_now;
use super::options::SocketOptions;
use crate::error::{Result, Tried};
use crate::sidecar::PROXY_MARK;

/// How often the accepting thread looks whether it shall stop, in milliseconds.
const STOP_PERIOD: u16 = 10;
/// How long a copying thread waits in poll(2) before it looks, in milliseconds.
const TICK: u16 = 100;
/// Size of the copy buffers, as in common proxies.
const BUFFER: usize = 16 * 1024;

/// Where the proxy connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    /// Always to one address.
    Fixed(SocketAddr),
    /// To where the client wanted to go before a REDIRECT rule changed it.
    Original,
}

impl<A: Into<SocketAddr>> From<A> for Upstream {
    fn from(addr: A) -> Self {
        Self::Fixed(addr.into())
    }
}

/// A running proxy; dropping it closes its listener and its connections and ends its threads.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: Upstream,
    stop: AtomicBool,
    accepted: AtomicU64,
    /// Both ends of each connection, to wake its threads at the end.
    live: Mutex<Vec<Arc<Pair>>>,
}

#[derive(Debug)]
struct Pair {
    down: TcpStream,
    up: TcpStream,
}

/// Starts a proxy in the namespace of the calling thread; its own connections carry
/// [`PROXY_MARK`], so that they are not redirected to itself.
///
/// # Errors
/// [`Error::Os`](crate::Error::Os) when its thread cannot be started.
pub fn run(listener: TcpListener, upstream: impl Into<Upstream>) -> Result<Proxy> {
    let shared = Arc::new(Shared {
        upstream: upstream.into(),
        stop: AtomicBool::new(false),
        accepted: AtomicU64::new(0),
        live: Mutex::default(),
    });
    let tried = || "start a proxy".to_owned();
    // So that accept(2) after poll(2) cannot wait for a client that is gone again.
    listener.set_nonblocking(true).tried("", tried)?;
    let mine = shared.clone();
    let body = move || mine.accept_all(&listener);
    let acceptor = thread::Builder::new()
        .name("proxy".into())
        .spawn(body)
        .tried("", tried)?;
    Ok(Proxy {
        shared,
        acceptor: Some(acceptor),
    })
}

impl Proxy {
    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            // It panics never; if it did, there is nothing to stop.
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept_all(self: &Arc<Self>, listener: &TcpListener) {
        let mut threads = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let _ = poll(
                &mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)],
                STOP_PERIOD,
            );
            if let Ok(down) = accept_now(listener) {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                let mine = self.clone();
                threads.push(thread::spawn(move || mine.serve(down)));
            }
            threads.retain(|thread| !thread.is_finished());
        }
        // A connection that is still being set up sees `stop` when it is added to the list.
        for pair in self.lock().drain(..) {
            pair.shut();
        }
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// One connection, from accept to the end of both directions. A failure ends it; its client sees that.
    fn serve(&self, down: TcpStream) {
        let Ok(up) = self.connect(&down) else {
            return;
        };
        let pair = Arc::new(Pair { down, up });
        self.lock().push(pair.clone());
        if self.stop.load(Ordering::Relaxed) {
            pair.shut();
        }
        thread::scope(|scope| {
            scope.spawn(|| self.copy(&pair, &pair.up, &pair.down));
            self.copy(&pair, &pair.down, &pair.up);
        });
        self.lock().retain(|other| !Arc::ptr_eq(other, &pair));
    }

    fn connect(&self, down: &TcpStream) -> Result<TcpStream> {
        let tried = || "prepare a connection of the proxy".to_owned();
        let addr = match self.upstream {
            Upstream::Fixed(addr) => addr,
            Upstream::Original => original_destination(down).tried("was it redirected?", tried)?,
        };
        let up = SocketOptions::new().mark(PROXY_MARK).connect(addr)?;
        // No waiting for more to send.
        down.set_nodelay(true).tried("", tried)?;
        up.set_nodelay(true).tried("", tried)?;
        Ok(up)
    }

    /// Copies until the end of the stream, and passes that on; a failure ends both directions. It waits for a slow
    /// peer as long as the peer likes.
    fn copy(&self, pair: &Pair, mut from: &TcpStream, to: &TcpStream) {
        let mut buf = vec![0; BUFFER];
        loop {
            match from.read(&mut buf) {
                Ok(0) => {
                    // It fails when the peer is gone, which the other direction notices.
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(n) if self.write(to, &buf[..n]).is_ok() => {}
                Err(err) if self.shall_repeat(&err, from, PollFlags::POLLIN) => {}
                _ => return pair.shut(),
            }
        }
    }

    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(err) if self.shall_repeat(&err, to, PollFlags::POLLOUT) => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Whether a read or write failed for now only, and the proxy is to go on; waits for a [`TICK`] or until it may.
    fn shall_repeat(&self, err: &io::Error, sock: &TcpStream, events: PollFlags) -> bool {
        match err.kind() {
            ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(sock.as_fd(), events)], TICK);
            }
            ErrorKind::Interrupted => {}
            _ => return false,
        }
        !self.stop.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Pair>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    fn shut(&self) {
        // Both fail only when the peer has ended the connection already.
        let _ = self.down.shutdown(Shutdown::Both);
        let _ = self.up.shutdown(Shutdown::Both);
    }
}

/// The destination before REDIRECT; fails when conntrack does not know the connection.
fn original_destination(sock: &TcpStream) -> io::Result<SocketAddr> {
    let sock_ref = SockRef::from(sock);
    // SO_ORIGINAL_DST is asked per family; an IPv4 client of an IPv6 socket is of family IPv4 to conntrack.
    let addr = match sock.peer_addr()?.ip().to_canonical() {
        std::net::IpAddr::V4(_) => sock_ref.original_dst_v4()?,
        std::net::IpAddr::V6(_) => sock_ref.original_dst_v6()?,
    };
    addr.as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
