//! The steps of the model, and how a counterexample tells them.

use std::fmt;

use crate::case::Enrolments;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The reader's socket enters the maps.
    EnrolReader,
    /// The sender's socket enters the maps, late.
    EnrolSender,
    /// `send` up to its verdict.
    Send,
    /// The sending thread goes on.
    SenderGoesOn,
    /// The sender ends its stream.
    ShutDown,
    /// A segment arrives.
    Deliver,
    /// An acknowledgement arrives.
    Acknowledge,
    /// The sender resets the connection.
    Reset,
    /// The reader's side calls `shutdown(SHUT_WR)`.
    HalfClose,
    /// That FIN is acknowledged.
    AcknowledgeHalfClose,
    /// A reading thread goes on.
    ReaderGoesOn(usize),
    /// `epoll_wait` again, before reading.
    EpollAgain(usize),
    /// Beeline wakes the reader again.
    Ring,
    /// `beeline detach` begins.
    Detach,
    /// `beeline retire` begins: the ends that exist are marked.
    Retire,
    /// It marks an end that was enrolled since.
    MarkAgain,
    /// It saw the sender at rest.
    Quiesced,
    /// It takes the reader's socket out of the maps.
    ReleaseReader,
    /// It takes the sender's socket out of the maps.
    ReleaseSender,
    /// It is killed.
    AgentDies,
    /// `beeline run` takes the datapath over.
    TakeBack,
}

impl Action {
    /// Whether the step is sure to be taken some time. What programs, administrators and the agent
    /// may or may not do is not.
    pub(crate) fn is_sure(self, enrolment: Enrolments) -> bool {
        match self {
            Self::EnrolReader | Self::EnrolSender => !enrolment.is_late(),
            Self::Send
            | Self::SenderGoesOn
            | Self::ShutDown
            | Self::Deliver
            | Self::Acknowledge
            | Self::AcknowledgeHalfClose
            | Self::ReaderGoesOn(_)
            | Self::Ring => true,
            Self::Reset
            | Self::HalfClose
            | Self::EpollAgain(_)
            | Self::Detach
            | Self::Retire
            | Self::MarkAgain
            | Self::Quiesced
            | Self::ReleaseReader
            | Self::ReleaseSender
            | Self::AgentDies
            | Self::TakeBack => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::EnrolReader => "reader's socket is enrolled",
            Self::EnrolSender => "sender's socket is enrolled",
            Self::Send => "send()",
            Self::SenderGoesOn => "sender goes on",
            Self::ShutDown => "sender: shutdown()",
            Self::Deliver => "segment arrives",
            Self::Acknowledge => "acknowledgement arrives",
            Self::Reset => "RST arrives",
            Self::HalfClose => "reader's side: shutdown(SHUT_WR)",
            Self::AcknowledgeHalfClose => "its FIN is acknowledged",
            Self::ReaderGoesOn(0) => "reader goes on",
            Self::ReaderGoesOn(_) => "second reader goes on",
            Self::EpollAgain(_) => "reader: epoll_wait() again",
            Self::Ring => "Beeline wakes the reader",
            Self::Detach => "detach begins",
            Self::Retire => "retire begins",
            Self::MarkAgain => "retire marks the sender's socket",
            Self::Quiesced => "agent saw the sender at rest",
            Self::ReleaseReader => "agent releases the reader's socket",
            Self::ReleaseSender => "agent releases the sender's socket",
            Self::AgentDies => "agent is killed",
            Self::TakeBack => "beeline run takes over",
        };
        f.write_str(text)
    }
}
