//! iperf3 in its modes: with room enough everything is redirected.

use datapath::abi::{Reason, Totals};
use datapath::socket::Options;
use testbed::{Cgroup, kernel_test};

use crate::common::{Bed, Result, Sums, expect_reasons};
use crate::stage::Stage;

/// Runs iperf3 with these arguments; returns the sums, and how many bytes it received.
fn iperf3(bed: &Bed, args: &[&str]) -> Result<(Totals, u64)> {
    let stage = Stage::new()?;
    let server = stage.serve(&stage.server, 5201, &["iperf3", "-s", "-1"])?;
    let command = ["iperf3", "-J", "-c", &stage.server.ip().to_string()];
    let report = stage.run(&stage.client, &[&command, args].concat())?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    drop(server);
    let mut received = 0;
    for sum in ["sum_received", "sum_received_bidir_reverse"] {
        received += report["end"][sum]["bytes"].as_u64().unwrap_or(0);
    }
    assert!(received > 0, "{report:#}");
    Ok((bed.emptied()?, received))
}

/// All of iperf3's connections are enrolled, and nothing of what it sent went through the stack.
fn iperf3_redirected(cgroup: &Cgroup, args: &[&str], connections: u64) -> Result {
    let (totals, received) = iperf3(&Bed::on(cgroup)?, args)?;
    let late = totals.count(Reason::PeerLate);
    expect_reasons(&totals, &[(Reason::PeerLate, late)]);
    assert_eq!(totals.paired, connections, "{}", Sums(&totals));
    assert!(
        totals.closed_redirected_bytes >= received,
        "{}",
        Sums(&totals)
    );
    // The control connection and the streams' cookies may be early; the streams are not.
    assert!(
        totals.closed_kernel_bytes < 10_000 * (late + 1),
        "{}",
        Sums(&totals)
    );
    Ok(())
}

kernel_test! {
    fn iperf3_one_way_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-n", "20M", "-b", "400M"], 2)
    }

    fn iperf3_reverse_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-R", "-n", "20M", "-b", "400M"], 2)
    }

    fn iperf3_both_ways_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["--bidir", "-n", "20M", "-b", "400M"], 3)
    }

    fn iperf3_with_four_streams_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-P", "4", "-n", "20M", "-b", "100M"], 5)
    }

    /// As fast as it can, for a second: the reader may fall behind, nothing else may happen.
    fn iperf3_without_limit_works(cgroup: &Cgroup) -> Result {
        let (totals, received) = iperf3(&Bed::with(cgroup, Options::default())?, &["-t", "1"])?;
        let of = |reason| (reason, totals.count(reason));
        expect_reasons(&totals, &[of(Reason::PeerLate), of(Reason::QueueFull)]);
        assert_eq!(totals.paired, 2);
        assert!(totals.closed_redirected_bytes + totals.closed_kernel_bytes >= received);
        assert!(totals.closed_redirected_bytes > 0);
        Ok(())
    }

    /// The same thread sends and receives on both sides, so both queues grow as far as they may.
    fn iperf3_both_ways_without_limit_works(cgroup: &Cgroup) -> Result {
        let (totals, received) = iperf3(&Bed::with(cgroup, Options::default())?, &["-t", "1", "--bidir"])?;
        assert_eq!(totals.paired, 3);
        assert!(totals.closed_redirected_bytes + totals.closed_kernel_bytes >= received);
        Ok(())
    }
}
