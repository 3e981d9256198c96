//! What a test program is: two ends of a connection and the calls they make, one after the other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which end of the connection makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// Who connected.
    Client,
    /// Who accepted.
    Server,
}

impl Side {
    /// Both, as indices go.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// The other one.
    pub fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// How a process uses its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    /// `O_NONBLOCK` from before the handshake; the listener, too.
    pub non_blocking: bool,
    /// A second thread makes the calls that come while the first one sleeps.
    pub threads: bool,
    /// Without `TCP_NODELAY`: then the steps of plain TCP wait for delayed acknowledgements.
    pub nagle: bool,
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocking = ["blocking", "non-blocking"][usize::from(self.non_blocking)];
        let threads = ["one thread", "two threads"][usize::from(self.threads)];
        let delay = ["TCP_NODELAY", "Nagle"][usize::from(self.nagle)];
        write!(f, "{blocking}, {threads}, {delay}")
    }
}

/// How bytes get into the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SendBy {
    Send,
    Write,
    Writev,
    /// `pwritev2`, with `RWF_NOWAIT` for `MSG_DONTWAIT`.
    Pwritev2,
    Sendmsg,
    Sendmmsg,
    Sendfile,
    Splice,
    Vmsplice,
    IoUring,
}

impl SendBy {
    /// The flags that this call has, or can express.
    pub fn takes(self) -> i32 {
        match self {
            Self::Write | Self::Writev | Self::Sendfile => 0,
            Self::Pwritev2 => libc::MSG_DONTWAIT,
            Self::Splice | Self::Vmsplice => libc::MSG_MORE | libc::MSG_DONTWAIT,
            Self::Send | Self::Sendmsg | Self::Sendmmsg | Self::IoUring => !0,
        }
    }
}

/// How bytes get out of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecvBy {
    Recv,
    Read,
    Readv,
    /// `preadv2`, with `RWF_NOWAIT` for `MSG_DONTWAIT`.
    Preadv2,
    Recvmsg,
    Recvmmsg,
    Splice,
    IoUring,
    /// One multishot request with provided buffers, until it has nothing more to say.
    IoUringMultishot,
}

impl RecvBy {
    /// The flags that this call has, or can express.
    pub fn takes(self) -> i32 {
        match self {
            Self::Read | Self::Readv | Self::IoUringMultishot => 0,
            Self::Splice | Self::Preadv2 => libc::MSG_DONTWAIT,
            Self::Recv | Self::Recvmsg | Self::Recvmmsg | Self::IoUring => !0,
        }
    }

    /// Whether it may wait for bytes in a blocking socket. `splice` does, `SPLICE_F_NONBLOCK` or not:
    /// that is about the pipe (`tcp_splice_read`, net/ipv4/tcp.c, 6.18).
    pub fn may_sleep(self, flags: i32) -> bool {
        self == Self::Splice || flags & libc::MSG_DONTWAIT == 0
    }
}

/// How to wait until there is something to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitBy {
    Poll,
    Ppoll,
    Select,
    Pselect,
    Epoll,
    EpollEdge,
    /// Waits once, looks again in vain, arms it anew and looks again.
    EpollOneshot,
    EpollExclusive,
}

/// A socket option that takes an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opt {
    RcvLowat,
    /// Milliseconds.
    RcvTimeo,
    /// Milliseconds.
    SndTimeo,
    NoDelay,
    Cork,
    UserTimeout,
    KeepAlive,
    ZeroCopy,
    Inq,
    PeekOff,
    Timestamp,
    /// Seconds.
    Linger,
    /// Live, and large enough for all that programs send.
    SndBuf,
    RcvBuf,
    BusyPoll,
    Mark,
    Priority,
    /// `O_NONBLOCK`, by `fcntl`.
    NonBlock,
    Error,
}

/// One call of one end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// `flags` are those of `send(2)`.
    Send {
        by: SendBy,
        len: usize,
        flags: i32,
    },
    /// `flags` are those of `recv(2)`.
    Recv {
        by: RecvBy,
        len: usize,
        flags: i32,
    },
    /// `SHUT_RD`, `SHUT_WR`, `SHUT_RDWR`.
    Shutdown(i32),
    /// The last descriptor goes.
    Close,
    /// The same with `SO_LINGER` 0.
    Abort,
    Set(Opt, i32),
    Get(Opt),
    /// `epoll_wait` with no time to wait; edge-triggered or level-triggered.
    Epoll {
        edge: bool,
    },
    /// Sleeps until there is something to read, or the end of it.
    Wait(WaitBy),
    /// `SIOCOUTQ` until it is 0.
    Outq,
    /// `connect(AF_UNSPEC)`.
    Disconnect,
    /// Goes on with a duplicate, the first descriptor closed.
    Dup,
    /// Goes on with a descriptor that came back over `SCM_RIGHTS`, the first one closed.
    Pass,
    /// What the error queue says of `MSG_ZEROCOPY`.
    ErrQueue,
    /// Makes the call in a forked child that shares the socket.
    Child(Box<Call>),
    /// A signal to the thread that sleeps in a call; `restart` as in `SA_RESTART`.
    Signal {
        restart: bool,
    },
    /// `SIGSTOP`, then `SIGCONT`.
    Stop,
    /// Sends that many bytes while the other end reads them, both in pieces.
    Pump {
        len: usize,
        write: usize,
        read: usize,
    },
    /// Sends until EAGAIN, then the other end reads it all.
    Flood {
        write: usize,
        read: usize,
    },
}

impl Call {
    /// The call itself, whoever makes it.
    pub fn innermost(&self) -> &Self {
        match self {
            Self::Child(call) => call.innermost(),
            call => call,
        }
    }
}

/// Names of the bits of send and recv that programs use.
const FLAGS: [(i32, &str); 10] = [
    (libc::MSG_PEEK, "MSG_PEEK"),
    (libc::MSG_TRUNC, "MSG_TRUNC"),
    (libc::MSG_WAITALL, "MSG_WAITALL"),
    (libc::MSG_DONTWAIT, "MSG_DONTWAIT"),
    (libc::MSG_OOB, "MSG_OOB"),
    (libc::MSG_MORE, "MSG_MORE"),
    (libc::MSG_NOSIGNAL, "MSG_NOSIGNAL"),
    (libc::MSG_ZEROCOPY, "MSG_ZEROCOPY"),
    (libc::MSG_ERRQUEUE, "MSG_ERRQUEUE"),
    (libc::MSG_CMSG_CLOEXEC, "MSG_CMSG_CLOEXEC"),
];

fn flag_names(flags: i32) -> String {
    let names: Vec<_> = FLAGS.iter().filter(|(bit, _)| flags & bit != 0).collect();
    if names.is_empty() {
        return "0".to_owned();
    }
    names
        .iter()
        .map(|(_, name)| *name)
        .collect::<Vec<_>>()
        .join("|")
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { by, len, flags } => {
                write!(f, "sends: {by:?}({len}, {})", flag_names(*flags))
            }
            Self::Recv { by, len, flags } => {
                write!(f, "reads: {by:?}({len}, {})", flag_names(*flags))
            }
            Self::Shutdown(how) => {
                write!(
                    f,
                    "shutdown({})",
                    ["SHUT_RD", "SHUT_WR", "SHUT_RDWR"][*how as usize]
                )
            }
            Self::Set(opt, value) => write!(f, "set {opt:?} = {value}"),
            Self::Get(opt) => write!(f, "get {opt:?}"),
            Self::Wait(by) => write!(f, "waits: {by:?}"),
            Self::Child(call) => write!(f, "in a forked child: {call}"),
            other => write!(f, "{}", format!("{other:?}").to_lowercase()),
        }
    }
}

/// A call and who makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub side: Side,
    pub call: Call,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.side, self.call)
    }
}

/// A connection and all that happens to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Of client and server.
    pub manners: [Manner; 2],
    pub steps: Vec<Step>,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for side in Side::BOTH {
            writeln!(f, "    {side}: {}", self.manners[side as usize])?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:4}  {step}", index + 1)?;
        }
        Ok(())
    }
}
