//! Everything that the protocol depends on, at one moment.

use crate::case::Case;

/// A byte of the stream, by its place in it. The model's messages are one byte long.
pub(crate) type Byte = u8;

/// What stands in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Piece {
    Redirected(Byte),
    Segment(Byte),
    /// A byte that came before, at the head of the segment that follows.
    Again(Byte),
    Fin,
}

/// `enum tx_path`, with `tx_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Tx {
    Start,
    Redirect,
    Kernel(Reason),
}

/// `enum reason`, those of directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    PeerLate,
    PeerGone,
    Blocking,
    QueueFull,
    Retired,
}

/// Where the sending thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sender {
    AtRest,
    /// The first redirect of a direction: it has said so in `struct conn`, and looks for the target next.
    Begins {
        byte: Byte,
        is_head: bool,
    },
    /// The verdict was "redirect": in `tcp_bpf_send_verdict`, own lock released. After a head, the last
    /// byte of the message is left.
    Verdict {
        byte: Byte,
        is_head: bool,
    },
    /// In `bpf_tcp_ingress`: holds the target's psock, waits for the target's lock.
    Ingress {
        byte: Byte,
        is_head: bool,
    },
    /// In `tcp_bpf_send_verdict`, about to take its own lock again for the last byte.
    HasRest,
    /// On the kernel path, in a blocking call that sleeps until TCP has room.
    WaitsForRoom {
        byte: Byte,
        holds_psock: bool,
    },
}

impl Sender {
    /// The verdict was "redirect".
    pub(crate) fn redirects(self) -> bool {
        matches!(
            self,
            Self::Verdict { .. } | Self::Ingress { .. } | Self::HasRest
        )
    }

    /// The message, or the rest of it, is in neither queue.
    pub(crate) fn is_between(self) -> bool {
        self.redirects() || matches!(self, Self::Begins { .. })
    }

    /// It holds the psock of its own socket.
    pub(crate) fn is_inside(self) -> bool {
        let waits_inside = matches!(self, Self::WaitsForRoom { holds_psock, .. } if holds_psock);
        self.is_between() || waits_inside
    }

    pub(crate) fn sleeps(self) -> bool {
        matches!(self, Self::WaitsForRoom { .. })
    }
}

/// The end of the sender's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Open,
    /// The FIN is on its way.
    Sent,
    /// It came.
    Arrived,
    /// An RST came.
    Reset,
}

impl End {
    /// `sk_shutdown & RCV_SHUTDOWN` at the reader.
    pub(crate) fn is_rcv_shutdown(self) -> bool {
        matches!(self, Self::Arrived | Self::Reset)
    }
}

/// Where a reading thread is; `waits` if its call may sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    /// Between two calls. Non-blocking: in `epoll_wait`, told nothing.
    Outside,
    /// `epoll_wait` told it to read.
    Told,
    /// In `tcp_bpf_recvmsg_parser`, about to take the lock; holds the psock.
    InBpf { waits: bool },
    /// In `tcp_recvmsg`, about to take the lock.
    InNative { waits: bool },
    /// In `tcp_msg_wait_data`; holds the psock.
    SleepsInBpf { woken: bool },
    /// In `sk_wait_data`.
    SleepsInNative { woken: bool },
    /// Got end of file or an error.
    Done,
}

impl Reader {
    pub(crate) fn holds_psock(self) -> bool {
        matches!(self, Self::InBpf { .. } | Self::SleepsInBpf { .. })
    }

    pub(crate) fn sleeps(self) -> bool {
        matches!(self, Self::SleepsInBpf { .. } | Self::SleepsInNative { .. })
    }

    pub(crate) fn is_in_call(self) -> bool {
        !matches!(self, Self::Outside | Self::Told | Self::Done)
    }
}

/// The reader's `shutdown(SHUT_WR)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum OwnFin {
    None,
    Sent,
    Acknowledged,
}

/// `enum mode`; "off" is an instance that never enrolled anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    On,
    Detaching,
}

/// The process that detaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Agent {
    /// None, or one that was killed.
    Absent,
    /// `quiesce.rs`: the sender was not yet seen at rest.
    Quiesces,
    /// `drain.rs`: releases what it can.
    Releases,
}

/// The run of `release.bpf.c` over the reader's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sweep {
    None,
    /// The socket is chosen; the thread waits for its lock.
    Started,
    /// The first half of `may_leave` said yes.
    Looked,
}

/// What no program would see with plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    OutOfOrder,
    /// A reader got end of file before all that was sent.
    Lost,
    /// EPIPE to a sender whose peer still reads, or EAGAIN to a blocking reader.
    CallFailed,
}

/// The maps that hold a socket, each with a reference to its psock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Maps {
    pub(crate) socks: bool,
    pub(crate) targets: bool,
}

impl Maps {
    pub(crate) const BOTH: Self = Self {
        socks: true,
        targets: true,
    };

    pub(crate) fn count(self) -> i8 {
        i8::from(self.socks) + i8::from(self.targets)
    }
}

/// One end: its maps, whether its time to be enrolled came, and its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Socket {
    pub(crate) maps: Maps,
    pub(crate) tried: bool,
    /// It has a file: it was not made by `accept`, or `accept` returned it.
    pub(crate) accepted: bool,
    pub(crate) file_blocks: bool,
    pub(crate) changes: u8,
}

impl Socket {
    /// `is_blocking`
    pub(crate) fn blocks(self) -> bool {
        self.accepted && self.file_blocks
    }
}

/// A moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The reader's end, and the sender's.
    pub(crate) to: Socket,
    pub(crate) from: Socket,
    /// The addresses of both sockets are in `conns`.
    pub(crate) paired: bool,
    pub(crate) tx: Tx,
    /// `SIDE_REDIRECTS` of the sender's end.
    pub(crate) said: bool,
    /// `SIDE_SETTLED`.
    pub(crate) settled: bool,
    pub(crate) sender: Sender,
    /// Messages that `send` took.
    pub(crate) sent: Byte,
    /// Bytes that took the kernel path.
    pub(crate) write_seq: u8,
    pub(crate) flight: Vec<Piece>,
    pub(crate) end: End,
    /// The reader's `rcv_nxt`: the byte after the last one that a segment brought.
    pub(crate) arrived: Byte,
    /// `struct expected`, of a socket that has one.
    pub(crate) expected: Option<Byte>,
    /// How many segments came together with one that came before.
    pub(crate) came_again: u8,
    /// TCP's receive queue: one buffer, whose first bytes may have been read.
    pub(crate) receive_queue: Vec<Piece>,
    pub(crate) copied: usize,
    /// Taken from the receive queue, and not queued yet: the softirq has the reader's lock.
    pub(crate) in_hand: Vec<Piece>,
    /// What there was no memory for; the first of it is in the psock queue as well when
    /// `sk_psock_backlog` is about to take it out here.
    pub(crate) ingress_skb: Vec<Piece>,
    pub(crate) backlog_queued: bool,
    pub(crate) psock_queue: Vec<Piece>,
    pub(crate) readers: Vec<Reader>,
    /// Bytes that the readers got.
    pub(crate) read: Byte,
    /// An edge that `epoll_wait` has not reported yet.
    pub(crate) edge: bool,
    /// `epoll_wait` reported `EPOLLRDHUP`.
    pub(crate) told_end: bool,
    pub(crate) own_fin: OwnFin,
    /// The reader's socket came to block when it was enrolled: docs/semantics.md lists what follows.
    pub(crate) is_listed: bool,
    pub(crate) mode: Mode,
    pub(crate) agent: Agent,
    pub(crate) sweep: Sweep,
    /// `Rule::TargetsFirst`: this agent took the reader's socket out of `targets`, and then waited.
    pub(crate) untargeted: bool,
    pub(crate) detaches: u8,
    /// `retire` was called.
    pub(crate) retires: bool,
    /// The mark in the sender's `struct end`.
    pub(crate) retiring: bool,
    pub(crate) fault: Option<Fault>,
}

impl State {
    /// Before anything was enrolled or sent.
    pub(crate) fn first(case: &Case) -> Self {
        let late = case.enrolment.is_late();
        let reader_is_client = case.enrolment.reader_is_client();
        Self {
            to: Socket {
                accepted: late || reader_is_client,
                file_blocks: case.reader.blocks,
                ..Socket::default()
            },
            from: Socket {
                accepted: late || !reader_is_client,
                file_blocks: case.sender.blocks,
                ..Socket::default()
            },
            paired: false,
            tx: Tx::Start,
            said: false,
            settled: false,
            sender: Sender::AtRest,
            sent: 0,
            write_seq: 0,
            flight: Vec::new(),
            end: End::Open,
            arrived: 0,
            expected: None,
            came_again: 0,
            receive_queue: Vec::new(),
            copied: 0,
            in_hand: Vec::new(),
            ingress_skb: Vec::new(),
            backlog_queued: false,
            psock_queue: Vec::new(),
            readers: vec![Reader::Outside; usize::from(case.readers)],
            read: 0,
            edge: false,
            told_end: false,
            own_fin: OwnFin::None,
            is_listed: false,
            mode: Mode::On,
            agent: Agent::Absent,
            sweep: Sweep::None,
            untargeted: false,
            detaches: 0,
            retires: false,
            retiring: false,
            fault: None,
        }
    }

    /// `sk_data_ready`, `sk_state_change`: wakes whoever sleeps at the reader's socket.
    pub(crate) fn wake(&mut self) {
        self.edge = true;
        for reader in &mut self.readers {
            match reader {
                Reader::SleepsInBpf { woken } | Reader::SleepsInNative { woken } => {
                    *woken = true;
                }
                _ => {}
            }
        }
    }

    /// `msg_tot_len`: a FIN is of no length.
    pub(crate) fn unread(&self) -> usize {
        self.psock_queue
            .iter()
            .filter(|piece| **piece != Piece::Fin)
            .count()
    }

    /// What `poll` says.
    pub(crate) fn is_readable(&self) -> bool {
        let is_empty = self.psock_queue.is_empty() && self.receive_queue.is_empty();
        !is_empty || self.end.is_rcv_shutdown()
    }
}
