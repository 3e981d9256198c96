//! The state machine for stateright: which steps can be taken, and what must hold after each.

use stateright::{Model, Property as Checked};

use crate::action::Action;
use crate::bpf::Part;
use crate::case::{Case, Enrolments, File, HalfClose, Reads};
use crate::report::Property;
use crate::rules::Rules;
use crate::state::{End, Fault, OwnFin, Piece, Reader, State};
use crate::{agent, bpf, reader, sender, tcp};

/// One case under one set of rules.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub(crate) case: Case,
    pub(crate) rules: Rules,
}

impl Machine {
    /// Not a promise, but what makes the promises worth something.
    pub(crate) const RETURNS: &str = "a direction returns from the kernel path";

    /// The same of sockets that block; who has never redirected keeps nobody.
    pub(crate) const LEAVE: &str = "both ends leave the maps after a redirect";

    /// The state after the step, if it can be taken and changes anything.
    fn step(&self, before: &State, action: Action) -> Option<State> {
        let (rules, case) = (self.rules, &self.case);
        let mut after = before.clone();
        let state = &mut after;
        let is_locked = bpf::is_locked(rules, state);
        let taken = match action {
            Action::EnrolReader => !is_locked && self.enrol_reader(state),
            Action::EnrolSender => self.enrol_sender(state),
            Action::Accept => accept(state),
            Action::Send => sender::may_send(case, state)
                .then(|| sender::send(rules, case, state, Part::Whole))
                .is_some(),
            Action::SendInTwo => sender::may_send_in_two(case, state)
                .then(|| sender::send(rules, case, state, Part::InTwo))
                .is_some(),
            Action::SenderGoesOn => sender::go_on(rules, case, state, is_locked),
            Action::ShutDown => sender::may_shut_down(case, state)
                .then(|| tcp::shut_down(state))
                .is_some(),
            Action::Deliver => !is_locked && tcp::deliver(rules, case, state),
            Action::DeliverAgain => !is_locked && tcp::deliver_again(rules, case, state),
            Action::Put => tcp::put(state, true),
            Action::PutAside => tcp::put(state, false),
            Action::Backlog => tcp::backlog(state),
            Action::Reset => self.reset(state, is_locked),
            Action::HalfClose => !is_locked && self.half_close(state),
            Action::AcknowledgeHalfClose => !is_locked && tcp::acknowledge_own_fin(state),
            Action::ReaderGoesOn(who) => self.read(state, who, is_locked),
            Action::EpollAgain(who) => self.epoll_again(state, who),
            Action::ReaderChanges => self.reader_changes(state),
            Action::SenderChanges => self.sender_changes(state),
            Action::ReaderPacket => !is_locked && bpf::leave_if_unfit(rules, state),
            Action::SenderPacket => bpf::sender_leaves_if_unfit(rules, state),
            Action::Detach => agent::detach(rules, case, state),
            Action::Retire => agent::retire(rules, case, state),
            Action::MarkAgain => agent::mark_again(rules, state),
            Action::Quiesced => agent::quiesced(rules, state),
            Action::SweepStarts => agent::sweep_starts(rules, case, state),
            Action::SweepLooks => !is_locked && agent::sweep_looks(rules, case, state),
            Action::SweepRemoves => agent::sweep_removes(rules, state),
            Action::ReleaseSender => agent::release_sender(state),
            Action::AgentDies => agent::die(state),
            Action::TakeBack => agent::take_back(state),
        };
        (taken && after != *before).then_some(after)
    }

    /// Whether the case has such steps at all.
    fn can_ever_be(&self, action: Action) -> bool {
        let case = &self.case;
        let drains = case.detaches > 0 || case.retires;
        let blocks = |file: File| file.blocks || file.changes > 0;
        match action {
            Action::SendInTwo => case.last_bytes,
            Action::ReaderGoesOn(who) => who < usize::from(case.readers),
            Action::EpollAgain(who) => {
                who < usize::from(case.readers) && case.reads == Reads::EdgeTriggered
            }
            Action::DeliverAgain => case.comes_again > 0,
            Action::Put | Action::PutAside | Action::Backlog => case.memory_fails,
            Action::HalfClose | Action::AcknowledgeHalfClose => case.half_close != HalfClose::Never,
            Action::ReaderChanges => case.reader.changes > 0,
            Action::SenderChanges => case.sender.changes > 0,
            Action::ReaderPacket => blocks(case.reader),
            Action::SenderPacket => blocks(case.sender),
            Action::Reset => case.resets,
            Action::Detach | Action::TakeBack => case.detaches > 0,
            Action::Retire | Action::MarkAgain => case.retires,
            Action::Quiesced
            | Action::SweepStarts
            | Action::SweepLooks
            | Action::SweepRemoves
            | Action::ReleaseSender
            | Action::AgentDies => drains,
            _ => true,
        }
    }

    fn enrol_reader(&self, state: &mut State) -> bool {
        if self.case.enrolment.is_late() {
            return bpf::adopt_reader(self.rules, &self.case, state);
        }
        let is_first = !state.to.tried;
        if is_first {
            bpf::enrol_reader(self.rules, &self.case, state);
        }
        is_first
    }

    fn enrol_sender(&self, state: &mut State) -> bool {
        if self.case.enrolment.is_late() {
            return bpf::adopt_sender(self.rules, &self.case, state);
        }
        let is_first = !state.from.tried;
        if is_first {
            bpf::enrol_sender(self.rules, &self.case, state);
        }
        is_first
    }

    fn reset(&self, state: &mut State, is_locked: bool) -> bool {
        let may = self.case.resets && matches!(state.end, End::Open | End::Sent) && !is_locked;
        if may {
            tcp::reset(state);
        }
        may
    }

    fn half_close(&self, state: &mut State) -> bool {
        let is_quiet = state.psock_queue.is_empty() && !state.sender.is_between() && state.paired;
        let may = match self.case.half_close {
            HalfClose::Never => false,
            HalfClose::AtRest => is_quiet && !state.readers[0].is_in_call(),
            HalfClose::BetweenReads => !state.readers[0].is_in_call(),
            HalfClose::AnyTime => true,
        };
        if !may || state.own_fin != OwnFin::None || !state.to.accepted {
            return false;
        }
        state.own_fin = OwnFin::Sent;
        bpf::leave_if_unfit(self.rules, state);
        true
    }

    /// A program that accepts gets its socket after the handshake.
    fn read(&self, state: &mut State, who: usize, is_locked: bool) -> bool {
        who < state.readers.len()
            && state.to.accepted
            && reader::go_on(self.rules, &self.case, state, who, is_locked)
    }

    fn epoll_again(&self, state: &mut State, who: usize) -> bool {
        let may = state.edge
            && self.case.reads == Reads::EdgeTriggered
            && state.readers.get(who) == Some(&Reader::Told);
        if may {
            reader::epoll_wait(state, who);
        }
        may
    }

    /// A program that begins to wait for edges is told what is there already.
    fn reader_changes(&self, state: &mut State) -> bool {
        let is_in_call = state.readers.iter().any(|reader| reader.is_in_call());
        let is_free = !is_in_call || self.case.changes_beside_calls;
        let may = state.to.accepted && is_free && state.to.changes < self.case.reader.changes;
        if may {
            state.to.changes += 1;
            state.to.file_blocks = !state.to.file_blocks;
            state.is_listed |= state.to.file_blocks && state.to.maps.socks;
            state.edge |= !state.to.file_blocks && state.is_readable();
        }
        may
    }

    fn sender_changes(&self, state: &mut State) -> bool {
        let may = state.from.accepted && state.from.changes < self.case.sender.changes;
        if may {
            state.from.changes += 1;
            state.from.file_blocks = !state.from.file_blocks;
        }
        may
    }

    fn is_stuck(&self, state: &State) -> bool {
        let is_reader_done = |reader: &Reader| *reader == Reader::Done;
        // One edge goes to one thread, that of the end as well.
        let is_done = match self.case.reads {
            Reads::LevelTriggered => state.readers.iter().all(is_reader_done),
            Reads::EdgeTriggered => state.readers.iter().any(is_reader_done),
        };
        let can_go_on = || {
            Action::ALL
                .iter()
                .filter(|action| self.can_ever_be(**action) && action.is_sure(self.case.enrolment))
                .any(|action| self.step(state, *action).is_some())
        };
        state.fault.is_none() && !is_done && !can_go_on()
    }

    fn is_over_limit(&self, state: &State) -> bool {
        let is_redirected = |piece: &&Piece| matches!(piece, Piece::Redirected(_));
        let waiting = state.psock_queue.iter().filter(is_redirected).count();
        let excess = if self.case.last_bytes { bpf::EXCESS } else { 0 };
        // The message that was let in last may be the one too many.
        waiting > usize::from(self.case.queue_limit) + excess + 1
    }
}

/// `accept`, after the handshake.
fn accept(state: &mut State) -> bool {
    let may_reader = state.to.tried && !state.to.accepted;
    let may_sender = state.from.tried && !state.from.accepted;
    if may_reader {
        state.to.accepted = true;
        state.edge = state.is_readable();
    }
    state.from.accepted |= may_sender;
    may_reader || may_sender
}

impl Model for Machine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut first = State::first(&self.case);
        match self.case.enrolment {
            Enrolments::SenderConnects => bpf::enrol_sender(self.rules, &self.case, &mut first),
            Enrolments::ReaderConnects => bpf::enrol_reader(self.rules, &self.case, &mut first),
            Enrolments::SenderAdopted | Enrolments::ReaderAdopted => {}
        }
        vec![first]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_none() {
            let can_be = |action: &&Action| self.can_ever_be(**action);
            actions.extend(Action::ALL.iter().filter(can_be));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        self.step(before, action)
    }

    fn properties(&self) -> Vec<Checked<Self>> {
        vec![
            Checked::always(Property::InOrder.name(), |_, s: &State| {
                s.fault != Some(Fault::OutOfOrder)
            }),
            Checked::always(Property::NothingLost.name(), |_, s: &State| {
                s.fault != Some(Fault::Lost)
            }),
            Checked::always(Property::NoCallFails.name(), |_, s: &State| {
                s.fault != Some(Fault::CallFailed)
            }),
            Checked::always(Property::NoHang.name(), |m: &Self, s| !m.is_stuck(s)),
            Checked::always(Property::Bounded.name(), |m: &Self, s| !m.is_over_limit(s)),
            Checked::sometimes(Self::RETURNS, |_, s: &State| {
                s.sender.redirects() && s.write_seq > 0
            }),
            Checked::sometimes(Self::LEAVE, |_, s: &State| {
                s.said && s.from.maps.count() == 0 && s.to.maps.count() == 0
            }),
        ]
    }
}
