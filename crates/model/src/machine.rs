//! The state machine for stateright: which steps can be taken, and what must hold after each.

use stateright::{Model, Property as Checked};

use crate::action::Action;
use crate::case::{Case, Enrolments, HalfClose, Reads};
use crate::report::Property;
use crate::rules::{Rule, Rules};
use crate::state::{End, Fault, OwnFin, Reader, State, Tx};
use crate::{agent, bpf, reader, sender, tcp};

/// One case under one set of rules.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub(crate) case: Case,
    pub(crate) rules: Rules,
}

const STEPS: &[Action] = &[
    Action::EnrolReader,
    Action::EnrolSender,
    Action::Send,
    Action::SenderGoesOn,
    Action::ShutDown,
    Action::Deliver,
    Action::Acknowledge,
    Action::Reset,
    Action::HalfClose,
    Action::AcknowledgeHalfClose,
    Action::ReaderGoesOn(0),
    Action::ReaderGoesOn(1),
    Action::EpollAgain(0),
    Action::EpollAgain(1),
    Action::Ring,
    Action::Detach,
    Action::Retire,
    Action::MarkAgain,
    Action::Quiesced,
    Action::ReleaseReader,
    Action::ReleaseSender,
    Action::AgentDies,
    Action::TakeBack,
];

impl Machine {
    /// Not a promise, but what makes the promises worth something.
    pub(crate) const RETURNS: &str = "a direction returns from the kernel path";

    /// The state after the step, if it can be taken.
    fn step(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let taken = match action {
            Action::EnrolReader => self.enrol_reader(&mut state),
            Action::EnrolSender => self.enrol_sender(&mut state),
            Action::Send => (self.sender_runs(&state) && sender::may_send(&self.case, &state))
                .then(|| sender::send(self.rules, &self.case, &mut state))
                .is_some(),
            Action::SenderGoesOn => sender::go_on(&self.case, &mut state),
            Action::ShutDown => sender::may_shut_down(&self.case, &state)
                .then(|| state.end = End::Sent)
                .is_some(),
            Action::Deliver => tcp::deliver(&mut state),
            Action::Acknowledge => tcp::acknowledge(&mut state),
            Action::Reset => (self.case.resets && matches!(state.end, End::Open | End::Sent))
                .then(|| tcp::reset(&mut state))
                .is_some(),
            Action::HalfClose => self.half_close(&mut state),
            Action::AcknowledgeHalfClose => tcp::acknowledge_own_fin(&mut state),
            Action::ReaderGoesOn(who) => self.read(&mut state, who),
            Action::EpollAgain(who) => self.epoll_again(&mut state, who),
            Action::Ring => self.ring(&mut state),
            Action::Detach => agent::may_detach(&self.case, &state)
                .then(|| agent::detach(&mut state))
                .is_some(),
            Action::Retire => agent::may_retire(&self.case, &state)
                .then(|| agent::retire(&mut state))
                .is_some(),
            Action::MarkAgain => agent::mark_again(&mut state),
            Action::Quiesced => agent::quiesced(self.rules, &mut state),
            Action::ReleaseReader => agent::release_reader(self.rules, &mut state),
            Action::ReleaseSender => agent::release_sender(&mut state),
            Action::AgentDies => agent::die(&mut state),
            Action::TakeBack => agent::take_back(&mut state),
        };
        taken.then_some(state)
    }

    fn enrol_reader(&self, state: &mut State) -> bool {
        let may = bpf::may_enrol_reader(self.rules, state);
        if may {
            bpf::enrol_reader(self.rules, &self.case, state);
        }
        may
    }

    fn enrol_sender(&self, state: &mut State) -> bool {
        let is_first = !state.tried.sender;
        if is_first {
            bpf::enrol_sender(self.rules, &self.case, state);
        }
        is_first
    }

    fn half_close(&self, state: &mut State) -> bool {
        let is_quiet = state.psock_queue.is_empty()
            && !state.sender.is_between()
            && state.enrolment.sender == state.enrolment.socks;
        let may = match self.case.half_close {
            HalfClose::Never => false,
            HalfClose::AtRest => is_quiet && state.readers[0] == Reader::Outside,
            HalfClose::BetweenReads => state.readers[0] == Reader::Outside,
            HalfClose::AnyTime => true,
        };
        if !may || state.own_fin != OwnFin::None || !self.reader_runs(state) {
            return false;
        }
        state.own_fin = OwnFin::Sent;
        if self.case.reads.blocks() {
            bpf::half_closed(self.rules, state);
        }
        true
    }

    /// A program that accepts gets its socket after the handshake.
    fn reader_runs(&self, state: &State) -> bool {
        self.case.enrolment.is_late() || state.tried.reader
    }

    fn sender_runs(&self, state: &State) -> bool {
        self.case.enrolment.is_late() || state.tried.sender
    }

    fn read(&self, state: &mut State, who: usize) -> bool {
        who < state.readers.len()
            && self.reader_runs(state)
            && reader::go_on(&self.case, state, who)
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

    fn ring(&self, state: &mut State) -> bool {
        let may =
            self.rules.has(Rule::RingAfterQueue) && state.owes_ring && state.psock_queue.is_empty();
        if may {
            state.owes_ring = false;
            if state.is_native_readable() {
                state.wake();
            }
        }
        may
    }

    fn is_stuck(&self, state: &State) -> bool {
        let is_done = state.readers.iter().all(|r| *r == Reader::Done);
        let can_go_on = || {
            STEPS
                .iter()
                .filter(|action| action.is_sure(self.case.enrolment))
                .any(|action| self.step(state, *action).is_some())
        };
        state.fault.is_none() && !is_done && !can_go_on()
    }

    fn is_over_limit(&self, state: &State) -> bool {
        // The message that was let in last may be the one too many.
        state.psock_queue.len() > usize::from(self.case.queue_limit) + 1
    }
}

impl Model for Machine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut first = State::first(self.case.readers);
        match self.case.enrolment {
            Enrolments::SenderConnects | Enrolments::ReaderLate => {
                first.enrolment.sender = true;
                first.tried.sender = true;
            }
            Enrolments::ReaderConnects => bpf::enrol_reader(self.rules, &self.case, &mut first),
            Enrolments::BothLate => {}
        }
        vec![first]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_none() {
            actions.extend(STEPS);
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
                s.tx == Tx::Redirect && s.write_seq > 0
            }),
        ]
    }
}
