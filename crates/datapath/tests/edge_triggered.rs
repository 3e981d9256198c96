//! A reader that waits for edges, and takes a short read for the end of what is there (invariant 2).
//!
//! While the reader's queue is full, bytes come over the kernel path behind redirected ones. Were they
//! in a queue of their own, a read that empties the first would be short although there is more, and
//! the edge that told of it may be long gone. With plain TCP a short read is the end, so programs
//! rely on it.

mod common;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use common::{Bed, Result, SOON, seed, set_option};
use datapath::abi::Reason;
use datapath::socket::Options;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{pair, stream};
use testbed::{Cgroup, Node, Pod, kernel_test, wait_for};

/// With some more, it fits into the receive buffer that a socket begins with (`tcp_rmem`, 128 KiB): TCP of some kernels
/// takes nothing into one that redirected data has filled (docs/kernels.md).
const LIMIT: u32 = 64 << 10;
const PIECE: usize = 4096;

/// How a program finds out that it has read everything.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// A read returned less than it asked for.
    ShortRead,
    /// FIONREAD said, before the read, no more than it returned.
    Counted,
}

/// One socket in an epoll set of its own.
struct Reader {
    sock: TcpStream,
    epoll: OwnedFd,
    end: End,
    pattern: Pattern,
}

impl Reader {
    fn new(sock: TcpStream, end: End, seed: u64) -> Result<Self> {
        sock.set_nonblocking(true)?;
        // SAFETY: makes a descriptor that nobody else has.
        let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        let (set, fd, add) = (epoll.as_raw_fd(), sock.as_raw_fd(), libc::EPOLL_CTL_ADD);
        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: 0 };
        // SAFETY: both descriptors and the event live.
        assert_eq!(unsafe { libc::epoll_ctl(set, add, fd, &mut event) }, 0);
        let pattern = Pattern::new(seed);
        Ok(Self {
            sock,
            epoll,
            end,
            pattern,
        })
    }

    /// Whether an edge came in time; it is gone then.
    fn edge(&self, within: Duration) -> bool {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let timeout = i32::try_from(within.as_millis()).expect("a short time");
        // SAFETY: room for the one event that is asked for.
        unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &mut event, 1, timeout) == 1 }
    }

    /// Edges that came until now are gone.
    fn ignore_edges(&self) {
        while self.edge(Duration::ZERO) {}
    }

    /// Reads until there is no more, as far as the program can tell.
    fn drain(&mut self) -> Result {
        let mut buf = vec![0; 64 << 10];
        loop {
            let there = common::unread(&self.sock);
            let n = match self.sock.read(&mut buf) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            assert_eq!(self.pattern.differs(&buf[..n]), None);
            let all = match self.end {
                End::ShortRead => n < buf.len(),
                End::Counted => there <= n,
            };
            if all {
                return Ok(());
            }
        }
    }

    /// Reads `bytes` in all, as such a program does.
    fn read(&mut self, bytes: u64) -> Result {
        self.drain()?;
        let until = Instant::now() + SOON;
        while self.pattern.offset() < bytes {
            assert!(
                self.edge(until.saturating_duration_since(Instant::now())),
                "no edge after {} of {bytes} bytes",
                self.pattern.offset()
            );
            self.drain()?;
        }
        Ok(())
    }
}

/// A connection with its bed.
struct Stream {
    bed: Bed,
    _node: Node,
    _pods: [Pod; 2],
    a: TcpStream,
    to_b: Pattern,
    seed: u64,
}

impl Stream {
    fn open(cgroup: &Cgroup) -> Result<(Self, TcpStream)> {
        let options = Options {
            queue_limit: LIMIT,
            ..Options::default()
        };
        let bed = Bed::with(cgroup, options)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        let seed = seed();
        let to_b = Pattern::new(seed);
        Ok((
            Self {
                bed,
                _node: node,
                _pods: [client, web],
                a,
                to_b,
                seed,
            },
            b,
        ))
    }

    fn send(&mut self, bytes: usize) -> Result {
        stream::send_from(&self.a, &mut self.to_b, bytes as u64, PIECE)?;
        Ok(())
    }

    /// Sends until the kernel path has taken a few messages more.
    fn overfill(&mut self) -> Result {
        let before = self.bed.totals()?.count(Reason::QueueFull);
        while self.bed.totals()?.count(Reason::QueueFull) == before {
            self.send(PIECE)?;
        }
        self.send(3 * PIECE)?;
        Ok(wait_for("the reader's kernel to have it", SOON, || {
            common::unsent(&self.a) == 0
        })?)
    }
}

/// The reader is busy elsewhere while its peer sends more than the limit; then nothing more comes.
fn stalled(cgroup: &Cgroup, end: End) -> Result {
    let (mut stream, b) = Stream::open(cgroup)?;
    let mut reader = Reader::new(b, end, stream.seed)?;
    stream.overfill()?;
    reader.ignore_edges();
    reader.read(stream.to_b.offset())
}

kernel_test! {
    fn edge_triggered_reader_gets_what_lies_behind_its_queue(cgroup: &Cgroup) -> Result {
        stalled(cgroup, End::ShortRead)
    }

    fn edge_triggered_reader_that_counts_gets_what_lies_behind_its_queue(cgroup: &Cgroup) -> Result {
        stalled(cgroup, End::Counted)
    }

    fn reader_that_waits_only_later_gets_what_lies_behind_its_queue(cgroup: &Cgroup) -> Result {
        let (mut stream, b) = Stream::open(cgroup)?;
        stream.overfill()?;
        let mut reader = Reader::new(b, End::ShortRead, stream.seed)?;
        reader.ignore_edges();
        reader.read(stream.to_b.offset())
    }

    /// Nothing tells of the bytes behind but their acknowledgement, which comes after the last read.
    fn queue_that_is_emptied_before_the_acknowledgement_is_no_end(cgroup: &Cgroup) -> Result {
        let (mut stream, b) = Stream::open(cgroup)?;
        let mut reader = Reader::new(b, End::ShortRead, stream.seed)?;
        set_option(&reader.sock, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0)?;
        while stream.bed.totals()?.count(Reason::QueueFull) == 0 {
            stream.send(PIECE)?;
        }
        reader.ignore_edges();
        reader.read(stream.to_b.offset())
    }

    fn sender_that_waits_for_room_is_read_to_the_end(cgroup: &Cgroup) -> Result {
        const MORE: u64 = 32 << 20;
        let (mut stream, b) = Stream::open(cgroup)?;
        let mut reader = Reader::new(b, End::ShortRead, stream.seed)?;
        stream.overfill()?;
        let all = stream.to_b.offset() + MORE;
        let sender = thread::spawn(move || -> Result<Stream> {
            stream::send_from(&stream.a, &mut stream.to_b, MORE, PIECE)?;
            Ok(stream)
        });
        reader.ignore_edges();
        reader.read(all)?;
        sender.join().expect("the sender panicked")?;
        Ok(())
    }

    fn end_of_the_stream_behind_the_queue_is_read(cgroup: &Cgroup) -> Result {
        let (mut stream, b) = Stream::open(cgroup)?;
        let mut reader = Reader::new(b, End::ShortRead, stream.seed)?;
        stream.overfill()?;
        stream::finish(&stream.a)?;
        reader.ignore_edges();
        reader.read(stream.to_b.offset())?;
        wait_for("the end", SOON, || matches!(reader.sock.read(&mut [0]), Ok(0)))?;
        Ok(())
    }

    fn direction_comes_back_to_such_a_reader(cgroup: &Cgroup) -> Result {
        let (mut stream, b) = Stream::open(cgroup)?;
        let mut reader = Reader::new(b, End::ShortRead, stream.seed)?;
        for round in 1..=3 {
            let times = stream.bed.totals()?.count(Reason::QueueFull);
            stream.overfill()?;
            assert!(stream.bed.totals()?.count(Reason::QueueFull) > times, "round {round}");
            reader.ignore_edges();
            reader.read(stream.to_b.offset())?;
        }
        Ok(())
    }
}
