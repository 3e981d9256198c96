//! What status, conns and trace show is what the test itself did (invariant 7).

mod common;

use common::trace::Trace;
use common::{Beeline, SOON, pair};
use serde_json::Value;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

kernel_test! {
    fn conns_shows_both_ends_their_process_and_their_bytes(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        stream::send(&client, 1, 10_000, 100).unwrap();
        stream::send(&server, 2, 500, 500).unwrap();
        let conns = beeline.json(&["conns", "--json"]);
        let conn = &conns.as_array().unwrap()[0];
        let (c, s) = (&conn["client"], &conn["server"]);
        assert_eq!(conns.as_array().unwrap().len(), 1, "{conns}");
        assert_eq!(c["local"], client.local_addr().unwrap().to_string());
        assert_eq!(s["local"], server.local_addr().unwrap().to_string());
        assert_eq!((&c["path"], &s["path"]), (&"socket".into(), &"socket".into()), "{conn}");
        assert_eq!((&c["redirected_bytes"], &c["redirected_messages"]), (&10_000.into(), &100.into()));
        assert_eq!((&s["redirected_bytes"], &s["kernel_bytes"]), (&500.into(), &0.into()));
        assert_eq!((&c["unread_bytes"], &s["unread_bytes"]), (&500.into(), &10_000.into()));
        assert_eq!(c["workload"]["pid"], std::process::id());
        let name = cgroup.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(c["workload"]["cgroup"], format!("/{name}"));
        assert!(beeline.ok(&["conns"]).contains(&client.local_addr().unwrap().to_string()));
    }

    fn status_counts_what_was_sent(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        for _ in 0..3 {
            let (client, server) = pair();
            stream::send(&client, 1, 7_000, 700).unwrap();
            drop(server);
        }
        let (client, _server) = pair();
        stream::send(&client, 1, 9_000, 900).unwrap();
        let done = |status: &Value| status["work"]["connections"] == 1;
        wait_for("the closed ones", SOON, || done(&beeline.status())).unwrap();
        let work = &beeline.status()["work"];
        assert_eq!(work["connections_ever"], 4, "{work}");
        assert_eq!(work["redirected_bytes"], 3 * 7_000 + 9_000, "{work}");
        assert_eq!(work["redirected_messages"], 40, "{work}");
        assert_eq!((&work["kernel_bytes"], &work["sockets"]), (&0.into(), &2.into()), "{work}");
        assert_eq!(work["reasons"], Value::Object(Default::default()), "{work}");
    }

    fn verbose_status_tells_what_the_programs_and_maps_cost(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        let watched = std::thread::scope(|scope| {
            let look = scope.spawn(|| beeline.json(&["status", "--verbose", "--json"]));
            while !look.is_finished() {
                traffic::write_all(&client, b"hello").unwrap();
                traffic::read_all(&server, &mut [0; 5]).unwrap();
            }
            look.join().unwrap()
        });
        let sent = watched["work"]["redirected_messages"].as_u64().unwrap();
        let costs = &watched["costs"];
        let named = |kind: &str, name: &str| {
            let of_kind = costs[kind].as_array().unwrap().iter();
            of_kind.clone().find(|one| one["name"] == name).cloned()
        };
        let program = named("programs", "beeline_sk_msg").unwrap();
        let more = beeline.status()["work"]["redirected_messages"].as_u64().unwrap() - sent;
        assert!((1..=more).contains(&program["runs"].as_u64().unwrap()), "{program} {more}");
        for number in ["run_ns", "verified_instructions", "code_bytes"] {
            assert!(program[number].as_u64().unwrap() > 0, "{program}");
        }
        assert!(named("programs", "beeline_sock_op").is_some(), "{costs}");
        assert!(named("maps", "socks").unwrap()["memory_bytes"].as_u64().unwrap() > 0, "{costs}");
        assert!(beeline.ok(&["status", "-v"]).contains("beeline_sk_msg"));
        assert_eq!(beeline.status().get("costs"), None, "nobody asked");
    }

    fn trace_tells_the_life_of_a_connection(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut trace = Trace::follow(&beeline, &["--json"]);
        let (client, server) = pair();
        stream::send(&client, 1, 100, 100).unwrap();
        drop((client, server));
        let mut seen = Vec::new();
        for _ in 0..6 {
            let event = trace.json();
            assert_ne!(event["cookie"], 0, "{event}");
            seen.push(format!("{} {}", event["role"].as_str().unwrap(), event["event"].as_str().unwrap()));
        }
        assert_eq!(seen[..4], ["client enrolled", "server enrolled", "server paired", "client redirect_started"]);
        seen[4..].sort();
        assert_eq!(seen[4..], ["client closed", "server closed"]);
    }

    fn trace_says_why_a_connection_is_left_alone(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut trace = Trace::follow(&beeline, &["--json"]);
        let socket = traffic::options::SocketOptions::new().mptcp();
        let (listener, addr) = socket.listen(([127, 0, 0, 1], 0)).unwrap();
        let _client = socket.connect(addr).unwrap();
        let _server = traffic::accept(&listener).unwrap();
        let event = trace.json();
        assert_eq!((&event["event"], &event["reason"]), (&"established".into(), &"mptcp".into()));
        wait_for("the count", SOON, || {
            beeline.status()["work"]["reasons"]["mptcp"].as_u64() >= Some(1)
        }).unwrap();
        assert!(beeline.ok(&["status"]).contains("Multipath TCP"));
    }

    fn nobody_is_told_when_nobody_listens(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        drop(Trace::follow(&beeline, &["--json"]));
        let maps = beeline.maps();
        wait_for("tracing to end", SOON, || maps.settings().unwrap().tracing == 0).unwrap();
        let _trace = Trace::follow(&beeline, &["--json"]);
        assert!(agent.terminate(), "a follower does not keep the agent");
        assert_eq!(maps.settings().unwrap().tracing, 0);
    }
}
