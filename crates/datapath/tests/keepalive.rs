//! Connection tracking does not forget a connection whose data it does not see, and the program's own
//! keepalive options stay as they are.

mod common;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{Bed, Result, SOON, exchange, option, set_option, talk};
use datapath::abi::{Mode, Reason};
use datapath::drain::{self, Outcome};
use datapath::keepalive::Keepalive;
use testbed::traffic::{accept, pair};
use testbed::{Cgroup, Masquerade, Node, Pod, kernel_test, wait_for};

/// How long connection tracking remembers a connection without segments, in seconds.
const MEMORY: u64 = 4;

/// From setting the options to giving them back.
const MOMENT: Duration = Duration::from_millis(1300);

/// As `/proc/net/tcp` has them (net/ipv4/tcp_ipv4.c, get_tcp4_sock).
const FIN_WAIT2: &str = "05";
const KEEPALIVE_TIMER: &str = "02";

/// A connection through a service address.
struct Stage {
    node: Node,
    pods: [Pod; 2],
    a: TcpStream,
    b: TcpStream,
}

impl Stage {
    fn new() -> Result<Self> {
        // As the kernel has it.
        Self::forgotten_after(5 * 24 * 3600)
    }

    fn forgotten_after(seconds: u64) -> Result<Self> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let vip: SocketAddr = "10.97.0.1:80".parse()?;
        let (listener, at) = web.listen((web.ip(), 8080))?;
        node.service_with(vip, at, Masquerade::Always)?;
        let set = format!("net.netfilter.nf_conntrack_tcp_timeout_established={seconds}");
        node.ns().command("sysctl").args(["-qw", &set]).run()?;
        let a = client.connect(vip)?;
        let b = accept(&listener)?;
        Ok(Self {
            node,
            pods: [web, client],
            a,
            b,
        })
    }

    /// Whether the node still knows the translated connection.
    fn is_known(&self) -> Result<bool> {
        Ok(self.node.ns().conntrack()?.contains("dport=80 "))
    }

    /// Redirected data for longer than connection tracking remembers.
    fn talk_long(&self, mut meanwhile: impl FnMut() -> Result) -> Result {
        let end = Instant::now() + Duration::from_secs(2 * MEMORY);
        while Instant::now() < end {
            talk(&self.a, &self.b)?;
            meanwhile()?;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// SO_KEEPALIVE and TCP_KEEPIDLE.
fn options(sock: &TcpStream) -> (i32, i32) {
    (
        option(sock, libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        option(sock, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    )
}

kernel_test! {
    fn translated_connection_is_not_forgotten(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::forgotten_after(MEMORY)?;
        let keepalive = Keepalive::load(&bed)?;
        stage.talk_long(|| {
            keepalive.begin(&bed)?;
            talk(&stage.a, &stage.b)?;
            thread::sleep(MOMENT);
            Ok(keepalive.end(&bed)?)
        })?;
        assert!(stage.is_known()?);
        assert_eq!((options(&stage.a).0, options(&stage.b).0), (0, 0));
        bed.set_mode(Mode::Detaching)?;
        // Over the kernel path, to its end.
        exchange(&stage.a, &stage.b, 100_000)?;
        let totals = bed.totals()?;
        assert_eq!(totals.count(Reason::QueueFull), 0);
        Ok(())
    }

    /// What the test above is good for.
    fn translated_connection_is_forgotten_without(cgroup: &Cgroup) -> Result {
        let _bed = Bed::on(cgroup)?;
        let stage = Stage::forgotten_after(MEMORY)?;
        assert!(stage.is_known()?);
        stage.talk_long(|| Ok(()))?;
        assert!(!stage.is_known()?);
        Ok(())
    }

    fn options_are_the_programs_own_again(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let Stage { node: _node, pods, a, b } = Stage::new()?;
        set_option(&a, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        set_option(&a, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 77)?;
        let other = pair(&pods[1], &pods[0], pods[0].ip())?;
        let before = (options(&a), options(&b));
        let keepalive = Keepalive::load(&bed)?;
        let now = || (options(&a), options(&b));
        // Nothing was redirected yet.
        keepalive.begin(&bed)?;
        assert_eq!(now(), before);
        for _ in 0..2 {
            talk(&a, &b)?;
            keepalive.begin(&bed)?;
            assert_eq!(now(), ((1, 1), (1, 1)));
        }
        for _ in 0..2 {
            keepalive.end(&bed)?;
            assert_eq!(now(), before);
            keepalive.begin(&bed)?;
        }
        // What the program sets meanwhile stays.
        talk(&b, &a)?;
        set_option(&b, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        keepalive.begin(&bed)?;
        keepalive.end(&bed)?;
        assert_eq!(options(&b).0, 1);
        set_option(&b, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0)?;
        // Nothing since, and on another connection something was.
        talk(&other.0, &other.1)?;
        keepalive.begin(&bed)?;
        assert_eq!(now(), before);
        keepalive.end(&bed)?;
        talk(&a, &b)?;
        keepalive.end(&bed)?;
        assert_eq!(now(), before);
        talk(&a, &b)?;
        bed.set_mode(Mode::Detaching)?;
        keepalive.begin(&bed)?;
        assert_eq!(now(), before);
        Ok(())
    }

    fn options_that_a_program_sets_meanwhile_stay(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let Stage { node: _node, pods: _pods, a, b } = Stage::new()?;
        let keepalive = Keepalive::load(&bed)?;
        let default = options(&a).1;
        // The last ones are those of Beeline.
        let sets = [(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 5), (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 1), (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0)];
        let stay = [(0, 5), (1, 5), (1, 1), (0, 1)];
        for ((level, name, value), stay) in sets.into_iter().zip(stay) {
            talk(&a, &b)?;
            keepalive.begin(&bed)?;
            assert_eq!((options(&a), options(&b)), ((1, 1), (1, 1)));
            set_option(&b, level, name, value)?;
            assert_eq!(options(&b), stay, "at once");
            keepalive.end(&bed)?;
            assert_eq!((options(&a), options(&b)), ((0, default), stay));
        }
        Ok(())
    }

    /// The kernel ends it with the same timer. For another connection the options are given back in its network namespace.
    fn orphan_keeps_its_timer(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let Stage { node: _node, pods: [web, client], a, b } = Stage::new()?;
        let (c, d) = pair(&client, &web, web.ip())?;
        let before = options(&c);
        client.command("sysctl").args(["-qw", "net.ipv4.tcp_fin_timeout=120"]).run()?;
        let keepalive = Keepalive::load(&bed)?;
        talk(&a, &b)?;
        talk(&c, &d)?;
        keepalive.begin(&bed)?;
        drop(a);
        let timer = || -> Result<Option<String>> {
            let text = client.run(|| fs::read_to_string("/proc/thread-self/net/tcp"))??;
            let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let mut orphans = fields.filter(|fields| fields[3] == FIN_WAIT2);
            Ok(orphans.next().map(|fields| fields[5][..2].to_owned()))
        };
        wait_for("the acknowledgement of the FIN", SOON, || matches!(timer(), Ok(Some(_))))?;
        assert_eq!(timer()?.as_deref(), Some(KEEPALIVE_TIMER));
        keepalive.end(&bed)?;
        assert_eq!((options(&c), timer()?.as_deref()), (before, Some(KEEPALIVE_TIMER)));
        Ok(())
    }

    fn options_of_a_retired_connection_are_given_back(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let Stage { node: _node, pods: _pods, a, b } = Stage::new()?;
        let before = (options(&a), options(&b));
        let keepalive = Keepalive::load(&bed)?;
        talk(&a, &b)?;
        keepalive.begin(&bed)?;
        let outcome = drain::retire(&bed, &bed.conns(), Reason::Retired, Instant::now() + SOON, |_| {})?;
        assert!(matches!(outcome, Outcome::Done { .. }));
        assert_eq!((options(&a), options(&b)), before);
        Ok(())
    }
}
