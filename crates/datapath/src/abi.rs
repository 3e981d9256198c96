//! The types of `bpf/abi.h`, generated from the BTF of the compiled object.

use std::mem;

#[allow(
    missing_docs,
    clippy::all,
    unused,
    dead_code,
    clippy::undocumented_unsafe_blocks
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/socket.skel.rs"));
}

pub use generated::types::{
    asked as Asked, candidate as Candidate, conn as Conn, end as End, end_record as EndRecord,
    end_report as EndReport, endpoints as Endpoints, event as Event, handshake as Handshake,
    hists as Hists, holder as Holder, newcomer as Newcomer, offer as Offer, pair as Pair,
    piece as Piece, process as Process, program as Program, rule_answer as RuleAnswer,
    rule_options as RuleOptions, rule_range as RuleRange, rule_set as RuleSet, rules as Rules,
    settings as Settings, side as Side, tally as Tally, thread as Thread, totals as Totals,
    view as View,
};

use generated::types;

/// The layout of pinned maps; `BEELINE_ABI` in `bpf/abi.h`.
pub const ABI: u32 = types::abi_version::BEELINE_ABI.0;

/// How many rules there may be.
pub const MAX_RULES: usize = types::rule_limits::MAX_RULES.0 as usize;

/// The place of what holds where no rule matches.
pub(crate) const NO_RULE: usize = types::rule_limits::NO_RULE.0 as usize;

/// Places of one generation of rules.
pub(crate) const RULE_PLACES: usize = types::rule_limits::RULE_PLACES.0 as usize;

/// How many connections from before the attachment are chosen at once, at most.
pub(crate) const MAX_NEWCOMERS: usize = types::earlier_limits::MAX_NEWCOMERS.0 as usize;

/// [`End::flags`] of an end that connected.
pub(crate) const END_CLIENT: u32 = types::end_flag::END_CLIENT.0;

/// Most bytes of a message that are captured.
pub const CAPTURE_MAX: u32 = types::capture_limits::CAPTURE_MAX.0;

/// A plain old value that crosses the boundary as bytes.
///
/// # Safety
/// The type must be `repr(C)`, without padding that is read, and valid for every bit pattern.
pub unsafe trait Wire: Copy + Default {
    /// As they stand in a map.
    fn bytes(&self) -> &[u8] {
        // SAFETY: the implementor is a plain repr(C) value; the slice covers just it.
        unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), mem::size_of::<Self>())
        }
    }

    /// `None` when there are too few bytes.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < mem::size_of::<Self>() {
            return None;
        }
        // SAFETY: long enough, any alignment, and every bit pattern is a value.
        Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

macro_rules! wire {
    ($($name:ident)*) => {$(
        // SAFETY: repr(C) structs of integers only, generated from bpf/abi.h.
        unsafe impl Wire for $name {}
    )*};
}
wire!(Asked Candidate Conn End EndRecord EndReport Event Handshake Hists Holder Newcomer Offer Pair Piece Process Program RuleAnswer RuleOptions RuleRange RuleSet Rules Settings Tally Thread Totals View);

/// Values without padding are equal if their bytes are.
macro_rules! key {
    ($($name:ident)*) => {$(
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.bytes() == other.bytes()
            }
        }
        impl Eq for $name {}

        impl std::hash::Hash for $name {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.bytes().hash(state);
            }
        }
    )*};
}
key!(Handshake Pair Program RuleAnswer RuleOptions RuleRange RuleSet);

impl Handshake {
    /// The same connection as its other end sees it.
    #[must_use]
    pub fn mirror(self) -> Self {
        Self {
            snd_nxt: self.rcv_nxt,
            rcv_nxt: self.snd_nxt,
        }
    }
}

impl End {
    /// Whether it is the end that connected; else it was accepted.
    #[must_use]
    pub fn is_client(&self) -> bool {
        u32::from(self.flags) & END_CLIENT != 0
    }

    /// Whether the connection is over and was added to the totals.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        u32::from(self.flags) & types::end_flag::END_CLOSED.0 != 0
    }

    /// Whether it waits to be enrolled for the first time; as in `bpf/lib/sock.h`.
    pub(crate) fn was_never_enrolled(&self) -> bool {
        let (waiting, returns) = (
            types::end_flag::END_WAITING.0,
            types::end_flag::END_RETURNS.0,
        );
        u32::from(self.flags) & (waiting | returns) == waiting
    }
}

/// Declares a Rust enum over one of the C enums, with the names that users read.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident from $c:ident { $($variant:ident = $value:ident $text:literal: $about:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name {
            $(#[doc = $about] $variant = types::$c::$value.0,)*
        }

        impl $name {
            /// Every value, in the order of the C enum.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// `None` for a number of a newer version.
            #[must_use]
            pub fn from_raw(raw: u32) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| *value as u32 == raw)
            }

            /// The name in the command line's output and in metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// One line for people.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

named! {
    /// Why a connection, or one direction of it, is on the kernel path.
    Reason from reason {
        None = REASON_NONE "none": "redirected, or nothing was sent yet",
        PeerElsewhere = REASON_PEER_ELSEWHERE "peer_elsewhere": "the peer's handshake was not seen on this host",
        NoRecord = REASON_NO_RECORD "no_record": "the handshake began before the attachment, or its record was evicted",
        FastOpen = REASON_FAST_OPEN "fast_open": "data travelled in the SYN",
        Mptcp = REASON_MPTCP "mptcp": "a subflow of a Multipath TCP connection",
        Ulp = REASON_ULP "ulp": "an upper layer protocol such as kernel TLS owns the socket, or a program at either end uses one",
        KernelSocket = REASON_KERNEL_SOCKET "kernel_socket": "the socket belongs to the kernel itself",
        MapFull = REASON_MAP_FULL "map_full": "as many connections as the configuration allows",
        Collision = REASON_COLLISION "collision": "another live connection has the same sequence numbers",
        ForeignSockmap = REASON_FOREIGN_SOCKMAP "foreign_sockmap": "another BPF program holds the socket in a sockmap",
        Detaching = REASON_DETACHING "detaching": "no new connections are taken",
        MaySplice = REASON_MAY_SPLICE "may_splice": "a program at either end may splice from its sockets",
        UnknownProgram = REASON_UNKNOWN_PROGRAM "unknown_program": "it is not known yet whether a program at either end splices",
        UnknownWorkload = REASON_UNKNOWN_WORKLOAD "unknown_workload": "it is not known yet which rules concern the cgroup of an end",
        IoUring = REASON_IO_URING "io_uring": "a program at either end has an io_uring, whose sends without a copy would fail",
        PeerLate = REASON_PEER_LATE "peer_late": "the first byte was sent before the peer was enrolled",
        PeerGone = REASON_PEER_GONE "peer_gone": "the peer takes no more redirected data: it closed, half-closed or was retired",
        QueueFull = REASON_QUEUE_FULL "queue_full": "the reader is behind, so ordinary back-pressure acts",
        ShutDown = REASON_SHUT_DOWN "shut_down": "one end had shut this direction down: TCP answers the message",
        Retired = REASON_RETIRED "retired": "taken back on request",
        SmallWrites = REASON_SMALL_WRITES "small_writes": "it streams small writes, which TCP gathers into few segments",
        Urgent = REASON_URGENT "urgent": "urgent data (MSG_OOB) was sent, which only TCP keeps apart",
        ReceiveBuffer = REASON_RECEIVE_BUFFER "receive_buffer": "more would wait than the reader's SO_RCVBUF allows, so TCP's window acts",
        Excluded = REASON_EXCLUDED "excluded": "a rule or the default leaves it to the kernel path",
        Option = REASON_OPTION "option": "it has an option that TCP's own calls alone honour: SO_ZEROCOPY, SO_RCVLOWAT, SO_PEEK_OFF, TCP_INQ, \
            SO_TIMESTAMP, SO_TIMESTAMPING, SO_MAX_PACING_RATE, SO_ATTACH_FILTER",
        Blocking = REASON_BLOCKING "blocking": "its reads may sleep: only sockets with O_NONBLOCK are redirected",
    }
}

named! {
    /// What is known of a program.
    Verdict from verdict {
        Unknown = VERDICT_UNKNOWN "unknown": "nobody looked at its files yet",
        NeverSplices = VERDICT_NEVER_SPLICES "never_splices": "it cannot call splice(2)",
        MaySplice = VERDICT_MAY_SPLICE "may_splice": "it may call splice(2)",
        UsesUlp = VERDICT_USES_ULP "uses_ulp": "it has asked for kernel TLS, or another upper layer protocol",
    }
}

named! {
    /// What rules ask of the two ends of a connection, each of which is local once.
    Dimension from dimension {
        LocalWorkload = LOCAL_WORKLOAD "local_workload": "cgroup, unit or container of the own end",
        RemoteWorkload = REMOTE_WORKLOAD "remote_workload": "that of the peer",
        LocalProgram = LOCAL_PROGRAM "local_program": "executable of the own end",
        RemoteProgram = REMOTE_PROGRAM "remote_program": "that of the peer",
        LocalUser = LOCAL_USER "local_user": "owner of the own end's socket",
        RemoteUser = REMOTE_USER "remote_user": "that of the peer's",
        LocalAddress = LOCAL_ADDRESS "local_address": "own address",
        RemoteAddress = REMOTE_ADDRESS "remote_address": "the peer's, as the own end sees it",
        LocalPort = LOCAL_PORT "local_port": "own port",
        RemotePort = REMOTE_PORT "remote_port": "the peer's, as the own end sees it",
    }
}

named! {
    /// How far new work is taken.
    Mode from mode {
        Off = MODE_OFF "off": "enrols nothing",
        On = MODE_ON "on": "enrols and redirects",
        Detaching = MODE_DETACHING "detaching": "enrols nothing, and moves every direction to the kernel path",
    }
}

named! {
    /// Where a direction's next message goes.
    TxPath from tx_path {
        Start = TX_START "start": "nothing was sent yet",
        Redirect = TX_REDIRECT "socket": "to the peer's socket, past the network stack",
        Kernel = TX_KERNEL "kernel": "through the network stack",
    }
}

named! {
    /// What happened to a connection.
    EventKind from event_kind {
        Established = EVENT_ESTABLISHED "established": "left on the kernel path",
        Enrolled = EVENT_ENROLLED "enrolled": "this end is in the map",
        Paired = EVENT_PAIRED "paired": "both ends are in the map",
        RedirectStarted = EVENT_REDIRECT_STARTED "redirect_started": "the first byte of a direction skipped the stack",
        KernelPath = EVENT_KERNEL_PATH "kernel_path": "a direction goes through the stack from here on",
        Closed = EVENT_CLOSED "closed": "the connection is over",
    }
}

named! {
    /// What a histogram is of.
    Hist from hist {
        Redirected = HIST_REDIRECTED "redirected_message": "bytes of a message that skipped the stack",
        KernelPath = HIST_KERNEL_PATH "kernel_path_message": "bytes of a message that went through the stack",
        Queue = HIST_QUEUE "queue": "bytes that waited at the reader when a message was redirected to it",
        Read = HIST_READ "send_to_read": "from sending a redirected message to reading it, if all was read before the next was sent",
        Rtt = HIST_RTT "rtt": "TCP's smoothed round-trip time while a direction is on the kernel path",
        Handshake = HIST_HANDSHAKE "handshake": "from the SYN-ACK to the established connection, at the server",
        Lifetime = HIST_LIFETIME "lifetime": "of connections that are closed",
    }
}

/// The element of the map `hists` that is no pair's, the first that can be, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum PairIndex {
    Other = types::pair_index::PAIR_OTHER.0,
    First = types::pair_index::PAIR_FIRST.0,
    Count = types::pair_index::PAIR_COUNT.0,
}

impl Hists {
    /// `HIST_SLOTS` in `bpf/abi.h`.
    pub(crate) const SLOTS: usize = mem::size_of::<Self>() / 8 / Hist::ALL.len() - 1;
}
