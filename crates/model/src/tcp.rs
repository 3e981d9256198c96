//! TCP between the two sockets, and what becomes of segments at the reader's. Segments arrive in
//! order; those that TCP has not sent yet count as in flight.

use crate::bpf;
use crate::case::Case;
use crate::rules::{Rule, Rules};
use crate::state::{Byte, End, OwnFin, Piece, Sender, State};

fn segments<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> usize {
    pieces
        .into_iter()
        .filter(|piece| matches!(piece, Piece::Segment(_)))
        .count()
}

/// Segments count until they are read, in whatever queue.
pub(crate) fn has_room(case: &Case, state: &State) -> bool {
    let queues = [
        &state.flight,
        &state.receive_queue,
        &state.in_hand,
        &state.ingress_skb,
        &state.psock_queue,
    ];
    segments(queues.into_iter().flatten()) < usize::from(case.window)
}

pub(crate) fn write(state: &mut State, byte: Byte) {
    state.write_seq += 1;
    state.flight.push(Piece::Segment(byte));
}

pub(crate) fn shut_down(state: &mut State) {
    state.end = End::Sent;
    state.flight.push(Piece::Fin);
}

/// `sk_psock_verdict_data_ready` is in force: the socket is in `socks`, and has a `struct socket`.
fn has_verdict(state: &State) -> bool {
    state.to.maps.socks && state.to.accepted
}

/// The next segment arrives, and goes to the reader's queue.
pub(crate) fn deliver(rules: Rules, case: &Case, state: &mut State) -> bool {
    if state.flight.is_empty() {
        return false;
    }
    let piece = state.flight.remove(0);
    match piece {
        Piece::Segment(byte) => state.arrived = byte + 1,
        Piece::Fin => end(rules, state),
        Piece::Redirected(_) | Piece::Again(_) => unreachable!("not on its way"),
    }
    state.receive_queue.push(piece);
    if case.memory_fails && has_verdict(state) {
        state.in_hand = take_all(rules, state);
    } else {
        data_ready(rules, state);
    }
    state.wake();
    true
}

/// The sender has no acknowledgement of the last segment, and sends it again as one with the next.
pub(crate) fn deliver_again(rules: Rules, case: &Case, state: &mut State) -> bool {
    let may = state.arrived > 0 && state.came_again < case.comes_again && !state.flight.is_empty();
    if may {
        state.came_again += 1;
        state.receive_queue.push(Piece::Again(state.arrived - 1));
        deliver(rules, case, state);
    }
    may
}

/// `tcp_fin`: the end of both streams closes the socket before its last segment is in the psock's queue.
fn end(rules: Rules, state: &mut State) {
    state.end = End::Arrived;
    if is_over(state) && !rules.has(Rule::KnownUntilLast) {
        state.expected = None;
    }
}

fn is_over(state: &State) -> bool {
    state.end == End::Arrived && state.own_fin == OwnFin::Acknowledged
}

/// `tcp_data_ready`, with memory enough. Whether the receive queue is empty then.
pub(crate) fn data_ready(rules: Rules, state: &mut State) -> bool {
    if has_verdict(state) {
        let pieces = take_all(rules, state);
        queue(state, pieces, true);
    }
    state.receive_queue.is_empty()
}

/// `tcp_read_skb` takes whole buffers, whatever was read of them, each with a verdict.
fn take_all(rules: Rules, state: &mut State) -> Vec<Piece> {
    state.copied = 0;
    let mut pieces = std::mem::take(&mut state.receive_queue);
    if rules.has(Rule::CutsOff) {
        pieces.retain(|piece| bpf::is_new(state, *piece));
    }
    if is_over(state) {
        state.expected = None;
    }
    pieces
}

/// `sk_psock_verdict_apply`: behind what waits in `ingress_skb`, or for memory there.
fn queue(state: &mut State, pieces: Vec<Piece>, has_memory: bool) {
    if has_memory && state.ingress_skb.is_empty() {
        state.psock_queue.extend(pieces);
    } else {
        state.ingress_skb.extend(pieces);
    }
}

/// The softirq goes on with what it has in hand.
pub(crate) fn put(state: &mut State, has_memory: bool) -> bool {
    let pieces = std::mem::take(&mut state.in_hand);
    let holds = !pieces.is_empty();
    queue(state, pieces, has_memory);
    if holds {
        state.wake();
    }
    holds
}

/// `sk_psock_backlog`: queues the first, then takes it out of `ingress_skb`; without the lock.
pub(crate) fn backlog(state: &mut State) -> bool {
    let Some(first) = state.ingress_skb.first().copied() else {
        return false;
    };
    if state.backlog_queued {
        state.ingress_skb.remove(0);
    } else {
        state.psock_queue.push(first);
        state.wake();
    }
    state.backlog_queued = !state.backlog_queued;
    true
}

/// The reader's `rcv_nxt` is the sender's `write_seq`.
pub(crate) fn has_arrived(state: &State) -> bool {
    segments(&state.flight) == 0
}

/// An RST: what is in flight is lost, what arrived can be read (`tcp_reset`).
pub(crate) fn reset(state: &mut State) {
    state.end = End::Reset;
    state.flight.clear();
    if state.sender.sleeps() {
        state.sender = Sender::AtRest;
    }
    state.wake();
}

/// The FIN of the reader's own direction is acknowledged: FIN_WAIT1 becomes FIN_WAIT2, and
/// `tcp_rcv_state_process` wakes whoever sleeps at the socket (net/ipv4/tcp_input.c).
pub(crate) fn acknowledge_own_fin(state: &mut State) -> bool {
    if state.own_fin != OwnFin::Sent {
        return false;
    }
    state.own_fin = OwnFin::Acknowledged;
    state.wake();
    true
}
