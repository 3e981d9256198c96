//! What each check does, each on a connection of its own.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::Instant;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::pair::{Bench, Outcome, Pair, call};
use super::{Check, PATIENCE};
use crate::abi::TxPath;
use crate::drain;

/// What the kernel path takes from a non-blocking sender is less than this: the largest
/// `net.ipv4.tcp_wmem` and `tcp_rmem` that are usual.
const BUFFERS: u64 = 96 << 20;

/// Most that one message holds: 17 fragments (MAX_MSG_FRAGS, include/linux/skmsg.h) of 32 KiB
/// (SKB_FRAG_PAGE_ORDER, net/core/sock.c).
const MESSAGE: u64 = 17 << 15;

/// Less than any window of TCP, so that it can be sent while nobody reads.
const FEW: usize = 10_000;

pub(super) fn run(check: Check, bench: &Bench<'_>) -> Outcome {
    match check {
        Check::Redirect => bench.pair().map(drop),
        Check::Integrity => integrity(bench.pair()?),
        Check::Order => order(bench),
        Check::OneQueue => one_queue(bench),
        Check::BackPressure => back_pressure(bench).map(drop),
        Check::WayBack => way_back(bench),
        Check::ShutDown => shut_down(bench.pair()?),
        Check::HalfClose => half_close(bench.pair()?),
        Check::Close => close(bench.pair()?),
        Check::Retire => retire(bench),
        Check::FionreadRedirected => fionread(&mut bench.pair()?),
        Check::FionreadKernelPath => {
            let mut pair = bench.pair()?;
            bench.over_kernel_path(|| fionread(&mut pair))
        }
        Check::Splice => splice_from(bench.pair()?),
    }
}

/// Both ways at once, in writes of many sizes, several of which wait when the reader comes; all of
/// them fit into a small queue.
fn integrity(mut pair: Pair<'_>) -> Outcome {
    for piece in [1, 100, 1_460, 4_096, 9_999, 65_536] {
        let bytes = piece * 3;
        pair.a.send(bytes, piece)?;
        pair.b.send(bytes, piece)?;
        pair.b.receive(bytes)?;
        pair.a.receive(bytes)?;
    }
    Ok(())
}

fn order(bench: &Bench<'_>) -> Outcome {
    let mut pair = bench.pair()?;
    pair.a.send(FEW, 1_000)?;
    bench.over_kernel_path(|| pair.a.send(FEW, 1_000))?;
    pair.b.receive(2 * FEW)?;
    match pair.client()?.end.kernel_bytes {
        0 => call("the direction did not go over to the kernel path"),
        _ => Ok(()),
    }
}

fn one_queue(bench: &Bench<'_>) -> Outcome {
    let mut pair = bench.pair()?;
    pair.a.send(FEW, 1_000)?;
    bench.over_kernel_path(|| pair.a.send(FEW, 1_000))?;
    pair.b.receive(1)?;
    pair.b.all_in_one_read(2 * FEW - 1)
}

/// Returns the connection with a sender that has to wait.
fn back_pressure<'a>(bench: &'a Bench<'_>) -> Outcome<(Pair<'a>, u64)> {
    let mut pair = bench.pair()?;
    let limit = u64::from(bench.maps.settings()?.queue_limit);
    let most = limit + MESSAGE + BUFFERS;
    let filled = pair.a.fill(most)?;
    if filled >= most {
        return call(format!(
            "a sender may be {most} bytes ahead of its reader, and more"
        ));
    }
    let ends = pair.ends()?;
    let unread = ends.iter().map(|end| u64::from(end.unread)).max();
    match unread {
        Some(unread) if unread > limit + MESSAGE => call(format!(
            "{unread} bytes wait at a reader, and the limit is {limit}"
        )),
        _ => Ok((pair, filled)),
    }
}

fn way_back(bench: &Bench<'_>) -> Outcome {
    /// Messages after which a direction may be expected to be back.
    const MESSAGES: usize = 20;
    let (mut pair, filled) = back_pressure(bench)?;
    pair.b.receive(usize::try_from(filled)?)?;
    for _ in 0..MESSAGES {
        pair.a_to_b(100)?;
        if u32::from(pair.client()?.end.tx) == TxPath::Redirect as u32 {
            // Several of them unread, so that it shows when they are out of order.
            pair.a.send(FEW, 1_000)?;
            return pair.b.receive(FEW);
        }
    }
    call(format!("not redirected again after {MESSAGES} messages"))
}

fn shut_down(mut pair: Pair<'_>) -> Outcome {
    pair.a.sock.shutdown(Shutdown::Write)?;
    match pair.a.sock.write(b"more") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => call(format!("not EPIPE: {error}")),
        Ok(n) => call(format!("{n} bytes were taken after shutdown")),
    }
}

fn half_close(mut pair: Pair<'_>) -> Outcome {
    pair.a.send(FEW, 1_000)?;
    pair.a.sock.shutdown(Shutdown::Write)?;
    pair.b.receive(FEW)?;
    pair.b.end_of_file()?;
    pair.b_to_a(FEW)
}

fn close(mut pair: Pair<'_>) -> Outcome {
    pair.a.send(FEW, 1_000)?;
    drop(pair.a);
    pair.b.receive(FEW)?;
    pair.b.end_of_file()
}

/// Redirected bytes must not count as those that TCP received: then it would read on at a wrong
/// place (`copied_from_self` in tcp_bpf_recvmsg_parser, net/ipv4/tcp_bpf.c, 6.18.14+).
fn retire(bench: &Bench<'_>) -> Outcome {
    let mut pair = bench.pair()?;
    for _ in 0..3 {
        pair.a_to_b(FEW)?;
        bench.over_kernel_path(|| pair.a_to_b(FEW))?;
    }
    let own = pair.client()?.end.own;
    let deadline = Instant::now() + PATIENCE;
    match drain::retire_own(bench.maps, &[own], deadline)? {
        drain::Outcome::Done { .. } => {}
        drain::Outcome::Held(held) => return call(format!("held: {:?}", held[0].by)),
    }
    pair.a_to_b(FEW)?;
    pair.b_to_a(FEW)
}

fn fionread(pair: &mut Pair<'_>) -> Outcome {
    pair.a.send(FEW, FEW)?;
    pair.b.wait_readable()?;
    match rustix::io::ioctl_fionread(&pair.b.sock)? {
        said if said == FEW as u64 => Ok(()),
        said => call(format!("it says {said} for {FEW} bytes")),
    }
}

fn splice_from(mut pair: Pair<'_>) -> Outcome {
    pair.a.send(FEW, FEW)?;
    pair.b.wait_readable()?;
    let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let from = &pair.b.sock;
    match splice(from, None, &writer, None, FEW, SpliceFlags::NONBLOCK) {
        // A program that is refused reads instead.
        Err(Errno::INVAL) => Ok(()),
        Ok(n) if n > 0 => Ok(()),
        Ok(_) => call("it finds the end of the stream where there is data"),
        Err(error) => call(format!("it does not find redirected data: {error}")),
    }
}
