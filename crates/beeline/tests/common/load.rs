//! Streams that run both ways on many connections until told to stop, every byte checked.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, stream};
use testbed::wait_for;

use super::{SOON, pair};

/// Connections at once.
const CONNECTIONS: u64 = 4;

/// Largest single write, in bytes.
const CHUNK: usize = 48 * 1024;

/// Bytes that a sender may be ahead of its reader: keeps a direction below the queue limit.
const AHEAD: u64 = 1 << 20;

/// Traffic in the background.
pub struct Load {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    senders: Vec<JoinHandle<u64>>,
    receivers: Vec<JoinHandle<u64>>,
}

impl Load {
    /// Begins, and returns when every connection has moved data.
    pub fn start() -> Self {
        let mut load = Self {
            stop: Arc::default(),
            received: Arc::default(),
            senders: Vec::new(),
            receivers: Vec::new(),
        };
        for seed in 0..CONNECTIONS {
            let (client, server) = pair();
            load.direction(&client, &server, 2 * seed);
            load.direction(&server, &client, 2 * seed + 1);
        }
        load.moves(CONNECTIONS * 4 * AHEAD);
        load
    }

    /// Waits until that many more bytes arrived, over all connections.
    pub fn moves(&self, bytes: u64) {
        let goal = self.received.load(Ordering::Relaxed) + bytes;
        let moved = || self.received.load(Ordering::Relaxed) >= goal;
        wait_for("the streams to move on", SOON, moved).expect("traffic goes on");
    }

    /// Ends the streams. Returns the bytes that were sent; all arrived, in order.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let sum = |threads: Vec<JoinHandle<u64>>| -> u64 {
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no error"))
                .sum()
        };
        let (sent, received) = (sum(self.senders), sum(self.receivers));
        assert_eq!(sent, received, "bytes were lost");
        sent
    }

    fn direction(&mut self, from: &TcpStream, to: &TcpStream, seed: u64) {
        let behind = Arc::new(AtomicU64::new(0));
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (stop, seen) = (self.stop.clone(), behind.clone());
        self.senders
            .push(thread::spawn(move || send(&from, seed, &stop, &seen)));
        let all = self.received.clone();
        self.receivers
            .push(thread::spawn(move || receive(&to, seed, &behind, &all)));
    }
}

fn send(sock: &TcpStream, seed: u64, stop: &AtomicBool, read: &AtomicU64) -> u64 {
    let (mut pattern, mut buf) = (Pattern::new(seed), vec![0; CHUNK]);
    for round in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        while pattern.offset() > read.load(Ordering::Relaxed) + AHEAD {
            thread::yield_now();
        }
        let piece = &mut buf[..1 + (round * 7919) % CHUNK];
        pattern.fill(piece);
        traffic::write_all(sock, piece).expect("a send that plain TCP would serve");
    }
    sock.shutdown(Shutdown::Write)
        .expect("the connection lives");
    pattern.offset()
}

fn receive(sock: &TcpStream, seed: u64, read: &AtomicU64, all: &AtomicU64) -> u64 {
    let (mut pattern, mut buf) = (Pattern::new(seed), vec![0; CHUNK]);
    loop {
        let n = traffic::read(sock, &mut buf).expect("a read that plain TCP would serve");
        if n == 0 {
            return pattern.offset();
        }
        let wrong = pattern.differs(&buf[..n]);
        assert_eq!(wrong, None, "stream {seed} differs at this byte");
        read.fetch_add(n as u64, Ordering::Relaxed);
        all.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// One connection over loopback moves bytes both ways and is closed. Returns the bytes sent.
pub fn exchange(bytes: u64) -> u64 {
    let (client, server) = pair();
    let echo = thread::spawn(move || {
        stream::send(&server, 2, bytes, 4096).expect("the server sends");
        stream::finish(&server).unwrap();
        assert_eq!(
            stream::verify(&server, 1, 4096).expect("the server reads"),
            bytes
        );
    });
    stream::send(&client, 1, bytes, 4096).expect("the client sends");
    stream::finish(&client).unwrap();
    assert_eq!(
        stream::verify(&client, 2, 4096).expect("the client reads"),
        bytes
    );
    echo.join().unwrap();
    2 * bytes
}
