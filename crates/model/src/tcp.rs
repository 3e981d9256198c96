//! TCP between the two sockets, and what becomes of segments at the reader's. Segments arrive in
//! order; those that TCP has not sent yet count as in flight.

use crate::case::Case;
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
pub(crate) fn deliver(case: &Case, state: &mut State) -> bool {
    if state.flight.is_empty() {
        return false;
    }
    let piece = state.flight.remove(0);
    if piece == Piece::Fin {
        state.end = End::Arrived;
    }
    state.receive_queue.push(piece);
    if case.memory_fails && has_verdict(state) {
        state.in_hand = take_all(state);
    } else {
        data_ready(state);
    }
    state.wake();
    true
}

/// `tcp_data_ready`, with memory enough. Whether the receive queue is empty then.
pub(crate) fn data_ready(state: &mut State) -> bool {
    if has_verdict(state) {
        let pieces = take_all(state);
        queue(state, pieces, true);
    }
    state.receive_queue.is_empty()
}

/// `tcp_read_skb` takes whole buffers, whatever was read of them.
fn take_all(state: &mut State) -> Vec<Piece> {
    state.copied = 0;
    std::mem::take(&mut state.receive_queue)
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
