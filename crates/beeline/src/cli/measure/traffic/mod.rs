//! Client and server of one turn: new connections, warm-up, measured time, orderly end.
//!
//! No socket blocks, as those of servers with event loops do not. One connection is waited for with
//! poll(2); several, and those that come and go, by one thread at each end that waits for all of
//! them. Every wait has a deadline.

mod client;
mod peer;
mod server;
mod single;
mod socket;
mod window;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use testbed::NetNs;

use self::socket::Listener;
use self::window::Window;
use super::cpu::Cpu;
use super::host::{Cores, pin};
use super::stop::Stop;

/// How long one call on a socket may take; nothing here takes a hundredth of that.
const STALL: Duration = Duration::from_secs(5);
/// What the server of a stream reads at once.
const READ_SIZE: usize = 64 << 10;

/// What client and server do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Load {
    /// Request/response: one request at a time on each connection, answered with itself
    Rr,
    /// The client writes all the time, the server reads
    Stream,
    /// Connect, request, response, close; over and over
    Crr,
}

impl Load {
    /// As in JSON.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Stream => "stream",
            Self::Crr => "crr",
        }
    }
}

/// The two ends of a turn and how they reach each other.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Ends {
    pub(in crate::cli) client: NetNs,
    pub(in crate::cli) server: NetNs,
    pub(in crate::cli) cores: Cores,
    pub(in crate::cli) way: Way,
}

/// Where the server listens and the client connects to.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Way {
    /// TCP; NAT may lie between the two addresses.
    Tcp { listen: SocketAddr, to: SocketAddr },
    /// A Unix stream socket of this name.
    Unix(PathBuf),
}

/// What client and server do in one turn.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Turn {
    pub(in crate::cli) load: Load,
    /// Bytes of a request, or of a write; at least 1.
    pub(in crate::cli) size: usize,
    /// How many connections there are at once; at least 1.
    pub(in crate::cli) connections: usize,
    pub(in crate::cli) warm_up: Duration,
    pub(in crate::cli) measured: Duration,
    pub(in crate::cli) cpu: Cpu,
    pub(in crate::cli) stop: Stop,
}

/// What came out.
pub(in crate::cli) struct Measured {
    /// How long each request, or each write of a stream, took; sorted, in nanoseconds.
    pub(in crate::cli) times: Vec<u64>,
    /// Payload, of both directions for requests.
    pub(in crate::cli) gbps: f64,
    /// Requests or writes per second.
    pub(in crate::cli) per_second: f64,
    /// Processor time of all that took part, for each byte of payload, in nanoseconds.
    pub(in crate::cli) cpu_ns_per_byte: f64,
    /// The same for each request or write.
    pub(in crate::cli) cpu_ns_per_request: f64,
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
    /// Processor time of the measured time, of all that took part.
    cpu: Duration,
}

impl Turn {
    /// Runs the turn over new connections, which are closed at the end.
    pub(in crate::cli) fn run(&self, ends: &Ends) -> Result<Measured> {
        let longest = self.warm_up + self.measured + 4 * STALL;
        let done = Arc::new(AtomicBool::new(false));
        let (ready, listens) = mpsc::channel();
        let (turn, way, over) = (self.clone(), ends.way.clone(), done.clone());
        let core = ends.cores.server;
        let body = move || turn.serve(&way, core, ready, &over);
        let server = ends.server.spawn(body)?;
        // It fails when the server does, which says why.
        let client = listens.recv_timeout(STALL).ok().map(|()| {
            let (turn, way, core) = (self.clone(), ends.way.clone(), ends.cores.client);
            let client = ends.client.spawn(move || turn.call(&way, core))?;
            client.join_within(longest)
        });
        done.store(true, Ordering::Relaxed);
        let server = server.join_within(longest)?;
        let client = client.transpose()?;
        let (client, server) = match (client, server) {
            (Some(Ok(client)), Ok(server)) => (client, server),
            // The client's failure is usually the cause of the server's, or the other way round.
            (Some(Err(client)), Err(server)) => bail!("{client:#}; {server:#}"),
            (Some(Err(error)), _) | (_, Err(error)) => return Err(error),
            (None, Ok(_)) => bail!("the server did not listen"),
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
            Load::Rr | Load::Crr => &client,
            // Its bytes have arrived; some of those the client has sent are on their way.
            Load::Stream => server,
        };
        let bits = counting.counted as f64 * 8.0;
        let requests = client.times.len().max(1) as f64;
        let cpu = client.cpu.as_nanos() as f64;
        let gbps = bits / counting.elapsed.as_nanos().max(1) as f64;
        let mut times = client.times;
        times.sort_unstable();
        Measured {
            times,
            gbps,
            per_second: requests / client.elapsed.as_secs_f64().max(1e-9),
            cpu_ns_per_byte: cpu / client.counted.max(1) as f64,
            cpu_ns_per_request: cpu / requests,
            sent: client.sent + server.sent,
        }
    }

    /// The server's side: makes its own sockets, so that they belong to its thread alone.
    fn serve(&self, way: &Way, core: usize, ready: Sender<()>, done: &AtomicBool) -> Result<Side> {
        pin(core)?;
        let listener = Listener::bind(way)?;
        // Whoever waited has given up when it is not received.
        let _ = ready.send(());
        if self.is_single() {
            single::serve(self, &listener)
        } else {
            server::serve(self, &listener, done)
        }
        .context("the server failed")
    }

    /// The client's side, likewise.
    fn call(&self, way: &Way, core: usize) -> Result<Side> {
        pin(core)?;
        let window = Window::new(self);
        if self.is_single() {
            single::call(self, way, window)
        } else {
            client::call(self, way, window)
        }
        .context("the client failed")
    }

    /// Whether one connection lasts the whole turn.
    fn is_single(&self) -> bool {
        self.connections == 1 && self.load != Load::Crr
    }
}

/// Writes a number over the first and the last bytes, so that an answer to another request, or one
/// in the wrong order, is noticed.
fn stamp(request: &mut [u8], number: u64) {
    let number = number.to_le_bytes();
    let len = stamp_len(request);
    let end = request.len() - len;
    request[..len].copy_from_slice(&number[..len]);
    request[end..].copy_from_slice(&number[..len]);
}

/// Whether it carries the stamp of that number.
fn stamped(answer: &[u8], number: u64) -> bool {
    let number = number.to_le_bytes();
    let len = stamp_len(answer);
    answer.starts_with(&number[..len]) && answer.ends_with(&number[..len])
}

/// As much of a number as the two ends have room for without overlapping; a single byte is both.
fn stamp_len(request: &[u8]) -> usize {
    (request.len() / 2).clamp(1, size_of::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_seen_at_both_ends_of_any_size() {
        for size in [1, 2, 7, 8, 9, 15, 16, 100] {
            let mut request = vec![0x5a; size];
            stamp(&mut request, 3);
            assert!(stamped(&request, 3), "{size}");
            assert!(!stamped(&request, 4), "{size}");
            *request.last_mut().unwrap() ^= 1;
            assert!(!stamped(&request, 3), "{size}");
        }
    }
}
