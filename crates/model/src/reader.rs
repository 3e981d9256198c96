//! A reading thread: `tcp_bpf_recvmsg_parser` (net/ipv4/tcp_bpf.c) and `tcp_recvmsg`
//! (net/ipv4/tcp.c), Linux 6.12 and 6.18, each step as far as it goes under one lock.

use crate::case::{Case, Reads};
use crate::rules::Rules;
use crate::state::{Byte, End, Fault, Piece, Reader, State};
use crate::tcp;

/// The reading thread goes on, if it can.
pub(crate) fn go_on(
    rules: Rules,
    case: &Case,
    state: &mut State,
    who: usize,
    is_locked: bool,
) -> bool {
    match state.readers[who] {
        Reader::Outside if state.to.blocks() => call(state, who),
        Reader::Outside if case.reads == Reads::LevelTriggered && state.is_readable() => {
            call(state, who);
        }
        Reader::Outside if case.reads == Reads::EdgeTriggered && state.edge => {
            epoll_wait(state, who)
        }
        Reader::Told => call(state, who),
        _ if is_locked => return false,
        Reader::InBpf { waits } => in_bpf(rules, case, state, who, waits),
        Reader::InNative { waits } => in_native(case, state, who, waits),
        Reader::SleepsInBpf { woken: true } => woken_in_bpf(case, state, who),
        Reader::SleepsInNative { woken: true } => in_native(case, state, who, true),
        _ => return false,
    }
    true
}

/// `epoll_wait` reports the edge. A program that is busy elsewhere may get several before it reads.
pub(crate) fn epoll_wait(state: &mut State, who: usize) {
    state.edge = false;
    state.told_end |= state.end.is_rcv_shutdown();
    state.readers[who] = Reader::Told;
}

/// Before the lock; without a psock the call is `tcp_recvmsg`.
fn call(state: &mut State, who: usize) {
    let waits = state.to.blocks();
    state.readers[who] = if state.to.maps.socks {
        Reader::InBpf { waits }
    } else {
        Reader::InNative { waits }
    };
}

fn in_bpf(rules: Rules, case: &Case, state: &mut State, who: usize, waits: bool) {
    // Before accept, nothing is taken from TCP's receive queue; and after a release, nothing any
    // more. Who waited for the lock meanwhile, gets EAGAIN and whatever tcp_data_ready causes.
    if !state.receive_queue.is_empty() && !tcp::data_ready(rules, state) {
        state.wake();
        again(state, who, waits);
    } else if !state.psock_queue.is_empty() {
        read_psock(case, state, who);
    } else if state.end.is_rcv_shutdown() {
        ends(state, who);
    } else if waits {
        state.readers[who] = Reader::SleepsInBpf { woken: false };
    } else {
        again(state, who, false);
    }
}

/// `tcp_msg_wait_data` sleeps once; without data then, the call fails.
fn woken_in_bpf(case: &Case, state: &mut State, who: usize) {
    if state.psock_queue.is_empty() {
        again(state, who, true);
    } else {
        read_psock(case, state, who);
    }
}

/// EAGAIN. A blocking call must not fail so, but for what docs/semantics.md lists: once before
/// ECONNRESET, and in sockets that came to block when they were enrolled.
fn again(state: &mut State, who: usize, waits: bool) {
    state.readers[who] = Reader::Outside;
    if waits && state.end != End::Reset && !state.is_listed {
        state.fault = Some(Fault::CallFailed);
    }
}

/// `__sk_msg_recvmsg`: up to a FIN, which stays where it is.
fn read_psock(case: &Case, state: &mut State, who: usize) {
    let fin = state
        .psock_queue
        .iter()
        .position(|piece| *piece == Piece::Fin);
    let there = fin.unwrap_or(state.psock_queue.len());
    let count = there.min(usize::from(case.buffer));
    if count == 0 {
        ends(state, who);
        return;
    }
    let pieces: Vec<Piece> = state.psock_queue.drain(..count).collect();
    returns(case, state, who, &pieces);
}

fn in_native(case: &Case, state: &mut State, who: usize, waits: bool) {
    let is_segment = |piece: &&Piece| matches!(piece, Piece::Segment(_));
    let waiting = &state.receive_queue[state.copied..];
    let bytes: Vec<Piece> = waiting
        .iter()
        .filter(is_segment)
        .take(usize::from(case.buffer))
        .copied()
        .collect();
    if let Some(last) = bytes.last() {
        let skipped = waiting.iter().position(|piece| piece == last);
        state.copied += skipped.expect("it is there") + 1;
        if state.copied == state.receive_queue.len() {
            state.receive_queue.clear();
            state.copied = 0;
        }
        returns(case, state, who, &bytes);
    } else if state.end.is_rcv_shutdown() {
        ends(state, who);
    } else if waits {
        state.readers[who] = Reader::SleepsInNative { woken: false };
    } else {
        state.readers[who] = Reader::Outside; // EAGAIN
    }
}

fn copy(state: &mut State, byte: Byte) {
    if byte != state.read {
        state.fault = Some(Fault::OutOfOrder);
    }
    state.read += 1;
}

/// The call returns these bytes.
fn returns(case: &Case, state: &mut State, who: usize, pieces: &[Piece]) {
    for piece in pieces {
        match piece {
            Piece::Redirected(byte) | Piece::Segment(byte) | Piece::Again(byte) => {
                copy(state, *byte)
            }
            Piece::Fin => {}
        }
    }
    let is_full = pieces.len() == usize::from(case.buffer);
    let goes_on = case.reads == Reads::EdgeTriggered && (is_full || state.told_end);
    state.readers[who] = if goes_on {
        Reader::Told
    } else {
        Reader::Outside
    };
}

/// The call returns end of file, or the error of a reset.
fn ends(state: &mut State, who: usize) {
    if state.end == End::Arrived && state.read < state.sent {
        state.fault = Some(Fault::Lost);
    }
    state.readers[who] = Reader::Done;
}
