//! The rules of the protocol, each of which can be taken out, and rules that it does not have.

/// One rule. `docs/model.md` maps each to its BPF function and its tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// `has_arrived`: a direction returns only when the peer's `rcv_nxt` is its `write_seq`.
    Arrived,
    /// `all_is_queued`: a direction returns only when nothing is in the peer's TCP receive queue, nor
    /// in its `ingress_skb`.
    AllQueued,
    /// `hold_back`: no redirect when more than the limit waits unread.
    QueueLimit,
    /// `hold_back`: no redirect while detaching, nor from a socket that is retiring.
    Retired,
    /// `may_leave`: a socket with data in its psock queue or its `ingress_skb` stays in `socks`.
    NothingQueued,
    /// `others_sleep`, `quiesce.rs`: a socket stays in `socks` while a sender is between its
    /// verdict and the queue.
    NobodyBetween,
    /// `release.bpf.c`: the look at the queue and the removal are one step under the socket's lock.
    ReleaseUnderLock,
    /// `may_leave`: a blocking socket stays in `socks` while somebody is inside its calls.
    NobodyInside,
    /// `listener_unfit`, `caller_unfit`: no socket is enrolled that blocks.
    NonBlockingOnly,
    /// `leave_if_unfit`: a socket that blocks although it is enrolled leaves the maps.
    BlockingLeaves,
    /// `adopt.bpf.c`, `may_enter`: nothing is in the receive queue of a socket that is adopted.
    EntersEmpty,
    /// `adopt.bpf.c`, `may_enter`: nobody sleeps in a call of a socket that is adopted.
    EntersWithoutSleeper,
    /// `adopt.bpf.c`, `enter`: an adopted socket sends over the kernel path first.
    EntersOnKernelPath,
    /// `stop_targeting` in `maps.rs`: a socket is no target any more before the wait for senders begins
    /// that is to end before its release.
    TargetsFirst,
    /// `leave_if_unfit` knows in how many maps the peer is.
    CountsPeersMaps,
    /// `adopt.bpf.c`, `is_wanted`: no call of TCP's own waits for the lock.
    NoCallBegun,
    /// `may_leave` looks at `ingress_skb` before the queue that it empties into.
    SourceFirst,
    /// `all_is_queued`: a direction returns only when nobody holds the peer's lock.
    PeerUnlocked,
    /// `say_first`: a direction says that it redirects before it looks for the target.
    SaysFirst,
    /// `say_first`: a direction that redirects again is not settled any more.
    TakesBack,
    /// `cut_overlap`: what came before goes into no psock queue.
    CutsOff,
    /// `last_segment_follows`: what comes next is known until the last segment has its verdict.
    KnownUntilLast,

    /// Not in the code: the socket leaves the maps only if nobody came into its calls meanwhile.
    InsideLast,
}

impl Rule {
    const LAST_OF_THE_CODE: Self = Self::KnownUntilLast;
}

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(u32);

impl Rules {
    /// The protocol as it is.
    #[must_use]
    pub fn all() -> Self {
        Self((2 << Rule::LAST_OF_THE_CODE as u8) - 1)
    }

    /// The same but for one rule.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u8))
    }

    /// The same and one more, which is not in the code.
    #[must_use]
    pub fn with(self, rule: Rule) -> Self {
        Self(self.0 | 1 << rule as u8)
    }

    /// Whether the rule is in force.
    #[must_use]
    pub fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u8) != 0
    }
}
