//! What no path needs: shown so that nobody has to ask.

use datapath::probe::{Attempt, Tracing};

use super::{check, check_attempt};
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::report::Check;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        kind(facts, "fentry", |tracing| &tracing.fentry),
        kind(facts, "LSM", |tracing| &tracing.lsm),
        kind(facts, "kprobe", |tracing| &tracing.kprobe),
    ]
}

fn kind(facts: &Facts, name: &'static str, of: impl Fn(&Tracing) -> &Attempt) -> Check {
    check(name, &facts.tracing, |tracing| {
        check_attempt(name, of(tracing), "works", |words| {
            let meaning = "refused (optional): nothing of the socket path needs it";
            Check::refused(name, format!("{meaning} ({words})"))
        })
    })
}
