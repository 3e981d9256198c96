//! One of many connections of a thread that waits for all of them.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::socket::Sock;

/// A connection that does not block, and what is being read or written on it.
pub(super) struct Peer {
    pub(super) sock: Sock,
    pub(super) buf: Vec<u8>,
    /// Bytes of `buf` that have been read or written.
    done: usize,
    pub(super) writing: bool,
    waits_for: EventFlags,
}

/// How far [`Peer::pump`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// The whole buffer was read or written.
    All,
    /// The rest must wait.
    Part,
    /// The other end has closed, after a whole number of buffers.
    Ended,
}

impl Peer {
    /// Takes over a connection and tells `epoll` to look at it under the number `id`. It reads or
    /// writes `size` bytes at a time.
    pub(super) fn new(
        mut sock: Sock,
        size: usize,
        writing: bool,
        epoll: impl AsFd,
        id: u64,
    ) -> io::Result<Self> {
        sock.set_waits(false);
        let waits_for = interest(writing);
        epoll::add(epoll, &sock, EventData::new_u64(id), waits_for)?;
        Ok(Self {
            sock,
            buf: vec![0x5a; size],
            done: 0,
            writing,
            waits_for,
        })
    }

    /// Reads or writes as much of the buffer as is possible now.
    pub(super) fn pump(&mut self) -> io::Result<Pumped> {
        loop {
            let rest = &mut self.buf[self.done..];
            let moved = if self.writing {
                (&self.sock).write(rest)
            } else {
                (&self.sock).read(rest)
            };
            match moved {
                Ok(0) if !self.writing && self.done == 0 => return Ok(Pumped::Ended),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.done += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Pumped::Part),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.done == self.buf.len() {
                self.done = 0;
                return Ok(Pumped::All);
            }
        }
    }

    /// Whether nothing of a buffer was written yet.
    pub(super) fn is_idle(&self) -> bool {
        self.writing && self.done == 0
    }

    /// Has `epoll` wait for what the next [`Peer::pump`] needs.
    pub(super) fn wait(&mut self, epoll: impl AsFd, id: u64) -> io::Result<()> {
        let wanted = interest(self.writing);
        if wanted != self.waits_for {
            epoll::modify(epoll, &self.sock, EventData::new_u64(id), wanted)?;
            self.waits_for = wanted;
        }
        Ok(())
    }
}

fn interest(writing: bool) -> EventFlags {
    if writing {
        EventFlags::OUT
    } else {
        EventFlags::IN
    }
}
