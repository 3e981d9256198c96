//! `SO_LINGER` with a time: close waits until all was sent and acknowledged, or for that long
//! (invariant 2). With no time it resets: d/differential.

mod common;

use std::fs;
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Connection, Result, SOON, fill_up, same_on_both_paths, seed};
use socket2::SockRef;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::stream;
use testbed::{Cgroup, kernel_test, wait_for};

/// Closes in a thread, and waits until that sleeps.
fn closing(sock: TcpStream) -> Result<thread::JoinHandle<()>> {
    let (tell, told) = mpsc::channel();
    let closer = thread::spawn(move || {
        // SAFETY: takes nothing.
        let _ = tell.send(unsafe { libc::gettid() });
        drop(sock);
    });
    let at = format!("/proc/self/task/{}/syscall", told.recv()?);
    let sleeps = || {
        let call = fs::read_to_string(&at).unwrap_or_default();
        call.split(' ').next() == Some(&libc::SYS_close.to_string())
    };
    wait_for("a close that sleeps", SOON, sleeps)?;
    Ok(closer)
}

/// What waits for a reader that does not read is read when the sender has begun to close, or when it is
/// done with it.
fn lingers(cgroup: &Cgroup, time: Duration, reads_meanwhile: bool) -> Result {
    same_on_both_paths(cgroup, |Connection { mut a, b, .. }| {
        let seed = seed();
        let filled = fill_up(&mut a, &mut Pattern::new(seed))?;
        SockRef::from(&a).set_linger(Some(time))?;
        let mut closer = Some(closing(a)?);
        let mut close = || {
            closer
                .take()
                .map(|thread| thread.join().expect("it only closes"))
        };
        if !reads_meanwhile {
            close();
        }
        assert_eq!(
            stream::receive(&b, 100_000)?,
            stream::expected(seed, filled)
        );
        close();
        Ok(())
    })
}

kernel_test! {
    fn close_waits_for_a_reader_that_is_behind(cgroup: &Cgroup) -> Result {
        lingers(cgroup, Duration::from_secs(600), true)
    }

    /// What could not be sent by then still arrives.
    fn close_gives_up_when_its_time_is_over(cgroup: &Cgroup) -> Result {
        lingers(cgroup, Duration::from_secs(1), false)
    }
}
