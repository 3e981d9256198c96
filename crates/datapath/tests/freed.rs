//! Whose memory belongs to another socket by now is not taken for the peer (invariant 4). Its cookie tells; here it is
//! changed in the maps, as nobody can say what memory a new socket gets.

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::stage::{Stage, unblock};
use common::{Bed, Dropping, PLAIN_ACKS, Result, SOON, exchange, fill_up, poll, seed};
use datapath::abi::{Candidate, Conn, Reason, Wire};
use datapath::adopt::Adopter;
use libbpf_rs::{MapCore, MapFlags};
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::{Cgroup, kernel_test, wait_for};

/// The ends blocked until their connection waited to be adopted.
fn waiting_pair(stage: &Stage, bed: &Bed) -> Result<(TcpStream, TcpStream)> {
    let pair = stage.blocking_pair()?;
    assert_eq!(bed.waiting().len(), 1);
    unblock(&pair)?;
    Ok(pair)
}

/// Changes all values of a map.
fn change<T: Wire>(bed: &Bed, map: &str, how: impl Fn(&mut T)) -> Result {
    let map = bed.get(map);
    for key in map.keys() {
        let bytes = map.lookup(&key, MapFlags::ANY)?.ok_or("it is gone")?;
        let mut value = T::read(&bytes).ok_or("it is too short")?;
        how(&mut value);
        map.update(&key, value.bytes(), MapFlags::EXIST)?;
    }
    Ok(())
}

kernel_test! {
    fn message_to_another_socket_takes_the_kernel_path(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let (a, b) = stage.pair()?;
        change(&bed, "conns", |conn: &mut Conn| conn.server.cookie += 1)?;
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
        change(&bed, "conns", |conn: &mut Conn| conn.server.cookie += 1)?;
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
        let (a, b) = waiting_pair(&stage, &bed)?;
        let add = |to: u64| move |both: &mut Candidate| both.conn.server.cookie = both.conn.server.cookie.wrapping_add(to);
        change(&bed, "waiting", add(1))?;
        adopter.look()?;
        assert!(bed.enrolled().is_empty());
        change(&bed, "waiting", add(u64::MAX))?;
        adopter.look()?;
        assert_eq!(bed.enrolled().len(), 2);
        exchange(&a, &b, 100_000)?;
        Ok(())
    }

    fn server_does_not_enter_the_connection_of_another_client(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let adopter = Adopter::load(&bed)?;
        let stage = Stage::new()?;
        let (a, b) = waiting_pair(&stage, &bed)?;
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
