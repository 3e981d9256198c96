//! Who ended its own direction still reads as over plain TCP (invariant 2), and cannot send.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use common::late_page::{LatePage, read_until_asleep};
use common::{Bed, Dropping, GRACE, Result, SOON, poll, seed, talk};
use datapath::abi::{EndRecord, Reason};
use rustix::process::Pid;
use rustix::thread::gettid;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{pair, stream};
use testbed::{Cgroup, Node, kernel_test, traffic, wait_for};

const ANSWER: u64 = 200_000;

/// Answers when the request has ended, as many a server of one-shot requests does.
fn serve(sock: TcpStream, seed: u64) -> Result {
    let mut request = [0; 7];
    traffic::read_all(&sock, &mut request)?;
    assert_eq!(&request, b"request");
    assert_eq!(traffic::read(&sock, &mut request)?, 0);
    stream::send(&sock, seed, ANSWER, 4096)?;
    Ok(())
}

/// How often a thread of this process has gone to sleep; none when it is over.
fn sleeps(thread: Pid) -> Option<u64> {
    let file = format!("/proc/self/task/{}/status", thread.as_raw_nonzero());
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| {
        line.strip_prefix("voluntary_ctxt_switches:")?
            .trim()
            .parse()
            .ok()
    })
}

/// Reads to the end with plain blocking calls: no polling, no deadline, no second try.
fn read_all(mut sock: &TcpStream) -> std::io::Result<Vec<u8>> {
    sock.set_read_timeout(None)?;
    let mut all = Vec::new();
    let mut buf = [0; 7000];
    loop {
        match sock.read(&mut buf)? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

/// Reads an answer of six bytes in a thread that sleeps.
fn sleeping_read(mut sock: TcpStream) -> Result<(Pid, JoinHandle<Result<[u8; 6]>>)> {
    sock.set_read_timeout(None)?;
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        tell.send(gettid())?;
        let mut got = [0; 6];
        sock.read_exact(&mut got)?;
        Ok(got)
    });
    let thread = told.recv()?;
    wait_for("a sleeping reader", SOON, || {
        common::sleeping_readers() == 1
    })?;
    Ok((thread, reader))
}

fn expected(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(ANSWER).expect("small")];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

kernel_test! {
    fn blocking_read_after_the_request_ended_gets_the_answer(cgroup: &Cgroup) -> Result {
        const COUNT: u64 = 200;
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for _ in 0..COUNT {
            let (a, b) = pair(&client, &web, web.ip())?;
            let seed = seed();
            let server = thread::spawn(move || serve(b, seed));
            a.set_nonblocking(false)?;
            testbed::traffic::write_all(&a, b"request")?;
            a.shutdown(Shutdown::Write)?;
            let answer = read_all(&a)?;
            assert!(answer == expected(seed), "the answer differs");
            server.join().expect("the server panicked")?;
        }
        let totals = bed.emptied()?;
        assert_eq!(totals.paired, COUNT);
        assert_eq!(totals.closed_redirected_bytes, 0);
        assert!(totals.count(Reason::Blocking) >= COUNT);
        Ok(())
    }

    /// The kernel wakes the reader for it (tcp_rcv_state_process, net/ipv4/tcp_input.c).
    fn blocking_read_goes_on_when_the_fin_is_acknowledged(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        a.set_nonblocking(false)?;
        let lost = Dropping::arriving(&web, "tcp flags fin")?;
        a.shutdown(Shutdown::Write)?;
        let (thread, reader) = sleeping_read(a)?;
        let before = sleeps(thread);
        lost.end()?;
        wait_for("the acknowledgement", SOON, || reader.is_finished() || sleeps(thread) > before)?;
        traffic::write_all(&b, b"answer")?;
        assert_eq!(&reader.join().expect("it panicked")?, b"answer");
        Ok(())
    }

    /// Who has never redirected has nothing on its way, whatever its threads are inside of. One has the lock here,
    /// so that the FIN waits.
    fn thread_of_the_peer_that_reads_keeps_nobody(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        a.set_nonblocking(false)?;
        traffic::write_all(&a, b"request")?;
        poll(&b, libc::POLLIN, SOON);
        let mut page = LatePage::new();
        let locks = read_until_asleep(b.try_clone()?, page.bytes(), 7);
        a.shutdown(Shutdown::Write)?;
        let (thread, reader) = sleeping_read(a)?;
        let before = sleeps(thread);
        page.come();
        locks.join().expect("a read panicked");
        wait_for("the acknowledgement", SOON, || reader.is_finished() || sleeps(thread) > before)?;
        traffic::write_all(&b, b"answer")?;
        assert_eq!(&reader.join().expect("it panicked")?, b"answer");
        Ok(())
    }

    fn answer_that_was_on_its_way_is_not_lost(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let mut moved = 0;
        for _ in 0..200 {
            let (a, b) = pair(&client, &web, web.ip())?;
            let seed = seed();
            let server = thread::spawn(move || stream::send(&b, seed, ANSWER, 3000));
            a.shutdown(Shutdown::Write)?;
            assert_eq!(stream::verify(&a, seed, 7000)?, ANSWER);
            server.join().expect("the server panicked")?;
            moved += ANSWER;
        }
        let totals = bed.emptied()?;
        assert_eq!(totals.closed_redirected_bytes + totals.closed_kernel_bytes, moved);
        Ok(())
    }

    fn non_blocking_reader_stays_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        a.set_nonblocking(true)?;
        a.shutdown(Shutdown::Write)?;
        let seed = seed();
        let server = thread::spawn(move || stream::send(&b, seed, ANSWER, 3000));
        assert_eq!(stream::verify(&a, seed, 7000)?, ANSWER);
        server.join().expect("the server panicked")?;
        drop(a);
        bed.all_redirected(1, ANSWER)
    }

    fn send_after_shutdown_fails_as_plain_tcp_does(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for non_blocking in [false, true] {
            let (mut a, mut b) = pair(&client, &web, web.ip())?;
            a.set_nonblocking(non_blocking)?;
            testbed::traffic::write_all(&a, b"before")?;
            a.shutdown(Shutdown::Write)?;
            let refused = a.write(b"after").expect_err("the stream has ended");
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
            let mut got = Vec::new();
            b.read_to_end(&mut got)?;
            assert_eq!(got, b"before");
        }
        wait_for("the end", common::SOON, || bed.enrolled().is_empty())?;
        Ok(())
    }

    /// Until then the peer knows nothing of it.
    fn send_after_shutdown_fails_before_the_fin_arrives(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (mut a, b) = pair(&client, &web, web.ip())?;
        talk(&a, &b)?;
        let _lost = Dropping::arriving(&web, "tcp flags fin")?;
        a.shutdown(Shutdown::Write)?;
        let refused = a.write(b"after").expect_err("the stream has ended");
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        Ok(())
    }

    /// It sends only to a reader that sleeps, which has left before it.
    fn end_that_comes_to_block_leaves_a_reader_that_sleeps_in_plain_tcp(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        let left = |count: usize| {
            bed.ends().is_ok_and(|ends| ends.iter().filter(|end| end.has_psock == 0).count() == count)
        };
        talk(&a, &b)?;
        thread::sleep(GRACE);
        a.set_nonblocking(false)?;
        // It does not send, and so cannot say that what it redirected has arrived.
        wait_for("the first to leave", SOON, || {
            let sent = traffic::write_all(&b, b"answer");
            sent.is_ok() && traffic::read_all(&a, &mut [0; 6]).is_ok() && left(1)
        })?;
        b.set_nonblocking(false)?;
        wait_for("the other to leave", SOON, || {
            let (_, reader) = sleeping_read(a.try_clone().expect("it is open")).expect("it sleeps");
            traffic::write_all(&b, b"answer").expect("it sends");
            assert_eq!(&reader.join().expect("it panicked").expect("it reads"), b"answer");
            left(2)
        })?;
        Ok(())
    }

    /// Both come to block while they are enrolled, one after the other.
    fn both_ends_that_come_to_block_leave(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for together in [true, false] {
            let (a, b) = pair(&client, &web, web.ip())?;
            let plain = |count: usize| {
                wait_for("plain TCP", SOON, || {
                    // Each acknowledgement is a packet with which one may leave.
                    let left = |ends: &[EndRecord]| ends.iter().filter(|end| end.has_psock == 0).count();
                    talk(&a, &b).is_ok() && bed.ends().is_ok_and(|ends| left(&ends) >= count)
                })
            };
            talk(&a, &b)?;
            // Sooner, it might have been accepted and not be through with fcntl.
            thread::sleep(GRACE);
            if together {
                // What waits keeps the one from leaving, but it is no target any more.
                traffic::write_all(&b, b"later")?;
            }
            a.set_nonblocking(false)?;
            if together {
                traffic::write_all(&a, b"hello")?;
                traffic::read_all(&b, &mut [0; 5])?;
            } else {
                plain(1)?;
            }
            b.set_nonblocking(false)?;
            if together {
                traffic::write_all(&b, b"hello")?;
                traffic::read_all(&a, &mut [0; 10])?;
            }
            plain(2)?;
            assert!(bed.waiting().is_empty(), "it does not come back");
            drop((a, b));
            bed.emptied()?;
        }
        Ok(())
    }
}
