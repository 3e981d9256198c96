//! Differential testing: random programs of socket calls on a plain connection and on an
//! accelerated one, call by call. Every return value, errno, byte, sleep and readiness has to be
//! equal, but for what `compare.rs` lists (invariants 1 and 2).
//!
//! A program that differs is made as short as it still differs, printed, and saved in
//! `regressions/`, which every run tries first. `make soak` runs random programs for an hour.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod campaign;
mod compare;
mod connect;
mod generate;
mod lane;
mod options;
mod outcome;
mod past;
mod program;
mod recv;
mod run;
mod send;
mod stream;
mod sys;
mod uring;
mod wait;
mod world;

use std::path::Path;
use std::time::Duration;

use campaign::{Campaign, Seed};
use common::Result;
use compare::KNOWN;
use testbed::{Cgroup, kernel_test};

/// The run of `make test`: always the same programs, and fewer where the host is slow.
const SHORT: (u64, Duration) = (100, Duration::from_secs(10));

/// How long `make soak` goes on, unless `BEELINE_SOAK_SECONDS` says otherwise.
const LONG: u64 = 3600;

kernel_test! {
    fn saved_programs_are_the_same_on_both_paths(cgroup: &Cgroup) -> Result {
        let mut campaign = Campaign::new(cgroup, Seed::Fixed)?;
        campaign.regressions()
    }

    fn random_programs_are_the_same_on_both_paths(cgroup: &Cgroup) -> Result {
        let mut campaign = Campaign::new(cgroup, Seed::Fixed)?;
        let done = campaign.random(SHORT.0, SHORT.1);
        println!("{campaign}");
        done?;
        campaign.expect_accelerated()
    }

    /// Fails as well when a listed difference did not show up: then it is to be taken off the list.
    #[deadline(u64::MAX / 2)]
    #[ignore = "runs for an hour: make soak"]
    fn soak(cgroup: &Cgroup) -> Result {
        let seconds = std::env::var("BEELINE_SOAK_SECONDS").ok();
        let seconds = seconds.map_or(Ok(LONG), |text| text.parse())?;
        let mut campaign = Campaign::new(cgroup, Seed::Random)?;
        campaign.regressions()?;
        let done = campaign.random(u64::MAX, Duration::from_secs(seconds));
        println!("{campaign}");
        done?;
        campaign.expect_accelerated()?;
        campaign.expect_every_known()
    }
}

/// The rows of the table in docs/semantics.md.
fn rows() -> Vec<String> {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/semantics.md");
    let text = std::fs::read_to_string(docs).expect("docs/semantics.md");
    let (calls, _) = text
        .split_once("\n## ")
        .expect("a section behind the table");
    let rows = calls.lines().filter(|line| line.starts_with("| "));
    // The names of the columns come first.
    rows.skip(1).map(ToOwned::to_owned).collect()
}

#[test]
fn every_known_difference_has_its_row_in_the_docs() {
    let rows = rows();
    for known in KNOWN {
        let has = |row: &String| row.starts_with(&format!("| {}", known.row));
        assert!(
            rows.iter().any(has),
            "docs/semantics.md has no row {:?}",
            known.row
        );
    }
}

#[test]
fn every_row_of_the_docs_has_tests_that_exist() {
    let mut reasons = Vec::new();
    for row in rows() {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, _, why, tests] = cells[..] else {
            panic!("not five cells: {row}");
        };
        reasons.push(!why.is_empty());
        for test in tests.split(", ").filter(|_| !tests.starts_with("none: ")) {
            assert!(exists(test), "no test {test}: {row}");
        }
    }
    assert!(
        reasons.is_sorted_by_key(|given| !given),
        "what differs comes first, and has a reason"
    );
}

/// A file or a folder of tests, as the docs name them.
fn exists(test: &str) -> bool {
    let folder = match test.split_once('/') {
        Some(("d", name)) => format!("tests/{name}"),
        Some(("b", name)) => format!("../beeline/tests/{name}"),
        _ => return false,
    };
    let at = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    at.is_dir() || at.with_extension("rs").is_file()
}
