//! What a failed check means: the decisions, apart from the facts in [`datapath::selftest`].

use datapath::selftest::{Check, Failure};
use serde::{Deserialize, Serialize};

/// What the failure of a check changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// The socket path does not start.
    Stops,
    /// What depends on it is turned off.
    TurnsOff,
    /// The socket path runs, with a limit that is worth knowing.
    Limits,
}

/// The consequence of this failure.
pub(super) fn consequence(check: Check, failure: &Failure) -> Consequence {
    match (check, failure) {
        (_, Failure::Data(_)) => Consequence::Stops,
        (Check::WayBack, _) => Consequence::TurnsOff,
        (Check::FionreadRedirected | Check::FionreadKernelPath | Check::Splice, _) => {
            Consequence::Limits
        }
        _ => Consequence::Stops,
    }
}

/// The same for people, as the second half of a sentence.
pub(super) fn meaning(check: Check, failure: &Failure) -> &'static str {
    match (check, failure) {
        (_, Failure::Data(_)) => "data would be damaged",
        (Check::Redirect, _) => "nothing would be redirected",
        (Check::BackPressure, _) => "memory would not be bounded",
        (Check::WayBack, _) => {
            "turned off: a direction whose reader was behind stays on the kernel path"
        }
        (Check::FionreadRedirected, _) => {
            "a program that asks FIONREAD before it reads may stall on a redirected connection"
        }
        (Check::FionreadKernelPath, _) => {
            "a program that asks FIONREAD before it reads may stall on an enrolled connection that \
             fell back to the kernel path"
        }
        (Check::Splice, _) => {
            "a program that splices from an enrolled socket does not find redirected data"
        }
        (Check::Integrity | Check::Order, _) => "data might be damaged",
        (Check::ShutDown | Check::HalfClose | Check::Close, _) => {
            "programs could not rely on the end of a stream"
        }
    }
}
