//! redis with a replica, PostgreSQL under pgbench, memcached with its threads.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;

use testbed::traffic::{self, pattern::Pattern};
use testbed::{Cgroup, kernel_test, wait_for};

use crate::common::{Result, SOON};
use crate::stage::{AS_NOBODY, Server, Stage, expect_redirected, on_both_paths};

const REDIS: u16 = 6379;
const POSTGRES: u16 = 5432;
const MEMCACHED: u16 = 11211;

fn redis(stage: &Stage, pod: &testbed::Pod, args: &[&str]) -> Result<Server> {
    let name = format!("redis-{}", pod.name());
    let dir = stage.nobodys(&name)?;
    let fixed = [
        "redis-server",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
        "--repl-diskless-sync-delay",
        "0",
        "--enable-debug-command",
        "yes",
        "--loglevel",
        "warning",
        "--dir",
        &dir,
    ];
    stage.serve(pod, REDIS, &[&AS_NOBODY[..], &fixed, args].concat())
}

fn redis_cli(stage: &Stage, pod: &testbed::Pod, args: &[&str]) -> Result<String> {
    let host = pod.ip().to_string();
    stage.run(&stage.client, &[&["redis-cli", "-h", &host], args].concat())
}

/// Commands that set keys to values of many sizes, in redis's protocol.
fn many_sets() -> String {
    let mut commands = String::new();
    for number in 0..6000_usize {
        let (key, value) = (format!("key{number}"), "v".repeat(number % 4000));
        let _ = write!(
            commands,
            "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
            key.len(),
            value.len()
        );
    }
    commands
}

/// A master is filled, a replica copies it, the master changes: what both hold in the end.
fn redis_replicates(stage: &Stage) -> Result<Vec<String>> {
    let master = redis(stage, &stage.server, &[])?;
    let commands = stage.write("commands", many_sets())?;
    let to = stage.server.ip().to_string();
    let pipe = format!("redis-cli -h {to} --pipe < {commands}");
    let told = stage.run(&stage.client, &["sh", "-c", &pipe])?;
    assert!(told.contains("errors: 0, replies: 6000"), "{told}");
    let replica = redis(
        stage,
        &stage.proxy,
        &["--replicaof", &to, &REDIS.to_string()],
    )?;
    let up = || {
        redis_cli(stage, &stage.proxy, &["INFO", "replication"])
            .is_ok_and(|told| told.contains("master_link_status:up"))
    };
    wait_for("a replica that is in step", SOON, up)?;
    let large = "x".repeat(100_000);
    for number in 0..20 {
        redis_cli(
            stage,
            &stage.server,
            &["SET", &format!("later{number}"), &large],
        )?;
    }
    let acknowledged = redis_cli(stage, &stage.server, &["-2", "WAIT", "1", "20000"])?;
    let digest = |pod| redis_cli(stage, pod, &["DEBUG", "DIGEST"]);
    let told = vec![acknowledged, digest(&stage.server)?, digest(&stage.proxy)?];
    assert_eq!(told[1], told[2], "the replica's data");
    let said = master.log() + &replica.log();
    let complaints = ["rror", "onnection lost", "onnection with", "imeout"];
    assert!(!complaints.iter().any(|word| said.contains(word)), "{said}");
    replica.end()?;
    master.end()?;
    Ok(told)
}

/// The newest PostgreSQL: its programs are not in PATH on Debian.
fn postgres_bin() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .map_err(|_| "no PostgreSQL: apt-get install postgresql")?;
    let newest = versions.flatten().max_by_key(|dir| {
        dir.file_name()
            .to_string_lossy()
            .parse::<u32>()
            .unwrap_or(0)
    });
    Ok(newest
        .ok_or("no PostgreSQL: apt-get install postgresql")?
        .path()
        .join("bin"))
}

fn postgres(stage: &Stage) -> Result<Server> {
    let (bin, dir) = (postgres_bin()?, stage.nobodys("postgres")?);
    let program = |name: &str| bin.join(name).display().to_string();
    let data = format!("{dir}/data");
    let init = [
        &program("initdb"),
        "-D",
        &data,
        "-U",
        "bench",
        "-A",
        "trust",
        "-N",
        "--no-instructions",
    ];
    stage.run_long(&stage.server, SOON * 3, &[&AS_NOBODY[..], &init].concat())?;
    fs::write(
        format!("{data}/pg_hba.conf"),
        "host all all 0.0.0.0/0 trust\n",
    )?;
    let port = POSTGRES.to_string();
    let serve = [
        &program("postgres"),
        "-D",
        &data,
        "-k",
        &dir,
        "-h",
        "0.0.0.0",
        "-p",
        &port,
        "-F",
        "-c",
        "shared_buffers=32MB",
    ];
    stage.serve(&stage.server, POSTGRES, &[&AS_NOBODY[..], &serve].concat())
}

/// Fills tables, runs transactions of four clients, copies a table out and back in.
fn pgbench(stage: &Stage) -> Result<Vec<String>> {
    let server = postgres(stage)?;
    let (bin, host) = (postgres_bin()?, stage.server.ip().to_string());
    let client = |name: &str, args: &[&str]| {
        let program = bin.join(name).display().to_string();
        let to = [&program, "-h", &host, "-p", "5432", "-U", "bench"];
        stage.run(&stage.client, &[&to[..], args, &["postgres"]].concat())
    };
    let sql = |text: &str| client("psql", &["-XAtqc", text, "-d"]);
    client("pgbench", &["-i", "-q", "-s", "1"])?;
    let report = client("pgbench", &["-n", "-c", "4", "-j", "2", "-t", "100"])?;
    let done = report
        .lines()
        .find(|line| line.contains("actually processed"));
    let failed = report
        .lines()
        .find(|line| line.contains("failed transactions"));
    let sums = sql(
        "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
            (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history)",
    )?;
    let copy = stage.arg("copy");
    sql(&format!(
        "\\copy (select aid, bid, filler from pgbench_accounts order by aid) to '{copy}'"
    ))?;
    sql("create table again (aid int, bid int, filler char(84))")?;
    sql(&format!("\\copy again from '{copy}'"))?;
    let same = sql("select count(*) from again join pgbench_accounts using (aid, bid, filler)")?;
    server.end_content()?;
    Ok(vec![
        done.ok_or("a number of transactions")?.into(),
        failed.ok_or("a number of failures")?.into(),
        sums,
        same,
    ])
}

/// One client of memcached's text protocol: sets values of many sizes, and gets them back.
fn memcached_client(sock: &TcpStream, id: u64) -> Result<u64> {
    let mut right = 0;
    for size in [1, 100, 4000, 60_000, 900_000].into_iter().cycle().take(60) {
        let mut value = vec![0; size];
        Pattern::new(id + right).fill(&mut value);
        traffic::write_all(sock, format!("set k{id} 0 0 {size}\r\n").as_bytes())?;
        traffic::write_all(sock, &[&value[..], b"\r\n"].concat())?;
        let mut stored = [0; 8];
        traffic::read_all(sock, &mut stored)?;
        assert_eq!(&stored, b"STORED\r\n");
        traffic::write_all(sock, format!("get k{id}\r\n").as_bytes())?;
        let head = format!("VALUE k{id} 0 {size}\r\n");
        let mut answer = vec![0; head.len() + size + b"\r\nEND\r\n".len()];
        traffic::read_all(sock, &mut answer)?;
        right += u64::from(answer[head.len()..][..size] == value[..]);
    }
    Ok(right)
}

fn memcached(stage: &Stage) -> Result<Vec<u64>> {
    let port = MEMCACHED.to_string();
    let command = [
        "memcached",
        "-t",
        "4",
        "-l",
        "0.0.0.0",
        "-U",
        "0",
        "-p",
        &port,
    ];
    let server = stage.serve(
        &stage.server,
        MEMCACHED,
        &[&AS_NOBODY[..], &command].concat(),
    )?;
    let to = (stage.server.ip(), MEMCACHED);
    let right = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|id| scope.spawn(move || memcached_client(&stage.client.connect(to)?, 1000 * id)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client panicked"))
            .collect::<Result<_>>()
    })?;
    assert_eq!(server.end()?, "");
    Ok(right)
}

kernel_test! {
    fn redis_replicates_alike(cgroup: &Cgroup) -> Result {
        expect_redirected(&on_both_paths(cgroup, redis_replicates)?, 1 << 20);
        Ok(())
    }

    #[ignore = "make test-programs"]
    fn pgbench_runs_alike(cgroup: &Cgroup) -> Result {
        expect_redirected(&on_both_paths(cgroup, pgbench)?, 64 << 10);
        Ok(())
    }

    #[ignore = "make test-programs"]
    fn memcached_answers_alike(cgroup: &Cgroup) -> Result {
        expect_redirected(&on_both_paths(cgroup, memcached)?, 1 << 20);
        Ok(())
    }
}
