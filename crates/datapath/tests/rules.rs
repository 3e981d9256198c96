//! Rules that leave connections to the kernel path: each thing that they may ask for, at either end.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{Bed, Dropping, Result, SOON, expect_connections, expect_reasons, talk};
use datapath::abi::{Dimension, MAX_RULES, Program, Reason, RuleAnswer, RuleOptions, RuleSet};
use datapath::adopt::Adopter;
use datapath::programs::Programs;
use datapath::rules::{InForce, Known, Opinion, Prefix, Tables, prepare};
use datapath::socket::Options;
use io_uring::IoUring;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, SocketOptions};
use testbed::{Cgroup, Masquerade, Node, kernel_test, wait_for};

const PORT: u16 = 8080;

fn put(bed: &Bed, tables: &Tables) -> Result<InForce> {
    Ok(prepare(bed, tables)?.put_in_force(bed, |_| {})?)
}

/// One rule for the kernel path that asks for this.
fn exclude(dimension: Dimension, prefixes: Vec<Prefix>) -> Tables {
    let mut tables = Tables::new(&[true], false);
    tables.accept(dimension, &[Some(prefixes)]);
    tables
}

/// Nobody's answer is accepted, except this one.
fn exclude_one(bed: &Bed, accepted: RuleAnswer, known: &[RuleAnswer]) -> Result<()> {
    let mut tables = Tables::new(&[true], false);
    tables.ask_for(accepted_dimension(&accepted), RuleSet::default());
    for answer in known {
        tables.answer(*answer, RuleSet::default());
    }
    tables.answer(accepted, [0].into_iter().collect());
    put(bed, &tables)?;
    Ok(())
}

fn accepted_dimension(answer: &RuleAnswer) -> Dimension {
    let raw = u32::try_from(answer.dimension).expect("a small number");
    Dimension::from_raw(raw).expect("made of one")
}

fn network(ip: &str, len: u8) -> Vec<Prefix> {
    vec![Prefix::network(ip.parse().expect("an address"), len)]
}

fn loopback() -> Result<(TcpStream, TcpStream)> {
    let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
    connect(&listener, addr)
}

fn connect(listener: &TcpListener, to: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let client = traffic::connect(to)?;
    Ok((client, traffic::accept(listener)?))
}

/// Whether connections made by `pair` are enrolled: one with these tables, one with none.
fn excluded_by(
    bed: &Bed,
    tables: &Tables,
    pair: impl Fn() -> Result<(TcpStream, TcpStream)>,
) -> Result<bool> {
    let before = bed.totals()?;
    put(bed, tables)?;
    let (a, b) = pair()?;
    talk(&a, &b)?;
    let after = bed.totals()?;
    put(bed, &Tables::new(&[], false))?;
    let counted = |reason| after.count(reason) - before.count(reason);
    let enrolled = after.enrolled - before.enrolled;
    assert_eq!(enrolled, if counted(Reason::Excluded) == 1 { 0 } else { 2 });
    assert_eq!(
        counted(Reason::UnknownWorkload) + counted(Reason::UnknownProgram),
        0
    );
    Ok(enrolled == 0)
}

/// What becomes of a connection: enrolled, or left for the reason, which is `Excluded` or `unknown`.
fn expect_outcome(bed: &Bed, reason: Option<Reason>, unknown: Reason) -> Result<()> {
    let before = bed.totals()?;
    let (a, b) = loopback()?;
    talk(&a, &b)?;
    let after = bed.totals()?;
    for other in [Reason::Excluded, unknown] {
        let counted = after.count(other) - before.count(other);
        assert_eq!(counted, u64::from(reason == Some(other)), "{other:?}");
    }
    let enrolled = after.enrolled - before.enrolled;
    assert_eq!(enrolled, if reason.is_none() { 2 } else { 0 });
    Ok(())
}

kernel_test! {
    fn ports_exclude_at_the_end_that_has_them(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let pair = || connect(&listener, addr);
        let port = addr.port();
        for dimension in [Dimension::LocalPort, Dimension::RemotePort] {
            for (ports, expected) in [(port..=port, true), (port - 1..=port + 1, true), (1..=9, false)] {
                let tables = exclude(dimension, Prefix::ports(ports.clone()));
                assert_eq!(excluded_by(&bed, &tables, pair)?, expected, "{dimension:?} {ports:?}");
            }
        }
        Ok(())
    }

    fn networks_exclude_whatever_family_the_socket_has(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (v4, at4) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let (v6, at6) = traffic::listen((Ipv6Addr::LOCALHOST, 0))?;
        let both = SocketOptions::new().only_v6(false);
        let (mapped, any) = both.listen((Ipv6Addr::UNSPECIFIED, 0))?;
        let at_mapped = SocketAddr::from((Ipv4Addr::LOCALHOST, any.port()));
        let through = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), any.port()));
        for dimension in [Dimension::LocalAddress, Dimension::RemoteAddress] {
            for (listener, to, ip, expected) in [
                (&v4, at4, ("127.0.0.0", 8), true),
                (&v4, at4, ("127.0.0.1", 32), true),
                (&v4, at4, ("127.0.0.2", 32), false),
                (&v4, at4, ("::", 0), false),
                (&v6, at6, ("::1", 128), true),
                (&v6, at6, ("::", 0), true),
                (&v6, at6, ("0.0.0.0", 0), false),
                (&mapped, at_mapped, ("127.0.0.0", 8), true),
                (&mapped, through, ("127.0.0.0", 8), true),
                (&mapped, through, ("::", 0), false),
            ] {
                let tables = exclude(dimension, network(ip.0, ip.1));
                let found = excluded_by(&bed, &tables, || connect(listener, to))?;
                assert_eq!(found, expected, "{dimension:?} {to} {ip:?}");
                // As the server's end sees it alone.
                let mut tables = tables;
                let port = Prefix::ports(to.port()..=to.port());
                tables.accept(Dimension::LocalPort, &[Some(port)]);
                let found = excluded_by(&bed, &tables, || connect(listener, to))?;
                assert_eq!(found, expected, "server: {dimension:?} {to} {ip:?}");
            }
        }
        Ok(())
    }

    /// What else rules a client out still does.
    fn rules_do_not_excuse_a_ring(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let _in_force = put(&bed, &exclude(Dimension::LocalPort, Prefix::ports(1..=9)))?;
        let _ring = IoUring::new(8)?;
        let (a, b) = connect(&listener, addr)?;
        talk(&a, &b)?;
        drop((a, b));
        bed.none_enrolled(&[(Reason::IoUring, 1)])
    }

    fn each_end_is_judged_by_the_addresses_that_it_sees(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let vip: SocketAddr = "10.97.0.1:80".parse()?;
        let at = SocketAddr::from((web.ip(), PORT));
        let _service = node.service_with(vip, at, Masquerade::Always)?;
        let (listener, _) = web.listen(at)?;
        let pair = || Ok((client.connect(vip)?, traffic::accept(&listener)?));
        let one = |ip: IpAddr| vec![Prefix::network(ip, 32)];
        let gateway = testbed::node::GATEWAY;
        for (dimension, ip, expected) in [
            (Dimension::RemoteAddress, vip.ip(), true), // the client's view
            (Dimension::LocalAddress, vip.ip(), false),
            (Dimension::LocalAddress, web.ip().into(), true), // the server's view
            (Dimension::RemoteAddress, web.ip().into(), false),
            (Dimension::RemoteAddress, gateway.into(), true),
            (Dimension::LocalAddress, client.ip().into(), true),
            (Dimension::RemoteAddress, client.ip().into(), false),
        ] {
            let found = excluded_by(&bed, &exclude(dimension, one(ip)), pair)?;
            assert_eq!(found, expected, "{dimension:?} {ip}");
        }
        Ok(())
    }

    fn users_exclude(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        for dimension in [Dimension::LocalUser, Dimension::RemoteUser] {
            for (uid, expected) in [(0, true), (1, false), (1 << 31, false)] {
                let tables = exclude(dimension, vec![Prefix::user(uid)]);
                assert_eq!(excluded_by(&bed, &tables, loopback)?, expected, "{dimension:?} {uid}");
            }
        }
        Ok(())
    }

    fn cgroups_exclude_and_one_that_is_not_known_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let id = cgroup.path().metadata()?.ino();
        for dimension in [Dimension::LocalWorkload, Dimension::RemoteWorkload] {
            let of = |id| RuleAnswer::cgroup(dimension, id);
            for (accepted, known, reason) in [
                (of(id), vec![], Some(Reason::Excluded)),
                (of(1), vec![of(id)], None),
                (of(1), vec![], Some(Reason::UnknownWorkload)),
            ] {
                exclude_one(&bed, accepted, &known)?;
                expect_outcome(&bed, reason, Reason::UnknownWorkload)?;
            }
        }
        Ok(())
    }

    fn programs_exclude_and_one_that_is_not_known_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let own = Programs::load(&bed, |_| true)?.of(std::process::id())?.expect("it runs");
        let other = Program { inode: 1, ..own };
        for dimension in [Dimension::LocalProgram, Dimension::RemoteProgram] {
            let of = |program| RuleAnswer::program(dimension, program);
            for (accepted, known, reason) in [
                (of(own), vec![], Some(Reason::Excluded)),
                (of(other), vec![of(own)], None),
                (of(other), vec![], Some(Reason::UnknownProgram)),
            ] {
                exclude_one(&bed, accepted, &known)?;
                expect_outcome(&bed, reason, Reason::UnknownProgram)?;
            }
        }
        Ok(())
    }

    /// The rule is of another user.
    fn what_is_not_known_does_not_matter_where_no_rule_may_match(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        for dimension in [Dimension::LocalWorkload, Dimension::LocalProgram] {
            let mut tables = exclude(Dimension::LocalUser, vec![Prefix::user(7)]);
            tables.ask_for(dimension, RuleSet::default());
            put(&bed, &tables)?;
            expect_outcome(&bed, None, Reason::UnknownWorkload)?;
        }
        Ok(())
    }

    fn either_end_that_is_not_known_is_enough(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let child = cgroup.child("unknown")?;
        let id = cgroup.path().metadata()?.ino();
        let mut tables = Tables::new(&[true], false);
        tables.ask_for(Dimension::LocalWorkload, RuleSet::default());
        tables.answer(RuleAnswer::cgroup(Dimension::LocalWorkload, id), RuleSet::default());
        put(&bed, &tables)?;
        for (of_server, of_client) in [(&child, cgroup), (cgroup, &child)] {
            // A socket belongs to the cgroup that its maker was in.
            of_server.enter()?;
            let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
            of_client.enter()?;
            let client = traffic::connect(addr)?;
            cgroup.enter()?;
            drop((client, traffic::accept(&listener)?));
        }
        bed.none_enrolled(&[(Reason::UnknownWorkload, 2)])
    }

    /// The client's end is not known, and a rule may match it.
    fn exclusion_by_the_server_counts_whatever_is_known_of_the_client(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let child = cgroup.child("client")?;
        let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let id = cgroup.path().metadata()?.ino();
        let mut tables = Tables::new(&[true], false);
        tables.ask_for(Dimension::LocalWorkload, RuleSet::default());
        tables.answer(RuleAnswer::cgroup(Dimension::LocalWorkload, id), [0].into_iter().collect());
        put(&bed, &tables)?;
        // A socket belongs to the cgroup that its maker was in.
        child.enter()?;
        let client = traffic::connect(addr);
        cgroup.enter()?;
        drop((client?, traffic::accept(&listener)?));
        bed.none_enrolled(&[(Reason::Excluded, 1)])
    }

    fn the_first_rule_that_matches_decides_for_each_end_and_exclusions_are_absolute(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let pair = || connect(&listener, addr);
        let port = || Some(Prefix::ports(addr.port()..=addr.port()));
        // The 71 rules in front match nothing, so that the deciding ones are in the second word.
        let none = || Some(Prefix::ports(1..=1));
        let ordered = |last: &[(bool, Option<Vec<Prefix>>)], otherwise| {
            let front = (0..71).map(|_| (true, none()));
            let (kernel, asked): (Vec<_>, Vec<_>) = front.chain(last.iter().cloned()).unzip();
            let mut tables = Tables::new(&kernel, otherwise);
            tables.accept(Dimension::LocalPort, &asked);
            tables
        };
        for (rules, otherwise, expected) in [
            // Only the server's end has the port: the client's has no opinion.
            (vec![(false, port())], true, false),
            (vec![(true, port())], false, true),
            (vec![(false, port()), (true, port())], false, false),
            (vec![(true, port()), (false, port())], false, true),
            (vec![(false, port()), (true, None)], false, true), // the client's end
            (vec![], false, false),
            (vec![], true, true),
        ] {
            let tables = ordered(&rules, otherwise);
            assert_eq!(excluded_by(&bed, &tables, pair)?, expected, "{rules:?} {otherwise}");
        }
        Ok(())
    }

    /// With either generation every connection is enrolled; with parts of both it would not be.
    fn another_generation_is_in_force_as_a_whole(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let any = || Some(network("127.0.0.0", 8));
        let other = || Some(network("10.0.0.0", 8));
        let mut one = Tables::new(&[false, true], false);
        one.accept(Dimension::LocalAddress, &[any(), None]);
        let mut two = Tables::new(&[true, false], false);
        two.accept(Dimension::LocalAddress, &[other(), None]);
        put(&bed, &one)?;
        let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
        let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let made = thread::scope(|scope| -> Result<u64> {
            let swapping = scope.spawn(|| -> Result {
                while !stop.load(Ordering::Relaxed) {
                    let odd = swaps.fetch_add(1, Ordering::Relaxed) % 2 == 1;
                    put(&bed, if odd { &one } else { &two })?;
                }
                Ok(())
            });
            let mut made = 0;
            while (made < 3000 || swaps.load(Ordering::Relaxed) < 5) && !swapping.is_finished() {
                connect(&listener, addr)?;
                made += 1;
            }
            stop.store(true, Ordering::Relaxed);
            swapping.join().expect("no panic")?;
            Ok(made)
        })?;
        let totals = bed.emptied()?;
        expect_connections(&totals, made);
        expect_reasons(&totals, &[]);
        Ok(())
    }

    /// Wherever in the order they are.
    fn of_the_limits_of_two_rules_the_smaller_counts(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (listener, addr) = traffic::listen((Ipv4Addr::LOCALHOST, 0))?;
        let limit = |queue_limit| RuleOptions { queue_limit, ..RuleOptions::default() };
        let port = || Some(Prefix::ports(addr.port()..=addr.port()));
        for (at, client, server, expected) in [
            (0, 0, 0, 0),
            (0, 5, 0, 5),
            (62, 0, 7, 7),
            (63, 5, 7, 5),
            (100, 7, 5, 5),
            (511, 7, 9, 7),
            (MAX_RULES - 2, 9, 7, 7),
        ] {
            let mut tables = Tables::new(&vec![false; at + 2], false);
            let mut options = vec![limit(3); at];
            options.extend([client, server].map(limit));
            tables.want(options, limit(3));
            // Those in front match nothing.
            let asked = |last: [Option<Vec<Prefix>>; 2]| {
                let mut asked = vec![Some(Prefix::ports(1..=1)); at];
                asked.extend(last);
                asked
            };
            tables.accept(Dimension::RemotePort, &asked([port(), None]));
            tables.accept(Dimension::LocalPort, &asked([None, port()]));
            put(&bed, &tables)?;
            let (a, b) = connect(&listener, addr)?;
            let ends = bed.ends()?;
            let limits: Vec<_> = ends.iter().map(|end| end.end.queue_limit).collect();
            assert_eq!(limits, [expected; 2], "{at} {client} {server}");
            let known = |client| ends.iter().find(|end| end.end.is_client() == client).map(Known::of);
            let (client, server) = (known(true).expect("its end"), known(false).expect("its end"));
            let ruling = tables.rule(&client, &server);
            assert_eq!(tables.options(&ruling), limit(expected));
            drop((a, b));
            bed.emptied()?;
        }
        let mut tables = Tables::new(&[], false);
        tables.want(Vec::new(), limit(3));
        put(&bed, &tables)?;
        let _pair = connect(&listener, addr)?;
        assert!(bed.ends()?.iter().all(|end| end.end.queue_limit == 3), "no rule matches");
        Ok(())
    }

    fn the_limit_of_a_rule_holds_its_sender_back(cgroup: &Cgroup) -> Result {
        const PIECE: usize = 2000;
        let options = |queue_limit| RuleOptions { queue_limit, ..RuleOptions::default() };
        let settings = Options { queue_limit: 40_000, ..Options::default() };
        let bed = Bed::with(cgroup, settings)?;
        for limit in [20_000, 80_000, 0] {
            let mut tables = Tables::new(&[false], false);
            tables.want(vec![options(limit)], options(1));
            put(&bed, &tables)?;
            let (mut a, b) = loopback()?;
            common::fill(&mut a, &mut Pattern::new(common::seed()), PIECE)?;
            let sent = bed.ends()?.iter().map(|end| end.end.redirected_bytes).max();
            let sent = sent.expect("there are two ends");
            let expected = if limit == 0 { 40_000 } else { u64::from(limit) };
            assert!((expected..=expected + expected / 8 + PIECE as u64).contains(&sent), "{limit}: {sent}");
            drop((a, b));
            bed.emptied()?;
        }
        Ok(())
    }

    fn a_connection_that_rules_want_at_once_is_not_adopted(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let adopt = |adopt: bool| RuleOptions { at_once: u32::from(!adopt), ..RuleOptions::default() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let port = || Some(Prefix::ports(addr.port()..=addr.port()));
        for (client, server, otherwise, sockets) in [
            (Some(true), Some(true), false, 2),
            (Some(false), Some(true), true, 0),
            (Some(true), Some(false), true, 0),
            (None, Some(true), false, 2),
            (None, Some(false), true, 0),
            (None, None, true, 2),
            (None, None, false, 0),
        ] {
            let mut tables = Tables::new(&[false, false], false);
            let options = [client, server].map(|one| adopt(one.unwrap_or(true)));
            tables.want(options.to_vec(), adopt(otherwise));
            let never = || Some(Prefix::ports(1..=1));
            let asked = |of: Option<bool>| if of.is_some() { port() } else { never() };
            tables.accept(Dimension::RemotePort, &[asked(client), None]);
            tables.accept(Dimension::LocalPort, &[None, asked(server)]);
            put(&bed, &tables)?;
            let client_end = TcpStream::connect(addr)?;
            let (server_end, _) = listener.accept()?;
            assert_eq!(bed.waiting().len(), sockets / 2, "{client:?} {server:?} {otherwise}");
            client_end.set_nonblocking(true)?;
            server_end.set_nonblocking(true)?;
            adopter.look()?;
            assert_eq!(bed.enrolled().len(), sockets);
            drop((client_end, server_end));
            bed.emptied()?;
        }
        Ok(())
    }

    fn a_connection_that_waits_is_not_adopted_after_other_rules_came(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let port = |port| exclude(Dimension::LocalPort, Prefix::ports(port..=port));
        let none = || Tables::new(&[], false);
        for (before, after, sockets) in [
            (port(1), None, 2),
            (port(1), Some(port(2)), 0),
            (port(1), Some(none()), 0),
            (none(), Some(port(1)), 0),
            (none(), Some(none()), 2),
        ] {
            put(&bed, &none())?;
            put(&bed, &before)?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            let (server, _) = listener.accept()?;
            wait_for("the record", SOON, || bed.waiting().len() == 1)?;
            if let Some(after) = after {
                put(&bed, &after)?;
            }
            client.set_nonblocking(true)?;
            server.set_nonblocking(true)?;
            adopter.look()?;
            assert_eq!(bed.enrolled().len(), sockets);
            drop((client, server));
            bed.emptied()?;
        }
        Ok(())
    }

    fn a_connection_that_blocks_and_is_excluded_does_not_wait(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        put(&bed, &exclude(Dimension::LocalUser, vec![Prefix::user(0)]))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        assert!(bed.waiting().is_empty());
        drop((client, server));
        bed.none_enrolled(&[(Reason::Excluded, 1)])
    }

    fn a_handshake_from_before_the_rules_is_left_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, addr) = web.listen((web.ip(), PORT))?;
        let dropping = Dropping::arriving(&client, "tcp flags syn,ack / syn,ack")?;
        let connecting = client.spawn(move || traffic::connect(addr))?;
        wait_for("the offer", SOON, || bed.offers().len() == 1)?;
        put(&bed, &exclude(Dimension::LocalPort, Prefix::ports(1..=1)))?;
        dropping.end()?;
        let a = connecting.join()??;
        let b = traffic::accept(&listener)?;
        talk(&a, &b)?;
        drop((a, b));
        bed.none_enrolled(&[(Reason::UnknownWorkload, 1)])
    }
}

#[test]
fn what_is_not_known_matters_only_where_a_rule_may_match() {
    let mut tables = Tables::new(&[true], false);
    tables.accept(Dimension::LocalUser, &[Some(vec![Prefix::user(7)])]);
    tables.ask_for(Dimension::LocalWorkload, RuleSet::default());
    let somebody = |uid| Known {
        uid: Some(uid),
        cgroup: Some(1),
        ..Known::default()
    };
    let ruling = tables.rule(&somebody(0), &somebody(7));
    assert_eq!(ruling.client, Opinion::None);
    assert_eq!(ruling.server, Opinion::UnknownWorkload);
    assert_eq!(ruling.reason, Some(Reason::UnknownWorkload));
}

#[test]
fn what_is_not_said_of_an_end_is_not_guessed() {
    let mut tables = Tables::new(&[true, false], false);
    tables.accept(Dimension::LocalPort, &[Some(Prefix::ports(80..=80)), None]);
    let (mut client, mut server) = (Known::default(), Known::default());
    let ruling = tables.rule(&client, &server);
    assert_eq!(
        (ruling.client, ruling.server),
        (Opinion::Depends(0), Opinion::Depends(0))
    );
    assert!(ruling.depends());
    client.local_port = Some(5000);
    server.local_port = Some(81);
    let ruling = tables.rule(&client, &server);
    assert_eq!(
        (ruling.client, ruling.server),
        (Opinion::Socket(1), Opinion::Socket(1))
    );
    client.local_port = None;
    server.local_port = Some(80);
    let ruling = tables.rule(&client, &server);
    assert_eq!(
        (ruling.client, ruling.server),
        (Opinion::Depends(0), Opinion::Kernel(0))
    );
    assert!(!ruling.depends() && ruling.reason == Some(Reason::Excluded));
}
