//! What programs and administrators do in one run of the model, and its bounds.

/// How the reading program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Blocking calls.
    Blocking,
    /// Blocking calls with `MSG_WAITALL` for a whole buffer.
    WaitAll,
    /// Non-blocking calls whenever `poll` says that there is something.
    LevelTriggered,
    /// Non-blocking calls after an edge of `epoll`, until one returns less than was asked for. Once
    /// it was told `EPOLLRDHUP`, it reads until end of file; plain TCP would strand it otherwise.
    EdgeTriggered,
}

impl Reads {
    pub(crate) fn blocks(self) -> bool {
        matches!(self, Self::Blocking | Self::WaitAll)
    }
}

/// Who calls `shutdown(SHUT_WR)` on the reader's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// Nobody.
    Never,
    /// The reading thread, between two reads, when nothing is queued or on its way.
    AtRest,
    /// The reading thread, between any two reads.
    BetweenReads,
    /// Another thread, at any moment.
    AnyTime,
}

/// Who is enrolled when. The one that connects always comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolments {
    /// The sender, then the reader, before its program gets the socket from `accept`.
    SenderConnects,
    /// The reader, then the sender, before its program gets the socket from `accept`.
    ReaderConnects,
    /// The sender; the reader at any moment later, or never, while its program uses the socket.
    ReaderLate,
    /// Both at any moment, or never, while their programs use the sockets.
    BothLate,
}

impl Enrolments {
    pub(crate) fn is_late(self) -> bool {
        matches!(self, Self::ReaderLate | Self::BothLate)
    }
}

/// What may happen, at any moment and in any order.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// How the reader reads.
    pub reads: Reads,
    /// Threads that read; one or two.
    pub readers: u8,
    /// Who is enrolled when.
    pub enrolment: Enrolments,
    /// Who half-closes the reader's socket.
    pub half_close: HalfClose,
    /// How often an administrator may detach; the agent may die at every step, and be started anew.
    pub detaches: u8,
    /// Whether the connection is retired some time, by an agent that may die as well.
    pub retires: bool,
    /// Whether the sender may reset the connection.
    pub resets: bool,
    /// Whether the sending program waits for an answer to all that it sent before it ends its stream.
    pub waits_for_answer: bool,
    /// Whether the sending program ends its stream while another of its threads still sends.
    pub shuts_down_while_sending: bool,
    /// Messages to send, of one byte each.
    pub messages: u8,
    /// Messages that may wait in the psock queue before the next takes the kernel path.
    pub queue_limit: u8,
    /// Messages that TCP takes before its sender has to wait for the reader.
    pub window: u8,
    /// Messages that fit into one read.
    pub buffer: u8,
}

impl Default for Case {
    /// Enrolled at the handshake, read by one blocking thread; nothing else happens.
    fn default() -> Self {
        Self {
            reads: Reads::Blocking,
            readers: 1,
            enrolment: Enrolments::SenderConnects,
            half_close: HalfClose::Never,
            detaches: 0,
            retires: false,
            resets: false,
            waits_for_answer: false,
            shuts_down_while_sending: false,
            messages: 4,
            queue_limit: 1,
            window: 2,
            buffer: 2,
        }
    }
}

impl Case {
    /// Whether a call of one thread may be in progress while another thread uses the reader's socket.
    pub(crate) fn is_shared(&self) -> bool {
        self.readers > 1 || self.half_close == HalfClose::AnyTime
    }
}
