//! Connections that TCP gives up (invariant 2): `TCP_USER_TIMEOUT` and keepalive.

mod common;

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use common::{
    Connection, Dropping, PLAIN_ACKS, Result, SOON, fill_up, on_both_paths, poll,
    same_on_both_paths, seed, set_option,
};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{read_all, write_all};
use testbed::{Cgroup, kernel_test, wait_for};

/// Milliseconds.
const USER_TIMEOUT: i32 = 1500;

fn tcp(sock: &TcpStream, name: i32, value: i32) -> io::Result<()> {
    set_option(sock, libc::IPPROTO_TCP, name, value)
}

/// Waits until the connection has failed, and returns the errno.
fn failure(sock: &TcpStream) -> Result<Option<i32>> {
    let failed = || poll(sock, 0, Duration::ZERO) & libc::POLLERR != 0;
    wait_for("an error", SOON, failed)?;
    Ok(sock.take_error()?.and_then(|error| error.raw_os_error()))
}

kernel_test! {
    /// As `tcp(7)` says of data that cannot be sent because of a window of nothing.
    fn reader_that_never_reads_is_given_up(cgroup: &Cgroup) -> Result {
        for no_delay in [0, 1] {
            let error = same_on_both_paths(cgroup, |Connection { mut a, b: _b, .. }| {
                tcp(&a, libc::TCP_NODELAY, no_delay)?;
                fill_up(&mut a, &mut Pattern::new(seed()))?;
                tcp(&a, libc::TCP_USER_TIMEOUT, USER_TIMEOUT)?;
                failure(&a)
            })?;
            assert_eq!(error, Some(libc::ETIMEDOUT));
        }
        Ok(())
    }

    fn reader_that_never_reads_is_not_given_up_for_keepalive(cgroup: &Cgroup) -> Result {
        same_on_both_paths(cgroup, |Connection { mut a, b, .. }| {
            let seed = seed();
            keep_alive(&a)?;
            let filled = fill_up(&mut a, &mut Pattern::new(seed))?;
            // Longer than it takes to give up a peer that does not answer.
            assert_eq!(poll(&a, 0, Duration::from_secs(4)), 0);
            let mut got = vec![0; usize::try_from(filled)?];
            read_all(&b, &mut got)?;
            assert_eq!(Pattern::new(seed).differs(&got), None);
            Ok(())
        })
    }

    fn peer_that_does_not_answer_is_given_up_by_keepalive(cgroup: &Cgroup) -> Result {
        let error = same_on_both_paths(cgroup, |Connection { a, b: _b, web, .. }| {
            let _cut = Dropping::arriving(&web, PLAIN_ACKS)?;
            keep_alive(&a)?;
            failure(&a)
        })?;
        assert_eq!(error, Some(libc::ETIMEDOUT));
        Ok(())
    }

    /// Redirected data needs no network.
    fn data_arrives_where_the_network_between_has_failed(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both_paths(cgroup, |Connection { a, b, web, .. }| {
            let _cut = Dropping::arriving(&web, PLAIN_ACKS)?;
            tcp(&a, libc::TCP_USER_TIMEOUT, USER_TIMEOUT)?;
            write_all(&a, b"x")?;
            let events = poll(&b, libc::POLLIN, Duration::from_millis(100));
            if events & libc::POLLIN != 0 {
                read_all(&b, &mut [0])?;
                return Ok(None);
            }
            failure(&a)
        })?;
        assert_eq!((plain, redirected), (Some(libc::ETIMEDOUT), None));
        Ok(())
    }
}

/// Gives a silent peer up after three seconds.
fn keep_alive(sock: &TcpStream) -> Result {
    set_option(sock, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    for (name, value) in [
        (libc::TCP_KEEPIDLE, 1),
        (libc::TCP_KEEPINTVL, 1),
        (libc::TCP_KEEPCNT, 2),
    ] {
        tcp(sock, name, value)?;
    }
    Ok(())
}
