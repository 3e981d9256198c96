//! What the facts mean: which of them a path needs, how bad it is, and what to do about it.

mod host;
mod optional;
mod socket;
#[cfg(test)]
mod tests;

use datapath::probe::Attempt;

use super::facts::{Fact, Facts};
use super::report::{Check, Group, PathReport, Report};

/// The key of the socket path in JSON.
pub(super) const SOCKET_PATH: &str = "socket_path";

/// Judges all facts. A new path adds its own file of rules and its entry here.
pub(super) fn judge(facts: &Facts) -> Report {
    let host = host::checks(facts);
    let socket = PathReport::new("Socket path", &host, socket::checks(facts));
    Report {
        kernel: facts.kernel.clone(),
        architecture: facts.architecture,
        paths: [(SOCKET_PATH, socket)].into(),
        optional: Group {
            checks: optional::checks(facts),
        },
        host: Group { checks: host },
    }
}

/// Applies a rule to a fact, if it is known.
fn check<T>(name: &'static str, fact: &Fact<T>, rule: impl FnOnce(&T) -> Check) -> Check {
    match fact {
        Fact::Known(value) => rule(value),
        Fact::Broken(error) => Check::unknown(name, error),
        Fact::NotTried(needs) => Check::not_tried(name, needs),
    }
}

/// `works`, or the refusal as `refused` makes a check of its words.
fn check_attempt(
    name: &'static str,
    attempt: &Attempt,
    works: &str,
    refused: impl FnOnce(String) -> Check,
) -> Check {
    match attempt {
        Attempt::Works => Check::ok(name, works),
        Attempt::Refused(refusal) => refused(refusal.to_string()),
    }
}
