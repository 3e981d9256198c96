//! Request/response: a ping-pong of messages of one size.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{PEER, bounded, ends, read, read_all, write_all};
use crate::error::{Error, Result, Tried};
use crate::traffic::pattern::Pattern;

/// Sends `count` requests of `size` bytes (at least 1), each after the answer to the one before. Returns the round
/// trip times, in order.
///
/// # Errors
/// [`Error::Os`] when the connection fails or stalls, [`Error::Stream`] when an answer is not the request.
pub fn client(sock: &TcpStream, size: usize, count: usize) -> Result<Vec<Duration>> {
    let tried = || format!("exchange messages on {}", ends(sock));
    prepare(sock).tried(PEER, tried)?;
    let (mut request, mut answer) = (vec![0; size.max(1)], vec![0; size.max(1)]);
    Pattern::new(size as u64).fill(&mut request);
    let mut times = Vec::with_capacity(count);
    for n in 0..count {
        // Requests differ, so that an answer to an older one is noticed.
        stamp(&mut request, n);
        let start = Instant::now();
        write_all(sock, &request).tried(PEER, tried)?;
        read_all(sock, &mut answer).tried(PEER, tried)?;
        times.push(start.elapsed());
        same(&request, &answer, n)?;
    }
    Ok(times)
}

/// Answers requests of `size` bytes (at least 1) with themselves until the client ends its stream. Returns how many.
///
/// # Errors
/// [`Error::Os`] when the connection fails, stalls, or ends within a request.
pub fn serve(sock: &TcpStream, size: usize) -> Result<u64> {
    let tried = || format!("answer on {}", ends(sock));
    prepare(sock).tried(PEER, tried)?;
    let mut buf = vec![0; size.max(1)];
    let mut served = 0;
    loop {
        let first = read(sock, &mut buf).tried(PEER, tried)?;
        if first == 0 {
            return Ok(served);
        }
        read_all(sock, &mut buf[first..]).tried(PEER, tried)?;
        write_all(sock, &buf).tried(PEER, tried)?;
        served += 1;
    }
}

/// Deadlines, and no waiting for more to send.
fn prepare(sock: &TcpStream) -> io::Result<()> {
    bounded(sock)?;
    sock.set_nodelay(true)
}

/// Writes the number of the request over its first bytes, as many as fit.
fn stamp(request: &mut [u8], n: usize) {
    for (byte, number) in request.iter_mut().zip(n.to_le_bytes()) {
        *byte = number;
    }
}

fn same(request: &[u8], answer: &[u8], n: usize) -> Result<()> {
    let Some(at) = request.iter().zip(answer).position(|(a, b)| a != b) else {
        return Ok(());
    };
    Err(Error::Stream {
        offset: (n * request.len() + at) as u64,
        expected: format!("{:02x}", request[at]),
        got: format!("{:02x}", answer[at]),
    })
}
