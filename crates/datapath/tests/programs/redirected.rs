//! With room enough for all that is sent at once, everything of these programs is redirected.

use std::fs;

use datapath::abi::{Reason, Totals};
use testbed::{Cgroup, kernel_test};

use crate::common::{Bed, LARGE, Result, Sums, expect_reasons};
use crate::stage::{Server, Stage};
use crate::web::{WEB, nginx};

/// Everything was enrolled but a connection of a client that blocks, and all was redirected but the
/// beginnings of directions that began too early, or before a server had accepted and called fcntl,
/// and the ends of those whose client was gone.
fn redirected(bed: &Bed, connections: u64, bytes: u64) -> Result<Totals> {
    let totals = bed.emptied()?;
    let late = totals.count(Reason::PeerLate);
    let blocking = totals.count(Reason::Blocking);
    let gone = [Reason::PeerGone, Reason::ShutDown].map(|reason| (reason, totals.count(reason)));
    let early = [(Reason::PeerLate, late), (Reason::Blocking, blocking)];
    expect_reasons(&totals, &[early, gone].concat());
    assert!(blocking <= 2, "{}", Sums(&totals));
    assert_eq!(totals.enrolled, 2 * totals.paired);
    assert!(totals.paired >= connections, "{}", Sums(&totals));
    assert!(totals.closed_redirected_bytes >= bytes, "{}", Sums(&totals));
    let messages = late + blocking + gone[0].1 + gone[1].1;
    assert!(
        totals.closed_kernel_bytes <= 10_000 * messages,
        "{}",
        Sums(&totals)
    );
    Ok(totals)
}

/// nginx with the files of the stage; `sendfile` is `large`, sent with sendfile(2).
fn files(stage: &Stage) -> Result<Server> {
    let blocks = format!(
        "server {{ listen {WEB}; listen [::]:{WEB}; root {root};
            location = /sendfile {{ sendfile on; alias {root}/large; }} }}",
        root = stage.arg("")
    );
    nginx(stage, &stage.server, WEB, &blocks)
}

kernel_test! {
    fn redis_benchmark_is_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let command = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no"];
        let server = stage.serve(&stage.server, 6379, &command)?;
        let (to, tests) = (stage.server.ip().to_string(), "set,get,lrange_100");
        let command = ["redis-benchmark", "-h", &to, "-n", "20000", "-c", "50", "-d", "100", "-t", tests, "--csv"];
        let report = stage.run(&stage.client, &command)?;
        assert!(report.contains("\"SET\"") && report.contains("\"GET\""), "{report}");
        drop(server);
        // Keys go there, values come back.
        redirected(&bed, 150, 20_000 * 2 * 100)?;
        Ok(())
    }

    fn nginx_and_wrk_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        stage.fill("small", 1000)?;
        let server = files(&stage)?;
        let url = format!("http://{}:{WEB}/small", stage.server.ip());
        let report = stage.run(&stage.client, &["wrk", "-t", "1", "-c", "20", "-d", "1", &url])?;
        let failed = ["Non-2xx", "Socket errors"].iter().any(|word| report.contains(word));
        assert!(report.contains("requests in") && !failed, "{report}");
        drop(server);
        redirected(&bed, 20, 1000 * 1000)?;
        Ok(())
    }

    fn nginx_and_curl_carry_a_large_file(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        let sent = stage.fill("large", 2 * LARGE)?;
        let server = files(&stage)?;
        let mut got = Vec::new();
        for host in [stage.server.ip().to_string(), format!("[{}]", stage.server.ip6())] {
            for name in ["large", "sendfile"] {
                let (url, out) = (format!("http://{host}:{WEB}/{name}"), stage.arg("got"));
                stage.run(&stage.client, &["curl", "-sSf", "-g", "-o", &out, &url])?;
                got.push(fs::read(&out)? == sent);
            }
        }
        assert_eq!(got, [true; 4], "IPv4 and IPv6, with write(2) and sendfile(2)");
        drop(server);
        redirected(&bed, 4, 4 * 2 * LARGE)?;
        Ok(())
    }

    fn curl_keeps_a_connection_for_many_requests(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let stage = Stage::new()?;
        stage.fill("small", 100)?;
        let server = files(&stage)?;
        let url = format!("http://{}:{WEB}/small?[1-500]", stage.server.ip());
        stage.run(&stage.client, &["curl", "-sSf", &url])?;
        drop(server);
        let totals = redirected(&bed, 1, 500 * 100)?;
        assert_eq!(totals.paired, 1);
        Ok(())
    }
}
