//! What BPF decides: `crates/datapath/bpf/socket.bpf.c`, `adopt.bpf.c`, `release.bpf.c` and
//! `lib/rest.h`, function by function.

use crate::case::Case;
use crate::rules::{Rule, Rules};
use crate::state::{
    Byte, End, Maps, Mode, OwnFin, Piece, Reader, Reason, Sender, State, Sweep, Tx,
};
use crate::tcp;

/// References of the maps to a psock.
const MAPS_OF_A_SOCKET: i8 = 2;
const MAPS_OF_A_LEAVING_SOCKET: i8 = 1;

/// A verdict of `beeline_sk_msg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// As soon as the target was found.
    Begin {
        is_head: bool,
    },
    Redirect,
    /// All but the last byte, for which there is another verdict.
    RedirectHead,
}

/// What a verdict is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// A message of which `last_byte_suffices` says so, as far as that does not depend on the queue.
    InTwo,
    Rest,
}

/// `beeline_sk_msg`.
pub(crate) fn sk_msg(rules: Rules, case: &Case, state: &mut State, part: Part) -> Verdict {
    if let Tx::Kernel(reason) = state.tx
        && !may_return(rules, case, state, reason, part)
    {
        return Verdict::Pass;
    }
    if state.tx == Tx::Start && !state.paired {
        return over_kernel_path(state, Reason::PeerLate);
    }
    if let Some(reason) = hold_back(rules, state) {
        return over_kernel_path(state, reason);
    }
    let is_full = state.unread() > usize::from(case.queue_limit) && rules.has(Rule::QueueLimit);
    if is_full && !last_byte_suffices(case, state, part) {
        return over_kernel_path(state, Reason::QueueFull);
    }
    if state.tx != Tx::Redirect {
        state.said |= rules.has(Rule::SaysFirst);
        state.settled &= !rules.has(Rule::TakesBack);
        return Verdict::Begin { is_head: is_full };
    }
    if !finds_target(state) {
        return Verdict::Pass;
    }
    if is_full {
        Verdict::RedirectHead
    } else {
        Verdict::Redirect
    }
}

/// `bpf_msg_redirect_hash`
pub(crate) fn finds_target(state: &mut State) -> bool {
    if state.to.maps.targets {
        state.tx = Tx::Redirect;
    } else {
        over_kernel_path(state, Reason::PeerGone);
    }
    state.to.maps.targets
}

/// Messages beyond the limit whose last byte may not have made the sender wait.
pub(crate) const EXCESS: usize = 1;

fn last_byte_suffices(case: &Case, state: &State, part: Part) -> bool {
    part == Part::InTwo && state.unread() <= usize::from(case.queue_limit) + EXCESS
}

fn over_kernel_path(state: &mut State, reason: Reason) -> Verdict {
    state.tx = Tx::Kernel(reason);
    // `say_settled`: there is one thread that sends.
    state.settled = true;
    Verdict::Pass
}

fn hold_back(rules: Rules, state: &State) -> Option<Reason> {
    let is_retired = state.mode == Mode::Detaching || state.retiring;
    if is_retired && rules.has(Rule::Retired) {
        return Some(Reason::Retired);
    }
    let one_blocks = state.from.blocks() || state.to.blocks();
    one_blocks.then_some(Reason::Blocking)
}

fn may_return(rules: Rules, case: &Case, state: &State, reason: Reason, part: Part) -> bool {
    let may_pass = matches!(
        reason,
        Reason::QueueFull | Reason::Blocking | Reason::PeerLate
    );
    let has_caught_up = state.unread() <= usize::from(case.queue_limit / 2);
    may_pass
        && state.paired
        && (tcp::has_arrived(state) || !rules.has(Rule::Arrived))
        && (has_caught_up || last_byte_suffices(case, state, part))
        && !state.from.blocks()
        && !state.to.blocks()
        && (all_is_queued(state) || !rules.has(Rule::AllQueued))
        && !(rules.has(Rule::PeerUnlocked) && is_locked(rules, state))
}

fn all_is_queued(state: &State) -> bool {
    state.receive_queue.is_empty() && state.ingress_skb.is_empty()
}

/// Somebody has the lock of the reader's socket, and goes on without a step of the model's threads.
pub(crate) fn is_locked(rules: Rules, state: &State) -> bool {
    let is_swept = state.sweep == Sweep::Looked && rules.has(Rule::ReleaseUnderLock);
    is_swept || !state.in_hand.is_empty()
}

/// Threads that sleep at the reader's socket.
fn sleepers(state: &State) -> i8 {
    count(state, |reader| reader.sleeps())
}

/// References to the psock of the reader's socket beside those of `maps`. No psock: its count reads
/// as 0.
fn inside(state: &State, maps: i8) -> i8 {
    let held = count(state, |reader| reader.holds_psock());
    let queueing = i8::from(matches!(state.sender, Sender::Ingress { .. }));
    state.to.maps.count() + held + queueing - maps
}

/// The same of the sender's socket.
fn sender_inside(state: &State, maps: i8) -> i8 {
    state.from.maps.count() + i8::from(state.sender.is_inside()) - maps
}

/// In how many maps `leave_if_unfit` takes the peer to be.
fn maps_of_a_peer(rules: Rules, peer: Maps) -> i8 {
    if rules.has(Rule::CountsPeersMaps) {
        peer.count()
    } else {
        MAPS_OF_A_SOCKET
    }
}

/// `others_sleep` of the sender's socket, as its peer asks.
fn sender_sleeps(rules: Rules, state: &State) -> bool {
    let maps = maps_of_a_peer(rules, state.from.maps);
    let has_psock = state.from.maps.count() > 0 || state.sender.is_inside();
    let sleepers = i8::from(state.sender.sleeps() && has_psock);
    sleepers == sender_inside(state, maps)
}

/// Nobody may be inside a call of the reader's socket who would sleep there.
pub(crate) fn nobody_sleeps(rules: Rules, state: &State) -> bool {
    let nobody = inside(state, MAPS_OF_A_LEAVING_SOCKET) == 0;
    !state.to.blocks() || nobody || !rules.has(Rule::NobodyInside)
}

/// `may_leave`, of the reader's socket.
pub(crate) fn may_leave(rules: Rules, state: &State) -> bool {
    let nothing_queued = state.unread() == 0 && state.ingress_skb.is_empty();
    (nothing_queued || !rules.has(Rule::NothingQueued)) && nobody_sleeps(rules, state)
}

/// `leave_if_unfit`, of the reader's socket.
pub(crate) fn leave_if_unfit(rules: Rules, state: &mut State) -> bool {
    if !rules.has(Rule::BlockingLeaves) || !state.to.blocks() || !state.to.maps.socks {
        return false;
    }
    state.to.maps.targets = false;
    let may_be_between = state.said && !state.settled && !sender_sleeps(rules, state);
    let nobody_between = !may_be_between || !rules.has(Rule::NobodyBetween);
    if state.paired && may_leave(rules, state) && nobody_between {
        leave(state);
    }
    true
}

/// `leave_if_unfit`, of the sender's socket, to which nothing is sent.
pub(crate) fn sender_leaves_if_unfit(rules: Rules, state: &mut State) -> bool {
    if !state.from.blocks() || !state.from.maps.socks {
        return false;
    }
    state.from.maps.targets = false;
    let maps = maps_of_a_peer(rules, state.to.maps);
    let peer_sleeps = sleepers(state) == inside(state, maps);
    if state.paired && sender_inside(state, MAPS_OF_A_LEAVING_SOCKET) == 0 && peer_sleeps {
        state.from.maps.socks = false;
    }
    true
}

/// `may_leave`, of the sender's socket.
pub(crate) fn sender_may_leave(state: &State) -> bool {
    !state.from.blocks() || !state.sender.is_inside()
}

/// The psock goes with its last map, and what is queued there with it (`sk_psock_drop`).
pub(crate) fn leave(state: &mut State) {
    state.to.maps = Maps::default();
    state.expected = None;
    state.psock_queue.clear();
    state.ingress_skb.clear();
    state.backlog_queued = false;
}

/// `cut_overlap`, byte by byte: whether it stays. Without a record all does.
pub(crate) fn is_new(state: &mut State, piece: Piece) -> bool {
    let (Piece::Segment(byte) | Piece::Again(byte)) = piece else {
        return true;
    };
    let Some(next) = state.expected else {
        return true;
    };
    let is_new = byte >= next;
    if is_new {
        state.expected = Some(byte + 1);
    }
    is_new
}

/// The reader's socket enters both maps, and `expect` notes what comes next.
fn enter(state: &mut State, next: Byte) {
    state.to.maps = Maps::BOTH;
    state.expected = Some(next);
}

/// `enrol` of the reader's socket, at its handshake.
pub(crate) fn enrol_reader(rules: Rules, case: &Case, state: &mut State) {
    state.to.tried = true;
    let is_client = case.enrolment.reader_is_client();
    let is_fit = !state.to.blocks() || !rules.has(Rule::NonBlockingOnly);
    if state.mode == Mode::On && is_fit && (is_client || state.from.maps.socks) {
        enter(state, 0);
        state.paired = !is_client;
    }
}

/// `enrol` of the sender's socket, at its handshake.
pub(crate) fn enrol_sender(rules: Rules, case: &Case, state: &mut State) {
    state.from.tried = true;
    let is_client = !case.enrolment.reader_is_client();
    let is_fit = !state.from.blocks() || !rules.has(Rule::NonBlockingOnly);
    if state.mode == Mode::On && is_fit && (is_client || state.to.maps.socks) {
        state.from.maps = Maps::BOTH;
        state.paired = !is_client;
    }
}

/// `are_ready`
fn are_ready(rules: Rules, state: &State) -> bool {
    let established = state.end == End::Open && state.own_fin == OwnFin::None;
    let one_blocks = state.from.blocks() || state.to.blocks();
    let fit = !one_blocks || !rules.has(Rule::NonBlockingOnly);
    state.mode == Mode::On && established && fit
}

/// `beeline_adopt` of the reader's socket.
pub(crate) fn adopt_reader(rules: Rules, case: &Case, state: &mut State) -> bool {
    let is_client = case.enrolment.reader_is_client();
    let is_its_turn = !state.to.tried && (is_client || state.from.tried);
    let is_empty = state.receive_queue.is_empty() || !rules.has(Rule::EntersEmpty);
    let nobody_sleeps = sleepers(state) == 0 || !rules.has(Rule::EntersWithoutSleeper);
    let began = count(state, |reader| matches!(reader, Reader::InNative { .. }));
    let nobody_waits = began == 0 || !rules.has(Rule::NoCallBegun);
    let may_enter = is_empty && nobody_sleeps && nobody_waits;
    if !is_its_turn || !are_ready(rules, state) || !may_enter {
        return false;
    }
    state.to.tried = true;
    enter(state, state.arrived);
    state.paired = !is_client;
    true
}

/// `beeline_adopt` of the sender's socket.
pub(crate) fn adopt_sender(rules: Rules, case: &Case, state: &mut State) -> bool {
    let is_client = !case.enrolment.reader_is_client();
    let is_its_turn = !state.from.tried && (is_client || state.to.tried);
    if !is_its_turn || !are_ready(rules, state) || state.sender.sleeps() {
        return false;
    }
    state.from.tried = true;
    state.from.maps = Maps::BOTH;
    state.paired = !is_client;
    if rules.has(Rule::EntersOnKernelPath) {
        state.tx = Tx::Kernel(Reason::Blocking);
    }
    true
}

fn count(state: &State, wanted: impl Fn(Reader) -> bool) -> i8 {
    let found = state.readers.iter().filter(|r| wanted(**r)).count();
    i8::try_from(found).expect("few readers")
}
