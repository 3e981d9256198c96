//! What BPF decides: `crates/datapath/bpf/socket.bpf.c` and `lib/rest.h`, function by function.

use crate::case::{Case, Enrolments};
use crate::rules::{Rule, Rules};
use crate::state::{Enrolment, Mode, Reader, Reason, Sender, State, Tx};

/// References of the maps to a psock.
const MAPS_OF_A_SOCKET: i8 = 2;
const MAPS_OF_A_LEAVING_SOCKET: i8 = 1;

/// A verdict of `beeline_sk_msg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Redirect,
}

/// `beeline_sk_msg`.
pub(crate) fn sk_msg(rules: Rules, case: &Case, state: &mut State) -> Verdict {
    if let Tx::Kernel(reason) = state.tx {
        if !may_return(rules, state, reason) {
            return Verdict::Pass;
        }
        state.tx = Tx::Redirect;
    }
    if state.tx == Tx::Start && !state.enrolment.paired {
        return over_kernel_path(state, Reason::PeerLate);
    }
    if let Some(reason) = hold_back(rules, case, state) {
        return over_kernel_path(state, reason);
    }
    if !state.enrolment.targets {
        return over_kernel_path(state, Reason::PeerGone);
    }
    state.tx = Tx::Redirect;
    Verdict::Redirect
}

fn over_kernel_path(state: &mut State, reason: Reason) -> Verdict {
    state.tx = Tx::Kernel(reason);
    Verdict::Pass
}

fn hold_back(rules: Rules, case: &Case, state: &State) -> Option<Reason> {
    let is_retired = state.mode == Mode::Detaching || state.retiring;
    if is_retired && rules.has(Rule::Retired) {
        return Some(Reason::Retired);
    }
    let is_full = state.psock_queue.len() > usize::from(case.queue_limit);
    (is_full && rules.has(Rule::QueueLimit)).then_some(Reason::QueueFull)
}

fn may_return(rules: Rules, state: &State, reason: Reason) -> bool {
    let returns = matches!(reason, Reason::QueueFull | Reason::PeerLate);
    returns
        && state.enrolment.paired
        && all_was_read(rules, state)
        && (!rules.has(Rule::NoNativeSleeper) || nobody_reads_natively(state))
}

fn all_was_read(rules: Rules, state: &State) -> bool {
    let acknowledged = state.write_seq == state.snd_una;
    let copied = state.receive_queue.is_empty();
    (acknowledged || !rules.has(Rule::Acknowledged)) && (copied || !rules.has(Rule::Copied))
}

fn sleepers(state: &State) -> i8 {
    count(state, |reader| {
        matches!(
            reader,
            Reader::SleepsInBpf { .. } | Reader::SleepsInNative { .. }
        )
    })
}

/// References to the psock of the reader's socket beside those of `maps`.
fn inside(state: &State, maps: i8) -> i8 {
    let Enrolment { socks, targets, .. } = state.enrolment;
    let held = count(state, |reader| {
        matches!(reader, Reader::InBpf | Reader::SleepsInBpf { .. })
    });
    let queueing = i8::from(matches!(state.sender, Sender::Ingress(_)));
    if !socks {
        return -maps; // no psock: its count reads as 0
    }
    i8::from(socks) + i8::from(targets) + held + queueing - maps
}

fn nobody_reads_natively(state: &State) -> bool {
    sleepers(state) == inside(state, MAPS_OF_A_SOCKET)
}

/// `half_closed`, for a blocking socket.
pub(crate) fn half_closed(rules: Rules, state: &mut State) {
    if !rules.has(Rule::HalfClosedLeaves) || !state.enrolment.socks {
        return;
    }
    state.enrolment.targets = false;
    let nothing_queued = state.psock_queue.is_empty() || !rules.has(Rule::NothingQueued);
    // `inside(sk) == 0` and `all_inside_sleep(peer)`: nobody holds this psock, and the peer's
    // sender, who holds his own, is not between verdict and queue. A peer without a psock does not
    // count as asleep.
    let peer_sleeps = state.enrolment.sender && !state.sender.is_between();
    let nobody_between = inside(state, MAPS_OF_A_LEAVING_SOCKET) == 0 && peer_sleeps;
    if nothing_queued && (nobody_between || !rules.has(Rule::NobodyBetween)) {
        leave(state);
    }
}

/// The psock goes with its last map, and what is queued there with it (`sk_psock_drop`).
pub(crate) fn leave(state: &mut State) {
    state.enrolment.targets = false;
    state.enrolment.socks = false;
    state.psock_queue.clear();
}

/// `enrol` of the reader's socket.
pub(crate) fn enrol_reader(rules: Rules, case: &Case, state: &mut State) {
    state.tried.reader = true;
    let is_late = case.enrolment.is_late();
    let refused = case.reads.blocks()
        && ((case.is_shared() && rules.has(Rule::BlockingIsAlone))
            || (is_late && rules.has(Rule::LateIsNonBlocking)));
    if !refused && state.mode == Mode::On {
        state.enrolment.socks = true;
        state.enrolment.targets = true;
        state.enrolment.paired = state.enrolment.sender || is_late;
    }
}

/// Whether the reader's socket may be enrolled at this moment.
pub(crate) fn may_enrol_reader(rules: Rules, state: &State) -> bool {
    let calls = count(state, |reader| *reader == Reader::InNative);
    !state.tried.reader && (calls == 0 || !rules.has(Rule::LateAfterCalls))
}

/// `enrol` of the sender's socket; an accepted one only if the peer that connected was enrolled.
pub(crate) fn enrol_sender(rules: Rules, case: &Case, state: &mut State) {
    state.tried.sender = true;
    if state.mode != Mode::On {
        return;
    }
    if case.enrolment != Enrolments::BothLate {
        state.enrolment.sender = state.enrolment.socks;
        state.enrolment.paired = state.enrolment.socks;
        return;
    }
    state.enrolment.sender = true;
    if rules.has(Rule::LateStartsAtRest) {
        state.tx = Tx::Kernel(Reason::PeerLate);
    }
}

fn count(state: &State, wanted: impl Fn(&Reader) -> bool) -> i8 {
    let found = state.readers.iter().filter(|r| wanted(r)).count();
    i8::try_from(found).expect("few readers")
}
