//! Options that redirected data would not heed, set on a listener: the sockets that it accepts have them from the
//! start and are plain TCP (invariant 2). d/options has those of single sockets.

mod common;

use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use common::stage::Stage;
use common::unheeded::{
    OPTIONS, Set, inq, of_socket, peek_off, timestamp, timestamping, zero_copy,
};
use common::{Bed, Result, SOON, poll, unread, unsent};
use datapath::abi::Reason;
use socket2::SockRef;
use testbed::traffic::{accept, read_all, write_all};
use testbed::{Cgroup, kernel_test, wait_for};

/// Bytes that a reader with a low-water mark waits for.
const LOW_WATER: i32 = 10;

type Pair = (TcpStream, TcpStream);
/// For a mark that one short message does not reach.
fn low_water(sock: BorrowedFd<'_>) -> io::Result<()> {
    of_socket(sock, libc::SO_RCVLOWAT, LOW_WATER)
}

/// A connection to a listener that has an option.
fn connect(stage: &Stage, set: Set) -> Result<Pair> {
    let (listener, addr) = stage.web.listen((stage.web.ip(), 0))?;
    set(listener.as_fd())?;
    Ok((stage.client.connect(addr)?, accept(&listener)?))
}

/// What is done with a connection comes to the same with and without Beeline, and nothing of it is redirected.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(
    cgroup: &Cgroup,
    set: Set,
    act: impl Fn(&TcpStream, &TcpStream) -> Result<T>,
) -> Result<T> {
    let run = || -> Result<(Pair, T)> {
        let stage = Stage::new()?;
        let (a, b) = connect(&stage, set)?;
        let came = act(&a, &b)?;
        Ok(((a, b), came))
    };
    let (_, plain) = run()?;
    let bed = Bed::on(cgroup)?;
    let (_pair, with) = run()?;
    assert_eq!(with, plain, "with Beeline, and plain");
    expect_left_alone(&bed)?;
    Ok(plain)
}

/// Both ends are plain TCP.
fn expect_left_alone(bed: &Bed) -> Result {
    assert_eq!(bed.ends()?.len(), 0);
    Ok(())
}

fn is_readable(sock: &TcpStream) -> bool {
    poll(sock, libc::POLLIN, Duration::ZERO) != 0
}

/// Sends to a socket, and waits until its kernel has it.
fn send(a: &TcpStream, bytes: &[u8]) -> Result {
    write_all(a, bytes)?;
    Ok(wait_for("the acknowledgement", SOON, || unsent(a) == 0)?)
}

/// Reads five bytes, and returns whether control messages came with them.
fn tells_more(sock: &TcpStream) -> Result<bool> {
    let (mut bytes, mut control) = ([0_u8; 5], [0_u64; 16]);
    let mut piece = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zero is a valid, empty message; what it points to lives.
    let (got, told) = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let got = libc::recvmsg(sock.as_raw_fd(), &raw mut message, 0);
        (got, message.msg_controllen)
    };
    assert_eq!((got, &bytes), (5, b"hello"));
    Ok(told > 0)
}

kernel_test! {
    fn socket_of_a_listener_that_has_one_is_left_alone(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let bed = Bed::on(cgroup)?;
        for (name, set) in OPTIONS {
            let (a, b) = connect(&stage, set)?;
            // As many bytes as the low-water mark asks for.
            for (from, to) in [(&a, &b), (&b, &a)] {
                write_all(from, b"hellohello")?;
                read_all(to, &mut [0; 10]).map_err(|error| format!("{name}: {error}"))?;
            }
            expect_left_alone(&bed).map_err(|error| format!("{name}: {error}"))?;
        }
        let totals = bed.emptied()?;
        assert_eq!((totals.paired, totals.closed_redirected_bytes), (0, 0));
        assert_eq!(totals.count(Reason::Option), OPTIONS.len() as u64);
        Ok(())
    }

    fn low_water_mark_of_a_listener_is_heeded(cgroup: &Cgroup) -> Result {
        let seen = same(cgroup, low_water, |a, b| {
            send(a, b"hello")?;
            let early = is_readable(b);
            send(a, b"hello")?;
            wait_for("ten bytes", SOON, || is_readable(b))?;
            let mut got = [0; 10];
            read_all(b, &mut got)?;
            Ok((early, got))
        })?;
        assert_eq!(seen, (false, *b"hellohello"));
        Ok(())
    }

    fn peek_offset_of_a_listener_is_heeded(cgroup: &Cgroup) -> Result {
        let seen = same(cgroup, peek_off, |a, b| {
            send(a, b"abcdef")?;
            wait_for("the data", SOON, || unread(b) == 6)?;
            let peek = || -> io::Result<[u8; 2]> {
                let mut got = [0; 2];
                b.peek(&mut got)?;
                Ok(got)
            };
            Ok([peek()?, peek()?, peek()?])
        })?;
        assert_eq!(seen, [*b"ab", *b"cd", *b"ef"]);
        Ok(())
    }

    fn control_messages_that_a_listener_asks_for_come(cgroup: &Cgroup) -> Result {
        for set in [inq, timestamp, timestamping] {
            let told = same(cgroup, set, |a, b| {
                send(a, b"hello")?;
                wait_for("the data", SOON, || unread(b) == 5)?;
                tells_more(b)
            })?;
            assert!(told);
        }
        Ok(())
    }

    fn completions_of_a_listener_with_zero_copy_come(cgroup: &Cgroup) -> Result {
        let sent = same(cgroup, zero_copy, |a, b| {
            static BYTES: [u8; 5] = *b"hello";
            // SAFETY: the bytes live for as long as the process.
            let sent = unsafe {
                libc::send(b.as_raw_fd(), BYTES.as_ptr().cast(), BYTES.len(), libc::MSG_ZEROCOPY)
            };
            read_all(a, &mut [0; 5])?;
            wait_for("a completion", SOON, || poll(b, 0, Duration::ZERO) & libc::POLLERR != 0)?;
            Ok(sent)
        })?;
        assert_eq!(sent, 5);
        Ok(())
    }

    fn client_of_a_listener_that_has_one_is_left_alone(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let bed = Bed::on(cgroup)?;
        for (name, set) in OPTIONS {
            let (_a, _b) = connect(&stage, set)?;
            assert_eq!(bed.enrolled().len(), 0, "{name}");
        }
        bed.none_enrolled(&[(Reason::Option, OPTIONS.len() as u64)])
    }

    /// So its client is plain TCP as well.
    fn client_of_a_listener_that_has_one_gets_urgent_data_apart(cgroup: &Cgroup) -> Result {
        let (got, urgent) = same(cgroup, low_water, |a, b| {
            write_all(b, b"ab")?;
            assert_eq!(SockRef::from(b).send_out_of_band(b"!")?, 1);
            wait_for("urgent data", SOON, || poll(a, libc::POLLPRI, Duration::ZERO) != 0)?;
            write_all(b, b"cd")?;
            b.shutdown(std::net::Shutdown::Write)?;
            let (mut got, mut buf) = (Vec::new(), [0; 10]);
            loop {
                match testbed::traffic::read(a, &mut buf)? {
                    0 => break,
                    n => got.extend_from_slice(&buf[..n]),
                }
            }
            Ok((String::from_utf8(got)?, ()))
        })?;
        assert_eq!((got.as_str(), urgent), ("abcd", ()));
        Ok(())
    }
}
