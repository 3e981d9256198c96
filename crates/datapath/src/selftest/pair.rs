//! Connections for the checks: both ends non-blocking, in one thread, with a deadline at every step.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{Failure, PATIENCE};
use crate::abi::{EndRecord, Mode, TxPath};
use crate::ends::Ends;
use crate::maps::Maps;

/// How a step ended.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// A call did not do what it has to.
pub(super) fn call<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Failure::Call(what.into()))
}

fn data<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Failure::Data(what.into()))
}

/// Largest single write.
const PIECE: usize = 16 << 10;

/// Where connections come from.
pub(super) struct Bench<'a> {
    pub(super) maps: &'a Maps,
    ends: &'a Ends,
    listener: TcpListener,
    addr: SocketAddr,
}

impl<'a> Bench<'a> {
    pub(super) fn new(maps: &'a Maps, ends: &'a Ends) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok(Self {
            maps,
            ends,
            listener,
            addr,
        })
    }

    /// A connection of which both directions are redirected.
    pub(super) fn pair(&self) -> Outcome<Pair<'_>> {
        let (a, b) = self
            .connect()
            .or_else(|e| call(format!("cannot connect: {e}")))?;
        let mut pair = Pair {
            bench: self,
            a: Peer::new(a),
            b: Peer::new(b),
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A direction may have begun on the kernel path, and comes over with a later message.
            pair.a_to_b(1)?;
            pair.b_to_a(1)?;
            let ends = pair.ends()?;
            let redirected = |end: &EndRecord| u32::from(end.end.tx) == TxPath::Redirect as u32;
            if ends.len() == 2 && ends.iter().all(redirected) {
                return Ok(pair);
            }
            if Instant::now() > deadline {
                return call(format!("not redirected: {}", self.states(&ends)));
            }
        }
    }

    fn connect(&self) -> io::Result<(TcpStream, TcpStream)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let kind = (AddressFamily::INET, SocketType::STREAM);
        let client = rustix::net::socket_with(kind.0, kind.1, flags, None)?;
        match rustix::net::connect(&client, &self.addr) {
            Err(Errno::INPROGRESS) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        wait(&client, PollFlags::OUT)?;
        wait(&self.listener, PollFlags::IN)?;
        let server = rustix::net::accept_with(&self.listener, flags)?;
        Ok((client.into(), server.into()))
    }

    /// Does something while every new message of this datapath takes the kernel path.
    pub(super) fn over_kernel_path<T>(&self, body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        self.maps.set_mode(Mode::Detaching)?;
        let done = body();
        self.maps.set_mode(Mode::On)?;
        done
    }

    /// For a message: why ends are not redirected, as far as known.
    fn states(&self, ends: &[EndRecord]) -> String {
        use crate::abi::Reason;
        let mut why: Vec<_> = ends
            .iter()
            .filter_map(|end| Reason::from_raw(end.end.tx_reason.into()))
            .filter(|reason| *reason != Reason::None)
            .map(|reason| reason.name().to_owned())
            .collect();
        if let Ok(totals) = self.maps.totals() {
            let counted = Reason::ALL.iter().filter(|r| totals.count(**r) > 0);
            why.extend(counted.map(|r| format!("{} {}", totals.count(*r), r.name())));
        }
        format!("{} sockets enrolled ({})", ends.len(), why.join(", "))
    }
}

/// One socket, with how far its stream is.
pub(super) struct Peer {
    pub(super) sock: TcpStream,
    pub(super) sent: u64,
    received: u64,
}

/// Both ends of a connection; `a` is the client.
pub(super) struct Pair<'a> {
    bench: &'a Bench<'a>,
    pub(super) a: Peer,
    pub(super) b: Peer,
}

impl Pair<'_> {
    /// Sends that many bytes and reads them at the other end.
    pub(super) fn a_to_b(&mut self, bytes: usize) -> Outcome {
        self.a.send(bytes, PIECE)?;
        self.b.receive(bytes)
    }

    /// The same, the other way.
    pub(super) fn b_to_a(&mut self, bytes: usize) -> Outcome {
        self.b.send(bytes, PIECE)?;
        self.a.receive(bytes)
    }

    /// What the datapath knows of both sockets.
    pub(super) fn ends(&self) -> Outcome<Vec<EndRecord>> {
        let ports = [
            self.a.sock.local_addr()?.port(),
            self.b.sock.local_addr()?.port(),
        ];
        let mut ends = self.bench.ends.list(self.bench.maps)?;
        ends.retain(|end| end.endpoints.have_ports(ports));
        Ok(ends)
    }

    /// What the datapath knows of the client's socket.
    pub(super) fn client(&self) -> Outcome<EndRecord> {
        let ends = self.ends()?;
        let client = ends.into_iter().find(|end| end.end.is_client());
        client.map_or_else(|| call("the client is not enrolled"), Ok)
    }
}

impl Peer {
    fn new(sock: TcpStream) -> Self {
        Self {
            sock,
            sent: 0,
            received: 0,
        }
    }

    /// Writes that many bytes, in writes of at most `piece`.
    pub(super) fn send(&mut self, bytes: usize, piece: usize) -> Outcome {
        let (mut left, mut deadline) = (bytes, Instant::now() + PATIENCE);
        while left > 0 {
            if self.write(left.min(piece))? == 0 {
                let sent = bytes - left;
                wait_until(deadline, &self.sock, PollFlags::OUT)
                    .or_else(|e| call(format!("stuck after {sent} of {bytes} bytes: {e}")))?;
            } else {
                left = left.saturating_sub(piece);
                deadline = Instant::now() + PATIENCE;
            }
        }
        Ok(())
    }

    /// Writes until the socket takes no more, or `most` bytes; returns how many it took.
    pub(super) fn fill(&mut self, most: u64) -> Outcome<u64> {
        let before = self.sent;
        while self.sent - before < most {
            if self.write(PIECE)? == 0 {
                break;
            }
        }
        Ok(self.sent - before)
    }

    /// One write; how much it took, 0 for EAGAIN.
    fn write(&mut self, bytes: usize) -> Outcome<usize> {
        let data: Vec<u8> = (0..bytes as u64).map(|i| byte(self.sent + i)).collect();
        let n = match self.sock.write(&data) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            other => other.or_else(|e| call(format!("cannot send: {e}")))?,
        };
        self.sent += n as u64;
        Ok(n)
    }

    /// Reads that many bytes and compares them with what the other end sent.
    pub(super) fn receive(&mut self, bytes: usize) -> Outcome {
        let (mut left, mut buf) = (bytes, vec![0; PIECE]);
        let mut deadline = Instant::now() + PATIENCE;
        while left > 0 {
            let most = left.min(PIECE);
            match self.sock.read(&mut buf[..most]) {
                Ok(0) => return data(format!("end of file {left} bytes too early")),
                Ok(n) => {
                    self.compare(&buf[..n])?;
                    left -= n;
                    deadline = Instant::now() + PATIENCE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait_until(deadline, &self.sock, PollFlags::IN).or_else(|e| {
                        data(format!("{left} of {bytes} bytes did not arrive: {e}"))
                    })?;
                }
                Err(error) => return call(format!("cannot read: {error}")),
            }
        }
        Ok(())
    }

    /// Waits until that many bytes are there, and reads them with one call.
    pub(super) fn all_in_one_read(&mut self, bytes: usize) -> Outcome {
        let (deadline, mut buf) = (Instant::now() + PATIENCE, vec![0; bytes]);
        while rustix::io::ioctl_fionread(&self.sock)? < bytes as u64 {
            if Instant::now() > deadline {
                return call(format!("FIONREAD does not come to {bytes}"));
            }
            thread::yield_now();
        }
        match (&self.sock).read(&mut buf) {
            Ok(n) if n == bytes => self.compare(&buf),
            Ok(n) => call(format!(
                "a read got {n} of the {bytes} bytes that were there"
            )),
            Err(error) => call(format!("cannot read: {error}")),
        }
    }

    fn compare(&mut self, got: &[u8]) -> Outcome {
        let wrong = |(i, b): &(usize, &u8)| **b != byte(self.received + *i as u64);
        if let Some((at, _)) = got.iter().enumerate().find(wrong) {
            let at = self.received + at as u64;
            return data(format!(
                "byte {at} of the stream is not what was sent there"
            ));
        }
        self.received += got.len() as u64;
        Ok(())
    }

    /// Waits for data, so that it is there to be asked for.
    pub(super) fn wait_readable(&self) -> Outcome {
        wait(&self.sock, PollFlags::IN).or_else(|e| call(format!("nothing arrived: {e}")))
    }

    /// Reads the end of the stream.
    pub(super) fn end_of_file(&mut self) -> Outcome {
        self.wait_readable()?;
        match self.sock.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => data("more data than was sent"),
            Err(error) => call(format!("no end of file: {error}")),
        }
    }
}

/// The byte at that place of every stream: neighbours differ, and so do pages.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn wait(fd: impl AsFd, events: PollFlags) -> io::Result<()> {
    wait_until(Instant::now() + PATIENCE, fd, events)
}

/// A socket in a sockmap may be ready for ever and still have nothing: Linux 6.17, whose copied_seq counts
/// redirected bytes.
fn wait_until(deadline: Instant, fd: impl AsFd, events: PollFlags) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    let timeout = Timespec::try_from(left).expect("a few seconds");
    match poll(&mut [PollFd::new(&fd, events)], Some(&timeout))? {
        0 => Err(ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
