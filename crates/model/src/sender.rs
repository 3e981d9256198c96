//! The sending thread: `tcp_bpf_sendmsg`, `tcp_bpf_send_verdict`, `bpf_tcp_ingress`
//! (net/ipv4/tcp_bpf.c, Linux 6.12 and 6.18).

use crate::bpf::{Part, Verdict, finds_target, sk_msg};
use crate::case::Case;
use crate::rules::Rules;
use crate::state::{Byte, End, Fault, Piece, Sender, State};
use crate::tcp;

pub(crate) fn may_send(case: &Case, state: &State) -> bool {
    let is_open = matches!(state.end, End::Open);
    state.sender == Sender::AtRest && state.sent < case.messages && is_open && state.from.accepted
}

/// Whether there is a message of more than its last byte to send, and such are treated apart.
pub(crate) fn may_send_in_two(case: &Case, state: &State) -> bool {
    case.last_bytes && may_send(case, state) && state.sent + 1 < case.messages
}

/// Until the verdict, and if it is "pass" until the message is in TCP's queue: all under the lock.
/// Without room there, a call that may not block fails, and the program tries again.
pub(crate) fn send(rules: Rules, case: &Case, state: &mut State, part: Part) {
    let byte = state.sent;
    let holds_psock = state.from.maps.socks;
    let verdict = if holds_psock {
        sk_msg(rules, case, state, part)
    } else {
        Verdict::Pass
    };
    match verdict {
        Verdict::Pass => over_tcp(case, state, holds_psock),
        Verdict::Begin { is_head } => state.sender = Sender::Begins { byte, is_head },
        Verdict::Redirect | Verdict::RedirectHead => {
            let is_head = verdict == Verdict::RedirectHead;
            state.sender = Sender::Verdict { byte, is_head };
            state.sent += 1;
        }
    }
}

/// The next message goes to TCP's queue, or waits for room there.
fn over_tcp(case: &Case, state: &mut State, holds_psock: bool) {
    let byte = state.sent;
    if tcp::has_room(case, state) {
        tcp::write(state, byte);
        state.sender = Sender::AtRest;
    } else if state.from.blocks() {
        state.sender = Sender::WaitsForRoom { byte, holds_psock };
    } else {
        state.sender = Sender::AtRest;
        return;
    }
    state.sent += 1;
}

/// The look for the target after the direction has said that it redirects, in the same call.
fn begin(case: &Case, state: &mut State, byte: Byte, is_head: bool) {
    if finds_target(state) {
        state.sender = Sender::Verdict { byte, is_head };
        state.sent += 1;
    } else if state.end == End::Open {
        over_tcp(case, state, true);
    } else {
        state.sender = Sender::AtRest;
    }
}

/// The last byte of a message. If the socket has left the maps meanwhile, or the connection was reset,
/// the program is told that it wrote less.
fn send_rest(rules: Rules, case: &Case, state: &mut State) {
    if state.from.maps.socks && state.end == End::Open {
        send(rules, case, state, Part::Rest);
    } else {
        state.sender = Sender::AtRest;
    }
}

/// The sending thread goes on, if it can.
pub(crate) fn go_on(rules: Rules, case: &Case, state: &mut State, target_is_locked: bool) -> bool {
    match state.sender {
        Sender::AtRest => return false,
        Sender::Begins { byte, is_head } => begin(case, state, byte, is_head),
        // tcp_bpf_sendmsg_redir: EPIPE when the target has no psock any more
        Sender::Verdict { byte, is_head } if state.to.maps.count() > 0 => {
            state.said = true;
            state.sender = Sender::Ingress { byte, is_head };
        }
        Sender::Verdict { .. } => {
            state.sender = Sender::AtRest;
            state.fault = Some(Fault::CallFailed);
        }
        Sender::Ingress { .. } if target_is_locked => return false,
        Sender::Ingress { byte, is_head } => {
            // What is queued in a psock that left the maps meanwhile goes with it.
            if state.to.maps.count() > 0 {
                state.psock_queue.push(Piece::Redirected(byte));
            }
            state.wake();
            state.sender = if is_head {
                Sender::HasRest
            } else {
                Sender::AtRest
            };
        }
        Sender::HasRest => send_rest(rules, case, state),
        Sender::WaitsForRoom { byte, .. } => {
            if !tcp::has_room(case, state) {
                return false;
            }
            tcp::write(state, byte);
            state.sender = Sender::AtRest;
        }
    }
    true
}

/// Whether the sending program may end its stream now.
pub(crate) fn may_shut_down(case: &Case, state: &State) -> bool {
    let is_at_rest = state.sender == Sender::AtRest;
    let is_racing = case.shuts_down_while_sending && state.sender.is_between();
    let is_answered = state.read == state.sent || !case.waits_for_answer;
    let is_last = state.sent == case.messages && is_answered;
    let is_open = state.end == End::Open && state.from.accepted;
    is_open && is_last && (is_at_rest || is_racing)
}
