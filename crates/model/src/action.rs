//! The steps of the model, and how a counterexample tells them.

use std::fmt;

use crate::case::Enrolments;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The reader's socket enters the maps.
    EnrolReader,
    /// The sender's socket enters the maps.
    EnrolSender,
    /// `accept` returns the socket that did not connect.
    Accept,
    /// `send` up to its verdict.
    Send,
    /// The same of a message whose last byte would make the sender wait if the queue is full.
    SendInTwo,
    /// The sending thread goes on.
    SenderGoesOn,
    /// The sender ends its stream.
    ShutDown,
    /// A segment arrives.
    Deliver,
    /// A segment arrives together with the last one, which comes again.
    DeliverAgain,
    /// What the softirq has in hand goes to the psock queue.
    Put,
    /// There is no memory for that: it goes to `ingress_skb`.
    PutAside,
    /// `sk_psock_backlog` goes on.
    Backlog,
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
    /// The reader's program changes O_NONBLOCK.
    ReaderChanges,
    /// The sender's program changes O_NONBLOCK.
    SenderChanges,
    /// The reader's socket sends a packet.
    ReaderPacket,
    /// The sender's socket sends a packet.
    SenderPacket,
    /// `beeline detach` begins.
    Detach,
    /// `beeline retire` begins: the ends that exist are marked.
    Retire,
    /// It marks an end that was enrolled since.
    MarkAgain,
    /// It saw the sender at rest.
    Quiesced,
    /// A thread of it goes for the lock of the reader's socket.
    SweepStarts,
    /// It has the lock, and looks.
    SweepLooks,
    /// It takes the reader's socket out of the maps.
    SweepRemoves,
    /// It takes the sender's socket out of the maps.
    ReleaseSender,
    /// It is killed.
    AgentDies,
    /// `beeline run` takes the datapath over.
    TakeBack,
}

impl Action {
    /// Every step.
    pub(crate) const ALL: &'static [Self] = &[
        Self::EnrolReader,
        Self::EnrolSender,
        Self::Accept,
        Self::Send,
        Self::SendInTwo,
        Self::SenderGoesOn,
        Self::ShutDown,
        Self::Deliver,
        Self::DeliverAgain,
        Self::Put,
        Self::PutAside,
        Self::Backlog,
        Self::Reset,
        Self::HalfClose,
        Self::AcknowledgeHalfClose,
        Self::ReaderGoesOn(0),
        Self::ReaderGoesOn(1),
        Self::EpollAgain(0),
        Self::EpollAgain(1),
        Self::ReaderChanges,
        Self::SenderChanges,
        Self::ReaderPacket,
        Self::SenderPacket,
        Self::Detach,
        Self::Retire,
        Self::MarkAgain,
        Self::Quiesced,
        Self::SweepStarts,
        Self::SweepLooks,
        Self::SweepRemoves,
        Self::ReleaseSender,
        Self::AgentDies,
        Self::TakeBack,
    ];

    /// Whether the step is sure to be taken some time. What programs, administrators and the agent
    /// may or may not do is not.
    pub(crate) fn is_sure(self, enrolment: Enrolments) -> bool {
        match self {
            Self::EnrolReader | Self::EnrolSender => !enrolment.is_late(),
            Self::Accept
            | Self::Send
            | Self::SenderGoesOn
            | Self::ShutDown
            | Self::Deliver
            | Self::Put
            | Self::Backlog
            | Self::AcknowledgeHalfClose
            | Self::ReaderGoesOn(_)
            | Self::SweepRemoves => true,
            Self::SendInTwo
            | Self::DeliverAgain
            | Self::PutAside
            | Self::Reset
            | Self::HalfClose
            | Self::EpollAgain(_)
            | Self::ReaderChanges
            | Self::SenderChanges
            | Self::ReaderPacket
            | Self::SenderPacket
            | Self::Detach
            | Self::Retire
            | Self::MarkAgain
            | Self::Quiesced
            | Self::SweepStarts
            | Self::SweepLooks
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
            Self::Accept => "accept() returns",
            Self::Send => "send()",
            Self::SendInTwo => "send() of a message that may be taken in two",
            Self::SenderGoesOn => "sender goes on",
            Self::ShutDown => "sender: shutdown()",
            Self::Deliver => "segment arrives",
            Self::DeliverAgain => "segment arrives, the last one again with it",
            Self::Put => "it is queued",
            Self::PutAside => "it is put aside for want of memory",
            Self::Backlog => "backlog goes on",
            Self::Reset => "RST arrives",
            Self::HalfClose => "reader's side: shutdown(SHUT_WR)",
            Self::AcknowledgeHalfClose => "its FIN is acknowledged",
            Self::ReaderGoesOn(0) => "reader goes on",
            Self::ReaderGoesOn(_) => "second reader goes on",
            Self::EpollAgain(_) => "reader: epoll_wait() again",
            Self::ReaderChanges => "reader: fcntl(O_NONBLOCK)",
            Self::SenderChanges => "sender: fcntl(O_NONBLOCK)",
            Self::ReaderPacket => "reader's socket sends a packet",
            Self::SenderPacket => "sender's socket sends a packet",
            Self::Detach => "detach begins",
            Self::Retire => "retire begins",
            Self::MarkAgain => "retire marks again",
            Self::Quiesced => "agent saw the sender at rest",
            Self::SweepStarts => "agent goes for the reader's lock",
            Self::SweepLooks => "agent releases the reader's socket",
            Self::SweepRemoves => "agent removes the reader's socket",
            Self::ReleaseSender => "agent releases the sender's socket",
            Self::AgentDies => "agent is killed",
            Self::TakeBack => "beeline run takes over",
        };
        f.write_str(text)
    }
}
