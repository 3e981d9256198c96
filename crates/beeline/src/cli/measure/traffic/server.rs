//! A server of many connections: one thread that waits for all of them.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::peer::{Peer, Pumped};
use super::socket::Listener;
use super::{Load, READ_SIZE, STALL, Side, Turn};

/// The listener's number; connections count from 0.
const LISTENER: u64 = u64::MAX;
/// How often it looks whether the client is done when nothing comes.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};
/// Events that are asked for at once.
const EVENTS: usize = 512;

/// Bytes that arrive in a stream: those after the warm-up are counted.
pub(super) struct Arrivals {
    begin: Instant,
    warm_up: Duration,
    /// When counting began, and what had come before.
    since: Option<(Instant, u64)>,
    received: u64,
    /// When the last stream ended.
    end: Option<Instant>,
}

impl Arrivals {
    pub(super) fn new(warm_up: Duration) -> Self {
        Self {
            begin: Instant::now(),
            warm_up,
            since: None,
            received: 0,
            end: None,
        }
    }

    /// Notes what a read returned; 0 is the end of a stream.
    pub(super) fn note(&mut self, bytes: usize) {
        if bytes == 0 {
            self.end = Some(Instant::now());
            return;
        }
        self.received += bytes as u64;
        if self.since.is_none() && self.begin.elapsed() >= self.warm_up {
            self.since = Some((Instant::now(), self.received));
        }
    }

    /// The account at the end of the streams; of all of it if nothing came after the warm-up.
    pub(super) fn side(self) -> Side {
        let counted = self.since.filter(|(_, before)| *before < self.received);
        let (since, before) = counted.unwrap_or((self.begin, 0));
        Side {
            received: self.received,
            counted: self.received - before,
            elapsed: self.end.unwrap_or_else(Instant::now) - since,
            ..Side::default()
        }
    }
}

/// Serves until the client is done and every connection has ended.
pub(super) fn serve(turn: &Turn, listener: &Listener, done: &AtomicBool) -> Result<Side> {
    let mut server = Server::new(turn, listener)?;
    let mut last = Instant::now();
    loop {
        if server.once()? {
            last = Instant::now();
        } else if done.load(Ordering::Relaxed) && server.peers.is_empty() {
            return Ok(server.side());
        } else if last.elapsed() > STALL {
            return Err(io::Error::from(ErrorKind::TimedOut).into());
        }
    }
}

struct Server<'a> {
    turn: &'a Turn,
    listener: &'a Listener,
    epoll: OwnedFd,
    events: Vec<Event>,
    peers: HashMap<u64, Peer>,
    next: u64,
    /// Of a stream.
    arrivals: Arrivals,
    buf: Vec<u8>,
    /// Of requests.
    side: Side,
}

impl<'a> Server<'a> {
    fn new(turn: &'a Turn, listener: &'a Listener) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        Ok(Self {
            turn,
            listener,
            epoll,
            events: Vec::with_capacity(EVENTS),
            peers: HashMap::new(),
            next: 0,
            arrivals: Arrivals::new(turn.warm_up),
            buf: vec![0; READ_SIZE],
            side: Side::default(),
        })
    }

    fn side(self) -> Side {
        match self.turn.load {
            Load::Stream => self.arrivals.side(),
            Load::Rr | Load::Crr => self.side,
        }
    }

    /// Waits, and serves whoever is ready; `false` when nobody was.
    fn once(&mut self) -> io::Result<bool> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let found = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&TICK),
        );
        match found {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                self.accept()?;
            } else if self.serve(id)? {
                self.peers.remove(&id);
            }
        }
        let any = !events.is_empty();
        self.events = events;
        Ok(any)
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let sock = match self.listener.accept(self.turn.load) {
                Ok(sock) => sock,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let size = match self.turn.load {
                Load::Stream => 0,
                Load::Rr | Load::Crr => self.turn.size,
            };
            if self.peers.is_empty() && self.next == 0 {
                self.arrivals = Arrivals::new(self.turn.warm_up);
            }
            let peer = Peer::new(sock, size, false, &self.epoll, self.next)?;
            self.peers.insert(self.next, peer);
            self.next += 1;
        }
    }

    /// Serves one connection as far as that goes now; `true` when it has ended.
    fn serve(&mut self, id: u64) -> io::Result<bool> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(false);
        };
        if self.turn.load == Load::Stream {
            return match (&peer.sock).read(&mut self.buf) {
                Ok(n) => {
                    self.arrivals.note(n);
                    Ok(n == 0)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
                Err(error) => Err(error),
            };
        }
        loop {
            match peer.pump()? {
                Pumped::Ended => return Ok(true),
                Pumped::All if !peer.writing => {
                    self.side.received += self.turn.size as u64;
                    peer.writing = true;
                    continue;
                }
                Pumped::All => {
                    self.side.sent += self.turn.size as u64;
                    peer.writing = false;
                }
                Pumped::Part => {}
            }
            peer.wait(&self.epoll, id)?;
            return Ok(false);
        }
    }
}
