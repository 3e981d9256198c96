//! Names and labels of containers, as Podman tells them, from its socket to real connections.

mod common;

use std::net::{TcpListener, TcpStream};

use common::bed::{Bed, blocking, excluded, kernel, unblock};
use common::podman::{Podman, cgroup_of};
use common::{SOON, pair};
use testbed::{Cgroup, kernel_test, wait_for};

const LABELS: [&str; 4] = [
    "app=shop",
    "org.example.tier=",
    "io.kubernetes.pod.namespace=shop",
    "io.kubernetes.pod.name=web-0",
];

fn unknown() -> Option<String> {
    Some("unknown_workload".into())
}

kernel_test! {
    fn names_labels_and_pods_are_matched_at_either_end(cgroup: &Cgroup) {
        let mut podman = Podman::new();
        let web = cgroup_of(cgroup, &podman.create("web", &LABELS));
        let job = cgroup_of(cgroup, &podman.create("job", &[]));
        podman.start();
        let bed = Bed::with(cgroup, podman.setting(), "");
        for (ask, matches) in [
            ("container = \"web\"", true),
            ("container = [\"db\", \"w?b*\"]", true),
            ("container = \"we\"", false),
            ("container = \"web\", unit = \"*.service\"", false),
            ("labels = { app = \"shop\" }", true),
            ("labels = { app = [\"x\", \"s*\"], \"org.example.tier\" = \"\" }", true),
            ("labels = { \"org.example.tier\" = \"*\" }", true),
            ("labels = { app = \"shop\", \"org.example.tier\" = \"x\" }", false),
            ("labels = { app = \"\" }", false),
            ("labels = { none = \"*\" }", false),
            ("pod = { namespace = \"shop\" }", true),
            ("pod = { namespace = [\"shop\"], name = \"web-*\" }", true),
            ("pod = { namespace = \"bank\", name = \"web-*\" }", false),
            ("pod = { name = \"web\" }", false),
            ("container = \"web\", labels = { app = \"shop\" }, pod = { name = \"*\" }, uid = 0", true),
        ] {
            for rule in [kernel(ask, ""), kernel("", ask)] {
                bed.reload(&rule);
                web.enter().unwrap();
                let expected = matches.then(|| "excluded".to_owned());
                assert_eq!(bed.why(), expected, "{rule}");
                // Known not to be meant: another container, and what is in none.
                job.enter().unwrap();
                assert_eq!(bed.why(), None, "{rule}");
                cgroup.enter().unwrap();
                assert_eq!(bed.why(), None, "{rule}");
            }
        }
    }

    fn a_container_that_is_made_is_known_before_its_first_connection(cgroup: &Cgroup) {
        let mut podman = Podman::new();
        podman.start();
        let bed = Bed::with(cgroup, podman.setting(), &kernel("labels = { tier = \"db\" }", ""));
        for n in 0..3 {
            let id = podman.create(&format!("db-{n}"), &["tier=db"]);
            let db = cgroup_of(cgroup, &id);
            db.enter().unwrap();
            let ends = pair();
            assert!(bed.beeline.maps().conns().is_empty(), "{n}: {}", bed.reasons());
            drop(ends);
            wait_for("the agent to know it", SOON, || bed.why() == excluded()).unwrap();
            cgroup.enter().unwrap();
        }
        let web = cgroup_of(cgroup, &podman.create("web", &["tier=web"]));
        web.enter().unwrap();
        wait_for("the agent to know it", SOON, || bed.why().is_none()).unwrap();
    }

    fn what_is_told_late_is_unknown_until_then_and_stays_known(cgroup: &Cgroup) {
        let mut podman = Podman::new();
        let web_id = podman.create("web", &["app=shop"]);
        let (web, db) = (cgroup_of(cgroup, &web_id), cgroup_of(cgroup, &podman.create("db", &[])));
        let bed = Bed::with(cgroup, podman.setting(), &kernel("container = \"db\"", "labels = { app = \"none\" }"));
        assert_eq!(bed.why(), None, "what is in no container is nobody's to tell");
        for container in [&web, &db] {
            container.enter().unwrap();
            assert_eq!(bed.why(), unknown());
        }
        // The id is known of all.
        bed.reload(&kernel(&format!("container = \"{}\"", &web_id[..12]), ""));
        assert_eq!(bed.why(), None);
        web.enter().unwrap();
        assert_eq!(bed.why(), excluded());
        bed.reload(&kernel("container = \"db\"", ""));
        assert_eq!(bed.why(), unknown());

        podman.start();
        wait_for("the agent to know it", SOON, || bed.why().is_none()).unwrap();
        db.enter().unwrap();
        assert_eq!(bed.why(), excluded());

        podman.stop();
        let job = cgroup_of(cgroup, &podman.create("job", &[]));
        assert_eq!(bed.why(), excluded());
        web.enter().unwrap();
        assert_eq!(bed.why(), None);
        job.enter().unwrap();
        wait_for("the agent to see the cgroup", SOON, || {
            let explained = bed.beeline.run(&["explain", "--json", &format!("pid:{}", std::process::id()), ":80"]);
            explained.status.success()
        }).unwrap();
        assert_eq!(bed.why(), unknown());
        podman.start();
        wait_for("the agent to know it", SOON, || bed.why().is_none()).unwrap();
    }

    fn a_container_that_gets_an_excluded_name_is_taken_back(cgroup: &Cgroup) {
        let mut podman = Podman::new();
        let web = cgroup_of(cgroup, &podman.create("web", &[]));
        podman.start();
        let bed = Bed::with(cgroup, podman.setting(), &kernel("container = \"db\"", ""));
        web.enter().unwrap();
        let (_client, _server) = pair();
        assert_eq!(bed.beeline.maps().conns().len(), 1);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let waits = blocking(&listener);
        wait_for("the record", SOON, || bed.beeline.maps().waiting().len() == 1).unwrap();
        podman.run(&["rename", "web", "db"]);
        wait_for("the agent to know it", SOON, || bed.why() == excluded()).unwrap();
        wait_for("the connection to be plain TCP", SOON, || {
            let conns = bed.beeline.json(&["conns", "--json"]);
            let ends = || conns.as_array().unwrap().iter().flat_map(|conn| [&conn["client"], &conn["server"]]);
            ends().count() == 2 && ends().all(|end| end["reason"] == "excluded")
        }).unwrap();
        // What blocked when it was made is not adopted either. Whoever sees the other has seen this one.
        unblock(&waits);
        cgroup.enter().unwrap();
        let other = blocking(&TcpListener::bind(("127.0.0.1", 0)).unwrap());
        unblock(&other);
        let is_adopted = |pair: &(TcpStream, TcpStream)| !bed.beeline.conns_of(&pair.0).is_empty();
        wait_for("the adoption", SOON, || is_adopted(&other)).unwrap();
        assert!(!is_adopted(&waits));
        web.enter().unwrap();
        podman.run(&["rename", "db", "web"]);
        wait_for("the agent to know it", SOON, || bed.why().is_none()).unwrap();
    }

    fn another_agent_knows_them_when_it_takes_over(cgroup: &Cgroup) {
        let mut podman = Podman::new();
        let web = cgroup_of(cgroup, &podman.create("web", &[]));
        podman.start();
        let mut bed = Bed::with(cgroup, podman.setting(), &kernel("container = \"db\"", ""));
        web.enter().unwrap();
        let (_client, _server) = pair();
        bed.agent.take().expect("it runs").kill();
        bed.start();
        assert_eq!(bed.why(), None);
        let conns = bed.beeline.json(&["conns", "--json"]);
        assert_eq!(conns[0]["client"]["path"], "start", "{conns}");
    }

    fn views_name_containers_as_people_do(cgroup: &Cgroup) {
        let mut podman = Podman::new();
        let web = cgroup_of(cgroup, &podman.create("web", &LABELS[..1]));
        let pod = cgroup_of(cgroup, &podman.create("k8s_web", &LABELS));
        podman.start();
        let mut bed = Bed::with(cgroup, podman.setting(), "");
        let container = |bed: &Bed| bed.beeline.json(&["conns", "--json"])[0]["client"]["workload"]["container"].clone();
        pod.enter().unwrap();
        let ends = pair();
        assert_eq!(container(&bed), "shop/web-0");
        drop(ends);
        web.enter().unwrap();
        let (_client, _server) = pair();
        assert_eq!(container(&bed), "web");
        let pairs = bed.beeline.ok(&["hist", "--pairs"]);
        assert!(pairs.contains("from shop/web-0 to shop/web-0") && pairs.contains("from web to web"), "{pairs}");
        // Without an agent nobody tells.
        bed.agent.take().expect("it runs").kill();
        let id = podman.run(&["inspect", "--format", "{{.Id}}", "web"]);
        assert_eq!(container(&bed), id[..12]);
    }

    fn explain_tells_what_is_known_of_a_container(cgroup: &Cgroup) {
        let mut podman = Podman::new();
        let id = podman.create("web", &LABELS);
        let _web = cgroup_of(cgroup, &id);
        let rule = kernel("labels = { app = \"shop\" }", "");
        let bed = Bed::with(cgroup, podman.setting(), &rule);
        let explain = |name: &str| bed.beeline.json(&["explain", "--json", name, ":80"]);
        let out = explain(&format!("container:{}", &id[..12]));
        assert_eq!((&out["path"], &out["client"]["says"]), (&"kernel".into(), &"unknown".into()), "{out}");
        podman.start();
        wait_for("the agent to know it", SOON, || {
            bed.beeline.run(&["explain", "container:web", ":80"]).status.success()
        }).unwrap();
        let out = explain("container:web");
        assert_eq!((&out["path"], &out["reason"]), (&"kernel".into(), &"excluded".into()), "{out}");
        let facts = out["client"]["facts"].to_string();
        for fact in ["[\"container\",\"web\"]", "[\"pod\",\"shop/web-0\"]", "[\"labels\",\"app=shop\"]"] {
            assert!(facts.contains(fact), "{fact}: {facts}");
        }
        assert!(!facts.contains("org.example.tier"), "no rule asks for it: {facts}");
    }
}
