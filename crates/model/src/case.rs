//! What programs and administrators do in one run of the model, and its bounds.

/// How the reading program reads while its socket does not block. While it does, it reads with
/// blocking calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Whenever `poll` says that there is something.
    LevelTriggered,
    /// After an edge of `epoll`, until a read returns less than was asked for. Once it was told
    /// `EPOLLRDHUP`, it reads until end of file; plain TCP would strand it otherwise.
    EdgeTriggered,
}

/// The O_NONBLOCK of a socket's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Whether it blocks at first: from `accept` on, for an end that is accepted.
    pub blocks: bool,
    /// How often the program may change that, at any moment.
    pub changes: u8,
}

impl File {
    /// With O_NONBLOCK all the time.
    pub const NEVER_BLOCKS: Self = Self {
        blocks: false,
        changes: 0,
    };
    /// It blocks all the time.
    pub const BLOCKS: Self = Self {
        blocks: true,
        changes: 0,
    };
    /// It blocks at first, and may be made not to.
    pub const BLOCKS_AT_FIRST: Self = Self {
        blocks: true,
        changes: 1,
    };
    /// It may come to block.
    pub const BLOCKS_LATER: Self = Self {
        blocks: false,
        changes: 1,
    };
    /// It may come to block, and then not to.
    pub const BLOCKS_FOR_A_WHILE: Self = Self {
        blocks: false,
        changes: 2,
    };
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
    /// The sender, then the reader, by `adopt.bpf.c` while their programs use the sockets.
    SenderAdopted,
    /// The reader, then the sender, likewise.
    ReaderAdopted,
}

impl Enrolments {
    pub(crate) fn is_late(self) -> bool {
        matches!(self, Self::SenderAdopted | Self::ReaderAdopted)
    }

    pub(crate) fn reader_is_client(self) -> bool {
        matches!(self, Self::ReaderConnects | Self::ReaderAdopted)
    }
}

/// What may happen, at any moment and in any order.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// How the reader reads.
    pub reads: Reads,
    /// Threads that read; one or two.
    pub readers: u8,
    /// The reader's file.
    pub reader: File,
    /// The sender's file.
    pub sender: File,
    /// Whether another thread changes the reader's file, while one is in a call.
    pub changes_beside_calls: bool,
    /// Who is enrolled when.
    pub enrolment: Enrolments,
    /// Who half-closes the reader's socket.
    pub half_close: HalfClose,
    /// How often an administrator may detach; the agent may die at every step, and be started anew.
    pub detaches: u8,
    /// Whether the connection is retired some time, by an agent that may die as well.
    pub retires: bool,
    /// Whether a thread of the agent that waits for a socket's lock may outlive the agent.
    pub sweep_outlives: bool,
    /// Whether what the lock does not cover may happen between looks of `may_leave` and the removal.
    pub slow_looks: bool,
    /// Whether the kernel may lack the memory to queue a segment at once.
    pub memory_fails: bool,
    /// How many segments may arrive as one with the last, which comes again.
    pub comes_again: u8,
    /// Whether the sender may reset the connection.
    pub resets: bool,
    /// Whether messages that find the queue full may be redirected but for their last byte.
    pub last_bytes: bool,
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

impl Case {
    /// Enrolled at the handshake, read by one thread that waits for edges; nothing else happens.
    pub const PLAIN: Self = Self {
        reads: Reads::EdgeTriggered,
        readers: 1,
        reader: File::NEVER_BLOCKS,
        sender: File::NEVER_BLOCKS,
        changes_beside_calls: false,
        enrolment: Enrolments::SenderConnects,
        half_close: HalfClose::Never,
        detaches: 0,
        retires: false,
        sweep_outlives: false,
        slow_looks: false,
        memory_fails: false,
        comes_again: 0,
        resets: false,
        last_bytes: false,
        waits_for_answer: false,
        shuts_down_while_sending: false,
        messages: 4,
        queue_limit: 1,
        window: 2,
        buffer: 2,
    };
}

impl Default for Case {
    fn default() -> Self {
        Self::PLAIN
    }
}
