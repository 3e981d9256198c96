//! Rules of the configuration, from the file to real connections.

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::bed::{Bed, blocking, excluded, kernel, path, unblock};
use common::load::Load;
use common::{SOON, pair};
use testbed::{Cgroup, kernel_test, wait_for};

kernel_test! {
    fn every_field_is_matched_at_either_end(cgroup: &Cgroup) {
        let id = "0123456789abcdef".repeat(4);
        let unit = cgroup.child("web.service").unwrap();
        let container = unit.child(&format!("docker-{id}.scope")).unwrap();
        container.enter().unwrap();
        let bed = Bed::new(cgroup, "");
        let own = path(cgroup);
        let binary = std::env::current_exe().unwrap();
        let directory = binary.parent().unwrap().display().to_string();
        assert_eq!(bed.why(), None);
        for (ask, matches) in [
            (format!("cgroup = \"{own}\""), true),
            (format!("cgroup = [\"/nowhere\", \"{own}/web.*/*\"]"), true),
            (format!("cgroup = \"{own}/db.*\""), false),
            ("unit = \"web.service\"".into(), true),
            ("unit = [\"db.service\", \"w?b.*\"]".into(), true),
            ("unit = \"db.service\"".into(), false),
            ("container = \"*\"".into(), true),
            (format!("container = \"{id}\""), true),
            ("container = \"0123456789ab\"".into(), true),
            ("container = \"0123456789ac\"".into(), false),
            (format!("executable = \"{}\"", binary.display()), true),
            (format!("executable = \"{directory}/*\""), true),
            ("executable = \"/usr/bin/*\"".into(), false),
            ("uid = [7, 0]".into(), true),
            ("uid = 7".into(), false),
            ("cidr = \"127.0.0.0/8\"".into(), true),
            ("cidr = [\"10.0.0.0/8\", \"::/0\"]".into(), false),
            ("port = [\"1024-65535\"]".into(), true),
            ("port = \"1-1023\"".into(), false),
            ("unit = \"web.service\", uid = 0, cidr = \"127.0.0.1\"".into(), true),
            ("unit = \"web.service\", uid = 7".into(), false),
            ("unit = \"web.service\", container = \"fedcba987654\"".into(), false),
        ] {
            for rule in [kernel(&ask, ""), kernel("", &ask)] {
                bed.reload(&rule);
                let expected = matches.then(|| "excluded".to_owned());
                assert_eq!(bed.why(), expected, "{rule}");
            }
        }
    }

    fn the_default_decides_where_no_rule_does_and_one_end_is_enough(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup, "[defaults]\npath = \"kernel\"\n");
        assert_eq!(bed.why(), excluded());
        let rule = |path, ask| format!("[[rule]]\npath = \"{path}\"\nlocal = {{ {ask} }}\n");
        let otherwise = "[defaults]\npath = \"kernel\"\n";
        for path in ["socket", "auto"] {
            bed.reload(&(rule(path, "port = \"1024-65535\"") + otherwise));
            assert_eq!(bed.why(), None, "{path}");
        }
        bed.reload(&(rule("socket", "port = 1") + otherwise));
        assert_eq!(bed.why(), excluded());
        bed.reload("");
        assert_eq!(bed.why(), None);
    }

    /// No connection of a cgroup that a rule names is ever enrolled, however soon it is made; of
    /// others, some may be left alone until the agent knows their cgroups.
    fn a_workload_that_starts_is_judged_from_its_first_connection_on(cgroup: &Cgroup) {
        let own = path(cgroup);
        let bed = Bed::new(cgroup, &kernel(&format!("cgroup = \"{own}/*/db-*\""), ""));
        let outer = cgroup.child("apps").unwrap();
        for n in 0..100 {
            let inner = outer.child(&format!("db-{n}")).unwrap();
            inner.enter().unwrap();
            let ends = pair();
            assert!(bed.beeline.maps().conns().is_empty(), "{n}: {}", bed.reasons());
            drop(ends);
            cgroup.enter().unwrap();
        }
        assert_eq!(bed.count("excluded") + bed.count("unknown_workload"), 100);
        let web = outer.child("web").unwrap();
        web.enter().unwrap();
        wait_for("the agent to know it", SOON, || bed.why().is_none()).unwrap();
        let known = bed.count("excluded");
        let db = outer.child("db-x").unwrap();
        db.enter().unwrap();
        wait_for("the agent to know it", SOON, || bed.why() == excluded()).unwrap();
        assert!(bed.count("excluded") > known);
    }

    fn without_an_agent_the_rules_hold_and_a_new_workload_is_left_alone(cgroup: &Cgroup) {
        let own = path(cgroup);
        let mut bed = Bed::new(cgroup, &kernel(&format!("cgroup = \"{own}/db\""), ""));
        let (web, db) = (cgroup.child("web").unwrap(), cgroup.child("db").unwrap());
        web.enter().unwrap();
        wait_for("the agent to know it", SOON, || bed.why().is_none()).unwrap();
        db.enter().unwrap();
        wait_for("the agent to know it", SOON, || bed.why() == excluded()).unwrap();
        assert!(bed.agent.take().expect("it runs").terminate());
        assert_eq!(bed.why(), excluded());
        web.enter().unwrap();
        assert_eq!(bed.why(), None);
        let new = cgroup.child("new").unwrap();
        new.enter().unwrap();
        assert_eq!(bed.why().as_deref(), Some("unknown_workload"));
        bed.start();
        assert_eq!(bed.why(), None);
    }

    fn reload_takes_back_what_is_excluded_now_and_loses_nothing(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup, "");
        let load = Load::start();
        let out = bed.reload(&kernel("port = 1", ""));
        assert_eq!(out["excluded"], 0, "{out}");
        let out = bed.reload(&kernel("cidr = \"127.0.0.1\"", "uid = 0"));
        assert_eq!(out["excluded"], 4, "{out}");
        let then = bed.redirected();
        load.moves(20 << 20);
        assert_eq!(bed.redirected(), then);
        bed.all_excluded(4);
        assert_eq!(bed.why(), excluded());
        // What is included again is redirected when it connects again.
        bed.reload("");
        assert_eq!(bed.why(), None);
        load.moves(10 << 20);
        assert_eq!(bed.redirected(), then);
        load.finish();
    }

    fn reloads_one_after_the_other_under_load_lose_nothing(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup, "");
        let loads: Vec<_> = (0..6)
            .map(|n| {
                let load = Load::start();
                bed.reload(&kernel(&format!("port = \"{n}-60000\""), &format!("uid = {n}")));
                load.moves(4 << 20);
                load
            })
            .collect();
        for load in loads {
            load.finish();
        }
    }

    fn an_agent_that_starts_with_other_rules_takes_back_what_they_exclude(cgroup: &Cgroup) {
        let mut bed = Bed::new(cgroup, "");
        let load = Load::start();
        bed.agent.take().expect("it runs").kill();
        bed.write(&kernel("uid = 0", ""));
        bed.start();
        bed.all_excluded(4);
        let then = bed.redirected();
        load.moves(10 << 20);
        assert_eq!(bed.redirected(), then);
        load.finish();
    }

    /// One end blocked when it was made.
    fn what_waits_is_judged_by_the_rules_that_came_since(cgroup: &Cgroup) {
        let mut bed = Bed::new(cgroup, &kernel("port = 1", ""));
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = format!("port = {}", listener.local_addr().unwrap().port());
        let late = format!("[[rule]]\npath = \"socket\"\nadopt = false\nlocal = {{ {port} }}\n");
        for (rules, restart, adopted) in [
            (kernel("port = 2", ""), false, true),
            (String::new(), false, true),
            (kernel(&port, ""), false, false),
            (late, false, false),
            (kernel("port = 3", ""), true, true),
            (kernel(&port, "uid = 0"), true, false),
        ] {
            bed.reload(&kernel("port = 1", ""));
            let (waits, other) = (blocking(&listener), TcpListener::bind(("127.0.0.1", 0)).unwrap());
            wait_for("the record", SOON, || bed.beeline.maps().waiting().len() == 1).unwrap();
            if restart {
                bed.agent.take().expect("it runs").kill();
                bed.write(&rules);
                bed.start();
            } else {
                bed.reload(&rules);
            }
            unblock(&waits);
            // Whoever sees this one has seen the other.
            let new = blocking(&other);
            unblock(&new);
            let is_adopted = |pair: &(TcpStream, TcpStream)| bed.beeline.conns_of(&pair.0).len() == 1;
            wait_for("the new one's adoption", SOON, || is_adopted(&new)).unwrap();
            if adopted {
                wait_for("the adoption", SOON, || is_adopted(&waits)).unwrap();
            }
            assert_eq!(is_adopted(&waits), adopted, "{rules}");
            drop((waits, new));
            wait_for("their end", SOON, || bed.beeline.maps().waiting().is_empty()).unwrap();
        }
    }

    fn explain_names_the_rule_and_its_line(cgroup: &Cgroup) {
        let web = cgroup.child("web.service").unwrap();
        let bed = Bed::new(cgroup, "");
        bed.reload(
            "[[rule]]\nname = \"databases\"\npath = \"kernel\"\nlocal = { port = 5432 }\n\n\
             [[rule]]\npath = \"socket\"\nlocal = { unit = \"web.service\" }\n\n\
             [defaults]\npath = \"kernel\"\n",
        );
        web.enter().unwrap();
        wait_for("the agent to know it", SOON, || bed.why().is_none()).unwrap();
        let explain = |ends: &[&str]| bed.beeline.json(&[&["explain", "--json"], ends].concat());
        let place = |line| format!("{}:{line}", bed.file().display());
        let own = format!("pid:{}", std::process::id());

        let out = explain(&["10.0.0.1:40000", "10.0.0.2:5432"]);
        assert_eq!((&out["path"], &out["reason"]), (&"kernel".into(), &"excluded".into()), "{out}");
        assert_eq!(out["server"]["rule"]["place"], place(1));
        assert_eq!(out["server"]["rule"]["name"], "databases");

        let out = explain(&[&format!("{own}@127.0.0.1:40000"), "unit:web.service@127.0.0.1:80"]);
        assert_eq!(out["path"], "socket", "{out}");
        assert_eq!(out["client"]["rule"]["place"], place(6));

        let out = explain(&[&own, "10.0.0.2"]);
        assert_eq!((&out["path"], &out["client"]["says"]), (&"depends".into(), &"depends".into()), "{out}");

        let out = explain(&["unit:web.service@:9", &format!("cgroup:{}@:80", path(cgroup))]);
        assert_eq!((&out["path"], &out["server"]["says"]), (&"socket".into(), &"nothing".into()), "{out}");

        let (client, _server) = pair();
        let addr = client.local_addr().unwrap().to_string();
        let out = explain(&[&addr]);
        assert_eq!((&out["path"], &out["client"]["now"]), (&"socket".into(), &"start".into()), "{out}");
        assert_eq!(out["server"]["rule"]["place"], place(6), "{out}");
        let text = bed.beeline.ok(&["explain", &addr]);
        assert!(text.contains("socket path") && text.contains(&place(6)), "{text}");
        bed.reload("[[rule]]\npath = \"kernel\"\n");
        let out = explain(&[&addr]);
        assert_eq!((&out["path"], &out["client"]["now"]), (&"kernel".into(), &"kernel (excluded)".into()), "{out}");

        for (ends, hint) in [
            (vec!["127.0.0.1:1"], "name both its ends"),
            (vec!["pid:4194999", ":80"], "there is no process"),
            (vec!["unit:no.service", ":80"], "there is no unit:no.service"),
            (vec!["nginx", ":80"], "it needs pid:NUMBER"),
        ] {
            let said = bed.beeline.fails(&[&["explain"], &ends[..]].concat());
            assert!(said.contains(hint), "{said}");
        }
    }

    fn explain_names_the_program_that_may_splice(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup, "");
        let python = testbed::process::find("python3").expect("scripts/setup.sh test says how");
        let mut child = Command::new(&python)
            .args(["-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); input()"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let own = format!("pid:{}", std::process::id());
        let explain = || bed.beeline.json(&["explain", "--json", &own, &format!("pid:{}", child.id())]);
        wait_for("the agent to know it", SOON, || explain()["reason"] == "may_splice").unwrap();
        let out = explain();
        let python = fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        assert_eq!(out["path"], "kernel", "{out}");
        assert_eq!(out["server"]["may_splice"], python.to_str().unwrap(), "{out}");
        assert!(out["client"]["may_splice"].is_null(), "{out}");
        let text = bed.beeline.ok(&["explain", &own, &format!("pid:{}", child.id())]);
        assert!(text.contains(&format!("may call splice(2): {}", python.display())), "{text}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    fn a_mistake_keeps_the_old_rules(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup, &kernel("uid = 0", ""));
        bed.write("[[rule]]\npath = \"socket\"\nlocal = { uid = 0, prt = 80 }\n");
        let said = bed.beeline.fails(&["reload"]);
        assert!(said.contains("config.toml:3:20") && said.contains("`port`"), "{said}");
        assert_eq!(bed.why(), excluded());
    }

    fn an_executable_that_starts_is_known_before_it_is_enrolled(cgroup: &Cgroup) {
        let Some(curl) = testbed::process::find("curl") else {
            panic!("curl is not installed: scripts/setup.sh test says how");
        };
        let curl = fs::canonicalize(curl).unwrap();
        let bed = Bed::new(cgroup, &kernel(&format!("executable = \"{}\"", curl.display()), ""));
        assert_eq!(bed.why(), None);
        let (listener, addr) = testbed::traffic::listen(([127, 0, 0, 1], 0)).unwrap();
        let call = |curl: &PathBuf| {
            let url = format!("http://{addr}/");
            let mut child = std::process::Command::new(curl)
                .args(["--silent", "--max-time", "20", &url])
                .spawn()
                .unwrap();
            let server = testbed::traffic::accept(&listener).unwrap();
            testbed::traffic::write_all(&server, b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
            drop(server);
            child.wait().unwrap();
        };
        let before = bed.beeline.maps().totals().unwrap().enrolled;
        wait_for("the agent to know it", SOON, || {
            call(&curl);
            bed.count("excluded") > 0
        }).unwrap();
        assert_eq!(bed.beeline.maps().totals().unwrap().enrolled, before);
    }
}
