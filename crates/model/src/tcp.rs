//! TCP between the two sockets. Segments arrive in order; acknowledgements travel as well.

use crate::case::Case;
use crate::state::{Byte, End, OwnFin, Sender, State};

pub(crate) fn has_room(case: &Case, state: &State) -> bool {
    state.flight.len() + state.receive_queue.len() < usize::from(case.window)
}

pub(crate) fn write(state: &mut State, byte: Byte) {
    state.write_seq += 1;
    state.flight.push(byte);
}

/// The next segment arrives.
pub(crate) fn deliver(state: &mut State) -> bool {
    if !state.flight.is_empty() {
        let byte = state.flight.remove(0);
        state.receive_queue.push(byte);
    } else if state.end == End::Sent {
        state.end = End::Arrived;
    } else {
        return false;
    }
    state.owes_ring |= !state.psock_queue.is_empty();
    state.wake();
    true
}

/// An acknowledgement of all that arrived.
pub(crate) fn acknowledge(state: &mut State) -> bool {
    let in_flight = u8::try_from(state.flight.len()).expect("a small window");
    let rcv_nxt = state.write_seq - in_flight;
    let is_news = state.snd_una != rcv_nxt;
    state.snd_una = rcv_nxt;
    is_news
}

/// An RST: what is in flight is lost, what arrived can be read (`tcp_reset`).
pub(crate) fn reset(state: &mut State) {
    state.end = End::Reset;
    state.flight.clear();
    state.snd_una = state.write_seq;
    if let Sender::WaitsForRoom(_) = state.sender {
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
