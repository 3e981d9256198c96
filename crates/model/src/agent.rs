//! `beeline detach` and `beeline run`: `crates/datapath/src/drain.rs`, `quiesce.rs`.

use crate::bpf::leave;
use crate::case::Case;
use crate::rules::{Rule, Rules};
use crate::state::{Agent, Mode, State};

pub(crate) fn may_detach(case: &Case, state: &State) -> bool {
    state.agent == Agent::Absent && state.detaches < case.detaches
}

pub(crate) fn detach(state: &mut State) {
    state.detaches += 1;
    state.mode = Mode::Detaching;
    state.agent = Agent::Quiesces;
}

pub(crate) fn may_retire(case: &Case, state: &State) -> bool {
    case.retires && !state.retires && state.agent == Agent::Absent
}

/// Marks the ends that exist. One that is enrolled later is marked when the agent looks again, and
/// the wait for its sender begins anew.
pub(crate) fn retire(state: &mut State) {
    state.retires = true;
    state.retiring = state.enrolment.sender;
    state.agent = Agent::Quiesces;
}

pub(crate) fn mark_again(state: &mut State) -> bool {
    let may = state.retires && state.agent != Agent::Absent;
    let is_new = may && state.enrolment.sender && !state.retiring;
    if is_new {
        state.retiring = true;
        state.agent = Agent::Quiesces;
    }
    is_new
}

/// The sending thread was seen outside of a redirect.
pub(crate) fn quiesced(rules: Rules, state: &mut State) -> bool {
    let at_rest = !state.sender.is_between() || !rules.has(Rule::NobodyBetween);
    let ends = state.agent == Agent::Quiesces && at_rest;
    if ends {
        state.agent = Agent::Releases;
    }
    ends
}

pub(crate) fn release_reader(rules: Rules, state: &mut State) -> bool {
    let nothing_queued = state.psock_queue.is_empty() || !rules.has(Rule::NothingQueued);
    let releases = state.agent == Agent::Releases && state.enrolment.socks && nothing_queued;
    if releases {
        leave(state);
    }
    releases
}

pub(crate) fn release_sender(state: &mut State) -> bool {
    let releases = state.agent == Agent::Releases && state.enrolment.sender;
    if releases {
        state.enrolment.sender = false;
    }
    releases
}

pub(crate) fn die(state: &mut State) -> bool {
    let lives = state.agent != Agent::Absent;
    state.agent = Agent::Absent;
    lives
}

/// `beeline run` over what an interrupted detach left.
pub(crate) fn take_back(state: &mut State) -> bool {
    let may = state.agent == Agent::Absent && state.mode == Mode::Detaching;
    if may {
        state.mode = Mode::On;
    }
    may
}
