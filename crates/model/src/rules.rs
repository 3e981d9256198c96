//! The rules of the protocol, each of which can be taken out.

/// One rule. `docs/model.md` maps each to its BPF function and its tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// `all_was_read`: a direction returns only when `write_seq == snd_una`.
    Acknowledged,
    /// `all_was_read`: a direction returns only when the peer's `rcv_nxt == copied_seq`.
    Copied,
    /// `nobody_reads_natively`: a direction returns only when no reader sleeps in `tcp_recvmsg`.
    NoNativeSleeper,
    /// `hold_back`: no redirect when more than the limit waits unread.
    QueueLimit,
    /// `hold_back`: no redirect while detaching, nor from a socket that is retiring.
    Retired,
    /// `half_closed`, `drain.rs`: a socket with data in its psock queue stays in `socks`.
    NothingQueued,
    /// `half_closed`, `quiesce.rs`: a socket stays in `socks` while a sender is between its verdict
    /// and the queue.
    NobodyBetween,
    /// `half_closed`: a blocking socket that ended its own direction is no target, and leaves.
    HalfClosedLeaves,
    /// A reader is woken once more after its psock queue was emptied, if native bytes wait behind.
    RingAfterQueue,
    /// A blocking socket that several threads can use is not enrolled.
    BlockingIsAlone,
    /// A socket whose program may be reading already is enrolled only if it is non-blocking.
    LateIsNonBlocking,
    /// A socket becomes a target only when no call began to read it before it was enrolled.
    LateAfterCalls,
    /// A socket that is enrolled after its handshake starts on the kernel path, and returns at rest.
    LateStartsAtRest,
}

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(u32);

impl Rules {
    /// The protocol as it should be.
    #[must_use]
    pub fn all() -> Self {
        Self(u32::MAX)
    }

    /// The same but for one rule.
    #[must_use]
    pub fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u8))
    }

    /// Whether the rule is in force.
    #[must_use]
    pub fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u8) != 0
    }
}
