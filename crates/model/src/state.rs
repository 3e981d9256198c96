//! Everything that the protocol depends on, at one moment.

/// A byte of the stream, by its place in it. The model's messages are one byte long.
pub(crate) type Byte = u8;

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
    QueueFull,
    Retired,
}

/// Where the sending thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Sender {
    AtRest,
    /// The verdict was "redirect": in `tcp_bpf_send_verdict`, own lock released.
    Verdict(Byte),
    /// In `bpf_tcp_ingress`: holds the target's psock, waits for the target's lock.
    Ingress(Byte),
    /// On the kernel path, asleep until TCP has room.
    WaitsForRoom(Byte),
}

impl Sender {
    /// The message is in neither queue.
    pub(crate) fn is_between(self) -> bool {
        matches!(self, Self::Verdict(_) | Self::Ingress(_))
    }
}

/// The end of the sender's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Open,
    /// The FIN is on its way.
    Sent,
    /// It is in the receive queue.
    Arrived,
    /// A reader took it from there.
    Read,
    /// An RST came.
    Reset,
}

impl End {
    /// `sk_shutdown & RCV_SHUTDOWN` at the reader.
    pub(crate) fn is_rcv_shutdown(self) -> bool {
        matches!(self, Self::Arrived | Self::Read | Self::Reset)
    }
}

/// Where a reading thread is. `got` counts what a `MSG_WAITALL` read already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    /// Between two calls. Non-blocking: in `epoll_wait`, told nothing.
    Outside,
    /// `epoll_wait` told it to read.
    Told,
    /// In `tcp_bpf_recvmsg`, about to take the lock; holds the psock.
    InBpf,
    /// In `tcp_recvmsg`, about to take the lock.
    InNative,
    /// In `tcp_msg_wait_data`; holds the psock.
    SleepsInBpf { woken: bool },
    /// In `sk_wait_data`.
    SleepsInNative { woken: bool, got: u8 },
    /// Got end of file or an error.
    Done,
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

/// What no program would see with plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    OutOfOrder,
    /// A reader got end of file before all that was sent.
    Lost,
    /// EPIPE to a sender whose peer still reads, or EAGAIN to a blocking reader.
    CallFailed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Enrolment {
    /// The sender's socket has a psock: its messages run `beeline_sk_msg`.
    pub(crate) sender: bool,
    /// The addresses of both sockets are in `conns`.
    pub(crate) paired: bool,
    /// The reader's socket is in `socks`: it has a psock.
    pub(crate) socks: bool,
    /// The reader's socket is in `targets`.
    pub(crate) targets: bool,
}

/// Whose handshake came to its end, whether its socket was enrolled then or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tried {
    pub(crate) sender: bool,
    pub(crate) reader: bool,
}

/// A moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) enrolment: Enrolment,
    pub(crate) tried: Tried,
    pub(crate) tx: Tx,
    pub(crate) sender: Sender,
    /// Messages for which `send` was called.
    pub(crate) sent: Byte,
    /// Bytes that took the kernel path: written, and acknowledged.
    pub(crate) write_seq: u8,
    pub(crate) snd_una: u8,
    pub(crate) flight: Vec<Byte>,
    pub(crate) end: End,
    pub(crate) receive_queue: Vec<Byte>,
    pub(crate) psock_queue: Vec<Byte>,
    pub(crate) readers: Vec<Reader>,
    /// Bytes that the readers got.
    pub(crate) read: Byte,
    /// An edge that `epoll_wait` has not reported yet.
    pub(crate) edge: bool,
    /// `epoll_wait` reported `EPOLLRDHUP`.
    pub(crate) told_end: bool,
    /// Native bytes came while redirected ones waited.
    pub(crate) owes_ring: bool,
    pub(crate) own_fin: OwnFin,
    pub(crate) mode: Mode,
    pub(crate) agent: Agent,
    pub(crate) detaches: u8,
    /// `retire` was called.
    pub(crate) retires: bool,
    /// The mark in the sender's `struct end`.
    pub(crate) retiring: bool,
    pub(crate) fault: Option<Fault>,
}

impl State {
    /// Before anything was enrolled or sent.
    pub(crate) fn first(readers: u8) -> Self {
        Self {
            enrolment: Enrolment {
                sender: false,
                paired: false,
                socks: false,
                targets: false,
            },
            tried: Tried {
                sender: false,
                reader: false,
            },
            tx: Tx::Start,
            sender: Sender::AtRest,
            sent: 0,
            write_seq: 0,
            snd_una: 0,
            flight: Vec::new(),
            end: End::Open,
            receive_queue: Vec::new(),
            psock_queue: Vec::new(),
            readers: vec![Reader::Outside; usize::from(readers)],
            read: 0,
            edge: false,
            told_end: false,
            owes_ring: false,
            own_fin: OwnFin::None,
            mode: Mode::On,
            agent: Agent::Absent,
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
                Reader::SleepsInBpf { woken } | Reader::SleepsInNative { woken, .. } => {
                    *woken = true;
                }
                _ => {}
            }
        }
    }

    /// `!skb_queue_empty(&sk->sk_receive_queue)`; a FIN is an element of the queue.
    pub(crate) fn is_native_readable(&self) -> bool {
        !self.receive_queue.is_empty() || self.end == End::Arrived
    }
}
