//! `beeline detach`, `retire` and `run`: `crates/datapath/src/drain.rs`, `quiesce.rs`, `release.rs`.

use crate::bpf::{leave, may_leave, nobody_sleeps, sender_may_leave};
use crate::case::Case;
use crate::rules::{Rule, Rules};
use crate::state::{Agent, Maps, Mode, State, Sweep};

pub(crate) fn detach(rules: Rules, case: &Case, state: &mut State) -> bool {
    if state.agent != Agent::Absent || state.detaches == case.detaches {
        return false;
    }
    state.detaches += 1;
    state.mode = Mode::Detaching;
    begin_to_wait(rules, state);
    true
}

pub(crate) fn retire(rules: Rules, case: &Case, state: &mut State) -> bool {
    if !case.retires || state.retires || state.agent != Agent::Absent {
        return false;
    }
    state.retires = true;
    state.retiring = state.from.maps.socks;
    begin_to_wait(rules, state);
    true
}

/// `Marks::set` again: an end that was enrolled meanwhile is marked, and the wait for its sender
/// begins anew.
pub(crate) fn mark_again(rules: Rules, state: &mut State) -> bool {
    if !state.retires || state.agent == Agent::Absent {
        return false;
    }
    let is_unmarked = state.from.maps.socks && !state.retiring;
    let is_target = state.to.maps.socks && !state.untargeted && rules.has(Rule::TargetsFirst);
    if is_unmarked || is_target {
        state.retiring |= is_unmarked;
        begin_to_wait(rules, state);
    }
    is_unmarked || is_target
}

fn begin_to_wait(rules: Rules, state: &mut State) {
    state.agent = Agent::Quiesces;
    if rules.has(Rule::TargetsFirst) {
        state.untargeted = state.to.maps.socks;
        state.to.maps.targets = false;
        state.from.maps.targets = false;
    }
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

fn may_sweep(rules: Rules, state: &State) -> bool {
    let is_no_target = state.untargeted || !rules.has(Rule::TargetsFirst);
    let is_chosen = state.agent == Agent::Releases && state.to.maps.socks && is_no_target;
    is_chosen && state.sweep == Sweep::None
}

/// A thread of the agent is about to take the reader's lock.
pub(crate) fn sweep_starts(rules: Rules, case: &Case, state: &mut State) -> bool {
    let starts = case.sweep_outlives && may_sweep(rules, state);
    if starts {
        state.sweep = Sweep::Started;
    }
    starts
}

/// `beeline_release`, under the lock of the reader's socket: all of it, or the first looks.
pub(crate) fn sweep_looks(rules: Rules, case: &Case, state: &mut State) -> bool {
    let is_due = !case.sweep_outlives && may_sweep(rules, state);
    if !is_due && state.sweep != Sweep::Started {
        return false;
    }
    state.sweep = Sweep::None;
    if !state.to.maps.socks {
        return true;
    }
    state.to.maps.targets = false;
    let in_steps = case.slow_looks || !rules.has(Rule::ReleaseUnderLock);
    let may = if in_steps {
        first_look(rules, state)
    } else {
        may_leave(rules, state)
    };
    match (may, in_steps) {
        (true, true) => state.sweep = Sweep::Looked,
        (true, false) => leave(state),
        (false, _) => {}
    }
    true
}

fn first_look(rules: Rules, state: &State) -> bool {
    let is_empty = if rules.has(Rule::SourceFirst) {
        state.ingress_skb.is_empty()
    } else {
        state.unread() == 0
    };
    is_empty && (rules.has(Rule::InsideLast) || nobody_sleeps(rules, state))
}

/// The other look, and the removal.
pub(crate) fn sweep_removes(rules: Rules, state: &mut State) -> bool {
    if state.sweep != Sweep::Looked {
        return false;
    }
    state.sweep = Sweep::None;
    let is_empty = if rules.has(Rule::SourceFirst) {
        state.unread() == 0
    } else {
        state.ingress_skb.is_empty()
    };
    if is_empty && (!rules.has(Rule::InsideLast) || nobody_sleeps(rules, state)) {
        leave(state);
    }
    true
}

pub(crate) fn release_sender(state: &mut State) -> bool {
    let releases = state.agent == Agent::Releases && state.from.maps.socks;
    if releases {
        state.from.maps.targets = false;
        if sender_may_leave(state) {
            state.from.maps = Maps::default();
        }
    }
    releases
}

/// What runs in the kernel at that moment comes to its end.
pub(crate) fn die(state: &mut State) -> bool {
    let lives = state.agent != Agent::Absent;
    state.agent = Agent::Absent;
    state.untargeted = false;
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
