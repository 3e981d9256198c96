//! Calls that give up after a time of their own, `SO_SNDTIMEO` and `SO_RCVTIMEO`: of sockets that block from the
//! start, and of those that come to block while they are enrolled (invariant 2).

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::stage::{Stage, until_server_left, with_and_without};
use common::{Bed, GRACE, LARGE, Result, SOON, fill_up, seed, sleeping_readers, talk};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{stream, write_all};
use testbed::{Cgroup, kernel_test, wait_for};

/// Of the calls that are to give up; those that are not have [`SOON`].
const TIME: Duration = Duration::from_millis(300);

type Pair = (TcpStream, TcpStream);

/// A connection that blocks, and so is not enrolled.
fn blocking(stage: &Stage, bed: Option<&Bed>) -> Result<Pair> {
    let pair = stage.blocking_pair()?;
    talk(&pair.0, &pair.1)?;
    if let Some(bed) = bed {
        assert!(bed.enrolled().is_empty());
    }
    Ok(pair)
}

/// Writes until a write says EAGAIN because its time is over, and returns how much was taken.
fn send_until_it_gives_up(mut sock: &TcpStream, pattern: &mut Pattern) -> Result<u64> {
    sock.set_write_timeout(Some(TIME))?;
    let (mut piece, mut sent) = (vec![0; usize::try_from(LARGE)?], 0);
    loop {
        let mut next = pattern.clone();
        next.fill(&mut piece);
        let begin = Instant::now();
        match sock.write(&piece) {
            Ok(n) => {
                pattern.fill(&mut piece[..n]);
                sent += n as u64;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                assert!(begin.elapsed() > TIME / 2, "it waits for room");
                return Ok(sent);
            }
        }
    }
}

/// What calls said that they took is what arrives.
fn expect_arrival((a, b): Pair, seed: u64, bytes: u64) -> Result {
    stream::finish(&a)?;
    assert_eq!(stream::receive(&b, 100_000)?, stream::expected(seed, bytes));
    Ok(())
}

/// A read that gives up, one that finds data, and one that sleeps until there is some.
fn reads_give_up((a, mut b): (&TcpStream, &TcpStream)) -> Result {
    let mut got = [0; 5];
    b.set_read_timeout(Some(TIME))?;
    let begin = Instant::now();
    let gave_up = b.read(&mut got).expect_err("nothing is there");
    assert_eq!(gave_up.kind(), ErrorKind::WouldBlock);
    assert!(begin.elapsed() > TIME / 2, "it waits for data");
    write_all(a, b"first")?;
    b.read_exact(&mut got)?;
    assert_eq!(&got, b"first");
    b.set_read_timeout(Some(SOON))?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| b.read_exact(&mut got));
        wait_for("a sleeping reader", SOON, || sleeping_readers() == 1)?;
        write_all(a, b"later")?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(reader.join().expect("it only reads")?)
    })?;
    assert_eq!(&got, b"later");
    Ok(())
}

kernel_test! {
    fn sender_that_blocks_from_the_start_gives_up(cgroup: &Cgroup) -> Result {
        with_and_without(cgroup, |stage, bed| {
            let (a, b) = stage.blocking_pair()?;
            let seed = seed();
            let sent = send_until_it_gives_up(&a, &mut Pattern::new(seed))?;
            if let Some(bed) = bed {
                assert!(bed.enrolled().is_empty());
            }
            expect_arrival((a, b), seed, sent)
        }).map(drop)
    }

    fn sender_that_comes_to_block_gives_up(cgroup: &Cgroup) -> Result {
        with_and_without(cgroup, |stage, bed| {
            let (a, b) = stage.redirected_pair(bed)?;
            a.set_nonblocking(false)?;
            let seed = seed();
            let sent = send_until_it_gives_up(&a, &mut Pattern::new(seed))?;
            assert_ne!(sent, 0);
            expect_arrival((a, b), seed, sent)
        }).map(drop)
    }

    /// What it waits behind is unread in the queue of its reader.
    fn sender_that_comes_to_block_without_room_gives_up(cgroup: &Cgroup) -> Result {
        with_and_without(cgroup, |stage, bed| {
            let (mut a, b) = stage.redirected_pair(bed)?;
            let seed = seed();
            let mut pattern = Pattern::new(seed);
            let filled = fill_up(&mut a, &mut pattern)?;
            if let Some(bed) = bed {
                assert!(bed.redirected()? > 1 << 20);
            }
            a.set_nonblocking(false)?;
            let sent = filled + send_until_it_gives_up(&a, &mut pattern)?;
            expect_arrival((a, b), seed, sent)
        }).map(drop)
    }

    fn reader_that_blocks_from_the_start_gives_up(cgroup: &Cgroup) -> Result {
        with_and_without(cgroup, |stage, bed| {
            let (a, b) = blocking(stage, bed)?;
            reads_give_up((&a, &b))
        }).map(drop)
    }

    fn reader_that_comes_to_block_gives_up(cgroup: &Cgroup) -> Result {
        with_and_without(cgroup, |stage, bed| {
            let (a, b) = stage.redirected_pair(bed)?;
            b.set_nonblocking(false)?;
            reads_give_up((&a, &b))
        }).map(drop)
    }

    fn reader_that_came_to_block_and_left_gives_up(cgroup: &Cgroup) -> Result {
        with_and_without(cgroup, |stage, bed| {
            let pair = stage.redirected_pair(bed)?;
            // Sooner, it might have been accepted and not be through with fcntl.
            thread::sleep(GRACE);
            pair.1.set_nonblocking(false)?;
            if let Some(bed) = bed {
                until_server_left(bed, &pair)?;
            }
            reads_give_up((&pair.0, &pair.1))
        }).map(drop)
    }
}
