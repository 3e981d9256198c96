//! `beeline retire`: connections go back to plain TCP under load, and say why (invariant 1).

mod common;

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::load::{Load, exchange};
use common::{Beeline, SOON, pair, talk};
use rustix::net::{self, SendFlags};
use serde_json::Value;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

const BYTES: u64 = 300_000;

fn conns(beeline: &Beeline) -> Vec<Value> {
    let conns = beeline.json(&["conns", "--json"]);
    conns.as_array().expect("a list").clone()
}

type Pair = (TcpStream, TcpStream);

/// The reason, and what a program does.
type WayToLeave = (&'static str, fn(&Pair));

const WAYS_TO_LEAVE: [WayToLeave; 2] = [
    ("urgent", |(client, _)| {
        net::send(client, b"!", SendFlags::OOB).unwrap();
    }),
    ("blocking", |(_, server)| {
        // Sooner, it might have been accepted and not be through with fcntl: GRACE_NS, bpf/socket.bpf.c.
        thread::sleep(Duration::from_millis(150));
        server.set_nonblocking(false).unwrap();
    }),
];

fn redirected(beeline: &Beeline) -> u64 {
    let bytes = &beeline.status()["work"]["redirected_bytes"];
    bytes.as_u64().expect("a number")
}

kernel_test! {
    fn all_go_back_under_load_and_the_agent_works_on(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let load = Load::start();
        let out = beeline.json(&["retire", "--all", "--json"]);
        assert_eq!((&out["retired"], &out["released_sockets"]), (&true.into(), &8.into()), "{out}");
        let then = redirected(&beeline);
        load.moves(20 << 20);
        assert_eq!(redirected(&beeline), then);
        let listed = conns(&beeline);
        assert_eq!(listed.len(), 4);
        for end in listed.iter().flat_map(|conn| [&conn["client"], &conn["server"]]) {
            assert_eq!((&end["path"], &end["reason"]), (&"kernel".into(), &"retired".into()), "{end}");
        }
        let status = beeline.status();
        assert_eq!(status["work"]["connections"], 0, "{status}");
        // New ones are redirected.
        exchange(BYTES);
        wait_for("the redirect", SOON, || redirected(&beeline) == then + 2 * BYTES).unwrap();
        load.finish();
        assert!(agent.terminate(), "the agent was not touched");
    }

    fn one_is_named_by_its_cookie_or_an_address(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let load = Load::start();
        let listed = conns(&beeline);
        let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
        let names = [text(&listed[0]["server"]["cookie"]), text(&listed[1]["client"]["local"])];
        for (at, name) in names.iter().enumerate() {
            let out = beeline.ok(&["retire", name]);
            assert_eq!(out, "retired: 1 connections, 2 sockets went back to plain TCP\n");
            let kept = |conn: &&Value| conn["client"]["reason"].is_null();
            assert_eq!(conns(&beeline).iter().filter(kept).count(), 3 - at);
        }
        load.moves(20 << 20);
        load.finish();
        let said = beeline.fails(&["retire", "127.0.0.1:1"]);
        assert!(said.contains("127.0.0.1:1") && said.contains("beeline conns"), "{said}");
    }

    fn connections_that_leave_by_themselves_say_why(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        for (reason, leave) in WAYS_TO_LEAVE {
            let pair = pair();
            talk(&pair);
            leave(&pair);
            wait_for(reason, SOON, || {
                talk(&pair);
                let listed = conns(&beeline);
                let ends = listed.iter().flat_map(|conn| [&conn["client"], &conn["server"]]);
                ends.filter(|end| end["path"] == "kernel" && end["reason"] == reason).count() == 2
            }).unwrap();
            drop(pair);
            wait_for("its end", SOON, || conns(&beeline).is_empty()).unwrap();
        }
    }

    fn a_reader_that_does_not_read_is_named_and_loses_nothing(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        let addr = server.local_addr().unwrap();
        let mut pattern = traffic::pattern::Pattern::new(4);
        stream::send_from(&client, &mut pattern, BYTES, 1000).unwrap();
        let said = beeline.fails(&["retire", &addr.to_string(), "--timeout", "100ms"]);
        assert!(said.contains("has not read") && said.contains(&addr.to_string()), "{said}");
        stream::send_from(&client, &mut pattern, BYTES, 1000).unwrap();
        stream::finish(&client).unwrap();
        assert_eq!(stream::verify(&server, 4, 999).unwrap(), 2 * BYTES);
        assert_eq!(redirected(&beeline), BYTES);
        beeline.ok(&["retire", "--all"]);
    }
}
