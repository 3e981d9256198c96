//! What has happened to a connection so far, as far as the plain pair tells.

use super::outcome::Outcome;
use super::program::{Call, Manner, Opt, Program, RecvBy, SendBy, Side};

/// Sums and facts, by side where there is one.
#[derive(Debug, Default)]
pub struct Past {
    pub manners: Vec<Manner>,
    /// Bytes that calls of this side have sent.
    pub sent: [u64; 2],
    /// Bytes that calls of this side have read.
    pub got: [u64; 2],
    pub shut: [bool; 2],
    pub reads_no_more: [bool; 2],
    pub closed: [bool; 2],
    /// Closed or disconnected while bytes were unread; or before bytes came, while the socket may still
    /// have been held open: by io_uring, which lets go of a file a moment later, or by a thread that waits
    /// for events.
    pub closed_unread: bool,
    /// Waited for events.
    waited: [bool; 2],
    /// Used io_uring.
    uring: [bool; 2],
    pub oob: bool,
    /// The same while the peer had bytes to read or reads no more, or by io_uring, where nobody sees it.
    pub oob_in_stream: bool,
    /// `TCP_CORK`, or a send with `MSG_MORE`.
    pub corked: [bool; 2],
    pub zero_copy: [bool; 2],
    pub low_water: [bool; 2],
    pub peek_off: [bool; 2],
    pub inq: [bool; 2],
    pub timestamp: [bool; 2],
    /// Set one of the options of reading, which are those four, while bytes or the end were unread.
    behind: [bool; 2],
    pub rcv_timeo: [bool; 2],
    pub blocking: [bool; 2],
    /// Was ahead of its reader, and had to wait for room.
    pub flooded: [bool; 2],
    /// `O_NONBLOCK` was taken away.
    pub turned: [bool; 2],
}

impl Past {
    pub fn new(program: &Program) -> Self {
        Self {
            manners: program.manners.to_vec(),
            blocking: program.manners.map(|manner| !manner.non_blocking),
            ..Self::default()
        }
    }

    /// A process that has had a ring is left alone from its next connection on.
    pub fn used_uring(&self) -> bool {
        self.uring != [false; 2]
    }

    /// Bytes that wait for this side.
    pub fn unread(&self, side: Side) -> u64 {
        self.sent[side.peer() as usize].saturating_sub(self.got[side as usize])
    }

    /// Whether an option of reading may not be heeded: the socket could not leave with its next packet.
    pub fn may_not_heed(&self, side: Side) -> bool {
        self.behind[side as usize] || self.reads_no_more[side as usize]
    }

    /// Whether a stream of any length can be sent from this side and read by the other.
    pub fn flows_from(&self, side: Side) -> bool {
        let (from, to) = (side as usize, side.peer() as usize);
        let ended = (0..2).any(|end| self.shut[end] || self.closed[end]);
        let odd = self.oob || self.low_water[to] || self.corked[from] || self.peek_off[to];
        !ended && !odd && !self.rcv_timeo[to]
    }

    /// Before the call is made, which the kernel sees in this order, too.
    pub fn begins(&mut self, side: Side, call: &Call) {
        let own = side as usize;
        match call {
            Call::Send { by, flags, .. } => {
                let kept = *by == SendBy::Sendmsg || *by == SendBy::Send || *by == SendBy::IoUring;
                let peer = side.peer() as usize;
                self.closed_unread |= self.closed[peer] && (self.uring[peer] || self.waited[peer]);
                self.uring[own] |= *by == SendBy::IoUring;
                let oob = flags & libc::MSG_OOB != 0;
                self.oob |= oob;
                let stays = self.unread(side.peer()) > 0 || self.reads_no_more[peer];
                let unseen = *by == SendBy::IoUring || stays;
                self.oob_in_stream |= oob && unseen;
                self.zero_copy[own] |= kept && flags & libc::MSG_ZEROCOPY != 0;
                self.corked[own] |= flags & libc::MSG_MORE != 0;
            }
            Call::Recv {
                by: RecvBy::IoUring | RecvBy::IoUringMultishot,
                ..
            } => self.uring[own] = true,
            Call::Wait(_) => self.waited[own] = true,
            Call::Shutdown(how) => {
                self.shut[own] = true;
                self.reads_no_more[own] |= *how != libc::SHUT_WR;
            }
            Call::Close | Call::Abort | Call::Disconnect => {
                self.closed[own] = true;
                self.closed_unread |= self.unread(side) > 0;
            }
            Call::Set(Opt::Cork, value) => self.corked[own] |= *value != 0,
            Call::Set(Opt::ZeroCopy, _) => self.zero_copy[own] = true,
            Call::Set(opt @ (Opt::RcvLowat | Opt::PeekOff | Opt::Inq | Opt::Timestamp), value) => {
                let peer = side.peer() as usize;
                self.behind[own] |= self.unread(side) > 0 || self.shut[peer] || self.closed[peer];
                match opt {
                    Opt::RcvLowat => self.low_water[own] |= *value > 1,
                    Opt::PeekOff => self.peek_off[own] = true,
                    Opt::Inq => self.inq[own] = true,
                    _ => self.timestamp[own] = true,
                }
            }
            Call::Set(Opt::RcvTimeo, value) => self.rcv_timeo[own] = *value != 0,
            Call::Set(Opt::NonBlock, value) => {
                self.blocking[own] = *value == 0;
                self.turned[own] |= *value == 0;
            }
            Call::Child(call) => self.begins(side, call),
            _ => {}
        }
    }

    /// After it has ended.
    pub fn ended(&mut self, side: Side, call: &Call, outcome: &Outcome) {
        let all = |messages| {
            if messages {
                outcome.more.iter().sum()
            } else {
                outcome.ret.max(0)
            }
        };
        match call {
            Call::Send { by, .. } => {
                self.sent[side as usize] += all(*by == SendBy::Sendmmsg) as u64;
            }
            Call::Recv { by, flags, .. } if flags & (libc::MSG_PEEK | libc::MSG_OOB) == 0 => {
                self.got[side as usize] += all(*by == RecvBy::Recvmmsg).max(0) as u64;
            }
            Call::Child(call) => self.ended(side, call, outcome),
            _ => {}
        }
    }

    /// Everything that this side sent was read; its stream is counted anew.
    pub fn drained(&mut self, side: Side) {
        self.sent[side as usize] = 0;
        self.got[side.peer() as usize] = 0;
    }
}
