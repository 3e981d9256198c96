//! iperf3 in its modes: its streams are adopted when they do not block any more.

use datapath::abi::{Reason, Totals};
use datapath::socket::Options;
use testbed::{Cgroup, kernel_test};

use crate::common::{Bed, Result, Sums, expect_reasons};
use crate::stage::{Stage, watched};

/// Runs iperf3 with these arguments; returns the sums, and how many bytes it received.
fn iperf3(bed: &Bed, args: &[&str]) -> Result<(Totals, u64)> {
    let stage = Stage::new()?;
    let to = stage.server.ip().to_string();
    let report = watched(bed, || {
        let _server = stage.serve(&stage.server, 5201, &["iperf3", "-s", "-1"])?;
        let command = ["iperf3", "-J", "-c", &to];
        stage.run(&stage.client, &[&command, args].concat())
    })?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let mut received = 0;
    for sum in ["sum_received", "sum_received_bidir_reverse"] {
        received += report["end"][sum]["bytes"].as_u64().unwrap_or(0);
    }
    assert!(received > 0, "{report:#}");
    Ok((bed.emptied()?, received))
}

/// iperf3 connects with sockets that block, and moves its streams with sockets that do not; its
/// control connection stays as it is. Most of what a stream moves is redirected.
fn iperf3_redirected(cgroup: &Cgroup, args: &[&str], streams: u64) -> Result {
    let (totals, received) = iperf3(&Bed::on(cgroup)?, args)?;
    let of = |reason| (reason, totals.count(reason));
    expect_reasons(&totals, &[of(Reason::Blocking)]);
    assert_eq!(totals.paired, streams, "{}", Sums(&totals));
    assert!(
        totals.closed_redirected_bytes >= received / 2,
        "{}",
        Sums(&totals)
    );
    Ok(())
}

kernel_test! {
    fn iperf3_one_way_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-n", "20M", "-b", "200M"], 1)
    }

    fn iperf3_reverse_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-R", "-n", "20M", "-b", "200M"], 1)
    }

    fn iperf3_both_ways_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["--bidir", "-n", "20M", "-b", "200M"], 2)
    }

    fn iperf3_with_four_streams_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-P", "4", "-n", "20M", "-b", "50M"], 4)
    }

    /// As fast as it can, for a second: the reader may fall behind, nothing else may happen.
    fn iperf3_without_limit_works(cgroup: &Cgroup) -> Result {
        let (totals, _) = iperf3(&Bed::with(cgroup, Options::default())?, &["-t", "1"])?;
        let of = |reason| (reason, totals.count(reason));
        expect_reasons(&totals, &[of(Reason::Blocking), of(Reason::QueueFull)]);
        assert_eq!(totals.paired, 1);
        assert!(totals.closed_redirected_bytes > 0);
        Ok(())
    }

    /// The same thread sends and receives on both sides, so both queues grow as far as they may.
    fn iperf3_both_ways_without_limit_works(cgroup: &Cgroup) -> Result {
        let (totals, _) = iperf3(&Bed::with(cgroup, Options::default())?, &["-t", "1", "--bidir"])?;
        // A stream that is under way before it was looked at is never at rest, and so not adopted.
        assert!((1..=2).contains(&totals.paired), "{}", Sums(&totals));
        Ok(())
    }
}
