//! Streams of small writes are faster where TCP gathers them, so their connections leave the maps, and
//! come back when they are at rest, in order and without loss (invariants 1, 2).

mod common;

use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Bed, Dropping, PLAIN_ACKS, Result, SOON, exchange, expect_connections, expect_reasons, seed,
    talk,
};
use datapath::abi::{Candidate, Conn, Handshake, Reason, Totals, TxPath, Wire};
use datapath::adopt::Adopter;
use datapath::drain::{self, Outcome};
use libbpf_rs::{MapCore, MapFlags};
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, Node, kernel_test, wait_for};

/// Writes that the kernel path puts into one segment of loopback by the dozen.
const SMALL: usize = 64;
/// Fewer of them do not make a connection leave.
const IN_A_ROW: u64 = 128;
/// Long enough to leave on the way.
const BYTES: u64 = 4 << 20;

fn pair() -> Result<(TcpStream, TcpStream)> {
    let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
    Ok((traffic::connect(addr)?, traffic::accept(&listener)?))
}

/// Sends `bytes` in writes of `size`, all read before it returns.
fn one_way(from: &TcpStream, to: &TcpStream, bytes: u64, size: usize) -> Result {
    let seed = seed();
    let mut pattern = Pattern::new(seed);
    thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result {
            let (mut at, mut buf) = (Pattern::new(seed), vec![0; 1 << 16]);
            while at.offset() < bytes {
                let n = traffic::read(to, &mut buf)?;
                assert_eq!(at.differs(&buf[..n]), None, "the first wrong byte");
            }
            Ok(())
        });
        stream::send_from(from, &mut pattern, bytes, size)?;
        reader.join().expect("the reader does not panic")
    })
}

/// Streams until neither end is in the maps.
fn leave(bed: &Bed, (a, b): &(TcpStream, TcpStream)) -> Result {
    let left = || bed.enrolled().is_empty();
    let begin = Instant::now();
    while !left() && begin.elapsed() < SOON {
        one_way(a, b, BYTES, SMALL)?;
    }
    assert!(left(), "{:?}", bed.ends()?);
    Ok(())
}

/// As the agent does it.
fn come_back(bed: &Bed, adopter: &Adopter) -> Result {
    Ok(wait_for("the way back", SOON, || {
        adopter.look().expect("it looks");
        bed.enrolled().len() == 2
    })?)
}

/// Longer than a connection does that may come back.
fn stay_away(bed: &Bed, adopter: &Adopter) -> Result {
    thread::sleep(Duration::from_millis(1500));
    adopter.look()?;
    assert!(bed.enrolled().is_empty());
    assert_eq!(bed.get("targets").keys().count(), 0);
    Ok(())
}

fn closed(bed: &Bed, pair: (TcpStream, TcpStream)) -> Result<Totals> {
    drop(pair);
    let totals = bed.emptied()?;
    expect_connections(&totals, 1);
    Ok(totals)
}

kernel_test! {
    fn stream_of_small_writes_leaves_and_says_why(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pair = pair()?;
        talk(&pair.0, &pair.1)?;
        leave(&bed, &pair)?;
        for end in bed.ends()? {
            let (end, has_psock) = (end.end, end.has_psock);
            let told = (TxPath::from_raw(end.tx.into()), Reason::from_raw(end.tx_reason.into()));
            assert_eq!(told, (Some(TxPath::Kernel), Some(Reason::SmallWrites)));
            assert_eq!(has_psock, 0, "it is plain TCP");
            assert_eq!(end.peer_sk, 0, "nobody takes it for the end of a connection that is over");
        }
        let before = bed.redirected()?;
        one_way(&pair.0, &pair.1, BYTES, SMALL)?;
        exchange(&pair.0, &pair.1, BYTES)?;
        assert_eq!(bed.redirected()?, before, "it costs nothing");
        let totals = closed(&bed, pair)?;
        expect_reasons(&totals, &[(Reason::SmallWrites, 1)]);
        Ok(())
    }

    fn what_tcp_would_not_gather_stays(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pair = pair()?;
        // Large ones, few in a row, an answer to each, and at last without Nagle's algorithm.
        one_way(&pair.0, &pair.1, BYTES, 16_000)?;
        for _ in 0..20 {
            // One answer in 256 is not heard, see heard_nothing.
            one_way(&pair.0, &pair.1, (IN_A_ROW / 4) * SMALL as u64, SMALL)?;
            talk(&pair.0, &pair.1)?;
        }
        for _ in 0..10 * IN_A_ROW {
            talk(&pair.0, &pair.1)?;
        }
        pair.0.set_nodelay(true)?;
        one_way(&pair.0, &pair.1, BYTES, SMALL)?;
        assert_eq!(bed.enrolled().len(), 2);
        let totals = closed(&bed, pair)?;
        expect_reasons(&totals, &[]);
        assert_eq!(totals.closed_kernel_bytes, 0);
        Ok(())
    }

    fn connection_at_rest_comes_back(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let pair = pair()?;
        for round in 1..=2 {
            leave(&bed, &pair)?;
            adopter.look()?;
            assert!(bed.enrolled().is_empty(), "not at once, in round {round}");
            come_back(&bed, &adopter)?;
            // It is no new one.
            expect_connections(&bed.totals()?, 1);
            assert_eq!((bed.ends()?.len(), bed.left()), (2, 0));
            let before = bed.redirected()?;
            for _ in 0..100 {
                talk(&pair.0, &pair.1)?;
            }
            assert!(bed.redirected()? > before, "{:?}", bed.ends()?);
        }
        exchange(&pair.0, &pair.1, BYTES)?;
        let totals = closed(&bed, pair)?;
        expect_reasons(&totals, &[(Reason::SmallWrites, 2)]);
        Ok(())
    }

    fn connection_with_bytes_on_their_way_stays_away(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let pair = pair()?;
        leave(&bed, &pair)?;
        let mut pattern = Pattern::new(seed());
        let mut at = pattern.clone();
        stream::send_from(&pair.0, &mut pattern, 10_000, SMALL)?;
        stay_away(&bed, &adopter)?;
        let mut got = [0; 10_000];
        traffic::read_all(&pair.1, &mut got)?;
        assert_eq!(at.differs(&got), None);
        come_back(&bed, &adopter)?;
        talk(&pair.0, &pair.1)?;
        closed(&bed, pair)?;
        Ok(())
    }

    fn retired_one_does_not_come_back(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let pair = pair()?;
        leave(&bed, &pair)?;
        let owns: Vec<Handshake> = bed.ends()?.iter().map(|end| end.end.own).collect();
        let outcome = drain::retire(&bed, &owns, Reason::Retired, Instant::now() + SOON, |_| {})?;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        stay_away(&bed, &adopter)?;
        talk(&pair.0, &pair.1)?;
        closed(&bed, pair)?;
        Ok(())
    }

    /// Each time it stays away for twice as long, but not for ever.
    fn times_away_are_counted_up_to_a_bound(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let pair = pair()?;
        leave(&bed, &pair)?;
        let own = bed.waiting()[0];
        assert_eq!(bed.value::<Candidate>("waiting", own.bytes())?.conn.returns, 1);
        come_back(&bed, &adopter)?;
        assert_eq!(bed.value::<Conn>("conns", own.bytes())?.returns, 1);
        bed.change("conns", |conn: &mut Conn| conn.returns = 6)?;
        leave(&bed, &pair)?;
        assert_eq!(bed.value::<Candidate>("waiting", own.bytes())?.conn.returns, 6);
        Ok(())
    }

    /// A twin waits under its key.
    fn connection_that_leaves_does_not_take_the_place_of_another(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pair = pair()?;
        let own = bed.conns()[0];
        bed.get("waiting").update(own.bytes(), Candidate::default().bytes(), MapFlags::NO_EXIST)?;
        leave(&bed, &pair)?;
        assert_eq!(bed.value::<Candidate>("waiting", own.bytes())?.conn.client.cookie, 0);
        talk(&pair.0, &pair.1)
    }

    /// It leaves by itself, as both readers are behind when it is retired. Nor does it by a record that whoever
    /// adopts has found before.
    fn retired_one_that_leaves_by_itself_does_not_come_back(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let pair = pair()?;
        leave(&bed, &pair)?;
        let own = bed.waiting()[0];
        let record = bed.get("waiting").lookup(own.bytes(), MapFlags::ANY)?.ok_or("it does not wait")?;
        come_back(&bed, &adopter)?;
        talk(&pair.0, &pair.1)?;
        for sender in [&pair.0, &pair.1] {
            traffic::write_all(sender, b"hello")?;
        }
        let outcome = drain::retire(&bed, &[own], Reason::Retired, Instant::now(), |_| {})?;
        assert!(matches!(outcome, Outcome::Held(_)), "{outcome:?}");
        assert_eq!(bed.enrolled().len(), 2);
        for reader in [&pair.1, &pair.0] {
            traffic::read_all(reader, &mut [0; 5])?;
        }
        SockRef::from(&pair.0).send_out_of_band(b"!")?;
        wait_for("both to leave", SOON, || talk(&pair.1, &pair.0).is_ok() && bed.enrolled().is_empty())?;
        assert!(bed.waiting().is_empty());
        bed.get("waiting").update(own.bytes(), &record, MapFlags::ANY)?;
        stay_away(&bed, &adopter)?;
        talk(&pair.0, &pair.1)?;
        closed(&bed, pair)?;
        Ok(())
    }

    fn connection_with_unacknowledged_bytes_stays_away(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let pair = traffic::pair(&client, &web, web.ip())?;
        leave(&bed, &pair)?;
        let dropping = Dropping::arriving(&web, PLAIN_ACKS)?;
        traffic::write_all(&pair.0, b"hello")?;
        stay_away(&bed, &adopter)?;
        dropping.end()?;
        let mut got = [0; 5];
        traffic::read_all(&pair.1, &mut got)?;
        assert_eq!(&got, b"hello");
        come_back(&bed, &adopter)?;
        talk(&pair.0, &pair.1)?;
        closed(&bed, pair)?;
        Ok(())
    }

    fn connection_that_ends_while_it_is_away_leaves_nothing(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let pair = pair()?;
        leave(&bed, &pair)?;
        assert_eq!((bed.waiting().len(), bed.conns().len()), (1, 0));
        closed(&bed, pair)?;
        Ok(())
    }
}
