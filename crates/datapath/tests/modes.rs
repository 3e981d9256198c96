//! What the mode says holds from the next message on, and no byte is lost at the change.

mod common;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::thread;

use common::{
    Bed, Dropping, LARGE, PLAIN_ACKS, Result, SOON, exchange, expect_connections, expect_reasons,
    fill, one_way, seed,
};
use datapath::abi::{Dimension, Mode, Reason, RuleSet, Verdict};
use datapath::adopt::Adopter;
use datapath::programs::Programs;
use datapath::rules::{Tables, prepare};
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{accept, listen, pair, read_all, stream};
use testbed::{Cgroup, Node, kernel_test};

kernel_test! {
    /// New connections are left alone; those that are enrolled go on.
    fn mode_off_enrols_nothing_more(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        bed.set_mode(Mode::Off)?;
        let (c, d) = pair(&client, &web, web.ip())?;
        assert!(bed.offers().is_empty());
        let sent = exchange(&a, &b, LARGE / 4)?;
        exchange(&c, &d, LARGE / 4)?;
        drop((a, b, c, d));
        let totals = bed.emptied()?;
        expect_connections(&totals, 1);
        // Each end of the other one.
        expect_reasons(&totals, &[(Reason::Detaching, 2)]);
        assert_eq!((totals.closed_redirected_bytes, totals.closed_kernel_bytes), (sent, 0));
        bed.set_mode(Mode::On)?;
        let (a, b) = pair(&client, &web, web.ip())?;
        exchange(&a, &b, 1000)?;
        assert_eq!(bed.totals()?.paired, 2);
        Ok(())
    }

    /// The client was enrolled, its server is not any more: the client finds no peer.
    fn mode_off_within_a_handshake_leaves_the_client_without_a_peer(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let held = Dropping::arriving(&web, PLAIN_ACKS)?;
        let a = client.connect(addr)?;
        assert_eq!((bed.enrolled().len(), bed.conns().len()), (1, 1));
        bed.set_mode(Mode::Off)?;
        held.end()?;
        let b = accept(&listener)?;
        assert_eq!((bed.enrolled().len(), bed.conns().len()), (1, 0));
        exchange(&a, &b, LARGE / 8)?;
        drop((a, b));
        let totals = bed.emptied()?;
        assert_eq!((totals.enrolled, totals.paired), (1, 0));
        expect_reasons(&totals, &[(Reason::Detaching, 1), (Reason::PeerLate, 1)]);
        assert_eq!((totals.closed_redirected_bytes, totals.closed_kernel_bytes), (0, LARGE / 8));
        Ok(())
    }

    /// The client, whose listener blocks, waits for ever.
    fn mode_off_within_a_handshake_leaves_nothing_to_adopt(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        listener.set_nonblocking(false)?;
        let held = Dropping::arriving(&web, PLAIN_ACKS)?;
        let a = client.connect(addr)?;
        assert_eq!(bed.waiting().len(), 1);
        bed.set_mode(Mode::Off)?;
        held.end()?;
        let b = accept(&listener)?;
        bed.set_mode(Mode::On)?;
        adopter.look()?;
        assert!(bed.enrolled().is_empty());
        exchange(&a, &b, 100_000)?;
        drop((a, b));
        bed.none_enrolled(&[(Reason::Blocking, 1)])
    }

    /// Rules that ask for programs may come when it does not run; what else is known of it stays.
    fn program_that_rules_do_not_know_is_told_of(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let told = RefCell::new(Vec::new());
        let tell = |program, _: &std::path::Path| told.borrow_mut().push(program);
        let mut programs = Programs::load(&bed, |_| true)?.telling(tell);
        let own = programs.of(std::process::id())?.ok_or("it runs")?;
        assert_eq!(bed.verdict(own)?, Verdict::NeverSplices);
        let mut tables = Tables::new(&[true], false);
        tables.ask_for(Dimension::LocalProgram, RuleSet::default());
        let _in_force = prepare(&bed, &tables)?.put_in_force(&bed, |_| {})?;
        let _listener = listen((Ipv4Addr::LOCALHOST, 0))?;
        programs.poll(SOON)?;
        assert!(told.borrow().contains(&own));
        Ok(())
    }

    /// It does not take its server for one that is over; bpf/lib/dead_reader.h.
    fn client_without_a_peer_does_not_give_up(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), 0))?;
        let held = Dropping::arriving(&web, PLAIN_ACKS)?;
        let mut a = client.connect(addr)?;
        bed.set_mode(Mode::Off)?;
        held.end()?;
        let b = accept(&listener)?;
        let filled = fill(&mut a, &mut Pattern::new(seed()), 65_536)?;
        read_all(&b, &mut vec![0; usize::try_from(filled)?])?;
        assert_eq!(SockRef::from(&a).tcp_user_timeout()?, None);
        Ok(())
    }

    /// In the middle of two streams, with data unread: both go on over the kernel path.
    fn mode_detaching_moves_streams_to_the_kernel_path(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        for round in 1..=10 {
            let (a, b) = pair(&client, &web, web.ip())?;
            let (up, down) = (seed(), seed());
            let (mut to_b, mut to_a) = (Pattern::new(up), Pattern::new(down));
            stream::send_from(&a, &mut to_b, LARGE / 8, 3000)?;
            stream::send_from(&b, &mut to_a, LARGE / 8, 5000)?;
            thread::scope(|scope| -> Result {
                let peers = [(&a, &mut to_b), (&b, &mut to_a)].map(|(sock, pattern)| {
                    scope.spawn(move || -> Result {
                        stream::send_from(sock, pattern, LARGE / 8, 1000)?;
                        Ok(stream::finish(sock)?)
                    })
                });
                bed.set_mode(Mode::Detaching)?;
                let readers = [(&b, up), (&a, down)].map(|(sock, seed)| {
                    scope.spawn(move || stream::verify(sock, seed, 7000))
                });
                for peer in peers {
                    peer.join().expect("a writer panicked")?;
                }
                for reader in readers {
                    assert_eq!(reader.join().expect("a reader panicked")?, LARGE / 4);
                }
                Ok(())
            })?;
            drop((a, b));
            let totals = bed.emptied()?;
            expect_connections(&totals, round);
            // The direction that ended first may have sent the other to the kernel path.
            let seen = |reason| (reason, totals.count(reason));
            expect_reasons(&totals, &[seen(Reason::Retired), seen(Reason::PeerGone)]);
            assert_eq!(
                totals.closed_redirected_bytes + totals.closed_kernel_bytes,
                round * LARGE / 2
            );
            bed.set_mode(Mode::On)?;
        }
        assert!(bed.totals()?.count(Reason::Retired) > 0);
        Ok(())
    }

    fn mode_detaching_before_the_first_byte_is_the_kernel_path(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        bed.set_mode(Mode::Detaching)?;
        let (up, down) = (seed(), seed());
        stream::send(&a, up, 10_000, 1000)?;
        // A direction that began on the kernel path stays there.
        bed.set_mode(Mode::On)?;
        one_way(&b, &a, down, LARGE / 8, 10_000)?;
        stream::finish(&a)?;
        assert_eq!(stream::verify(&b, up, 1000)?, 10_000);
        drop((a, b));
        let totals = bed.emptied()?;
        expect_reasons(&totals, &[(Reason::Retired, 1)]);
        assert_eq!(
            (totals.closed_redirected_bytes, totals.closed_kernel_bytes),
            (LARGE / 8, 10_000)
        );
        Ok(())
    }
}
