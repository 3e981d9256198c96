//! Invariant 5, for as many readers as a host may have: in a file of its own, because what it
//! measures is that of the whole host.

mod common;

use common::{Bed, Result, expect_connections, fill, seed};
use datapath::probe;
use datapath::socket::Options;
use rustix::process::{Resource, Rlimit, setrlimit};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{SocketOptions, accept, stream};
use testbed::{Cgroup, Node, kernel_test};

const READERS: u64 = 1000;

/// Bytes of a write.
const PIECE: u64 = 16 << 10;

/// Unread bytes at one reader.
const QUEUE: u64 = 128 << 10;

/// Of each sender, for the kernel path, which doubles it.
const SEND_BUFFER: u64 = 64 << 10;

/// Most that the receive buffer of each reader grows to.
const RECEIVE_BUFFER: u64 = 2 * QUEUE;

/// Pages that a processor keeps of TCP's memory without telling (net.core.mem_pcpu_rsv).
const KEPT: u64 = 256;

fn used() -> Result<u64> {
    Ok(probe::tcp_memory_used()?.ok_or("no TCP in sockstat")?)
}

kernel_test! {
    /// The limits hold, and let go of the senders when the readers read.
    #[deadline(240)]
    fn a_thousand_stalled_readers_stay_within_both_limits(cgroup: &Cgroup) -> Result {
        let page = rustix::param::page_size() as u64;
        let files = Some(5 * READERS);
        setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })?;
        // Room for a third of what the queues could hold.
        let memory_limit = used()? + READERS * QUEUE / 3 / page;
        let queue_limit = u32::try_from(QUEUE)?;
        let bed = Bed::with(cgroup, Options { queue_limit, memory_limit, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for pod in [&web, &client] {
            pod.sysctl("net.ipv4.tcp_rmem", format!("4096 65536 {RECEIVE_BUFFER}"))?;
        }
        let small = SocketOptions::new().send_buffer(usize::try_from(SEND_BUFFER)?);
        let (listener, addr) = web.run(|| small.listen((web.ip(), 0)))??;
        let mut pairs = Vec::new();
        for _ in 0..READERS {
            let a = client.run(|| small.connect(addr))??;
            pairs.push((a, accept(&listener)?));
        }
        let mut streams = Vec::new();
        for (a, _) in &mut pairs {
            let seed = seed();
            streams.push((seed, fill(a, &mut Pattern::new(seed), usize::try_from(PIECE)?)?));
        }
        let (now, ends) = (used()?, bed.ends()?);
        // Nobody reads: all of it waits.
        let waiting: Vec<u64> = ends.iter().map(|end| end.end.redirected_bytes).collect();
        assert_eq!(waiting.len() as u64, 2 * READERS);
        let longest = waiting.iter().copied().max().unwrap_or(0);
        assert!((QUEUE..=QUEUE + QUEUE / 8 + PIECE).contains(&longest), "{longest} bytes wait at one reader");
        let (all, kept) = (waiting.iter().sum::<u64>() / page, KEPT * probe::cpus()? as u64);
        assert!(all <= memory_limit + kept, "{all} pages wait, the limit is {memory_limit}");
        // What the kernel path holds is TCP's own: both buffers of each connection.
        let buffers = 2 * SEND_BUFFER + RECEIVE_BUFFER;
        let most = memory_limit + kept + READERS * buffers / page;
        assert!(now <= most, "{now} pages of TCP memory, at most {most} expected");
        for ((a, b), (seed, filled)) in pairs.iter().zip(&streams) {
            stream::finish(a)?;
            assert_eq!(stream::receive(b, 100_000)?, stream::expected(*seed, *filled));
        }
        drop(pairs);
        expect_connections(&bed.emptied()?, READERS);
        Ok(())
    }
}
