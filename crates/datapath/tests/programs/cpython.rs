//! CPython's own tests of sockets, TLS, selectors, HTTP and asyncio: the same pass on both paths.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use datapath::abi::{Reason, Totals};
use testbed::{Cgroup, NetNs, kernel_test};

use crate::common::{Result, Sums};
use crate::stage::{
    Stage, expect_left_alone, expect_redirected, on_both_paths, play_twice, source,
};

/// How long a suite may take: some of their tests wait a lot.
const SUITE: Duration = Duration::from_secs(400);

/// The end of the names of tests that differ, for a reason that docs/semantics.md has.
const DIFFER: [&str; 1] = [
    // Close with unread data: all of the file is in the reader's queue before.
    "test_sendfile_close_peer_in_the_middle_of_receiving",
];

/// The parts of test_asyncio that make connections; the rest is about tasks, locks and processes.
const ASYNCIO: [&str; 11] = [
    "test.test_asyncio.test_base_events",
    "test.test_asyncio.test_buffered_proto",
    "test.test_asyncio.test_events",
    "test.test_asyncio.test_selector_events",
    "test.test_asyncio.test_sendfile",
    "test.test_asyncio.test_server",
    "test.test_asyncio.test_sock_lowlevel",
    "test.test_asyncio.test_ssl",
    "test.test_asyncio.test_sslproto",
    "test.test_asyncio.test_streams",
    "test.test_asyncio.test_unix_events",
];

type Outcomes = BTreeMap<String, String>;

/// Each of these tests and how it ended. They make their connections on the loopback of one namespace.
fn outcomes(stage: &Stage, tests: &[&str]) -> Result<Outcomes> {
    let script = stage.write("suite.py", source!("suite.py"))?;
    let (results, ns) = (stage.arg("results"), NetNs::new("suite")?);
    let command = ["/usr/bin/python3", &script, &results];
    let said = stage.run_long(&ns, SUITE, &[&command, tests].concat())?;
    let told = fs::read_to_string(results)?;
    let lines = told.strip_suffix("done\n").ok_or(said)?.lines();
    let parts = lines.filter_map(|line| line.rsplit_once(' '));
    Ok(parts
        .map(|(test, outcome)| (test.into(), outcome.into()))
        .collect())
}

/// The tests that did not end alike.
fn differing<'a>(plain: &'a Outcomes, beeline: &Outcomes) -> Vec<&'a str> {
    let differ = plain
        .iter()
        .filter(|(test, outcome)| beeline.get(*test) != Some(*outcome));
    differ.map(|(test, _)| test.as_str()).collect()
}

/// Suites end alike on both paths, test by test. What differs is asked again, as some depend on the clock.
/// Returns the sums of the first time with Beeline.
fn alike(cgroup: &Cgroup, suites: &[&str]) -> Result<Totals> {
    let (plain, beeline, totals) = play_twice(cgroup, |stage| outcomes(stage, suites))?;
    assert!(plain.len() > 100, "{plain:#?}");
    let mut again = differing(&plain, &beeline);
    again.retain(|test| !DIFFER.iter().any(|known| test.ends_with(known)));
    if !again.is_empty() {
        on_both_paths(cgroup, |stage| outcomes(stage, &again))?;
    }
    Ok(totals)
}

/// Of a suite whose sockets block, but for a few that have a timeout: these are enrolled. How much of theirs is
/// redirected is up to the scheduler, as most come to block when they are accepted.
#[track_caller]
fn expect_few_enrolled(totals: &Totals) {
    assert!(totals.paired > 0, "{}", Sums(totals));
    assert!(totals.count(Reason::Blocking) > 0, "{}", Sums(totals));
}

kernel_test! {
    #[deadline(900)]
    #[ignore = "make test-programs"]
    fn test_socket_passes_alike(cgroup: &Cgroup) -> Result {
        expect_few_enrolled(&alike(cgroup, &["test.test_socket"])?);
        Ok(())
    }

    #[deadline(900)]
    #[ignore = "make test-programs"]
    fn test_ssl_passes_alike(cgroup: &Cgroup) -> Result {
        expect_few_enrolled(&alike(cgroup, &["test.test_ssl"])?);
        Ok(())
    }

    /// On pairs of TCP sockets that do not block.
    #[deadline(900)]
    #[ignore = "make test-programs"]
    fn test_selectors_passes_alike(cgroup: &Cgroup) -> Result {
        expect_redirected(&alike(cgroup, &["test.test_selectors"])?, 1);
        Ok(())
    }

    /// Its servers and clients block.
    #[deadline(900)]
    #[ignore = "make test-programs"]
    fn test_httplib_passes_alike(cgroup: &Cgroup) -> Result {
        expect_left_alone(&alike(cgroup, &["test.test_httplib"])?, Reason::Blocking, 0);
        Ok(())
    }

    #[deadline(900)]
    #[ignore = "make test-programs"]
    fn test_asyncio_passes_alike(cgroup: &Cgroup) -> Result {
        expect_redirected(&alike(cgroup, &ASYNCIO)?, 1 << 20);
        Ok(())
    }
}
