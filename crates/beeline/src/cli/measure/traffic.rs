//! Client and server of one turn: a new connection, warm-up, measured time, orderly end.
//!
//! Plain blocking sockets, as most programs use them. Every call has a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::Serialize;

use super::bed::Bed;
use super::host::pin;
use super::stop::Stop;

/// How long one call on a socket may take; nothing here takes a hundredth of that.
const STALL: Duration = Duration::from_secs(5);
/// What the server of a stream reads at once.
const READ_SIZE: usize = 64 << 10;

/// What client and server do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Load {
    /// One request at a time, answered with itself.
    Rr,
    /// The client writes all the time, the server reads.
    Stream,
}

impl Load {
    /// As in JSON.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Stream => "stream",
        }
    }
}

/// What client and server do in one turn.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Turn {
    pub(in crate::cli) load: Load,
    pub(in crate::cli) size: usize,
    pub(in crate::cli) warm_up: Duration,
    pub(in crate::cli) measured: Duration,
    pub(in crate::cli) stop: Stop,
}

/// What came out.
pub(in crate::cli) struct Measured {
    /// How long each round trip, or each write of a stream, took; sorted, in nanoseconds.
    pub(in crate::cli) times: Vec<u64>,
    /// Payload, of both directions for request/response.
    pub(in crate::cli) gbps: f64,
    /// Bytes that client and server sent, warm-up included.
    pub(in crate::cli) sent: u64,
}

/// One side's account of a turn.
#[derive(Default)]
struct Side {
    times: Vec<u64>,
    sent: u64,
    received: u64,
    /// Bytes of the measured time, and how long that was.
    counted: u64,
    elapsed: Duration,
}

impl Turn {
    /// Runs the turn over a new connection, which is closed at the end.
    pub(in crate::cli) fn run(&self, bed: &Bed) -> Result<Measured> {
        let to = bed.to();
        let listener = bed.listen()?;
        set_socket_timeout(&listener, Timeout::Recv, Some(STALL))?;
        let (turn, core) = (self.clone(), bed.cores.server);
        let server = bed.server.spawn(move || turn.serve(&listener, core))?;
        let (turn, core) = (self.clone(), bed.cores.client);
        let client = bed.client.spawn(move || turn.call(to, core))?;
        let longest = self.warm_up + self.measured + 4 * STALL;
        let client = client.join_within(longest)?;
        let server = server.join_within(longest)?;
        let (client, server) = match (client, server) {
            (Ok(client), Ok(server)) => (client, server),
            // The client's failure is usually the cause of the server's, or the other way round.
            (Err(client), Err(server)) => bail!("{client:#}; {server:#}"),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (sent, received) = (from.sent, to.received);
            ensure!(
                sent == received,
                "{sent} bytes were sent and {received} received"
            );
        }
        Ok(self.sum_up(client, &server))
    }

    fn sum_up(&self, client: Side, server: &Side) -> Measured {
        let counting = match self.load {
            Load::Rr => &client,
            // Its bytes have arrived; some of those the client has sent are on their way.
            Load::Stream => server,
        };
        let bits = counting.counted as f64 * 8.0;
        let gbps = bits / counting.elapsed.as_nanos().max(1) as f64;
        let sent = client.sent + server.sent;
        let mut times = client.times;
        times.sort_unstable();
        Measured { times, gbps, sent }
    }

    fn serve(&self, listener: &TcpListener, core: usize) -> Result<Side> {
        pin(core)?;
        let (sock, _) = listener
            .accept()
            .context("the client's connection did not come")?;
        prepare(&sock)?;
        match self.load {
            Load::Rr => echo(&sock, self.size),
            Load::Stream => drain(&sock, self.warm_up),
        }
        .context("the server failed")
    }

    fn call(&self, to: SocketAddr, core: usize) -> Result<Side> {
        pin(core)?;
        let sock = TcpStream::connect_timeout(&to, STALL)
            .with_context(|| format!("cannot connect to {to}"))?;
        prepare(&sock)?;
        // Closing it is the end of the turn: the server reads to the end of the stream.
        match self.load {
            Load::Rr => self.request(&sock),
            Load::Stream => self.write(&sock),
        }
        .context("the client failed")
    }

    /// Sends requests, each after the answer to the one before.
    fn request(&self, mut sock: &TcpStream) -> io::Result<Side> {
        let (mut request, mut answer) = (vec![0x5a; self.size], vec![0; self.size]);
        let mut number = 0_u64;
        self.repeat(|| {
            number += 1;
            stamp(&mut request, number);
            let start = Instant::now();
            sock.write_all(&request)?;
            sock.read_exact(&mut answer)?;
            let took = start.elapsed();
            same(&request, &answer)?;
            Ok(took)
        })
        .map(|side| Side {
            received: side.sent,
            counted: 2 * side.counted,
            ..side
        })
    }

    /// Writes without a pause.
    fn write(&self, mut sock: &TcpStream) -> io::Result<Side> {
        let data = vec![0x5a; self.size];
        self.repeat(|| {
            let start = Instant::now();
            sock.write_all(&data)?;
            Ok(start.elapsed())
        })
    }

    /// Does `once`, which sends `size` bytes and returns how long that took, until the time is
    /// over.
    fn repeat(&self, mut once: impl FnMut() -> io::Result<Duration>) -> io::Result<Side> {
        let mut side = Side::default();
        let begin = Instant::now();
        while begin.elapsed() < self.warm_up && !self.stop.requested() {
            once()?;
            side.sent += self.size as u64;
        }
        // Growing it would be measured: 1 us is less than any of it takes.
        side.times
            .reserve(usize::try_from(self.measured.as_micros()).unwrap_or(0));
        let begin = Instant::now();
        // At least once, however busy the machine is.
        loop {
            side.times
                .push(u64::try_from(once()?.as_nanos()).unwrap_or(u64::MAX));
            side.counted += self.size as u64;
            if begin.elapsed() >= self.measured || self.stop.requested() {
                break;
            }
        }
        side.elapsed = begin.elapsed();
        side.sent += side.counted;
        Ok(side)
    }
}

/// Answers requests with themselves until the client ends its stream.
fn echo(mut sock: &TcpStream, size: usize) -> io::Result<Side> {
    let mut side = Side::default();
    let mut buf = vec![0; size];
    loop {
        let first = sock.read(&mut buf)?;
        if first == 0 {
            return Ok(side);
        }
        sock.read_exact(&mut buf[first..])?;
        side.received += size as u64;
        sock.write_all(&buf)?;
        side.sent += size as u64;
    }
}

/// Reads to the end of the stream, and counts what comes after the warm-up.
fn drain(mut sock: &TcpStream, warm_up: Duration) -> io::Result<Side> {
    let mut side = Side::default();
    let mut buf = vec![0; READ_SIZE];
    let begin = Instant::now();
    // When counting began, and what had come before. From the start if nothing came afterwards.
    let mut since = (begin, 0);
    let mut warm = false;
    loop {
        let n = sock.read(&mut buf)?;
        if n == 0 {
            break;
        }
        if !warm && begin.elapsed() >= warm_up {
            warm = true;
            since = (Instant::now(), side.received + n as u64);
        }
        side.received += n as u64;
    }
    if side.received == since.1 {
        since = (begin, 0);
    }
    side.elapsed = since.0.elapsed();
    side.counted = side.received - since.1;
    Ok(side)
}

fn prepare(sock: &TcpStream) -> io::Result<()> {
    sock.set_nodelay(true)?;
    sock.set_read_timeout(Some(STALL))?;
    sock.set_write_timeout(Some(STALL))
}

/// Writes a number over the first and the last bytes, so that an answer to another request, or one
/// in the wrong order, is noticed.
fn stamp(request: &mut [u8], number: u64) {
    let number = number.to_le_bytes();
    let end = request.len() - number.len();
    request[..number.len()].copy_from_slice(&number);
    request[end..].copy_from_slice(&number);
}

fn same(request: &[u8], answer: &[u8]) -> io::Result<()> {
    let ends = |bytes: &[u8]| {
        (
            bytes.first_chunk::<8>().copied(),
            bytes.last_chunk::<8>().copied(),
        )
    };
    if ends(request) == ends(answer) {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::InvalidData,
        "an answer differs from its request",
    ))
}
