//! What may differ, and why. Everything else is a bug.

use std::fmt;

use super::outcome::{Outcome, Seen};
use super::past::Past;
use super::program::{Call, RecvBy, SendBy, Side, Step};

/// Something that came out one way on plain TCP and another way accelerated.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The call that differs, or the last one before the ends look different.
    pub step: Step,
    /// Its number in the program, from 1.
    pub number: usize,
    /// The number of the step that was the last one then: an earlier call may have slept till then.
    pub noticed: usize,
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
    /// The end that came to something else.
    fn side(&self) -> Side {
        match self.what {
            What::Call(..) => self.step.side,
            What::Look(side, ..) => side,
        }
    }

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
        name: "turned",
        row: "blocking `recv` on a socket whose `O_NONBLOCK` was taken away",
        matches: |past, found| {
            past.turned[found.step.side as usize] && receives(found, |_, _| true)
        },
    },
    Known {
        name: "refused sooner",
        row: "non-blocking writer, nobody reads",
        matches: |past, found| {
            let fewer = matches!(&found.what, What::Call(Some(plain), Some(fast))
                if fast.error() == libc::EAGAIN || (0..plain.ret).contains(&fast.ret));
            let room = matches!(&found.what, What::Call(Some(plain), Some(fast))
                if plain.ret < fast.ret);
            past.flooded[found.step.side as usize]
                && match found.step.call.innermost() {
                    Call::Send { .. } => fewer,
                    Call::Epoll { .. } => room,
                    _ => false,
                }
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
        matches: |past, found| (past.zero_copy[0] || past.zero_copy[1]) && of_completions(found),
    },
    Known {
        name: "oob",
        row: "`MSG_OOB`",
        matches: |past, _| past.oob_in_stream,
    },
    Known {
        name: "nothing urgent",
        row: "`recv` with `MSG_OOB`",
        matches: |_, found| {
            let refused = matches!(&found.what, What::Call(Some(plain), _)
                if plain.error() == libc::EINVAL);
            refused && receives(found, |_, flags| flags & libc::MSG_OOB != 0)
        },
    },
    Known {
        name: "low water",
        row: "`SO_RCVLOWAT`",
        matches: |past, found| {
            past.low_water[found.side() as usize]
                && past.may_not_heed(found.side())
                && of_reading(found)
        },
    },
    Known {
        name: "unread close",
        row: "close with unread data",
        matches: |past, found| past.closed_unread && !hangs(found) && !of_bytes(found),
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
            past.peek_off[found.side() as usize]
                && past.may_not_heed(found.side())
                && receives(found, |_, flags| flags & libc::MSG_PEEK != 0)
        },
    },
    Known {
        name: "inq",
        row: "`TCP_INQ`",
        matches: |past, found| {
            past.inq[found.side() as usize]
                && past.may_not_heed(found.side())
                && receives(found, |by, _| by == RecvBy::Recvmsg)
        },
    },
    Known {
        name: "timestamp",
        row: "`SO_TIMESTAMP`",
        matches: |past, found| {
            past.timestamp[found.side() as usize]
                && past.may_not_heed(found.side())
                && receives(found, |by, _| by == RecvBy::Recvmsg)
        },
    },
    Known {
        name: "cork",
        row: "`TCP_CORK`, `MSG_MORE`",
        matches: |past, found| (past.corked[0] || past.corked[1]) && comes_sooner(found),
    },
    Known {
        name: "nothing asked for",
        row: "`recv` of 0 bytes",
        matches: |_, found| first_message(&found.step.call) == Some(0),
    },
    Known {
        name: "error stays",
        row: "send on a connection that was reset",
        matches: |_, found| match &found.what {
            What::Look(_, plain, fast) => {
                fast.poll & libc::POLLERR != 0
                    && *fast
                        == Seen {
                            poll: plain.poll | libc::POLLERR,
                            ..*plain
                        }
            }
            What::Call(..) => false,
        },
    },
    Known {
        name: "largest window",
        row: "`SIOCOUTQ` after `connect(AF_UNSPEC)`",
        matches: |past, found| {
            let both = matches!(&found.what, What::Call(Some(plain), Some(fast))
                if plain.ret > 0 && fast.ret > 0);
            both && past.closed[found.step.side as usize]
                && matches!(found.step.call.innermost(), Call::Outq)
        },
    },
    Known {
        name: "nothing unacknowledged",
        row: "`SIOCOUTQ` after a reset",
        matches: |past, found| {
            let less = matches!(&found.what, What::Call(Some(plain), Some(fast))
                if (0..plain.ret).contains(&fast.ret));
            let over = (0..2).any(|end| past.closed[end] || past.shut[end]);
            less && over && matches!(found.step.call.innermost(), Call::Outq)
        },
    },
    Known {
        name: "end stays",
        row: "`poll` after `connect(AF_UNSPEC)`",
        matches: |past, found| match &found.what {
            What::Look(side, plain, fast) => {
                let poll = plain.poll | libc::POLLIN;
                past.closed[*side as usize] && *fast == Seen { poll, ..*plain }
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
];

impl Known {
    /// The entry that accounts for a difference.
    pub fn of(past: &Past, found: &Difference) -> Option<&'static Self> {
        KNOWN.iter().find(|known| (known.matches)(past, found))
    }
}

/// Of the error queue, or of what it says to poll.
fn of_completions(found: &Difference) -> bool {
    match &found.what {
        What::Look(_, plain, fast) => {
            let poll = fast.poll ^ libc::POLLERR;
            *plain == Seen { poll, ..*fast }
        }
        What::Call(..) => {
            let errors = |_, flags| flags & libc::MSG_ERRQUEUE != 0;
            matches!(found.step.call.innermost(), Call::ErrQueue) || receives(found, errors)
        }
    }
}

/// Of what there is to read, or whether there is.
fn of_reading(found: &Difference) -> bool {
    let call = found.step.call.innermost();
    let reads = matches!(call, Call::Recv { .. } | Call::Wait(_) | Call::Epoll { .. });
    matches!(found.what, What::Look(..)) || reads
}

/// Only the accelerated call sleeps.
fn hangs(found: &Difference) -> bool {
    matches!(found.what, What::Call(Some(_), None))
}

/// As many bytes, but others.
fn of_bytes(found: &Difference) -> bool {
    matches!(&found.what, What::Call(Some(plain), Some(fast))
        if plain.ret == fast.ret && plain.hash != fast.hash)
}

/// What plain TCP still holds back is there already.
fn comes_sooner(found: &Difference) -> bool {
    match &found.what {
        What::Look(_, plain, fast) => fast.unread >= plain.unread,
        What::Call(None, _) => true,
        What::Call(Some(_), None) => false,
        What::Call(Some(plain), Some(fast)) => match found.step.call.innermost() {
            Call::Outq => fast.ret <= plain.ret,
            _ => of_reading(found) && fast.ret >= plain.ret && !of_bytes(found),
        },
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
