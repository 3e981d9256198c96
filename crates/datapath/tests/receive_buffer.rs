//! What waits at a reader stays within its receive buffer: beyond it TCP drops what it promised to take, and
//! the sender waits for a timeout (invariants 2, 5).

mod common;

use std::net::{TcpListener, TcpStream};
use std::thread;

use common::{Bed, LARGE, Result, expect_connections, expect_reasons, fill, seed, talk};
use datapath::abi::{Reason, Totals};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{SocketOptions, accept, pair, rr, stream};
use testbed::{Cgroup, Node, Pod, kernel_test};

/// What a program asks for with SO_RCVBUF; the kernel doubles it.
const CHOSEN: usize = 100_000;
/// Longer than a segment, so that nothing takes it for a small write.
const PIECE: usize = 10_000;

struct Pods {
    client: Pod,
    server: Pod,
    _node: Node,
}

impl Pods {
    fn new() -> Result<Self> {
        let node = Node::new()?;
        let (client, server) = (node.pod("client")?, node.pod("server")?);
        Ok(Self {
            client,
            server,
            _node: node,
        })
    }

    /// A connection whose accepted end has the buffer of its listener.
    fn with_a_chosen_buffer(&self) -> Result<(TcpStream, TcpStream)> {
        let options = SocketOptions::new().receive_buffer(CHOSEN);
        let ip = self.server.ip();
        let (listener, addr): (TcpListener, _) = self.server.run(|| options.listen((ip, 0)))??;
        Ok((self.client.connect(addr)?, accept(&listener)?))
    }

    /// Segments that the server's kernel did not take although its window had allowed them.
    fn dropped(&self) -> Result<u64> {
        let mut dropped = 0;
        for name in ["TCPZeroWindowDrop", "TCPRcvQDrop"] {
            dropped += self.server.counter("TcpExt", name)?.unwrap_or(0);
        }
        Ok(dropped)
    }
}

/// The most that waits redirected at one end.
fn unread(bed: &Bed) -> Result<usize> {
    let ends = bed.ends()?;
    Ok(ends
        .iter()
        .map(|end| end.unread as usize)
        .max()
        .unwrap_or(0))
}

/// Has the reader read all, while the writer goes on for as much again.
fn read_all(from: TcpStream, to: TcpStream, seed: u64, mut pattern: Pattern) -> Result {
    let filled = pattern.offset();
    let sender = thread::spawn(move || -> Result<TcpStream> {
        stream::send_from(&from, &mut pattern, LARGE, PIECE)?;
        stream::finish(&from)?;
        Ok(from)
    });
    assert_eq!(
        stream::receive(&to, 50_000)?,
        stream::expected(seed, filled + LARGE)
    );
    drop(sender.join().expect("the sender does not panic")?);
    Ok(())
}

fn closed(bed: &Bed) -> Result<Totals> {
    let totals = bed.emptied()?;
    expect_connections(&totals, 1);
    Ok(totals)
}

kernel_test! {
    fn stream_that_a_chosen_buffer_cannot_hold_leaves_and_says_why(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pods = Pods::new()?;
        let (mut client, server) = pods.with_a_chosen_buffer()?;
        talk(&client, &server)?;
        let seed = seed();
        let mut pattern = Pattern::new(seed);
        fill(&mut client, &mut pattern, PIECE)?;
        let unread = unread(&bed)?;
        assert!((CHOSEN - PIECE..=2 * CHOSEN).contains(&unread), "{unread} bytes wait");
        read_all(client, server, seed, pattern)?;
        assert_eq!(pods.dropped()?, 0);
        expect_reasons(&closed(&bed)?, &[(Reason::ReceiveBuffer, 1)]);
        Ok(())
    }

    fn what_fits_into_a_chosen_buffer_stays_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pods = Pods::new()?;
        let (client, server) = pods.with_a_chosen_buffer()?;
        let server = thread::spawn(move || rr::serve(&server, CHOSEN / 2).map(drop));
        rr::client(&client, CHOSEN / 2, 100)?;
        drop(client);
        server.join().expect("the server does not panic")?;
        let totals = closed(&bed)?;
        expect_reasons(&totals, &[]);
        assert_eq!(totals.closed_kernel_bytes, 0);
        Ok(())
    }

    fn no_more_waits_than_the_namespace_allows(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pods = Pods::new()?;
        const MOST: usize = 1 << 20;
        pods.server.sysctl("net.ipv4.tcp_rmem", format!("4096 131072 {MOST}"))?;
        let (mut client, server) = pair(&pods.client, &pods.server, pods.server.ip())?;
        let seed = seed();
        let mut pattern = Pattern::new(seed);
        fill(&mut client, &mut pattern, PIECE)?;
        let unread = unread(&bed)?;
        let limit = MOST / 4 * 3;
        assert!((limit..=limit + limit / 8 + PIECE).contains(&unread), "{unread} bytes wait");
        read_all(client, server, seed, pattern)?;
        assert_eq!(pods.dropped()?, 0);
        assert!(closed(&bed)?.count(Reason::QueueFull) > 0);
        Ok(())
    }
}
