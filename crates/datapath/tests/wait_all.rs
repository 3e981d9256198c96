//! `MSG_WAITALL`: of sockets that do not block, of those that block from the start, and of those that come to block
//! while they are enrolled (invariant 2).

mod common;

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread;

use common::stage::{until_server_left, with_and_without};
use common::{GRACE, Result, SOON, sleeping_readers, unread};
use testbed::traffic::write_all;
use testbed::{Cgroup, kernel_test, wait_for};

const PIECES: [&[u8]; 3] = [b"some, ", b"more, ", b"all"];
const ALL: &[u8] = b"some, more, all";

type Pair = (TcpStream, TcpStream);

/// What a read came to: bytes, or errno.
type Came = std::result::Result<Vec<u8>, i32>;

fn receive(sock: &TcpStream, len: usize, flags: i32) -> Came {
    let mut bytes = vec![0; len];
    // SAFETY: the pointer and the length are those of live memory.
    let got = unsafe { libc::recv(sock.as_raw_fd(), bytes.as_mut_ptr().cast(), len, flags) };
    let failed = |_| io::Error::last_os_error().raw_os_error().unwrap_or(0);
    bytes.truncate(usize::try_from(got).map_err(failed)?);
    Ok(bytes)
}

/// Sends, and waits until it is there.
fn send(a: &TcpStream, b: &TcpStream, piece: &[u8]) -> Result {
    let before = unread(b);
    write_all(a, piece)?;
    Ok(wait_for("the data", SOON, || {
        unread(b) == before + piece.len()
    })?)
}

/// Sends piece by piece to a reader that waits for all, each when the one before was taken or that has ended.
fn send_to_one_who_waits((a, b): &Pair) -> Result<Came> {
    thread::scope(|scope| {
        let reader = scope.spawn(|| receive(b, ALL.len(), libc::MSG_WAITALL));
        for piece in PIECES {
            let waits = || reader.is_finished() || (sleeping_readers() == 1 && unread(b) == 0);
            wait_for("a reader that waits", SOON, waits)?;
            write_all(a, piece)?;
        }
        Ok(reader.join().expect("it only reads"))
    })
}

kernel_test! {
    fn reader_that_does_not_block_gets_what_is_there(cgroup: &Cgroup) -> Result {
        for flags in [0, libc::MSG_DONTWAIT] {
            let flags = flags | libc::MSG_WAITALL;
            let (plain, with) = with_and_without(cgroup, |stage, bed| {
                let (a, b) = stage.redirected_pair(bed)?;
                let nothing = receive(&b, 100, flags);
                for piece in PIECES {
                    send(&a, &b, piece)?;
                }
                if let Some(bed) = bed {
                    assert_eq!(bed.redirected()?, 10 + ALL.len() as u64);
                }
                Ok([nothing, receive(&b, 10, flags), receive(&b, 100, flags)])
            })?;
            let expected = [Err(libc::EAGAIN), Ok(ALL[..10].to_vec()), Ok(ALL[10..].to_vec())];
            assert_eq!(plain, expected);
            assert_eq!(with, expected);
        }
        Ok(())
    }

    fn reader_that_blocks_from_the_start_waits_for_all(cgroup: &Cgroup) -> Result {
        let (plain, with) = with_and_without(cgroup, |stage, bed| {
            let pair = stage.blocking_pair()?;
            if let Some(bed) = bed {
                assert!(bed.enrolled().is_empty());
            }
            send_to_one_who_waits(&pair)
        })?;
        assert_eq!(plain, Ok(ALL.to_vec()));
        assert_eq!(with, plain);
        Ok(())
    }

    /// `MSG_DONTWAIT` tells more than the socket.
    fn reader_that_blocks_and_asks_not_to_gets_what_is_there(cgroup: &Cgroup) -> Result {
        let flags = libc::MSG_WAITALL | libc::MSG_DONTWAIT;
        let (plain, with) = with_and_without(cgroup, |stage, bed| {
            let (a, b) = stage.redirected_pair(bed)?;
            send(&a, &b, ALL)?;
            b.set_nonblocking(false)?;
            Ok([receive(&b, 100, flags), receive(&b, 100, flags)])
        })?;
        assert_eq!(plain, [Ok(ALL.to_vec()), Err(libc::EAGAIN)]);
        assert_eq!(with, plain);
        Ok(())
    }

    /// `tcp_bpf_recvmsg` (net/ipv4/tcp_bpf.c) does not wait when it has something.
    fn reader_that_comes_to_block_gets_what_is_there_until_it_leaves(cgroup: &Cgroup) -> Result {
        let (plain, with) = with_and_without(cgroup, |stage, bed| {
            let pair = stage.redirected_pair(bed)?;
            pair.1.set_nonblocking(false)?;
            send_to_one_who_waits(&pair)
        })?;
        assert_eq!(plain, Ok(ALL.to_vec()));
        assert_eq!(with, Ok(PIECES[0].to_vec()));
        Ok(())
    }

    fn reader_that_came_to_block_and_left_waits_for_all(cgroup: &Cgroup) -> Result {
        let (plain, with) = with_and_without(cgroup, |stage, bed| {
            let pair = stage.redirected_pair(bed)?;
            // Sooner, it might have been accepted and not be through with fcntl.
            thread::sleep(GRACE);
            pair.1.set_nonblocking(false)?;
            if let Some(bed) = bed {
                until_server_left(bed, &pair)?;
            }
            send_to_one_who_waits(&pair)
        })?;
        assert_eq!(plain, Ok(ALL.to_vec()));
        assert_eq!(with, plain);
        Ok(())
    }
}
