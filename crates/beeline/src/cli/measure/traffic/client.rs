//! A client of many connections, or of many short ones: one thread that waits for all of them.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags};

use super::peer::{Peer, Pumped};
use super::socket::Sock;
use super::window::Window;
use super::{Load, STALL, Side, Turn, Way, stamp, stamped};

/// Events that are asked for at once.
const EVENTS: usize = 512;

/// Connects, and works until the window is over.
pub(super) fn call(turn: &Turn, way: &Way, mut window: Window) -> Result<Side> {
    let mut client = Client::new(turn, way)?;
    for id in 0..turn.connections as u64 {
        client.connect(id)?;
    }
    window.start();
    let mut events = Vec::with_capacity(EVENTS);
    let patience = Timespec {
        tv_sec: STALL.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    loop {
        events.clear();
        let space = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&client.epoll, space, Some(&patience))?;
        ensure!(!events.is_empty(), "no connection got any further");
        for event in &events {
            if !client.go_on(event.data.u64(), &mut window)? {
                return client.finish(window);
            }
        }
    }
}

struct Client<'a> {
    turn: &'a Turn,
    way: &'a Way,
    epoll: OwnedFd,
    calls: HashMap<u64, Call>,
    number: u64,
}

/// A connection, and the request on it.
struct Call {
    peer: Peer,
    number: u64,
    started: Instant,
}

impl<'a> Client<'a> {
    fn new(turn: &'a Turn, way: &'a Way) -> Result<Self> {
        Ok(Self {
            turn,
            way,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            calls: HashMap::new(),
            number: 0,
        })
    }

    /// A new connection with its first request ready to be written.
    fn connect(&mut self, id: u64) -> Result<()> {
        let started = Instant::now();
        let sock = Sock::connect(self.way, self.turn.load)
            .with_context(|| format!("cannot connect to {:?}", self.way))?;
        let peer = Peer::new(sock, self.turn.size, true, &self.epoll, id)?;
        let mut call = Call {
            peer,
            number: 0,
            started,
        };
        call.next(&mut self.number);
        // Connecting is part of it.
        call.started = started;
        self.calls.insert(id, call);
        Ok(())
    }

    /// Goes on with a connection that is ready; `false` when the window is over.
    fn go_on(&mut self, id: u64, window: &mut Window) -> Result<bool> {
        let size = self.turn.size as u64;
        while let Some(call) = self.calls.get_mut(&id) {
            if self.turn.load == Load::Stream {
                return Ok(call.write(window)?);
            }
            match call.peer.pump()? {
                Pumped::Ended => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Pumped::All if call.peer.writing => {
                    window.side.sent += size;
                    call.peer.writing = false;
                    // So that an old stamp is not taken for the answer's.
                    stamp(&mut call.peer.buf, 0);
                }
                Pumped::All => {
                    window.side.received += size;
                    let (number, started) = (call.number, call.started);
                    ensure!(
                        stamped(&call.peer.buf, number),
                        "an answer differs from its request"
                    );
                    if !self.answered(id, started, window)? {
                        return Ok(false);
                    }
                    continue;
                }
                Pumped::Part => {}
            }
            call.peer.wait(&self.epoll, id)?;
            break;
        }
        Ok(true)
    }

    /// Notes an answer and prepares the next request; `false` when the window is over.
    fn answered(&mut self, id: u64, started: Instant, window: &mut Window) -> Result<bool> {
        let bytes = 2 * self.turn.size as u64;
        if self.turn.load == Load::Crr {
            // Closing it is part of what is measured.
            self.calls.remove(&id);
            let go_on = window.done(started, bytes)?;
            if go_on {
                self.connect(id)?;
            }
            return Ok(go_on);
        }
        let go_on = window.done(started, bytes)?;
        if let Some(call) = self.calls.get_mut(&id) {
            call.next(&mut self.number);
        }
        Ok(go_on)
    }

    /// Lets requests that are under way end, as the server counts them.
    fn finish(self, window: Window) -> Result<Side> {
        let mut side = window.side;
        for mut call in self.calls.into_values() {
            if self.turn.load != Load::Stream {
                call.complete(self.turn.size as u64, &mut side)?;
            }
        }
        Ok(side)
    }
}

impl Call {
    /// Prepares the next request.
    fn next(&mut self, number: &mut u64) {
        *number += 1;
        self.number = *number;
        stamp(&mut self.peer.buf, *number);
        self.peer.writing = true;
        self.started = Instant::now();
    }

    /// Ends what was begun, blocking.
    fn complete(&mut self, size: u64, side: &mut Side) -> io::Result<()> {
        self.peer.sock.set_waits(true);
        while !self.peer.is_idle() {
            match self.peer.pump()? {
                Pumped::All if self.peer.writing => {
                    side.sent += size;
                    self.peer.writing = false;
                }
                Pumped::All => {
                    side.received += size;
                    return Ok(());
                }
                Pumped::Part => return Err(ErrorKind::TimedOut.into()),
                Pumped::Ended => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }

    /// One write of a stream, as much of it as the socket takes.
    fn write(&mut self, window: &mut Window) -> io::Result<bool> {
        let start = Instant::now();
        match (&self.peer.sock).write(&self.peer.buf) {
            Ok(n) => {
                window.side.sent += n as u64;
                window.done(start, n as u64)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }
}
