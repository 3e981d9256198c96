//! What no path needs: shown so that nobody has to ask.

use datapath::probe::{Attempt, Tracing};

use super::{check, check_attempt};
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::report::Check;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        kind(facts, "fentry", |tracing| &tracing.fentry, FENTRY),
        kind(facts, "LSM", |tracing| &tracing.lsm, NOTHING),
        kind(facts, "kprobe", |tracing| &tracing.kprobe, NOTHING),
    ]
}

/// What is missed without.
const FENTRY: &str = "programs that splice unexpectedly are not noticed";
const NOTHING: &str = "nothing of the socket path needs it";

fn kind(
    facts: &Facts,
    name: &'static str,
    of: impl Fn(&Tracing) -> &Attempt,
    without: &str,
) -> Check {
    check(name, &facts.tracing, |tracing| {
        check_attempt(name, of(tracing), "works", |words| {
            Check::refused(name, format!("refused (optional): {without} ({words})"))
        })
    })
}
