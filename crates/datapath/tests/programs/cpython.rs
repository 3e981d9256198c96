//! CPython's own tests of sockets, TLS, selectors, HTTP and asyncio: the same pass on both paths.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use testbed::{Cgroup, NetNs, kernel_test};

use crate::common::Result;
use crate::stage::{Stage, on_both_paths, source};

/// They make their connections on the loopback of one namespace; some of them wait a lot.
const SUITE: Duration = Duration::from_secs(280);

/// Each test of a suite and how it ended.
fn outcomes(stage: &Stage, suite: &str) -> Result<BTreeMap<String, String>> {
    let (script, results) = (
        stage.write("suite.py", source!("suite.py"))?,
        stage.arg("results"),
    );
    let ns = NetNs::new("suite")?;
    let said = stage.run_long(&ns, SUITE, &["/usr/bin/python3", &script, &results, suite])?;
    let told = fs::read_to_string(results)?;
    let tests = told.strip_suffix("done\n").ok_or(said)?;
    let tests: BTreeMap<_, _> = tests
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(test, outcome)| (test.to_owned(), outcome.to_owned()))
        .collect();
    assert!(tests.len() > 100, "{tests:#?}");
    Ok(tests)
}

fn alike(cgroup: &Cgroup, suite: &str) -> Result {
    on_both_paths(cgroup, |stage| outcomes(stage, suite)).map(drop)
}

kernel_test! {
    #[deadline(600)]
    #[ignore = "make test-programs"]
    fn test_socket_passes_alike(cgroup: &Cgroup) -> Result {
        alike(cgroup, "test.test_socket")
    }

    #[deadline(600)]
    #[ignore = "make test-programs"]
    fn test_ssl_passes_alike(cgroup: &Cgroup) -> Result {
        alike(cgroup, "test.test_ssl")
    }

    #[deadline(600)]
    #[ignore = "make test-programs"]
    fn test_selectors_passes_alike(cgroup: &Cgroup) -> Result {
        alike(cgroup, "test.test_selectors")
    }

    #[deadline(600)]
    #[ignore = "make test-programs"]
    fn test_httplib_passes_alike(cgroup: &Cgroup) -> Result {
        alike(cgroup, "test.test_httplib")
    }

    #[deadline(600)]
    #[ignore = "make test-programs"]
    fn test_asyncio_passes_alike(cgroup: &Cgroup) -> Result {
        alike(cgroup, "test.test_asyncio")
    }
}
