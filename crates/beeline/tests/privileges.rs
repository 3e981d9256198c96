//! The agent keeps the capabilities that it promises to keep, no others, and gets on with them.

mod common;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;

use beeline::agent::privileges::TO_SERVE;
use common::{Agent, Beeline, SOON, output_of};
use serde_json::json;
use tempfile::TempDir;
use testbed::{Cgroup, Node, kernel_test, traffic, wait_for};

const NOBODY: u32 = 65_534;

/// The value of a field in the status file of each thread (proc(5)).
fn of_threads(agent: &Agent, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let texts = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let value = |text: String| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {text}"))
            .trim()
            .to_owned()
    };
    texts.map(value).collect()
}

fn mask() -> String {
    let bits = TO_SERVE
        .iter()
        .map(|one| one.bitmask())
        .fold(0, |all, one| all | one);
    format!("{bits:016x}")
}

kernel_test! {
    fn no_thread_has_more_than_is_promised(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        // Asked at the start, and then by a thread.
        let dir = TempDir::new().unwrap();
        let (socket, config) = (dir.path().join("docker.sock"), dir.path().join("config.toml"));
        let daemon = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || daemon.incoming().for_each(drop));
        fs::write(&config, format!("[containers]\nsockets = [\"{}\"]\n", socket.display())).unwrap();
        let agent = beeline.agent_with(&["--config", config.to_str().unwrap()]);
        // It answers when it has all its threads.
        beeline.ok(&["status"]);
        let none = format!("{:016x}", 0);
        for (field, expected) in [
            ("CapPrm", mask()),
            ("CapEff", mask()),
            ("CapBnd", mask()),
            ("CapInh", none.clone()),
            ("CapAmb", none),
            ("NoNewPrivs", "1".into()),
        ] {
            let found = of_threads(&agent, field);
            assert!(found.len() > 3, "several threads: {found:?}");
            assert!(found.iter().all(|one| *one == expected), "{field}: {found:?}");
        }
        let names = TO_SERVE.map(|one| one.to_string());
        assert_eq!(beeline.status()["agent"]["capabilities"], json!(names));
        assert!(beeline.ok(&["status"]).contains(&names.join(" ")));
    }

    /// CAP_SYS_ADMIN to enter their namespaces, CAP_SYSLOG to find out that nobody sleeps in a read.
    fn connections_of_pods_are_adopted(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let node = Node::new().unwrap();
        let (web, client) = (node.pod("web").unwrap(), node.pod("client").unwrap());
        let listener = web.run(|| TcpListener::bind((web.ip(), 0))).unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        let a = client.run(|| TcpStream::connect(addr)).unwrap().unwrap();
        let b = listener.accept().unwrap().0;
        for sock in [&a, &b] {
            sock.set_nonblocking(true).unwrap();
        }
        let enrolled = || beeline.maps().conns().len() == 1;
        wait_for("the adoption", SOON, enrolled).unwrap();
    }

    /// CAP_SYS_PTRACE to find its files, CAP_DAC_READ_SEARCH to read them.
    fn programs_of_other_users_are_looked_at(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (dir, (listener, addr)) =
            (TempDir::new().unwrap(), traffic::listen(([127, 0, 0, 1], 0)).unwrap());
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = dir.path().join("client");
        // std copies files by splice(2), and a program that has it is left alone.
        let install = ["-m", "500", "-o", "65534", "-g", "65534", "/bin/bash"];
        output_of(Command::new("install").args(install).arg(&program));
        let connects = format!("while read; do : </dev/tcp/127.0.0.1/{}; done", addr.port());
        let mut client = Command::new(&program)
            .args(["-c", &connects])
            .uid(NOBODY)
            .gid(NOBODY)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // What bash makes blocks.
        let is_known = || {
            client.stdin.as_ref().expect("piped").write_all(b"\n").unwrap();
            drop(traffic::accept(&listener).unwrap());
            beeline.status()["work"]["reasons"]["blocking"].as_u64().is_some()
        };
        let known = wait_for("the agent to know the program", SOON, is_known);
        drop(client.stdin.take());
        client.wait().unwrap();
        known.unwrap();
    }
}
