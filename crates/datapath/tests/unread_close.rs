//! A reader that closes with data unread: TCP resets the connection, but of what was redirected it does
//! not know (docs/decisions/0016-dead-reader.md). d/kill has readers that are killed, or that read all.

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use common::late_page::call_until_asleep;
use common::stage::with_and_without;
use common::{Bed, Result, SOON, fill_up, poll, seed, unread};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::write_all;
use testbed::{Cgroup, kernel_test, wait_for};

const UNREAD: usize = 3000;

/// What a call came to: bytes, or errno.
type Came = std::result::Result<usize, i32>;

const RESET: Came = Err(libc::ECONNRESET);
const BROKEN: Came = Err(libc::EPIPE);

fn came(outcome: io::Result<usize>) -> Came {
    outcome.map_err(|error| error.raw_os_error().unwrap_or(0))
}

fn read(mut sock: &TcpStream) -> Came {
    came(sock.read(&mut [0; 10]))
}

fn write(mut sock: &TcpStream) -> Came {
    came(sock.write(b"x"))
}

fn error(sock: &TcpStream) -> Result<Option<i32>> {
    Ok(sock.take_error()?.and_then(|error| error.raw_os_error()))
}

/// Runs a scenario on a plain pair, and on one both of whose ends redirect.
fn on_both<T>(
    cgroup: &Cgroup,
    scenario: impl Fn(TcpStream, TcpStream, Option<&Bed>) -> Result<T>,
) -> Result<(T, T)> {
    with_and_without(cgroup, |stage, bed| {
        let (a, b) = stage.redirected_pair(bed)?;
        scenario(a, b, bed)
    })
}

/// Sends what the reader will not read; all of it is redirected where there is a bed.
fn leave_unread(a: &TcpStream, b: &TcpStream, bed: Option<&Bed>) -> Result {
    let before = bed.map(Bed::redirected).transpose()?;
    write_all(a, &[7; UNREAD])?;
    wait_for("the data", SOON, || unread(b) == UNREAD)?;
    if let (Some(bed), Some(before)) = (bed, before) {
        assert_eq!(bed.redirected()?, before + UNREAD as u64);
    }
    Ok(())
}

/// Waits until the end of the stream, or a reset, has come.
fn over(sock: &TcpStream) -> Result {
    let over = || poll(sock, libc::POLLRDHUP, Duration::ZERO) != 0;
    Ok(wait_for("the end", SOON, over)?)
}

fn failed(sock: &TcpStream) -> Result {
    Ok(wait_for("the end of the connection", SOON, || {
        sock.peer_addr().is_err()
    })?)
}

/// What a sender without room is told whose reader is closed while it sleeps in `poll`: the events, the
/// error, and what a send comes to then.
fn told_while_it_waits(
    cgroup: &Cgroup,
    end: fn(&TcpStream) -> io::Result<()>,
) -> Result<(Told, Told)> {
    on_both(cgroup, |mut a, b, bed| {
        fill_up(&mut a, &mut Pattern::new(seed()))?;
        if let Some(bed) = bed {
            assert!(
                bed.redirected()? > 1 << 20,
                "most of what waits was redirected"
            );
        }
        end(&b)?;
        let (tell, told) = mpsc::channel();
        let waits = a.try_clone()?;
        let waiter = call_until_asleep(
            move || {
                let events = poll(&waits, libc::POLLOUT, Duration::from_secs(100));
                tell.send(events).expect("somebody listens");
            },
            "do_sys_poll",
        );
        drop(b);
        // It may look between the error and the end of the connection, which is a hang-up as well.
        assert_ne!(told.recv()? & libc::POLLERR, 0);
        waiter.join().expect("it only polls");
        failed(&a)?;
        let events = poll(&a, libc::POLLOUT, Duration::ZERO);
        Ok((events, error(&a)?, write(&a)))
    })
}

/// Events, `SO_ERROR`, and a send.
type Told = (i16, Option<i32>, Came);

const FAILED: i16 = libc::POLLOUT | libc::POLLERR | libc::POLLHUP;

kernel_test! {
    fn peer_reads_the_end_and_its_first_send_succeeds(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both(cgroup, |a, b, bed| {
            leave_unread(&a, &b, bed)?;
            drop(b);
            over(&a)?;
            let (end, first) = (read(&a), write(&a));
            failed(&a)?;
            Ok([end, first, write(&a), write(&a), read(&a)])
        })?;
        assert_eq!(plain, [RESET, BROKEN, BROKEN, BROKEN, Ok(0)]);
        assert_eq!(redirected, [Ok(0), Ok(1), BROKEN, BROKEN, Ok(0)]);
        Ok(())
    }

    /// Who only sends hears of it with the second send.
    fn peer_that_does_not_read_is_told_when_it_sends_again(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both(cgroup, |a, b, bed| {
            leave_unread(&a, &b, bed)?;
            drop(b);
            over(&a)?;
            let first = write(&a);
            failed(&a)?;
            Ok([first, write(&a), write(&a)])
        })?;
        assert_eq!(plain, [RESET, BROKEN, BROKEN]);
        assert_eq!(redirected, [Ok(1), BROKEN, BROKEN]);
        Ok(())
    }

    fn poll_tells_of_the_end_and_of_no_error(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both(cgroup, |a, b, bed| {
            leave_unread(&a, &b, bed)?;
            drop(b);
            over(&a)?;
            let asked = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
            Ok((poll(&a, asked, Duration::ZERO), error(&a)?))
        })?;
        let end = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
        assert_eq!(plain, (end | libc::POLLERR | libc::POLLHUP, Some(libc::ECONNRESET)));
        assert_eq!(redirected, (end, None));
        Ok(())
    }

    /// What the reader had sent is there on both paths, and then the end.
    fn answer_that_was_sent_before_is_read_first(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = on_both(cgroup, |a, b, bed| {
            leave_unread(&a, &b, bed)?;
            write_all(&b, b"answer")?;
            wait_for("the answer", SOON, || unread(&a) == 6)?;
            drop(b);
            over(&a)?;
            Ok([read(&a), read(&a)])
        })?;
        assert_eq!(plain, [Ok(6), RESET]);
        assert_eq!(redirected, [Ok(6), Ok(0)]);
        Ok(())
    }

    fn sender_that_waits_for_room_is_told_of_a_timeout(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = told_while_it_waits(cgroup, |_| Ok(()))?;
        assert_eq!(plain, (FAILED, Some(libc::ECONNRESET), BROKEN));
        assert_eq!(redirected, (FAILED, Some(libc::ETIMEDOUT), BROKEN));
        Ok(())
    }

    /// Nothing tells it of the close: it finds out when it asks for room the next time.
    fn sender_whose_reader_ended_its_stream_before_is_told_of_a_timeout(cgroup: &Cgroup) -> Result {
        let (plain, redirected) = told_while_it_waits(cgroup, |b| b.shutdown(Shutdown::Write))?;
        assert_eq!(plain, (FAILED, Some(libc::EPIPE), BROKEN));
        assert_eq!(redirected, (FAILED, Some(libc::ETIMEDOUT), BROKEN));
        Ok(())
    }
}
