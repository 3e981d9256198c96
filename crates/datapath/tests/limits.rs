//! What is full stays right: the maps and the readers' queues (invariants 1, 2, 5).

mod common;

use std::collections::HashSet;
use std::net::TcpStream;

use common::stage::{Stage, unblock};
use common::{Bed, LARGE, Result, exchange, expect_connections, expect_reasons, fill, seed};
use datapath::abi::{Handshake, Reason, Wire};
use datapath::adopt::Adopter;
use datapath::ends::Tallied;
use datapath::socket::Options;
use libbpf_rs::{MapCore, MapFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{accept, connect, listen, pair, stream};
use testbed::{Cgroup, Node, kernel_test, wait_for};

/// Most that one sk_msg holds: 17 fragments (MAX_MSG_FRAGS) of 32 KiB (SKB_FRAG_PAGE_ORDER).
const MESSAGE: u64 = 17 << 15;
/// Most that the kernel path holds: tcp_wmem and tcp_rmem, both doubled.
const BUFFERS: u64 = 80 << 20;

/// A reader that does not read, for writes of this size; then it does.
fn slow_reader(cgroup: &Cgroup, piece: usize) -> Result {
    const LIMIT: u32 = 1 << 20;
    let options = Options {
        queue_limit: LIMIT,
        ..Options::default()
    };
    let bed = Bed::with(cgroup, options)?;
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    let (mut a, b) = pair(&client, &web, web.ip())?;
    let (seed, more) = (seed(), LARGE);
    let mut pattern = Pattern::new(seed);
    let filled = fill(&mut a, &mut pattern, piece)?;
    let times = bed.totals()?.count(Reason::QueueFull);
    assert!(times >= 1);
    expect_reasons(&bed.totals()?, &[(Reason::QueueFull, times)]);
    let ends = bed.ends()?;
    let unread = ends.iter().map(|end| u64::from(end.unread)).max();
    let unread = unread.ok_or("no end")?;
    let limit = u64::from(LIMIT);
    assert!(
        (limit..=limit + limit / 8 + MESSAGE).contains(&unread),
        "{unread} bytes unread"
    );
    assert!(filled <= unread + BUFFERS, "{filled} bytes taken");
    let sender = std::thread::spawn(move || -> Result<TcpStream> {
        stream::send_from(&a, &mut pattern, more, piece)?;
        stream::finish(&a)?;
        Ok(a)
    });
    assert_eq!(
        stream::receive(&b, 50_000)?,
        stream::expected(seed, filled + more)
    );
    let a = sender.join().expect("the sender panicked")?;
    // The other direction is not affected.
    stream::send(&b, seed, 500_000, 5_000)?;
    stream::finish(&b)?;
    assert_eq!(stream::verify(&a, seed, 5_000)?, 500_000);
    drop((a, b));
    let totals = bed.emptied()?;
    expect_connections(&totals, 1);
    // The direction comes back when the reader has caught up, and may be held back again.
    assert!(totals.count(Reason::QueueFull) >= 1);
    assert!(totals.closed_redirected_bytes > unread, "it came back");
    assert!(totals.closed_kernel_bytes > 0);
    Ok(())
}

kernel_test! {
    fn more_connections_than_allowed_take_the_kernel_path(cgroup: &Cgroup) -> Result {
        let bed = Bed::with(cgroup, Options { connections: 2, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let open = || -> Result<_> { Ok((client.connect(addr)?, accept(&listener)?)) };
        let mut sent = 0;
        for round in 1..=3 {
            let taken = [open()?, open()?];
            assert_eq!(bed.totals()?.paired, 2 * round);
            let left = [open()?, open()?, open()?];
            assert_eq!((bed.enrolled().len(), bed.conns().len()), (4, 2));
            expect_reasons(&bed.totals()?, &[(Reason::MapFull, 3 * round)]);
            for (a, b) in &left {
                exchange(a, b, LARGE / 8)?;
            }
            for (a, b) in &taken {
                sent += exchange(a, b, LARGE / 8)?;
            }
            drop((taken, left));
            bed.emptied()?;
        }
        let totals = bed.emptied()?;
        expect_connections(&totals, 6);
        assert_eq!((totals.closed_redirected_bytes, totals.closed_kernel_bytes), (sent, 0));
        Ok(())
    }

    /// Only one of them is full.
    fn every_map_has_an_end_or_none(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let others = stage.pair()?;
        let bed = Bed::with(cgroup, Options { connections: 1, ..Options::default() })?;
        let adopter = Adopter::load(&bed)?;
        let blocking = stage.blocking_pair()?;
        unblock(&blocking)?;
        let keys = [1, 2].map(|n| Handshake { snd_nxt: n, rcv_nxt: n });
        let others_cookies = [1_u64, 2].map(u64::to_ne_bytes);
        for (key, other) in keys.into_iter().zip([&others.0, &others.1]) {
            bed.put("targets", key, other)?;
        }
        let left = stage.pair()?;
        adopter.look()?;
        expect_reasons(&bed.totals()?, &[(Reason::Blocking, 1), (Reason::MapFull, 1)]);
        let counts = || ["socks", "conns", "expected"].map(|map| bed.get(map).keys().count());
        assert_eq!(counts(), [0; 3]);
        for key in keys {
            bed.get("targets").delete(key.bytes())?;
        }
        for cookie in others_cookies {
            bed.get("expected").update(&cookie, &[0; 16], MapFlags::NO_EXIST)?;
        }
        let also_left = stage.pair()?;
        adopter.look()?;
        assert_eq!(counts(), [0, 0, 2]);
        for cookie in others_cookies {
            bed.get("expected").delete(&cookie)?;
        }
        adopter.look()?;
        assert_eq!(bed.enrolled().len(), 2);
        for (a, b) in [left, also_left, blocking] {
            exchange(&a, &b, 100_000)?;
        }
        Ok(())
    }

    fn one_that_closes_makes_room_for_one(cgroup: &Cgroup) -> Result {
        let bed = Bed::with(cgroup, Options { connections: 1, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let mut sent = 0;
        for round in 1..=50 {
            let (a, b) = pair(&client, &web, web.ip())?;
            assert_eq!(bed.totals()?.paired, round);
            sent += exchange(&a, &b, 10_000)?;
            drop((a, b));
            wait_for("room", common::SOON, || bed.conns().is_empty() && bed.enrolled().is_empty())?;
        }
        bed.all_redirected(50, sent)
    }

    fn reader_that_does_not_read_costs_a_bounded_amount(cgroup: &Cgroup) -> Result {
        slow_reader(cgroup, 65_536)
    }

    fn reader_that_does_not_read_small_messages_costs_a_bounded_amount(cgroup: &Cgroup) -> Result {
        slow_reader(cgroup, 3_000)
    }

    /// The kernel keeps a kilobyte for each message, of which neither limit would know.
    fn reader_that_does_not_read_tiny_messages_costs_a_bounded_amount(cgroup: &Cgroup) -> Result {
        const LIMIT: u32 = 1 << 20;
        const KEPT: u32 = 1024;
        let bed = Bed::with(cgroup, Options { queue_limit: LIMIT, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        // Else they leave before.
        a.set_nodelay(true)?;
        let seed = seed();
        let mut pattern = Pattern::new(seed);
        // Few enough of the kernel path for TCP to take them.
        let sent = u64::from(LIMIT / KEPT) + 20;
        stream::send_from(&a, &mut pattern, sent, 1)?;
        let redirected = bed.ends()?.iter().map(|end| end.end.redirected_bytes).max().ok_or("no end")?;
        assert_eq!(redirected, u64::from(LIMIT / KEPT + 1), "messages of one byte wait");
        stream::finish(&a)?;
        assert_eq!(stream::receive(&b, 100_000)?, stream::expected(seed, sent));
        Ok(())
    }

    /// What all queues hold together counts as TCP memory of the host; a message for which there is
    /// none left must wait or be refused as by plain TCP, which never says ENOMEM.
    fn many_readers_that_do_not_read_cost_a_bounded_amount(cgroup: &Cgroup) -> Result {
        const PAGES: u64 = 32 << 10;
        let limit = 128 << 20;
        let bed = Bed::with(cgroup, Options { queue_limit: limit, memory_limit: PAGES, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let mut pairs = (0..20).map(|_| pair(&client, &web, web.ip())).collect::<std::result::Result<Vec<_>, _>>()?;
        let filled = pairs.iter_mut().map(|(a, _)| {
            let seed = seed();
            let mut pattern = Pattern::new(seed);
            Ok((seed, fill(a, &mut pattern, 65_536)?))
        }).collect::<Result<Vec<_>>>()?;
        let unread: u64 = bed.ends()?.iter().map(|end| u64::from(end.unread)).sum();
        assert!(unread <= (PAGES << 12) + 20 * MESSAGE, "{unread} bytes unread");
        for ((a, b), (seed, filled)) in pairs.into_iter().zip(filled) {
            stream::finish(&a)?;
            assert_eq!(stream::receive(&b, 100_000)?, stream::expected(seed, filled));
        }
        expect_connections(&bed.emptied()?, 20);
        Ok(())
    }

    fn writer_of_huge_messages_is_bounded_too(cgroup: &Cgroup) -> Result {
        slow_reader(cgroup, 8 << 20)
    }

    /// With their histograms they come in several portions, see bpf/ends.bpf.c.
    fn each_of_many_sockets_is_listed_once(cgroup: &Cgroup) -> Result {
        const CONNECTIONS: usize = 4_500;
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
        let bed = Bed::on(cgroup)?;
        let (listener, addr) = listen(([127, 0, 0, 1], 0))?;
        let mut pairs = Vec::new();
        for _ in 0..CONNECTIONS {
            pairs.push((connect(addr)?, accept(&listener)?));
        }
        let tallied = Tallied::load(&bed)?;
        for _ in 0..2 {
            let mut listed = Vec::new();
            tallied.each(&bed, |one| listed.push(one.record.cookie))?;
            let distinct: HashSet<_> = listed.iter().collect();
            assert_eq!((listed.len(), distinct.len()), (2 * CONNECTIONS, 2 * CONNECTIONS));
        }
        Ok(())
    }
}
