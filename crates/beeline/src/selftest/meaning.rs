//! What a failed check means: the decisions, apart from the facts in [`datapath::selftest`].

use datapath::selftest::{Check, Failure};
use serde::{Deserialize, Serialize};

/// What the failure of a check changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// The socket path does not start.
    Stops,
    /// The socket path runs, with a limit that is worth knowing.
    Limits,
}

/// The consequence of this failure.
pub(super) fn consequence(check: Check, failure: &Failure) -> Consequence {
    match (check, failure) {
        (_, Failure::Data(_)) => Consequence::Stops,
        (Check::WayBack | Check::Splice, _) => Consequence::Limits,
        _ => Consequence::Stops,
    }
}

/// The same for people, as the second half of a sentence.
pub(super) fn meaning(check: Check, failure: &Failure) -> &'static str {
    match (check, failure) {
        (_, Failure::Data(_)) => "data would be damaged",
        (Check::Redirect, _) => "nothing would be redirected",
        (Check::BackPressure, _) => "memory would not be bounded",
        (Check::WayBack, _) => "a direction whose reader was behind stays on the kernel path",
        (Check::FionreadRedirected | Check::FionreadKernelPath, _) => {
            "a program that asks FIONREAD before it reads would stall"
        }
        (Check::OneQueue, _) => {
            "a reader that falls behind would miss data: this needs Linux 6.6.128+, 6.12.75+, \
             6.18.14+ or 6.19+"
        }
        (Check::Retire, _) => "connections could not go back to plain TCP",
        (Check::Splice, _) => {
            "a program that splices from an enrolled socket does not find redirected data"
        }
        (Check::Integrity | Check::Order, _) => "data might be damaged",
        (Check::ShutDown | Check::HalfClose | Check::Close, _) => {
            "programs could not rely on the end of a stream"
        }
    }
}
