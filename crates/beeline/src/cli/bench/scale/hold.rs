//! A process that holds one side of many connections: `beeline bench-hold`, which `beeline bench` starts.
//!
//! There are as many of them as it takes, as a process may have only so many descriptors. Each does what
//! it reads on standard input, a line for each order, and answers with a line: when it began and when it
//! was done, in nanoseconds of the monotonic clock, or what went wrong.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use datapath::socket::monotonic_ns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_error};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use testbed::traffic::{STALL, accept_now, listen};

/// The hidden command.
pub(in crate::cli) const COMMAND: &str = "bench-hold";
/// Connections that wait to be accepted; the most that `net.core.somaxconn` lets through by default. Without
/// room a SYN is dropped, and sent again a second later.
const BACKLOG: i32 = 4096;

/// Hold one side of connections.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    side: Side,
    /// Where to listen or to connect to
    addr: SocketAddr,
}

/// Which end of the connections it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What it is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// So many more connections.
    Open(usize),
    /// Close all.
    Close,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(count) => write!(f, "open {count}"),
            Self::Close => f.write_str("close"),
        }
    }
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(' ') {
            Some(("open", count)) => Ok(Self::Open(count.parse()?)),
            None if text == "close" => Ok(Self::Close),
            _ => bail!("'{text}' is no order"),
        }
    }
}

/// Until nobody gives orders any more.
pub(in crate::cli) fn run(args: &Args) -> Result<ExitCode> {
    crate::cli::measure::host::raise_descriptors()?;
    let mut holder = match args.side {
        Side::Client => Holder::Client(args.addr, Vec::new()),
        Side::Server => {
            let (listener, _) = listen(args.addr)?;
            // Again, for more room: std asks for 128, and a client on the same core runs further ahead.
            rustix::net::listen(&listener, BACKLOG)?;
            Holder::Server(listener, Vec::new())
        }
    };
    let mut answers = io::stdout();
    writeln!(answers, "ready")?;
    for order in io::stdin().lock().lines() {
        let began = monotonic_ns();
        match holder.follow(order?.parse()?) {
            Ok(()) => writeln!(answers, "{began} {}", monotonic_ns())?,
            Err(error) => writeln!(answers, "{error:#}")?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

enum Holder {
    Client(SocketAddr, Vec<OwnedFd>),
    Server(TcpListener, Vec<TcpStream>),
}

impl Holder {
    fn follow(&mut self, order: Order) -> Result<()> {
        match (self, order) {
            (Self::Client(to, held), Order::Open(count)) => {
                for _ in 0..count {
                    let sock = connected(*to);
                    held.push(sock.with_context(|| format!("cannot connect to {to}"))?);
                }
            }
            (Self::Server(listener, held), Order::Open(count)) => {
                for _ in 0..count {
                    held.push(accepted(listener).context("cannot accept")?);
                }
            }
            // A reset leaves nothing that waits for a minute, neither here nor in conntrack.
            (Self::Client(_, held), Order::Close) => {
                for sock in held.drain(..) {
                    set_socket_linger(&sock, Some(Duration::ZERO))?;
                }
            }
            (Self::Server(_, held), Order::Close) => held.clear(),
        }
        Ok(())
    }
}

/// As programs with event loops connect.
fn connected(to: SocketAddr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let sock = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&sock, &to) {
        Err(Errno::INPROGRESS) => {
            wait(&sock, PollFlags::OUT)?;
            socket_error(&sock)??;
        }
        done => done?,
    }
    Ok(sock)
}

fn accepted(listener: &TcpListener) -> io::Result<TcpStream> {
    loop {
        match accept_now(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(listener, PollFlags::IN)?;
            }
            done => return done,
        }
    }
}

fn wait(sock: &impl AsFd, events: PollFlags) -> io::Result<()> {
    let stall = Timespec::try_from(STALL).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(sock, events)], Some(&stall))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for order in [Order::Open(7), Order::Close] {
            assert_eq!(order.to_string().parse::<Order>().unwrap(), order);
        }
        assert!("open".parse::<Order>().is_err());
    }
}
