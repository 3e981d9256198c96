//! What may differ, and why. Everything else is a bug.

use std::fmt;

use super::outcome::{Outcome, Seen};
use super::past::Past;
use super::program::{Call, Opt, RecvBy, SendBy, Side, Step};

/// Something that came out one way on plain TCP and another way accelerated.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The call that differs, or the last one before the ends look different.
    pub step: Step,
    /// Its number in the program, from 1.
    pub number: usize,
    /// The number of the step that was the last one then: an earlier call may have slept till then.
    pub noticed: usize,
    /// That step's call.
    pub last: Call,
    pub what: What,
}

/// Each pair is plain, accelerated.
#[derive(Debug, Clone)]
pub enum What {
    /// What a call came to; `None`: it sleeps.
    Call(Option<Outcome>, Option<Outcome>),
    /// What an end looks like afterwards.
    Look(Side, Seen, Seen),
}

impl Difference {
    /// What it is about, roughly: others of the same kind are not looked into.
    pub fn kind(&self) -> String {
        let call = self.step.call.to_string();
        let call = call
            .split(|c: char| !c.is_alphabetic() && c != ':')
            .take(2)
            .collect::<String>();
        match &self.what {
            What::Call(plain, fast) => {
                let kind = |outcome: &Option<Outcome>| {
                    outcome.as_ref().map_or(1, |outcome| outcome.ret.min(0))
                };
                format!("{call} {} {}", kind(plain), kind(fast))
            }
            What::Look(_, plain, fast) => {
                format!("{} {}", plain.poll ^ fast.poll, plain.state != fast.state)
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |outcome: &Option<Outcome>| {
            outcome
                .as_ref()
                .map_or_else(|| "asleep".to_owned(), ToString::to_string)
        };
        match &self.what {
            What::Call(plain, fast) => write!(
                f,
                "step {}, noticed after step {}: {}\n    plain TCP:    {}\n    accelerated:  {}",
                self.number,
                self.noticed,
                self.step,
                text(plain),
                text(fast)
            ),
            What::Look(side, plain, fast) => write!(
                f,
                "after step {} ({}), the {side}'s end:\n    plain TCP:    {plain}\n    accelerated:  {fast}",
                self.number, self.step
            ),
        }
    }
}

/// A difference that docs/semantics.md lists. The program ends where it shows: from there on the
/// two connections are in different states.
pub struct Known {
    pub name: &'static str,
    /// How its row in docs/semantics.md begins.
    pub row: &'static str,
    matches: fn(&Past, &Difference) -> bool,
}

/// Those that are not what plain TCP does. The table can only shrink: a long run in which one of
/// them does not show up fails.
pub const KNOWN: &[Known] = &[
    Known {
        name: "threads",
        row: "blocking `recv` in one thread while another half-closes the socket",
        matches: |past, found| {
            past.manners[found.step.side as usize].threads && sleeper_gets(found, libc::EAGAIN)
        },
    },
    Known {
        name: "splice",
        row: "`splice(2)` from the socket",
        matches: |_, found| receives(found, |by, _| by == RecvBy::Splice),
    },
    Known {
        name: "zerocopy",
        row: "`MSG_ZEROCOPY`",
        matches: |past, _| past.zero_copy[0] || past.zero_copy[1],
    },
    Known {
        name: "oob",
        row: "`MSG_OOB`",
        matches: |past, found| past.oob || receives(found, |_, flags| flags & libc::MSG_OOB != 0),
    },
    Known {
        name: "low water",
        row: "`SO_RCVLOWAT`",
        matches: |past, _| past.low_water[0] || past.low_water[1],
    },
    Known {
        name: "waitall",
        row: "blocking `MSG_WAITALL`",
        matches: |_, found| receives(found, |_, flags| flags & libc::MSG_WAITALL != 0),
    },
    Known {
        name: "unread close",
        row: "close with unread data",
        matches: |past, _| past.closed_unread,
    },
    Known {
        name: "trunc",
        row: "`recv` with `MSG_TRUNC`",
        matches: |_, found| receives(found, |_, flags| flags & libc::MSG_TRUNC != 0),
    },
    Known {
        name: "peek off",
        row: "`SO_PEEK_OFF`",
        matches: |past, found| {
            past.peek_off[found.step.side as usize]
                && receives(found, |_, flags| flags & libc::MSG_PEEK != 0)
        },
    },
    Known {
        name: "inq",
        row: "`TCP_INQ`",
        matches: |past, found| {
            past.inq[found.step.side as usize] && receives(found, |by, _| by == RecvBy::Recvmsg)
        },
    },
    Known {
        name: "cork",
        row: "`TCP_CORK`, `MSG_MORE`",
        matches: |past, _| past.corked[0] || past.corked[1],
    },
    Known {
        name: "nothing asked for",
        row: "`recv` of 0 bytes",
        matches: |_, found| first_message(&found.step.call) == Some(0),
    },
    Known {
        name: "signal",
        row: "blocking `recv` asleep when its thread handles a signal",
        matches: |_, found| {
            let disturbed = matches!(found.last, Call::Signal { .. } | Call::Stop);
            disturbed && sleeper_gets(found, libc::EAGAIN)
        },
    },
    Known {
        name: "boundary",
        row: "a read that comes to the end of the redirected bytes",
        matches: |_, found| {
            let call = &found.step.call;
            let shorter = matches!(&found.what, What::Call(Some(plain), Some(fast))
                if fast.ret > 0 && (1..=bytes(call, plain)).contains(&bytes(call, fast)));
            shorter && receives(found, |_, _| true)
        },
    },
    Known {
        name: "error stays",
        row: "send on a connection that was reset",
        matches: |_, found| match &found.what {
            What::Look(_, plain, fast) => {
                fast.poll & libc::POLLERR != 0
                    && looks_same(
                        &Seen {
                            poll: plain.poll | libc::POLLERR,
                            ..*plain
                        },
                        fast,
                    )
            }
            What::Call(..) => false,
        },
    },
    Known {
        name: "nothing to send",
        row: "`send` of 0 bytes",
        matches: |past, found| {
            let nothing = matches!(
                found.step.call.innermost(),
                Call::Send {
                    by: SendBy::Sendmmsg,
                    len: 0..3,
                    ..
                } | Call::Send { len: 0, .. }
            );
            nothing && (past.shut[0] || past.shut[1] || past.closed[0] || past.closed[1])
        },
    },
    Known {
        name: "disconnected",
        row: "blocking `recv` after `connect(AF_UNSPEC)`",
        matches: |past, found| {
            let sleeps = matches!(found.what, What::Call(Some(_), None));
            sleeps && past.closed[found.step.side as usize] && receives(found, |_, _| true)
        },
    },
    Known {
        name: "keepalive",
        row: "`SO_KEEPALIVE`, `TCP_KEEPIDLE`",
        matches: |_, found| *found.step.call.innermost() == Call::Get(Opt::KeepAlive),
    },
    Known {
        name: "reset",
        row: "blocking `recv` asleep when the peer resets",
        matches: |past, found| past.closed[0] | past.closed[1] && sleeper_gets(found, libc::EAGAIN),
    },
];

impl Known {
    /// The entry that accounts for a difference.
    pub fn of(past: &Past, found: &Difference) -> Option<&'static Self> {
        KNOWN.iter().find(|known| (known.matches)(past, found))
    }
}

/// A call that slept, or would have, returned this error where it was accelerated.
fn sleeper_gets(found: &Difference, errno: i32) -> bool {
    matches!(&found.what, What::Call(_, Some(fast)) if fast.error() == errno)
}

/// How many bytes a read moved.
fn bytes(call: &Call, outcome: &Outcome) -> i64 {
    match call.innermost() {
        Call::Recv {
            by: RecvBy::Recvmmsg,
            ..
        } => outcome.more.iter().sum(),
        _ => outcome.ret,
    }
}

fn receives(found: &Difference, test: fn(RecvBy, i32) -> bool) -> bool {
    matches!(found.step.call.innermost(), Call::Recv { by, flags, .. } if test(*by, *flags))
}

/// How many bytes the first message of a call can take.
fn first_message(call: &Call) -> Option<usize> {
    match call.innermost() {
        Call::Recv {
            by: RecvBy::Recvmmsg,
            len,
            ..
        } => Some(len / 3),
        Call::Recv { len, .. } => Some(*len),
        _ => None,
    }
}

/// Whether two looks at an end are the same.
///
/// NORMALISED: `FIONREAD` of an accelerated end may say too little while `poll` says that there is
/// something: the row "`FIONREAD`, data that took the kernel path" of docs/semantics.md, on kernels
/// where the probe finds it.
pub fn looks_same(plain: &Seen, fast: &Seen) -> bool {
    let unread_is_hidden =
        (0..plain.unread).contains(&fast.unread) && fast.poll & libc::POLLIN != 0;
    let fast = Seen {
        unread: if unread_is_hidden {
            plain.unread
        } else {
            fast.unread
        },
        ..*fast
    };
    *plain == fast
}

/// Whether a call came to the same.
///
/// NORMALISED, because TCP leaves it open:
/// - how much `Flood` gets into a socket that nobody reads: both must end with the same error after
///   some bytes.
/// - what the scheduler decides: see `Run::is_decided`.
pub fn came_to_same(call: &Call, plain: &Outcome, fast: &Outcome) -> bool {
    match call {
        Call::Flood { .. } => plain.more == fast.more && (plain.ret > 0) == (fast.ret > 0),
        _ => plain == fast,
    }
}
