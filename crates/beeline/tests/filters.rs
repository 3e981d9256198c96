//! What conns and trace show is what was asked for, and all of it.

mod common;

use std::net::TcpStream;

use common::trace::Trace;
use common::{Beeline, SOON, pair};
use serde_json::Value;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

/// The server's, of a client's socket: connections to different servers may have one port of the client's in common.
fn port(client: &TcpStream) -> String {
    client.peer_addr().unwrap().port().to_string()
}

/// The ports of the servers that `conns` shows, in its order.
fn servers(beeline: &Beeline, args: &[&str]) -> Vec<String> {
    let conns = beeline.json(&[&["conns", "--json"], args].concat());
    let conns = conns.as_array().unwrap().iter();
    let remote = |conn: &Value| conn["client"]["remote"].as_str().unwrap().to_string();
    conns
        .map(|conn| remote(conn).rsplit_once(':').unwrap().1.into())
        .collect()
}

kernel_test! {
    fn conns_shows_what_fits_in_the_order_asked_for(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (little, _server) = pair();
        let (much, _server) = pair();
        let (silent, _server) = pair();
        stream::send(&little, 1, 100, 100).unwrap();
        stream::send(&much, 1, 9_000, 900).unwrap();
        let [little, much, silent] = [&little, &much, &silent].map(port);
        assert_eq!(servers(&beeline, &[]), [&*little, &much, &silent]);
        assert_eq!(servers(&beeline, &["--sort", "bytes"]), [&*much, &little, &silent]);
        assert_eq!(servers(&beeline, &["--reverse", "--limit", "1"]), [&*silent]);
        assert_eq!(servers(&beeline, &["--port", &much]), [&*much]);
        assert_eq!(servers(&beeline, &["--address", &format!("127.0.0.1:{little}")]), [&*little]);
        assert_eq!(servers(&beeline, &["--path", "redirected"]), [&*little, &much]);
        assert_eq!(servers(&beeline, &["--path", "start,mixed"]), [&*silent]);
        assert_eq!(servers(&beeline, &["--process", "filters", "--process", &cgroup_name(cgroup)]).len(), 3);
        for nothing in [["--process", "no-such"], ["--reason", "queue_full"], ["--address", "192.0.2.0/24"]] {
            assert!(servers(&beeline, &nothing).is_empty(), "{nothing:?}");
        }
        let said = beeline.ok(&["conns", "--path", "kernel"]);
        assert!(said.contains("none of 3"), "{said}");
        assert!(beeline.ok(&["conns", "--limit", "2"]).contains("and 1 more"));
    }

    fn conns_finds_the_fastest(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (before, _server) = pair();
        stream::send(&before, 1, 50_000, 5_000).unwrap();
        let (now, server) = pair();
        let look = std::thread::scope(|scope| {
            let look = scope.spawn(|| beeline.json(&["conns", "--sort", "rate", "--json"]));
            while !look.is_finished() {
                stream::send(&now, 1, 1_000, 1_000).unwrap();
                traffic::read_all(&server, &mut [0; 1_000]).unwrap();
            }
            look.join().unwrap()
        });
        let first = &look.as_array().unwrap()[0];
        assert_eq!(first["client"]["local"], now.local_addr().unwrap().to_string());
        assert!(first["client_rate"]["redirected_bytes"].as_f64().unwrap() > 0.0, "{first}");
    }

    fn wrong_filters_are_refused_with_what_there_is(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        for (args, hint) in [
            (["conns", "--reason", "full"], "queue_full"),
            (["conns", "--path", "fast"], "mixed"),
            (["conns", "--address", "nginx"], "10.0.0.0/8"),
            (["conns", "--sort", "size"], "bytes"),
            (["trace", "--event", "opened"], "enrolled"),
            (["trace", "--rate", "0"], "0"),
        ] {
            let said = beeline.fails(&args);
            assert!(said.contains(hint), "{args:?}: {said}");
        }
    }

    fn trace_shows_the_events_asked_for_with_their_processes(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut trace = Trace::follow(&beeline, &["--event", "enrolled,closed", "--process", "filters"]);
        let (client, server) = pair();
        assert!(trace.line().contains(&format!("enrolled          client  {} ", client.local_addr().unwrap())));
        assert!(trace.line().contains("enrolled          server"));
        drop((client, server));
        let closed = trace.line();
        assert!(closed.contains("closed") && closed.contains("filters-"), "{closed}");
    }

    fn trace_counts_what_its_rate_holds_back(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut trace = Trace::follow(&beeline, &["--rate", "1", "--event", "enrolled"]);
        let _pairs: Vec<_> = (0..5).map(|_| pair()).collect();
        assert!(trace.line().contains("enrolled"));
        let told = trace.line();
        assert!(told.contains("(9 events not shown because of --rate)"), "{told}");
        assert_eq!(trace.interrupt(), "");
    }

    fn trace_in_json_tells_the_count_with_the_next_event_or_at_the_end(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut trace = Trace::follow(&beeline, &["--json", "--rate", "1", "--event", "enrolled"]);
        let _pairs: Vec<_> = (0..3).map(|_| pair()).collect();
        let first: Value = trace.json();
        assert_eq!((&first["event"], &first["withheld"]), (&"enrolled".into(), &0.into()));
        // What it held back until now cannot be seen; with the next second it is.
        let mut pairs = Vec::new();
        let start = std::time::Instant::now();
        wait_for("another second", SOON, || {
            pairs.push(pair());
            start.elapsed().as_millis() > 1_100
        }).unwrap();
        let next: Value = trace.json();
        assert!(next["withheld"].as_u64().unwrap() >= 5, "{next}");
        let said = trace.interrupt();
        assert!(said.contains("not shown because of --rate"), "{said}");
    }
}

fn cgroup_name(cgroup: &Cgroup) -> String {
    let name = cgroup.path().file_name().unwrap();
    name.to_str().unwrap().to_uppercase()
}
