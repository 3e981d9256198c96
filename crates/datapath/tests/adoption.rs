//! Connections whose ends blocked when they were made are enrolled when they do not any more, while
//! their traffic goes on, in order and without loss (invariants 1, 2).

mod common;

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::stage::{Stage, unblock};
use common::{Bed, Dropping, PLAIN_ACKS, Result, SOON, exchange, expect_reasons, seed, set_option};
use datapath::abi::{Mode, Reason, Totals};
use datapath::adopt::Adopter;
use rustix::event::epoll;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

const BYTES: u64 = 1 << 20;

fn enrolled(bed: &Bed) -> usize {
    bed.enrolled().len()
}

/// A reader that sleeps in TCP's own read would not see what is redirected. Those who poll the socket come before it among
/// those who wait.
fn waits_for_a_sleeping_reader(cgroup: &Cgroup, who_poll: usize) -> Result {
    let bed = Bed::on(cgroup)?;
    let adopter = Adopter::load(&bed)?;
    let stage = Stage::new()?;
    let pair = stage.blocking_pair()?;
    let mut sleeps = pair.1.try_clone()?;
    let reader = thread::spawn(move || -> Result<[u8; 5]> {
        let mut got = [0; 5];
        sleeps.read_exact(&mut got)?;
        Ok(got)
    });
    wait_for("a sleeping reader", SOON, || {
        common::sleeping_readers() == 1
    })?;
    let poll = || -> Result<OwnedFd> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&set, &pair.1, data, epoll::EventFlags::IN)?;
        Ok(set)
    };
    let sets = (0..who_poll).map(|_| poll()).collect::<Result<Vec<_>>>()?;
    unblock(&pair)?;
    adopter.look()?;
    assert_eq!(bed.totals()?.paired, 0);
    drop(sets);
    traffic::write_all(&pair.0, b"hello")?;
    assert_eq!(&reader.join().expect("it panicked")?, b"hello");
    adopter.look()?;
    assert_eq!(bed.totals()?.paired, 1);
    Ok(())
}

kernel_test! {
    fn connection_that_does_not_block_any_more_is_enrolled(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        // Over plain TCP, before and after.
        let (there, back) = (seed(), seed());
        let (mut to_b, mut to_a) = (Pattern::new(there), Pattern::new(back));
        let (mut at_b, mut at_a) = (to_b.clone(), to_a.clone());
        for round in 0..3 {
            stream::send_from(&pair.0, &mut to_b, 10_000, 700)?;
            stream::send_from(&pair.1, &mut to_a, 10_000, 700)?;
            let mut got = [0; 10_000];
            traffic::read_all(&pair.1, &mut got)?;
            assert_eq!(at_b.differs(&got), None);
            traffic::read_all(&pair.0, &mut got)?;
            assert_eq!(at_a.differs(&got), None);
            adopter.look()?;
            assert_eq!(enrolled(&bed), if round == 0 { 0 } else { 2 }, "round {round}");
            unblock(&pair)?;
            adopter.look()?;
        }
        exchange(&pair.0, &pair.1, BYTES)?;
        drop(pair);
        let totals = bed.emptied()?;
        assert_eq!((totals.enrolled, totals.paired), (2, 1));
        assert!(totals.closed_redirected_bytes >= 2 * BYTES, "{}", common::Sums(&totals));
        expect_reasons(&totals, &[(Reason::Blocking, 1)]);
        Ok(())
    }

    fn connection_of_which_one_end_blocks_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        for client in [true, false] {
            let pair = stage.blocking_pair()?;
            if client { &pair.0 } else { &pair.1 }.set_nonblocking(true)?;
            // Another one in the same namespaces is looked at with it.
            let ready = stage.blocking_pair()?;
            unblock(&ready)?;
            adopter.look()?;
            assert_eq!((enrolled(&bed), bed.conns().len()), (2, 1));
            drop(ready);
            wait_for("its end", SOON, || enrolled(&bed) == 0)?;
            exchange(&pair.0, &pair.1, BYTES)?;
            assert_eq!((enrolled(&bed), bed.conns().len()), (0, 0));
        }
        let totals = bed.emptied()?;
        assert_eq!((totals.enrolled, totals.paired), (4, 2));
        expect_reasons(&totals, &[(Reason::Blocking, 4)]);
        Ok(())
    }

    /// The kernel would take the client, which has not heard of the end, but not the server.
    fn connection_that_is_ending_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        let lost = Dropping::arriving(&stage.client, "tcp flags fin")?;
        pair.1.shutdown(Shutdown::Write)?;
        unblock(&pair)?;
        adopter.look()?;
        assert_eq!((enrolled(&bed), bed.conns().len()), (0, 0));
        lost.end()?;
        traffic::write_all(&pair.0, b"request")?;
        traffic::read_all(&pair.1, &mut [0; 7])?;
        drop(pair);
        bed.none_enrolled(&[(Reason::Blocking, 1)])
    }

    /// Two instances on one cgroup, which both wait for it.
    fn socket_that_another_sockmap_has_is_left_alone(cgroup: &Cgroup) -> Result {
        let beds = [Bed::on(cgroup)?, Bed::on(cgroup)?];
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        unblock(&pair)?;
        for bed in &beds {
            Adopter::load(bed)?.look()?;
        }
        assert_eq!(beds.each_ref().map(|bed| (enrolled(bed), bed.conns().len())), [(2, 1), (0, 0)]);
        beds[0].exchange_redirected(&pair, BYTES)?;
        drop(pair);
        beds[0].emptied()?;
        beds[1].none_enrolled(&[(Reason::Blocking, 1)])
    }

    /// What counts at the handshake is the client's socket and the listener.
    fn either_end_that_blocks_is_enough(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let blocks = stage.web.run(|| TcpListener::bind((stage.web.ip(), 0)))??;
        let a = stage.client.connect(blocks.local_addr()?)?;
        let b = blocks.accept()?.0;
        drop((a, b));
        let (listener, addr) = stage.web.listen((stage.web.ip(), 0))?;
        let a = stage.client.run(|| TcpStream::connect(addr))??;
        let b = traffic::accept(&listener)?;
        drop((a, b));
        bed.none_enrolled(&[(Reason::Blocking, 2)])
    }

    /// The kernel would put the whole of a buffer into the queue of which a part was read.
    fn connection_with_unread_data_waits(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        let mut to_b = Pattern::new(seed());
        let mut at_b = to_b.clone();
        stream::send_from(&pair.0, &mut to_b, 1000, 1000)?;
        let mut got = [0; 1000];
        traffic::read_all(&pair.1, &mut got[..300])?;
        unblock(&pair)?;
        adopter.look()?;
        assert_eq!(bed.totals()?.paired, 0);
        stream::send_from(&pair.0, &mut to_b, 1000, 1000)?;
        traffic::read_all(&pair.1, &mut got[300..])?;
        assert_eq!(at_b.differs(&got), None);
        traffic::read_all(&pair.1, &mut got)?;
        assert_eq!(at_b.differs(&got), None);
        adopter.look()?;
        assert_eq!(bed.totals()?.paired, 1);
        exchange(&pair.0, &pair.1, BYTES)?;
        drop(pair);
        bed.emptied()?;
        Ok(())
    }

    fn connection_with_a_sleeping_reader_waits(cgroup: &Cgroup) -> Result {
        waits_for_a_sleeping_reader(cgroup, 0)
    }

    /// Behind them it is not looked for.
    fn connection_with_a_sleeping_reader_and_many_who_poll_waits(cgroup: &Cgroup) -> Result {
        waits_for_a_sleeping_reader(cgroup, 5)
    }

    /// The kernel may hide the addresses of its functions.
    fn nothing_is_adopted_where_nobody_can_tell_who_sleeps(cgroup: &Cgroup) -> Result {
        // SAFETY: of this thread, which has no other's files in use.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount_bind("/dev/null", "/proc/kallsyms")?;
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        unblock(&pair)?;
        adopter.look()?;
        assert_eq!(enrolled(&bed), 0);
        exchange(&pair.0, &pair.1, BYTES)?;
        drop(pair);
        bed.none_enrolled(&[(Reason::Blocking, 1)])
    }

    fn connection_with_an_option_waits(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        unblock(&pair)?;
        for (mark, sockets) in [(2, 0), (1, 2)] {
            // The client's end comes first.
            set_option(&pair.0, libc::SOL_SOCKET, libc::SO_RCVLOWAT, mark)?;
            adopter.look()?;
            assert_eq!(enrolled(&bed), sockets);
        }
        Ok(())
    }

    /// Until then nobody knows whether it will block.
    fn connection_that_was_not_accepted_waits(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let listener = stage.web.run(|| TcpListener::bind((stage.web.ip(), 0)))??;
        let addr = listener.local_addr()?;
        let a = stage.client.run(|| TcpStream::connect(addr))??;
        a.set_nonblocking(true)?;
        wait_for("the server's end", SOON, || bed.offers().is_empty())?;
        adopter.look()?;
        assert_eq!(enrolled(&bed), 0);
        let b = listener.accept()?.0;
        b.set_nonblocking(true)?;
        adopter.look()?;
        assert_eq!(enrolled(&bed), 2);
        Ok(())
    }

    fn what_is_in_flight_at_the_adoption_is_read_first(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        let lost = Dropping::arriving(&stage.client, PLAIN_ACKS)?;
        traffic::write_all(&pair.1, b"old")?;
        unblock(&pair)?;
        adopter.look()?;
        assert_eq!(enrolled(&bed), 2);
        traffic::write_all(&pair.1, b"new")?;
        lost.end()?;
        let mut got = [0; 6];
        traffic::read_all(&pair.0, &mut got)?;
        assert_eq!(&got, b"oldnew");
        Ok(())
    }

    fn under_load_in_both_directions(cgroup: &Cgroup) -> Result {
        const AT_LEAST: u64 = 10;
        const AT_MOST: usize = 300;
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let enough = |totals: Totals| totals.paired >= AT_LEAST && totals.closed_redirected_bytes > 0;
        for _ in 0..AT_MOST {
            if enough(bed.totals()?) {
                break;
            }
            let pair = stage.blocking_pair()?;
            unblock(&pair)?;
            let done = AtomicBool::new(false);
            thread::scope(|scope| -> Result {
                let look = scope.spawn(|| -> Result {
                    while !done.load(Ordering::Relaxed) {
                        adopter.look()?;
                    }
                    Ok(())
                });
                let moved = exchange(&pair.0, &pair.1, 4 * BYTES);
                done.store(true, Ordering::Relaxed);
                look.join().expect("it panicked")?;
                moved.map(drop)
            })?;
        }
        let totals = bed.emptied()?;
        assert!(enough(totals), "{}", common::Sums(&totals));
        Ok(())
    }

    fn nothing_is_enrolled_while_detaching(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        unblock(&pair)?;
        bed.set_mode(Mode::Detaching)?;
        adopter.look()?;
        assert_eq!(enrolled(&bed), 0);
        bed.set_mode(Mode::On)?;
        adopter.look()?;
        assert_eq!(enrolled(&bed), 2);
        Ok(())
    }

    fn connection_that_ends_before_leaves_nothing(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let pair = stage.blocking_pair()?;
        wait_for("the record", SOON, || bed.waiting().len() == 1)?;
        drop(pair);
        bed.none_enrolled(&[(Reason::Blocking, 1)])
    }
}
