//! Whose memory belongs to another socket by now is not taken for the peer (invariant 4). Its cookie tells; here it is
//! changed in the maps, as nobody can say what memory a new socket gets.

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::late_page::{LatePage, PAGE, call_until_asleep, read_until_asleep};
use common::stage::{Stage, unblock};
use common::{
    Bed, Dropping, PLAIN_ACKS, Result, SOON, disconnect, exchange, fill_up, in_progress, poll,
    seed, set_option,
};
use datapath::abi::{Candidate, Conn, Reason, Wire};
use datapath::adopt::Adopter;
use datapath::drain;
use datapath::socket::Options;
use libbpf_rs::{MapCore, MapFlags};
use socket2::SockRef;
use testbed::traffic::{self, pattern::Pattern};
use testbed::{Cgroup, kernel_test, wait_for};

/// The ends blocked until their connection waited to be adopted, the last one `of` so many.
fn waiting_pair(stage: &Stage, bed: &Bed, of: usize) -> Result<(TcpStream, TcpStream)> {
    let pair = stage.blocking_pair()?;
    assert_eq!(bed.waiting().len(), of);
    unblock(&pair)?;
    Ok(pair)
}

/// A connection whose server is established after something was done `meanwhile`.
fn late_pair(stage: &Stage, meanwhile: impl Fn() -> Result) -> Result<(TcpStream, TcpStream)> {
    let (listener, addr) = stage.web.listen((stage.web.ip(), 0))?;
    // Established by the first data only.
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 10)?;
    let a = stage.client.connect(addr)?;
    meanwhile()?;
    traffic::write_all(&a, b"hello")?;
    let b = traffic::accept(&listener)?;
    traffic::read_all(&b, &mut [0; 5])?;
    Ok((a, b))
}

/// Such a server is left alone for this reason.
fn comes_late(cgroup: &Cgroup, reason: Reason, meanwhile: impl Fn(&Bed) -> Result) -> Result {
    let bed = Bed::on(cgroup)?;
    let stage = Stage::new()?;
    let (a, b) = late_pair(&stage, || meanwhile(&bed))?;
    let totals = bed.totals()?;
    let counted = totals.count(reason);
    assert_eq!((totals.enrolled, totals.paired, counted), (1, 0, 1));
    assert_eq!(bed.conns().len(), 1);
    exchange(&a, &b, 100_000)?;
    Ok(())
}

kernel_test! {
    fn message_to_another_socket_takes_the_kernel_path(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let (a, b) = stage.pair()?;
        bed.change("conns", |conn: &mut Conn| conn.server.cookie += 1)?;
        let sent = exchange(&a, &b, 100_000)?;
        drop((a, b));
        let totals = bed.emptied()?;
        assert_eq!(totals.count(Reason::PeerGone), 1);
        assert_eq!(totals.closed_redirected_bytes + totals.closed_kernel_bytes, sent);
        assert!(totals.closed_kernel_bytes >= 100_000, "{}", common::Sums(&totals));
        Ok(())
    }

    fn sender_does_not_give_up_on_another_socket(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let (mut a, b) = stage.pair()?;
        fill_up(&mut a, &mut Pattern::new(seed()))?;
        bed.change("conns", |conn: &mut Conn| conn.server.cookie += 1)?;
        let lost = Dropping::arriving(&stage.client, PLAIN_ACKS)?;
        drop(b);
        wait_for("the end of the stream", SOON, || poll(&a, libc::POLLRDHUP, Duration::ZERO) != 0)?;
        assert_eq!(SockRef::from(&a).tcp_user_timeout()?, None);
        lost.end()?;
        Ok(())
    }

    fn connection_of_another_socket_is_not_adopted(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let (a, b) = waiting_pair(&stage, &bed, 1)?;
        let add = |to: u64| move |both: &mut Candidate| both.conn.server.cookie = both.conn.server.cookie.wrapping_add(to);
        bed.change("waiting", add(1))?;
        adopter.look()?;
        assert!(bed.enrolled().is_empty());
        bed.change("waiting", add(u64::MAX))?;
        adopter.look()?;
        assert_eq!(bed.enrolled().len(), 2);
        exchange(&a, &b, 100_000)?;
        Ok(())
    }

    /// Under its key the maps have a twin since.
    fn socket_that_has_left_takes_no_twin_along(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let twins = [stage.pair()?, stage.pair()?];
        let bed = Bed::on(cgroup)?;
        let pairs = [stage.pair()?, stage.pair()?];
        let clients = bed.conns();
        drain::retire(&bed, &clients, Reason::Retired, Instant::now() + SOON, |_| {})?;
        assert_eq!(bed.enrolled().len(), 0);
        for ((twin, _other), own) in twins.iter().zip(&clients) {
            for map in ["socks", "targets"] {
                bed.put(map, *own, twin)?;
            }
        }
        let [closed, (disconnected, peer)] = pairs;
        // With its FIN, one leaves that has such an option.
        set_option(&closed.0, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)?;
        closed.0.shutdown(Shutdown::Write)?;
        drop(closed);
        disconnect(&disconnected)?;
        drop(peer);
        // Its next life is another one.
        let next = stage.web.listen((stage.web.ip(), 0))?.1;
        let connects = stage.client.run(|| SockRef::from(&disconnected).connect(&next.into()))?;
        connects.or_else(in_progress)?;
        wait_for("the ends", SOON, || bed.totals().is_ok_and(|totals| totals.closed == 4))?;
        let left = |map| bed.get(map).keys().count();
        assert_eq!((left("socks"), left("targets")), (2, 2));
        Ok(())
    }

    /// It is retired with another one, which leaves.
    fn socket_that_has_left_and_is_retired_again_takes_no_twin_along(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let (twin, _peer) = stage.pair()?;
        let bed = Bed::on(cgroup)?;
        let retire = |time| drain::retire(&bed, &bed.conns(), Reason::Retired, Instant::now() + time, |_| {});
        let _left = stage.pair()?;
        let own = bed.conns()[0];
        retire(SOON)?;
        assert!(bed.enrolled().is_empty());
        bed.put("socks", own, &twin)?;
        let _other = stage.pair()?;
        let mut patience = Duration::from_millis(50);
        wait_for("the other to leave", SOON, || {
            patience *= 2;
            retire(patience).expect("it retires");
            bed.enrolled().len() <= 1
        })?;
        assert_eq!(bed.enrolled(), [own]);
        Ok(())
    }

    /// It loses its record as one that connects again does, whose message is under way in another thread.
    fn rest_of_a_message_of_a_socket_without_a_record_is_not_written(cgroup: &Cgroup) -> Result {
        const LIMIT: u32 = 1 << 20;
        let options = Options { queue_limit: LIMIT, ..Options::default() };
        let bed = Bed::with(cgroup, options)?;
        let stage = Stage::new()?;
        let (a, b) = stage.pair()?;
        // From here on the last byte of a message goes apart.
        traffic::write_all(&a, &vec![7; LIMIT as usize + (64 << 10)])?;
        let mut page = LatePage::new();
        let locks = read_until_asleep(b.try_clone()?, page.bytes(), PAGE);
        let (tell, told) = mpsc::channel();
        let mut sender = a.try_clone()?;
        let cut = call_until_asleep(move || tell.send(sender.write(&[7; 1000])).unwrap(), "lock_sock");
        bed.get("ends").delete(&a.as_raw_fd().to_ne_bytes())?;
        page.come();
        for thread in [locks, cut] {
            thread.join().expect("it panicked");
        }
        assert_eq!(told.recv()??, 999);
        Ok(())
    }

    /// The record is that of a twin, which has its server.
    fn server_does_not_take_the_place_of_another(cgroup: &Cgroup) -> Result {
        comes_late(cgroup, Reason::Collision, |bed| {
            bed.change("conns", |conn: &mut Conn| conn.server = conn.client)
        })
    }

    /// The record is that of a twin, whose server comes later.
    fn server_without_an_offer_takes_no_record(cgroup: &Cgroup) -> Result {
        comes_late(cgroup, Reason::NoRecord, |bed| {
            Ok(bed.get("offers").delete(bed.offers()[0].bytes())?)
        })
    }

    /// The record is that of a twin, whose server comes later.
    fn server_is_not_noted_for_the_client_of_another(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let (a, b) = late_pair(&stage, || {
            let (client, twin) = (bed.conns()[0], Candidate::default());
            Ok(bed.get("waiting").update(client.bytes(), twin.bytes(), MapFlags::NO_EXIST)?)
        })?;
        let waits = bed.value::<Candidate>("waiting", bed.waiting()[0].bytes())?;
        assert_eq!((bed.totals()?.paired, waits.conn.server.cookie), (1, 0));
        exchange(&a, &b, 100_000)?;
        Ok(())
    }

    /// Under its key the map has a twin, which keeps its place until it is closed.
    fn socket_that_waited_does_not_take_the_place_of_another(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let (twin, _peer) = stage.pair()?;
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let pair = waiting_pair(&stage, &bed, 1)?;
        let own = bed.waiting()[0];
        bed.put("socks", own, &twin)?;
        let place = || bed.get("socks").lookup(own.bytes(), MapFlags::ANY);
        let before = place()?;
        adopter.look()?;
        assert_eq!(place()?, before);
        assert!(bed.conns().is_empty());
        bed.get("socks").delete(own.bytes())?;
        wait_for("its adoption", SOON, || adopter.look().is_ok() && bed.enrolled().len() == 2)?;
        bed.exchange_redirected(&pair, 100_000)
    }

    /// It waits under its twin's record.
    fn client_does_not_enter_the_connection_of_another(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let pairs = [waiting_pair(&stage, &bed, 1)?, waiting_pair(&stage, &bed, 2)?];
        let client = bed.value::<Candidate>("waiting", bed.waiting()[0].bytes())?.conn.client;
        bed.change("waiting", |both: &mut Candidate| both.conn.client = client)?;
        adopter.look()?;
        assert_eq!((bed.enrolled().len(), bed.conns().len()), (2, 1));
        for (a, b) in &pairs {
            exchange(a, b, 100_000)?;
        }
        Ok(())
    }

    fn server_does_not_enter_the_connection_of_another_client(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let (a, b) = waiting_pair(&stage, &bed, 1)?;
        let client = bed.waiting()[0];
        bed.get("conns").update(client.bytes(), Conn::default().bytes(), MapFlags::NO_EXIST)?;
        adopter.look()?;
        assert!(bed.enrolled().is_empty());
        bed.get("conns").delete(client.bytes())?;
        adopter.look()?;
        assert_eq!(bed.enrolled().len(), 2);
        exchange(&a, &b, 100_000)?;
        Ok(())
    }
}
