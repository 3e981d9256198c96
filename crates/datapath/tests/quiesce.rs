//! Invariant 1: a socket is not released under a message that is on its way to it.
//!
//! The message is caught between verdict and queue: its sender waits there for the lock of the
//! peer's socket, which the peer holds while it sends from memory whose page does not come.

mod common;

use std::io::{self, PipeReader, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::late_page::{LatePage, PAGE, call_until_asleep, read_until_asleep, send_until_asleep};
use common::stage::Stage;
use common::{Bed, Result, SOON, exchange, fill_up, seed, set_option};
use datapath::abi::{Reason, Totals};
use datapath::drain::{self, Held, HeldBy, Outcome};
use datapath::ends::Ends;
use datapath::pins::{self, Pins};
use datapath::socket::{Options, SocketPath};
use testbed::traffic::pattern::Pattern;
use testbed::{Cgroup, kernel_test, traffic};

/// A thread that may be sending to anyone, as far as one can see: it sleeps uninterruptibly in a write, for a pipe
/// that another has locked.
struct MaySend {
    page: LatePage,
    writers: [JoinHandle<()>; 2],
    _out: PipeReader,
}

impl MaySend {
    fn begin() -> Self {
        let mut page = LatePage::new();
        let (out, mut into) = io::pipe().unwrap();
        let (mut locks, data) = (into.try_clone().unwrap(), page.bytes());
        let locks = call_until_asleep(move || locks.write_all(data).unwrap(), "userfault");
        let waits = call_until_asleep(move || into.write_all(&[7]).unwrap(), "pipe_write");
        Self {
            page,
            writers: [locks, waits],
            _out: out,
        }
    }

    fn end(self) {
        self.page.come();
        for writer in self.writers {
            writer.join().unwrap();
        }
    }
}

fn soon() -> Instant {
    Instant::now() + SOON
}

/// The lock of one end is taken by a thread that reads, then asked for by one with whose packet the socket may leave,
/// for its option, and by one of the peer whose message was redirected before. `meanwhile` all of them wait.
/// Returns the sums when what was sent is read.
fn catch_a_message(
    bed: &Bed,
    (a, b): &(TcpStream, TcpStream),
    meanwhile: impl Fn(&Bed) -> Result,
) -> Result<Totals> {
    traffic::write_all(a, b"request")?;
    // As long as something waits, more may come.
    set_option(b, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)?;
    let mut page = LatePage::new();
    let locks = read_until_asleep(b.try_clone()?, page.bytes(), 7);
    let leaves = send_until_asleep(b.try_clone()?, b"answer", "lock_sock");
    let caught = send_until_asleep(a.try_clone()?, &[7; 1000], "lock_sock");
    meanwhile(bed)?;
    page.come();
    for thread in [locks, leaves, caught] {
        thread.join().expect("it panicked");
    }
    let mut got = [0; 1000];
    traffic::read_all(b, &mut got)?;
    assert_eq!(got, [7; 1000]);
    traffic::read_all(a, &mut got[..6])?;
    assert_eq!(&got[..6], b"answer");
    let totals = bed.totals()?;
    exchange(a, b, 100_000)?;
    Ok(totals)
}

/// A connection that has redirected.
fn redirecting(bed: &Bed, stage: &Stage) -> Result<(TcpStream, TcpStream)> {
    let both = stage.pair()?;
    bed.until_redirected(&both)?;
    Ok(both)
}

kernel_test! {
    fn a_message_between_verdict_and_queue_is_waited_for(cgroup: &Cgroup) {
        if !pins::bpffs_mounted().unwrap() {
            pins::mount_bpffs().unwrap();
        }
        let pins = Pins::of(&format!("blt-{}", std::process::id()));
        let mut path = SocketPath::load_pinned(Options::default(), &pins).unwrap();
        path.attach_pinned(cgroup.path(), &pins).unwrap();
        let (listener, addr) = traffic::listen(([127, 0, 0, 1], 0)).unwrap();
        let client = traffic::connect(addr).unwrap();
        let server = traffic::accept(&listener).unwrap();

        let mut page = LatePage::new();
        let locks = send_until_asleep(server.try_clone().unwrap(), page.bytes(), "userfault");
        let caught = send_until_asleep(client.try_clone().unwrap(), &[7; 1000], "lock_sock");
        let ends = Ends::load(path.maps()).unwrap();
        let verdicts = || ends.list(path.maps()).unwrap().iter().map(|end| end.end.redirected_bytes).sum::<u64>();
        assert_eq!(verdicts(), 1000, "the verdict was: redirect");

        let early = Instant::now() + Duration::from_millis(200);
        let Outcome::Held(held) = drain::detach(&pins, early, |_| {}).unwrap() else {
            panic!("the server's socket was released under a message");
        };
        let on_server = |held: &Held| held.end.endpoints.local_port == addr.port();
        assert!(held.iter().any(|held| on_server(held) && matches!(held.by, HeldBy::Sender(_))));

        page.come();
        locks.join().unwrap();
        caught.join().unwrap();
        let (mut first, mut second) = ([0; 1000], [1; PAGE]);
        traffic::read_all(&server, &mut first).unwrap();
        traffic::read_all(&client, &mut second).unwrap();
        assert_eq!((first, second), ([7; 1000], [0; PAGE]));
        assert!(matches!(drain::detach(&pins, soon(), |_| {}).unwrap(), Outcome::Done { .. }));
    }

    /// Whoever begins to send after a socket was told to redirect no more is not waited for.
    fn senders_that_come_later_do_not_hold_a_retirement(cgroup: &Cgroup) {
        let mut path = SocketPath::load(Options::default()).unwrap();
        path.attach(cgroup.path()).unwrap();
        let (listener, addr) = traffic::listen(([127, 0, 0, 1], 0)).unwrap();
        let _client = traffic::connect(addr).unwrap();
        let _server = traffic::accept(&listener).unwrap();
        let maps = path.maps();
        let conns = maps.conns();
        assert_eq!(conns.len(), 1);

        // The next one is there before the last one is gone, so that one is at each look.
        let (mut at_hand, mut looks) = (Some(MaySend::begin()), 0);
        let next = |_| {
            looks += 1;
            let last = at_hand.replace(MaySend::begin());
            last.unwrap().end();
        };
        let outcome = drain::retire(maps, &conns, Reason::Retired, soon(), next).unwrap();
        at_hand.unwrap().end();
        assert!(matches!(outcome, Outcome::Done { released: 2 }), "{outcome:?}");
        assert!(looks > 1, "the first sender was waited for");
    }

    fn message_between_verdict_and_queue_keeps_a_socket(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let both = redirecting(&bed, &stage)?;
        let totals = catch_a_message(&bed, &both, |_| Ok(()))?;
        assert_eq!(totals.count(Reason::Option), 1);
        Ok(())
    }

    /// What its thread had redirected before that had long arrived.
    fn message_keeps_a_socket_whose_peer_redirects_again(cgroup: &Cgroup) -> Result {
        let bed = Bed::with(cgroup, Options { queue_limit: 100_000, ..Options::default() })?;
        let stage = Stage::new()?;
        let mut both = redirecting(&bed, &stage)?;
        let filled = fill_up(&mut both.0, &mut Pattern::new(seed()))?;
        traffic::read_all(&both.1, &mut vec![0; usize::try_from(filled)?])?;
        bed.until_redirected(&both)?;
        assert!(bed.totals()?.count(Reason::QueueFull) > 0);
        catch_a_message(&bed, &both, |_| Ok(()))?;
        Ok(())
    }

    /// Then the sender is no target any more, although it has not left.
    fn message_between_verdict_and_queue_keeps_a_socket_that_is_retired(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let both = redirecting(&bed, &stage)?;
        catch_a_message(&bed, &both, |bed| {
            let soon = Instant::now() + Duration::from_millis(200);
            let outcome = drain::retire(bed, &bed.conns(), Reason::Retired, soon, |_| {})?;
            assert!(matches!(outcome, Outcome::Held(_)), "{outcome:?}");
            Ok(())
        })?;
        Ok(())
    }
}
