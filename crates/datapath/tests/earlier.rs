//! Connections from before the attachment are enrolled while they run, in order and without loss, and
//! only if both ends are proved to be on this host (invariants 1 to 4).

mod common;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::other::Other;
use common::stage::Stage;
use common::{
    Bed, Result, SOON, disconnect, exchange, expect_connections, expect_reasons, in_progress, seed,
    set_option, talk,
};
use datapath::abi::{Mode, Reason, Verdict};
use datapath::adopt::Adopter;
use datapath::drain;
use datapath::earlier::{Connection, Earlier};
use testbed::isolate::TEST_CGROUP;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, SocketOptions, stream};
use testbed::{Cgroup, Masquerade, kernel_test, wait_for};

type Error = Box<dyn std::error::Error + Send + Sync>;

const BYTES: u64 = 1 << 20;

/// A datapath that came late.
struct Late<'a> {
    bed: Bed,
    earlier: Earlier,
    adopter: Adopter,
    cgroup: &'a Cgroup,
}

impl<'a> Late<'a> {
    fn on(cgroup: &'a Cgroup) -> Result<Self> {
        let bed = Bed::on(cgroup)?;
        Ok(Self {
            earlier: Earlier::load(&bed)?,
            adopter: Adopter::load(&bed)?,
            bed,
            cgroup,
        })
    }

    fn find(&self) -> Result<Vec<Connection>> {
        let id = fs::metadata(self.cgroup.path())?.ino();
        let found = self.earlier.facts(&self.earlier.find()?)?.into_iter();
        let is_covered =
            |both: &Connection| [both.client.cgroup_id, both.server.cgroup_id] == [id; 2];
        Ok(found.filter(is_covered).collect())
    }

    fn remember(&self, found: Vec<Connection>) -> Result {
        let found: Vec<_> = found.into_iter().map(|both| (both, 0)).collect();
        Ok(self.earlier.remember(&self.bed, &found)?)
    }

    /// Finds, remembers and adopts; returns how many were found.
    fn look(&self) -> Result<usize> {
        let found = self.find()?;
        let count = found.len();
        self.remember(found)?;
        self.adopter.look()?;
        Ok(count)
    }
}

/// Both ends are enrolled, and redirect once all that they sent before has arrived.
fn expect_redirected(late: &Late, pairs: Vec<(TcpStream, TcpStream)>) -> Result {
    let connections = pairs.len() as u64;
    for pair in &pairs {
        late.bed.exchange_redirected(pair, BYTES)?;
    }
    drop(pairs);
    let totals = late.bed.emptied()?;
    expect_connections(&totals, connections);
    expect_reasons(&totals, &[]);
    Ok(())
}

/// The same pattern goes from one to the other until `end`, and all of it arrives.
fn stream_until(from: &TcpStream, to: &TcpStream, end: &AtomicBool) -> Result {
    let sent = seed();
    let (mut pattern, mut arrived) = (Pattern::new(sent), Pattern::new(sent));
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result {
            while !end.load(Ordering::Relaxed) {
                stream::send_from(from, &mut pattern, 3000, 700)?;
                thread::yield_now();
            }
            Ok(stream::finish(from)?)
        });
        let mut buf = [0; 5000];
        loop {
            let n = traffic::read(to, &mut buf)?;
            if n == 0 {
                break;
            }
            assert_eq!(arrived.differs(&buf[..n]), None);
        }
        sender.join().expect("the sender panicked")
    })?;
    assert_eq!(pattern.offset(), arrived.offset());
    Ok(())
}

kernel_test! {
    fn connections_from_before_are_enrolled(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let (fresh, used, read_late) = (stage.pair()?, stage.pair()?, stage.pair()?);
        let large = seed();
        for (a, b) in [(&used.0, &used.1), (&used.1, &used.0)] {
            talk(a, b)?;
            thread::scope(|scope| {
                let sender = scope.spawn(|| stream::send_from(a, &mut Pattern::new(large), 4 << 20, 9000));
                let mut all = vec![0; 4 << 20];
                traffic::read_all(b, &mut all)?;
                assert_eq!(Pattern::new(large).differs(&all), None);
                Ok::<_, Error>(sender.join().expect("the sender panicked")?)
            })?;
        }
        traffic::write_all(&read_late.0, b"hello")?;
        let late = Late::on(cgroup)?;
        assert_eq!((late.look()?, late.bed.totals()?.paired), (3, 2));
        traffic::read_all(&read_late.1, &mut [0; 5])?;
        assert_eq!((late.look()?, late.bed.totals()?.paired), (0, 3));
        expect_redirected(&late, vec![fresh, used, read_late])
    }

    /// The server's end of some is seen before the client's.
    fn connections_within_a_namespace_are_enrolled(cgroup: &Cgroup) -> Result {
        const COUNT: usize = 20;
        let stage = Stage::new()?;
        let pair = || traffic::pair(&stage.client, &stage.client, Ipv4Addr::LOCALHOST);
        let _pairs = (0..COUNT).map(|_| pair()).collect::<Result<Vec<_>, _>>()?;
        let late = Late::on(cgroup)?;
        assert_eq!((late.look()?, late.bed.totals()?.paired), (COUNT, COUNT as u64));
        Ok(())
    }

    /// Two nodes with equal addresses, and ends that know each other by others than their own.
    fn ends_are_told_by_their_handshakes_alone(cgroup: &Cgroup) -> Result {
        let stages = [Stage::new()?, Stage::new()?];
        let vip: SocketAddr = "10.97.0.1:80".parse()?;
        let mut pairs = Vec::new();
        for stage in &stages {
            let (listener, at) = stage.web.listen((stage.web.ip(), 8080))?;
            let _service = stage.node.service_with(vip, at, Masquerade::Always)?;
            for addr in [vip, at] {
                let from = SocketOptions::new().bind((stage.client.ip(), 4000 + addr.port()));
                let a = stage.client.run(|| from.connect(addr))??;
                pairs.push((a, traffic::accept(&listener)?));
            }
        }
        let late = Late::on(cgroup)?;
        assert_eq!(late.look()?, 4);
        expect_redirected(&late, pairs)
    }

    fn connections_are_enrolled_while_data_flows(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let (a, b) = stage.pair()?;
        let late = Late::on(cgroup)?;
        let end = AtomicBool::new(false);
        thread::scope(|scope| {
            let ways = [scope.spawn(|| stream_until(&a, &b, &end)), scope.spawn(|| stream_until(&b, &a, &end))];
            let enrolled = wait_for("the connection to be enrolled", SOON, || {
                late.look().is_ok() && late.bed.totals().is_ok_and(|totals| totals.paired == 1)
            });
            thread::sleep(Duration::from_millis(200));
            end.store(true, Ordering::Relaxed);
            for way in ways {
                way.join().expect("a peer panicked")?;
            }
            Ok::<_, Error>(enrolled?)
        })?;
        drop((a, b));
        let totals = late.bed.emptied()?;
        assert!(totals.closed_redirected_bytes > 0, "{}", common::Sums(&totals));
        Ok(())
    }

    fn connections_that_do_not_fit_are_left_alone_until_they_do(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let [blocks, option, shared] = [stage.pair()?, stage.pair()?, stage.pair()?];
        blocks.0.set_nonblocking(false)?;
        set_option(&option.1, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 2)?;
        let its = Stdio::from(shared.1.as_fd().try_clone_to_owned()?);
        let mut other = Command::new("sleep").arg("60").stdin(its).spawn()?;
        let late = Late::on(cgroup)?;
        let left_alone = late.look();
        other.kill()?;
        other.wait()?;
        assert_eq!((left_alone?, late.bed.conns().len()), (0, 0));
        blocks.0.set_nonblocking(true)?;
        set_option(&option.1, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 1)?;
        assert_eq!((late.look()?, late.bed.conns().len()), (3, 3));
        expect_redirected(&late, vec![blocks, option, shared])
    }

    fn half_closed_connection_is_left_alone(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let (a, b) = stage.pair()?;
        let late = Late::on(cgroup)?;
        stream::finish(&a)?;
        wait_for("the end of the stream", SOON, || matches!(b.peek(&mut [0]), Ok(0)))?;
        assert_eq!(late.look()?, 0);
        drop((a, b));
        late.bed.none_enrolled(&[])
    }

    fn other_program_goes_on_hearing_of_it(cgroup: &Cgroup) -> Result {
        let other = Other::on(cgroup)?;
        let stage = Stage::new()?;
        let (a, b) = stage.pair()?;
        let late = Late::on(cgroup)?;
        assert_eq!(late.look()?, 1);
        other.hears_what_left(&late.bed, &a, &b)
    }

    fn program_that_may_splice_is_left_alone(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let pair = stage.pair()?;
        let late = Late::on(cgroup)?;
        let own = late.find()?[0].client.end.program;
        for verdict in [Verdict::MaySplice, Verdict::Unknown] {
            late.bed.set_verdict(own, verdict)?;
            assert_eq!(late.look()?, 0);
        }
        exchange(&pair.0, &pair.1, BYTES)?;
        late.bed.none_enrolled(&[])
    }

    fn connection_out_of_the_cgroup_is_left_alone(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let (listener, addr) = stage.web.listen((stage.web.ip(), 0))?;
        // A socket belongs to the cgroup that its maker was in.
        let elsewhere = Cgroup::create(TEST_CGROUP)?;
        elsewhere.enter()?;
        let a = stage.client.connect(addr);
        cgroup.enter()?;
        let (a, b) = (a?, traffic::accept(&listener)?);
        let late = Late::on(cgroup)?;
        assert_eq!(late.look()?, 0);
        exchange(&a, &b, BYTES)?;
        drop((a, b));
        late.bed.none_enrolled(&[])
    }

    fn connection_is_found_once_and_again_by_the_next_datapath(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let pair = stage.pair()?;
        let late = Late::on(cgroup)?;
        assert_eq!(late.look()?, 1);
        assert!(late.find()?.is_empty());
        for _ in 0..9 {
            talk(&pair.0, &pair.1)?;
        }
        let all = late.bed.conns();
        drain::retire(&late.bed, &all, Reason::Retired, Instant::now() + SOON, |_| {})?;
        drop(late);
        let later = Late::on(cgroup)?;
        assert_eq!(later.look()?, 1);
        expect_redirected(&later, vec![pair])
    }

    fn connection_that_ends_before_it_is_adopted_leaves_nothing(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let pair = stage.pair()?;
        let late = Late::on(cgroup)?;
        late.remember(late.find()?)?;
        assert_eq!(late.bed.waiting().len(), 1);
        drop(pair);
        late.bed.none_enrolled(&[])
    }

    /// The socket lives on, and has another peer.
    fn socket_that_was_connected_anew_is_not_taken_for_what_it_was(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let (listener, addr) = stage.web.listen((stage.web.ip(), 0))?;
        let a = stage.client.connect(addr)?;
        let b = traffic::accept(&listener)?;
        let late = Late::on(cgroup)?;
        let found = late.find()?;
        disconnect(&a)?;
        late.bed.set_mode(Mode::Off)?;
        socket2::SockRef::from(&a).connect(&addr.into()).or_else(in_progress)?;
        let other = traffic::accept(&listener)?;
        late.bed.set_mode(Mode::On)?;
        late.remember(found)?;
        late.adopter.look()?;
        assert_eq!((late.bed.waiting().len(), late.bed.conns().len()), (0, 0));
        exchange(&a, &other, BYTES)?;
        drop((a, b, other));
        late.bed.none_enrolled(&[(Reason::Detaching, 2)])
    }
}
