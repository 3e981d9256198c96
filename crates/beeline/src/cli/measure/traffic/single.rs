//! One connection for the whole turn, whose calls wait.

use std::io::{self, Read, Write};
use std::time::Instant;

use anyhow::{Context, Result};

use super::socket::{Listener, Sock};
use super::window::Window;
use super::{Load, READ_SIZE, Side, Turn, Way, server::Arrivals, stamp, stamped};

/// Accepts the connection and serves it to its end.
pub(super) fn serve(turn: &Turn, listener: &Listener) -> Result<Side> {
    let sock = listener
        .wait()
        .and_then(|()| listener.accept(turn.load))
        .context("the client's connection did not come")?;
    let side = match turn.load {
        Load::Stream => drain(&sock, turn),
        Load::Rr | Load::Crr => echo(&sock, turn.size),
    };
    Ok(side?)
}

/// Connects, and works until the window is over. Closing the connection is the end of the turn:
/// the server reads to the end of the stream.
pub(super) fn call(turn: &Turn, way: &Way, mut window: Window) -> Result<Side> {
    let sock =
        Sock::connect(way, turn.load).with_context(|| format!("cannot connect to {way:?}"))?;
    window.start();
    match turn.load {
        Load::Stream => write(&sock, turn.size, &mut window),
        Load::Rr | Load::Crr => request(&sock, turn.size, &mut window),
    }?;
    Ok(window.side)
}

/// Sends requests, each after the answer to the one before.
fn request(mut sock: &Sock, size: usize, window: &mut Window) -> io::Result<()> {
    let (mut request, mut answer) = (vec![0x5a; size], vec![0; size]);
    for number in 1.. {
        stamp(&mut request, number);
        let start = Instant::now();
        sock.write_all(&request)?;
        sock.wait_readable()?;
        sock.read_exact(&mut answer)?;
        window.side.sent += size as u64;
        window.side.received += size as u64;
        let go_on = window.done(start, 2 * size as u64)?;
        if !stamped(&answer, number) {
            return Err(io::Error::other("an answer differs from its request"));
        }
        if !go_on {
            break;
        }
    }
    Ok(())
}

/// Writes without a pause.
fn write(mut sock: &Sock, size: usize, window: &mut Window) -> io::Result<()> {
    let data = vec![0x5a; size];
    loop {
        let start = Instant::now();
        sock.write_all(&data)?;
        window.side.sent += size as u64;
        if !window.done(start, size as u64)? {
            return Ok(());
        }
    }
}

/// Answers requests with themselves until the client ends its stream.
fn echo(mut sock: &Sock, size: usize) -> io::Result<Side> {
    let mut side = Side::default();
    let mut buf = vec![0; size];
    loop {
        // As event loops do: what it waits for has not come yet.
        sock.wait_readable()?;
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

/// Reads to the end of the stream.
fn drain(mut sock: &Sock, turn: &Turn) -> io::Result<Side> {
    let mut arrivals = Arrivals::new(turn.warm_up);
    let mut buf = vec![0; READ_SIZE];
    loop {
        let n = sock.read(&mut buf)?;
        arrivals.note(n);
        if n == 0 {
            return Ok(arrivals.side());
        }
        // As event loops do: it got less than it asked for, so there is no more yet.
        if n < READ_SIZE {
            sock.wait_readable()?;
        }
    }
}
